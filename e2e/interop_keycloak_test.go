package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
)

// TestInteropKeycloak plays the scenarios of Keycloak, of which one is started.
func TestInteropKeycloak(t *testing.T) {
	needInterop(t)
	t.Parallel()
	k := &keycloak{KeycloakServer: servers.Keycloak(t)}
	k.makeRealm(t, commonRealm, nil)
	t.Run("console", k.pictures)
	play(t, "keycloak", "Keycloak "+servers.KeycloakVersion+":", slices.Concat(
		k.signOuts(),
		k.sessions(),
		k.tokens(),
		k.subjects(),
		k.ways(),
		k.traps(),
		k.outages(),
	))
}

type keycloak struct{ *servers.KeycloakServer }

type object = map[string]any

// commonRealm is used by all scenarios that change nothing of a realm: it takes seconds to make one.
const commonRealm = "common"

// realm is a realm with the client of a gateway, and the users alice and bob of that client, whose password is "pw".
type realm struct {
	*keycloak
	name   string
	issuer string
	id     string            // of the client
	suffix string            // of the names of its users
	users  map[string]string // their IDs, without the suffix
}

// changes is what differs from the realm and the client that the page describes. Attributes are the client's, and
// settings those of the provider here. If it changes the realm, the scenario has one of its own.
type changes struct {
	realm, client, attributes object
	settings                  []string
}

// realm makes the client of a gateway and its users, and has the gateway use them. The gateway does not run yet.
func (k *keycloak) realm(t *testing.T, g *gateway, c changes) *realm {
	t.Helper()
	// The number of the gateway's port is its own for as long as the scenario is played.
	port := g.listen[strings.LastIndex(g.listen, ":")+1:]
	r := &realm{keycloak: k, name: commonRealm, suffix: "-" + port, users: map[string]string{}}
	if c.realm != nil {
		r.name = "realm-" + port
		k.makeRealm(t, r.name, c.realm)
	}
	r.issuer = k.URL + "/realms/" + r.name
	r.addUsers(t)
	r.addClient(t, g, c)
	return r
}

// addUsers makes alice and bob.
func (r *realm) addUsers(t *testing.T) {
	t.Helper()
	for _, name := range []string{"alice", "bob"} {
		r.users[name] = r.admin(t, http.MethodPost, "/users", newUser(name+r.suffix), nil)
	}
}

func newUser(name string) object {
	return object{"username": name, "enabled": true, "firstName": name, "lastName": "of the tests",
		"email": name + "@example.test", "emailVerified": true,
		"credentials": []object{{"type": "password", "value": "pw"}}}
}

// addClient makes the client of a gateway, and has the gateway use the realm unless it has a provider already.
func (r *realm) addClient(t *testing.T, g *gateway, c changes) {
	t.Helper()
	if len(c.settings) > 0 {
		g.provider(t, r.issuer, c.settings...)
	} else if !slices.Contains(g.flags, "--issuer") {
		g.flags = append(g.flags, "--issuer", r.issuer)
	}
	attributes := object{
		"backchannel.logout.url":              g.url + "/auth/backchannel-logout",
		"backchannel.logout.session.required": "true",
		"post.logout.redirect.uris":           g.url + "/auth/logout/callback",
	}
	maps.Copy(attributes, c.attributes)
	client := object{
		"clientId": g.client, "secret": g.secret, "publicClient": false, "frontchannelLogout": false,
		"redirectUris": []string{g.url + "/auth/callback"}, "attributes": attributes,
	}
	maps.Copy(client, c.client)
	r.id = r.admin(t, http.MethodPost, "/clients", client, nil)
}

// attribute sets an attribute of the client, for the sessions that there are as well.
func (r *realm) attribute(t *testing.T, name, value string) {
	t.Helper()
	var client object
	r.admin(t, http.MethodGet, "/clients/"+r.id, nil, &client)
	client["attributes"].(object)[name] = value
	r.admin(t, http.MethodPut, "/clients/"+r.id, client, nil)
}

// makeRealm makes a realm, in which the account API may be used with an access token that the client "cli" gets.
func (k *keycloak) makeRealm(t *testing.T, name string, change object) {
	t.Helper()
	representation := object{
		"realm": name, "enabled": true, "sslRequired": "none", "eventsEnabled": true, "enabledEventTypes": eventTypes,
		// The passwords guard nothing here, and what guards passwords takes time.
		"passwordPolicy": "hashAlgorithm(pbkdf2-sha256) and hashIterations(1)",
		// By itself Keycloak makes two RSA keys, which takes it seconds.
		"components": object{"org.keycloak.keys.KeyProvider": []object{
			keyProvider("rsa", "privateKey", pkcs8(t, rsaKey(t))), keyProvider("hmac-generated", "algorithm", "HS512"),
			keyProvider("aes-generated", "secretSize", "16")}},
		"clients": []object{{"clientId": "cli", "publicClient": true, "standardFlowEnabled": false,
			"directAccessGrantsEnabled": true}},
	}
	maps.Copy(representation, change)
	k.Admin(t, http.MethodPost, "", representation, nil)
	if os.Getenv("CURFEW_TEST_KEYCLOAK") != "" { // it takes a second, and any other server is thrown away
		t.Cleanup(func() { k.Admin(t, http.MethodDelete, "/"+name, nil, nil) })
	}
}

func keyProvider(id, setting, value string) object {
	return object{"name": id, "providerId": id, "config": object{"priority": []string{"100"}, setting: []string{value}}}
}

// start makes a realm with a running gateway.
func (k *keycloak) start(t *testing.T, c changes, flags ...string) (*realm, *gateway) {
	t.Helper()
	g := newGateway(t, flags...)
	r := k.realm(t, g, c)
	g.start(t)
	return r, g
}

// signIn opens the app as somebody who is not signed in at Keycloak.
func (r *realm) signIn(t *testing.T, g *gateway, name string) *browser {
	t.Helper()
	b := newBrowser(name)
	r.trust(b)
	r.enter(t, b, g, name)
	return b
}

// trust has a browser accept Keycloak's certificate.
func (k *keycloak) trust(b *browser) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(k.Authority))
	b.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
}

// enter signs in with a browser, which may have been signed in before.
func (r *realm) enter(t *testing.T, b *browser, g *gateway, name string) {
	t.Helper()
	var p *page
	// On a busy machine Keycloak may take longer than Curfew waits.
	for end := time.Now().Add(patience); ; {
		p = b.follow(t, b.get(t, g.url+"/private"))
		if strings.Contains(p.body, `name="password"`) {
			p = b.password(t, p, name+r.suffix, "pw")
		}
		if strings.Contains(p.body, "oauth_approve") || strings.Contains(p.body, `name="accept"`) {
			p = b.follow(t, b.submit(t, p, url.Values{"accept": {"Yes"}}))
		}
		for range 3 { // an answer that comes as a form, which our own page sends once more
			if to := strings.ToLower(p.body); p.status != http.StatusOK || !strings.Contains(to, "<form") ||
				!strings.Contains(to, "callback") && !strings.HasPrefix(p.url.String(), g.url) {
				break
			}
			p = b.follow(t, b.submit(t, p, url.Values{}))
		}
		if p.status != http.StatusServiceUnavailable || time.Now().After(end) {
			break
		}
	}
	if p.status != http.StatusOK || p.url.String() != g.url+"/private" {
		t.Fatalf("%s signs in and should be on the page that it wanted: %v", b.name, p)
	}
}

// admin calls the admin API of the realm.
func (r *realm) admin(t *testing.T, method, path string, body, into any) string {
	t.Helper()
	return r.Admin(t, method, "/"+r.name+path, body, into)
}

// account calls the account API of the realm as a person, as the account console does.
func (r *realm) account(t *testing.T, name, method, path string) {
	t.Helper()
	token := r.Password(t, r.name, "cli", name+r.suffix, "pw")
	if status, body, _ := r.Call(t, token, method, r.issuer+"/account"+path, nil); status/100 != 2 {
		t.Fatalf("the account API: %s %s answered %d: %.500s", method, path, status, body)
	}
}

// session returns the ID of the only session of a person with the client app.
func (r *realm) session(t *testing.T, name string) string {
	t.Helper()
	var sessions []struct{ ID, Username string }
	r.admin(t, http.MethodGet, "/clients/"+r.id+"/user-sessions", nil, &sessions)
	for _, s := range sessions {
		if s.Username == name+r.suffix {
			return s.ID
		}
	}
	t.Fatalf("Keycloak has no session of %s: %+v", name, sessions)
	return ""
}

// brief is a client whose access tokens live for some seconds, so that Curfew soon asks again.
func brief() changes {
	return changes{attributes: object{"access.token.lifespan": "5"}, settings: []string{noUserinfo}}
}

// signOuts are the ways to end a session at Keycloak.
func (k *keycloak) signOuts() []scenario {
	// Each has alice signed in with two browsers, and bob.
	of := func(c changes, what string, end func(t *testing.T, r *realm, b *browser), others ...string) scenario {
		return scenario{what: what, run: func(t *testing.T) (string, string) {
			r, g := k.start(t, c)
			first, second, bob := r.signIn(t, g, "alice"), newBrowser("alice elsewhere"), r.signIn(t, g, "bob")
			if !slices.Contains(others, "one session") {
				r.enter(t, second, g, "alice")
			}
			sends, curfew := g.ended(t, first, func() { end(t, r, first) })
			if slices.Contains(others, "alice stays in elsewhere") {
				second.in(t, g)
			} else if !slices.Contains(others, "one session") {
				second.out(t, g)
			}
			if slices.Contains(others, "everybody is out") {
				bob.out(t, g)
			} else {
				bob.in(t, g)
			}
			return sends, curfew
		}}
	}
	one := func(what string, end func(t *testing.T, r *realm, b *browser), others ...string) scenario {
		return of(brief(), what, end, others...)
	}
	consent, own := brief(), brief()
	consent.client = object{"consentRequired": true}
	own.realm = object{}
	return []scenario{
		one("somebody signs out at Keycloak", func(t *testing.T, r *realm, b *browser) { r.signOut(t, b) },
			"alice stays in elsewhere"),
		one("the account console: sign out one device", func(t *testing.T, r *realm, b *browser) {
			r.account(t, "alice", http.MethodDelete, "/sessions/"+r.session(t, "alice"))
		}, "one session"),
		one("the account console: sign out all devices", func(t *testing.T, r *realm, b *browser) {
			r.account(t, "alice", http.MethodDelete, "/sessions?current=true")
		}),
		one("the admin console: sign out one session", func(t *testing.T, r *realm, b *browser) {
			r.admin(t, http.MethodDelete, "/sessions/"+r.session(t, "alice"), nil, nil)
		}, "one session"),
		one("the admin console: log out all sessions of a user", func(t *testing.T, r *realm, b *browser) {
			r.admin(t, http.MethodPost, "/users/"+r.users["alice"]+"/logout", nil, nil)
		}),
		of(own, "the admin console: sign out all active sessions of the realm", func(t *testing.T, r *realm, b *browser) {
			r.admin(t, http.MethodPost, "/logout-all", nil, nil)
		}, "everybody is out"),
		one("a user is disabled", func(t *testing.T, r *realm, b *browser) {
			r.admin(t, http.MethodPut, "/users/"+r.users["alice"], object{"enabled": false}, nil)
		}),
		one("a user is deleted", func(t *testing.T, r *realm, b *browser) {
			r.admin(t, http.MethodDelete, "/users/"+r.users["alice"], nil, nil)
		}),
		of(consent, "the consent of a user is revoked", func(t *testing.T, r *realm, b *browser) {
			r.admin(t, http.MethodDelete, "/users/"+r.users["alice"]+"/consents/app"+r.suffix, nil, nil)
		}),
	}
}
