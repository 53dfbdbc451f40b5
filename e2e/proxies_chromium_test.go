package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"example.com/curfew/internal/chromium"
)

// tab is one tab of Chromium.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// newTab starts a browser of its own, or skips the test aloud.
func newTab(t *testing.T) *tab {
	t.Helper()
	return &tab{t, chromium.Start(t, 2*patience, "no real browser was tried end to end")}
}

// another opens another tab of the same browser.
func (b *tab) another() *tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	return &tab{b.t, ctx}
}

// somebody opens a tab of the same browser for somebody else: it has cookies of its own.
func (b *tab) somebody(t *testing.T) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	return &tab{t, ctx}
}

func (b *tab) open(address string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Navigate(address)); err != nil {
		b.t.Fatalf("%s: %v", address, err)
	}
}

// run evaluates a statement of the page.
func (b *tab) run(statement string) {
	b.t.Helper()
	if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("(() => { "+statement+"; return true; })()")); err != nil {
		b.t.Fatalf("%s: %v", statement, err)
	}
}

// until waits for an expression to be true, on whatever page there is by then.
func (b *tab) until(expression string) {
	b.t.Helper()
	var last string
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		// On the way from one page to the next there is none to ask.
		is, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && is {
			return
		}
		if shows, err := chromedp.Run(b.ctx,
			chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`)); err == nil {
			last = shows
		}
	}
	b.t.Fatalf("waited %v in vain for %s\nThe page shows %s", patience, expression, last)
}

// What people see: a deep link that survives the sign-in, and a page that is told at once when the provider signs them
// out.
func TestBehindAProxyAnOpenPageIsToldAndTheNextClickAsksToSignIn(t *testing.T) {
	t.Parallel()
	browser := newTab(t)
	browser.open("about:blank") // it runs until all are done
	for _, f := range fronts(t) {
		t.Run(f.kind.name, func(t *testing.T) { // one after the other: a browser takes all that there is
			f.run(t)
			app := browser.somebody(t)
			app.open(f.url + "/live?deep=link&x=%26")
			app.until(fmt.Sprintf(`location.origin === %q && document.querySelector("[name=login]")`,
				f.provider.issuer))
			app.run(`document.querySelector("[name=login]").value = "alice"; document.forms[0].submit()`)
			app.until(fmt.Sprintf(`location.href === %q`, f.url+"/live?deep=link&x=%26"))
			app.until(`document.body.innerText.includes("socket: hello alice") && document.body.innerText.includes("listening")`)

			elsewhere := app.another()
			elsewhere.open(f.provider.issuer + "/session/end")
			elsewhere.until(`document.querySelector("button[name=logout]")`)
			elsewhere.run(`document.querySelector("button[name=logout]").click()`)

			app.until(`document.body.innerText.includes("told: ") && document.body.innerText.includes("socket closed: ")`)
			shows, err := chromedp.Run(app.ctx, chromedp.Evaluate[string](`document.body.innerText`))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"told: backchannel", "socket closed: 1008"} {
				if !strings.Contains(shows, want) {
					t.Errorf("the page shows %q, want that it was %s", shows, want)
				}
			}
			app.run(`document.querySelector("a").click()`)
			app.until(fmt.Sprintf(`location.origin === %q && document.querySelector("[name=login]")`,
				f.provider.issuer))
		})
	}
}
