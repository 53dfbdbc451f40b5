package login_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/login"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/store"
)

// send sends a callback with the cookies that the browser has had, whatever it has got since.
func (b *browser) send(to string, cookies []*http.Cookie) rig.Page {
	c := *b.Client
	c.Jar = nil
	var sent []string
	for _, c := range cookies {
		sent = append(sent, c.Name+"="+c.Value)
	}
	return (&rig.Browser{Site: b.Site, Client: &c}).Do("GET", to, "", "Cookie", strings.Join(sent, "; "))
}

// replica starts another replica, which shares the provider, the store and the ring, and returns its URL.
func (s *stage) replica() string {
	other := &login.Handler{Site: s.h.Site, Sessions: s.Manager, Keyring: s.h.Keyring, Cookie: s.h.Cookie,
		Providers: s.h.Providers, OnLogin: s.h.OnLogin}
	mux := http.NewServeMux()
	other.Mount(mux)
	return rig.Serve(s.T, mux).URL
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
	pages := make([]rig.Page, 8)
	for i := range pages {
		to := callback
		if i%2 == 1 {
			to = strings.Replace(callback, s.URL, second, 1)
		}
		all.Go(func() { pages[i] = b.send(to, cookies) })
	}
	all.Wait()
	for i, p := range pages {
		if p.Status != http.StatusSeeOther || !strings.HasSuffix(p.To, "/a") || p.Cookie("curfew") == "" ||
			p.Cookie("curfew") != pages[0].Cookie("curfew") {
			t.Errorf("callback %d: %d to %q, with another cookie than the first: %v", i, p.Status, p.To,
				p.Cookie("curfew") != pages[0].Cookie("curfew"))
		}
	}
	if n := s.ops[0].Count(oidctest.Token) - before; n != 1 || len(s.sessions()) != 1 {
		t.Errorf("%d token requests and %d sessions, want one", n, len(s.sessions()))
	}
	if strings.Contains(s.Log.String(), pages[0].Cookie("curfew")) {
		t.Error("the log holds the bearer")
	}
	rig.Must(t, endAll(s))
	if p := b.send(callback, cookies); p.Status != http.StatusConflict || p.Cookie("curfew") != "" ||
		len(s.sessions()) != 0 {
		t.Errorf("after the sign-out it answers %d and sets the cookie %q", p.Status, p.Cookie("curfew"))
	}
}

func TestOneAttemptIsGoodForOneCode(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	callback := b.begin("/auth/login")
	cookies := b.attempts()
	u, err := url.Parse(callback)
	rig.Must(t, err)
	q := u.Query()
	q.Set("code", "invented")
	u.RawQuery = q.Encode()
	for range 3 {
		if p := b.send(u.String(), cookies); p.Status != 400 || p.Cookie("curfew") != "" {
			t.Errorf("an invented code: %d", p.Status)
		}
	}
	for range 3 {
		if p := b.send(callback, cookies); p.Status != 400 || p.Cookie("curfew") != "" ||
			s.Log.Last("login")["check"] != "code" {
			t.Errorf("another code: %d, and the log says %v", p.Status, s.Log.Last("login"))
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
		s.Pass(store.AttemptLifetime)
		p := b.Get(callback)
		if p.Status != 400 || !strings.Contains(p.Body, "return_to="+url.QueryEscape(to)) ||
			!strings.Contains(p.Body, "too long") {
			t.Errorf("%.20s: %d %s", to, p.Status, p.Body)
		}
		if p := b.Get(b.begin("/auth/login?return_to=" + url.QueryEscape(to))); p.To != s.URL+to {
			t.Errorf("%.20s: sent to %.60s", to, p.To)
		}
	}
	p := s.browser().Get("/auth/callback?error=server_error&error_description=the+moon%0ais+full")
	why, _ := s.Log.Last("login")["error"].(string)
	if p.Status != 400 || !strings.Contains(p.Body, "server_error") || strings.Contains(p.Body, "moon") ||
		!strings.Contains(why, `"the moon\nis full"`) {
		t.Errorf("%d %s; the log says %q", p.Status, p.Body, why)
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
	rig.Must(t, err)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	gone := make(chan error, 1)
	go func() {
		resp, err := b.Client.Transport.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		gone <- err
	}()
	rig.Soon(t, "the app to be asked", entered)
	hangUp()
	if err := <-gone; err == nil {
		t.Error("it was answered before it hung up")
	}
	close(release)
	for _, to := range []string{callback, strings.Replace(callback, s.URL, second, 1)} {
		if p := b.send(to, cookies); p.Status != http.StatusSeeOther || p.Cookie("curfew") == "" {
			t.Errorf("the next callback: %d", p.Status)
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
	for _, to := range []string{callback, callback, strings.Replace(callback, s.URL, second, 1)} {
		if p := b.send(to, cookies); p.Status != http.StatusInternalServerError || p.Cookie("curfew") != "" {
			t.Errorf("%s: %d", to, p.Status)
		}
	}
	if n := s.ops[0].Count(oidctest.Token) - before; n != 1 || len(s.sessions()) != 0 {
		t.Errorf("%d token requests, want one, and %d sessions, want none", n, len(s.sessions()))
	}
	if !strings.Contains(s.Log.String(), "the app fell over") {
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
	if p := b.send(callback, cookies); p.Status != http.StatusServiceUnavailable || p.Cookie("curfew") != "" {
		t.Errorf("the replica that dies: %d", p.Status)
	}
	s.store.dies.Store(false)
	s.Pass(time.Minute)
	for _, to := range []string{callback, strings.Replace(callback, s.URL, second, 1)} {
		p := b.send(to, cookies)
		if why, _ := s.Log.Last("login")["error"].(string); p.Status != http.StatusServiceUnavailable ||
			p.Cookie("curfew") != "" || !strings.Contains(why, "left no outcome") {
			t.Errorf("a later callback: %d, and the log says %q", p.Status, why)
		}
	}
	if n := s.ops[0].Count(oidctest.Token) - before; n != 0 || len(s.sessions()) != 0 {
		t.Errorf("%d token requests and %d sessions, want none", n, len(s.sessions()))
	}
	if b.Follow("/auth/login"); b.Session() == nil {
		t.Error("the next sign-in fails")
	}
}

// A logout that comes while the app decides is meant for this sign-in: it is refused, however often the callback comes.
func TestALogoutBetweenTheClaimAndTheSessionWins(t *testing.T) {
	t.Parallel()
	var s *stage
	s = newStage(t, 1, func(h *login.Handler) {
		h.OnLogin = func(ctx context.Context, claims map[string]any) error {
			_, err := s.Manager.End(ctx, store.Ending{Selector: store.Selector{Issuer: s.ops[0].Issuer(),
				ClientID: "app", Subject: "alice"}})
			return err
		}
	})
	second := s.replica()
	b := s.browser()
	callback := b.begin("/auth/login")
	cookies := b.attempts()
	before := s.ops[0].Count(oidctest.Token)
	for _, to := range []string{callback, callback, strings.Replace(callback, s.URL, second, 1)} {
		if p := b.send(to, cookies); p.Status != http.StatusConflict || p.Cookie("curfew") != "" {
			t.Errorf("%s: %d", to, p.Status)
		}
	}
	if n := s.ops[0].Count(oidctest.Token) - before; n != 1 || len(s.sessions()) != 0 {
		t.Errorf("%d token requests, want one, and %d sessions, want none", n, len(s.sessions()))
	}
}
