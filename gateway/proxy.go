package gateway

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"

	"example.com/curfew/internal/span"
	"example.com/curfew/session"
	"example.com/curfew/web"
)

// Proxy returns a handler that passes requests of signed-in users to upstream, with their identity in headers, and asks
// others to sign in. The path is passed on unchanged. The app sees the external host, never one from the client, and
// neither Curfew's cookies nor any header that could be taken for the gateway's.
//
// It panics if upstream is not an http, https or h2c URL; [Handler.Route] returns an error instead.
func (h *Handler) Proxy(upstream *url.URL) http.Handler {
	router, err := h.Route(Route{Upstream: Upstream{URL: upstream}})
	if err != nil {
		panic(err)
	}
	return router
}

// ServeHTTP forwards a request:
//
//  1. find its route; an ambiguous path is refused;
//  2. decide whether it may pass;
//  3. attach it to its session, so that it ends with it (see stream);
//  4. forward it to the app.
func (p *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := p.gateway
	w, done := web.Steady(w)
	defer done()
	began := h.begins()
	w, r, end := h.Site.Trace(w, r, "proxy")
	defer end()
	if err := notForwarded(r.Method); err != nil {
		h.checked(r, "proxy", began, nil, err)
		h.deny(w, r, r.Method, err, nil)
		return
	}
	r, err := h.locateOwn(r)
	var to *route
	if err == nil {
		to, err = p.find(r)
	}
	if err == nil {
		err = h.checkOrigin(r, to.ownOrigin())
	}
	var v requestState
	var by *rule
	if err == nil {
		a := h.own(r)
		a.origin = cmp.Or(to.ownOrigin(), a.origin)
		v.session, by, err = h.decide(r, a)
	}
	if err == nil && v.session != nil && to != nil {
		v.identity = make(http.Header, 8)
		err = h.identify(r, v.identity, v.session, cmp.Or(to.App, h.App), to.named, true)
	}
	release := func() {}
	switch {
	case err != nil:
	case to == nil:
		err = &web.Failure{Status: http.StatusNotFound, Message: web.Message{
			Text: "There is nothing at this address.", Actions: h.nextActions(r, v.session, false),
		}}
	default:
		release, err = h.slots.acquire(h.MaxOpen, v.session == nil)
	}
	h.checked(r, "proxy", began, v.session, err)
	if err != nil { // a sign-in is offered only where that is missing
		h.deny(w, r, r.Method, err, func() string { return h.loginURL(r, requestTarget(r)) })
		return
	}
	defer release()
	r = h.logAllowed(r, "proxy", r.Method, r.URL.EscapedPath(), v.session, by)
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	if v.session != nil {
		v.stream = h.newStream(v.session, r, cancel)
		defer v.stream.release()
	}
	if v.session == nil {
		r = limitSlowBody(w, r)
	}
	v.public = by != nil && by.Public
	if v.tabs = h.tabMode(r, to, v); v.tabs != "" {
		v.request = r
	}
	opens := opensWebSocket(r)
	r = withoutUpgrade(r, opens)
	w = &upgradeWriter{ResponseWriter: w, webSocket: opens, stream: v.stream}
	to.proxy.ServeHTTP(w, r.WithContext(context.WithValue(ctx, contextKey{}, v)))
}

// notForwarded refuses requests that are not forwarded, whatever their session.
func notForwarded(method string) error {
	switch strings.ToUpper(method) {
	case http.MethodConnect: // this is not a forward proxy, and a tunnel would not end with a session
		return web.Fail(http.StatusNotImplemented, "This gateway does not open tunnels.", nil)
	case http.MethodTrace: // the answer would show what only the app may see (RFC 9110 §9.3.8)
		return web.Fail(http.StatusNotImplemented, "This gateway does not forward TRACE.", nil)
	}
	return nil
}

// forward returns the reverse proxy of one route.
func (h *Handler) forward(route Route, transport http.RoundTripper, pool httputil.BufferPool) http.Handler {
	to := *route.Upstream.URL
	if to.Scheme == "h2c" {
		to.Scheme = "http"
	}
	hostOf := func(r *http.Request) string {
		if route.Host == "" || h.Site.SeveralHosts() {
			return h.here(r).Addr()
		}
		return route.Host
	}
	return &httputil.ReverseProxy{
		Transport:  transport,
		BufferPool: pool,
		Rewrite: func(r *httputil.ProxyRequest) {
			// Hop-by-hop headers have been removed, so `Connection: X-Auth-Subject` cannot remove what is set here.
			h.Identity.strip(r.Out.Header)
			stripCookies(r.Out.Header, h.Cookie)
			if ofToken(stateFrom(r.In.Context()).session) { // identity headers may pass it on
				r.Out.Header.Del("Authorization")
				r.Out.Header.Del("Dpop")
			}
			r.Out.Trailer = nil // trailers arrive after the checks
			r.SetURL(&to)
			r.Out.URL.RawQuery = r.In.URL.RawQuery // the gateway does not use it, so it is passed on as it is
			host := hostOf(r.In)
			r.Out.Host = host
			if client := h.Site.ClientAddr(r.In); client.IsValid() {
				r.Out.Header["X-Forwarded-For"] = []string{client.String()}
			}
			r.Out.Header["X-Forwarded-Host"] = []string{host}
			r.Out.Header["X-Forwarded-Proto"] = []string{h.Site.URL.Scheme}
			v := stateFrom(r.In.Context())
			maps.Copy(r.Out.Header, v.identity)
			if v.tabs != "" && opensPage(r.In) {
				r.Out.Header.Set("Accept-Encoding", "identity")
				// What the browser has may be without the script: from before, or from a fetch.
				for _, name := range [...]string{"If-None-Match", "If-Modified-Since", "If-Range", "Range"} {
					r.Out.Header.Del(name)
				}
			}
			if h.Site.Tracer != nil {
				span.Inject(r.In.Context(), r.Out.Header) // in place of what the client sent
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode == http.StatusSwitchingProtocols {
				if err := checkSwitch(r); err != nil {
					return err // the connection is closed
				}
			}
			stripSetCookies(r.Header, h.Cookie)
			v := stateFrom(r.Request.Context())
			if r.StatusCode != http.StatusSwitchingProtocols {
				r.Body = &trailerFilter{r.Body, r, h.Cookie}
				if h.addTabScript(r, v) && v.public {
					// What the app says of its page does not hold for one with the name of a session: another person would
					// be told that this session has ended, and so would this one after the next sign-in.
					v.public = false
					r.Header.Add("Cache-Control", "no-cache")
				}
				h.limitCaching(r.Header, v)
			}
			if strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") {
				v.stream.markLasting()
			}
			return nil
		},
		ErrorHandler: h.upstreamFailed,
		ErrorLog:     log.New(errorLog{cmp.Or(h.Site.Log, slog.Default())}, "", 0),
	}
}

// upstreamFailed answers a request when the app did not.
func (h *Handler) upstreamFailed(w http.ResponseWriter, r *http.Request, err error) {
	status, say := http.StatusBadGateway, "The app behind this gateway does not answer. Please try again in a moment."
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(context.Cause(r.Context()), ErrEnded):
		h.deny(w, r, r.Method, errNotSignedIn, nil) // it ended before the app answered
		return
	case isSlow(r):
		status, say, err = http.StatusRequestTimeout, "The body of the request did not come in time.", errSlow
	case errors.Is(context.Cause(r.Context()), errDraining):
		status, say, err = http.StatusServiceUnavailable,
			"This gateway is being restarted. Please try again in a moment.", errDraining
	case errors.Is(err, context.Canceled):
		panic(http.ErrAbortHandler) // the client went away
	case errors.Is(err, errProtocol):
		say = "The app behind this gateway gave an answer that cannot be passed on."
	case isNet && timeout.Timeout():
		status, say = http.StatusGatewayTimeout,
			"The app behind this gateway takes too long to answer. Please try again in a moment."
	}
	h.deny(w, r, r.Method, &web.Failure{Status: status, Err: err,
		Message: web.Message{Text: say, Actions: h.nextActions(r, stateFrom(r.Context()).session, true)}}, nil)
}

// nextActions are the actions on a page that says that the app has no answer: try again, if that can help and loses
// nothing that the user sent; go to the first page; sign out.
func (h *Handler) nextActions(r *http.Request, s *session.Session, again bool) []web.Action {
	var all []web.Action
	to, err := web.ParseReturnTo(requestTarget(r))
	if err == nil && again && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		all = append(all, web.Action{Label: "Try again", Href: to})
	}
	if to != h.Site.First() {
		all = append(all, web.Action{Label: "Go to the first page", Href: h.Site.First()})
	}
	if s != nil {
		all = append(all, h.signOut(r))
	}
	return all
}

// errorLog logs answers that break off, except those that the gateway or the client ended.
type errorLog struct{ log *slog.Logger }

func (b errorLog) Write(line []byte) (int, error) {
	if !bytes.Contains(line, []byte("context canceled")) {
		b.log.Warn("an answer of the app broke off", "event", "upstream_broke", "error",
			web.Clip(strings.TrimSpace(string(line))))
	}
	return len(line), nil
}

// buffers is the pool of the buffers that answers are copied with.
type buffers struct{ pool sync.Pool }

const bufferSize = 16 << 10

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

func (b *buffers) Get() []byte  { return b.pool.Get().(*[bufferSize]byte)[:] }
func (b *buffers) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }
