package curfew_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"example.com/curfew"
	"example.com/curfew/audit"
	"example.com/curfew/internal/chromium"
)

// desk is the browser of an operator.
type desk struct {
	t   *testing.T
	ctx context.Context
	a   *app
}

const deskPatience = 5 * time.Minute // bounds a browser that hangs

func (d *desk) do(steps ...chromedp.Action[chromedp.Void]) {
	d.t.Helper()
	if err := chromedp.Do(d.ctx, steps...); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) open(path string) {
	d.t.Helper()
	d.do(chromedp.Navigate(d.a.server.URL + path))
}

func (d *desk) text(expression string) string {
	d.t.Helper()
	text, err := chromedp.Run(d.ctx, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		d.t.Fatalf("%s: %v", expression, err)
	}
	return text
}

// until waits for an expression to be true, on this page or on the one that it leads to.
func (d *desk) until(expression string) {
	d.t.Helper()
	for {
		_, err := chromedp.Run(d.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(deskPatience),
			chromedp.WithPollingInterval(100*time.Millisecond)))
		if err == nil {
			return
		}
		if text := err.Error(); d.ctx.Err() == nil && (strings.Contains(text, "navigated") ||
			strings.Contains(text, "Cannot find context") || strings.Contains(text, "context was destroyed")) {
			continue
		}
		d.t.Fatalf("%s: %v\nThe page shows: %s", expression, err, d.text("document.body.innerText"))
	}
}

// An operator signs in, finds a person, and ends their sessions; another page of the same origin, in the same browser,
// can do nothing of it, and reads nothing.
func TestTheConsoleAtThePublicURLInABrowser(t *testing.T) {
	t.Parallel()
	const evil = `"><script>window.pwned=1</script><img src=x onerror="window.pwned=1"></table></main>` +
		"<style>*{display:none}\u202eevil\x00\u200b"
	a := withConsole(t, map[string]any{"alice": "ops"}, func(c *curfew.Config) {
		c.OnLogin = func(_ context.Context, claims map[string]any) error {
			claims["name"] = evil + strings.Repeat("n", 10_000)
			return nil
		}
	})
	bob := a.as("bob")
	// What an attacker got into a page of the app, which is at the same origin.
	attack := `<!doctype html><title>app</title><iframe id="f" src="/auth/console/"></iframe>
<script>
window.said = {};
const at = "/auth/console";
const form = (path) => fetch(at + path, {method: "POST", body: new URLSearchParams({sub: "bob", provider: "main"})});
Promise.all([fetch(at + "/"), fetch(at + "/person?sub=bob"), fetch(at + "/events/rows"), form("/person/end"),
  form("/providers/main/end"), fetch(at + "/", {mode: "no-cors"}), fetch(at + "/providers", {redirect: "manual"})])
  .then(async (all) => { said.statuses = all.map((r) => r.status).join(" ");
    said.texts = (await Promise.all(all.map((r) => r.text()))).join(" ").includes("bob");
    said.done = true });
</script>`
	a.server.Config.Handler.(*http.ServeMux).HandleFunc("GET /attack", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, attack)
	})
	d := &desk{t, chromium.Start(t, deskPatience, "the console at the public URL was not looked at"), a}

	d.open("/auth/console/person?sub=bob&provider=main")
	if got := d.text("location.pathname"); got != "/auth/console/person" {
		t.Fatalf("after the sign-in the operator is at %s: %s", got, d.text("document.body.innerText"))
	}
	d.open("/attack")
	d.until("window.said.done")
	if got := d.text("said.statuses + said.texts"); got != "403 403 403 403 403 403 403false" {
		t.Errorf("a page of the app got %s", got)
	}
	if got := d.text(`(() => { try { return document.getElementById("f").contentDocument.body.innerText } catch (e) {
		return e.name } })()`); strings.Contains(got, "Overview") || strings.Contains(got, "Sessions") {
		t.Errorf("a page of the app framed the console: %s", got)
	}
	if status, _ := bob.api(a.server.URL + "/"); status != http.StatusOK {
		t.Fatal("a page of the app ended a session")
	}

	pages := []string{"/", "/sessions", "/person?sub=bob&provider=main", "/events", "/notices", "/providers",
		"/nothing", "/sessions?since=" + url.QueryEscape(evil), "/person?sub=" + url.QueryEscape(evil)}
	for _, width := range []int64{1280, 360} {
		d.do(chromedp.EmulateViewport(width, 800))
		for _, page := range pages {
			d.open("/auth/console" + page)
			for expression, want := range map[string]string{
				"window.pwned": "undefined",
				"document.documentElement.scrollWidth <= document.documentElement.clientWidth":                    "true",
				`document.querySelectorAll("[onclick],[onerror],[style],script:not([src])").length`:               "0",
				`document.querySelectorAll("main").length + document.querySelectorAll("h1").length`:               "2",
				`document.querySelector(".who").innerText.includes("alice@example.com")`:                          "true",
				`[...document.querySelectorAll("form[method=post]")].every((f) => f.elements.token)`:              "true",
				`/[\u202a-\u202e\u2066-\u2069\u0000-\u0008\u200b]/.test(document.body.innerText)`:                 "false",
				`[...document.querySelectorAll("a, form")].every((e) => (e.href || e.action).includes("/auth/"))`: "true",
			} {
				if got := d.text(expression); got != want && !(page == "/nothing" && strings.Contains(expression, "every")) {
					t.Errorf("%s, %d wide: %s is %s, want %s", page, width, expression, got, want)
				}
			}
			if found := chromium.Axe(t, d.ctx, "."); found != "" {
				t.Errorf("%s, %d wide: axe finds\n%s", page, width, found)
			}
		}
	}

	// Live, with the token of the page.
	d.open("/auth/console/events")
	d.until(`document.getElementById("state").textContent === "Live."`)
	carol := a.as("carol")
	d.until(`document.querySelector("#rows").innerText.includes("carol")`)

	// Without scripts: the form ends the sessions of one person.
	if _, err := chromedp.Call(d.ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	d.open("/auth/console/person?sub=bob&provider=main")
	d.do(chromedp.Click("main > form button.danger"), chromedp.WaitReady(".done"))
	if status, _ := bob.api(a.server.URL + "/"); status != http.StatusUnauthorized {
		t.Errorf("bob is in: %d", status)
	}
	if status, _ := carol.api(a.server.URL + "/"); status != http.StatusOK {
		t.Errorf("carol is out: %d", status)
	}
	a.happened("who ended bob's session", func(e audit.Event) bool {
		return e.Action == "end_sessions" && e.Subject == "bob" && e.Actor == "alice" && e.ActorProvider == "main"
	})

	// The window that another page of the origin opens leaves the group of windows that know each other: the opener sees
	// it as closed.
	if _, err := chromedp.Call(d.ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: false}); err != nil {
		t.Fatal(err)
	}
	d.open("/attack")
	gesture := true
	if _, err := chromedp.Run(d.ctx, chromedp.Evaluate[string](`(() => { window.opened = window.open(
		"/auth/console/person?sub=bob"); return "" })()`, func(p *runtime.EvaluateParams) {
		p.UserGesture = &gesture
	})); err != nil {
		t.Fatal(err)
	}
	d.until("window.opened && window.opened.closed")
}
