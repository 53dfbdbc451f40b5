package e2e_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// traps are scenarios of settings with which all seems well until somebody is logged out, or comes back, and of what
// tells of them.
func (k *keycloak) traps() []scenario {
	return []scenario{
		{what: "**ID Tokens are encrypted, and `allow_unencrypted_logout_tokens` is not set**", run: k.refusesPlainTokens},
		{what: "ID Tokens are encrypted, and somebody signs out of one of two apps", run: k.hintsWithTheSignedToken},
		{what: "\"Backchannel logout revoke offline sessions\" is on (`offline_access: keep`)", run: k.revokesOffline},
		{what: "`require: {acr: gold}`, and a sign-in that is not", run: k.asksForANewSignIn},
		{what: "roles (`groups_claim: realm_access.roles`)", run: k.readsRoles},
		{what: "a user is disabled (`revalidate: 5s`)", run: k.revalidates},
		{what: "the token response has no `expires_in` (`access_token_lifetime: 5s`), and a user is disabled",
			run: k.isRefreshedWithoutALifetime},
		{what: "Keycloak has one address for browsers and another for Curfew (`internal_url`)", run: k.isAskedInside},
		{what: "a silent sign-in (`silent=true`), with a session at Keycloak and without", run: k.signsInSilently},
		{what: "another site starts the sign-in, with a form (Core §4)", run: k.isEnteredFromElsewhere},
	}
}

// logOut has an administrator log alice out.
func (r *realm) logOut(t *testing.T) {
	t.Helper()
	r.admin(t, http.MethodPost, "/users/"+r.users["alice"]+"/logout", nil, nil)
}

// encrypts returns a gateway that gets its ID Tokens encrypted, with more settings of its provider. It does not run
// yet.
func (k *keycloak) encrypts(t *testing.T, settings ...string) (*realm, *gateway) {
	t.Helper()
	g := newGateway(t)
	g.write(t, "key.pem", pkcs8(t, rsaKey(t)))
	c := changes{attributes: brief().attributes}
	maps.Copy(c.attributes, object{"use.jwks.url": "true", "jwks.url": g.url + "/auth/client-keys/main",
		"id.token.encrypted.response.alg": "RSA-OAEP-256", "id.token.encrypted.response.enc": "A256GCM"})
	r := k.realm(t, g, c)
	g.provider(t, r.issuer, append(settings, noUserinfo, "decryption_key_file: key.pem",
		"id_token_encrypted_response_alg: RSA-OAEP-256", "id_token_encrypted_response_enc: A256GCM")...)
	return r, g
}

// namesTheSetting does something that has the provider send a logout token, and fails unless it is refused for want of
// a setting, which the log and /readyz?detail name.
func (g *gateway) namesTheSetting(t *testing.T, setting string, what func()) {
	t.Helper()
	from := g.said()
	what()
	g.await(t, "the setting that it needs", from, func(line string) bool {
		return strings.Contains(line, "event=logout_setting_needed") && strings.Contains(line, setting) &&
			field(line, "level") == "WARN"
	})
	eventually(t, "the logout is refused", func() string {
		results := g.logouts(from)
		return unless(slices.Contains(results, "refused"), "%q", results)
	})
	if p := newBrowser("the supervisor").get(t, "http://"+g.admin+"/readyz?detail"); !strings.Contains(p.body, setting) {
		t.Errorf("it should name the setting: %v", p)
	}
}

func (k *keycloak) refusesPlainTokens(t *testing.T) (string, string) {
	const setting = "allow_unencrypted_logout_tokens: true"
	r, g := k.encrypts(t)
	g.start(t)
	if _, out := g.run(t, "", "check"); !strings.Contains(out, setting) {
		t.Errorf("check should name %s: %s", setting, out)
	}
	b := r.signIn(t, g, "alice")
	g.namesTheSetting(t, setting, func() { r.logOut(t) })
	b.out(t, g)
	return "a logout token that is not encrypted", "**refuses it**; the log, `/readyz?detail` and `curfew check` name " +
		"the setting. The session ends when it is next refreshed"
}

func (k *keycloak) hintsWithTheSignedToken(t *testing.T) (string, string) {
	r, g := k.encrypts(t, "allow_unencrypted_logout_tokens: true")
	g.start(t)
	return r.signOutOfOneOfTwo(t, g)
}

// signOutOfOneOfTwo signs alice in to two apps and out of the one behind g, and returns how the other session ends.
func (r *realm) signOutOfOneOfTwo(t *testing.T, g *gateway) (sends, curfew string) {
	t.Helper()
	other := newGateway(t)
	r.addClient(t, other, changes{})
	other.start(t)
	b := r.signIn(t, g, "alice")
	r.enter(t, b, other, "alice")
	return other.ended(t, b, func() {
		p := b.follow(t, b.post(t, g.url+"/auth/logout", url.Values{}))
		if p.status != http.StatusOK || !strings.HasPrefix(p.url.String(), g.url) {
			t.Fatalf("after signing out, alice should be back at the app, and not be asked: %v", p)
		}
		b.mustBeOut(t, g)
	})
}

// revokesOffline has a session whose refresh token would outlive it.
func (k *keycloak) revokesOffline(t *testing.T) (string, string) {
	c := changes{attributes: object{"backchannel.logout.revoke.offline.tokens": "true"}}
	r, g := k.start(t, c, "--scopes", "openid,profile,email,offline_access")
	other := newGateway(t)
	(&realm{keycloak: k, name: r.name, issuer: r.issuer}).addClient(t, other, changes{})
	other.start(t)
	b := r.signIn(t, other, "alice") // otherwise there is an offline session alone
	r.enter(t, b, g, "alice")
	offline := func() (sessions []object) {
		r.admin(t, http.MethodGet, "/users/"+r.users["alice"]+"/offline-sessions/"+r.id, nil, &sessions)
		return sessions
	}
	if n := len(offline()); n != 1 {
		t.Fatalf("Keycloak has %d offline sessions of alice, want 1", n)
	}
	sends, curfew := g.ended(t, b, func() { r.logOut(t) })
	eventually(t, "the offline session is revoked", func() string {
		return unless(len(offline()) == 0, "it goes on")
	})
	return sends + " with `revoke_offline_access`", curfew + ", and revokes its refresh token: the offline session at " +
		"Keycloak ends too"
}

func (k *keycloak) asksForANewSignIn(t *testing.T) (string, string) {
	g := newGateway(t)
	r := k.realm(t, g, changes{realm: levels()})
	g.provider(t, r.issuer, "require: {acr: gold}")
	g.start(t)
	b := newBrowser("alice")
	refused := func(p *page) {
		t.Helper()
		if p.status != http.StatusForbidden || !p.is(g.url+"/auth/callback") {
			t.Fatalf("alice should be told that she has to sign in another way: %v", p)
		}
	}
	p := b.password(t, b.follow(t, b.get(t, g.url+"/private")), "alice"+r.suffix, "pw")
	refused(p)
	again := p.link(t, "Sign in again")
	if p = b.follow(t, b.get(t, again)); !strings.Contains(p.body, `name="password"`) {
		t.Fatalf("alice should be asked for her password, and not come back at once: %v", p)
	}
	p = b.password(t, p, "alice"+r.suffix, "pw")
	refused(p)
	if strings.Contains(p.body, "Sign in again") {
		t.Errorf("a new sign-in did not help, and is offered once more: %v", p)
	}
	return "`acr: silver`", "lets nobody in; the button asks for a new sign-in (`prompt=login`), once"
}

func (k *keycloak) readsRoles(t *testing.T) (string, string) {
	roles := func(where string) changes {
		return changes{client: object{"protocolMappers": []object{{"name": "roles", "protocol": "openid-connect",
			"protocolMapper": "oidc-usermodel-realm-role-mapper", "config": object{"multivalued": "true",
				"claim.name": "realm_access.roles", "jsonType.label": "String", where: "true"}}}}}
	}
	groups := func(where string) (string, string) {
		t.Helper()
		g := newGateway(t)
		g.yaml(t, "groups_claim: realm_access.roles\n")
		r := k.realm(t, g, roles(where))
		g.start(t)
		told, err := r.signIn(t, g, "alice").told(g, "application/json")
		if err != nil {
			t.Fatal(err)
		}
		_, out := g.run(t, "", "check")
		return told.Header.Get("X-Auth-Groups"), out
	}
	role := "default-roles-" + commonRealm
	if got, out := groups("access.token.claim"); got != "" || !strings.Contains(out, `switch "Add to ID token"`) {
		t.Errorf("with roles in the access token alone, the app is told of the groups %q, and check says: %s", got, out)
	}
	for _, where := range []string{"id.token.claim", "userinfo.token.claim"} {
		if got, _ := groups(where); !slices.Contains(strings.Split(got, ","), role) {
			t.Errorf("with %s the app is told of the groups %q, want %s", where, got, role)
		}
	}
	return "`realm_access` in the access token alone, unless \"Add to ID token\" or \"Add to userinfo\" is on",
		"reads ID Tokens and userinfo; `curfew check` says so"
}

// revalidates has access tokens that last, so that only revalidate notices.
func (k *keycloak) revalidates(t *testing.T) (string, string) {
	g := newGateway(t)
	r := k.realm(t, g, changes{})
	g.provider(t, r.issuer, often)
	g.start(t)
	b, bob := r.signIn(t, g, "alice"), r.signIn(t, g, "bob")
	sends, _ := g.ended(t, b, func() {
		r.admin(t, http.MethodPut, "/users/"+r.users["alice"], object{"enabled": false}, nil)
	})
	bob.in(t, g)
	return sends, "ends the session when it next asks, within `revalidate`"
}

// isRefreshedWithoutALifetime has the gateway ask Keycloak through a proxy that removes expires_in from its answers.
func (k *keycloak) isRefreshedWithoutALifetime(t *testing.T) (string, string) {
	to, err := url.Parse(k.URL)
	if err != nil {
		t.Fatal(err)
	}
	var taken atomic.Int64
	without := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(r *http.Response) error {
			if !strings.HasSuffix(r.Request.URL.Path, "/token") || r.StatusCode != http.StatusOK {
				return nil
			}
			var doc object
			if err := json.NewDecoder(r.Body).Decode(&doc); err != nil {
				return err
			}
			if doc["expires_in"] != nil {
				taken.Add(1)
			}
			delete(doc, "expires_in")
			text, err := json.Marshal(doc)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
			r.Header.Set("Content-Length", strconv.Itoa(len(text)))
			return err
		},
	})
	t.Cleanup(without.Close)
	g := newGateway(t)
	r := k.realm(t, g, changes{})
	g.provider(t, r.issuer, "internal_url: "+without.URL, "access_token_lifetime: 5s", noUserinfo)
	g.start(t)
	b := r.signIn(t, g, "alice")
	sends, _ := g.ended(t, b, func() {
		r.admin(t, http.MethodPut, "/users/"+r.users["alice"], object{"enabled": false}, nil)
	})
	if taken.Load() == 0 {
		t.Error("no token response had an expires_in to take out")
	}
	return sends, "refreshes the session after `access_token_lifetime`, and ends it when that is refused"
}

// isAskedInside has people and the issuer at the address with TLS, and the gateway at the other.
func (k *keycloak) isAskedInside(t *testing.T) (string, string) {
	g := newGateway(t)
	r := k.realm(t, g, changes{realm: object{"attributes": object{"frontendUrl": k.HTTPS}}})
	r.issuer = k.HTTPS + strings.TrimPrefix(r.issuer, k.URL)
	g.provider(t, r.issuer, "internal_url: "+k.URL, often)
	g.start(t)
	if status, out := g.run(t, "", "check"); status != 0 {
		t.Errorf("check finds faults: %s", out)
	}
	b := r.signIn(t, g, "alice")
	g.refreshed(t, b)
	return g.ended(t, b, func() { r.logOut(t) })
}

func (k *keycloak) signsInSilently(t *testing.T) (string, string) {
	r, g := k.start(t, changes{})
	other := newGateway(t)
	r.addClient(t, other, changes{})
	other.start(t)
	b, nobody := r.signIn(t, other, "alice"), newBrowser("nobody")
	silent := g.url + "/auth/login?silent=true&return_to=/auth/session"
	if p := nobody.follow(t, nobody.get(t, silent)); p.url.Path != "/auth/session" {
		t.Errorf("nobody should be back, and not be asked: %v", p)
	}
	nobody.mustBeOut(t, g)
	if p := b.follow(t, b.get(t, silent)); p.status != http.StatusOK || p.url.Path != "/auth/session" {
		t.Errorf("alice should be back, signed in: %v", p)
	}
	b.in(t, g)
	r.enter(t, nobody, g, "bob") // after what failed, a sign-in succeeds
	return "signs in without a question, or `login_required`", "signs in, or goes back without a page"
}

func (k *keycloak) isEnteredFromElsewhere(t *testing.T) (string, string) {
	r, g := k.start(t, changes{})
	b := newBrowser("alice")
	p := b.request(t, http.MethodPost, g.url+"/auth/login", url.Values{"iss": {r.issuer},
		"login_hint": {"alice" + r.suffix}, "target_link_uri": {g.url + "/private"}}, "Origin", "https://elsewhere.test",
		"Sec-Fetch-Site", "cross-site")
	p = b.password(t, b.follow(t, p), "alice"+r.suffix, "pw")
	if p.status != http.StatusOK || p.url.String() != g.url+"/private" {
		t.Fatalf("alice should be on the page that the other site named: %v", p)
	}
	return "shows who signs in (`login_hint`)", "signs in, and leads to the `target_link_uri`"
}
