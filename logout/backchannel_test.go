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

	"example.com/curfew/internal/rig"
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
			token := s.op.SignLogoutToken("app", "alice", b.Session().SID, func(j *oidctest.JWT) {
				delete(j.Header, "typ")
				j.Claims["ignored_claim"] = "ignored"
				c.lie(s.op, j)
			})
			p := s.Browser().Do("POST", "/auth/backchannel-logout",
				url.Values{"logout_token": {token}, "ignored_parameter": {"a", "b"}}.Encode(), "Content-Type", form)
			if p.Header.Get("Cache-Control") != "no-store" {
				t.Error("the answer may be stored (Back-Channel Logout §2.8)")
			}
			if c.check != "" {
				s.refused(p, 400, c.check)
				if b.Session() == nil {
					t.Error("a token that was refused ended the session")
				}
				return
			}
			if p.Status != 200 || p.Body != "" || b.Session() != nil || s.heard() != "backchannel main ok" {
				t.Errorf("%d %q, heard %q", p.Status, p.Body, s.heard())
			}
			// The suite sends it after our own session is gone, too.
			if p := s.send(s.op.SignLogoutToken("app", "alice", "whatever")); p.Status != 200 {
				t.Errorf("an unknown sid: %d %s", p.Status, p.Body)
			}
		})
	}
}

// refused asserts a refusal in the words of Back-Channel Logout §2.8, and by which check.
func (s *stage) refused(p rig.Page, status int, check string) {
	s.T.Helper()
	var body struct{ Error, Error_description string }
	if err := json.Unmarshal([]byte(p.Body), &body); err != nil || p.Header.Get("Content-Type") != "application/json" {
		s.T.Errorf("no JSON but %s: %s", p.Header.Get("Content-Type"), p.Body)
	}
	if p.Status != status || body.Error != "invalid_request" ||
		!strings.HasSuffix(body.Error_description, "check: "+check) {
		s.T.Errorf("%d %s, want %d by the check %s", p.Status, p.Body, status, check)
	}
	if want := "backchannel unknown refused " + check; s.heard() != want {
		s.T.Errorf("heard %q, want %q", s.heard(), want)
	}
	if l := s.Log.Last("backchannel_logout"); l["check"] != check || l["result"] != "refused" || l["level"] != "WARN" ||
		l["jti"] != nil || l["sub"] != nil || l["sid"] != nil {
		s.T.Errorf("the log says %v", l)
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
		p := s.Browser().Do("POST", c.path, c.body, "Content-Type", c.kind)
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
		if p := s.Browser().Do("POST", c.path, c.body, "Content-Type", c.kind); p.Status != 200 {
			t.Errorf("%s: %d %s", c.why, p.Status, p.Body)
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} {
		if p := s.Browser().Do(method, path, ""); p.Status != 405 || p.Header.Get("Allow") != "POST" ||
			p.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", method, p.Status, p.Header)
		}
	}
}

func TestARequestOfAProviderIsNoForgery(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	body := "logout_token=" + s.op.SignLogoutToken("app", "alice", "")
	p := b.Do("POST", "/auth/backchannel-logout", body, "Content-Type", form, "Origin", "https://id.example",
		"Sec-Fetch-Site", "cross-site")
	if p.Status != 200 || b.Session() != nil {
		t.Errorf("with cookies and an Origin: %d %s", p.Status, p.Body)
	}
	if p.Header.Get("Set-Cookie") != "" {
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
			ended, stop := s.Manager.Watch(phone.Session().Key)
			defer stop()
			at := phone.Session()
			if p := s.send(s.op.SignLogoutToken("app", c.sub(at), c.sid(at))); p.Status != 200 {
				t.Fatalf("%d %s", p.Status, p.Body)
			}
			if phone.Session() != nil {
				t.Error("still signed in")
			}
			if (laptop.Session() == nil) != c.laptopOut {
				t.Errorf("the same person's other browser: signed out %v, want %v", laptop.Session() == nil,
					c.laptopOut)
			}
			if bob.Session() == nil {
				t.Error("somebody else was signed out")
			}
			if cause := rig.Soon(t, "the end", ended); cause != store.CauseBackChannel {
				t.Errorf("the cause is %q", cause)
			}
			n := 1.0
			if c.laptopOut {
				n = 2
			}
			if l := s.Log.Last("backchannel_logout"); l["result"] != "ok" || l["ended"] != n ||
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
		if p := s.send(s.op.SignLogoutToken("app", "", sid)); p.Status != 200 || b.Session() != nil ||
			other.Session() == nil {
			t.Errorf("%q: %d %s", sid, p.Status, p.Body)
		}
	}
}

func TestATokenIsGoodOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	s.signedIn("alice")
	token := s.op.SignLogoutToken("app", "alice", "")
	if p := s.send(token); p.Status != 200 {
		t.Fatal(p.Status, p.Body)
	}
	s.Pass(time.Second)
	b := s.signedIn("alice")
	p := s.send(token)
	if p.Status != 400 || !strings.Contains(p.Body, "already processed") ||
		s.heard() != "backchannel main replayed jti" {
		t.Errorf("%d %s, heard %q", p.Status, p.Body, s.heard())
	}
	if b.Session() == nil {
		t.Error("a token that was sent again ended a later session")
	}
	if l := s.Log.Last("backchannel_logout"); l["result"] != "replayed" || l["sub"] != "alice" {
		t.Errorf("the log says %v", l)
	}
	s.Pass(time.Hour)
	s.refused(s.send(token), 400, "exp")
}

func TestAFailureUsesNothingUp(t *testing.T) {
	t.Parallel()
	for _, status := range []int{0, 503, 400} {
		s := newStage(t, func(h *logout.Handler) { h.FailureStatus = status })
		b := s.signedIn("alice")
		token := s.op.SignLogoutToken("app", "alice", b.Session().SID)
		s.store.endless.Store(true)
		p := s.send(token)
		want := status
		if want == 0 {
			want = 503
		}
		if p.Status != want || p.Header.Get("Retry-After") == "" || strings.Contains(p.Body, "disk") ||
			!strings.Contains(p.Body, `"error"`) {
			t.Errorf("%d %s", p.Status, p.Body)
		}
		if s.heard() != "backchannel main unavailable store" || s.Log.Last("backchannel_logout")["jti"] == nil {
			t.Errorf("heard %q, and the log says %v", s.heard(), s.Log.Last("backchannel_logout"))
		}
		if b.Session() == nil {
			t.Error("signed out by a store that was away?")
		}
		s.store.endless.Store(false)
		if p := s.send(token); p.Status != 200 || b.Session() != nil {
			t.Errorf("the same token again: %d %s", p.Status, p.Body)
		}
	}
}

func TestKeysThatCannotBeHadAreNoRefusal(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	s.op.Override(oidctest.JWKS, oidctest.Status(500))
	token := s.op.SignLogoutToken("app", "alice", "")
	if p := s.send(token); p.Status != 503 || p.Header.Get("Retry-After") == "" ||
		s.heard() != "backchannel unknown unavailable keys" {
		t.Errorf("%d %s, heard %q", p.Status, p.Body, s.heard())
	}
	s.op.Override(oidctest.JWKS, nil)
	s.Pass(time.Minute)
	if p := s.send(token); p.Status != 200 {
		t.Errorf("the same token again: %d %s", p.Status, p.Body)
	}
}

func TestSuccessIs200AndEmptyOr204IfYouMust(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(h *logout.Handler) { h.SuccessStatus = 204 })
	if p := s.send(s.op.SignLogoutToken("app", "nobody-here", "")); p.Status != 204 || p.Body != "" {
		t.Errorf("%d %q", p.Status, p.Body)
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
	r, err := http.NewRequestWithContext(ctx, "POST", s.URL+"/auth/backchannel-logout",
		strings.NewReader("logout_token="+token))
	rig.Must(t, err)
	r.Header.Set("Content-Type", form)
	if resp, err := s.Browser().Client.Do(r); err == nil {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		t.Error("the caller did not hang up")
	}
	close(gone)
	rig.Soon(t, "the logout", done)
	if b.Session() != nil || s.heard() != "backchannel main ok" {
		t.Errorf("still signed in; heard %q", s.heard())
	}
}

// Whatever ended a session, the notices of it are left in the same step.
func TestEveryWayOutLeavesNotices(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	notices := func() int {
		all, err := s.store.Claim(context.Background(), store.NoticeLogout, "another app", store.Time(s.Now()), time.Hour,
			10)
		rig.Must(t, err)
		return len(all)
	}
	s.signedIn("alice")
	s.send(s.op.SignLogoutToken("app", "alice", ""))
	if n := notices(); n != 1 {
		t.Errorf("a logout token left %d notices", n)
	}
	s.Pass(time.Second)
	s.signedIn("alice").Do("POST", "/auth/logout", "")
	if n := notices(); n != 1 {
		t.Errorf("a person's own logout left %d notices", n)
	}
	s.Pass(time.Second)
	b := s.signedIn("alice")
	q := url.Values{"iss": {s.op.Issuer()}, "sid": {b.Session().SID}}
	b.Get("/auth/frontchannel-logout?" + q.Encode())
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
			b := s.Browser()
			callback := b.Get(b.Get("/auth/login").To).To
			sub, sid := "", ""
			if c.named {
				sub = "alice"
			}
			if c.sids {
				sid = s.op.Sessions()[0].SID
			}
			s.Pass(time.Second)
			if p := s.send(s.op.SignLogoutToken("app", sub, sid)); p.Status != 200 {
				t.Fatal(p.Status, p.Body)
			}
			s.Pass(time.Second)
			if p := b.Get(callback); p.Status != 409 || b.Session() != nil {
				t.Errorf("%d %s", p.Status, p.Body)
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
		rig.Must(t, err)
		h.Providers = append(h.Providers, second)
	})
	alive := func() (clients []string) {
		for _, client := range []string{"app", "second", "third"} {
			page, err := s.store.List(t.Context(), store.Query{Issuer: s.op.Issuer(), ClientID: client,
				Subject: "alice"}, s.Now())
			rig.Must(t, err)
			if len(page.Records) > 0 {
				clients = append(clients, client)
			}
		}
		return clients
	}
	for _, client := range []string{"app", "second", "third"} {
		_, _, err := s.Manager.Create(t.Context(), session.SignIn{Issuer: s.op.Issuer(), ClientID: client,
			Subject: "alice", SID: "s", Began: s.Now()})
		rig.Must(t, err)
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
	if p := s.send(token); p.Status != 503 || !slices.Equal(alive(), []string{"second", "third"}) {
		t.Fatalf("%d %s; alive at %q", p.Status, p.Body, alive())
	}
	if p := s.send(token); p.Status != 200 || !slices.Equal(alive(), []string{"third"}) {
		t.Errorf("again: %d %s; alive at %q", p.Status, p.Body, alive())
	}
	if p := s.send(token); p.Status != 400 || !strings.Contains(p.Body, "already processed") {
		t.Errorf("once more: %d %s", p.Status, p.Body)
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	cookie, tokens := b.Cookie("curfew"), b.Session().Tokens
	evil := strings.Repeat("x", 2000) + "\nevent=forged"
	good := s.op.SignLogoutToken("app", "alice", "")
	s.send(good)
	s.send(s.op.SignLogoutToken("app", evil, ""))
	s.send(s.op.SignLogoutToken("app", "bob", "", func(j *oidctest.JWT) { j.Claims["iss"] = evil }))
	s.send(evil)
	b.Do("POST", "/auth/logout", "")
	for what, secret := range map[string]string{"cookie": cookie, "ID Token": tokens.IDToken,
		"access token": tokens.AccessToken, "logout token": good} {
		if strings.Contains(s.Log.String(), secret) {
			t.Errorf("the log holds the %s", what)
		}
	}
	for line := range strings.Lines(s.Log.String()) {
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
		l := s.Log.Last("backchannel_logout")
		if got, _ := l["claimed_"+row.claim].(string); got != row.logged || l["level"] != "WARN" {
			t.Errorf("%s %.40q: the log says %v", row.claim, row.sent, l)
		}
		if known := row.claim != "iss"; known != (l["claimed_provider"] == "main") ||
			known != (l["claimed_iss"] == s.op.Issuer()) {
			t.Errorf("%s %.40q: the log says %v", row.claim, row.sent, l)
		}
	}
	s.send(s.op.SignLogoutToken("app", "", "nobody's"))
	if l := s.Log.Last("backchannel_logout"); l["result"] != "ok" || l["hint"] == nil {
		t.Errorf("the log says %v", l)
	}
}
