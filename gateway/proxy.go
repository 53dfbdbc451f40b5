package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"example.com/curfew/web"
)

// Proxy passes requests of people who are signed in on to upstream, with their identity in headers, and asks the others
// to sign in. The path is passed on as it came. The app sees the external host, never one that the client made up, and
// neither our cookies nor any header that could be taken for our word.
func (h *Handler) Proxy(upstream *url.URL) http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport: transport(),
		Rewrite: func(r *httputil.ProxyRequest) {
			// Hop-by-hop headers are gone by now, so `Connection: X-Auth-Subject` cannot remove what is set here.
			strip(r.Out.Header)
			stripCookies(r.Out.Header, h.Cookie.Name())
			r.SetURL(upstream)
			r.Out.Host = h.Site.URL.Host
			if client := h.Site.ClientAddr(r.In); client.IsValid() {
				r.Out.Header.Set("X-Forwarded-For", client.String())
			}
			r.Out.Header.Set("X-Forwarded-Host", h.Site.URL.Host)
			r.Out.Header.Set("X-Forwarded-Proto", h.Site.URL.Scheme)
			identity(r.Out.Header, SessionFrom(r.In.Context()), h.App)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, context.Canceled) {
				return // the client went away
			}
			status, say := http.StatusBadGateway, "The app behind this gateway does not answer. Please try again in a moment."
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
				status, say = http.StatusGatewayTimeout, "The app behind this gateway takes too long to answer. Please try again in a moment."
			}
			h.refuse(w, r, web.Fail(status, say, err))
		},
		ErrorLog: slog.NewLogLogger(h.Site.Log.Handler(), slog.LevelWarn),
	}
	return h.Require(proxy)
}

// transport keeps connections to the upstream: Go's default of two idle ones per host would open a new one for most
// requests.
func transport() *http.Transport {
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		MaxIdleConns:          1024,
		MaxIdleConnsPerHost:   1024,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
	}
}
