package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// stage is a gateway in front of an app, on real sockets.
type stage struct {
	*rig.Site
	store    *rig.Store
	gateway  *gateway.Handler
	seen     chan *http.Request // what the app received
	upstream http.HandlerFunc   // what the app answers
	app      *httptest.Server
	front    http.Handler // what is not under /auth/; tests may put another router here
}

func newStage(t testing.TB) *stage {
	t.Helper()
	return newStageWith(t, session.Config{})
}

func newStageWith(t testing.TB, cfg session.Config) *stage {
	t.Helper()
	st := &stage{store: &rig.Store{Store: memory.New()}, seen: make(chan *http.Request, 10)}
	cfg.Store = st.store
	if cfg.MaxStale == 0 {
		cfg.MaxStale = -1 // no cache: what a test takes away from the store is gone
	}
	mux := http.NewServeMux()
	st.Site = rig.New(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/auth/") {
			mux.ServeHTTP(w, r)
			return
		}
		st.front.ServeHTTP(w, r)
	}), cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { st.Manager.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })

	st.app = rig.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case st.seen <- r.Clone(context.Background()):
		default:
		}
		if st.upstream != nil {
			st.upstream(w, r)
		}
	}))
	st.Web.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.9/32")}
	st.gateway = &gateway.Handler{Site: st.Web, Sessions: st.Manager, Cookie: st.Cookie}
	st.gateway.Mount(mux)
	to, _ := url.Parse(st.app.URL)
	st.front = st.gateway.Proxy(to)
	return st
}

func (st *stage) signIn(claims map[string]any) (session.Bearer, *session.Session) {
	st.T.Helper()
	b, s, err := st.Manager.Create(st.T.Context(), session.SignIn{
		Provider: "main", Issuer: "https://id.example.com", ClientID: "app", Subject: "alice", SID: "s1",
		Claims: claims, Began: st.Manager.Now(),
	})
	rig.Must(st.T, err)
	return b, s
}

func (st *stage) end(s *session.Session) {
	st.T.Helper()
	who := store.Selector{Issuer: s.Issuer, ClientID: s.ClientID, Key: s.Key}
	_, err := st.Manager.End(st.T.Context(), store.Ending{Selector: who, Cause: store.CauseBackChannel})
	rig.Must(st.T, err)
}

// send makes one request and follows no redirect.
func (st *stage) send(method, path string, headers ...string) (*http.Response, string) {
	st.T.Helper()
	req, err := http.NewRequest(method, st.Server.URL+path, nil)
	rig.Must(st.T, err)
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header[headers[i]] = append(req.Header[headers[i]], headers[i+1]) // as spelled
	}
	resp, err := bounded().RoundTrip(req)
	rig.Must(st.T, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	rig.Must(st.T, err)
	return resp, string(body)
}

func cookie(b session.Bearer) string { return "curfew=" + b.Reveal() }

func TestWhoIsNotSignedInIsSentToSignInOrAnswered401(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	const page = "text/html,application/xhtml+xml"
	for name, c := range map[string]struct {
		method  string
		headers []string
		to      string // "" for a 401
	}{
		"a page": {"GET", []string{"Accept", page}, "/auth/login?return_to=%2Fa%2Fb%3Fc%3Dd%26e"},
		"a page, from a browser": {"GET", []string{"Accept", page, "Sec-Fetch-Mode", "navigate"},
			"/auth/login?return_to=%2Fa%2Fb%3Fc%3Dd%26e"},
		"an API request":              {"GET", []string{"Accept", "application/json"}, ""},
		"a request that says nothing": {"GET", nil, ""},
		"a script's fetch of HTML":    {"GET", []string{"Accept", page, "Sec-Fetch-Mode", "cors"}, ""},
		"a script that says so":       {"GET", []string{"Accept", page, "X-Requested-With", "XMLHttpRequest"}, ""},
		"an Android WebView": {"GET", []string{"Accept", page, "X-Requested-With", "com.example.android"},
			"/auth/login?return_to=%2Fa%2Fb%3Fc%3Dd%26e"},
		"a WebView's fetch": {"GET", []string{"Accept", page, "X-Requested-With", "com.example.android",
			"Sec-Fetch-Mode", "cors"}, ""},
		"a navigation to anything": {"GET", []string{"Accept", "*/*", "Sec-Fetch-Mode", "navigate"},
			"/auth/login?return_to=%2Fa%2Fb%3Fc%3Dd%26e"},
		"an empty word": {"GET", []string{"Accept", page, "X-Requested-With", ""},
			"/auth/login?return_to=%2Fa%2Fb%3Fc%3Dd%26e"},
		"a script in small letters": {"GET", []string{"Accept", page, "X-Requested-With", "xmlhttprequest"}, ""},
		"a page that is not taken":  {"GET", []string{"Accept", "text/html;q=0, application/json"}, ""},
		"nor so": {"GET", []string{"Accept", "application/json, TEXT/HTML ; level=1; Q=0.000"},
			""},
		"not in a word": {"GET", []string{"Accept", "text/html-not, application/json"}, ""},
		"a page that is taken least": {"GET", []string{"Accept", "application/json, Text/Html;q=0.001"},
			"/auth/login?return_to=%2Fa%2Fb%3Fc%3Dd%26e"},
		"a look ahead, of old":     {"GET", []string{"Accept", page, "Purpose", "prefetch"}, ""},
		"a look ahead, in Firefox": {"GET", []string{"Accept", page, "X-Moz", "prefetch"}, ""},
		"a look ahead": {"GET", []string{"Accept", page, "Sec-Fetch-Mode", "navigate", "Sec-Purpose",
			"prefetch;prerender"}, ""},
		"a script's post":            {"POST", []string{"Accept", "application/json"}, ""},
		"a cookie that is no bearer": {"GET", []string{"Cookie", "curfew=x"}, ""},
		"a bearer that nobody has":   {"GET", []string{"Cookie", cookie(session.NewBearer("i", "c", "s"))}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := st.send(c.method, "/a/b?c=d&e", c.headers...)
			switch {
			case c.to == "" && (resp.StatusCode != 401 || resp.Header.Get("Location") != "" ||
				!strings.Contains(body, `"error":"unauthorized"`)):
				t.Errorf("%d %s %s, want 401 and JSON", resp.StatusCode, resp.Header.Get("Location"), body)
			case c.to != "" && (resp.StatusCode != 303 || resp.Header.Get("Location") != c.to):
				t.Errorf("%d %s, want 303 %s", resp.StatusCode, resp.Header.Get("Location"), c.to)
			}
			if resp.Header.Get("Cache-Control") != "no-store" || len(resp.Cookies()) != 0 {
				t.Errorf("headers %v", resp.Header)
			}
		})
	}
	select {
	case r := <-st.seen:
		t.Errorf("the app received %s %s", r.Method, r.URL)
	default:
	}
}

func TestTwoCookiesOfOurNameAreNotBelieved(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	mine, _ := st.signIn(nil)
	planted, _ := st.signIn(nil)
	if resp, _ := st.send("GET", "/", "Cookie", cookie(planted)+"; "+cookie(mine)); resp.StatusCode != 401 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestAStoreThatIsAwayIs503AndTakesNoCookie(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	st.store.Away.Store(true)
	for _, path := range []string{"/", "/auth/verify", "/auth/session", "/auth/events"} {
		resp, body := st.send("GET", path, "Cookie", cookie(b))
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || len(resp.Cookies()) != 0 ||
			strings.Contains(body, "refused") {
			t.Errorf("%s: %d %v %s", path, resp.StatusCode, resp.Header, body)
		}
	}
	st.store.Away.Store(false)
	if resp, _ := st.send("GET", "/", "Cookie", cookie(b)); resp.StatusCode != 200 {
		t.Errorf("after it came back: %d", resp.StatusCode)
	}
}

func TestTheAppIsToldWhoIsThereAndNothingThatAClientMadeUp(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(map[string]any{"name": "Alice Ahn", "email": "alice@example.com", "email_verified": true})
	st.send("GET", "/x%2Fy/../z//?q=%20&r", "Cookie", "theme=dark; "+cookie(b)+"; curfew-login-abc=sealed; lang=en",
		"Host", "evil.example",
		"X-Auth-Subject", "mallory", "x-auth-subject", "mallory", "X_Auth_Subject", "mallory", "X.Auth.Subject",
		"mallory", "X-AUTH_subject", "mallory",
		"X-Auth-Groups", "admins", "X-Auth-Session", "made-up", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Host",
		"evil.example", "X_Forwarded_Proto", "gopher",
		"X-Forwarded-User", "mallory", "Forwarded", "for=6.6.6.6", "X-Real-Ip", "6.6.6.6",
		"Connection", "X-Auth-Subject, x-auth-email, Cookie", "X-Auth-Token", "the app's own")
	r := rig.Soon(st.T, "a request to reach the app", st.seen)
	if r.RequestURI != "/x%2Fy/../z//?q=%20&r" {
		t.Errorf("path %q was not passed on as it came", r.RequestURI)
	}
	site, _ := url.Parse(st.Server.URL)
	if r.Host != site.Host {
		t.Errorf("host %q", r.Host)
	}
	want := map[string]string{
		"X-Auth-Subject": "alice", "X-Auth-Name": "Alice Ahn", "X-Auth-Email": "alice@example.com",
		"X-Auth-Provider": "main",
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": site.Host, "X-Forwarded-Proto": "http",
		"X-Auth-Token": "the app's own",
	}
	for name, value := range want {
		if got := r.Header.Values(name); len(got) != 1 || got[0] != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	for name, values := range r.Header {
		if _, ok := want[name]; ok {
			continue
		}
		for _, v := range values {
			for _, lie := range []string{"mallory", "6.6.6.6", "evil", "admins", "made-up", "gopher", b.Reveal(),
				"sealed"} {
				if strings.Contains(v, lie) {
					t.Errorf("%s: %q reached the app", name, v)
				}
			}
		}
	}
}

// An app that is told of logouts is told beforehand what the session will be called.
func TestAnAppIsToldWhatItsSessionIsCalled(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.gateway.Apps, st.gateway.App = []string{"wiki", "mail"}, "wiki"
	b, s := st.signIn(nil)
	ask := func(path string) *http.Response {
		r, _ := http.NewRequest("GET", st.Server.URL+path, nil)
		r.Header.Set("X-Auth-Session", "made up")
		r.AddCookie(&http.Cookie{Name: "curfew", Value: b.Reveal()})
		resp, err := bounded().RoundTrip(r)
		rig.Must(t, err)
		resp.Body.Close()
		return resp
	}
	ask("/")
	if got := rig.Soon(st.T, "a request to reach the app", st.seen).Header["X-Auth-Session"]; len(got) != 1 ||
		got[0] != s.Key.SIDFor("wiki") {
		t.Errorf("the app behind the proxy was told %q", got)
	}
	for path, want := range map[string]string{
		"/auth/verify": s.Key.SIDFor("wiki"), "/auth/verify?app=mail": s.Key.SIDFor("mail"),
		"/auth/verify?app=stranger": "", "/auth/verify?app=": "",
	} {
		if got := ask(path).Header.Get("X-Auth-Session"); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	st.gateway.App = ""
	ask("/")
	if got := rig.Soon(st.T, "a request to reach the app", st.seen).Header["X-Auth-Session"]; got != nil {
		t.Errorf("an app that is told of no logouts was told %q", got)
	}
}

func TestTheAppGetsItsOwnCookiesOnly(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	st.send("GET", "/", "Cookie", `theme=dark; `+cookie(b)+`; curfew-login-abc=sealed;odd ; q="a b"`)
	if got := rig.Soon(st.T, "a request to reach the app", st.seen).Header.Values("Cookie"); len(got) != 1 ||
		got[0] != `theme=dark; odd; q="a b"` {
		t.Errorf("got %q", got)
	}
}

func TestAnUnverifiedAddressIsNoIdentity(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		verified any
		want     string
	}{{true, "a@example.com"}, {false, ""}, {nil, "a@example.com"}, {"true", "a@example.com"}, {"false", ""}, {0, ""},
		{1, ""}} {
		st := newStage(t)
		all := map[string]string{"X-Auth-Name": "name", "X-Auth-Email": "email", "X-Claim": "claim:email"}
		maps.Copy(all, gateway.OAuth2ProxyHeaders())
		var err error
		if st.gateway.Identity, err = gateway.NewIdentity(all); err != nil {
			t.Fatal(err)
		}
		claims := map[string]any{"email": "a@example.com", "name": "line\r\nX-Auth-Groups: admins"}
		if c.verified != nil {
			claims["email_verified"] = c.verified
		}
		b, _ := st.signIn(claims)
		resp, _ := st.send("GET", "/auth/verify", "Cookie", cookie(b))
		if got := resp.Header.Get("X-Auth-Email"); resp.StatusCode != 200 || got != c.want {
			t.Errorf("email_verified %v: %d %q, want %q", c.verified, resp.StatusCode, got, c.want)
		}
		for _, name := range []string{"X-Claim", "X-Forwarded-Email", "X-Auth-Request-Email"} {
			if got := resp.Header.Get(name); got != c.want {
				t.Errorf("email_verified %v: %s is %q, want %q", c.verified, name, got, c.want)
			}
		}
		var told struct{ Email string }
		_, body := st.send("GET", "/auth/session", "Cookie", cookie(b))
		if err := json.Unmarshal([]byte(body), &told); err != nil || told.Email != c.want {
			t.Errorf("email_verified %v: /auth/session says %s, want %q", c.verified, body, c.want)
		}
		if resp.Header.Get("X-Auth-Name") != "" || resp.Header.Get("X-Auth-Groups") != "" {
			t.Errorf("a name with a line end made headers: %v", resp.Header)
		}
	}
}

func TestVerifyRedirectsOnlyToSignInAndRemembersOnlyWhatATrustedProxySaid(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	resp, _ := st.send("GET", "/auth/verify?redirect=true", "Accept", "text/html", "X-Forwarded-Uri", "/deep")
	if got := resp.Header.Get("Location"); resp.StatusCode != 302 || got != st.Server.URL+"/auth/login?return_to=%2F" {
		t.Errorf("from a stranger: %d %s", resp.StatusCode, got)
	}
	ask := func(uri string) string {
		r := httptest.NewRequest("GET", "/auth/verify?redirect=true", nil)
		r.RemoteAddr = "127.0.0.9:1234"
		r.Header.Set("Accept", "text/html")
		r.Header.Set("X-Forwarded-Uri", uri)
		w, mux := httptest.NewRecorder(), http.NewServeMux()
		st.gateway.Mount(mux)
		mux.ServeHTTP(w, r)
		return w.Header().Get("Location")
	}
	for uri, want := range map[string]string{"/deep?a=b": "%2Fdeep%3Fa%3Db", "//evil.example": "%2F"} {
		if got := ask(uri); got != st.Server.URL+"/auth/login?return_to="+want {
			t.Errorf("%s: %s", uri, got)
		}
	}
	if resp, _ := st.send("GET", "/auth/verify"); resp.StatusCode != 401 || resp.Header.Get("Location") != "" {
		t.Errorf("without redirect: %d", resp.StatusCode)
	}
}

func TestAnOpenTabIsToldThatItsOwnSessionEndedAndNoOther(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, mine := st.signIn(nil)
	_, other := st.signIn(nil)
	req, _ := http.NewRequest("GET", st.Server.URL+"/auth/events", nil)
	req.Header.Set("Cookie", cookie(b))
	resp, err := bounded().RoundTrip(req)
	rig.Must(t, err)
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
	lines := bufio.NewReader(resp.Body)
	if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "retry: ") {
		t.Fatalf("%q %v", line, err)
	}
	st.end(other)
	st.end(mine)
	rest, err := io.ReadAll(lines)
	want := "event: session\ndata: " + mine.Key.Handle() + "\n\nevent: ended\ndata: {\"cause\":\"backchannel\","
	if err != nil || !strings.HasPrefix(string(rest), want) {
		t.Errorf("%q %v", rest, err)
	}
	if resp, _ := st.send("GET", "/auth/events", "Cookie", cookie(b)); resp.StatusCode != 401 {
		t.Errorf("asked again: %d, want 401, so that the browser stops", resp.StatusCode)
	}
}

func TestAnAppThatDoesNotAnswerIs502(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", cookie(b))
	st.gateway.Proxy(&url.URL{Scheme: "http", Host: "127.0.0.1:1"}).ServeHTTP(w, r)
	if w.Code != 502 || strings.Contains(w.Body.String(), "127.0.0.1:1") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAnEventStreamOfTheAppIsPassedOnAsItComes(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	goOn := make(chan struct{})
	st.upstream = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: one\n\n")
		w.(http.Flusher).Flush()
		<-goOn
	}
	req, _ := http.NewRequest("GET", st.Server.URL+"/stream", nil)
	req.Header.Set("Cookie", cookie(b))
	resp, err := bounded().RoundTrip(req)
	rig.Must(t, err)
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n') // comes while the app has not finished
	close(goOn)
	if err != nil || line != "data: one\n" {
		t.Errorf("%q %v", line, err)
	}
}

func TestNumbersKeepTheirDigitsOnTheWayToTheApp(t *testing.T) {
	t.Parallel()
	for _, n := range []string{"1234567", "12345678901234567890123", "1.0", "1e3", "-0", "0.1", "1e400"} {
		st := newStage(t)
		identity, err := gateway.NewIdentity(map[string]string{"X-Number": "claim:n", "X-Inner": "claim:a.n",
			"X-Auth-Groups": "groups"})
		rig.Must(t, err)
		st.gateway.Identity = identity
		v := json.Number(n)
		b, _ := st.signIn(map[string]any{"n": v, "a": map[string]any{"n": v}, "groups": []any{v}})
		resp, _ := st.send("GET", "/auth/verify", "Cookie", cookie(b))
		for _, name := range []string{"X-Number", "X-Inner", "X-Auth-Groups"} {
			if got := resp.Header.Get(name); got != n {
				t.Errorf("%s: %s is %q", n, name, got)
			}
		}
	}
}

func TestAFormWithoutASessionIsAnsweredWithAPage(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	for from, back := range map[string]string{"": "%2Fsave", st.Server.URL + "/form?a=b": "%2Fform%3Fa%3Db",
		"https://evil.example/x": "%2Fsave"} {
		resp, body := st.send("POST", "/save", "Accept", "text/html", "Referer", from)
		if resp.StatusCode != 401 || resp.Header.Get("Location") != "" || !strings.Contains(body, "did not arrive") ||
			!strings.Contains(body, "/auth/login?return_to="+back+`"`) {
			t.Errorf("from %q: %d %s", from, resp.StatusCode, body)
		}
	}
}

func TestWhatNoRuleCoversMayBeForbidden(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	p, err := gateway.NewPolicy(gateway.Rule{Path: "/admin/*", Groups: []string{"admins"}},
		gateway.Rule{Path: "/wiki/*"})
	rig.Must(t, err)
	st.gateway.Policy = p.DenyRest()
	b, _ := st.signIn(map[string]any{"groups": []any{"admins"}})
	require := st.gateway.Require(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for path, want := range map[string]int{"/admin": 200, "/Admin/x": 200, "/wiki/x": 200, "/admin.json": 403,
		"/adminx": 403, "/": 403} {
		if resp, _ := st.send("GET", path, "Cookie", cookie(b)); resp.StatusCode != want {
			t.Errorf("proxy, %s: %d, want %d", path, resp.StatusCode, want)
		}
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Cookie", cookie(b))
		w := httptest.NewRecorder()
		if require.ServeHTTP(w, r); w.Code != want {
			t.Errorf("Require, %s: %d, want %d", path, w.Code, want)
		}
		r.Host = st.gateway.Site.URL.Host
		if a := st.gateway.Decide(r); a.Allowed != (want == 200) || !a.Allowed && a.Status != want {
			t.Errorf("ext_authz, %s: %v %d, want %d", path, a.Allowed, a.Status, want)
		}
	}
}

func TestBelowAStrippedPrefixPeopleComeBackToWhereTheyWere(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.front = http.StripPrefix("/app", st.gateway.Require(http.NotFoundHandler()))
	resp, _ := st.send("GET", "/app/a%20b?c=d", "Accept", "text/html")
	if to := resp.Header.Get("Location"); to != "/auth/login?return_to=%2Fapp%2Fa%2520b%3Fc%3Dd" {
		t.Errorf("sent to %s", to)
	}
}

// Who cannot be led back to a page is led to the first one, and the log says so.
func TestALinkToSignInSaysWhenThePageIsLost(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.Web.Home, st.gateway.OAuth2ProxyPaths = "/first", true
	policy, err := gateway.NewPolicy(gateway.Rule{Path: "/staff/*", Groups: []string{"staff"}})
	rig.Must(t, err)
	st.gateway.Policy = policy
	mux := http.NewServeMux()
	st.gateway.Mount(mux)
	mux.Handle("/", st.front)
	b, _ := st.signIn(nil)
	own, long := st.Web.Origin(), "?"+strings.Repeat("x", 9000)
	for _, row := range []struct {
		name, method, target string
		headers              []string
		want                 string // the return_to
		dropped              string // what the log says
	}{
		{"rd", "GET", "/auth/start?rd=/a;b%3Fc;d", nil, "/a;b?c;d", ""},
		{"rd in a form", "POST", "/auth/sign_in?rd=/a;b", nil, "/a;b", ""},
		{"rd, a URL", "GET", "/auth/start?rd=" + own + "/a;b", nil, "/a;b", ""},
		{"rd, refused", "GET", "/auth/start?rd=//evil.example/", nil, "/first", "the return path could lead to another site"},
		{"rd, our own URL, refused", "GET", "/auth/start?rd=" + own + "/a/../b", nil, "/first",
			"the return path holds a dot segment"},
		{"rd, malformed", "GET", "/auth/start?rd=/a%zz", nil, "/first", `invalid URL escape "%zz"`},
		{"rd, our own route", "GET", "/auth/start?rd=/auth/start", nil, "/first", ""},
		{"no rd", "GET", "/auth/start", nil, "/first", ""},
		{"a form", "POST", "/a", []string{"Referer", own + "/form;a?b=c"}, "/form;a?b=c", ""},
		{"a form, refused", "POST", "/a", []string{"Referer", own + "//evil.example/"}, "/first",
			"the return path could lead to another site"},
		{"who may not", "GET", "/staff/x?a=b;c", []string{"Cookie", cookie(b)}, "/staff/x?a=b;c", ""},
		{"who may not, refused", "GET", "/staff/x" + long, []string{"Cookie", cookie(b)}, "/first",
			"the return path has 9009 bytes, and no more than 8192 are kept"},
	} {
		before := len(st.Log.String())
		w := askFormer(st.Web.URL.Host, mux, row.method, row.target, append(row.headers, "Accept", "text/html")...)
		link := w.Header().Get("Location")
		if link == "" {
			_, link, _ = strings.Cut(html.UnescapeString(w.Body.String()), "/auth/login")
			link, _, _ = strings.Cut(link, `"`)
		}
		u, err := url.Parse(link)
		if err != nil || u.Query().Get("return_to") != row.want {
			t.Errorf("%s: %d, with a link to %v (error %v), want return_to=%s", row.name, w.Code, u, err, row.want)
		}
		said := ""
		if new := st.Log.String()[before:]; strings.Contains(new, "return_to_dropped") {
			said = fmt.Sprint(st.Log.Last("return_to_dropped")["error"])
		}
		if said != row.dropped {
			t.Errorf("%s: the log says %q, want %q", row.name, said, row.dropped)
		}
	}
}
