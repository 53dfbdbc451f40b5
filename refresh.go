package curfew

import (
	"context"
	"errors"
	"fmt"

	"example.com/curfew/login"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
)

// refresh gets new tokens and claims for a session. What the provider refuses for good, or answers with an ID Token of
// somebody else (Core §12.2), ends the session, and so does a claim that is no longer as required, or the app's own no;
// anything else is trouble that may pass.
//
// The claims are those of a sign-in: of the new ID Token and, where it is asked, of userinfo, and what OnLogin makes of
// them. Without a new ID Token (Core §12.2 allows that) those of the last one stand in.
func (rp *RP) refresh(ctx context.Context, s *session.Session) (session.Renewal, error) {
	r := session.Renewal{Tokens: s.Tokens}
	p := rp.provider(s.Issuer, s.ClientID)
	if p == nil {
		return r, errors.New("the provider is no longer configured")
	}
	before := oidc.IDToken{Issuer: s.Issuer, ClientID: s.ClientID, Subject: s.Subject, SID: s.SID}
	now := rp.sessions.Now()
	got, id, err := p.Refresh(ctx, s.Tokens.RefreshToken, before, now)
	if got != nil && got.RefreshToken != "" {
		r.Tokens.RefreshToken = got.RefreshToken // also beside an error: the old one may be spent
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
	if err := rp.renewClaims(ctx, p, s, id, got.AccessToken, &r); err != nil {
		return r, err
	}
	r.Tokens.AccessToken, r.Tokens.Expires = got.AccessToken, got.Expires
	if id != nil {
		r.Tokens.IDToken, r.SID = id.Raw, id.SID
	}
	if r.SID == "" && s.Claim("sid") == "" && p.Config().Quirks.SIDFromTokenResponse {
		r.SID = got.SessionState
	}
	return r, nil
}

// renewClaims sets the claims of a refreshed session, or says why it is not to go on.
func (rp *RP) renewClaims(ctx context.Context, p *oidc.Provider, s *session.Session, id *oidc.IDToken, access string,
	r *session.Renewal) (err error) {
	var fromID, info map[string]any
	if !p.Config().SkipUserinfo {
		info, err = p.Userinfo(ctx, access, s.Subject, rp.sessions.Now())
		if err != nil && !errors.Is(err, oidc.ErrUnsupported) {
			return err
		}
	}
	switch {
	case id != nil:
		fromID = id.Claims
	case info != nil:
		if fromID, err = p.IDTokenClaims(s.Tokens.IDToken); err != nil {
			return err
		}
	}
	if fromID != nil {
		r.Claims, err = rp.login.Claims(ctx, p, fromID, info)
	} else {
		r.Claims, err = s.Claims, rp.login.Required(p, s.Claims)
	}
	if err != nil && !login.MayPass(err) {
		return fmt.Errorf("%w: %w", session.ErrRefused, err)
	}
	return err
}
