package curfew_test

import (
	"net/http"
	"strings"
	"testing"

	"example.com/curfew"
)

// An app that lives below another on its host: no link and no redirect of ours leads to the other.
func TestAnAppBelowAnotherIsNotLeft(t *testing.T) {
	t.Parallel()
	a := newApp(t, func(c *curfew.Config) { c.Home, c.CookieName = "/wiki/", "wiki" })
	b := newBrowser(t)
	for _, row := range [][2]string{ // from the first on there is a session
		{"/auth/login", "/wiki/"},
		{"/auth/login?return_to=//evil.example", "/wiki/"},
		{"/auth/login?return_to=/wiki/page", "/wiki/page"},
		{"/auth/login?return_to=%2Fauth%2Flogout", "/wiki/"},
		{"/auth/login?return_to=https%3A%2F%2Fx%2F", "/wiki/"},
		{"/auth/callback?state=x&code=y", "/wiki/"},
		{"/auth/logout/callback", "/wiki/"},
	} {
		to, want := row[0], row[1]
		if at, status, _ := b.open(a.server.URL + to); at.Path != want || status != http.StatusOK {
			t.Errorf("%s led to %s (%d), want %s", to, at, status, want)
		}
	}
	for _, page := range []string{"/auth/nothing", "/auth/logout"} {
		if _, _, text := b.open(a.server.URL + page); !strings.Contains(text, `href="/wiki/"`) ||
			strings.Contains(text, `href="/"`) {
			t.Errorf("%s: %s", page, text)
		}
	}
}
