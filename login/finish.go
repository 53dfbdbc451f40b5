package login

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// finish does steps 3 to 6 of callback. It returns the bearer for the browser. The session that the browser has had is
// looked up first: if the store cannot say, no code is used up.
func (h *Handler) finish(r *http.Request, p *oidc.Provider, a *attempt,
	code string) (bearer session.Bearer, err error) {
	ctx := r.Context()
	old, err := h.previousSession(r)
	if err != nil {
		return bearer, h.storeFailure(p, a, err)
	}
	tokens, err := p.Exchange(ctx, code, a.Verifier, h.RedirectURI(p.Name()))
	if err != nil {
		return bearer, h.providerFailure(p, a, err)
	}
	now := h.Sessions.Now()
	id, err := p.VerifyIDToken(ctx, tokens.IDToken, oidc.Expect{Nonce: a.Nonce, AccessToken: tokens.AccessToken}, now)
	if err != nil {
		return bearer, h.providerFailure(p, a, err)
	}
	var info map[string]any
	if !p.Config().SkipUserinfo {
		info, err = p.Userinfo(ctx, tokens.AccessToken, tokens.DPoPKey, id.Subject, now)
		if err != nil && !errors.Is(err, oidc.ErrUnsupported) {
			return bearer, h.providerFailure(p, a, err)
		}
	}
	claims, refused := h.Claims(ctx, p, id.Claims, info)
	n := session.SignIn{
		Provider: p.Name(), Issuer: id.Issuer, ClientID: id.ClientID, Subject: id.Subject, SID: id.SID,
		Claims: claims, Began: a.Began, Era: a.Era, UserAgent: web.Clip(r.UserAgent()),
		Tokens: session.Tokens{
			IDToken: id.Raw, AccessToken: tokens.AccessToken, RefreshToken: tokens.RefreshToken,
			Expires: tokens.Expires, Offline: slices.Contains(tokens.Scopes, "offline_access"),
			DPoPKey: tokens.DPoPKey,
		},
	}
	if client := h.Site.ClientAddr(r); client.IsValid() {
		n.Address = client.String()
	}
	if h.Site.SeveralHosts() && !h.Site.SharedCookie {
		n.Host = h.Cookie.Main
	}
	if n.SID == "" && p.Config().Quirks.SIDFromTokenResponse {
		n.SID = tokens.SessionState
	}
	same := old != nil && sameSignIn(old, &n)
	if refused != nil {
		// Refuse revokes the token, which may end its whole grant, and with it the session that the browser has: see
		// [session.Tokens.Inherit].
		if !same {
			h.Sessions.Refuse(ctx, n)
		}
		return bearer, h.refusedByApp(ctx, p, a, id, claims, refused)
	}
	inherited := same && n.Tokens.Inherit(old.Tokens)
	bearer, s, err := h.Sessions.Create(ctx, n)
	if err != nil {
		return bearer, h.storeFailure(p, a, err)
	}
	if old != nil {
		h.replace(r, old, inherited)
	}
	h.Site.Event(r, slog.LevelInfo, "login", slog.String("result", "ok"), slog.String("provider", p.Name()),
		slog.String("session", s.Key.Handle()), slog.String("sub", s.Subject), slog.String("sid", s.SID),
		slog.Bool("silent", a.Silent))
	return bearer, nil
}

// previousSession returns the session that the browser had until now, or nil.
func (h *Handler) previousSession(r *http.Request) (*session.Session, error) {
	b, ok := h.Cookie.Read(r)
	if !ok {
		return nil, nil
	}
	s, err := h.Sessions.Find(r.Context(), b)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return s, err
}

// sameSignIn reports whether a session and the one that replaces it may be of one sign-in at the provider. Without a
// sid that cannot be known, so they may.
func sameSignIn(old *session.Session, n *session.SignIn) bool {
	return old.Issuer == n.Issuer && old.ClientID == n.ClientID && old.Subject == n.Subject &&
		(old.SID == n.SID || old.HasSID(n.SID))
}

// replace ends the session that the browser had before. The new session stays even if that fails: the browser no longer
// has the old cookie, and the old session expires.
func (h *Handler) replace(r *http.Request, old *session.Session, inherited bool) {
	_, err := h.Sessions.End(r.Context(), store.Ending{Cause: store.CauseReplaced, KeepTokens: inherited,
		Selector: store.Selector{Issuer: old.Issuer, ClientID: old.ClientID, Key: old.Key}})
	if err != nil {
		h.Site.Event(r, slog.LevelWarn, "session_not_replaced", slog.String("session", old.Key.Handle()),
			slog.String("error", err.Error()))
	}
}
