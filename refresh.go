package curfew

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"example.com/curfew/login"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
)

// refresh gets new tokens and claims for a session. The session ends when the provider rejects the refresh token for
// good, when it answers with an ID Token of another person (Core §12.2), when a required claim no longer matches, or
// when OnLogin refuses. Any other error is temporary.
//
// The claims are those of the new ID Token and userinfo, as at a sign-in, and what OnLogin makes of them. If there is
// no new ID Token (Core §12.2 allows that), the claims of the last one are used.
func (rp *RP) refresh(ctx context.Context, s *session.Session) (session.Renewal, error) {
	r := session.Renewal{Tokens: s.Tokens}
	p := rp.provider(s.Issuer, s.ClientID)
	if p == nil {
		return r, errors.New("the provider is no longer configured")
	}
	before := oidc.IDToken{Issuer: s.Issuer, ClientID: s.ClientID, Subject: s.Subject, SID: s.SID}
	now := rp.sessions.Now()
	got, id, err := p.Refresh(ctx, s.Tokens.RefreshToken, s.Tokens.DPoPKey, before, now)
	if got != nil && got.RefreshToken != "" {
		// even with an error: the old one may be used up
		r.Tokens.RefreshToken, r.Tokens.DPoPKey = got.RefreshToken, got.DPoPKey
	}
	// Whatever comes now, the provider may name the session by the new sid.
	if id != nil {
		r.SID = id.SID
	}
	if r.SID == "" && got != nil && s.Claim("sid") == "" && p.Config().Quirks.SIDFromTokenResponse {
		r.SID = got.SessionState
	}
	if errors.Is(err, oidc.ErrOtherPerson) {
		r.Tokens.AccessToken = got.AccessToken // these tokens live, and are revoked with the session
	}
	if errors.Is(err, oidc.ErrInvalidGrant) || errors.Is(err, oidc.ErrOtherPerson) {
		return r, fmt.Errorf("%w: %w", session.ErrRefreshRejected, err)
	}
	if err != nil {
		return r, err
	}
	if err := rp.renewClaims(ctx, p, s, id, got, &r); err != nil {
		return r, err
	}
	r.Tokens.AccessToken, r.Tokens.Expires = got.AccessToken, got.Expires
	c := p.Config()
	r.Confirmed = c.ConfirmsByRefresh()
	if id != nil {
		r.Tokens.IDToken, r.Expires = id.Raw, id.SessionExpiry
	}
	return r, nil
}

// renewClaims sets the claims of a refreshed session. An error says why the session has to end, or what failed for now.
func (rp *RP) renewClaims(ctx context.Context, p *oidc.Provider, s *session.Session, id *oidc.IDToken, got *oidc.Tokens,
	r *session.Renewal) (err error) {
	var fromID, info map[string]any
	if !p.Config().SkipUserinfo {
		info, err = p.Userinfo(ctx, got.AccessToken, got.DPoPKey, s.Subject, rp.sessions.Now())
		if err != nil && !errors.Is(err, oidc.ErrUnsupported) {
			return err
		}
	}
	if id != nil {
		fromID = id.Claims
	} else if fromID, err = p.IDTokenClaims(s.Tokens.IDToken); err != nil {
		if info != nil {
			return err
		}
		fromID = s.Claims
	}
	r.Claims, err = rp.login.Claims(ctx, p, withSignIn(fromID, s.Claims), info)
	if err != nil && !login.IsTemporary(err) {
		return fmt.Errorf("%w: %w", session.ErrRefused, err)
	}
	return err
}

// withSignIn returns the claims of an ID Token with those of the session that say how and when the person signed in, if
// the token does not say it: a refresh is no new sign-in, and need not repeat them (Core §12.2).
func withSignIn(fromID, claims map[string]any) map[string]any {
	fromID = maps.Clone(fromID)
	for _, name := range []string{"acr", "amr", "auth_time"} {
		if fromID[name] == nil && claims[name] != nil {
			fromID[name] = claims[name]
		}
	}
	return fromID
}
