package logout_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
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

// names of the certification suite (oidcc-client-test-…), whose tokens have sub and sid, an ignored claim and no typ,
// and are sent with a second parameter.
func TestTheModulesOfTheCertificationSuite(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		module string
		lie    func(*oidctest.Provider, *oidctest.JWT)
		check  string // "": accepted
	}{
		{"rp-backchannel-rpinitlogout", func(*oidctest.Provider, *oidctest.JWT) {}, ""},
		{"rp-backchannel-rpinitlogout-alg-none", func(_ *oidctest.Provider, j *oidctest.JWT) {
			j.Header,
				j.Alg = map[string]any{"alg": "none"}, "none"
		}, "alg"},
		{"rp-backchannel-rpinitlogout-wrong-alg", func(op *oidctest.Provider, j *oidctest.JWT) {
			j.Key, j.Alg = op.Key("ES256"), "ES256" // published and advertised
			j.Header["alg"], j.Header["kid"] = "ES256", j.Key.KID
		}, "alg"},
		{"rp-backchannel-rpinitlogout-wrong-iss", func(op *oidctest.Provider,
			j *oidctest.JWT) {
			j.Claims["iss"] = op.Issuer() + "INVALID"
		}, "iss"},
		{"rp-backchannel-rpinitlogout-wrong-aud", func(_ *oidctest.Provider,
			j *oidctest.JWT) {
			j.Claims["aud"] = "appINVALID"
		}, "aud"},
		{"rp-backchannel-rpinitlogout-no-event", func(_ *oidctest.Provider,
			j *oidctest.JWT) {
			delete(j.Claims, "events")
		}, "events"},
		{"rp-backchannel-rpinitlogout-wrong-event", func(_ *oidctest.Provider, j *oidctest.JWT) {
			j.Claims["events"] = map[string]any{"http://schemas.openid.net/event/foobar": map[string]any{}}
		}, "events"},
		{"rp-backchannel-rpinitlogout-with-nonce", func(_ *oidctest.Provider,
			j *oidctest.JWT) {
			j.Claims["nonce"] = "n"
		}, "nonce"},
	} {
		t.Run(c.module, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			s.op.Rotate("ES256")
			b := s.signedIn("alice")
			token := s.op.SignLogoutToken("app", "alice", b.session().SID, func(j *oidctest.JWT) {
				delete(j.Header, "typ")
				j.Claims["ignored_claim"] = "ignored"
				c.lie(s.op, j)
			})
			p := s.browser().do("POST", "/auth/backchannel-logout",
				url.Values{"logout_token": {token}, "ignored_parameter": {"a", "b"}}.Encode(), "Content-Type", form)
			if p.header.Get("Cache-Control") != "no-store" {
				t.Error("the answer may be stored (Back-Channel Logout §2.8)")
			}
			if c.check != "" {
				s.refused(p, 400, c.check)
				if b.session() == nil {
					t.Error("a token that was refused ended the session")
				}
				return
			}
			if p.status != 200 || p.body != "" || b.session() != nil || s.heard() != "backchannel main ok" {
				t.Errorf("%d %q, heard %q", p.status, p.body, s.heard())
			}
			// The suite sends it after our own session is gone, too.
			if p := s.send(s.op.SignLogoutToken("app", "alice", "whatever")); p.status != 200 {
				t.Errorf("an unknown sid: %d %s", p.status, p.body)
			}
		})
	}
}

// refused asserts a refusal in the words of Back-Channel Logout §2.8, and by which check.
func (s *stage) refused(p page, status int, check string) {
	s.t.Helper()
	var body struct{ Error, Error_description string }
	if err := json.Unmarshal([]byte(p.body), &body); err != nil || p.header.Get("Content-Type") != "application/json" {
		s.t.Errorf("no JSON but %s: %s", p.header.Get("Content-Type"), p.body)
	}
	if p.status != status || body.Error != "invalid_request" ||
		!strings.HasSuffix(body.Error_description, "check: "+check) {
		s.t.Errorf("%d %s, want %d by the check %s", p.status, p.body, status, check)
	}
	if want := "backchannel unknown refused " + check; s.heard() != want {
		s.t.Errorf("heard %q, want %q", s.heard(), want)
	}
	if l := s.log.last("backchannel_logout"); l["check"] != check || l["result"] != "refused" || l["level"] != "WARN" ||
		l["jti"] != nil || l["sub"] != nil || l["sid"] != nil {
		s.t.Errorf("the log says %v", l)
	}
}

func TestTheFormOfALogoutRequest(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	good := func() string { return s.op.SignLogoutToken("app", "bob", "") }
	const path = "/auth/backchannel-logout"
	for _, c := range []struct {
		why, path, kind, body, check string
	}{
		{"no content type", path, "", "logout_token=" + good(), "content_type"},
		{"JSON", path, "application/json", `{"logout_token":"` + good() + `"}`, "content_type"},
		{"a token by itself", path, "application/logout+jwt", good(), "content_type"},
		{"multipart", path, "multipart/form-data; boundary=x",
			"--x\r\nContent-Disposition: form-data; name=\"logout_token\"\r\n\r\n" + good() + "\r\n--x--\r\n",
			"content_type"},
		{"nothing", path, form, "", "logout_token"},
		{"in the query", path + "?logout_token=" + good(), form, "", "logout_token"},
		{"twice", path, form, "logout_token=" + good() + "&logout_token=" + good(), "logout_token"},
		{"once well and once badly", path, form, "logout_token=" + good() + "&logout_token=%zz", "form"},
		{"a semicolon", path, form, "logout_token=" + good() + ";logout_token=x", "form"},
		{"another case", path, form, "Logout_Token=" + good(), "logout_token"},
		{"empty", path, form, "logout_token=", "logout_token"},
		{"empty, and nothing else", path, form, "logout_token", "logout_token"},
		{"too long", path, form, "logout_token=" + good() + "&a=" + strings.Repeat("a", 64<<10), "size"},
		{"no JWT", path, form, "logout_token=hello", "shape"},
	} {
		p := s.browser().do("POST", c.path, c.body, "Content-Type", c.kind)
		t.Log(c.why)
		s.refused(p, 400, c.check)
	}
	for _, c := range []struct{ why, path, kind, body string }{
		{"a charset", path, form + "; charset=utf-8", "logout_token=" + good()},
		{"a content type in capitals", path, "Application/X-WWW-Form-URLEncoded", "logout_token=" + good()},
		{"a query, which is not read (Back-Channel Logout §2.2)", path + "?logout_token=x&%zz", form,
			"logout_token=" + good()},
		{"many parameters", path, form, strings.Repeat("a=b&", 2000) + "logout_token=" + good()},
	} {
		if p := s.browser().do("POST", c.path, c.body, "Content-Type", c.kind); p.status != 200 {
			t.Errorf("%s: %d %s", c.why, p.status, p.body)
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} {
		if p := s.browser().do(method, path, ""); p.status != 405 || p.header.Get("Allow") != "POST" ||
			p.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", method, p.status, p.header)
		}
	}
}

func TestARequestOfAProviderIsNoForgery(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	body := "logout_token=" + s.op.SignLogoutToken("app", "alice", "")
	p := b.do("POST", "/auth/backchannel-logout", body, "Content-Type", form, "Origin", "https://id.example",
		"Sec-Fetch-Site", "cross-site")
	if p.status != 200 || b.session() != nil {
		t.Errorf("with cookies and an Origin: %d %s", p.status, p.body)
	}
	if p.header.Get("Set-Cookie") != "" {
		t.Error("a provider is given a cookie")
	}
}

func TestWhoeverIsNamedIsSignedOutAndNobodyElse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why       string
		sub, sid  func(phone *session.Session) string
		quirk     string
		laptopOut bool
	}{
		{why: "sid alone", sub: nobody, sid: sidOf},
		{why: "sub alone", sub: subOf, sid: nobody, laptopOut: true},
		{why: "both", sub: subOf, sid: sidOf},
		{why: "both, where the provider means the subject", sub: subOf, sid: sidOf, quirk: "subject", laptopOut: true},
		{why: "sid alone, where the provider means the subject", sub: nobody, sid: sidOf, quirk: "subject"},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil, func(p *oidc.Config) { p.Quirks.LogoutScope = c.quirk })
			phone, laptop, bob := s.signedIn("alice"), s.signedIn("alice"), s.signedIn("bob")
			ended, stop := s.m.Watch(phone.session().Key)
			defer stop()
			at := phone.session()
			if p := s.send(s.op.SignLogoutToken("app", c.sub(at), c.sid(at))); p.status != 200 {
				t.Fatalf("%d %s", p.status, p.body)
			}
			if phone.session() != nil {
				t.Error("still signed in")
			}
			if (laptop.session() == nil) != c.laptopOut {
				t.Errorf("the same person's other browser: signed out %v, want %v", laptop.session() == nil,
					c.laptopOut)
			}
			if bob.session() == nil {
				t.Error("somebody else was signed out")
			}
			if cause := soon(t, "the end", ended); cause != store.CauseBackChannel {
				t.Errorf("the cause is %q", cause)
			}
			n := 1.0
			if c.laptopOut {
				n = 2
			}
			if l := s.log.last("backchannel_logout"); l["result"] != "ok" || l["ended"] != n ||
				l["provider"] != "main" || l["jti"] == "" {
				t.Errorf("the log says %v", l)
			}
		})
	}
}

func nobody(*session.Session) string  { return "" }
func subOf(s *session.Session) string { return s.Subject }
func sidOf(s *session.Session) string { return s.SID }

func TestASIDWithOddPunctuationArrivesAsItIs(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	for _, sid := range []string{`a+b/c=d e`, `"quoted" & 100% <b>`, `*`, `a:b`, `x'; DROP TABLE sessions`,
		"\u00e4\u20ac"} {
		s.op.Mangle(func(m *oidctest.Mangle) { m.IDToken = func(j *oidctest.JWT) { j.Claims["sid"] = sid } })
		b := s.signedIn("alice")
		s.op.Mangle(func(m *oidctest.Mangle) { m.IDToken = func(j *oidctest.JWT) { j.Claims["sid"] = sid + "x" } })
		other := s.signedIn("alice")
		if p := s.send(s.op.SignLogoutToken("app", "", sid)); p.status != 200 || b.session() != nil ||
			other.session() == nil {
			t.Errorf("%q: %d %s", sid, p.status, p.body)
		}
	}
}

func TestATokenIsGoodOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	s.signedIn("alice")
	token := s.op.SignLogoutToken("app", "alice", "")
	if p := s.send(token); p.status != 200 {
		t.Fatal(p.status, p.body)
	}
	s.pass(time.Second)
	b := s.signedIn("alice")
	p := s.send(token)
	if p.status != 400 || !strings.Contains(p.body, "already processed") ||
		s.heard() != "backchannel main replayed jti" {
		t.Errorf("%d %s, heard %q", p.status, p.body, s.heard())
	}
	if b.session() == nil {
		t.Error("a token that was sent again ended a later session")
	}
	if l := s.log.last("backchannel_logout"); l["result"] != "replayed" || l["sub"] != "alice" {
		t.Errorf("the log says %v", l)
	}
	s.pass(time.Hour)
	s.refused(s.send(token), 400, "exp")
}

func TestAFailureUsesNothingUp(t *testing.T) {
	t.Parallel()
	for _, status := range []int{0, 503, 400} {
		s := newStage(t, func(h *logout.Handler) { h.FailureStatus = status })
		b := s.signedIn("alice")
		token := s.op.SignLogoutToken("app", "alice", b.session().SID)
		s.store.endless.Store(true)
		p := s.send(token)
		want := status
		if want == 0 {
			want = 503
		}
		if p.status != want || p.header.Get("Retry-After") == "" || strings.Contains(p.body, "disk") ||
			!strings.Contains(p.body, `"error"`) {
			t.Errorf("%d %s", p.status, p.body)
		}
		if s.heard() != "backchannel main unavailable store" || s.log.last("backchannel_logout")["jti"] == nil {
			t.Errorf("heard %q, and the log says %v", s.heard(), s.log.last("backchannel_logout"))
		}
		if b.session() == nil {
			t.Error("signed out by a store that was away?")
		}
		s.store.endless.Store(false)
		if p := s.send(token); p.status != 200 || b.session() != nil {
			t.Errorf("the same token again: %d %s", p.status, p.body)
		}
	}
}

func TestKeysThatCannotBeHadAreNoRefusal(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	s.op.Override(oidctest.JWKS, oidctest.Status(500))
	token := s.op.SignLogoutToken("app", "alice", "")
	if p := s.send(token); p.status != 503 || p.header.Get("Retry-After") == "" ||
		s.heard() != "backchannel unknown unavailable keys" {
		t.Errorf("%d %s, heard %q", p.status, p.body, s.heard())
	}
	s.op.Override(oidctest.JWKS, nil)
	s.pass(time.Minute)
	if p := s.send(token); p.status != 200 {
		t.Errorf("the same token again: %d %s", p.status, p.body)
	}
}

func TestSuccessIs200AndEmptyOr204IfYouMust(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(h *logout.Handler) { h.SuccessStatus = 204 })
	if p := s.send(s.op.SignLogoutToken("app", "nobody-here", "")); p.status != 204 || p.body != "" {
		t.Errorf("%d %q", p.status, p.body)
	}
}

func TestALogoutGoesOnWhenTheCallerHangsUp(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	s := newStage(t, func(h *logout.Handler) {
		heard := h.OnResult
		h.OnResult = func(channel, provider, result, reason string) {
			heard(channel, provider, result, reason)
			close(done)
		}
	})
	b := s.signedIn("alice")
	token := s.op.SignLogoutToken("app", "alice", "")
	ctx, hangUp := context.WithCancel(context.Background())
	gone := make(chan struct{})
	s.store.ending = func(inner context.Context) {
		hangUp()
		<-gone
		if deadline, ok := inner.Deadline(); !ok || time.Until(deadline) > time.Minute {
			t.Error("a store that hangs would never be given up")
		}
	}
	// The server notices that the caller is gone at some time; a logout that heeds it has ended by then or never does.
	r, err := http.NewRequestWithContext(ctx, "POST", s.url+"/auth/backchannel-logout",
		strings.NewReader("logout_token="+token))
	must(t, err)
	r.Header.Set("Content-Type", form)
	if resp, err := s.browser().c.Do(r); err == nil {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		t.Error("the caller did not hang up")
	}
	close(gone)
	soon(t, "the logout", done)
	if b.session() != nil || s.heard() != "backchannel main ok" {
		t.Errorf("still signed in; heard %q", s.heard())
	}
}

// Whatever ended a session, the notices of it are left in the same step.
func TestEveryWayOutLeavesNotices(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	notices := func() int {
		all, err := s.store.Claim(context.Background(), store.NoticeTell, "another app", store.Time(s.now()), time.Hour,
			10)
		must(t, err)
		return len(all)
	}
	s.signedIn("alice")
	s.send(s.op.SignLogoutToken("app", "alice", ""))
	if n := notices(); n != 1 {
		t.Errorf("a logout token left %d notices", n)
	}
	s.pass(time.Second)
	s.signedIn("alice").do("POST", "/auth/logout", "")
	if n := notices(); n != 1 {
		t.Errorf("a person's own logout left %d notices", n)
	}
	s.pass(time.Second)
	b := s.signedIn("alice")
	q := url.Values{"iss": {s.op.Issuer()}, "sid": {b.session().SID}}
	b.get("/auth/frontchannel-logout?" + q.Encode())
	if n := notices(); n != 1 {
		t.Errorf("a front-channel logout left %d notices", n)
	}
}

// Keycloak says beside the event, in `events`, whether refresh tokens for offline use are to be revoked as well.
func TestALogoutTokenSaysWhatIsToBecomeOfOfflineTokens(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	for _, revoke := range []any{true, false, "true", nil} {
		s.send(s.op.SignLogoutToken("app", "alice", "", func(j *oidctest.JWT) {
			j.Claims["events"].(map[string]any)["revoke_offline_access"] = revoke
		}))
		if got := s.endings[len(s.endings)-1]; got.RevokeOffline != (revoke == true) {
			t.Errorf("revoke_offline_access %v became %v", revoke, got.RevokeOffline)
		}
	}
}

// A sign-in that is under way when a logout token arrives is refused, whatever the token names.
func TestALogoutTokenOvertakesASignIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why         string
		named, sids bool
	}{{"sub", true, false}, {"sid", false, true}, {"both", true, true}} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			b := s.browser()
			callback := b.get(b.get("/auth/login").to).to
			sub, sid := "", ""
			if c.named {
				sub = "alice"
			}
			if c.sids {
				sid = s.op.Sessions()[0].SID
			}
			s.pass(time.Second)
			if p := s.send(s.op.SignLogoutToken("app", sub, sid)); p.status != 200 {
				t.Fatal(p.status, p.body)
			}
			s.pass(time.Second)
			if p := b.get(callback); p.status != 409 || b.session() != nil {
				t.Errorf("%d %s", p.status, p.body)
			}
		})
	}
}

// A token for two clients of ours is carried out for both before it is answered 200. When it fails in between it is
// welcome again.
func TestALogoutTokenForTwoOfOurClientsEndsTheSessionsOfBoth(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(h *logout.Handler) {
		c := h.Providers[0].Config()
		second, err := oidc.New(oidc.Config{Name: "second", Issuer: c.Issuer, ClientID: "second", Now: c.Now})
		must(t, err)
		h.Providers = append(h.Providers, second)
	})
	alive := func() (clients []string) {
		for _, client := range []string{"app", "second", "third"} {
			page, err := s.store.List(t.Context(), store.Query{Issuer: s.op.Issuer(), ClientID: client,
				Subject: "alice"}, s.now())
			must(t, err)
			if len(page.Records) > 0 {
				clients = append(clients, client)
			}
		}
		return clients
	}
	for _, client := range []string{"app", "second", "third"} {
		_, _, err := s.m.Create(t.Context(), session.SignIn{Issuer: s.op.Issuer(), ClientID: client, Subject: "alice",
			SID: "s", Began: s.now()})
		must(t, err)
	}
	token := s.op.SignLogoutToken("app", "alice", "s", func(j *oidctest.JWT) {
		j.Claims["aud"] = []string{"second",
			"app", "third"}
	})
	endings := 0
	s.store.ending = func(context.Context) {
		endings++
		s.store.endless.Store(endings == 2) // the first is carried out, the second is not
	}
	if p := s.send(token); p.status != 503 || !slices.Equal(alive(), []string{"second", "third"}) {
		t.Fatalf("%d %s; alive at %q", p.status, p.body, alive())
	}
	if p := s.send(token); p.status != 200 || !slices.Equal(alive(), []string{"third"}) {
		t.Errorf("again: %d %s; alive at %q", p.status, p.body, alive())
	}
	if p := s.send(token); p.status != 400 || !strings.Contains(p.body, "already processed") {
		t.Errorf("once more: %d %s", p.status, p.body)
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	cookie, tokens := b.cookie("curfew"), b.session().Tokens
	evil := strings.Repeat("x", 2000) + "\nevent=forged"
	good := s.op.SignLogoutToken("app", "alice", "")
	s.send(good)
	s.send(s.op.SignLogoutToken("app", evil, ""))
	s.send(s.op.SignLogoutToken("app", "bob", "", func(j *oidctest.JWT) { j.Claims["iss"] = evil }))
	s.send(evil)
	b.do("POST", "/auth/logout", "")
	for what, secret := range map[string]string{"cookie": cookie, "ID Token": tokens.IDToken,
		"access token": tokens.AccessToken, "logout token": good} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log holds the %s", what)
		}
	}
	for line := range strings.Lines(s.log.String()) {
		if len(line) > 2000 {
			t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
	for _, heard := range s.results {
		if len(fmt.Sprint(heard)) > 60 {
			t.Errorf("a label holds text of a stranger: %q", heard)
		}
	}
}

func TestTheLogSaysWhoseLogoutWasRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	long := strings.Repeat("x", 10<<10)
	for _, row := range []struct {
		claim, sent, logged string // logged: "" for no such line
	}{
		{"sub", "alice", "alice"},
		{"sub", "alice\n{\"level\":\"ERROR\"}", `alice\n{"level":"ERROR"}`},
		{"sub", "a\x00\x1b[31m\x7f\u0085b", `a\x00\x1b[31m\x7f\u0085b`},
		{"sub", "\u202eecila\u2066\u200b\u2028\ufeff", `\u202eecila\u2066\u200b\u2028\ufeff`},
		{"sub", "Zoë 李", "Zoë 李"},
		{"sub", long, long[:256] + "…"},
		{"sid", "her\tsid\u2067", `her\tsid\u2067`},
		{"sid", long, long[:256] + "…"},
		{"iss", "https://evil.example.com\u202e\r\n", `https://evil.example.com\u202e\r\n`},
		{"iss", long, long[:256] + "…"},
		{"sub", "", ""},
		{"sid", "", ""},
	} {
		s.refused(s.send(s.op.SignLogoutToken("app", "alice", "her-sid", func(j *oidctest.JWT) {
			j.Claims["aud"] = "x"
			j.Claims[row.claim] = row.sent
		})), 400, map[bool]string{true: "iss", false: "aud"}[row.claim == "iss"])
		l := s.log.last("backchannel_logout")
		if got, _ := l["claimed_"+row.claim].(string); got != row.logged || l["level"] != "WARN" {
			t.Errorf("%s %.40q: the log says %v", row.claim, row.sent, l)
		}
		if known := row.claim != "iss"; known != (l["claimed_provider"] == "main") ||
			known != (l["claimed_iss"] == s.op.Issuer()) {
			t.Errorf("%s %.40q: the log says %v", row.claim, row.sent, l)
		}
	}
	s.send(s.op.SignLogoutToken("app", "", "nobody's"))
	if l := s.log.last("backchannel_logout"); l["result"] != "ok" || l["hint"] == nil {
		t.Errorf("the log says %v", l)
	}
}
