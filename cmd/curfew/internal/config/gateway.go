package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"example.com/curfew/gateway"
	"example.com/curfew/web"
)

// Gateway holds the settings of the apps, and of who may use them.
type Gateway struct {
	Upstream         *url.URL // for requests without a route; nil: only forward-auth or routes
	UpstreamCA       *x509.CertPool
	UpstreamTimeout  time.Duration
	UpstreamHealth   string
	Routes           []gateway.Route
	Policy           gateway.Policy
	Identity         gateway.Identity
	GroupsClaim      string
	StreamsAreUse    bool
	WebSocketOrigins []string
	Tabs             gateway.TabMode
	NoStore          bool
	ForwardAuth      bool
	OAuth2ProxyPaths bool
	Assertion        bool
	AssertionClaims  []string

	policyDefault string
	preset        string
	headers       map[string]string
	separator     string
	encoding      string
	token         bool
}

// settings returns the settings of the gateway.
func (g *Gateway) settings() []setting {
	return []setting{
		{"upstream", "", "URL", "the app behind the gateway (default: forward-auth only)", upstream(&g.Upstream)},
		{"upstream_ca_file", "", "FILE", "the CAs accepted for the app's certificate (default: the system's)",
			readCA(&g.UpstreamCA)},
		{"upstream_timeout", "5m", "", "", duration(&g.UpstreamTimeout, 0)},
		{"upstream_health", "", "", "", text(&g.UpstreamHealth)},
		{"routes", "", "", "", g.setRoutes},
		{"forward_auth", "true", "", "", boolean(&g.ForwardAuth)},
		{"oauth2_proxy_paths", "false", "", "", boolean(&g.OAuth2ProxyPaths)},
		{"policy", "", "", "", g.setPolicy},
		{"policy_default", "signed-in", "", "", oneOf(&g.policyDefault, "signed-in", "deny")},
		{"identity", "curfew", "", "", oneOf(&g.preset, "curfew", "oauth2-proxy", "none")},
		{"identity_headers", "", "", "", g.setHeaders},
		{"list_separator", ",", "", "", g.setSeparator},
		{"header_encoding", "utf-8", "", "", oneOf(&g.encoding, string(gateway.UTF8), string(gateway.Percent),
			string(gateway.RFC8187))},
		{"pass_access_token", "false", "", "", boolean(&g.token)},
		{"assertion", "false", "", "", boolean(&g.Assertion)},
		{"assertion_claims", "name,email,groups", "", "", words(&g.AssertionClaims, gateway.CheckAssertionClaims)},
		{"groups_claim", "groups", "", "", text(&g.GroupsClaim)},
		{"streams_are_use", "false", "", "", boolean(&g.StreamsAreUse)},
		{"websocket_origins", "", "", "", g.setWebSocketOrigins},
		{"tabs", "off", "", "", tabMode(&g.Tabs)},
		{"no_store", "false", "", "", boolean(&g.NoStore)},
	}
}

// entries reads a list of maps. Each map sets the settings that a call of settings returns. The error has every fault,
// with its line.
func entries(v value, example string, settings func() []setting) error {
	n := v.tree()
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		return fmt.Errorf("want a list, like %s", example)
	}
	var faults []error
	for _, item := range n.Content {
		item = resolve(item)
		faults = append(faults, settingsOf(item, example, settings())...)
	}
	return OneLine(errors.Join(faults...))
}

// settingsOf reads a map of settings, and returns every fault, with its line.
func settingsOf(n *yaml.Node, example string, all []setting) (faults []error) {
	if n.Kind != yaml.MappingNode {
		return []error{fmt.Errorf("line %d: want settings here, like %s", n.Line, example)}
	}
	seen := map[string]bool{}
	for key, node := range pairs(n) {
		at := slices.IndexFunc(all, func(s setting) bool { return s.key == key.Value })
		switch {
		case at < 0:
			faults = append(faults, fmt.Errorf("line %d: there is no such setting: %q%s", key.Line, key.Value,
				Nearest(key.Value, keys(all))))
		case seen[key.Value]:
			faults = append(faults, fmt.Errorf("line %d: %s is there twice", key.Line, key.Value))
		default:
			if err := all[at].set(value{node: node}); err != nil {
				faults = append(faults, fmt.Errorf("line %d: %s: %w", key.Line, key.Value, OneLine(err)))
			}
		}
		seen[key.Value] = true
	}
	return faults
}

// tabMode sets what the pages of an app do when their session has ended.
func tabMode(to *gateway.TabMode) func(value) error {
	return parsed(func(s string) error {
		*to = gateway.TabMode(s)
		return gateway.CheckTabMode(*to)
	})
}

func (g *Gateway) setWebSocketOrigins(v value) error {
	return words(&g.WebSocketOrigins, func(all []string) error {
		var faults []error
		for i, raw := range all {
			var err error
			all[i], err = gateway.ParseOrigin(raw)
			faults = append(faults, masked(err, raw))
		}
		return errors.Join(faults...)
	})(v)
}

func (g *Gateway) setRoutes(v value) error {
	var routes []*gateway.Route
	err := entries(v, "[{path: /api/*, upstream: http://127.0.0.1:3001}]", func() []setting {
		r := new(gateway.Route)
		routes = append(routes, r)
		return []setting{
			{key: "host", set: text(&r.Host)},
			{key: "path", set: text(&r.Path)},
			{key: "app", set: text(&r.App)},
			{key: "upstream", set: upstream(&r.Upstream.URL)},
			{key: "ca_file", set: readCA(&r.Upstream.CA)},
			{key: "health", set: text(&r.Upstream.Health)},
			{key: "timeout", set: duration(&r.Upstream.Timeout, time.Second)},
			{key: "tabs", set: tabMode(&r.Tabs)},
		}
	})
	faults := []error{err}
	for i, r := range routes {
		if r.Upstream.URL == nil {
			if err == nil {
				faults = append(faults, fmt.Errorf("route %d: upstream is missing", i+1))
			}
			r.Upstream.URL = &url.URL{Scheme: "http", Host: "missing.invalid"} // so that Route does not report it again
		}
		g.Routes = append(g.Routes, *r)
	}
	// Package gateway checks paths and hosts.
	_, wrong := (&gateway.Handler{Site: &web.Site{URL: new(url.URL)}}).Route(g.Routes...)
	if wrong != nil {
		faults = append(faults, OneLine(wrong))
	}
	return OneLine(errors.Join(faults...))
}

func (g *Gateway) setPolicy(v value) error {
	var rules []*gateway.Rule
	err := entries(v, "[{path: /admin/*, groups: [admins]}]", func() []setting {
		r := new(gateway.Rule)
		rules = append(rules, r)
		return []setting{
			{key: "host", set: text(&r.Host)},
			{key: "path", set: text(&r.Path)},
			{key: "methods", set: words(&r.Methods, nil)},
			{key: "public", set: boolean(&r.Public)},
			{key: "groups", set: texts(&r.Groups)},
			{key: "email_domains", set: words(&r.EmailDomains, nil)},
			{key: "claims", set: func(v value) error { return setClaims(&r.Claims, v) }},
			{key: "scopes", set: words(&r.Scopes, nil)},
			{key: "acr", set: words(&r.ACR, nil)},
			{key: "amr", set: words(&r.AMR, nil)},
			{key: "max_age", set: duration(&r.MaxAge, time.Second)},
		}
	})
	all := make([]gateway.Rule, len(rules))
	for i, r := range rules {
		if all[i] = *r; err != nil && r.Path == "" {
			all[i].Path = "/" // whose fault is among those
		}
	}
	var wrong error
	g.Policy, wrong = gateway.NewPolicy(all...)
	return OneLine(errors.Join(err, OneLine(wrong)))
}

// setClaims reads a map from claims to a value or a list of values.
func setClaims(to *map[string][]string, v value) error {
	all := make(map[string][]string)
	err := each(v, "claims and their values, like {department: [it, hr]}", func(claim string, v value) (err error) {
		all[claim], err = v.texts()
		return err
	})
	if err == nil {
		*to = all
	}
	return err
}

// setHeaders reads a map from header names to values.
func (g *Gateway) setHeaders(v value) error {
	g.headers = make(map[string]string)
	return each(v, "names of headers and their values, like {X-Remote-User: subject}",
		func(name string, v value) error {
			return parsed(func(s string) error { g.headers[name] = s; return nil })(v)
		})
}

// setSeparator sets what separates the entries of a list in a header.
func (g *Gateway) setSeparator(v value) error {
	return parsed(func(s string) error {
		g.separator = s
		_, err := gateway.Identity{}.WithSeparator(s)
		return err
	})(v)
}

// checkHosts checks the hosts that rules and routes name. A route may name any host while the site has one.
func (g *Gateway) checkHosts(site *web.Site, fault func(key string, err error)) {
	for _, host := range g.Policy.Hosts() {
		if err := site.CheckPattern(host); err != nil {
			fault("policy", err)
		}
	}
	for _, r := range g.Routes {
		if err := site.CheckPattern(r.Host); err != nil && site.SeveralHosts() {
			fault("routes", err)
		}
	}
}

// finish sets what depends on several settings.
func (g *Gateway) finish() error {
	if g.policyDefault == "deny" {
		g.Policy = g.Policy.DenyRest()
	}
	headers := map[string]string{}
	switch g.preset {
	case "curfew":
		headers = gateway.CurfewHeaders()
	case "oauth2-proxy":
		headers = gateway.OAuth2ProxyHeaders()
	}
	maps.Copy(headers, g.headers)
	if g.token {
		headers["Authorization"] = "bearer"
	}
	if g.Assertion && !slices.Contains(slices.Collect(maps.Values(headers)), "assertion") {
		headers["X-Auth-Assertion"] = "assertion"
	}
	var err error
	if g.Identity, err = gateway.NewIdentity(headers); err != nil {
		return OneLine(err)
	}
	if id, err := g.Identity.WithSeparator(g.separator); err == nil { // a fault is reported with its line
		g.Identity = id
	}
	if id, err := g.Identity.WithEncoding(gateway.Encoding(g.encoding)); err == nil {
		g.Identity = id
	}
	return nil
}

// upstream returns a setter for the URL of an app.
func upstream(to **url.URL) func(value) error {
	return parsed(func(s string) error {
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "h2c"}, u.Scheme):
			return fmt.Errorf("%q is not the address of an app; write it like http://127.0.0.1:3000", Masked(s))
		case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
			return errors.New("must have no user, no query and no fragment")
		}
		*to = u
		return nil
	})
}

// readCA returns a setter for the certificates in a PEM file.
func readCA(to **x509.CertPool) func(value) error {
	return parsed(func(name string) error {
		pem, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s holds no certificate in PEM form", name)
		}
		*to = pool
		return nil
	})
}
