package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// Handler checks sessions. Site, Sessions and Cookie are required.
type Handler struct {
	Site     *web.Site
	Sessions *session.Manager
	Cookie   session.Cookie

	Policy      Policy   // who may use which path; default: whoever is signed in
	Identity    Identity // in which headers an app is told who is there; default [CurfewHeaders]
	GroupsClaim string   // the claim that lists a person's groups, for policy and identity; default "groups"

	// Apps are the client IDs of the apps that are told of logouts, and App the one behind [Handler.Proxy], and behind
	// a forward-auth or a route that names no other. An app is told what the session will be called then.
	Apps []string
	App  string
	// Assertion makes signed statements of who is there, for apps that have a name; nil: there are none. At
	// /auth/verify only a trusted proxy is given one, and not below it: it proves to an app that the request went
	// through here.
	Assertion *Assertion
	// NoForwardAuth says that the apps are reached through [Handler.Proxy] or [Handler.Route] alone: there is no
	// /auth/verify. A load balancer that is trusted, and passes everything on, would hand what is for an app to
	// whoever's browser asks.
	NoForwardAuth bool

	// StreamsAreUse lets an open stream count as use of its session. By default a tab that is open and forgotten keeps
	// nobody signed in.
	StreamsAreUse bool

	// WebSocketOrigins are other sites whose pages may open a WebSocket here, each as [ParseOrigin] returns it. Pages
	// of this site may in any case.
	WebSocketOrigins []string

	// MaxOpen is how many requests may be with the apps at a time, WebSockets and the event streams of open tabs
	// included, and half of it how many of those by nobody who is signed in. Who comes then is answered 503. 0: any
	// number. It is set before the first request.
	MaxOpen int

	streams streams
	hosts   hosts
	places  places
}

// Mount adds the routes of this room.
func (h *Handler) Mount(mux *http.ServeMux) {
	if !h.NoForwardAuth {
		verify := http.HandlerFunc(h.verify)
		mux.Handle(h.Site.Path("verify"), verify) // any method: some proxies pass the original one on
		mux.Handle(h.Site.Path("verify/"), verify)
	}
	mux.Handle(h.Site.Path("session"), h.Site.JSON(h.session, http.MethodGet, http.MethodHead))
	mux.Handle(h.Site.Path("events"), h.Site.JSON(h.events, http.MethodGet))
}

// Ahead serves, before next, the paths below /auth/verify/ as they are: a [http.ServeMux] would clean them, and
// redirect whoever asked about `//x` to an answer about another path.
func (h *Handler) VerifyFirst(next http.Handler) http.Handler {
	below := h.Site.Path("verify/")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.NoForwardAuth && strings.HasPrefix(r.URL.Path, below) {
			h.verify(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// visit is what a request carries on its way to the app.
type requestState struct {
	session *session.Session // nil when nobody is signed in
	// In the middleware, for [UntilEnded]:
	home   *Handler
	bearer session.Bearer // if streams are use
	// In the proxy:
	stream   *stream
	identity http.Header // who it is
}

type contextKey struct{}

func stateFrom(ctx context.Context) requestState {
	v, _ := ctx.Value(contextKey{}).(requestState)
	return v
}

// SessionFrom returns the session of a request that went through [Handler.Require] or [Handler.Optional], or nil.
func SessionFrom(ctx context.Context) *session.Session { return stateFrom(ctx).session }

// visit is what the middleware puts into the context of a request.
func (h *Handler) newState(r *http.Request, s *session.Session) requestState {
	v := requestState{session: s, home: h}
	if h.StreamsAreUse {
		v.bearer, _ = h.Cookie.Read(r)
	}
	return v
}

// errNobody is the decision that somebody has to sign in first.
var errNobody = errors.New("nobody is signed in")

// decide is the one decision behind every surface: may the sender of r, by its cookie, do method to target (path and
// query as they will be sent to the app)? A nil error lets the request through, with the session of whoever is signed
// in and the rule that covers it, if there is one; on a public path that may be nobody. Otherwise the error is
// [errNobody] or a [web.Failure]: 400 for a path that has more than one meaning, 403 for a person who may not, 503 when
// the store cannot say.
func (h *Handler) decide(r *http.Request, method, target string) (*session.Session, *rule, error) {
	rule, err := h.Policy.find(r, method, target)
	if err != nil {
		return nil, nil, err
	}
	s, err := h.get(r)
	switch {
	case err != nil:
		return nil, rule, err
	case s == nil && rule != nil && rule.Public:
		return nil, rule, nil
	case s == nil:
		return nil, rule, errNobody
	case rule != nil:
		back := target
		if target == r.URL.EscapedPath() { // this very request, and not one that a proxy asks about
			back = wanted(r)
		}
		return s, rule, h.allowed(rule, s, back)
	}
	return s, nil, nil
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
	case errors.Is(err, store.ErrNotFound):
		return nil, nil
	}
	return nil, unchecked(err)
}

func unchecked(err error) error {
	return web.Fail(http.StatusServiceUnavailable,
		"It cannot be checked at the moment whether you are signed in. Please try again.", err)
}

// Require lets a request through to next if somebody is signed in, and the policy allows it. Otherwise a browser that
// opens a page is sent to sign in, and comes back to this URL; anything else is answered 401. When the store cannot
// say, the answer is 503, and no cookie is touched.
func (h *Handler) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h.checkOrigin(r, "")
		var s *session.Session
		var by *rule
		if err == nil {
			s, by, err = h.decide(r, r.Method, r.URL.EscapedPath())
		}
		if err != nil {
			h.deny(w, r, r.Method, err, func() string { return h.loginURL(r, wanted(r)) })
			return
		}
		r = h.logAllowed(r, "require", r.Method, r.URL.EscapedPath(), s, by)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, h.newState(r, s))))
	})
}

// Optional lets everybody through, whatever the policy says: [SessionFrom] is nil when nobody is signed in. When the
// store cannot say, the answer is 503.
func (h *Handler) Optional(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h.checkOrigin(r, "")
		var s *session.Session
		if err == nil {
			s, err = h.get(r)
		}
		if err != nil {
			h.deny(w, r, r.Method, err, nil)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, h.newState(r, s))))
	})
}

// deny answers a request that is not let through. A page that needs a sign-in is redirected to where login says; what
// is no page, or when login is nil, is answered 401, and that is not logged: it happens all day.
func (h *Handler) deny(w http.ResponseWriter, r *http.Request, method string, err error, login func() string) {
	page := navigates(r)
	answer := func(w http.ResponseWriter, r *http.Request) error {
		switch {
		case !errors.Is(err, errNobody):
			return err
		case wantsPage(r, method) && login != nil:
			status := http.StatusSeeOther
			if strings.HasPrefix(r.URL.Path, h.Site.Path("verify")) {
				status = http.StatusFound // the one that every proxy knows
			}
			http.Redirect(w, r, login(), status)
			return nil
		case page && login != nil && method != http.MethodGet && method != http.MethodHead:
			to := login()
			if from := r.Header.Get("Referer"); strings.HasPrefix(from, h.Site.Origin()+"/") { // the page with the form
				to = h.Site.Origin() + h.Site.Path("login") + "?" +
					url.Values{"return_to": {h.Site.ReturnTo(from)}}.Encode()
			}
			h.Site.Render(w, r, http.StatusUnauthorized, web.Message{Title: "You are not signed in",
				Text: "What you sent did not arrive: your session has ended, or there was none.\n\nYour browser " +
					"may still have it. Go back to copy it before you sign in.",
				Actions: []web.Action{{Label: "Sign in", Href: to}}})
			return nil
		}
		web.WriteJSON(w, http.StatusUnauthorized, map[string]string{
			"error": "unauthorized", "error_description": "Nobody is signed in.",
		})
		return nil
	}
	if page {
		h.Site.Page(answer).ServeHTTP(w, r)
	} else {
		h.Site.JSON(answer).ServeHTTP(w, r)
	}
}

func (h *Handler) loginURL(r *http.Request, returnTo string) string {
	return h.Site.Path("login") + "?" + url.Values{"return_to": {h.returnTo(r, returnTo)}}.Encode()
}

// returnTo is where a person may go after signing in, if that is raw: path and query of the page that they wanted.
func (h *Handler) returnTo(r *http.Request, raw string) string {
	to, err := web.ParseReturnTo(raw)
	if err == nil {
		return to
	}
	if raw != "" { // a proxy that asks may not say
		h.Site.Event(r, slog.LevelInfo, "return_to_dropped", slog.String("error", err.Error()))
	}
	return "/"
}

// wanted returns path and query of a request as the browser sent them, byte for byte, also where a router in front of
// us has cut a prefix off.
func wanted(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		return r.RequestURI
	}
	return r.URL.RequestURI()
}

// wantsPage says whether a browser is opening a page, as against a script, a form post, an API client or a look ahead:
// to these a redirect to a sign-in page would be noise, or would lose what they sent.
func wantsPage(r *http.Request, method string) bool {
	return (method == http.MethodGet || method == http.MethodHead) && !web.IsPrefetch(r) && navigates(r)
}

// navigates says whether a person's browser shows the answer as a page. What the browser itself says comes first; an
// X-Requested-With is a script's only when it says XMLHttpRequest, since an Android WebView sends the name of its app.
func navigates(r *http.Request) bool {
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return !strings.EqualFold(r.Header.Get("X-Requested-With"), "XMLHttpRequest") &&
		acceptsHTML(r.Header["Accept"])
}

// acceptsHTML says whether text/html is among what a client names, and not with a weight of 0, which says that it is
// not acceptable (RFC 9110 §12.4.2).
func acceptsHTML(accept []string) bool {
	for item := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		kind, params, _ := strings.Cut(item, ";")
		if !strings.EqualFold(strings.TrimSpace(kind), "text/html") {
			continue
		}
		refused := false
		for param := range strings.SplitSeq(params, ";") {
			name, weight, _ := strings.Cut(param, "=")
			if strings.EqualFold(strings.TrimSpace(name), "q") {
				q, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
				refused = err == nil && q <= 0
			}
		}
		if !refused {
			return true
		}
	}
	return false
}
