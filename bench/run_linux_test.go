package bench

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
)

// run is one run of all measurements.
type run struct {
	b          *testing.B
	quick      bool
	dir        string
	self       string // this program
	program    string // curfew, as it is shipped
	op         *provider
	app        string // the address of the app behind the proxies
	floorRedis redisServer
	postgres   *servers.Server
	began      time.Time
	results    *results
	floors     []string // the stores whose floor is measured; nil: all
	jtis       atomic.Int64

	once        sync.Once
	keyFile     []byte
	builtLoaded sync.Once
	loaded      string // curfew with a memory store that has sessions
}

func (r *run) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1f s  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// peer is a relying party under test, and what it takes to sign in, to be checked and to be signed out.
type peer struct {
	target
	Store    string
	Sessions int // that others have
	login    string
	check    string
	proxied  string
	logout   string
	ours     bool
	batch    int  // how many sessions to sign in for a round; 0: as many as for Curfew
	bySID    bool // a logout that names the sid ends the session
	bySub    bool
	live     []signedIn
}

type signedIn struct{ cookie, sub, sid string }

// browse signs one person in: from the login to the answer of the callback.
func (r *run) browse(p *peer, c *conn) (s signedIn, err error) {
	jar := map[string]string{}
	cookies := func() string {
		var all []string
		for name, value := range jar {
			all = append(all, name+"="+value)
		}
		return strings.Join(all, "; ")
	}
	path := p.login
	for range 8 {
		status, err := c.ask("GET", path, cookies(), "")
		if err != nil {
			return s, err
		}
		h := c.header()
		for _, line := range h["Set-Cookie"] {
			pair, attributes, _ := strings.Cut(line, ";")
			name, value, _ := strings.Cut(pair, "=")
			lower := strings.ToLower(attributes)
			if value == "" || strings.Contains(lower, "max-age=0") || strings.Contains(lower, "1970") {
				delete(jar, name)
			} else {
				jar[name] = value
			}
		}
		if s.sid != "" { // this was the callback
			s.cookie = cookies()
			if status >= 400 || s.cookie == "" {
				return s, fmt.Errorf("the callback was answered %d: %.500s", status, c.body)
			}
			return s, nil
		}
		to, err := url.Parse(h.Get("Location"))
		if err != nil || status < 300 || status > 399 {
			return s, fmt.Errorf("%s was answered %d: %.500s", path, status, c.body)
		}
		if "http://"+to.Host == r.op.issuer {
			if to, s.sub, s.sid, err = r.op.authorize(to.String()); err != nil {
				return s, err
			}
		}
		path = to.RequestURI()
	}
	return s, fmt.Errorf("a sign-in does not end")
}

// signIn signs n people in.
func (r *run) signIn(p *peer, conns, n int) sample {
	r.b.Helper()
	all := make([]signedIn, n)
	got := loop(r.b, &p.target, conns, n, 0, func(c *conn, i int) (err error) {
		all[i], err = r.browse(p, c)
		return err
	})
	p.live = append(p.live, all...)
	return got
}

// checks asks about the living sessions in turn, n times or for some time (0: no bound).
func (r *run) checks(p *peer, path string, conns, n int, most time.Duration) sample {
	r.b.Helper()
	return loop(r.b, &p.target, conns, n, most, func(c *conn, i int) error {
		status, err := c.ask("GET", path, p.live[i%len(p.live)].cookie, "")
		if err == nil && status != 200 && status != 204 {
			err = fmt.Errorf("%s with a session was answered %d", path, status)
		}
		return err
	})
}

// tokens signs logout tokens for n of the living sessions, which are taken off the list.
func (r *run) tokens(p *peer, n int, bySub bool) (bodies []string, named []signedIn) {
	n = min(n, len(p.live))
	named, p.live = p.live[:n:n], p.live[n:]
	bodies = make([]string, n)
	r.sign(bodies, func(i int) string {
		sub, sid := "", named[i].sid
		if bySub {
			sub, sid = named[i].sub, ""
		}
		return r.op.logoutToken(sub, sid, r.jti())
	})
	return bodies, named
}

func (r *run) jti() string { return fmt.Sprint("jti-of-this-bench-", r.jtis.Add(1)) }

// sign fills a list on both cores, while nothing is measured.
func (r *run) sign(bodies []string, token func(i int) string) {
	pinDriver(false)
	defer pinDriver(true)
	var next atomic.Int64
	var running sync.WaitGroup
	for range 2 {
		running.Go(func() {
			for i := int(next.Add(1) - 1); i < len(bodies); i = int(next.Add(1) - 1) {
				bodies[i] = token(i)
			}
		})
	}
	running.Wait()
}

// logouts posts tokens. As a provider would, it sends a token again that was answered 503, and counts that.
func (r *run) logouts(t *target, path string, conns int, bodies []string, want ...int) sample {
	r.b.Helper()
	const most = 100 // times that one token is sent
	var again atomic.Int64
	s := loop(r.b, t, conns, len(bodies), 0, func(c *conn, i int) error {
		for try := 1; ; try++ {
			status, err := c.ask("POST", path, "", bodies[i])
			if err != nil || slices.Contains(want, status) {
				return err
			}
			if status != 503 || try == most {
				return fmt.Errorf("%s was answered %d: %.300s", path, status, c.body)
			}
			again.Add(1)
		}
	})
	s.Again = int(again.Load())
	return s
}

// alive counts the sessions, of some of these, that still let somebody in.
func (r *run) alive(p *peer, some []signedIn) (n int) {
	c := &conn{addr: p.addr}
	defer c.close()
	for i := 0; i < len(some); i += max(1, len(some)/50) {
		status, err := c.ask("GET", p.check, some[i].cookie, "")
		if err != nil {
			r.b.Fatal(err)
		}
		if status < 300 {
			n++
		}
	}
	return n
}

// garbage is tokens that cannot pass: of the wrong shape, issuer, audience and algorithm.
func (r *run) garbage(n int) []string {
	bodies := make([]string, n)
	good := strings.TrimPrefix(r.op.logoutToken("", "a sid", "a jti"), "logout_token=")
	parts := strings.Split(good, ".")
	foreign := r.op.logoutTokenOf("https://other.example.com", "", "a sid", "a jti")
	for i := range bodies {
		switch i % 3 {
		case 0:
			bodies[i] = "logout_token=" + strings.Repeat("garbage", 60)
		case 1:
			bodies[i] = foreign
		default: // alg none
			bodies[i] = "logout_token=eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0." + parts[1] + "."
		}
	}
	return bodies
}

// BenchmarkAll is `make bench`.
func BenchmarkAll(b *testing.B) {
	mode := os.Getenv("BENCH")
	if mode == "" {
		b.Skip("it takes up to 20 minutes: make bench")
	}
	r := &run{b: b, quick: mode == "quick", dir: b.TempDir(), began: time.Now(), op: startProvider(b)}
	var err error
	if r.self, err = os.Executable(); err != nil {
		b.Fatal(err)
	}
	r.results = newResults(mode)
	r.program = build(b, "curfew", "")
	onCore(serverCore, func() { r.postgres = servers.OwnPostgres(b, "", "max_connections=400") })
	r.floorRedis = startRedis(b, serverCore)
	app := freeAddr(b)
	spawn(b, driverCore, app, r.dir, []string{childVar + "=app", "ADDR=" + app}, r.self)
	r.app = app
	floor := r.startFloor()

	sizes, kinds := []int{1_000, 100_000, 1_000_000}, []string{"memory", "SQLite", "PostgreSQL", "Redis"}
	if r.quick {
		sizes = []int{1_000, 100_000}
	}
	only := os.Getenv("BENCH_ONLY") // "memory,Redis", "peers" or "refused", for work on a part: it writes nothing
	if only != "" {
		sizes, kinds = []int{1_000}, strings.Split(only, ",")
		r.floors = kinds
	}
	var all []*peer
	for _, sessions := range sizes {
		for _, kind := range kinds {
			if kind != "peers" && kind != "refused" {
				all = append(all, r.curfew(kind, sessions))
			}
		}
	}
	if os.Getenv("BENCH_SESSIONS") == "10M" {
		all = append(all, r.curfew("memory", 10_000_000), r.curfew("Redis", 10_000_000))
	}
	if only == "" || only == "peers" {
		all = append(all, r.peers()...)
	}
	r.settle()
	pinDriver(true)
	for i := range r.rounds() {
		began := time.Now()
		r.say("round %d", i+1)
		r.round(floor, all, i == 0)
		if only == "" && time.Since(r.began)+time.Since(began) > r.budget() {
			r.say("no time for another round")
			break
		}
	}
	if only == "" || only == "refused" {
		r.refusedThere()
	}
	pinDriver(false)
	r.results.finish(time.Since(r.began))
	fmt.Fprint(os.Stderr, r.results.goals())
	if only != "" {
		return
	}
	b.ReportMetric(0, "ns/op")
	if err := r.results.write(filepath.Join("results"), filepath.Join("..", "docs")); err != nil {
		b.Fatal(err)
	}
}

func (r *run) rounds() int {
	if r.quick {
		return 2
	}
	return 5
}

// budget is when no further round is begun.
func (r *run) budget() time.Duration {
	if r.quick {
		return 150 * time.Second
	}
	return 18*time.Minute + 30*time.Second
}

// settle waits until the engines have written what was loaded, so that this is not measured.
func (r *run) settle() {
	if !r.quick {
		time.Sleep(5 * time.Second)
	}
}

// round measures everything with 16 connections once. The first round also measures what is not compared by ratios: 64
// connections, and peers with so many sessions that they take long.
func (r *run) round(floor *target, all []*peer, first bool) {
	n, most := 700, 600*time.Millisecond
	if r.quick {
		n, most = 500, 300*time.Millisecond
	}
	r.floorRound(floor, 16, 2*n, most)
	for _, p := range all {
		switch {
		case p.ours && p.Sessions == 1_000:
			r.peerRound(p, 16, n, most)
		case p.ours:
			r.peerRound(p, 16, min(n, 500), most)
		case first || p.Sessions <= 1_000:
			r.peerRound(p, 16, n, most)
		}
	}
	if !first {
		return
	}
	r.floorRound(floor, 64, 2*n, most)
	for _, p := range all {
		if p.ours && p.Sessions == 1_000 {
			r.peerRound(p, 64, n, most)
		}
	}
}

func (r *run) floorRound(t *target, conns, n int, most time.Duration) {
	for _, kind := range []string{"", "Redis", "PostgreSQL", "SQLite"} {
		if kind != "" && r.floors != nil && !slices.Contains(r.floors, kind) {
			continue
		}
		bodies := make([]string, n)
		r.sign(bodies, func(int) string { return r.op.logoutToken("", "a sid", r.jti()) })
		path, engine := "/logout", *t
		if engine.engine = nil; kind != "" {
			path += "-" + kind // see serveFloor
		}
		switch kind {
		case "Redis":
			engine.engine = []int{r.floorRedis.pid}
		case "PostgreSQL":
			engine.engine = []int{r.postgres.PID}
		}
		r.results.add(row{Name: "floor", Store: kind, Op: "logout", Conns: conns},
			r.logouts(&engine, path, conns, bodies, 200))
	}
	bare := *t
	bare.engine = nil
	ask := func(path string) sample {
		return loop(r.b, &bare, conns, 1<<30, most, func(c *conn, i int) error {
			status, err := c.ask("GET", path, fmt.Sprint("floor=bearer-", i%10_000), "")
			if err == nil && status != 200 {
				err = fmt.Errorf("the floor answered %s with %d", path, status)
			}
			return err
		})
	}
	r.results.add(row{Name: "floor", Op: "check", Conns: conns}, ask("/verify"))
	r.results.add(row{Name: "floor", Op: "proxied", Conns: conns}, ask("/"))
}

func (r *run) peerRound(p *peer, conns, n int, most time.Duration) {
	if p.batch > 0 {
		n = min(n, p.batch)
	}
	at := func(op string) row {
		return row{Name: p.name, Store: p.Store, Sessions: p.Sessions, Op: op, Conns: conns, Ours: p.ours}
	}
	p.live = nil
	r.results.add(at("sign-in"), r.signIn(p, conns, 2*n))
	r.checks(p, p.check, conns, len(p.live), 0) // now every one of them is in the cache
	r.results.add(at("check"), r.checks(p, p.check, conns, 1<<30, most))
	if p.proxied != "" {
		r.results.add(at("proxied"), r.checks(p, p.proxied, conns, 1<<30, most))
	}
	for _, op := range []string{"logout by sid", "logout by sub"} {
		if !p.ours && (op == "logout by sid" && !p.bySID || op == "logout by sub" && !p.bySub) {
			continue // it does not work
		}
		bodies, named := r.tokens(p, n, op == "logout by sub")
		r.results.add(at(op), r.logouts(&p.target, p.logout, conns, bodies, 200, 204))
		if alive := r.alive(p, named); alive > 0 {
			if p.ours {
				r.b.Errorf("%s, %d sessions: %d sessions are alive after a %s", p.name, p.Sessions, alive, op)
			}
			r.results.fault(p.name, fmt.Sprintf("%d of 50 sessions let somebody in after a %s that was answered with success",
				alive, op))
		}
	}
	if p.ours && p.Sessions == 1_000 || !p.ours {
		r.results.add(at("garbage"), r.logouts(&p.target, p.logout, conns, r.garbage(2*n), 400, 401, 403))
	}
}
