//go:build unix

package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestAUnixSocketIsOpenedOrNotWithAReason(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "curfew.sock")
	first, err := listenPublic(t.Context(), "unix:"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	if _, err := listenPublic(t.Context(), "unix:"+path, nil); err == nil ||
		!strings.Contains(err.Error(), "another program listens there") {
		t.Errorf("a second one: %v", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()

	// What a crash leaves.
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	again, err := listenPublic(t.Context(), "unix:"+path, nil)
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	again.Close()
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is left")
	}

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenPublic(t.Context(), "unix:"+file, nil); err == nil ||
		!strings.Contains(err.Error(), "which is no socket") {
		t.Errorf("a file: %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
	if _, err := listenPublic(t.Context(), "unix:"+filepath.Join(dir, "none", "x"), nil); err == nil {
		t.Error("a folder that is not there")
	}
}

func TestASocketOfSystemdIsTakenByItsProcessAlone(t *testing.T) {
	t.Parallel()
	own := "LISTEN_PID=" + strconv.Itoa(os.Getpid())
	for name, row := range map[string]struct {
		environ []string
		want    string
	}{
		"none":                {nil, "passed no socket to this process"},
		"of another process":  {[]string{"LISTEN_PID=1", "LISTEN_FDS=1"}, "passed no socket to this process"},
		"two":                 {[]string{own, "LISTEN_FDS=2"}, "want one socket"},
		"a number that is no": {[]string{own, "LISTEN_FDS=x"}, "want one socket"},
	} {
		if _, err := listenPublic(t.Context(), "systemd", row.environ); err == nil ||
			!strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}
