package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"example.com/curfew/audit"
	"example.com/curfew/internal/chromium"
	"example.com/curfew/oidc/oidctest"
)

// browserPatience bounds a browser, and pagePatience a wait for one page. Nothing waits for them to pass.
const browserPatience, pagePatience = 10 * time.Minute, 3 * time.Minute

// screen is Chromium with the console open.
type screen struct {
	t    *testing.T
	ctx  context.Context
	base string
}

func openConsole(t *testing.T, o *operated) *screen {
	t.Helper()
	ctx := chromium.Start(t, browserPatience, "the pages of the console were not looked at")
	chromium.Watch(t, ctx)
	return &screen{t, ctx, "http://" + o.private}
}

func (s *screen) do(steps ...chromedp.Action[chromedp.Void]) {
	s.t.Helper()
	if err := chromedp.Do(s.ctx, steps...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) open(path string) { s.t.Helper(); s.do(chromedp.Navigate(s.base + path)) }

// until waits for an expression to be true, on this page or on the one that it leads to.
func (s *screen) until(expression string) {
	s.t.Helper()
	for {
		_, err := chromedp.Run(s.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(pagePatience)))
		if err == nil {
			return
		}
		// A poll ends with its page.
		if text := err.Error(); s.ctx.Err() == nil && (strings.Contains(text, "navigated") ||
			strings.Contains(text, "Cannot find context") || strings.Contains(text, "context was destroyed")) {
			continue
		}
		s.t.Fatalf("%s: %v\nThe page shows: %s", expression, err, s.text("document.body.innerText"))
	}
}

func (s *screen) text(expression string) string {
	s.t.Helper()
	text, err := chromedp.Run(s.ctx, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		s.t.Fatalf("%s: %v", expression, err)
	}
	return text
}

// shape sets the width of the window and the colours.
func (s *screen) shape(width int64, scheme string) {
	s.t.Helper()
	s.do(chromedp.EmulateViewport(width, 800))
	params := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme",
		Value: scheme}}}
	if _, err := chromedp.Call(s.ctx, emulation.SetEmulatedMedia, params); err != nil {
		s.t.Fatal(err)
	}
}

// hostile is what a stranger may write where text is expected.
const hostile = `"><script>window.pwned=1</script><img src=x onerror="window.pwned=1">{{.}}</td></table>` +
	"<style>*{display:none}" +
	"\u202eevil\u2066\x00\x07\x1b[31m\u200b"

func TestTheConsoleInABrowser(t *testing.T) {
	t.Parallel()
	o := operate(t)
	o.op.Mangle(func(m *oidctest.Mangle) {
		m.IDToken = func(j *oidctest.JWT) {
			j.Claims["sid"] = `"><script>window.pwned=1</script>` + strings.Repeat("i", 200)
		}
		m.Userinfo = func(claims map[string]any) { // which has the last word
			claims["name"] = hostile + strings.Repeat("n", 10_000)
			claims["email"] = hostile + "@example.com"
		}
	})
	alice := o.arrive(t, `Phone/1 "><script>window.pwned=1</script>`+"\u202e"+strings.Repeat("u", 10_000))
	alice.signIn("alice")
	o.op.Mangle(func(m *oidctest.Mangle) { m.IDToken, m.Userinfo = nil, nil })
	bob := o.arrive(t, "Bob/3")
	bob.signIn("bob")
	for _, lie := range []func(*oidctest.JWT){
		func(j *oidctest.JWT) { j.Claims["aud"], j.Claims["sub"] = hostile, hostile+strings.Repeat("w", 10_000) },
		func(j *oidctest.JWT) { j.Claims["iss"] = hostile },
		func(j *oidctest.JWT) { j.Claims[hostile] = hostile; j.Claims["events"] = map[string]any{hostile: 1} },
	} {
		if status, _ := o.logout(t, o.op.SignLogoutToken("app", "alice", "", lie)); status != 400 {
			t.Fatalf("a bad token was answered %d", status)
		}
	}
	o.happened("the last bad token", func(e audit.Event) bool { return e.Check == "events" })

	s := openConsole(t, o)
	pages := []string{"/console/", "/console/sessions", "/console/sessions?sub=" + url.QueryEscape(hostile),
		"/console/sessions?since=" + url.QueryEscape(hostile), "/console/sessions?provider=" + url.QueryEscape(hostile),
		"/console/person?sub=alice", "/console/person?sub=" + url.QueryEscape(hostile+strings.Repeat("w", 10_000)),
		"/console/events", "/console/events?result=refused", "/console/notices", "/console/notices?state=dead",
		"/console/providers", "/console/sessions?ended=3", "/console/sessions?ended=" + url.QueryEscape(hostile)}
	for _, width := range []int64{1280, 360} {
		for _, scheme := range []string{"light", "dark"} {
			s.shape(width, scheme)
			for _, path := range pages {
				s.open(path)
				for expression, want := range map[string]string{
					"window.pwned": "undefined",
					"document.documentElement.scrollWidth <= document.documentElement.clientWidth":          "true",
					`getComputedStyle(document.querySelector("h1")).display`:                                "block",
					`/[\u202a-\u202e\u2066-\u2069\u0000-\u0008\u001b\u200b]/.test(document.body.innerText)`: "false",
					`document.querySelectorAll("[onclick],[onerror],[style],script:not([src])").length`:     "0",
					`document.querySelectorAll("main").length + document.querySelectorAll("h1").length`:     "2",
				} {
					if got := s.text(expression); got != want {
						t.Errorf("%s, %d wide, %s: %s is %s, want %s", path, width, scheme, expression, got, want)
					}
				}
				if found := chromium.Axe(t, s.ctx, "../.."); found != "" {
					t.Errorf("%s, %d wide, %s: axe finds\n%s", path, width, scheme, found)
				}
			}
		}
	}
	s.shape(1280, "light")

	// They are there, as text.
	s.open("/console/sessions?sub=alice")
	for column, part := range map[int]string{2: `{{.}}</td></table><style>*{display:none}\\u202eevil\\u2066`,
		4: `Phone/1 "><script>window.pwned=1</script>\\u202euuu`, 8: `sid "><script>window.pwned=1</script>`} {
		cell := fmt.Sprintf(`document.querySelector("tbody td:nth-child(%d)").innerText`, column)
		if got := s.text(cell + `.includes("` + strings.ReplaceAll(part, `"`, `\"`) + `")`); got != "true" {
			t.Errorf("column %d lacks %s: %s", column, part, s.text(cell))
		}
	}
	shot(t, s, "console-sessions-hostile")

	// By keyboard: the first stop is the link past the navigation.
	s.open("/console/sessions")
	s.do(chromedp.KeyEvent("\t"))
	if got := s.text("document.activeElement.className"); got != "skip" {
		t.Errorf("the first stop of the keyboard is %q", got)
	}

	// Live: what happens elsewhere appears without a reload.
	s.open("/console/events")
	s.until(`document.getElementById("state").textContent === "Live."`)
	carol := o.arrive(t, "Carol/4")
	carol.signIn("carol")
	s.until(`document.querySelector("#rows tr:first-child").innerText.includes("carol")`)
	rows := `[...document.querySelectorAll("#rows tr")].filter((r) => r.innerText.includes("carol")).length`
	if got := s.text(rows); got != "1" {
		t.Errorf("the sign-in is in the table %s times", got)
	}
	shot(t, s, "console-events-hostile")

	// End one session, all of a person, and all of a provider.
	s.open("/console/sessions?sub=bob")
	shot(t, s, "console-sessions")
	s.do(chromedp.Click("td form button"))
	s.until(`document.querySelector(".done")?.textContent === "1 session ended."`)
	bob.wantIn(false)
	alice.wantIn(true)
	s.open("/console/person?sub=alice")
	s.until(`document.querySelector(".verdict").innerText.includes("can get in")`)
	shot(t, s, "console-person-hostile")
	s.do(chromedp.Click("main > form button.danger"))
	s.until(`document.querySelector(".verdict")?.innerText.includes("cannot get in")`)
	alice.wantIn(false)
	s.open("/console/providers")
	s.do(chromedp.SendKeys(`input[name="confirm"]`, "main"),
		chromedp.Click("button.danger"))
	s.until(`document.querySelector(".done")?.textContent === "1 session ended."`)
	carol.wantIn(false)
	o.happened("what was done in the console", func(e audit.Event) bool {
		return e.Action == "end_provider" && e.Actor == "unnamed" && e.Address == "127.0.0.1"
	})
}

// Without scripts everything can be done too, but for seeing events as they come.
func TestTheConsoleWithoutScripts(t *testing.T) {
	t.Parallel()
	o := operate(t)
	alice, bob := o.arrive(t, "Phone/1"), o.arrive(t, "Bob/3")
	alice.signIn("alice")
	bob.signIn("bob")
	o.logout(t, o.op.SignLogoutToken("app", "alice", "", claim("nonce", "n")))
	o.happened("the refusal", func(e audit.Event) bool { return e.Check == "nonce" })
	s := openConsole(t, o)
	if _, err := chromedp.Call(s.ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	s.open("/console/events?result=refused")
	page, err := chromedp.Run(s.ctx, chromedp.OuterHTML("html"))
	if err != nil || !strings.Contains(page, "nonce") || !strings.Contains(page, "Reload the page for newer events") {
		t.Errorf("the events: %v\n%s", err, page)
	}
	s.open("/console/sessions")
	s.do(chromedp.SendKeys(`input[name="sub"]`, "bob"), chromedp.Click("form.search button"),
		chromedp.WaitReady(`input[name="sub"][value="bob"]`), // the page that was asked for: the one before has buttons too
		chromedp.Click("td form button"), chromedp.WaitReady(".done"))
	bob.wantIn(false)
	alice.wantIn(true)
	s.open("/console/providers")
	s.do(chromedp.SendKeys(`input[name="confirm"]`, "main"), chromedp.Click("button.danger"), chromedp.WaitReady(".done"))
	alice.wantIn(false)
}

// shot keeps a picture of the page, where CURFEW_SHOTS names a folder.
func shot(t *testing.T, s *screen, name string) {
	t.Helper()
	dir := os.Getenv("CURFEW_SHOTS")
	if dir == "" {
		return
	}
	picture, err := chromedp.Run(s.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}

// A page of another site can neither press a button of the console, nor frame it, nor read it.
func TestNoOtherSiteUsesTheConsole(t *testing.T) {
	t.Parallel()
	o := operate(t)
	alice := o.arrive(t, "Phone/1")
	alice.signIn("alice")
	id := o.list()[0].ID
	ask := func(method, path, form string, header ...string) (*http.Response, string) {
		r, err := http.NewRequest(method, "http://"+o.private+path, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := o.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	for path, form := range map[string]string{
		"/console/sessions/" + id + "/end":           "",
		"/console/person/end":                        "sub=alice&provider=main",
		"/console/providers/main/end":                "confirm=main",
		"/console/notices/1/drop":                    "",
		"/console/notices/1/retry":                   "",
		"/api/sessions/" + id + "/end":               "",
		"/api/sessions/end?sub=alice":                "",
		"/api/providers/main/end?confirm=main":       "",
		"/api/person/forget?sub=alice&confirm=alice": "",
		"/api/person/export?sub=alice":               "",
	} {
		for _, header := range [][]string{
			{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "http://evil.example"},
			{"Origin", "null"}, {"Origin", "http://" + o.private, "Sec-Fetch-Site", "cross-site"},
		} {
			if resp, body := ask(http.MethodPost, path, form, header...); resp.StatusCode != http.StatusForbidden {
				t.Errorf("POST %s with %q: %s %s", path, header, resp.Status, body)
			}
		}
		if resp, _ := ask(http.MethodGet, path, ""); resp.StatusCode != http.StatusMethodNotAllowed &&
			resp.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: %s", path, resp.Status)
		}
		if status, _ := o.get(t, o.public+path); status != http.StatusNotFound {
			t.Errorf("%s on the public listener: %d", path, status)
		}
	}
	alice.wantIn(true)
	for _, path := range []string{"/console/", "/console/sessions", "/console/events", "/console/console.js",
		"/console/console.css", "/console/events/rows", "/console/person?sub=alice", "/console/person"} {
		resp, _ := ask(http.MethodGet, path, "")
		csp := resp.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") ||
			resp.Header.Get("X-Frame-Options") != "DENY" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, resp.Header)
		}
		r, err := http.NewRequest(http.MethodGet, "http://"+o.private+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "evil.example"
		if status, _ := o.do(t, r); status != http.StatusMisdirectedRequest {
			t.Errorf("%s by another name: %d", path, status)
		}
	}
	// A wrong name, or none, signs nobody out; nor does a form that is too large.
	for _, form := range []string{"", "confirm=mian", "confirm=main&after=nonsense",
		"confirm=" + strings.Repeat("x", 1<<17)} {
		if resp, _ := ask(http.MethodPost, "/console/providers/main/end", form); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%.40s: %s", form, resp.Status)
		}
	}
	alice.wantIn(true)
	if resp, _ := ask(http.MethodGet, "/", "", "Accept", "text/html"); resp.Header.Get("Location") != "/console/" {
		t.Errorf("a browser at / is sent to %q", resp.Header.Get("Location"))
	}
	if resp, body := ask(http.MethodPost, "/console/person/end", "sub=alice&provider=main", "Sec-Fetch-Site",
		"same-origin"); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("by the console itself: %s %s", resp.Status, body)
	}
	alice.wantIn(false)
}
