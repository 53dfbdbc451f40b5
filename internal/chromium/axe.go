package chromium

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Axe returns what axe-core finds wrong with the page that the browser shows, a line each. root is the folder of the
// module, below which .ci/deps installs axe-core. Where it is missing the test says so, and with CI=true it fails.
func Axe(t *testing.T, ctx context.Context, root string) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, "e2e/axe/node_modules/axe-core/axe.min.js"))
	switch {
	case err != nil && os.Getenv("CI") == "true":
		t.Fatal("axe-core is missing: run `npm ci` in e2e/axe")
	case err != nil:
		t.Log("NOT TESTED: no axe-core on this machine (run `npm ci` in e2e/axe), so it found no fault in the pages")
		return ""
	}
	// Evaluated as a debugger does, which no policy of the page forbids.
	wait := true
	found, err := chromedp.Run(ctx, chromedp.Evaluate[string](`(() => { `+string(source)+` })(); axe.run().then((r) =>
		r.violations.map((v) => v.id + ": " + v.help + " " + v.nodes.map((n) => n.html + " " +
		[...n.any, ...n.all, ...n.none].map((a) => a.message)).join(" | ")).join("\n"))`,
		func(p *runtime.EvaluateParams) { p.AwaitPromise = &wait }))
	if err != nil {
		t.Fatalf("axe: %v", err)
	}
	return found
}
