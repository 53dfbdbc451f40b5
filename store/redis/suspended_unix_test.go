//go:build unix

package redis_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
)

func TestAReplicaThatWasSuspendedServesNobodyWhoEndedMeanwhile(t *testing.T) {
	t.Parallel()
	url, o := single.Get(t).URL, redis.Options{Prefix: prefix(), Timeout: 30 * time.Second}
	here := replicate(t, url, o, session.Config{})
	ends, stays := here.SignIn(t, "alice", "s1"), here.SignIn(t, "bob", "s2")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), childURL+"="+url, childPrefix+"="+o.Prefix)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		child.Process.Signal(syscall.SIGCONT)
		in.Close()
		if err := child.Wait(); err != nil {
			t.Errorf("the other replica: %v", err)
		}
	})
	if err := out.(*os.File).SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewScanner(out)
	ask := func(b session.Bearer) string {
		fmt.Fprintln(in, b.Reveal())
		if !answers.Scan() {
			t.Fatalf("the other replica has ended, or hangs: %v", answers.Err())
		}
		return strings.TrimSpace(answers.Text())
	}
	for _, b := range []session.Bearer{ends, stays} {
		rig.Poll(t, "the other replica has a copy", func() bool { return ask(b) == "cached" })
	}
	child.Process.Signal(syscall.SIGSTOP)
	dead := here.EndAll(t, store.Selector{Subject: "alice"})
	rig.Poll(t, "the ceiling has passed", func() bool { return time.Since(dead) > rig.MaxStale })
	// The question is there when it wakes, before any message of the feed can have been looked at.
	fmt.Fprintln(in, ends.Reveal())
	child.Process.Signal(syscall.SIGCONT)
	if !answers.Scan() {
		t.Fatalf("the other replica has ended, or hangs: %v", answers.Err())
	}
	if got := answers.Text(); got == "cached" || got == "read" {
		t.Errorf("who ended while it was suspended: %s, want it refused", got)
	}
	rig.Poll(t, "who ended is refused", func() bool { return ask(ends) == "refused" })
	rig.Poll(t, "the other replica trusts its feed again", func() bool { return ask(stays) == "cached" })
}
