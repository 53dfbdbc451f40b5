package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.com/curfew"
	"example.com/curfew/cmd/curfew/internal/stores"
	"example.com/curfew/fanout"
	"example.com/curfew/web"
)

const envPrefix = "CURFEW_"

// Config is a complete configuration: every value has been parsed and checked.
type Config struct {
	Listen            string
	AdminListen       string // empty: no private listener
	AdminHosts        []string
	Console           curfew.ConsoleAccess // who may use it at the public URL
	URL               *url.URL
	Hosts             []string // beside that of URL
	CookieDomain      string   // empty: each host has its own cookie
	Prefix            string
	CookieName        string
	Remember          bool
	Attempt           time.Duration
	Home              string
	AfterLogout       string // empty: Curfew's own page
	Look              web.Look
	GRPCListen        string // empty: no ext_authz
	MaxConnections    int    // of the public listener; 0: as many as the open files allow
	TLSCert           string // empty: no TLS
	TLSKey            string
	Store             stores.Address
	KeyFile           string // empty: the keys live as long as the process
	Idle              time.Duration
	Lifetime          time.Duration
	Grace             time.Duration
	BearerLifetime    time.Duration
	CertificateHeader string
	MaxStale          time.Duration // 0: no cache
	CacheSize         int
	PerSubject        int // 0: any number
	SuccessStatus     int
	FailureStatus     int
	TrustedProxies    []netip.Prefix
	TrustUnix         bool
	LogFormat         string
	LogLevel          slog.Level
	Traces            string // "otlp", "none", or empty: as OTEL_TRACES_EXPORTER says
	Pprof             bool
	Providers         []*Provider
	Apps              []fanout.App  // notified of logouts
	App               string        // the one behind the gateway; empty: the only one
	KeyRotation       time.Duration // negative: never
	RevokeExpired     bool
	AuditFile         string        // empty: none; "stdout"
	AuditKeep         time.Duration // negative: nothing is kept in the store

	Gateway
}

// Load reads the configuration. Flags holds the values of flags by name, and environ has the form of [os.Environ].
// Flags override the environment, which overrides the file, which overrides the defaults. The error is [Faults], with
// every fault.
func Load(flags map[string]string, environ []string) (*Config, error) {
	l := &loader{globals: map[string]value{}, single: map[string]value{}, unread: map[string]bool{}}
	for k, v := range flags {
		if k == "config" {
			l.file = v
			continue
		}
		l.put(strings.ReplaceAll(k, "-", "_"), value{text: v, where: "--" + k, layer: layerFlag})
	}
	l.readEnviron(environ)
	if l.file != "" {
		l.readFile()
	}
	c := new(Config)
	given := l.globals
	failed := l.apply(c.settings(), given, "")
	l.applyProviders(c)
	if !l.unread[""] { // else it is not known what is missing, or does not go together
		l.applyApps(c, given, failed)
		l.finish(c, given, failed)
	}
	if len(l.faults) > 0 {
		l.faults.sort()
		return nil, l.faults
	}
	return c, nil
}

// finish checks settings that depend on each other, and sets those that follow from others. Those in failed have a
// fault, and so no value: nothing follows from that.
func (l *loader) finish(c *Config, given map[string]value, failed map[string]bool) {
	fault := func(key string, err error) {
		at, ok := given[key]
		if !ok {
			at = value{path: key}
		}
		l.faults.add(at, err)
	}
	if _, ok := given["url"]; !ok {
		fault("url", fmt.Errorf("is missing: %s", howToSet("url")+" in the file"))
	}
	site := &web.Site{URL: c.URL}
	if c.URL == nil { // one that goes with every host
		site.URL = &url.URL{Scheme: "https", Host: cmp.Or(c.CookieDomain, "url.invalid")}
	}
	var err error
	if site.Hosts, err = web.ParseHosts(site.URL, c.Hosts); err != nil {
		fault("hosts", OneLine(err))
	} else if c.URL != nil && !failed["hosts"] {
		c.checkHosts(site, fault)
	}
	if c.CookieDomain != "" {
		if err := site.CheckCookieDomain(c.CookieDomain); err != nil {
			fault("cookie_domain", err)
		}
	}
	if c.Idle > c.Lifetime && c.Lifetime > 0 {
		fault("idle_timeout", fmt.Errorf("%s is longer than the session_lifetime of %s", c.Idle, c.Lifetime))
	}
	for _, l := range []struct{ key, at, whose, other string }{
		{"admin_listen", c.AdminListen, "public", c.Listen}, {"grpc_listen", c.GRPCListen, "public", c.Listen},
		{"grpc_listen", c.GRPCListen, "private", c.AdminListen},
	} {
		if l.at == l.other && l.at != "" && !strings.HasSuffix(l.at, ":0") {
			fault(l.key, fmt.Errorf("%s is the %s listener's address as well", l.at, l.whose))
		}
	}
	if (c.TLSCert == "") != (c.TLSKey == "") && !failed["tls_cert_file"] && !failed["tls_key_file"] {
		fault("tls_cert_file",
			errors.New("a certificate needs its key, and a key its certificate: give tls_cert_file and tls_key_file"))
	}
	if _, ok := given["policy"]; !ok && c.policyDefault == "deny" {
		fault("policy_default",
			errors.New("with deny and no policy nobody could use any path: add rules under policy"))
	}
	nameless := func(p *Provider) bool { return p.Name == "" }
	if len(c.Console.Require) > 0 && len(c.Providers) > 0 && !slices.ContainsFunc(c.Providers, nameless) {
		switch at := c.Console.Provider; {
		case at == "" && len(c.Providers) > 1:
			fault("console", errors.New("say at which provider operators sign in, since another one may give anybody the "+
				"same claims: {provider: main, require: {groups: [ops]}}"))
		case at != "" && !slices.ContainsFunc(c.Providers, func(p *Provider) bool { return p.Name == at }):
			fault("console", fmt.Errorf("there is no provider %q", at))
		}
	}
	if err := c.Gateway.finish(); err != nil {
		fault("identity_headers", err)
	}
	reached := false
	for _, key := range []string{"upstream", "routes", "trusted_proxies", "grpc_listen"} {
		_, ok := given[key]
		reached = reached || ok
	}
	unreached := errors.New("nobody would be given it: " +
		"name the proxy that asks /auth/verify under trusted_proxies, or the app under upstream")
	if c.Assertion && !reached {
		fault("assertion", unreached)
	}
	if c.token && !reached {
		fault("pass_access_token", unreached)
	}
	if tokens := c.Identity.AccessTokens(); len(tokens) > 0 &&
		slices.ContainsFunc(c.Providers, func(p *Provider) bool { return p.DPoP }) {
		key := "identity_headers"
		if c.token {
			key = "pass_access_token"
		}
		fault(key, fmt.Errorf("with dpop the app could not use the access token (%s), which is bound to a key of the "+
			"session: leave out one of the two", strings.Join(tokens, ", ")))
	}
	if c.Upstream != nil && c.Upstream.Host == c.Listen {
		fault("upstream", fmt.Errorf("%s is the public listener itself", c.Upstream.Host))
	}
	if c.KeyFile == "" {
		c.KeyFile = c.Store.KeyFile()
	}
	if c.KeyFile == "" && !failed["key_file"] && !c.Store.IsZero() && !c.Store.Embedded() {
		fault("key_file", fmt.Errorf("is missing: with %s: all replicas share one; "+
			"make it once, with %s, give every replica the same, and name it here",
			c.Store.Scheme(), KeyCommand("curfew.key")))
	}
}
