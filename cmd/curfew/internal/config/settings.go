package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"example.com/curfew"
	"example.com/curfew/cmd/curfew/internal/stores"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// setting is one setting: `key` in the file, `CURFEW_KEY` in the environment and, if it has a usage, `--key` with
// dashes on the command line.
type setting struct {
	key   string
	def   string // the default; empty: none
	arg   string // the name of the flag's argument, for help
	usage string // help of the flag; empty: no flag
	set   func(value) error
}

func (s setting) env() string  { return envPrefix + strings.ToUpper(s.key) }
func (s setting) flag() string { return strings.ReplaceAll(s.key, "_", "-") }

// settings returns the settings of the program.
func (c *Config) settings() []setting {
	return slices.Concat([]setting{
		{"listen", "127.0.0.1:4180", "ADDRESS", "the public listener, for browsers and providers",
			c.setListen},
		{"admin_listen", "127.0.0.1:4181", "ADDRESS", "the private listener: /healthz, /readyz, /metrics; off for none",
			c.setAdminListen},
		{"admin_hosts", "", "", "", c.setAdminHosts},
		{"console", "", "", "", c.setConsole},
		{"grpc_listen", "", "ADDRESS", "a private listener for Envoy's ext_authz over gRPC (default: none)",
			address(&c.GRPCListen)},
		{"max_connections", "", "", "", whole(&c.MaxConnections, 16, 1_000_000)},
		{"tls_cert_file", "", "FILE",
			"the certificate of the public listener; read again when it changes (default: no TLS)", text(&c.TLSCert)},
		{"tls_key_file", "", "FILE", "the key of the certificate", text(&c.TLSKey)},
		{"url", "", "URL", "how browsers and providers reach the public listener", c.setURL},
		{"hosts", "", "HOSTS", "further hosts with apps, like wiki.example.com,*.example.com; people sign in at url",
			words(&c.Hosts, nil)},
		{"cookie_domain", "", "", "", parsed(func(s string) error { c.CookieDomain = strings.ToLower(s); return nil })},
		{"prefix", "/auth", "PATH", "the path of Curfew's own routes", c.setPrefix},
		{"cookie_name", "", "", "", c.setCookieName},
		{"remember", "false", "", "", boolean(&c.Remember)},
		{"attempt_lifetime", "15m", "", "", c.setAttempt},
		{"home", "/", "PATH", "where users go after signing in if no page was requested", sitePath(&c.Home)},
		{"after_logout", "", "PATH", "where users go after signing out (default: a page that says so)",
			sitePath(&c.AfterLogout)},
		{"look", "", "", "", c.setLook},
	}, c.Gateway.settings(), []setting{
		{"store", "sqlite:curfew.db", "URL", "where sessions are kept: " + stores.Shapes(), c.setStore},
		{"key_file", "", "FILE", "the keys that seal cookies and tokens (default: beside the database)",
			text(&c.KeyFile)},
		{"idle_timeout", "2h", "DURATION", "a session ends when it is not used for this long",
			duration(&c.Idle, time.Second)},
		{"session_lifetime", "24h", "DURATION", "a session ends after this time in any case",
			duration(&c.Lifetime, time.Second)},
		{"refresh_grace", "1h", "", "", duration(&c.Grace, time.Second)},
		{"cache_ceiling", "1s", "", "", duration(&c.MaxStale, 0)},
		{"cache_size", "100000", "", "", whole(&c.CacheSize, 1, 100_000_000)},
		{"max_sessions_per_subject", "1000", "", "", whole(&c.PerSubject, 0, 10_000)},
		{"bearer_lifetime", "1h", "", "", c.setBearerLifetime},
		{"client_certificate_header", "", "", "", c.setCertificateHeader},
		{"success_status", "200", "", "", status(&c.SuccessStatus, 200, 204)},
		{"failure_status", "503", "", "", status(&c.FailureStatus, 503, 400)},
		{"app", "", "", "", text(&c.App)},
		{"revoke_expired", "false", "", "", boolean(&c.RevokeExpired)},
		{"key_rotation", "2160h", "", "", c.setKeyRotation},
		{"trusted_proxies", "", "", "", c.setTrustedProxies},
		{"audit_file", "", "FILE",
			"gets a line of JSON for each sign-in, logout and ending; or stdout (default: none)", text(&c.AuditFile)},
		{"audit_keep", "720h", "", "", c.setAuditKeep},
		{"log_format", "text", "FORMAT", "text or json", oneOf(&c.LogFormat, "text", "json")},
		{"traces", "", "EXPORTER", "otlp or none: export traces as the OTEL_* variables say " +
			"(default: OTEL_TRACES_EXPORTER, or none)", oneOf(&c.Traces, "otlp", "none")},
		{"pprof", "false", "", "serve profiles at /debug/pprof/ on the private listener", boolean(&c.Pprof)},
		{"log_level", "info", "LEVEL", "debug, info, warn or error", c.setLogLevel},
	})
}

func (c *Config) setAdminListen(v value) error {
	// An empty text from the command line or the environment means none.
	if s, err := v.scalar(); s == "off" || v.node == nil && s == "" && err != nil {
		c.AdminListen = ""
		return nil
	}
	return address(&c.AdminListen)(v)
}

// setListen sets an address, the path of a Unix socket, or the socket that systemd opened.
func (c *Config) setListen(v value) error {
	s, err := v.scalar()
	path, isUnix := strings.CutPrefix(s, "unix:")
	switch {
	case err != nil || s != Systemd && !isUnix:
		return address(&c.Listen)(v)
	case isUnix && !filepath.IsAbs(path):
		return fmt.Errorf("%q is not the path of a socket; write it like unix:/run/curfew/curfew.sock", s)
	}
	c.Listen = s
	return nil
}

// Systemd is the value of [Config.Listen] for the socket that systemd opened.
const Systemd = "systemd"

func (c *Config) setURL(v value) error {
	return parsed(func(s string) error {
		u, err := web.ParseURL(s)
		if err != nil {
			return fmt.Errorf("%s: %w", strconv.Quote(Masked(s)), OneLine(err))
		}
		c.URL = u
		return nil
	})(v)
}

func (c *Config) setPrefix(v value) error {
	return parsed(func(s string) error {
		if err := web.CheckPrefix(s); err != nil {
			return fmt.Errorf("%q %w", s, err)
		}
		c.Prefix = s
		return nil
	})(v)
}

func (c *Config) setCookieName(v value) error {
	return parsed(func(s string) error {
		c.CookieName = s
		return session.CheckCookieName(s)
	})(v)
}

// setAttempt sets how long a sign-in may take. End marks are kept for twice the longest time.
func (c *Config) setAttempt(v value) error {
	if err := duration(&c.Attempt, time.Minute)(v); err != nil {
		return err
	}
	if c.Attempt > store.AttemptLifetime {
		return fmt.Errorf("%s is too long; the most is %s", c.Attempt, store.AttemptLifetime)
	}
	return nil
}

// setBearerLifetime sets how long access tokens may live. End marks are kept for as long.
func (c *Config) setBearerLifetime(v value) error {
	if err := duration(&c.BearerLifetime, time.Minute)(v); err != nil {
		return err
	}
	if c.BearerLifetime > curfew.MaxBearerLifetime {
		return fmt.Errorf("%s is too long; the most is %s", c.BearerLifetime, curfew.MaxBearerLifetime)
	}
	return nil
}

func (c *Config) setCertificateHeader(v value) error {
	return parsed(func(s string) error {
		if strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return fmt.Errorf("%q is not the name of a header; write it like X-Forwarded-Tls-Client-Cert", s)
		}
		c.CertificateHeader = s
		return nil
	})(v)
}

func (c *Config) setStore(v value) error {
	return parsed(func(s string) (err error) {
		c.Store, err = stores.Parse(s)
		return err
	})(v)
}

func (c *Config) setTrustedProxies(v value) error {
	all, err := v.words()
	if err != nil {
		return err
	}
	var faults []error
	for _, s := range all {
		if s == "unix" {
			c.TrustUnix = true
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, errAddr := netip.ParseAddr(s)
			if errAddr != nil || a.Zone() != "" {
				faults = append(faults, fmt.Errorf("%q is neither an address nor a network; write it like 10.0.0.7 or "+
					"10.0.0.0/8, or unix", s))
				continue
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		c.TrustedProxies = append(c.TrustedProxies, p.Masked())
	}
	return OneLine(errors.Join(faults...))
}

func (c *Config) setLogLevel(v value) error {
	var name string
	if err := oneOf(&name, "debug", "info", "warn", "error")(v); err != nil {
		return err
	}
	return c.LogLevel.UnmarshalText([]byte(name))
}

// setKeyRotation sets how often the signing keys are replaced, or never.
func (c *Config) setKeyRotation(v value) error {
	if s, err := v.scalar(); err == nil && s == "never" {
		c.KeyRotation = -1
		return nil
	}
	return duration(&c.KeyRotation, 24*time.Hour)(v)
}

// setAuditKeep sets how long events stay in the store, or none.
func (c *Config) setAuditKeep(v value) error {
	if s, err := v.scalar(); err == nil && s == "none" {
		c.AuditKeep = -1
		return nil
	}
	return duration(&c.AuditKeep, time.Minute)(v)
}

// setAdminHosts sets host names without ports.
func (c *Config) setAdminHosts(v value) error {
	return words(&c.AdminHosts, func(all []string) error {
		var faults []error
		for _, name := range all {
			if strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
				faults = append(faults, fmt.Errorf("%q is not a host name; write it like curfew.internal, without a port",
					name))
			}
		}
		return errors.Join(faults...)
	})(v)
}

// setConsole sets who may use the console at the public URL.
func (c *Config) setConsole(v value) error {
	const example = "{require: {groups: [ops]}}"
	n := v.tree()
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("want who may use the console, like %s", example)
	}
	all := settingsOf(n, example, []setting{
		{key: "provider", set: text(&c.Console.Provider)},
		{key: "require", set: func(v value) (err error) {
			c.Console.Require, err = requirements(v, "use the console")
			return err
		}},
	})
	if len(all) == 0 && len(c.Console.Require) == 0 {
		all = append(all, fmt.Errorf("require is missing: say which claim operators have, like %s", example))
	}
	return OneLine(errors.Join(all...))
}
