package check

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.com/curfew"
	"example.com/curfew/oidc"
	"example.com/curfew/web"
)

const (
	clockWarning = 30 * time.Second
	clockFault   = 60 * time.Second // the clock skew allowed for tokens
)

// checkProvider checks one provider, first what does not need it to answer. claims are those that the configuration
// reads beside require.
func checkProvider(
	ctx context.Context, r *Report, p *oidc.Provider, reg curfew.Registration, claims ...string,
) {
	c := p.Config()
	checkBackchannelURL(r, c, reg)
	checkSecret(r, c)
	m, err := p.Metadata(ctx)
	if err != nil {
		r.fault("discovery", err.Error(),
			connectionHint(err, cmp.Or(c.InternalURL, c.Issuer))+", and that the issuer is written exactly as the "+
				"provider writes it")
		r.unchecked("all else", "the provider's metadata says where to ask",
			"put the discovery right, and run this again")
		return
	}
	r.ok("discovery", "%s", m.Issuer)
	if c.InternalURL != "" {
		r.ok("internal_url", "browsers are sent to %s, and this gateway asks %s", m.AuthorizationEndpoint,
			m.TokenEndpoint)
	}
	if u, err := url.Parse(m.TokenEndpoint); err == nil && u.Scheme == "http" && !web.Loopback(u.Hostname()) {
		r.warn("encryption", m.TokenEndpoint+" is asked without encryption (allow_http_to_private_address)",
			"see that nobody else is on that network; otherwise give the provider a certificate, and set ca_file")
	}
	for _, why := range m.Ignored {
		r.warn("metadata", why, "it is not used, and what it is for does not work: correct it at the provider")
	}
	k := kindOf(c.Issuer, m)
	checkKeys(ctx, r, p, k, m)
	checkLogoutSupport(r, m)
	checkFrontchannel(r, k, m, reg)
	checkTokenEndpoint(r, c, m)
	checkSettings(r, c, m, reg)
	checkClient(ctx, r, p, m, reg)
	checkRedirectURI(ctx, r, p, m, reg)
	checkPostLogoutURI(r, m, reg)
	checkUserinfo(r, c, m)
	r.ok("access token", "if the token response has no expires_in, it is taken to live for %s (access_token_lifetime)",
		c.AccessTokenLifetime)
	checkRevalidation(ctx, r, p, m)
	checkBearer(ctx, r, p, k, m)
	checkScopes(r, c, k, m)
	checkPrompt(r, c, m)
	checkClock(r, m)
	checkQuirks(r, c, k)
	checkKnown(r, k)
	checkSubject(r, k)
	checkRoles(r, k, append(slices.Sorted(maps.Keys(c.Require)), claims...))
}

// connectionHint says what to check after a request that failed. It begins a sentence.
func connectionHint(err error, where string) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "see that the certificate of " + where +
			" is valid, and that this machine trusts the authority that issued it; a private one is set as ca_file"
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, io.EOF) ||
		errors.Is(err, context.DeadlineExceeded) {
		return "see that this machine reaches " + where + " (its name, firewalls, a proxy)"
	}
	return "open " + where + " to see who answers there: it may be a page to sign in, another server, or an address " +
		"that has moved"
}

func checkBackchannelURL(r *Report, c oidc.Config, reg curfew.Registration) {
	ours, provider := hostOf(reg.BackchannelURI), hostOf(c.Issuer)
	if web.Loopback(ours) && !web.Loopback(provider) {
		r.warn("back-channel URL", reg.BackchannelURI+" is on this machine's loopback, and the provider is elsewhere",
			"no logout can reach it: set url to a name that the provider can reach")
		return
	}
	r.unchecked("back-channel URL", reg.BackchannelURI+": no provider says whether it is registered",
		"register it, with session required, sign in and out at the provider, and look for backchannel_logout in "+
			"the log")
}

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// checkSecret warns of secrets that form-encoding changes: RFC 6749 §2.3.1 form-encodes both halves of HTTP Basic, and
// some providers never decode them.
func checkSecret(r *Report, c oidc.Config) {
	if c.AuthMethod != oidc.AuthBasic {
		return
	}
	if url.QueryEscape(c.ClientSecret) != c.ClientSecret || url.QueryEscape(c.ClientID) != c.ClientID {
		r.warn("client secret", "the client id or secret holds characters that form-encoding changes, and some "+
			"providers never decode them",
			"if the provider answers invalid_client, set token_endpoint_auth_method: client_secret_post, or choose "+
				"a secret of letters and digits")
	}
}

// purpose is what a signing algorithm is registered for.
type purpose struct {
	setting string
	alg     string
	does    string // what the provider does with it
	fails   string // what does not work without a key
}

func checkKeys(ctx context.Context, r *Report, p *oidc.Provider, k kind, m *oidc.Metadata) {
	c := p.Config()
	const check = "signing algorithm"
	purposes := []purpose{{"id_token_signed_response_alg", c.SigningAlg, "signs ID Tokens with", "nobody can sign in"}}
	switch offered := m.IDTokenSigningAlgs; {
	case len(offered) == 0:
		r.unchecked(check, "the provider does not say whether it offers "+c.SigningAlg, "sign in to see")
	case !slices.Contains(offered, c.SigningAlg):
		r.fault(check, fmt.Sprintf("%s is registered here, and the provider offers %s for ID Tokens", c.SigningAlg,
			strings.Join(offered, ", ")),
			"set id_token_signed_response_alg to what the client is registered with there")
	default:
		r.ok(check, "%s", c.SigningAlg)
	}
	if alg := c.Quirks.LogoutSigningAlg; alg != c.SigningAlg {
		purposes = append(purposes, purpose{"logout_token_signed_response_alg", alg, "signs logout tokens with",
			"each logout is refused"})
		r.unchecked(check, "no provider says whether it signs logout tokens with "+alg+
			" (logout_token_signed_response_alg)",
			"sign out at the provider, and look for backchannel_logout in the log")
	}
	if alg := c.UserinfoSigningAlg; alg != "" && alg != c.SigningAlg && !c.SkipUserinfo {
		purposes = append(purposes, purpose{"userinfo_signed_response_alg", alg, "signs userinfo with",
			"nobody can sign in"})
	}
	keys, err := p.Keys(ctx)
	if err != nil {
		r.fault("keys", err.Error(), connectionHint(err, m.JWKSURI))
		return
	}
	if len(keys) == 0 {
		r.fault("keys", m.JWKSURI+" holds none", "no token can be verified: give the provider a signing key")
		return
	}
	var good, bad []string
	for _, key := range keys {
		name := strings.Join(slices.DeleteFunc([]string{key.KID, key.Kty, key.Crv, key.Alg},
			func(s string) bool { return s == "" }), " ")
		if key.Problem == "" {
			good = append(good, name)
		} else {
			bad = append(bad, name+" ("+key.Problem+")")
		}
	}
	complete := true
	for _, want := range purposes {
		if slices.ContainsFunc(keys, func(k oidc.KeyInfo) bool { return slices.Contains(k.For, want.alg) }) {
			continue
		}
		complete = false
		none := fmt.Sprintf("none can be used for %s (%s): %s", want.alg, want.setting,
			strings.Join(append(slices.Clone(bad), good...), ", "))
		if k.name == keycloak && slices.Contains(m.IDTokenSigningAlgs, want.alg) {
			r.unchecked("keys", none, "Keycloak makes a key for another algorithm at the first sign-in that needs it: "+
				"sign in, and run this again")
			continue
		}
		r.fault("keys", none, want.fails+": set "+want.setting+" to what the provider "+want.does)
	}
	if complete {
		r.ok("keys", "%d of %d can be used: %s", len(good), len(keys), strings.Join(good, ", "))
	}
}

func checkLogoutSupport(r *Report, m *oidc.Metadata) {
	if m.EndSessionEndpoint != "" {
		r.ok("end_session_endpoint", "%s", m.EndSessionEndpoint)
	} else {
		r.warn("end_session_endpoint", "the provider has none",
			"signing out here leaves the person signed in there; nothing to do here")
	}
	switch {
	case !m.BackchannelLogout:
		r.warn("backchannel_logout_supported", "the provider does not mention it",
			"some send logout tokens all the same: register the URL above and try; without it a logout there is "+
				"noticed at the next refresh or never")
	case !m.BackchannelSession:
		r.ok("backchannel_logout_supported", "yes")
		r.warn("backchannel_logout_session_supported", "the provider does not mention it",
			"a logout may then end all of a person's sessions here, not one")
	default:
		r.ok("backchannel_logout_supported", "yes")
		r.ok("backchannel_logout_session_supported", "yes")
	}
	if m.RevocationEndpoint != "" {
		r.ok("revocation_endpoint", "%s", m.RevocationEndpoint)
	} else {
		r.warn("revocation_endpoint", "the provider has none",
			"refresh tokens of ended sessions live on there until they run out; they are forgotten here")
	}
}

// checkPostLogoutURI names the last of the addresses to register. Providers answer a wrong one with a page for people.
func checkPostLogoutURI(r *Report, m *oidc.Metadata, reg curfew.Registration) {
	if m.EndSessionEndpoint != "" {
		r.unchecked("post-logout redirect URI", reg.PostLogoutURI+": no provider says whether it is registered",
			"register it, sign out here, and see that you come back from the provider")
	}
}

// checkFrontchannel says when the front channel is to be registered, which is only where there is no back channel.
func checkFrontchannel(r *Report, k kind, m *oidc.Metadata, reg curfew.Registration) {
	const check = "front channel"
	switch {
	case k.name == keycloak:
		r.unchecked(check, "this looks like Keycloak, which sends no logout token to a client whose \"Front channel "+
			"logout\" is on, as it is for a new one in the console",
			"switch \"Front channel logout\" off in the client's settings, and enter the back-channel URL above as "+
				"\"Backchannel logout URL\"")
	case !m.BackchannelLogout && m.FrontchannelLogout:
		r.warn(check, "the provider mentions no back channel, but a front channel, which needs the browser's cookie "+
			"in "+
			"a frame of the provider's page", "if there is no back channel, register "+reg.FrontchannelURI+
			" as front-channel logout URI, with session required")
	}
}

func checkTokenEndpoint(r *Report, c oidc.Config, m *oidc.Metadata) {
	if slices.Contains(m.PKCEMethods, "S256") {
		r.ok("PKCE", "S256")
	} else {
		r.warn("PKCE", "the provider does not mention S256",
			"it is sent all the same; see that sign-in works, and ask the provider for it")
	}
	const check = "token_endpoint_auth_method"
	offered := m.TokenAuthMethods
	if len(offered) == 0 {
		offered = []string{oidc.AuthBasic} // Discovery §3
	}
	switch {
	case slices.Contains(offered, c.AuthMethod):
		r.ok(check, "%s is offered", c.AuthMethod)
	case c.AuthMethod == oidc.AuthNone:
		r.warn(check, "there is no client secret here, and the provider does not mention public clients (none)",
			"if it is not a public client, give its secret")
	default:
		r.fault(check, fmt.Sprintf("%s is used here, and the provider offers %s", c.AuthMethod,
			strings.Join(offered, ", ")),
			"set token_endpoint_auth_method to what the client is registered with there")
	}
}

// checkPrompt warns of prompt values that the provider does not offer: it may answer them with an error.
func checkPrompt(r *Report, c oidc.Config, m *oidc.Metadata) {
	if c.Prompt == "" || len(m.Prompts) == 0 {
		return
	}
	for _, prompt := range strings.Fields(c.Prompt) {
		if !slices.Contains(m.Prompts, prompt) {
			r.warn("prompt", "the provider does not offer "+prompt+", but "+strings.Join(m.Prompts, ", "),
				"if sign-in ends with an error, set prompt to what it offers")
			return
		}
	}
	r.ok("prompt", "%s is offered", c.Prompt)
}

// checkUserinfo compares how userinfo is to be signed and encrypted with what the provider offers (Discovery §3).
func checkUserinfo(r *Report, c oidc.Config, m *oidc.Metadata) {
	if c.SkipUserinfo {
		return
	}
	compare := func(setting, alg string, offered []string) {
		switch {
		case alg == "":
		case len(offered) == 0:
			r.unchecked("userinfo", "the provider does not say whether it offers "+alg+" ("+setting+")",
				"sign in to see")
		case !slices.Contains(offered, alg):
			r.fault("userinfo", fmt.Sprintf("%s is registered here, and the provider offers %s", alg,
				strings.Join(offered, ", ")), "set "+setting+" to what the client is registered with there")
		default:
			r.ok("userinfo", "%s: %s", setting, alg)
		}
	}
	compare("userinfo_signed_response_alg", c.UserinfoSigningAlg, m.UserinfoSigningAlgs)
	if c.UserinfoEncryption != nil {
		compare("userinfo_encrypted_response_alg", c.UserinfoEncryption.Alg, m.UserinfoEncryptAlgs)
	}
}

func checkScopes(r *Report, c oidc.Config, k kind, m *oidc.Metadata) {
	if k.name == keycloak && slices.Contains(c.Scopes, "offline_access") {
		r.warn("scopes", "offline_access is asked for, and this looks like Keycloak: a person whose first sign-in "+
			"there asks for it may get an offline session alone, whose end sends no logout token",
			"leave offline_access out of scopes: sessions are refreshed without it")
	}
	var unknown []string
	for _, s := range c.Scopes {
		if len(m.Scopes) > 0 && !slices.Contains(m.Scopes, s) {
			unknown = append(unknown, s)
		}
	}
	if len(unknown) > 0 {
		r.warn("scopes", "the provider does not mention "+strings.Join(unknown, ", "),
			"if sign-in ends with invalid_scope, leave them out of scopes")
		return
	}
	if len(m.Scopes) == 0 {
		r.unchecked("scopes", "the provider does not say which it offers", "sign in to see")
		return
	}
	r.ok("scopes", "%s", strings.Join(c.Scopes, " "))
}

func checkClock(r *Report, m *oidc.Metadata) {
	if m.Date.IsZero() {
		r.unchecked("clock", "the provider does not tell its time",
			fmt.Sprintf("tokens are refused beyond a difference of %s: set both clocks by NTP", clockFault))
		return
	}
	// The header has whole seconds, so a second is no difference.
	difference := m.Date.Sub(m.At).Round(time.Second)
	words := fmt.Sprintf("%s behind ours", -difference)
	if difference >= 0 {
		words = fmt.Sprintf("%s ahead of ours", difference)
	}
	if difference.Abs() <= time.Second {
		words = "within 1 s of ours"
	}
	switch d := difference.Abs(); {
	case d > clockFault:
		r.fault("clock", "the provider's is "+words,
			fmt.Sprintf("tokens are refused beyond %s: set both clocks by NTP", clockFault))
	case d > clockWarning:
		r.warn("clock", "the provider's is "+words,
			fmt.Sprintf("tokens are refused beyond %s: set both clocks by NTP", clockFault))
	default:
		r.ok("clock", "the provider's is %s", words)
	}
}
