package check

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/oidc"
)

func TestCheckComparesHowTheClientSpeaksWithWhatIsOffered(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := []oidc.PrivateKey{{Key: key}}
	now := time.Now()
	certificate := func(from, to time.Duration, usages ...x509.ExtKeyUsage) []byte {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"},
			NotBefore: now.Add(from), NotAfter: now.Add(to), ExtKeyUsage: usages}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	show := func(chain ...[]byte) func(*oidc.Config) {
		return func(c *oidc.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &tls.Certificate{Certificate: chain, PrivateKey: key}, nil
			}
		}
	}
	shown := func(from, to time.Duration) func(*oidc.Config) { return show(certificate(from, to)) }
	const day = 24 * time.Hour
	usable := func(usages ...x509.ExtKeyUsage) []byte { return certificate(-day, 30*day, usages...) }
	byKey := func(c *oidc.Config) { c.Keys = keys }
	pushes := func(c *oidc.Config) { c.PushRequests = true }
	dpop := func(c *oidc.Config) { c.DPoP = true }
	for _, row := range []struct {
		name   string
		change func(*oidc.Config)
		m      oidc.Metadata
		check  string
		status string // empty: nothing is said of it
		says   string
	}{
		{"nothing special", func(*oidc.Config) {}, oidc.Metadata{}, "dpop", "", ""},
		{"a key", byKey, oidc.Metadata{TokenAuthAlgs: []string{"RS256", "ES256"}}, "token_endpoint_auth_signing_alg",
			"ok", "ES256 is offered"},
		{"a key of another kind", byKey, oidc.Metadata{TokenAuthAlgs: []string{"RS256"}},
			"token_endpoint_auth_signing_alg", "fault", "the provider offers RS256"},
		{"a key, and nothing is said", byKey, oidc.Metadata{}, "token_endpoint_auth_signing_alg", "not checked", "ES256"},
		{"a key is to be registered", byKey, oidc.Metadata{}, "client keys", "not checked", "register it as jwks_uri"},
		{"pushes", pushes, oidc.Metadata{PushedRequestEndpoint: "https://id.example.com/par"},
			"pushed_authorization_requests", "ok", "https://id.example.com/par"},
		{"pushes to nowhere", pushes, oidc.Metadata{}, "pushed_authorization_requests", "fault", "has no"},
		{"a provider that requires it", func(*oidc.Config) {}, oidc.Metadata{RequirePushed: true,
			PushedRequestEndpoint: "https://id.example.com/par"}, "pushed_authorization_requests", "ok", "requires"},
		{"requests must be signed", func(*oidc.Config) {}, oidc.Metadata{RequireSignedRequest: true},
			"request_object_signing_alg", "fault", "set request_object_signing_alg"},
		{"requests are signed", func(c *oidc.Config) { c.Keys, c.RequestObjectSigningAlg = keys, "ES256" },
			oidc.Metadata{RequestObjectAlgs: []string{"none"}}, "request_object_signing_alg", "fault", "offers none"},
		{"a form", func(c *oidc.Config) { c.ResponseMode = oidc.ModeFormPost },
			oidc.Metadata{ResponseModes: []string{"query"}}, "response_mode", "fault", "offers query"},
		{"a JWT", func(c *oidc.Config) { c.ResponseMode = oidc.ModeJWT },
			oidc.Metadata{ResponseSigningAlgs: []string{"ES256"}}, "authorization_signed_response_alg", "fault", "RS256"},
		{"encrypted answers", func(c *oidc.Config) {
			c.ResponseMode, c.ResponseEncryption = oidc.ModeJWT, &oidc.Encryption{Alg: "ECDH-ES", Key: key}
		}, oidc.Metadata{ResponseEncryptAlgs: []string{"RSA-OAEP"}}, "authorization_encrypted_response_alg", "fault",
			"RSA-OAEP"},
		{"encrypted ID Tokens", func(c *oidc.Config) { c.Encryption = &oidc.Encryption{Alg: "ECDH-ES", Key: key} },
			oidc.Metadata{IDTokenEncryptAlgs: []string{"ECDH-ES"}}, "id_token_encrypted_response_alg", "ok", "ECDH-ES"},
		{"DPoP", dpop, oidc.Metadata{DPoPAlgs: []string{"ES256"}}, "dpop", "ok", "ES256"},
		{"DPoP of another kind", dpop, oidc.Metadata{DPoPAlgs: []string{"RS256"}}, "dpop", "fault", "offers RS256"},
		{"no DPoP", dpop, oidc.Metadata{}, "dpop", "fault", "leave out dpop"},
		{"a certificate", shown(-day, 30*day), oidc.Metadata{}, "client_certificate_file", "ok", "does not mention"},
		{"a certificate that tokens are bound to", shown(-day, 30*day), oidc.Metadata{BindsToCertificates: true},
			"client_certificate_file", "ok", "tokens are bound to it"},
		{"a certificate that runs out soon", shown(-day, 13*day), oidc.Metadata{}, "client_certificate_file", "warning",
			"have it renewed"},
		{"a certificate that ran out", shown(-2*day, -day), oidc.Metadata{}, "client_certificate_file", "fault",
			"ran out"},
		{"a certificate of tomorrow", shown(day, 2*day), oidc.Metadata{}, "client_certificate_file", "fault",
			"not valid before"},
		{"a certificate whose issuer's ran out", show(certificate(-day, 30*day), certificate(-2*day, -day)),
			oidc.Metadata{}, "client_certificate_file", "fault",
			"it ran out at " + now.Add(-day).UTC().Format(time.RFC3339) + " (its issuer CN=app)"},
		{"a certificate whose issuer's runs out soon", show(certificate(-day, 30*day), certificate(-day, day)),
			oidc.Metadata{}, "client_certificate_file", "warning",
			"it runs out at " + now.Add(day).UTC().Format(time.RFC3339) + " (its issuer CN=app)"},
		{"a certificate whose issuer's is of tomorrow", show(certificate(-day, 30*day), certificate(day, 30*day)),
			oidc.Metadata{}, "client_certificate_file", "fault",
			"it is not valid before " + now.Add(day).UTC().Format(time.RFC3339) + " (its issuer CN=app)"},
		{"a certificate that outlives its issuer's", show(certificate(-day, 60*day), certificate(-day, 30*day)),
			oidc.Metadata{}, "client_certificate_file", "ok", "until " + now.Add(30*day).UTC().Format(time.DateOnly)},
		{"an issuer's certificate that is none", show(certificate(-day, 30*day), []byte("x")), oidc.Metadata{},
			"client_certificate_file", "fault", "it: certificate 2 of 2 cannot be read"},
		{"no certificate", show(), oidc.Metadata{}, "client_certificate_file", "fault", "there is none"},
		{"a certificate for servers", show(usable(x509.ExtKeyUsageServerAuth)), oidc.Metadata{},
			"client_certificate_file", "warning", "it is for something else: its extended key usage lacks clientAuth"},
		{"a certificate whose issuer's is for servers", show(usable(), usable(x509.ExtKeyUsageServerAuth)),
			oidc.Metadata{}, "client_certificate_file", "warning", "lacks clientAuth (its issuer CN=app)"},
		{"a certificate for clients", show(usable(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)),
			oidc.Metadata{}, "client_certificate_file", "ok", "tokens are bound to it"},
		{"a certificate for anything", show(usable(x509.ExtKeyUsageAny)), oidc.Metadata{},
			"client_certificate_file", "ok", "tokens are bound to it"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := oidc.Config{Issuer: "https://id.example.com", ClientID: "app"}
			row.change(&c)
			p, err := oidc.New(c)
			if err != nil {
				t.Fatal(err)
			}
			reg := curfew.Registration{}
			if p.HasClientKeys() {
				reg.JWKSURI = "https://app.example.com/auth/client-keys/main"
			}
			r := new(Report)
			checkSettings(r, p.Config(), &row.m, reg)
			said := false
			for _, f := range r.Findings {
				if f.Status != "ok" && f.Do == "" {
					t.Errorf("%s says nothing to do", f.Check)
				}
				if f.Check != row.check {
					continue
				}
				if said = true; f.Status != row.status || !strings.Contains(f.Detail+f.Do, row.says) {
					t.Errorf("got %+v; want %s: %s", f, row.status, row.says)
				}
			}
			if said != (row.status != "") {
				t.Errorf("%s is said: %v", row.check, said)
			}
			// The client that cannot be is one that can be configured.
			if _, err := oidc.New(asUnknownClient(p.Config())); err != nil {
				t.Errorf("as another client: %v", err)
			}
			if _, err := inTheQuery(p); err != nil {
				t.Errorf("asked to answer in the query: %v", err)
			}
		})
	}
}
