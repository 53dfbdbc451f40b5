package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/stores"
	gw "example.com/curfew/gateway"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// checkStore checks the store, without creating it.
func checkStore(ctx context.Context, r *Report, c *config.Config) {
	if name := c.Store.File(); name != "" {
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			for _, name := range []string{name, name + ".lock"} {
				if err := canWrite(name); err != nil {
					r.fault("store", fmt.Sprintf("%s: %v", name, err), letItWrite)
					return
				}
			}
			r.ok("store", willBeMade, c.Store)
			return
		}
	}
	if c.Store.InMemory() {
		r.warn("store", "in memory", "a restart signs everybody out; use sqlite:PATH to keep sessions")
		return
	}
	backend, err := c.Store.OpenUnchanged(ctx, stores.Warnings(func(what, todo string) { r.warn("store", what, todo) }))
	switch {
	case stores.IsOlder(err):
		r.ok("store", "%s answers; serve brings it to the schema of this release, which an older one cannot use: %v",
			c.Store, err)
		return
	case stores.IsInUse(err):
		r.ok("store", "%s is in use by a running curfew", c.Store)
		return
	case err == nil:
		_, err = backend.List(ctx, store.Query{Limit: 1}, store.Time(time.Now()))
		err = errors.Join(err, backend.Close())
	}
	if err != nil {
		r.fault("store", err.Error(), "serve would not start; put this right first")
		return
	}
	r.ok("store", "%s answers", c.Store)
}

// checkKeyFile reads the key file, without creating it.
func checkKeyFile(r *Report, c *config.Config) {
	if c.KeyFile == "" {
		r.ok("key file", "none: the keys live as long as the process")
		return
	}
	// A link to nothing is not followed when a key file is made, so OpenKeyring makes nothing there either.
	if _, err := os.Lstat(c.KeyFile); errors.Is(err, fs.ErrNotExist) && c.Store.Embedded() {
		if err := canWrite(c.KeyFile); err != nil {
			r.fault("key file", fmt.Sprintf("%s: %v", c.KeyFile, err), letItWrite)
			return
		}
		if c.KeyFileLost() {
			r.warn("key file", fmt.Sprintf("%s is not there, but %s is", c.KeyFile, c.Store),
				"put the old key file back if there is one: serve makes a new one, with which the sessions of the existing "+
					"database cannot be opened, so everybody has to sign in again")
			return
		}
		r.ok("key file", willBeMade, c.KeyFile)
		return
	}
	if _, err := c.OpenKeyring(); err != nil {
		r.fault("key file", err.Error(), "serve would not start; put this right first")
		return
	}
	r.ok("key file", "%s", c.KeyFile)
}

// checkCertificate reads the certificate of the public listener, if one is configured.
func checkCertificate(r *Report, c *config.Config) {
	const check = "certificate"
	if c.TLSCert == "" {
		return
	}
	cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		r.fault(check, fmt.Sprintf("%s with the key %s: %v", c.TLSCert, c.TLSKey, err), "serve would not start: "+
			"tls_cert_file needs the certificate followed by those of its issuers, and tls_key_file its private key")
		return
	}
	before := len(r.Findings)
	leaf, ends := checkChain(r, check, c.TLSCert, cert.Certificate, x509.ExtKeyUsageServerAuth,
		"renew it; serve reads the files again when they change")
	if leaf == nil {
		return
	}
	if c.URL != nil && leaf.VerifyHostname(c.URL.Hostname()) != nil {
		r.warn(check, fmt.Sprintf("%s is not for %s, the host of url", c.TLSCert, c.URL.Hostname()),
			"no browser and no provider takes it, unless a proxy in front has another: get one for that name")
	}
	if names := uncovered(c, leaf); len(names) > 0 {
		r.warn(check, fmt.Sprintf("%s is not for %s, of hosts", c.TLSCert, strings.Join(names, ", ")),
			"no browser takes it there, unless a proxy in front has another: get one for these names too")
	}
	if len(r.Findings) == before {
		r.ok(check, "%s, until %s", c.TLSCert, ends.UTC().Format(time.RFC3339))
	}
}

// uncovered returns the hosts that a certificate is not for.
func uncovered(c *config.Config, leaf *x509.Certificate) (names []string) {
	site := &web.Site{URL: c.URL}
	site.Hosts, _ = web.ParseHosts(c.URL, c.Hosts)
	for _, addr := range site.Hosts.List() {
		name := addr
		if host, _, err := net.SplitHostPort(addr); err == nil {
			name = host
		}
		if leaf.VerifyHostname(strings.Replace(name, "*.", "any-name.", 1)) != nil {
			names = append(names, name)
		}
	}
	return names
}

// checkHosts says what every host needs.
func checkHosts(r *Report, c *config.Config) {
	if len(c.Hosts) == 0 {
		return
	}
	site := &web.Site{URL: c.URL, Prefix: c.Prefix}
	site.Hosts, _ = web.ParseHosts(c.URL, c.Hosts)
	r.ok("hosts", "%s: people sign in at %s, which alone is registered at the provider; each host has to pass %s to "+
		"curfew", strings.Join(site.Hosts.List(), ", "), c.URL.Host, site.Path(""))
	if c.ForwardAuth && len(c.TrustedProxies) > 0 || len(c.Routes) == 0 {
		return
	}
	for _, addr := range site.Hosts.List() {
		covered := c.Upstream != nil
		for _, route := range c.Routes {
			only := &web.Site{URL: &url.URL{Scheme: c.URL.Scheme, Host: "none.invalid"}}
			only.Hosts, _ = web.ParseHosts(c.URL, []string{addr})
			covered = covered || route.Host == "" || only.CheckPattern(route.Host) == nil
		}
		if !covered {
			r.warn("hosts", addr+" has no route, and there is no upstream", "it is answered 404: add a route for it")
		}
	}
}

// checkPolicy looks for paths similar to that of a rule that an app may serve as the same page, with weaker conditions.
func checkPolicy(r *Report, c *config.Config) {
	gaps := c.Policy.Gaps()
	for len(gaps) > 0 {
		first := gaps[0]
		n := slices.IndexFunc(gaps, func(g gw.Gap) bool { return g.Rule != first.Rule })
		if n < 0 {
			n = len(gaps)
		}
		var open []string
		for _, g := range gaps[:n] {
			by := "no rule"
			if g.By > 0 {
				by = fmt.Sprintf("rule %d, which asks for less", g.By)
			}
			open = append(open, fmt.Sprintf("%s (%s)", g.Open, by))
		}
		r.warn("policy", fmt.Sprintf("rule %d is for %s, and does not cover %s", first.Rule, first.Path,
			strings.Join(open, ", ")),
			"an app may serve these as the same page: add rules for them before any that asks for less, or set "+
				"policy_default: deny")
		gaps = gaps[n:]
	}
}
