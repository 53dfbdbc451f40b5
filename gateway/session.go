package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/web"
)

// session tells a page about its own session. It does not count as a use: a page that polls keeps nobody signed in.
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

// peek is get for routes that need a session and are no use of it.
func (h *Handler) peek(r *http.Request) (*session.Session, error) {
	b, ok := h.Cookie.Read(r)
	if !ok {
		return nil, web.Fail(http.StatusUnauthorized, "Nobody is signed in.", nil)
	}
	s, err := h.Sessions.Peek(r.Context(), b.Key())
	switch {
	case errors.Is(err, session.ErrNotFound):
		return nil, web.Fail(http.StatusUnauthorized, "Nobody is signed in.", err)
	case err != nil:
		return nil, unchecked(err)
	}
	return s, nil
}

// keepAlive is how often an open event stream says that it is there, so that proxies do not cut it.
const keepAlive = 20 * time.Second

// events tells an open tab when its own session ends, and no other's: one server-sent event `ended`, then the stream
// closes. A tab that asks again is answered 401, upon which browsers stop asking.
func (h *Handler) events(w http.ResponseWriter, r *http.Request) error {
	b, ok := h.Cookie.Read(r)
	if !ok {
		return web.Fail(http.StatusUnauthorized, "Nobody is signed in.", nil)
	}
	ended, stop := h.Sessions.Watch(b.Key()) // before the look, so that nothing falls between
	defer stop()
	s, err := h.peek(r)
	if err != nil {
		return err
	}
	leave, err := h.places.enter(h.MaxOpen, false)
	if err != nil {
		return err
	}
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	if _, err := w.Write([]byte(": listening\n\n")); err != nil || out.Flush() != nil {
		return nil
	}
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		var cause session.Cause
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
				s = fresh // it was used meanwhile
				continue
			} else if !errors.Is(err, session.ErrNotFound) {
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
