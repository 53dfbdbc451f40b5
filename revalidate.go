package curfew

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
)

// nearlyExpired is how long an access token must still live to be asked with. The clocks of the provider and of this
// machine may differ by that much.
const nearlyExpired = time.Minute

// revalidation says how often the provider of a session is asked whether it goes on.
func (rp *RP) revalidation(issuer, clientID string) session.Revalidation {
	p := rp.provider(issuer, clientID)
	if p == nil {
		return session.Revalidation{}
	}
	c := p.Config()
	return session.Revalidation{Every: c.Revalidate, PerMinute: c.RevalidateRate}
}

// revalidate asks the provider whether a session goes on, in the first way of [oidc.Config.RevalidateBy] that there is.
// Only an answer that the provider gives on purpose ends the session: that of a refresh (see refresh), an access token
// that is not active (RFC 7662 §2.2), or invalid_token from userinfo (RFC 6750 §3.1).
func (rp *RP) revalidate(ctx context.Context, s *session.Session) (session.Renewal, error) {
	r := session.Renewal{Tokens: s.Tokens, Claims: s.Claims}
	p := rp.provider(s.Issuer, s.ClientID)
	if p == nil {
		return r, errors.New("the provider is no longer configured")
	}
	way, err := p.RevalidationWay(ctx, s.Tokens.RefreshToken != "")
	if err != nil {
		return r, err
	}
	if way == oidc.ByRefresh {
		return rp.refresh(ctx, s)
	}
	// An access token that runs out while it is asked about says nothing about the session.
	if until := s.Tokens.Expires; s.Tokens.RefreshToken != "" && !until.IsZero() &&
		until.Sub(rp.sessions.Now()) < nearlyExpired {
		if r, err = rp.refresh(ctx, s); err != nil {
			return r, err
		}
	}
	switch {
	case way == oidc.ByIntrospection:
		err = p.Introspect(ctx, r.Tokens.AccessToken)
	case p.Config().SkipUserinfo: // it is asked, and what it says about the person is not wanted
		_, err = p.Userinfo(ctx, r.Tokens.AccessToken, r.Tokens.DPoPKey, s.Subject, rp.sessions.Now())
	default:
		now := *s
		now.Tokens, now.Claims = r.Tokens, r.Claims
		err = rp.renewClaims(ctx, p, &now, nil,
			&oidc.Tokens{AccessToken: r.Tokens.AccessToken, DPoPKey: r.Tokens.DPoPKey}, &r)
	}
	if errors.Is(err, oidc.ErrInvalidToken) {
		return r, fmt.Errorf("%w: %w", session.ErrProviderEnded, err)
	}
	r.Confirmed = err == nil
	return r, err
}
