package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every request; only a hang reaches it.
const patience = 2 * time.Minute

// conn is a connection that asks one question at a time. net/http would take several times as long, and the driver must
// not be the bottleneck.
type conn struct {
	addr string
	c    net.Conn
	r    *bufio.Reader
	out  []byte
	head []byte // of the last answer, with its status line
	body []byte
}

// ask sends a request and reads the answer. It connects when it has to: also once more when a connection that was
// used before turns out to be closed.
func (c *conn) ask(method, path, cookie, body string) (status int, err error) {
	c.out = append(c.out[:0], method...)
	c.out = append(append(append(c.out, ' '), path...), " HTTP/1.1\r\nHost: "...)
	c.out = append(append(c.out, c.addr...), "\r\n"...)
	if cookie != "" {
		c.out = append(append(append(c.out, "Cookie: "...), cookie...), "\r\n"...)
	}
	if method == "GET" {
		c.out = append(c.out, "Accept: text/html\r\n"...)
	}
	if method == "POST" {
		c.out = append(c.out, "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: "...)
		c.out = append(strconv.AppendInt(c.out, int64(len(body)), 10), "\r\n"...)
	}
	c.out = append(append(c.out, "\r\n"...), body...)
	fresh := c.c == nil
	if status, err = c.exchange(); err != nil && !fresh {
		c.close()
		status, err = c.exchange()
	}
	if err != nil {
		c.close()
		return 0, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return status, nil
}

func (c *conn) close() {
	if c.c != nil {
		c.c.Close()
		c.c = nil
	}
}

func (c *conn) exchange() (status int, err error) {
	if c.c == nil {
		if c.c, err = net.DialTimeout("tcp", c.addr, patience); err != nil {
			c.c = nil
			return 0, err
		}
		c.r = bufio.NewReaderSize(c.c, 16<<10)
	}
	c.c.SetDeadline(time.Now().Add(patience))
	if _, err := c.c.Write(c.out); err != nil {
		return 0, err
	}
	c.head, c.body = c.head[:0], c.body[:0]
	length, chunked, shut := 0, false, false
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		c.head = append(c.head, line...)
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")):
			length, _ = strconv.Atoi(string(value))
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		case bytes.EqualFold(name, []byte("Connection")):
			shut = bytes.EqualFold(value, []byte("close"))
		}
	}
	if len(c.head) < 12 {
		return 0, errors.New("no status line")
	}
	if status, err = strconv.Atoi(string(c.head[9:12])); err != nil {
		return 0, err
	}
	switch {
	case status == 204 || status == 304:
	case chunked:
		err = c.chunks()
	default:
		c.body = slices.Grow(c.body, length)[:length]
		_, err = io.ReadFull(c.r, c.body)
	}
	if shut {
		c.close()
	}
	return status, err
}

func (c *conn) chunks() error {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return err
		}
		at := len(c.body)
		c.body = slices.Grow(c.body, int(n)+2)[:at+int(n)+2]
		if _, err := io.ReadFull(c.r, c.body[at:]); err != nil {
			return err
		}
		if c.body = c.body[:at+int(n)]; n == 0 {
			return nil
		}
	}
}

// header returns the headers of the last answer.
func (c *conn) header() textproto.MIMEHeader {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(c.head)))
	_, _ = r.ReadLine()
	h, _ := r.ReadMIMEHeader()
	return h
}

// sample is what one server did in one round.
type sample struct {
	Ops      int     `json:"ops"`
	Rate     float64 `json:"rate"`      // answers a second
	CPU      float64 `json:"cpu"`       // µs of the server for each
	Engine   float64 `json:"engine"`    // µs of the processes of its store for each
	P50, P99 float64 `json:",omitzero"` // ms
	Again    int     `json:",omitzero"` // answers that said to try again
}

// loop is a closed loop: so many connections, each of which asks the next question as soon as it has an answer, until
// n questions are asked or the time is over (0: no bound).
func loop(b *testing.B, t *target, conns, n int, most time.Duration, each func(c *conn, i int) error) sample {
	b.Helper()
	all := make([]*conn, conns)
	for i := range all {
		all[i] = &conn{addr: t.addr}
	}
	took := make([][]time.Duration, conns)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	runtime.GC()
	defer t.profile()()
	server, engine := cpuOf(t.pid), cpuOf(t.engine)
	began := time.Now()
	for k, c := range all {
		running.Go(func() {
			defer c.close()
			for failed.Load() == nil {
				i := int(next.Add(1) - 1)
				asked := time.Now()
				if i >= n || most > 0 && asked.Sub(began) > most {
					return
				}
				if err := each(c, i); err != nil {
					failed.Store(&err)
					return
				}
				took[k] = append(took[k], time.Since(asked))
			}
		})
	}
	running.Wait()
	elapsed := time.Since(began)
	server, engine = cpuOf(t.pid)-server, cpuOf(t.engine)-engine
	if err := failed.Load(); err != nil {
		b.Fatalf("%s: %v\n%s", t.name, *err, t.tail())
	}
	every := slices.Concat(took...)
	slices.Sort(every)
	ops := len(every)
	at := func(permille int) float64 {
		return float64(every[min(ops*permille/1000, ops-1)].Microseconds()) / 1000
	}
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(ops) }
	return sample{Ops: ops, Rate: float64(ops) / elapsed.Seconds(), CPU: per(server), Engine: per(engine),
		P50: at(500), P99: at(990)}
}

// profile runs perf on a server, if BENCH_PERF names a directory for what it records.
func (t *target) profile() (stop func()) {
	dir := os.Getenv("BENCH_PERF")
	if dir == "" || len(t.pid) == 0 {
		return func() {}
	}
	file, err := os.CreateTemp(dir, strings.ReplaceAll(t.name, " ", "-")+"-*.perf")
	if err != nil {
		return func() {}
	}
	file.Close()
	cmd := exec.Command("perf", "record", "-q", "-F", "499", "-g", "-o", file.Name(), "-p", strconv.Itoa(t.pid[0]))
	if cmd.Start() != nil {
		return func() {}
	}
	time.Sleep(300 * time.Millisecond) // until it has attached
	return func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}
}

// cpuOf returns the time that the operating system has given to a process and all below it.
func cpuOf(pids []int) (sum time.Duration) {
	if len(pids) == 0 {
		return 0
	}
	parents := map[int]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	times := map[int]time.Duration{}
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		parents[pid], _ = strconv.Atoi(fields[1])
		for _, at := range []int{11, 12, 13, 14} { // utime, stime, and those of children that have ended
			ticks, _ := strconv.Atoi(fields[at])
			times[pid] += time.Duration(ticks) * time.Second / 100
		}
	}
	for pid := range times {
		for above, steps := pid, 0; above > 1 && steps < 50; above, steps = parents[above], steps+1 {
			if slices.Contains(pids, above) {
				sum += times[pid]
				break
			}
		}
	}
	return sum
}

// cores are those of the server and of the driver.
const serverCore, driverCore = 0, 1

// onCore starts something whose processes are to run on one core: they inherit it from the thread that starts them.
func onCore(core int, start func()) {
	var starting sync.WaitGroup
	starting.Go(func() {
		runtime.LockOSThread() // and never unlocks it: the thread ends with this goroutine
		var set unix.CPUSet
		set.Set(core)
		_ = unix.SchedSetaffinity(0, &set)
		start()
	})
	starting.Wait()
}

// pinDriver gives this process the driver's core alone, or both.
func pinDriver(alone bool) {
	var set unix.CPUSet
	set.Set(driverCore)
	if !alone {
		set.Set(serverCore)
	}
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		tid, _ := strconv.Atoi(t.Name())
		_ = unix.SchedSetaffinity(tid, &set)
	}
	if alone {
		runtime.GOMAXPROCS(1)
	} else {
		runtime.GOMAXPROCS(2)
	}
}

// target is a server under test.
type target struct {
	name   string
	addr   string
	log    string // the file of its output
	pid    []int
	engine []int // of the processes of its store
}

func (t *target) tail() string {
	text, _ := os.ReadFile(t.log)
	return string(text[max(0, len(text)-3000):])
}

// freeAddr is an address on loopback where nobody listens.
func freeAddr(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// started are the processes that were started, each the leader of a group, so that they end with this one.
var started groups

type groups struct {
	mu   sync.Mutex
	pids []int
}

func (g *groups) add(pid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pids = append(g.pids, pid)
}

func (g *groups) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, pid := range g.pids {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// spawn starts a process on a core, and returns when it accepts connections at addr. It is killed when the run ends.
func spawn(b *testing.B, core int, addr, dir string, env []string, argv ...string) (pid int, logFile string) {
	b.Helper()
	log, err := os.CreateTemp(b.TempDir(), "log-")
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	onCore(core, func() { err = cmd.Start() })
	if err != nil {
		b.Fatal(err)
	}
	started.add(cmd.Process.Pid)
	gone := make(chan struct{})
	go func() { defer close(gone); cmd.Wait() }()
	b.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-gone
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
			return cmd.Process.Pid, log.Name()
		}
		select {
		case <-gone:
			deadline = time.Time{}
		default:
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			b.Fatalf("%s does not listen at %s: %v\n%s", argv[0], addr, err, text)
		}
	}
}
