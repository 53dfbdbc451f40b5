package check

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/on-call.md says of each check that a logout token can fail what to look at, and names no other.
func TestEachCheckOfALogoutTokenIsOnThePageForOnCall(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	checks := map[string]bool{}
	for _, name := range []string{"oidc/jose.go", "oidc/jwe.go", "oidc/keys.go", "oidc/logouttoken.go",
		"logout/backchannel.go"} {
		for _, m := range regexp.MustCompile(`(?:failed\(|claims\.t\w+\(|Check: )"(\w+)"`).FindAllStringSubmatch(
			read(name), -1) {
			checks[m[1]] = true
		}
	}
	_, table, _ := strings.Cut(read("docs/on-call.md"), "\n| check | what to look at |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, m := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|").FindAllStringSubmatch(table, -1) {
		for check := range strings.SplitSeq(m[1], ", ") {
			check = strings.Trim(check, "`")
			if !checks[check] {
				t.Errorf("the page has %q, which no logout token fails, or twice", check)
			}
			delete(checks, check)
		}
	}
	for check := range checks {
		t.Errorf("the page lacks %q", check)
	}
}
