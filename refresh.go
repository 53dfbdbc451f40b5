package curfew

import (
	"context"
	"errors"
	"fmt"
	"time"

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

// revoking bounds how long a notice is left for whose caller has gone away.
const revoking = 10 * time.Second

// revoke gives back a refresh token of a session that had ended when it came, or that did not begin, as a session's own
// is: by a notice. It does so also when the browser has hung up: nobody else knows the token.
func (rp *RP) revoke(ctx context.Context, s *session.Session, t session.Tokens) {
	p := rp.provider(s.Issuer, s.ClientID)
	if p == nil || rp.fanout == nil || t.RefreshToken == "" || t.Offline && !rp.revokeOffline[p.Name()] {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revoking)
	defer cancel()
	if err := rp.fanout.Revoke(ctx, p.Name(), s, t); err != nil {
		rp.site.Log.WarnContext(ctx, "a refresh token that no session holds is not going to be revoked",
			"event", "revocation_failed", "provider", p.Name(), "session", s.Key.Handle(), "error", err)
	}
}
