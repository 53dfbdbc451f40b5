package e2e_test

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait. It is long because a machine may be slow; nothing waits for it to pass.
const patience = 3 * time.Minute

// child is a process that a test started. It is killed by its id, at the latest when the test ends.
type child struct {
	name string
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended and all its output was read

	mu    sync.Mutex
	lines []string      // of both its outputs
	news  chan struct{} // closed, and replaced, when there is another line
}

func start(t *testing.T, name, dir string, env []string, argv ...string) *child {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{name: name, cmd: exec.Command(argv[0], argv[1:]...), gone: make(chan struct{}),
		news: make(chan struct{})}
	c.cmd.Dir, c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr, c.cmd.SysProcAttr = dir, env, w, w, orphan()
	err = c.cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		t.Fatalf("%s: %v", name, err)
	}
	go c.read(r)
	t.Cleanup(func() {
		c.kill()
		if t.Failed() {
			t.Logf("%s said at last:\n%s", name, c.tail())
		}
	})
	return c
}

func (c *child) read(r io.ReadCloser) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		c.mu.Lock()
		c.lines = append(c.lines, lines.Text())
		close(c.news)
		c.news = make(chan struct{})
		c.mu.Unlock()
	}
	r.Close()
	c.cmd.Wait()
	close(c.gone)
}

// await returns the first line that match likes, beginning with the line number from, and the number after it.
func (c *child) await(t *testing.T, what string, from int, match func(line string) bool) (string, int) {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for ended := false; ; {
		c.mu.Lock()
		news := c.news
		for i := from; i < len(c.lines); i++ {
			if match(c.lines[i]) {
				line := c.lines[i]
				c.mu.Unlock()
				return line, i + 1
			}
		}
		from = len(c.lines)
		c.mu.Unlock()
		if ended {
			t.Fatalf("%s ended (%v) before it said: %s", c.name, c.cmd.ProcessState, what)
		}
		select {
		case <-news:
		case <-c.gone:
			ended = true
		case <-late.C:
			t.Fatalf("%s did not say within %v: %s", c.name, patience, what)
		}
	}
}

// said returns how many lines there are.
func (c *child) said() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.lines)
}

func (c *child) since(from int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.lines[from:]...)
}

func (c *child) tail() string {
	lines := c.since(0)
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// kill ends it with SIGKILL, and returns when it is dead.
func (c *child) kill() {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic(err)
	}
	<-c.gone
}

// stop asks it to end, and expects that it does so without complaint.
func (c *child) stop(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	select {
	case <-c.gone:
	case <-time.After(patience):
		t.Fatalf("%s did not end within %v of SIGTERM", c.name, patience)
	}
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("%s ended with %v after SIGTERM, want exit status 0", c.name, c.cmd.ProcessState)
	}
}
