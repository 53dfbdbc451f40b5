package sqlite_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// child names, in the environment, what a second process of this test binary is to do instead of testing.
const child = "CURFEW_SQLITE_TEST_CHILD"

// TestMain runs the tests, or plays the part of another process.
func TestMain(m *testing.M) {
	switch path := os.Getenv("CURFEW_SQLITE_TEST_PATH"); os.Getenv(child) {
	case "":
		goleak.VerifyTestMain(m)
	case "hold":
		os.Exit(childHold(path))
	case "work":
		os.Exit(childWork(path))
	case "nobody":
		os.Exit(childNobody(path))
	default:
		fmt.Fprintln(os.Stderr, "no such child")
		os.Exit(2)
	}
}

// process is a child that is running.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Scanner // what it says, line by line
}

// start starts a child with the database at path. It is killed with the test.
func start(t *testing.T, role, path string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), child+"="+role, "CURFEW_SQLITE_TEST_PATH="+path)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// No child lives that long, unless it hangs.
	if err := stdout.(*os.File).SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, stdin: stdin, out: bufio.NewScanner(stdout)}
	t.Cleanup(p.kill)
	return p
}

// kill is kill -9. It returns when the process is gone.
func (p *process) kill() {
	p.cmd.Process.Kill()
	for p.out.Scan() { // what it had said before
	}
	p.cmd.Wait()
}

// line returns the next thing that the child says.
func (p *process) line(t *testing.T) string {
	t.Helper()
	if !p.out.Scan() {
		t.Fatalf("the child has ended, or hangs: %v", p.out.Err())
	}
	return p.out.Text()
}
