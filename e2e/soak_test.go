//go:build unix

package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/time/rate"

	"example.com/curfew/oidc/oidctest"
)

// soak is people who sign in, use a site and are signed out, at replicas to which things happen. Whatever they ask is
// recorded, with its begin, its end and its answer; a history is checked when its person is done.
type soak struct {
	t      *testing.T
	op     *oidctest.Provider
	ops    http.Handler
	gs     []*gateway
	client *http.Client
	pace   *rate.Limiter
	lossy  bool          // the store is lost with its process
	alone  bool          // the store is of one process
	behind time.Duration // by how much the clock of a process may be behind that of the process before it
	fails  bool          // the store has replicas of its own, one of which takes over
	rest   time.Duration // at most, before a person is asked about for the last time
	quick  bool          // nobody is kept for the end
	began  time.Time

	happened map[string]int // troubles, by what they are

	next   atomic.Int64 // person
	people int
	stop   atomic.Bool // no new people
	counts counts

	mu       sync.Mutex
	faults   []fault
	crashed  []deed
	restarts []int64
	refused  map[string]int64 // when the provider refused to refresh, by subject
	wrong    []string
	bad      []*violation
	bones    []*somebody // who are asked about once more in the end
}

// counts are of what was asked, by what it was.
type counts struct {
	signIns, checks, refreshes, logouts, others, busy, lost, histories, stale, early atomic.Int64
}

func (c *counts) operations() int64 {
	return c.signIns.Load() + c.checks.Load() + c.refreshes.Load() + c.logouts.Load() + c.others.Load()
}

// violation is a history that is wrong.
type violation struct {
	*history
	shortest []deed
	text     string
}

// newSoak makes replicas on a store; none of them runs yet.
func newSoak(t *testing.T, store string, n, people int) *soak {
	t.Helper()
	last := &gateway{client: "app", secret: "app-secret-0123456789abcdef0123456789", listen: reserve(t),
		admin: reserve(t), dir: t.TempDir()}
	last.url = "http://" + last.listen
	s := &soak{t: t, people: people, rest: time.Second, began: time.Now(), refused: map[string]int64{},
		happened: map[string]int{},
		pace:     rate.NewLimiter(1000, 50)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := oidctest.Config{
		Issuer: "http://" + l.Addr().String(), SigningAlg: "ES256", AutoLogin: "nobody",
		Users: []oidctest.User{{Subject: "nobody"}},
		Clients: []oidctest.Client{{ID: last.client, Secret: last.secret,
			RedirectURIs: []string{last.url + "/auth/callback"}}},
	}
	for i := range people {
		config.Users = append(config.Users, oidctest.User{Subject: person(i)})
	}
	s.op = oidctest.New(config)
	s.ops = s.op.Handler()
	var signIns atomic.Int64
	s.op.Mangle(func(m *oidctest.Mangle) {
		m.Tokens = func(kind string, doc map[string]any) {
			switch n := signIns.Add(1); {
			case kind == "refresh_token":
				s.counts.refreshes.Add(1)
				if n%2 == 0 {
					doc["expires_in"] = 1
				}
				pause(time.Duration(rand.Int64N(int64(100 * time.Millisecond)))) // so that a logout meets it
			case n%4 == 0:
				doc["expires_in"] = 1
			default:
				delete(doc, "refresh_token")
			}
		}
	})
	server := &http.Server{Handler: s.watchRefreshes(), ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })

	last.flags = []string{"--listen", last.listen, "--url", last.url, "--issuer", config.Issuer, "--client-id",
		last.client, "--client-secret-file", last.write(t, "secret", last.secret), "--admin-listen", last.admin,
		"--id-token-signed-response-alg", "ES256", "--scopes", "openid", "--log-level", "warn"}
	last.configure(t, "providers: [{userinfo: never}]\n")
	s.gs = replicas(t, last, store, n)
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	s.client = &http.Client{Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(transport.CloseIdleConnections)
	return s
}

// watchRefreshes serves the provider, and notes whose refresh it refuses: that is final, and ends their session.
func (s *soak) watchRefreshes() http.Handler {
	var mu sync.Mutex
	holders := map[string]string{} // of refresh tokens
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/token") {
			s.ops.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		form, _ := url.ParseQuery(string(body))
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer := httptest.NewRecorder()
		s.ops.ServeHTTP(answer, r)
		var doc struct {
			Refresh string `json:"refresh_token"`
			ID      string `json:"id_token"`
		}
		json.Unmarshal(answer.Body.Bytes(), &doc)
		mu.Lock()
		if doc.Refresh != "" {
			holders[doc.Refresh] = subject(s.t, doc.ID)
		}
		holder := holders[form.Get("refresh_token")]
		mu.Unlock()
		if holder != "" && answer.Code != http.StatusOK {
			s.mu.Lock()
			if s.refused[holder] == 0 {
				s.refused[holder] = s.now()
			}
			s.mu.Unlock()
		}
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes())
	})
}

func (s *soak) now() int64 { return time.Since(s.began).Nanoseconds() }

func (s *soak) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
}

// run starts all replicas.
func (s *soak) run() {
	s.t.Helper()
	for i := range s.gs {
		s.startReplica(i)
	}
	for i := range s.gs {
		s.healthy(i)
	}
}

func (s *soak) startReplica(i int) {
	s.t.Helper()
	g := s.gs[i]
	g.child = start(s.t, fmt.Sprintf("replica %d", i), g.dir, append(environ(), g.env...),
		append([]string{cmp.Or(g.program, curfew(s.t)), "serve"}, g.flags...)...)
}

// healthy waits until a replica signs people in and out.
func (s *soak) healthy(i int) {
	s.t.Helper()
	g := s.gs[i]
	eventually(s.t, fmt.Sprintf("replica %d works", i), func() string {
		select {
		case <-g.gone:
			s.t.Fatalf("replica %d has ended: %v", i, g.cmd.ProcessState)
		default:
		}
		resp, body, err := s.do(g, http.MethodGet, "/auth/login?return_to=/&login_hint=nobody", "", nil)
		if err != nil {
			return err.Error()
		}
		if resp.StatusCode != http.StatusSeeOther {
			return fmt.Sprint(resp.StatusCode, body)
		}
		resp, body, err = s.do(g, http.MethodPost, "/auth/backchannel-logout", "",
			url.Values{"logout_token": {s.op.SignLogoutToken("app", "nobody", "")}})
		if err != nil {
			return err.Error()
		}
		return unless(resp.StatusCode == http.StatusOK, "%d %s", resp.StatusCode, body)
	})
}

// do sends a request for the site to a replica.
func (s *soak) do(g *gateway, method, path, cookie string, form url.Values) (*http.Response, string, error) {
	return s.doUntil(context.Background(), g, method, path, cookie, form)
}

func (s *soak) doUntil(ctx context.Context, g *gateway, method, path, cookie string, form url.Values) (*http.Response,
	string, error) {
	at := cmp.Or(g.front, g.listen)
	r, err := http.NewRequestWithContext(ctx, method, "http://"+at+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, "", err
	}
	r.Host = strings.TrimPrefix(g.url, "http://")
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// turn waits until it is time for another operation.
func (s *soak) turn() { s.pace.Wait(context.Background()) }

// somebody is whom one history is about.
type somebody struct {
	*soak
	mu       sync.Mutex
	history  history
	sessions []*signedIn
	quiet    chan struct{} // closed: no more checks beside what they do
}

// signedIn is one session of a person.
type signedIn struct {
	n               int
	op              string // the cookie at the provider
	attempt, target string
	jar             atomic.Pointer[string] // its cookie at the site
}

// cookie is empty as long as nobody is signed in.
func (in *signedIn) cookie() string {
	if c := in.jar.Load(); c != nil {
		return *c
	}
	return ""
}

func (p *somebody) note(d deed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history.deeds = append(p.history.deeds, d)
}

func (p *somebody) random() int { return rand.IntN(len(p.gs)) }

// begin begins a login of another browser, or of one that the provider knows already: then it gets the same sid.
func (p *somebody) begin(as *signedIn) *signedIn {
	p.mu.Lock()
	if len(p.sessions) == mostSessions {
		p.mu.Unlock()
		return nil
	}
	in := &signedIn{n: len(p.sessions)}
	p.sessions = append(p.sessions, in)
	p.history.sids = append(p.history.sids, "")
	if as != nil && as.op != "" {
		in.op = as.op
		p.history.sids[in.n] = p.history.sids[as.n]
	}
	p.mu.Unlock()
	for range 50 {
		i := p.random()
		p.turn()
		p.counts.others.Add(1)
		from := p.now()
		resp, body, err := p.do(p.gs[i], http.MethodGet, "/auth/login?return_to=/&login_hint="+p.history.subject, "", nil)
		switch {
		case err == nil && resp.StatusCode == http.StatusSeeOther:
			p.note(deed{action: begins, session: in.n, replica: i, from: from, to: p.now(), status: resp.StatusCode,
				tries: 1})
			in.attempt, in.target = setCookie(resp.Header), resp.Header.Get("Location")
			return in
		case err == nil && resp.StatusCode != http.StatusServiceUnavailable:
			p.fault("a login begins: %d %.300s", resp.StatusCode, body)
			return nil
		}
		p.failed(err)
		pause(100 * time.Millisecond)
	}
	return nil
}

// failed counts a request that did not get an answer which says anything, and waits a moment.
func (p *somebody) failed(err error) {
	if err != nil {
		p.counts.lost.Add(1)
	} else {
		p.counts.busy.Add(1)
	}
}

// comeBack goes to the provider, and returns from there; as often as it takes, as a browser does that is told to come
// back.
func (p *somebody) comeBack(in *signedIn) {
	if in == nil {
		return
	}
	r, w := httptest.NewRequest(http.MethodGet, in.target, nil), httptest.NewRecorder()
	r.Header.Set("Cookie", in.op)
	p.ops.ServeHTTP(w, r)
	to, err := url.Parse(w.Header().Get("Location"))
	if err != nil || to.Query().Get("code") == "" {
		p.fault("the provider signs in: %d, to %s", w.Code, to)
		return
	}
	if in.op == "" {
		in.op = setCookie(w.Header())
		r.Header.Set("Cookie", in.op)
	}
	at, _ := p.op.BrowserSession(r)
	p.mu.Lock()
	p.history.sids[in.n] = at.SID
	p.mu.Unlock()
	d := deed{action: returns, session: in.n, from: p.now()}
	for d.tries = 1; d.tries < 30; d.tries++ {
		d.replica = p.random()
		p.turn()
		p.counts.signIns.Add(1)
		resp, body, err := p.do(p.gs[d.replica], http.MethodGet, to.RequestURI(), in.attempt, nil)
		d.to = p.now()
		switch {
		case err != nil || resp.StatusCode == http.StatusServiceUnavailable:
			p.failed(err)
			if err == nil && strings.Contains(body, "/auth/login") { // its code is used up
				return
			}
			pause(100 * time.Millisecond)
			continue
		case resp.StatusCode == http.StatusSeeOther:
			c := setCookie(resp.Header)
			in.jar.Store(&c)
		case resp.StatusCode == http.StatusConflict && strings.Contains(body, "signed out"):
		case d.tries > 1 && resp.StatusCode >= 400: // the exchange was begun by a replica that is gone
			return
		default:
			p.fault("a login returns: %d %.300s", resp.StatusCode, body)
			return
		}
		d.status = resp.StatusCode
		p.note(d)
		return
	}
}

// check asks a replica about a session.
func (p *somebody) check(in *signedIn, replica int) {
	if in == nil || in.cookie() == "" {
		return
	}
	p.turn()
	p.counts.checks.Add(1)
	d := deed{action: checks, session: in.n, replica: replica, from: p.now(), tries: 1}
	resp, body, err := p.do(p.gs[replica], http.MethodGet, "/auth/verify", in.cookie(), nil)
	d.to = p.now()
	switch {
	case err != nil || resp.StatusCode == http.StatusServiceUnavailable:
		p.failed(err)
	case resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusUnauthorized:
		d.status = resp.StatusCode
		p.note(d)
	default:
		p.fault("a check: %d %.300s", resp.StatusCode, body)
	}
}

func (p *somebody) checkAll() {
	for _, in := range p.known() {
		for i := range p.gs {
			p.check(in, i)
		}
	}
}

func (p *somebody) known() []*signedIn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sessions)
}

// The ways in which a session is ended.
const (
	bySID = iota
	bySubject
	byBoth
	byThemselves
	byOperator
	waysToEnd
)

// end ends a session, and whatever else that names, in one of the ways; again and again, until the answer is that it
// is done.
func (p *somebody) end(in *signedIn, way int) {
	switch {
	case in == nil:
	case way == byThemselves && in.cookie() != "":
		p.signOut(in)
	case way == byOperator:
		p.operator(in)
	default:
		p.token(in, way)
	}
}

func (p *somebody) token(in *signedIn, way int) {
	p.mu.Lock()
	sid := p.history.sids[in.n]
	p.mu.Unlock()
	sub := p.history.subject
	switch {
	case way == bySubject || sid == "":
		sid = ""
	case way == bySID:
		sub = ""
	}
	how := map[int]string{bySID: "by sid", bySubject: "by sub", byBoth: "by sub and sid"}[way]
	d := deed{action: ends, sid: sid, how: how, replica: -1, from: p.now(), to: never}
	form := url.Values{"logout_token": {p.op.SignLogoutToken("app", sub, sid)}}
	defer func() { p.note(d) }()
	for d.tries = 1; ; d.tries++ {
		if d.tries%200 == 0 { // it runs out
			p.fault("a logout of %s was sent %d times in vain", sub, d.tries)
			return
		}
		i := p.random()
		p.turn()
		p.counts.logouts.Add(1)
		ctx, cancel := context.WithCancel(context.Background())
		if rand.IntN(12) == 0 && d.tries == 1 { // some senders hang up
			ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.Int64N(int64(5*time.Millisecond))))
		}
		resp, body, err := p.doUntil(ctx, p.gs[i], http.MethodPost, "/auth/backchannel-logout", "", form)
		cancel()
		switch {
		case err == nil && resp.StatusCode == http.StatusOK:
			d.to, d.status, d.replica = p.now(), resp.StatusCode, i
			return
		case err == nil && d.tries > 1 && strings.Contains(body, "already processed"):
			d.to, d.status = p.now(), resp.StatusCode
			return
		case err == nil && resp.StatusCode != http.StatusServiceUnavailable:
			p.fault("a logout of %s, sent for the time number %d: %d %.300s", sub, d.tries, resp.StatusCode, body)
			return
		}
		p.failed(err)
		pause(time.Duration(rand.Int64N(int64(200 * time.Millisecond))))
	}
}

// signOut is the person's own. Each try is an operation of its own, since nothing tells a replica that it was tried
// before.
func (p *somebody) signOut(in *signedIn) {
	p.mu.Lock()
	sid := p.history.sids[in.n]
	p.mu.Unlock()
	for range 200 {
		i := p.random()
		p.turn()
		p.counts.logouts.Add(1)
		d := deed{action: ends, how: "by the person", sid: sid, replica: i, from: p.now(), to: never, tries: 1}
		resp, body, err := p.do(p.gs[i], http.MethodPost, "/auth/logout", in.cookie(), url.Values{})
		switch {
		case err == nil && (resp.StatusCode == http.StatusSeeOther || strings.Contains(body, "signed out here")):
			d.to, d.status = p.now(), resp.StatusCode
		case err == nil && resp.StatusCode == http.StatusOK: // it was gone, and is for certain now
			d.to, d.status, d.sid, d.only = p.now(), resp.StatusCode, "", in.n+1
		case err == nil && resp.StatusCode != http.StatusServiceUnavailable:
			p.fault("somebody signs out: %d %.300s", resp.StatusCode, body)
			return
		default:
			p.failed(err)
		}
		p.note(d)
		if d.to != never {
			return
		}
		pause(time.Duration(rand.Int64N(int64(200 * time.Millisecond))))
	}
}

// operator ends a sid, or all sessions of the person, on the private listener.
func (p *somebody) operator(in *signedIn) {
	p.mu.Lock()
	sid := p.history.sids[in.n]
	p.mu.Unlock()
	query := url.Values{"sid": {sid}}
	if sid == "" || rand.IntN(2) == 0 {
		sid, query = "", url.Values{"sub": {p.history.subject}}
	}
	for range 200 {
		i := p.random()
		p.turn()
		p.counts.logouts.Add(1)
		d := deed{action: ends, how: "by an operator", sid: sid, replica: i, from: p.now(), to: never, tries: 1}
		resp, err := drained(p.client.Post("http://"+p.gs[i].admin+"/api/sessions/end?"+query.Encode(), "", nil))
		switch {
		case err == nil && resp.StatusCode == http.StatusOK:
			d.to, d.status = p.now(), resp.StatusCode
		case err == nil && resp.StatusCode != http.StatusServiceUnavailable:
			p.fault("an operator ends sessions: %d", resp.StatusCode)
			return
		default:
			p.failed(err)
		}
		p.note(d)
		if d.to != never {
			return
		}
		pause(time.Duration(rand.Int64N(int64(200 * time.Millisecond))))
	}
}

// drained reads an answer to its end.
func drained(resp *http.Response, err error) (*http.Response, error) {
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	return resp, err
}

// live is one person's time at the site.
func (s *soak) live() {
	n := int(s.next.Add(1))
	p := &somebody{soak: s, quiet: make(chan struct{}),
		history: history{subject: person(n % s.people)}}
	for i := range 1 + rand.IntN(3) {
		var as *signedIn
		if i > 0 && rand.IntN(3) == 0 {
			as = p.sessions[0]
		}
		p.comeBack(p.begin(as))
	}
	var beside sync.WaitGroup
	for range 2 {
		beside.Go(p.browse)
	}

	// Someone is under way when they are ended, and comes back meanwhile or afterwards; two endings may meet.
	victim := p.known()[rand.IntN(len(p.known()))]
	var under *signedIn
	if rand.IntN(2) == 0 {
		under = p.begin(victim)
	}
	meanwhile := rand.IntN(2) == 0
	var ending sync.WaitGroup
	for range 1 + rand.IntN(2) {
		ending.Go(func() { p.end(victim, rand.IntN(waysToEnd)) })
	}
	if meanwhile {
		p.comeBack(under)
	}
	ending.Wait()
	p.check(victim, p.lastEnder())
	p.checkAll()
	if !meanwhile {
		p.comeBack(under)
	}
	p.comeBack(p.begin(nil)) // who was signed out may sign in again
	p.checkAll()
	close(p.quiet)
	beside.Wait()
	if !s.quick && rand.IntN(20) == 0 && !s.stop.Load() {
		s.mu.Lock()
		keep := len(s.bones) < 300
		if keep {
			s.bones = append(s.bones, p)
		}
		s.mu.Unlock()
		if keep {
			return
		}
	}
	pause(time.Duration(rand.Int64N(int64(s.rest))))
	p.finish()
}

// lastEnder is the replica that answered 200 to a logout last.
func (p *somebody) lastEnder() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range slices.Backward(p.history.deeds) {
		if d.action == ends && d.replica >= 0 && d.to != never {
			return d.replica
		}
	}
	return 0
}

// browse uses the site with all browsers, until the person is quiet.
func (p *somebody) browse() {
	for range 60 {
		select {
		case <-p.quiet:
			return
		case <-time.After(time.Duration(rand.Int64N(int64(40 * time.Millisecond)))):
		}
		all := p.known()
		p.check(all[rand.IntN(len(all))], p.random())
	}
}

// finish asks about everybody once more, ends what is left, and judges the history.
func (p *somebody) finish() {
	p.checkAll()
	p.end(p.known()[0], bySubject)
	p.checkAll()
	p.judge()
}

// judge has porcupine check the history.
func (p *somebody) judge() {
	s := p.soak
	h := &p.history
	s.mu.Lock()
	faults, restarts := s.faults, s.restarts
	h.deeds = append(h.deeds, s.crashed...)
	gone := s.refused[h.subject]
	s.mu.Unlock()
	// After the provider has refused a refresh, the session of it ends.
	if gone > 0 {
		h.deeds = slices.DeleteFunc(h.deeds, func(d deed) bool {
			return d.action == checks && d.status == http.StatusUnauthorized && d.to > gone
		})
	}
	// A machine that has too much to do, and a store that is away, make a login's stamp earlier.
	l := limits{ceiling: ceiling, slack: 5 * time.Second}
	if len(s.faultsIn(faults, h)) > 0 {
		l.slack = 30 * time.Second
	}
	if s.alone {
		l.restarts = restarts
	}
	if s.alone && !s.lossy { // a file keeps the end marks of the process before, which are in its time
		l.slack += s.behind
	}
	if s.fails {
		l.failovers = slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
			return strings.HasPrefix(f.what, "a replica") // of Curfew
		})
	}
	h.allow(l)
	for _, d := range h.deeds {
		if d.sent > 0 {
			s.counts.stale.Add(1)
		}
		if d.early {
			s.counts.early.Add(1)
		}
	}
	s.counts.histories.Add(1)
	deeds := h.needed()
	switch h.check(deeds) {
	case porcupine.Ok:
		return
	case porcupine.Unknown:
		s.fault("a history of %d operations cannot be decided in %v:\n%s", len(deeds), decide, h.tell(deeds, faults))
		return
	}
	short := h.shortest(deeds)
	v := &violation{h, short, h.tell(short, faults)}
	s.mu.Lock()
	s.bad = append(s.bad, v)
	first := len(s.bad) == 1
	s.mu.Unlock()
	if first {
		s.draw(v, deeds)
	}
}

// faultsIn are the faults that overlap a history, with half a minute before it.
func (s *soak) faultsIn(faults []fault, h *history) (all []fault) {
	began := never
	for _, d := range h.deeds {
		if d.action != crashes {
			began = min(began, d.from)
		}
	}
	for _, f := range faults {
		if f.to == 0 || f.to > began-int64(30*time.Second) {
			all = append(all, f)
		}
	}
	return all
}

// draw leaves the histories of a violation for a browser, and as text.
func (s *soak) draw(v *violation, whole []deed) {
	dir := s.t.ArtifactDir()
	for name, deeds := range map[string][]deed{"shortest": v.shortest, "whole": whole} {
		_, info := porcupine.CheckOperationsVerbose(v.model(), operations(deeds), decide)
		if err := porcupine.VisualizePath(v.model(), info, filepath.Join(dir, name+".html")); err != nil {
			s.t.Error(err)
		}
		s.mu.Lock()
		text := v.tell(deeds, s.faults)
		s.mu.Unlock()
		if err := os.WriteFile(filepath.Join(dir, name+".txt"), []byte(text), 0o644); err != nil {
			s.t.Error(err)
		}
	}
}

// crowd has so many people live at a time, until stop. What it returns waits for the last of them.
func (s *soak) crowd(n int) (wait func()) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for !s.stop.Load() {
				s.live()
			}
		})
	}
	return all.Wait
}

// close ends the run: it asks about those whose sessions have been lying about, and reports what was wrong.
func (s *soak) close() {
	s.t.Helper()
	spread(len(s.bones), 8, func(i int) { s.bones[i].finish() })
	for i, v := range s.bad {
		if i == 5 {
			s.t.Errorf("and %d more", len(s.bad)-i)
			break
		}
		s.t.Errorf("this history breaks a promise:\n%s", v.text)
	}
	for i, wrong := range s.wrong {
		if i == 10 {
			s.t.Errorf("and %d more", len(s.wrong)-i)
			break
		}
		s.t.Error(wrong)
	}
}

// vitals are what a process uses.
type vitals struct {
	Goroutines int     `json:"goroutines"`
	Files      int     `json:"open_files"`
	HeapMiB    float64 `json:"heap_mib"`
	RSSMiB     float64 `json:"rss_mib"`
}

func (s *soak) vitals(g *gateway) (v vitals, err error) {
	resp, err := s.client.Get("http://" + g.admin + "/metrics")
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "go_goroutines":
			v.Goroutines = int(n)
		case "process_open_fds":
			v.Files = int(n)
		case "go_memstats_heap_inuse_bytes":
			v.HeapMiB = n / (1 << 20)
		case "process_resident_memory_bytes":
			v.RSSMiB = n / (1 << 20)
		}
	}
	return v, err
}
