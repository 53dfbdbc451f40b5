package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/curfew/oidc"
)

// Each provider is recognized by what it publishes, and has a page.
func TestCheckRecognizesTheProvidersThatHaveAPage(t *testing.T) {
	t.Parallel()
	for kind, m := range map[string]oidc.Metadata{
		"Keycloak": {Issuer: "https://id.example.com/realms/main",
			AuthorizationEndpoint: "https://id.example.com/realms/main/protocol/openid-connect/auth",
			EndSessionEndpoint:    "https://id.example.com/realms/main/protocol/openid-connect/logout"},
		"oidc-provider": {Issuer: "https://id.example.com",
			AuthorizationEndpoint: "https://id.example.com/auth",
			EndSessionEndpoint:    "https://id.example.com/session/end"},
		"Better Auth": {Issuer: "https://id.example.com/api/auth",
			AuthorizationEndpoint: "https://id.example.com/api/auth/oauth2/authorize",
			EndSessionEndpoint:    "https://id.example.com/api/auth/oauth2/end-session"},
		"Glewlwyd": {Issuer: "https://id.example.com/api/oidc",
			AuthorizationEndpoint: "https://id.example.com/api/oidc/auth",
			EndSessionEndpoint:    "https://id.example.com/api/oidc/end_session"},
		"Ory Hydra": {Issuer: "https://id.example.com",
			AuthorizationEndpoint: "https://id.example.com/oauth2/auth",
			EndSessionEndpoint:    "https://id.example.com/oauth2/sessions/logout"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			got := kindOf(m.Issuer, &m)
			if got.name != kind {
				t.Fatalf("it looks like %q", got.name)
			}
			r := new(Report)
			checkKnown(r, got)
			if len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Detail, "looks like "+kind) || r.Findings[0].Do == "" {
				t.Fatalf("findings %+v", r.Findings)
			}
			_, page, _ := strings.Cut(r.Findings[0].Detail, "see ")
			page, _, _ = strings.Cut(page, ":")
			if _, err := os.Stat(filepath.Join("..", "..", "..", "..", page)); err != nil {
				t.Error(err)
			}
		})
	}
	if k := kindOf("https://id.example.com", &oidc.Metadata{
		AuthorizationEndpoint: "https://id.example.com/authorize",
		EndSessionEndpoint:    "https://id.example.com/logout"}); k.name != "" {
		t.Errorf("a provider that is not known looks like %q", k.name)
	}
}

// Glewlwyd's logout tokens have no exp: without the quirk each is refused.
func TestCheckNamesTheQuirkOfGlewlwyd(t *testing.T) {
	t.Parallel()
	for _, quirk := range []bool{false, true} {
		r := new(Report)
		checkQuirks(r, oidc.Config{SigningAlg: "RS256", Quirks: oidc.Quirks{AllowMissingExp: quirk}}, kindNamed("Glewlwyd"))
		if warned := r.Count("warning") == 1; warned == quirk {
			t.Errorf("with allow_missing_exp: %v: %+v", quirk, r.Findings)
		}
	}
}

func kindNamed(name string) kind {
	for _, k := range kinds() {
		if k.name == name {
			return k
		}
	}
	return kind{}
}
