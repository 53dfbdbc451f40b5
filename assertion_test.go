package curfew_test

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"example.com/curfew"
	"example.com/curfew/fanout"
	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// verifier is an app that is strict: it fetches the keys that are published, and checks all there is. See
// docs/assertion.md.
type verifier struct {
	t        *testing.T
	client   *http.Client
	issuer   string
	audience string
}

// person is what such an app reads.
type person struct {
	jwt.Claims
	Session string   `json:"sid"`
	Email   string   `json:"email"`
	Name    string   `json:"name"`
	Groups  []string `json:"groups"`
}

func (v *verifier) verify(token string, now time.Time) (person, error) {
	v.t.Helper()
	var p person
	jws, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return p, err
	}
	if typ := jws.Headers[0].ExtraHeaders[jose.HeaderType]; typ != gateway.AssertionType {
		return p, errors.New("it is of another type")
	}
	resp, err := v.client.Get(v.issuer + "/jwks.json")
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	var keys jose.JSONWebKeySet
	if err := json.NewDecoder(resp.Body).Decode(&keys); err != nil {
		v.t.Fatal(err)
	}
	if err := jws.Claims(keys, &p); err != nil {
		return p, err
	}
	return p, p.ValidateWithLeeway(jwt.Expected{Issuer: v.issuer, AnyAudience: jwt.Audience{v.audience}, Time: now}, 0)
}

// replica is one of several on a store, with an app behind it.
type replica struct {
	*curfew.RP
	server *httptest.Server
	told   atomic.Pointer[http.Header] // what the app behind it received last
}

// asserting opens replicas of one gateway at one URL. Its clock is moved by skew.
func asserting(t *testing.T, count int, change ...func(*curfew.Config)) (all []*replica, v *verifier,
	skew *atomic.Int64) {
	t.Helper()
	backend, keys := memory.New(), ring(t)
	t.Cleanup(func() { backend.Close() })
	client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	v, skew = &verifier{t: t, client: client, audience: "wiki"}, new(atomic.Int64)
	t.Cleanup(v.client.CloseIdleConnections)
	var address string
	for range count {
		r := new(replica)
		mux := http.NewServeMux()
		r.server = httptest.NewServer(mux)
		t.Cleanup(r.server.Close)
		if address == "" {
			address = r.server.URL
		}
		behind := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
			h := q.Header.Clone()
			r.told.Store(&h)
		}))
		t.Cleanup(behind.Close)
		cfg := curfew.Config{URL: address, CookieName: "curfew", Store: backend, Keyring: keys,
			Log: slog.New(slog.DiscardHandler), Assertion: true, App: "wiki",
			Providers: []oidc.Config{{Issuer: "https://id.example.com", ClientID: "app",
				HTTPClient: &http.Client{Transport: nowhere{}}}},
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
			Now:            func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }}
		for _, f := range change {
			f(&cfg)
		}
		var err error
		if r.RP, err = curfew.New(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		to, _ := url.Parse(behind.URL)
		mux.Handle("/auth/", r.Handler())
		mux.Handle("/", r.Proxy(to))
		all = append(all, r)
	}
	v.issuer = address + "/auth"
	return all, v, skew
}

// nowhere is a network without a provider.
type nowhere struct{}

func (nowhere) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("nowhere") }

func signIn(t *testing.T, rp *curfew.RP) (session.Bearer, *session.Session) {
	t.Helper()
	b, s, err := rp.Sessions().Create(t.Context(), session.SignIn{Provider: "main", Issuer: "https://id.example.com",
		ClientID: "app", Subject: "alice", SID: "s1",
		Claims: map[string]any{"email": "alice@example.com", "name": "Alice", "groups": []any{"staff"}},
		Began:  rp.Sessions().Now()})
	if err != nil {
		t.Fatal(err)
	}
	return b, s
}

// assertions returns what a forward-auth is told at a replica, and what the app behind it is.
func (r *replica) assertions(v *verifier, b session.Bearer) [2]string {
	v.t.Helper()
	var said [2]string
	for i, path := range []string{"/auth/verify", "/"} {
		q, _ := http.NewRequestWithContext(v.t.Context(), http.MethodGet, r.server.URL+path, nil)
		q.AddCookie(&http.Cookie{Name: "curfew", Value: b.Reveal()})
		resp, err := v.client.Do(q)
		if err != nil {
			v.t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			v.t.Fatalf("%s: %d", path, resp.StatusCode)
		}
		said[i] = resp.Header.Get("X-Auth-Assertion")
	}
	said[1] = r.told.Load().Get("X-Auth-Assertion")
	return said
}

// The keys are those of the store, so whichever replica signs and whichever publishes, an app that knows the URL can
// verify.
func TestAnAssertionIsVerifiedWithThePublishedKeysOfAnyReplicaBeforeAndAfterARotation(t *testing.T) {
	t.Parallel()
	replicas, v, skew := asserting(t, 2)
	b, s := signIn(t, replicas[0].RP)
	var first [2]string
	check := func(when string) {
		t.Helper()
		for i, r := range replicas {
			for surface, token := range r.assertions(v, b) {
				p, err := v.verify(token, r.Sessions().Now())
				if err != nil || p.Subject != "alice" || p.Session != s.Key.SIDFor("wiki") ||
					p.Email != "alice@example.com" || p.Name != "Alice" || len(p.Groups) != 1 ||
					p.Groups[0] != "staff" {
					t.Fatalf("%s, replica %d, surface %d: %+v, %v", when, i, surface, p, err)
				}
			}
		}
	}
	check("at first")
	first = replicas[0].assertions(v, b)
	kids := func() int {
		info, err := replicas[0].Keys().List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(info)
	}
	if err := replicas[0].Keys().Rotate(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	check("while the new key is published and does not sign yet")
	if _, err := v.verify(first[0], replicas[0].Sessions().Now()); err != nil || kids() != 2 {
		t.Errorf("an older one: %v, with %d keys", err, kids())
	}
	skew.Store(int64(61 * time.Minute))
	check("when it signs")
	if _, err := v.verify(first[0], replicas[0].Sessions().Now()); !errors.Is(err, jwt.ErrExpired) {
		t.Errorf("an assertion of an hour ago: %v", err)
	}
	if err := replicas[0].Keys().Rotate(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	skew.Add(int64(31 * time.Second)) // by then the other replica has looked, and nobody tells an old one again
	check("after a rotation at once")
	if kids() != 1 {
		t.Errorf("%d keys", kids())
	}
}

// An app that is told who is there by an assertion is told what the provider says now, and not for some seconds more
// what it said before a refresh.
func TestAnAssertionHasTheClaimsOfTheLastRefresh(t *testing.T) {
	t.Parallel()
	a := newApp(t, func(c *curfew.Config) { c.Assertion, c.App = true, "wiki" })
	told := make(chan string, 10)
	behind := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		told <- r.Header.Get("X-Auth-Assertion")
	}))
	t.Cleanup(behind.Close)
	to, _ := url.Parse(behind.URL)
	proxy := httptest.NewServer(a.rp.Proxy(to))
	t.Cleanup(proxy.Close)
	named := func(name string) func(map[string]any) { return func(c map[string]any) { c["name"] = name } }
	b := newBrowser(t)
	asserted := func() (name any) {
		t.Helper()
		if _, status, text := b.open(proxy.URL + "/"); status != http.StatusOK {
			t.Fatalf("%d %s", status, text)
		}
		jws, err := jwt.ParseSigned(rig.Soon(t, "a request to reach the app", told),
			[]jose.SignatureAlgorithm{jose.ES256})
		rig.Must(t, err)
		var claims map[string]any
		rig.Must(t, jws.UnsafeClaimsWithoutVerification(&claims))
		return claims["name"]
	}
	a.short(nil, named("Alice"), nil)
	b.open(a.server.URL + "/")
	for range 2 { // the second is remembered
		if got := asserted(); got != "Alice" {
			t.Fatalf("the name is %v", got)
		}
	}
	a.short(nil, named("Alice Doe"), nil)
	a.pass(2 * time.Second)
	if got := asserted(); got != "Alice Doe" {
		t.Errorf("after a refresh the name is %v", got)
	}
}

func TestAnAppMayAskForRS256(t *testing.T) {
	t.Parallel()
	replicas, v, _ := asserting(t, 1, func(c *curfew.Config) {
		c.App, c.AssertionClaims = "", []string{"email"}
		c.Apps = []fanout.App{{ClientID: "wiki", URI: "https://wiki.example.com/logout", Alg: fanout.RS256}}
	})
	b, _ := signIn(t, replicas[0].RP)
	token := replicas[0].assertions(v, b)[0]
	jws, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := v.verify(token, time.Now()); err != nil || p.Email == "" || p.Name != "" ||
		jws.Headers[0].Algorithm != "RS256" {
		t.Errorf("%+v, %v", p, err)
	}
}

// Both kinds of token are signed with the same keys for the same audience, and neither is taken for the other, nor for
// an ID Token.
func TestAnAssertionIsNoLogoutTokenAndNoIDTokenAndALogoutTokenIsNoAssertion(t *testing.T) {
	t.Parallel()
	heard := make(chan string, 1)
	wiki := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter,
		r *http.Request) {
		heard <- r.PostFormValue("logout_token")
	}))
	t.Cleanup(wiki.Close)
	replicas, v, _ := asserting(t, 1, func(c *curfew.Config) {
		c.Apps = []fanout.App{{ClientID: "wiki", URI: wiki.URL}}
	})
	rp := replicas[0].RP
	b, s := signIn(t, rp)
	assertion := replicas[0].assertions(v, b)[0]
	if _, err := rp.Sessions().End(t.Context(), store.Ending{Selector: store.Selector{Issuer: s.Issuer,
		ClientID: s.ClientID, Key: s.Key}, Cause: store.CauseUser}); err != nil {
		t.Fatal(err)
	}
	logout := rig.Soon(t, "the app is told", heard)

	// A relying party of ours that has Curfew for its provider.
	p, err := oidc.New(oidc.Config{Issuer: v.issuer, ClientID: "wiki", SigningAlg: "ES256", HTTPClient: v.client})
	if err != nil {
		t.Fatal(err)
	}
	now := rp.Sessions().Now()
	check := func(name string, err error, want string) {
		t.Helper()
		if refused, ok := errors.AsType[*oidc.Error](err); !ok || refused.Check != want {
			t.Errorf("%s: %v, want that it fails the check %s", name, err, want)
		}
	}
	_, err = oidc.VerifyLogoutToken(t.Context(), []*oidc.Provider{p}, assertion, now)
	check("an assertion as a logout token", err, "typ")
	_, err = p.VerifyIDToken(t.Context(), assertion, oidc.Expect{}, now)
	check("an assertion as an ID Token", err, "typ")
	_, err = p.VerifyIDToken(t.Context(), logout, oidc.Expect{}, now)
	check("a logout token as an ID Token", err, "typ")
	if got, err := v.verify(logout, now); err == nil || !strings.Contains(err.Error(), "another type") {
		t.Errorf("a logout token as an assertion: %+v, %v", got, err)
	}
	if _, events := claimsOf(t, assertion)["events"]; events {
		t.Error("an assertion has events, as a logout token has")
	}
	if sid := claimsOf(t, logout)["sid"]; sid != claimsOf(t, assertion)["sid"] {
		t.Errorf("the logout token names the session %v, the assertion %v", sid, claimsOf(t, assertion)["sid"])
	}
}

func claimsOf(t *testing.T, token string) (claims map[string]any) {
	t.Helper()
	jws, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	if err := jws.UnsafeClaimsWithoutVerification(&claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestAssertionsThatCouldNotBeMadeAreAFaultOfTheConfiguration(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change func(*curfew.Config)
		reason string
	}{
		"no name": {func(c *curfew.Config) { c.App = "" }, "the app needs a name"},
		"a claim that is the JWT's": {func(c *curfew.Config) { c.AssertionClaims = []string{"aud"} },
			`"aud" cannot be chosen`},
		"a name that is no app's": {func(c *curfew.Config) {
			c.App, c.Apps = "wikki", []fanout.App{{ClientID: "wiki", URI: "https://wiki.example.com/logout"}}
		}, `there is no app "wikki"`},
	} {
		cfg := curfew.Config{URL: "https://app.example.com", Keyring: ring(t), Log: slog.New(slog.DiscardHandler),
			Assertion: true, App: "wiki",
			Providers: []oidc.Config{{Issuer: "https://id.example.com", ClientID: "app"}}}
		row.change(&cfg)
		rp, err := curfew.New(t.Context(), cfg)
		if err == nil {
			rp.Close()
		}
		if err == nil || !strings.Contains(err.Error(), row.reason) {
			t.Errorf("%s: %v, want %q", name, err, row.reason)
		}
	}
}
