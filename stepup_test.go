package curfew_test

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/gateway"
	"example.com/curfew/oidc/oidctest"
)

// stricter is an app with pages that ask for more than a session, at a provider that gives what it is asked for, unless
// it is unwilling.
type stricter struct {
	*app
	proxy *httptest.Server // the app behind the reverse proxy

	mu        sync.Mutex
	asked     []url.Values // the authentication requests
	unwilling bool
	silent    bool // its ID Tokens say nothing about the sign-in
}

func newStricter(t *testing.T, change ...func(*curfew.Config)) *stricter {
	t.Helper()
	policy, err := gateway.NewPolicy(
		gateway.Rule{Path: "/gold/*", ACR: []string{"gold", "platinum"}},
		gateway.Rule{Path: "/fresh/*", MaxAge: 5 * time.Minute},
		gateway.Rule{Path: "/otp/*", AMR: []string{"otp"}},
		gateway.Rule{Path: "/transfer", Methods: []string{"POST"}, ACR: []string{"gold"}, MaxAge: time.Minute},
		gateway.Rule{Path: "/admin/*", Groups: []string{"admins"}, ACR: []string{"gold"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	s := new(stricter)
	s.app = newAppAt(t, s.prepare, append([]func(*curfew.Config){func(c *curfew.Config) {
		c.Policy, c.TrustedProxies = policy, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}}, change...)...)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "proxied")
	}))
	t.Cleanup(upstream.Close)
	to, _ := url.Parse(upstream.URL)
	s.proxy = httptest.NewServer(s.rp.Proxy(to))
	t.Cleanup(s.proxy.Close)
	return s
}

// prepare has the provider do what it is asked for.
func (s *stricter) prepare(a *app) {
	a.op.Mangle(func(m *oidctest.Mangle) {
		m.Discovery = func(d map[string]any) { d["claims_parameter_supported"] = true }
		m.Authorize = func(q url.Values) string {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked = append(s.asked, q)
			return ""
		}
		m.IDToken = func(j *oidctest.JWT) {
			s.mu.Lock()
			defer s.mu.Unlock()
			last := s.asked[len(s.asked)-1]
			switch {
			case s.silent:
				delete(j.Claims, "auth_time")
			case s.unwilling:
				j.Claims["auth_time"] = time.Now().Add(-time.Hour).Unix()
			default:
				if acr, _, _ := strings.Cut(last.Get("acr_values"), " "); acr != "" {
					j.Claims["acr"] = acr
				}
				if last.Get("claims") != "" {
					j.Claims["amr"] = []string{"pwd", "otp"}
				}
			}
		}
	})
}

func (s *stricter) requests() []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *stricter) be(unwilling, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unwilling, s.silent = unwilling, silent
}

func TestWhoLacksAStepUpIsSentToTheProviderWithJustThatAndComesBack(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		page          string
		asks          map[string]string // in the authentication request
		leaves        []string          // parameters that are not in it
		again         time.Duration     // after which the page asks again; 0: never
		signedInFirst bool
	}{
		"acr": {"/gold/a?b=c", map[string]string{"acr_values": "gold platinum"}, []string{"max_age", "prompt", "claims"}, 0,
			true},
		"acr, and nobody is signed in": {"/gold/a?b=c", map[string]string{"acr_values": "gold platinum"},
			[]string{"max_age"}, 0, false},
		"max_age": {"/fresh/", map[string]string{"max_age": "300"}, []string{"acr_values", "prompt", "claims"},
			7 * time.Minute, true},
		"amr": {"/otp/x", map[string]string{"prompt": "login",
			"claims": `{"id_token":{"amr":{"essential":true,"values":["otp"]}}}`}, []string{"acr_values"}, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStricter(t)
			b := newBrowser(t)
			trips := 0
			if row.signedInFirst {
				b.open(s.server.URL + "/")
				s.both(10 * time.Minute)
				trips = 1
			}
			at, status, text := b.open(s.server.URL + row.page)
			if status != http.StatusOK || at.String() != s.server.URL+row.page || text != "alice" {
				t.Fatalf("%d at %s: %s", status, at, text)
			}
			asked := s.requests()
			if len(asked) != trips+1 {
				t.Fatalf("it went to the provider %d times", len(asked))
			}
			for param, want := range row.asks {
				if got := asked[trips].Get(param); got != want {
					t.Errorf("%s is %q, want %q", param, got, want)
				}
			}
			for _, param := range row.leaves {
				if asked[trips].Has(param) {
					t.Errorf("it was asked for %s=%s", param, asked[trips].Get(param))
				}
			}
			b.open(s.server.URL + row.page)
			if n := len(s.requests()); n != trips+1 {
				t.Errorf("it went to the provider %d times", n)
			}
			if row.again > 0 {
				s.both(row.again)
				_, status, _ := b.open(s.server.URL + row.page)
				if n := len(s.requests()); status != http.StatusOK || n != trips+2 {
					t.Errorf("after %v: %d, and it went to the provider %d times", row.again, status, n)
				}
			}
		})
	}
}

func TestAProviderThatAnswersWithLessGetsAPageAndNoLoop(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		page, check string
		silent      bool
		answer      string // of the authorization endpoint
	}{
		"acr":                     {page: "/gold/a"},
		"amr":                     {page: "/otp/a"},
		"auth_time is too old":    {page: "/fresh/a"},
		"there is no auth_time":   {page: "/fresh/a", silent: true},
		"it says that it can not": {page: "/gold/a", answer: "unmet_authentication_requirements"},
	} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, signed in: %v", name, first), func(t *testing.T) {
				t.Parallel()
				s := newStricter(t)
				b := newBrowser(t)
				if first {
					b.open(s.server.URL + "/")
					s.both(10 * time.Minute)
				}
				before := len(s.requests())
				s.be(true, row.silent)
				if row.answer != "" {
					s.op.Mangle(func(m *oidctest.Mangle) {
						record := m.Authorize
						m.Authorize = func(q url.Values) string { record(q); return row.answer }
					})
				}
				at, status, text := b.open(s.server.URL + row.page)
				if status != http.StatusForbidden || at.Path != "/auth/callback" ||
					!strings.Contains(text, "This page needs another sign-in") ||
					!strings.Contains(text, "Sign in again") {
					t.Fatalf("%d at %s: %s", status, at, text)
				}
				if n := len(s.requests()); n != before+1 {
					t.Errorf("it went to the provider %d times", n-before)
				}
				if _, _, text := b.open(s.server.URL + "/public"); text != fmt.Sprint(first) {
					t.Errorf("signed in: %s", text)
				}
			})
		}
	}
}

func TestEveryWayInChallengesAnAPIClientAndSendsABrowser(t *testing.T) {
	t.Parallel()
	s := newStricter(t)
	b := newBrowser(t)
	b.CheckRedirect = nil
	b.open(s.server.URL + "/")
	s.both(10 * time.Minute)
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	site, _ := url.Parse(s.server.URL)
	cookies := b.Jar.Cookies(site)
	type asked struct{ method, target, accept, referer string }
	for surface, ask := range map[string]func(asked) *http.Response{
		"Require": func(a asked) *http.Response {
			return s.send(b, s.server.URL+a.target, a.method, a.accept, a.referer)
		},
		"proxy": func(a asked) *http.Response {
			return s.send(b, s.proxy.URL+a.target, a.method, a.accept, a.referer)
		},
		"forward-auth": func(a asked) *http.Response {
			req, _ := http.NewRequest(http.MethodGet, s.server.URL+"/auth/verify?redirect=true", nil)
			req.Header.Set("X-Forwarded-Method", a.method)
			req.Header.Set("X-Forwarded-Uri", a.target)
			req.Header.Set("Accept", a.accept)
			req.Header.Set("Referer", a.referer)
			resp, err := b.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			return resp
		},
		"forward-auth by path": func(a asked) *http.Response {
			return s.send(b, s.server.URL+"/auth/verify"+a.target, a.method, a.accept, a.referer)
		},
		"ext_authz": func(a asked) *http.Response {
			req := httptest.NewRequest(a.method, s.server.URL+a.target, nil)
			req.Host = site.Host
			req.Header.Set("Accept", a.accept)
			req.Header.Set("Referer", a.referer)
			for _, c := range cookies {
				req.AddCookie(c)
			}
			answer := s.rp.Gateway().Decide(req)
			return &http.Response{StatusCode: answer.Status, Header: answer.Header,
				Body: io.NopCloser(strings.NewReader(string(answer.Body)))}
		},
	} {
		for target, want := range map[string]string{
			"/gold/a": `Bearer error="insufficient_user_authentication", error_description="A stronger or newer sign-in is ` +
				`required", acr_values="gold platinum"`,
			"/fresh/a": `Bearer error="insufficient_user_authentication", error_description="A stronger or newer sign-in is ` +
				`required", max_age="300"`,
			"/otp/a": `Bearer error="insufficient_user_authentication", error_description="A stronger or newer sign-in is ` +
				`required, by one of these methods: otp"`,
		} {
			resp := ask(asked{"GET", target, "application/json", ""})
			var doc struct{ Error string }
			err := json.NewDecoder(resp.Body).Decode(&doc)
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") != want ||
				doc.Error != "insufficient_user_authentication" || err != nil {
				t.Errorf("%s: an API client is answered %d at %s: %s, %q", surface, resp.StatusCode, target,
					resp.Header.Get("WWW-Authenticate"), doc.Error)
			}
			resp = ask(asked{"GET", target, "text/html", ""})
			resp.Body.Close()
			to, err := resp.Location()
			if resp.StatusCode/100 != 3 || err != nil || to.Path != "/auth/login" ||
				to.Query().Get("return_to") != target {
				t.Errorf("%s: a browser is answered %d at %s, and sent to %v", surface, resp.StatusCode, target, to)
			}
		}
		// A form of a page that asks for nothing: the link says what it is for.
		resp := ask(asked{"POST", "/transfer", "text/html", s.server.URL + "/form"})
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		link := "/auth/login?return_to=%2Fform&step_up=POST+%2Ftransfer"
		if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(html.UnescapeString(string(body)), link) ||
			!strings.Contains(resp.Header.Get("WWW-Authenticate"), `max_age="60"`) {
			t.Errorf("%s: a form is answered %d: %s", surface, resp.StatusCode, body)
		}
		// Who is not allowed in anyway is not asked to sign in better.
		resp = ask(asked{"GET", "/admin/", "text/html", ""})
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: without the group: %d", surface, resp.StatusCode)
		}
	}
	before := len(s.requests())
	b.CheckRedirect = nil
	if at, _, _ := b.open(s.server.URL + "/auth/login?return_to=/form&step_up=POST+/transfer"); at.Path != "/form" {
		t.Fatalf("led to %s", at)
	}
	if q := s.requests()[before]; q.Get("acr_values") != "gold" || q.Get("max_age") != "60" {
		t.Errorf("the provider was asked for %v", q)
	}
	if resp := s.send(b, s.server.URL+"/transfer", "POST", "text/html", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("after the step-up the form is answered %d", resp.StatusCode)
	}
}

// The rules are about the path that the app sees; the sign-in leads back to the one that the browser knows.
func TestBelowAStrippedPrefixAStepUpIsAskedForOnce(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("/%C3%A9", 200)
	for path, want := range map[string]string{
		"/app/gold/x?y=1":  "acr_values=gold platinum",
		"/app/fresh/x":     "max_age=300",
		"/app/gold" + long: "acr_values=gold platinum",
	} {
		s := newStricter(t)
		mux := http.NewServeMux()
		mux.Handle("/auth/", s.rp.Handler())
		mux.Handle("/app/", http.StripPrefix("/app", s.rp.Require(http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "in") }))))
		s.server.Config.Handler = mux
		b := newBrowser(t)
		b.open(s.server.URL + "/app/")
		s.both(10 * time.Minute)
		at, status, text := b.open(s.server.URL + path)
		if status != http.StatusOK || text != "in" || at.RequestURI() != path {
			t.Errorf("%s: %d at %s: %s", path, status, at, text)
		}
		asked := s.requests()
		name, value, _ := strings.Cut(want, "=")
		if got := asked[len(asked)-1].Get(name); len(asked) != 2 || got != value {
			t.Errorf("%s: the provider was asked %d times, last for %s=%s, want %s", path, len(asked), name, got, value)
		}
	}
}

// What a link may say for a request has a bound, and a path need not have that.
func TestAFormWithALongPathLeadsToASignInForIt(t *testing.T) {
	t.Parallel()
	s := newStricter(t)
	longest := "/gold/" + strings.Repeat("x", 512-len("POST /gold/"))
	for path, want := range map[string]string{
		longest:                                  "POST " + longest,
		longest + "x":                            "POST " + longest,
		"/gold/" + strings.Repeat("%C3%A9", 100): "POST /gold/" + strings.Repeat("%C3%A9", 83),
		"/gold/a" + strings.Repeat("/b", 1000):   "POST /gold/a" + strings.Repeat("/b", 250),
	} {
		b := newBrowser(t)
		b.open(s.server.URL + "/")
		resp := s.send(b, s.server.URL+path, "POST", "text/html", s.server.URL+"/form")
		body, _ := io.ReadAll(resp.Body)
		_, link, ok := strings.Cut(html.UnescapeString(string(body)), `href="`+s.server.URL)
		link, _, _ = strings.Cut(s.server.URL+link, `"`)
		if u, err := url.Parse(link); !ok || err != nil || u.Query().Get("step_up") != want {
			t.Errorf("%d, with a link to %s, want step_up=%s", resp.StatusCode, u, want)
			continue
		}
		before := len(s.requests())
		at, status, text := b.open(link)
		if status != http.StatusOK || at.Path != "/form" {
			t.Errorf("%.20s…: %d at %s: %s", path, status, at, text)
		}
		if asked := s.requests(); len(asked) != before+1 || asked[before].Get("acr_values") != "gold platinum" {
			t.Errorf("%.20s…: the provider was asked for %v", path, asked[before:])
		}
	}
}

func (s *stricter) send(b browser, at, method, accept, referer string) *http.Response {
	s.t.Helper()
	req, _ := http.NewRequest(method, at, nil)
	req.Header.Set("Accept", accept)
	req.Header.Set("Referer", referer)
	resp, err := b.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// Core §12.2: a refreshed ID Token need not say again how and when the person signed in.
func TestARefreshIsNoNewSignIn(t *testing.T) {
	t.Parallel()
	s := newStricter(t)
	s.op.Mangle(func(m *oidctest.Mangle) {
		m.Tokens = func(_ string, doc map[string]any) { doc["expires_in"] = 60 }
	})
	b := newBrowser(t)
	b.open(s.server.URL + "/gold/")
	b.open(s.server.URL + "/fresh/")
	before := len(s.requests())
	s.be(false, true)
	s.mu.Lock()
	s.asked = append(s.asked, url.Values{}) // an ID Token without acr
	s.mu.Unlock()
	refreshes := s.op.Count(oidctest.Token)
	for range 2 {
		s.both(2 * time.Minute)
		for _, page := range []string{"/gold/", "/fresh/"} {
			if _, status, _ := b.open(s.server.URL + page); status != http.StatusOK {
				t.Errorf("%s: %d", page, status)
			}
		}
	}
	if n := len(s.requests()); n != before+1 || s.op.Count(oidctest.Token) == refreshes {
		t.Errorf("it went to the provider %d times; refreshed: %v", n-before-1, s.op.Count(oidctest.Token) != refreshes)
	}
}

func TestSessionExpiryOfAnIDTokenBoundsTheSession(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	in := 10 * time.Minute
	say := func(v func() any) {
		a.op.Mangle(func(m *oidctest.Mangle) {
			m.IDToken = func(j *oidctest.JWT) { j.Claims["session_expiry"] = v() }
			m.Userinfo = func(c map[string]any) { c["session_expiry"] = time.Now().Add(24 * time.Hour).Unix() }
		})
	}
	now := func() time.Time { return time.Now().Add(time.Duration(a.opSkew.Load())) }
	say(func() any { return now().Add(in).Unix() })
	b := newBrowser(t)
	b.open(a.server.URL + "/")
	for _, d := range []time.Duration{
		4 * time.Minute,
		5 * time.Minute, // the access token is over: a refresh moves the bound
		4 * time.Minute, // past the first bound
	} {
		a.both(d)
		if _, _, text := b.open(a.server.URL + "/public"); text != "true" {
			t.Fatalf("it ended too early, after %v", time.Duration(a.skew.Load()))
		}
	}
	in = -time.Second
	a.both(2 * time.Minute)
	if _, _, text := b.open(a.server.URL + "/public"); text != "false" || a.end() != "provider_ended" {
		t.Error("it goes on after its refresh said that it is over")
	}
	for name, v := range map[string]any{"it is over": now().Add(-time.Minute).Unix(), "a text": "tomorrow",
		"negative": -1, "a list": []int{1}} {
		say(func() any { return v })
		other := newBrowser(t)
		if _, status, text := other.open(a.server.URL + "/"); status != http.StatusBadRequest ||
			!strings.Contains(text, "session_expiry") {
			t.Errorf("%s: %d, %s", name, status, text)
		}
	}
	say(func() any { return nil })
	if _, status, _ := newBrowser(t).open(a.server.URL + "/"); status != http.StatusOK {
		t.Errorf("null: %d", status)
	}
	in = 2 * time.Minute // less than the access token lives: nothing is refreshed
	say(func() any { return now().Add(in).Unix() })
	b = newBrowser(t)
	b.open(a.server.URL + "/")
	a.both(2 * time.Minute)
	if _, _, text := b.open(a.server.URL + "/public"); text != "false" {
		t.Error("it goes on after its bound")
	}
}
