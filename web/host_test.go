package web_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"example.com/curfew/web"
)

func TestHostsAreReadOrRefusedWithAReason(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ main, raw, want, why string }{
		{"https://auth.example.com", "app.example.com", "app.example.com", ""},
		{"https://auth.example.com", "App.EXAMPLE.com", "app.example.com", ""},
		{"https://auth.example.com", "app.example.org:443", "app.example.org", ""},
		{"https://auth.example.com", "app.example.org:8443", "app.example.org:8443", ""},
		{"https://auth.example.com:8443", "app.example.com", "app.example.com:8443", ""},
		{"https://auth.example.com:8443", "app.example.com:443", "app.example.com", ""},
		{"https://auth.example.com", "*.example.com", "*.example.com", ""},
		{"https://auth.example.com", "*.Apps.example.com", "*.apps.example.com", ""},
		{"https://auth.example.com", "xn--bcher-kva.example", "xn--bcher-kva.example", ""},
		{"https://auth.example.com", "intranet", "intranet", ""},
		{"https://auth.example.com", "my_app.example.com", "my_app.example.com", ""},
		{"https://auth.example.com", "192.0.2.7", "192.0.2.7", ""},
		{"https://auth.example.com", "[2001:DB8::7]:8443", "[2001:db8::7]:8443", ""},
		{"https://auth.example.com", "2001:db8::7", "[2001:db8::7]", ""},
		{"https://auth.example.com", "auth.example.com", "auth.example.com", ""}, // as others write it
		{"http://auth.localhost:4180", "*.localhost", "*.localhost:4180", ""},
		{"http://auth.localhost:4180", "127.0.0.1", "127.0.0.1:4180", ""},

		{"https://auth.example.com", "", "", "not a host name"},
		{"https://auth.example.com", "https://app.example.com", "", "write only the name"},
		{"https://auth.example.com", "app.example.com/wiki", "", "write only the name"},
		{"https://auth.example.com", "me@app.example.com", "", "write only the name"},
		{"https://auth.example.com", "a b", "", "write only the name"},
		{"https://auth.example.com", "app.example.com.", "", "ends in a dot"},
		{"https://auth.example.com", "app..example.com", "", "not a host name"},
		{"https://auth.example.com", "-app.example.com", "", "not a host name"},
		{"https://auth.example.com", "app.example.com:0", "", "between 1 and 65535"},
		{"https://auth.example.com", "app.example.com:http", "", "between 1 and 65535"},
		{"https://auth.example.com", "app.example.com:", "", "between 1 and 65535"},
		{"https://auth.example.com", "auth.example.com:8443", "", "another port"},
		{"https://auth.example.com", "bücher.example", "", "xn--bcher-kva.example"},
		{"https://auth.example.com", "Bücher.example", "", "xn--bcher-kva.example"},
		{"https://auth.example.com", "xn--\u00fc.example", "", "not a host name"},
		{"https://auth.example.com", "xn--a.example", "", "not a valid international name"},
		{"https://auth.example.com", "1.2.3.4.5", "", "not a host name"},
		{"https://auth.example.com", strings.Repeat("a", 64) + ".example.com", "", "not a host name"},
		{"https://auth.example.com", strings.Repeat("a.", 127) + "com", "", "not a host name"},
		{"https://auth.example.com", "*", "", "wrong place"},
		{"https://auth.example.com", "*.*.example.com", "", "wrong place"},
		{"https://auth.example.com", "app.*.com", "", "wrong place"},
		{"https://auth.example.com", "app*.example.com", "", "wrong place"},
		{"https://auth.example.com", "*.com", "", "com is a public suffix"},
		{"https://auth.example.com", "*.co.uk", "", "co.uk is a public suffix"},
		{"https://auth.example.com", "*.CO.uk", "", "co.uk is a public suffix"},
		{"https://auth.example.com", "*.github.io", "", "github.io is a public suffix"},
		{"https://auth.example.com", "*.anything.ck", "", "anything.ck is a public suffix"},
		{"https://auth.example.com", "*.internal", "", "internal is a public suffix"},
		{"https://auth.example.com", "*.", "", "not a host name"},
		{"https://auth.example.com", "*.0.0.1", "", "not a host name"},
		{"http://auth.localhost:4180", "app.example.com", "", "not on loopback"},
	} {
		main, err := web.ParseURL(row.main)
		if err != nil {
			t.Fatal(err)
		}
		h, err := web.ParseHosts(main, []string{row.raw})
		switch {
		case row.why == "" && (err != nil || len(h.List()) != 1 || h.List()[0] != row.want):
			t.Errorf("%q for %s: %q, %v, want %q", row.raw, row.main, h.List(), err, row.want)
		case row.why != "" && (err == nil || !strings.Contains(err.Error(), row.why)):
			t.Errorf("%q for %s: %v, want %q", row.raw, row.main, err, row.why)
		}
	}
	_, err := web.ParseHosts(&url.URL{Scheme: "https", Host: "auth.example.com"},
		[]string{"a.example.com", "A.example.com", "b.example.com:1", "b.example.com:2", "*.com"})
	for _, want := range []string{`"A.example.com" is there twice`, `"b.example.com:2": the host is there with another`,
		`"*.com" covers`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q too", err, want)
		}
	}
}

// severalHosts is a site with an app at some hosts.
func severalHosts(t *testing.T) *web.Site {
	t.Helper()
	main, _ := url.Parse("https://auth.example.com")
	hosts, err := web.ParseHosts(main, []string{"app.example.com", "port.example.com:8443", "*.apps.example.com",
		"xn--bcher-kva.example", "*.amazonaws.com"})
	if err != nil {
		t.Fatal(err)
	}
	return &web.Site{URL: main, Hosts: hosts, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}
}

func TestARequestIsForOneHostOrRefused(t *testing.T) {
	t.Parallel()
	s := severalHosts(t)
	for name, row := range map[string]struct {
		host      string
		forwarded []string // by the trusted proxy
		want      string   // the origin; empty: refused
	}{
		"the main host":                {"auth.example.com", nil, "https://auth.example.com"},
		"another":                      {"app.example.com", nil, "https://app.example.com"},
		"capitals":                     {"APP.Example.COM", nil, "https://app.example.com"},
		"the default port":             {"app.example.com:443", nil, "https://app.example.com"},
		"another port":                 {"app.example.com:8443", nil, ""},
		"its port":                     {"port.example.com:8443", nil, "https://port.example.com:8443"},
		"without its port":             {"port.example.com", nil, "https://port.example.com:8443"},
		"not its port":                 {"port.example.com:443", nil, ""},
		"an empty port":                {"app.example.com:", nil, ""},
		"a port with a zero":           {"port.example.com:08443", nil, ""},
		"brackets":                     {"[app.example.com]:443", nil, ""},
		"brackets without a port":      {"[app.example.com]", nil, ""},
		"a space":                      {"app.example.com ", nil, ""},
		"a port that is none":          {"app.example.com:x", nil, ""},
		"a dot at the end":             {"app.example.com.", nil, ""},
		"a wildcard":                   {"One.apps.example.com", nil, "https://one.apps.example.com"},
		"a wildcard's own name":        {"apps.example.com", nil, ""},
		"two labels":                   {"a.b.apps.example.com", nil, ""},
		"no label":                     {".apps.example.com", nil, ""},
		"a label that is none":         {"a@b.apps.example.com", nil, ""},
		"a public suffix of others":    {"s3.amazonaws.com", nil, ""},
		"punycode":                     {"XN--bcher-kva.example", nil, "https://xn--bcher-kva.example"},
		"unicode":                      {"bücher.example", nil, ""},
		"unknown":                      {"other.example.com", nil, ""},
		"a suffix":                     {"app.example.com.evil.example", nil, ""},
		"none":                         {"", nil, ""},
		"an address, and forwarded":    {"127.0.0.1:4180", []string{"app.example.com"}, "https://app.example.com"},
		"forwarded, unknown":           {"127.0.0.1:4180", []string{"other.example.com"}, ""},
		"forwarded, empty":             {"127.0.0.1:4180", []string{""}, ""},
		"both the same":                {"app.example.com", []string{"App.example.com"}, "https://app.example.com"},
		"smuggled beside the host":     {"app.example.com", []string{"one.apps.example.com"}, ""},
		"smuggled beside the main":     {"auth.example.com", []string{"app.example.com"}, ""},
		"forwarded twice, the same":    {"x", []string{"app.example.com, app.example.com"}, "https://app.example.com"},
		"forwarded twice":              {"x", []string{"app.example.com, one.apps.example.com"}, ""},
		"forwarded in two lines":       {"x", []string{"app.example.com", "one.apps.example.com"}, ""},
		"forwarded, one of them known": {"x", []string{"app.example.com, evil.example"}, ""},
	} {
		for _, peer := range []string{"192.0.2.1:1", "198.51.100.1:1"} {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Host, r.RemoteAddr = row.host, peer
			r.Header["X-Forwarded-Host"] = row.forwarded
			want := row.want
			if row.forwarded != nil && peer != "192.0.2.1:1" { // then it does not count
				h, _ := s.FindHost(row.host)
				want = h.Origin
			}
			h, err := s.HostOf(r)
			if (err == nil) != (want != "") || h.Origin != want {
				t.Errorf("%s, from %s: %q, %v, want %q", name, peer, h.Origin, err, want)
			}
			if err == nil && h.Main != (h.Name == "auth.example.com") {
				t.Errorf("%s: main is %v", name, h.Main)
			}
		}
	}
	one := &web.Site{URL: s.URL}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = "anything"
	if h, err := one.HostOf(r); err != nil || !h.Main {
		t.Errorf("a site with one host: %v, %v", h, err)
	}
}

// Over HTTP/2 the host is in :authority, and in HTTP/1 in Host or in an absolute target, which overrides it (RFC 9112
// §3.2.2).
func TestTheHostIsThatOfTheProtocol(t *testing.T) {
	t.Parallel()
	s := severalHosts(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, _ := s.HostOf(r)
		io.WriteString(w, r.Proto+" "+h.Name)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	ask := func(h2 bool, change func(*http.Request)) string {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}
		if !h2 {
			transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		}
		defer transport.CloseIdleConnections()
		r, _ := http.NewRequest(http.MethodGet, server.URL, nil)
		r.Host = "app.example.com"
		change(r)
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	second := func(r *http.Request) { r.Header["Host"] = []string{"one.apps.example.com"} }
	absolute := func(r *http.Request) { r.URL.Opaque = "https://one.apps.example.com/" }
	for name, got := range map[string][2]string{
		"HTTP/2":               {ask(true, func(*http.Request) {}), "HTTP/2.0 app.example.com"},
		"HTTP/2, and a Host":   {ask(true, second), "HTTP/2.0 app.example.com"},
		"HTTP/1":               {ask(false, func(*http.Request) {}), "HTTP/1.1 app.example.com"},
		"HTTP/1, and a URL":    {ask(false, absolute), "HTTP/1.1 one.apps.example.com"},
		"HTTP/1, another host": {ask(false, func(r *http.Request) { r.Host = "x.example.com" }), "HTTP/1.1 "},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %q, want %q", name, got[0], got[1])
		}
	}
}

func TestAnotherHostOfTheSiteIsAnotherOrigin(t *testing.T) {
	t.Parallel()
	s := severalHosts(t)
	for origin, ok := range map[string]bool{
		"https://app.example.com": true, "https://one.apps.example.com": false, "https://auth.example.com": false,
		"https://evil.example": false, "null": false,
	} {
		r := httptest.NewRequest(http.MethodPost, "/auth/logout", nil)
		r.Host, r.RemoteAddr = "127.0.0.1:4180", "192.0.2.1:1"
		r.Header.Set("X-Forwarded-Host", "app.example.com")
		r.Header.Set("Origin", origin)
		if err := s.SameOrigin(r); (err == nil) != ok {
			t.Errorf("a page of %s: %v", origin, err)
		}
	}
}
