package login_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/login"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/store"
)

// send sends a callback with the cookies that the browser has had, whatever it has got since.
func (b *browser) send(to string, cookies []*http.Cookie) page {
	r, err := http.NewRequest(http.MethodGet, to, nil)
	must(b.s.t, err)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	c := *b.c
	c.Jar = nil
	resp, err := c.Do(r)
	must(b.s.t, err)
	resp.Body.Close()
	p := page{status: resp.StatusCode, header: resp.Header}
	if u, err := resp.Location(); err == nil {
		p.to = u.String()
	}
	return p
}

// bearer returns the session cookie that an answer sets.
func (p page) bearer() string {
	for _, c := range (&http.Response{Header: p.header}).Cookies() {
		if c.Name == "curfew" {
			return c.Value
		}
	}
	return ""
}

// replica starts another replica, which shares the provider, the store and the ring, and returns its URL.
func (s *stage) replica() string {
	other := &login.Handler{Site: s.h.Site, Sessions: s.m, Keyring: s.h.Keyring, Cookie: s.h.Cookie, Providers: s.h.Providers,
		OnLogin: s.h.OnLogin}
	mux := http.NewServeMux()
	other.Mount(mux)
	return serve(s.t, mux)
}

func TestACallbackThatComesTwiceIsOneExchange(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	second := s.replica()
	b := s.browser()
	callback := b.begin("/auth/login?return_to=/a")
	cookies := b.attempts()
	before := s.ops[0].Count(oidctest.Token)
	var all sync.WaitGroup
	pages := make([]page, 8)
	for i := range pages {
		to := callback
		if i%2 == 1 {
			to = strings.Replace(callback, s.url, second, 1)
		}
		all.Go(func() { pages[i] = b.send(to, cookies) })
	}
	all.Wait()
	for i, p := range pages {
		if p.status != http.StatusSeeOther || !strings.HasSuffix(p.to, "/a") || p.bearer() == "" ||
			p.bearer() != pages[0].bearer() {
			t.Errorf("callback %d: %d to %q, with another cookie than the first: %v", i, p.status, p.to,
				p.bearer() != pages[0].bearer())
		}
	}
	if n := s.ops[0].Count(oidctest.Token) - before; n != 1 || len(s.sessions()) != 1 {
		t.Errorf("%d token requests and %d sessions, want one", n, len(s.sessions()))
	}
	if strings.Contains(s.log.String(), pages[0].bearer()) {
		t.Error("the log holds the bearer")
	}
	must(t, endAll(s))
	if p := b.send(callback, cookies); p.status != http.StatusConflict || p.bearer() != "" || len(s.sessions()) != 0 {
		t.Errorf("after the sign-out it answers %d, and brings the session back: %v", p.status, p.bearer() != "")
	}
}

func TestOneAttemptIsGoodForOneCode(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	callback := b.begin("/auth/login")
	cookies := b.attempts()
	u, err := url.Parse(callback)
	must(t, err)
	q := u.Query()
	q.Set("code", "invented")
	u.RawQuery = q.Encode()
	for range 3 {
		if p := b.send(u.String(), cookies); p.status != 400 || p.bearer() != "" {
			t.Errorf("an invented code: %d", p.status)
		}
	}
	for range 3 {
		if p := b.send(callback, cookies); p.status != 400 || p.bearer() != "" ||
			s.log.last("login")["check"] != "code" {
			t.Errorf("another code: %d, and the log says %v", p.status, s.log.last("login"))
		}
	}
	if n := s.ops[0].Count(oidctest.Token); n != 1 {
		t.Errorf("%d token requests, want one", n)
	}
}

func TestADeadEndLeadsBackAndTellsTheLogWhatTheProviderSaid(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	long := "/deep?" + strings.Repeat("q", 8000)
	for _, to := range []string{"/wiki/100%25", long} {
		b := s.browser()
		callback := b.begin("/auth/login?return_to=" + url.QueryEscape(to))
		s.pass(store.AttemptLifetime)
		p := b.get(callback)
		if p.status != 400 || !strings.Contains(p.body, "return_to="+url.QueryEscape(to)) ||
			!strings.Contains(p.body, "too long") {
			t.Errorf("%.20s: %d %s", to, p.status, p.body)
		}
		if p := b.get(b.begin("/auth/login?return_to=" + url.QueryEscape(to))); p.to != s.url+to {
			t.Errorf("%.20s: sent to %.60s", to, p.to)
		}
	}
	p := s.browser().get("/auth/callback?error=server_error&error_description=the+moon%0ais+full")
	why, _ := s.log.last("login")["error"].(string)
	if p.status != 400 || !strings.Contains(p.body, "server_error") || strings.Contains(p.body, "moon") ||
		!strings.Contains(why, `"the moon\nis full"`) {
		t.Errorf("%d %s; the log says %q", p.status, p.body, why)
	}
}

// The exchange goes on without the browser that began it, and whoever comes after that gets what came of it.
func TestABrowserThatHangsUpFindsItsSessionWhenItComesAgain(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	s := newStage(t, 1, func(h *login.Handler) {
		h.OnLogin = func(context.Context, map[string]any) error { close(entered); <-release; return nil }
	})
	second := s.replica()
	b := s.browser()
	callback := b.begin("/auth/login")
	cookies := b.attempts()
	before := s.ops[0].Count(oidctest.Token)
	ctx, hangUp := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, callback, nil)
	must(t, err)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	gone := make(chan error, 1)
	go func() {
		resp, err := b.c.Transport.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		gone <- err
	}()
	within(t, entered)
	hangUp()
	if err := <-gone; err == nil {
		t.Error("it was answered before it hung up")
	}
	close(release)
	for _, to := range []string{callback, strings.Replace(callback, s.url, second, 1)} {
		if p := b.send(to, cookies); p.status != http.StatusSeeOther || p.bearer() == "" {
			t.Errorf("the next callback: %d", p.status)
		}
	}
	if n := s.ops[0].Count(oidctest.Token) - before; n != 1 || len(s.sessions()) != 1 {
		t.Errorf("%d token requests and %d sessions, want one", n, len(s.sessions()))
	}
}

func TestAPanicOfTheAppIsAnOutcomeLikeAnyOther(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, func(h *login.Handler) {
		h.OnLogin = func(context.Context, map[string]any) error { panic("the app fell over") }
	})
	second := s.replica()
	b := s.browser()
	callback := b.begin("/auth/login")
	cookies := b.attempts()
	before := s.ops[0].Count(oidctest.Token)
	for _, to := range []string{callback, callback, strings.Replace(callback, s.url, second, 1)} {
		if p := b.send(to, cookies); p.status != http.StatusInternalServerError || p.bearer() != "" {
			t.Errorf("%s: %d", to, p.status)
		}
	}
	if n := s.ops[0].Count(oidctest.Token) - before; n != 1 || len(s.sessions()) != 0 {
		t.Errorf("%d token requests, want one, and %d sessions, want none", n, len(s.sessions()))
	}
	if !strings.Contains(s.log.String(), "the app fell over") {
		t.Error("the log does not say why")
	}
}

// A replica that dies after it has claimed an attempt leaves no outcome. Nobody exchanges the code a second time.
func TestAnAttemptWhoseReplicaDiedIsBegunAnew(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	second := s.replica()
	b := s.browser()
	callback := b.begin("/auth/login?return_to=/a")
	cookies := b.attempts()
	before := s.ops[0].Count(oidctest.Token)
	s.store.dies.Store(true)
	if p := b.send(callback, cookies); p.status != http.StatusServiceUnavailable || p.bearer() != "" {
		t.Errorf("the replica that dies: %d", p.status)
	}
	s.store.dies.Store(false)
	s.pass(time.Minute)
	for _, to := range []string{callback, strings.Replace(callback, s.url, second, 1)} {
		p := b.send(to, cookies)
		if why, _ := s.log.last("login")["error"].(string); p.status != http.StatusServiceUnavailable ||
			p.bearer() != "" || !strings.Contains(why, "left no outcome") {
			t.Errorf("a later callback: %d, and the log says %q", p.status, why)
		}
	}
	if n := s.ops[0].Count(oidctest.Token) - before; n != 0 || len(s.sessions()) != 0 {
		t.Errorf("%d token requests and %d sessions, want none", n, len(s.sessions()))
	}
	if b.follow("/auth/login"); b.session() == nil {
		t.Error("the next sign-in fails")
	}
}

// A logout that comes while the app decides is meant for this sign-in: it is refused, however often the callback comes.
func TestALogoutBetweenTheClaimAndTheSessionWins(t *testing.T) {
	t.Parallel()
	var s *stage
	s = newStage(t, 1, func(h *login.Handler) {
		h.OnLogin = func(ctx context.Context, claims map[string]any) error {
			_, err := s.m.End(ctx, store.Ending{Selector: store.Selector{Issuer: s.ops[0].Issuer(), ClientID: "app",
				Subject: "alice"}})
			return err
		}
	})
	second := s.replica()
	b := s.browser()
	callback := b.begin("/auth/login")
	cookies := b.attempts()
	before := s.ops[0].Count(oidctest.Token)
	for _, to := range []string{callback, callback, strings.Replace(callback, s.url, second, 1)} {
		if p := b.send(to, cookies); p.status != http.StatusConflict || p.bearer() != "" {
			t.Errorf("%s: %d", to, p.status)
		}
	}
	if n := s.ops[0].Count(oidctest.Token) - before; n != 1 || len(s.sessions()) != 0 {
		t.Errorf("%d token requests, want one, and %d sessions, want none", n, len(s.sessions()))
	}
}

// within waits for a signal, and fails the test when it does not come.
func within(t *testing.T, signal <-chan struct{}) {
	t.Helper()
	select {
	case <-signal:
	case <-time.After(time.Minute):
		t.Fatal("waited a minute in vain")
	}
}
