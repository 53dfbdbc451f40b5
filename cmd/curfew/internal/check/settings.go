package check

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/curfew"
	"example.com/curfew/oidc"
)

// checkSettings compares how this client speaks with what the provider offers and requires.
func checkSettings(r *Report, c oidc.Config, m *oidc.Metadata, reg curfew.Registration) {
	if reg.JWKSURI != "" {
		r.unchecked("client keys", "the public keys of this client are at "+reg.JWKSURI+
			": no provider says whether that is registered",
			"register it as jwks_uri of the client, or its keys themselves, and see that the provider reaches it")
	}
	if c.AuthMethod == oidc.AuthPrivateJWT || c.AuthMethod == oidc.AuthSecretJWT {
		alg := c.AuthSigningAlg
		if alg == "" {
			alg = c.DefaultSigningAlg()
		}
		compareOffered(r, "token_endpoint_auth_signing_alg", alg, m.TokenAuthAlgs)
	}
	switch {
	case m.PushedRequestEndpoint == "" && (c.PushRequests || m.RequirePushed):
		r.fault("pushed_authorization_requests", "requests are to be pushed, and the provider has no "+
			"pushed_authorization_request_endpoint", "nobody can sign in: leave the setting out")
	case c.PushRequests || m.RequirePushed:
		r.ok("pushed_authorization_requests", "to %s%s", m.PushedRequestEndpoint,
			map[bool]string{true: ", as the provider requires"}[m.RequirePushed])
	}
	switch alg := c.RequestObjectSigningAlg; {
	case alg != "":
		compareOffered(r, "request_object_signing_alg", alg, m.RequestObjectAlgs)
	case m.RequireSignedRequest:
		r.fault("request_object_signing_alg", "the provider requires signed requests (require_signed_request_object)",
			"set request_object_signing_alg, and private_key_file")
	}
	if c.ResponseMode != oidc.ModeQuery {
		compareOffered(r, "response_mode", c.ResponseMode, m.ResponseModes)
	}
	if c.SignsResponse() {
		alg := c.ResponseSigningAlg
		if alg == "" {
			alg = c.SigningAlg
		}
		compareOffered(r, "authorization_signed_response_alg", alg, m.ResponseSigningAlgs)
	}
	if c.ResponseEncryption != nil {
		compareOffered(r, "authorization_encrypted_response_alg", c.ResponseEncryption.Alg, m.ResponseEncryptAlgs)
	}
	if c.Encryption != nil {
		compareOffered(r, "id_token_encrypted_response_alg", c.Encryption.Alg, m.IDTokenEncryptAlgs)
	}
	if c.DPoP && len(m.DPoPAlgs) == 0 {
		r.fault("dpop", "the provider does not mention DPoP (dpop_signing_alg_values_supported, RFC 9449 §5.1)",
			"nobody can sign in, since tokens that are not bound are refused: leave out dpop")
	} else if c.DPoP {
		compareOffered(r, "dpop", "ES256", m.DPoPAlgs)
	}
	checkClientCertificate(r, c, m)
}

// compareOffered compares a setting with what the provider lists as supported.
func compareOffered(r *Report, setting, value string, offered []string) {
	switch {
	case len(offered) == 0:
		r.unchecked(setting, "the provider does not say whether it offers "+value, "sign in to see")
	case !slices.Contains(offered, value):
		r.fault(setting, fmt.Sprintf("%s is set here, and the provider offers %s", value, strings.Join(offered, ", ")),
			"set "+setting+" to what the client is registered with there")
	default:
		r.ok(setting, "%s is offered", value)
	}
}

func checkClientCertificate(r *Report, c oidc.Config, m *oidc.Metadata) {
	const check = "client_certificate_file"
	if c.GetClientCertificate == nil {
		return
	}
	shown, err := c.GetClientCertificate(&tls.CertificateRequestInfo{Version: tls.VersionTLS13})
	if err == nil && len(shown.Certificate) == 0 {
		err = errors.New("there is none")
	}
	if err != nil {
		r.fault(check, err.Error(), "give a certificate and its key in PEM form")
		return
	}
	before := len(r.Findings)
	leaf, ends := checkChain(r, check, "it", shown.Certificate, x509.ExtKeyUsageClientAuth,
		"have it renewed and replace the files; they are read again at the next connection")
	if len(r.Findings) > before {
		return
	}
	unless := ""
	if !m.BindsToCertificates {
		unless = " only if the client is registered so: the provider does not mention it"
	}
	r.ok(check, "%s, until %s; tokens are bound to it%s", leaf.Subject, ends.UTC().Format(time.DateOnly), unless)
}
