package curfew_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"example.com/curfew"
	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/sqlite"
)

const api = "https://api.example.com"

// machines is a site that takes access tokens, on two replicas that share a store.
type machines struct {
	*app
	other  *curfew.RP
	seen   chan http.Header // what the app behind the proxy of either replica received
	events chan string
	proxy  [2]*httptest.Server
}

func newMachines(t *testing.T, change ...func(*curfew.Config)) *machines {
	t.Helper()
	m := &machines{seen: make(chan http.Header, 100), events: make(chan string, 100)}
	var cfg curfew.Config
	m.app = newApp(t, append([]func(*curfew.Config){func(c *curfew.Config) {
		c.Providers[0].Bearer = &oidc.Bearer{Audiences: []string{api}}
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		c.ClientCertificateHeader = "X-Client-Cert"
		c.Identity, _ = gateway.NewIdentity(gateway.CurfewHeaders())
		c.Policy, _ = gateway.NewPolicy(
			gateway.Rule{Path: "/hook", Public: true},
			gateway.Rule{Path: "/admin/*", Groups: []string{"admins"}},
			gateway.Rule{Path: "/write", Scopes: []string{"write", "all"}},
			gateway.Rule{Path: "/bank", ACR: []string{"gold"}})
		c.Observe.Bearer = func(provider, result string) { m.events <- provider + " " + result }
	}}, append(change, func(c *curfew.Config) { cfg = *c })...)...)
	m.other = m.open(cfg)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.seen <- r.Header.Clone()
		if r.URL.Path == "/stream" {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: open\n\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}))
	t.Cleanup(upstream.Close)
	to, _ := url.Parse(upstream.URL)
	for i, rp := range []*curfew.RP{m.rp, m.other} {
		m.proxy[i] = httptest.NewServer(rp.Proxy(to))
		t.Cleanup(m.proxy[i].Close)
	}
	return m
}

func (m *machines) token(lies ...func(*oidctest.JWT)) string {
	return m.op.SignAccessToken(api, "script", "alice", "s1", lies...)
}

func head(name string, v any) func(*oidctest.JWT) {
	return func(j *oidctest.JWT) {
		if j.Header[name] = v; v == nil {
			delete(j.Header, name)
		}
	}
}

// ask sends a request as a script or a browser does, and returns the answer.
func (m *machines) ask(where string, headers ...string) *http.Response {
	m.t.Helper()
	req, err := http.NewRequest(http.MethodGet, where, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// want fails unless every entry point answers a request to a path so.
func (m *machines) want(status int, challenge, path string, headers ...string) {
	m.t.Helper()
	forwarded := append([]string{"X-Forwarded-Uri", path, "X-Forwarded-Method", "GET", "Accept", "text/html"},
		headers...)
	for name, resp := range map[string]*http.Response{
		"Require": m.ask(m.server.URL+path, append(headers, "Accept", "text/html")...),
		"Proxy":   m.ask(m.proxy[0].URL+path, headers...),
		"verify":  m.ask(m.server.URL+"/auth/verify?redirect=true", forwarded...),
	} {
		got := resp.Header.Get("WWW-Authenticate")
		if resp.StatusCode != status || !strings.Contains(got, challenge) || challenge == "" && got != "" {
			m.t.Errorf("%s: %s is answered %d with the challenge %q, want %d with %q", name, path, resp.StatusCode, got,
				status, challenge)
		}
	}
	in := httptest.NewRequest(http.MethodGet, m.server.URL+path, nil)
	in.Header = http.Header{}
	for i := 0; i < len(headers); i += 2 {
		in.Header.Add(headers[i], headers[i+1])
	}
	a := m.rp.Gateway().Decide(in)
	if got := a.Header.Get("WWW-Authenticate"); a.Allowed != (status == 200) || !a.Allowed && (a.Status != status ||
		!strings.Contains(got, challenge)) {
		m.t.Errorf("ext_authz: %s is answered %d (%v) with the challenge %q, want %d with %q", path, a.Status, a.Allowed,
			got, status, challenge)
	}
}

func TestAnAccessTokenIsLetInAtEveryEntryPoint(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	token := m.token(claim("groups", []string{"admins"}), claim("scope", "read write"))
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER  "} {
		m.want(200, "", "/page", "Authorization", scheme+token)
	}
	m.want(200, "", "/admin/x", "Authorization", "Bearer "+token)
	m.want(200, "", "/write", "Authorization", "Bearer "+token)
	for range len(m.seen) {
		h := <-m.seen
		if h.Get("X-Auth-Subject") != "alice" || h["Authorization"] != nil {
			t.Errorf("the app sees the subject %q and Authorization %q", h.Get("X-Auth-Subject"), h["Authorization"])
		}
	}
	in := httptest.NewRequest(http.MethodGet, m.server.URL+"/page", nil)
	in.Header.Set("Authorization", "Bearer "+token)
	if a := m.rp.Gateway().Decide(in); !strings.Contains(fmt.Sprint(a.Remove), "Authorization") {
		t.Errorf("ext_authz removes %q, want Authorization among it", a.Remove)
	}
	if got := <-m.events; got != "main ok" || len(m.events) > 0 {
		t.Errorf("observed %q and %d more, want one verification", got, len(m.events))
	}
}

func TestTheTokenIsPassedOnWhereThatIsConfigured(t *testing.T) {
	t.Parallel()
	m := newMachines(t, func(c *curfew.Config) {
		c.Identity, _ = gateway.NewIdentity(map[string]string{"X-User": "subject", "Authorization": "bearer"})
	})
	token := m.token()
	m.ask(m.proxy[0].URL+"/page", "Authorization", "Bearer "+token)
	if got := (<-m.seen)["Authorization"]; len(got) != 1 || got[0] != "Bearer "+token {
		t.Errorf("the app sees Authorization %q", got)
	}
}

func TestATokenThatIsNotGoodIsRefused(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	m.op.SetClient(oidctest.Client{ID: api}) // an ID Token for a client that is called like the resource
	now := time.Now()
	stranger := oidctest.NewKey("RS256")
	const bad = "invalid_token"
	for name, row := range map[string]struct {
		token, challenge string
		status           int
	}{
		"another audience": {m.op.SignAccessToken("https://other.example", "script", "alice", ""), bad, 401},
		"no audience":      {m.token(claim("aud", nil)), bad, 401},
		"another issuer":   {m.token(claim("iss", "https://evil.example")), bad, 401},
		"no exp":           {m.token(claim("exp", nil)), bad, 401},
		"run out":          {m.token(claim("exp", now.Unix()), claim("iat", now.Add(-time.Minute).Unix())), bad, 401},
		"too long a life":  {m.token(claim("exp", now.Add(2*time.Hour).Unix())), bad, 401},
		"no iat":           {m.token(claim("iat", nil)), bad, 401},
		"of the future":    {m.token(claim("iat", now.Add(5*time.Minute).Unix())), bad, 401},
		"not before":       {m.token(claim("nbf", now.Add(5*time.Minute).Unix())), bad, 401},
		"no sub":           {m.token(claim("sub", nil)), bad, 401},
		"no client_id":     {m.token(claim("client_id", nil)), bad, 401},
		"alg none":         {m.token(func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "none", "none" }), bad, 401},
		"alg HS256":        {m.token(func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "HS256", "HS256" }), bad, 401},
		"a stranger's key": {m.token(func(j *oidctest.JWT) { j.Key = stranger }), bad, 401},
		"no typ":           {m.token(head("typ", nil)), bad, 401},
		"an ID Token":      {m.op.SignIDToken(api, "alice", "s1", "n", ""), bad, 401},
		"a logout token":   {m.op.SignLogoutToken(api, "alice", "s1"), bad, 401},
		"a logout token that says it is an access token": {m.op.SignLogoutToken(api, "alice", "s1", head("typ", "at+jwt"),
			claim("client_id", "x")), bad, 401},
		"opaque":              {"0123456789abcdef", bad, 401},
		"bound by something":  {m.token(claim("cnf", map[string]any{"osc": "x"})), bad, 401},
		"bound to a key":      {m.token(claim("cnf", map[string]any{"jkt": strings.Repeat("a", 43)})), bad, 401},
		"not a token":         {"a b", "invalid_request", 400},
		"two in one header":   {m.token() + ", Bearer " + m.token(), "invalid_request", 400},
		"empty":               {"", "invalid_request", 400},
		"too long":            {strings.Repeat("a", 40<<10), "", 431},
		"a JSON object twice": {m.token(func(j *oidctest.JWT) { j.ClaimsJSON = `{"iss":"a","iss":"b"}` }), bad, 401},
	} {
		m.want(row.status, row.challenge, "/page?"+url.QueryEscape(name), "Authorization", "Bearer "+row.token)
	}
	resp := m.ask(m.server.URL+"/page", "Authorization", "Bearer "+m.token(), "Authorization", "Bearer "+m.token())
	if resp.StatusCode != 400 || !strings.Contains(resp.Header.Get("WWW-Authenticate"), "invalid_request") {
		t.Errorf("two headers are answered %d", resp.StatusCode)
	}
	if len(m.seen) > 0 {
		t.Errorf("the app received %v", <-m.seen)
	}
}

func TestWhatAPolicyForbidsATokenIsSaidAsRFC6750Says(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	auth := "Bearer " + m.token(claim("scope", "read"))
	m.want(403, `error="insufficient_scope"`, "/admin/x", "Authorization", auth)
	m.want(403, `scope="write all"`, "/write", "Authorization", auth)
	m.want(401, `error="insufficient_user_authentication"`, "/bank", "Authorization", auth)
	resp := m.ask(m.server.URL + "/page")
	if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != 401 || got != "Bearer" {
		t.Errorf("a request without anything is answered %d with the challenge %q", resp.StatusCode, got)
	}
}

func TestOfACookieAndATokenTheTokenDecides(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	b := newBrowser(t)
	if _, status, text := b.open(m.server.URL + "/page"); status != 200 || text != "alice" {
		t.Fatalf("the sign-in led to %d %q", status, text)
	}
	ask := func(path, auth string) (int, string) {
		req, _ := http.NewRequest(http.MethodGet, m.server.URL+path, nil)
		if auth != "" {
			req.Header.Set("Authorization", auth)
		}
		_, status, text := b.do(req)
		return status, text
	}
	bob := "Bearer " + m.op.SignAccessToken(api, "script", "bob", "")
	if status, text := ask("/page", bob); status != 200 || text != "bob" {
		t.Errorf("alice's cookie with bob's token is answered %d %q", status, text)
	}
	if status, _ := ask("/page", "Bearer nonsense"); status != 401 {
		t.Errorf("alice's cookie with a bad token is answered %d", status)
	}
	if status, text := ask("/public", "Bearer nonsense"); status != 200 || text != "false" {
		t.Errorf("Optional answers a cookie with a bad token %d %q", status, text)
	}
	if status, text := ask("/page", "Basic YTpi"); status != 200 || text != "alice" {
		t.Errorf("a cookie with credentials for the app is answered %d %q", status, text)
	}
}

func TestAPublicPathPassesOnATokenThatIsTheAppsOwn(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	for _, auth := range []string{"Bearer the-apps-own-secret", "Bearer " + m.token(claim("aud", "other"))} {
		if resp := m.ask(m.proxy[0].URL+"/hook", "Authorization", auth); resp.StatusCode != 200 {
			t.Fatalf("%s is answered %d", auth, resp.StatusCode)
		}
		if h := <-m.seen; h.Get("Authorization") != auth || h.Get("X-Auth-Subject") != "" {
			t.Errorf("the app sees Authorization %q and the subject %q", h.Get("Authorization"), h.Get("X-Auth-Subject"))
		}
	}
}

// Where nobody need be signed in, a token that is no JWT may be the app's own, which is no business of the provider.
func TestTheAppsOwnTokensAreNotShownToTheProvider(t *testing.T) {
	t.Parallel()
	m := newMachines(t, func(c *curfew.Config) { c.Providers[0].Bearer.Introspection = true })
	var asked atomic.Int64
	down := oidctest.Status(500)
	m.op.Override(oidctest.Introspect, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		down(w, r)
	})
	for name, c := range map[string]struct {
		url           string
		status, asked int
	}{
		"a public path": {m.proxy[0].URL + "/hook", 200, 0},
		"Optional":      {m.server.URL + "/public", 200, 0},
		"Require":       {m.server.URL + "/page", 503, 1},
	} {
		asked.Store(0)
		status := m.ask(c.url, "Authorization", "Bearer the-apps-own-secret").StatusCode
		if n := int(asked.Load()); status != c.status || n != c.asked {
			t.Errorf("%s: answered %d, asked %d times; want %d and %d", name, status, n, c.status, c.asked)
		}
	}
}

// post sends a logout token to a replica.
func (m *machines) logout(sub, sid string) {
	m.t.Helper()
	resp, err := http.PostForm(m.server.URL+"/auth/backchannel-logout",
		url.Values{"logout_token": {m.op.SignLogoutToken("app", sub, sid)}})
	if err != nil {
		m.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		m.t.Fatalf("the logout is answered %d", resp.StatusCode)
	}
}

func TestALogoutEndsAccessTokensOnEveryReplica(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	status := func(replica int, token string) int {
		return m.ask(m.proxy[replica].URL+"/page", "Authorization", "Bearer "+token).StatusCode
	}
	past := claim("iat", time.Now().Add(-50*time.Minute).Unix())
	used, unseen := m.token(), m.token(past)
	ofBob := m.op.SignAccessToken(api, "script", "bob", "s2")
	withoutSID := m.op.SignAccessToken(api, "script", "alice", "")
	for _, token := range []string{used, ofBob, withoutSID} {
		if a, b := status(0, token), status(1, token); a != 200 || b != 200 {
			t.Fatalf("the replicas answer %d and %d", a, b)
		}
	}
	stream := m.ask(m.proxy[1].URL+"/stream", "Authorization", "Bearer "+used)
	lines := bufio.NewReader(stream.Body)
	if line, err := lines.ReadString('\n'); err != nil || line != "data: open\n" {
		t.Fatalf("the stream begins with %q, %v", line, err)
	}

	m.logout("", "s1")
	for i := range 2 {
		if a, b := status(i, used), status(i, unseen); a != 401 || b != 401 {
			t.Errorf("after the logout replica %d answers %d, and %d to a token that it had not seen", i, a, b)
		}
		if a, b := status(i, ofBob), status(i, withoutSID); a != 200 || b != 200 {
			t.Errorf("after the logout replica %d answers %d to bob, and %d to a token of no session", i, a, b)
		}
	}
	if again := m.token(claim("iat", time.Now().Add(30*time.Second).Unix())); status(0, again) != 401 {
		t.Error("a token that was issued later for the ended session is let in")
	}
	for { // until it is closed; the client has a deadline
		if _, err := lines.ReadString('\n'); err != nil {
			break
		}
	}

	m.logout("alice", "")
	if a, b := status(0, withoutSID), status(1, withoutSID); a != 401 || b != 401 {
		t.Errorf("after the logout of the subject the replicas answer %d and %d", a, b)
	}
	later := m.op.SignAccessToken(api, "script", "alice", "", claim("iat", time.Now().Add(2*time.Second).Unix()))
	m.skew.Store(int64(3 * time.Second))
	if status(0, later) != 200 {
		t.Error("a token that was issued after the logout of the subject is refused")
	}
}

func TestAnEndedTokenIsRefusedForAsLongAsItCanLive(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	token := m.token(claim("exp", time.Now().Add(time.Hour).Unix()))
	m.logout("", "s1")
	m.logout("alice", "")
	m.skew.Store(int64(59 * time.Minute))
	for n := 1; n > 0; {
		var err error
		if n, err = m.store.Prune(t.Context(), store.Time(time.Now().Add(59*time.Minute))); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.ask(m.proxy[0].URL+"/page", "Authorization", "Bearer "+token).StatusCode; got != 401 {
		t.Errorf("a token of an ended session is answered %d after 59 minutes", got)
	}
}

func TestASignOutHereEndsTheTokensOfTheSession(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	token := m.token()
	if got := m.ask(m.proxy[1].URL+"/page", "Authorization", "Bearer "+token).StatusCode; got != 200 {
		t.Fatal(got)
	}
	_, err := m.rp.Sessions().EndSignIn(t.Context(), &session.Session{Key: store.Key{1}, Issuer: m.op.Issuer(),
		ClientID: "app", Subject: "alice", SID: "s1"}, store.CauseUser)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.ask(m.proxy[1].URL+"/page", "Authorization", "Bearer "+token).StatusCode; got != 401 {
		t.Errorf("after the sign-out the token is answered %d", got)
	}
	token = m.op.SignAccessToken(api, "script", "carol", "")
	if got := m.ask(m.proxy[1].URL+"/page", "Authorization", "Bearer "+token).StatusCode; got != 200 {
		t.Fatal(got)
	}
	for next, first := (store.Key{}), true; first || !next.IsZero(); first = false {
		if _, next, err = m.rp.Sessions().EndClient(t.Context(), m.op.Issuer(), "app", store.CauseAdmin, next); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.ask(m.proxy[1].URL+"/page", "Authorization", "Bearer "+token).StatusCode; got != 401 {
		t.Errorf("after an operator ended all sessions the token is answered %d", got)
	}
}

// An access token that was ended is refused from then on, even though its signature is still valid. It does not matter
// who ended it, or which requests come later. The person's other tokens stay valid.
func TestATokenThatIsEndedByItselfStaysDead(t *testing.T) {
	t.Parallel()
	const cap = 4
	for name, row := range map[string]struct {
		sid string
		end func(t *testing.T, m *machines, b browser, s *session.Session)
	}{
		"by an operator": {"", func(t *testing.T, m *machines, _ browser, s *session.Session) {
			_, err := m.rp.Sessions().EndSignIn(t.Context(), s, store.CauseAdmin)
			rig.Must(t, err)
		}},
		"by its person, who stays signed in": {"shared", func(t *testing.T, m *machines, b browser, s *session.Session) {
			m.endMine(b, "session", s.ID())
		}},
		"by its person, with all others": {"shared", func(t *testing.T, m *machines, b browser, s *session.Session) {
			m.endMine(b, "end", "others")
		}},
		"by its person, with a sid of its own": {"its own", func(t *testing.T, m *machines, b browser, s *session.Session) {
			m.endMine(b, "session", s.ID())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachines(t, func(c *curfew.Config) {
				c.MaxPerSubject = cap
				c.Providers[0].Bearer.SigningAlgs = []string{"ES256"}
			})
			key := m.op.Rotate("ES256")
			b := newBrowser(t)
			b.open(m.server.URL + "/page")
			sid := row.sid
			if sid == "shared" {
				sid = m.op.Sessions()[0].SID
			}
			sign := func(sid string) string {
				return m.op.SignAccessToken(api, "script", "alice", sid, func(j *oidctest.JWT) {
					j.Key, j.Alg, j.Header["alg"], j.Header["kid"] = key, "ES256", "ES256", key.KID
				})
			}
			status := func(i int, path, token string) int {
				return m.ask(m.proxy[i].URL+path, "Authorization", "Bearer "+token).StatusCode
			}
			token, other := sign(sid), sign("another")
			for i := range 2 {
				if a, b := status(i, "/page", token), status(i, "/page", other); a != 200 || b != 200 {
					t.Fatal(a, b)
				}
			}
			s, err := m.rp.Sessions().Token(t.Context(), tokenKey(m, token))
			rig.Must(t, err)

			open := make(chan int, 1) // the end of a stream
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.proxy[1].URL+"/stream", nil)
			rig.Must(t, err)
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := http.DefaultTransport.RoundTrip(req)
			rig.Must(t, err)
			go func() {
				defer resp.Body.Close()
				_, _ = io.Copy(io.Discard, resp.Body)
				open <- resp.StatusCode
			}()

			row.end(t, m, b, s)
			if got := rig.Soon(t, "the end of the stream", open); got != 200 {
				t.Errorf("the stream began with %d", got)
			}
			dead := func(when string) {
				t.Helper()
				for i := range 2 {
					for name, raw := range map[string]string{"the token": token, "its other signature": otherSignature(token)} {
						for range 2 {
							if got := status(i, "/page", raw); got != 401 {
								t.Errorf("%s, replica %d answers %d to %s", when, i, got, name)
							}
						}
					}
				}
				if _, _, err := m.rp.Sessions().Recheck(t.Context(), s.Key); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("%s, a stream would be let go on: %v", when, err)
				}
				if _, err := m.rp.Sessions().ByID(t.Context(), s.ID()); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("%s, an operator still finds it: %v", when, err)
				}
			}
			dead("at once")
			if name != "by its person, with all others" {
				if got := status(0, "/page", other); got != 200 {
					t.Errorf("another token of the person is answered %d", got)
				}
			}
			for range 2 * cap {
				if got := status(0, "/page", sign("a third")); got != 200 {
					t.Fatalf("a new token is answered %d", got)
				}
			}
			dead("after more tokens than sessions are kept")
			if status, text := b.api(m.server.URL + "/page"); status != 200 || text != "alice" {
				t.Errorf("the browser of the person is answered %d %q", status, text)
			}
		})
	}
}

// tokenKey returns the key of the session of a JWT of alice.
func tokenKey(m *machines, token string) store.Key {
	return session.TokenKey(m.op.Issuer(), "app", "alice", token[:strings.LastIndexByte(token, '.')])
}

// otherSignature returns the same token with the other ECDSA signature that everybody can make of one: n-s for s.
func otherSignature(token string) string {
	at := strings.LastIndexByte(token, '.') + 1
	raw, _ := base64.RawURLEncoding.DecodeString(token[at:])
	s := new(big.Int).SetBytes(raw[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(raw[32:])
	return token[:at] + base64.RawURLEncoding.EncodeToString(raw)
}

// endMine ends sessions of the person at the page of the own sessions.
func (m *machines) endMine(b browser, name, value string) {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodPost, m.server.URL+"/auth/sessions",
		strings.NewReader(url.Values{name: {value}}.Encode()))
	rig.Must(m.t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("Accept", "application/json")
	resp, err := b.Do(req)
	rig.Must(m.t, err)
	defer resp.Body.Close()
	var answer struct{ Ended []string }
	rig.Must(m.t, json.NewDecoder(resp.Body).Decode(&answer))
	if resp.StatusCode != 200 || len(answer.Ended) == 0 {
		m.t.Fatalf("the page of the own sessions answers %d, ended %q", resp.StatusCode, answer.Ended)
	}
}

func TestACookieNeverOpensTheSessionOfATokenNorDoTokensPushOutBrowsers(t *testing.T) {
	t.Parallel()
	m := newMachines(t, func(c *curfew.Config) { c.MaxPerSubject = 2 })
	b := newBrowser(t)
	b.open(m.server.URL + "/page")
	for range 5 {
		token := m.op.SignAccessToken(api, "script", "alice", "")
		if got := m.ask(m.proxy[0].URL+"/page", "Authorization", "Bearer "+token).StatusCode; got != 200 {
			t.Fatal(got)
		}
	}
	if status, text := b.api(m.server.URL + "/page"); status != 200 || text != "alice" {
		t.Errorf("after many tokens of alice her browser is answered %d %q", status, text)
	}
}

func TestTheOlderFormsAreTakenWhereTheyAreSet(t *testing.T) {
	t.Parallel()
	for form, row := range map[string]struct{ good, id []func(*oidctest.JWT) }{
		oidc.FormKeycloak: {
			[]func(*oidctest.JWT){head("typ", "JWT"), claim("typ", "Bearer"), claim("azp", "script"), claim("client_id", nil)},
			[]func(*oidctest.JWT){head("typ", "JWT"), claim("typ", "ID"), claim("azp", "script")},
		},
		oidc.FormEntra: {
			[]func(*oidctest.JWT){head("typ", "JWT"), claim("ver", "2.0"), claim("azp", "script"), claim("client_id", nil),
				claim("jti", nil), claim("scp", "write")},
			[]func(*oidctest.JWT){head("typ", "JWT"), claim("ver", "2.0"), claim("client_id", nil)},
		},
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			m := newMachines(t, func(c *curfew.Config) { c.Providers[0].Bearer.Form = form })
			m.want(200, "", "/page", "Authorization", "Bearer "+m.token(row.good...))
			m.want(401, "invalid_token", "/page", "Authorization", "Bearer "+m.token(row.id...))
			for _, name := range []string{"nonce", "at_hash", "c_hash"} { // one that is null is not there
				m.want(200, "", "/page", "Authorization", "Bearer "+m.token(append(row.good, claim(name, nil))...))
				m.want(401, "invalid_token", "/page", "Authorization", "Bearer "+m.token(append(row.good, claim(name, "n"))...))
			}
		})
	}
}

func TestWhoMustNotSignInIsRefusedWithATokenToo(t *testing.T) {
	t.Parallel()
	m := newMachines(t, func(c *curfew.Config) { c.Providers[0].Require = map[string][]any{"staff": {true}} })
	m.want(403, "insufficient_scope", "/page", "Authorization", "Bearer "+m.token())
	m.want(200, "", "/page", "Authorization", "Bearer "+m.token(claim("staff", true)))
}

func TestAnOpaqueTokenIsAskedAboutOnceAMinute(t *testing.T) {
	t.Parallel()
	m := newMachines(t, func(c *curfew.Config) { c.Providers[0].Bearer.Introspection = true })
	var asked atomic.Int64
	var answer atomic.Pointer[map[string]any]
	good := func(change map[string]any) *map[string]any {
		a := map[string]any{"active": true, "sub": "alice", "aud": api, "client_id": "script", "token_type": "Bearer",
			"iat": time.Now().Unix(), "exp": time.Now().Add(30 * time.Minute).Unix()}
		for name, v := range change {
			if a[name] = v; v == nil {
				delete(a, name)
			}
		}
		return &a
	}
	m.op.Override(oidctest.Introspect, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		writeJSON(w, *answer.Load())
	})
	status := func(token string) int {
		return m.ask(m.proxy[0].URL+"/page", "Authorization", "Bearer "+token).StatusCode
	}
	answer.Store(good(nil))
	if a, b := status("tok-1"), status("tok-1"); a != 200 || b != 200 || asked.Load() != 1 {
		t.Errorf("answered %d and %d, asked %d times", a, b, asked.Load())
	}
	m.skew.Store(int64(61 * time.Second))
	answer.Store(&map[string]any{"active": false})
	if got := status("tok-1"); got != 401 || asked.Load() != 2 {
		t.Errorf("a revoked token is answered %d after a minute, asked %d times", got, asked.Load())
	}
	for name, change := range map[string]map[string]any{
		"another audience": {"aud": "other"}, "no audience": {"aud": nil}, "no exp": {"exp": nil},
		"nobody":          {"sub": nil, "client_id": nil},
		"a refresh token": {"typ": "Refresh"}, "another kind": {"token_type": "N_A"}, "another issuer": {"iss": "x"},
		"not yet": {"active": "true"}, "too long a life": {"exp": time.Now().Add(3 * time.Hour).Unix(), "iat": nil},
	} {
		answer.Store(good(change))
		want := 401
		if name == "not yet" { // makes no sense
			want = 503
		}
		if got := status("tok-" + strings.ReplaceAll(name, " ", "-")); got != want {
			t.Errorf("%s: answered %d, want %d", name, got, want)
		}
	}
	// What an ingress answers, or a provider that refuses our client, says nothing of the token.
	for i, fails := range []http.HandlerFunc{oidctest.Status(500), oidctest.Status(404), oidctest.Status(403),
		oidctest.OAuthError(401, "invalid_client"), oidctest.OAuthError(400, "unauthorized_client")} {
		m.op.Override(oidctest.Introspect, fails)
		if got := status(fmt.Sprint("tok-", i)); got != 503 {
			t.Errorf("while the provider fails (%d) a token is answered %d", i, got)
		}
	}
}

// An open stream brings no further request that the provider would be asked for.
func TestTheStreamOfARevokedOpaqueTokenIsClosed(t *testing.T) {
	t.Parallel()
	m := newMachines(t, func(c *curfew.Config) { c.Providers[0].Bearer.Introspection = true })
	causes := make(chan error, 1)
	own := httptest.NewServer(m.rp.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, stop := curfew.UntilEnded(r.Context())
		defer stop()
		<-ctx.Done()
		causes <- context.Cause(ctx)
	})))
	t.Cleanup(own.Close)
	for i, url := range []string{m.proxy[0].URL + "/stream", own.URL + "/"} {
		var asked atomic.Int64
		m.op.Override(oidctest.Introspect, func(w http.ResponseWriter, _ *http.Request) {
			n := asked.Add(1)
			m.skew.Add(int64(61 * time.Second)) // after the time that the answer counts from
			writeJSON(w, map[string]any{"active": n == 1, "sub": "alice", "aud": api, "client_id": "script",
				"token_type": "Bearer", "iat": time.Now().Unix(), "exp": time.Now().Add(30 * time.Minute).Unix()})
		})
		stream := m.ask(url, "Authorization", fmt.Sprintf("Bearer opaque-%d", i))
		text, _ := io.ReadAll(stream.Body) // until it is closed; the client has a deadline
		if n := asked.Load(); stream.StatusCode != 200 || n != 2 {
			t.Errorf("%s: answered %d %q, asked %d times", url, stream.StatusCode, text, n)
		}
	}
	if cause := <-causes; !errors.Is(cause, gateway.ErrEnded) {
		t.Errorf("the handler is told %v", cause)
	}
}

func writeJSON(w http.ResponseWriter, v map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	data, _ := json.Marshal(v)
	w.Write(data)
}

// holder is a client whose tokens are bound to a key.
type holder struct {
	signer jose.Signer
	jkt    string
}

func newHolder(t *testing.T) *holder {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &jose.SignerOptions{EmbedJWK: true}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, o.WithType("dpop+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return &holder{s, base64.RawURLEncoding.EncodeToString(sum)}
}

func (h *holder) proof(t *testing.T, url, token string, change map[string]any) string {
	sum := sha256.Sum256([]byte(token))
	claims := map[string]any{"htm": "GET", "htu": url, "iat": time.Now().Unix(), "jti": rand.Text(),
		"ath": base64.RawURLEncoding.EncodeToString(sum[:])}
	for name, v := range change {
		if claims[name] = v; v == nil {
			delete(claims, name)
		}
	}
	raw, err := jwt.Signed(h.signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestATokenThatIsBoundToAKeyNeedsAProof(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	mine, theirs := newHolder(t), newHolder(t)
	token := m.token(claim("cnf", map[string]any{"jkt": mine.jkt}))
	at := m.server.URL + "/page" // the URL of the site, also at the proxies, which stand behind it
	once := mine.proof(t, at, token, nil)
	with := func(proof string) []string { return []string{"Authorization", "dpop " + token, "DPoP", proof} }
	for name, row := range map[string]struct {
		headers []string
		status  int
	}{
		"plain bearer":    {[]string{"Authorization", "Bearer " + token, "DPoP", mine.proof(t, at, token, nil)}, 401},
		"no proof":        {[]string{"Authorization", "DPoP " + token}, 401},
		"two proofs":      {[]string{"Authorization", "DPoP " + token, "DPoP", once, "DPoP", once}, 401},
		"another key":     {[]string{"Authorization", "DPoP " + token, "DPoP", theirs.proof(t, at, token, nil)}, 401},
		"another method":  {with(mine.proof(t, at, token, map[string]any{"htm": "POST"})), 401},
		"another path":    {[]string{"Authorization", "DPoP " + token, "DPoP", mine.proof(t, at+"2", token, nil)}, 401},
		"another host":    {with(mine.proof(t, "https://evil.example/page", token, nil)), 401},
		"another token":   {[]string{"Authorization", "DPoP " + token, "DPoP", mine.proof(t, at, "x", nil)}, 401},
		"no ath":          {with(mine.proof(t, at, token, map[string]any{"ath": nil})), 401},
		"old":             {with(mine.proof(t, at, token, map[string]any{"iat": 1_700_000_000})), 401},
		"no jti":          {with(mine.proof(t, at, token, map[string]any{"jti": nil})), 401},
		"not bound":       {[]string{"Authorization", "DPoP " + m.token(), "DPoP", mine.proof(t, at, token, nil)}, 401},
		"with a query":    {[]string{"Authorization", "DPoP " + token, "DPoP", mine.proof(t, at+"?x=1", token, nil)}, 200},
		"in capitals":     {with(mine.proof(t, "HTTP"+at[4:], token, nil)), 200},
		"as it should be": {with(mine.proof(t, at, token, nil)), 200},
	} {
		resp := m.ask(m.proxy[0].URL+"/page?y=2", row.headers...)
		if resp.StatusCode != row.status {
			t.Errorf("%s: answered %d with %q, want %d", name, resp.StatusCode, resp.Header.Get("WWW-Authenticate"),
				row.status)
		}
	}
	// By forward-auth the proof is for the original request, which the proxy must name.
	verify := func(headers ...string) int {
		return m.ask(m.server.URL+"/auth/verify", append(headers, "Authorization", "DPoP "+token, "DPoP",
			mine.proof(t, at, token, nil))...).StatusCode
	}
	if got := verify("X-Forwarded-Uri", "/page?z", "X-Forwarded-Method", "GET"); got != 200 {
		t.Errorf("forward-auth answers %d", got)
	}
	if got := verify("X-Forwarded-Uri", "/other", "X-Forwarded-Method", "GET"); got != 401 {
		t.Errorf("forward-auth answers %d to a proof for another path", got)
	}
	if got := verify("X-Forwarded-Uri", "/page"); got != 401 {
		t.Errorf("forward-auth answers %d without the original method", got)
	}
	if a := m.ask(m.proxy[0].URL+"/page", "Authorization", "DPoP "+token, "DPoP", once); a.StatusCode != 200 {
		t.Errorf("the first use of a proof is answered %d", a.StatusCode)
	}
	if a := m.ask(m.proxy[1].URL+"/page", "Authorization", "DPoP "+token, "DPoP", once); a.StatusCode != 401 ||
		!strings.Contains(a.Header.Get("WWW-Authenticate"), `DPoP error="invalid_dpop_proof"`) {
		t.Errorf("the second use, at the other replica, is answered %d", a.StatusCode)
	}
}

func TestATokenThatIsBoundToACertificateNeedsIt(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	der := []byte("the certificate of a client")
	sum := sha256.Sum256(der)
	token := m.token(claim("cnf", map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}))
	b64 := base64.StdEncoding.EncodeToString(der)
	pem := "-----BEGIN CERTIFICATE-----\n" + b64 + "\n-----END CERTIFICATE-----\n"
	for _, good := range []string{b64, ":" + b64 + ":", url.QueryEscape(b64), url.PathEscape(pem), b64 + ",Q0E=",
		fmt.Sprintf("Hash=%x;Subject=\"\"", sum)} {
		got := m.ask(m.proxy[0].URL+"/page", "Authorization", "Bearer "+token, "X-Client-Cert", good)
		if got.StatusCode != 200 {
			t.Errorf("%q is answered %d", good, got.StatusCode)
		}
	}
	for _, bad := range [][]string{nil, {"X-Client-Cert", "Zm9v"}, {"X-Client-Cert", b64, "X-Client-Cert", b64},
		{"X-Client-Cert", ""}, {"X-Client-Cert", fmt.Sprintf("Hash=%x,Hash=%x", sum, sum)}} {
		resp := m.ask(m.proxy[0].URL+"/page", append(bad, "Authorization", "Bearer "+token)...)
		if resp.StatusCode != 401 {
			t.Errorf("%q is answered %d", bad, resp.StatusCode)
		}
	}
	untrusted := newMachines(t, func(c *curfew.Config) { c.TrustedProxies = nil })
	token = untrusted.token(claim("cnf", map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}))
	got := untrusted.ask(untrusted.proxy[0].URL+"/page", "Authorization", "Bearer "+token, "X-Client-Cert", b64)
	if got.StatusCode != 401 {
		t.Errorf("a certificate that nobody vouches for is answered %d", got.StatusCode)
	}
}

func TestTheStoreMustAnswerForATokenToo(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	token := m.token()
	m.want(200, "", "/page", "Authorization", "Bearer "+token)
	m.store.Close()
	if got := m.ask(m.proxy[0].URL+"/page", "Authorization", "Bearer "+m.token()); got.StatusCode != 503 {
		t.Errorf("without the store a token is answered %d", got.StatusCode)
	}
}

// A token that is remembered costs no signature check, and about what a cookie costs.
func BenchmarkBearerRemembered(b *testing.B) {
	op := oidctest.Start(b, oidctest.Config{})
	verified := 0
	rp, err := curfew.New(b.Context(), curfew.Config{
		URL: "https://app.example.com", Log: slog.New(slog.DiscardHandler),
		Providers: []oidc.Config{{Issuer: op.Issuer(), ClientID: "app", ClientSecret: "secret",
			Bearer: &oidc.Bearer{Audiences: []string{api}}}},
		Observe: curfew.Observer{Bearer: func(string, string) { verified++ }},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer rp.Close()
	token := op.SignAccessToken(api, "script", "alice", "s1")
	r := httptest.NewRequest(http.MethodGet, "https://app.example.com/page", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	for b.Loop() {
		if a := rp.Gateway().Decide(r); !a.Allowed {
			b.Fatalf("answered %d", a.Status)
		}
	}
	if verified != 1 {
		b.Errorf("verified %d times", verified)
	}
	who := store.Selector{Issuer: op.Issuer(), ClientID: "app", SID: "s1"}
	if _, err := rp.Sessions().End(b.Context(), store.Ending{Selector: who, Cause: store.CauseAdmin}); err != nil {
		b.Fatal(err)
	}
	if a := rp.Gateway().Decide(r); a.Allowed {
		b.Error("it is let in after its ending")
	}
}

// capping is a store in which the end of a sign-in waits: when too many sessions of one person are ended.
type capping struct {
	store.Store
	begun, goOn chan struct{}
}

func (c *capping) End(ctx context.Context, e store.Ending, now time.Time) ([]store.Ended, error) {
	if e.Spare > 0 {
		c.begun <- struct{}{}
		<-c.goOn
	}
	return c.Store.End(ctx, e, now)
}

// Requests with the same new token share one admission. Whoever joins it after a logout was answered is not let in by
// what it found before.
func TestAnAdmissionThatBeganBeforeALogoutLetsNobodyIn(t *testing.T) {
	t.Parallel()
	s := &capping{begun: make(chan struct{}, 10), goOn: make(chan struct{})}
	m := newMachines(t, func(c *curfew.Config) { s.Store, c.Store = c.Store, s })
	token, got := m.token(), make(chan int, 2)
	ask := func() {
		go func() { got <- m.ask(m.proxy[0].URL+"/page", "Authorization", "Bearer "+token).StatusCode }()
	}
	ask()
	rig.Soon(t, "the admission", s.begun)
	ended, err := m.rp.Sessions().End(t.Context(), store.Ending{Cause: store.CauseBackChannel,
		Selector: store.Selector{Issuer: m.op.Issuer(), ClientID: "app", SID: "s1"}})
	if err != nil || len(ended) != 1 {
		t.Fatal(len(ended), err)
	}
	ask()
	close(s.goOn)
	for range 2 {
		if status := rig.Soon(t, "an answer", got); status != 401 {
			t.Errorf("after the logout the token is answered %d", status)
		}
	}
}

// The provider says once that an opaque token is good no more. If the store does not answer then, the next request ends
// the session.
func TestTheSessionOfARevokedTokenIsEndedWhenTheStoreIsBack(t *testing.T) {
	t.Parallel()
	var away, revoked atomic.Bool
	m := newMachines(t, func(c *curfew.Config) {
		c.Providers[0].Bearer.Introspection = true
		c.Store = &endless{c.Store, &away}
	})
	m.op.Override(oidctest.Introspect, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"active": !revoked.Load(), "sub": "alice", "aud": api, "client_id": "script",
			"token_type": "Bearer", "iat": time.Now().Unix(), "exp": time.Now().Add(30 * time.Minute).Unix()})
	})
	check := func(want, sessions int) {
		t.Helper()
		got := m.ask(m.proxy[0].URL+"/page", "Authorization", "Bearer opaque").StatusCode
		l, err := m.rp.Sessions().Search(t.Context(), session.Search{})
		if err != nil || got != want || len(l.Sessions) != sessions {
			t.Errorf("%d, and %d sessions, %v; want %d and %d", got, len(l.Sessions), err, want, sessions)
		}
	}
	check(200, 1)
	revoked.Store(true)
	m.skew.Store(int64(2 * time.Minute)) // it is asked again
	away.Store(true)
	check(401, 1)
	away.Store(false)
	check(401, 0)
}

// endless is a store that ends nothing while it is away.
type endless struct {
	store.Store
	away *atomic.Bool
}

func (e *endless) End(ctx context.Context, of store.Ending, now time.Time) ([]store.Ended, error) {
	if e.away.Load() {
		return nil, errors.New("away")
	}
	return e.Store.End(ctx, of, now)
}

// A client takes a new token for each request, and perhaps each has a sid of its own. The oldest make room, not the one
// that was just let in.
func TestAFreshTokenIsGoodHoweverManyThereAre(t *testing.T) {
	t.Parallel()
	for _, sids := range []bool{false, true} {
		m := newMachines(t, func(c *curfew.Config) {
			backend, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "curfew.db"), sqlite.Options{})
			rig.Must(t, err)
			t.Cleanup(func() { backend.Close() })
			c.Store, c.MaxPerSubject = backend, 5
		})
		for i := range 30 {
			sid := ""
			if sids {
				sid = rand.Text()
			}
			token := m.op.SignAccessToken(api, "script", "alice", sid, claim("jti", rand.Text()))
			if resp := m.ask(m.proxy[0].URL+"/page", "Authorization", "Bearer "+token); resp.StatusCode != 200 {
				t.Fatalf("sids %v: token %d: %d", sids, i+1, resp.StatusCode)
			}
		}
	}
}
