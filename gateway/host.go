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
		warn := !known && !h.hosts.warned[web.Clip(strings.ToLower(host))] && len(h.hosts.warned) < maxWarned
		if warn {
			if h.hosts.warned == nil {
				h.hosts.warned = make(map[string]bool)
			}
			h.hosts.warned[web.Clip(strings.ToLower(host))] = true
		}
		h.hosts.mu.Unlock()
		if known {
			continue
		}
		return &web.Failure{Status: http.StatusForbidden, Warn: warn, Event: "host_refused",
			Message: web.Message{Title: "This site is not set up yet",
				Text: "The gateway in front of this site signs people in at another host, not at this one.\n\nAsk " +
					"the people who run this site."},
			Err: errors.New("a proxy asks about a host that is neither that of url (" + h.Site.URL.Host +
				") nor that of a route: give each host a Curfew of its own"),
			Attrs: []slog.Attr{slog.String("host", host)}}
	}
	return nil
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
