package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"example.com/curfew/internal/chromium"
)

// glewlwydPictures takes the pictures of Glewlwyd's administration page that docs/providers/glewlwyd.md shows.
func glewlwydPictures(t *testing.T) {
	if *interop != "write" {
		t.Skip("the pictures of the administration page are taken with TABLES=write")
	}
	p := startGlewlwyd(t, 300)
	p.call(t, p.admin, http.MethodPost, "/client/", object{"client_id": "app", "name": "app", "confidential": true,
		"password": "a-secret-of-the-tests", "enabled": true, "scope": []string{},
		"redirect_uri":                        []string{"https://app.example.com/auth/callback"},
		"post_logout_redirect_uris":           "https://app.example.com/auth/logout/callback",
		"backchannel_logout_uri":              "https://app.example.com/auth/backchannel-logout",
		"backchannel_logout_session_required": "true",
		"authorization_type":                  []string{"code", "refresh_token"},
		"token_endpoint_auth_method":          []string{"client_secret_basic"}})
	b := &tab{t, chromium.Start(t, 4*patience, "no pictures of Glewlwyd's administration page were taken")}
	if err := chromedp.Do(b.ctx, chromedp.EmulateViewport(1000, 900)); err != nil {
		t.Fatal(err)
	}
	base := strings.TrimSuffix(p.api, "/api")
	b.open(base + "/index.html")
	b.run(`fetch("/api/auth/", {method: "POST", headers: {"Content-Type": "application/json"},
		body: JSON.stringify({username: "admin", password: "password"})}).then(() => window.signedIn = true)`)
	b.until(`window.signedIn`)
	b.open(base + "/index.html?lang=en")
	for _, what := range []string{
		`[...document.querySelectorAll("nav a")].find(a => a.textContent.trim() === "Clients")`,
		`[...document.querySelectorAll("tr")].find(r => r.textContent.includes("app"))?.querySelector(".fa-edit")`,
	} {
		b.until(what)
		b.run(what + `.click()`)
	}
	field := `[...document.querySelectorAll(".modal.show input")].find(i => i.value.includes("backchannel"))`
	b.until(field)
	b.run(field + `.scrollIntoView({block: "center"})`)
	b.until(`getComputedStyle(document.querySelector(".modal.show")).opacity === "1" && ` + field +
		`.getBoundingClientRect().top < 800`)
	b.picture("glewlwyd-client")
}

// glewlwydPages returns a folder with the pages of Glewlwyd. Debian has a folder where they look for their settings.
func glewlwydPages(t *testing.T) string {
	t.Helper()
	const from = "/usr/share/glewlwyd/webapp"
	dir := filepath.Join(t.TempDir(), "webapp")
	err := filepath.WalkDir(from, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, strings.TrimPrefix(name, from))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		if about, err := os.Stat(name); err == nil && about.IsDir() {
			name = filepath.Join(name, filepath.Base(name))
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(to, text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
