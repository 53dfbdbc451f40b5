package oidc

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// Userinfo asks for the claims about the person who signed in (Core §5.3), as JSON or as a signed JWT. Ask only after
// the ID Token was verified: subject is its `sub`, and an answer about somebody else is refused (§5.3.2).
// [ErrUnsupported] when the provider has no such endpoint.
func (p *Provider) Userinfo(ctx context.Context, accessToken, subject string, now time.Time) (map[string]any, error) {
	m, err := p.meta.get(ctx)
	if err != nil {
		return nil, err
	}
	if m.UserinfoEndpoint == "" {
		return nil, ErrUnsupported
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, m.UserinfoEndpoint, nil)
	if err != nil {
		return nil, unavailable("%s is not a URL", quote(m.UserinfoEndpoint))
	}
	r.Header.Set("Authorization", "Bearer "+accessToken) // and nowhere else: RFC 9700 §4.3.2
	r.Header.Set("Accept", "application/json, application/jwt")
	a, err := p.do(r)
	switch {
	case err != nil:
		return nil, unavailable("%w", err)
	case a.temporary() || a.status < 400 && a.status != http.StatusOK:
		return nil, unavailable("the userinfo endpoint: %s", a.describe())
	case a.status != http.StatusOK:
		return nil, failed("userinfo", "the userinfo endpoint: %s", a.describe())
	}
	var c claims
	if a.media == "application/jwt" {
		c, err = p.verifyUserinfo(ctx, string(a.body), now)
	} else if c, err = decodeObject(a.body); err != nil {
		err = failed("userinfo", "the answer is %w", err)
	}
	if err != nil {
		return nil, err
	}
	if sub, err := c.text("sub", maxSub); err != nil {
		return nil, err
	} else if sub != subject {
		return nil, failed("sub", "userinfo speaks of somebody else than the ID Token does (Core §5.3.2)")
	}
	return c.plain(), nil
}

// verifyUserinfo verifies an answer that is a JWT: signed as ID Tokens are, and its `iss` and `aud`, if it has them, as
// there.
func (p *Provider) verifyUserinfo(ctx context.Context, raw string, now time.Time) (claims, error) {
	t, err := p.openToken(raw, false)
	if err != nil {
		return nil, err
	}
	if canonicalAlg(t.header.alg) != p.alg.name {
		return nil, failed("alg", "userinfo is signed with %s; registered is %s", quote(t.header.alg), p.alg.name)
	}
	c, err := decodeObject(t.payload)
	if err != nil {
		return nil, failed("json", "userinfo is %w", err)
	}
	if iss := c["iss"]; iss != nil && iss != p.cfg.Issuer {
		return nil, failed("iss", "userinfo is of another issuer")
	}
	if c.has("aud") {
		if aud, err := c.audience(); err != nil {
			return nil, err
		} else if !slices.Contains(aud, p.cfg.ClientID) {
			return nil, failed("aud", "userinfo is for %s, not for this client", quoteAll(aud))
		}
	}
	if c.has("exp") {
		if exp, err := c.time("exp"); err != nil {
			return nil, err
		} else if !now.Before(exp.Add(skew)) {
			return nil, failed("exp", "userinfo ran out at %v", exp.UTC())
		}
	}
	if c.hasLogoutEvent() {
		return nil, failed("events", "this is a logout token")
	}
	iat, _ := c.time("iat") // which userinfo may lack
	return c, p.keys.verify(ctx, t, p.alg, iat, p.keys.provider)
}
