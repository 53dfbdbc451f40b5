package e2e_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// sessions are scenarios of sessions at Keycloak: those that it ends by itself, many of one person, and those that
// another realm or another provider has a part in.
func (k *keycloak) sessions() []scenario {
	return []scenario{
		{what: "somebody signs out of one of two apps", run: func(t *testing.T) (string, string) {
			r, g := k.start(t, changes{})
			return r.signOutOfOneOfTwo(t, g)
		}},
		{what: "a user with 20 browsers is logged out", run: func(t *testing.T) (string, string) {
			r, g := k.start(t, changes{})
			var all []*browser
			for n := range 20 {
				b := newBrowser(fmt.Sprint("browser ", n))
				r.enter(t, b, g, "alice")
				all = append(all, b)
			}
			from := g.said()
			r.admin(t, http.MethodPost, "/users/"+r.users["alice"]+"/logout", nil, nil)
			for _, b := range all {
				b.out(t, g)
			}
			eventually(t, "each session gets a logout token", func() string {
				n := len(g.logouts(from))
				return unless(n == len(all), "%d logout tokens, want %d", n, len(all))
			})
			sends, _ := g.sent(t, from)
			return sends + " for each session", "ends each session at once"
		}},
		{what: "a session at Keycloak was idle for too long", run: func(t *testing.T) (string, string) {
			r, g := k.start(t, brief())
			b := r.signIn(t, g, "alice")
			return g.ended(t, b, func() { r.attribute(t, "client.session.idle.timeout", "1") })
		}},
		{what: "a session at Keycloak has reached its maximum", run: func(t *testing.T) (string, string) {
			r, g := k.start(t, brief())
			b := r.signIn(t, g, "alice")
			g.refreshed(t, b)
			return g.ended(t, b, func() { r.attribute(t, "client.session.max.lifespan", "1") })
		}},
		{what: "an administrator sets another password", run: func(t *testing.T) (string, string) {
			r, g := k.start(t, brief())
			b := r.signIn(t, g, "alice")
			return g.kept(t, b, func() {
				r.admin(t, http.MethodPut, "/users/"+r.users["alice"]+"/reset-password",
					object{"type": "password", "value": "new", "temporary": false}, nil)
			})
		}},
		{what: "somebody chooses another password, and to be signed out elsewhere",
			run: func(t *testing.T) (string, string) {
				r, g := k.start(t, brief())
				b, there := r.signIn(t, g, "alice"), r.signIn(t, g, "alice")
				return g.ended(t, b, func() {
					to := there.get(t, g.url+"/auth/login").location.String()
					p := there.follow(t, there.get(t, to+"&kc_action=UPDATE_PASSWORD"))
					if strings.Contains(p.body, `name="password"`) { // Keycloak may ask for the old one first
						p = there.password(t, p, "alice"+r.suffix, "pw")
					}
					p = there.follow(t, there.submit(t, p, url.Values{"password-new": {"new"}, "password-confirm": {"new"},
						"logout-sessions": {"on"}}))
					if p.status != http.StatusOK || !strings.HasPrefix(p.url.String(), g.url) {
						t.Fatalf("after choosing a password, alice should be back at the app: %v", p)
					}
				})
			}},
		{what: "\"Not before\" of the realm is set to now", run: func(t *testing.T) (string, string) {
			c := brief()
			c.realm = object{}
			r, g := k.start(t, c)
			b := r.signIn(t, g, "alice")
			from := g.said()
			// A time to come: it counts in whole seconds, and a token of the same second would still be good.
			r.admin(t, http.MethodPut, "", object{"notBefore": 2000000000}, nil)
			b.out(t, g)
			return g.sent(t, from)
		}},
		{what: "somebody signed in through another provider, and signs out there",
			run: func(t *testing.T) (string, string) {
				g := newGateway(t)
				c := changes{realm: object{}}
				// The other provider is the common realm, and this realm is a client of it.
				upstream := object{"alias": "up", "providerId": "oidc", "enabled": true, "trustEmail": true,
					"config": object{
						"clientId": "broker" + g.client, "clientSecret": "broker-secret", "syncMode": "IMPORT",
						"clientAuthMethod": "client_secret_post", "defaultScope": "openid profile email",
						"issuer":           k.URL + "/realms/" + commonRealm,
						"authorizationUrl": k.URL + "/realms/" + commonRealm + "/protocol/openid-connect/auth",
						"tokenUrl":         k.URL + "/realms/" + commonRealm + "/protocol/openid-connect/token",
						"jwksUrl":          k.URL + "/realms/" + commonRealm + "/protocol/openid-connect/certs",
						"logoutUrl":        k.URL + "/realms/" + commonRealm + "/protocol/openid-connect/logout",
						"useJwksUrl":       "true", "validateSignature": "true", "backchannelSupported": "true"}}
				c.realm["identityProviders"] = []object{upstream}
				r := k.realm(t, g, c)
				g.provider(t, r.issuer, "link_params: [kc_idp_hint]")
				g.start(t)
				users := &realm{keycloak: k, name: commonRealm, issuer: k.URL + "/realms/" + commonRealm, suffix: r.suffix}
				id := users.admin(t, http.MethodPost, "/users", newUser("carol"+r.suffix), nil)
				users.admin(t, http.MethodPost, "/clients", object{"clientId": "broker" + g.client,
					"secret": "broker-secret", "frontchannelLogout": false,
					"redirectUris": []string{r.issuer + "/broker/up/endpoint*"},
					"attributes": object{"backchannel.logout.session.required": "true",
						"backchannel.logout.url": r.issuer + "/protocol/openid-connect/logout/backchannel-logout"}}, nil)
				b := newBrowser("carol")
				p := b.follow(t, b.get(t, g.url+"/private"))
				link := regexp.MustCompile(`href="([^"]*/broker/up/login[^"]*)"`).FindStringSubmatch(p.body)
				if link == nil {
					t.Fatalf("Keycloak should offer the other provider: %v", p)
				}
				to, err := p.url.Parse(strings.ReplaceAll(link[1], "&amp;", "&"))
				if err != nil {
					t.Fatal(err)
				}
				p = b.follow(t, b.get(t, to.String()))
				p = b.password(t, p, "carol"+r.suffix, "pw")
				if p.status != http.StatusOK || p.url.String() != g.url+"/private" {
					t.Fatalf("carol signs in and should be on the page that she wanted: %v", p)
				}
				hinted := newBrowser("hinted")
				p = hinted.follow(t, hinted.get(t, g.url+"/auth/login?kc_idp_hint=up"))
				if !strings.HasPrefix(p.url.String(), users.issuer) || !strings.Contains(p.body, `name="password"`) {
					t.Errorf("kc_idp_hint should lead to the other provider: %v", p)
				}
				return g.ended(t, b, func() {
					users.admin(t, http.MethodPost, "/users/"+id+"/logout", nil, nil)
				})
			}},
		{what: "two realms with one gateway: everybody of one is logged out", run: func(t *testing.T) (string, string) {
			g := newGateway(t)
			first := k.realm(t, g, changes{})
			second := &realm{keycloak: k, name: "second" + first.suffix, suffix: first.suffix, users: map[string]string{}}
			second.issuer = k.URL + "/realms/" + second.name
			k.makeRealm(t, second.name, nil)
			second.addUsers(t)
			second.addClient(t, g, changes{client: object{"redirectUris": []string{g.url + "/auth/callback/second"}}})
			g.flags = g.withoutProvider()
			for _, r := range []*realm{first, second} {
				name := map[*realm]string{first: "first", second: "second"}[r]
				g.yaml(t, "%s  - {name: %s, issuer: %q, client_id: %s, client_secret_file: secret}\n",
					map[*realm]string{first: "providers:\n"}[r], name, r.issuer, g.client)
			}
			g.start(t)
			enter := func(r *realm, provider string) *browser {
				b := newBrowser("alice of " + provider)
				p := b.follow(t, b.get(t, g.url+"/auth/login?provider="+provider+"&return_to=/private"))
				if p = b.password(t, p, "alice"+r.suffix, "pw"); p.url.String() != g.url+"/private" {
					t.Fatalf("%s should be signed in: %v", b.name, p)
				}
				return b
			}
			here, there := enter(first, "first"), enter(second, "second")
			sends, curfew := g.ended(t, there, func() {
				second.admin(t, http.MethodPost, "/users/"+second.users["alice"]+"/logout", nil, nil)
			})
			here.in(t, g)
			return sends, curfew + ", and none of the other realm"
		}},
	}
}

// refreshedOnce sends 20 requests at a time until the session has a new access token.
func (b *browser) refreshedOnce(t *testing.T, g *gateway) {
	t.Helper()
	authorization := func() string {
		page, err := b.told(g, "application/json")
		if err != nil {
			t.Fatal(err)
		}
		return page.Header.Get("Authorization")
	}
	first := authorization()
	eventually(t, "the session is refreshed", func() string {
		b.together(t, g, 20)
		return unless(authorization() != first, "not yet")
	})
}

// together sends requests of a browser at the same time, all of which must be let in.
func (b *browser) together(t *testing.T, g *gateway, n int) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if _, err := b.told(g, "application/json"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
