package check

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
	"example.com/curfew/oidc"
	"example.com/curfew/web"
)

// randomCode returns a code, verifier, secret or ID that no provider has issued.
func randomCode() string { return rand.Text() + rand.Text() }

// checkClient sends an invalid code to the token endpoint. Providers that authenticate the client first, as all known
// ones do, refuse the code if the client is right, and otherwise the client (RFC 6749 §5.2). To be sure of that, a
// second request is sent as an unknown client: if the answer is the same, it says nothing about the client.
func checkClient(ctx context.Context, r *Report, p *oidc.Provider, m *oidc.Metadata, reg curfew.Registration) {
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

// checkRedirectURI requests a sign-in without user interaction (Core §3.1.2.1, prompt=none). If the redirect URI is
// registered, a provider redirects there, which is not followed. If not, it shows a page of its own (RFC 6749
// §4.1.2.1).
func checkRedirectURI(ctx context.Context, r *Report, p *oidc.Provider, m *oidc.Metadata, reg curfew.Registration) {
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
func checkAnswer(r *Report, reg curfew.Registration, answer url.Values, state string) {
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
func checkIss(ctx context.Context, r *Report, p *oidc.Provider, m *oidc.Metadata, answer url.Values) {
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

// checkRevalidation checks that there is a way to ask whether sessions go on, and that the provider takes this client
// at its introspection endpoint: a token that it has never issued is not active there (RFC 7662 §2.2).
func checkRevalidation(ctx context.Context, r *Report, p *oidc.Provider, m *oidc.Metadata) {
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
func checkBearer(ctx context.Context, r *Report, p *oidc.Provider, k kind, m *oidc.Metadata) {
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
	if k.name == keycloak && b.Form == oidc.FormRFC9068 {
		r.warn(check, "this looks like Keycloak, whose access tokens are not typed at+jwt unless the client is set so",
			"set form: keycloak, or turn on the at+jwt header type at each client")
		return
	}
	r.ok(check, "access tokens for %s, signed with %s, in the form %s", strings.Join(b.Audiences, ", "),
		strings.Join(b.SigningAlgs, ", "), b.Form)
}

// asUnknownClient returns the configuration of a client that the provider cannot know.
func asUnknownClient(c oidc.Config) oidc.Config {
	switch c.AuthMethod {
	case oidc.AuthBasic, oidc.AuthPost, oidc.AuthSecretJWT:
		c.ClientSecret = randomCode() + randomCode()
	default:
		c.ClientID = randomCode()
	}
	return c
}

// inTheQuery returns a provider like p that is asked to answer in the query of a redirect, whose parameters can be read
// here.
func inTheQuery(p *oidc.Provider) (*oidc.Provider, error) {
	c := p.Config()
	if c.ResponseMode == oidc.ModeQuery {
		return p, nil
	}
	c.ResponseMode, c.ResponseSigningAlg, c.ResponseEncryption = oidc.ModeQuery, "", nil
	return oidc.New(c)
}

// pushFault says what to do when a pushed request was refused; false when the error is of another kind.
func pushFault(ctx context.Context, r *Report, check string, err error, reg curfew.Registration) bool {
	e, ok := errors.AsType[*oidc.Error](err)
	if !ok || e.Check != "par" || ctx.Err() != nil {
		return false
	}
	r.fault(check, "the provider refuses a pushed request: "+err.Error(),
		"see that "+reg.RedirectURI+" is registered for the client "+reg.ClientID+", and that it may push requests")
	return true
}
