package oidc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"

	jose "github.com/go-jose/go-jose/v4"
)

// The ways of authentication by the certificate of the TLS connection (RFC 8705 §2).
const (
	AuthTLS           = "tls_client_auth"
	AuthSelfSignedTLS = "self_signed_tls_client_auth"
)

// usesTLS reports whether this client shows a certificate.
func (c *Config) usesTLS() bool { return c.GetClientCertificate != nil }

// withCertificate returns a transport that shows this client's certificate where a server asks for one.
func (c *Config) withCertificate(rt http.RoundTripper) (http.RoundTripper, error) {
	if !c.usesTLS() {
		return rt, nil
	}
	if all, ok := rt.(*router); ok {
		shows, errs := *all, [2]error{}
		shows.direct, errs[0] = c.withCertificate(all.direct)
		shows.rest, errs[1] = c.withCertificate(all.rest)
		return &shows, errors.Join(errs[:]...)
	}
	t, ok := rt.(*http.Transport)
	if !ok {
		return nil, errors.New("a client certificate needs an HTTPClient whose Transport is an *http.Transport")
	}
	t = t.Clone()
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	t.TLSClientConfig.GetClientCertificate = c.GetClientCertificate
	return t, nil
}

// certificateKey returns the public key of a certificate that no authority has signed, with the certificate, as the
// provider needs it to recognize this client (RFC 8705 §2.2.2).
func (p *Provider) certificateKey() (jose.JSONWebKey, bool) {
	if p.cfg.AuthMethod != AuthSelfSignedTLS {
		return jose.JSONWebKey{}, false
	}
	shown, err := p.cfg.GetClientCertificate(&tls.CertificateRequestInfo{Version: tls.VersionTLS13})
	if err != nil || len(shown.Certificate) == 0 {
		return jose.JSONWebKey{}, false
	}
	cert, err := x509.ParseCertificate(shown.Certificate[0])
	if err != nil {
		return jose.JSONWebKey{}, false
	}
	k := jose.JSONWebKey{Key: cert.PublicKey, Use: "sig", Certificates: []*x509.Certificate{cert}}
	sum, err := k.Thumbprint(thumbprintHash)
	if err != nil {
		return jose.JSONWebKey{}, false
	}
	k.KeyID = encodePart(sum)
	return k, true
}

// preferMTLS takes the endpoints that the provider has for clients with a certificate (RFC 8705 §5).
func (m *Metadata) preferMTLS() {
	for alias, to := range map[*string]*string{
		&m.mtls.token: &m.TokenEndpoint, &m.mtls.userinfo: &m.UserinfoEndpoint,
		&m.mtls.revocation: &m.RevocationEndpoint, &m.mtls.pushed: &m.PushedRequestEndpoint,
		&m.mtls.introspection: &m.IntrospectionEndpoint,
	} {
		if *alias != "" {
			*to = *alias
		}
	}
}

// mtlsEndpoints are `mtls_endpoint_aliases` (RFC 8705 §5).
type mtlsEndpoints struct{ token, userinfo, revocation, pushed, introspection string }
