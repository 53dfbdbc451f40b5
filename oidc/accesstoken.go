package oidc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
)

// The forms of access tokens that are JWTs.
const (
	FormRFC9068  = "rfc9068"  // RFC 9068: `typ` is at+jwt
	FormKeycloak = "keycloak" // Keycloak: the claim `typ` is Bearer or DPoP
	FormEntra    = "entra"    // Microsoft Entra ID, versions 1.0 and 2.0: there is `appid` or `azp`, and `ver`
)

// Bearer says which access tokens of a provider are taken from clients that send them in the Authorization header.
type Bearer struct {
	// Issuer is `iss` of access tokens; default: the provider's Issuer. Access tokens of version 1.0 of Microsoft Entra ID
	// have another one.
	Issuer string
	// Audiences are names of the apps here as a resource. `aud` of a token must have one of them (RFC 9068 §4).
	Audiences []string
	// SigningAlgs are the algorithms that a token may be signed with; default: [Config.SigningAlg].
	SigningAlgs []string
	Form        string // [FormRFC9068] (the default), [FormKeycloak] or [FormEntra]
	// Introspection has tokens that are no JWTs checked by the provider (RFC 7662). One provider may have it, since such a
	// token does not say whose it is.
	Introspection bool
}

// AccessToken is a verified access token. It does not hold the token itself.
type AccessToken struct {
	Provider *Provider
	Subject  string
	SID      string // empty when there is none
	Client   string // that it was issued to; empty when the token does not say
	IssuedAt time.Time
	Expiry   time.Time
	// JKT is the thumbprint of the DPoP key that it is bound to (RFC 9449 §6), CertificateHash that of a certificate (RFC
	// 8705 §3.1); empty when it is not bound so.
	JKT, CertificateHash string
	Opaque               bool           // the provider was asked about it
	Claims               map[string]any // all of them; numbers are json.Number
}

const maxClient = 1024 // bytes

// withBearer fills in what was left empty, in a copy.
func (c *Config) withBearer() {
	if c.Bearer == nil {
		return
	}
	b := *c.Bearer
	b.Issuer = cmp.Or(b.Issuer, c.Issuer)
	b.Form = cmp.Or(b.Form, FormRFC9068)
	if len(b.SigningAlgs) == 0 {
		b.SigningAlgs = []string{c.SigningAlg}
	}
	b.SigningAlgs = slices.Clone(b.SigningAlgs)
	for i, a := range b.SigningAlgs {
		b.SigningAlgs[i] = canonicalAlg(a)
	}
	c.Bearer = &b
}

func (c *Config) validateBearer(fault func(format string, args ...any)) {
	b := c.Bearer
	if b == nil {
		return
	}
	if len(b.Audiences) == 0 {
		fault("bearer: audiences is missing: name this resource as the provider does in `aud` of access tokens")
	}
	for _, a := range b.Audiences {
		if a == "" || strings.ContainsFunc(a, unicode.IsControl) {
			fault("bearer: audiences: %s is empty or holds a control character", quote(a))
		}
	}
	for _, a := range b.SigningAlgs {
		if _, err := findAlgorithm(a); err != nil {
			fault("bearer: algorithms: %w", err)
		}
	}
	if !slices.Contains([]string{FormRFC9068, FormKeycloak, FormEntra}, b.Form) {
		fault("bearer: form %s: it is rfc9068, keycloak or entra", quote(b.Form))
	}
	if b.Introspection && c.AuthMethod == AuthNone {
		fault("bearer: introspection needs a client that authenticates, with a secret, a key or a certificate " +
			"(RFC 7662 §2.1)")
	}
}

// VerifyAccessToken verifies an access token that a client sent: a JWT (RFC 9068 §4, or the older form of
// [Bearer.Form]) with the keys of the provider, or any other by asking the one that has [Bearer.Introspection] (RFC
// 7662). Of the providers those without a [Config.Bearer] are not looked at. A token that lives longer than lifetime is
// refused.
//
// The signature is checked last, so that no key is fetched for a token that could not pass. The error is an [Error],
// which is final, or an [ErrUnavailable].
func VerifyAccessToken(ctx context.Context, providers []*Provider, raw string, lifetime time.Duration,
	now time.Time) (*AccessToken, error) {
	parts := strings.Split(raw, ".")
	if len(raw) > maxToken {
		return nil, failed("shape", "the token has %d bytes, more than %d", len(raw), maxToken)
	}
	if looksLikeJWT(parts) {
		return verifyJWTAccessToken(ctx, providers, parts, raw, lifetime, now)
	}
	for _, p := range providers {
		if b := p.cfg.Bearer; b != nil && b.Introspection {
			return p.introspectAccessToken(ctx, raw, lifetime, now)
		}
	}
	return nil, failed("shape", "it is no JWT, and no provider is to be asked about other tokens "+
		"(bearer: introspection)")
}

// looksLikeJWT reports whether a token is a JWS or a JWE: its first part is a JSON object. Whatever else it is, it is
// not sent to a provider then.
func looksLikeJWT(parts []string) bool {
	if len(parts) != 3 && len(parts) != 5 {
		return false
	}
	return strings.HasPrefix(parts[0], "ey") // `{"` in base64url
}

func verifyJWTAccessToken(ctx context.Context, providers []*Provider, parts []string, raw string,
	lifetime time.Duration, now time.Time) (*AccessToken, error) {
	if len(parts) == 5 {
		return nil, failed("jwe", "the token is encrypted, which is not taken here")
	}
	t, err := parseSigned(parts, raw)
	if err != nil {
		return nil, err
	}
	c, err := decodeObject(t.payload)
	if err != nil {
		return nil, failed("json", "the payload is %w", err)
	}
	p, err := accessTokenProvider(providers, c)
	if err != nil {
		return nil, err
	}
	b := p.cfg.Bearer
	alg := canonicalAlg(t.header.alg)
	if !slices.Contains(b.SigningAlgs, alg) {
		return nil, failed("alg", "the token is signed with %s; taken are %s (bearer: algorithms)", quote(t.header.alg),
			quoteAll(b.SigningAlgs))
	}
	if err := b.checkForm(t, c); err != nil {
		return nil, err
	}
	a, err := p.readAccessToken(c, lifetime, now)
	if err != nil {
		return nil, err
	}
	with, err := findAlgorithm(alg)
	if err != nil {
		return nil, failed("alg", "%w", err)
	}
	if err := p.keys.verify(ctx, t, with, a.IssuedAt, p.keys.clients); err != nil {
		return nil, err
	}
	a.Claims = c.plain()
	return a, nil
}

// accessTokenProvider returns the provider whose token it is: by its issuer, and of several clients at one issuer by
// its audience.
func accessTokenProvider(providers []*Provider, c claims) (*Provider, error) {
	iss, _ := c["iss"].(string)
	var of []*Provider
	for _, p := range providers {
		if b := p.cfg.Bearer; b != nil && iss != "" && iss == b.Issuer {
			of = append(of, p)
		}
	}
	if len(of) == 0 {
		return nil, failed("iss", "access tokens of %s are not taken", quote(iss))
	}
	err := error(nil)
	for _, p := range of {
		if err = p.cfg.Bearer.checkAudience(c); err == nil {
			return p, nil
		}
	}
	return nil, err
}

func (b *Bearer) checkAudience(c claims) error {
	aud, err := c.audience()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(aud, func(a string) bool { return slices.Contains(b.Audiences, a) }) {
		return failed("aud", "the token is for %s; taken are those for %s (bearer: audiences)", quoteAll(aud),
			quoteAll(b.Audiences))
	}
	return nil
}

// checkForm refuses tokens of the issuer that are no access tokens: ID Tokens, logout tokens, refresh tokens (RFC 8725
// §3.12).
func (b *Bearer) checkForm(t *signed, c claims) error {
	if c["events"] != nil {
		return failed("events", "this is a logout token, or another event, and no access token")
	}
	typ := mediaType(t.header.typ)
	if b.Form == FormRFC9068 {
		if typ != "at+jwt" { // §4
			return failed("typ", "%s is not the type of an access token, at+jwt (if the provider does not write it, set "+
				"bearer: form)", quote(t.header.typ))
		}
		for _, name := range []string{"client_id", "jti"} { // §2.2
			if _, err := c.text(name, maxJTI); err != nil {
				return err
			}
		}
		return nil
	}
	if t.header.hasTyp && typ != "jwt" && typ != "at+jwt" {
		return failed("typ", "%s is not the type of an access token", quote(t.header.typ))
	}
	for _, name := range []string{"nonce", "at_hash", "c_hash"} { // of ID Tokens
		if c.has(name) {
			return failed("typ", "the token has `%s`: it is an ID Token", name)
		}
	}
	switch b.Form {
	case FormKeycloak:
		if kind, _ := c["typ"].(string); kind != "Bearer" && kind != "DPoP" {
			return failed("typ", "the claim `typ` is not Bearer or DPoP: it is no access token of Keycloak")
		}
	case FormEntra:
		if ver := c["ver"]; ver != "1.0" && ver != "2.0" || !c.has("appid") && !c.has("azp") {
			return failed("typ", "`ver` is not 1.0 or 2.0, or `appid` and `azp` are missing: it is no access token of "+
				"Microsoft Entra ID")
		}
	}
	return nil
}

// readAccessToken checks the times and names of an access token, and returns what they are.
func (p *Provider) readAccessToken(c claims, lifetime time.Duration, now time.Time) (a *AccessToken, err error) {
	a = &AccessToken{Provider: p}
	if a.Expiry, err = c.time("exp"); err != nil {
		return nil, err
	}
	if a.IssuedAt, err = c.time("iat"); err != nil {
		return nil, err
	}
	switch {
	case !now.Before(a.Expiry):
		return nil, failed("exp", "the token ran out at %v, and it is %v", a.Expiry.UTC(), now.UTC())
	case a.IssuedAt.After(now.Add(skew)):
		return nil, failed("iat", "the token is of %v, and it is %v; do the clocks agree?", a.IssuedAt.UTC(), now.UTC())
	case a.Expiry.Sub(a.IssuedAt) > lifetime:
		return nil, failed("exp", "the token is valid for %v, longer than %v (have the provider issue shorter ones, or set "+
			"bearer_lifetime)", a.Expiry.Sub(a.IssuedAt), lifetime)
	}
	if c.has("nbf") {
		if nbf, err := c.time("nbf"); err != nil {
			return nil, err
		} else if nbf.After(now.Add(skew)) {
			return nil, failed("nbf", "the token is not valid before %v, and it is %v", nbf.UTC(), now.UTC())
		}
	}
	if a.Subject, err = c.text("sub", maxSub); err != nil {
		return nil, err
	}
	for name, field := range map[string]*string{"sid": &a.SID, "session_state": nil} {
		if !c.has(name) {
			continue
		}
		text, err := c.text(name, maxSID)
		switch {
		case err != nil:
			return nil, err
		case field != nil:
			*field = text
		case p.cfg.Bearer.Form == FormKeycloak && !c.has("sid"): // Keycloak before version 25
			a.SID = text
		}
	}
	for _, name := range []string{"client_id", "azp", "appid"} {
		if c.has(name) {
			if a.Client, err = c.text(name, maxClient); err != nil {
				return nil, err
			}
			break
		}
	}
	if err := c.checkScopes(); err != nil {
		return nil, err
	}
	return a, a.readBinding(c)
}

// checkScopes checks `scope` (RFC 9068 §2.2.3), which Entra calls `scp`: names with spaces between, or a list of them.
func (c claims) checkScopes() error {
	for _, name := range []string{"scope", "scp"} {
		switch v := c[name].(type) {
		case nil:
		case string:
			return nil
		case []any:
			for _, e := range v {
				if _, ok := e.(string); !ok {
					return failed("scope", "`%s` holds something that is not a string", name)
				}
			}
			return nil
		default:
			return failed("scope", "`%s` is neither a string nor a list", name)
		}
	}
	return nil
}

// readBinding reads `cnf` (RFC 7800 §3). A way to confirm a token that is not known here is refused: to ignore it
// would take the token from whoever has it.
func (a *AccessToken) readBinding(c claims) error {
	if c["cnf"] == nil {
		return nil
	}
	cnf, ok := c["cnf"].(map[string]any)
	if !ok || len(cnf) == 0 {
		return failed("cnf", "`cnf` is not an object with a way to confirm the token")
	}
	for name, v := range cnf {
		text, isText := v.(string)
		switch {
		case !isText || len(text) != 43: // SHA-256 in base64url
			return failed("cnf", "%s in `cnf` is not a thumbprint", quote(name))
		case name == "jkt":
			a.JKT = text
		case name == "x5t#S256":
			a.CertificateHash = text
		default:
			return failed("cnf", "the token is bound by %s, which is not known here", quote(name))
		}
	}
	return nil
}

// introspectAccessToken asks the provider about a token (RFC 7662). Its answer is held against the same as a JWT:
// `active` alone says neither for whom the token is, nor that it is an access token.
func (p *Provider) introspectAccessToken(ctx context.Context, raw string, lifetime time.Duration,
	now time.Time) (*AccessToken, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	case <-ctx.Done():
		return nil, unavailable("too many tokens are being asked about: %w", ctx.Err())
	}
	c, err := p.introspect(ctx, raw)
	switch {
	case errors.Is(err, ErrUnsupported):
		return nil, unavailable("%w: introspection is set, and the provider's metadata has no introspection_endpoint", err)
	case err != nil:
		return nil, err
	}
	b := p.cfg.Bearer
	if iss := c["iss"]; iss != nil && iss != b.Issuer && iss != p.cfg.Issuer {
		return nil, failed("iss", "the answer of the introspection is about a token of another issuer")
	}
	for name, kinds := range map[string][]string{
		"token_type": {"bearer", "dpop"}, "typ": {"bearer", "dpop", "at+jwt", "access_token"},
		"token_use": {"access_token", "access"},
	} {
		if v := c[name]; v != nil {
			if kind, _ := v.(string); !slices.Contains(kinds, strings.ToLower(kind)) {
				return nil, failed("typ", "the introspection says of the token that its `%s` is not that of an access token",
					name)
			}
		}
	}
	if err := b.checkAudience(c); err != nil {
		return nil, err
	}
	if !c.has("sub") && c.has("client_id") { // nobody but the client stands behind it (RFC 9068 §2.2)
		c["sub"] = c["client_id"]
	}
	if !c.has("iat") && c.has("exp") { // it may be as old as a token can be
		exp, err := c.time("exp")
		if err != nil {
			return nil, err
		}
		issued := exp.Add(-lifetime)
		if issued.After(now) {
			return nil, failed("exp", "the token is valid for longer than %v (bearer_lifetime)", lifetime)
		}
		c["iat"] = number(fmt.Sprint(issued.Unix()))
	}
	a, err := p.readAccessToken(c, lifetime, now)
	if err != nil {
		return nil, err
	}
	a.Opaque, a.Claims = true, c.plain()
	return a, nil
}

const askAtOnce = 32 // tokens that a provider is asked about at one time

// introspect asks whether an access token is active, and returns the answer if it is.
func (p *Provider) introspect(ctx context.Context, accessToken string) (claims, error) {
	m, err := p.meta.get(ctx)
	if err != nil {
		return nil, err
	}
	if m.IntrospectionEndpoint == "" {
		return nil, ErrUnsupported
	}
	a, err := p.post(ctx, m.IntrospectionEndpoint, url.Values{
		"token": {accessToken}, "token_type_hint": {"access_token"},
	})
	switch {
	case err != nil:
		return nil, err
	case a.status >= 400: // which says nothing of the token (RFC 7662 §2.3)
		_, sentence := a.oauthError()
		return nil, unavailable("the introspection endpoint: %s: allow this client to ask there, or set "+
			"revalidate_by without introspection, and take it out of bearer", sentence)
	case a.status != http.StatusOK:
		return nil, unavailable("the introspection endpoint: %s", a.describe())
	}
	c, err := decodeObject(a.body)
	active, isBool := c["active"].(bool)
	switch {
	case err != nil || !isBool:
		return nil, unavailable("the introspection endpoint answered 200, and not with a JSON object that says `active`")
	case !active:
		return nil, failed("introspection", "%w", ErrInvalidToken)
	}
	return c, nil
}

// KeysSeen returns a number that changes whenever the provider's keys have been fetched. A caller that keeps the
// outcome of a verification makes it anew then, since a key may have been withdrawn.
func (p *Provider) KeysSeen() int {
	if d := p.keys.docs.peek(); d != nil {
		return d.number
	}
	return 0
}
