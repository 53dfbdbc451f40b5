package gateway_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
	"example.com/curfew/web"
)

// severalHosts makes the site of a stage one with several hosts, and returns the cookies of one session by host.
func (st *stage) severalHosts() map[string]string {
	st.T.Helper()
	return st.withHosts([]string{"wiki.example.com", "mail.example.com:8443", "*.apps.example.com"}, "auth.example.com",
		"wiki.example.com", "mail.example.com", "one.apps.example.com")
}

// withHosts is severalHosts for a list, with the cookies for some names.
func (st *stage) withHosts(list []string, names ...string) map[string]string {
	st.T.Helper()
	var err error
	st.Web.URL, err = web.ParseURL("https://auth.example.com")
	rig.Must(st.T, err)
	st.Web.Hosts, err = web.ParseHosts(st.Web.URL, list)
	rig.Must(st.T, err)
	st.gateway.Cookie = session.Cookie{Main: "auth.example.com", Host: func(r *http.Request) (string, bool) {
		h, err := st.Web.HostOf(r)
		return h.Name, err == nil
	}}
	main, s, err := st.Manager.Create(st.T.Context(), session.SignIn{Issuer: "https://id.example.com", ClientID: "app",
		Subject: "alice", Began: st.Manager.Now(), Host: "auth.example.com",
		Claims: map[string]any{"groups": []any{"staff"}}})
	rig.Must(st.T, err)
	cookies := map[string]string{}
	for _, host := range names {
		b, ok := s.BearerFor(host, main)
		if !ok {
			st.T.Fatalf("no bearer for %s", host)
		}
		cookies[host] = "__Host-curfew=" + b.Reveal()
	}
	return cookies
}

// entries are the ways in which a request for a host comes to a gateway. Each returns the status, and where it leads.
func (st *stage) entries() map[string]func(host, cookie string) (int, string) {
	answer := func(w *httptest.ResponseRecorder) (int, string) { return w.Code, w.Header().Get("Location") }
	headers := func(cookie string, more ...string) []string {
		return append([]string{"Cookie", cookie, "Accept", "text/html"}, more...)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	return map[string]func(host, cookie string) (int, string){
		"forward-auth, at an address": func(host, cookie string) (int, string) {
			return answer(st.askAt("/auth/verify?redirect=true", headers(cookie, "Host", "127.0.0.1:4180",
				"X-Forwarded-Host", host, "X-Forwarded-Uri", "/x")...))
		},
		"forward-auth, at the main host": func(host, cookie string) (int, string) {
			return answer(st.askAt("/auth/verify?redirect=true", headers(cookie, "Host", "auth.example.com",
				"X-Forwarded-Host", host, "X-Forwarded-Uri", "/x")...))
		},
		"forward-auth, with the Host": func(host, cookie string) (int, string) {
			return answer(st.askAt("/auth/verify?redirect=true", headers(cookie, "Host", host,
				"X-Forwarded-Uri", "/x")...))
		},
		"forward-auth, with a URL": func(host, cookie string) (int, string) {
			return answer(st.askAt("/auth/verify?redirect=true", headers(cookie, "Host", "127.0.0.1:4180",
				"X-Original-Url", "https://"+host+"/x")...))
		},
		"ext_authz over HTTP": func(host, cookie string) (int, string) {
			return answer(st.askAt("/auth/verify/x", headers(cookie, "Host", host)...))
		},
		"ext_authz over gRPC": func(host, cookie string) (int, string) {
			r := httptest.NewRequest("GET", "/x", nil)
			r.Host = host
			r.Header.Set("Cookie", cookie)
			r.Header.Set("Accept", "text/html")
			r.Header.Set("X-Forwarded-Host", "wiki.example.com") // does not count, even from a trusted proxy
			r.RemoteAddr = "127.0.0.9:1"
			a := st.gateway.Decide(r)
			if a.Allowed {
				return 200, ""
			}
			return a.Status, a.Header.Get("Location")
		},
		"the middleware": func(host, cookie string) (int, string) {
			return answer(request(st.gateway.Require(hello), "/x", headers(cookie, "Host", host)...))
		},
		"the middleware, behind a proxy": func(host, cookie string) (int, string) {
			return answer(request(st.gateway.Require(hello), "/x", headers(cookie, "Host", "10.0.0.1",
				"X-Forwarded-Host", host)...))
		},
		"the reverse proxy": func(host, cookie string) (int, string) {
			return answer(request(st.front, "/x", headers(cookie, "Host", host)...))
		},
	}
}

func TestEveryEntryTakesABearerAtItsOwnHostAlone(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	cookies := st.severalHosts()
	for name, enter := range st.entries() {
		for asked := range cookies {
			for of, cookie := range cookies {
				status, to := enter(asked, cookie)
				if asked == of {
					if status != 200 {
						t.Errorf("%s: at %s with its own cookie: %d", name, asked, status)
					}
					continue
				}
				// A relative Location leads to the same host.
				at := asked
				if asked == "mail.example.com" {
					at += ":8443"
				}
				if want := "/auth/login?return_to=%2Fx"; status/100 != 3 || strings.TrimPrefix(to, "https://"+at) != want {
					t.Errorf("%s: at %s with the cookie of %s: %d %s", name, asked, of, status, to)
				}
			}
		}
		for _, unknown := range []string{"other.example.com", "wiki.example.com.", "wiki.example.com:8443",
			"x.y.apps.example.com",
			"apps.example.com", "wiki.example.com, mail.example.com"} {
			if status, to := enter(unknown, cookies["wiki.example.com"]); status != http.StatusForbidden || to != "" {
				t.Errorf("%s: at %s: %d %s", name, unknown, status, to)
			}
		}
	}
	if log := st.Log.String(); strings.Count(log, `"event":"bearer_of_another_host"`) == 0 ||
		strings.Contains(log, cookies["wiki.example.com"][20:]) {
		t.Error("the log does not say that a bearer came to another host, or says the bearer")
	}
}

// A client names one host to the proxy that routes it, and another in a header that the proxy passes on.
func TestAHostCannotBeSmuggledPastTheProxy(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	wiki := st.severalHosts()["wiki.example.com"]
	for name, headers := range map[string][]string{
		"beside the host": {"Host", "mail.example.com", "X-Forwarded-Host", "wiki.example.com"},
		"in a list": {"Host", "127.0.0.1:4180", "X-Forwarded-Host",
			"wiki.example.com, mail.example.com"},
		"in a second line": {"Host", "127.0.0.1:4180", "X-Forwarded-Host", "mail.example.com", "X-Forwarded-Host",
			"wiki.example.com"},
		"in a URL": {"Host", "127.0.0.1:4180", "X-Forwarded-Host", "mail.example.com", "X-Original-Url",
			"https://wiki.example.com/x"},
	} {
		w := st.askAt("/auth/verify?redirect=true", append([]string{"Cookie", wiki, "X-Forwarded-Uri", "/x"},
			headers...)...)
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: %d", name, w.Code)
		}
		w = request(st.front, "/x", append([]string{"Cookie", wiki}, headers...)...)
		if name != "in a URL" && w.Code != http.StatusForbidden {
			t.Errorf("%s, at the reverse proxy: %d", name, w.Code)
		}
	}
	st.untouched()
}

func TestRulesAndRoutesMayNameAHost(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	cookies := st.severalHosts()
	st.policed(gateway.Rule{Host: "wiki.example.com", Path: "/open", Public: true},
		gateway.Rule{Host: "*.apps.example.com", Path: "/*", Groups: []string{"admins"}},
		gateway.Rule{Host: "Mail.Example.com", Path: "/*", Groups: []string{"staff"}},
		gateway.Rule{Path: "/auth.example.com/*", Groups: []string{"admins"}})
	upstream := func(word string) gateway.Upstream { return gateway.Upstream{URL: app(t, word)} }
	st.routed(gateway.Route{Host: "*.apps.example.com", Upstream: upstream("apps")},
		gateway.Route{Host: "WIKI.example.com", Upstream: upstream("wiki")},
		gateway.Route{Host: "mail.example.com", Upstream: upstream("mail")},
		gateway.Route{Upstream: upstream("rest")})
	for _, row := range []struct {
		host, path string
		signedIn   bool
		status     int
		says       string
	}{
		{"wiki.example.com", "/open", false, 200, "wiki wiki.example.com /open"},
		{"wiki.example.com", "/x", false, 303, ""},
		{"wiki.example.com", "/x", true, 200, "wiki wiki.example.com /x"},
		{"mail.example.com:8443", "/open", false, 303, ""},
		{"mail.example.com:8443", "/x", true, 200, "mail mail.example.com:8443 /x"},
		{"one.apps.example.com", "/x", true, 403, ""},
		{"ONE.apps.example.com", "/open", false, 303, ""},
		{"auth.example.com", "/x", true, 200, "rest auth.example.com /x"},
		{"auth.example.com", "/open", false, 303, ""},
	} {
		headers := []string{"Host", row.host, "Accept", "text/html"}
		name, _, _ := strings.Cut(strings.ToLower(row.host), ":")
		if row.signedIn {
			headers = append(headers, "Cookie", cookies[name])
		}
		w := request(st.front, row.path, headers...)
		if w.Code != row.status || row.says != "" && w.Body.String() != row.says {
			t.Errorf("%s%s: %d %q", row.host, row.path, w.Code, w.Body)
		}
		v := st.askAt("/auth/verify?redirect=true", append(headers, "X-Forwarded-Uri", row.path,
			"X-Forwarded-Host", row.host)...)
		if want := row.status; v.Code != want && (want != 303 || v.Code != 302) {
			t.Errorf("%s%s, asked: %d", row.host, row.path, v.Code)
		}
	}
	to, _ := url.Parse("http://127.0.0.1:1")
	_, err := st.gateway.Route(gateway.Route{Host: "other.example.com", Upstream: gateway.Upstream{URL: to}},
		gateway.Route{Host: "*.wiki.example.com", Upstream: gateway.Upstream{URL: to}})
	for _, want := range []string{`route 1: "other.example.com" is neither`, `route 2: "*.wiki.example.com" is neither`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, bad := range []string{"a/b", "a b", "*.", "a*", "**.x", "x:1", "https://x"} {
		if _, err := gateway.NewPolicy(gateway.Rule{Host: bad, Path: "/*"}); err == nil ||
			!strings.Contains(err.Error(), "is not a host") {
			t.Errorf("a rule for %q: %v", bad, err)
		}
	}
}

func TestAWebSocketMayBeOpenedFromThePagesOfItsOwnHost(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	cookies := st.severalHosts()
	st.gateway.WebSocketOrigins = []string{"https://listed.example.com"}
	for _, row := range []struct {
		host, origin string
		ok           bool
	}{
		{"wiki.example.com", "https://wiki.example.com", true},
		{"wiki.example.com", "https://WIKI.example.com", true},
		{"mail.example.com", "https://mail.example.com:8443", true},
		{"one.apps.example.com", "https://one.apps.example.com", true},
		{"one.apps.example.com", "https://listed.example.com", true},
		{"one.apps.example.com", "https://two.apps.example.com", false},
		{"wiki.example.com", "https://auth.example.com", false},
		{"wiki.example.com", "https://mail.example.com:8443", false},
		{"mail.example.com", "https://mail.example.com", false},
		{"auth.example.com", "https://wiki.example.com", false},
		{"wiki.example.com", "https://evil.example", false},
	} {
		headers := []string{"Host", row.host, "Cookie", cookies[row.host], "Sec-Websocket-Key", "x", "Origin", row.origin,
			"X-Forwarded-Host", row.host, "X-Forwarded-Uri", "/x"}
		for name, got := range map[string]int{
			"asked":   st.askAt("/auth/verify", headers...).Code,
			"proxied": request(st.front, "/x", headers...).Code,
		} {
			if (got == 200) != row.ok || !row.ok && got != 403 {
				t.Errorf("%s: a page of %s, at %s: %d", name, row.origin, row.host, got)
			}
		}
	}
}

func TestTheAppIsToldTheHostThatWasChecked(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	cookies := st.severalHosts()
	for asked, want := range map[string]string{"WIKI.example.com:443": "wiki.example.com",
		"mail.example.com": "mail.example.com:8443", "one.apps.example.com": "one.apps.example.com"} {
		name, _, _ := strings.Cut(strings.ToLower(asked), ":")
		if w := request(st.front, "/", "Host", asked, "Cookie", cookies[name]); w.Code != 200 {
			t.Fatalf("%s: %d", asked, w.Code)
		}
		r := rig.Soon(t, "a request to reach the app", st.seen)
		if r.Host != want || r.Header.Get("X-Forwarded-Host") != want {
			t.Errorf("%s: the app was told %q and %q", asked, r.Host, r.Header.Get("X-Forwarded-Host"))
		}
	}
}

// thousandHosts are a thousand names.
func thousandHosts() (names []string) {
	for i := range 1000 {
		names = append(names, fmt.Sprintf("h%d.example.com", i))
	}
	return names
}

// checks returns a function that checks a request, for one of the names after the other.
func checks(t testing.TB, list, names []string) func() {
	st := newStageWith(t, session.Config{MaxStale: time.Hour})
	cookies := st.withHosts(list, names...)
	if len(list) == 0 { // a site with one host, as before there were several
		st.gateway.Cookie.Host = nil
		b, _ := st.signIn(map[string]any{"groups": []any{"staff"}})
		cookies = map[string]string{names[0]: "__Host-curfew=" + b.Reveal()}
	}
	next := st.gateway.Require(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	requests := make([]*http.Request, len(names))
	for i, name := range names {
		requests[i] = httptest.NewRequest("GET", "/x", nil)
		requests[i].Host = name
		requests[i].Header.Set("Cookie", cookies[name])
	}
	i := 0
	return func() {
		w := httptest.NewRecorder()
		if next.ServeHTTP(w, requests[i%len(requests)]); w.Code != http.StatusOK {
			t.Fatalf("%s: %d", names[i%len(names)], w.Code)
		}
		i++
	}
}

// BenchmarkHosts checks requests at a site with a thousand hosts, in turns with one that has two, and reports how much
// longer a check takes.
func BenchmarkHosts(b *testing.B) {
	const turn = 2000
	two := checks(b, []string{"h0.example.com"}, slices.Repeat([]string{"h0.example.com"}, 1000))
	for name, check := range map[string]func(){
		"thousand": checks(b, thousandHosts(), thousandHosts()),
		"wildcard": checks(b, []string{"*.example.com"}, thousandHosts()),
		"one":      checks(b, nil, slices.Repeat([]string{"auth.example.com"}, 1000)),
	} {
		b.Run(name, func(b *testing.B) {
			spend := func(check func()) (d time.Duration) {
				began := time.Now()
				for range turn {
					check()
				}
				return time.Since(began)
			}
			var this, base time.Duration
			turns := 0
			for b.Loop() {
				this, base = this+spend(check), base+spend(two)
				turns++
			}
			b.ReportMetric(float64(this.Nanoseconds())/float64(turns*turn), "ns/check")
			b.ReportMetric(float64(this)/float64(base), "of-two-hosts")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// The number of hosts costs nothing: a count, not a time.
func TestACheckAtOneOfAThousandHostsAllocatesWhatItDoesAtOneOfTwo(t *testing.T) {
	two := checks(t, []string{"h0.example.com"}, []string{"h0.example.com"})
	thousand := checks(t, thousandHosts(), thousandHosts())
	if a, b := testing.AllocsPerRun(2000, two), testing.AllocsPerRun(2000, thousand); b > a+1 {
		t.Errorf("%v allocations with two hosts, and %v with a thousand", a, b)
	}
}
