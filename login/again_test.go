package login_test

import (
	"net/url"
	"strings"
	"testing"

	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

// A claim about the sign-in itself stays as it is while the provider's session answers at once. So the page asks for a
// new sign-in, once.
func TestWhoLacksAClaimAboutTheSignInIsAskedToSignInAnew(t *testing.T) {
	t.Parallel()
	for _, claim := range []string{"acr", "amr", "auth_time"} {
		s := newStage(t, 1, nil, func(p *oidc.Config) { p.Require = map[string][]any{claim: {"gold"}} })
		b := s.browser()
		p := b.Follow("/auth/login?return_to=/a")
		const link = "/auth/login?prompt=login&amp;provider=main&amp;return_to=%2Fa"
		if p.Status != 403 || !strings.Contains(p.Body, "Sign in again") || !strings.Contains(p.Body, link) {
			t.Fatalf("%s: %d %s", claim, p.Status, p.Body)
		}
		to, err := url.Parse(b.Get("/auth/login?prompt=login&provider=main&return_to=/a").To)
		if err != nil || to.Query().Get("prompt") != "login" {
			t.Errorf("%s: the provider is asked %v (error %v)", claim, to, err)
		}
		// The provider signs the person in anew, with the same claims.
		s.ops[0].Mangle(func(m *oidctest.Mangle) {
			m.Authorize = func(request url.Values) string { request.Del("prompt"); return "" }
		})
		p = b.Follow("/auth/login?prompt=login&provider=main&return_to=/a")
		if p.Status != 403 || strings.Contains(p.Body, "Sign in again") ||
			!strings.Contains(p.Body, "Use another account") {
			t.Errorf("%s, after a new sign-in: %d %s", claim, p.Status, p.Body)
		}
		if b.Session() != nil {
			t.Errorf("%s: signed in", claim)
		}
	}
}

// Core §3.1.2.1: with prompt none, the request says whom it is about.
func TestASilentSignInSendsTheIDTokenOfTheSession(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	hint := func(path string) string {
		to, err := url.Parse(b.Get(path).To)
		if err != nil {
			t.Fatal(err)
		}
		return to.Query().Get("id_token_hint")
	}
	if got := hint("/auth/login?silent=true"); got != "" {
		t.Errorf("without a session: %q", got)
	}
	b.Follow("/auth/login")
	was := b.Session()
	for _, path := range []string{"/auth/login?silent=true", "/auth/login?prompt=none"} {
		if got := hint(path); got == "" || got != was.Tokens.IDToken {
			t.Errorf("%s: the hint is %q", path, got)
		}
	}
	for _, path := range []string{"/auth/login", "/auth/login?prompt=login"} {
		if got := hint(path); got != "" {
			t.Errorf("%s: the hint is %q", path, got)
		}
	}
	b.Follow("/auth/login?silent=true&return_to=/a")
	if is := b.Session(); is == nil || is.Key == was.Key {
		t.Error("it did not sign in")
	}
	s.ops[0].Mangle(func(m *oidctest.Mangle) {
		m.IDToken = func(j *oidctest.JWT) { j.Claims["padding"] = strings.Repeat("x", 4<<10) }
	})
	b.Follow("/auth/login")
	if got := hint("/auth/login?silent=true"); got != "" || b.Session() == nil {
		t.Errorf("an ID Token too long for a URL: the hint has %d bytes", len(got))
	}
}

// Some providers answer a silent request with an error, and once more, with its state, after the next real sign-in.
func TestAnAttemptThatWasAnsweredByAnErrorAloneCanStillBeAnswered(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	b.Follow("/auth/login") // so that the provider knows who it is
	rig.Must(t, endAll(s))
	callback, err := url.Parse(b.begin("/auth/login?silent=true&return_to=/a"))
	rig.Must(t, err)
	q := callback.Query()
	failed := *callback
	failed.RawQuery = url.Values{"state": q["state"], "iss": q["iss"], "error": {"login_required"}}.Encode()
	for range 2 {
		if p := b.Get(failed.String()); p.Status != 303 || p.To != s.URL+"/a" || b.Session() != nil {
			t.Fatalf("the error: %d %s", p.Status, p.Body)
		}
	}
	if p := b.Get(callback.String()); p.Status != 303 || p.To != s.URL+"/a" || b.Session() == nil {
		t.Errorf("the answer: %d %s", p.Status, p.Body)
	}
	if n := len(b.attempts()); n != 0 {
		t.Errorf("%d cookies of attempts are left", n)
	}
	// Another browser cannot use it.
	rig.Must(t, endAll(s))
	stolen := b.begin("/auth/login?silent=true")
	if other := s.browser(); other.Get(stolen).Status == 303 && other.Session() != nil {
		t.Error("another browser is signed in")
	}
}
