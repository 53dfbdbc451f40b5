package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
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
	clockFault   = 60 * time.Second // the clock skew allowed for tokens
)

// checkProvider checks one provider, first what does not need it to answer. claims are those that the configuration
// reads beside require.
func checkProvider(
	ctx context.Context, r *report, p *oidc.Provider, reg curfew.Registration, claims ...string,
) {
	c := p.Config()
	checkBackchannelURL(r, c, reg)
	checkSecret(r, c)
	m, err := p.Metadata(ctx)
	if err != nil {
		r.fault("discovery", err.Error(),
			connectionHint(err, cmp.Or(c.InternalURL, c.Issuer))+", and that the issuer is written exactly as the provider writes it")
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
	checkKeys(ctx, r, p, m)
	checkLogoutSupport(r, m)
	checkFrontchannel(r, providerKind(c.Issuer, m), m, reg)
	checkTokenEndpoint(r, c, m)
	checkSpeaking(r, c, m, reg)
	checkClient(ctx, r, p, m, reg)
	checkRedirectURI(ctx, r, p, m, reg)
	checkPostLogoutURI(r, m, reg)
	checkUserinfo(r, c, m)
	r.ok("access token", "if the token response has no expires_in, it is taken to live for %s (access_token_lifetime)",
		c.AccessTokenLifetime)
	checkRevalidation(ctx, r, p, m)
	checkBearer(ctx, r, p, providerKind(c.Issuer, m), m)
	checkScopes(r, c, providerKind(c.Issuer, m), m)
	checkPrompt(r, c, m)
	checkClock(r, m)
	checkQuirks(r, c, providerKind(c.Issuer, m))
	checkKnown(r, providerKind(c.Issuer, m))
	checkSubject(r, providerKind(c.Issuer, m))
	checkRoles(r, providerKind(c.Issuer, m), append(slices.Sorted(maps.Keys(c.Require)), claims...))
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

func checkBackchannelURL(r *report, c oidc.Config, reg curfew.Registration) {
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
func checkSecret(r *report, c oidc.Config) {
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

func checkKeys(ctx context.Context, r *report, p *oidc.Provider, m *oidc.Metadata) {
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
	for _, k := range keys {
		name := strings.Join(slices.DeleteFunc([]string{k.KID, k.Kty, k.Crv, k.Alg},
			func(s string) bool { return s == "" }), " ")
		if k.Problem == "" {
			good = append(good, name)
		} else {
			bad = append(bad, name+" ("+k.Problem+")")
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
		if providerKind(c.Issuer, m) == "Keycloak" && slices.Contains(m.IDTokenSigningAlgs, want.alg) {
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

func checkLogoutSupport(r *report, m *oidc.Metadata) {
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
func checkPostLogoutURI(r *report, m *oidc.Metadata, reg curfew.Registration) {
	if m.EndSessionEndpoint != "" {
		r.unchecked("post-logout redirect URI", reg.PostLogoutURI+": no provider says whether it is registered",
			"register it, sign out here, and see that you come back from the provider")
	}
}

// checkFrontchannel says when the front channel is to be registered, which is only where there is no back channel.
func checkFrontchannel(r *report, kind string, m *oidc.Metadata, reg curfew.Registration) {
	const check = "front channel"
	switch {
	case kind == "Keycloak":
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

func checkTokenEndpoint(r *report, c oidc.Config, m *oidc.Metadata) {
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

// randomCode returns a code, verifier, secret or ID that no provider has issued.
func randomCode() string { return rand.Text() + rand.Text() }

// checkClient sends an invalid code to the token endpoint. Providers that authenticate the client first, as all known
// ones do, refuse the code if the client is right, and otherwise the client (RFC 6749 §5.2). To be sure of that, a
// second request is sent as an unknown client: if the answer is the same, it says nothing about the client.
func checkClient(ctx context.Context, r *report, p *oidc.Provider, m *oidc.Metadata, reg curfew.Registration) {
	const check = "client"
	_, err := p.Exchange(ctx, randomCode(), randomCode(), reg.RedirectURI)
	said, hasSaid := errors.AsType[*oidc.Refusal](err)
	_, isError := errors.AsType[*oidc.Error](err)
	switch {
	case err == nil:
		r.fault(check, "the token endpoint gives tokens for a code that it has never issued",
			"see that "+m.TokenEndpoint+" is the provider's, and in order")
	case errors.Is(err, oidc.ErrInvalidClient):
		r.fault(check, err.Error(), "nobody can sign in until id, secret and method are those that the provider has")
	case hasSaid && (said.Code == "unauthorized_client" || said.Code == "unsupported_grant_type"):
		r.fault(check, err.Error(), "allow this client the authorization code grant at the provider, and see that its "+
			"secret is right")
	case hasSaid && (said.Status >= 500 || said.Status == http.StatusTooManyRequests ||
		said.Status == http.StatusRequestTimeout ||
		said.Code == "temporarily_unavailable" || said.Code == "server_error"):
		r.unchecked(check, err.Error(),
			"run this again later; if it stays so, look into the provider's log, and sign in to see")
	case hasSaid && said.Code == "" && (said.Status == http.StatusNotFound ||
		said.Status == http.StatusMethodNotAllowed || said.Status < 400):
		r.fault(check, err.Error(), "nobody can sign in: "+connectionHint(err, m.TokenEndpoint))
	case hasSaid && said.Code == "invalid_grant":
		other, err := exchangeAsUnknownClient(ctx, p, reg)
		switch {
		case err != nil:
			r.unchecked(check,
				fmt.Sprintf("the token endpoint did not answer when it was asked as another client: %v", err),
				"sign in to see")
		case other.Status == said.Status && other.Code == said.Code:
			r.unchecked(check, "the token endpoint answers the same to a client that cannot be",
				"sign in to see whether id and secret are right")
		default:
			r.ok(check, "the token endpoint takes %s by %s, and not a client that cannot be", reg.ClientID,
				p.Config().AuthMethod)
		}
	case hasSaid || isError:
		r.unchecked(check, fmt.Sprintf("the token endpoint does not say whether it takes the client: %v", err),
			"sign in to see")
	default:
		r.fault(check, err.Error(), "nobody can sign in: "+connectionHint(err, m.TokenEndpoint))
	}
}

// exchangeAsUnknownClient sends an invalid code with a wrong client secret or, without a secret, a wrong client ID.
func exchangeAsUnknownClient(ctx context.Context, p *oidc.Provider, reg curfew.Registration) (*oidc.Refusal, error) {
	other, err := oidc.New(asUnknownClient(p.Config()))
	if err != nil {
		return nil, err
	}
	_, err = other.Exchange(ctx, randomCode(), randomCode(), reg.RedirectURI)
	said, ok := errors.AsType[*oidc.Refusal](err)
	switch {
	case ok:
		return said, nil
	case err == nil:
		err = errors.New("it gave tokens")
	}
	return nil, err
}

// checkRedirectURI requests a sign-in without user interaction (Core §3.1.2.1, prompt=none). A provider redirects to
// the redirect URI, which is not followed, if it is registered, and shows a page of its own if not (RFC 6749 §4.1.2.1).
func checkRedirectURI(ctx context.Context, r *report, p *oidc.Provider, m *oidc.Metadata, reg curfew.Registration) {
	const check = "redirect URI"
	state := randomCode()
	asked, err := inTheQuery(p)
	if err != nil {
		r.unchecked(check, err.Error(), "sign in to see")
		return
	}
	where, err := asked.AuthURL(ctx, oidc.AuthRequest{RedirectURI: reg.RedirectURI, State: state, Nonce: randomCode(),
		Verifier: randomCode(), Prompt: "none"})
	var resp *http.Response
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		var ask *http.Request
		if ask, err = http.NewRequestWithContext(ctx, http.MethodGet, where, nil); err == nil {
			resp, err = p.Config().HTTPClient.Do(ask) // does not follow redirects
		}
	}
	if err != nil && pushFault(ctx, r, check, err, reg) {
		return
	}
	if err != nil {
		var broken *url.Error
		if errors.As(err, &broken) { // its text would repeat the whole URL
			err = broken.Err
		}
		r.unchecked(check, fmt.Sprintf("the authorization endpoint %s does not answer this machine: %v",
			m.AuthorizationEndpoint, err),
			"see that browsers reach it, and sign in to see")
		checkIss(ctx, r, p, m, nil)
		return
	}
	defer resp.Body.Close()
	answer := redirectParams(resp, reg.RedirectURI)
	switch status := resp.StatusCode; {
	case answer != nil:
		r.ok(check, "%s is registered", reg.RedirectURI)
		checkAnswer(r, reg, answer, state)
	case status == http.StatusUnauthorized || status == http.StatusForbidden ||
		status == http.StatusProxyAuthRequired ||
		status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status < 400 || status >= 500:
		r.unchecked(check, fmt.Sprintf(
			"the authorization endpoint answers %d, which does not say whether %s is registered",
			status, reg.RedirectURI), "register it, and sign in to see")
	default:
		r.fault(check, fmt.Sprintf("the authorization endpoint %s answers %d, and not at %s", m.AuthorizationEndpoint,
			status, reg.RedirectURI),
			"register exactly this redirect URI for the client "+reg.ClientID+
				", and see that there is such a client, and such an address")
	}
	checkIss(ctx, r, p, m, answer)
}

// redirectParams returns the parameters with which a response redirects to a redirect URI; nil if it does not.
func redirectParams(resp *http.Response, redirectURI string) url.Values {
	to, err := resp.Location()
	if err != nil {
		return nil
	}
	q := to.Query()
	to.RawQuery, to.ForceQuery, to.Fragment, to.RawFragment = "", false, "", ""
	if to.String() != redirectURI {
		return nil
	}
	return q
}

// checkAnswer checks an authorization response (RFC 6749 §4.1.2, §4.1.2.1).
func checkAnswer(r *report, reg curfew.Registration, answer url.Values, state string) {
	const check = "sign-in"
	said := fmt.Sprintf("the provider answers %+q", web.Clip(answer.Get("error")))
	if d := answer.Get("error_description"); d != "" {
		said += fmt.Sprintf(": %+q", web.Clip(d))
	}
	switch answer.Get("error") {
	case "", "login_required", "interaction_required", "consent_required", "account_selection_required":
	case "unauthorized_client", "invalid_client", "unsupported_response_type":
		r.fault(check, said, "allow the client "+reg.ClientID+" the authorization code flow at the provider")
	case "invalid_scope":
		r.fault(check, said, "allow the client "+reg.ClientID+
			" the scopes at the provider, or leave them out of scopes")
	default:
		r.warn(check, said, "sign in to see whether it does so to people too")
	}
	if answer.Get("state") != state {
		r.fault(check, "the provider does not send the state back as it came (RFC 6749 §4.1.2)",
			"nobody can sign in: mend the provider, or what is in front of it")
	}
}

// checkIss checks that a provider that promises the iss parameter sends it (RFC 9207 §2.4). Otherwise nobody can sign
// in.
func checkIss(ctx context.Context, r *report, p *oidc.Provider, m *oidc.Metadata, answer url.Values) {
	const check = "iss parameter"
	switch {
	case !m.IssParameter && (answer == nil || !answer.Has("iss")):
		r.ok(check, "not promised; each provider has a redirect URI of its own instead")
	case answer == nil:
		r.unchecked(check, "the provider promises it, and gave no answer that could hold it", "sign in to see")
	default:
		if err := p.CheckIssParameter(ctx, answer.Get("iss")); err != nil {
			r.fault(check, err.Error(), "nobody can sign in: have the provider send its issuer, or not promise to")
			return
		}
		r.ok(check, "sent, and right (RFC 9207)")
	}
}

// checkPrompt warns of prompt values that the provider does not offer: it may answer them with an error.
func checkPrompt(r *report, c oidc.Config, m *oidc.Metadata) {
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
func checkUserinfo(r *report, c oidc.Config, m *oidc.Metadata) {
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

// checkRevalidation checks that there is a way to ask whether sessions go on, and that the provider takes this client at
// its introspection endpoint: a token that it has never issued is not active there (RFC 7662 §2.2).
func checkRevalidation(ctx context.Context, r *report, p *oidc.Provider, m *oidc.Metadata) {
	const check = "revalidate"
	c := p.Config()
	if c.Revalidate == 0 {
		return
	}
	way, err := p.RevalidationWay(ctx, false)
	switch {
	case err != nil && c.ConfirmsByRefresh():
		r.warn(check, "only sessions with a refresh token can be asked about, by a refresh; the others end after "+
			"refresh_grace", "see that the provider gives this client refresh tokens, or set revalidate_by to what it "+
			"offers")
		return
	case err != nil:
		r.fault(check, err.Error(), "every session ends after refresh_grace: set revalidate_by to what the provider "+
			"offers, or leave out revalidate")
		return
	case way == oidc.ByIntrospection:
		err := p.Introspect(ctx, randomCode())
		switch {
		case err == nil:
			r.fault(check, "the introspection endpoint calls a token active that it has never issued",
				"see that "+m.IntrospectionEndpoint+" is the provider's, or set revalidate_by without introspection")
			return
		case !errors.Is(err, oidc.ErrInvalidToken):
			r.fault(check, err.Error(), "sessions about which it has to be asked end after refresh_grace: allow this "+
				"client to introspect tokens, or set revalidate_by without introspection")
			return
		}
	}
	if first, err := p.RevalidationWay(ctx, true); err == nil && first != way {
		way = first + ", or without a refresh token by " + way
	}
	r.ok(check, "about each session in use once in %s, by %s", c.Revalidate, way)
}

// checkBearer checks what can be known of the access tokens of a provider without one: that it has keys for their
// algorithms, and takes this client at its introspection endpoint.
func checkBearer(ctx context.Context, r *report, p *oidc.Provider, kind string, m *oidc.Metadata) {
	const check = "bearer"
	b := p.Config().Bearer
	if b == nil {
		return
	}
	keys, err := p.Keys(ctx)
	if err != nil {
		return // which is told by itself
	}
	for _, alg := range b.SigningAlgs {
		if !slices.ContainsFunc(keys, func(k oidc.KeyInfo) bool { return slices.Contains(k.For, alg) }) {
			r.fault(check, "the provider has no key for "+alg, "every access token is refused that is signed so: set "+
				"algorithms to what the provider signs access tokens with")
			return
		}
	}
	if b.Introspection {
		if m.IntrospectionEndpoint == "" {
			r.fault(check, "introspection is set, and the provider has no introspection_endpoint",
				"take introspection out, or have the provider offer it")
			return
		}
		if err := p.Introspect(ctx, randomCode()); !errors.Is(err, oidc.ErrInvalidToken) {
			what := "the introspection endpoint calls a token active that it has never issued"
			if err != nil {
				what = err.Error()
			}
			r.fault(check, what, "opaque access tokens cannot be checked: allow this client to introspect tokens, or take "+
				"introspection out of bearer")
			return
		}
	}
	if kind == "Keycloak" && b.Form == oidc.FormRFC9068 {
		r.warn(check, "this looks like Keycloak, whose access tokens are not typed at+jwt unless the client is set so",
			"set form: keycloak, or turn on the at+jwt header type at each client")
		return
	}
	r.ok(check, "access tokens for %s, signed with %s, in the form %s", strings.Join(b.Audiences, ", "),
		strings.Join(b.SigningAlgs, ", "), b.Form)
}

func checkScopes(r *report, c oidc.Config, kind string, m *oidc.Metadata) {
	if kind == "Keycloak" && slices.Contains(c.Scopes, "offline_access") {
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

func checkClock(r *report, m *oidc.Metadata) {
	if m.Date.IsZero() {
		r.unchecked("clock", "the provider does not tell its time",
			fmt.Sprintf("tokens are refused beyond a difference of %s: set both clocks by NTP", clockFault))
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
		r.fault("clock", "the provider's is "+words,
			fmt.Sprintf("tokens are refused beyond %s: set both clocks by NTP", clockFault))
	case d > clockWarning:
		r.warn("clock", "the provider's is "+words,
			fmt.Sprintf("tokens are refused beyond %s: set both clocks by NTP", clockFault))
	default:
		r.ok("clock", "the provider's is %s", words)
	}
}

// providerKind recognizes a provider by the form of its URLs, and returns "" for any other.
func providerKind(issuer string, m *oidc.Metadata) string {
	switch {
	case strings.Contains(issuer, "/realms/") && strings.Contains(m.AuthorizationEndpoint, "/protocol/openid-connect/"):
		return "Keycloak"
	case strings.Contains(issuer, "/application/o/"):
		return "authentik"
	case strings.HasSuffix(m.AuthorizationEndpoint, "/oauth2/auth") &&
		strings.HasSuffix(m.EndSessionEndpoint, "/oauth2/sessions/logout"):
		return "Ory Hydra"
	case strings.HasSuffix(m.AuthorizationEndpoint, "/oauth2/authorize") &&
		strings.HasSuffix(m.EndSessionEndpoint, "/oauth2/logout"):
		return "LemonLDAP::NG"
	}
	return knownKind(issuer, m)
}

// checkSubject says what cannot be seen from here: a mapper at Keycloak may change `sub` in ID Tokens alone.
func checkSubject(r *report, kind string) {
	if kind == "Keycloak" {
		r.unchecked("sub", "this looks like Keycloak, where a mapper (or pairwise subjects) that sets sub changes ID "+
			"Tokens and not logout tokens: those end sessions by sid, and one without a sid ends nobody",
			"keep \"Backchannel logout session required\" on; the log warns (logout_other_subject) when it is so")
	}
}

// checkRoles warns of claims that Keycloak puts into access tokens alone, which are not for us to read.
func checkRoles(r *report, kind string, claims []string) {
	if kind != "Keycloak" {
		return
	}
	for _, name := range claims {
		if root, _, _ := strings.Cut(name, "."); root == "realm_access" || root == "resource_access" {
			r.warn("claims", name+" is asked for here, and Keycloak puts "+root+" into the access token alone",
				"in the client scope roles, switch \"Add to ID token\" (or \"Add to userinfo\") on for its mapper, or "+
					"nobody has these roles here")
			return
		}
	}
}

// checkQuirks reports the quirks in force, and those that this kind of provider is known to need.
func checkQuirks(r *report, c oidc.Config, kind string) {
	q := config.Quirks(c.Quirks)
	byDefault := "logout_token_signed_response_alg: " + c.SigningAlg
	q = slices.DeleteFunc(q, func(s string) bool { return s == byDefault })
	if len(q) > 0 {
		r.ok("quirks", "in force: %s", strings.Join(q, ", "))
	}
	if kind == "" {
		r.unchecked("logout tokens", "no provider says what its logout tokens look like, and some need a setting, such "+
			"as allow_missing_exp", "sign out at the provider: if a setting is missing the log names it "+
			"(logout_setting_needed), and so does /readyz?detail until a logout succeeds")
	}
	switch {
	case kind == "Ory Hydra" && !c.Quirks.AllowMissingExp:
		r.warn("quirks", "this looks like Ory Hydra, whose logout tokens have no exp",
			"set allow_missing_exp: true, or each of its logouts is refused")
	case kind == "Glewlwyd" && !c.Quirks.AllowMissingExp:
		r.warn("quirks", "this looks like Glewlwyd, whose logout tokens have no exp",
			"set allow_missing_exp: true, or each of its logouts is refused")
	case kind == "Ory Hydra" && c.Quirks.RequireTyp:
		r.warn("quirks", "this looks like Ory Hydra, whose logout tokens have the typ JWT",
			"leave out require_typ, or each of its logouts is refused")
	case kind == "Keycloak" && c.Encryption != nil && !c.Quirks.PlainLogoutTokens:
		r.warn("quirks",
			"this looks like Keycloak, which never encrypts logout tokens, and ID Tokens are encrypted here",
			"set allow_unencrypted_logout_tokens: true, or each of its logouts is refused")
	case kind == "Keycloak" && c.Quirks.SIDFromTokenResponse:
		r.ok("quirks", "this looks like Keycloak, whose ID Tokens have a sid: sid_from_token_response is for releases "+
			"that leave it out, and does no harm")
	case kind == "Keycloak" && !c.Quirks.AllowMissingExp:
		r.ok("quirks",
			"this looks like Keycloak: up to 23.0.3 it needs allow_missing_exp: true; newer ones need nothing")
	case kind == "LemonLDAP::NG" && !c.Quirks.AllowMissingExp:
		r.warn("quirks", "this looks like LemonLDAP::NG, whose logout tokens have no exp",
			"set allow_missing_exp: true, or each of its logouts is refused")
	case kind == "authentik" && !c.Quirks.AllowMissingExp:
		r.ok("quirks", "this looks like authentik: older ones need allow_missing_exp: true")
	}
}
