package web_test

import (
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"example.com/curfew/web"
)

func site(t testing.TB, raw string) *web.Site {
	t.Helper()
	u, err := web.ParseURL(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &web.Site{URL: u, Log: slog.New(slog.DiscardHandler)}
}

func TestParseURLWritesTheOriginAsBrowsersDo(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"https://app.example.com":      "https://app.example.com",
		"https://app.example.com/":     "https://app.example.com",
		"HTTPS://App.Example.com:443":  "https://app.example.com",
		"https://app.example.com:8443": "https://app.example.com:8443",
		"http://127.0.0.1:4180":        "http://127.0.0.1:4180",
		"http://127.9.9.9":             "http://127.9.9.9",
		"http://localhost:80":          "http://localhost",
		"http://Wiki.localhost:4180":   "http://wiki.localhost:4180",
		"http://[::1]:4180":            "http://[::1]:4180",
		"https://[2001:DB8::1]":        "https://[2001:db8::1]",
	} {
		u, err := web.ParseURL(raw)
		if err != nil || u.String() != want {
			t.Errorf("ParseURL(%q) = %v, %v, want %s", raw, u, err, want)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	t.Parallel()
	for raw, reason := range map[string]string{
		"":                              "https://",
		"app.example.com":               "https://",
		"ftp://app.example.com":         "https://",
		"http://app.example.com":        "loopback",
		"http://localhost.evil.example": "loopback",
		"http://evillocalhost":          "loopback",
		"http://2130706433":             "loopback",
		"http://0.0.0.0":                "loopback",
		"https://":                      "host",
		"https://b\u00fccher.example":   "xn--",
		"https://a b":                   "not a URL",
		"https://app.example.com:":      "port",
		"https://app.example.com:0":     "port",
		"https://app.example.com:99999": "port",
		"https://me@app.example.com":    "user",
		"https://app.example.com/app":   "path",
		"https://app.example.com?":      "query",
		"https://app.example.com?a=b":   "query",
		"https://app.example.com#":      "fragment",
		"https://app.example.com/#a":    "fragment",
	} {
		if u, err := web.ParseURL(raw); err == nil {
			t.Errorf("ParseURL(%q) = %v, want an error that says %q", raw, u, reason)
		} else if !strings.Contains(err.Error(), reason) {
			t.Errorf("ParseURL(%q): %v, want an error that says %q", raw, err, reason)
		}
	}
}

func TestTheSiteKnowsItsAddresses(t *testing.T) {
	t.Parallel()
	s := site(t, "https://app.example.com")
	if got := s.Path("login"); got != "/auth/login" {
		t.Error(got)
	}
	s.Prefix = "/sso/"
	if got := s.Absolute("callback"); got != "https://app.example.com/sso/callback" {
		t.Error(got)
	}
	if s.Insecure() || !site(t, "http://localhost:1").Insecure() {
		t.Error("http on loopback, and only that, is insecure")
	}
}

func TestOnlyATrustedProxySaysWhoTheClientIs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why, peer string
		forwarded []string
		want      string
	}{
		{"nobody forwards", "203.0.113.9:1234", nil, "203.0.113.9"},
		{"a stranger claims to be another", "203.0.113.9:1234", []string{"198.51.100.1"}, "203.0.113.9"},
		{"the proxy says who", "10.0.0.1:1234", []string{"198.51.100.1"}, "198.51.100.1"},
		{"the client's own claim comes before the proxy's word", "10.0.0.1:1234", []string{"1.1.1.1, 198.51.100.1"},
			"198.51.100.1"},
		{"in a header of its own", "10.0.0.1:1234", []string{"1.1.1.1", "198.51.100.1"}, "198.51.100.1"},
		{"two proxies", "10.0.0.1:1234", []string{"198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"proxies all the way", "10.0.0.1:1234", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"rubbish hides nobody", "10.0.0.1:1234", []string{"198.51.100.1, rubbish"}, "10.0.0.1"},
		{"an empty header", "10.0.0.1:1234", []string{""}, "10.0.0.1"},
		{"an empty item says nothing (RFC 9110 §5.6.1.2)", "10.0.0.1:1234", []string{"198.51.100.1, ,", ""},
			"198.51.100.1"},
		{"with a port", "10.0.0.1:1234", []string{"198.51.100.1:99"}, "198.51.100.1"},
		{"IPv6", "10.0.0.1:1234", []string{"[2001:db8::1]:99"}, "2001:db8::1"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:1234", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"a socket", "@", nil, "invalid IP"},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			s := site(t, "https://app.example.com")
			s.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = c.peer
			r.Header["X-Forwarded-For"] = c.forwarded
			if got := s.ClientAddr(r).String(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestARequestOfAnotherSiteIsTold(t *testing.T) {
	t.Parallel()
	s := site(t, "https://app.example.com")
	for _, c := range []struct {
		why, fetchSite, origin, host string
		ok                           bool
	}{
		{"the page's own form", "same-origin", "https://app.example.com", "app.example.com", true},
		{"another site", "cross-site", "https://evil.example", "app.example.com", false},
		{"a sub-domain", "same-site", "https://x.example.com", "app.example.com", false},
		{"an old browser, another site", "", "https://evil.example", "app.example.com", false},
		{"an old browser, this site behind a proxy that changes Host", "", "https://app.example.com", "10.0.0.7", true},
		{"an old browser that hides where it comes from", "", "null", "app.example.com", false},
		{"no browser", "", "", "app.example.com", true},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("POST", "/auth/logout", nil)
			r.Host = c.host
			for name, v := range map[string]string{"Sec-Fetch-Site": c.fetchSite, "Origin": c.origin} {
				if v != "" {
					r.Header.Set(name, v)
				}
			}
			if err := s.SameOrigin(r); (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}
