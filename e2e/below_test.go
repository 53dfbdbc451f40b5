package e2e_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
)

// An app at /wiki of a host whose other paths are another app's, with a Curfew of its own and the settings that the
// documentation gives: they share a host and a browser's cookies, and nothing else.
func TestAnAppBelowAnotherHasASignInOfItsOwn(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)### An app below another.*?```yaml\n(.*?)```").FindSubmatch(text)
	if block == nil {
		t.Fatal("the documentation no longer says how an app lives below another")
	}
	p, gs := world(t, "app", "wiki")
	whole, wiki := gs[0], gs[1]
	front := http.NewServeMux()
	for path, g := range map[string]*gateway{"/": whole, "/wiki/": wiki} {
		front.Handle(path, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: g.listen})
			r.Out.Host = r.In.Host
		}})
	}
	server := httptest.NewServer(front)
	t.Cleanup(server.Close)
	site := server.URL
	for _, g := range gs {
		g.url = site
		g.set("--url", site)
	}
	said := strings.NewReplacer("https://example.com", site, "http://127.0.0.1:3000", app(t)).Replace(string(block[1]))
	wiki.flags = append([]string{"--config", wiki.write(t, "curfew.yaml", said)}, wiki.flags...)
	wiki.more = map[string]any{"redirect_uris": []string{site + "/wiki/auth/callback"},
		"post_logout_redirect_uris": []string{site + "/wiki/auth/logout/callback"},
		"backchannel_logout_uri":    site + "/wiki/auth/backchannel-logout"}
	p.start(t)
	whole.start(t)
	wiki.start(t)

	alice := newBrowser("alice's browser")
	in := func(path, login string) {
		t.Helper()
		page, _ := alice.open(t, site+path, login)
		var s seen
		if err := json.Unmarshal([]byte(page.body), &s); err != nil || s.Path != path ||
			s.Header.Get("X-Auth-Subject") != "alice" || strings.Contains(s.Header.Get("Cookie"), "curfew") {
			t.Fatalf("the app at %s: %v %v", path, err, page)
		}
	}
	out := func(path, login string) {
		t.Helper()
		if page := alice.get(t, site+path); page.status != http.StatusSeeOther || page.location.Path != login {
			t.Errorf("%s should lead to %s: %v", path, login, page)
		}
	}
	in("/a?b=c", "alice")
	out("/wiki/a?b=c", "/wiki/auth/login")
	in("/wiki/a?b=c", "nobody is asked")

	// Signed in without a page in mind.
	if page, _ := alice.open(t, site+"/wiki/auth/login", ""); page.url.Path != "/wiki/" {
		t.Errorf("a sign-in for no page should lead to /wiki/: %v", page)
	}
	from := p.said()
	alice.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.success", whole)
	p.loggedOut(t, from, "backchannel.success", wiki)
	out("/a", "/auth/login")
	out("/wiki/a", "/wiki/auth/login")

	// A sign-out at the wiki ends its session, there and by the provider the other one.
	in("/wiki/a", "alice")
	in("/a", "nobody is asked")
	page := alice.submit(t, alice.get(t, site+"/wiki/auth/logout"), url.Values{})
	out("/wiki/a", "/wiki/auth/login")
	in("/a", "nobody is asked")
	if page = alice.follow(t, alice.confirm(t, alice.follow(t, page))); page.status != http.StatusOK ||
		!strings.HasPrefix(page.url.Path, "/wiki/") || strings.Contains(page.body, `href="/"`) {
		t.Errorf("the sign-out of the wiki ends on a page of its own, which leads back to it: %v", page)
	}
}
