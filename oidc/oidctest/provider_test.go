package oidctest_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/oidc/oidctest"

	jose "github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const verifier = "a-verifier-of-forty-three-characters-or-more"

func clients() []oidctest.Client {
	one := oidctest.Client{
		ID: "one", Secret: "s", RedirectURIs: []string{"https://one.example.com/cb"},
		PostLogoutRedirectURIs: []string{"https://one.example.com/bye?x=1"}, SigningAlg: "ES256",
	}
	two := one
	two.ID, two.RedirectURIs = "two", []string{"https://two.example.com/cb"}
	return []oidctest.Client{one, two}
}

func start(t *testing.T, change ...func(*oidctest.Config)) *oidctest.Provider {
	c := oidctest.Config{Clients: clients(), SigningAlg: "ES256"}
	for _, f := range change {
		f(&c)
	}
	return oidctest.Start(t, c)
}

func autoLogin(c *oidctest.Config) { c.AutoLogin = "alice" }

func browser(t *testing.T) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{
		Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func request(client string, change ...string) url.Values {
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"response_type": {"code"}, "client_id": {client}, "redirect_uri": {"https://" + client + ".example.com/cb"},
		"scope": {"openid profile email"},
		"state": {"st"}, "nonce": {"n"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])},
		"code_challenge_method": {"S256"},
	}
	for i := 0; i < len(change); i += 2 {
		q.Set(change[i], change[i+1])
	}
	return q
}

// authorize returns the parameters that the browser is sent back with, or the page's status and text.
func authorize(t *testing.T, p *oidctest.Provider, b *http.Client, q url.Values) (url.Values, int, string) {
	t.Helper()
	return read(t, b, func() (*http.Response, error) { return b.Get(p.URL(oidctest.Authorize) + "?" + q.Encode()) })
}

func read(t *testing.T, _ *http.Client, do func() (*http.Response, error)) (url.Values, int, string) {
	t.Helper()
	resp, err := do()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	return to.Query(), resp.StatusCode, string(body)
}

func token(t *testing.T, p *oidctest.Provider, form url.Values) (int, map[string]any) {
	t.Helper()
	b := browser(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL(oidctest.Token),
		strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(form.Get("client"), "s")
	resp, err := b.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, doc
}

func codeForm(code string) url.Values {
	return url.Values{
		"client": {"one"}, "grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {verifier},
		"redirect_uri": {"https://one.example.com/cb"},
	}
}

func TestARequestThatIsWrongIsRefused(t *testing.T) {
	t.Parallel()
	p := start(t, autoLogin)
	b := browser(t)
	for _, row := range []struct{ name, value, want string }{
		{"code_challenge", "", "invalid_request"},
		{"code_challenge_method", "plain", "invalid_request"},
		{"scope", "profile", "invalid_scope"},
		{"response_type", "token", "unsupported_response_type"},
		{"prompt", "none", "login_required"},
	} {
		got, _, _ := authorize(t, p, b, request("one", row.name, row.value))
		if got.Get("error") != row.want || got.Get("state") != "st" || got.Get("iss") != p.Issuer() {
			t.Errorf("%s=%s: sent back with %v; want %s", row.name, row.value, got, row.want)
		}
	}
	for _, q := range []url.Values{request("one", "redirect_uri", "https://one.example.com/cb/"),
		request("one", "client_id", "three")} {
		if got, status, _ := authorize(t, p, b, q); status != 400 || len(got) > 0 {
			t.Errorf("%v: %d, sent to %v; want 400 and no redirect", q, status, got)
		}
	}
}

func TestOneSignInServesAllClientsOfABrowserAndNoOtherBrowser(t *testing.T) {
	t.Parallel()
	p := start(t)
	b := browser(t)
	_, status, page := authorize(t, p, b, request("one", "login_hint", "bob"))
	if status != 200 || !strings.Contains(page, `value="alice"`) || !strings.Contains(page, `value="bob" autofocus`) {
		t.Fatalf("%d: %s", status, page)
	}
	form := request("one")
	form.Set("sub", "bob")
	got, _, _ := read(t, b, func() (*http.Response, error) { return b.PostForm(p.URL(oidctest.Login), form) })
	if got.Get("code") == "" {
		t.Fatalf("sent back with %v", got)
	}
	if got, _, _ := authorize(t, p, b, request("two", "prompt", "none")); got.Get("code") == "" {
		t.Fatalf("the second client got %v", got)
	}
	if got, _, _ := authorize(t, p, browser(t), request("two", "prompt",
		"none")); got.Get("error") != "login_required" {
		t.Fatalf("another browser got %v", got)
	}
	if _, status, _ := authorize(t, p, b, request("two", "prompt", "login")); status != 200 {
		t.Fatalf("prompt=login: %d; want the page", status)
	}
	s := p.Sessions()
	if len(s) != 1 || s[0].Subject != "bob" || !slices.Equal(s[0].Clients, []string{"one", "two"}) {
		t.Fatalf("sessions: %+v", s)
	}
}

func TestACodeServesOnceAndOnlyWithItsVerifier(t *testing.T) {
	t.Parallel()
	p := start(t, autoLogin)
	b := browser(t)
	code := func() string { got, _, _ := authorize(t, p, b, request("one")); return got.Get("code") }
	for _, row := range []struct{ name, value string }{
		{"code_verifier", "another-verifier-of-forty-three-characters-or-more"}, {"code_verifier", ""},
		{"redirect_uri", "https://two.example.com/cb"}, {"client", "two"}, {"code", "x"},
	} {
		form := codeForm(code())
		form.Set(row.name, row.value)
		if status, doc := token(t, p, form); status != 400 || doc["error"] != "invalid_grant" {
			t.Errorf("%s=%s: %d %v", row.name, row.value, status, doc)
		}
	}
	form := codeForm(code())
	status, doc := token(t, p, form)
	if status != 200 || doc["id_token"] == nil || !p.Alive(doc["refresh_token"].(string)) {
		t.Fatalf("%d %v", status, doc)
	}
	if status, again := token(t, p, form); status != 400 || again["error"] != "invalid_grant" {
		t.Fatalf("a second time: %d %v", status, again)
	}
	if p.Alive(doc["refresh_token"].(string)) {
		t.Fatal("the refresh token outlives the second use of its code")
	}
}

func TestARefreshTokenThatWasSpentEndsItsHeirs(t *testing.T) {
	t.Parallel()
	p := start(t, autoLogin)
	got, _, _ := authorize(t, p, browser(t), request("one"))
	_, first := token(t, p, codeForm(got.Get("code")))
	refresh := func(rt any) (int, map[string]any) {
		return token(t, p, url.Values{"client": {"one"}, "grant_type": {"refresh_token"},
			"refresh_token": {rt.(string)}})
	}
	status, second := refresh(first["refresh_token"])
	if status != 200 || second["refresh_token"] == first["refresh_token"] {
		t.Fatalf("%d %v", status, second)
	}
	if status, _ := refresh(first["refresh_token"]); status != 400 {
		t.Fatalf("a spent one: %d", status)
	}
	if status, _ := refresh(second["refresh_token"]); status != 400 {
		t.Fatalf("its heir: %d", status)
	}
}

func TestALogoutTellsEveryClientAtOnceAndEndsTheSession(t *testing.T) {
	t.Parallel()
	var both sync.WaitGroup // each relying party waits for the other: told one after the other, neither would answer
	both.Add(2)
	rp := func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("logout_token") != "" {
			both.Done()
			both.Wait()
		}
	}
	one, two := httptest.NewServer(http.HandlerFunc(rp)), httptest.NewServer(http.HandlerFunc(rp))
	t.Cleanup(one.Close)
	t.Cleanup(two.Close)
	var heard sync.Map
	p := start(t, autoLogin, func(c *oidctest.Config) {
		c.Clients[0].BackchannelLogoutURI, c.Clients[1].BackchannelLogoutURI = one.URL, two.URL
		c.OnDelivery = func(d oidctest.Delivery) { heard.Store(d.ClientID, true) }
	})
	b := browser(t)
	first, _, _ := authorize(t, p, b, request("one", "scope", "openid offline_access"))
	authorize(t, p, b, request("two"))
	authorize(t, p, browser(t), request("two"))
	_, tokens := token(t, p, codeForm(first.Get("code")))

	sid := p.Sessions()[0].SID
	got := p.Logout(t.Context(), "", sid)
	if len(got) != 2 || !got[0].OK() || !got[1].OK() || len(p.Deliveries()) != 2 {
		t.Fatalf("deliveries: %+v", got)
	}
	if _, ok := heard.Load("two"); !ok {
		t.Fatal("OnDelivery did not hear")
	}
	if s := p.Sessions(); len(s) != 1 || s[0].SID == sid {
		t.Fatalf("sessions left: %+v", s)
	}
	if !p.Alive(tokens["refresh_token"].(string)) {
		t.Fatal("a refresh token with offline_access ended with the session")
	}
	if got, _, _ := authorize(t, p, b, request("one", "prompt", "none")); got.Get("error") != "login_required" {
		t.Fatalf("the browser is still signed in: %v", got)
	}
}

func TestEndSessionLeadsBackOnlyToWhereIsRegistered(t *testing.T) {
	t.Parallel()
	p := start(t, autoLogin)
	b := browser(t)
	got, _, _ := authorize(t, p, b, request("one"))
	_, tokens := token(t, p, codeForm(got.Get("code")))
	hint := tokens["id_token"].(string)
	end := func(change ...string) (url.Values, int, string) {
		q := url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {"https://one.example.com/bye?x=1"},
			"state": {"a b"}}
		for i := 0; i < len(change); i += 2 {
			q.Set(change[i], change[i+1])
		}
		return read(t, b, func() (*http.Response, error) {
			return b.Get(p.URL(oidctest.EndSession) + "?" +
				q.Encode())
		})
	}
	for _, change := range [][]string{
		{"post_logout_redirect_uri", "https://one.example.com/bye"},
		{"post_logout_redirect_uri", "https://evil.example.com/"},
		{"id_token_hint", hint[:len(hint)-8] + "AAAAAAAA"}, {"id_token_hint", "x"}, {"client_id", "two"},
	} {
		if to, status, _ := end(change...); status != 400 || len(to) > 0 || len(p.Sessions()) != 1 {
			t.Errorf("%v: %d, to %v, %d sessions; want 400, and nothing ended", change, status, to, len(p.Sessions()))
		}
	}
	if _, status, page := end("id_token_hint", "", "post_logout_redirect_uri", ""); status != 200 ||
		!strings.Contains(page, "<button>Sign out") || len(p.Sessions()) != 1 {
		t.Errorf("without a hint: %d; want to be asked", status)
	}
	if to, status, _ := end(); status != 303 || to.Get("state") != "a b" || to.Get("x") != "1" ||
		len(p.Sessions()) != 0 {
		t.Errorf("%d, to %v, %d sessions", status, to, len(p.Sessions()))
	}
}

// Sign lays signatures out by its own code, so go-jose, which does it by another, has to agree.
func TestWhatIsSignedHereVerifiesElsewhere(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
		"EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			k := oidctest.NewKey(alg)
			raw := oidctest.Sign(oidctest.JWT{Header: map[string]any{"alg": alg, "kid": k.KID},
				Claims: map[string]any{"a": 1}, Key: k, Alg: alg})
			obj, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
			if err != nil {
				t.Fatal(err)
			}
			payload, err := obj.Verify(k.Private.Public())
			if err != nil || string(payload) != `{"a":1}` {
				t.Fatalf("%s, %v", payload, err)
			}
		})
	}
}

func TestAClientAuthenticatesAsItIsRegistered(t *testing.T) {
	t.Parallel()
	p := start(t, func(c *oidctest.Config) {
		c.Clients[0].AuthMethod = "client_secret_post"
		c.Clients = append(c.Clients, oidctest.Client{ID: "public"})
	})
	for _, row := range []struct {
		client, secret string // by basic
		form           url.Values
		want           string
	}{
		{"one", "s", url.Values{}, "invalid_client"},
		{"two", "wrong", url.Values{}, "invalid_client"},
		{"three", "s", url.Values{}, "invalid_client"},
		{"", "", url.Values{"client_id": {"one"}}, "invalid_client"},
		{"", "", url.Values{"client_id": {"public"}, "client_secret": {"x"}}, "invalid_client"},
		{"two", "s", url.Values{}, "invalid_grant"},
		{"", "", url.Values{"client_id": {"one"}, "client_secret": {"s"}}, "invalid_grant"},
		{"", "", url.Values{"client_id": {"public"}}, "invalid_grant"},
	} {
		row.form.Set("grant_type", "refresh_token")
		r := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(row.form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if row.client != "" {
			r.SetBasicAuth(row.client, row.secret)
		}
		w := httptest.NewRecorder()
		p.Handler().ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), row.want) {
			t.Errorf("%s, %v: %s; want %s", row.client, row.form, w.Body, row.want)
		}
	}
}

func TestAnAccessTokenRunsOut(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	p := start(t, autoLogin, func(c *oidctest.Config) {
		c.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	got, _, _ := authorize(t, p, browser(t), request("one"))
	_, tokens := token(t, p, codeForm(got.Get("code")))
	ask := func() int {
		r := httptest.NewRequest(http.MethodGet, "/userinfo", nil)
		r.Header.Set("Authorization", "Bearer "+tokens["access_token"].(string))
		w := httptest.NewRecorder()
		p.Handler().ServeHTTP(w, r)
		return w.Code
	}
	if status := ask(); status != 200 {
		t.Fatalf("%d", status)
	}
	mu.Lock()
	now = now.Add(5 * time.Minute)
	mu.Unlock()
	if status := ask(); status != 401 {
		t.Fatalf("%d; want 401", status)
	}
}
