package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"example.com/curfew/gateway"
)

func TestAPageWithoutAnAnswerOfTheAppHasAWayOn(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	st.app.Close()
	const again, home, out = `<a href="/deep?a=b">Try again</a>`, `<a href="/">Go to the first page</a>`, `action="/auth/logout"`
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
	if err != nil {
		t.Fatal(err)
	}
	st.front = router
	if resp, body := st.send("GET", "/deep", "Cookie", cookie(b), "Accept", "text/html"); resp.StatusCode != 404 || !strings.Contains(body, home) || !strings.Contains(body, out) {
		t.Errorf("no route: %d %s", resp.StatusCode, body)
	}
}

func TestAtDebugEachRequestThatIsLetInIsOneLine(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/public/*", Public: true}, gateway.Rule{Path: "/admin/*"})
	b, s := st.signIn(nil)
	require := st.gateway.Require(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	asked := func() *http.Request {
		r := httptest.NewRequest("GET", "/admin/x?secret=1", nil)
		r.Host = st.gateway.Site.URL.Host
		r.Header.Set("Cookie", cookie(b))
		return r
	}
	for surface, do := range map[string]func(){
		"proxy":     func() { st.send("GET", "/admin/x?secret=1", "Cookie", cookie(b)) },
		"require":   func() { require.ServeHTTP(httptest.NewRecorder(), asked()) },
		"ext_authz": func() { st.gateway.Ask(asked()) },
		"verify": func() {
			st.ask("X-Forwarded-Uri", "/admin/x?secret=1", "X-Forwarded-Method", "GET", "Cookie", cookie(b))
		},
	} {
		before := st.logs.String()
		do()
		said := strings.TrimPrefix(st.logs.String(), before)
		if strings.Count(said, `"event":"let_in"`) != 1 || !strings.Contains(said, `"surface":"`+surface+`"`) || !strings.Contains(said, `"session":"`+s.Key.Handle()+`"`) ||
			!strings.Contains(said, `"sub":"alice"`) || !strings.Contains(said, `"rule":2`) || strings.Contains(said, "secret") || !strings.Contains(said, "/admin/x") {
			t.Errorf("%s: %s", surface, said)
		}
	}
	before := st.logs.String()
	st.send("GET", "/public/x")
	st.send("GET", "/admin/x")
	if said := strings.TrimPrefix(st.logs.String(), before); strings.Count(said, `"event":"let_in"`) != 1 || !strings.Contains(said, `"rule":1`) || strings.Contains(said, `"session"`) {
		t.Errorf("nobody: %s", said)
	}
}
