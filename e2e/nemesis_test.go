//go:build unix

package e2e_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
)

// trouble is what can happen to a run, and how it is undone: do returns when it is over.
type trouble struct {
	what string
	once bool
	do   func()
}

// during notes a fault from its begin to its end.
func (s *soak) during(what string, do func()) { s.duringSince(s.now(), what, do) }

func (s *soak) duringSince(from int64, what string, do func()) {
	s.mu.Lock()
	n := len(s.faults)
	s.faults = append(s.faults, fault{what: what, from: from})
	s.mu.Unlock()
	do()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append([]fault(nil), s.faults...) // who judges has the other
	s.faults[n].to = s.now()
}

// haunt lets one trouble after the other happen until the time is over: each once, and then any. After each, all
// replicas must work by themselves.
func (s *soak) haunt(until time.Time, all []trouble) {
	s.t.Helper()
	all = slices.Clone(all)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for n := 0; time.Now().Before(until); n++ {
		one := all[n%len(all)]
		if n >= len(all) {
			one = all[rand.IntN(len(all))]
		}
		if !one.once || s.happened[one.what] == 0 {
			s.during(one.what, func() {
				one.do()
				for i := range s.gs {
					s.healthy(i)
				}
			})
			s.happened[one.what]++
		}
		pause(some(100*time.Millisecond, 600*time.Millisecond))
	}
}

func some(least, most time.Duration) time.Duration {
	return least + time.Duration(rand.Int64N(int64(most-least)))
}

// killed kills a replica with SIGKILL, and starts it again.
func (s *soak) killed() trouble {
	return trouble{what: "a replica is killed, and started again", do: func() {
		i := rand.IntN(len(s.gs))
		s.mu.Lock()
		n := len(s.crashed)
		if s.lossy { // noted before it happens: somebody may be judged before the replica works again
			s.crashed = append(s.crashed, deed{action: crashes, replica: i, from: s.now(), to: never})
		}
		s.mu.Unlock()
		s.gs[i].kill()
		pause(some(0, 200*time.Millisecond))
		if g := s.gs[i]; g.clock != nil {
			g.env = g.clock()
		}
		s.mu.Lock()
		s.restarts = append(s.restarts, s.now())
		s.mu.Unlock()
		s.startReplica(i)
		s.healthy(i)
		if s.lossy {
			s.mu.Lock()
			s.crashed[n].to = s.now()
			s.mu.Unlock()
		}
	}}
}

// suspended stops a replica for a while, or again and again.
func (s *soak) suspended() trouble {
	return trouble{what: "a replica is suspended", do: func() {
		g := s.gs[rand.IntN(len(s.gs))]
		times, most := 1, 2500*time.Millisecond
		if rand.IntN(2) == 0 {
			times, most = 8, 200*time.Millisecond
		}
		for range times {
			g.cmd.Process.Signal(syscall.SIGSTOP)
			pause(some(10*time.Millisecond, most))
			g.cmd.Process.Signal(syscall.SIGCONT)
			pause(some(time.Millisecond, 50*time.Millisecond))
		}
	}}
}

// serverTroubles happen to one server of an engine.
func serverTroubles(nodes []*servers.Server, most time.Duration) []trouble {
	any := func() *servers.Server { return nodes[rand.IntN(len(nodes))] }
	return []trouble{
		{what: "a server of the store is killed, and started again", do: func() {
			n := any()
			n.Kill()
			pause(some(0, most))
			n.Start()
		}},
		{what: "a server of the store is frozen", do: func() {
			n := any()
			n.Freeze()
			pause(some(50*time.Millisecond, most))
			n.Thaw()
		}},
	}
}

// silent has all servers of Redis answer nobody for a while.
func (s *soak) silent(nodes []*servers.Server) trouble {
	return trouble{what: "Redis answers nobody", do: func() {
		lasts := some(100*time.Millisecond, 1500*time.Millisecond)
		for _, n := range nodes {
			out, err := exec.Command("redis-cli", "-p", strconv.Itoa(n.Port), "CLIENT", "PAUSE",
				fmt.Sprint(lasts.Milliseconds()), "ALL").CombinedOutput()
			if err != nil {
				s.t.Errorf("CLIENT PAUSE: %s, %v", out, err)
			}
		}
		pause(lasts)
	}}
}

// failover kills one of so many masters, waits until another server is one, and starts it again. The one that was
// killed before may still think that it is a master.
func (s *soak) failover(nodes []*servers.Server, count int) trouble {
	return trouble{what: "the master is killed, another takes over", do: func() {
		var masters []*servers.Server
		eventually(s.t, "each master is one for all", func() string {
			masters = mastersOf(nodes)
			return unless(len(masters) == count, "%d servers think that they are master, want %d", len(masters), count)
		})
		gone := masters[rand.IntN(len(masters))]
		gone.Kill()
		// A replica that was just started, or lost its master long ago, may not take over. Then the master comes back.
		for end := time.Now().Add(30 * time.Second); len(mastersOf(nodes)) != count && time.Now().Before(end); {
			pause(20 * time.Millisecond)
		}
		pause(some(0, time.Second))
		gone.Start()
	}}
}

// mastersOf asks servers of Redis, and returns those that think that they are master.
func mastersOf(nodes []*servers.Server) (masters []*servers.Server) {
	is := make([]bool, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			c, err := net.DialTimeout("tcp", n.Addr(), time.Second)
			if err != nil {
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Second))
			answer := make([]byte, len("*3\r\n$6\r\nmaster"))
			_, err = io.WriteString(c, "ROLE\r\n")
			if err == nil {
				_, err = io.ReadFull(c, answer)
			}
			is[i] = err == nil && strings.HasSuffix(string(answer), "master")
		})
	}
	all.Wait()
	for i, n := range nodes {
		if is[i] {
			masters = append(masters, n)
		}
	}
	return masters
}

// watchMasters notes when other servers of Redis are masters, until there are so many again. On a busy machine that
// happens by itself: a server that had no time to answer is replaced.
func (s *soak) watchMasters(nodes []*servers.Server, count int) {
	known := mastersOf(nodes)
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		last := s.now() // that nothing was new
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
			}
			asked, others := s.now(), false
			masters := mastersOf(nodes)
			for _, n := range masters {
				others = others || !slices.Contains(known, n)
			}
			if !others {
				last = asked
				continue
			}
			s.duringSince(last, "other servers are masters", func() {
				for len(masters) != count {
					select {
					case <-stop:
						return
					case <-time.After(200 * time.Millisecond):
						masters = mastersOf(nodes)
					}
				}
			})
			known, last = masters, s.now()
		}
	})
	s.t.Cleanup(func() { close(stop); watching.Wait() })
}

// pairTroubles happen to a primary and its standby: once the primary is killed and the standby promoted, and the old
// primary comes back as one. Whoever promotes has stopped it, so that replicas have seen the other one before.
func pairTroubles(nodes []*servers.Server) []trouble {
	primary := nodes[0]
	return []trouble{
		{what: "the primary is killed, the standby promoted, the old primary started", once: true, do: func() {
			nodes[0].Kill()
			nodes[1].Promote()
			primary = nodes[1]
			pause(some(0, 2*time.Second))
			nodes[0].Start()
		}},
		{what: "the primary is frozen", do: func() {
			primary.Freeze()
			pause(some(50*time.Millisecond, 2*time.Second))
			primary.Thaw()
		}},
	}
}

// link is a way from a replica to its store, through this process.
type link struct {
	to string
	l  net.Listener

	mu    sync.Mutex
	open  map[net.Conn]struct{}
	cut   bool
	held  chan struct{} // nil: nothing is held; else closed when it goes on
	delay time.Duration
}

// newLink listens on loopback, and passes on what comes to an address.
func newLink(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{to: to, l: l, open: map[net.Conn]struct{}{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { k.serve(c) })
		}
	})
	t.Cleanup(all.Wait)
	t.Cleanup(func() {
		l.Close()
		k.heal()
		k.drop()
	})
	return k
}

func (k *link) serve(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", k.to)
	if err != nil {
		return
	}
	defer far.Close()
	k.mu.Lock()
	if k.cut {
		k.mu.Unlock()
		return
	}
	k.open[near], k.open[far] = struct{}{}, struct{}{}
	k.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { k.pass(far, near) })
	both.Go(func() { k.pass(near, far) })
	both.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.open, near)
	delete(k.open, far)
}

func (k *link) pass(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		k.mu.Lock()
		held, delay := k.held, k.delay
		k.mu.Unlock()
		if held != nil {
			<-held
		}
		if delay > 0 {
			pause(delay)
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// drop closes all connections.
func (k *link) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.open {
		c.Close()
	}
}

func (k *link) set(cut bool, hold bool, delay time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut, k.delay = cut, delay
	if k.held != nil {
		close(k.held)
		k.held = nil
	}
	if hold {
		k.held = make(chan struct{})
	}
}

func (k *link) heal() { k.set(false, false, 0) }

func linkTroubles(links []*link) []trouble {
	any := func() *link { return links[rand.IntN(len(links))] }
	return []trouble{
		{what: "a link to the store is cut", do: func() {
			k := any()
			k.set(true, false, 0)
			k.drop()
			pause(some(0, 1500*time.Millisecond))
			k.heal()
		}},
		{what: "the connections to the store are closed", do: func() {
			k := any()
			for range 5 {
				k.drop()
				pause(some(0, 100*time.Millisecond))
			}
		}},
		{what: "a link to the store passes nothing on", do: func() {
			k := any()
			k.set(false, true, 0)
			pause(some(100*time.Millisecond, 3*time.Second))
			k.heal()
		}},
		{what: "a link to the store is slow", do: func() {
			k := any()
			k.set(false, false, some(5*time.Millisecond, 150*time.Millisecond))
			pause(some(500*time.Millisecond, 2*time.Second))
			k.heal()
		}},
	}
}

// stage is a store with all that can happen to it.
type stage struct {
	name     string
	replicas int
	lossy    bool // the store is lost with its process
	masters  int  // how many servers of Redis are masters, if others can take over
	start    func(t *testing.T) (url string, nodes []*servers.Server, troubles func(s *soak) []trouble)
}

func stages() []stage {
	none := func(*soak) []trouble { return nil }
	return []stage{
		{"memory", 1, true, 0, func(t *testing.T) (string, []*servers.Server, func(*soak) []trouble) {
			return "memory:", nil, none
		}},
		{"sqlite", 1, false, 0, func(t *testing.T) (string, []*servers.Server, func(*soak) []trouble) {
			return "sqlite:" + filepath.Join(t.TempDir(), "curfew.db"), nil, none
		}},
		{"postgres", 2, false, 0, func(t *testing.T) (string, []*servers.Server, func(*soak) []trouble) {
			p := servers.OwnPostgres(t, "")
			return p.URL, []*servers.Server{p}, func(s *soak) []trouble {
				return append(s.links(p), serverTroubles([]*servers.Server{p}, 2500*time.Millisecond)...)
			}
		}},
		{"redis", 2, false, 0, func(t *testing.T) (string, []*servers.Server, func(*soak) []trouble) {
			r := servers.OwnRedis(t, "--appendfsync", "always")
			return r.URL, []*servers.Server{r}, func(s *soak) []trouble {
				nodes := []*servers.Server{r}
				return append(append(s.links(r), serverTroubles(nodes, 2500*time.Millisecond)...), s.silent(nodes))
			}
		}},
		{"redis sentinel", 2, false, 1, func(t *testing.T) (string, []*servers.Server, func(*soak) []trouble) {
			g := servers.RedisSentinels(t, "--appendfsync", "always")
			return g.URL, g.Nodes, func(s *soak) []trouble {
				return append(serverTroubles(g.Nodes, 4*time.Second), s.failover(g.Nodes, 1), s.silent(g.Nodes))
			}
		}},
		{"redis cluster", 2, false, 3, func(t *testing.T) (string, []*servers.Server, func(*soak) []trouble) {
			g := servers.RedisCluster(t, "--appendfsync", "always")
			return g.URL, g.Nodes, func(s *soak) []trouble {
				return append(serverTroubles(g.Nodes, 4*time.Second), s.failover(g.Nodes, 3), s.silent(g.Nodes[:3]))
			}
		}},
		{"postgres with a standby", 2, false, 0, func(t *testing.T) (string, []*servers.Server, func(*soak) []trouble) {
			g := servers.PostgresPair(t)
			url := fmt.Sprintf("postgres://curfew@%s,%s/postgres?sslmode=disable&target_session_attrs=primary",
				g.Nodes[0].Addr(), g.Nodes[1].Addr())
			return url, g.Nodes, func(s *soak) []trouble {
				return pairTroubles(g.Nodes)
			}
		}},
	}
}

// links puts a link between each replica and its server. The replicas must not run yet.
func (s *soak) links(to *servers.Server) []trouble {
	s.t.Helper()
	var all []*link
	for _, g := range s.gs {
		k := newLink(s.t, to.Addr())
		g.set("--store", strings.Replace(to.URL, to.Addr(), k.l.Addr().String(), 1))
		all = append(all, k)
	}
	return linkTroubles(all)
}

// skewed builds the command with a clock that SOAK_CLOCK sets off, in seconds. Only time.Now is different.
func skewed(t *testing.T) (program string) {
	t.Helper()
	dir := t.TempDir()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	const reading = "sec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), reading) != 1 {
		t.Fatalf("%s does not read the clock where it did: look at it", original)
	}
	changed := strings.Replace(string(source), reading, reading+"\tsec += setOff\n", 1)
	changed = strings.Replace(changed, "\nimport (\n", "\nimport (\n\t\"syscall\"\n", 1) + `
// setOff is by how many seconds the clock is wrong.
var setOff = func() (n int64) {
	text, _ := syscall.Getenv("SOAK_CLOCK")
	sign := int64(1)
	for i, c := range []byte(text) {
		if i == 0 && c == '-' {
			sign = -1
			continue
		}
		n = n*10 + int64(c-'0')
	}
	return sign * n
}()
`
	file, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	for name, text := range map[string]string{file: changed,
		overlay: fmt.Sprintf(`{"Replace": {%q: %q}}`, original, file)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program = filepath.Join(dir, "curfew")
	cmd := exec.Command("go", "build", "-overlay", overlay, "-o", program, "./cmd/curfew")
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build -overlay: %v\n%s", err, out)
	}
	return program
}

// apart gives replicas clocks that are off, and off by something else whenever they start.
func (s *soak) apart(program string) {
	s.behind = 80 * time.Second
	for _, g := range s.gs {
		g.program = program
		g.clock = func() []string { return []string{fmt.Sprint("SOAK_CLOCK=", rand.IntN(81)-40)} }
		g.env = g.clock()
	}
}
