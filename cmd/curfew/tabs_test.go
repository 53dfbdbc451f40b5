package main

import (
	"fmt"
	"html"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"example.com/curfew/internal/chromium"
	"example.com/curfew/internal/servers"
	"example.com/curfew/keyring"
	"example.com/curfew/oidc/oidctest"
)

// tabSite is the site of the tests of open tabs.
const tabSite = "http://app.localhost:4180"

// tabbed are replicas of a gateway in front of an app, which share a store. The provider and operators use the last.
type tabbed struct {
	*operated
	replicas []*gateway
}

// newTabbed starts replicas in front of an app. A nil app says who is signed in, on pages that allow only scripts and
// event streams of this site.
func newTabbed(t *testing.T, replicas int, settings string, app http.HandlerFunc) *tabbed {
	t.Helper()
	var serial atomic.Int64
	if app == nil {
		app = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("Content-Security-Policy",
				"default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:")
			name := html.EscapeString(r.Header.Get("X-Auth-Subject"))
			fmt.Fprintf(w, `<!doctype html><html lang="en"><head><title>Notes of %s</title>`+
				`<link rel="icon" href="data:,"></head><body><main><h1>Notes</h1>`+
				`<p id="secret">private words of %s</p>`+
				`<p id="serial">%d</p><a href="/next">next</a>`+
				`<form method="post" action="/auth/logout"><button>Sign out</button></form>`+
				`</main></body></html>`, name, name, serial.Add(1))
		}
	}
	upstream := httptest.NewServer(app)
	t.Cleanup(upstream.Close)
	op := oidctest.Start(t, oidctest.Config{AutoLogin: "alice", Clients: []oidctest.Client{{ID: "app", Secret: "geheim",
		RedirectURIs: []string{tabSite + "/auth/callback"}, PostLogoutRedirectURIs: []string{
			tabSite + "/auth/logout/callback"}}}})
	// A revocation takes all tokens of the sign-in at the provider, also those of a next session that is under way.
	op.Override(oidctest.Revoke, oidctest.Status(http.StatusOK))
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	backend := "sqlite:" + filepath.Join(dir, "curfew.db")
	if replicas > 1 {
		backend = servers.Redis(t, "--appendfsync", "always").URL
	}
	args := []string{"--url", tabSite, "--issuer", op.Issuer(), "--client-id", "app",
		"--client-secret-file", write("secret", "geheim"), "--store", backend,
		"--key-file", write("curfew.key", string(keyring.NewFile())), "--upstream", upstream.URL,
		"--config", write("curfew.yaml", settings)}
	s := &tabbed{}
	for range replicas {
		s.replicas = append(s.replicas, startGateway(t, args...))
	}
	s.operated = &operated{s.replicas[replicas-1], t, op, ""}
	return s
}

// browser starts a browser for which the site is at one of the replicas. Its log is watched for faults.
func (s *tabbed) browser(replica int) *screen {
	s.t.Helper()
	ctx := chromium.Start(s.t, browserPatience, "open tabs were not tried in a browser",
		chromedp.Flag("host-resolver-rules", "MAP app.localhost:4180 "+s.replicas[replica].public))
	chromium.Watch(s.t, ctx)
	return &screen{s.t, ctx, tabSite}
}

// another opens another tab of the same browser; with own cookies it is one of somebody else.
func (s *screen) another(own bool) *screen {
	s.t.Helper()
	var options []chromedp.ContextOption
	if own {
		options = append(options, chromedp.WithNewBrowserContext())
	}
	ctx, cancel := chromedp.NewContext(s.ctx, options...)
	s.t.Cleanup(cancel)
	chromium.Watch(s.t, ctx)
	return &screen{s.t, ctx, s.base}
}

// front brings a tab to the front.
func (s *screen) front() {
	s.t.Helper()
	if _, err := chromedp.Call(s.ctx, page.BringToFront, cdp.Empty{}); err != nil {
		s.t.Fatal(err)
	}
}

const (
	listens = `(navigator.locks.query().then((all) => { window.listens = all.held.some((l) => ` +
		`l.name.startsWith("curfew ")) }), window.listens)`
	covered = `document.querySelector("curfew-ended")?.shadowRoot.querySelector("dialog")?.open && ` +
		`getComputedStyle(document.querySelector("#secret")).visibility === "hidden" && ` +
		`getComputedStyle(document.body).opacity === "0"`
	plainlyShown = `getComputedStyle(document.querySelector("#secret")).visibility === "visible"`
)

// sees waits for an expression to be true, on whatever page there is by then.
func (s *screen) sees(expression string) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last := ""
	for end := time.Now().Add(pagePatience / 2); time.Now().Before(end); <-tick.C {
		// On the way from one page to the next there is none to ask.
		is, err := chromedp.Run(s.ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && is {
			return
		}
		shows, err := chromedp.Run(s.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
		if err == nil {
			last = shows
		}
	}
	s.t.Fatalf("waited in vain for %s\nThe page shows %s", expression, last)
}

// goes runs what leads to a page that the browser has in memory, at once. The browser answers before it leaves the
// page: a statement whose page is gone is an error.
func (s *screen) goes(statement string) {
	s.t.Helper()
	s.text("setTimeout(() => " + statement + ")")
}

// shows waits until the tab shows the page of somebody, and has it note when it is told that the session has ended.
func (s *screen) shows(who string) {
	s.t.Helper()
	s.sees(fmt.Sprintf(`document.querySelector("#secret")?.textContent === "private words of %s" && `+
		`document.querySelector("script[data-session]") && `+listens, who))
	s.text(`document.addEventListener("curfew:ended", (e) => { window.told = Date.now(); ` +
		`window.cause = e.detail.cause; })`)
}

// told waits until the tab is covered, and returns how long after that it was told why.
func (s *screen) toldAfter(began time.Time, cause string) time.Duration {
	s.t.Helper()
	s.sees(covered)
	if got := s.text("window.cause"); got != cause {
		s.t.Errorf("the tab was told %q, want %q", got, cause)
	}
	var at int64
	fmt.Sscan(s.text("window.told"), &at)
	return time.UnixMilli(at).Sub(began)
}

func (s *screen) wantUntold() {
	s.t.Helper()
	if s.text("window.told") != "undefined" || s.text(covered) == "true" {
		s.t.Errorf("a tab of another session was told: %s", s.text("window.cause"))
	}
}

// Two replicas, two browsers, two people: the tabs of a session that ends, however, are covered, within a second on a
// machine that is not busy, and no other tab is.
func TestOpenTabsAreCoveredWhenTheirSessionEndsAndNoOthers(t *testing.T) {
	t.Parallel()
	s := newTabbed(t, 2, "tabs: overlay\n", nil)
	first := s.browser(0)
	first.open("/")
	first.shows("alice")
	sid := s.list("--sub", "alice")[0].SID
	id := s.list("--sub", "alice")[0].ID
	second := first.another(false)
	second.open("/second")
	second.shows("alice")

	laptop := s.browser(1)
	laptop.open("/")
	laptop.shows("alice")
	bob := laptop.another(true)
	bob.open("/auth/login?login_hint=bob")
	bob.shows("bob")

	// The provider's logout token comes to the other replica.
	began := time.Now()
	if status, body := s.logout(t, s.op.SignLogoutToken("app", "alice", sid)); status != http.StatusOK {
		t.Fatalf("the logout token was answered %d %s", status, body)
	}
	t.Logf("tabs are told of a logout token at the other replica after %v and %v",
		first.toldAfter(began, "backchannel"), second.toldAfter(began, "backchannel"))
	if got := first.text("document.title"); got != "You are signed out" {
		t.Errorf("the title of the tab is %q", got)
	}
	laptop.wantUntold()
	bob.wantUntold()

	// An operator ends the session of the other browser.
	for _, one := range s.list("--sub", "alice") {
		if one.ID != id {
			began = time.Now()
			s.want(0, "session", "end", one.ID)
		}
	}
	t.Logf("a tab is told of an operator's ending after %v", laptop.toldAfter(began, "admin"))
	bob.wantUntold()

	// The notice is a dialog that the Escape key does not close, and its button leads back in.
	first.front() // a tab behind another gets no keys
	first.do(chromedp.KeyEvent("\x1b"), chromedp.KeyEvent("\x1b"))
	first.sees(covered)
	shot(t, first, "tab-signed-out")
	first.text(`document.querySelector("curfew-ended").shadowRoot.querySelector("button").click()`)
	first.shows("alice")
	first.wantUntold()

	// Somebody else signs in in the same browser: the tabs of before are out of date.
	tab := bob.another(false)
	tab.open("/auth/login?login_hint=carol&prompt=login")
	tab.shows("carol")
	bob.toldAfter(began, "replaced")
	tab.wantUntold()
}

// The notice is in the language of the browser and in the colours of the pages, whatever the style sheet of the app
// does to everything, and axe-core finds no fault in it.
func TestTheNoticeOfATabLooksAndSpeaksAsThePagesDo(t *testing.T) {
	t.Parallel()
	s := newTabbed(t, 1, "tabs: overlay\nlook:\n  colors: {accent: \"#0b6e4f\"}\n  colors_dark: {accent: \"#7fd6b5\"}\n",
		func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("Content-Security-Policy",
				"default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:; style-src 'nonce-x'; "+
					"require-trusted-types-for 'script'")
			fmt.Fprintf(w, `<!doctype html><html lang="en" dir="rtl"><head><title>Notes</title><link rel="icon" href="data:,">`+
				`<style nonce="x">*, ::backdrop, curfew-ended { --ink: red !important; --paper: red !important; `+
				`--accent: red; color: red; background: red; font: 90px monospace }</style></head>`+
				`<body><main><h1>Notes</h1><p id="secret">private words of %s</p></main></body></html>`,
				html.EscapeString(r.Header.Get("X-Auth-Subject")))
		})
	for _, c := range []struct {
		language, scheme     string
		width                int64
		title, text, action  string
		paper, ink, on, main string
	}{
		{"fr-CA,fr", "dark", 360, "Vous êtes déconnecté",
			"Une personne qui gère ce site, ou vous-même sur un autre appareil, a mis fin à cette session.",
			"Se reconnecter", "rgb(18, 20, 27)", "rgb(233, 231, 225)", "rgb(20, 23, 42)", "rgb(127, 214, 181)"},
		{"en-US,en", "light", 1280, "You are signed out",
			"Somebody who runs this site, or you yourself on another device, ended this session.",
			"Sign in again", "rgb(244, 243, 239)", "rgb(35, 38, 47)", "rgb(255, 255, 255)", "rgb(11, 110, 79)"},
	} {
		ctx := chromium.Start(t, browserPatience, "the notice of a tab was not looked at",
			chromedp.Flag("host-resolver-rules", "MAP app.localhost:4180 "+s.replicas[0].public),
			chromedp.Flag("accept-lang", c.language))
		chromium.Watch(t, ctx)
		tab := &screen{t, ctx, tabSite}
		tab.do(chromedp.EmulateViewport(c.width, 800))
		if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: c.scheme}}}); err != nil {
			t.Fatal(err)
		}
		tab.open("/")
		tab.shows("alice")
		s.want(0, "session", "end", s.list("--sub", "alice")[0].ID)
		tab.sees(covered)
		const inside = `document.querySelector("curfew-ended").shadowRoot.querySelector`
		style := func(what, property string) string {
			return fmt.Sprintf(`getComputedStyle(%s(%q)).%s`, inside, what, property)
		}
		for expression, want := range map[string]string{
			inside + `("h1").textContent`: c.title, inside + `("p").textContent`: c.text,
			inside + `("button").textContent`: c.action, `document.title`: c.title,
			inside + `("dialog").lang`: c.language[:2], inside + `("dialog").dir`: "ltr",
			style("dialog", "direction"): "ltr", style("dialog", "backgroundColor"): c.paper, style("dialog", "color"): c.ink,
			style("h1", "fontSize"): "25.6px", style("button", "color"): c.on, style("button", "backgroundColor"): c.main,
			fmt.Sprintf(`getComputedStyle(%s("dialog"), "::backdrop").backgroundColor`, inside): c.paper,
			inside + `("dialog").scrollWidth <= innerWidth`:                                     "true",
		} {
			if got := tab.text(expression); got != want {
				t.Errorf("%s: %s is %q, want %q", c.language, expression, got, want)
			}
		}
		if found := chromium.Axe(t, ctx, "../.."); found != "" {
			t.Errorf("%s: axe finds\n%s", c.language, found)
		}
		shot(t, tab, "tab-signed-out-"+c.language[:2])
	}
}

// A tab that the browser had put away, and one that it shows again after the Back button, show nothing of somebody who
// is signed out meanwhile.
func TestATabThatComesBackShowsNothingOfBefore(t *testing.T) {
	t.Parallel()
	s := newTabbed(t, 1, "tabs: overlay\n", nil)
	tab := s.browser(0)
	tab.open("/")
	tab.shows("alice")
	tab.text(`window.same = 1`)
	tab.open("/next")
	tab.shows("alice")

	// While the session lives, Back shows the page as it was, from the browser's memory.
	tab.goes(`history.back()`)
	tab.sees(`location.pathname === "/" && ` + plainlyShown)
	t.Logf("the page came from the back-forward cache: %s", tab.text(`window.same === 1`))
	tab.goes(`history.forward()`)
	tab.sees(`location.pathname === "/next" && ` + plainlyShown)

	tab.do(chromedp.Navigate("about:blank"))
	s.want(0, "session", "end", s.list("--sub", "alice")[0].ID)
	tab.goes(`history.back()`)
	tab.sees(`location.pathname === "/next" && (` + covered + `)`)
}

// A path may begin with two slashes, as in https://app//elsewhere/: the button leads back to it, and not to elsewhere.
func TestTheButtonOfTheNoticeStaysOnTheSite(t *testing.T) {
	t.Parallel()
	s := newTabbed(t, 1, "tabs: overlay\n", nil)
	tab := s.browser(0)
	tab.open("/")
	tab.shows("alice")
	tab.open("//elsewhere.localhost:9/login?a=b")
	tab.shows("alice")
	s.want(0, "session", "end", s.list("--sub", "alice")[0].ID)
	tab.sees(covered)
	tab.goes(`document.querySelector("curfew-ended").shadowRoot.querySelector("button").click()`)
	tab.sees(`!document.querySelector("curfew-ended")`)
	tab.shows("alice")
	if got := tab.text("location.origin"); got != tabSite {
		t.Errorf("the button leads to %s, want %s", got, tabSite)
	}
}

// Without JavaScript a page stays until the next click, which leads to the sign-in.
func TestWithoutJavaScriptTheNextClickAsksToSignIn(t *testing.T) {
	t.Parallel()
	s := newTabbed(t, 1, "tabs: overlay\n", nil)
	tab := s.browser(0)
	if _, err := chromedp.Call(tab.ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	tab.open("/")
	tab.sees(`document.querySelector("#secret")?.textContent === "private words of alice"`)
	before := s.list("--sub", "alice")[0].ID
	s.want(0, "session", "end", before)
	// chromedp.Click asks the page itself if the link is visible.
	var x, y float64
	fmt.Sscan(tab.text(`Object.values(document.querySelector("a").getClientRects()[0].toJSON()).slice(0, 2).join(" ")`),
		&x, &y)
	tab.do(chromedp.MouseClickXY(x+2, y+2))
	tab.sees(`location.pathname === "/next" && document.querySelector("#secret")`) // the provider signs in again
	if all := s.list("--sub", "alice"); len(all) != 1 || all[0].ID == before {
		t.Errorf("the click led to the page without another sign-in: %+v", all)
	}
}

// Each mode does what it says, and the app can do something else.
func TestWhatATabDoesIsTheAppsChoice(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]string{
		"overlay":  covered,
		"reload":   `document.querySelector("#secret")?.textContent === "private words of alice" && !window.told`,
		"redirect": `location.pathname === "/auth/logout"`,
		"event": `window.cause === "admin" && !document.querySelector("curfew-ended") && ` +
			`document.adoptedStyleSheets.length === 0`,
	} {
		t.Run(mode, func(t *testing.T) {
			s := newTabbed(t, 1, "tabs: "+mode+"\n", nil)
			tab := s.browser(0)
			tab.open("/")
			tab.shows("alice")
			tab.text(`window.before = 1`)
			s.want(0, "session", "end", s.list("--sub", "alice")[0].ID)
			tab.sees(want)
			if mode == "reload" {
				tab.sees(`!window.before`)
			}
		})
	}
}

// After a sign-out the Back button shows nothing of before: with the script the page comes back covered, and with
// no_store it does not come back at all.
func TestTheBackButtonShowsNothingAfterASignOut(t *testing.T) {
	t.Parallel()
	for settings, safe := range map[string]bool{
		"tabs: overlay\n":                 true,
		"no_store: true\n":                true,
		"no_store: true\ntabs: overlay\n": true,
		"":                                false, // docs/tabs.md says so
	} {
		t.Run(strings.ReplaceAll(settings, "\n", " "), func(t *testing.T) {
			s := newTabbed(t, 1, settings, nil)
			tab := s.browser(0)
			tab.open("/")
			if strings.Contains(settings, "tabs") {
				tab.shows("alice")
			} else {
				tab.sees(`document.querySelector("#secret")?.textContent === "private words of alice"`)
			}
			serial := tab.text(`document.querySelector("#serial").textContent`)
			tab.text(`document.querySelector("form button").click()`)
			tab.sees(`location.pathname === "/auth/logout/callback" && document.querySelector("h1")`)
			tab.goes(`history.back()`)
			tab.sees(`location.pathname === "/" && document.querySelector("#secret")`)
			page := `document.querySelector("#serial").textContent === ` + fmt.Sprintf("%q", serial)
			if safe {
				tab.sees(`!(` + page + `) || ` + covered)
			}
			t.Logf("the page of before: %s; covered: %s", tab.text(page), tab.text(covered))
		})
	}
}

// A shared cache in front, which keeps whatever it may, gives nobody the page of somebody else.
func TestASharedCacheGivesNobodyThePageOfSomebodyElse(t *testing.T) {
	t.Parallel()
	nginx := ""
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			nginx = path
		}
	}
	if nginx == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("nginx is missing")
		}
		t.Skip("NOT TESTED: no nginx on this machine, so no shared cache was tried")
	}
	headers := map[string]http.Header{"/silent": {}, "/public": {"Cache-Control": {"public, max-age=600"}},
		"/shared": {"Cache-Control": {"s-maxage=600"}}, "/age": {"Cache-Control": {"max-age=600"}},
		"/accel": {"X-Accel-Expires": {"600"}, "Cache-Control": {"private"}}}
	s := newTabbed(t, 1, "", func(w http.ResponseWriter, r *http.Request) {
		for name, values := range headers[r.URL.Path] {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<link rel="icon" href="data:,"><p id="secret">private words of %s</p>`,
			html.EscapeString(r.Header.Get("X-Auth-Subject")))
	})
	dir := t.TempDir()
	port := servers.Port(t)
	conf := fmt.Sprintf(`daemon off; master_process off; pid nginx.pid; error_log stderr;
events {}
http {
	access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi; scgi_temp_path scgi; proxy_cache_path cache keys_zone=all:1m;
	server {
		listen 127.0.0.1:%d;
		location / {
			proxy_pass http://%s; proxy_set_header Host $http_host;
			proxy_cache all; proxy_cache_valid 200 10m;
		}
	}
}`, port, s.public)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(nginx, "-p", dir, "-c", "nginx.conf", "-e", "stderr")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	front := fmt.Sprintf("127.0.0.1:%d", port)
	eventually(t, "nginx listens", func() bool {
		conn, err := net.DialTimeout("tcp", front, time.Second)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	ctx := chromium.Start(t, browserPatience, "no shared cache was tried in a browser",
		chromedp.Flag("host-resolver-rules", "MAP app.localhost:4180 "+front))
	alice := &screen{t, ctx, tabSite}
	alice.open("/auth/login?login_hint=alice")
	for path := range headers {
		for range 2 {
			alice.open(path)
			alice.sees(`document.querySelector("#secret")?.textContent === "private words of alice"`)
		}
	}
	bob := alice.another(true)
	bob.open("/auth/login?login_hint=bob")
	for path := range headers {
		bob.open(path)
		bob.sees(`document.querySelector("#secret")?.textContent === "private words of bob"`)
		resp, err := s.client.Get("http://" + front + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s, a stranger: %s", path, resp.Status)
		}
	}
}
