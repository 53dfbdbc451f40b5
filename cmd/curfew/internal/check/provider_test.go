package check

import (
	"strings"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/oidc"
)

func TestCheckSaysWhatAProviderLacksAndWhatToDo(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	logouts := func(m oidc.Metadata) func(*Report) { return func(r *Report) { checkLogoutSupport(r, &m) } }
	tokens := func(method string, m oidc.Metadata) func(*Report) {
		return func(r *Report) { checkTokenEndpoint(r, oidc.Config{AuthMethod: method}, &m) }
	}
	clock := func(ahead time.Duration) func(*Report) {
		return func(r *Report) { checkClock(r, &oidc.Metadata{Date: noon.Add(ahead), At: noon}) }
	}
	quirks := func(issuer, authorize, end string, q oidc.Quirks) func(*Report) {
		return func(r *Report) {
			m := &oidc.Metadata{AuthorizationEndpoint: authorize, EndSessionEndpoint: end}
			checkQuirks(r, oidc.Config{Issuer: issuer, SigningAlg: "RS256", Quirks: q}, kindOf(issuer, m))
		}
	}
	front := func(kind string, m oidc.Metadata) func(*Report) {
		return func(r *Report) {
			checkFrontchannel(r, kindNamed(kind), &m,
				curfew.Registration{FrontchannelURI: "https://app.example.com/auth/frontchannel-logout"})
		}
	}
	userinfo := func(alg string, offered ...string) func(*Report) {
		return func(r *Report) {
			checkUserinfo(r, oidc.Config{UserinfoSigningAlg: alg}, &oidc.Metadata{UserinfoSigningAlgs: offered})
		}
	}
	encrypted := func(q oidc.Quirks) func(*Report) {
		return func(r *Report) {
			checkQuirks(r, oidc.Config{SigningAlg: "RS256", Encryption: &oidc.Encryption{}, Quirks: q}, kindNamed("Keycloak"))
		}
	}
	const hydra = "https://id.example.com"
	register := func(issuer, url string) func(*Report) {
		return func(r *Report) {
			checkBackchannelURL(r, oidc.Config{Issuer: issuer}, curfew.Registration{BackchannelURI: url})
		}
	}
	for _, row := range []struct {
		name   string
		look   func(*Report)
		check  string
		status string
		says   string // in the detail or in what to do
	}{
		{"no end_session_endpoint", logouts(oidc.Metadata{}), "end_session_endpoint", "warning", "signed in there"},
		{"no back-channel logout", logouts(oidc.Metadata{}), "backchannel_logout_supported", "warning",
			"register the URL above and try"},
		{"back-channel logout without sessions", logouts(oidc.Metadata{BackchannelLogout: true}),
			"backchannel_logout_session_supported", "warning", "all of a person's sessions"},
		{"no revocation", logouts(oidc.Metadata{}), "revocation_endpoint", "warning", "live on there"},
		{"no PKCE", tokens("none", oidc.Metadata{}), "PKCE", "warning", "sent all the same"},
		{"plain PKCE alone", tokens("none", oidc.Metadata{PKCEMethods: []string{"plain"}}), "PKCE", "warning", "S256"},
		{"basic, which goes without saying (Discovery §3)", tokens("client_secret_basic", oidc.Metadata{}),
			"token_endpoint_auth_method", "ok", ""},
		{"a method that is not offered", tokens("client_secret_post",
			oidc.Metadata{TokenAuthMethods: []string{"private_key_jwt"}}), "token_endpoint_auth_method", "fault",
			"the " +
				"provider offers private_key_jwt"},
		{"a public client that is not offered", tokens("none", oidc.Metadata{}), "token_endpoint_auth_method",
			"warning",
			"give its secret"},
		{"clock right", clock(30 * time.Second), "clock", "ok", "30s ahead"},
		{"the same clock", clock(-999 * time.Millisecond), "clock", "ok", "the provider's is within 1 s of ours"},
		{"clock a second ahead", clock(time.Second), "clock", "ok", "within 1 s"},
		{"clock two seconds behind", clock(-1501 * time.Millisecond), "clock", "ok", "2s behind ours"},
		{"clock ahead", clock(31 * time.Second), "clock", "warning", "31s ahead"},
		{"clock behind", clock(-31 * time.Second), "clock", "warning", "31s behind"},
		{"clock too far ahead", clock(61 * time.Second), "clock", "fault", "NTP"},
		{"clock too far behind", clock(-61 * time.Second), "clock", "fault", "1m1s behind"},
		{"no time", func(r *Report) { checkClock(r, &oidc.Metadata{At: noon}) }, "clock", "not checked",
			"does not tell"},
		{"Hydra without its quirk", quirks(hydra, hydra+"/oauth2/auth", hydra+"/oauth2/sessions/logout", oidc.Quirks{}),
			"quirks", "warning", "allow_missing_exp: true"},
		{"Hydra with require_typ", quirks(hydra, hydra+"/oauth2/auth", hydra+"/oauth2/sessions/logout",
			oidc.Quirks{AllowMissingExp: true, RequireTyp: true}), "quirks", "warning", "leave out require_typ"},
		{"LemonLDAP::NG without its quirk",
			quirks(hydra, hydra+"/oauth2/authorize", hydra+"/oauth2/logout", oidc.Quirks{}), "quirks", "warning",
			"allow_missing_exp: true"},
		{"another provider", quirks(hydra, hydra+"/authorize", hydra+"/logout", oidc.Quirks{}), "logout tokens",
			"not checked", "/readyz?detail"},
		{"Keycloak", quirks(hydra+"/realms/main", hydra+"/realms/main/protocol/openid-connect/auth", "", oidc.Quirks{}),
			"quirks", "ok", "23.0.3"},
		{"Keycloak with encrypted ID Tokens", encrypted(oidc.Quirks{}), "quirks", "warning",
			"set allow_unencrypted_logout_tokens: true"},
		{"Keycloak with encrypted ID Tokens and an old quirk", encrypted(oidc.Quirks{AllowMissingExp: true}), "quirks",
			"warning", "set allow_unencrypted_logout_tokens: true"},
		{"Keycloak with encrypted ID Tokens, set right", encrypted(oidc.Quirks{PlainLogoutTokens: true}), "quirks",
			"ok", "in force: allow_unencrypted_logout_tokens: true"},
		{"Keycloak and its front channel", front("Keycloak", oidc.Metadata{BackchannelLogout: true,
			FrontchannelLogout: true}), "front channel", "not checked", "switch \"Front channel logout\" off"},
		{"a front channel alone", front("", oidc.Metadata{FrontchannelLogout: true}), "front channel", "warning",
			"register https://app.example.com/auth/frontchannel-logout"},
		{"Keycloak and a sub that a mapper sets", func(r *Report) { checkSubject(r, kindNamed("Keycloak")) }, "sub",
			"not checked", "one without a sid ends nobody"},
		{"Keycloak and roles that only the access token has",
			func(r *Report) { checkRoles(r, kindNamed("Keycloak"), []string{"groups", "realm_access.roles"}) }, "claims",
			"warning", "Add to ID token"},
		{"Keycloak and offline access", func(r *Report) {
			checkScopes(r, oidc.Config{Scopes: []string{"openid", "offline_access"}}, kindNamed("Keycloak"), &oidc.Metadata{})
		}, "scopes", "warning", "sends no logout token"},
		{"the post-logout redirect URI", func(r *Report) {
			checkPostLogoutURI(r, &oidc.Metadata{EndSessionEndpoint: "https://id.example.com/end"},
				curfew.Registration{PostLogoutURI: "https://app.example.com/auth/logout/callback"})
		}, "post-logout redirect URI", "not checked", "https://app.example.com/auth/logout/callback"},
		{"userinfo signed", userinfo("ES256", "ES256"), "userinfo", "ok", "userinfo_signed_response_alg: ES256"},
		{"userinfo signed with what is not offered", userinfo("PS256", "RS256"), "userinfo", "fault",
			"the provider offers RS256"},
		{"userinfo signed, and nothing is said", userinfo("ES256"), "userinfo", "not checked", "does not say whether"},
		{"userinfo encrypted with what is not offered", func(r *Report) {
			checkUserinfo(r, oidc.Config{UserinfoEncryption: &oidc.Encryption{Alg: "ECDH-ES"}},
				&oidc.Metadata{UserinfoEncryptAlgs: []string{"RSA-OAEP"}})
		}, "userinfo", "fault", "set userinfo_encrypted_response_alg"},
		{"authentik", quirks(hydra+"/application/o/app/", hydra+"/application/o/authorize/", "", oidc.Quirks{}),
			"quirks",
			"ok", "authentik"},
		{"a scope that is not offered", func(r *Report) {
			checkScopes(r, oidc.Config{Scopes: []string{"openid", "groups"}}, kind{},
				&oidc.Metadata{Scopes: []string{"openid"}})
		}, "scopes", "warning", "does not mention groups"},
		{"a loopback URL for a provider elsewhere",
			register("https://id.example.com", "http://127.0.0.1:4180/auth/backchannel-logout"), "back-channel " +
				"URL", "warning", "no logout can reach it"},
		{"a certificate that is not there", func(r *Report) {
			checkCertificate(r,
				&config.Config{TLSCert: "none.pem", TLSKey: "none.pem"})
		}, "certificate", "fault", "none.pem"},
		{"a loopback URL for one on loopback", register("http://localhost:8080",
			"http://127.0.0.1:4180/auth/backchannel-logout"), "back-channel URL", "not checked",
			"with session required"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := &Report{about: "provider main"}
			row.look(r)
			for _, f := range r.Findings {
				if f.Check == row.check && f.Status == row.status && strings.Contains(f.Detail+f.Do, row.says) {
					if f.Status != "ok" && f.Do == "" {
						t.Errorf("it does not say what to do: %+v", f)
					}
					return
				}
			}
			t.Errorf("want %s, %s, %q in %+v", row.check, row.status, row.says, r.Findings)
		})
	}
}
