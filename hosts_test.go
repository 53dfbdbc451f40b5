package curfew_test

import (
	"context"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/keyring"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// hosts is a site with apps at three hosts, in two replicas, with people who sign in at a fourth.
type hosts struct {
	t        *testing.T
	op       *oidctest.Provider
	rps      [2]*curfew.RP
	store    store.Store
	ring     *keyring.Keyring
	server   *httptest.Server
	port     string
	replica  atomic.Int32 // which answers
	skew     atomic.Int64 // how far the clock is ahead
	handedBy atomic.Int32 // how many codes came
}

var threeHosts = []string{"wiki.localhost", "mail.localhost", "*.apps.localhost"}

func newHosts(t *testing.T, change ...func(*curfew.Config)) *hosts {
	t.Helper()
	h := &hosts{t: t, store: memory.New(), ring: rig.Keyring(t)}
	h.op = oidctest.Start(t, oidctest.Config{AutoLogin: "alice", Now: h.now, SendTimeout: rig.Patience})
	h.server = rig.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rp := h.rps[h.replica.Load()]
		if r.URL.Path == "/auth/handover" {
			h.handedBy.Add(1)
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/auth/"):
			rp.Handler().ServeHTTP(w, r)
		default:
			rp.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, curfew.SessionFrom(r.Context()).Subject, " at ", r.Host, r.URL.RequestURI())
			})).ServeHTTP(w, r)
		}
	}))
	_, h.port, _ = net.SplitHostPort(h.server.Listener.Addr().String())
	h.op.SetClient(oidctest.Client{ID: "app", Secret: "secret", RedirectURIs: []string{h.at("auth") + "/auth/callback"},
		PostLogoutRedirectURIs: []string{h.at("auth") + "/auth/logout/callback"},
		BackchannelLogoutURI:   h.server.URL + "/auth/backchannel-logout"})
	for i := range h.rps {
		cfg := curfew.Config{URL: h.at("auth"), Hosts: threeHosts,
			Providers: []oidc.Config{{Issuer: h.op.Issuer(), ClientID: "app", ClientSecret: "secret"}},
			Store:     h.store, Keyring: h.ring, Log: new(rig.Log).Logger(), Now: h.now}
		for _, f := range change {
			f(&cfg)
		}
		rp, err := curfew.New(context.Background(), cfg)
		rig.Must(t, err)
		t.Cleanup(func() { rp.Close() })
		h.rps[i] = rp
	}
	return h
}

func (h *hosts) now() time.Time { return time.Now().Add(time.Duration(h.skew.Load())) }

// at returns the origin of a host.
func (h *hosts) at(name string) string { return "http://" + name + ".localhost:" + h.port }

// visitor is a browser that resolves all names to the site, and submits the form of a hand-over as a script would.
type visitor struct {
	browser
	h *hosts
}

func (h *hosts) visitor() visitor {
	jar, _ := cookiejar.New(nil)
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.Contains(addr, "localhost") {
			addr = h.server.Listener.Addr().String()
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	h.t.Cleanup(transport.CloseIdleConnections)
	return visitor{browser{&http.Client{Jar: jar, Transport: transport, Timeout: rig.Patience}, h.t}, h}
}

var codeForm = regexp.MustCompile(`action="([^"]+/auth/handover)"><input type="hidden" name="code" value="([^"]+)"`)

// form returns the hand-over form of a page.
func form(page string) (action, code string, ok bool) {
	m := codeForm.FindStringSubmatch(page)
	if m == nil {
		return "", "", false
	}
	return html.UnescapeString(m[1]), html.UnescapeString(m[2]), true
}

func (v visitor) post(action, code string) (at *url.URL, status int, text string) {
	v.t.Helper()
	req, _ := http.NewRequest(http.MethodPost, action, strings.NewReader(url.Values{"code": {code}}.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "text/html")
	req.Header.Set("Origin", v.h.at("auth"))
	return v.do(req)
}

// visit opens a page and submits the forms of hand-overs.
func (v visitor) visit(url string) (at *url.URL, status int, text string) {
	v.t.Helper()
	at, status, text = v.open(url)
	for range 5 {
		action, code, ok := form(text)
		if !ok {
			return at, status, text
		}
		at, status, text = v.post(action, code)
	}
	v.t.Fatal("handed over in circles")
	return nil, 0, ""
}

// cookies returns the names of the cookies that the browser has at a host.
func (v visitor) cookies(host string) (names []string) {
	u, _ := url.Parse(v.h.at(host))
	for _, c := range v.Jar.Cookies(u) {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return names
}

func (v visitor) session(host string) *http.Cookie {
	v.t.Helper()
	u, _ := url.Parse(v.h.at(host))
	for _, c := range v.Jar.Cookies(u) {
		if c.Name == "curfew-"+v.h.port {
			return c
		}
	}
	return nil
}

// who asks a host without wanting a page.
func (v visitor) who(host string) string {
	v.t.Helper()
	status, text := v.api(v.h.at(host) + "/")
	if status == http.StatusUnauthorized {
		return ""
	}
	return strings.TrimSuffix(text, " at "+host+".localhost:"+v.h.port+"/")
}

func TestOneSignInIsGoodForAllHostsAndOneSignOutToo(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	v := h.visitor()
	deep := "/deep;x=1/%C3%A9?a=b&c=%2f%2F;d&e=" + strings.Repeat("long", 500) + "#frag"
	for i, host := range []string{"wiki", "mail", "one.apps", "auth"} {
		h.replica.Store(int32(i % 2))
		at, status, text := v.visit(h.at(host) + deep)
		want := h.at(host) + strings.TrimSuffix(deep, "#frag")
		got, _, _ := strings.Cut(at.String(), "#")
		if status != http.StatusOK || !strings.HasPrefix(text, "alice at "+host) || got != want {
			t.Fatalf("%s: %d %s at %s, want %s", host, status, text, at, want)
		}
	}
	if got := h.handedBy.Load(); got != 3 {
		t.Errorf("%d hand-overs", got)
	}
	list, err := h.store.List(t.Context(), store.Query{Limit: 10}, store.Time(h.now()))
	rig.Must(t, err)
	if len(list.Records) != 1 {
		t.Fatalf("%d sessions, want one for all hosts", len(list.Records))
	}
	seen := map[string]bool{}
	for _, host := range []string{"wiki", "mail", "one.apps", "auth"} {
		c := v.session(host)
		if c == nil || seen[c.Value] {
			t.Fatalf("%s has no bearer of its own", host)
		}
		seen[c.Value] = true
		if got := v.cookies(host); len(got) != 1 {
			t.Errorf("%s: left are %q", host, got)
		}
	}
	// Signed out at one, on the other replica.
	req, _ := http.NewRequest(http.MethodPost, h.at("mail")+"/auth/logout", nil)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	at, status, text := v.do(req)
	if status != http.StatusOK || !strings.Contains(text, "You are signed out") || at.Host != "mail.localhost:"+h.port {
		t.Errorf("%d %s at %s", status, text, at)
	}
	for _, host := range []string{"wiki", "mail", "one.apps", "auth"} {
		if who := v.who(host); who != "" {
			t.Errorf("%s is still signed in at %s", who, host)
		}
	}
}

func TestABearerIsWorthNothingAtAnotherHost(t *testing.T) {
	t.Parallel()
	for _, cached := range []bool{true, false} {
		h := newHosts(t, func(c *curfew.Config) {
			if !cached {
				c.MaxStale = -1
			}
		})
		v := h.visitor()
		for _, host := range []string{"wiki", "mail", "auth", "one.apps"} {
			v.visit(h.at(host) + "/")
		}
		for _, from := range []string{"wiki", "auth", "one.apps"} {
			for _, to := range []string{"mail", "auth", "two.apps", "wiki"} {
				if from == to {
					continue
				}
				thief := h.visitor()
				u, _ := url.Parse(h.at(to))
				thief.Jar.SetCookies(u, []*http.Cookie{{Name: v.session(from).Name, Value: v.session(from).Value}})
				for _, path := range []string{"/", "/auth/session", "/auth/events"} {
					if status, text := thief.api(h.at(to) + path); status != http.StatusUnauthorized {
						t.Errorf("the cookie of %s at %s%s: %d %s", from, to, path, status, text)
					}
				}
				// It cannot sign out either.
				req, _ := http.NewRequest(http.MethodPost, h.at(to)+"/auth/logout", nil)
				if _, status, _ := thief.do(req); status != http.StatusOK {
					t.Errorf("sign-out: %d", status)
				}
				// A part of it, with another's MAC, neither.
				mixed := v.session(from).Value[:48] + v.session("mail").Value[48:]
				thief.Jar.SetCookies(u, []*http.Cookie{{Name: v.session(from).Name, Value: mixed[:48]}})
				if who := thief.who(to); who != "" {
					t.Errorf("a cookie without its MAC lets %s in at %s", who, to)
				}
			}
		}
		for _, host := range []string{"wiki", "mail", "auth", "one.apps"} {
			if v.who(host) != "alice" {
				t.Errorf("not signed in at %s any more", host)
			}
		}
	}
}

// begun is a hand-over whose code has not been sent yet.
func (v visitor) begun(host, path string) (action, code string) {
	v.t.Helper()
	_, _, text := v.open(v.h.at(host) + path)
	action, code, ok := form(text)
	if !ok {
		v.t.Fatalf("no hand-over: %s", text)
	}
	return action, code
}

// send posts a code with the cookies given, and follows nothing.
func (h *hosts) send(action, code string, cookies []*http.Cookie) *http.Response {
	h.t.Helper()
	return h.sendForm(action, url.Values{"code": {code}}, cookies)
}

func (h *hosts) sendForm(action string, form url.Values, cookies []*http.Cookie) *http.Response {
	h.t.Helper()
	v := h.visitor()
	v.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	req, _ := http.NewRequest(http.MethodPost, action, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range cookies {
		req.AddCookie(c)
	}
	resp, err := v.Do(req)
	rig.Must(h.t, err)
	defer resp.Body.Close()
	return resp
}

// signsIn reports whether an answer sets a session cookie.
func (h *hosts) signsIn(resp *http.Response) bool {
	return slices.ContainsFunc(resp.Cookies(), func(c *http.Cookie) bool {
		return c.Name == "curfew-"+h.port && c.MaxAge >= 0
	})
}

func TestACodeOfAHandOverIsUsedOnceByItsBrowserAtItsHostAndSoon(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		do     func(h *hosts, v visitor, action, code string, mine []*http.Cookie) *http.Response
		status int
		after  string // who is signed in when the browser goes on
	}{
		"as it should be": {func(h *hosts, v visitor, action, code string, mine []*http.Cookie) *http.Response {
			return h.send(action, code, mine)
		}, 303, "alice"},
		"used twice, on another replica": {func(h *hosts, v visitor, action, code string,
			mine []*http.Cookie) *http.Response {
			if !h.signsIn(h.send(action, code, mine)) {
				h.t.Error("the first use did not sign in")
			}
			h.replica.Store(1)
			return h.send(action, code, mine)
		}, 303, "alice"},
		"late": {func(h *hosts, v visitor, action, code string, mine []*http.Cookie) *http.Response {
			h.skew.Store(int64(time.Minute))
			return h.send(action, code, mine)
		}, 303, "alice"},
		"in another browser": {func(h *hosts, v visitor, action, code string, _ []*http.Cookie) *http.Response {
			return h.send(action, code, nil)
		}, 400, "alice"},
		"in another browser that began one too": {func(h *hosts, v visitor, action, code string,
			_ []*http.Cookie) *http.Response {
			other := h.visitor()
			other.begun("wiki", "/")
			u, _ := url.Parse(h.at("wiki"))
			return h.send(action, code, other.Jar.Cookies(u))
		}, 400, "alice"},
		"with a cookie twice": {func(h *hosts, v visitor, action, code string, mine []*http.Cookie) *http.Response {
			return h.send(action, code, append(mine, mine...))
		}, 400, "alice"},
		"at another host": {func(h *hosts, v visitor, action, code string, mine []*http.Cookie) *http.Response {
			return h.send(strings.Replace(action, "wiki", "mail", 1), code, mine)
		}, 400, "alice"},
		"at the main host": {func(h *hosts, v visitor, action, code string, mine []*http.Cookie) *http.Response {
			return h.send(strings.Replace(action, "wiki", "auth", 1), code, mine)
		}, 400, "alice"},
		"changed": {func(h *hosts, v visitor, action, code string, mine []*http.Cookie) *http.Response {
			return h.send(action, rig.Changed(code), mine)
		}, 400, "alice"},
		"empty": {func(h *hosts, v visitor, action, _ string, mine []*http.Cookie) *http.Response {
			return h.send(action, "", mine)
		}, 400, "alice"},
		"in the query": {func(h *hosts, v visitor, action, code string, mine []*http.Cookie) *http.Response {
			return h.send(action+"?code="+code, "", mine)
		}, 400, "alice"},
		"twice in the form": {func(h *hosts, v visitor, action, code string, mine []*http.Cookie) *http.Response {
			return h.sendForm(action, url.Values{"code": {code, code}}, mine)
		}, 400, "alice"},
		"a session cookie as the code": {func(h *hosts, v visitor, action, _ string,
			mine []*http.Cookie) *http.Response {
			return h.send(action, v.session("auth").Value, mine)
		}, 400, "alice"},
		"after the session has ended": {func(h *hosts, v visitor, action, code string,
			mine []*http.Cookie) *http.Response {
			_, err := h.rps[1].Sessions().End(h.t.Context(), store.Ending{Cause: store.CauseAdmin,
				Selector: store.Selector{Issuer: h.op.Issuer(), ClientID: "app", Subject: "alice"}})
			rig.Must(h.t, err)
			return h.send(action, code, mine)
		}, 409, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t)
			v := h.visitor()
			action, code := v.begun("wiki", "/page")
			u, _ := url.Parse(h.at("wiki"))
			resp := row.do(h, v, action, code, v.Jar.Cookies(u))
			if resp.StatusCode != row.status {
				t.Errorf("%d, want %d", resp.StatusCode, row.status)
			}
			if got := h.signsIn(resp); got != (name == "as it should be") {
				t.Errorf("signs in: %v", got)
			}
			v.Jar.SetCookies(u, resp.Cookies())
			if to, err := resp.Location(); err == nil {
				v.visit(to.String())
			} else if row.after != "" { // nothing was lost
				v.post(action, code)
			}
			if who := v.who("wiki"); who != row.after {
				t.Errorf("then %q is signed in, want %q", who, row.after)
			}
		})
	}
}

func TestOfManyUsesOfACodeAtOnceOneSignsIn(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	v := h.visitor()
	action, code := v.begun("wiki", "/page")
	u, _ := url.Parse(h.at("wiki"))
	mine := v.Jar.Cookies(u)
	const uses = 8
	answers := make(chan bool, uses)
	for range uses {
		go func() { answers <- h.signsIn(h.send(action, code, mine)) }()
	}
	signedIn := 0
	for range uses {
		if rig.Soon(t, "an answer", answers) {
			signedIn++
		}
	}
	if signedIn != 1 {
		t.Errorf("%d answers signed in", signedIn)
	}
}

// A proxy that sends every code twice does not send the browser round for ever.
func TestAHandOverDoesNotBeginAgainForEver(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	v := h.visitor()
	action, code := v.begun("wiki", "/page")
	u, _ := url.Parse(h.at("wiki"))
	for range 10 {
		h.send(action, code, v.Jar.Cookies(u))
		_, status, text := v.post(action, code) // the second
		var ok bool
		if action, code, ok = form(text); !ok {
			if status != http.StatusBadRequest || !strings.Contains(text, `href="/page"`) {
				t.Errorf("%d %s", status, text)
			}
			return
		}
	}
	t.Error("it went round ten times")
}

func TestAReturnToLeadsToListedHostsOnly(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	for to, want := range map[string]string{
		h.at("wiki") + "/a?b#c":                              h.at("wiki") + "/a?b#c",
		strings.ToUpper(h.at("mail")) + "/a":                 h.at("mail") + "/a",
		h.at("x.apps") + "?q":                                h.at("x.apps") + "/?q",
		h.at("auth") + "/a":                                  h.at("auth") + "/a",
		h.at("other") + "/a":                                 h.at("auth") + "/",
		h.at("x.y.apps") + "/a":                              h.at("auth") + "/",
		h.at("apps") + "/a":                                  h.at("auth") + "/",
		"http://wiki.localhost.evil.example:" + h.port + "/": h.at("auth") + "/",
		"http://wiki.localhost:1/a":                          h.at("auth") + "/",
		"https://wiki.localhost:" + h.port + "/a":            h.at("auth") + "/",
		"//wiki.localhost:" + h.port + "/a":                  h.at("auth") + "/",
		h.at("wiki") + "@evil.example/a":                     h.at("auth") + "/",
		"http://evil.example\\@wiki.localhost/":              h.at("auth") + "/",
		h.at("wiki") + "//evil.example/":                     h.at("auth") + "/",
		h.at("wiki") + "/auth/logout":                        h.at("wiki") + "/",
	} {
		at, status, _ := h.visitor().visit(h.at("auth") + "/auth/login?" + url.Values{"return_to": {to}}.Encode())
		if got := at.String(); got != want || status != http.StatusOK {
			t.Errorf("%s led to %s (%d), want %s", to, got, status, want)
		}
	}
}

// newSharing is a relying party whose hosts share the cookie of a domain.
func newSharing(t *testing.T, rules ...gateway.Rule) *curfew.RP {
	t.Helper()
	op := oidctest.Start(t, oidctest.Config{AutoLogin: "alice", Clients: []oidctest.Client{{ID: "app", Secret: "secret",
		RedirectURIs: []string{"https://auth.example.com/auth/callback"}}}})
	policy, err := gateway.NewPolicy(rules...)
	rig.Must(t, err)
	cfg := curfew.Config{URL: "https://auth.example.com", Hosts: []string{"wiki.example.com", "*.apps.example.com"},
		CookieDomain: "example.com", Log: new(rig.Log).Logger(), Policy: policy,
		Providers: []oidc.Config{{Issuer: op.Issuer(), ClientID: "app", ClientSecret: "secret"}}}
	rp, err := curfew.New(context.Background(), cfg)
	rig.Must(t, err)
	t.Cleanup(func() { rp.Close() })
	return rp
}

func TestWithASharedCookieAStepUpIsJudgedForTheHostThatTheSignInLeadsTo(t *testing.T) {
	t.Parallel()
	rp := newSharing(t, gateway.Rule{Host: "wiki.example.com", Path: "/gold/*", ACR: []string{"wiki"}},
		gateway.Rule{Path: "/transfer", Methods: []string{"POST"}, Host: "*.apps.example.com", ACR: []string{"apps"}},
		gateway.Rule{Path: "/gold/*", ACR: []string{"gold"}})
	for _, row := range []struct{ returnTo, stepUp, want string }{
		{"https://wiki.example.com/gold/x", "", "wiki"},
		{"https://x.apps.example.com/gold/x?y=1", "", "gold"},
		{"https://auth.example.com/gold/x", "", "gold"},
		{"/gold/x", "", "gold"},
		{"https://wiki.example.com/form", "", ""},
		{"https://x.apps.example.com/form", "POST /transfer", "apps"},
		{"https://wiki.example.com/form", "POST /transfer", ""},
		{"https://wiki.example.com/app/gold/x", "GET /gold/x", "wiki"},
		{"/form", "POST /gold/x", "gold"},
	} {
		link := url.Values{"return_to": {row.returnTo}, "step_up": {row.stepUp}}.Encode()
		w := httptest.NewRecorder()
		rp.Handler().ServeHTTP(w, httptest.NewRequest("GET", "https://auth.example.com/auth/login?"+link, nil))
		to, err := url.Parse(w.Header().Get("Location"))
		if err != nil || w.Code != http.StatusSeeOther || to.Query().Get("acr_values") != row.want {
			t.Errorf("%+v: %d, asked for acr_values=%s (error %v)", row, w.Code, to.Query().Get("acr_values"), err)
		}
	}
}

func TestHostsCanShareTheCookieOfADomain(t *testing.T) {
	t.Parallel()
	rp := newSharing(t)
	app := rp.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, curfew.SessionFrom(r.Context()).Subject)
	}))
	ask := func(h http.Handler, to string, cookies ...*http.Cookie) *http.Response {
		r := httptest.NewRequest(http.MethodGet, to, nil)
		r.Header.Set("Accept", "text/html")
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	first := ask(app, "https://wiki.example.com/deep?x=%2F")
	login := first.Header.Get("Location")
	if login != "https://auth.example.com/auth/login?return_to="+url.QueryEscape("https://wiki.example.com/deep?x=%2F") {
		t.Fatalf("sent to %s", login)
	}
	begun := ask(rp.Handler(), login)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: rig.Patience,
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			if r.URL.Host == "auth.example.com" {
				return http.ErrUseLastResponse
			}
			return nil
		}}
	answer, err := client.Get(begun.Header.Get("Location"))
	rig.Must(t, err)
	answer.Body.Close()
	done := ask(rp.Handler(), answer.Header.Get("Location"), begun.Cookies()...)
	if got := done.Header.Get("Location"); got != "https://wiki.example.com/deep?x=%2F" {
		t.Fatalf("%d: back to %q", done.StatusCode, got)
	}
	var cookie *http.Cookie
	for _, c := range done.Cookies() {
		if c.Name == "__Secure-curfew" {
			cookie = c
		}
	}
	if cookie == nil || cookie.Domain != "example.com" || !cookie.Secure || !cookie.HttpOnly ||
		cookie.SameSite != http.SameSiteLaxMode {
		t.Fatalf("the cookie is %v, of %v", cookie, done.Cookies())
	}
	for _, c := range begun.Cookies() {
		if !strings.HasPrefix(c.Name, "__Host-") || c.Domain != "" {
			t.Errorf("the cookie of the attempt is %v", c)
		}
	}
	for host, want := range map[string]int{"wiki": 200, "one.apps": 200, "auth": 200, "other": 403} {
		if got := ask(app, "https://"+host+".example.com/", cookie); got.StatusCode != want {
			t.Errorf("%s: %d", host, got.StatusCode)
		}
	}
	for to, want := range map[string]string{"https://other.example.com/x": "/", "https://evil.example/x": "/",
		"/x": "/x"} {
		begun := ask(rp.Handler(), "https://auth.example.com/auth/login?return_to="+url.QueryEscape(to))
		answer, err := client.Get(begun.Header.Get("Location"))
		rig.Must(t, err)
		answer.Body.Close()
		done := ask(rp.Handler(), answer.Header.Get("Location"), begun.Cookies()...)
		if got := done.Header.Get("Location"); got != want {
			t.Errorf("return_to %s led to %q", to, got)
		}
	}
	clear := httptest.NewRecorder()
	out := httptest.NewRequest(http.MethodPost, "https://auth.example.com/auth/logout", nil)
	out.AddCookie(cookie)
	rp.Handler().ServeHTTP(clear, out)
	if !slices.ContainsFunc(clear.Result().Cookies(), func(c *http.Cookie) bool {
		return c.Name == "__Secure-curfew" && c.Domain == "example.com" && c.MaxAge < 0
	}) {
		t.Errorf("a sign-out leaves the cookie: %v", clear.Result().Cookies())
	}
	if got := ask(app, "https://wiki.example.com/", cookie); got.StatusCode == 200 {
		t.Error("still signed in")
	}
}

func TestACookieDomainThatDoesNotFitIsRefused(t *testing.T) {
	t.Parallel()
	for domain, want := range map[string]string{
		"apps.example.com": "wiki.example.com is not below apps.example.com", "com": "public suffix",
		"ample.com": "is not below", "example.com.": "ends in a dot", ".example.com": "not a host name",
		"*.example.com": "wildcard", "https://example.com": "not a host name", "example.org": "is not below",
	} {
		_, err := curfew.New(t.Context(), curfew.Config{URL: "https://auth.example.com",
			Hosts: []string{"wiki.example.com", "*.apps.example.com"}, CookieDomain: domain,
			Providers: []oidc.Config{{Issuer: "https://id.example.com", ClientID: "app"}}})
		if err == nil || !strings.Contains(err.Error(), "CookieDomain: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", domain, err, want)
		}
	}
	_, err := curfew.New(t.Context(), curfew.Config{URL: "http://auth.localhost", CookieDomain: "localhost",
		Providers: []oidc.Config{{Issuer: "https://id.example.com", ClientID: "app"}}})
	if err == nil || !strings.Contains(err.Error(), "url is not https") {
		t.Errorf("on loopback: %v", err)
	}
}

// A cookie that outlives the browser lives no longer than its session, at whichever host it was set.
func TestARememberedCookieLivesAsLongAsTheSession(t *testing.T) {
	t.Parallel()
	for _, remember := range []bool{true, false} {
		h := newHosts(t, func(c *curfew.Config) { c.Remember, c.Lifetime = remember, time.Hour })
		v := h.visitor()
		ages := func() (ages []int) {
			v.Transport = noted{v.Transport, func(c *http.Cookie) {
				if c.Name == "curfew-"+h.port {
					ages = append(ages, c.MaxAge)
				}
			}}
			v.visit(h.at("auth") + "/")
			h.skew.Store(int64(10 * time.Minute))
			v.visit(h.at("wiki") + "/")
			return ages
		}()
		switch {
		case len(ages) != 2:
			t.Errorf("remember %v: %v", remember, ages)
		case remember && (ages[0] != 3600 || ages[1] > 3000 || ages[1] < 2700):
			t.Errorf("the cookies live for %v seconds, want 3600 and a little less than 3000", ages)
		case !remember && (ages[0] != 0 || ages[1] != 0):
			t.Errorf("the cookies live for %v seconds, want as long as the browser is open", ages)
		}
	}
}

// noted tells of each cookie that is set.
type noted struct {
	http.RoundTripper
	set func(*http.Cookie)
}

func (n noted) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := n.RoundTripper.RoundTrip(r)
	if err == nil {
		for _, c := range resp.Cookies() {
			n.set(c)
		}
	}
	return resp, err
}

func TestASignInTakesNoLongerThanTheSiteAllows(t *testing.T) {
	t.Parallel()
	h := newHosts(t, func(c *curfew.Config) { c.AttemptLifetime = time.Minute })
	v := h.visitor()
	v.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.URL.Path == "/auth/callback" {
			return http.ErrUseLastResponse
		}
		return nil
	}
	for _, row := range []struct {
		pass time.Duration
		want string
	}{{30 * time.Second, "alice at auth"}, {time.Minute, "has to be finished within 60 seconds"}} {
		req, _ := http.NewRequest(http.MethodGet, h.at("auth")+"/auth/login", nil)
		resp, err := v.Do(req)
		rig.Must(t, err)
		resp.Body.Close()
		callback, err := resp.Location()
		rig.Must(t, err)
		h.skew.Add(int64(row.pass))
		if _, _, text := v.open(callback.String()); row.want != "alice at auth" && !strings.Contains(text, row.want) {
			t.Errorf("after %v: %s", row.pass, text)
		}
		if who := v.who("auth"); (who == "alice") != (row.want == "alice at auth") {
			t.Errorf("after %v: %q is signed in", row.pass, who)
		}
		req, _ = http.NewRequest(http.MethodPost, h.at("auth")+"/auth/logout", nil)
		v.do(req)
	}
	_, err := curfew.New(t.Context(), curfew.Config{URL: h.at("auth"), AttemptLifetime: 16 * time.Minute})
	if err == nil || !strings.Contains(err.Error(), "AttemptLifetime: must be between") {
		t.Errorf("16 minutes: %v", err)
	}
}

// link returns where the link with this label on a page leads.
func (v visitor) link(at *url.URL, page, label string) string {
	v.t.Helper()
	m := regexp.MustCompile(`href="([^"]+)"[^>]*>` + label + `<`).FindStringSubmatch(page)
	if m == nil {
		v.t.Fatalf("no link %s in %s", label, page)
	}
	to, err := at.Parse(html.UnescapeString(m[1]))
	rig.Must(v.t, err)
	return to.String()
}

// awayStore has nothing in reach while it is away.
type awayStore struct{ *rig.Store }

func (s awayStore) Attempt(ctx context.Context, id store.AttemptID, now time.Time) ([]byte, error) {
	if s.Away.Load() {
		return nil, rig.ErrAway
	}
	return s.Store.Attempt(ctx, id, now)
}

// A page at the main host is about a page of another host, and its links lead there.
func TestAFailureAtTheMainHostKeepsTheWayBack(t *testing.T) {
	t.Parallel()
	const deep = "/deep?x=1"
	t.Run("a claim about the sign-in is missing", func(t *testing.T) {
		t.Parallel()
		h := newHosts(t, func(c *curfew.Config) {
			c.Providers[0].Require, c.Providers[0].LinkParams = map[string][]any{"acr": {"gold"}}, []string{"kc_idp_hint"}
		})
		// To revoke the tokens of a sign-in that is refused may end what else has come of it.
		noRefresh := func(_ string, doc map[string]any) { delete(doc, "refresh_token") }
		h.op.Mangle(func(m *oidctest.Mangle) { m.Tokens = noRefresh })
		v := h.visitor()
		at, status, text := v.visit(h.at("wiki") + "/auth/login?kc_idp_hint=corp&return_to=" + url.QueryEscape(deep))
		if status != http.StatusForbidden {
			t.Fatalf("%d %s at %s", status, text, at)
		}
		h.op.Mangle(func(m *oidctest.Mangle) {
			m.Authorize = func(q url.Values) string {
				if got := q.Get("kc_idp_hint"); got != "corp" {
					t.Errorf("the provider is asked for kc_idp_hint=%s", got)
				}
				return ""
			}
			m.IDToken = func(j *oidctest.JWT) { j.Claims["acr"] = "gold" }
		})
		at, _, text = v.visit(v.link(at, text, "Sign in again"))
		if want := h.at("wiki") + deep; at.String() != want || !strings.HasPrefix(text, "alice") {
			t.Errorf("led to %s, want %s: %s", at, want, text)
		}
	})
	long := "/deep?" + strings.Repeat("long", 500)
	for name, row := range map[string]struct {
		path  string
		after bool // the store is away when the code comes
	}{
		"the main host cannot look a session up":       {deep, false},
		"the main host cannot look a session up, long": {long, false},
		"a code cannot be taken":                       {deep, true},
		"a code cannot be taken, long":                 {long, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := &rig.Store{Store: memory.New()}
			h := newHosts(t, func(c *curfew.Config) { c.Store, c.MaxStale = awayStore{st}, -1 })
			v := h.visitor()
			v.visit(h.at("auth") + "/")
			var at *url.URL
			var status int
			var text string
			if row.after {
				action, code := v.begun("wiki", row.path)
				st.Away.Store(true)
				at, status, text = v.post(action, code)
			} else {
				st.Away.Store(true)
				at, status, text = v.visit(h.at("wiki") + row.path)
			}
			if status != http.StatusServiceUnavailable {
				t.Fatalf("%d %s at %s", status, text, at)
			}
			st.Away.Store(false)
			at, _, text = v.visit(v.link(at, text, "Try again"))
			if want := h.at("wiki") + row.path; at.String() != want || !strings.HasPrefix(text, "alice") {
				t.Errorf("led to %s, want %s: %s", at, want, text)
			}
		})
	}
}

// A link that asks the provider for something asks it at every host.
func TestALinkThatAsksForAnotherSignInDoesSoAtEachHost(t *testing.T) {
	t.Parallel()
	h := newHosts(t, func(c *curfew.Config) { c.Providers[0].LinkParams = []string{"max_age", "acr_values"} })
	v := h.visitor()
	v.visit(h.at("auth") + "/")
	v.visit(h.at("wiki") + "/")
	v.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, host := range []string{"auth", "wiki"} {
		for _, link := range []string{"max_age=0", "acr_values=gold", "login_hint=bob"} {
			at := h.at(host) + "/auth/login?return_to=/x&" + link
			for hop := 0; hop < 3 && !strings.HasPrefix(at, h.op.Issuer()); hop++ {
				resp, err := v.Get(at)
				rig.Must(t, err)
				resp.Body.Close()
				at = resp.Header.Get("Location")
			}
			name, value, _ := strings.Cut(link, "=")
			if u, err := url.Parse(at); err != nil || u.Query().Get(name) != value {
				t.Errorf("%s, %s: led to %q", host, link, at)
			}
		}
	}
}
