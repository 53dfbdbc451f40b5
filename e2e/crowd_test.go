//go:build unix

package e2e_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/oidc/oidctest"
)

const (
	people  = 500
	tabs    = 10 // that each of them signs in with
	early   = 8  // of these, before anybody is logged out
	logouts = 1000
	bySub   = 200 // of these; so many people are named by their subject alone
	waiting = 100 // sign-ins that begin before the logouts and come back after them

	// slack bounds what clocks add: replicas know the store's time within bounds (docs/adr/0014). A sign-in that began
	// so soon after a logout may be let in or refused; one that began before it never comes in.
	slack = time.Second
)

// member is one browser that signs in.
type member struct {
	user   string
	sid    string
	cookie string // at the site; empty: its sign-in was refused, because of a logout
	op     string // its cookie at the provider

	attempt, at string // its cookie while it signs in, and where at the provider it goes

	began time.Time // before its sign-in was begun
	begun time.Time // when that had been answered
	back  time.Time // before it came back from the provider
	in    time.Time // when that had been answered
}

// ending is a logout.
type ending struct {
	user, sid string
	from      time.Time // before the token was sent for the first time
	done      time.Time // when 2xx had come; zero: not yet
}

func (e *ending) names(m *member) bool {
	return (e.user == "" || e.user == m.user) && (e.sid == "" || e.sid == m.sid)
}

// crowd is many people at a site, and what is to be true of each of them.
type crowd struct {
	op     *oidctest.Provider
	ops    http.Handler
	gs     []*gateway
	client *http.Client

	refreshes atomic.Int64
	busy      atomic.Int64 // checks that were answered 503
	unkept    atomic.Int64 // sign-ins that were: a code works once, so they are over

	mu      sync.Mutex
	members []*member
	endings map[string][]*ending // by what they name: a sid, or a subject where they name no sid
	wrong   []string
}

func newCrowd(t *testing.T, store string, n int) *crowd {
	t.Helper()
	last := &gateway{client: "app", secret: "app-secret-0123456789abcdef0123456789", listen: reserve(t),
		admin: reserve(t), dir: t.TempDir()}
	last.url = "http://" + last.listen
	config := oidctest.Config{
		SigningAlg: "ES256", AutoLogin: "nobody", Users: []oidctest.User{{Subject: "nobody"}},
		Clients: []oidctest.Client{{ID: last.client, Secret: last.secret,
			RedirectURIs: []string{last.url + "/auth/callback"}}},
	}
	for i := range people {
		config.Users = append(config.Users, oidctest.User{Subject: person(i)})
	}
	c := &crowd{op: oidctest.Start(t, config), endings: map[string][]*ending{}}
	c.ops = c.op.Handler()
	var signIns atomic.Int64
	c.op.Mangle(func(m *oidctest.Mangle) {
		m.Tokens = func(kind string, doc map[string]any) {
			switch {
			case kind == "refresh_token":
				c.refreshes.Add(1)
			case signIns.Add(1)%4 == 0:
				doc["expires_in"] = 1
			default: // neither here nor at a logout
				delete(doc, "refresh_token")
			}
		}
	})
	last.flags = []string{"--listen", last.listen, "--url", last.url, "--issuer", c.op.Issuer(), "--client-id",
		last.client,
		"--client-secret-file", last.write(t, "secret", last.secret), "--admin-listen", last.admin,
		"--id-token-signed-response-alg", "ES256",
		"--scopes", "openid"}
	last.configure(t, "providers: [{userinfo: never}]\n") // it would say nothing, and be one request more
	c.gs = replicas(t, last, store, n)
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	c.client = &http.Client{Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(transport.CloseIdleConnections)
	return c
}

func person(i int) string { return fmt.Sprintf("person%d", i) }

func (c *crowd) any() *gateway { return c.gs[rand.IntN(len(c.gs))] }

func (c *crowd) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// do sends a request for the site to a replica.
func (c *crowd) do(g *gateway, method, path, cookie string, form url.Values) (*http.Response, string, error) {
	r, err := http.NewRequest(method, "http://"+g.listen+path, strings.NewReader(form.Encode()))
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
	resp, err := c.client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func setCookie(h http.Header) string {
	var all []string
	for _, ck := range (&http.Response{Header: h}).Cookies() {
		if ck.MaxAge >= 0 {
			all = append(all, ck.Name+"="+ck.Value)
		}
	}
	return strings.Join(all, "; ")
}

// begin begins a sign-in at any replica.
func (c *crowd) begin(m *member) error { return c.beginAt(c.any(), m) }

func (c *crowd) beginAt(g *gateway, m *member) error {
	m.began = time.Now()
	resp, body, err := c.do(g, http.MethodGet, "/auth/login?return_to=/&login_hint="+m.user, "", nil)
	m.begun = time.Now()
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSeeOther {
		return fmt.Errorf("a sign-in begins: %d %.300s", resp.StatusCode, body)
	}
	m.attempt, m.at = setCookie(resp.Header), resp.Header.Get("Location")
	return nil
}

// arrive signs in at the provider and comes back, to whatever replica.
func (c *crowd) arrive(m *member) error {
	back, err := c.authorize(m)
	if err != nil {
		return err
	}
	resp, body, err := c.comeBack(c.any(), m, back)
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusSeeOther:
	case resp.StatusCode == http.StatusServiceUnavailable:
		c.unkept.Add(1)
		return nil
	case resp.StatusCode != http.StatusConflict || !strings.Contains(body, "signed out"):
		return fmt.Errorf("a sign-in comes back: %d %.300s", resp.StatusCode, body)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = append(c.members, m)
	return nil
}

// authorize signs in at the provider, and returns where that sends the browser.
func (c *crowd) authorize(m *member) (back string, err error) {
	r, w := httptest.NewRequest(http.MethodGet, m.at, nil), httptest.NewRecorder()
	r.Header.Set("Cookie", m.op)
	c.ops.ServeHTTP(w, r)
	to, err := url.Parse(w.Header().Get("Location"))
	if err != nil || to.Query().Get("code") == "" {
		return "", fmt.Errorf("the provider signs in: %d, to %s", w.Code, to)
	}
	if m.op == "" {
		m.op = setCookie(w.Header())
		r.Header.Set("Cookie", m.op)
	}
	s, _ := c.op.BrowserSession(r)
	if m.sid = s.SID; s.Subject != m.user {
		return "", fmt.Errorf("%s is at the provider as %q", m.user, s.Subject)
	}
	return to.RequestURI(), nil
}

// comeBack opens the page of a replica that the provider sent the browser to.
func (c *crowd) comeBack(g *gateway, m *member, back string) (*http.Response, string, error) {
	m.back = time.Now()
	resp, body, err := c.do(g, http.MethodGet, back, m.attempt, nil)
	m.in = time.Now()
	if err == nil && resp.StatusCode == http.StatusSeeOther {
		m.cookie = setCookie(resp.Header)
	}
	return resp, body, err
}

func (c *crowd) signIn(m *member) {
	err := c.begin(m)
	if err == nil {
		err = c.arrive(m)
	}
	c.try(err)
}

func (c *crowd) try(err error) {
	if err != nil {
		c.fault("%v", err)
	}
}

// end sends a logout token, to another replica each time, until one says that it is done.
func (c *crowd) end(e *ending, sub string) {
	name := e.sid
	if name == "" {
		name = e.user
	}
	token := c.op.SignLogoutToken("app", sub, e.sid)
	c.mu.Lock()
	e.from = time.Now()
	c.endings[name] = append(c.endings[name], e)
	c.mu.Unlock()
	for tries := 1; ; tries++ {
		resp, body, err := c.do(c.any(), http.MethodPost, "/auth/backchannel-logout", "",
			url.Values{"logout_token": {token}})
		switch {
		case err == nil && resp.StatusCode == http.StatusOK, err == nil && tries > 1 &&
			strings.Contains(body, "already processed"):
			c.mu.Lock()
			e.done = time.Now()
			c.mu.Unlock()
			return
		case err == nil && resp.StatusCode == http.StatusServiceUnavailable && tries < 20:
		default:
			c.fault("a logout, sent for the time number %d: %v %.300s (error %v)", tries, resp, body, err)
			return
		}
	}
}

// naming is what may have ended a member.
func (c *crowd) naming(m *member) []ending {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []ending
	for _, e := range slices.Concat(c.endings[m.sid], c.endings[m.user]) {
		if e.names(m) {
			all = append(all, *e)
		}
	}
	return all
}

// ask asks a replica about a member. A machine that is very slow may have it ask twice.
func (c *crowd) ask(m *member, g *gateway) (asked time.Time, status int) {
	for range 10 {
		asked = time.Now()
		resp, _, err := c.do(g, http.MethodGet, "/auth/verify", m.cookie, nil)
		if err != nil {
			c.fault("a check: %v", err)
			return asked, 0
		}
		if status = resp.StatusCode; status != http.StatusServiceUnavailable {
			break
		}
		c.busy.Add(1)
	}
	return asked, status
}

// check asks a replica about a member while others are logged out, and judges the answer.
func (c *crowd) check(m *member, g *gateway) {
	asked, status := c.ask(m, g)
	endings := c.naming(m)
	switch status {
	case http.StatusOK:
		for _, e := range endings {
			if m.in.Before(e.from) && !e.done.IsZero() && asked.Sub(e.done) > ceiling {
				c.fault("%s was served to who asked %v after a logout of theirs was done", m.user, asked.Sub(e.done))
			}
		}
	case http.StatusUnauthorized:
		if len(endings) == 0 {
			c.fault("%s was refused, whom no logout names", m.user)
		}
	default:
		c.fault("a check was answered %d", status)
	}
}

// verdict is what has to be true of a member in the end.
type verdict string

const (
	alive   verdict = "alive"
	dead    verdict = "dead"
	refused verdict = "refused" // never let in
	either  verdict = "either"  // its sign-in began while a logout that names it was carried out
)

func (c *crowd) verdict(m *member) verdict {
	v := alive
	for _, e := range c.naming(m) {
		switch {
		case m.in.Before(e.from):
			return dead
		case m.begun.Before(e.from) && m.back.After(e.done):
			v = refused
		case m.began.After(e.done.Add(slack)):
		case v == alive:
			v = either
		}
	}
	return v
}

// judge asks every replica about every member.
func (c *crowd) judge(t *testing.T) {
	var mu sync.Mutex
	count := map[verdict]int{}
	spread(len(c.members), 16, func(i int) {
		m := c.members[i]
		statuses := make([]int, len(c.gs))
		if m.cookie != "" {
			var all sync.WaitGroup // at the same moment: those whose access token has run out need another one
			for i, g := range c.gs {
				all.Go(func() { _, statuses[i] = c.ask(m, g) })
			}
			all.Wait()
		}
		v := c.verdict(m)
		want := map[verdict][]int{
			alive: {http.StatusOK}, dead: {http.StatusUnauthorized}, refused: {0},
			either: {http.StatusOK, http.StatusUnauthorized, 0},
		}[v]
		if same := slices.Compact(slices.Clone(statuses)); len(same) != 1 || !slices.Contains(want, same[0]) {
			c.fault("%s should be %s, and the replicas answer %d (began %v, in %v; %+v)", m.user, v, statuses, m.began,
				m.in, c.naming(m))
		}
		mu.Lock()
		count[v]++
		mu.Unlock()
	})
	t.Logf("%d sign-ins: %v; access tokens refreshed %d times; 503 to %d checks and %d sign-ins", len(c.members), count,
		c.refreshes.Load(), c.busy.Load(), c.unkept.Load())
	if n := len(c.members) + int(c.unkept.Load()); n != people*tabs {
		t.Errorf("%d have signed in, want %d", n, people*tabs)
	}
	for _, v := range []verdict{alive, dead, refused} {
		if count[v] < waiting/4 {
			t.Errorf("%d of the crowd are %s: the test does not test that", count[v], v)
		}
	}
	if c.refreshes.Load() < people/2 {
		t.Errorf("access tokens were refreshed %d times: the test does not test that", c.refreshes.Load())
	}
	for i, wrong := range c.wrong {
		if i == 20 {
			t.Errorf("and %d more", len(c.wrong)-i)
			break
		}
		t.Error(wrong)
	}
}

// lastOf is who signed in last under a name.
func (c *crowd) lastOf(user string) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range slices.Backward(c.members) {
		if m.user == user {
			return m
		}
	}
	return new(member)
}

// pause lets a time run out that is the replicas' to count.
func pause(d time.Duration) { <-time.NewTimer(d).C }

// spread hands out numbers below n to so many at once.
func spread(n, atOnce int, do func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for i := int(next.Add(1) - 1); i < n; i = int(next.Add(1) - 1) {
				do(i)
			}
		})
	}
	all.Wait()
}

// Promises 1 to 3 in a crowd: of 5,000 sessions of 500 people, 1,000 logouts end those that they name and no others,
// while people sign in, use the app and have their tokens refreshed, wherever a load balancer sends them.
func TestInACrowdExactlyThoseAreLoggedOutWhomALogoutNames(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow: 5,000 people sign in")
	}
	// Each engine, and both numbers of replicas.
	counts := map[string]int{"postgres": 2, "redis": 4, "redis cluster": 2}
	for _, k := range engines() {
		t.Run(fmt.Sprintf("%d on %s", counts[k.name], k.name), func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, k.start(t).url, counts[k.name])
			run(t, c.gs)
			c.live(t)
		})
	}
}

func (c *crowd) live(t *testing.T) {
	started := time.Now()
	lap := func(format string, args ...any) {
		t.Logf("after %v %s", time.Since(started).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
	spread(people, 16, func(i int) {
		for n := range early {
			m := &member{user: person(i)}
			if n == early-1 { // as the tab before it at the provider, so with the same sid
				m.op = c.lastOf(m.user).op
			}
			c.signIn(m)
		}
	})
	lap("%d have signed in", len(c.members))
	first := slices.Clone(c.members)
	rand.Shuffle(len(first), func(i, j int) { first[i], first[j] = first[j], first[i] })

	// The first people are named by their subject; of the others, sids, half of them together with the subject.
	var names []func()
	for i := range bySub {
		names = append(names, func() { c.end(&ending{user: person(i)}, person(i)) })
	}
	named := map[string]*member{}
	for _, m := range first {
		if i, _ := strconv.Atoi(strings.TrimPrefix(m.user, "person")); i >= bySub && len(names) < logouts &&
			named[m.sid] == nil {
			named[m.sid] = m
			e, sub := &ending{sid: m.sid}, ""
			if len(names)%2 == 0 {
				e.user, sub = m.user, m.user
			}
			names = append(names, func() { c.end(e, sub) })
		}
	}
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })

	// Half of those who are under way meanwhile are of a person, or go by a sid, that is named.
	var under []*member
	for _, m := range named {
		if len(under) == waiting/4 {
			break
		}
		under = append(under, &member{user: m.user, op: m.op})
	}
	for len(under) < waiting {
		i := len(under)
		if i >= waiting/2 {
			i += bySub
		}
		under = append(under, &member{user: person(i)})
	}
	spread(len(under), 16, func(i int) { c.try(c.begin(under[i])) })

	const atOnce = 4
	var busy sync.WaitGroup
	busy.Go(func() { spread(len(names), atOnce, func(i int) { names[i]() }) })
	busy.Go(func() {
		rest := people*tabs - len(first) - int(c.unkept.Load()) - len(under)
		spread(rest, atOnce, func(i int) { c.signIn(&member{user: person(i % people)}) })
	})
	var checking sync.WaitGroup
	var checks atomic.Int64
	var over atomic.Bool
	for range atOnce {
		checking.Go(func() {
			for ; !over.Load(); checks.Add(1) {
				c.check(first[rand.IntN(len(first))], c.any())
			}
		})
	}
	busy.Wait()
	over.Store(true)
	checking.Wait()
	lap("%d logouts are done, beside %d checks", len(names), checks.Load())
	pause(ceiling)
	spread(len(under), 16, func(i int) { c.try(c.arrive(under[i])) })

	c.judge(t)
	lap("all have been judged")
}
