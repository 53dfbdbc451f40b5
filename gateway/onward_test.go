package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/web"
)

func TestAPageWithoutAnAnswerOfTheAppHasAWayOn(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	st.app.Close()
	const again, home, out = `<a href="/deep?a=b">Try again</a>`, `<a href="/">Go to the first page</a>`,
		`action="/auth/logout"`
	for name, row := range map[string]struct {
		method, path string
		has, hasNot  []string
	}{
		"a page":                 {"GET", "/deep?a=b", []string{again, home, out}, nil},
		"the first page":         {"GET", "/", []string{`<a href="/">Try again</a>`, out}, []string{home}},
		"a form":                 {"POST", "/deep?a=b", []string{home, out}, []string{"Try again"}},
		"a path to another site": {"GET", "//evil.example/", []string{home, out}, []string{"Try again", "evil"}},
	} {
		resp, body := st.send(row.method, row.path, "Cookie", cookie(b), "Accept", "text/html")
		if resp.StatusCode != http.StatusBadGateway {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
		for _, want := range row.has {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %s in %s", name, want, body)
			}
		}
		for _, no := range row.hasNot {
			if strings.Contains(body, no) {
				t.Errorf("%s: %s in %s", name, no, body)
			}
		}
	}
	app, _ := url.Parse(st.app.URL)
	router, err := st.gateway.Route(gateway.Route{Path: "/a/*", Upstream: gateway.Upstream{URL: app}})
	rig.Must(t, err)
	st.front = router
	if resp, body := st.send("GET", "/deep", "Cookie", cookie(b), "Accept", "text/html"); resp.StatusCode != 404 ||
		!strings.Contains(body, home) || !strings.Contains(body, out) {
		t.Errorf("no route: %d %s", resp.StatusCode, body)
	}
}

func TestWhomARuleRefusesMayTakeAnotherAccountOrSignOut(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/admin/*", Groups: []string{"admins"}})
	b, _ := st.signIn(nil)
	resp, body := st.send("GET", "/admin/x?a=b", "Cookie", cookie(b), "Accept", "text/html")
	for _, want := range []string{`href="/auth/login?prompt=select_account&amp;return_to=%2Fadmin%2Fx%3Fa%3Db"`,
		`<form method="post" action="/auth/logout">`} {
		if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, want) {
			t.Errorf("%d, no %s in %s", resp.StatusCode, want, body)
		}
	}
}

func TestAtDebugEachRequestThatIsLetInIsOneLine(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/public/*", Public: true}, gateway.Rule{Path: "/admin/*"})
	b, s := st.signIn(nil)
	ids, inner := map[string]bool{}, []string(nil)
	require := st.gateway.Require(http.HandlerFunc(func(_ http.ResponseWriter,
		r *http.Request) {
		inner = append(inner, web.RequestID(r.Context()))
	}))
	asked := func() *http.Request {
		r := httptest.NewRequest("GET", "/admin/x?secret=1", nil)
		r.Host = st.gateway.Site.URL.Host
		r.Header.Set("Cookie", cookie(b))
		return r
	}
	for surface, do := range map[string]func(){
		"proxy":     func() { st.send("GET", "/admin/x?secret=1", "Cookie", cookie(b)) },
		"require":   func() { require.ServeHTTP(httptest.NewRecorder(), asked()) },
		"ext_authz": func() { st.gateway.Decide(asked()) },
		"verify": func() {
			st.ask("X-Forwarded-Uri", "/admin/x?secret=1", "X-Forwarded-Method", "GET", "Cookie", cookie(b))
		},
	} {
		before := st.Log.String()
		do()
		said := strings.TrimPrefix(st.Log.String(), before)
		if strings.Count(said, `"event":"request_allowed"`) != 1 || !strings.Contains(said, `"surface":"`+surface+`"`) ||
			!strings.Contains(said, `"session":"`+s.Key.Handle()+`"`) ||
			!strings.Contains(said, `"sub":"alice"`) || !strings.Contains(said, `"rule":2`) ||
			strings.Contains(said, "secret") || !strings.Contains(said, "/admin/x") {
			t.Errorf("%s: %s", surface, said)
		}
		id := regexp.MustCompile(`"event":"request_allowed","request_id":"(\w{20,})"`).FindStringSubmatch(said)
		if id == nil || ids[id[1]] {
			t.Errorf("%s: no id of its own: %s", surface, said)
		} else {
			ids[id[1]] = true
		}
	}
	if len(inner) != 1 || !ids[inner[0]] {
		t.Errorf("the handler is told the ids %q, and the log %v", inner, ids)
	}
	before := st.Log.String()
	st.send("GET", "/public/x")
	st.send("GET", "/admin/x")
	if said := strings.TrimPrefix(st.Log.String(), before); strings.Count(said, `"event":"request_allowed"`) != 1 ||
		!strings.Contains(said, `"rule":1`) || strings.Contains(said, `"session"`) {
		t.Errorf("nobody: %s", said)
	}
	st.app.Close() // the answer that there is none has the id under which the request was let in
	_, body := st.send("GET", "/admin/x", "Cookie", cookie(b), "Accept", "text/html")
	lines := regexp.MustCompile(`"request_id":"(\w+)"`).FindAllStringSubmatch(st.Log.String(), -1)
	if n := len(lines); n < 2 || lines[n-1][1] != lines[n-2][1] || !strings.Contains(body, lines[n-1][1]) {
		t.Errorf("the ids are %q, and the page is %s", lines, body)
	}
}
