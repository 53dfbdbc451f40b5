package oidc

import (
	"context"
	"slices"
	"time"
)

const (
	// backchannelEvent is the member of `events` that makes a token a logout token (Back-Channel Logout §2.4).
	backchannelEvent = "http://schemas.openid.net/event/backchannel-logout"

	// longest is the most that may lie between `iat` and `exp`: a slow provider's logout is still a logout, and the jti
	// is remembered for as long.
	longest = 24 * time.Hour
	// withoutExp is how old a token without `exp` may be, where a quirk allows it.
	withoutExp = 10 * time.Minute
	maxJTI     = 1024 // bytes
)

// LogoutToken is a verified logout token (Back-Channel Logout §2.4).
type LogoutToken struct {
	Provider *Provider
	Others   []*Provider // of the same issuer, whose clients are in `aud` as well; seldom any
	Issuer   string
	ClientID string
	Subject  string // may be empty, then SID is not
	SID      string
	JTI      string
	IssuedAt time.Time
	Expiry   time.Time // zero only with AllowMissingExp
	// Remember is until when the jti must be refused: Expiry (or what stands in for it) plus the skew.
	Remember time.Time
	// RevokeOffline is Keycloak's `revoke_offline_access: true`: refresh tokens for offline use are to be revoked too.
	RevokeOffline bool
}

// VerifyLogoutToken verifies a logout token of one of the providers (Back-Channel Logout §2.6 steps 1 to 7; the
// eighth, the jti, is the store's). Its steps are logoutChecks, in that order: what costs nothing first, the signature
// last, and no key is fetched for a token that could not pass.
//
// Two providers may share an issuer with different clients. A token for both is judged by what is registered for the
// one that comes first, and names those of the others whose registration it meets too.
//
// The error is an [Error], which is final, or an [ErrUnavailable]: the keys could not be had, and the token may be
// presented again.
func VerifyLogoutToken(ctx context.Context, providers []*Provider, raw string, now time.Time) (*LogoutToken, error) {
	v := &logoutVerification{candidates: providers, raw: raw, now: now}
	checks := logoutChecks()
	for i := range checks {
		if err := checks[i].run(v, ctx); err != nil {
			if v.lacksExp && v.passesOtherwise(ctx, checks[i+1:]) {
				err = v.missingExpHint()
			}
			if check, ok := err.(*Error); ok {
				check.Provider, check.Settings = neededSettings(ctx, providers, check.Check, raw, now)
			}
			return nil, err
		}
	}
	return &v.token, nil
}

// logoutVerification is a logout token on its way through the checks.
type logoutVerification struct {
	raw  string
	now  time.Time
	once bool // judged by the keys of today, and never held for those of tomorrow
	// known: judged by the keys that are in the cache
	known bool

	candidates []*Provider // those that it may come from
	parts      []string
	encrypted  bool
	signed     *signed
	claims     claims
	lacksExp   bool // it has no `exp`, and was refused for that
	token      LogoutToken
}

func (v *logoutVerification) checkShape(context.Context) (err error) {
	v.parts, err = splitCompact(v.raw)
	return err
}

// decrypt opens an encrypted token with the key of whichever provider's it is, and from then on only those providers
// come into question whose key that was (§2.6 step 1).
func (v *logoutVerification) decrypt(context.Context) error {
	if len(v.parts) == 3 {
		return v.someCandidate((*Provider).checkPlain)
	}
	err := failed("jwe", "the token is encrypted, and no key to decrypt it is configured")
	for _, p := range v.candidates {
		if p.cfg.Encryption == nil {
			continue
		}
		var plain string
		var key *PrivateKey
		if plain, key, err = p.cfg.Encryption.decryptWith(v.raw, v.parts); err != nil {
			continue
		}
		v.raw, v.encrypted = plain, true
		v.candidates = slices.DeleteFunc(slices.Clone(v.candidates), func(p *Provider) bool {
			return !p.cfg.Encryption.has(key)
		})
		v.parts, err = splitCompact(v.raw)
		return err
	}
	return err
}

// checkPlain reports whether a logout token of this provider may come unencrypted.
func (p *Provider) checkPlain() error {
	if p.cfg.Encryption == nil || p.cfg.Quirks.PlainLogoutTokens {
		return nil
	}
	return failed("jwe", "the token is not encrypted, and this client is registered for encrypted ones (if the "+
		"provider encrypts ID Tokens and not logout tokens, as Keycloak does, set "+
		"`allow_unencrypted_logout_tokens: true` for it)")
}

func (v *logoutVerification) checkHeader(context.Context) (err error) {
	v.signed, err = parseSigned(v.parts, v.raw)
	return err
}

// checkAlg: §2.6 step 3.
func (v *logoutVerification) checkAlg(context.Context) error {
	got := v.signed.header.alg
	return v.someCandidate(func(p *Provider) error { return p.checkLogoutAlg(got) })
}

func (p *Provider) checkLogoutAlg(got string) error {
	if canonicalAlg(got) == p.logoutAlg.name {
		return nil
	}
	if _, unknown := findAlgorithm(got); unknown != nil {
		return failed("alg", "the token is signed with %s: %w", quote(got), unknown)
	}
	return failed("alg", "the token is signed with %s; registered is %s (if the provider signs logout tokens so, "+
		"set `logout_token_signed_response_alg: %s` for it)", quote(got), p.logoutAlg.name, canonicalAlg(got))
}

// checkTyp: §2.4 and §4.1. Other kinds of token of the same issuer are refused (RFC 8725 §3.12).
func (v *logoutVerification) checkTyp(context.Context) error {
	h := &v.signed.header
	switch typ := mediaType(h.typ); {
	case h.hasTyp && typ == "logout+jwt":
		return nil
	case h.hasTyp && typ != "jwt":
		return failed("typ", "%s is not the type of a logout token", quote(h.typ))
	}
	return v.someCandidate((*Provider).checkUntyped)
}

func (p *Provider) checkUntyped() error {
	if p.cfg.Quirks.RequireTyp {
		return failed("typ", "the token does not say that it is a logout token (typ logout+jwt), and `require_typ` "+
			"is set")
	}
	return nil
}

func (v *logoutVerification) decodeClaims(context.Context) (err error) {
	if v.claims, err = decodeObject(v.signed.payload); err != nil {
		return failed("json", "the payload is %w", err)
	}
	return nil
}

// checkIss: §2.6 step 4.
func (v *logoutVerification) checkIss(context.Context) error {
	iss, ok := v.claims["iss"].(string)
	if !ok || iss == "" {
		return failed("iss", "`iss` is missing, or not a string")
	}
	of := func(p *Provider) bool { return p.cfg.Issuer == iss }
	if !slices.ContainsFunc(v.candidates, of) {
		return failed("iss", "the token is of %s; configured are %s", quote(iss), quoteAll(v.issuers()))
	}
	v.token.Issuer = iss
	return nil
}

// checkAud: §2.6 step 4. Other audiences beside this client are no reason to refuse: the issuer and its keys are
// known, and the token names the client.
func (v *logoutVerification) checkAud(context.Context) error {
	aud, err := v.claims.audience()
	if err != nil {
		return err
	}
	var clients []string
	for _, p := range v.candidates {
		if p.cfg.Issuer != v.token.Issuer {
			continue
		}
		if slices.Contains(aud, p.cfg.ClientID) {
			v.token.Provider, v.token.ClientID = p, p.cfg.ClientID
			return nil
		}
		clients = append(clients, p.cfg.ClientID)
	}
	return failed("aud", "the token is for %s; configured is %s", quoteAll(aud), quoteAll(clients))
}

// checkRegistration holds the token against what is registered at the one provider that it comes from: until now it was
// enough if any of them fitted.
func (v *logoutVerification) checkRegistration(context.Context) error {
	t := &v.token
	if err := v.meets(t.Provider); err != nil {
		return err
	}
	aud, err := v.claims.audience()
	hasExp := v.claims.has("exp")
	for _, p := range v.candidates {
		if p != t.Provider && p.cfg.Issuer == t.Issuer && slices.Contains(aud, p.cfg.ClientID) &&
			(hasExp || p.cfg.Quirks.AllowMissingExp) && v.meets(p) == nil {
			t.Others = append(t.Others, p)
		}
	}
	return err
}

func (v *logoutVerification) meets(p *Provider) error {
	h := &v.signed.header
	if !v.encrypted {
		if err := p.checkPlain(); err != nil {
			return err
		}
	}
	if err := p.checkLogoutAlg(h.alg); err != nil {
		return err
	}
	if !h.hasTyp || mediaType(h.typ) == "jwt" {
		return p.checkUntyped()
	}
	return nil
}

func (v *logoutVerification) checkIat(context.Context) (err error) {
	if v.token.IssuedAt, err = v.claims.time("iat"); err != nil {
		return err
	}
	if v.token.IssuedAt.After(v.now.Add(skew)) {
		return failed("iat", "the token is of %v, and it is %v; do the clocks agree?", v.token.IssuedAt.UTC(),
			v.now.UTC())
	}
	return nil
}

// checkExp: §2.4 requires it; some providers never send it, hence the quirk.
func (v *logoutVerification) checkExp(context.Context) (err error) {
	t := &v.token
	if !v.claims.has("exp") {
		if t.Provider == nil || !t.Provider.cfg.Quirks.AllowMissingExp {
			v.lacksExp = true
			return failed("exp", "`exp` is missing")
		}
		if v.now.Sub(t.IssuedAt) > withoutExp {
			return failed("exp", "`exp` is missing, and the token is of %v, more than %v ago", t.IssuedAt.UTC(),
				withoutExp)
		}
		t.Remember = t.IssuedAt.Add(withoutExp + skew)
		return nil
	}
	if t.Expiry, err = v.claims.time("exp"); err != nil {
		return err
	}
	switch {
	case !v.now.Before(t.Expiry.Add(skew)):
		return failed("exp", "the token ran out at %v, and it is %v; do the clocks agree?", t.Expiry.UTC(), v.now.UTC())
	case t.Expiry.Sub(t.IssuedAt) > longest:
		return failed("exp", "the token is valid for %v, longer than %v", t.Expiry.Sub(t.IssuedAt), longest)
	}
	t.Remember = t.Expiry.Add(skew)
	return nil
}

// checkNbf: RFC 7519 §4.1.5; logout tokens seldom have it.
func (v *logoutVerification) checkNbf(context.Context) error {
	if !v.claims.has("nbf") {
		return nil
	}
	nbf, err := v.claims.time("nbf")
	if err == nil && nbf.After(v.now.Add(skew)) {
		err = failed("nbf", "the token is not valid before %v, and it is %v", nbf.UTC(), v.now.UTC())
	}
	return err
}

func (v *logoutVerification) checkJTI(context.Context) (err error) {
	v.token.JTI, err = v.claims.text("jti", maxJTI)
	return err
}

// checkEvents: §2.6 step 6. Further events are ignored (§2.4).
func (v *logoutVerification) checkEvents(context.Context) error {
	events, ok := v.claims["events"].(map[string]any)
	if !ok {
		return failed("events", "`events` is missing, or not a JSON object")
	}
	event, there := events[backchannelEvent]
	if !there {
		return failed("events", "`events` does not hold %s", backchannelEvent)
	}
	members, ok := event.(map[string]any)
	if !ok {
		return failed("events", "the member %s of `events` is not a JSON object", backchannelEvent)
	}
	// Keycloak writes it beside the event. It is read inside the event as well, where a member of the event belongs.
	const revoke = "revoke_offline_access"
	v.token.RevokeOffline = events[revoke] == true || members[revoke] == true
	return nil
}

// checkNonce: §2.6 step 7, so that no ID Token passes. One that is null is refused as well: it must not be there.
func (v *logoutVerification) checkNonce(context.Context) error {
	if _, there := v.claims["nonce"]; there {
		return failed("nonce", "`nonce` is there; a logout token never has one")
	}
	return nil
}

// checkNames: §2.6 step 5.
func (v *logoutVerification) checkNames(context.Context) (err error) {
	hasSub, hasSID := v.claims.has("sub"), v.claims.has("sid")
	if !hasSub && !hasSID {
		return failed("sub", "the token names nobody: it has neither `sub` nor `sid`")
	}
	if hasSub {
		if v.token.Subject, err = v.claims.text("sub", maxSub); err != nil {
			return err
		}
	}
	if hasSID {
		if v.token.SID, err = v.claims.text("sid", maxSID); err != nil {
			return err
		}
	}
	return nil
}

// checkSignature: §2.6 step 2, last because it is what costs.
func (v *logoutVerification) checkSignature(ctx context.Context) error {
	p := v.token.Provider
	if v.known {
		return p.keys.verifyKnown(v.signed, p.logoutAlg)
	}
	d := p.keys.strangers
	if v.once {
		d = nil
	}
	return p.keys.verify(ctx, v.signed, p.logoutAlg, v.token.IssuedAt, d)
}

// someCandidate returns nil if any provider that comes into question accepts the token, else why not.
func (v *logoutVerification) someCandidate(accepts func(*Provider) error) error {
	err := failed("iss", "no provider is configured")
	for _, p := range v.candidates {
		if err = accepts(p); err == nil {
			return nil
		}
	}
	return err
}

func (v *logoutVerification) issuers() []string {
	var list []string
	for _, p := range v.candidates {
		if !slices.Contains(list, p.cfg.Issuer) {
			list = append(list, p.cfg.Issuer)
		}
	}
	return list
}

// passesOtherwise reports whether a token that lacks `exp` passes the checks that are left, the signature apart.
func (v *logoutVerification) passesOtherwise(ctx context.Context, left []logoutCheck) bool {
	for i := range left {
		if left[i].name != "signature" && left[i].run(v, ctx) != nil {
			return false
		}
	}
	return true
}

func (v *logoutVerification) missingExpHint() error {
	return failed("exp", "`exp` is missing, and nothing else is wrong with the token's claims; if this provider "+
		"never sends it, set `allow_missing_exp: true` for the provider %s", quote(v.token.Provider.cfg.Name))
}

func (c claims) hasLogoutEvent() bool {
	events, _ := c["events"].(map[string]any)
	_, there := events[backchannelEvent]
	return there
}

// Claimed returns what a logout token says of itself, for the log alone: nothing of it is verified. Empty when it
// cannot be read, as an encrypted one cannot. The values have no bound but that of a token, and hold any character.
func Claimed(raw string) (iss, sub, sid string) {
	parts, err := splitCompact(raw)
	if err != nil {
		return "", "", ""
	}
	t, err := parseSigned(parts, raw)
	if err != nil {
		return "", "", ""
	}
	c, err := decodeObject(t.payload)
	if err != nil {
		return "", "", ""
	}
	iss, _ = c["iss"].(string)
	sub, _ = c["sub"].(string)
	sid, _ = c["sid"].(string)
	return iss, sub, sid
}
