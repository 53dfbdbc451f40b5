package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"text/tabwriter"

	"example.com/curfew"
	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/keyring"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// printStart prints the listeners and what to register at each provider. The front channel is left to `curfew check`:
// where both are registered, some providers use it alone, and it reaches only the person's own browser.
func printStart(w io.Writer, c *config.Config, registrations []curfew.Registration, servers []*server) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	fmt.Fprintf(t, "curfew %s\n", version())
	public := servers[0].listener.Addr()
	where := scheme + "://" + public.String()
	if public.Network() == "unix" {
		where = "unix:" + public.String()
	}
	fmt.Fprintf(t, "  public\t%s\treached as %s\n", where, c.URL)
	if len(c.Hosts) > 0 {
		how := "each passes " + c.Prefix + "/ to curfew"
		if c.CookieDomain != "" {
			how = "one cookie for all of " + c.CookieDomain
		}
		fmt.Fprintf(t, "  hosts\t%s\tsigned in at %s; %s\n", strings.Join(c.Hosts, ", "), c.URL.Host, how)
	}
	if c.AdminListen != "" {
		fmt.Fprintf(t, "  private\thttp://%s\t/healthz /readyz /metrics /console/\n", servers[1].listener.Addr())
	} else {
		fmt.Fprintf(t, "  private\toff\n")
	}
	if len(c.Console.Require) > 0 {
		fmt.Fprintf(t, "  console\t%s%s/console/\tfor those who meet console.require\n", c.URL, c.Prefix)
	}
	if c.GRPCListen != "" {
		fmt.Fprintf(t, "  ext_authz\t%s\tgRPC, for Envoy\n", servers[len(servers)-1].listener.Addr())
	}
	if c.Upstream != nil {
		fmt.Fprintf(t, "  upstream\t%s\n", c.Upstream)
	}
	for _, r := range c.Routes {
		fmt.Fprintf(t, "  upstream\t%s\tfor %s%s\n", r.Upstream.URL, r.Host, cmp.Or(r.Path, "/*"))
	}
	if c.Upstream == nil && len(c.Routes) == 0 {
		fmt.Fprintf(t, "  upstream\tnone\tforward-auth alone, at %s/verify\n", c.Prefix)
	}
	switch {
	case c.KeyFile != "":
		fmt.Fprintf(t, "  sessions\t%s\tkeys in %s\n", c.Store, c.KeyFile)
	default:
		fmt.Fprintf(t, "  sessions\t%s\tgone when this process ends\n", c.Store)
	}
	for _, a := range c.Apps {
		fmt.Fprintf(t, "  told of logouts\t%s\tat %s\n", a.ClientID, withoutQuery(a.URI))
	}
	if len(c.Apps) > 0 {
		fmt.Fprintf(t, "  signed as\t%s%s\tkeys at %[1]s%[2]s/jwks.json\n", c.URL, c.Prefix)
	}
	for i, r := range registrations {
		fmt.Fprintf(t, "\nRegister at the provider %s (%s), for the client %s:\n", r.Provider, r.Issuer, r.ClientID)
		fmt.Fprintf(t, "  back-channel logout URI\t%s\tsession required: yes\n", r.BackchannelURI)
		fmt.Fprintf(t, "  redirect URI\t%s\n", r.RedirectURI)
		fmt.Fprintf(t, "  post-logout redirect URI\t%s\n", r.PostLogoutURI)
		if r.JWKSURI != "" {
			fmt.Fprintf(t, "  JWKS URI\t%s\tthe public keys of this client\n", r.JWKSURI)
		}
		if quirks := config.Quirks(c.Providers[i].Quirks); len(quirks) > 0 {
			fmt.Fprintf(t, "  quirks in force\t%s\n", strings.Join(quirks, ", "))
		}
	}
}

// withoutQuery removes the query of a URL, which may hold a secret.
func withoutQuery(raw string) string {
	where, query, _ := strings.Cut(raw, "?")
	if query != "" {
		return where + "?…"
	}
	return where
}

// appAtMain reports whether an app is served at the host of url: as far as is known here, also one behind a proxy.
func appAtMain(c *config.Config) bool {
	if c.Upstream != nil {
		return true
	}
	for _, r := range c.Routes {
		if r.Host == "" || strings.EqualFold(r.Host, c.URL.Hostname()) {
			return true
		}
	}
	// A proxy that asks /auth/verify guards apps at hosts of its own, or at this one.
	return len(c.Routes) == 0 && len(c.Hosts) == 0
}

// warnAtStart logs each departure from the standards, and each private listener that other machines can reach.
func warnAtStart(log *slog.Logger, c *config.Config, servers []*server) {
	log.Info("serving", "event", "serving", "version", version(),
		"public", servers[0].listener.Addr().String(), "url", c.URL.String())
	for _, p := range c.Providers {
		for _, q := range config.Quirks(p.Quirks) {
			log.Warn("a quirk is in force", "event", "quirk", "provider", p.Name, "quirk", q)
		}
	}
	if c.CookieDomain != "" {
		log.Warn("all hosts of a domain share one cookie: an app, or an attacker who controls any host below the domain, "+
			"can read it, replace it, and use it at every other host. Pass "+c.Prefix+"/ of each host to curfew, and leave "+
			"cookie_domain out, to give each host a cookie of its own",
			"event", "cookie_domain", "domain", c.CookieDomain)
	}
	if len(c.Console.Require) > 0 && appAtMain(c) {
		log.Warn("the console is at the same origin as an app: a script that an attacker gets into a page of the app runs "+
			"beside the console in an operator's browser. Use the private listener, or serve apps at other hosts (see hosts)",
			"event", "console_beside_app", "url", c.URL.String())
	}
	for _, a := range c.Apps {
		if a.Insecure {
			log.Warn("an app is notified of logouts over http", "event", "insecure_app", "app", a.ClientID)
		}
	}
	for _, private := range servers[1:] {
		addr := private.listener.Addr()
		if host, _, err := net.SplitHostPort(addr.String()); err != nil || !web.Loopback(host) {
			log.Warn("the private listener can be reached from other machines, and asks nobody who they are; "+
				"see that only yours can", "event", "private_listener_open", "address", addr.String())
		}
	}
}

// openStore opens the store and its keyring. An existing key file is read first, so that a bad one does not leave a new
// database behind. A missing one is created last, by the process that has opened the store; beside a database that was
// there before it is said, since nobody else would notice that the old one was lost.
func openStore(ctx context.Context, c *config.Config, log *slog.Logger) (store.Store, *keyring.Keyring, error) {
	var ring *keyring.Keyring
	_, missing := os.Stat(c.KeyFile)
	if missing == nil {
		var err error
		if ring, err = c.OpenKeyring(); err != nil {
			return nil, nil, err
		}
	}
	lost := c.KeyFileLost()
	backend, err := c.Store.Open(ctx, log)
	if err != nil {
		return nil, nil, err
	}
	if ring == nil {
		if ring, err = c.OpenKeyring(); err != nil {
			return nil, nil, errors.Join(err, backend.Close())
		}
		if lost {
			log.Warn("there was no key file, and a new one was made: sessions of the existing database cannot be opened "+
				"with a new key, so everybody has to sign in again; put the old key file back if there is one",
				"event", "key_file_made", "key_file", c.KeyFile, "store", c.Store.String())
		}
	}
	return backend, ring, nil
}
