package servers

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is a server that runs for one test, or for several tests that share it. URL is its address for `--store`.
// Port, URL and data stay the same when it is stopped and started again.
type Server struct {
	URL  string
	Port int
	PID  int // of the process that listens; it changes with each Start

	t        T
	notOwned string // why the server must not be stopped; empty: this package started it
	dir      string
	as       *syscall.SysProcAttr // the user it runs as; nil: that of this process
	command  []string
	ready    string         // what it logs when it accepts connections
	orderly  syscall.Signal // makes it shut down
	orphan   syscall.Signal // ends it at once if this process dies
	log      logTail
	mu       sync.Mutex    // guards the fields below
	shell    *exec.Cmd     // the parent process, which ends the server if this process dies; nil: it is not running
	gone     chan struct{} // closed at the end of the output, so when none of its processes is left
}

// patience bounds every wait. It is long, so that only a hang reaches it, even on a busy machine.
const patience = 15 * time.Minute

// logTail is the end of a server's log.
type logTail struct {
	mu    sync.Mutex
	lines []string
}

func (l *logTail) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines = append(l.lines, line); len(l.lines) > 200 {
		l.lines = l.lines[100:]
	}
}

// Log returns the end of the server's log.
func (s *Server) Log() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return strings.Join(s.log.lines, "\n")
}

// Addr returns the address on which the server listens.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// Own skips the test if the server must not be stopped or frozen, since it was not started by this package.
func (s *Server) Own() {
	s.t.Helper()
	if s.notOwned != "" {
		need(s.t, s.notOwned)
	}
}

// Start starts a server that was stopped, on the same port and with its data. It returns when the server accepts
// connections.
func (s *Server) Start() {
	s.t.Helper()
	s.Own()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop makes the server shut down, and returns when it has.
func (s *Server) Stop() {
	s.t.Helper()
	s.Own()
	s.end(s.orderly)
}

// Kill ends the server and all its processes as kill -9 does, and returns when they are gone.
func (s *Server) Kill() {
	s.t.Helper()
	s.Own()
	s.end(syscall.SIGKILL)
}

// Freeze suspends the server and all its processes: connections stay open and are not answered.
func (s *Server) Freeze() {
	s.t.Helper()
	s.Own()
	s.signal(freeze)
}

// Thaw resumes a frozen server.
func (s *Server) Thaw() {
	s.t.Helper()
	s.Own()
	s.signal(thaw)
}

// newServer returns a server that is not running yet, with a directory of its own below parent. "" means in memory, if
// possible; for a benchmark it means on a disk.
func newServer(t T, parent, ready string, orderly syscall.Signal) *Server {
	t.Helper()
	if unsupported != "" {
		need(t, unsupported)
	}
	if _, measured := t.(*testing.B); parent == "" && !measured {
		parent = memory()
	}
	// t.TempDir is closed to other users, and so to the server's user.
	dir, err := os.MkdirTemp(parent, "curfew-server-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &Server{t: t, dir: dir, ready: ready, orderly: orderly, orphan: syscall.SIGKILL}
}

// launch starts the server for the first time, on a port of its own. If another program has that port, it tries others.
func (s *Server) launch(command func(port int) []string) {
	s.t.Helper()
	var err error
	for range 5 {
		var release func()
		if s.Port, release, err = reserve(); err != nil {
			break
		}
		s.command = command(s.Port)
		if err = s.start(); err == nil {
			s.t.Cleanup(func() { s.end(syscall.SIGKILL); release() })
			return
		}
		release()
		if !strings.Contains(err.Error(), "Address already in use") &&
			!strings.Contains(err.Error(), "could not bind") {
			break
		}
	}
	s.t.Fatal(err)
}

// start starts the server, and returns when it accepts connections.
func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shell != nil {
		return errors.New("the server runs already")
	}
	// A second child of the shell reads from this process until it dies, and then ends the server. Background processes
	// of a shell ignore SIGINT and SIGQUIT, unless they handle them.
	script := fmt.Sprintf(`exec 3<&0; "$0" "$@" </dev/null 3<&- & server=$!; echo "pid $server"
		{ cat <&3; kill -%d $server; kill -%d $server; } >/dev/null 2>&1 & wait $server; kill $!`, s.orphan, thaw)
	shell := exec.Command("/bin/sh", append([]string{"-c", script}, s.command...)...)
	shell.Dir, shell.SysProcAttr = s.dir, s.as
	if _, err := shell.StdinPipe(); err != nil {
		return err
	}
	// One pipe for the output of all processes. It is at its end when the last of them has ended.
	output, input, err := os.Pipe()
	if err != nil {
		return err
	}
	shell.Stdout, shell.Stderr = input, input
	if err := errors.Join(shell.Start(), input.Close()); err != nil {
		return errors.Join(err, output.Close())
	}
	s.shell, s.gone, s.PID = shell, make(chan struct{}), 0
	ready, pid := make(chan struct{}), make(chan int, 1)
	go s.read(output, ready, pid, s.gone)
	s.PID = <-pid
	select {
	case <-ready:
		return nil
	case <-s.gone:
	case <-time.After(patience):
		s.kill(syscall.SIGKILL)
	}
	s.awaitEnd()
	return fmt.Errorf("%s does not start:\n%s", filepath.Base(s.command[0]), s.Log())
}

// read reads the output of the shell and the server until all their processes have ended.
func (s *Server) read(output *os.File, ready chan<- struct{}, pid chan<- int, gone chan<- struct{}) {
	defer close(gone)
	defer output.Close()
	defer close(pid)
	isReady := sync.OnceFunc(func() { close(ready) })
	for lines := bufio.NewScanner(output); lines.Scan(); {
		line := lines.Text()
		if text, ok := strings.CutPrefix(line, "pid "); ok && len(pid) == 0 {
			if n, err := strconv.Atoi(text); err == nil {
				pid <- n
				continue
			}
		}
		s.log.add(line)
		if strings.Contains(line, s.ready) {
			isReady()
		}
	}
}

// end ends the server with a signal, if it is running.
func (s *Server) end(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shell == nil {
		return
	}
	s.kill(thaw)
	s.kill(signal)
	s.awaitEnd()
}

// awaitEnd waits until all processes have ended. Those of a killed server may need a moment to notice.
func (s *Server) awaitEnd() {
	select {
	case <-s.gone:
	case <-time.After(patience):
		s.kill(syscall.SIGKILL)
		<-s.gone
	}
	s.shell.Wait()
	s.shell, s.PID = nil, 0
}

func (s *Server) signal(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill(signal)
}

// kill sends a signal to the server. Signals that the server does not pass on go to its child processes too.
func (s *Server) kill(signal syscall.Signal) {
	if s.PID <= 0 {
		return
	}
	select {
	case <-s.gone: // it has ended by itself, and another process may have its number by now
		return
	default:
	}
	var children []byte
	if signal == freeze {
		send(s.PID, signal) // before the look at its children: it has no others then
	}
	if signal == syscall.SIGKILL || signal == freeze || signal == thaw {
		children, _ = os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.PID, s.PID))
	}
	send(s.PID, signal)
	for _, child := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			send(pid, signal)
		}
	}
}
