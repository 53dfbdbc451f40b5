package web

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// Site is the address of this site and its settings. It is shared by all packages that answer requests; only URL is
// required.
type Site struct {
	URL   *url.URL // how browsers and providers reach the site, as [ParseURL] returns it
	Name  string   // the name on the pages, if Pages has none; default: the host of URL
	Pages *Pages   // how pages look; nil: the zero [Look]
	Hosts Hosts    // further hosts at which browsers reach the site; default none
	Home  string   // the first page of the app; default "/"
	// SharedCookie: the hosts share the cookie of a parent domain, and only that of URL passes Prefix to Curfew.
	SharedCookie   bool
	Prefix         string         // the path of Curfew's own routes; default "/auth"
	PlainProviders bool           // a provider is reached by http, on loopback
	Log            *slog.Logger   // default slog.Default()
	TrustedProxies []netip.Prefix // whose X-Forwarded-* and X-Request-Id are trusted; default none
	// TrustUnix trusts peers that have no address too: those that come by a Unix socket, whose file says who may.
	TrustUnix bool
	// OnEvent, if not nil, is called for each call of [Site.Event], also when the log does not have its level. The
	// attributes are as they were given: neither cut nor escaped. It must not block.
	OnEvent func(r *http.Request, name string, attrs []slog.Attr)
	Tracer  trace.TracerProvider // for the spans of requests; nil: there are none
}

// ParseURL parses the external URL of a site: https, or http on loopback, with a host and at most a port. It returns
// the origin as browsers write it: in lower case, without a default port. The error lists every fault.
func ParseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	host := strings.ToLower(u.Hostname())
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		fault("must begin with https:// (or http:// on loopback)")
	case u.Scheme == "http" && !Loopback(host):
		fault("http is for loopback (localhost, *.localhost, 127.0.0.0/8, [::1]) alone; use https")
	}
	forbidden := func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`%*\"<>^|{}`+"`", c) }
	if host == "" || strings.ContainsFunc(host, forbidden) {
		fault("must have a plain host name or address (an international name in its xn-- form)")
	}
	port := u.Port()
	n, err := strconv.Atoi(port)
	if strings.HasSuffix(u.Host, ":") || port != "" && (err != nil || n < 1 || n > 65535) {
		fault("the port must be between 1 and 65535")
	}
	if u.User != nil {
		fault("must have no user or password")
	}
	if u.Path != "" && u.Path != "/" {
		fault("must have no path: a site takes a whole host")
	}
	if u.RawQuery != "" || u.ForceQuery || strings.Contains(raw, "#") {
		fault("must have no query and no fragment")
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if port == "443" && u.Scheme == "https" || port == "80" && u.Scheme == "http" {
		port = ""
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" {
		host += ":" + port
	}
	return &url.URL{Scheme: u.Scheme, Host: host}, nil
}

// Loopback reports whether host, without a port, is this machine: localhost and all names below it (RFC 6761 §6.3),
// 127.0.0.0/8 or ::1.
func Loopback(host string) bool {
	if name := strings.ToLower(host); name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Zone() == "" && a.IsLoopback()
}

// Origin returns scheme, host and port, as browsers write them.
func (s *Site) Origin() string { return s.URL.Scheme + "://" + s.URL.Host }

// Insecure reports whether the site uses http on loopback: then cookies cannot be Secure.
func (s *Site) Insecure() bool { return s.URL.Scheme == "http" }

// Path returns the path of a route of Curfew: Path("login") is "/auth/login".
func (s *Site) Path(route string) string {
	return strings.TrimSuffix(cmp.Or(s.Prefix, "/auth"), "/") + "/" + route
}

// First returns the path of the first page of the app, which pages link to.
func (s *Site) First() string { return cmp.Or(s.Home, "/") }

// Absolute returns the full URL of a route, as it is registered at a provider.
func (s *Site) Absolute(route string) string { return s.Origin() + s.Path(route) }

// SameOrigin returns an error if a page of another origin caused the request. Use it for requests that change
// something.
//
// Browsers send Sec-Fetch-Site or Origin. A sub-domain is another origin too, and so is another host of this site. A
// request with neither header is allowed: it is not from a recent browser, and older ones do not send the SameSite
// cookie across sites.
func (s *Site) SameOrigin(r *http.Request) error {
	host, err := s.HostOf(r)
	if err != nil {
		return err
	}
	p := http.NewCrossOriginProtection()
	// A proxy may have changed Host, so the configured origin is accepted too.
	if err := p.AddTrustedOrigin(host.Origin); err != nil {
		return err
	}
	return p.Check(r)
}

// IsPrefetch reports whether a browser loads a page that the user has not opened yet (Sec-Purpose, and its older
// forms).
func IsPrefetch(r *http.Request) bool {
	for _, name := range [...]string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		if v := strings.ToLower(r.Header.Get(name)); strings.HasPrefix(v, "prefetch") || v == "preview" ||
			v == "instant" {
			return true
		}
	}
	return false
}

// ClientAddr returns the address of the client: the peer's, or, if the peer is a trusted proxy, the last one in
// X-Forwarded-For that is not a trusted proxy. It is the zero Addr if the peer has no address.
func (s *Site) ClientAddr(r *http.Request) netip.Addr {
	addr := parseAddr(r.RemoteAddr)
	if !s.trusted(addr) {
		return addr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && s.trusted(addr); i-- {
		hop := strings.TrimSpace(hops[i])
		if hop == "" { // RFC 9110 §5.6.1.2
			continue
		}
		next := parseAddr(hop)
		if !next.IsValid() {
			break
		}
		addr = next
	}
	return addr
}

// FromTrustedProxy reports whether the peer is a trusted proxy, whose headers about the original request are trusted.
func (s *Site) FromTrustedProxy(r *http.Request) bool { return s.trusted(parseAddr(r.RemoteAddr)) }

func (s *Site) trusted(a netip.Addr) bool {
	if !a.IsValid() {
		return s.TrustUnix
	}
	for _, p := range s.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// parseAddr parses an address with or without a port. It returns the zero Addr for anything else.
func parseAddr(text string) netip.Addr {
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	a, _ := netip.ParseAddr(strings.Trim(text, "[]"))
	return a.Unmap().WithZone("")
}
