package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/web"
)

// Handler checks sessions. Site, Sessions and Cookie are required.
type Handler struct {
	Site     *web.Site
	Sessions *session.Manager
	Cookie   session.Cookie

	// Apps are the client IDs of the apps that are told of logouts, and App the one behind [Handler.Proxy], and behind a
	// forward-auth that names no other. An app is told in X-Auth-Session what the session will be called then.
	Apps []string
	App  string
}

// Mount adds the routes of this room.
func (h *Handler) Mount(mux *http.ServeMux) {
	mux.Handle(h.Site.Path("verify"), h.Site.JSON(h.verify)) // any method: some proxies pass the original one on
	mux.Handle(h.Site.Path("session"), h.Site.JSON(h.session, http.MethodGet))
	mux.Handle(h.Site.Path("events"), h.Site.JSON(h.events, http.MethodGet))
}

type contextKey struct{}

// SessionFrom returns the session of a request that went through [Handler.Require] or [Handler.Optional], or nil.
func SessionFrom(ctx context.Context) *session.Session {
	s, _ := ctx.Value(contextKey{}).(*session.Session)
	return s
}

// get returns the session of a request: nil when nobody is signed in, an error when the store cannot say.
func (h *Handler) get(r *http.Request) (*session.Session, error) {
	b, ok := h.Cookie.Read(r)
	if !ok {
		return nil, nil
	}
	s, err := h.Sessions.Get(r.Context(), b)
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, session.ErrNotFound):
		return nil, nil
	}
	return nil, web.Fail(http.StatusServiceUnavailable, "It cannot be checked at the moment whether you are signed in. Please try again.", err)
}

// Require lets a request through to next if somebody is signed in. Otherwise a browser that opens a page is sent to sign
// in, and comes back to this URL; anything else is answered 401. When the store cannot say, the answer is 503, and no
// cookie is touched.
func (h *Handler) Require(next http.Handler) http.Handler {
	return h.check(next, true)
}

// Optional is [Handler.Require] that lets everybody through: [SessionFrom] is nil when nobody is signed in.
func (h *Handler) Optional(next http.Handler) http.Handler {
	return h.check(next, false)
}

func (h *Handler) check(next http.Handler, required bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := h.get(r)
		switch {
		case err != nil:
			h.refuse(w, r, err)
		case s != nil:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, s)))
		case !required:
			next.ServeHTTP(w, r)
		case wantsPage(r):
			w.Header().Set("Cache-Control", "no-store")
			http.Redirect(w, r, h.loginURL(r.URL.RequestURI()), http.StatusSeeOther)
		default:
			h.refuse(w, r, web.Fail(http.StatusUnauthorized, "Nobody is signed in.", nil))
		}
	})
}

// refuse answers in the form that the request asked for.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	say := func(http.ResponseWriter, *http.Request) error { return err }
	if wantsPage(r) {
		h.Site.Page(say).ServeHTTP(w, r)
	} else {
		h.Site.JSON(say).ServeHTTP(w, r)
	}
}

func (h *Handler) loginURL(returnTo string) string {
	return h.Site.Path("login") + "?" + url.Values{"return_to": {returnTo}}.Encode()
}

// wantsPage says whether a browser is opening a page, as against a script, a form post or an API client: to these a
// redirect to a sign-in page would be noise, or would lose what they sent.
func wantsPage(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.Header.Get("X-Requested-With") != "" {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" {
		return false
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// verify answers a proxy that asks before it lets a request through: 200 with the identity in headers, or 401; or, for
// ?redirect=true, a redirect to sign in that remembers the original URL, where a trusted proxy told it.
func (h *Handler) verify(w http.ResponseWriter, r *http.Request) error {
	s, err := h.get(r)
	if err != nil {
		return err
	}
	if s != nil {
		identity(w.Header(), s, h.asked(r))
		return nil
	}
	if r.URL.Query().Get("redirect") == "true" && wantsPage(r) {
		http.Redirect(w, r, h.Site.Absolute("login")+"?"+url.Values{"return_to": {h.originalURI(r)}}.Encode(), http.StatusFound)
		return nil
	}
	return web.Fail(http.StatusUnauthorized, "Nobody is signed in.", nil)
}

// asked returns the app that a forward-auth asks for, with ?app=CLIENT_ID where several are behind one gateway.
func (h *Handler) asked(r *http.Request) string {
	if !r.URL.Query().Has("app") {
		return h.App
	}
	if app := r.URL.Query().Get("app"); slices.Contains(h.Apps, app) {
		return app
	}
	return ""
}

// originalURI returns the path and query that the browser asked a trusted proxy for, or "/".
func (h *Handler) originalURI(r *http.Request) string {
	if h.Site.FromTrustedProxy(r) {
		for _, name := range []string{"X-Forwarded-Uri", "X-Original-Uri"} {
			if v := r.Header.Get(name); v != "" {
				return web.ReturnTo(v)
			}
		}
	}
	return "/"
}

// session tells a page about its own session. It does not count as a use: a page that polls keeps nobody signed in.
func (h *Handler) session(w http.ResponseWriter, r *http.Request) error {
	s, err := h.peek(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(map[string]any{
		"subject": s.Subject, "name": s.Claim("name"), "email": s.Claim("email"), "provider": s.Provider, "issuer": s.Issuer,
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
		return nil, web.Fail(http.StatusServiceUnavailable, "It cannot be checked at the moment whether you are signed in. Please try again.", err)
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
