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

// Server is a server that runs for one test, or for those that share it. URL is how `--store` names it. Port and URL
// stay the same when it is stopped and started again, and so does what it keeps.
type Server struct {
	URL  string
	Port int
	PID  int // of the process that listens; another one after each Start

	t       T
	lent    string // why this server cannot be stopped: somebody named it. Empty: it is our own.
	dir     string
	as      *syscall.SysProcAttr // as whom it runs; nil: as this process does
	command []string
	ready   string         // what it logs when it takes connections
	orderly syscall.Signal // asks it to end in order
	orphan  syscall.Signal // ends it at once, should this process die
	log     tail
	mu      sync.Mutex    // held over what is below
	shell   *exec.Cmd     // the parent of the server, which ends it should this process die; nil: it does not run
	gone    chan struct{} // closed when all it logged has been read, so when no process of it is left
}

// patience is a bound for a machine that is very busy, not a pause.
const patience = 2 * time.Minute

// tail is the end of what a server logged.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (l *tail) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines = append(l.lines, line); len(l.lines) > 200 {
		l.lines = l.lines[100:]
	}
}

// Log is the end of what the server has logged.
func (s *Server) Log() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return strings.Join(s.log.lines, "\n")
}

// Addr is where it listens.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// Own skips the test, aloud, when the server is one that somebody named, and so none to stop or freeze.
func (s *Server) Own() {
	s.t.Helper()
	if s.lent != "" {
		need(s.t, s.lent)
	}
}

// Start starts a server that was stopped, on the same port and with what it kept. It returns when that takes
// connections.
func (s *Server) Start() {
	s.t.Helper()
	s.Own()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop asks the server to end, and returns when it has.
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

// Freeze stops the server and all its processes where they are: connections stay, and nobody answers.
func (s *Server) Freeze() {
	s.t.Helper()
	s.Own()
	s.signal(freeze)
}

// Thaw lets a frozen server go on.
func (s *Server) Thaw() {
	s.t.Helper()
	s.Own()
	s.signal(thaw)
}

// newServer returns a server that is still to be launched, with a folder of its own below parent, where "" means in
// memory if that is possible; for a benchmark it means on a disk.
func newServer(t T, parent, ready string, orderly syscall.Signal) *Server {
	t.Helper()
	if notHere != "" {
		need(t, notHere)
	}
	if _, measured := t.(*testing.B); parent == "" && !measured {
		parent = memory()
	}
	// A test's own folder is closed to others, and so to the server's user.
	dir, err := os.MkdirTemp(parent, "curfew-server-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &Server{t: t, dir: dir, ready: ready, orderly: orderly, orphan: syscall.SIGKILL}
}

// launch starts the server for the first time, on a port of its own: on another when somebody who reserves none had it.
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

// start returns when the server takes connections.
func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shell != nil {
		return errors.New("the server runs already")
	}
	// Beside the server somebody reads until this process dies, or all is over. What a shell leaves running ignores
	// SIGINT and SIGQUIT, unless it says otherwise itself.
	script := fmt.Sprintf(`exec 3<&0; "$0" "$@" </dev/null 3<&- & server=$!; echo "pid $server"
		{ cat <&3; kill -%d $server; kill -%d $server; } >/dev/null 2>&1 & wait $server; kill $!`, s.orphan, thaw)
	shell := exec.Command("/bin/sh", append([]string{"-c", script}, s.command...)...)
	shell.Dir, shell.SysProcAttr = s.dir, s.as
	if _, err := shell.StdinPipe(); err != nil {
		return err
	}
	// One pipe for all that is said; it ends when the last process has gone.
	said, saying, err := os.Pipe()
	if err != nil {
		return err
	}
	shell.Stdout, shell.Stderr = saying, saying
	if err := errors.Join(shell.Start(), saying.Close()); err != nil {
		return errors.Join(err, said.Close())
	}
	s.shell, s.gone, s.PID = shell, make(chan struct{}), 0
	ready, pid := make(chan struct{}), make(chan int, 1)
	go s.read(said, ready, pid, s.gone)
	s.PID = <-pid
	select {
	case <-ready:
		return nil
	case <-s.gone:
	case <-time.After(patience):
		s.kill(syscall.SIGKILL)
	}
	s.reap()
	return fmt.Errorf("%s does not start:\n%s", filepath.Base(s.command[0]), s.Log())
}

// read reads what the shell and the server say until all are gone.
func (s *Server) read(said *os.File, ready chan<- struct{}, pid chan<- int, gone chan<- struct{}) {
	defer close(gone)
	defer said.Close()
	defer close(pid)
	isReady := sync.OnceFunc(func() { close(ready) })
	for lines := bufio.NewScanner(said); lines.Scan(); {
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

// end ends the server with a signal; one that does not run has ended already.
func (s *Server) end(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shell == nil {
		return
	}
	s.kill(thaw)
	s.kill(signal)
	s.reap()
}

// reap waits until the server has gone. The processes of one that was killed may need a moment to notice.
func (s *Server) reap() {
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

// kill sends a signal to the server; what tells nobody of itself, or cannot be refused, to all its processes.
func (s *Server) kill(signal syscall.Signal) {
	if s.PID <= 0 {
		return
	}
	select {
	case <-s.gone: // by itself, and the number may be another's by now
		return
	default:
	}
	var children []byte
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
