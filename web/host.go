package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// Host is one of the hosts at which browsers reach a site.
type Host struct {
	Name   string // in lower case, without a port; cookies belong to it
	Origin string // scheme, name and port, as browsers write them
	Main   bool   // it is the host of [Site.URL], where people sign in
}

// Addr returns the name and the port, as in a Host header.
func (h Host) Addr() string {
	_, addr, _ := strings.Cut(h.Origin, "://")
	return addr
}

// Hosts are the hosts of a site beside that of its URL, as [ParseHosts] returns them. The zero value has none.
type Hosts struct {
	list  []string
	named map[string]Host
	below map[string]Host // of wildcards: the name that follows `*.`
}

// List returns the hosts in the spelling in which they are compared.
func (h Hosts) List() []string { return slices.Clone(h.list) }

// hostLabel is a part of a host name (RFC 1123 §2.1), with the underscore, which browsers accept too.
var hostLabel = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// ParseHosts reads hosts like `app.example.com`, `app.example.com:8443` or `*.example.com`, for a site whose URL is
// main. A wildcard stands for one label. A host without a port has that of main. The error lists every fault.
//
// A wildcard whose names could belong to different owners is refused, by the Public Suffix List.
func ParseHosts(main *url.URL, list []string) (Hosts, error) {
	h := Hosts{named: map[string]Host{}, below: map[string]Host{}}
	var faults []error
	ports := map[string]string{main.Hostname(): main.Port()}
	for _, raw := range list {
		name, port, err := parseHost(main, raw)
		if err != nil {
			faults = append(faults, fmt.Errorf("%q %w", Clip(raw), err))
			continue
		}
		if other, ok := ports[name]; ok && other != port {
			faults = append(faults, fmt.Errorf("%q: the host is there with another port already, and browsers share "+
				"cookies between the ports of a host", Clip(raw)))
			continue
		}
		if _, ok := ports[name]; ok && name != main.Hostname() {
			faults = append(faults, fmt.Errorf("%q is there twice", Clip(raw)))
			continue
		}
		ports[name] = port
		addr := name
		if strings.Contains(name, ":") {
			addr = "[" + name + "]"
		}
		if port != "" {
			addr += ":" + port
		}
		h.list = append(h.list, addr)
		if rest, ok := strings.CutPrefix(name, "*."); ok {
			h.below[rest] = Host{Name: rest, Origin: main.Scheme + "://" + strings.TrimPrefix(addr, "*.")}
		} else if name != main.Hostname() {
			h.named[name] = Host{Name: name, Origin: main.Scheme + "://" + addr}
		}
	}
	return h, errors.Join(faults...)
}

// parseHost reads one entry of [ParseHosts]. The port is "" if it is the default of the scheme.
func parseHost(main *url.URL, raw string) (name, port string, err error) {
	name, port = strings.ToLower(raw), main.Port()
	if strings.Contains(name, "://") || strings.ContainsAny(name, "/?#@ ") {
		return "", "", errors.New("is not a host: write only the name, like app.example.com")
	}
	if _, err := netip.ParseAddr(name); err != nil { // not a bare IPv6 address
		if n, p, err := net.SplitHostPort(name); err == nil {
			if i, err := strconv.Atoi(p); err != nil || i < 1 || i > 65535 {
				return "", "", errors.New("has a port that is not between 1 and 65535")
			}
			if name, port = n, p; port == defaultPort(main.Scheme) {
				port = ""
			}
		}
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if main.Scheme == "http" && !Loopback(strings.TrimPrefix(name, "*.")) {
		return "", "", errors.New("is not on loopback, which http is for; with an https url it may be any host")
	}
	if a, err := netip.ParseAddr(name); err == nil && a.Zone() == "" {
		return a.String(), port, nil
	}
	rest, wild := strings.CutPrefix(name, "*.")
	if err := checkName(rest); err != nil {
		return "", "", err
	}
	if wild && isSuffix(rest) {
		return "", "", fmt.Errorf("covers names of different owners: %s is a public suffix "+
			"(https://publicsuffix.org); list the hosts one by one, or a wildcard for a domain of yours", rest)
	}
	return name, port, nil
}

func checkName(name string) error {
	if strings.ContainsFunc(name, func(c rune) bool { return c > '~' }) {
		if ascii, err := idna.Lookup.ToASCII(name); err == nil {
			return fmt.Errorf("is an international name: write it as %s", ascii)
		}
		return errors.New("is not a host name")
	}
	if strings.Contains(name, "*") {
		return errors.New("has a wildcard in the wrong place: it stands for the first label, like *.example.com")
	}
	if strings.HasSuffix(name, ".") {
		return errors.New("ends in a dot, which browsers take for another host: leave it out")
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if !hostLabel.MatchString(label) {
			return errors.New("is not a host name: write it like app.example.com")
		}
	}
	if len(name) > 253 || isNumber(labels[len(labels)-1]) {
		return errors.New("is not a host name: write it like app.example.com")
	}
	if strings.HasPrefix(name, "xn--") || strings.Contains(name, ".xn--") {
		if _, err := idna.Lookup.ToUnicode(name); err != nil {
			return errors.New("is not a valid international name")
		}
	}
	return nil
}

func isNumber(s string) bool { return strings.Trim(s, "0123456789") == "" }

// isSuffix reports whether the names below name may belong to different owners. All names below localhost are this
// machine (RFC 6761 §6.3).
func isSuffix(name string) bool {
	suffix, _ := publicsuffix.PublicSuffix(name)
	return suffix == name && name != "localhost"
}

func defaultPort(scheme string) string {
	if scheme == "http" {
		return "80"
	}
	return "443"
}

// SeveralHosts reports whether the site has hosts beside that of its URL.
func (s *Site) SeveralHosts() bool { return len(s.Hosts.list) > 0 }

// Main returns the host of the site's URL.
func (s *Site) Main() Host { return Host{Name: s.URL.Hostname(), Origin: s.Origin(), Main: true} }

// FindHost returns the host of the site with this address, as in a Host header or in a URL: in any case, with or
// without the port. A wildcard does not cover a name that is a public suffix itself.
func (s *Site) FindHost(addr string) (Host, bool) {
	name, port := strings.ToLower(addr), ""
	if strings.Contains(name, ":") {
		if n, p, err := net.SplitHostPort(name); err == nil {
			// One spelling: what a proxy does not take for this host must not be taken for it here.
			if p == "" || net.JoinHostPort(n, p) != name {
				return Host{}, false
			}
			name, port = n, p
		} else {
			name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
		}
	}
	var h Host
	switch at, ok := s.Hosts.named[name]; {
	case name == s.URL.Hostname():
		h = s.Main()
	case ok:
		h = at
	default:
		label, rest, _ := strings.Cut(name, ".")
		at, ok := s.Hosts.below[rest]
		if !ok || !hostLabel.MatchString(label) || isSuffix(name) {
			return Host{}, false
		}
		h = Host{Name: name, Origin: s.URL.Scheme + "://" + label + "." + at.Addr()}
	}
	if port != "" && port != portOf(h.Origin, s.URL.Scheme) {
		return Host{}, false
	}
	return h, true
}

func portOf(origin, scheme string) string {
	if i := strings.LastIndexByte(origin, ':'); i > len(scheme) && !strings.HasSuffix(origin, "]") {
		return origin[i+1:]
	}
	return defaultPort(scheme)
}

// CheckPattern returns an error unless pattern covers a host of the site: it is one of them, or `*.` and a name that
// one of them is a label below. An empty pattern covers all.
func (s *Site) CheckPattern(pattern string) error {
	if pattern == "" {
		return nil
	}
	rest, wild := strings.CutPrefix(strings.ToLower(pattern), "*.")
	if _, ok := s.FindHost(pattern); ok && !wild {
		return nil
	}
	for _, addr := range append(s.Hosts.List(), s.URL.Host) {
		name, _, _ := strings.Cut(addr, ":")
		if _, below, _ := strings.Cut(name, "."); wild && rest != "" && below == rest {
			return nil
		}
	}
	return fmt.Errorf("%q is neither the host of url nor among hosts", Clip(pattern))
}

// Link returns the address of a route of Curfew for a page at host: a path, or, if host does not pass that to Curfew, a
// URL at the main host.
func (s *Site) Link(host Host, route string) string {
	if s.SharedCookie && !host.Main {
		return s.Absolute(route)
	}
	return s.Path(route)
}

// ReturnLink returns the return_to that leads back to a path of host, for [Site.Link].
func (s *Site) ReturnLink(host Host, path string) string {
	if s.SharedCookie && !host.Main {
		return host.Origin + path
	}
	return path
}

// CheckCookieDomain returns an error unless the hosts of the site can share a cookie of this domain: all are at or
// below it, and it is no public suffix.
func (s *Site) CheckCookieDomain(domain string) error {
	if err := checkName(domain); err != nil {
		return fmt.Errorf("%q %w", Clip(domain), err)
	}
	if isSuffix(domain) || s.Insecure() {
		return fmt.Errorf("%q: browsers take no cookie for it: it is a public suffix, or url is not https", domain)
	}
	for _, addr := range append(s.Hosts.List(), s.URL.Host) {
		name, _, _ := strings.Cut(strings.TrimPrefix(addr, "*."), ":")
		if name != domain && !strings.HasSuffix(name, "."+domain) {
			return fmt.Errorf("%s is not below %s, and would not get the cookie", addr, domain)
		}
	}
	return nil
}

type hostKey struct{}

// WithHost returns r as a request for h, whatever its headers say.
func WithHost(r *http.Request, h Host) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), hostKey{}, h))
}

// HostOf returns the host that a request is for. A site that has one host takes all requests for its own.
//
// It is the one in Host (over HTTP/2 :authority), or in X-Forwarded-Host from a trusted proxy, if Host is that of no
// host of the site: a proxy may have replaced it. If both name hosts of the site they must be the same, since a client
// can send X-Forwarded-Host too, and some proxies pass it on. The error is a [Failure].
func (s *Site) HostOf(r *http.Request) (Host, error) {
	if !s.SeveralHosts() {
		return s.Main(), nil
	}
	if h, ok := r.Context().Value(hostKey{}).(Host); ok {
		return h, nil
	}
	host, ok := s.FindHost(r.Host)
	if named := r.Header["X-Forwarded-Host"]; len(named) > 0 && s.FromTrustedProxy(r) {
		for _, v := range named {
			for addr := range strings.SplitSeq(v, ",") {
				forwarded, known := s.FindHost(strings.TrimSpace(addr))
				if !known || ok && forwarded.Name != host.Name {
					return Host{}, s.unknownHost(addr)
				}
				host, ok = forwarded, true
			}
		}
	}
	if !ok {
		return Host{}, s.unknownHost(r.Host)
	}
	return host, nil
}

func (s *Site) unknownHost(addr string) error {
	addr = addr[strings.LastIndexByte(addr, '@')+1:] // what is before it may be a password
	return &Failure{Status: http.StatusForbidden, Event: "host_refused",
		Message: Message{Title: "This site is not set up yet",
			Text: "The gateway in front of this site does not know its host.\n\nAsk the people who run this site."},
		Err: errors.New("a request for a host that is neither that of url (" + s.URL.Host +
			") nor among hosts, or for two at once: add it to hosts, or have the proxy pass Host on"),
		Attrs: []slog.Attr{slog.String("host", strings.TrimSpace(addr))}}
}

// ParseReturnURL is like [ParseReturnTo], and also accepts absolute URLs of the hosts of the site. It returns the host
// and the path there.
func (s *Site) ParseReturnURL(raw string, here Host) (Host, string, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || !strings.EqualFold(scheme, s.URL.Scheme) {
		to, err := ParseReturnTo(raw)
		return here, to, err
	}
	end := strings.IndexAny(rest, `/?#\`)
	if end < 0 {
		end = len(rest)
	}
	h, known := s.FindHost(rest[:end])
	if !known {
		return here, "", errOffSite
	}
	path := rest[end:]
	if path == "" || path[0] == '?' || path[0] == '#' {
		path = "/" + path
	}
	to, err := ParseReturnTo(path)
	return h, to, err
}
