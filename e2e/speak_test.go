package e2e_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// way is one way in which a client speaks to its provider.
type way struct {
	name     string
	client   map[string]any // its metadata there
	settings []string       // of the provider, in the configuration file
	features string         // of the provider
	noSecret bool
	tls      bool // the provider is https, and asks for certificates
	bound    bool // its access tokens are bound
	// files are what the settings name, by their name in the gateway's directory.
	files map[string]string
	sub   string // of alice, when it is another than alice
	pars  bool   // its requests are pushed
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// pkcs8 returns a key as PEM.
func pkcs8(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// certificate returns a certificate for a name that its own key has signed, and the key, as PEM.
func certificate(t *testing.T, name string) (cert, key string) {
	t.Helper()
	k := ecKey(t, elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), pkcs8(t, k)
}

func ways(t *testing.T) []way {
	t.Helper()
	sec1, err := x509.MarshalECPrivateKey(ecKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: crypto.PrivateKey(ed), KeyID: "ours"})
	if err != nil {
		t.Fatal(err)
	}
	signing := map[string]string{"key": pkcs8(t, ecKey(t, elliptic.P256()))}
	byKey := func(more map[string]any) map[string]any {
		m := map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": true}
		for name, v := range more {
			m[name] = v
		}
		return m
	}
	cert, certKey := certificate(t, "client.example")
	shown := map[string]string{"cert": cert, "key": certKey}
	certFiles := []string{"client_certificate_file: cert", "client_certificate_key_file: key"}
	encrypted := func(alg, enc string) map[string]any {
		return map[string]any{"jwks_uri": true, "id_token_encrypted_response_alg": alg,
			"id_token_encrypted_response_enc": enc, "userinfo_encrypted_response_alg": alg,
			"userinfo_encrypted_response_enc": enc, "userinfo_signed_response_alg": "RS256"}
	}
	encryption := func(alg, enc string) []string {
		return []string{"id_token_encrypted_response_alg: " + alg, "id_token_encrypted_response_enc: " + enc,
			"userinfo_encrypted_response_alg: " + alg, "userinfo_encrypted_response_enc: " + enc,
			"userinfo_signed_response_alg: RS256", "decryption_key_file: [key, old]"}
	}
	const (
		crypt = `{"encryption": {"enabled": true}, "jwtUserinfo": {"enabled": true}}`
		jarm  = `{"jwtResponseModes": {"enabled": true}, "encryption": {"enabled": true}}`
	)
	return []way{
		{name: "client_secret_jwt", client: map[string]any{"token_endpoint_auth_method": "client_secret_jwt",
			"token_endpoint_auth_signing_alg": "HS256"}, settings: []string{"token_endpoint_auth_method: client_secret_jwt"}},
		{name: "private_key_jwt, RS256 of PKCS#1", noSecret: true, client: byKey(nil),
			settings: []string{"private_key_file: key"}, files: map[string]string{"key": string(pem.EncodeToMemory(
				&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey(t))}))}},
		{name: "private_key_jwt, PS256 of PKCS#8, to the token endpoint", noSecret: true,
			client: byKey(map[string]any{"token_endpoint_auth_signing_alg": "PS256"}),
			settings: []string{"private_key_file: [key, other]", "token_endpoint_auth_signing_alg: PS256",
				"client_assertion_audience: token_endpoint"},
			files: map[string]string{"key": pkcs8(t, rsaKey(t)), "other": pkcs8(t, rsaKey(t))}},
		{name: "private_key_jwt, ES256 of SEC 1", noSecret: true, client: byKey(nil),
			settings: []string{"private_key_file: key"},
			files:    map[string]string{"key": string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))}},
		{name: "private_key_jwt, EdDSA of a JWK", noSecret: true, client: byKey(nil),
			settings: []string{"private_key_file: key"}, files: map[string]string{"key": string(jwk)}},
		{name: "PAR where the provider requires it", pars: true,
			features: `{"pushedAuthorizationRequests": {"enabled": true, "requirePushedAuthorizationRequests": true}}`},
		{name: "PAR by setting", client: map[string]any{"require_pushed_authorization_requests": true}, pars: true,
			settings: []string{"pushed_authorization_requests: true"}},
		{name: "a signed request", client: map[string]any{"jwks_uri": true, "require_signed_request_object": true,
			"request_object_signing_alg": "ES256"}, settings: []string{"private_key_file: key",
			"request_object_signing_alg: ES256"}, files: signing, features: `{"requestObjects": {"enabled": true}}`},
		{name: "form_post", settings: []string{"response_mode: form_post"}},
		{name: "JARM", settings: []string{"response_mode: jwt"}, features: jarm},
		{name: "JARM, encrypted, as a form", settings: []string{"response_mode: form_post.jwt",
			"authorization_encrypted_response_alg: ECDH-ES", "authorization_encrypted_response_enc: A128GCM",
			"decryption_key_file: key"}, files: signing, features: jarm, client: map[string]any{"jwks_uri": true,
			"authorization_encrypted_response_alg": "ECDH-ES", "authorization_encrypted_response_enc": "A128GCM"}},
		{name: "DPoP with nonces", settings: []string{"dpop: true"}, bound: true,
			client: map[string]any{"dpop_bound_access_tokens": true}, features: `{"dPoP": {"nonces": true}}`},
		{name: "DPoP of a public client", settings: []string{"dpop: true"}, bound: true, noSecret: true,
			client: map[string]any{"dpop_bound_access_tokens": true, "token_endpoint_auth_method": "none"}},
		{name: "tls_client_auth, bound tokens", tls: true, noSecret: true, bound: true, files: shown,
			settings: append(certFiles, "token_endpoint_auth_method: tls_client_auth"),
			client: map[string]any{"token_endpoint_auth_method": "tls_client_auth",
				"tls_client_auth_san_dns": "client.example", "tls_client_certificate_bound_access_tokens": true}},
		{name: "self_signed_tls_client_auth", tls: true, noSecret: true, files: shown,
			settings: append(certFiles, "token_endpoint_auth_method: self_signed_tls_client_auth"),
			client:   map[string]any{"token_endpoint_auth_method": "self_signed_tls_client_auth", "jwks_uri": true}},
		{name: "a secret, and tokens bound to a certificate", tls: true, bound: true, files: shown, settings: certFiles,
			client: map[string]any{"tls_client_certificate_bound_access_tokens": true}},
		{name: "pairwise", client: map[string]any{"subject_type": "pairwise"}, sub: "app.alice"},
		{name: "encrypted with RSA-OAEP-256, A256GCM", client: encrypted("RSA-OAEP-256", "A256GCM"), features: crypt,
			settings: encryption("RSA-OAEP-256", "A256GCM"),
			files:    map[string]string{"key": pkcs8(t, rsaKey(t)), "old": pkcs8(t, rsaKey(t))}},
		{name: "encrypted with ECDH-ES+A256KW, A128CBC-HS256", client: encrypted("ECDH-ES+A256KW", "A128CBC-HS256"),
			features: crypt, settings: encryption("ECDH-ES+A256KW", "A128CBC-HS256"),
			files: map[string]string{"key": pkcs8(t, ecKey(t, elliptic.P256())), "old": pkcs8(t, ecKey(t, elliptic.P256()))}},
		{name: "all at once", noSecret: true, bound: true, pars: true, files: signing,
			client: byKey(map[string]any{"require_pushed_authorization_requests": true,
				"require_signed_request_object": true, "dpop_bound_access_tokens": true}),
			settings: []string{"private_key_file: key", "request_object_signing_alg: ES256", "dpop: true",
				"response_mode: form_post.jwt", "pushed_authorization_requests: true"},
			features: `{"requestObjects": {"enabled": true}, "jwtResponseModes": {"enabled": true}, "dPoP": {"nonces": true}}`},
	}
}

// Each way signs a person in, refreshes the session, revokes its tokens, and ends with a logout of the provider's.
func TestEveryWayOfSpeakingToAProvider(t *testing.T) {
	t.Parallel()
	for _, w := range ways(t) {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			p, g := w.start(t)
			sub := w.sub
			if sub == "" {
				sub = "alice"
			}
			from := p.said()
			first, second := newBrowser("alice's first browser"), newBrowser("alice's second browser")
			trust(t, first, p)
			trust(t, second, p)
			first.signInAnyhow(t, g, "alice", sub)
			second.signInAnyhow(t, g, "alice", sub)

			eventually(t, "the session is refreshed", func() string {
				if wrong := first.isIn(g, sub); wrong != "" {
					t.Fatal(wrong)
				}
				return unless(len(p.events(t, from, "refresh")) > 0, "it is not")
			})
			for _, kind := range []string{"refresh.error", "grant.error", "par.error", "authorize.error"} {
				for _, e := range p.events(t, from, kind) {
					if !strings.Contains(e.Error, "nonce") { // of which it tells at the first request
						t.Errorf("%s: %s", kind, e.Error)
					}
				}
			}
			for _, e := range p.events(t, from, "bound") {
				if (e.Token != "") != w.bound {
					t.Errorf("an access token is bound to %q; want it bound: %v", e.Token, w.bound)
				}
			}
			if pushed := len(p.events(t, from, "par")) > 0; pushed != w.pars {
				t.Errorf("requests were pushed: %v; want %v", pushed, w.pars)
			}
			first.mustBeIn(t, g, sub)

			second.post(t, g.url+"/auth/logout", url.Values{})
			second.mustBeOut(t, g)
			eventually(t, "the tokens are revoked", func() string {
				all := p.events(t, from, "revoked")
				return unless(len(all) > 0 && all[len(all)-1].Error == "200", "%v", all)
			})

			if status, out := g.run(t, "", "check"); status != 0 {
				t.Errorf("check finds faults: %s", out)
			}
			third := newBrowser("alice's third browser")
			trust(t, third, p)
			third.signInAnyhow(t, g, "alice", sub)
			third.signOutAt(t, p)
			p.loggedOut(t, from, "backchannel.success", g)
			third.mustBeOut(t, g)
		})
	}
}

// start has a provider and a gateway run that speak in this way.
func (w way) start(t *testing.T) (*provider, *gateway) {
	t.Helper()
	p, gs := world(t, "app")
	g := gs[0]
	g.more = w.client
	if g.more["jwks_uri"] != nil {
		g.more["jwks_uri"] = g.url + "/auth/client-keys/main"
	}
	if w.tls {
		cert, key := certificate(t, "provider.example")
		p.ca = g.write(t, "provider.pem", cert+key)
		p.issuer = "https" + strings.TrimPrefix(p.issuer, "http")
		p.env = append(p.env, "OP_TLS="+p.ca)
		g.env = append(g.env, "SSL_CERT_FILE="+g.write(t, "ca.pem", cert))
	}
	file := "providers:\n  - name: main\n"
	for _, s := range w.settings {
		file += "    " + s + "\n"
	}
	flags := []string{"--config", g.write(t, "curfew.yaml", file)}
	for i := 0; i < len(g.flags); i += 2 {
		switch name, v := g.flags[i], g.flags[i+1]; {
		case name == "--client-secret-file" && w.noSecret:
		case name == "--issuer":
			flags = append(flags, name, p.issuer)
		default:
			flags = append(flags, name, v)
		}
	}
	if g.flags = flags; w.noSecret {
		g.secret = ""
	}
	for name, content := range w.files {
		g.write(t, name, content)
	}
	p.env = append(p.env, "OP_REFRESH=always", "OP_ACCESS_TTL=1", "OP_NEXT_TTL=300")
	if w.features != "" {
		p.env = append(p.env, "OP_FEATURES="+w.features)
	}
	p.start(t)
	g.start(t)
	return p, g
}

// trust has a browser accept the provider's certificate.
func trust(t *testing.T, b *browser, p *provider) {
	t.Helper()
	if p.ca == "" {
		return
	}
	b.client.Transport.(*http.Transport).TLSClientConfig = trusting(t, p.ca)
}

// signInAnyhow signs in, whatever forms lead from the provider back to the gateway.
func (b *browser) signInAnyhow(t *testing.T, g *gateway, login, sub string) {
	t.Helper()
	p := b.follow(t, b.get(t, g.url+"/private"))
	for range 6 {
		if !strings.Contains(p.body, "<form") {
			break
		}
		p = b.follow(t, b.submit(t, p, url.Values{"login": {login}}))
	}
	var s seen
	if err := json.Unmarshal([]byte(p.body), &s); err != nil || s.Header.Get("X-Auth-Subject") != sub {
		t.Fatalf("%s signs in as %s, and should be on the page that it wanted: %v", b.name, login, p)
	}
}

// Chromium sends none of our cookies with a form of another site, and holds pages that send themselves to our policy.
func TestInChromiumAnAnswerThatComesAsAForm(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app")
	g := gs[0]
	// To a browser, localhost is another site than 127.0.0.1, where the provider is.
	here := strings.Replace(g.url, "127.0.0.1", "localhost", 1)
	for i, v := range g.flags {
		if v == g.url {
			g.flags[i] = here
		}
	}
	g.url = here
	g.flags = append(g.flags, "--config", g.write(t, "curfew.yaml",
		"providers:\n  - name: main\n    response_mode: form_post\n"))
	p.start(t)
	g.start(t)
	b := newTab(t)
	for range 2 { // the second time it has a session, which the new one replaces
		b.open(g.url + "/auth/login?return_to=/private&prompt=login")
		b.until(fmt.Sprintf(`location.origin === %q && document.querySelector("[name=login]")`, p.issuer))
		b.run(`document.querySelector("[name=login]").value = "alice"; document.forms[0].submit()`)
		b.until(fmt.Sprintf(`location.href === %q && document.body.innerText.includes("alice")`, g.url+"/private"))
	}
	if n := len(g.metric(t, `curfew_sessions_ended_total{cause="replaced"} 1`)); n != 1 {
		t.Errorf("the first session was not replaced by the second: its cookie did not come with the form: %v",
			g.metric(t, "curfew_sessions_ended_total"))
	}
}

// trusting trusts the certificate in a file.
func trusting(t *testing.T, file string) *tls.Config {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		t.Fatalf("%s holds no certificate", file)
	}
	return &tls.Config{RootCAs: pool}
}
