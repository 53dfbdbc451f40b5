package check

import (
	"slices"
	"strings"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/oidc"
)

// kind is what is known of one kind of provider, from its documentation and from the runs that its page shows.
type kind struct {
	name string
	is   func(endpoints) bool // by the form of its URLs
	page string               // in docs/providers; "" without one
	// What it does not send and when that is noticed here, and what to do about it.
	unsent, do string
	noExp      bool // its logout tokens have no exp
}

// endpoints are the URLs by which a provider is recognized.
type endpoints struct{ issuer, authorize, endSession string }

// at reports whether two endpoints are at these paths below the issuer.
func (e endpoints) at(authorize, endSession string) bool {
	below := strings.TrimSuffix(e.issuer, "/")
	return e.authorize == below+authorize && e.endSession == below+endSession
}

// endWith reports whether two endpoints end with these paths, wherever the issuer is.
func (e endpoints) endWith(authorize, endSession string) bool {
	return strings.HasSuffix(e.authorize, authorize) && strings.HasSuffix(e.endSession, endSession)
}

const keycloak = "Keycloak"

// kinds returns the kinds that are known. The first that fits is taken.
func kinds() []kind {
	return []kind{
		{name: keycloak, page: "keycloak",
			is: func(e endpoints) bool {
				return strings.Contains(e.issuer, "/realms/") && strings.Contains(e.authorize, "/protocol/openid-connect/")
			},
			unsent: "it sends no logout token when a realm's sessions are all signed out, a user is disabled " +
				"or deleted, a session is idle or at its maximum, nor a second time when one was lost",
			do: "keep \"Access Token Lifespan\" short: Curfew notices it at the next refresh"},
		{name: "authentik",
			is: func(e endpoints) bool { return strings.Contains(e.issuer, "/application/o/") }},
		{name: "Ory Hydra", page: "hydra", noExp: true,
			is: func(e endpoints) bool { return e.endWith("/oauth2/auth", "/oauth2/sessions/logout") },
			unsent: "it sends a logout token again for 3 s at most, and none when an administrator revokes all " +
				"login sessions of a person (?subject=); its refresh tokens live on after a logout",
			do: "keep session_lifetime short, and revoke sessions one by one (?sid=), or the consents too"},
		{name: "LemonLDAP::NG", noExp: true,
			is: func(e endpoints) bool { return e.endWith("/oauth2/authorize", "/oauth2/logout") }},
		{name: "Better Auth", page: "better-auth",
			is: func(e endpoints) bool { return e.at("/oauth2/authorize", "/oauth2/end-session") },
			unsent: "it sends a logout token once, and only to apps that were issued an opaque access " +
				"token or a refresh token in that session",
			do: "keep refresh_grace short: a lost one is noticed when userinfo refuses the new access token"},
		{name: "oidc-provider", page: "oidc-provider",
			is:     func(e endpoints) bool { return e.at("/auth", "/session/end") },
			unsent: "it sends a logout token once, and waits 2.5 s for the answer",
			do: "issue refresh tokens without offline_access and short access tokens: Curfew notices a lost one at the " +
				"next refresh"},
		{name: "Glewlwyd", page: "glewlwyd", noExp: true,
			is: func(e endpoints) bool { return e.at("/auth", "/end_session") },
			unsent: "it sends a logout token once, and only when somebody confirms to sign out; nothing when " +
				"a user is disabled, and it goes on to refresh the tokens",
			do: "keep session_lifetime and refresh_grace short"},
	}
}

// kindOf recognizes a provider by the form of its URLs. Any other is the zero kind.
func kindOf(issuer string, m *oidc.Metadata) kind {
	e := endpoints{issuer, m.AuthorizationEndpoint, m.EndSessionEndpoint}
	for _, k := range kinds() {
		if k.is(e) {
			return k
		}
	}
	return kind{}
}

// checkKnown says which provider it looks like, where its page is, and what it is known not to send.
func checkKnown(r *Report, k kind) {
	if k.page != "" {
		r.add("provider", OK, "this looks like "+k.name+", see docs/providers/"+k.page+".md: "+k.unsent, k.do)
	}
}

// checkSubject says what cannot be seen from here: a mapper at Keycloak may change `sub` in ID Tokens alone.
func checkSubject(r *Report, k kind) {
	if k.name == keycloak {
		r.unchecked("sub", "this looks like Keycloak, where a mapper (or pairwise subjects) that sets sub changes ID "+
			"Tokens and not logout tokens: those end sessions by sid, and one without a sid ends nobody",
			"keep \"Backchannel logout session required\" on; the log warns (logout_other_subject) when it is so")
	}
}

// checkRoles warns of claims that Keycloak puts into access tokens alone, which are not for us to read.
func checkRoles(r *Report, k kind, claims []string) {
	if k.name != keycloak {
		return
	}
	for _, name := range claims {
		if root, _, _ := strings.Cut(name, "."); root == "realm_access" || root == "resource_access" {
			r.warn("claims", name+" is asked for here, and Keycloak puts "+root+" into the access token alone",
				"in the client scope roles, switch \"Add to ID token\" (or \"Add to userinfo\") on for its mapper, or "+
					"nobody has these roles here")
			return
		}
	}
}

// checkQuirks reports the quirks in force, and those that this kind of provider is known to need.
func checkQuirks(r *Report, c oidc.Config, k kind) {
	q := config.Quirks(c.Quirks)
	byDefault := "logout_token_signed_response_alg: " + c.SigningAlg
	q = slices.DeleteFunc(q, func(s string) bool { return s == byDefault })
	if len(q) > 0 {
		r.ok("quirks", "in force: %s", strings.Join(q, ", "))
	}
	switch {
	case k.name == "":
		r.unchecked("logout tokens", "no provider says what its logout tokens look like, and some need a setting, such "+
			"as allow_missing_exp", "sign out at the provider: if a setting is missing the log names it "+
			"(logout_setting_needed), and so does /readyz?detail until a logout succeeds")
	case k.noExp && !c.Quirks.AllowMissingExp:
		r.warn("quirks", "this looks like "+k.name+", whose logout tokens have no exp",
			"set allow_missing_exp: true, or each of its logouts is refused")
	case k.name == "Ory Hydra" && c.Quirks.RequireTyp:
		r.warn("quirks", "this looks like Ory Hydra, whose logout tokens have the typ JWT",
			"leave out require_typ, or each of its logouts is refused")
	case k.name == keycloak && c.Encryption != nil && !c.Quirks.PlainLogoutTokens:
		r.warn("quirks",
			"this looks like Keycloak, which never encrypts logout tokens, and ID Tokens are encrypted here",
			"set allow_unencrypted_logout_tokens: true, or each of its logouts is refused")
	case k.name == keycloak && c.Quirks.SIDFromTokenResponse:
		r.ok("quirks", "this looks like Keycloak, whose ID Tokens have a sid: sid_from_token_response is for releases "+
			"that leave it out, and does no harm")
	case k.name == keycloak && !c.Quirks.AllowMissingExp:
		r.ok("quirks",
			"this looks like Keycloak: up to 23.0.3 it needs allow_missing_exp: true; newer ones need nothing")
	case k.name == "authentik" && !c.Quirks.AllowMissingExp:
		r.ok("quirks", "this looks like authentik: older ones need allow_missing_exp: true")
	}
}
