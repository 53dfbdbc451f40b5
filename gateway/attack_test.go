package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
)

// One test for each class of advisories that auth proxies have had, named after one of the class.

// policed puts rules, and perhaps names for identity, into the gateway of a stage.
func (st *stage) policed(rules ...gateway.Rule) {
	st.T.Helper()
	p, err := gateway.NewPolicy(rules...)
	rig.Must(st.T, err)
	st.gateway.Policy = p
}

// ask sends a question of the trusted proxy 127.0.0.9 to /auth/verify.
func (st *stage) ask(headers ...string) *httptest.ResponseRecorder {
	return st.askAt("/auth/verify", headers...)
}

func (st *stage) askAt(path string, headers ...string) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	st.gateway.Mount(mux)
	return request(st.gateway.VerifyFirst(mux), path, append([]string{"Host", st.gateway.Site.URL.Host}, headers...)...)
}

// request has the trusted proxy 127.0.0.9 send a request to h.
func request(h http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	r, w := httptest.NewRequest("GET", path, nil), httptest.NewRecorder()
	r.RemoteAddr = "127.0.0.9:1234"
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	h.ServeHTTP(w, r)
	return w
}

func (st *stage) untouched() {
	st.T.Helper()
	select {
	case r := <-st.seen:
		st.T.Errorf("the app received %s %s", r.Method, r.URL)
	default:
	}
}

func TestCVE_2025_64484_NoSpellingOfAnIdentityHeaderSurvives(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	id, err := gateway.NewIdentity(map[string]string{"X-Remote-User": "subject", "X-Team": "groups"})
	rig.Must(t, err)
	st.gateway.Identity = id
	b, _ := st.signIn(map[string]any{"groups": []any{"users"}})
	var headers []string
	for _, name := range []string{
		"X-Remote-User", "x-remote-user", "X_Remote_User", "X.Remote.User", "X-Remote_User", "X~Remote!User",
		"X-REMOTE-USER", "X-Team", "X_Team",
		"X-Auth-Subject", "X_Auth_Groups", "X-Auth-Assertion", "X.Auth.Session", "X-Forwarded-User",
		"X_Forwarded_Email", "X-Auth-Request-User",
		"X_Auth_Request_Groups", "X-Original-Url", "X_Original_Uri", "X-Rewrite-Url",
	} {
		headers = append(headers, name, "mallory")
	}
	st.send("GET", "/", append(headers, "Cookie", cookie(b))...)
	r := rig.Soon(st.T, "a request to reach the app", st.seen)
	for name, values := range r.Header {
		for _, v := range values {
			if v == "mallory" {
				t.Errorf("%s reached the app", name)
			}
		}
	}
	if r.Header.Get("X-Remote-User") != "alice" || r.Header.Get("X-Team") != "users" ||
		r.Header.Get("X-Auth-Subject") != "" {
		t.Errorf("told %v", r.Header)
	}
}

func TestCVE_2024_45410_ConnectionCannotRemoveWhatTheAppIsTold(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(map[string]any{"groups": []any{"users"}})
	st.send("GET", "/", "Cookie", cookie(b), "Connection",
		"close, X-Auth-Subject, x-auth-groups, X-Forwarded-For, x-forwarded-proto")
	r := rig.Soon(st.T, "a request to reach the app", st.seen)
	for _, name := range []string{"X-Auth-Subject", "X-Auth-Groups", "X-Forwarded-For", "X-Forwarded-Proto"} {
		if len(r.Header.Values(name)) != 1 {
			t.Errorf("%s: %q", name, r.Header.Values(name))
		}
	}
}

func TestCVE_2026_40575_AClientCannotNameThePathThatIsChecked(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/public/*", Public: true})
	site := st.Server.URL
	for name, row := range map[string]struct {
		headers []string
		status  int
	}{
		"the proxy names a public path": {[]string{"X-Forwarded-Uri", "/public/x", "X-Forwarded-Method",
			"GET"}, 200},
		"the proxy names another": {[]string{"X-Forwarded-Uri", "/private"}, 401},
		"the client names one beside nginx": {[]string{"X-Forwarded-Uri", "/public/x", "X-Original-Uri",
			"/private"}, 400},
		"the client's header is there twice": {[]string{"X-Forwarded-Uri", "/public/x", "X-Forwarded-Uri",
			"/private"}, 400},
		"the client names a URL": {[]string{"X-Original-Url", site + "/public/x", "X-Original-Uri",
			"/private"}, 400},
		"an empty header beside it": {[]string{"X-Forwarded-Uri", "/public/x", "X-Original-Uri", "",
			"X-Original-Url", ""}, 200},
		"an empty header before it": {[]string{"X-Forwarded-Uri", "", "X-Original-Uri", "/public/x"},
			200},
		"an empty method beside one": {[]string{"X-Forwarded-Uri", "/public/x", "X-Forwarded-Method",
			"GET", "X-Original-Method", ""}, 200},
		"an empty header, and a closed": {[]string{"X-Forwarded-Uri", "", "X-Original-Uri", "/private"},
			401},
		"nothing but empty headers": {[]string{"X-Forwarded-Uri", "", "X-Original-Uri", ""}, 400},
		"an empty host": {[]string{"X-Forwarded-Host", "", "X-Forwarded-Uri", "/public/x"},
			200},
		"a URL and a path that agree": {[]string{"X-Original-Url", site + "/public/x", "X-Original-Uri",
			"/public/x"}, 200},
		"nobody names one":                           {nil, 400},
		"a URL without a path, and one in its query": {[]string{"X-Original-Url", site + "?x=/public/x"}, 400},
		"a URL without a path, and one after a hash": {[]string{"X-Original-Url", site + "#/public/x"}, 400},
		"a query alone that holds a URL":             {[]string{"X-Forwarded-Uri", "?x=://a/public/x"}, 400},
		"a path with two meanings, by the right one": {[]string{"X-Forwarded-Uri", "/public/../private"}, 400},
	} {
		if w := st.ask(row.headers...); w.Code != row.status {
			t.Errorf("%s: %d, want %d", name, w.Code, row.status)
		}
	}
	if resp, _ := st.send("GET", "/auth/verify", "X-Forwarded-Uri", "/public/x"); resp.StatusCode != 400 {
		t.Errorf("a stranger names a public path: %d, want 400", resp.StatusCode)
	}
	if w := st.askAt("/auth/verify/private", "X-Forwarded-Uri", "/public/x"); w.Code != 401 {
		t.Errorf("a header beside Envoy's path: %d, want 401", w.Code)
	}
	if w := st.askAt("/auth/verify/public/x?a=b"); w.Code != 200 {
		t.Errorf("Envoy's path: %d, want 200", w.Code)
	}
}

func TestCVE_2026_40575_AMethodThatNobodyNamedIsNotTakenForGET(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/*", Methods: []string{"GET"}, Public: true})
	for method, want := range map[string]int{"GET": 200, "POST": 401, "": 400} {
		headers := []string{"X-Original-Uri", "/x"}
		if method != "" {
			headers = append(headers, "X-Original-Method", method)
		}
		if w := st.ask(headers...); w.Code != want {
			t.Errorf("method %q: %d, want %d", method, w.Code, want)
		}
	}
	for _, name := range []string{"X-HTTP-Method-Override", "x-http-method", "X-Method-Override",
		"X_HTTP_Method_Override", "X.Method-Override"} {
		if resp, _ := st.send("GET", "/x", name, "DELETE"); resp.StatusCode != 400 {
			t.Errorf("%s beside the method: %d, want 400", name, resp.StatusCode)
		}
	}
}

func TestCVE_2026_34457_NoUserAgentOpensAnything(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	for _, agent := range []string{"GoogleHC/1.0", "kube-probe/1.31", "ELB-HealthChecker/2.0", "Prometheus/3.0", ""} {
		for _, path := range []string{"/", "/auth/verify", "/ping", "/healthz"} {
			if resp, _ := st.send("GET", path, "User-Agent", agent); resp.StatusCode != 401 {
				t.Errorf("%q at %s: %d", agent, path, resp.StatusCode)
			}
		}
	}
	st.untouched()
}

func TestCVE_2026_41059_CVE_2025_66490_APathWithTwoMeaningsReachesNoApp(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/public/*", Public: true})
	for _, path := range []string{
		"/public/..%2fadmin", "/public/%2e%2e/admin", "/public/../admin", "//admin", "/public;/../admin",
		"/public%23/admin", `/public\..\admin`, "/public/%252e%252e/admin", "/public#/admin",
	} {
		answer := st.raw("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 400 ") {
			t.Errorf("%s: %.40q", path, answer)
		}
	}
	st.untouched()
}

// Also without a policy. A target such as `x:http://internal/` would be passed on as it is, and by RFC 9112 §3.2.2 the
// app takes the host in it for its own.
func TestATargetThatIsNoPathReachesNoApp(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	for _, target := range []string{"x:http://internal.example/secret", "http:http://internal.example/secret", "x:secret",
		"http:a?token=geheim", "mailto:a@b", "*"} {
		answer := st.raw("GET " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: " + cookie(b) + "\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 400 ") || !strings.Contains(answer, "in more than one way") {
			t.Errorf("%s: %.40q", target, answer)
		}
	}
	st.untouched()
	answer := st.raw("GET http://x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: " + cookie(b) + "\r\n\r\n")
	if r := rig.Soon(t, "a request to reach the app", st.seen); r.URL.String() != "/" {
		t.Errorf("an absolute target without a path: the app was asked for %s: %.40q", r.URL, answer)
	}
	if logged := st.Log.String(); strings.Contains(logged, "geheim") || !strings.Contains(logged, `"target":"http:a"`) {
		t.Errorf("logged: %s", logged)
	}
}

// What is before the path of a request is where the app of the route lives.
func TestNoRequestLeavesThePathOfItsUpstream(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	app, _ := url.Parse(st.app.URL + "/tenant-a/")
	for i, route := range []gateway.Route{{Upstream: gateway.Upstream{URL: app}},
		{Host: "app.example.com", Upstream: gateway.Upstream{URL: app}}} {
		var err error
		st.front, err = st.gateway.Route(route)
		rig.Must(t, err)
		head := " HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\nCookie: " + cookie(b) + "\r\n\r\n"
		for _, target := range []string{"/../tenant-b/x", "/%2e%2e/tenant-b/x", "/..%2ftenant-b/x", `/..\tenant-b\x`,
			"/..;/tenant-b/x", "/a/../../tenant-b/x", "/%252e%252e/tenant-b/x", "/.."} {
			if answer := st.raw("GET " + target + head); !strings.HasPrefix(answer, "HTTP/1.1 400 ") {
				t.Errorf("route %d, %s: %.40q", i+1, target, answer)
			}
		}
		st.untouched()
		st.raw("GET /x?/../y" + head)
		if r := rig.Soon(t, "a request to reach the app", st.seen); r.URL.String() != "/tenant-a/x?/../y" {
			t.Errorf("route %d: the app was asked for %s", i+1, r.URL)
		}
	}
}

// An app that reads `%2f` otherwise than a rule does must not get it, whatever else is in the path.
func TestAnEncodedSlashIsRefusedBesideWhatShouldHaveBeenEncoded(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/public/*", Public: true}, gateway.Rule{Path: "/*", Groups: []string{"admins"}})
	for path, want := range map[string]int{
		"/public%2fadmin": 400, "/public%2fadmin|": 400, "/public%2fadmin^": 400, "/public%2fadmin/\u00e9": 400,
		"/public/%2e%2e/admin<": 400, "/public%5cadmin`": 400,
		"/public/a|b": 200, "/public/\u00e9": 200, "/public/%c3%a9": 200, "/private|": 401,
	} {
		u, err := url.ParseRequestURI(path)
		rig.Must(t, err)
		r := (&http.Request{Method: "GET", URL: u, RequestURI: path, Host: st.Web.URL.Host, Header: http.Header{}}).
			WithContext(t.Context())
		if a := st.gateway.Decide(r); a.Allowed != (want == 200) || !a.Allowed && a.Status != want {
			t.Errorf("ext_authz %q: allowed %v, status %d, want %d", path, a.Allowed, a.Status, want)
		}
		r = r.Clone(t.Context())
		r.URL, err = url.ParseRequestURI("/auth/verify" + path)
		rig.Must(t, err)
		r.RemoteAddr = "127.0.0.9:1234"
		mux, w := http.NewServeMux(), httptest.NewRecorder()
		st.gateway.Mount(mux)
		if st.gateway.VerifyFirst(mux).ServeHTTP(w, r); w.Code != want {
			t.Errorf("/auth/verify%s: %d, want %d", path, w.Code, want)
		}
	}

	app, _ := url.Parse(st.app.URL)
	router := st.routed(gateway.Route{Path: "/public/*", Upstream: gateway.Upstream{URL: app}},
		gateway.Route{Upstream: gateway.Upstream{URL: app}})
	for path, want := range map[string]int{"/public%2fadmin|": 400, "/public/%2e%2e/admin<": 400, "/public/a|b": 200} {
		w := httptest.NewRecorder()
		if router.ServeHTTP(w, httptest.NewRequest("GET", path, nil)); w.Code != want {
			t.Errorf("a proxied %s: %d, want %d", path, w.Code, want)
		}
	}
}

// The answer would show the user what only the app may see (RFC 9110 §9.3.8).
func TestTRACEIsAllowedToNoProxy(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	in := st.askAt("/auth/verify", "Cookie", cookie(b), "X-Forwarded-Method", "TRACE", "X-Forwarded-Uri", "/x")
	if in.Code != 501 || in.Header().Get("X-Auth-Subject") != "" {
		t.Errorf("/auth/verify: %d %v", in.Code, in.Header())
	}
	r := httptest.NewRequest("TRACE", st.Web.URL.String()+"/x", nil)
	r.Header.Set("Cookie", cookie(b))
	if a := st.gateway.Decide(r); a.Allowed || a.Status != 501 {
		t.Errorf("ext_authz: allowed %v, status %d", a.Allowed, a.Status)
	}
}

func TestTRACEReachesNoApp(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/public/*", Public: true})
	b, _ := st.signIn(nil)
	for _, start := range []string{"TRACE /", "trace /", "TRACE /public/x", "TRACE *"} {
		answer := st.raw(start + " HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nConnection: close\r\nCookie: " + cookie(b) +
			"\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 501 ") || !strings.Contains(answer, "does not forward TRACE") {
			t.Errorf("%s: %.40q", start, answer)
		}
	}
	st.untouched()
}

// With forward-auth the target comes with its query, and perhaps as a whole URL.
func TestNoQueryAndNoPasswordOfATargetIsLogged(t *testing.T) {
	t.Parallel()
	for _, headers := range [][]string{
		{"X-Forwarded-Uri", "/x//y?token=geheim"}, {"X-Forwarded-Uri", "/x//y#geheim"}, {"X-Forwarded-Uri", "/a%2fb?geheim"},
		{"X-Original-Url", "http://u:geheim@other.example.com/x"}, {"X-Original-Url", "http://127.0.0.1/x//y?geheim"},
		{"X-Forwarded-Uri", "/x", "X-Forwarded-Host", "u:geheim@other.example.com"},
		{"X-Forwarded-Uri", "http://u:geheim@other.example.com/x?geheim"},
	} {
		st := newStage(t)
		st.policed(gateway.Rule{Path: "/public/*", Public: true})
		in := st.askAt("/auth/verify", append([]string{"X-Forwarded-Method", "GET"}, headers...)...)
		if logged := st.Log.String(); in.Code < 400 || strings.Contains(logged, "geheim") ||
			!strings.Contains(logged, "_refused") {
			t.Errorf("%q: %d, logged %s", headers, in.Code, logged)
		}
	}
}

func TestCVE_2025_54576_TheQueryOpensNothing(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/public", Public: true})
	for _, path := range []string{"/admin?/public", "/admin?x=/public", "/admin?%2fpublic"} {
		if resp, _ := st.send("GET", path); resp.StatusCode != 401 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	st.untouched()
}

func TestCVE_2026_34454_ADeadCookieIsWorthNothing(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, s := st.signIn(nil)
	st.end(s)
	for _, path := range []string{"/", "/auth/verify", "/auth/session", "/auth/events"} {
		if resp, _ := st.send("GET", path, "Cookie", cookie(b)); resp.StatusCode != 401 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

func TestCVE_2026_35051_StrangersForwardingHeadersAreNotBelieved(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	site, _ := url.Parse(st.Server.URL)
	st.send("GET", "/", "Cookie", cookie(b), "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https",
		"X-Forwarded-Port", "1", "X-Forwarded-Prefix", "//evil.example",
		"Forwarded", "host=evil.example;proto=https", "X-Forwarded-For", "6.6.6.6", "Host", "evil.example")
	r := rig.Soon(st.T, "a request to reach the app", st.seen)
	if r.Host != site.Host || r.Header.Get("X-Forwarded-Host") != site.Host ||
		r.Header.Get("X-Forwarded-Proto") != "http" || r.Header.Get("X-Forwarded-For") != "127.0.0.1" ||
		r.Header.Get("X-Forwarded-Port")+r.Header.Get("X-Forwarded-Prefix")+r.Header.Get("Forwarded") != "" {
		t.Errorf("host %q, headers %v", r.Host, r.Header)
	}
	resp, _ := st.send("GET", "/x", "Accept", "text/html", "X-Forwarded-Host", "evil.example", "Host", "evil.example",
		"X-Forwarded-Prefix", "//evil.example")
	if to := resp.Header.Get("Location"); strings.Contains(to, "evil") {
		t.Errorf("redirected to %s", to)
	}
}

func TestCVE_2026_41181_CredentialsGoToNoOtherApp(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	var elsewhere sync.Once
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		elsewhere.Do(func() { t.Errorf("another host received %v", r.Header) })
	}))
	t.Cleanup(other.Close)
	st.upstream = func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "curfew", Value: "planted"})
		http.SetCookie(w, &http.Cookie{Name: "curfew-login-x", Value: "planted"})
		http.SetCookie(w, &http.Cookie{Name: "theme", Value: "dark"})
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}
	b, _ := st.signIn(nil)
	resp, _ := st.send("GET", "/", "Cookie", cookie(b), "Authorization", "Basic eDp5")
	if resp.StatusCode != 307 || resp.Header.Get("Location") != other.URL {
		t.Errorf("the app's redirect was not passed on: %d %s", resp.StatusCode, resp.Header.Get("Location"))
	}
	if set := resp.Header.Values("Set-Cookie"); len(set) != 1 || !strings.HasPrefix(set[0], "theme=") {
		t.Errorf("the app set %q", set)
	}
}

// What counts is what a browser would send back (RFC 6265bis §5.6, §5.8.3): a cookie without a name is sent as its
// value alone, which a server reads as a name and a value.
func TestNoAppSetsOurCookieWhateverItIsCalled(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	var answer string // all of it
	st.upstream = func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		defer conn.Close()
		io.WriteString(conn, strings.ReplaceAll(answer, "ACCEPT", openingAccept))
	}
	b, _ := st.signIn(nil)
	const plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\nok"
	rows := map[string]struct {
		answer string
		passes bool
	}{
		"hidden behind a hint": {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nSet-Cookie: =curfew=planted\r\n\r\n" +
			fmt.Sprintf(plain, ""), false},
		"of the opening of a WebSocket": {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " +
			"websocket\r\nSec-WebSocket-Accept: ACCEPT\r\nSet-Cookie: =curfew=planted\r\n\r\n", false},
		"in an announced trailer": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n\r\n" +
			"2\r\nok\r\n0\r\nSet-Cookie: curfew=planted\r\n\r\n", false},
		"in a trailer": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" +
			"2\r\nok\r\n0\r\nX-Sum: 1\r\nSet-Cookie: curfew=planted\r\n\r\n", false},
		"in a trailer, of another name": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" +
			"2\r\nok\r\n0\r\nX-Sum: planted\r\n\r\n", true},
		"under a name that is no token": {fmt.Sprintf(plain, "Set-Cookie : curfew=planted\r\n"), false},
	}
	for value, passes := range map[string]bool{
		"curfew=planted": false, "=curfew=planted": false, " = curfew=planted": false, "\t=\tcurfew\t=planted": false,
		"==curfew=planted": false, "curfew; planted": false, " curfew ;planted": false, "=curfew; planted": false,
		"=__Host-curfew=planted": false, "__Host-curfew=planted; Secure; Path=/": false,
		"=__Secure-curfew=planted": false, "=curfew-login-x=planted": false, "=curfew-login-x; planted": false,
		"=;planted": true, "=planted": true, "planted": true, "a=curfew=planted": true, "theme; curfew=planted": true,
		"Curfew=planted": true, "=CURFEW=planted": true, "__host-curfew=planted": true, "=curfews=planted": true,
	} {
		rows["Set-Cookie: "+value] = struct {
			answer string
			passes bool
		}{fmt.Sprintf(plain, "Set-Cookie: "+value+"\r\n"), passes}
	}
	for name, row := range rows {
		answer = row.answer
		ask := "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTE: trailers\r\n"
		if strings.Contains(answer, " 101 ") {
			ask = opening("/")
		}
		got := st.raw(ask + "Cookie: " + cookie(b) + "\r\n\r\n")
		if !strings.HasPrefix(got, answer[:len("HTTP/1.1 200")]) || strings.Contains(got, "planted") != row.passes {
			t.Errorf("%q: passed on: %v, want %v: %q", name, !row.passes, row.passes, got)
		}
	}
}

func TestCVE_2026_26998_AnAnswerWithoutEndIsCut(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.upstream = func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
		for i := 0; ; i++ { // a head that does not end
			if _, err := fmt.Fprintf(conn, "X-%d: %s\r\n", i, strings.Repeat("x", 4000)); err != nil {
				return
			}
		}
	}
	b, _ := st.signIn(nil)
	if resp, _ := st.send("GET", "/", "Cookie", cookie(b)); resp.StatusCode != 502 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestCVE_2026_71326_NobodyIsGivenAnotherPersonsAnswer(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	var wg sync.WaitGroup
	for i := range 8 {
		subject := fmt.Sprintf("user-%d", i)
		b, _, err := st.Manager.Create(t.Context(), session.SignIn{Issuer: "i", ClientID: "c", Subject: subject,
			Began: st.Manager.Now()})
		rig.Must(t, err)
		wg.Go(func() {
			for range 25 {
				if w := st.ask("Cookie", cookie(b)); w.Header().Get("X-Auth-Subject") != subject {
					t.Errorf("%s was told %q", subject, w.Header().Get("X-Auth-Subject"))
				}
			}
		})
	}
	wg.Wait()
}

func TestCVE_2021_41230_ClaimsOfTheSessionAtHandDecide(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/admin/*", Groups: []string{"admins"}})
	before, s := st.signIn(map[string]any{"groups": []any{"admins"}})
	if resp, _ := st.send("GET", "/admin/x", "Cookie", cookie(before)); resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	st.end(s)
	after, _ := st.signIn(map[string]any{"groups": []any{"users"}}) // the same person, no longer an admin
	resp, body := st.send("GET", "/admin/x", "Cookie", cookie(after), "Accept", "text/html")
	if resp.StatusCode != 403 || strings.Contains(body, "admins") || !strings.Contains(body, "membership of a group") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestCVE_2021_29652_NoTokenLeavesInARedirect(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.gateway.Assertion, st.gateway.App = assertion("signed-assertion", nil), "wiki"
	b, s := st.signIn(nil)
	st.end(s)
	for _, target := range []string{"/deep", "//evil.example/", "/\\evil.example", "/%2f%2fevil.example"} {
		w := st.askAt("/auth/verify?redirect=true", "Cookie", cookie(b), "Accept", "text/html", "X-Forwarded-Uri",
			target)
		to, err := url.Parse(w.Header().Get("Location"))
		if err != nil || w.Code != 302 || to.Scheme+"://"+to.Host != st.Server.URL ||
			strings.Contains(to.String(), "signed") || strings.Contains(to.String(), b.Reveal()) {
			t.Errorf("%s: %d %s", target, w.Code, to)
		}
		if back := to.Query().Get("return_to"); back != "/" && back != "/deep" {
			t.Errorf("%s: returns to %q", target, back)
		}
	}
}

func TestCVE_2026_40574_AnAddressWithTwoAtSignsIsAtNoDomain(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/*", EmailDomains: []string{"corp.example"}})
	for address, want := range map[string]int{
		"a@corp.example": 200, "a@CORP.example": 200, "a@evil.example@corp.example": 403,
		`"a@evil.example"@corp.example`: 403, "@corp.example": 403,
		"a@evil.example, b@corp.example": 403, "a@evilcorp.example": 403, "a@corp.example.evil.example": 403,
		"corp.example": 403,
	} {
		b, _ := st.signIn(map[string]any{"email": address})
		if resp, _ := st.send("GET", "/x", "Cookie", cookie(b)); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", address, resp.StatusCode, want)
		}
	}
	b, _ := st.signIn(map[string]any{"email": "a@corp.example", "email_verified": false})
	if resp, _ := st.send("GET", "/x", "Cookie", cookie(b)); resp.StatusCode != 403 {
		t.Errorf("an address that is not verified: %d", resp.StatusCode)
	}
}

func TestCVE_2024_39315_ASessionKnowsItselfAndShowsNoToken(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _, err := st.Manager.Create(t.Context(), session.SignIn{Provider: "main", Issuer: "i", ClientID: "c",
		Subject: "alice",
		Tokens:  session.Tokens{IDToken: "secret-id", AccessToken: "secret-at", RefreshToken: "secret-rt"},
		Began:   st.Manager.Now()})
	rig.Must(t, err)
	resp, body := st.send("GET", "/auth/session", "Cookie", cookie(b))
	if resp.StatusCode != 200 || !strings.Contains(body, `"subject":"alice"`) || strings.Contains(body, "secret") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, _ := st.send("GET", "/auth/session"); resp.StatusCode != 401 {
		t.Errorf("without a session: %d", resp.StatusCode)
	}
}

func TestCVE_2024_21492_AHeaderCannotBeMadeOfAClaim(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(map[string]any{"name": "x\r\nX-Auth-Groups: admins", "email": "a@b\x00",
		"groups": []any{"users,admins", "x\ny", "ok"}})
	w := st.ask("Cookie", cookie(b))
	if w.Header().Get("X-Auth-Name")+w.Header().Get("X-Auth-Email") != "" || w.Header().Get("X-Auth-Groups") != "ok" {
		t.Errorf("told %v", w.Header())
	}
}

func TestCVE_2026_33525_ARefusalShowsNothingOfTheRequestUnescaped(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/*", Groups: []string{"admins"}})
	b, _ := st.signIn(map[string]any{"name": "<script>alert(1)</script>"})
	for _, path := range []string{`/"><script>alert(1)</script>`, "/%3Cscript%3Ealert(1)%3C/script%3E;",
		"/?x=<script>alert(1)</script>"} {
		answer := st.raw("GET " + path +
			" HTTP/1.1\r\nHost: <script>alert(1)</script>\r\nAccept: text/html\r\nConnection: close\r\nCookie: " +
			cookie(b) + "\r\n\r\n")
		if strings.Contains(answer, "<script") || strings.HasPrefix(answer, "HTTP/1.1 200") {
			t.Errorf("%s: %s", path, answer)
		}
	}
}

func TestCVE_2022_23469_NoSecretIsLogged(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/admin", Groups: []string{"admins"}})
	b, s, err := st.Manager.Create(t.Context(), session.SignIn{Issuer: "i", ClientID: "c", Subject: "alice",
		Began:  st.Manager.Now(),
		Tokens: session.Tokens{AccessToken: "secret-at", IDToken: "secret-id", RefreshToken: "secret-rt"}})
	rig.Must(t, err)
	st.upstream = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for _, path := range []string{"/", "/admin", "/a//b", "/auth/verify", "/auth/session", "/auth/nothing"} {
		st.send("GET", path, "Cookie", cookie(b), "Authorization", "Bearer secret-header")
	}
	st.store.Away.Store(true)
	st.send("GET", "/", "Cookie", cookie(b))
	st.store.Away.Store(false)
	st.end(s)
	st.send("GET", "/", "Cookie", cookie(b))
	logged := st.Log.String()
	if logged == "" || strings.Contains(logged, b.Reveal()) || strings.Contains(logged, "secret") ||
		strings.Contains(logged, "curfew=") {
		t.Errorf("logged: %s", logged)
	}
	if strings.Contains(logged, `"status":401`) {
		t.Error("a refusal for want of a session was logged: that is every request of a signed-out browser")
	}
}

// raw sends bytes and returns all that comes back.
func (st *stage) raw(request string) string {
	st.T.Helper()
	conn := rig.Dial(st.T, st.Server)
	defer conn.Close()
	go io.WriteString(conn, request)
	answer, _ := io.ReadAll(bufio.NewReader(conn))
	return string(answer)
}

func TestRequestSmugglingShapesCarryNoSecondRequest(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	head := "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: " + cookie(b) + "\r\n"
	for name, row := range map[string]struct {
		rest   string
		status string // of the one answer
	}{
		// chunked counts, the length is dropped (RFC 9112 §6.3)
		"length and chunked":    {"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, "200"},
		"two lengths":           {"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + smuggled, "400"},
		"a list of lengths":     {"Content-Length: 0, 44\r\n\r\n" + smuggled, "400"},
		"a signed length":       {"Content-Length: +0\r\n\r\n" + smuggled, "400"},
		"chunked with a prefix": {"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled, "501"},
		"chunked twice": {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" +
			smuggled, "501"},
		"a space before the colon":    {"Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n" + smuggled, "400"},
		"a vertical tab in the value": {"Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n" + smuggled, "400"},
		"a folded line": {"X-A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n" + smuggled,
			""},
		// 502, or the app's 200 if it answered before the body was read
		"a broken chunk size":         {"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + smuggled, ""},
		"a bare line feed in a chunk": {"Transfer-Encoding: chunked\r\n\r\n0;\n\r\n" + smuggled, ""},
		"a NUL in a header":           {"X-A: a\x00b\r\nContent-Length: 0\r\n\r\n" + smuggled, "400"},
		"two hosts":                   {"Host: y\r\nContent-Length: 0\r\n\r\n" + smuggled, "400"},
		"a trailer that names us": {"Transfer-Encoding: chunked\r\nTrailer: " +
			"X-Auth-Subject\r\n\r\n0\r\nX-Auth-Subject: mallory\r\n\r\n" + smuggled, "200"},
	} {
		answer := st.raw(head + row.rest)
		if n := strings.Count(answer, "HTTP/1.1 "); n != 1 {
			t.Errorf("%s: %d answers: %q", name, n, answer)
		}
		if !strings.HasPrefix(answer, "HTTP/1.1 "+row.status) {
			t.Errorf("%s: want %s: %.60q", name, row.status, answer)
		}
		select {
		case r := <-st.seen:
			if r.URL.Path == "/smuggled" || r.Header.Get("X-Auth-Subject") != "alice" ||
				len(r.Header.Values("X-Auth-Subject")) != 1 || len(r.Trailer) > 0 {
				t.Errorf("%s: the app received %s %v %v", name, r.URL, r.Header, r.Trailer)
			}
		default:
		}
	}
}

func TestAnOversizedHeadIsRefused(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	for name, header := range map[string]string{
		"one long header": "X-A: " + strings.Repeat("a", 80<<10), "a long cookie": "Cookie: curfew=" +
			strings.Repeat("a", 80<<10),
		"many headers": strings.Repeat("X-A: b\r\n", 12_000) + "X-B: c",
	} {
		if answer := st.raw("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header +
			"\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 431 ") {
			t.Errorf("%s: %.60q", name, answer)
		}
	}
	st.untouched()
}

// FuzzForwardedHeaders: whatever a client sends, in whatever spelling, the app is told who is signed in and nobody
// else.
func FuzzForwardedHeaders(f *testing.F) {
	for _, seed := range []string{"X-Auth-Subject", "x_auth_subject", "X.Forwarded.User", "X-Forwarded-Email",
		"X\u2010Auth-Subject", "Connection", "Cookie", "Forwarded", "Te", "Trailer", "X-Remote-User"} {
		f.Add(seed, "mallory")
	}
	f.Add("Connection", "X-Auth-Subject, X-Remote-User")
	st := newStage(f)
	st.gateway.Identity, _ = gateway.NewIdentity(map[string]string{"X-Remote-User": "subject",
		"X-Auth-Subject": "subject"})
	b, _ := st.signIn(nil)
	f.Fuzz(func(t *testing.T, name, value string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", cookie(b))
		r.Header[name] = append(r.Header[name], value)
		st.front.ServeHTTP(httptest.NewRecorder(), r)
		select {
		case r := <-st.seen:
			for name, values := range r.Header {
				folded := strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name))
				if folded != "x-remote-user" && folded != "x-auth-subject" {
					continue
				}
				if len(values) != 1 || values[0] != "alice" || name != http.CanonicalHeaderKey(folded) {
					t.Errorf("the app was told %s: %q", name, values)
				}
			}
			if r.Header.Get("X-Remote-User") != "alice" {
				t.Errorf("the app was told nothing: %v", r.Header)
			}
		default:
		}
	})
}
