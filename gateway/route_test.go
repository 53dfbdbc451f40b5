package gateway_test

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
)

// routed puts routes into the gateway of a stage.
func (st *stage) routed(routes ...gateway.Route) *gateway.Router {
	st.T.Helper()
	router, err := st.gateway.Route(routes...)
	rig.Must(st.T, err)
	st.front = router
	return router
}

// app starts one that answers with a word, and returns where.
func app(t testing.TB, word string) *url.URL {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, word+" "+r.Host+" "+r.RequestURI)
	}))
	t.Cleanup(s.Close)
	u, _ := url.Parse(s.URL)
	return u
}

func TestTheFirstRouteThatFitsIsTaken(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	site, _ := url.Parse(st.Server.URL)
	api := app(t, "api")
	api.Path = "/base"
	st.routed(
		gateway.Route{Host: "api.example.com", Upstream: gateway.Upstream{URL: app(t, "host")}},
		gateway.Route{Path: "/api/*", Upstream: gateway.Upstream{URL: api}},
		gateway.Route{Path: "/exact", Upstream: gateway.Upstream{URL: app(t, "exact")}},
		gateway.Route{Path: "/rest/*", Upstream: gateway.Upstream{URL: app(t, "rest")}},
	)
	b, _ := st.signIn(nil)
	for _, row := range []struct {
		host, path string
		status     int
		body       string
	}{
		{"", "/api", 200, "api " + site.Host + " /base/api"},
		{"", "/api/x%20y?a=b;c", 200, "api " + site.Host + " /base/api/x%20y?a=b;c"},
		{"", "/API/x", 404, ""},
		{"", "/apis", 404, ""},
		{"", "/exact/", 200, "exact " + site.Host + " /exact/"},
		{"", "/exact/x", 404, ""},
		{"API.example.com:443", "/api/x", 200, "host api.example.com /api/x"},
		{"evil.example", "/rest/x", 200, "rest " + site.Host + " /rest/x"},
		{"", "/rest/../api", 400, ""},
		{"", "/rest%2fapi", 400, ""},
	} {
		headers := []string{"Cookie", cookie(b)}
		if row.host != "" {
			headers = append(headers, "Host", row.host)
		}
		resp, body := st.send("GET", row.path, headers...)
		if resp.StatusCode != row.status || row.body != "" && body != row.body {
			t.Errorf("%s%s: %d %q, want %d %q", row.host, row.path, resp.StatusCode, body, row.status, row.body)
		}
	}
	if resp, _ := st.send("GET", "/nowhere"); resp.StatusCode != 401 {
		t.Errorf("who is not signed in learns which routes there are: %d", resp.StatusCode)
	}
}

func TestRoutesThatMeanNothingAreRefused(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	ok := gateway.Upstream{URL: &url.URL{Scheme: "http", Host: "app"}}
	_, err := st.gateway.Route(
		gateway.Route{Upstream: gateway.Upstream{}},
		gateway.Route{Upstream: gateway.Upstream{URL: &url.URL{Scheme: "ftp", Host: "app"}}},
		gateway.Route{Path: "api/*", Upstream: ok}, gateway.Route{Host: "http://x", Upstream: ok},
	)
	for _, want := range []string{"route 1: the upstream", "route 2: the upstream", `route 3: "api/*" is not a path`,
		`route 4: "http://x" is not a host`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no fault %q in: %v", want, err)
		}
	}
}

func TestConnectionsToTheAppAreKept(t *testing.T) {
	t.Parallel()
	const clients, each = 64, 20
	st := newStage(t)
	var made atomic.Int64
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter,
		r *http.Request) {
		io.WriteString(w, "hello")
	}))
	up.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			made.Add(1)
		}
	}
	up.Start()
	t.Cleanup(up.Close)
	u, _ := url.Parse(up.URL)
	st.routed(gateway.Route{Upstream: gateway.Upstream{URL: u}})
	b, _ := st.signIn(nil)
	transport := &http.Transport{MaxIdleConnsPerHost: clients, MaxConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				req, _ := http.NewRequest("GET", st.Server.URL, nil)
				req.Header.Set("Cookie", cookie(b))
				resp, err := transport.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	wg.Wait()
	// Go dials while it waits for a connection that is just being given back, and keeps both: so there may be a few
	// more.
	if n := made.Load(); n > 2*clients {
		t.Errorf("%d clients made %d connections to the app in %d requests", clients, n, clients*each)
	}
}

func TestAnAppMaySpeakHTTP2WithAndWithoutTLS(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	proto := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	secure := httptest.NewUnstartedServer(proto)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewUnstartedServer(proto)
	plain.Config.Protocols = new(http.Protocols)
	plain.Config.Protocols.SetUnencryptedHTTP2(true)
	plain.Config.Protocols.SetHTTP1(true)
	plain.Start()
	t.Cleanup(plain.Close)
	ca := x509.NewCertPool()
	ca.AddCert(secure.Certificate())
	to := func(raw string) *url.URL { u, _ := url.Parse(raw); return u }
	for name, row := range map[string]struct {
		upstream gateway.Upstream
		status   int
		body     string
	}{
		"TLS, by a CA that is configured": {gateway.Upstream{URL: to(secure.URL), CA: ca}, 200, "HTTP/2.0"},
		"TLS, by a CA that nobody knows":  {gateway.Upstream{URL: to(secure.URL)}, 502, ""},
		"h2c": {gateway.Upstream{URL: to(strings.Replace(plain.URL, "http", "h2c", 1))},
			200, "HTTP/2.0"},
		"HTTP/1.1": {gateway.Upstream{URL: to(plain.URL)}, 200, "HTTP/1.1"},
	} {
		router := st.routed(gateway.Route{Upstream: row.upstream})
		resp, body := st.send("GET", "/", "Cookie", cookie(b))
		if resp.StatusCode != row.status || row.body != "" && body != row.body {
			t.Errorf("%s: %d %s, want %d %s", name, resp.StatusCode, body, row.status, row.body)
		}
		if err := router.Health(t.Context()); (err == nil) != (row.status == 200) {
			t.Errorf("%s: health: %v", name, err)
		}
	}
}

func TestAnAppThatTakesTooLongIs504(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.upstream = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	u, _ := url.Parse(st.app.URL)
	st.routed(gateway.Route{Upstream: gateway.Upstream{URL: u, Timeout: 10 * time.Millisecond}})
	b, _ := st.signIn(nil)
	resp, body := st.send("GET", "/", "Cookie", cookie(b), "Accept", "text/html")
	if resp.StatusCode != 504 || !strings.Contains(body, "takes too long") || strings.Contains(body, u.Host) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestHealthNamesTheAppsThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	dead := &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	router := st.routed(gateway.Route{Path: "/dead/*", Upstream: gateway.Upstream{URL: dead}},
		gateway.Route{Upstream: gateway.Upstream{URL: app(t, "alive")}})
	if err := router.Health(t.Context()); err == nil || !strings.Contains(err.Error(), dead.Host) ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("health: %v", err)
	}
}

func TestHealthIsWhatAnAppSaysOfItself(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	var ill atomic.Bool
	serve := func(h2c bool) *url.URL {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.RequestURI != "/healthz?deep=1" || ill.Load() || h2c != (r.ProtoMajor == 2) ||
				len(r.Header["Cookie"]) > 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(true)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		t.Cleanup(s.Close)
		u, _ := url.Parse(s.URL + "/base")
		if h2c {
			u.Scheme = "h2c"
		}
		return u
	}
	one, two := serve(false), serve(true)
	router := st.routed(gateway.Route{Path: "/a", Upstream: gateway.Upstream{URL: one, Health: "/healthz?deep=1"}},
		gateway.Route{Upstream: gateway.Upstream{URL: two, Health: "/healthz?deep=1"}})
	if err := router.Health(t.Context()); err != nil {
		t.Errorf("well: %v", err)
	}
	ill.Store(true)
	err := router.Health(t.Context())
	if err == nil || strings.Count(err.Error(), "/healthz?deep=1 answers 503") != 2 ||
		!strings.Contains(err.Error(), one.Host) || !strings.Contains(err.Error(), two.Host) {
		t.Errorf("ill: %v", err)
	}
	for _, health := range []string{"healthz", "//evil.example/healthz", "https://evil.example/"} {
		if _, err := st.gateway.Route(gateway.Route{Upstream: gateway.Upstream{URL: one,
			Health: health}}); err == nil || !strings.Contains(err.Error(), "is not a path for health checks") {
			t.Errorf("%s: %v", health, err)
		}
	}
}

func TestABodyIsPassedOnWhileItIsSent(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	first := make(chan string, 1)
	st.upstream = func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 5)
		io.ReadFull(r.Body, buf)
		first <- string(buf)
		io.Copy(io.Discard, r.Body)
	}
	b, _ := st.signIn(nil)
	out, in := io.Pipe()
	req, _ := http.NewRequest("POST", st.Server.URL, out)
	req.Header.Set("Cookie", cookie(b))
	done := make(chan error, 1)
	go func() {
		resp, err := bounded().RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	io.WriteString(in, "first")
	if got := rig.Soon(t, "the first bytes", first); got != "first" { // the app has it while we have not finished
		t.Errorf("got %q", got)
	}
	in.Close()
	if err := rig.Soon(t, "the answer", done); err != nil {
		t.Error(err)
	}
}

func TestOnlyAPublicPathIsOpenToWhoIsNotSignedIn(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/public/*", Public: true},
		gateway.Rule{Path: "/admin/*", Groups: []string{"admins"}}, gateway.Rule{Path: "/plain"})
	for _, path := range []string{"/admin/x", "/plain", "/other"} {
		if resp, _ := st.send("GET", path); resp.StatusCode != 401 {
			t.Errorf("%s: %d to who is not signed in", path, resp.StatusCode)
		}
	}
	if resp, _ := st.send("GET", "/public/x", "X-Auth-Subject", "mallory"); resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	if r := rig.Soon(st.T, "a request to reach the app", st.seen); r.Header.Get("X-Auth-Subject") != "" {
		t.Errorf("the app was told %q", r.Header.Get("X-Auth-Subject"))
	}
	b, _ := st.signIn(nil)
	st.send("GET", "/public/x", "Cookie", cookie(b))
	if r := rig.Soon(st.T, "a request to reach the app", st.seen); r.Header.Get("X-Auth-Subject") != "alice" {
		t.Errorf("the app was told %q of somebody who is signed in", r.Header.Get("X-Auth-Subject"))
	}
}

func TestAnAssertionThatFailsLetsNobodyThrough(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	st.gateway.Assertion = assertion("signed", nil)
	st.gateway.App = "wiki"
	st.send("GET", "/", "Cookie", cookie(b))
	if r := rig.Soon(st.T, "a request to reach the app", st.seen); r.Header.Get("X-Auth-Assertion") != "signed" ||
		r.Header.Get("X-Auth-Session") == "" {
		t.Errorf("told %v", r.Header)
	}
	st.gateway.Assertion = assertion("", errors.New("no key"))
	if resp, _ := st.send("GET", "/", "Cookie", cookie(b)); resp.StatusCode != 503 ||
		resp.Header.Get("X-Auth-Subject") != "" {
		t.Errorf("the proxy: %d %v", resp.StatusCode, resp.Header)
	}
	if w := st.ask("Cookie", cookie(b)); w.Code != 503 {
		t.Errorf("verify: %d %v", w.Code, w.Header())
	}
}
