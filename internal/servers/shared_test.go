//go:build unix

package servers_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
)

func TestAServerThatWasKilledKeepsItsPort(t *testing.T) {
	t.Parallel()
	s := servers.OwnRedis(t)
	s.Kill()
	// This is how all who look for a port learn that one is taken.
	if c, err := net.ListenPacket("udp", s.Addr()); err == nil {
		c.Close()
		t.Error("another server could get the port")
	}
}

func TestAServerEndsWithTheProcessThatStartedIt(t *testing.T) {
	t.Parallel()
	const child = "CURFEW_SERVERS_TEST_CHILD"
	s := servers.OwnRedis(t)
	if os.Getenv(child) != "" {
		s.Freeze() // which is no way out
		fmt.Println("pid", s.PID)
		io.Copy(io.Discard, os.Stdin)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), child+"=1", "TMPDIR="+t.TempDir())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := out.(*os.File).SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	var pid int
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		fmt.Sscanf(lines.Text(), "pid %d", &pid)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if pid == 0 {
		t.Fatal("the other process started no server")
	}
	often := time.NewTicker(5 * time.Millisecond)
	defer often.Stop()
	for giveUp := time.After(2 * time.Minute); !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH); {
		select {
		case <-often.C:
		case <-giveUp:
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the server goes on")
		}
	}
}

// asker is a test that remembers why it failed, instead of failing.
type asker struct {
	testing.TB
	told string
}

func (a *asker) Fatal(message ...any) { a.told = fmt.Sprint(message...); runtime.Goexit() }

func TestWhatDoesNotStartIsToldToAllWhoShareIt(t *testing.T) {
	t.Parallel()
	servers.OwnRedis(t) // or there is no Redis, and this is skipped
	shared := servers.SharedRedisCluster("--no-such-setting", "1")
	defer shared.Close()
	for range 2 {
		a := &asker{TB: t}
		var asking sync.WaitGroup
		asking.Go(func() { shared.Get(a) })
		asking.Wait()
		if !strings.Contains(a.told, "no-such-setting") {
			t.Errorf("told %q, want the setting that is wrong", a.told)
		}
	}
}

func TestServersAreSharedUntilTheyAreClosed(t *testing.T) {
	t.Parallel()
	shared := servers.SharedRedis()
	if shared.Own(t) != shared.Get(t) {
		t.Error("who asks next gets others")
	}
	s := shared.Get(t).Nodes[0]
	shared.Close()
	if c, err := net.DialTimeout("tcp", s.Addr(), time.Minute); err == nil {
		c.Close()
		t.Error("the server goes on")
	}
	servers.SharedPostgres().Close() // for which nobody asked
}
