package gateway

import (
	"encoding/json"
	"errors"
	"net/http"

	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// session returns a page's own session as JSON. It does not count as use: a page that polls keeps no session alive.
func (h *Handler) session(w http.ResponseWriter, r *http.Request) error {
	s, err := h.peek(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(map[string]any{
		"subject": s.Subject, "name": s.Claim("name"), "email": s.Email(), "provider": s.Provider, "issuer": s.Issuer,
		"created": s.Created, "last_seen": s.LastSeen, "idle_expires": s.IdleExpires, "expires": s.Expires,
	})
}

// peek is get for routes that need a session and do not count as use of it.
func (h *Handler) peek(r *http.Request) (*session.Session, error) {
	b, ok := h.Cookie.Read(r)
	if !ok {
		return nil, web.Fail(http.StatusUnauthorized, "Nobody is signed in.", nil)
	}
	s, err := h.Sessions.Find(r.Context(), b)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, web.Fail(http.StatusUnauthorized, "Nobody is signed in.", err)
	case err != nil:
		return nil, unchecked(err)
	}
	return s, nil
}
