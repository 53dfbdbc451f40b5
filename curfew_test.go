package curfew_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/fanout"
	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/keyring"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/web"
)

// app is a small app behind Require, at a provider, on real sockets.
type app struct {
	t      *testing.T
	op     *oidctest.Provider
	rp     *curfew.RP
	store  *memory.Store
	server *httptest.Server
	skew   atomic.Int64 // how far the app's clock is ahead
	opSkew atomic.Int64 // how far the provider's clock is ahead
	ended  chan string  // the cause of each session that ended
}

func newApp(t *testing.T, change ...func(*curfew.Config)) *app {
	t.Helper()
	return newAppAt(t, func(*app) {}, change...)
}

// newAppAt is newApp at a provider that is prepared before the app starts.
func newAppAt(t *testing.T, prepare func(*app), change ...func(*curfew.Config)) *app {
	t.Helper()
	a := &app{t: t, store: memory.New(), ended: make(chan string, 100)}
	a.op = oidctest.Start(t, oidctest.Config{AutoLogin: "alice", Users: people(), SendTimeout: rig.Patience,
		Now: func() time.Time { return time.Now().Add(time.Duration(a.opSkew.Load())) }})
	mux := http.NewServeMux()
	a.server = httptest.NewServer(mux)
	t.Cleanup(a.server.Close)
	a.op.SetClient(oidctest.Client{
		ID: "app", Secret: "secret", RedirectURIs: []string{a.server.URL + "/auth/callback"},
		PostLogoutRedirectURIs: []string{a.server.URL + "/auth/logout/callback"},
		BackchannelLogoutURI:   a.server.URL + "/auth/backchannel-logout",
	})
	cfg := curfew.Config{
		URL:       a.server.URL,
		Providers: []oidc.Config{{Issuer: a.op.Issuer(), ClientID: "app", ClientSecret: "secret"}},
		Store:     a.store, Keyring: ring(t), Log: slog.New(slog.DiscardHandler),
		Now:     func() time.Time { return time.Now().Add(time.Duration(a.skew.Load())) },
		Observe: curfew.Observer{SessionEnded: func(cause string) { a.ended <- cause }},
	}
	for _, f := range change {
		f(&cfg)
	}
	prepare(a)
	a.rp = a.open(cfg)
	mux.Handle("/auth/", a.rp.Handler())
	mux.Handle("/", a.rp.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, curfew.SessionFrom(r.Context()).Subject)
	})))
	mux.Handle("/public", a.rp.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, curfew.SessionFrom(r.Context()) != nil)
	})))
	return a
}

// end returns the cause of the next session that ends, or has ended.
func (a *app) end() string {
	a.t.Helper()
	return rig.Soon(a.t, "the end of a session", a.ended)
}

// people are those whom the provider knows.
func people() (all []oidctest.User) {
	for _, sub := range []string{"alice", "bob", "carol", "eve", "mallory", "nil", "olga", "omar"} {
		all = append(all, oidctest.User{Subject: sub, Name: strings.ToUpper(sub[:1]) + sub[1:] + " Doe",
			Email: sub + "@example.com"})
	}
	return all
}

func (a *app) open(cfg curfew.Config) *curfew.RP {
	a.t.Helper()
	rp, err := curfew.New(context.Background(), cfg)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { rp.Close() })
	return rp
}

func ring(t *testing.T) *keyring.Keyring {
	t.Helper()
	r, err := keyring.Parse(keyring.NewFile())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// browser opens pages and keeps cookies.
type browser struct {
	*http.Client
	t *testing.T
}

func newBrowser(t *testing.T) browser {
	jar, _ := cookiejar.New(nil)
	c := &http.Client{Jar: jar, Transport: &http.Transport{}, Timeout: time.Minute}
	t.Cleanup(c.CloseIdleConnections)
	return browser{c, t}
}

// open returns where a page led, its status and its text.
func (b browser) open(url string) (at *url.URL, status int, text string) {
	b.t.Helper()
	req, _ := http.NewRequest(http.MethodGet, url, nil)
	req.Header.Set("Accept", "text/html")
	return b.do(req)
}

func (b browser) do(req *http.Request) (at *url.URL, status int, text string) {
	b.t.Helper()
	resp, err := b.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.Request.URL, resp.StatusCode, string(body)
}

// api asks without wanting a page.
func (b browser) api(url string) (status int, text string) {
	b.t.Helper()
	req, _ := http.NewRequest(http.MethodGet, url, nil)
	_, status, text = b.do(req)
	return status, text
}

func (b browser) signedIn(a *app) bool {
	b.t.Helper()
	status, text := b.api(a.server.URL + "/")
	switch {
	case status == http.StatusOK && text == "alice":
		return true
	case status == http.StatusUnauthorized:
		return false
	}
	b.t.Fatalf("%d %s", status, text)
	return false
}

func TestALogoutAtTheProviderEndsTheSessionThatItNamesAndNoOther(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	first, second := newBrowser(t), newBrowser(t)
	if at, status, text := first.open(a.server.URL + "/deep?link=1"); status != 200 || text != "alice" ||
		at.RequestURI() != "/deep?link=1" {
		t.Fatalf("%d %q at %s", status, text, at)
	}
	second.open(a.server.URL + "/")
	sid := a.op.Sessions()[0].SID
	for _, d := range a.op.Logout(t.Context(), "alice", sid) {
		if d.Status != http.StatusOK {
			t.Fatalf("the provider heard %d, %v", d.Status, d.Err)
		}
	}
	alive := 0
	for _, b := range []browser{first, second} {
		if b.signedIn(a) {
			alive++
		}
	}
	if alive != 1 {
		t.Errorf("%d of two browsers are signed in, want 1", alive)
	}
	if cause := rig.Soon(t, "the end", a.ended); cause != "backchannel" {
		t.Errorf("cause %q", cause)
	}
}

func TestOptionalLetsEverybodyThrough(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	b := newBrowser(t)
	if status, text := b.api(a.server.URL + "/public"); status != 200 || text != "false" {
		t.Errorf("before: %d %s", status, text)
	}
	b.open(a.server.URL + "/")
	if status, text := b.api(a.server.URL + "/public"); status != 200 || text != "true" {
		t.Errorf("after: %d %s", status, text)
	}
}

func TestAnExpiredAccessTokenIsRefreshedAtTheProvider(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		provider http.HandlerFunc // in place of the token endpoint
		mangle   func(*oidctest.Mangle)
		alive    bool
		cause    string
	}{
		"new tokens": {alive: true},
		"the provider refuses for good": {provider: oidctest.OAuthError(400, "invalid_grant"),
			cause: "refresh_rejected"},
		"the provider is away": {provider: oidctest.Status(503), alive: true},
		"a new ID Token is about somebody else": {mangle: func(m *oidctest.Mangle) { m.IDToken = sub("bob") },
			cause: "refresh_rejected"},
		"a new ID Token is for another audience": {mangle: func(m *oidctest.Mangle) {
			m.IDToken = claim("aud",
				"other")
		}, cause: "refresh_rejected"},
		"a new ID Token is of a different issuer": {mangle: func(m *oidctest.Mangle) {
			m.IDToken = claim("iss",
				"https://evil.example")
		}, cause: "refresh_rejected"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t)
			b := newBrowser(t)
			b.open(a.server.URL + "/")
			if c.provider != nil {
				a.op.Override("token", c.provider)
			}
			if c.mangle != nil {
				a.op.Mangle(c.mangle)
			}
			before := a.op.Count("token")
			// beyond the access token, within the skew of an ID Token
			a.skew.Store(int64(5*time.Minute + 30*time.Second))
			if alive := b.signedIn(a); alive != c.alive {
				t.Errorf("signed in: %v, want %v", alive, c.alive)
			}
			if n := a.op.Count("token") - before; n != 1 {
				t.Errorf("the token endpoint was asked %d times", n)
			}
			if !c.alive {
				if cause := rig.Soon(t, "the end", a.ended); cause != c.cause {
					t.Errorf("cause %q, want %q", cause, c.cause)
				}
			}
		})
	}
}

func sub(to string) func(*oidctest.JWT) { return claim("sub", to) }

func claim(name string, value any) func(*oidctest.JWT) {
	return func(j *oidctest.JWT) { j.Claims[name] = value }
}

func TestASessionOfAProviderThatWasTakenOutOfTheConfigurationIsNotServed(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	keys := ring(t)
	now := time.Now()
	with := func(client string) *curfew.RP {
		return a.open(curfew.Config{URL: "https://app.example.com", Store: a.store, Keyring: keys,
			Providers: []oidc.Config{{Issuer: a.op.Issuer(), ClientID: client, ClientSecret: "secret"}}})
	}
	bearer, _, err := with("old").Sessions().Create(t.Context(),
		session.SignIn{Issuer: a.op.Issuer(), ClientID: "old", Subject: "alice", Began: now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := with("old").Sessions().Get(t.Context(), bearer); err != nil {
		t.Errorf("while it is there: %v", err)
	}
	if _, err := with("new").Sessions().Get(t.Context(), bearer); err != store.ErrNotFound {
		t.Errorf("when it is gone: %v, want %v", err, store.ErrNotFound)
	}
}

func TestARefusedSignInHasItsTokenRevokedAlsoWhenTheBrowserHangsUp(t *testing.T) {
	t.Parallel()
	a := newApp(t, func(c *curfew.Config) {
		c.OnLogin = func(context.Context, map[string]any) error { return errors.New("no") }
	})
	revoked := func(n int) {
		t.Helper()
		for end := time.Now().Add(time.Minute); a.op.Count(oidctest.Revoke) < n; {
			if time.Now().After(end) {
				t.Fatalf("the provider was asked to revoke %d times, want %d", a.op.Count(oidctest.Revoke), n)
			}
			time.Sleep(5 * time.Millisecond) // until the condition is met
		}
	}
	if _, status, text := newBrowser(t).open(a.server.URL + "/"); status != http.StatusForbidden {
		t.Fatalf("%d %s", status, text)
	}
	revoked(1)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	a.rp.Sessions().Refuse(gone, session.SignIn{Issuer: a.op.Issuer(), ClientID: "app", Subject: "alice",
		Tokens: session.Tokens{RefreshToken: "rt"}})
	revoked(2)
}

func TestReadyTellsWhatIsAmiss(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	if err := a.rp.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	b := newAppAt(t, func(b *app) { b.op.Override(oidctest.Discovery, oidctest.Status(503)) })
	b.store.Close()
	err := b.rp.Ready(t.Context())
	if err == nil || !strings.Contains(err.Error(), "store: ") || !strings.Contains(err.Error(), "provider main: ") {
		t.Errorf("%v, want the store and the provider", err)
	}
}

// A token that is bound to a key of the session is of no use to an app, in whichever header.
func TestNewRefusesBoundTokensForTheApp(t *testing.T) {
	t.Parallel()
	for _, fact := range []string{"access_token", "bearer"} {
		headers := gateway.CurfewHeaders()
		headers["X-Token"] = fact
		id, err := gateway.NewIdentity(headers)
		if err != nil {
			t.Fatal(err)
		}
		for _, bound := range []bool{true, false} {
			rp, err := curfew.New(t.Context(), curfew.Config{URL: "https://app.example.com", Identity: id,
				Providers: []oidc.Config{{Issuer: "https://id.example.com", ClientID: "app", ClientSecret: "s"},
					{Name: "second", Issuer: "https://second.example.com", ClientID: "app", ClientSecret: "s", DPoP: bound}}})
			if rp != nil {
				rp.Close()
			}
			const want = "Identity: with DPoP the app could not use the access token (X-Token)"
			if bound && (err == nil || !strings.Contains(err.Error(), want)) || !bound && err != nil {
				t.Errorf("%s, bound: %v: %v", fact, bound, err)
			}
		}
	}
}

func TestNewTellsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	_, err := curfew.New(t.Context(), curfew.Config{
		URL: "http://app.example.com", Prefix: "auth/", Home: "//evil.example", AfterLogout: "https://evil.example",
		CookieName: "a=b", WebSocketOrigins: []string{"*"}, Tabs: "popup", SuccessStatus: 302,
		FailureStatus: 500, Store: memory.New(), IdleTimeout: -1, MaxPerSubject: 20_000, KeyRotation: time.Second,
		Apps:      []fanout.App{{ClientID: "one", URI: "ftp://one.example"}, {ClientID: "one", URI: "https://one.example"}},
		Providers: []oidc.Config{{Issuer: "http://id.example.com", ClientID: "app"}},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"URL: http is for loopback", "Prefix: must be a path", "Home: must be a path",
		"AfterLogout: must be a path", `CookieName: "a=b" is no name`, `WebSocketOrigins: "*" is not an origin`,
		`Tabs: "popup" is unknown`,
		"SuccessStatus: must be one of [200 204]",
		"FailureStatus: must be one of [503 400]", "Providers: number 1", "Keyring: a Store needs a Keyring",
		"IdleTimeout, Lifetime, RefreshGrace and CacheSize must not be negative", "MaxPerSubject must not be above 10000",
		"KeyRotation: 1s is too short", `Apps: app "one": backchannel_logout_uri has the unknown scheme "ftp"`,
		`app "one": is there twice`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("does not say %q:\n%v", want, err)
		}
	}
}

func TestTwoProvidersOfOneNameOrOneClientAreAFault(t *testing.T) {
	t.Parallel()
	c := oidc.Config{Issuer: "https://id.example.com", ClientID: "app", ClientSecret: "s"}
	_, err := curfew.New(t.Context(), curfew.Config{URL: "https://app.example.com", Providers: []oidc.Config{c, c}})
	if err == nil || !strings.Contains(err.Error(), `the name "main" is taken`) ||
		!strings.Contains(err.Error(), "another provider has the same issuer") {
		t.Error(err)
	}
}

func TestAKeyFileIsMadeOnceAndReadableByNobodyElse(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "curfew.key")
	first, err := curfew.KeyFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	second, err := curfew.KeyFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := second.Open("test", nil, first.Seal("test", nil, []byte("x"))); err != nil ||
		string(plain) != "x" {
		t.Errorf("the second time it is another key: %v", err)
	}
	os.Chmod(name, 0o644)
	if _, err := curfew.KeyFile(name); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by others: %v", err)
	}
	os.Chmod(name, 0o440)
	if _, err := curfew.KeyFile(name); err != nil {
		t.Errorf("readable by its group: %v", err)
	}
	os.Chmod(name, 0o600)
	os.WriteFile(name, []byte("# empty\n"), 0o600)
	if _, err := curfew.KeyFile(name); err == nil || !strings.Contains(err.Error(), "holds no key") {
		t.Errorf("empty: %v", err)
	}
	if _, err := curfew.KeyFile(filepath.Join(name, "curfew.key")); err == nil {
		t.Error("a folder that is not there: no error")
	}
}

// Browsers keep cookies by host and not by port: relying parties on several ports of one host have names of their own.
func TestTheCookiesNameSaysThePortOnLoopback(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ url, name, want string }{
		{"http://127.0.0.1:4180", "", "curfew-4180"},
		{"http://127.0.0.1:4280", "", "curfew-4280"},
		{"http://app.localhost:4180/", "", "curfew-4180"},
		{"http://[::1]:80", "", "curfew"},
		{"http://localhost", "", "curfew"},
		{"https://app.example.com", "", "__Host-curfew"},
		{"https://app.example.com:8443", "", "__Host-curfew"}, // the same after an upgrade
		{"https://app.example.com:8443", "wiki", "__Host-wiki"},
		{"http://127.0.0.1:4180", "wiki", "wiki"},
	} {
		rp, err := curfew.New(t.Context(), curfew.Config{URL: row.url, CookieName: row.name,
			Log:       slog.New(slog.DiscardHandler),
			Providers: []oidc.Config{{Issuer: "https://id.example.com", ClientID: "app"}}})
		if err != nil {
			t.Fatal(err)
		}
		defer rp.Close()
		if got := rp.Gateway().Cookie.Name(); got != row.want {
			t.Errorf("%s, %q: %s, want %s", row.url, row.name, got, row.want)
		}
	}
}

// deadlines is a response that notes the deadline of what is still to be written.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.set = append(d.set, at)
	return nil
}

// A client that does not read our answer holds it for a bounded time, also in an app that embeds the library.
func TestAnswersOfOurRoutesHaveADeadline(t *testing.T) {
	t.Parallel()
	rp, err := curfew.New(t.Context(), curfew.Config{URL: "https://app.example.com", Log: slog.New(slog.DiscardHandler),
		Providers: []oidc.Config{{Issuer: "https://id.example.com", ClientID: "app"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer rp.Close()
	for _, path := range []string{"/auth/session", "/auth/verify/x", "/auth/nothing"} {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		before := time.Now()
		rp.Handler().ServeHTTP(w, httptest.NewRequest("GET", "https://app.example.com"+path, nil))
		if len(w.set) == 0 || w.set[len(w.set)-1].Before(before) ||
			w.set[len(w.set)-1].After(time.Now().Add(web.WriteTime)) {
			t.Errorf("%s: deadlines %v, want one within %v", path, w.set, web.WriteTime)
		}
	}
}
