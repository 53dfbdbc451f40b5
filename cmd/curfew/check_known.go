package main

import (
	"strings"

	"example.com/curfew/oidc"
)

// knownProvider is what is known of a provider beside the quirks that it needs: from the runs that its page shows.
type knownProvider struct {
	kind   string
	page   string // in docs/providers
	unsent string // what it does not send, and when that is noticed here
	do     string
}

// knownProviders returns the providers that docs/providers describes.
func knownProviders() []knownProvider {
	return []knownProvider{
		{"Keycloak", "keycloak", "it sends no logout token when a realm's sessions are all signed out, a user is disabled " +
			"or deleted, a session is idle or at its maximum, nor a second time when one was lost",
			"keep \"Access Token Lifespan\" short: Curfew notices it at the next refresh"},
		{"oidc-provider", "oidc-provider", "it sends a logout token once, and waits 2.5 s for the answer",
			"issue refresh tokens without offline_access and short access tokens: Curfew notices a lost one at the next " +
				"refresh"},
		{"Better Auth", "better-auth", "it sends a logout token once, and only to apps that were issued an opaque access " +
			"token or a refresh token in that session",
			"keep refresh_grace short: a lost one is noticed when userinfo refuses the new access token"},
		{"Glewlwyd", "glewlwyd", "it sends a logout token once, and only when somebody confirms to sign out; nothing when " +
			"a user is disabled, and it goes on to refresh the tokens", "keep session_lifetime and refresh_grace short"},
		{"Ory Hydra", "hydra", "it sends a logout token again for 3 s at most, and none when an administrator revokes all " +
			"login sessions of a person (?subject=); its refresh tokens live on after a logout",
			"keep session_lifetime short, and revoke sessions one by one (?sid=), or the consents too"},
	}
}

// knownKind recognizes the providers that are not told by the form of their URLs alone, by what else they publish.
func knownKind(issuer string, m *oidc.Metadata) string {
	at := func(endpoint, path string) bool { return endpoint == strings.TrimSuffix(issuer, "/")+path }
	switch {
	case at(m.AuthorizationEndpoint, "/oauth2/authorize") && at(m.EndSessionEndpoint, "/oauth2/end-session"):
		return "Better Auth"
	case at(m.AuthorizationEndpoint, "/auth") && at(m.EndSessionEndpoint, "/session/end"):
		return "oidc-provider"
	case at(m.AuthorizationEndpoint, "/auth") && at(m.EndSessionEndpoint, "/end_session"):
		return "Glewlwyd"
	}
	return ""
}

// checkKnown says which provider it looks like, where its page is, and what it is known not to send.
func checkKnown(r *report, kind string) {
	for _, k := range knownProviders() {
		if k.kind == kind {
			r.all = append(r.all, finding{r.about, "provider", "ok", "this looks like " + kind + ", see docs/providers/" +
				k.page + ".md: " + k.unsent, k.do})
		}
	}
}
