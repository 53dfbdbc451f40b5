package e2e_test

import (
	"net/http"
	"net/url"
	"testing"
)

// TestInteropOIDCProvider plays the scenarios of the npm package oidc-provider, of which each starts one. The other
// tests of this package use it too, and look closer.
func TestInteropOIDCProvider(t *testing.T) {
	needInterop(t)
	t.Parallel()
	need(t)
	play(t, "oidc-provider", "oidc-provider 9.13.3:", oidcProviderScenarios())
}

func oidcProviderScenarios() []scenario {
	// brief has access tokens that live for some seconds, and refresh tokens that end with the session, or never.
	brief := func(t *testing.T, refresh string, scopes string) (*provider, *gateway) {
		t.Helper()
		p, all := world(t, "app")
		g := all[0]
		p.env = []string{"OP_ACCESS_TTL=5", "OP_NEXT_TTL=5", "OP_REFRESH=" + refresh}
		g.flags = append(g.flags, "--scopes", scopes)
		g.configure(t, "pass_access_token: true\n")
		g.provider(t, p.issuer, noUserinfo)
		p.start(t)
		g.start(t)
		return p, g
	}
	const session, lasting = "openid,profile,email", "openid,profile,email,offline_access"
	var all []scenario
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		all = append(all, scenario{what: "somebody signs out at the provider, tokens are signed with " + alg,
			run: func(t *testing.T) (string, string) {
				p, g := world(t, "app")
				p.alg = alg
				g[0].flags = append(g[0].flags, "--id-token-signed-response-alg", alg)
				p.start(t)
				g[0].start(t)
				b, elsewhere := newBrowser("alice"), newBrowser("alice elsewhere")
				b.signIn(t, g[0], "alice")
				elsewhere.signIn(t, g[0], "alice")
				sends, curfew := g[0].ended(t, b, func() { b.signOutAt(t, p) })
				elsewhere.in(t, g[0])
				return sends, curfew
			}})
	}
	return append(all, []scenario{
		{what: "somebody signs out of one of two apps, and confirms it", run: func(t *testing.T) (string, string) {
			p, g := world(t, "app", "app2")
			p.start(t)
			g[0].start(t)
			g[1].start(t)
			b := newBrowser("alice")
			b.signIn(t, g[0], "alice")
			b.signIn(t, g[1], "alice")
			return g[1].ended(t, b, func() {
				b.follow(t, b.confirm(t, b.follow(t, b.post(t, g[0].url+"/auth/logout", url.Values{}))))
			})
		}},
		{what: "an administrator destroys the grants of a person", run: func(t *testing.T) (string, string) {
			p, g := brief(t, "always", session)
			b := newBrowser("alice")
			b.signIn(t, g, "alice")
			return g.ended(t, b, func() { p.revoke(t, "alice") })
		}},
		{what: "Curfew is away while somebody signs out", run: func(t *testing.T) (string, string) {
			p, g := brief(t, "always", session)
			b := newBrowser("alice")
			b.signIn(t, g, "alice")
			g.kill()
			b.signOutAt(t, p)
			g.start(t)
			b.out(t, g)
			_, curfew := g.sent(t, 0)
			return "a logout token, **once**", curfew
		}},
		{what: "the same with the scope `offline_access`", run: func(t *testing.T) (string, string) {
			p, g := brief(t, "", lasting)
			b := newBrowser("alice")
			b.consent(t, p, g, "alice")
			g.kill()
			b.signOutAt(t, p)
			g.start(t)
			g.refreshed(t, b)
			return "a logout token, **once**", "**lets the session go on**: its tokens are still refreshed there"
		}},
		{what: "requests come together when an access token has run out", run: func(t *testing.T) (string, string) {
			_, g := brief(t, "always", session)
			b := newBrowser("alice")
			b.signIn(t, g, "alice")
			b.refreshedOnce(t, g)
			return "one new refresh token", "uses each once, and the session goes on"
		}},
		{what: "the provider is stopped", run: func(t *testing.T) (string, string) {
			p, g := world(t, "app")
			p.start(t)
			g[0].start(t)
			b := newBrowser("alice")
			b.signIn(t, g[0], "alice")
			p.kill()
			b.in(t, g[0])
			page := newBrowser("bob").get(t, g[0].url+"/auth/login")
			if page.status != http.StatusSeeOther && page.status != http.StatusServiceUnavailable &&
				page.status != http.StatusBadGateway {
				t.Errorf("a sign-in should be sent on or refused: %v", page)
			}
			return "nothing", "lets in who is signed in"
		}},
	}...)
}
