package oidc_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

func TestOnlyWhatThisProcessAsksGoesToTheInternalAddress(t *testing.T) {
	t.Parallel()
	const issuer = "https://id.example.com/realms/one"
	for name, row := range map[string]struct {
		prefix    string // the path of the internal address
		discovery func(d map[string]any, internal string)
	}{
		"the provider names public addresses": {},
		"behind a path":                       {prefix: "/kc"},
		"it names the internal ones": {discovery: func(d map[string]any, internal string) {
			for name, v := range d {
				if s, ok := v.(string); ok && name != "issuer" {
					d[name] = strings.Replace(s, "https://id.example.com", internal, 1)
				}
			}
		}},
		"it names the port and capitals": {discovery: func(d map[string]any, _ string) {
			for name, v := range d {
				if s, ok := v.(string); ok && name != "issuer" {
					d[name] = strings.Replace(s, "https://id.example.com", "https://ID.example.com:443", 1)
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			op := oidctest.New(oidctest.Config{Issuer: issuer, Clients: []oidctest.Client{{ID: "app", Secret: "s3cret"}}})
			var asked atomic.Int64
			inside := httptest.NewServer(http.StripPrefix(row.prefix, http.HandlerFunc(
				func(w http.ResponseWriter, r *http.Request) {
					asked.Add(1)
					op.Handler().ServeHTTP(w, r)
				})))
			t.Cleanup(inside.Close)
			internal := inside.URL + row.prefix
			if row.discovery != nil {
				op.Mangle(func(m *oidctest.Mangle) {
					m.Discovery = func(d map[string]any) { row.discovery(d, internal) }
				})
			}
			transport := &http.Transport{}
			t.Cleanup(transport.CloseIdleConnections)
			p, err := oidc.New(oidc.Config{Issuer: issuer, ClientID: "app", ClientSecret: "s3cret", InternalURL: internal,
				HTTPClient: &http.Client{Transport: transport}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Config().HTTPClient.CloseIdleConnections)
			ctx := t.Context()
			m, err := p.Metadata(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, to := range []string{m.TokenEndpoint, m.JWKSURI, m.UserinfoEndpoint, m.RevocationEndpoint,
				m.IntrospectionEndpoint} {
				if !strings.HasPrefix(to, internal+"/realms/one/") {
					t.Errorf("asked at %s", to)
				}
			}
			for _, to := range []string{m.AuthorizationEndpoint, m.EndSessionEndpoint} {
				if u, _ := url.Parse(to); !strings.EqualFold(u.Hostname(), "id.example.com") || u.Scheme != "https" {
					t.Errorf("browsers are sent to %s", to)
				}
			}
			if err := p.Ready(ctx); err != nil {
				t.Error(err)
			}
			if _, err := p.Exchange(ctx, "x", strings.Repeat("x", 43), "https://app/"); !errors.Is(err,
				oidc.ErrInvalidGrant) {
				t.Errorf("the token endpoint: %v", err)
			}
			if err := p.Introspect(ctx, "x"); !errors.Is(err, oidc.ErrInvalidToken) {
				t.Errorf("introspection: %v", err)
			}
			if err := p.Revoke(ctx, "x", ""); err != nil {
				t.Errorf("revocation: %v", err)
			}
			if to, _, err := p.EndSessionForm(ctx, oidc.EndSessionRequest{}); err != nil ||
				!strings.EqualFold(to[:len("https://id.example.com")], "https://id.example.com") {
				t.Errorf("a form is sent to %s, %v", to, err)
			}
			if asked.Load() != 6 {
				t.Errorf("the internal address was asked %d times", asked.Load())
			}
		})
	}
}

func TestAnAddressThatIsNotSafeIsRefused(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		issuer, internal string
		allow            bool
		why              string // empty: it is taken
	}{
		"https":                          {issuer: "https://id.example.com", internal: "https://10.0.0.1"},
		"http to loopback":               {issuer: "https://id.example.com", internal: "http://127.0.0.1:8080"},
		"http to a private address":      {"https://id.example.com", "http://10.0.0.1", false, "allow_http_to_private"},
		"http to it, allowed":            {"https://id.example.com", "http://10.0.0.1:8080/x", true, ""},
		"http to a name":                 {"https://id.example.com", "http://keycloak:8080", false, "allow_http_to_private"},
		"http to a name, allowed":        {"https://id.example.com", "HTTP://keycloak:8080", true, ""},
		"http to IPv6":                   {"https://id.example.com", "http://[fd00::1]:80", true, ""},
		"http to the shared space":       {"https://id.example.com", "http://100.64.0.1", true, ""},
		"http to a public address":       {"https://id.example.com", "http://203.0.113.1", true, "this address is public"},
		"http to a public IPv6":          {"https://id.example.com", "http://[2001:db8::1]", true, "this address is public"},
		"http to one that looks private": {"https://id.example.com", "http://[::ffff:203.0.113.1]", true, "public"},
		"an issuer with http":            {"http://10.0.0.1", "", false, "allow_http_to_private"},
		"an issuer with http, allowed":   {"http://10.0.0.1", "", true, ""},
		"an issuer with http, public":    {"http://203.0.113.1", "", true, "this address is public"},
		"a user":                         {"https://id.example.com", "http://u:p@10.0.0.1", true, "user name"},
		"a query":                        {"https://id.example.com", "https://10.0.0.1?x", true, "no query"},
		"no URL":                         {"https://id.example.com", "10.0.0.1", true, "internal_url"},
		"another scheme":                 {"https://id.example.com", "ftp://10.0.0.1", true, "internal_url"},
		"a fragment":                     {"https://id.example.com", "http://10.0.0.1#x", true, "fragment"},
	} {
		_, err := oidc.New(oidc.Config{Issuer: row.issuer, ClientID: "app", InternalURL: row.internal,
			AllowHTTPToPrivate: row.allow})
		if (err == nil) != (row.why == "") || err != nil && !strings.Contains(err.Error(), row.why) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the name of the provider resolves to is seen when it is connected to.
func TestPlainHTTPIsNotSpokenToAPublicAddress(t *testing.T) {
	t.Parallel()
	c := oidc.Config{Issuer: "http://keycloak.internal", ClientID: "app", AllowHTTPToPrivate: true}
	p, err := oidc.New(c)
	if err != nil {
		t.Fatal(err)
	}
	client := p.Config().HTTPClient
	t.Cleanup(client.CloseIdleConnections)
	// A redirect or metadata could name it too; here it is asked directly.
	_, err = client.Get("http://203.0.113.1/")
	if err == nil || !strings.Contains(err.Error(), "use https") {
		t.Errorf("got %v", err)
	}
}

func TestAProviderHasItsOwnCAAndProxy(t *testing.T) {
	t.Parallel()
	op := oidctest.New(oidctest.Config{Issuer: "https://id.example.com"})
	server := httptest.NewUnstartedServer(op.Handler())
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS() // its certificate is for example.com
	t.Cleanup(server.Close)
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())

	var connects atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).
			BasicAuth(); r.Method != http.MethodConnect || user != "u" || pass != "geheim" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		connects.Add(1)
		conn, err := new(net.Dialer).DialContext(r.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			conn.Close()
			return
		}
		io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { defer here.Close(); io.Copy(here, conn) }()
		go func() { defer conn.Close(); io.Copy(conn, here) }()
	}))
	t.Cleanup(proxy.Close)
	through := func(user *url.Userinfo) *url.URL {
		u, _ := url.Parse(proxy.URL)
		u.User = user
		return u
	}
	for name, row := range map[string]struct {
		ca    *x509.CertPool
		proxy *url.URL
		why   string // empty: it works
	}{
		"both":             {pool, through(url.UserPassword("u", "geheim")), ""},
		"no CA":            {nil, through(url.UserPassword("u", "geheim")), "certificate signed by unknown authority"},
		"another password": {pool, through(url.UserPassword("u", "falsch")), "Proxy Authentication Required"},
	} {
		p, err := oidc.New(oidc.Config{Issuer: "https://id.example.com", ClientID: "app", CA: row.ca, Proxy: row.proxy})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Metadata(context.Background())
		if (err == nil) != (row.why == "") || err != nil && (!strings.Contains(err.Error(), row.why) ||
			strings.Contains(err.Error(), "falsch") || strings.Contains(err.Error(), "geheim")) {
			t.Errorf("%s: %v", name, err)
		}
		// A configuration that has its defaults can be used again.
		if _, err := oidc.New(p.Config()); err != nil {
			t.Errorf("%s, again: %v", name, err)
		}
		p.Config().HTTPClient.CloseIdleConnections()
	}
	if connects.Load() != 2 {
		t.Errorf("the proxy was asked %d times", connects.Load())
	}
	_, err := oidc.New(oidc.Config{Issuer: "https://id.example.com", ClientID: "app", CA: pool,
		HTTPClient: &http.Client{Transport: foreign{}}})
	if err == nil || !strings.Contains(err.Error(), "oidc_test.foreign") {
		t.Errorf("a transport that no CA can be set in: %v", err)
	}
}

type foreign struct{}

func (foreign) RoundTrip(*http.Request) (*http.Response, error) { return nil, io.EOF }
