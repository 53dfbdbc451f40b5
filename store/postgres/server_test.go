//go:build unix

package postgres_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// findBinaries returns the folder of PostgreSQL's programs.
func findBinaries() (string, error) {
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(found) > 0 {
		return filepath.Dir(slices.Max(found)), nil
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", errors.New("SKIPPED: needs a PostgreSQL server: apt-get install postgresql, or name one in CURFEW_TEST_POSTGRES")
}

// asServer makes cmd run as somebody whom PostgreSQL accepts: it refuses root.
func asServer(cmd *exec.Cmd) error {
	if os.Getuid() != 0 {
		return nil
	}
	uid, gid, err := serverUser()
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return nil
}

func serverUser() (uid, gid int, err error) {
	for _, name := range []string{"postgres", "nobody"} {
		var u *user.User
		if u, err = user.Lookup(name); err == nil {
			uid, _ = strconv.Atoi(u.Uid)
			gid, _ = strconv.Atoi(u.Gid)
			return uid, gid, nil
		}
	}
	return 0, 0, err
}

// template is a database cluster that was just made; servers begin with a copy of it.
var template struct {
	once sync.Once
	dir  string
	err  error
}

func makeTemplate() (string, error) {
	template.once.Do(func() {
		template.dir, template.err = serverDir("")
		if template.err != nil {
			return
		}
		bin, err := findBinaries()
		if err != nil {
			template.err = err
			return
		}
		cmd := exec.Command(filepath.Join(bin, "initdb"), "-D", filepath.Join(template.dir, "data"), "-U", "curfew", "-A", "trust",
			"-E", "UTF8", "--locale=C", "--no-sync")
		template.err = asServer(cmd)
		if out, err := cmd.CombinedOutput(); err != nil {
			template.err = fmt.Errorf("initdb: %w\n%s", err, out)
		}
	})
	return template.dir, template.err
}

// serverDir makes a folder that the server's user can write to.
func serverDir(parent string) (string, error) {
	dir, err := os.MkdirTemp(parent, "curfew-postgres-")
	if err == nil && os.Getuid() == 0 {
		var uid, gid int
		if uid, gid, err = serverUser(); err == nil {
			err = os.Chown(dir, uid, gid)
		}
	}
	return dir, err
}

// server is a PostgreSQL server of our own.
type server struct {
	dir, data string
	port      int
	settings  []string

	shell *exec.Cmd // the parent of the server, which ends it should this process die
	stdin io.Closer
	said  chan string // what the server logs
	pid   int
}

// newServer makes a server in a folder of its own and starts it.
func newServer(settings ...string) (*server, error) { return newServerIn("", settings...) }

func newServerIn(parent string, settings ...string) (*server, error) {
	from, err := makeTemplate()
	if err != nil {
		return nil, err
	}
	s := &server{settings: settings}
	if s.dir, err = serverDir(parent); err != nil {
		return nil, err
	}
	s.data = filepath.Join(s.dir, "data")
	if out, err := exec.Command("cp", "-a", filepath.Join(from, "data"), s.data).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cp: %w\n%s", err, out)
	}
	if s.port, err = freePort(); err == nil {
		err = s.start()
	}
	if err != nil {
		os.RemoveAll(s.dir)
		return nil, err
	}
	return s, nil
}

// ownServer is a server that a test can do with as it likes.
func ownServer(t testing.TB, settings ...string) *server {
	t.Helper()
	if _, err := findBinaries(); err != nil {
		need(t, err.Error())
	}
	s, err := newServer(settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	return s
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *server) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

func (s *server) url() string {
	return fmt.Sprintf("postgres://curfew@%s/postgres?sslmode=disable", s.address())
}

// start returns when the server takes connections.
func (s *server) start() error {
	bin, err := findBinaries()
	if err != nil {
		return err
	}
	args := []string{"-D", s.data, "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "max_connections=200", "-c", "fsync=on", "-c", "logging_collector=off"}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	// The shell reads until this process closes its end, or dies.
	s.shell = exec.Command("/bin/sh", append([]string{"-c", `"$0" "$@" </dev/null & cat >/dev/null; kill -QUIT $! 2>/dev/null; wait $!`,
		filepath.Join(bin, "postgres")}, args...)...)
	s.shell.Dir = s.dir
	if err := asServer(s.shell); err != nil {
		return err
	}
	if s.stdin, err = s.shell.StdinPipe(); err != nil {
		return err
	}
	stderr, err := s.shell.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.shell.Start(); err != nil {
		return err
	}
	said := make(chan string, 1000) // the goroutine may outlive the server that it listens to
	s.said = said
	go func() {
		defer close(said)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			select {
			case said <- lines.Text():
			default: // nobody listens
			}
		}
	}()
	var all []string
	for line := range s.said {
		all = append(all, line)
		switch {
		case strings.Contains(line, "ready to accept connections"):
			return s.readPID()
		case strings.Contains(line, "FATAL:  lock file"), strings.Contains(line, "FATAL:  pre-existing shared memory"):
			// Processes of one that was killed are still on their way out.
			s.stdin.Close()
			s.shell.Wait()
			return s.start()
		case strings.Contains(line, "database system is shut down"), strings.Contains(line, "FATAL:  could not"):
			s.stdin.Close()
			s.shell.Wait()
			return fmt.Errorf("the server does not start:\n%s", strings.Join(all, "\n"))
		}
	}
	return fmt.Errorf("the server has ended:\n%s", strings.Join(all, "\n"))
}

func (s *server) readPID() error {
	text, err := os.ReadFile(filepath.Join(s.data, "postmaster.pid"))
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	s.pid, err = strconv.Atoi(first)
	return err
}

// stop ends the server and all its processes with a signal: SIGINT is an orderly end, SIGKILL is none.
func (s *server) stop(signal syscall.Signal) {
	if s.shell == nil {
		return
	}
	if signal == syscall.SIGKILL {
		s.signal(signal)
	} else {
		syscall.Kill(s.pid, signal)
	}
	if signal != syscall.SIGKILL {
		for line := range s.said {
			if strings.Contains(line, "database system is shut down") {
				break
			}
		}
	}
	s.stdin.Close()
	s.shell.Wait()
	s.shell = nil
}

// signal sends a signal to the server and all its processes.
func (s *server) signal(signal syscall.Signal) {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.pid, s.pid))
	syscall.Kill(s.pid, signal)
	for _, child := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			syscall.Kill(pid, signal)
		}
	}
}

func (s *server) restart(t testing.TB, signal syscall.Signal) {
	t.Helper()
	s.stop(signal)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

func (s *server) remove() {
	s.signal(syscall.SIGCONT)
	s.stop(syscall.SIGKILL)
	os.RemoveAll(s.dir)
}
