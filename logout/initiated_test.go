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
	before := b.session()
	if p := b.get("/auth/logout"); p.status != 200 || !strings.Contains(p.body,
		`<form method="post" action="/auth/logout">`) || b.session() == nil {
		t.Errorf("a GET does not just ask: %d %s", p.status, p.body)
	}
	ended, stop := s.m.Watch(before.Key)
	defer stop()
	p := b.do("POST", "/auth/logout", "", "Sec-Fetch-Site", "same-origin")
	to, err := url.Parse(p.to)
	must(t, err)
	q := to.Query()
	if p.status != http.StatusSeeOther || !strings.HasPrefix(p.to, s.op.URL(oidctest.EndSession)+"?") ||
		q.Get("id_token_hint") != before.Tokens.IDToken ||
		q.Get("client_id") != "app" || q.Get("post_logout_redirect_uri") != s.url+"/auth/logout/callback" ||
		len(q.Get("state")) < 22 {
		t.Fatalf("%d to %s", p.status, p.to)
	}
	if cause := soon(t, "the end", ended); cause != store.CauseUser {
		t.Errorf("the cause is %q", cause)
	}
	if b.session() != nil || b.cookie("curfew") != "" || s.heard() != "user main ok" {
		t.Errorf("still signed in here before the provider was asked; heard %q", s.heard())
	}
	back := b.get(p.to) // the provider sends its logout token meanwhile
	if d := s.op.Deliveries(); len(d) != 1 || d[0].Status != 200 {
		t.Errorf("the logout token that follows: %+v", d)
	}
	if !strings.HasPrefix(back.to, s.url+"/auth/logout/callback?state=") {
		t.Fatalf("the provider sends the browser to %q: %s", back.to, back.body)
	}
	last := b.get(back.to)
	if last.status != 200 || !strings.Contains(last.body, "You are signed out") ||
		s.log.last("user_logout_returned")["result"] != "ok" || b.cookie("curfew-logout") != "" {
		t.Errorf("%d %s", last.status, last.body)
	}
	if bob.session() == nil {
		t.Error("somebody else was signed out")
	}
}

// 250 groups make an ID Token that no server takes in an address.
func TestSigningOutWithALargeIDTokenPostsAForm(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	large := func(t *testing.T) (*browser, *session.Session) {
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
		live := b.session()
		if len(live.Tokens.IDToken) < 8<<10 {
			t.Fatalf("the ID Token has %d bytes", len(live.Tokens.IDToken))
		}
		return b, live
	}
	asks := func(p page) bool { // the redirect leads to the provider's question
		to, err := url.Parse(p.to)
		must(t, err)
		q := to.Query()
		return p.status == http.StatusSeeOther && len(p.to) < 4<<10 && !q.Has("id_token_hint") &&
			q.Get("client_id") == "app" &&
			q.Get("post_logout_redirect_uri") == s.url+"/auth/logout/callback" && q.Get("state") != ""
	}
	b, live := large(t)
	p := b.do("POST", "/auth/logout", "", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate")
	if p.status != 200 || p.to != "" || b.session() != nil || b.cookie("curfew") != "" || s.heard() != "user main ok" {
		t.Fatalf("%d to %q, signed in %v, heard %q", p.status, p.to, b.session() != nil, s.heard())
	}
	for _, want := range []string{`<form method="post" action="` + s.op.URL(oidctest.EndSession) + `">`, "<button>",
		"<script>document.forms[0].submit()</script>"} {
		if !strings.Contains(p.body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	policy := p.header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-",
		"form-action 'self' https: " + s.op.Issuer(), "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %s lacks %s", policy, want)
		}
	}
	if p.header.Get("Referrer-Policy") != "strict-origin" || p.header.Get("Cache-Control") != "no-store" ||
		strings.Contains(policy, "unsafe") {
		t.Errorf("%v", p.header)
	}
	fields := url.Values{}
	for _, f := range regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`).
		FindAllStringSubmatch(p.body, -1) {
		fields.Add(f[1], html.UnescapeString(f[2]))
	}
	if len(fields) != 4 || fields.Get("id_token_hint") != live.Tokens.IDToken || fields.Get("client_id") != "app" ||
		fields.Get("post_logout_redirect_uri") != s.url+"/auth/logout/callback" ||
		fields.Get("state") != b.cookie("curfew-logout") {
		t.Errorf("the form sends %v", slices.Sorted(maps.Keys(fields)))
	}
	back := b.do("POST", s.op.URL(oidctest.EndSession), fields.Encode(), "Content-Type", form)
	if last := b.get(back.to); last.status != 200 || s.log.last("user_logout_returned")["result"] != "ok" {
		t.Errorf("back from the provider: %d %s", last.status, last.body)
	}
	if strings.Contains(s.log.String(), live.Tokens.IDToken) {
		t.Error("the log holds the ID Token")
	}
	// A script gets a redirect as ever, to an address that a server takes.
	for _, headers := range [][]string{{"Sec-Fetch-Mode", "cors", "Accept", "text/html"},
		{"Accept", "application/json"}, {"X-Requested-With", "XMLHttpRequest"}} {
		b, _ := large(t)
		p := b.do("POST", "/auth/logout", "", headers...)
		if !asks(p) || b.session() != nil {
			t.Errorf("%v: %d to %.200s", headers, p.status, p.to)
		}
	}
	// So does a browser where the provider takes no form.
	for _, status := range []int{404, 405} {
		b, _ := large(t)
		s.op.Override(oidctest.EndSession, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
		if p := b.do("POST", "/auth/logout", "", "Sec-Fetch-Mode", "navigate"); !asks(p) || b.session() != nil {
			t.Errorf("the provider answers a POST with %d: %d to %.200s", status, p.status, p.to)
		}
	}
}

// The endpoint's own query stays, and what is written in it is escaped.
// The provider cannot read an ID Token that it encrypted to us: what is kept, and sent back to it, is the signed one.
func TestSigningOutSendsTheSignedIDTokenOfAnEncryptedOne(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	s := newStage(t, nil, func(c *oidc.Config) {
		c.Encryption = &oidc.Encryption{Alg: "ECDH-ES", Enc: "A128GCM", Key: key}
	})
	s.client(func(c *oidctest.Client) {
		c.Encryption = &oidctest.Encryption{Alg: "ECDH-ES", Enc: "A128GCM", Key: &key.PublicKey}
	})
	b := s.signedIn("alice")
	if kept := b.session().Tokens.IDToken; strings.Count(kept, ".") != 2 {
		t.Errorf("kept is an ID Token of %d parts", strings.Count(kept, ".")+1)
	}
	p := b.do("POST", "/auth/logout", "", "Sec-Fetch-Site", "same-origin")
	to, err := url.Parse(p.to)
	must(t, err)
	if hint := to.Query().Get("id_token_hint"); strings.Count(hint, ".") != 2 {
		t.Errorf("the hint has %d parts: %s", strings.Count(hint, ".")+1, p.to)
	}
	if back := b.get(p.to); !strings.HasPrefix(back.to, s.url+"/auth/logout/callback?state=") {
		t.Errorf("the provider answers %d: %s", back.status, back.body)
	}
}

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
	p := b.do("POST", "/auth/logout", "")
	if p.status != 200 || !strings.Contains(p.body, ` action="`+s.op.URL(oidctest.EndSession)+
		`?tenant=%22a%22&amp;b=c"`) {
		t.Errorf("%d %s", p.status, regexp.MustCompile(`<form[^>]*>`).FindString(p.body))
	}
}

func TestSigningOutTakesSessionsOfTheSameSignInAlong(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	s.op.Mangle(func(m *oidctest.Mangle) { m.IDToken = func(j *oidctest.JWT) { j.Claims["sid"] = "shared" } })
	b, sibling := s.signedIn("alice"), s.signedIn("alice")
	late := s.browser()
	callback := late.get(late.get("/auth/login").to).to
	s.pass(time.Second)
	b.do("POST", "/auth/logout", "")
	if b.session() != nil || sibling.session() != nil {
		t.Error("a session of the same sid lives on")
	}
	if p := late.get(callback); p.status != 409 {
		t.Errorf("a sign-in of the same sid that was under way: %d", p.status)
	}
}

func TestSigningOutWithoutASIDEndsThisSessionAlone(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	s.client(func(c *oidctest.Client) { c.NoSID = true })
	b, other := s.signedIn("alice"), s.signedIn("alice")
	if p := b.do("POST", "/auth/logout", ""); p.status != http.StatusSeeOther || b.session() != nil ||
		other.session() == nil {
		t.Errorf("%d; here %v, elsewhere %v", p.status, b.session(), other.session())
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
		p := b.do("POST", "/auth/logout", "", headers...)
		if p.status != 403 || b.session() == nil || b.cookie("curfew") == "" ||
			s.heard() != "user unknown refused cross_site" {
			t.Errorf("%v: %d, heard %q", headers, p.status, s.heard())
		}
	}
	for _, method := range []string{"GET", "HEAD", "DELETE"} {
		if p := b.do(method, "/auth/logout", ""); b.session() == nil {
			t.Errorf("%s signed somebody out: %d", method, p.status)
		}
	}
	if p := b.do("POST", "/auth/logout", "", "Origin", s.url); p.status != http.StatusSeeOther || b.session() != nil {
		t.Errorf("an old browser's own form: %d %s", p.status, p.body)
	}
}

func TestAStoreThatIsAwaySignsNobodyOut(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	for what, away := range map[string]func(bool){"finding": s.store.away.Store, "ending": s.store.endless.Store} {
		away(true)
		p := b.do("POST", "/auth/logout", "")
		if p.status != 503 || p.to != "" || p.header.Get("Set-Cookie") != "" ||
			!strings.Contains(p.body, "You are not signed out yet") ||
			!strings.HasSuffix(s.heard(), "unavailable store") {
			t.Errorf("%s: %d to %q, %v, heard %q", what, p.status, p.to, p.header, s.heard())
		}
		if p := b.get("/auth/logout/callback"); what == "finding" && p.status != 503 {
			t.Errorf("it says %d %s", p.status, p.body)
		}
		away(false)
	}
	if b.session() == nil {
		t.Fatal("signed out by a store that was away")
	}
	if p := b.do("POST", "/auth/logout", ""); p.status != http.StatusSeeOther || b.session() != nil {
		t.Errorf("afterwards: %d", p.status)
	}
}

// A store may have ended the session and not know whether its replicas have the ending: "signed out" has to wait for
// that.
func TestASignOutThatIsNotSureIsRepeatedUntilItIs(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	bearer := b.cookie("curfew")
	s.store.unsure.Store(true)
	for click := range 3 {
		p := b.do("POST", "/auth/logout", "")
		if p.status != 503 || b.cookie("curfew") != bearer || !strings.HasSuffix(s.heard(), "unavailable store") {
			t.Errorf("click %d: %d %s, and the browser keeps its cookie: %v", click, p.status, p.body,
				b.cookie("curfew") == bearer)
		}
	}
	if b.session() != nil {
		t.Fatal("the store did not end the session")
	}
	s.store.unsure.Store(false)
	if p := b.do("POST", "/auth/logout", ""); p.status != 200 || b.cookie("curfew") != "" ||
		!strings.Contains(p.body, "You are signed out") {
		t.Errorf("%d %s", p.status, p.body)
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
			p := b.do("POST", "/auth/logout", "")
			if p.status != 200 || b.session() != nil || b.cookie("curfew") != "" ||
				!strings.Contains(p.body, "may still be signed in there") {
				t.Errorf("%d %s", p.status, p.body)
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
	must(t, err)
	s.h.Providers = []*oidc.Provider{p}
	if got := b.do("POST", "/auth/logout", ""); strings.HasPrefix(got.to, other.Issuer()) || b.session() != nil {
		t.Errorf("sent to %q", got.to)
	}
}

func TestSigningOutTwiceIsNoError(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	s.send(s.op.SignLogoutToken("app", "alice", ""))
	if p := b.do("POST", "/auth/logout", ""); p.status != 200 || b.cookie("curfew") != "" ||
		!strings.Contains(p.body, "You are signed out") {
		t.Errorf("the session is gone: %d %s", p.status, p.body)
	}
	if p := b.do("POST", "/auth/logout", ""); p.status != 200 || s.heard() != "user unknown nobody" {
		t.Errorf("no cookie: %d, heard %q", p.status, s.heard())
	}
	if p := b.get("/auth/logout"); p.status != 200 || !strings.Contains(p.body, "You are not signed in") {
		t.Errorf("GET: %d %s", p.status, p.body)
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
				to, err := url.Parse(b.do("POST", "/auth/logout", "").to)
				must(t, err)
				p := b.get("/auth/logout/callback" + c.query(to.Query().Get("state")))
				if l := s.log.last("user_logout_returned"); l["result"] != c.result {
					t.Errorf("the log says %v", l)
				}
				if home == "" && (p.status != 200 || !strings.Contains(p.body, "You are signed out")) || home != "" &&
					p.to != s.url+home {
					t.Errorf("%d to %q %s", p.status, p.to, p.body)
				}
			})
		}
	}
}

func TestTheReturnClaimsNothingThatIsNotSo(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	if p := b.get("/auth/logout/callback"); p.status != http.StatusSeeOther || p.to != s.url+"/" || b.session() == nil {
		t.Errorf("whoever is signed in is told %d %s", p.status, p.body)
	}
}

// The session may end by another hand between the look and the deed.
func TestSigningOutRacesALogoutToken(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	sid := b.session().SID
	once := true
	s.store.ending = func(ctx context.Context) {
		if once {
			once = false
			_, err := s.store.Store.End(ctx, store.Ending{Selector: store.Selector{Issuer: s.op.Issuer(),
				ClientID: "app", SID: sid}}, store.Time(s.now()))
			if err != nil {
				t.Error(err)
			}
		}
	}
	if p := b.do("POST", "/auth/logout", ""); p.status != http.StatusSeeOther || b.session() != nil {
		t.Errorf("%d %s", p.status, p.body)
	}
}
