package redis_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// server is a redis-server, or a sentinel, that the tests started.
type server struct {
	port    int
	dir     string
	args    []string
	program string
	cmd     *exec.Cmd
	exited  chan struct{}
	log     *bytes.Buffer
}

// needServer skips, aloud, when there is nothing to test with; where that would go unseen it fails.
func needServer(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed: apt-get install redis-server redis-sentinel", program)
		}
		t.Skipf("NOT TESTED: %s is not installed: apt-get install redis-server redis-sentinel", program)
	}
	return path
}

// The ports of the tests' servers are below those that Linux gives to outgoing connections (from 32768), so that nobody gets
// one of them by chance while its server is not running yet, or not at the moment.
const firstPort, lastPort = 21000, 31999

// reserved holds what says to other processes of these tests that a port is taken: a socket with the same number, of UDP, which
// nothing here uses. It ends with the process, whatever ends that.
var reserved struct {
	sync.Mutex
	all []net.PacketConn
}

// freePorts finds ports of loopback that nobody listens on, and reserves them for this process.
func freePorts(n int) (ports []int, err error) {
	reserved.Lock()
	defer reserved.Unlock()
	port := firstPort + mathrand.IntN(lastPort-firstPort)
	for range lastPort - firstPort {
		if len(ports) == n {
			return ports, nil
		}
		if port++; port > lastPort {
			port = firstPort
		}
		at := fmt.Sprintf("127.0.0.1:%d", port)
		reservation, err := net.ListenPacket("udp", at)
		if err != nil {
			continue
		}
		if l, err := net.Listen("tcp", at); err == nil {
			l.Close()
			ports = append(ports, port)
			reserved.all = append(reserved.all, reservation)
		} else {
			reservation.Close()
		}
	}
	return nil, errors.New("no port is free")
}

// newServer prepares a server that keeps nothing and is this machine's alone; args come after what it is given anyway.
func newServer(program string, port int, dir string, args ...string) *server {
	all := append([]string{"--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no",
		"--daemonize", "no", "--enable-debug-command", "local"}, args...)
	return &server{port: port, dir: dir, args: all, program: program}
}

func (s *server) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// start starts the server and waits until it listens.
func (s *server) start() error {
	s.log = new(bytes.Buffer)
	s.cmd = exec.Command(s.program, s.args...)
	s.cmd.Dir = s.dir
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	s.cmd.Stderr = s.cmd.Stdout
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ready, exited := make(chan struct{}), make(chan struct{})
	s.exited = exited
	go func() {
		defer close(exited)
		lines := bufio.NewScanner(out)
		once := sync.OnceFunc(func() { close(ready) })
		for lines.Scan() {
			if strings.Contains(lines.Text(), "eady to accept connections") || strings.Contains(lines.Text(), "Sentinel ID is") {
				once()
			}
			s.log.WriteString(lines.Text() + "\n")
		}
		s.cmd.Wait()
	}()
	select {
	case <-ready:
		return nil
	case <-exited:
		return fmt.Errorf("%s did not start:\n%s", s.program, s.log)
	}
}

// kill is kill -9.
func (s *server) kill() {
	s.signal(syscall.SIGCONT)
	s.signal(syscall.SIGKILL)
	<-s.exited
}

func (s *server) signal(sig syscall.Signal) { s.cmd.Process.Signal(sig) }

// startServer starts a server for one test.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	program := needServer(t, "redis-server")
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(program, ports[0], t.TempDir(), args...)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	return s
}

// shared are the servers that many tests use, each under a prefix of its own.
type shared struct {
	once      sync.Once
	dir       string
	all       []*server
	sentinels []*server
	url       string
	err       error
	fill      func(*shared) error
}

var (
	single  = &shared{fill: fillSingle}
	cluster = &shared{fill: fillCluster}
)

// get starts them for the first who asks.
func (s *shared) get(t testing.TB) string {
	t.Helper()
	needServer(t, "redis-server")
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp("", "curfew-redis-"); s.err == nil {
			s.err = s.fill(s)
		}
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.url
}

func (s *shared) stop() {
	for _, server := range s.all {
		if server.exited != nil {
			server.kill()
		}
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

func (s *shared) add(port int, args ...string) error {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, fmt.Sprint(port))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	server := newServer(program, port, dir, args...)
	s.all = append(s.all, server)
	return server.start()
}

func fillSingle(s *shared) error {
	if s.url = os.Getenv("CURFEW_TEST_REDIS"); s.url != "" {
		return nil
	}
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	s.url = fmt.Sprintf("redis://127.0.0.1:%d", ports[0])
	return s.add(ports[0])
}

func fillCluster(s *shared) error { return s.startCluster(3, 3) }

// startCluster makes a Cluster of so many masters and replicas.
func (s *shared) startCluster(masters, replicas int, extra ...string) error {
	n := masters + replicas
	ports, err := freePorts(2 * n)
	if err != nil {
		return err
	}
	var addrs []string
	for i := range n {
		args := append([]string{"--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(ports[n+i]),
			"--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0"}, extra...)
		if err := s.add(ports[i], args...); err != nil {
			return err
		}
		addrs = append(addrs, s.all[i].addr())
	}
	args := append([]string{"--cluster", "create"}, addrs...)
	args = append(args, "--cluster-replicas", fmt.Sprint(replicas/masters), "--cluster-yes")
	if out, err := exec.Command("redis-cli", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("redis-cli --cluster create: %w\n%s", err, out)
	}
	s.url = "redis+cluster://" + strings.Join(addrs[:masters], ",")
	return s.whole(n, replicas)
}

// whole waits until every node knows all of the Cluster and every replica follows its master.
func (s *shared) whole(n, replicas int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, server := range s.all {
		c, err := admin(server)
		if err != nil {
			return err
		}
		defer c.Close()
		for {
			info, _ := c.Do(ctx, c.B().ClusterInfo().Build()).ToString()
			role, _ := c.Do(ctx, c.B().Info().Section("replication").Build()).ToString()
			if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", n)) &&
				(strings.Contains(role, "role:master") && (replicas == 0 || strings.Contains(role, "state=online")) || strings.Contains(role, "master_link_status:up")) {
				break
			}
			if ctx.Err() != nil {
				return errors.New("the Cluster does not come together: " + info + role)
			}
			pauseFor(20 * time.Millisecond)
		}
	}
	return nil
}

// pauseFor is for those who watch another process, which tells nobody that it is ready.
func pauseFor(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

// admin talks to one server as one who runs it.
func admin(s *server) (rueidis.Client, error) {
	return rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.addr()}, ForceSingleClient: true, DisableCache: true,
		DisableRetry: true, PipelineMultiplex: -1})
}

func do(t testing.TB, c rueidis.Client, words ...string) rueidis.RedisMessage {
	t.Helper()
	m, err := c.Do(t.Context(), c.B().Arbitrary(words...).Build()).ToMessage()
	if err != nil && !rueidis.IsRedisNil(err) {
		t.Fatalf("%s: %v", strings.Join(words, " "), err)
	}
	return m
}

func adminOf(t testing.TB, s *server) rueidis.Client {
	t.Helper()
	c, err := admin(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// server is the server of shared ones that is alone; a test that has to talk to it skips where another was named.
func (s *shared) server(t testing.TB) *server {
	t.Helper()
	s.get(t)
	if len(s.all) == 0 {
		t.Skip("NOT TESTED: the server that CURFEW_TEST_REDIS names is not ours to look into")
	}
	return s.all[0]
}

func prefix() string { return "test:" + rand.Text() + ":" }

// newSentinel prepares a sentinel that watches the master on a port. It wants a file that it can write.
func newSentinel(t testing.TB, program string, port, master int) *server {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "sentinel.conf")
	config := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor main 127.0.0.1 %d 2\n"+
		"sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 6000\nsentinel parallel-syncs main 2\n", port, dir, master)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return &server{port: port, dir: dir, args: []string{file}, program: program}
}
