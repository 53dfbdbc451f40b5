package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Route sends some requests to an app. The first route that matches is used.
type Route struct {
	Host string // as in the browser's address bar; default: any. `*.example.com` is all names one label below
	Path string // `/a` is that path, `/a/*` also all paths below it; default: all
	// App is the client ID of the app; default [Handler.App]. If routes lead to several upstreams, an assertion is
	// added only where App is set: any other app that received one could use it to sign in at the app that it is for.
	App string
	// Tabs is [Handler.Tabs] for this route; default: that of the handler.
	Tabs     TabMode
	Upstream Upstream
}

// Upstream is an app. A path in its URL is put before that of the request, which is refused if it is ambiguous.
type Upstream struct {
	URL *url.URL       // http, https, or h2c for HTTP/2 without TLS
	CA  *x509.CertPool // the CAs accepted for its certificate; default: the system's
	// Timeout bounds the wait for the response header. A long poll that takes longer is answered 504. 0: no limit.
	Timeout time.Duration
	// Health is a path that the app answers with a 2xx or 3xx while it is healthy (see [Router.Health]); the path of
	// URL is not put before it. "": it is healthy if it accepts connections.
	Health string
}

type route struct {
	Route
	pattern pattern
	proxy   http.Handler
	named   bool   // the app behind the route is certain
	origin  string // of the pages of Route.Host; "" without one
}

func (r *route) ownOrigin() string {
	if r == nil {
		return ""
	}
	return r.origin
}

// Router is the reverse proxy in front of one app or several.
type Router struct {
	gateway *Handler
	routes  []route
	byPath  bool // a path decides where a request goes, or must stay below that of its upstream
}

// Route returns a reverse proxy that works like [Handler.Proxy] and uses the routes in order. The error lists every
// fault.
func (h *Handler) Route(routes ...Route) (*Router, error) {
	router := &Router{gateway: h}
	pool := newBuffers()
	var faults []error
	several := false // upstreams
	for i, r := range routes {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("route %d: %w", i+1, fmt.Errorf(format, args...)))
		}
		pattern, ok := pattern{"", true}, true
		if r.Path != "" {
			pattern, ok = parsePattern(r.Path)
		}
		if !ok {
			fault("%q is not a path; write it like /a for one path, or /a/* for all below it", r.Path)
		}
		if err := h.Site.CheckPattern(r.Host); err != nil && h.Site.SeveralHosts() {
			fault("%w", err)
		} else if name := strings.TrimPrefix(r.Host, "*."); strings.ContainsAny(name, "/ @*") || r.Host == "*." {
			fault("%q is not a host; write it like app.example.com", r.Host)
		}
		u := r.Upstream.URL
		if u == nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "h2c" {
			fault("the upstream is not an http, https or h2c URL")
			continue
		}
		if health := r.Upstream.Health; health != "" &&
			(!strings.HasPrefix(health, "/") || strings.HasPrefix(health, "//") || strings.Contains(health, "#")) {
			fault("%q is not a path for health checks; write it like /healthz", health)
		}
		if err := CheckTabMode(r.Tabs); err != nil {
			fault("tabs: %w", err)
		}
		if r.App != "" && len(h.Apps) > 0 && !slices.Contains(h.Apps, r.App) {
			fault("there is no app %q", r.App)
		}
		origin := ""
		if r.Host != "" && !h.Site.SeveralHosts() {
			origin = h.Site.URL.Scheme + "://" + r.Host
			if port := h.Site.URL.Port(); port != "" && !strings.Contains(r.Host, ":") {
				origin += ":" + port
			}
		}
		router.byPath = router.byPath || r.Path != "" || strings.Trim(u.Path, "/") != ""
		router.routes = append(router.routes, route{r, pattern, h.forward(r, r.Upstream.transport(), pool), r.App != "",
			origin})
		several = several || u.Host != router.routes[0].Upstream.URL.Host
	}
	for i := range router.routes {
		router.routes[i].named = router.routes[i].named || !several
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	h.hosts.mu.Lock()
	defer h.hosts.mu.Unlock()
	for _, r := range routes {
		if r.Host != "" {
			h.hosts.routes = append(h.hosts.routes, r.Host)
		}
	}
	return router, nil
}

// find returns the route of a request, or nil if none matches. The error is for an ambiguous path, and for a target
// that is no path, such as `x:http://internal/`: the app would get it as it is, and would take its host for its own.
func (p *Router) find(r *http.Request) (*route, error) {
	if r.URL.Opaque != "" || r.URL.Path != "" && r.URL.Path[0] != '/' {
		return nil, ambiguous(r.RequestURI)
	}
	path, host := r.URL.Path, r.Host
	if p.gateway.Site.SeveralHosts() {
		host = p.gateway.here(r).Addr()
	}
	if p.byPath {
		sent := sentPath(r.URL)
		plain, ok := plainPath(sent)
		if !ok {
			return nil, ambiguous(sent)
		}
		path = plain
	}
	for i := range p.routes {
		if to := &p.routes[i]; (to.Host == "" || sameHost(to.Host, host)) &&
			(to.pattern == pattern{"", true} || to.pattern.covers(path, exact)) {
			return to, nil
		}
	}
	return nil, nil
}

// sameHost compares hosts; the port counts only if want has one. A wildcard in want stands for one label.
func sameHost(want, host string) bool {
	if rest, wild := strings.CutPrefix(want, "*."); wild {
		label, below, ok := strings.Cut(host, ".")
		return ok && label != "" && sameHost(rest, below)
	}
	if strings.EqualFold(want, host) {
		return true
	}
	name, _, err := net.SplitHostPort(host)
	return err == nil && strings.EqualFold(want, name)
}

// Health returns nil if every app is healthy, and otherwise an error that lists those that are not: they do not accept
// connections, or do not answer 2xx or 3xx at their health path.
func (p *Router) Health(ctx context.Context) error {
	faults := make([]error, len(p.routes))
	var wg sync.WaitGroup
	for i, r := range p.routes {
		wg.Go(func() {
			if err := r.Upstream.check(ctx); err != nil {
				faults[i] = fmt.Errorf("upstream %s://%s: %w", r.Upstream.URL.Scheme, r.Upstream.URL.Host, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}

const maxResponseHeader = 256 << 10

// maxIdle is how many idle connections to an app are kept after a burst. With Go's default of two, most requests would
// open a new connection.
const maxIdle = 128

// dialer opens connections to apps.
func dialer() *net.Dialer { return &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second} }

// transport returns the round tripper for the app. The number of connections in use is not limited: open event streams
// would block all other requests.
func (u *Upstream) transport() http.RoundTripper {
	t := &http.Transport{
		DialContext:            dialer().DialContext,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second, // a busy machine may have to read its certificate authorities first
		ResponseHeaderTimeout:  u.Timeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxResponseHeader,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // the client negotiates compression with the app
		TLSClientConfig:        &tls.Config{RootCAs: u.CA, ClientSessionCache: tls.NewLRUClientSessionCache(0)},
	}
	if u.URL.Scheme != "h2c" {
		fresh := t.Clone()
		fresh.DisableKeepAlives = true
		return &retrySafe{reused: t, fresh: fresh}
	}
	h2 := t.Clone()
	h2.Protocols = new(http.Protocols)
	h2.Protocols.SetUnencryptedHTTP2(true)
	return &h2cTransport{h1: t, h2: h2}
}

// retrySafe chooses a connection for each request. An app may close an idle connection at any time, even while a
// request is on its way. net/http then repeats safe requests on another connection, but must not repeat others (RFC
// 9110 §9.2.2), which would be answered 502. So those get a new connection, except over HTTP/2, where the app says
// which requests it has not processed (RFC 9113 §6.8).
type retrySafe struct {
	reused, fresh http.RoundTripper
	h2            atomic.Bool // the app has answered over HTTP/2
}

func (k *retrySafe) RoundTrip(r *http.Request) (*http.Response, error) {
	t := k.fresh
	if repeatable(r) || k.h2.Load() {
		t = k.reused
	}
	resp, err := t.RoundTrip(r)
	if err == nil && resp.ProtoMajor == 2 && !k.h2.Load() {
		k.h2.Store(true)
	}
	return resp, err
}

// repeatable reports whether net/http repeats a request whose connection turned out to be closed.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return r.Body == nil || r.Body == http.NoBody
	}
	return false
}

// healthTimeout bounds one health check.
const healthTimeout = 5 * time.Second

// check returns nil if the app is healthy.
func (u *Upstream) check(ctx context.Context) error {
	if u.Health == "" {
		return u.connect(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	to := *u.URL
	if to.Scheme == "h2c" {
		to.Scheme = "http"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, to.Scheme+"://"+to.Host+u.Health, nil)
	if err != nil {
		return err
	}
	r.Close = true
	r.Header.Set("User-Agent", "curfew")
	resp, err := u.transport().RoundTrip(r)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("%s answers %d", u.Health, resp.StatusCode)
	}
	return nil
}

// connect returns nil if the app accepts a connection.
func (u *Upstream) connect(ctx context.Context) error {
	address := u.URL.Host
	if u.URL.Port() == "" {
		port := "80"
		if u.URL.Scheme == "https" {
			port = "443"
		}
		address = net.JoinHostPort(u.URL.Hostname(), port)
	}
	dial := dialer().DialContext
	if u.URL.Scheme == "https" {
		dial = (&tls.Dialer{NetDialer: dialer(), Config: &tls.Config{RootCAs: u.CA}}).DialContext
	}
	c, err := dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// h2cTransport uses HTTP/2 without TLS, except for upgrades, which need HTTP/1.1.
type h2cTransport struct{ h1, h2 http.RoundTripper }

func (t *h2cTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Upgrade") != "" {
		return t.h1.RoundTrip(r)
	}
	return t.h2.RoundTrip(r)
}
