package gateway

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"example.com/curfew/session"
	"example.com/curfew/web"
)

// At debug the log says what a rule asks for and which names there were, and no values of other claims.
func TestARefusalIsExplainedAtDebug(t *testing.T) {
	t.Parallel()
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo} {
		var out strings.Builder
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))
		h := &Handler{Site: &web.Site{URL: &url.URL{Scheme: "https", Host: "app.example.com"}, Log: log},
			GroupsClaim: "realm_access.roles"}
		p := mustPolicy(t, Rule{Path: "/admin", Groups: []string{"admins"}})
		s := &session.Session{Claims: map[string]any{"email": "alice@example.com", "two words\n": 1,
			"realm_access": map[string]any{"roles": []any{"staff", "night\nshift"}}}}
		err := h.allowedFor(httptest.NewRequest("GET", "/admin", nil), &p.rules[0], s, "/admin")
		if err == nil {
			t.Fatal("let in")
		}
		if level == slog.LevelInfo {
			if out.Len() != 0 {
				t.Errorf("at info: %s", out.String())
			}
			continue
		}
		for _, want := range []string{"event=forbidden_detail", "missing=groups", "groups_claim=realm_access.roles",
			"wanted_groups=admins", "staff", `realm_access`} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %s in %s", want, out.String())
			}
		}
		if strings.Contains(out.String(), "alice@example.com") || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("the log says %q", out.String())
		}
	}
}

// A new sign-in may bring another acr; another account need not.
func TestWhoLacksAnACRIsOfferedANewSignIn(t *testing.T) {
	t.Parallel()
	site, err := web.ParseURL("https://app.example.com")
	if err != nil {
		t.Fatal(err)
	}
	h := &Handler{Site: &web.Site{URL: site, Prefix: "/auth"}}
	for claim, want := range map[string][2]string{"acr": {"Sign in again", "prompt=login"},
		"department": {"Use another account", "prompt=select_account"}} {
		p := mustPolicy(t, Rule{Path: "/admin", Claims: map[string][]string{claim: {"gold"}}})
		err := h.allowed(httptest.NewRequest("GET", "/", nil), &p.rules[0],
			&session.Session{Claims: map[string]any{"acr": "1"}}, "/admin")
		f, _ := errors.AsType[*web.Failure](err)
		if f == nil || f.Message.Actions[0].Label != want[0] || !strings.Contains(f.Message.Actions[0].Href, want[1]) {
			t.Errorf("%s: %+v", claim, f)
		}
	}
}
