package oidc

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"log/slog"
	"slices"
	"time"
)

const (
	skew   = time.Minute // that two clocks may differ by
	maxSub = 255         // bytes; Core §2
	maxSID = 1024        // bytes
	oldest = 24 * time.Hour
)

// Expect is what an ID Token is held against (Core §3.1.3.7).
type Expect struct {
	Nonce       string // always compared when NoNonce is false
	NoNonce     bool   // at refresh
	AccessToken string // at_hash is compared when the token has one
	// MaxAge is the `max_age` that was asked for, in seconds. Then `auth_time` must be there, and must have been no
	// longer ago than that when it was asked for (step 13).
	MaxAge *int
	Asked  time.Time // when MaxAge was asked for; zero: now
}

// IDToken is a verified ID Token. It prints as "[ID token]".
type IDToken struct {
	// the signed token; decrypted, if it came encrypted, since that is what id_token_hint takes (Core §3.1.2.1)
	Raw      string
	Issuer   string
	ClientID string
	Subject  string
	SID      string // empty when there is none
	Expiry   time.Time
	IssuedAt time.Time
	AuthTime time.Time // zero when there is none
	// when the provider's session ends in any case (`session_expiry`, OpenID IPSIE SL1); zero when there is none
	SessionExpiry time.Time
	Claims        map[string]any // all of them; numbers are json.Number
}

func (IDToken) String() string       { return "[ID token]" }
func (IDToken) GoString() string     { return "[ID token]" }
func (IDToken) LogValue() slog.Value { return slog.StringValue("[ID token]") }

// VerifyIDToken verifies an ID Token (Core §3.1.3.7). The signature is checked last, so that no key is fetched for a
// token that could not pass. The error is an [Error], or an [ErrUnavailable] when the keys could not be had.
func (p *Provider) VerifyIDToken(ctx context.Context, raw string, e Expect, now time.Time) (*IDToken, error) {
	id, err := p.verifyIDToken(ctx, raw, e, now)
	p.reportIDToken(err)
	return id, err
}

func (p *Provider) verifyIDToken(ctx context.Context, raw string, e Expect, now time.Time) (*IDToken, error) {
	t, err := p.openToken(raw, true)
	if err != nil {
		return nil, err
	}
	if canonicalAlg(t.header.alg) != p.alg.name { // step 7
		return nil, failed("alg", "the token is signed with %s; registered is %s (id_token_signed_response_alg)",
			quote(t.header.alg), p.alg.name)
	}
	if typ := mediaType(t.header.typ); t.header.hasTyp && typ != "jwt" { // RFC 8725 §3.11
		return nil, failed("typ", "%s is not the type of an ID Token", quote(t.header.typ))
	}
	c, err := decodeObject(t.payload)
	if err != nil {
		return nil, failed("json", "the payload is %w", err)
	}
	id := &IDToken{Raw: t.raw, Issuer: p.cfg.Issuer, ClientID: p.cfg.ClientID}
	if err := p.checkIDToken(id, c, e, now); err != nil {
		return nil, err
	}
	if err := p.keys.verify(ctx, t, p.alg, id.IssuedAt, p.keys.provider); err != nil { // step 6
		return nil, err
	}
	id.Claims = c.plain()
	return id, nil
}

// checkIDToken checks the claims and fills in id. The steps are those of Core §3.1.3.7.
func (p *Provider) checkIDToken(id *IDToken, c claims, e Expect, now time.Time) error {
	if iss, _ := c["iss"].(string); iss != p.cfg.Issuer { // step 2
		return failed("iss", "the token is of %s, not of %s", quote(iss), quote(p.cfg.Issuer))
	}
	aud, err := c.audience()
	if err != nil {
		return err
	}
	if !slices.Contains(aud, p.cfg.ClientID) { // step 3
		return failed("aud", "the token is for %s, not for %s", quoteAll(aud), quote(p.cfg.ClientID))
	}
	azp, hasAzp := c["azp"], c.has("azp")
	others := slices.ContainsFunc(aud, func(a string) bool { return a != p.cfg.ClientID })
	switch { // steps 3 to 5
	case hasAzp && azp != p.cfg.ClientID:
		return failed("azp", "the token was issued to another client")
	case others && !hasAzp:
		return failed("azp", "the token is for several (%s) and does not say that it was issued to this client",
			quoteAll(aud))
	}
	if c.hasLogoutEvent() { // Back-Channel Logout §4.1: never the one for the other
		return failed("events", "this is a logout token")
	}
	if err := p.checkIDTokenTimes(id, c, e, now); err != nil {
		return err
	}
	if !e.NoNonce { // step 11
		nonce, _ := c["nonce"].(string)
		if e.Nonce == "" || subtle.ConstantTimeCompare([]byte(nonce), []byte(e.Nonce)) != 1 {
			return failed("nonce", "the token is not the answer to this sign-in")
		}
	}
	if id.Subject, err = c.text("sub", maxSub); err != nil {
		return err
	}
	if c.has("sid") {
		if id.SID, err = c.text("sid", maxSID); err != nil {
			return err
		}
	}
	if c.has("at_hash") && e.AccessToken != "" { // Core §3.1.3.8
		h := p.alg.half.New()
		h.Write([]byte(e.AccessToken))
		want := base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:h.Size()/2])
		got, _ := c["at_hash"].(string)
		if subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
			return failed("at_hash", "the access token is not the one that came with this ID Token")
		}
	}
	return nil
}

func (p *Provider) checkIDTokenTimes(id *IDToken, c claims, e Expect, now time.Time) (err error) {
	if id.Expiry, err = c.time("exp"); err != nil {
		return err
	}
	if !now.Before(id.Expiry.Add(skew)) { // step 9
		return failed("exp", "the token ran out at %v, and it is %v; do the clocks agree?", id.Expiry.UTC(), now.UTC())
	}
	if id.IssuedAt, err = c.time("iat"); err != nil {
		return err
	}
	switch { // step 10
	case id.IssuedAt.After(now.Add(skew)):
		return failed("iat", "the token is of %v, and it is %v; do the clocks agree?", id.IssuedAt.UTC(), now.UTC())
	case now.Sub(id.IssuedAt) > oldest:
		return failed("iat", "the token is of %v, more than %v ago", id.IssuedAt.UTC(), oldest)
	}
	if c.has("nbf") {
		if nbf, err := c.time("nbf"); err != nil {
			return err
		} else if nbf.After(now.Add(skew)) {
			return failed("nbf", "the token is not valid before %v, and it is %v", nbf.UTC(), now.UTC())
		}
	}
	if c.has("auth_time") {
		if id.AuthTime, err = c.time("auth_time"); err != nil {
			return err
		}
	}
	if e.MaxAge != nil { // step 13
		asked := e.Asked
		if asked.IsZero() {
			asked = now
		}
		limit := time.Duration(*e.MaxAge)*time.Second + skew
		switch {
		case id.AuthTime.IsZero():
			return failed("auth_time", "the person was to sign in within the last %d seconds (max_age), and the "+
				"token does not say when they did", *e.MaxAge)
		case asked.Sub(id.AuthTime) > limit:
			return failed("auth_time", "the person did not sign in at the provider within the last %d seconds, as "+
				"was asked", *e.MaxAge)
		case id.AuthTime.After(now.Add(skew)):
			return failed("auth_time", "the person signed in at %v, and it is %v; do the clocks agree?",
				id.AuthTime.UTC(), now.UTC())
		}
	}
	if c.has("session_expiry") {
		if id.SessionExpiry, err = c.time("session_expiry"); err != nil {
			return err
		}
		// At a refresh that is no fault of the token: it says that the session is over.
		if !e.NoNonce && !now.Before(id.SessionExpiry) {
			return failed("session_expiry", "the session at the provider ended at %v, and it is %v; do the clocks "+
				"agree?", id.SessionExpiry.UTC(), now.UTC())
		}
	}
	return nil
}
