package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
)

// signed is a signer whose tokens are the claims themselves, and who counts.
type signed struct{ count atomic.Int64 }

func (s *signed) sign(_ context.Context, app string, claims []byte) (string, error) {
	return fmt.Sprintf("%s %d %s", app, s.count.Add(1), claims), nil
}

// claimsOf reads such a token.
func claimsOf(t *testing.T, token string) (app string, claims map[string]any) {
	t.Helper()
	app, rest, _ := strings.Cut(token, " ")
	_, rest, _ = strings.Cut(rest, " ")
	if err := json.Unmarshal([]byte(rest), &claims); err != nil {
		t.Fatalf("%q: %v", token, err)
	}
	return app, claims
}

// asserting is a stage with assertions for an app, and a clock that can be moved.
func asserting(t *testing.T, app string) (*stage, *signed, *atomic.Int64) {
	t.Helper()
	st := newStage(t)
	s := new(signed)
	st.gateway.App, st.gateway.Assertion = app, &gateway.Assertion{Issuer: "https://app.example.com/auth", Sign: s.sign}
	return st, s, &st.Ahead
}

func TestAnAssertionSaysWhoIsThere(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		chosen []string
		claims map[string]any
		want   map[string]any // beside what every assertion says
	}{
		"what is usual": {nil, map[string]any{"name": "Alice", "email": "a@b.c", "groups": []any{"x", "y"},
			"secret": 1},
			map[string]any{"name": "Alice", "email": "a@b.c", "groups": []any{"x", "y"}}},
		"one group is a list too": {nil, map[string]any{"groups": "x"},
			map[string]any{"groups": []any{"x"}}},
		"an address that is not verified is none": {nil,
			map[string]any{"email": "a@b.c", "email_verified": false}, map[string]any{}},
		"what was chosen, as far as it is there": {[]string{"age", "org.unit", "gone"},
			map[string]any{"age": 7.0, "org": map[string]any{"unit": "R"}, "name": "Alice"},
			map[string]any{"age": 7.0, "org.unit": "R"}},
		"nothing": {[]string{}, map[string]any{"name": "Alice"},
			map[string]any{}},
		"a claim of the provider takes no claim's place": {[]string{"name"},
			map[string]any{"aud": "other", "sub": "bob", "sid": "s", "exp": 9e9, "name": "Alice"},
			map[string]any{"name": "Alice"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st, _, _ := asserting(t, "wiki")
			st.gateway.Assertion.Claims = row.chosen
			b, s := st.signIn(row.claims)
			before := st.Manager.Now().Unix()
			st.send("GET", "/", "Cookie", cookie(b), "X-Auth-Assertion", "mine", "X_Auth_Assertion", "mine")
			r := rig.Soon(t, "a request to reach the app", st.seen)
			if strings.Contains(fmt.Sprint(r.Header), "mine") || len(r.Header["X-Auth-Assertion"]) != 1 {
				t.Fatalf("told %v", r.Header)
			}
			app, got := claimsOf(t, r.Header.Get("X-Auth-Assertion"))
			iat, _ := got["iat"].(float64)
			exp, _ := got["exp"].(float64)
			if after := st.Manager.Now().Unix(); int64(iat) < before || int64(iat) > after || exp-iat != 60 {
				t.Errorf("iat %v and exp %v, at %v", iat, exp, after)
			}
			delete(got, "iat")
			delete(got, "exp")
			row.want["iss"], row.want["aud"], row.want["sub"], row.want["provider"] = "https://app.example.com/auth",
				"wiki", "alice", "main"
			row.want["sid"] = s.Key.SIDFor("wiki")
			if fmt.Sprint(got) != fmt.Sprint(row.want) || app != "wiki" {
				t.Errorf("%v, want %v", got, row.want)
			}
			if got["sid"] != r.Header.Get("X-Auth-Session") {
				t.Errorf("the sid is %v, and the header says %q", got["sid"], r.Header.Get("X-Auth-Session"))
			}
		})
	}
}

func TestAnAssertionOutlivesNoSession(t *testing.T) {
	t.Parallel()
	st, _, skew := asserting(t, "wiki")
	b, s := st.signIn(nil)
	for now := s.Created; now.Before(s.Expires.Add(-time.Hour)); now = now.Add(time.Hour) { // it is used all day
		skew.Store(int64(time.Until(now)))
		st.ask("Cookie", cookie(b))
	}
	skew.Store(int64(time.Until(s.Expires.Add(-30 * time.Second))))
	_, got := claimsOf(t, st.ask("Cookie", cookie(b)).Header().Get("X-Auth-Assertion"))
	if exp := got["exp"].(float64); int64(exp) != s.Expires.Unix() {
		t.Errorf("it is valid until %v, and the session until %v", int64(exp), s.Expires.Unix())
	}
}

func TestAnAssertionIsToldAgainForAWhileAndNeverOfASessionThatHasEnded(t *testing.T) {
	t.Parallel()
	st, signer, skew := asserting(t, "wiki")
	st.gateway.Apps = []string{"wiki", "mail"}
	b, s := st.signIn(nil)
	ask := func(app string, b session.Bearer) string {
		return st.askAt("/auth/verify?app="+app, "Cookie", cookie(b)).Header().Get("X-Auth-Assertion")
	}
	first := ask("wiki", b)
	skew.Store(int64(15 * time.Second))
	if again := ask("wiki", b); again != first || signer.count.Load() != 1 {
		t.Errorf("%d signatures: %q after %q", signer.count.Load(), again, first)
	}
	if app, got := claimsOf(t, ask("mail", b)); app != "mail" || got["aud"] != "mail" ||
		got["sid"] != s.Key.SIDFor("mail") {
		t.Errorf("another app was told %v", got)
	}
	other, _ := st.signIn(nil) // of the same person
	if again := ask("wiki", other); again == first {
		t.Error("another session was given this one's")
	}
	skew.Store(int64(21 * time.Second))
	if again := ask("wiki", b); again == first {
		t.Error("it is told again after 21 seconds")
	}
	skew.Store(int64(-time.Hour))
	if again := ask("wiki", b); again == "" || again == first {
		t.Errorf("of the future: %q", again)
	}
	skew.Store(0)
	st.end(s)
	if again := ask("wiki", b); again != "" {
		t.Errorf("a session that has ended was given %q", again)
	}
}

func TestWhatWasSignedIsKeptInBoundedMemory(t *testing.T) {
	t.Parallel()
	st, signer, _ := asserting(t, "wiki")
	st.gateway.Assertion.Sign = func(_ context.Context, app string, claims []byte) (string, error) {
		signer.count.Add(1)
		return strings.Repeat("x", 1<<20), nil
	}
	bearers := make([]session.Bearer, 20)
	for i := range bearers {
		bearers[i], _ = st.signIn(nil)
		st.ask("Cookie", cookie(bearers[i]))
	}
	for _, b := range bearers {
		st.ask("Cookie", cookie(b))
	}
	if again := signer.count.Load() - 20; again < 12 {
		t.Errorf("of 20 MB only %d were signed again: the rest is kept", again)
	}
}

// It proves to an app that a request went through the gateway, so nobody is to have it who could send it there himself.
func TestOnlyATrustedProxyIsGivenAnAssertion(t *testing.T) {
	t.Parallel()
	st, signer, _ := asserting(t, "wiki")
	b, _ := st.signIn(nil)
	for _, path := range []string{"/auth/verify", "/auth/verify?app=wiki", "/auth/verify/x"} {
		resp, _ := st.send("GET", path, "Cookie", cookie(b), "X-Forwarded-For", "127.0.0.9")
		if resp.StatusCode != 200 || resp.Header.Get("X-Auth-Subject") != "alice" ||
			resp.Header["X-Auth-Assertion"] != nil {
			t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
		}
	}
	if signer.count.Load() != 0 {
		t.Error("it was signed")
	}
	if st.ask("Cookie", cookie(b)).Header().Get("X-Auth-Assertion") == "" {
		t.Error("the trusted proxy has none")
	}
}

// A proxy may keep /auth/verify to itself and pass on whatever else lies below /auth/: what it asks for a browser is
// answered to the browser.
func TestAProxyThatPassesOnWhatLiesBelowOurPathGivesNoBrowserAnAssertion(t *testing.T) {
	t.Parallel()
	st, signer, _ := asserting(t, "wiki")
	b, _ := st.signIn(nil)
	for _, path := range []string{"/auth/verify/", "/auth/verify/x", "/auth/verif%79", "/auth/verif%79?app=wiki",
		"/auth/verif%79/x", "/auth%2fverify/x", "/auth/verify/?app=wiki"} {
		if w := st.askAt(path, "Cookie", cookie(b)); w.Header()["X-Auth-Assertion"] != nil {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
	}
	if signer.count.Load() != 0 {
		t.Error("it was signed")
	}
}

// An access token opens the provider's other services, so a page is not to read it from an answer of ours either.
func TestOnlyATrustedProxyIsGivenAnAccessToken(t *testing.T) {
	t.Parallel()
	st, _, _ := asserting(t, "wiki")
	headers := gateway.CurfewHeaders()
	headers["Authorization"], headers["X-Token"] = "bearer", "access_token"
	id, err := gateway.NewIdentity(headers)
	rig.Must(t, err)
	st.gateway.Identity = id
	b, _, err := st.Manager.Create(t.Context(), session.SignIn{Provider: "main", Issuer: "https://id.example.com",
		ClientID: "app",
		Subject:  "alice", Began: st.Manager.Now(), Tokens: session.Tokens{AccessToken: "opens-much"}})
	rig.Must(t, err)
	for _, path := range []string{"/auth/verify", "/auth/verify?app=wiki", "/auth/verify/x"} {
		resp, _ := st.send("GET", path, "Cookie", cookie(b), "X-Forwarded-For", "127.0.0.9")
		if resp.StatusCode != 200 || resp.Header.Get("X-Auth-Subject") != "alice" ||
			strings.Contains(fmt.Sprint(resp.Header), "opens-much") {
			t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
		}
	}
	if h := st.ask("Cookie", cookie(b)).Header(); h.Get("Authorization") != "Bearer opens-much" ||
		h.Get("X-Token") != "opens-much" {
		t.Errorf("the trusted proxy is given %v", h)
	}
	if h := st.askAt("/auth/verify/x", "Cookie", cookie(b)).Header(); strings.Contains(fmt.Sprint(h), "opens-much") {
		t.Errorf("below our path, where it may pass on what a browser asks, the trusted proxy is given %v", h)
	}
}

// A load balancer is trusted for what it says of the client, and passes on whatever a browser asks.
func TestWithoutForwardAuthNobodyThatAsksIsGivenWhatIsForTheApp(t *testing.T) {
	t.Parallel()
	st, signer, _ := asserting(t, "wiki")
	st.gateway.NoForwardAuth = true
	b, _ := st.signIn(nil)
	for _, path := range []string{"/auth/verify", "/auth/verify?app=wiki", "/auth/verify/x"} {
		if w := st.askAt(path, "Cookie", cookie(b)); w.Code != 404 || w.Header()["X-Auth-Subject"] != nil ||
			signer.count.Load() != 0 {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
	}
	st.send("GET", "/", "Cookie", cookie(b))
	if r := rig.Soon(t, "a request to reach the app", st.seen); r.Header.Get("X-Auth-Assertion") == "" {
		t.Error("the app behind us has none")
	}
}

func TestBelowOurPathTheQueryIsTheClientsAndNamesNoApp(t *testing.T) {
	t.Parallel()
	st, _, _ := asserting(t, "wiki")
	st.gateway.Apps = []string{"wiki", "mail"}
	b, s := st.signIn(nil)
	for _, path := range []string{"/auth/verify/x?app=mail", "/auth/verify/?app=mail", "/auth/verify//x?app=",
		"/auth/verify/x?app=nobody"} {
		h := st.askAt(path, "Cookie", cookie(b)).Header()
		if h.Get("X-Auth-Session") != s.Key.SIDFor("wiki") {
			t.Errorf("%s: the app was told the session is %q", path, h.Get("X-Auth-Session"))
		}
	}
}

func TestEachAppOfSeveralIsToldInItsOwnName(t *testing.T) {
	t.Parallel()
	st, _, _ := asserting(t, "wiki")
	st.gateway.Apps = []string{"wiki", "mail"}
	to, _ := url.Parse(st.app.URL)
	elsewhere := app(t, "other") // the same machine, another port
	b, s := st.signIn(nil)
	for name, row := range map[string]struct {
		routes []gateway.Route
		path   string
		aud    string // empty: no assertion
		sid    string
	}{
		"a route of its own": {[]gateway.Route{{Path: "/mail/*", App: "mail",
			Upstream: gateway.Upstream{URL: to}}}, "/mail/x", "mail", "mail"},
		"one upstream is the app": {[]gateway.Route{{Path: "/a/*", Upstream: gateway.Upstream{URL: to}},
			{Upstream: gateway.Upstream{URL: to}}}, "/a/x", "wiki", "wiki"},
		"one of several that says no name": {[]gateway.Route{{Path: "/a/*",
			Upstream: gateway.Upstream{URL: elsewhere}}, {Upstream: gateway.Upstream{URL: to}}}, "/x", "", "wiki"},
		"one of several that says its name": {[]gateway.Route{{Path: "/a/*",
			Upstream: gateway.Upstream{URL: elsewhere}}, {App: "wiki", Upstream: gateway.Upstream{URL: to}}}, "/x",
			"wiki", "wiki"},
		"one upstream under two names, as asked": {[]gateway.Route{{Path: "/a/*", App: "mail",
			Upstream: gateway.Upstream{URL: to}}, {Upstream: gateway.Upstream{URL: to}}}, "/x", "wiki", "wiki"},
	} {
		st.routed(row.routes...)
		st.send("GET", row.path, "Cookie", cookie(b), "X-Auth-Assertion", "mine")
		r := rig.Soon(t, "a request to reach the app", st.seen)
		if got := r.Header.Get("X-Auth-Session"); got != s.Key.SIDFor(row.sid) {
			t.Errorf("%s: the session is called %q", name, got)
		}
		jwt := r.Header.Get("X-Auth-Assertion")
		if row.aud == "" {
			if jwt != "" {
				t.Errorf("%s: told %q", name, jwt)
			}
			continue
		}
		if aud, claims := claimsOf(t, jwt); aud != row.aud || claims["aud"] != row.aud ||
			claims["sid"] != s.Key.SIDFor(row.aud) {
			t.Errorf("%s: %v", name, claims)
		}
	}
	if _, err := st.gateway.Route(gateway.Route{App: "wikki", Upstream: gateway.Upstream{URL: to}}); err == nil ||
		!strings.Contains(err.Error(), `there is no app "wikki"`) {
		t.Errorf("an app that nobody knows: %v", err)
	}
}

func TestWithoutAssertionsNobodyElsesReachesTheApp(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	id, err := gateway.NewIdentity(map[string]string{"X-Proof": "assertion"})
	rig.Must(t, err)
	st.gateway.Identity = id
	b, _ := st.signIn(nil)
	st.send("GET", "/", "Cookie", cookie(b), "X-Auth-Assertion", "mine", "x_auth_assertion", "mine", "X.Auth.Assertion",
		"mine", "X-Proof", "mine", "X_Proof", "mine")
	for name, values := range rig.Soon(t, "a request to reach the app", st.seen).Header {
		if strings.Contains(fmt.Sprint(values), "mine") {
			t.Errorf("the app received %s", name)
		}
	}
}

func TestManyAtOnceAreEachToldOfThemselves(t *testing.T) {
	t.Parallel()
	st, _, _ := asserting(t, "wiki")
	var wg sync.WaitGroup
	for range 8 {
		b, s := st.signIn(nil)
		wg.Go(func() {
			for range 20 {
				var claims map[string]any
				_, rest, _ := strings.Cut(st.ask("Cookie", cookie(b)).Header().Get("X-Auth-Assertion"), "{")
				if json.Unmarshal([]byte("{"+rest), &claims) != nil || claims["sid"] != s.Key.SIDFor("wiki") {
					t.Errorf("told %v", claims)
				}
			}
		})
	}
	wg.Wait()
}

func TestClaimsThatMeanSomethingElseCannotBeChosen(t *testing.T) {
	t.Parallel()
	for name, reason := range map[string]string{
		"sub": `"sub" cannot be chosen`, "events": `"events" cannot be chosen`, "": `"" cannot be chosen`,
		"name": `"name" is there twice`,
	} {
		if err := gateway.CheckAssertionClaims([]string{"name", name}); err == nil || err.Error() != reason {
			t.Errorf("%q: %v, want %s", name, err, reason)
		}
	}
	if err := errors.Join(gateway.CheckAssertionClaims(nil),
		gateway.CheckAssertionClaims([]string{"name", "email"})); err != nil {
		t.Error(err)
	}
}

func TestAQuestionBelowOurPathIsAnsweredAsItStands(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	mux := http.NewServeMux()
	st.gateway.Mount(mux)
	server := st.gateway.VerifyFirst(mux)
	b, _ := st.signIn(nil)
	for _, path := range []string{"/auth/verify//x", "/auth/verify/a/../b", "/auth/verify/./a", "/auth/verify/a//"} {
		for want, header := range map[int]string{200: cookie(b), 401: "other=x"} {
			if w := request(server, path, "Host", st.gateway.Site.URL.Host, "Cookie", header); w.Code != want ||
				w.Header().Get("Location") != "" {
				t.Errorf("%s: %d %q, want %d", path, w.Code, w.Header().Get("Location"), want)
			}
		}
		w := request(server, path, "Host", st.gateway.Site.URL.Host, "Accept", "text/html")
		if to, err := url.Parse(w.Header().Get("Location")); err != nil || w.Code != 302 || to.Path != "/auth/login" ||
			strings.HasPrefix(to.Query().Get("return_to"), "//") {
			t.Errorf("%s: %d %q", path, w.Code, w.Header().Get("Location"))
		}
	}
	st.policed(gateway.Rule{Path: "/x", Public: true})
	if w := request(server, "/auth/verify//x", "Host", st.gateway.Site.URL.Host); w.Code != 400 {
		t.Errorf("under a policy: %d, want 400: the path has two meanings", w.Code)
	}
}
