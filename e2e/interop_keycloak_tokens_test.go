package e2e_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"
)

// tokens are scenarios of what Keycloak issues: algorithms, keys, encryption, refresh tokens and offline access.
func (k *keycloak) tokens() []scenario {
	logout := func(t *testing.T, r *realm, g *gateway) (string, string) {
		t.Helper()
		b, bob := r.signIn(t, g, "alice"), r.signIn(t, g, "bob")
		sends, curfew := g.ended(t, b, func() {
			r.admin(t, http.MethodPost, "/users/"+r.users["alice"]+"/logout", nil, nil)
		})
		bob.in(t, g)
		return sends, curfew
	}
	var all []scenario
	for _, alg := range []string{"PS256", "ES256", "EdDSA", "RS512"} {
		all = append(all, scenario{what: "tokens are signed with " + alg, run: func(t *testing.T) (string, string) {
			r, g := k.start(t, changes{attributes: object{"id.token.signed.response.alg": alg},
				client: object{"directAccessGrantsEnabled": true}}, "--id-token-signed-response-alg", alg)
			if status, out := g.run(t, "", "check"); status != 0 { // Keycloak may not have made the key yet
				t.Errorf("check finds faults: %s", out)
			}
			// It makes the key now, and has more time for that than Curfew would give it.
			form := url.Values{"grant_type": {"password"}, "client_id": {g.client}, "client_secret": {g.secret},
				"username": {"alice" + r.suffix}, "password": {"pw"}, "scope": {"openid"}}
			p := newBrowser("alice's app").post(t, r.issuer+"/protocol/openid-connect/token", form)
			if p.status != http.StatusOK {
				t.Fatalf("no ID Token: %v", p)
			}
			return logout(t, r, g)
		}})
	}
	return append(all, []scenario{
		{what: "the realm signs with another key from now on", run: func(t *testing.T) (string, string) {
			c := brief()
			c.realm = object{}
			r, g := k.start(t, c)
			b := r.signIn(t, g, "alice")
			r.admin(t, http.MethodPost, "/components", object{"name": "next", "providerId": "rsa",
				"providerType": "org.keycloak.keys.KeyProvider", "config": object{"priority": []string{"200"},
					"privateKey": []string{pkcs8(t, rsaKey(t))}}}, nil)
			g.refreshed(t, b)
			return g.ended(t, b, func() {
				r.admin(t, http.MethodPost, "/users/"+r.users["alice"]+"/logout", nil, nil)
			})
		}},
		{what: "ID Tokens are encrypted (`allow_unencrypted_logout_tokens: true`)",
			run: func(t *testing.T) (string, string) {
				r, g := k.encrypts(t, "allow_unencrypted_logout_tokens: true")
				g.start(t)
				return logout(t, r, g)
			}},
		// An answer that comes too late has used the refresh token up: Keycloak has nothing else to do meanwhile.
		{what: "a refresh token works once, and 20 requests come together", alone: true,
			run: func(t *testing.T) (string, string) {
				c := brief()
				c.realm = object{"revokeRefreshToken": true, "refreshTokenMaxReuse": 0}
				r, g := k.start(t, c)
				b := r.signIn(t, g, "alice")
				for range 2 {
					b.refreshedOnce(t, g)
				}
				return "one new refresh token each time", "uses each once, and the session goes on"
			}},
		{what: "**scope `offline_access`**: the sessions of somebody are ended", run: func(t *testing.T) (string, string) {
			r, g := k.start(t, brief(), "--scopes", "openid,profile,email,offline_access")
			b := r.signIn(t, g, "alice")
			anotherSecond(t)
			return g.ended(t, b, func() { r.logOut(t) })
		}},
		{what: "scope `offline_access`, and signed in to another app before: the sessions are ended",
			run: func(t *testing.T) (string, string) {
				r, g := k.start(t, brief(), "--scopes", "openid,profile,email,offline_access")
				other := newGateway(t)
				(&realm{keycloak: k, name: r.name, issuer: r.issuer}).addClient(t, other, changes{})
				other.start(t)
				b := r.signIn(t, other, "alice")
				r.enter(t, b, g, "alice")
				return g.ended(t, b, func() {
					r.admin(t, http.MethodPost, "/users/"+r.users["alice"]+"/logout", nil, nil)
				})
			}},
		{what: "scope `offline_access`: the offline session is revoked", run: func(t *testing.T) (string, string) {
			r, g := k.start(t, brief(), "--scopes", "openid,profile,email,offline_access")
			b := r.signIn(t, g, "alice")
			return g.ended(t, b, func() {
				r.admin(t, http.MethodDelete, "/users/"+r.users["alice"]+"/consents/"+g.client, nil, nil)
			})
		}},
		{what: "**\"Front channel logout\" is on**", run: func(t *testing.T) (string, string) {
			c := brief()
			c.client = object{"frontchannelLogout": true}
			r, g := k.start(t, c)
			return logout(t, r, g)
		}},
		{what: "\"Backchannel logout session required\" is off", run: func(t *testing.T) (string, string) {
			r, g := k.start(t, changes{attributes: object{"backchannel.logout.session.required": "false"}})
			return logout(t, r, g)
		}},
	}...)
}

// anotherSecond waits until the clock shows another second. Keycloak compares whole seconds: a token that was issued in
// the same second as a logout stays valid.
func anotherSecond(t *testing.T) {
	t.Helper()
	from := time.Now().Unix()
	eventually(t, "the next second has begun", func() string { return unless(time.Now().Unix() != from, "not yet") })
}
