package login_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"example.com/curfew/login"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
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

func TestACallbackThatComesTwiceIsOneExchange(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	// Another replica: it shares the provider, the store and the ring.
	other := &login.Handler{Site: s.h.Site, Sessions: s.m, Ring: s.h.Ring, Cookie: s.h.Cookie, Providers: s.h.Providers}
	mux := http.NewServeMux()
	other.Mount(mux)
	second := serve(t, mux)
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
		if p.status != http.StatusSeeOther || !strings.HasSuffix(p.to, "/a") || p.bearer() == "" || p.bearer() != pages[0].bearer() {
			t.Errorf("callback %d: %d to %q, with another cookie than the first: %v", i, p.status, p.to, p.bearer() != pages[0].bearer())
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
		if p := b.send(callback, cookies); p.status != 400 || p.bearer() != "" || s.log.last("login")["check"] != "code" {
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
		s.pass(session.AttemptLifetime)
		p := b.get(callback)
		if p.status != 400 || !strings.Contains(p.body, "return_to="+url.QueryEscape(to)) || !strings.Contains(p.body, "too long") {
			t.Errorf("%.20s: %d %s", to, p.status, p.body)
		}
		if p := b.get(b.begin("/auth/login?return_to=" + url.QueryEscape(to))); p.to != s.url+to {
			t.Errorf("%.20s: sent to %.60s", to, p.to)
		}
	}
	p := s.browser().get("/auth/callback?error=server_error&error_description=the+moon%0ais+full")
	why, _ := s.log.last("login")["error"].(string)
	if p.status != 400 || !strings.Contains(p.body, "server_error") || strings.Contains(p.body, "moon") || !strings.Contains(why, `"the moon\nis full"`) {
		t.Errorf("%d %s; the log says %q", p.status, p.body, why)
	}
}
