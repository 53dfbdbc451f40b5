package oidc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Userinfo asks for the claims about the person who signed in (Core §5.3), as JSON or as a JWT that is signed,
// encrypted, or both. Ask only after the ID Token was verified: subject is its `sub`, and an answer about somebody else
// is refused (§5.3.2). dpopKey is the key that came with the access token, if one did. [ErrUnsupported] when the
// provider has no such endpoint, [ErrUnavailable] when it cannot be asked, else an [Error] of the check "userinfo".
func (p *Provider) Userinfo(ctx context.Context, accessToken string, dpopKey []byte, subject string,
	now time.Time) (map[string]any, error) {
	c, err := p.userinfo(ctx, accessToken, dpopKey, subject, now)
	p.reportUserinfo(err)
	e, refused := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return c.plain(), nil
	case errors.Is(err, ErrUnsupported), refused && e.Check == "userinfo":
		return nil, err
	case refused:
		return nil, failed("userinfo", "%w", err)
	}
	return nil, fmt.Errorf("userinfo: %w", err)
}

func (p *Provider) userinfo(ctx context.Context, accessToken string, dpopKey []byte, subject string,
	now time.Time) (claims, error) {
	m, err := p.meta.get(ctx)
	if err != nil {
		return nil, err
	}
	if m.UserinfoEndpoint == "" {
		return nil, ErrUnsupported
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, err := p.askUserinfo(ctx, m.UserinfoEndpoint, accessToken, dpopKey)
	if err == nil && dpopKey != nil && a.wantsNonce() {
		a, err = p.askUserinfo(ctx, m.UserinfoEndpoint, accessToken, dpopKey)
	}
	switch {
	case err != nil:
		return nil, err
	case a.temporary() || a.status < 400 && a.status != http.StatusOK:
		return nil, unavailable("the userinfo endpoint: %s", a.describe())
	case a.status == http.StatusUnauthorized && a.invalidToken():
		return nil, failed("userinfo", "the userinfo endpoint: %s: %w", a.describe(), ErrInvalidToken)
	case a.status != http.StatusOK:
		return nil, failed("userinfo", "the userinfo endpoint: %s", a.describe())
	}
	c, err := p.readUserinfo(ctx, a, now)
	if err != nil {
		return nil, err
	}
	if sub, err := c.text("sub", maxSub); err != nil {
		return nil, err
	} else if sub != subject {
		return nil, failed("sub", "it speaks of somebody else than the ID Token does (Core §5.3.2)")
	}
	return c, nil
}

// askUserinfo asks once, with the access token as it is or, with a key, proving that we have it (RFC 9449 §7.1).
func (p *Provider) askUserinfo(ctx context.Context, where, accessToken string, dpopKey []byte) (*answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, unavailable("%s is not a URL", quote(where))
	}
	r.Header.Set("Authorization", "Bearer "+accessToken) // and nowhere else: RFC 9700 §4.3.2
	r.Header.Set("Accept", "application/json, application/jwt")
	if dpopKey != nil {
		key, err := newDPoPKey(dpopKey)
		if err != nil {
			return nil, err
		}
		proof, err := p.proof(key, http.MethodGet, where, accessToken)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "DPoP "+accessToken)
		r.Header.Set("DPoP", proof)
	}
	a, err := p.do(r)
	if err != nil {
		return nil, unavailable("%w", err)
	}
	p.noteNonce(where, a)
	return a, nil
}

// readUserinfo returns the claims of an answer (Core §5.3.2): JSON, or a JWT, which is signed, or JSON that is
// encrypted, or signed and then encrypted. What is registered must be so.
func (p *Provider) readUserinfo(ctx context.Context, a *answer, now time.Time) (claims, error) {
	raw, isJWT, encrypted := string(a.body), a.media == "application/jwt", false
	if isJWT {
		parts, err := splitCompact(raw)
		if err != nil {
			return nil, err
		}
		if encrypted = len(parts) == 5; encrypted {
			if raw, err = cmp.Or(p.cfg.UserinfoEncryption, p.cfg.Encryption).decrypt(raw, parts); err != nil {
				return nil, err
			}
		}
	}
	if !encrypted && p.cfg.UserinfoEncryption != nil {
		return nil, failed("userinfo", "the answer is not encrypted, and `userinfo_encrypted_response_alg` is set")
	}
	isSigned := isJWT && !(encrypted && strings.HasPrefix(strings.TrimLeft(raw, " \t\r\n"), "{"))
	switch {
	case isSigned:
		return p.verifyUserinfo(ctx, raw, now)
	case p.cfg.UserinfoSigningAlg != "":
		return nil, failed("userinfo", "the answer is not signed, and `userinfo_signed_response_alg` is set")
	}
	c, err := decodeObject([]byte(raw))
	if err != nil {
		return nil, failed("userinfo", "the answer is %w", err)
	}
	if encrypted {
		err = p.checkUserinfo(c, now)
	}
	return c, err
}

// verifyUserinfo verifies an answer that is signed, with the one algorithm that is registered.
func (p *Provider) verifyUserinfo(ctx context.Context, raw string, now time.Time) (claims, error) {
	parts, err := splitCompact(raw)
	if err != nil {
		return nil, err
	}
	t, err := parseSigned(parts, raw)
	if err != nil {
		return nil, err
	}
	if alg := canonicalAlg(t.header.alg); alg != p.infoAlg.name {
		if _, err := findAlgorithm(alg); err != nil {
			return nil, failed("alg", "the answer is signed with %s: %w", quote(alg), err)
		}
		return nil, failed("alg", "the answer is signed with %s; registered is %s (if userinfo is signed so, set "+
			"`userinfo_signed_response_alg: %s`)", quote(alg), p.infoAlg.name, alg)
	}
	c, err := decodeObject(t.payload)
	if err != nil {
		return nil, failed("json", "the payload is %w", err)
	}
	if err := p.checkUserinfo(c, now); err != nil {
		return nil, err
	}
	iat, _ := c.time("iat") // which userinfo may lack
	return c, p.keys.verify(ctx, t, p.infoAlg, iat, p.keys.provider)
}

// checkUserinfo checks the claims of an answer that is a JWT. `iss`, `aud` and `exp` are checked if they are there.
func (p *Provider) checkUserinfo(c claims, now time.Time) error {
	if iss := c["iss"]; iss != nil && iss != p.cfg.Issuer {
		return failed("iss", "it is of another issuer")
	}
	if c.has("aud") {
		if aud, err := c.audience(); err != nil {
			return err
		} else if !slices.Contains(aud, p.cfg.ClientID) {
			return failed("aud", "it is for %s, not for this client", quoteAll(aud))
		}
	}
	if c.has("exp") {
		if exp, err := c.time("exp"); err != nil {
			return err
		} else if !now.Before(exp.Add(skew)) {
			return failed("exp", "it ran out at %v", exp.UTC())
		}
	}
	if c.hasLogoutEvent() {
		return failed("events", "this is a logout token")
	}
	return nil
}
