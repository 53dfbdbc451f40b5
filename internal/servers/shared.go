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

// T is the part of [testing.TB] that this package needs.
type T interface {
	Helper()
	Fatal(...any)
	Skip(...any)
	Cleanup(func())
}

// Group is several servers that belong together, and their address for `--store`.
type Group struct {
	URL   string
	Nodes []*Server
}

// Shared is a group that the tests of a package share. The first Get starts it, and it runs until Close.
type Shared struct {
	start           func(T) *Group
	once            sync.Once
	group           *Group // nil if one of the next two is set
	failed, skipped string
	cleanups        []func()
}

// Get returns the servers. The test must not stop them, since others use them.
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

// Own is Get for a test that inspects the servers themselves. It skips the test if they were not started here.
func (s *Shared) Own(t testing.TB) *Group {
	t.Helper()
	g := s.Get(t)
	if len(g.Nodes) == 0 {
		t.Skip("NOT TESTED: the servers were named, not started, and must not be inspected")
	}
	return g
}

// Close stops the servers, if they were started. TestMain calls it after the tests.
func (s *Shared) Close() {
	for _, cleanup := range slices.Backward(s.cleanups) {
		cleanup()
	}
}

// life is the [T] of servers that outlive the test which started them.
type life Shared

func (l *life) Helper()              {}
func (l *life) Cleanup(f func())     { l.cleanups = append(l.cleanups, f) }
func (l *life) Fatal(message ...any) { l.failed = fmt.Sprint(message...); runtime.Goexit() }
func (l *life) Skip(message ...any)  { l.skipped = fmt.Sprint(message...); runtime.Goexit() }

// The ports of the servers are below those of outgoing connections on Linux (from 32768), so that no connection gets
// one of them by chance while its server is not running.
const firstPort, ports = 21000, 11000

// reserve finds a loopback port on which nothing listens. To reserve it among processes that use this function, it
// opens a UDP socket with the same number, which is closed when this process ends, however it ends.
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

// Port returns a port on which nothing listens, and which no other server gets while the test runs.
func Port(t T) int {
	t.Helper()
	port, release, err := reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return port
}

// find returns the path of a program. If it is missing, the test is skipped with hint, which says how to install it.
// Debian installs servers outside the usual PATH, and PostgreSQL in a directory for each version: the last one is used.
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

// need skips a test for which something is missing. In CI, where a skipped test would be overlooked, it fails.
func need(t T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip("NOT TESTED: " + why)
}
