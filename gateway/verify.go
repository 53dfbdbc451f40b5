package gateway

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"example.com/curfew/session"
	"example.com/curfew/web"
)

// verify answers a proxy that asks before it lets a request through (forward-auth):
//
//   - 200 if it may pass, with the identity in headers;
//   - 401 without a Location if a sign-in is missing; or, for a page and with ?redirect=true, a redirect to sign in
//     that remembers the original URL;
//   - 403 if the policy forbids it, or its host is unknown; 400 if the request is ambiguous; 503 if the store fails.
//
// A 401 is not logged: every page of a signed-out browser causes some.
func (h *Handler) verify(w http.ResponseWriter, r *http.Request) { h.answer(w, r, http.StatusOK, nil) }

// answer is verify with another status for a request that may pass, and a rule that the session has to meet besides.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, ok int, besides *rule) {
	began := h.begins()
	o, err := h.original(r)
	var s *session.Session
	var by *rule
	if err == nil {
		err = notForwarded(o.method)
	}
	if err == nil {
		r, err = h.locate(r, o.hosts)
	}
	if err == nil {
		err = h.checkOrigin(r, "")
	}
	if err == nil {
		a := asked{method: o.method, target: o.target}
		if o.target != "" && o.certain {
			a.origin = h.originOf(r, o.hosts)
		}
		s, by, err = h.decide(r, a)
	}
	switch {
	case err != nil || besides == nil:
	case s == nil: // also on a public path: it is not known whether the person meets the rule
		err = errNotSignedIn
	default:
		err = forbidden(besides, s, h.allowed(r, besides, s, o.target))
	}
	header := w.Header()
	if err == nil && s != nil {
		app, may := h.requestedApp(r)
		if err = h.identify(r, header, s, app, true, may && h.Site.FromTrustedProxy(r)); err != nil {
			h.Identity.strip(header)
		}
	}
	h.checked(r, "verify", began, s, err)
	if err == nil {
		h.logAllowed(r, "verify", o.method, o.target, s, by)
		header["Cache-Control"] = []string{"no-store"}
		if ok != http.StatusOK { // which net/http writes by itself
			w.WriteHeader(ok)
		}
		return
	}
	var login func() string
	if o.redirect {
		login = func() string { return h.absolute(r, h.loginURL(r, o.target)) }
	}
	h.deny(w, r, o.method, err, login)
}

// original is the request that a proxy asks about.
type original struct {
	method   string
	target   string   // path and query as the browser sent them; "" if unknown
	redirect bool     // the proxy passes redirects on to the browser
	hosts    []string // the hosts named; all must be known
	certain  bool     // method is that of the original request
}

// original returns the request that a trusted proxy asks about. Headers from other senders are ignored.
//
// The proxy names the request in headers (X-Forwarded-* from Traefik and Caddy, X-Original-* from nginx), or, like
// Envoy, by requesting the original path below /auth/verify with the original method. A client can send these headers
// too, and some proxies pass them on beside their own: if two do not agree, the request is refused. If the policy
// depends on a value that is missing, the request is refused too.
func (h *Handler) original(r *http.Request) (original, error) {
	o := original{method: r.Method}
	if below, ok := strings.CutPrefix(sentPath(r.URL), h.Site.Path("verify/")); ok {
		o.target, o.redirect, o.certain = "/"+below, true, true
		o.hosts = []string{r.Host} // Envoy passes it on unchanged
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
		o.hosts = append(splitHosts(r.Header["X-Forwarded-Host"]), urlHosts(uris...)...)
		method, err1 = single(r.Header["X-Forwarded-Method"], r.Header["X-Original-Method"])
		o.target, err2 = single(uris)
		if err := errors.Join(err1, err2); err != nil {
			return o, web.Fail(http.StatusBadRequest, "It is not clear which request this is about.", err)
		}
	}
	if method != "" {
		o.method, o.certain = method, true
	}
	if (len(h.Policy.rules) > 0 || h.Policy.denyRest) && (o.target == "" || method == "" && h.Policy.byMethods) {
		return o, web.Fail(http.StatusBadRequest, "It is not known which request this is about.",
			errors.New("the policy needs the original request: have the proxy send X-Forwarded-Uri and "+
				"X-Forwarded-Method, and name it among the trusted proxies"))
	}
	return o, nil
}

// single returns the common value of several headers; empty ones are ignored. A URL is cut to its path and query.
func single(headers ...[]string) (string, error) {
	var found string
	for _, values := range headers {
		for _, v := range values {
			if rest, ok := cutScheme(v); ok {
				// Without a path the rest begins with `?`: a slash in the query does not begin a path.
				v = cmp.Or(pathOf(rest), rest)
			}
			if v == "" {
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

// Answer is the decision of [Handler.Decide] about a request.
type Answer struct {
	Allowed bool
	Header  http.Header // if allowed: to set on the request; otherwise: of the response
	Remove  []string    // if allowed: request headers that the app must not see
	Status  int         // if not allowed: of the response
	Body    []byte
}

// Decide makes the decision of /auth/verify for proxies that use another protocol. Method, URL, host, headers and
// remote address of r are those of the request as the proxy received it. The app is [Handler.App]. A request for a host
// that is neither the site's nor a route's is refused with 403.
func (h *Handler) Decide(r *http.Request) Answer { return h.ask(r, h.App, nil) }

// DecideFor is [Handler.Decide] for a request to another app. If that app is not configured, the answer is 500, and the
// log names it.
func (h *Handler) DecideFor(r *http.Request, app string) Answer {
	if h.knowsApp(app) {
		return h.ask(r, app, nil)
	}
	return h.ask(r, "", web.Fail(http.StatusInternalServerError,
		"The proxy in front of this site asks for an app that is not configured.",
		fmt.Errorf("the proxy asks for the app %q, which is not configured", web.Clip(app))))
}

// ask decides about a request; with an err it only writes the answer.
func (h *Handler) ask(r *http.Request, app string, err error) Answer {
	began := h.begins()
	_, r, end := h.Site.Trace(nil, r, "ext_authz")
	defer end()
	a := Answer{Allowed: true, Header: http.Header{}}
	var s *session.Session
	var by *rule
	if err == nil {
		err = notForwarded(r.Method)
	}
	if err == nil {
		r, err = h.locateAsReceived(r)
	}
	if err == nil {
		err = h.checkOrigin(r, "")
	}
	if err == nil {
		s, by, err = h.decide(r, asked{method: r.Method, target: sentPath(r.URL),
			origin: h.originOf(r, []string{r.Host}), fromProxy: true})
	}
	if err == nil && s != nil {
		err = h.identify(r, a.Header, s, app, true, true)
	}
	h.checked(r, "ext_authz", began, s, err)
	if err != nil {
		w := &recorder{header: http.Header{}, status: http.StatusOK}
		h.deny(w, r, r.Method, err, func() string { return h.absolute(r, h.loginURL(r, requestTarget(r))) })
		return Answer{Header: w.header, Status: w.status, Body: w.body.Bytes()}
	}
	h.logAllowed(r, "ext_authz", r.Method, r.URL.EscapedPath(), s, by)
	opens := hasToken(r.Header["Upgrade"], "websocket") // the proxy checks the rest of the handshake
	for name := range r.Header {
		if name == "Http2-Settings" || name == "Upgrade" && !opens {
			a.Remove = append(a.Remove, name)
		}
		if h.Identity.lookalike(name) && a.Header[name] == nil && !forwarding(name) {
			a.Remove = append(a.Remove, name)
		}
	}
	if ofToken(s) {
		for _, name := range []string{"Authorization", "Dpop"} {
			if r.Header[name] != nil && a.Header[name] == nil {
				a.Remove = append(a.Remove, name)
			}
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

// forwarding reports whether a header is one that the proxy itself sets and is responsible for.
func forwarding(name string) bool {
	switch name {
	case "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port":
		return true
	}
	return false
}

// recorder keeps an answer that is sent by other means.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *recorder) Header() http.Header         { return h.header }
func (h *recorder) WriteHeader(status int)      { h.status = status }
func (h *recorder) Write(p []byte) (int, error) { return h.body.Write(p) }

// requestedApp returns the app that a forward-auth request is for, with ?app=CLIENT_ID where several share one gateway,
// and whether an assertion or an access token may be returned. Below the path, and in any other spelling of it, the
// query comes from the client and is ignored; and a proxy that protects only the exact path may pass these on for a
// browser, which would see the assertion.
func (h *Handler) requestedApp(r *http.Request) (app string, may bool) {
	if path := r.URL.EscapedPath(); path != h.Site.Path("verify") &&
		!(h.OAuth2ProxyPaths && path == h.Site.Path("auth")) {
		return h.App, false
	}
	if r.URL.RawQuery == "" {
		return h.App, true
	}
	q := r.URL.Query()
	if !q.Has("app") {
		return h.App, true
	}
	if app := q.Get("app"); h.knowsApp(app) {
		return app, true
	}
	return "", false
}

// knowsApp reports whether an app with this client ID is configured.
func (h *Handler) knowsApp(app string) bool {
	return app != "" && (app == h.App || slices.Contains(h.Apps, app))
}
