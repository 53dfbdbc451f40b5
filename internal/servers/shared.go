package servers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// T is what a server needs of the test that it runs for; a [testing.TB] has it.
type T interface {
	Helper()
	Fatal(...any)
	Skip(...any)
	Cleanup(func())
}

// Group are servers that belong together, and how `--store` names them.
type Group struct {
	URL   string
	Nodes []*Server
}

// Shared is a group that tests of a package share. It is started for the first who asks, and runs until it is closed.
type Shared struct {
	start           func(T) *Group
	once            sync.Once
	group           *Group // nil, when one of the next two says why
	failed, skipped string
	cleanups        []func()
}

// Get returns the servers, for a test to use as many others do. It does not stop them.
func (s *Shared) Get(t testing.TB) *Group {
	t.Helper()
	s.once.Do(func() {
		var starting sync.WaitGroup
		starting.Go(func() { s.group = s.start((*life)(s)) })
		starting.Wait()
	})
	switch {
	case s.skipped != "":
		t.Skip(s.skipped)
	case s.group == nil:
		t.Fatal(s.failed)
	}
	return s.group
}

// Own is Get for a test that asks the servers themselves: it is skipped, aloud, when somebody named others.
func (s *Shared) Own(t testing.TB) *Group {
	t.Helper()
	g := s.Get(t)
	if len(g.Nodes) == 0 {
		t.Skip("NOT TESTED: the server that was named is not ours to look into")
	}
	return g
}

// Close stops the servers, if anybody asked for them. It is for TestMain to call, after the tests.
func (s *Shared) Close() {
	for _, cleanup := range slices.Backward(s.cleanups) {
		cleanup()
	}
}

// life is the [T] of servers that outlive the test which asked first.
type life Shared

func (l *life) Helper()              {}
func (l *life) Cleanup(f func())     { l.cleanups = append(l.cleanups, f) }
func (l *life) Fatal(message ...any) { l.failed = fmt.Sprint(message...); runtime.Goexit() }
func (l *life) Skip(message ...any)  { l.skipped = fmt.Sprint(message...); runtime.Goexit() }

// The ports of the servers are below those that Linux gives to outgoing connections (from 32768), so that nobody gets
// one of them by chance while its server is not running yet, or not at the moment.
const firstPort, ports = 21000, 11000

// reserve finds a port of loopback that nobody listens on. What says to others that do the same that it is taken is a
// socket with the same number, of UDP, which nothing here uses: it ends with this process, whatever ends that.
func reserve() (port int, release func(), err error) {
	first := rand.IntN(ports)
	for i := range ports {
		port = firstPort + (first+i)%ports
		at := fmt.Sprintf("127.0.0.1:%d", port)
		reservation, err := net.ListenPacket("udp", at)
		if err != nil {
			continue
		}
		if l, err := net.Listen("tcp", at); err == nil {
			return port, func() { reservation.Close() }, l.Close()
		}
		reservation.Close()
	}
	return 0, nil, errors.New("no port is free")
}

// Port is one that nobody listens on, and that no server gets while the test runs.
func Port(t T) int {
	t.Helper()
	port, release, err := reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return port
}

// find returns where a program is, which hint says how to get. Debian puts servers where not everybody looks, and
// PostgreSQL's beside others of other versions: the last is taken.
func find(t T, program, hint string) string {
	t.Helper()
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	var found []string
	versions, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
	for _, path := range append([]string{"/usr/sbin/" + program}, versions...) {
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		need(t, "there is no "+program+": "+hint)
	}
	return found[len(found)-1]
}

// need skips a test for which something is missing, aloud. In CI, where that would go unseen, it fails.
func need(t T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip("NOT TESTED: " + why)
}
