package oidc

import (
	"cmp"
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The ways in which this relying party proves who it is to the provider (Core §9, RFC 8705 §2).
const (
	AuthBasic      = "client_secret_basic"
	AuthPost       = "client_secret_post"
	AuthSecretJWT  = "client_secret_jwt"
	AuthPrivateJWT = "private_key_jwt"
	AuthNone       = "none"
)

// assertionLife is how long a client assertion may be used: it goes straight to the provider. The provider's clock may
// be behind, and then it has to keep the `jti` for longer.
const assertionLife = time.Minute

// authenticate adds to a request's form what proves which client sends it (RFC 6749 §2.3, Core §9).
func (p *Provider) authenticate(ctx context.Context, form url.Values) error {
	if p.cfg.AuthMethod != AuthBasic {
		form.Set("client_id", p.cfg.ClientID)
	}
	switch p.cfg.AuthMethod {
	case AuthPost:
		form.Set("client_secret", p.cfg.ClientSecret)
	case AuthSecretJWT, AuthPrivateJWT:
		assertion, err := p.clientAssertion(ctx)
		if err != nil {
			return err
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
	}
	return nil
}

// authenticateHeader is the part of [Provider.authenticate] that is not in the form.
func (p *Provider) authenticateHeader(r *http.Request) {
	if p.cfg.AuthMethod == AuthBasic {
		// RFC 6749 §2.3.1: form-encoded first.
		r.SetBasicAuth(url.QueryEscape(p.cfg.ClientID), url.QueryEscape(p.cfg.ClientSecret))
	}
}

// clientAssertion returns a JWT that authenticates this client, to be used once (RFC 7523 §3, Core §9).
func (p *Provider) clientAssertion(ctx context.Context) (string, error) {
	audience := p.cfg.Issuer
	if p.cfg.AssertionAudience == AudienceTokenEndpoint {
		m, err := p.meta.get(ctx)
		if err != nil {
			return "", err
		}
		audience = m.TokenEndpoint
	}
	now := p.cfg.Now()
	return p.sign("JWT", p.cfg.AuthSigningAlg, map[string]any{
		"iss": p.cfg.ClientID, "sub": p.cfg.ClientID, "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
}

// The values of [Config.AssertionAudience].
const (
	AudienceIssuer        = "issuer"
	AudienceTokenEndpoint = "token_endpoint"
)

// DefaultSigningAlg returns the algorithm of the first of Keys that signs, which signs where none is configured; ""
// when there is none.
func (c *Config) DefaultSigningAlg() string {
	_, alg := signingKey(c.Keys, "")
	return alg
}

// signingAlgsInUse returns what the keys of this client sign with; "" stands for the default of a key.
func (c *Config) signingAlgsInUse() (algs []string) {
	if c.AuthMethod == AuthPrivateJWT {
		algs = append(algs, c.AuthSigningAlg)
	}
	if c.RequestObjectSigningAlg != "" {
		algs = append(algs, c.RequestObjectSigningAlg)
	}
	return algs
}

// credential returns the setting that proves who this client is.
func (c *Config) credential() string {
	switch c.AuthMethod {
	case AuthPrivateJWT:
		return "private_key_file"
	case AuthTLS, AuthSelfSignedTLS:
		return "client_certificate_file"
	}
	return "client_secret"
}

// encryptions returns what the provider encrypts to this client, and how.
func (c *Config) encryptions() (all []*Encryption) {
	for _, e := range []*Encryption{c.Encryption, c.UserinfoEncryption, c.ResponseEncryption} {
		if e != nil {
			all = append(all, e)
		}
	}
	return all
}

// checkAuth adds the faults of how this client authenticates.
func (c *Config) checkAuth(fault func(format string, args ...any)) {
	secret := c.ClientSecret != ""
	switch c.AuthMethod {
	case AuthBasic, AuthPost, AuthSecretJWT:
		if !secret {
			fault("%s needs a client secret", c.AuthMethod)
		}
	case AuthNone:
		if secret && !strings.HasPrefix(c.RequestObjectSigningAlg, "HS") {
			fault("token_endpoint_auth_method is none, but there is a client secret: remove one of the two")
		}
	case AuthTLS, AuthSelfSignedTLS:
		if !c.usesTLS() {
			fault("%s needs a client certificate and its key", c.AuthMethod)
		}
		if secret && !strings.HasPrefix(c.RequestObjectSigningAlg, "HS") {
			fault("token_endpoint_auth_method is %s, but there is a client secret: remove one of the two", c.AuthMethod)
		}
	case AuthPrivateJWT:
		if secret && !strings.HasPrefix(c.RequestObjectSigningAlg, "HS") {
			fault("token_endpoint_auth_method is private_key_jwt, but there is a client secret: remove one of the two")
		}
		c.checkSigningKey(fault, "token_endpoint_auth_signing_alg", c.AuthSigningAlg)
	default:
		fault("token_endpoint_auth_method %s: it is client_secret_basic, client_secret_post, client_secret_jwt, "+
			"private_key_jwt, tls_client_auth, self_signed_tls_client_auth or none", quote(c.AuthMethod))
		return
	}
	switch {
	case c.AuthMethod == AuthSecretJWT:
		c.checkSecretAlg(fault, "token_endpoint_auth_signing_alg", c.AuthSigningAlg)
	case c.AuthMethod != AuthPrivateJWT && c.AuthSigningAlg != "":
		fault("token_endpoint_auth_signing_alg is for private_key_jwt and client_secret_jwt; "+
			"token_endpoint_auth_method is %s", c.AuthMethod)
	}
	switch a := c.AssertionAudience; {
	case a != AudienceIssuer && a != AudienceTokenEndpoint:
		fault("client_assertion_audience %s: it is issuer or token_endpoint", quote(a))
	case a != AudienceIssuer && c.AuthMethod != AuthPrivateJWT && c.AuthMethod != AuthSecretJWT:
		fault("client_assertion_audience is for private_key_jwt and client_secret_jwt; "+
			"token_endpoint_auth_method is %s", c.AuthMethod)
	}
	switch alg := c.RequestObjectSigningAlg; {
	case strings.HasPrefix(alg, "HS") && secret:
		c.checkSecretAlg(fault, "request_object_signing_alg", alg)
	case strings.HasPrefix(alg, "HS"):
		fault("request_object_signing_alg %s needs a client secret", alg)
	case alg != "":
		c.checkSigningKey(fault, "request_object_signing_alg", alg)
	}
	var err error
	if c.Keys, err = completeKeys(c.Keys); err != nil {
		fault("private keys: %w", err)
	} else if len(c.Keys) > 0 && len(c.signingAlgsInUse()) == 0 {
		fault("there are private keys, but nothing is signed with them: set token_endpoint_auth_method: " +
			"private_key_jwt, or request_object_signing_alg")
	}
}

// checkSigningKey adds a fault when no private key signs with alg.
func (c *Config) checkSigningKey(fault func(format string, args ...any), setting, alg string) {
	if len(c.Keys) == 0 {
		fault("%s needs a private key", cmp.Or(alg, AuthPrivateJWT))
		return
	}
	if alg != "" {
		if _, err := findAlgorithm(alg); err != nil {
			fault("%s: %w", setting, err)
			return
		}
	}
	if k, _ := signingKey(c.Keys, alg); k == nil {
		var can []string
		for i := range c.Keys {
			can = append(can, c.Keys[i].signingAlgs()...)
		}
		fault("%s: none of the private keys signs with %s; they sign with: %s", setting,
			cmp.Or(alg, "any algorithm"), cmp.Or(strings.Join(can, ", "), "nothing"))
	}
}

// checkSecretAlg adds a fault when the client secret cannot sign with alg: it has to be as long as the hash (RFC 7518
// §3.2).
func (c *Config) checkSecretAlg(fault func(format string, args ...any), setting, alg string) {
	least, known := map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}[alg]
	switch {
	case !known:
		fault("%s %s: with a client secret it is HS256, HS384 or HS512", setting, quote(alg))
	case c.ClientSecret != "" && len(c.ClientSecret) < least:
		fault("%s needs a client secret of at least %d bytes (RFC 7518 §3.2); it has %d", alg, least,
			len(c.ClientSecret))
	}
}
