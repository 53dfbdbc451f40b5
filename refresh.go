package curfew

import (
	"context"
	"errors"
	"fmt"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
)

// refresh gets new tokens for a session. What the provider refuses for good, or answers with an ID Token of somebody
// else (Core §12.2), ends the session; anything else is trouble that may pass.
func (rp *RP) refresh(ctx context.Context, s *session.Session) (session.Tokens, error) {
	p := rp.provider(s.Issuer, s.ClientID)
	if p == nil {
		return session.Tokens{}, session.ErrRefreshRejected
	}
	before := oidc.IDToken{Issuer: s.Issuer, ClientID: s.ClientID, Subject: s.Subject, SID: s.SID}
	got, id, err := p.Refresh(ctx, s.Tokens.RefreshToken, before, rp.sessions.Now())
	if _, refused := errors.AsType[*oidc.Error](err); refused || errors.Is(err, oidc.ErrInvalidGrant) {
		return session.Tokens{}, fmt.Errorf("%w: %w", session.ErrRefreshRejected, err)
	}
	if err != nil {
		return session.Tokens{}, err
	}
	next := s.Tokens
	next.AccessToken, next.Expires = got.AccessToken, got.Expires
	if got.RefreshToken != "" {
		next.RefreshToken = got.RefreshToken
	}
	if id != nil {
		next.IDToken = id.Raw
	}
	return next, nil
}

// revoke gives back a refresh token that came when its session had ended, as the session's own was: by a notice.
func (rp *RP) revoke(ctx context.Context, s *session.Session, t session.Tokens) {
	p := rp.provider(s.Issuer, s.ClientID)
	if p == nil || rp.fanout == nil || t.RefreshToken == "" || t.Offline && !rp.revokeOffline[p.Name()] {
		return
	}
	if err := rp.fanout.Revoke(ctx, p.Name(), s, t); err != nil {
		rp.site.Log.WarnContext(ctx, "a refresh token that came after its session had ended is not going to be revoked",
			"event", "revocation_failed", "provider", p.Name(), "session", s.Key.Handle(), "error", err)
	}
}
