package oidc

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// AuthRequest asks a person to sign in.
type AuthRequest struct {
	RedirectURI string
	State       string
	Nonce       string
	Verifier    string // PKCE; sent as its S256 challenge
	LoginHint   string
	IDTokenHint string // with prompt none (Core §3.1.2.1); sent decrypted; left out when it cannot be
	Prompt      string // instead of the configured one
	MaxAge      *int
	Extra       url.Values // more parameters; those above are not replaced
}

// AuthURL returns where to send a browser so that a person signs in: the code flow (Core §3.1.2.1) with PKCE S256 (RFC
// 7636 §4.3), a state and a nonce, none of which can be left out. The request may be signed (RFC 9101), and handed to
// the provider before (RFC 9126), as configured. The error is an [ErrUnavailable], of which [ErrTooMany] is one, or an
// [Error].
func (p *Provider) AuthURL(ctx context.Context, r AuthRequest) (string, error) {
	if r.State == "" || r.Nonce == "" || r.RedirectURI == "" {
		return "", errors.New("an authentication request needs a redirect URI, a state and a nonce")
	}
	if len(r.Verifier) < 43 || len(r.Verifier) > 128 {
		return "", fmt.Errorf("a PKCE verifier has 43 to 128 characters (RFC 7636 §4.1), not %d", len(r.Verifier))
	}
	m, err := p.meta.get(ctx)
	if err != nil {
		return "", err
	}
	challenge := sha256.Sum256([]byte(r.Verifier))
	q := url.Values{
		"response_type":         {"code"},
		"client_id":             {p.cfg.ClientID},
		"redirect_uri":          {r.RedirectURI},
		"scope":                 {strings.Join(p.cfg.Scopes, " ")},
		"state":                 {r.State},
		"nonce":                 {r.Nonce},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(challenge[:])},
		"code_challenge_method": {"S256"},
	}
	if p.cfg.ResponseMode != ModeQuery { // the default of a code (Multiple Response Types §5)
		q.Set("response_mode", p.cfg.ResponseMode)
	}
	if r.LoginHint != "" {
		q.Set("login_hint", r.LoginHint)
	}
	if hint := p.hint(r.IDTokenHint); hint != "" {
		q.Set("id_token_hint", hint)
	}
	if prompt := cmp.Or(r.Prompt, strings.Join(strings.Fields(p.cfg.Prompt), " ")); prompt != "" {
		q.Set("prompt", prompt)
	}
	if r.MaxAge != nil {
		q.Set("max_age", strconv.Itoa(*r.MaxAge))
	}
	for name, values := range r.Extra {
		if _, ours := q[name]; !ours {
			q[name] = values
		}
	}
	for name, value := range p.cfg.AuthParams {
		if !q.Has(name) {
			q.Set(name, value)
		}
	}
	pushed := p.cfg.PushRequests || m.RequirePushed
	if pushed {
		if err := p.mayPush(); err != nil {
			return "", err
		}
	}
	if p.cfg.RequestObjectSigningAlg != "" {
		if q, err = p.requestObject(q, pushed); err != nil {
			return "", err
		}
	}
	if pushed {
		if q, err = p.push(ctx, m, q); err != nil {
			return "", err
		}
	}
	return addQuery(m.AuthorizationEndpoint, q)
}

// CheckIssParameter checks the `iss` parameter of an authorization response (RFC 9207 §2.4); empty means that it was
// not there. It must be the issuer, and must be there when the provider promises it: otherwise the answer may come from
// another provider.
func (p *Provider) CheckIssParameter(ctx context.Context, iss string) error {
	if iss != "" {
		if iss != p.cfg.Issuer {
			return failed("iss", "the answer comes from %s; the question went to %s (RFC 9207)", quote(iss),
				quote(p.cfg.Issuer))
		}
		return nil
	}
	m, err := p.meta.get(ctx)
	if err != nil {
		return err
	}
	if m.IssParameter {
		return failed("iss", "the provider promises to say who answers, and the answer does not say it (RFC 9207)")
	}
	return nil
}

// EndSessionRequest is RP-Initiated Logout §2.
type EndSessionRequest struct {
	IDTokenHint           string // sent decrypted; left out when it cannot be
	PostLogoutRedirectURI string
	State                 string
}

// EndSessionURL returns where to send a browser so that the provider ends its own session too (RP-Initiated Logout §2).
// [ErrUnsupported] when the provider has no such place.
func (p *Provider) EndSessionURL(ctx context.Context, r EndSessionRequest) (string, error) {
	endpoint, form, err := p.endSession(ctx, r)
	if err != nil {
		return "", err
	}
	return addQuery(endpoint, form)
}

// EndSessionForm is [Provider.EndSessionURL] for a POST, which takes an ID Token of any size: it returns the endpoint
// and the fields of the form. A provider must take a POST (RP-Initiated Logout §2), but some do not unless so
// configured, so it is asked with a POST that names nobody: [ErrUnsupported] when it knows of none, [ErrUnavailable]
// when it does not answer.
func (p *Provider) EndSessionForm(ctx context.Context, r EndSessionRequest) (string, url.Values, error) {
	endpoint, form, err := p.endSession(ctx, r)
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	ask, err := http.NewRequestWithContext(ctx, http.MethodPost, p.cfg.internal(endpoint),
		strings.NewReader(url.Values{"client_id": {p.cfg.ClientID}}.Encode()))
	if err != nil {
		return "", nil, unavailable("%s is not a URL", quote(endpoint))
	}
	ask.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	switch a, err := p.do(ask); {
	case err != nil:
		return "", nil, unavailable("%w", err)
	case a.status == http.StatusNotFound || a.status == http.StatusMethodNotAllowed ||
		a.status == http.StatusNotImplemented:
		return "", nil, ErrUnsupported
	}
	return endpoint, form, nil
}

func (p *Provider) endSession(ctx context.Context, r EndSessionRequest) (string, url.Values, error) {
	m, err := p.meta.get(ctx)
	if err != nil {
		return "", nil, err
	}
	if m.EndSessionEndpoint == "" {
		return "", nil, ErrUnsupported
	}
	q := url.Values{"client_id": {p.cfg.ClientID}}
	for name, v := range map[string]string{
		"id_token_hint":            p.hint(r.IDTokenHint),
		"post_logout_redirect_uri": r.PostLogoutRedirectURI,
		"state":                    r.State,
	} {
		if v != "" {
			q.Set(name, v)
		}
	}
	return m.EndSessionEndpoint, q, nil
}

// hint returns an ID Token as `id_token_hint` takes it: one that was encrypted to us is decrypted, since the provider
// cannot read it (Core §3.1.2.1). Empty when it cannot be: the parameter is optional.
func (p *Provider) hint(raw string) string {
	if raw == "" {
		return ""
	}
	t, err := p.openToken(raw, false)
	if err != nil {
		return ""
	}
	return t.raw
}

// addQuery adds parameters to an endpoint, whose own query is kept (RFC 6749 §3.1).
func addQuery(endpoint string, q url.Values) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", unavailable("the endpoint %s is not a URL", quote(endpoint))
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += q.Encode()
	return u.String(), nil
}
