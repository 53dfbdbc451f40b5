package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// metadataFresh is the age at which metadata is fetched again in the background.
const metadataFresh = 24 * time.Hour

// Metadata is what discovery said (OpenID Connect Discovery §3).
type Metadata struct {
	Issuer                string
	AuthorizationEndpoint string
	TokenEndpoint         string
	UserinfoEndpoint      string
	JWKSURI               string
	EndSessionEndpoint    string
	RevocationEndpoint    string
	IntrospectionEndpoint string // RFC 8414 §2
	PushedRequestEndpoint string // pushed_authorization_request_endpoint (RFC 9126 §5)
	IDTokenSigningAlgs    []string
	IDTokenEncryptAlgs    []string // id_token_encryption_alg_values_supported
	UserinfoSigningAlgs   []string // userinfo_signing_alg_values_supported
	UserinfoEncryptAlgs   []string // userinfo_encryption_alg_values_supported
	PKCEMethods           []string // code_challenge_methods_supported
	TokenAuthMethods      []string
	TokenAuthAlgs         []string // token_endpoint_auth_signing_alg_values_supported
	RequestObjectAlgs     []string // request_object_signing_alg_values_supported
	ResponseModes         []string // response_modes_supported
	ResponseSigningAlgs   []string // authorization_signing_alg_values_supported
	ResponseEncryptAlgs   []string // authorization_encryption_alg_values_supported
	DPoPAlgs              []string // dpop_signing_alg_values_supported
	Scopes                []string
	RequirePushed         bool // require_pushed_authorization_requests
	RequireSignedRequest  bool // require_signed_request_object
	BindsToCertificates   bool // tls_client_certificate_bound_access_tokens
	IssParameter          bool // authorization_response_iss_parameter_supported
	BackchannelLogout     bool
	BackchannelSession    bool
	FrontchannelLogout    bool
	FrontchannelSession   bool

	ACRValues       []string // acr_values_supported; empty when not said
	ClaimsParameter bool     // claims_parameter_supported

	Prompts []string // prompt_values_supported (Initiating User Registration §4.2); empty when not said

	Ignored []string // optional endpoints that cannot be used, and why

	Date time.Time // the provider's Date header, for the clock difference; zero when there was none
	At   time.Time // when we received it

	mtls mtlsEndpoints
}

// Metadata returns what discovery said, and asks if that is not known. It is shared: do not change it. The error is an
// [ErrUnavailable].
func (p *Provider) Metadata(ctx context.Context) (*Metadata, error) { return p.meta.get(ctx) }

// discover asks the provider about itself (Discovery §4).
func (p *Provider) discover(ctx context.Context) (*Metadata, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	where := p.cfg.internal(strings.TrimSuffix(p.cfg.Issuer, "/") + "/.well-known/openid-configuration")
	m, err := func() (*Metadata, error) {
		d, err := p.getDocument(ctx, where)
		if err != nil {
			return nil, err
		}
		m, err := parseMetadata(d.body, &p.cfg)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where, d.unlike(err))
		}
		if p.cfg.usesTLS() {
			m.preferMTLS()
		}
		m.At = p.cfg.Now()
		m.Date, _ = http.ParseTime(d.date)
		return m, nil
	}()
	if err != nil {
		err = fmt.Errorf("its metadata: %w", err)
	}
	if err == nil && len(m.Ignored) > 0 {
		p.cfg.Log.Warn("the provider's metadata names endpoints that are not used; what they are for does not work",
			"event", "oidc.discovery.ignored", "provider", p.cfg.Name, "ignored", strings.Join(m.Ignored, "; "))
	}
	// Without metadata it is asked for again and again; only the first failure and the recovery are logged.
	switch was := p.silent.Swap(err != nil); {
	case err != nil && !was:
		p.cfg.Log.Warn("the provider's metadata could not be fetched; this is told once until it can",
			"event", "oidc.discovery.failed", "provider", p.cfg.Name, "error", err, "do",
			p.advice(err))
	case err == nil && was:
		p.cfg.Log.Info("the provider's metadata could be fetched again", "event", "oidc.discovery.recovered",
			"provider", p.cfg.Name)
	}
	return m, err
}

// checkEndpoint refuses an endpoint to which secrets would go in the clear: http is for an issuer that is http itself,
// which it is on loopback alone.
func (c *Config) checkEndpoint(raw string) error {
	u, err := c.checkAddress(raw)
	if err == nil && u.Scheme != "https" && strings.HasPrefix(strings.ToLower(c.Issuer), "https:") {
		return fmt.Errorf("%s is not https, and the issuer is: codes, secrets and tokens would be sent in the clear",
			quote(raw))
	}
	return err
}

func parseMetadata(data []byte, cfg *Config) (*Metadata, error) {
	issuer := cfg.Issuer
	c, err := decodeObject(data)
	if err != nil {
		return nil, err
	}
	var m Metadata
	// Discovery §4.3: identical, so that nobody speaks for another issuer.
	if m.Issuer, _ = c["issuer"].(string); m.Issuer != issuer {
		if cfg.InternalURL != "" && m.Issuer != "" && cfg.public(m.Issuer) == issuer {
			return nil, fmt.Errorf("it speaks for the issuer %s, which is internal_url: tell the provider its public "+
				"address (at Keycloak KC_HOSTNAME), so that its issuer is %s however it is asked", quote(m.Issuer),
				quote(issuer))
		}
		return nil, fmt.Errorf("it speaks for the issuer %s, not for %s (they must be identical, to the last "+
			"slash): correct `issuer` in the configuration, or the provider's", quote(m.Issuer), quote(issuer))
	}
	var faults []error
	aliases, _ := c["mtls_endpoint_aliases"].(map[string]any)
	for _, e := range []struct {
		name     string
		to       *string
		required bool
	}{
		{"authorization_endpoint", &m.AuthorizationEndpoint, true},
		{"token_endpoint", &m.TokenEndpoint, true},
		{"jwks_uri", &m.JWKSURI, true},
		{"userinfo_endpoint", &m.UserinfoEndpoint, false},
		{"end_session_endpoint", &m.EndSessionEndpoint, false},
		{"revocation_endpoint", &m.RevocationEndpoint, false},
		{"introspection_endpoint", &m.IntrospectionEndpoint, false},
		{"pushed_authorization_request_endpoint", &m.PushedRequestEndpoint, false},
		{"mtls_endpoint_aliases.token_endpoint", &m.mtls.token, false},
		{"mtls_endpoint_aliases.userinfo_endpoint", &m.mtls.userinfo, false},
		{"mtls_endpoint_aliases.revocation_endpoint", &m.mtls.revocation, false},
		{"mtls_endpoint_aliases.introspection_endpoint", &m.mtls.introspection, false},
		{"mtls_endpoint_aliases.pushed_authorization_request_endpoint", &m.mtls.pushed, false},
	} {
		v := c[e.name]
		if name, isAlias := strings.CutPrefix(e.name, "mtls_endpoint_aliases."); isAlias {
			v = aliases[name]
		}
		switch v := v.(type) {
		case string:
			v = cfg.public(v)
			switch err := cfg.checkEndpoint(v); {
			case v == "" && e.required:
				faults = append(faults, fmt.Errorf("`%s` is empty", e.name))
			case v == "": // as good as absent
			case err != nil && e.required:
				faults = append(faults, fmt.Errorf("`%s`: %w", e.name, err))
			case err != nil:
				m.Ignored = append(m.Ignored, fmt.Sprintf("`%s`: %v", e.name, err))
			default:
				*e.to = v
			}
		case nil:
			if e.required {
				faults = append(faults, fmt.Errorf("`%s` is missing", e.name))
			}
		default:
			if e.required {
				faults = append(faults, fmt.Errorf("`%s` is not a string", e.name))
			} else {
				m.Ignored = append(m.Ignored, fmt.Sprintf("`%s` is not a string", e.name))
			}
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	// Browsers are sent to the others.
	for _, endpoint := range []*string{&m.TokenEndpoint, &m.JWKSURI, &m.UserinfoEndpoint, &m.RevocationEndpoint,
		&m.IntrospectionEndpoint, &m.PushedRequestEndpoint, &m.mtls.token, &m.mtls.userinfo, &m.mtls.revocation,
		&m.mtls.pushed, &m.mtls.introspection} {
		*endpoint = cfg.internal(*endpoint)
	}
	list := func(name string) (list []string) {
		all, _ := c[name].([]any)
		for _, e := range all {
			if s, ok := e.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	m.IDTokenSigningAlgs = list("id_token_signing_alg_values_supported")
	m.IDTokenEncryptAlgs = list("id_token_encryption_alg_values_supported")
	m.UserinfoSigningAlgs = list("userinfo_signing_alg_values_supported")
	m.UserinfoEncryptAlgs = list("userinfo_encryption_alg_values_supported")
	m.PKCEMethods = list("code_challenge_methods_supported")
	m.TokenAuthMethods = list("token_endpoint_auth_methods_supported")
	m.TokenAuthAlgs = list("token_endpoint_auth_signing_alg_values_supported")
	m.RequestObjectAlgs = list("request_object_signing_alg_values_supported")
	m.ResponseModes = list("response_modes_supported")
	m.ResponseSigningAlgs = list("authorization_signing_alg_values_supported")
	m.ResponseEncryptAlgs = list("authorization_encryption_alg_values_supported")
	m.DPoPAlgs = list("dpop_signing_alg_values_supported")
	m.RequirePushed = c["require_pushed_authorization_requests"] == true
	m.RequireSignedRequest = c["require_signed_request_object"] == true
	m.BindsToCertificates = c["tls_client_certificate_bound_access_tokens"] == true
	m.Scopes = list("scopes_supported")
	m.Prompts = list("prompt_values_supported")
	m.ACRValues = list("acr_values_supported")
	m.ClaimsParameter = c["claims_parameter_supported"] == true
	m.IssParameter = c["authorization_response_iss_parameter_supported"] == true
	m.BackchannelLogout = c["backchannel_logout_supported"] == true
	m.BackchannelSession = c["backchannel_logout_session_supported"] == true
	m.FrontchannelLogout = c["frontchannel_logout_supported"] == true
	m.FrontchannelSession = c["frontchannel_logout_session_supported"] == true
	return &m, nil
}
