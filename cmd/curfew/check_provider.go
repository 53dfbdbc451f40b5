package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.com/curfew"
	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/oidc"
	"example.com/curfew/web"
)

const (
	clockWarning = 30 * time.Second
	clockFault   = 60 * time.Second // the skew that tokens are allowed
)

// checkProvider looks at one provider, first at what needs no answer from it.
func checkProvider(ctx context.Context, r *report, p *oidc.Provider, reg curfew.Registration) {
	c := p.Config()
	checkBackchannelURL(r, c, reg)
	checkSecret(r, c)
	m, err := p.Metadata(ctx)
	if err != nil {
		r.fault("discovery", err.Error(), "see that this machine reaches "+c.Issuer+", and that the issuer is written exactly as the provider writes it")
		return
	}
	r.ok("discovery", "%s", m.Issuer)
	checkKeys(ctx, r, p, m)
	checkLogoutSupport(r, m)
	checkTokenEndpoint(r, c, m)
	checkClient(ctx, r, p, reg)
	checkRedirectURI(ctx, r, p, reg)
	checkScopes(r, c, m)
	checkClock(r, m)
	checkQuirks(r, c, kindOf(c.Issuer, m))
}

func checkBackchannelURL(r *report, c oidc.Config, reg curfew.Registration) {
	ours, provider := hostOf(reg.BackchannelURI), hostOf(c.Issuer)
	if web.Loopback(ours) && !web.Loopback(provider) {
		r.warn("back-channel URL", reg.BackchannelURI+" is on this machine's loopback, and the provider is elsewhere",
			"no logout can reach it: set url to a name that the provider can reach")
		return
	}
	r.unchecked("back-channel URL", reg.BackchannelURI+": no provider says whether it is registered",
		"register it, with session required, sign in and out at the provider, and look for backchannel_logout in the log")
}

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// checkSecret: RFC 6749 §2.3.1 form-encodes the two halves of HTTP Basic, and some providers never decode them.
func checkSecret(r *report, c oidc.Config) {
	if c.AuthMethod != oidc.AuthBasic {
		return
	}
	if url.QueryEscape(c.ClientSecret) != c.ClientSecret || url.QueryEscape(c.ClientID) != c.ClientID {
		r.warn("client secret", "the client id or secret holds characters that form-encoding changes, and some providers never decode them",
			"if the provider answers invalid_client, set token_endpoint_auth_method: client_secret_post, or choose a secret of letters and digits")
	}
}

func checkKeys(ctx context.Context, r *report, p *oidc.Provider, m *oidc.Metadata) {
	c := p.Config()
	algs := []string{c.SigningAlg}
	if c.Quirks.LogoutSigningAlg != c.SigningAlg {
		algs = append(algs, c.Quirks.LogoutSigningAlg)
	}
	for _, alg := range algs {
		if len(m.IDTokenSigningAlgs) > 0 && !slices.Contains(m.IDTokenSigningAlgs, alg) {
			r.fault("signing algorithm", fmt.Sprintf("%s is registered here, and the provider offers %s", alg, strings.Join(m.IDTokenSigningAlgs, ", ")),
				"set id_token_signed_response_alg to what the client is registered with there")
			continue
		}
		r.ok("signing algorithm", "%s", alg)
	}
	keys, err := p.Keys(ctx)
	if err != nil {
		r.fault("keys", err.Error(), "see that this machine reaches "+m.JWKSURI)
		return
	}
	var good, bad []string
	for _, k := range keys {
		name := strings.Join(slices.DeleteFunc([]string{k.KID, k.Kty, k.Crv, k.Alg}, func(s string) bool { return s == "" }), " ")
		if k.Problem == "" {
			good = append(good, name)
		} else {
			bad = append(bad, name+" ("+k.Problem+")")
		}
	}
	switch {
	case len(good) > 0:
		r.ok("keys", "%d of %d can be used: %s", len(good), len(keys), strings.Join(good, ", "))
	case len(keys) == 0:
		r.fault("keys", m.JWKSURI+" holds none", "no token can be verified: give the provider a signing key")
	default:
		r.fault("keys", "none can be used: "+strings.Join(bad, ", "), "no token can be verified: set id_token_signed_response_alg to what the provider signs with")
	}
}

func checkLogoutSupport(r *report, m *oidc.Metadata) {
	if m.EndSessionEndpoint != "" {
		r.ok("end_session_endpoint", "%s", m.EndSessionEndpoint)
	} else {
		r.warn("end_session_endpoint", "the provider has none", "signing out here leaves the person signed in there; nothing to do here")
	}
	switch {
	case !m.BackchannelLogout:
		r.warn("backchannel_logout_supported", "the provider does not mention it",
			"some send logout tokens all the same: register the URL above and try; without it a logout there is noticed at the next refresh or never")
	case !m.BackchannelSession:
		r.ok("backchannel_logout_supported", "yes")
		r.warn("backchannel_logout_session_supported", "the provider does not mention it", "a logout may then end all of a person's sessions here, not one")
	default:
		r.ok("backchannel_logout_supported", "yes")
		r.ok("backchannel_logout_session_supported", "yes")
	}
	if m.RevocationEndpoint != "" {
		r.ok("revocation_endpoint", "%s", m.RevocationEndpoint)
	} else {
		r.warn("revocation_endpoint", "the provider has none", "refresh tokens of ended sessions live on there until they run out; they are forgotten here")
	}
}

func checkTokenEndpoint(r *report, c oidc.Config, m *oidc.Metadata) {
	if slices.Contains(m.PKCEMethods, "S256") {
		r.ok("PKCE", "S256")
	} else {
		r.warn("PKCE", "the provider does not mention S256", "it is sent all the same; see that sign-in works, and ask the provider for it")
	}
	offered := m.TokenAuthMethods
	if len(offered) == 0 {
		offered = []string{oidc.AuthBasic} // Discovery §3
	}
	switch {
	case slices.Contains(offered, c.AuthMethod):
		r.ok("token endpoint", "%s", c.AuthMethod)
	case c.AuthMethod == oidc.AuthNone:
		r.warn("token endpoint", "there is no client secret here, and the provider does not mention public clients (none)", "if it is not a public client, give its secret")
	default:
		r.fault("token endpoint", fmt.Sprintf("%s is used here, and the provider offers %s", c.AuthMethod, strings.Join(offered, ", ")),
			"set token_endpoint_auth_method to what the client is registered with there")
	}
	if m.IssParameter {
		r.ok("iss parameter", "sent, and checked (RFC 9207)")
	} else {
		r.ok("iss parameter", "not sent; each provider has a redirect URI of its own instead")
	}
}

// impossible is a code and a PKCE verifier that no provider has seen.
func impossible() string { return rand.Text() + rand.Text() }

// checkClient asks the token endpoint with a code that cannot be: only who knows the client gets as far as to refuse it.
func checkClient(ctx context.Context, r *report, p *oidc.Provider, reg curfew.Registration) {
	_, err := p.Exchange(ctx, impossible(), impossible(), reg.RedirectURI)
	failed, isFailed := errors.AsType[*oidc.Error](err)
	switch {
	case errors.Is(err, oidc.ErrInvalidGrant):
		r.ok("client", "the token endpoint takes %s by %s", reg.ClientID, p.Config().AuthMethod)
	case isFailed && (strings.Contains(failed.Error(), "invalid_client") || strings.Contains(failed.Error(), "answered 401")):
		r.fault("client", failed.Error(), "nobody can sign in until id, secret and method are those that the provider has")
	case isFailed && strings.Contains(failed.Error(), "unauthorized_client"):
		r.fault("client", failed.Error(), "allow this client the authorization code grant at the provider")
	default:
		r.unchecked("client", fmt.Sprintf("the token endpoint does not say whether it takes the client: %v", err), "sign in to see")
	}
}

// checkRedirectURI asks for a sign-in without a person (Core §3.1.2.1, prompt=none). A provider answers at the redirect
// URI, which is not followed, if that is registered, and with a page of its own if not (RFC 6749 §4.1.2.1).
func checkRedirectURI(ctx context.Context, r *report, p *oidc.Provider, reg curfew.Registration) {
	const check = "redirect URI"
	where, err := p.AuthURL(ctx, oidc.AuthRequest{RedirectURI: reg.RedirectURI, State: impossible(), Nonce: impossible(),
		Verifier: impossible(), Prompt: "none"})
	if err != nil {
		r.unchecked(check, err.Error(), "sign in to see")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	var resp *http.Response
	if err == nil {
		resp, err = p.Config().HTTPClient.Do(ask) // follows no redirect
	}
	if err != nil {
		r.unchecked(check, "the authorization endpoint does not answer", "see that this machine and browsers reach it")
		return
	}
	defer resp.Body.Close()
	to, _ := resp.Location()
	home, here := false, ""
	if to != nil {
		bare := *to
		bare.RawQuery, bare.Fragment = "", ""
		home, here = bare.String() == reg.RedirectURI, to.Query().Get("error")
	}
	switch {
	case home && (here == "unauthorized_client" || here == "invalid_client"):
		r.fault(check, fmt.Sprintf("the provider answers %q", here), "allow this client the authorization code flow at the provider")
	case home:
		r.ok(check, "%s is registered", reg.RedirectURI)
	case to == nil && resp.StatusCode >= 400 && resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests:
		r.fault(check, fmt.Sprintf("the authorization endpoint answers %d, and not at %s", resp.StatusCode, reg.RedirectURI),
			"register exactly this redirect URI for the client "+reg.ClientID+", and see that there is such a client")
	default:
		r.unchecked(check, fmt.Sprintf("the authorization endpoint answers %d, which does not say whether %s is registered",
			resp.StatusCode, reg.RedirectURI), "register it, and sign in to see")
	}
}

func checkScopes(r *report, c oidc.Config, m *oidc.Metadata) {
	var unknown []string
	for _, s := range c.Scopes {
		if len(m.Scopes) > 0 && !slices.Contains(m.Scopes, s) {
			unknown = append(unknown, s)
		}
	}
	if len(unknown) > 0 {
		r.warn("scopes", "the provider does not mention "+strings.Join(unknown, ", "), "if sign-in ends with invalid_scope, leave them out of scopes")
		return
	}
	r.ok("scopes", "%s", strings.Join(c.Scopes, " "))
}

func checkClock(r *report, m *oidc.Metadata) {
	if m.Date.IsZero() {
		r.ok("clock", "the provider does not tell its time")
		return
	}
	// The header has whole seconds.
	difference := m.Date.Sub(m.At).Round(time.Second)
	words := fmt.Sprintf("%s behind ours", -difference)
	if difference >= 0 {
		words = fmt.Sprintf("%s ahead of ours", difference)
	}
	switch d := difference.Abs(); {
	case d > clockFault:
		r.fault("clock", "the provider's is "+words, fmt.Sprintf("tokens are refused beyond %s: set both clocks by NTP", clockFault))
	case d > clockWarning:
		r.warn("clock", "the provider's is "+words, fmt.Sprintf("tokens are refused beyond %s: set both clocks by NTP", clockFault))
	default:
		r.ok("clock", "the provider's is %s", words)
	}
}

// kindOf recognises a provider by the shape of its addresses; "" when it does not.
func kindOf(issuer string, m *oidc.Metadata) string {
	switch {
	case strings.Contains(issuer, "/realms/") && strings.Contains(m.AuthorizationEndpoint, "/protocol/openid-connect/"):
		return "Keycloak"
	case strings.Contains(issuer, "/application/o/"):
		return "authentik"
	case strings.HasSuffix(m.AuthorizationEndpoint, "/oauth2/auth") && strings.HasSuffix(m.EndSessionEndpoint, "/oauth2/sessions/logout"):
		return "Ory Hydra"
	}
	return ""
}

// checkQuirks says what is in force, and what is known of the kind of provider.
func checkQuirks(r *report, c oidc.Config, kind string) {
	q := config.Quirks(c.Quirks)
	q = slices.DeleteFunc(q, func(s string) bool { return s == "logout_token_signed_response_alg: "+c.SigningAlg }) // a default
	if len(q) > 0 {
		r.ok("quirks", "in force: %s", strings.Join(q, ", "))
	}
	switch {
	case kind == "Ory Hydra" && !c.Quirks.AllowMissingExp:
		r.warn("quirks", "this looks like Ory Hydra, whose logout tokens have no exp", "set allow_missing_exp: true, or each of its logouts is refused")
	case kind == "Ory Hydra" && c.Quirks.RequireTyp:
		r.warn("quirks", "this looks like Ory Hydra, whose logout tokens have the typ JWT", "leave out require_typ, or each of its logouts is refused")
	case kind == "Keycloak" && !c.Quirks.AllowMissingExp:
		r.ok("quirks", "this looks like Keycloak: up to 23.0.3 it needs allow_missing_exp: true; newer ones need nothing")
	case kind == "authentik" && !c.Quirks.AllowMissingExp:
		r.ok("quirks", "this looks like authentik: older ones need allow_missing_exp: true")
	}
}
