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

	"example.com/curfew/web"
)

// Proxy passes requests of people who are signed in on to upstream, with their identity in headers, and asks the others
// to sign in. The path is passed on as it came. The app sees the external host, never one that the client made up, and
// neither our cookies nor any header that could be taken for our word.
//
// It panics if upstream is no http, https or h2c URL; [Handler.Route] returns that.
func (h *Handler) Proxy(upstream *url.URL) http.Handler {
	router, err := h.Route(Route{Upstream: Upstream{URL: upstream}})
	if err != nil {
		panic(err)
	}
	return router
}

// ServeHTTP passes a request on:
//
//  1. its route is found: a path that means two things has none;
//  2. it is decided whether it is let through;
//  3. it is tied to its session, so that it ends when that does (see stream);
//  4. it goes to the app.
func (p *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := p.gateway
	w, done := web.Steady(w)
	defer done()
	if r.Method == http.MethodConnect { // we are no forward proxy, and a tunnel would have no end
		h.deny(w, r, r.Method, web.Fail(http.StatusNotImplemented, "This gateway opens no tunnels.", nil), nil)
		return
	}
	to, err := p.find(r)
	if err == nil {
		err = h.checkOrigin(r, to.ownOrigin())
	}
	var v requestState
	var by *rule
	if err == nil {
		v.session, by, err = h.decide(r, r.Method, r.URL.EscapedPath())
	}
	if err == nil && v.session != nil && to != nil {
		v.identity = make(http.Header, 8)
		err = h.identify(r, v.identity, v.session, cmp.Or(to.App, h.App), to.named, true)
	}
	if err != nil {
		h.deny(w, r, r.Method, err, func() string { return h.loginURL(r, wanted(r)) })
		return
	}
	if to == nil {
		h.deny(w, r, r.Method, &web.Failure{Status: http.StatusNotFound,
			Message: web.Message{Text: "There is nothing at this address.", Actions: h.onward(r, v.session, false)}},
			nil)
		return
	}
	leave, err := h.places.enter(h.MaxOpen, v.session == nil)
	if err != nil {
		h.deny(w, r, r.Method, err, nil)
		return
	}
	defer leave()
	r = h.logAllowed(r, "proxy", r.Method, r.URL.EscapedPath(), v.session, by)
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	if v.session != nil {
		v.stream = h.open(v.session, r, cancel)
		defer v.stream.leave()
	}
	if v.session == nil {
		r = slowly(w, r)
	}
	opens := opensWebSocket(r)
	r = withoutUpgrade(r, opens)
	w = &upgrader{ResponseWriter: w, opens: opens, stream: v.stream}
	to.proxy.ServeHTTP(w, r.WithContext(context.WithValue(ctx, contextKey{}, v)))
}

// forward is the reverse proxy of one route.
func (h *Handler) forward(route Route, transport http.RoundTripper, pool httputil.BufferPool) http.Handler {
	to := *route.Upstream.URL
	if to.Scheme == "h2c" {
		to.Scheme = "http"
	}
	host := h.Site.URL.Host
	if route.Host != "" {
		host = route.Host
	}
	return &httputil.ReverseProxy{
		Transport:  transport,
		BufferPool: pool,
		Rewrite: func(r *httputil.ProxyRequest) {
			// Hop-by-hop headers are gone by now, so `Connection: X-Auth-Subject` cannot remove what is set here.
			h.Identity.strip(r.Out.Header)
			stripCookies(r.Out.Header, h.Cookie)
			r.Out.Trailer = nil // nothing that comes after the checks
			r.SetURL(&to)
			r.Out.URL.RawQuery = r.In.URL.RawQuery // nothing was read in it, so it is the app's affair
			r.Out.Host = host
			if client := h.Site.ClientAddr(r.In); client.IsValid() {
				r.Out.Header["X-Forwarded-For"] = []string{client.String()}
			}
			r.Out.Header["X-Forwarded-Host"] = []string{host}
			r.Out.Header["X-Forwarded-Proto"] = []string{h.Site.URL.Scheme}
			maps.Copy(r.Out.Header, stateFrom(r.In.Context()).identity)
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode == http.StatusSwitchingProtocols {
				if err := checkSwitch(r); err != nil {
					return err // and the connection is closed
				}
			}
			stripSetCookies(r.Header, h.Cookie)
			if strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") {
				stateFrom(r.Request.Context()).stream.endless()
			}
			return nil
		},
		ErrorHandler: h.failed,
		ErrorLog:     log.New(broken{cmp.Or(h.Site.Log, slog.Default())}, "", 0),
	}
}

// failed answers when the app did not.
func (h *Handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	status, say := http.StatusBadGateway, "The app behind this gateway does not answer. Please try again in a moment."
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(context.Cause(r.Context()), ErrEnded):
		h.deny(w, r, r.Method, errNobody, nil) // it ended while the app was thinking
		return
	case late(r):
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
		Message: web.Message{Text: say, Actions: h.onward(r, stateFrom(r.Context()).session, true)}}, nil)
}

// broken logs what goes wrong in the middle of an answer, save what was cut on purpose or by the client.
type broken struct{ log *slog.Logger }

func (b broken) Write(line []byte) (int, error) {
	if !bytes.Contains(line, []byte("context canceled")) {
		b.log.Warn("an answer of the app broke off", "event", "upstream_broke", "error",
			web.Clip(strings.TrimSpace(string(line))))
	}
	return len(line), nil
}

// buffers are what answers are copied through.
type buffers struct{ pool sync.Pool }

const bufferSize = 16 << 10

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

func (b *buffers) Get() []byte  { return b.pool.Get().(*[bufferSize]byte)[:] }
func (b *buffers) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }
