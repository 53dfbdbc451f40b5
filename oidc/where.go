package oidc

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// internal returns the address at which this process asks an endpoint whose public address is raw: an address at the
// issuer's origin is moved to [Config.InternalURL].
func (c *Config) internal(raw string) string {
	return moved(raw, originOf(c.Issuer), c.InternalURL)
}

// public is the inverse of internal: some providers name the address at which they are asked.
func (c *Config) public(raw string) string {
	return moved(raw, c.InternalURL, originOf(c.Issuer))
}

// moved returns raw with the base address from replaced by to, or raw if it does not lie there or one of them is empty.
func moved(raw, from, to string) string {
	u, err1 := url.Parse(raw)
	base, err2 := url.Parse(strings.TrimSuffix(from, "/"))
	if from == "" || to == "" || err1 != nil || err2 != nil || !sameOrigin(u, base) {
		return raw
	}
	rest, ok := strings.CutPrefix(u.EscapedPath(), base.EscapedPath())
	if !ok || rest != "" && rest[0] != '/' {
		return raw
	}
	if u.RawQuery != "" {
		rest += "?" + u.RawQuery
	}
	return strings.TrimSuffix(to, "/") + rest
}

func originOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// sameOrigin compares scheme, host and port (RFC 6454 §5).
func sameOrigin(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		if u.Port() != "" {
			return u.Port()
		}
		return map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// checkAddress is checkURL that also takes http to a private address, if that is allowed. Of a name only the connection
// shows which address it has; see dialPrivate.
func (c *Config) checkAddress(raw string) (*url.URL, error) {
	u, err := checkURL(raw)
	plain, errParse := url.Parse(raw)
	if err == nil || errParse != nil || plain.Scheme != "http" {
		return u, err
	}
	addr, isIP := netip.ParseAddr(plain.Hostname())
	switch {
	case isIP == nil && !isPrivate(addr):
		return nil, fmt.Errorf("%w, and this address is public", err)
	case !c.AllowHTTPToPrivate:
		return nil, fmt.Errorf("%w; if it is reached over a private network alone, set "+
			"allow_http_to_private_address: true", err)
	}
	if _, err := checkURL("https" + raw[len("http"):]); err != nil { // all else that is wrong with it
		return nil, err
	}
	return plain, nil
}

var sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

// isPrivate reports whether an address is reached without the public Internet.
func isPrivate(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || sharedSpace.Contains(a)
}

// errPublic means that a name to which http is spoken has a public address.
var errPublic = errors.New("plain http is allowed to private addresses alone, and this one is public: use https")

func dialPrivate(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !isPrivate(a.Addr()) {
		return fmt.Errorf("%s: %w", a.Addr(), errPublic)
	}
	return nil
}

// validateWhere checks the settings that say where the provider is, and how it is reached.
func (c *Config) validateWhere(fault func(format string, args ...any)) {
	if c.InternalURL != "" {
		switch u, err := c.checkAddress(c.InternalURL); {
		case err != nil:
			fault("internal_url: %w", err)
		case u.RawQuery != "" || u.ForceQuery:
			fault("internal_url: it has no query; write it like http://keycloak:8080")
		}
	}
	if u := c.Proxy; u != nil {
		switch u.Scheme {
		case "http", "https", "socks5", "socks5h":
			if u.Host == "" {
				fault("proxy: it has no host; write it like http://proxy.example.com:3128")
			}
		default:
			fault("proxy: it is http, https, socks5 or socks5h; write it like http://proxy.example.com:3128")
		}
	}
	if t, foreign := c.HTTPClient.Transport.(*foreignTransport); foreign {
		fault("the HTTP client has a transport of its own (%T): set CA and proxy there", t.RoundTripper)
	}
}

// foreignTransport is one that CA and proxy cannot be set in.
type foreignTransport struct{ http.RoundTripper }

// router sends what goes in the clear, or to the internal address, another way than the rest.
type router struct {
	plain, direct, rest http.RoundTripper

	internal *url.URL // nil: none
}

// RoundTrip implements [http.RoundTripper].
func (t *router) RoundTrip(r *http.Request) (*http.Response, error) {
	switch {
	case r.URL.Scheme == "http" && !isLoopback(r.URL.Hostname()):
		return t.plain.RoundTrip(r)
	case t.internal != nil && sameOrigin(r.URL, t.internal):
		return t.direct.RoundTrip(r)
	}
	return t.rest.RoundTrip(r)
}

// CloseIdleConnections implements the interface that [http.Client.CloseIdleConnections] looks for.
func (t *router) CloseIdleConnections() {
	for _, way := range []http.RoundTripper{t.plain, t.direct, t.rest} {
		if c, ok := way.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
}

// route returns a transport that reaches the provider as the configuration says.
func (c *Config) route(given http.RoundTripper) http.RoundTripper {
	if c.InternalURL == "" && c.CA == nil && c.Proxy == nil && !c.AllowHTTPToPrivate {
		return given
	}
	var t *http.Transport
	switch of := given.(type) {
	case *router, *foreignTransport: // of a configuration that has its defaults
		return given
	case *http.Transport:
		t = of.Clone()
	default:
		if c.CA != nil || c.Proxy != nil {
			return &foreignTransport{given}
		}
		return given
	}
	if c.CA != nil {
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		t.TLSClientConfig.RootCAs = c.CA
	}
	direct := t.Clone()
	direct.Proxy = nil
	plain := direct.Clone()
	plain.DialContext = (&net.Dialer{Timeout: fetchTimeout, KeepAlive: 30 * time.Second,
		Control: dialPrivate}).DialContext
	if c.Proxy != nil {
		t.Proxy = http.ProxyURL(c.Proxy)
	}
	all := &router{plain: plain, direct: direct, rest: t}
	if c.InternalURL != "" {
		all.internal, _ = url.Parse(c.InternalURL)
	}
	return all
}
