package gateway

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"example.com/curfew/web"
)

// hosts are the host names that a handler knows.
type hosts struct {
	mu     sync.Mutex
	routes []string        // those of configured routes
	warned map[string]bool // unknown hosts that have been logged
}

// maxWarned bounds how many unknown hosts are logged, since clients choose them.
const maxWarned = 100

// locate returns r as a request for the host that a proxy asks about; named are all hosts that it names. With several
// hosts they must be one, so that the bearer is checked for the host that the proxy sends the request to. If the proxy
// names none, it is the host in Host. Otherwise Host may be that of Curfew itself, but not that of a third host.
func (h *Handler) locate(r *http.Request, named []string) (*http.Request, error) {
	if !h.Site.SeveralHosts() {
		return r, h.checkHost(named...)
	}
	if strings.Contains(r.Host, ",") { // a proxy may take one part of it for us, and another for the choice of the app
		return r, h.refuseHost(r.Host)
	}
	asked, found := h.Site.FindHost(r.Host)
	certain := found && !asked.Main
	for _, addr := range named {
		if addr == "" {
			continue
		}
		host, ok := h.Site.FindHost(addr)
		if !ok || certain && host.Name != asked.Name {
			return r, h.refuseHost(addr)
		}
		asked, found, certain = host, true, true
	}
	if !found {
		return r, h.refuseHost(r.Host)
	}
	return web.WithHost(r, asked), nil
}

// locateAsReceived is locate for a request as a proxy received it, which routes it by Host and nothing else.
func (h *Handler) locateAsReceived(r *http.Request) (*http.Request, error) {
	if !h.Site.SeveralHosts() {
		return r, h.checkHost(r.Host)
	}
	host, ok := h.Site.FindHost(r.Host)
	if !ok {
		return r, h.refuseHost(r.Host)
	}
	return web.WithHost(r, host), nil
}

// locateOwn is locate for a request to this gateway itself; see [web.Site.HostOf].
func (h *Handler) locateOwn(r *http.Request) (*http.Request, error) {
	if !h.Site.SeveralHosts() {
		return r, nil
	}
	host, err := h.Site.HostOf(r)
	if err != nil {
		return r, h.refuseHost(r.Host)
	}
	return web.WithHost(r, host), nil
}

// here returns the host that a request is for. Unknown ones have been refused before.
func (h *Handler) here(r *http.Request) web.Host {
	host, err := h.Site.HostOf(r)
	if err != nil {
		return h.Site.Main()
	}
	return host
}

// checkHost returns nil if all hosts are those of the site or of a configured route; empty ones are ignored. A user of
// any other host would sign in at the site, return to the wrong app, and still not be signed in at the host they came
// from.
func (h *Handler) checkHost(named ...string) error {
	for _, host := range named {
		if host == "" || isSiteHost(h.Site.URL, host) {
			continue
		}
		h.hosts.mu.Lock()
		known := slices.ContainsFunc(h.hosts.routes, func(route string) bool { return sameHost(route, host) })
		h.hosts.mu.Unlock()
		if !known {
			return h.refuseHost(host)
		}
	}
	return nil
}

// refuseHost returns the answer to a request for an unknown host. The log warns once of each.
func (h *Handler) refuseHost(host string) error {
	host = host[strings.LastIndexByte(host, '@')+1:] // what is before it may be a password
	name := web.Clip(strings.ToLower(host))
	h.hosts.mu.Lock()
	warn := !h.hosts.warned[name] && len(h.hosts.warned) < maxWarned
	if warn {
		if h.hosts.warned == nil {
			h.hosts.warned = make(map[string]bool)
		}
		h.hosts.warned[name] = true
	}
	h.hosts.mu.Unlock()
	return &web.Failure{Status: http.StatusForbidden, Warn: warn, Event: "host_refused",
		Message: web.Message{Title: "This site is not set up yet",
			Text: "The gateway in front of this site signs people in at another host, not at this one.\n\nAsk " +
				"the people who run this site."},
		Err: errors.New("a proxy asks about a host that is neither that of url (" + h.Site.URL.Host +
			"), nor among hosts, nor that of a route, or about two at once: add it to hosts, or have the proxy say " +
			"which host was asked for"),
		Attrs: []slog.Attr{slog.String("host", host)}}
}

// isSiteHost reports whether host, as in a Host header, is that of the site. A missing port matches: some proxies pass
// on only the name.
func isSiteHost(site *url.URL, host string) bool {
	name, port := strings.ToLower(host), ""
	if n, p, err := net.SplitHostPort(name); err == nil {
		name, port = n, p
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if name != site.Hostname() {
		return false
	}
	want := site.Port()
	if want == "" {
		want = map[string]string{"https": "443", "http": "80"}[site.Scheme]
	}
	return port == "" || port == want
}

// splitHosts returns the hosts in headers that hold one host or a list.
func splitHosts(values []string) (all []string) {
	for _, v := range values {
		for host := range strings.SplitSeq(v, ",") {
			all = append(all, strings.TrimSpace(host))
		}
	}
	return all
}

// urlHosts returns the hosts of those values that are absolute URLs.
func urlHosts(values ...string) (all []string) {
	for _, v := range values {
		if rest, ok := cutScheme(v); ok {
			all = append(all, strings.TrimSuffix(rest, pathOf(rest)))
		}
	}
	return all
}

// cutScheme returns what follows `http://` or `https://`, in any case.
func cutScheme(v string) (rest string, ok bool) {
	scheme, rest, ok := strings.Cut(v, "://")
	return rest, ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// pathOf returns what follows the host of a URL without its scheme.
func pathOf(rest string) string {
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		return rest[i:]
	}
	return ""
}
