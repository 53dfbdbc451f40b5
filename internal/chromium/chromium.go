package chromium

import (
	"context"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Start returns the context of a browser that ends with the test, after patience at the latest. Where there is no
// Chromium the test is skipped, and with CI=true it fails. untested says what was not tried then.
func Start(t *testing.T, patience time.Duration, untested string, more ...chromedp.ExecAllocatorOption,
) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	switch {
	case path != "":
	case os.Getenv("CI") == "true":
		t.Fatal("Chromium is missing")
	default:
		t.Skip("NOT TESTED: no Chromium on this machine, so " + untested)
	}
	// the test's own ends before it has cleaned up
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewExecAllocator(ctx, append(more,
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("hide-scrollbars", true),
	)...)
	t.Cleanup(stop)
	ctx, _ = chromedp.NewContext(ctx)
	t.Cleanup(func() { // before the contexts end, so that it waits for the process
		if err := chromedp.Cancel(ctx); err != nil {
			t.Error(err)
		}
	})
	return ctx
}

// Watch makes the test fail if the browser complains in its log: of an exception, of what the Content-Security-Policy
// stopped, of what was not found.
func Watch(t *testing.T, ctx context.Context) {
	t.Helper()
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil { // starts the browser
		t.Fatal(err)
	}
	var mu sync.Mutex
	var faults []string
	if err := chromedp.Listen(ctx, func(ev any) {
		mu.Lock()
		defer mu.Unlock()
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			fault := ev.ExceptionDetails.Text + " " + ev.ExceptionDetails.URL
			if ev.ExceptionDetails.Exception != nil {
				fault += " " + ev.ExceptionDetails.Exception.Description
			}
			faults = append(faults, fault)
		case *log.EventEntryAdded:
			if ev.Entry.Level == log.EntryLevelError {
				faults = append(faults, ev.Entry.Text+" "+ev.Entry.URL)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, fault := range faults {
			t.Errorf("the browser complains: %s", fault)
		}
	})
}
