package demo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"example.com/curfew/internal/chromium"
)

var screenshots = flag.String("screenshots", "", "write screenshots of the demo into this folder")

// patience bounds a browser that hangs. Nothing waits for it to pass.
const patience = 2 * time.Minute

// screen is Chromium with the overview open.
type screen struct {
	t   *testing.T
	ctx context.Context
}

// openOverview opens the overview, or skips the test aloud where there is no Chromium.
func openOverview(t *testing.T, h *instance) *screen {
	t.Helper()
	ctx := chromium.Start(t, patience, "the pages of the demo were not looked at")
	chromium.Watch(t, ctx)
	s := &screen{t, ctx}
	s.do(chromedp.EmulateViewport(1280, 800, chromedp.EmulateScale(1.5)))
	s.colours("light")
	s.do(chromedp.Navigate(h.overview.url))
	return s
}

func (s *screen) do(steps ...chromedp.Action[chromedp.Void]) {
	s.t.Helper()
	if err := chromedp.Do(s.ctx, steps...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) colours(scheme string) {
	s.t.Helper()
	params := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme",
		Value: scheme}}}
	if _, err := chromedp.Call(s.ctx, emulation.SetEmulatedMedia, params); err != nil {
		s.t.Fatal(err)
	}
}

// until waits for an expression of the overview to be true.
func (s *screen) until(expression string) {
	s.t.Helper()
	if _, err := chromedp.Run(s.ctx, chromedp.Poll[bool](expression,
		chromedp.WithPollingTimeout(patience))); err != nil {
		shows, _ := chromedp.Run(s.ctx, chromedp.Evaluate[string](
			`[...document.querySelectorAll(".window")].map((w) => w.id + " " + w.dataset.state).join(", ") + "\n" +
				document.querySelector("main").innerText`))
		s.t.Fatalf("%s: %v\nThe page shows: %s", expression, err, shows)
	}
}

// shows waits for the word on one of the three windows: in, out, ended or login.
func (s *screen) shows(states ...string) {
	s.t.Helper()
	var all []string
	for i, id := range []string{"notes", "provider", "photos"} {
		if states[i] != "" {
			all = append(all, fmt.Sprintf(`document.querySelector("#%s").dataset.state === %q`, id, states[i]))
		}
	}
	s.until(strings.Join(all, " && "))
}

// in evaluates an expression in one of the three frames.
func in[T any](s *screen, window, expression string) T {
	s.t.Helper()
	frames := map[string]int{"notes": 0, "provider": 1, "photos": 2}
	value, err := chromedp.Run(s.ctx, func(ctx context.Context, _ *chromedp.Target) (none T, err error) {
		tree, err := chromedp.Call(ctx, page.GetFrameTree, cdp.Empty{})
		if err != nil {
			return none, err
		}
		if len(tree.FrameTree.ChildFrames) != len(frames) {
			return none, errors.New("the page does not have three frames")
		}
		world, err := chromedp.Call(ctx, page.CreateIsolatedWorld, page.CreateIsolatedWorldParams{
			FrameID: tree.FrameTree.ChildFrames[frames[window]].Frame.ID})
		if err != nil {
			return none, err
		}
		return chromedp.Run(ctx, chromedp.Evaluate[T](expression, func(p *runtime.EvaluateParams) {
			p.ContextID = world.ExecutionContextID
		}))
	})
	if err != nil {
		s.t.Fatalf("%s: %s: %v", window, expression, err)
	}
	return value
}

// click clicks what a selector finds in a frame.
func (s *screen) click(window, selector string) {
	s.t.Helper()
	if !in[bool](s, window, fmt.Sprintf(`(() => { const e = document.querySelector(%q); e?.click(); return !!e; })()`,
		selector)) {
		s.t.Fatalf("%s shows no %s", window, selector)
	}
}

// text returns what a frame shows.
func (s *screen) text(window string) string {
	s.t.Helper()
	return in[string](s, window, `document.body.innerText`)
}

// shot writes a screenshot, if somebody wants them.
func (s *screen) shot(name string) {
	s.t.Helper()
	if *screenshots == "" {
		return
	}
	// Two frames, so that what has just changed is drawn, and nothing that moves is still on its way.
	if _, err := chromedp.Run(s.ctx,
		chromedp.Evaluate[bool](`Promise.all(document.getAnimations().map((a) => a.finished)).
		then(() => new Promise((done) => requestAnimationFrame(() =>
			requestAnimationFrame(() => done(true)))))`, chromedp.EvalAwaitPromise)); err != nil {
		s.t.Fatal(err)
	}
	picture, err := chromedp.Run(s.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, name), picture, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) signIn(subject string) {
	s.t.Helper()
	s.click("notes", `a[href^="/auth/login"]`)
	s.shows("login", "out", "")
	s.shot("demo-login.png")
	s.click("notes", `button[value="`+subject+`"]`)
	s.shows("in", "in", "in")
}

// A page that is not loaded anew keeps the time at which it began.
const age = `performance.timeOrigin`

func TestInABrowserBothAppsSayAtOnceThatTheSessionIsOver(t *testing.T) {
	t.Parallel()
	var cfg Config
	if *screenshots != "" {
		cfg.Port = 8400 // as the reader will see it
	}
	h := open(t, cfg)
	s := openOverview(t, h)
	s.shows("out", "out", "out")
	s.shot("demo-start.png")

	// Signed in once, signed in at both.
	s.signIn("alice")
	for _, window := range []string{"notes", "provider", "photos"} {
		if text := s.text(window); !strings.Contains(text, "Alice Ahn") {
			t.Errorf("%s does not know Alice: %s", window, text)
		}
	}
	s.until(`document.querySelector("#todo .now") === document.querySelector("#todo-out")`)
	s.shot("demo.png")

	// Out at the provider: both say so, and neither was loaded anew.
	notes, photos := in[float64](s, "notes", age), in[float64](s, "photos", age)
	s.click("provider", "form button")
	s.shows("ended", "out", "ended")
	if in[float64](s, "notes", age) != notes || in[float64](s, "photos", age) != photos {
		t.Error("a page was loaded anew")
	}
	for _, window := range []string{"notes", "photos"} {
		text := s.text(window)
		if !strings.Contains(text, "You are signed out") || !strings.Contains(text, "Your provider said so") {
			t.Errorf("%s does not say who ended the session: %s", window, text)
		}
		if strings.Contains(text, "Alice") {
			t.Errorf("%s goes on to show what was Alice's: %s", window, text)
		}
	}
	s.until(`document.querySelectorAll("#which button").length === 2 &&
		document.querySelectorAll("#todo .done").length === 4`)
	s.until(`document.querySelector("#log details").innerText.split("The open tab is told").length === 3`)
	s.shot("demo-signed-out.png")
	s.colours("dark")
	s.shot("demo-signed-out-dark.png")
	s.colours("light")

	// Once more, as somebody else, and out at one app.
	s.signIn("bob")
	s.until(`document.querySelector("#todo .now") === document.querySelector("#todo-out")`)
	s.colours("dark")
	s.shot("demo-dark.png")
	s.colours("light")
	photos = in[float64](s, "photos", age)
	s.click("notes", `form[action="/auth/logout"] button`)
	s.shows("ended", "out", "ended")
	if in[float64](s, "photos", age) != photos {
		t.Error("Photos was loaded anew")
	}
	if text := s.text("photos"); !strings.Contains(text, "You are signed out") || strings.Contains(text, "Bob") {
		t.Errorf("Photos does not say that it is over: %s", text)
	}
	s.shot("demo-one-app.png")

	s.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile))
	if wide, err := chromedp.Run(s.ctx,
		chromedp.Evaluate[bool](`document.documentElement.scrollWidth > 390`)); err != nil || wide {
		t.Errorf("on a phone the page is wider than the screen (%v)", err)
	}
	s.shot("demo-phone.png")
}
