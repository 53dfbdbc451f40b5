//go:build unix

package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The signals are those of the real process.
func TestSignalsReloadNothingAndStopCleanly(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	// Under this name the test binary is the command, see TestMain.
	cmd.Args = []string{
		"curfew", "serve", "--url", "http://127.0.0.1:4180", "--issuer", "http://127.0.0.1:9", "--client-id", "app",
		"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
	}
	cmd.Dir = t.TempDir()
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := pipe.(*os.File).SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	await := func(what string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), what) {
				return
			}
		}
		t.Fatalf("it did not say %s: %v", what, lines.Err())
	}
	signal := func(s os.Signal) {
		t.Helper()
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	await("event=not_ready") // by then it hears signals
	signal(syscall.SIGHUP)
	await("event=reload_refused")
	signal(syscall.SIGTERM)
	await("event=stopped")
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("want exit status 0, got %v", err)
	}
}
