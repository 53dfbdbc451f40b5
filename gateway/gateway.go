package gateway

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// Handler checks sessions. Site, Sessions and Cookie are required. The fields must not change after the first request.
type Handler struct {
	Site     *web.Site
	Sessions *session.Manager
	Cookie   session.Cookie

	Policy      Policy   // who may use which path; default: all signed-in users
	Identity    Identity // the headers that tell an app who the user is; default [CurfewHeaders]
	GroupsClaim string   // the claim that lists a person's groups, for policy and identity; default "groups"

	// Apps are the client IDs of the apps that are notified of logouts. App is the one behind [Handler.Proxy], and the
	// default for forward-auth and for routes that do not name one. An app receives the session ID that its logout
	// tokens will carry.
	Apps []string
	App  string
	// Assertion signs statements about the user, for apps that have a client ID; nil: no assertions. At /auth/verify
	// only a trusted proxy receives one, and not at the paths below it: an assertion proves to an app that the request
	// went through the gateway.
	Assertion *Assertion
	// NoForwardAuth removes /auth/verify, for apps that are reached through [Handler.Proxy] or [Handler.Route] only.
	// Otherwise a trusted load balancer that passes on every path would return to any browser the headers that are
	// meant for the app.
	NoForwardAuth bool
	// OAuth2ProxyPaths also answers the paths of oauth2-proxy below the prefix: start, sign_in, sign_out, auth and
	// userinfo. With "/oauth2" as the prefix, links and proxies that name them go on working.
	OAuth2ProxyPaths bool

	// Bearer has access tokens taken in the Authorization header; nil: they are not looked at, and apps get them.
	Bearer *Bearer

	// StreamsAreUse lets an open stream count as use of its session. By default a forgotten open tab does not keep a
	// session alive.
	StreamsAreUse bool

	// WebSocketOrigins are the origins of other sites whose pages may open a WebSocket here, each as [ParseOrigin]
	// returns it. Pages of this site always may.
	WebSocketOrigins []string

	// Tabs puts the script that notifies open tabs of the end of their session into the pages that pass through
	// [Handler.Proxy] and [Handler.Route], and says what a page does then. Default [TabsOff]. [Route.Tabs] overrides
	// it.
	Tabs TabMode
	// NoStore forbids browsers to keep answers to people who are signed in: `Cache-Control: no-store`. Files that the
	// app calls public or immutable are excepted, and in a Go app whatever its handler sets. By default an answer that
	// says nothing about caching is `private`.
	NoStore bool

	// MaxOpen is how many requests may be open at a time, WebSockets and the event streams of open tabs included.
	// Requests without a session may use half of it. Further requests are answered 503. 0: no limit.
	MaxOpen int

	// OnCheck is called after each decision about a request, but those of [Handler.Optional], which lets all pass; nil:
	// it is not. It must not block.
	OnCheck func(Check)

	streams  streams
	closings closings
	tabs     tabs
	hosts    hosts
	slots    slots
	untold   sync.Map // why pages did not get the script for open tabs, as far as the log has said so
	dropped  sync.Map // names of headers of which the log has said that values were dropped
}

// Mount adds the routes of this package to mux.
func (h *Handler) Mount(mux *http.ServeMux) {
	if !h.NoForwardAuth {
		verify := http.HandlerFunc(h.verify)
		mux.Handle(h.Site.Path("verify"), verify) // any method: some proxies use that of the original request
		mux.Handle(h.Site.Path("verify/"), verify)
	}
	if h.OAuth2ProxyPaths {
		h.mountOAuth2Proxy(mux)
	}
	mux.Handle(h.Site.Path("session"), h.Site.JSON(h.session, http.MethodGet, http.MethodHead))
	mux.Handle(h.Site.Path("events"), h.Site.JSON(h.events, http.MethodGet))
	mux.Handle(h.Site.Path("tab.js"), h.Site.JSON(h.tabJS, http.MethodGet, http.MethodHead))
}

// VerifyFirst returns a handler that serves /auth/verify and the paths below it, and passes all other requests to next.
// A [http.ServeMux] would clean these paths, and redirect a request about `//x` to the answer about another path.
func (h *Handler) VerifyFirst(next http.Handler) http.Handler {
	verify := h.Site.Path("verify")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		below, ok := strings.CutPrefix(r.URL.Path, verify)
		if ok && !h.NoForwardAuth && (below == "" || below[0] == '/') {
			h.verify(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// OwnHosts returns a handler that refuses requests for a host that is none of the site's, if the site has several, and
// passes all others to next. Routes in any are called by programs, at any host.
func (h *Handler) OwnHosts(next http.Handler, any ...string) http.Handler {
	if !h.Site.SeveralHosts() {
		return next
	}
	open := map[string]bool{}
	// These two find the host by themselves.
	if any = append(any, "verify"); h.OAuth2ProxyPaths {
		any = append(any, "auth")
	}
	for _, route := range any {
		open[h.Site.Path(route)] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if open[r.URL.Path] {
			next.ServeHTTP(w, r)
			return
		}
		r, err := h.locateOwn(r)
		if err != nil {
			h.deny(w, r, r.Method, err, nil)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// requestState is the state that a request carries on its way to the app.
type requestState struct {
	session *session.Session // nil if nobody is signed in
	// In the middleware, for [UntilEnded]:
	handler *Handler
	bearer  session.Bearer // set if StreamsAreUse
	// In the proxy:
	stream   *stream
	identity http.Header   // the identity headers
	public   bool          // the path does not need a session
	tabs     TabMode       // set if pages of this person are to have the script for open tabs
	request  *http.Request // as it came from the client; set with tabs
}

type contextKey struct{}

func stateFrom(ctx context.Context) requestState {
	v, _ := ctx.Value(contextKey{}).(requestState)
	return v
}

// SessionFrom returns the session of a request that passed through [Handler.Require] or [Handler.Optional], or nil if
// nobody is signed in.
func SessionFrom(ctx context.Context) *session.Session { return stateFrom(ctx).session }

// newState returns the state that the middleware puts into the context of a request.
func (h *Handler) newState(r *http.Request, s *session.Session) requestState {
	v := requestState{session: s, handler: h}
	if h.StreamsAreUse && !ofToken(s) {
		v.bearer, _ = h.Cookie.Read(r)
	}
	return v
}

// errNotSignedIn means that the request needs a sign-in.
var errNotSignedIn = errors.New("nobody is signed in")

// decide makes the decision for every entry point: may the sender of r, identified by its access token or else by its
// cookie, send method to target (path and query as they will be sent to the app)? A nil error lets the request through,
// with the session and the rule that covers the request, if any; on a public path the session may be nil. Otherwise the
// error is [errNotSignedIn] or a [web.Failure]: 400 for an ambiguous path, 403 if the policy does not allow it, 503 if
// the store fails.
func (h *Handler) decide(r *http.Request, a asked) (*session.Session, *rule, error) {
	method, target := a.method, a.target
	rule, err := h.Policy.find(r, h.here(r).Name, method, target)
	if err != nil {
		return nil, nil, err
	}
	a.public = rule != nil && rule.Public
	s, err := h.get(r, a)
	switch {
	case err != nil:
		return nil, rule, err
	case s == nil && rule != nil && rule.Public:
		return nil, rule, nil
	case s == nil:
		return nil, rule, errNotSignedIn
	case rule != nil:
		back := target
		if target == r.URL.EscapedPath() { // this request, not one that a proxy asks about
			back = requestTarget(r)
		}
		if err := h.allowedFor(r, rule, s, back); err != nil {
			return s, rule, forbidden(rule, s, err)
		}
		return s, rule, forbidden(rule, s, h.checkStepUp(rule, s, method, target, back))
	}
	return s, nil, nil
}

// get returns the session of a request, nil if nobody is signed in, or an error if the store fails or an access token
// is refused.
func (h *Handler) get(r *http.Request, a asked) (*session.Session, error) {
	if s, has, err := h.byToken(r, a); has || err != nil {
		return s, err
	}
	return h.byCookie(r)
}

// byCookie is get for a request of a browser.
func (h *Handler) byCookie(r *http.Request) (*session.Session, error) {
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

// Require passes a request to next if the user is signed in and the policy allows it. Otherwise a browser that opens a
// page is redirected to sign in, and returns to this URL; any other request is answered 401. If the store fails, the
// answer is 503 and the cookie is left alone. next gets the session with [SessionFrom].
func (h *Handler) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := h.begins()
		w, r, end := h.Site.Trace(w, r, "require")
		defer end()
		r, err := h.locateOwn(r)
		if err == nil {
			err = h.checkOrigin(r, "")
		}
		var s *session.Session
		var by *rule
		if err == nil {
			s, by, err = h.decide(r, h.own(r))
		}
		h.checked(r, "require", began, s, err)
		if err != nil {
			h.deny(w, r, r.Method, err, func() string { return h.loginURL(r, requestTarget(r)) })
			return
		}
		r = h.logAllowed(r, "require", r.Method, r.URL.EscapedPath(), s, by)
		h.presetCaching(w, s != nil)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, h.newState(r, s))))
	})
}

// own is a request to this gateway itself.
func (h *Handler) own(r *http.Request) asked {
	return asked{method: r.Method, target: r.URL.EscapedPath(), origin: h.here(r).Origin}
}

// Optional passes every request to next, without the policy; [SessionFrom] returns nil if nobody is signed in. An
// access token that is not good is as good as none, and so is one that is no JWT: it may be the app's own, and the
// provider is not asked about it. If the store fails, the answer is 503.
func (h *Handler) Optional(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, err := h.locateOwn(r)
		if err == nil {
			err = h.checkOrigin(r, "")
		}
		var s *session.Session
		if err == nil {
			a := h.own(r)
			a.optional = true
			s, err = h.get(r, a)
		}
		if err != nil {
			h.deny(w, r, r.Method, err, nil)
			return
		}
		h.presetCaching(w, s != nil)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, h.newState(r, s))))
	})
}

// deny answers a request that is not let through. If a sign-in is missing, a browser that opens a page is redirected to
// the URL that login returns. Other requests, or all if login is nil, are answered 401, which is not logged because it
// is frequent.
func (h *Handler) deny(w http.ResponseWriter, r *http.Request, method string, err error, login func() string) {
	if c, ok := errors.AsType[*challenged](err); ok { // a program, whatever it accepts
		w.Header().Set("WWW-Authenticate", c.challenge)
		h.Site.JSON(func(http.ResponseWriter, *http.Request) error { return c.Failure }).ServeHTTP(w, r)
		return
	}
	page := expectsPage(r)
	stepUp, isStepUp := errors.AsType[stepUpNeeded](err)
	if isStepUp && login != nil {
		plain := login
		login = func() string { return stepUp.link(plain()) }
	}
	answer := func(w http.ResponseWriter, r *http.Request) error {
		switch {
		case !errors.Is(err, errNotSignedIn):
			return err
		case wantsPage(r, method) && login != nil:
			status := http.StatusSeeOther
			if strings.HasPrefix(r.URL.Path, h.Site.Path("verify")) {
				status = http.StatusFound // every proxy supports this one
			}
			http.Redirect(w, r, login(), status)
			return nil
		}
		switch {
		case isStepUp:
			w.Header().Set("WWW-Authenticate", stepUp.challenge())
		case h.Bearer != nil: // RFC 6750 §3: without an error code, since nothing was tried
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		switch {
		case page && login != nil && method != http.MethodGet && method != http.MethodHead:
			to := login()
			origin := h.here(r).Origin
			if from, ok := strings.CutPrefix(r.Header.Get("Referer"), origin+"/"); ok { // the page with the form
				to = h.absolute(r, h.loginURL(r, "/"+from))
				if isStepUp {
					to = stepUp.link(to)
				}
			}
			if isStepUp {
				h.Site.Render(w, r, http.StatusUnauthorized, web.Message{Title: "This needs another sign-in",
					Text: "What you sent did not arrive: it asks for a sign-in that is stronger or newer than yours." +
						"\n\nYour browser may still have it. Go back to copy it before you sign in.",
					Actions: []web.Action{{Label: "Sign in", Href: to}}})
				return nil
			}
			h.Site.Render(w, r, http.StatusUnauthorized, web.Message{Title: "You are not signed in",
				Text: "What you sent did not arrive: your session has ended, or there was none.\n\nYour browser " +
					"may still have it. Go back to copy it before you sign in.",
				Actions: []web.Action{{Label: "Sign in", Href: to}}})
			return nil
		}
		if isStepUp { // RFC 9470 §3
			web.WriteJSON(w, http.StatusUnauthorized, map[string]string{
				"error":             "insufficient_user_authentication",
				"error_description": "A stronger or newer sign-in is needed.",
			})
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

// logAllowed logs, at debug, a request that is let through: entry point, method, path, session and rule. The subject
// and the session are missing if nobody is signed in, the rule if none covers the path. It returns the request with the
// request ID of that line, which later lines use too.
func (h *Handler) logAllowed(r *http.Request, surface, method, target string, s *session.Session, by *rule,
) *http.Request {
	if !cmp.Or(h.Site.Log, slog.Default()).Enabled(r.Context(), slog.LevelDebug) {
		return r
	}
	r = h.Site.Identify(r)
	attrs := []slog.Attr{slog.String("surface", surface)}
	if target != r.URL.EscapedPath() { // asked about by a proxy
		attrs = append(attrs, slog.String("asked_method", method), slog.String("asked_path", pathAlone(target)))
	}
	if s != nil {
		attrs = append(attrs, slog.String("session", s.Key.Handle()), slog.String("provider", s.Provider),
			slog.String("sub", s.Subject))
	}
	if by != nil {
		attrs = append(attrs, slog.Int("rule", by.number))
	}
	h.Site.Event(r, slog.LevelDebug, "request_allowed", attrs...)
	return r
}

// pathAlone removes the query, which may hold a secret.
func pathAlone(target string) string {
	path, _, _ := strings.Cut(target, "?")
	return path
}

func (h *Handler) loginURL(r *http.Request, returnTo string) string {
	return h.loginLink(r, h.returnTo(r, returnTo), url.Values{})
}

// loginLink returns the address that starts a sign-in, for a page at the host of r. more are further parameters.
func (h *Handler) loginLink(r *http.Request, path string, more url.Values) string {
	host := h.here(r)
	more.Set("return_to", h.Site.ReturnLink(host, path))
	return h.Site.Link(host, "login") + "?" + more.Encode()
}

// absolute returns the URL of a link on a page at the host of r.
func (h *Handler) absolute(r *http.Request, link string) string {
	if strings.HasPrefix(link, "/") {
		return h.here(r).Origin + link
	}
	return link
}

// signOut is the action to sign out, on a page at the host of r.
func (h *Handler) signOut(r *http.Request) web.Action {
	to := h.Site.Link(h.here(r), "logout")
	return web.Action{Label: "Sign out", Href: to, Post: strings.HasPrefix(to, "/")}
}

// returnTo returns the path and query to go to after signing in: raw if it is valid, and otherwise the first page.
func (h *Handler) returnTo(r *http.Request, raw string) string {
	to, err := web.ParseReturnTo(raw)
	if err != nil {
		return h.returnLost(r, raw, err)
	}
	return to
}

// returnLost logs that a person will not get to the page that they came for, and returns the first page.
func (h *Handler) returnLost(r *http.Request, raw string, err error) string {
	if raw != "" { // a proxy may omit it
		h.Site.Event(r, slog.LevelInfo, "return_to_dropped", slog.String("error", err.Error()))
	}
	return h.Site.First()
}

// requestTarget returns the path and query of a request exactly as the browser sent them, even if a router in front has
// removed a prefix.
func requestTarget(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		return r.RequestURI
	}
	return r.URL.RequestURI()
}

// wantsPage reports whether a browser is opening a page, and not a script, a form post, an API client or a prefetch:
// for these a redirect to a sign-in page is useless, or loses what they sent.
func wantsPage(r *http.Request, method string) bool {
	return (method == http.MethodGet || method == http.MethodHead) && !web.IsPrefetch(r) && expectsPage(r)
}

// expectsPage reports whether a browser shows the answer as a page. Sec-Fetch-Mode is decisive if it is present.
// X-Requested-With marks a script only with the value XMLHttpRequest: an Android WebView sends the name of its app.
func expectsPage(r *http.Request) bool {
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return !strings.EqualFold(r.Header.Get("X-Requested-With"), "XMLHttpRequest") &&
		acceptsHTML(r.Header["Accept"])
}

// acceptsHTML reports whether an Accept header names text/html with a weight above 0 (RFC 9110 §12.4.2).
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
