package gateway

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"example.com/curfew/session"
	"example.com/curfew/web"
)

// verify answers a proxy that asks before it lets a request through:
//
//   - 200, always that, with the identity in headers;
//   - 401 without a Location when somebody has to sign in; or, for a page and with ?redirect=true, a redirect to sign
//     in that remembers the original URL;
//   - 403 when the policy forbids it, or it is for a host that is not ours; 400 when it cannot be judged, 503 when the
//     store cannot say.
//
// Refusals for want of a session are not logged: every page of a signed-out browser makes some.
func (h *Handler) verify(w http.ResponseWriter, r *http.Request) {
	o, err := h.original(r)
	var s *session.Session
	var by *rule
	if err == nil {
		err = h.checkHost(o.hosts...)
	}
	if err == nil {
		err = h.checkOrigin(r, "")
	}
	if err == nil {
		s, by, err = h.decide(r, o.method, o.target)
	}
	told := make(http.Header, 8)
	if err == nil && s != nil {
		app, may := h.asked(r)
		err = h.identify(r, told, s, app, true, may && h.Site.FromTrustedProxy(r))
	}
	if err == nil {
		h.logAllowed(r, "verify", o.method, o.target, s, by)
		header := w.Header()
		maps.Copy(header, told)
		header["Cache-Control"] = []string{"no-store"}
		return
	}
	var login func() string
	if o.redirect {
		login = func() string { return h.Site.Origin() + h.loginURL(r, o.target) }
	}
	h.deny(w, r, o.method, err, login)
}

// original is the request that a proxy asks about.
type original struct {
	method   string
	target   string   // path and query as the browser sent them; empty when nobody said
	redirect bool     // the proxy passes a redirect on to the browser
	hosts    []string // for which it is, if somebody said; all must be ours
}

// original reads what a trusted proxy says of the request that it asks about. What anybody else says is not looked at.
//
// A proxy says it in headers (X-Forwarded-* as Traefik and Caddy do, X-Original-* as nginx is taught to), or, as Envoy
// does, by asking for the original path below ours, with the original method. A client can send these headers too, and
// some proxies pass them on beside their own: when two do not agree none is believed. Where a policy depends on what
// nobody said, nothing is let through.
func (h *Handler) original(r *http.Request) (original, error) {
	o := original{method: r.Method}
	if below, ok := strings.CutPrefix(r.URL.EscapedPath(), h.Site.Path("verify/")); ok {
		o.target, o.redirect = "/"+below, true
		o.hosts = []string{r.Host} // which Envoy passes on as it came
		if r.URL.RawQuery != "" {
			o.target += "?" + r.URL.RawQuery
		}
		return o, nil
	}
	o.redirect = r.URL.RawQuery == "redirect=true" || r.URL.RawQuery != "" && r.URL.Query().Get("redirect") == "true"
	var method string
	if h.Site.FromTrustedProxy(r) {
		var err1, err2 error
		uris := slices.Concat(r.Header["X-Forwarded-Uri"], r.Header["X-Original-Uri"], r.Header["X-Original-Url"])
		o.hosts = append(hostsIn(r.Header["X-Forwarded-Host"]), hostsOf(uris...)...)
		method, err1 = one(r.Header["X-Forwarded-Method"], r.Header["X-Original-Method"])
		o.target, err2 = one(uris)
		if err := errors.Join(err1, err2); err != nil {
			return o, web.Fail(http.StatusBadRequest, "It is not clear which request this is about.", err)
		}
	}
	if method != "" {
		o.method = method
	}
	if (len(h.Policy.rules) > 0 || h.Policy.deny) && (o.target == "" || method == "" && h.Policy.byMethods) {
		return o, web.Fail(http.StatusBadRequest, "It is not known which request this is about.",
			errors.New("the policy needs the original request: have the proxy send X-Forwarded-Uri and "+
				"X-Forwarded-Method, and name it among the trusted proxies"))
	}
	return o, nil
}

// one returns the one value of several headers that say the same thing; those that are empty say nothing. A URL is cut
// to its path and query.
func one(headers ...[]string) (string, error) {
	var found string
	for _, values := range headers {
		for _, v := range values {
			if rest, ok := cutScheme(v); ok {
				// Without a path what is left begins with `?`, which is none: a slash in the query begins no path.
				v = cmp.Or(pathOf(rest), rest)
			}
			if v == "" { // it says nothing
				continue
			}
			if found != "" && v != found {
				return "", errors.New("the headers that name the original request do not agree: have the proxy set " +
					"or remove each of them")
			}
			found = v
		}
	}
	return found, nil
}

// Answer says what is to become of a request.
type Answer struct {
	Allowed bool
	Header  http.Header // when allowed: to set on the request; when not: of the response
	Remove  []string    // when allowed: headers of the request that the app must not see
	Status  int         // when not allowed: of the response
	Body    []byte
}

// Ask decides about a request that somebody else holds, as /auth/verify does, for proxies that speak another protocol.
// Method, URL, host, headers and remote address of r are those of the request itself, as the proxy received it. It is
// on its way to [Handler.App]. One for a host that is neither the site's nor a route's is refused with 403.
func (h *Handler) Decide(r *http.Request) Answer { return h.ask(r, h.App, nil) }

// AskFor is [Handler.Decide] for a request on its way to another app. One that is not configured gets nothing to see:
// the answer is 500, and the log says which it was.
func (h *Handler) DecideFor(r *http.Request, app string) Answer {
	if h.knows(app) {
		return h.ask(r, app, nil)
	}
	return h.ask(r, "", web.Fail(http.StatusInternalServerError,
		"The proxy in front of this site asks for an app that is not configured.",
		fmt.Errorf("the proxy asks for the app %q, and there is none of that name", web.Clip(app))))
}

// ask is Ask, unless it is known already why not.
func (h *Handler) ask(r *http.Request, app string, err error) Answer {
	a := Answer{Allowed: true, Header: http.Header{}}
	var s *session.Session
	var by *rule
	if err == nil {
		err = h.checkHost(r.Host)
	}
	if err == nil {
		err = h.checkOrigin(r, "")
	}
	if err == nil {
		s, by, err = h.decide(r, r.Method, r.URL.EscapedPath())
	}
	if err == nil && s != nil {
		err = h.identify(r, a.Header, s, app, true, true)
	}
	if err != nil {
		w := &held{header: http.Header{}, status: http.StatusOK}
		h.deny(w, r, r.Method, err, func() string { return h.Site.Origin() + h.loginURL(r, wanted(r)) })
		return Answer{Header: w.header, Status: w.status, Body: w.body.Bytes()}
	}
	h.logAllowed(r, "ext_authz", r.Method, r.URL.EscapedPath(), s, by)
	opens := hasToken(r.Header["Upgrade"], "websocket") // the rest of its form is the proxy's affair
	for name := range r.Header {
		if name == "Http2-Settings" || name == "Upgrade" && !opens {
			a.Remove = append(a.Remove, name)
		}
		if h.Identity.lookalike(name) && a.Header[name] == nil && !forwarding(name) {
			a.Remove = append(a.Remove, name)
		}
	}
	if r.Header["Cookie"] != nil {
		rest := http.Header{"Cookie": r.Header["Cookie"]}
		stripCookies(rest, h.Cookie)
		if kept := rest["Cookie"]; len(kept) > 0 {
			a.Header["Cookie"] = []string{strings.Join(kept, "; ")}
		} else {
			a.Remove = append(a.Remove, "Cookie")
		}
	}
	return a
}

// forwarding says whether a header is one that the proxy itself sets, and whose truth is its own affair.
func forwarding(name string) bool {
	switch name {
	case "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port":
		return true
	}
	return false
}

// held keeps an answer that is sent by other means.
type held struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *held) Header() http.Header         { return h.header }
func (h *held) WriteHeader(status int)      { h.status = status }
func (h *held) Write(p []byte) (int, error) { return h.body.Write(p) }

// asked returns the app that a forward-auth asks for, with ?app=CLIENT_ID where several are behind one gateway, and
// whether an assertion or an access token may be told. Below our path, and in any other spelling of it, the query is
// the client's and names nothing; and a proxy that keeps the one path to itself may pass these on for a browser, which
// would get the assertion to see.
func (h *Handler) asked(r *http.Request) (app string, may bool) {
	if r.URL.EscapedPath() != h.Site.Path("verify") {
		return h.App, false
	}
	if r.URL.RawQuery == "" {
		return h.App, true
	}
	q := r.URL.Query()
	if !q.Has("app") {
		return h.App, true
	}
	if app := q.Get("app"); h.knows(app) {
		return app, true
	}
	return "", false
}

// knows says whether there is an app of this client ID.
func (h *Handler) knows(app string) bool {
	return app != "" && (app == h.App || slices.Contains(h.Apps, app))
}
