package config

import (
	"log/slog"
	"slices"

	"example.com/curfew"
	"example.com/curfew/gateway"
	"example.com/curfew/keyring"
	"example.com/curfew/oidc"
	"example.com/curfew/store"
)

// RelyingParty returns the configuration for [curfew.New].
func (c *Config) RelyingParty(backend store.Store, ring *keyring.Keyring, log *slog.Logger,
	observe curfew.Observer,
) curfew.Config {
	rp := curfew.Config{
		URL: c.URL.String(), Hosts: c.Hosts, CookieDomain: c.CookieDomain, Prefix: c.Prefix, CookieName: c.CookieName,
		Home: c.Home, AfterLogout: c.AfterLogout, Look: c.Look, Remember: c.Remember, AttemptLifetime: c.Attempt,
		Store: backend, Keyring: ring,
		IdleTimeout: c.Idle, Lifetime: c.Lifetime, RefreshGrace: c.Grace, MaxStale: c.MaxStale, CacheSize: c.CacheSize,
		MaxPerSubject: c.PerSubject,
		Policy:        c.Policy, Identity: c.Identity, GroupsClaim: c.GroupsClaim,
		StreamsAreUse: c.StreamsAreUse, WebSocketOrigins: c.WebSocketOrigins, Tabs: c.Tabs, NoStore: c.NoStore,
		SuccessStatus: c.SuccessStatus, FailureStatus: c.FailureStatus, TrustedProxies: c.TrustedProxies,
		TrustUnix: c.TrustUnix,
		Log:       log, Observe: observe,
		Apps: c.Apps, App: c.App, Assertion: c.Assertion, AssertionClaims: c.AssertionClaims,
		NoForwardAuth: !c.ForwardAuth, OAuth2ProxyPaths: c.OAuth2ProxyPaths,
		KeyRotation: c.KeyRotation, RevokeExpired: c.RevokeExpired,
		AuditKeep: c.AuditKeep, Console: c.Console,
		BearerLifetime: c.BearerLifetime, ClientCertificateHeader: c.CertificateHeader,
	}
	if rp.MaxPerSubject == 0 {
		rp.MaxPerSubject = -1
	}
	if rp.MaxStale == 0 {
		rp.MaxStale = -1 // there this means: no cache
	}
	for _, p := range c.Providers {
		rp.Providers = append(rp.Providers, p.Config)
	}
	return rp
}

// NewProviders returns the providers. They do not log.
func (c *Config) NewProviders() ([]*oidc.Provider, error) {
	var all []*oidc.Provider
	for _, p := range c.Providers {
		cfg := p.Config
		cfg.Log = slog.New(slog.DiscardHandler)
		made, err := oidc.New(cfg)
		if err != nil {
			return nil, Faults{err}
		}
		all = append(all, made)
	}
	return all, nil
}

// Router returns the reverse proxy, or nil if there is no app behind the gateway.
func (g *Gateway) Router(rp *curfew.RP) (*gateway.Router, error) {
	routes := slices.Clone(g.Routes)
	if g.Upstream != nil {
		all := gateway.Upstream{URL: g.Upstream, Health: g.UpstreamHealth}
		routes = append(routes, gateway.Route{App: rp.Gateway().App, Upstream: all})
	}
	for i := range routes {
		u := &routes[i].Upstream
		if u.CA == nil {
			u.CA = g.UpstreamCA
		}
		if u.Timeout == 0 {
			u.Timeout = g.UpstreamTimeout
		}
	}
	if len(routes) == 0 {
		return nil, nil
	}
	return rp.Gateway().Route(routes...)
}
