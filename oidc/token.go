package oidc

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Tokens is what the token endpoint answered. It prints as "[tokens]".
type Tokens struct {
	IDToken      string // not verified yet
	AccessToken  string
	RefreshToken string
	Expires      time.Time // of the access token; as configured when not said
	Scopes       []string  // granted; as asked when not said
	SessionState string    // session_state, for the quirk
	// DPoPKey is the private key that the tokens are bound to (RFC 9449); nil when they are bound to none. Keep it as
	// secret as the tokens, and give it back with them.
	DPoPKey []byte
}

func (Tokens) String() string       { return "[tokens]" }
func (Tokens) GoString() string     { return "[tokens]" }
func (Tokens) LogValue() slog.Value { return slog.StringValue("[tokens]") }

// Exchange turns a code into tokens (Core §3.1.3). It always holds an ID Token, which is not verified yet.
// [ErrInvalidGrant] when the provider does not take the code, [ErrUnavailable] when it cannot be asked, else an
// [Error].
func (p *Provider) Exchange(ctx context.Context, code, verifier, redirectURI string) (*Tokens, error) {
	t, err := p.grant(ctx, url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {code},
		"code_verifier": {verifier},
		"redirect_uri":  {redirectURI},
	}, nil, p.cfg.Now())
	if err != nil {
		return nil, err
	}
	if t.IDToken == "" {
		return nil, failed("token_response",
			"the provider sent no ID Token; is the scope openid granted to this client?")
	}
	return t, nil
}

// Refresh asks for new tokens (RFC 6749 §6, Core §12). Without a new refresh token the old one is kept. A new ID
// Token is verified, and must speak of the same issuer, subject and client as before (Core §12.2); nil when none came.
// Of before only Issuer, ClientID, Subject and SID are read. dpopKey is the key that came with the refresh token, if
// one did.
//
// [ErrInvalidGrant] when the provider refuses the refresh token for good, in the form of RFC 6749 §5.2, and
// [ErrOtherPerson] when a new ID Token is of somebody else: these two are final. [ErrUnavailable] when it cannot be
// asked; an [Error] when what it sent is wrong, or it refuses for another reason: both may pass.
//
// When new tokens came, but something is wrong with the response or its ID Token, what there is of them is returned
// beside the error: the provider may have spent the old refresh token. They must not be used as they are, but they can
// be revoked. If an ID Token that is refused has another sid than before, that SID is returned too, and nothing else of
// it: the provider may name the session by it.
func (p *Provider) Refresh(
	ctx context.Context, refreshToken string, dpopKey []byte, before IDToken, now time.Time,
) (*Tokens, *IDToken, error) {
	t, err := p.grant(ctx, url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {refreshToken},
	}, dpopKey, now)
	if err != nil {
		return t, nil, err
	}
	if t.RefreshToken == "" {
		t.RefreshToken = refreshToken
	}
	if t.IDToken == "" {
		return t, nil, nil
	}
	id, err := p.VerifyIDToken(ctx, t.IDToken, Expect{NoNonce: true, AccessToken: t.AccessToken}, now)
	check, sid := p.otherThan(ctx, t.IDToken, before)
	switch {
	case check != "":
		return t, nil, failed(check, "%w", ErrOtherPerson)
	case err != nil && sid != "":
		return t, &IDToken{SID: sid}, err
	case err != nil:
		return t, nil, err
	}
	return t, id, nil
}

// otherThan returns the claim by which an ID Token that the provider has signed is of somebody else than before, or "";
// otherwise its sid, if that is another one. A token that is not signed, or does not say, is no word of the provider's
// about a person. For one more name of the session it is enough that it came from the token endpoint.
func (p *Provider) otherThan(ctx context.Context, raw string, before IDToken) (check, sid string) {
	t, err := p.openToken(raw, true)
	if err != nil {
		return "", ""
	}
	c, err := decodeObject(t.payload)
	if err != nil {
		return "", ""
	}
	if sub, err := c.text("sub", maxSub); err == nil && sub != before.Subject {
		check = "sub"
	}
	if aud, err := c.audience(); err == nil && !slices.Contains(aud, before.ClientID) {
		check = "aud"
	}
	if iss, _ := c["iss"].(string); iss != "" && iss != before.Issuer {
		check = "iss"
	}
	if check == "" {
		if sid, err = c.text("sid", maxSID); err != nil || sid == before.SID {
			sid = ""
		}
		return "", sid
	}
	iat, _ := c.time("iat")
	if canonicalAlg(t.header.alg) != p.alg.name || p.keys.verify(ctx, t, p.alg, iat, p.keys.provider) != nil {
		return "", ""
	}
	return check, ""
}

// IDTokenClaims returns the claims of an ID Token that was verified when it came. Nothing is checked.
func (p *Provider) IDTokenClaims(raw string) (map[string]any, error) {
	t, err := p.openToken(raw, false)
	if err != nil {
		if t, err = p.openToken(raw, true); err != nil { // it was kept encrypted
			return nil, err
		}
	}
	c, err := decodeObject(t.payload)
	if err != nil {
		return nil, failed("json", "the payload is %w", err)
	}
	return c.plain(), nil
}

// grant asks the token endpoint (RFC 6749 §5). dpopKey is the key that the tokens are bound to already. Tokens beside
// an error are those of a response that is refused.
func (p *Provider) grant(ctx context.Context, form url.Values, dpopKey []byte, now time.Time,
) (*Tokens, error) {
	key, err := p.dpopFor(dpopKey)
	if err != nil {
		return nil, err
	}
	m, err := p.meta.get(ctx)
	if err != nil {
		return nil, err
	}
	t, err := func() (*Tokens, error) {
		a, err := p.postWith(ctx, m.TokenEndpoint, form, key)
		if err != nil {
			return nil, err
		}
		if a.status != http.StatusOK {
			return nil, p.refused(a)
		}
		p.clientTaken()
		return p.parseTokens(a.body, key != nil, now)
	}()
	p.reportToken(err)
	if t != nil {
		t.DPoPKey = key.bytes()
	}
	return t, err
}

// refused says what it means that the token endpoint gave no tokens.
func (p *Provider) refused(a *answer) error {
	code, sentence := a.oauthError()
	if code == "invalid_grant" && a.status == http.StatusBadRequest && a.media == "application/json" {
		p.clientTaken()
		return fmt.Errorf("%w: %w", ErrInvalidGrant, &Refusal{Status: a.status, Code: code, sentence: sentence})
	}
	return p.refusedAt("token_response", "the token endpoint", a)
}

// refusedAt says what it means that an endpoint did not do as it was asked. check names it in an [Error].
func (p *Provider) refusedAt(check, endpoint string, a *answer) error {
	code, sentence := a.oauthError()
	r := &Refusal{Status: a.status, Code: code, sentence: sentence}
	switch {
	case code == "temporarily_unavailable" || code == "server_error" || a.status < 400:
		return unavailable("%s: %w", endpoint, r)
	// Keycloak answers a wrong secret with 401 and unauthorized_client. A 401 about the grant says nothing of the
	// client.
	case code == "invalid_client" || a.status == http.StatusUnauthorized && code != "invalid_grant":
		p.clientRefused(r)
		return failed(check, "%w: %w: check client_id, %s and token_endpoint_auth_method (it is %s here)",
			ErrInvalidClient, r, p.cfg.credential(), p.cfg.AuthMethod)
	}
	if code == "unauthorized_client" {
		return failed(check, "%w: see that the client may use this grant, and that client_id, %s and "+
			"token_endpoint_auth_method (it is %s here) are right: some providers answer a wrong secret so", r,
			p.cfg.credential(), p.cfg.AuthMethod)
	}
	return failed(check, "%w", r)
}

// clientRefused warns that the token endpoint does not take this client: once, until it does or gives another error.
// What it describes the error with may be another text each time.
func (p *Provider) clientRefused(r *Refusal) {
	why := fmt.Sprintf("%d %s", r.Status, r.Code)
	if before := p.barred.Swap(&why); before != nil && *before == why {
		return
	}
	p.cfg.Log.Warn("the provider does not take this client's credentials: nobody can sign in there, and no session "+
		"is refreshed. See that client_id, "+p.cfg.credential()+" and token_endpoint_auth_method are what the provider "+
		"has",
		"event", "oidc.client.refused", "provider", p.cfg.Name, "client_id", p.cfg.ClientID,
		"token_endpoint_auth_method", p.cfg.AuthMethod, "error", r.Error())
}

func (p *Provider) clientTaken() {
	if p.barred.Load() != nil && p.barred.Swap(nil) != nil {
		p.cfg.Log.Info("the provider takes this client's credentials again", "event", "oidc.client.taken",
			"provider", p.cfg.Name)
	}
}

func (p *Provider) parseTokens(body []byte, bound bool, now time.Time) (*Tokens, error) {
	c, err := decodeObject(body)
	if err != nil {
		// The words of the decoder might be a piece of a token.
		return nil, unavailable("%w", &Refusal{Status: http.StatusOK,
			sentence: "the token endpoint answered 200, and not with a JSON object whose names are there once"})
	}
	var t Tokens
	var wrong error
	for name, to := range map[string]*string{
		"id_token": &t.IDToken, "access_token": &t.AccessToken, "refresh_token": &t.RefreshToken,
	} {
		s, ok := c[name].(string)
		if c[name] != nil && !ok {
			wrong = failed("token_response", "`%s` is not a string", name)
		}
		*to = s
	}
	if wrong != nil {
		return &t, wrong
	}
	if t.AccessToken == "" {
		return &t, failed("token_response", "`access_token` is missing")
	}
	t.SessionState, _ = c["session_state"].(string) // no standard's: whatever else is there is as good as absent
	typ, _ := c["token_type"].(string)
	switch absent := c["token_type"] == nil || c["token_type"] == ""; {
	case bound && !strings.EqualFold(typ, "DPoP"): // RFC 9449 §5
		return &t, failed("token_response", "`token_type` is not DPoP: the provider did not bind the tokens to the "+
			"key of the session (see `dpop`)")
	case !bound && !absent && !strings.EqualFold(typ, "Bearer"):
		return &t, failed("token_response", "`token_type` is not Bearer")
	}
	var seconds string
	switch v := c["expires_in"].(type) {
	case number:
		seconds = string(v)
	case string: // as some providers send it
		seconds = v
	}
	t.Expires = now.Add(p.cfg.AccessTokenLifetime)
	if n, err := strconv.ParseFloat(seconds, 64); err == nil && n > 0 && n <= 10*365*24*3600 {
		t.Expires = now.Add(time.Duration(n * float64(time.Second)))
	}
	t.Scopes = slices.Clone(p.cfg.Scopes)
	if s, ok := c["scope"].(string); ok && s != "" {
		t.Scopes = strings.Fields(s)
	}
	return &t, nil
}

// Revoke has the provider forget a token (RFC 7009 §2). hint is "refresh_token", "access_token" or empty. Nil also
// when the provider does not know the token (§2.2). [ErrUnavailable] means that the token may still live: try again.
// [ErrUnsupported] when there is no such endpoint, [ErrUnsupportedTokenType] when it does not take tokens of this kind,
// else an [Error].
func (p *Provider) Revoke(ctx context.Context, token, hint string) error {
	m, err := p.meta.get(ctx)
	if err != nil {
		return err
	}
	if m.RevocationEndpoint == "" {
		return ErrUnsupported
	}
	form := url.Values{"token": {token}}
	if hint != "" {
		form.Set("token_type_hint", hint)
	}
	a, err := p.post(ctx, m.RevocationEndpoint, form)
	if err != nil {
		return err
	}
	if a.status == http.StatusOK || a.status == http.StatusNoContent {
		return nil
	}
	code, sentence := a.oauthError()
	switch {
	case code == "invalid_token":
		return nil
	case code == "unsupported_token_type":
		return ErrUnsupportedTokenType
	case a.status < 400:
		return unavailable("the revocation endpoint: %s", sentence)
	}
	return failed("revocation", "%s", sentence)
}
