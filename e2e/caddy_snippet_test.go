package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The snippet for Caddy is the Caddyfile that the other tests try, with one app and other addresses.
func TestTheSnippetForCaddyIsTheCaddyfileThatIsTried(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		text, err := os.ReadFile("../deploy/caddy/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	between := func(text, from, to string) string {
		_, text, ok1 := strings.Cut(text, from)
		text, _, ok2 := strings.Cut(text, to)
		if !ok1 || !ok2 {
			t.Fatalf("there is no part from %q to %q", from, to)
		}
		return strings.TrimSpace(text)
	}
	tried, snippet := read("Caddyfile"), read("curfew.caddy")
	if a, b := between(tried, "(told) {", "\n}"), between(snippet, "(told) {", "\n}"); a != b {
		t.Errorf("(told) is\n%s\nand\n%s", a, b)
	}
	const last = "# The app of each host."
	want := strings.ReplaceAll(between(tried, "\troute {", last), "127.0.0.1:4180", "{args.0}")
	if got := between(snippet, "\troute {", "reverse_proxy {args.1}"); got != want {
		t.Errorf("the snippet is\n%s\nwant\n%s", got, want)
	}
	caddy, err := exec.LookPath("caddy")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("NOT TESTED: whether Caddy reads the snippet: there is no caddy")
	}
	file := filepath.Join(t.TempDir(), "Caddyfile")
	path, err := filepath.Abs("../deploy/caddy/curfew.caddy")
	if err != nil {
		t.Fatal(err)
	}
	use := "import " + path + "\nhttp://127.0.0.1:8080 {\n\timport curfew 127.0.0.1:4180 127.0.0.1:3000\n}\n"
	if err := os.WriteFile(file, []byte(use), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(caddy, "adapt", "--config", file, "--adapter", "caddyfile").CombinedOutput()
	if err != nil || strings.Contains(string(out), "{args.") || !strings.Contains(string(out), `"X-Auth-Subject"`) ||
		!strings.Contains(string(out), `"dial":"127.0.0.1:3000"`) {
		t.Errorf("caddy adapt: %v\n%s", err, out)
	}
}
