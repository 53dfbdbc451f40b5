package logout_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/logout"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

func TestSigningOutEndsTheSessionHereFirstAndThenAtTheProvider(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b, bob := s.signedIn("alice"), s.signedIn("bob")
	before := b.Session()
	if p := b.Get("/auth/logout"); p.Status != 200 || !strings.Contains(p.Body,
		`<form method="post" action="/auth/logout">`) || b.Session() == nil {
		t.Errorf("a GET does not just ask: %d %s", p.Status, p.Body)
	}
	ended, stop := s.Manager.Watch(before.Key)
	defer stop()
	p := b.Do("POST", "/auth/logout", "", "Sec-Fetch-Site", "same-origin")
	to, err := url.Parse(p.To)
	rig.Must(t, err)
	q := to.Query()
	if p.Status != http.StatusSeeOther || !strings.HasPrefix(p.To, s.op.URL(oidctest.EndSession)+"?") ||
		q.Get("id_token_hint") != before.Tokens.IDToken ||
		q.Get("client_id") != "app" || q.Get("post_logout_redirect_uri") != s.URL+"/auth/logout/callback" ||
		len(q.Get("state")) < 22 {
		t.Fatalf("%d to %s", p.Status, p.To)
	}
	if cause := rig.Soon(t, "the end", ended); cause != store.CauseUser {
		t.Errorf("the cause is %q", cause)
	}
	if b.Session() != nil || b.Cookie("curfew") != "" || s.heard() != "user main ok" {
		t.Errorf("still signed in here before the provider was asked; heard %q", s.heard())
	}
	back := b.Get(p.To) // the provider sends its logout token meanwhile
	if d := s.op.Deliveries(); len(d) != 1 || d[0].Status != 200 {
		t.Errorf("the logout token that follows: %+v", d)
	}
	if !strings.HasPrefix(back.To, s.URL+"/auth/logout/callback?state=") {
		t.Fatalf("the provider sends the browser to %q: %s", back.To, back.Body)
	}
	last := b.Get(back.To)
	if last.Status != 200 || !strings.Contains(last.Body, "You are signed out") ||
		s.Log.Last("user_logout_returned")["result"] != "ok" || b.Cookie("curfew-logout") != "" {
		t.Errorf("%d %s", last.Status, last.Body)
	}
	if bob.Session() == nil {
		t.Error("somebody else was signed out")
	}
}

// 250 groups make an ID Token that no server takes in an address.
func TestSigningOutWithALargeIDTokenPostsAForm(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	large := func(t *testing.T) (*rig.Browser, *session.Session) {
		s.op.Mangle(func(m *oidctest.Mangle) {
			m.IDToken = func(j *oidctest.JWT) {
				groups := make([]string, 250)
				for i := range groups {
					groups[i] = fmt.Sprintf("/organisation/department/team-%03d", i)
				}
				j.Claims["groups"] = groups
			}
		})
		b := s.signedIn("alice")
		live := b.Session()
		if len(live.Tokens.IDToken) < 8<<10 {
			t.Fatalf("the ID Token has %d bytes", len(live.Tokens.IDToken))
		}
		return b, live
	}
	asks := func(p rig.Page) bool { // the redirect leads to the provider's question
		to, err := url.Parse(p.To)
		rig.Must(t, err)
		q := to.Query()
		return p.Status == http.StatusSeeOther && len(p.To) < 4<<10 && !q.Has("id_token_hint") &&
			q.Get("client_id") == "app" &&
			q.Get("post_logout_redirect_uri") == s.URL+"/auth/logout/callback" && q.Get("state") != ""
	}
	b, live := large(t)
	p := b.Do("POST", "/auth/logout", "", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate")
	if p.Status != 200 || p.To != "" || b.Session() != nil || b.Cookie("curfew") != "" || s.heard() != "user main ok" {
		t.Fatalf("%d to %q, signed in %v, heard %q", p.Status, p.To, b.Session() != nil, s.heard())
	}
	for _, want := range []string{`<form method="post" action="` + s.op.URL(oidctest.EndSession) + `">`, "<button>",
		"<script>document.forms[0].submit()</script>"} {
		if !strings.Contains(p.Body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	policy := p.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-",
		"form-action 'self' https: " + s.op.Issuer(), "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %s lacks %s", policy, want)
		}
	}
	if p.Header.Get("Referrer-Policy") != "strict-origin" || p.Header.Get("Cache-Control") != "no-store" ||
		strings.Contains(policy, "unsafe") {
		t.Errorf("%v", p.Header)
	}
	fields := url.Values{}
	for _, f := range regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`).
		FindAllStringSubmatch(p.Body, -1) {
		fields.Add(f[1], html.UnescapeString(f[2]))
	}
	if len(fields) != 4 || fields.Get("id_token_hint") != live.Tokens.IDToken || fields.Get("client_id") != "app" ||
		fields.Get("post_logout_redirect_uri") != s.URL+"/auth/logout/callback" ||
		fields.Get("state") != b.Cookie("curfew-logout") {
		t.Errorf("the form sends %v", slices.Sorted(maps.Keys(fields)))
	}
	back := b.Do("POST", s.op.URL(oidctest.EndSession), fields.Encode(), "Content-Type", form)
	if last := b.Get(back.To); last.Status != 200 || s.Log.Last("user_logout_returned")["result"] != "ok" {
		t.Errorf("back from the provider: %d %s", last.Status, last.Body)
	}
	if strings.Contains(s.Log.String(), live.Tokens.IDToken) {
		t.Error("the log holds the ID Token")
	}
	// A script gets a redirect as ever, to an address that a server takes.
	for _, headers := range [][]string{{"Sec-Fetch-Mode", "cors", "Accept", "text/html"},
		{"Accept", "application/json"}, {"X-Requested-With", "XMLHttpRequest"}} {
		b, _ := large(t)
		p := b.Do("POST", "/auth/logout", "", headers...)
		if !asks(p) || b.Session() != nil {
			t.Errorf("%v: %d to %.200s", headers, p.Status, p.To)
		}
	}
	// So does a browser where the provider takes no form.
	for _, status := range []int{404, 405} {
		b, _ := large(t)
		s.op.Override(oidctest.EndSession, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
		if p := b.Do("POST", "/auth/logout", "", "Sec-Fetch-Mode", "navigate"); !asks(p) || b.Session() != nil {
			t.Errorf("the provider answers a POST with %d: %d to %.200s", status, p.Status, p.To)
		}
	}
}

// The provider cannot read an ID Token that it encrypted to us: what is kept, and sent back to it, is the signed one.
func TestSigningOutSendsTheSignedIDTokenOfAnEncryptedOne(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rig.Must(t, err)
	s := newStage(t, nil, func(c *oidc.Config) {
		c.Encryption = &oidc.Encryption{Alg: "ECDH-ES", Enc: "A128GCM", Key: key}
	})
	s.client(func(c *oidctest.Client) {
		c.Encryption = &oidctest.Encryption{Alg: "ECDH-ES", Enc: "A128GCM", Key: &key.PublicKey}
	})
	b := s.signedIn("alice")
	if kept := b.Session().Tokens.IDToken; strings.Count(kept, ".") != 2 {
		t.Errorf("kept is an ID Token of %d parts", strings.Count(kept, ".")+1)
	}
	p := b.Do("POST", "/auth/logout", "", "Sec-Fetch-Site", "same-origin")
	to, err := url.Parse(p.To)
	rig.Must(t, err)
	if hint := to.Query().Get("id_token_hint"); strings.Count(hint, ".") != 2 {
		t.Errorf("the hint has %d parts: %s", strings.Count(hint, ".")+1, p.To)
	}
	if back := b.Get(p.To); !strings.HasPrefix(back.To, s.URL+"/auth/logout/callback?state=") {
		t.Errorf("the provider answers %d: %s", back.Status, back.Body)
	}
}

// The endpoint's own query stays, and what is written in it is escaped.
func TestAFormGoesToTheEndpointWithItsQuery(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	s.op.Mangle(func(m *oidctest.Mangle) {
		m.Discovery = func(doc map[string]any) {
			doc["end_session_endpoint"] = s.op.URL(oidctest.EndSession) + `?tenant="a"&b=c`
		}
		m.IDToken = func(j *oidctest.JWT) { j.Claims["groups"] = strings.Repeat("g", 8<<10) }
	})
	b := s.signedIn("alice")
	p := b.Do("POST", "/auth/logout", "")
	if p.Status != 200 || !strings.Contains(p.Body, ` action="`+s.op.URL(oidctest.EndSession)+
		`?tenant=%22a%22&amp;b=c"`) {
		t.Errorf("%d %s", p.Status, regexp.MustCompile(`<form[^>]*>`).FindString(p.Body))
	}
}

func TestSigningOutTakesSessionsOfTheSameSignInAlong(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	s.op.Mangle(func(m *oidctest.Mangle) { m.IDToken = func(j *oidctest.JWT) { j.Claims["sid"] = "shared" } })
	b, sibling := s.signedIn("alice"), s.signedIn("alice")
	late := s.Browser()
	callback := late.Get(late.Get("/auth/login").To).To
	s.Pass(time.Second)
	b.Do("POST", "/auth/logout", "")
	if b.Session() != nil || sibling.Session() != nil {
		t.Error("a session of the same sid lives on")
	}
	if p := late.Get(callback); p.Status != 409 {
		t.Errorf("a sign-in of the same sid that was under way: %d", p.Status)
	}
}

func TestSigningOutWithoutASIDEndsThisSessionAlone(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	s.client(func(c *oidctest.Client) { c.NoSID = true })
	b, other := s.signedIn("alice"), s.signedIn("alice")
	if p := b.Do("POST", "/auth/logout", ""); p.Status != http.StatusSeeOther || b.Session() != nil ||
		other.Session() == nil {
		t.Errorf("%d; here %v, elsewhere %v", p.Status, b.Session(), other.Session())
	}
}

func TestAnotherSiteCannotSignAnybodyOut(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
		{"Sec-Fetch-Site", "same-site"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
	} {
		p := b.Do("POST", "/auth/logout", "", headers...)
		if p.Status != 403 || b.Session() == nil || b.Cookie("curfew") == "" ||
			s.heard() != "user unknown refused cross_site" {
			t.Errorf("%v: %d, heard %q", headers, p.Status, s.heard())
		}
	}
	for _, method := range []string{"GET", "HEAD", "DELETE"} {
		if p := b.Do(method, "/auth/logout", ""); b.Session() == nil {
			t.Errorf("%s signed somebody out: %d", method, p.Status)
		}
	}
	if p := b.Do("POST", "/auth/logout", "", "Origin", s.URL); p.Status != http.StatusSeeOther || b.Session() != nil {
		t.Errorf("an old browser's own form: %d %s", p.Status, p.Body)
	}
}

func TestAStoreThatIsAwaySignsNobodyOut(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	for what, away := range map[string]func(bool){"finding": s.store.Away.Store, "ending": s.store.endless.Store} {
		away(true)
		p := b.Do("POST", "/auth/logout", "")
		if p.Status != 503 || p.To != "" || p.Header.Get("Set-Cookie") != "" ||
			!strings.Contains(p.Body, "You are not signed out yet") ||
			!strings.HasSuffix(s.heard(), "unavailable store") {
			t.Errorf("%s: %d to %q, %v, heard %q", what, p.Status, p.To, p.Header, s.heard())
		}
		if p := b.Get("/auth/logout/callback"); what == "finding" && p.Status != 503 {
			t.Errorf("it says %d %s", p.Status, p.Body)
		}
		away(false)
	}
	if b.Session() == nil {
		t.Fatal("signed out by a store that was away")
	}
	if p := b.Do("POST", "/auth/logout", ""); p.Status != http.StatusSeeOther || b.Session() != nil {
		t.Errorf("afterwards: %d", p.Status)
	}
}

// A store may have ended the session and not know whether its replicas have the ending: "signed out" has to wait for
// that.
func TestASignOutThatIsNotSureIsRepeatedUntilItIs(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	bearer := b.Cookie("curfew")
	s.store.unsure.Store(true)
	for click := range 3 {
		p := b.Do("POST", "/auth/logout", "")
		if p.Status != 503 || b.Cookie("curfew") != bearer || !strings.HasSuffix(s.heard(), "unavailable store") {
			t.Errorf("click %d: %d %s, and the browser keeps its cookie: %v", click, p.Status, p.Body,
				b.Cookie("curfew") == bearer)
		}
	}
	if b.Session() != nil {
		t.Fatal("the store did not end the session")
	}
	s.store.unsure.Store(false)
	if p := b.Do("POST", "/auth/logout", ""); p.Status != 200 || b.Cookie("curfew") != "" ||
		!strings.Contains(p.Body, "You are signed out") {
		t.Errorf("%d %s", p.Status, p.Body)
	}
}

func TestWithoutTheProviderThePageSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why    string
		before func(*stage)
	}{
		{"it has no end_session_endpoint", func(s *stage) {
			s.op.Mangle(func(m *oidctest.Mangle) {
				m.Discovery = func(doc map[string]any) { delete(doc, "end_session_endpoint") }
			})
		}},
		{"it is no longer configured", func(*stage) {}},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			c.before(s)
			b := s.signedIn("alice")
			if strings.Contains(c.why, "configured") {
				s.h.Providers = nil
			}
			p := b.Do("POST", "/auth/logout", "")
			if p.Status != 200 || b.Session() != nil || b.Cookie("curfew") != "" ||
				!strings.Contains(p.Body, "may still be signed in there") {
				t.Errorf("%d %s", p.Status, p.Body)
			}
		})
	}
}

// A name that was given to another provider must not show that one an ID Token of the first.
func TestAnIDTokenIsShownToItsOwnIssuerAlone(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	other := oidctest.Start(t, oidctest.Config{})
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p, err := oidc.New(oidc.Config{Issuer: other.Issuer(), ClientID: "app",
		HTTPClient: &http.Client{Transport: transport}})
	rig.Must(t, err)
	s.h.Providers = []*oidc.Provider{p}
	if got := b.Do("POST", "/auth/logout", ""); strings.HasPrefix(got.To, other.Issuer()) || b.Session() != nil {
		t.Errorf("sent to %q", got.To)
	}
}

func TestSigningOutTwiceIsNoError(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	s.send(s.op.SignLogoutToken("app", "alice", ""))
	if p := b.Do("POST", "/auth/logout", ""); p.Status != 200 || b.Cookie("curfew") != "" ||
		!strings.Contains(p.Body, "You are signed out") {
		t.Errorf("the session is gone: %d %s", p.Status, p.Body)
	}
	if p := b.Do("POST", "/auth/logout", ""); p.Status != 200 || s.heard() != "user unknown nobody" {
		t.Errorf("no cookie: %d, heard %q", p.Status, s.heard())
	}
	if p := b.Get("/auth/logout"); p.Status != 200 || !strings.Contains(p.Body, "You are not signed in") {
		t.Errorf("GET: %d %s", p.Status, p.Body)
	}
}

// oidcc-client-test-rp-init-logout, -other-state and -no-state.
func TestTheReturnFromTheProviderLeadsToOnePlace(t *testing.T) {
	t.Parallel()
	for _, home := range []string{"", "/bye"} {
		for _, c := range []struct {
			why    string
			query  func(state string) string
			result string
		}{
			{"the state", func(state string) string { return "?state=" + state }, "ok"},
			{"another state", func(string) string { return "?state=other" }, "unasked"},
			{"no state", func(string) string { return "" }, "unasked"},
			{"the state twice", func(state string) string { return "?state=" + state + "&state=" + state }, "unasked"},
			{"an open redirect", func(state string) string { return "?state=x&return_to=https://evil.example" },
				"unasked"},
		} {
			t.Run(c.why+home, func(t *testing.T) {
				t.Parallel()
				s := newStage(t, func(h *logout.Handler) { h.Home = home })
				b := s.signedIn("alice")
				to, err := url.Parse(b.Do("POST", "/auth/logout", "").To)
				rig.Must(t, err)
				p := b.Get("/auth/logout/callback" + c.query(to.Query().Get("state")))
				if l := s.Log.Last("user_logout_returned"); l["result"] != c.result {
					t.Errorf("the log says %v", l)
				}
				if home == "" && (p.Status != 200 || !strings.Contains(p.Body, "You are signed out")) || home != "" &&
					p.To != s.URL+home {
					t.Errorf("%d to %q %s", p.Status, p.To, p.Body)
				}
			})
		}
	}
}

func TestTheReturnClaimsNothingThatIsNotSo(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	if p := b.Get("/auth/logout/callback"); p.Status != http.StatusSeeOther || p.To != s.URL+"/" || b.Session() == nil {
		t.Errorf("whoever is signed in is told %d %s", p.Status, p.Body)
	}
}

// The session may end by another hand between the look and the deed.
func TestSigningOutRacesALogoutToken(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	sid := b.Session().SID
	once := true
	s.store.ending = func(ctx context.Context) {
		if once {
			once = false
			_, err := s.store.Store.End(ctx, store.Ending{Selector: store.Selector{Issuer: s.op.Issuer(),
				ClientID: "app", SID: sid}}, store.Time(s.Now()))
			if err != nil {
				t.Error(err)
			}
		}
	}
	if p := b.Do("POST", "/auth/logout", ""); p.Status != http.StatusSeeOther || b.Session() != nil {
		t.Errorf("%d %s", p.Status, p.Body)
	}
}
