package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

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

// keepAlive is how often an open event stream sends a comment, so that proxies do not close it.
const keepAlive = 20 * time.Second

// events is an event stream that notifies an open tab of the end of its own session, and of no other: it sends one
// server-sent event `ended`, and closes. A tab that reconnects is answered 401, so that browsers stop trying.
func (h *Handler) events(w http.ResponseWriter, r *http.Request) error {
	b, ok := h.Cookie.Read(r)
	if !ok {
		return web.Fail(http.StatusUnauthorized, "Nobody is signed in.", nil)
	}
	ended, stop := h.Sessions.Watch(b.Key()) // before the lookup, so that no ending is missed
	defer stop()
	s, err := h.peek(r)
	if err != nil {
		return err
	}
	release, err := h.slots.acquire(h.MaxOpen, false)
	if err != nil {
		return err
	}
	defer release()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	if _, err := w.Write([]byte(": listening\n\n")); err != nil || out.Flush() != nil {
		return nil
	}
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		var cause store.Cause
		select {
		case <-r.Context().Done():
			return nil
		case cause = <-ended:
		case <-tick.C:
			if now := h.Sessions.Now(); now.Before(s.IdleExpires) && now.Before(s.Expires) {
				w.Write([]byte(": still here\n\n"))
				if out.Flush() != nil {
					return nil
				}
				continue
			}
			if fresh, err := h.Sessions.Peek(r.Context(), s.Key); err == nil {
				s = fresh // it has been used since
				continue
			} else if !errors.Is(err, store.ErrNotFound) {
				continue
			}
			cause = "expired"
		}
		data, _ := json.Marshal(map[string]string{"cause": string(cause)})
		w.Write([]byte("event: ended\ndata: " + string(data) + "\n\n"))
		out.Flush()
		return nil
	}
}
