package curfew_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"example.com/curfew"
	"example.com/curfew/gateway"
	"example.com/curfew/internal/chromium"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/web"
)

// browserPatience bounds a browser that hangs. Nothing waits for it to pass.
const browserPatience = 10 * time.Minute

// screen is Chromium in front of an app.
type screen struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu     sync.Mutex
	faults []string
}

func openScreen(t *testing.T, base string) *screen {
	t.Helper()
	s := &screen{t: t, ctx: chromium.Start(t, browserPatience, "the pages for people were not looked at"), base: base}
	if _, err := chromedp.Call(s.ctx, log.Enable, cdp.Empty{}); err != nil { // starts the browser
		t.Fatal(err)
	}
	add := func(text string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = append(s.faults, text)
	}
	if err := chromedp.Listen(s.ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			add(ev.ExceptionDetails.Text + " " + ev.ExceptionDetails.URL)
		case *log.EventEntryAdded:
			// The browser logs the status of an error page too, which is as it should be.
			if ev.Entry.Level == log.EntryLevelError && !strings.Contains(ev.Entry.Text, "responded with a status of") {
				add(ev.Entry.Text + " " + ev.Entry.URL)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

// clean fails if the browser has complained since the last time.
func (s *screen) clean(where string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fault := range s.faults {
		s.t.Errorf("%s: the browser complains: %s", where, fault)
	}
	s.faults = nil
}

func (s *screen) do(steps ...chromedp.Action[chromedp.Void]) {
	s.t.Helper()
	if err := chromedp.Do(s.ctx, steps...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) open(to string) {
	s.t.Helper()
	if strings.HasPrefix(to, "/") {
		to = s.base + to
	}
	s.do(chromedp.Navigate(to))
}

func (s *screen) text(expression string) string {
	s.t.Helper()
	text, err := chromedp.Run(s.ctx, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		s.t.Fatalf("%s: %v", expression, err)
	}
	return text
}

// until waits for an expression to be true, on this page or on the one that it leads to.
func (s *screen) until(expression string) {
	s.t.Helper()
	rig.Poll(s.t, expression, func() bool {
		text, err := chromedp.Run(s.ctx, chromedp.Evaluate[string]("String("+expression+")"))
		return err == nil && text == "true" // a page that is being left has no answer
	})
}

// wear sets what the browser prefers.
func (s *screen) wear(width int64, scheme, language string) {
	s.t.Helper()
	s.do(chromedp.EmulateViewport(width, 800))
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme",
		Value: scheme}}}
	_, err := chromedp.Call(s.ctx, emulation.SetEmulatedMedia, media)
	if err == nil {
		_, err = chromedp.Call(s.ctx, network.Enable, network.EnableParams{})
	}
	if err == nil {
		_, err = chromedp.Call(s.ctx, network.SetExtraHTTPHeaders,
			network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": language}})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) scripts(on bool) {
	s.t.Helper()
	if _, err := chromedp.Call(s.ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: !on}); err != nil {
		s.t.Fatal(err)
	}
}

// shot keeps a picture of the page, where CURFEW_SHOTS names a folder.
func (s *screen) shot(name string) {
	s.t.Helper()
	dir := os.Getenv("CURFEW_SHOTS")
	if dir == "" {
		return
	}
	picture, err := chromedp.Run(s.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600)
	}
	if err != nil {
		s.t.Error(err)
	}
}

// axe returns the source of axe-core, or "" where it is not installed.
func axe(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile("e2e/axe/node_modules/axe-core/axe.min.js")
	switch {
	case err == nil:
		return string(source)
	case os.Getenv("CI") == "true":
		t.Fatal("axe-core is missing: run `npm ci` in e2e/axe")
	}
	t.Log("NOT TESTED: no axe-core on this machine (run `npm ci` in e2e/axe), so it found no fault in the pages")
	return ""
}

// check looks at a page as axe-core does, and for what no page may have.
func (s *screen) check(where, axe string) {
	s.t.Helper()
	s.until(`document.readyState === "complete"`) // the address of a page is there before its text
	for expression, want := range map[string]string{
		"window.pwned": "undefined",
		"document.documentElement.scrollWidth <= document.documentElement.clientWidth": "true",
		`getComputedStyle(document.querySelector("h1")).display`:                       "block",
		// Isolates are ours: they hold what a stranger wrote together.
		`/[\u202a-\u202e\u2066\u2067\u0000-\u0008\u001b\u200b]/.test(document.body.innerText)`: "false",
		`[...document.querySelectorAll("*")].flatMap((e) => e.getAttributeNames())
			.filter((a) => /^(on|style)/.test(a))`: "",
		`document.querySelectorAll("main").length + document.querySelectorAll("h1").length`: "2",
		`document.documentElement.lang.length`:                                              "2",
		`performance.getEntriesByType("resource").filter((e) => !e.name.startsWith(location.origin) &&
			!e.name.startsWith("data:")).length`: "0",
	} {
		if got := s.text(expression); got != want {
			s.t.Errorf("%s: %s is %q, want %q", where, expression, got, want)
		}
	}
	if axe != "" {
		// Evaluated as the debugger does, which no policy of the page forbids.
		s.text(`(() => { ` + axe + `; return "" })()`)
		found, err := chromedp.Run(s.ctx, chromedp.Evaluate[string](`axe.run().then((r) => r.violations.map((v) =>
			v.id + ": " + v.help + " " + v.nodes.map((n) => n.html + " " + n.any.map((a) => a.message)).join(" | "))
			.join("\n"))`, func(p *runtime.EvaluateParams) { p.AwaitPromise = ptr(true) }))
		if err != nil {
			s.t.Fatalf("%s: axe: %v", where, err)
		}
		if found != "" {
			s.t.Errorf("%s: axe finds\n%s", where, found)
		}
	}
	s.clean(where)
}

func ptr[T any](v T) *T { return &v }

// hostile is what a stranger may write where text is expected.
const hostile = `"><script>window.pwned=1</script><img src=x onerror="window.pwned=1">{{.}}{provider}</main></body>` +
	"<style>*{display:none}" + "\u202eevil\u2066\x00\x07\x1b[31m\u200b"

// long is a name that no layout has room for.
var long = strings.Repeat("n", 10_000)

// newGallery is an app that shows pages of each kind, with two providers, of which one is away.
func newGallery(t *testing.T, change ...func(*curfew.Config)) *app {
	t.Helper()
	gone := oidc.Config{Name: "away", Label: "The “other” provider " + strings.Repeat("w", 60),
		Issuer: "http://127.0.0.1:1", ClientID: "app"}
	policy, err := gateway.NewPolicy(gateway.Rule{Path: "/admin", Groups: []string{"admins"}})
	if err != nil {
		t.Fatal(err)
	}
	change = append([]func(*curfew.Config){func(c *curfew.Config) {
		c.Providers[0].Label = "Northgate ID"
		c.Providers = append(c.Providers, gone)
		c.Policy = policy
		c.Look = web.Look{Name: "Northgate", Footer: "Northgate Ltd, Harbour Street 1", Help: "https://help.example.com",
			Logo: []byte(mark)}
	}}, change...)
	return newApp(t, change...)
}

// mark is a logo that would run a script, if it could.
const mark = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><script>window.pwned=1</script>` +
	`<rect width="40" height="40" rx="10" fill="#0b6e4f" onload="window.pwned=1"/>` +
	`<path d="M10 30V10l20 20V10" fill="none" stroke="#fff" stroke-width="4"/></svg>`

// exhibit is a page that takes more than one request to come to.
func exhibit(a *app) http.Handler {
	site := a.rp.Gateway().Site
	return site.Page(func(w http.ResponseWriter, r *http.Request) error {
		switch r.URL.Path {
		case "/gallery/elsewhere":
			return &web.Failure{Status: http.StatusConflict, Message: web.Message{Title: "You were signed out",
				Text: "A sign-out arrived while you were signing in, so this sign-in was not completed.\n\n" +
					"To continue, sign in again.",
				Actions: []web.Action{{Label: "Sign in again", Href: "/auth/login"}}}}
		case "/gallery/hostile":
			item := web.Item{ID: "one", Title: "{browser} on {system}", Mark: hostile + long,
				Args:  map[string]string{"browser": hostile + long, "system": "\u05d0\u05d1" + hostile},
				Facts: []web.Fact{{Name: hostile, Value: hostile + long}, {Name: "Signed in", Time: time.Unix(1e9, 0)}},
				Actions: []web.Action{{Label: hostile + long, Post: true, Href: "/auth/sessions",
					Form: map[string]string{hostile: hostile}}}}
			site.Render(w, r, http.StatusOK, web.Message{Title: hostile + long, Text: hostile + long + "\n\n" + hostile,
				Note: hostile + long, Done: hostile, Items: []web.Item{item},
				Actions: []web.Action{{Label: hostile + long, Href: "javascript:window.pwned=1"}}})
		case "/gallery/submit":
			site.Render(w, r, http.StatusOK, web.Message{Title: "You are signed in", Text: "Continue to {host}.",
				Args: map[string]string{"host": "wiki.example.com"}, Submit: true,
				Actions: []web.Action{{Label: "Continue", Post: true, Href: "/gallery/submitted",
					Form: map[string]string{"code": hostile}}}})
		case "/gallery/submitted":
			site.Render(w, r, http.StatusOK, web.Message{Title: "It arrived", Text: r.PostFormValue("code")})
		}
		return nil
	})
}

func TestThePagesForPeopleInABrowser(t *testing.T) {
	t.Parallel()
	a := newGallery(t)
	a.op.Mangle(func(m *oidctest.Mangle) {
		m.IDToken = func(j *oidctest.JWT) { j.Claims["name"] = hostile + long }
	})
	gallery := exhibit(a)
	a.server.Config.Handler.(*http.ServeMux).Handle("/gallery/", gallery)
	checker := axe(t)
	s := openScreen(t, a.server.URL)

	// Others of alice, one with a name that a stranger chose.
	// A header cannot hold control characters.
	inHeader := strings.NewReplacer("\x00", "\u200b", "\x07", "\u2028", "\x1b", "\u2029").Replace(hostile)
	for _, agent := range []string{inHeader + long, "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) " +
		"AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"} {
		a.signInAs(agent)
	}
	errorText := url.Values{"error": {hostile + long}, "error_description": {hostile + long}}.Encode()
	public := map[string]string{
		"chooser": "/auth/login", "failed": "/auth/callback?" + errorText, "away": "/auth/login?provider=away",
		"elsewhere": "/gallery/elsewhere", "hostile": "/gallery/hostile", "not-found": "/auth/nothing",
		"not-signed-in": "/auth/logout", "malformed": "/auth/login?prompt=" + url.QueryEscape(hostile),
	}
	private := map[string]string{"sessions": "/auth/sessions", "sessions-ended": "/auth/sessions?ended=3",
		"sessions-hostile": "/auth/sessions?ended=" + url.QueryEscape(hostile), "confirm": "/auth/logout",
		"forbidden": "/admin"}
	// Without scripts every page must be whole, too. axe-core is one.
	plain := func(pages map[string]string) {
		s.wear(360, "dark", "fr")
		s.scripts(false)
		for name, path := range pages {
			if name != "not-signed-in" { // which leads elsewhere
				s.open(path)
				s.check(name+" without scripts", "")
			}
		}
		s.scripts(true)
	}
	look := func(pages map[string]string) {
		for _, dress := range []struct {
			width            int64
			scheme, language string
		}{{1280, "light", "en"}, {360, "dark", "fr-CA,fr;q=0.9,en;q=0.5"}, {360, "light", "en"}} {
			s.wear(dress.width, dress.scheme, dress.language)
			for name, path := range pages {
				where := fmt.Sprintf("%s-%d-%s-%s", name, dress.width, dress.scheme, dress.language[:2])
				s.open(path)
				s.check(where, checker)
				if got := s.text("document.documentElement.lang"); got != dress.language[:2] {
					t.Errorf("%s: the page is in %q", where, got)
				}
				s.shot(where)
			}
		}
	}
	look(public)
	plain(public)
	s.wear(1280, "light", "en")
	s.open("/auth/login?provider=" + a.providerName() + "&return_to=/auth/sessions")
	s.until(`location.pathname === "/auth/sessions"`)
	look(private)
	plain(private)

	// By keyboard alone: each action is a stop that can be seen.
	s.wear(1280, "light", "en")
	s.open("/auth/sessions")
	s.do(chromedp.KeyEvent("\t"))
	if got := s.text(`document.activeElement.tagName + getComputedStyle(document.activeElement).outlineStyle`); got !=
		"BUTTONsolid" {
		t.Errorf("the first stop of the keyboard is %q", got)
	}

	// With scripts: the session goes from the list without a new page, and that is announced.
	s.text(`(window.sameDocument = true)`)
	s.until(`document.querySelectorAll("li").length === 3`)
	if got := s.text(`document.querySelector("time").textContent.includes("UTC")`); got != "false" {
		t.Error("the script did not show times as the browser does")
	}
	s.do(chromedp.Click(`li:last-child button`))
	s.until(`document.querySelectorAll("li").length === 2`)
	if got := s.text(`window.sameDocument + " " + document.getElementById("done").textContent`); got !=
		"true The session has ended." {
		t.Errorf("after the end of a session: %q", got)
	}
	s.check("after the end of a session", checker)

	// Without: the page comes anew. A form that submits itself waits for its button.
	s.scripts(false)
	s.open("/auth/sessions")
	s.check("without scripts", "")
	s.do(chromedp.Click(`.actions form button`))
	s.until(`location.search === "?ended=1" && document.querySelectorAll("li").length === 1`)
	s.check("after the end of all others", "")
	s.open("/gallery/submit")
	s.check("a form that submits itself, without scripts", "")
	s.do(chromedp.Click(`.actions form button`))
	s.until(`location.pathname === "/gallery/submitted"`)
	s.scripts(true)
	s.open("/gallery/submit")
	s.until(`location.pathname === "/gallery/submitted"`)
	s.check("what a form submitted", checker)

	// Opened by itself, the logo runs nothing.
	s.open("/auth/logo")
	if got := s.text("window.pwned"); got != "undefined" {
		t.Error("the logo ran a script")
	}
	s.mu.Lock()
	s.faults = nil // the browser says what it stopped
	s.mu.Unlock()

	// Sign out, here and at the provider: the form and the redirects after it are allowed.
	s.open("/auth/logout")
	s.do(chromedp.Click(`.actions form button`))
	s.until(`document.querySelector("h1").textContent === "You are signed out"`)
	s.check("signed out", checker)
	s.shot("signed-out")
}

// The pictures of docs/pages.md, where CURFEW_SHOTS names a folder.
func TestPicturesOfThePages(t *testing.T) {
	t.Parallel()
	if os.Getenv("CURFEW_SHOTS") == "" {
		t.Skip("CURFEW_SHOTS names no folder for pictures")
	}
	a := newApp(t, func(c *curfew.Config) {
		c.Providers[0].Label = "Northgate ID"
		c.Providers = append(c.Providers, oidc.Config{Name: "partners", Label: "Harbour partners",
			Issuer: "http://127.0.0.1:1", ClientID: "app"})
		c.Look = web.Look{Name: "Northgate", Footer: "Northgate Ltd, Harbour Street 1", Help: "https://help.example.com"}
	})
	for _, agent := range []string{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 " +
		"(KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"} {
		a.signInAs(agent)
	}
	s := openScreen(t, a.server.URL)
	s.wear(360, "dark", "fr")
	s.do(chromedp.EmulateViewport(360, 540))
	s.open("/auth/login")
	s.shot("pages-chooser")
	s.wear(460, "light", "en")
	s.do(chromedp.EmulateViewport(460, 940))
	s.open("/auth/login?provider=" + a.providerName() + "&return_to=/auth/sessions")
	s.until(`location.pathname === "/auth/sessions"`)
	s.shot("pages-sessions")
	s.clean("the pictures")
}

// signInAs signs alice in at the provider, with a browser that calls itself so.
func (a *app) signInAs(agent string) {
	a.t.Helper()
	_, body := newBrowser(a.t).send(http.MethodGet, a.server.URL+"/auth/login?return_to=/public&provider="+
		a.providerName(), nil, "User-Agent", agent)
	if body != "true" {
		a.t.Fatalf("%s could not sign in: %s", web.Clip(agent), body)
	}
}

// providerName is the name of the provider that answers.
func (a *app) providerName() string { return a.rp.Providers()[0].Name() }

// A page of another site cannot frame ours, and cannot send its forms.
func TestNoOtherSiteUsesThePages(t *testing.T) {
	t.Parallel()
	a := newGallery(t)
	b := newBrowser(t)
	b.open(a.server.URL + "/auth/login?provider=" + a.providerName())
	ask := func(method, path, form string, header [2]string) (*http.Response, string) {
		r, err := http.NewRequest(method, a.server.URL+path, strings.NewReader(form))
		rig.Must(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Accept", "text/html")
		r.Header.Set(header[0], header[1])
		resp, err := b.Do(r)
		rig.Must(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		rig.Must(t, err)
		return resp, string(body)
	}
	none := [2]string{"X-None", ""}
	for _, path := range []string{"/auth/sessions", "/auth/logout", "/auth/login", "/auth/callback?error=x", "/admin"} {
		resp, body := ask(http.MethodGet, path, "", none)
		policy := resp.Header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") ||
			!strings.Contains(policy, "form-action ") || !strings.Contains(policy, "base-uri 'none'") ||
			strings.Contains(policy, "unsafe") || resp.Header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: policy %q", path, policy)
		}
		if !strings.Contains(body, "Northgate") || !strings.Contains(body, "Harbour Street") {
			t.Errorf("%s does not look as configured: %s", path, body)
		}
	}
	for _, form := range []string{"end=others", "end=all", "session=x"} {
		for _, header := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
			{"Origin", "https://evil.example"}, {"Origin", "null"}} {
			if resp, body := ask(http.MethodPost, "/auth/sessions", form, header); resp.StatusCode != 403 ||
				!strings.Contains(body, "Nothing has changed") {
				t.Errorf("%s with %v is answered %d: %s", form, header, resp.StatusCode, body)
			}
		}
	}
	if !b.signedIn(a) {
		t.Error("another site has signed the person out")
	}
}
