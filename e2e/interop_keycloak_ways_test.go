package e2e_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// keycloakWay is one way in which a client speaks to Keycloak.
type keycloakWay struct {
	what     string
	client   object   // the client there
	keys     bool     // Keycloak gets the client's keys from us
	settings []string // of the provider here; those that name the secret and the certificate are added
	secret   bool
	method   string // of client authentication, as Keycloak calls it
	pushed   bool
	bound    string // the member of `cnf` in access tokens; "jkt" is not seen
	tls      bool
}

// ways are scenarios of how a client speaks to its provider. Each signs two people in, refreshes, and ends one session.
func (k *keycloak) ways() (all []scenario) {
	for _, w := range keycloakWays {
		all = append(all, scenario{what: w.what, run: func(t *testing.T) (string, string) { return w.play(t, k) }})
	}
	return append(all,
		scenario{what: "`private_key_jwt`: the client gets another key", run: k.rotatesItsKey},
		scenario{what: "an administrator logs a user out at another address than the issuer's (`hostname` is not set)",
			run: k.hasTwoAddresses},
		scenario{what: "a rule of the policy asks for `acr: [gold]` (step-up)", run: k.stepsUp})
}

func attributes(of ...string) object {
	all := object{}
	for i := 0; i < len(of); i += 2 {
		all[of[i]] = of[i+1]
	}
	return object{"attributes": all}
}

func with(c object, authenticator string) object {
	c = maps.Clone(c)
	c["clientAuthenticatorType"] = authenticator
	return c
}

var keycloakWays = []keycloakWay{
	{what: "`private_key_jwt`, ES256", keys: true, method: "client-jwt", settings: []string{"private_key_file: key"},
		client: with(attributes("token.endpoint.auth.signing.alg", "ES256"), "client-jwt")},
	{what: "`client_secret_jwt`", secret: true, method: "client-secret-jwt", client: with(attributes(),
		"client-secret-jwt"), settings: []string{"token_endpoint_auth_method: client_secret_jwt"}},
	{what: "pushed authorization requests (PAR) are required", secret: true, method: "client-secret", pushed: true,
		client: attributes("require.pushed.authorization.requests", "true"), settings: []string{
			"pushed_authorization_requests: true"}},
	{what: "signed request objects are required, ES256", secret: true, keys: true, method: "client-secret",
		client: attributes("request.object.required", "request or request_uri", "request.object.signature.alg",
			"ES256"), settings: []string{"private_key_file: key", "request_object_signing_alg: ES256"}},
	{what: "signed request objects and PAR, `private_key_jwt`", keys: true, pushed: true, method: "client-jwt",
		client: with(attributes("request.object.required", "request or request_uri", "request.object.signature.alg",
			"ES256", "require.pushed.authorization.requests", "true"), "client-jwt"),
		settings: []string{"private_key_file: key", "request_object_signing_alg: ES256",
			"pushed_authorization_requests: true"}},
	{what: "DPoP-bound tokens are required", secret: true, method: "client-secret", bound: "jkt",
		client: attributes("dpop.bound.access.tokens", "true"), settings: []string{"dpop: true"}},
	{what: "`response_mode: form_post`", secret: true, method: "client-secret",
		settings: []string{"response_mode: form_post"}},
	{what: "`response_mode: jwt` (JARM)", secret: true, method: "client-secret",
		settings: []string{"response_mode: jwt"}},
	{what: "`response_mode: form_post.jwt`, encrypted", secret: true, keys: true, method: "client-secret",
		client: attributes("authorization.encrypted.response.alg", "RSA-OAEP-256",
			"authorization.encrypted.response.enc", "A256GCM"),
		settings: []string{"response_mode: form_post.jwt", "authorization_encrypted_response_alg: RSA-OAEP-256",
			"authorization_encrypted_response_enc: A256GCM", "decryption_key_file: rsa"}},
	{what: "ID Tokens and userinfo are encrypted with RSA-OAEP-256, A256GCM", secret: true, keys: true,
		method: "client-secret", client: keycloakEncrypts("RSA-OAEP-256", "A256GCM"),
		settings: decrypts("RSA-OAEP-256", "A256GCM", "rsa")},
	{what: "ID Tokens and userinfo are encrypted with ECDH-ES, A128CBC-HS256", secret: true, keys: true,
		method: "client-secret", client: keycloakEncrypts("ECDH-ES", "A128CBC-HS256"),
		settings: decrypts("ECDH-ES", "A128CBC-HS256", "key")},
	{what: "userinfo is signed with ES256, and ID Tokens with RS256", secret: true, method: "client-secret",
		client:   attributes("user.info.response.signature.alg", "ES256"),
		settings: []string{"userinfo_signed_response_alg: ES256"}},
	{what: "userinfo is encrypted and not signed", secret: true, keys: true, method: "client-secret",
		client: attributes("user.info.encrypted.response.alg", "RSA-OAEP-256", "user.info.encrypted.response.enc",
			"A256GCM"), settings: []string{"userinfo_encrypted_response_alg: RSA-OAEP-256",
			"userinfo_encrypted_response_enc: A256GCM", "decryption_key_file: rsa"}},
	{what: "mTLS client authentication (`tls_client_auth`), certificate-bound tokens", tls: true, method: "client-x509",
		bound: "x5t#S256", client: with(attributes("tls.client.certificate.bound.access.tokens", "true",
			"x509.subjectdn", "CN=client.test"), "client-x509"),
		settings: []string{"token_endpoint_auth_method: tls_client_auth"}},
	{what: "a secret, and certificate-bound tokens", tls: true, secret: true, method: "client-secret",
		bound: "x5t#S256", client: attributes("tls.client.certificate.bound.access.tokens", "true")},
}

func keycloakEncrypts(alg, enc string) object {
	return attributes("id.token.encrypted.response.alg", alg, "id.token.encrypted.response.enc", enc,
		"user.info.encrypted.response.alg", alg, "user.info.encrypted.response.enc", enc,
		"user.info.response.signature.alg", "RS256")
}

func decrypts(alg, enc, key string) []string {
	return []string{"id_token_encrypted_response_alg: " + alg, "id_token_encrypted_response_enc: " + enc,
		"userinfo_encrypted_response_alg: " + alg, "userinfo_encrypted_response_enc: " + enc,
		"userinfo_signed_response_alg: RS256", "decryption_key_file: " + key, "allow_unencrypted_logout_tokens: true"}
}

// often is a setting by which sessions are refreshed soon, although their access tokens live for long.
const often = "revalidate: 5s"

// start has a gateway run that speaks in this way. Its files "key" and "next" hold keys on P-256, and "rsa" one of RSA.
func (w keycloakWay) start(t *testing.T, k *keycloak) (*realm, *gateway) {
	t.Helper()
	g := newGateway(t)
	if w.bound == "jkt" { // an app could not use the token
		g.write(t, "curfew.yaml", "")
	}
	c := changes{attributes: object{}}
	for name, v := range w.client {
		if name == "attributes" {
			maps.Copy(c.attributes, v.(object))
			continue
		}
		if c.client == nil {
			c.client = object{}
		}
		c.client[name] = v
	}
	settings := append(slices.Clone(w.settings), often)
	if w.keys {
		c.attributes["use.jwks.url"], c.attributes["jwks.url"] = "true", g.url+"/auth/client-keys/main"
	}
	for _, name := range []string{"key", "next"} {
		g.write(t, name, pkcs8(t, ecKey(t, elliptic.P256())))
	}
	g.write(t, "rsa", pkcs8(t, rsaKey(t)))
	r := k.realm(t, g, c)
	if w.tls {
		cert, key := k.Certificate(t, "client.test")
		g.write(t, "ca.pem", k.Authority)
		g.write(t, "cert.pem", cert)
		g.write(t, "cert.key", key)
		r.issuer = k.HTTPS + strings.TrimPrefix(r.issuer, k.URL)
		settings = append([]string{"ca_file: ca.pem", "client_certificate_file: cert.pem",
			"client_certificate_key_file: cert.key"}, settings...)
	}
	if w.secret {
		settings = append([]string{"client_secret_file: secret"}, settings...)
	}
	g.flags = g.withoutProvider()
	g.yaml(t, "providers:\n  - name: main\n    issuer: %s\n    client_id: %s\n    %s\n", r.issuer, g.client,
		strings.Join(settings, "\n    "))
	g.start(t)
	return r, g
}

func (w keycloakWay) play(t *testing.T, k *keycloak) (string, string) {
	r, g := w.start(t, k)
	b, bob := r.signIn(t, g, "alice"), r.signIn(t, g, "bob")
	if told, err := b.told(g, "application/json"); err != nil {
		t.Fatal(err)
	} else if w.bound == "x5t#S256" && !hasConfirmation(told.Header.Get("Authorization"), w.bound) {
		t.Errorf("the access token is not bound by %s", w.bound)
	}
	signIns := r.events(t, g, "CODE_TO_TOKEN")
	if len(signIns) < 2 {
		t.Errorf("Keycloak tells of %d sign-ins", len(signIns))
	}
	for _, e := range signIns {
		if e.Details["client_auth_method"] != w.method {
			t.Errorf("the client is authenticated by %q, want %s", e.Details["client_auth_method"], w.method)
		}
	}
	if q := newBrowser("nobody").get(t, g.url+"/auth/login").location.Query(); w.pushed && len(q) != 2 {
		t.Errorf("the request is not pushed: the browser carries %v", q)
	}
	r.refreshes(t, b, g)
	for _, kind := range []string{"CODE_TO_TOKEN_ERROR", "REFRESH_TOKEN_ERROR", "PUSHED_AUTHORIZATION_REQUEST_ERROR",
		"USER_INFO_REQUEST_ERROR"} {
		for _, e := range r.events(t, g, kind) {
			t.Errorf("%s: %s %v", kind, e.Error, e.Details)
		}
	}
	status, out := g.run(t, "", "check") // it tries wrong credentials, and a wrong code
	if status != 0 {
		t.Errorf("check finds faults: %s", out)
	}
	for _, want := range []string{"looks like Keycloak", g.url + "/auth/callback", g.url + "/auth/backchannel-logout",
		g.url + "/auth/logout/callback", `switch "Front channel logout" off`} {
		if !strings.Contains(out, want) {
			t.Errorf("check should say %q: %s", want, out)
		}
	}
	sends, curfew := g.ended(t, b, func() { r.signOut(t, b) })
	bob.in(t, g)
	return sends, curfew
}

// rotatesItsKey replaces the key of a client: the new one is published beside the old one, then signs, then is alone.
func (k *keycloak) rotatesItsKey(t *testing.T) (string, string) {
	w := keycloakWays[0]
	w.settings = []string{"private_key_file: [key, next]"}
	r, g := w.start(t, k)
	b := r.signIn(t, g, "alice")
	before, err := os.ReadFile(filepath.Join(g.dir, "curfew.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range []string{"[next, key]", "next"} {
		g.kill()
		g.write(t, "curfew.yaml", strings.Replace(string(before), "[key, next]", files, 1))
		g.start(t)
		r.refreshes(t, b, g)
	}
	return g.ended(t, b, func() { r.signOut(t, b) })
}

// hasTwoAddresses has an administrator use the address with TLS, and people the one without.
func (k *keycloak) hasTwoAddresses(t *testing.T) (string, string) {
	r, g := k.start(t, brief())
	b := r.signIn(t, g, "alice")
	admin := newBrowser("the administrator")
	r.trust(admin)
	p := admin.post(t, k.HTTPS+"/realms/master/protocol/openid-connect/token", url.Values{"grant_type": {"password"},
		"client_id": {"admin-cli"}, "username": {"admin"}, "password": {"admin"}})
	var got struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(p.body), &got); err != nil || got.Token == "" {
		t.Fatalf("no access token: %v", p)
	}
	return g.ended(t, b, func() {
		p := admin.request(t, http.MethodPost, k.HTTPS+"/admin/realms/"+r.name+"/users/"+r.users["alice"]+"/logout",
			url.Values{}, "Authorization", "Bearer "+got.Token, "Content-Type", "application/json")
		if p.status != http.StatusNoContent {
			t.Fatalf("logging alice out: %v", p)
		}
	})
}

// stepsUp has a page ask for a higher level of authentication than the session has.
func (k *keycloak) stepsUp(t *testing.T) (string, string) {
	g := newGateway(t)
	g.yaml(t, "policy:\n  - {path: /private/gold, acr: [gold]}\n")
	r := k.realm(t, g, changes{realm: levels()})
	g.start(t)
	b := r.signIn(t, g, "alice")
	gold := g.url + "/private/gold"
	if p := b.get(t, gold, "Accept", "application/json"); p.status != http.StatusUnauthorized ||
		!strings.Contains(p.header.Get("WWW-Authenticate"), `acr_values="gold"`) {
		t.Errorf("an API client is answered %v, %q", p, p.header.Get("WWW-Authenticate"))
	}
	p := b.follow(t, b.get(t, gold))
	if !strings.Contains(p.body, `name="password"`) {
		t.Fatalf("alice should be asked for her password once more: %v", p)
	}
	if p = b.password(t, p, "alice"+r.suffix, "pw"); p.status != http.StatusOK || p.url.String() != gold {
		t.Fatalf("alice should be on the page that asked for more: %v", p)
	}
	b.in(t, g)
	return "asks for the password again, and `acr: gold`", "sends the person there with `acr_values=gold`, once"
}

// levels is a realm in which a sign-in is `silver`, and `gold` if that is asked for.
func levels() object {
	level := func(n int) object {
		name := fmt.Sprint("level ", n)
		return object{"alias": name, "providerId": "basic-flow", "topLevel": false, "builtIn": false,
			"authenticationExecutions": []object{
				{"authenticator": "conditional-level-of-authentication", "requirement": "REQUIRED", "priority": 10,
					"authenticatorConfig": name},
				{"authenticator": "auth-username-password-form", "requirement": "REQUIRED", "priority": 20}}}
	}
	sub := func(alias, requirement string, priority int) object {
		return object{"flowAlias": alias, "requirement": requirement, "priority": priority, "authenticatorFlow": true}
	}
	flow := func(alias string, top bool, executions ...object) object {
		return object{"alias": alias, "providerId": "basic-flow", "topLevel": top, "builtIn": false,
			"authenticationExecutions": executions}
	}
	return object{"browserFlow": "levels",
		"attributes": object{"acr.loa.map": `{"silver": "1", "gold": "2"}`},
		"authenticationFlows": []object{
			flow("levels", true, object{"authenticator": "auth-cookie", "requirement": "ALTERNATIVE", "priority": 10},
				sub("forms", "ALTERNATIVE", 20)),
			flow("forms", false, sub("level 1", "CONDITIONAL", 10), sub("level 2", "CONDITIONAL", 20)),
			level(1), level(2)},
		"authenticatorConfig": []object{
			{"alias": "level 1", "config": object{"loa-condition-level": "1", "loa-max-age": "36000"}},
			{"alias": "level 2", "config": object{"loa-condition-level": "2", "loa-max-age": "0"}}}}
}

// keycloakEvent is an entry of Keycloak's own log of a realm.
type keycloakEvent struct {
	Error   string
	Details map[string]string
}

// eventTypes are the events that realms keep.
var eventTypes = []string{"CODE_TO_TOKEN", "CODE_TO_TOKEN_ERROR", "REFRESH_TOKEN", "REFRESH_TOKEN_ERROR",
	"PUSHED_AUTHORIZATION_REQUEST_ERROR", "USER_INFO_REQUEST_ERROR"}

// events returns the events of a kind that are about the client of a gateway.
func (r *realm) events(t *testing.T, g *gateway, kind string) (all []keycloakEvent) {
	t.Helper()
	r.admin(t, http.MethodGet, "/events?max=100&client="+g.client+"&type="+kind, nil, &all)
	return all
}

// refreshes waits until Keycloak has refreshed the tokens of a session once more.
func (r *realm) refreshes(t *testing.T, b *browser, g *gateway) {
	t.Helper()
	n := len(r.events(t, g, "REFRESH_TOKEN"))
	eventually(t, "the session is refreshed", func() string {
		b.in(t, g)
		return unless(len(r.events(t, g, "REFRESH_TOKEN")) > n, "not yet")
	})
}

// signOut signs a browser out at Keycloak.
func (r *realm) signOut(t *testing.T, b *browser) {
	t.Helper()
	p := b.follow(t, b.get(t, r.issuer+"/protocol/openid-connect/logout"))
	if p = b.follow(t, b.submit(t, p, url.Values{"confirmLogout": {"Logout"}})); p.status != 200 {
		t.Fatalf("signing out at Keycloak: %v", p)
	}
}

// hasConfirmation reports whether an access token is bound in that way (RFC 7800 §3.1).
func hasConfirmation(authorization, member string) bool {
	parts := strings.Split(strings.TrimPrefix(authorization, "Bearer "), ".")
	if len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Confirmation map[string]string `json:"cnf"`
	}
	return err == nil && json.Unmarshal(payload, &claims) == nil && claims.Confirmation[member] != ""
}
