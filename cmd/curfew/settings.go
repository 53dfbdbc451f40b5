package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/web"
)

// setting is one thing that can be configured: `key` in the file, `CURFEW_KEY` in the environment and, if it has a
// usage, `--key` with dashes on the command line.
type setting struct {
	key   string
	def   string // what holds when nobody says anything else
	arg   string // what the flag's help calls its argument
	usage string // of the flag; none without
	set   func(value) error
}

func (s setting) env() string  { return envPrefix + strings.ToUpper(s.key) }
func (s setting) flag() string { return strings.ReplaceAll(s.key, "_", "-") }

// value is what somebody said about a setting, and where.
type value struct {
	node  *yaml.Node // of the file; nil when it came as text
	text  string
	where string // "curfew.yaml:12", "CURFEW_URL", "--url"; empty for a default
	line  int    // in the file
	path  string // "providers[0].issuer"
	layer layer
}

// layer orders where values come from: a later one overrides an earlier one.
type layer int

const (
	layerDefault layer = iota
	layerFile
	layerEnv
	layerFlag
)

// settings of the whole program.
func (c *config) settings() []setting {
	return slices.Concat([]setting{
		{"listen", "127.0.0.1:4180", "ADDRESS", "the public listener, for browsers and providers", address(&c.Listen)},
		{"admin_listen", "127.0.0.1:4181", "ADDRESS", "the private listener: /healthz, /readyz, /metrics; off for none", c.setAdminListen},
		{"admin_hosts", "", "", "", c.setAdminHosts},
		{"grpc_listen", "", "ADDRESS", "a private listener for Envoy's ext_authz over gRPC (default: none)", address(&c.GRPCListen)},
		{"max_connections", "", "", "", whole(&c.MaxConnections, 16, 1_000_000)},
		{"tls_cert_file", "", "FILE", "the certificate of the public listener; read anew when it changes (default: no TLS)", text(&c.TLSCert)},
		{"tls_key_file", "", "FILE", "the key of the certificate", text(&c.TLSKey)},
		{"url", "", "URL", "how browsers and providers reach the public listener", c.setURL},
		{"prefix", "/auth", "PATH", "under which our own routes lie", c.setPrefix},
		{"cookie_name", "", "", "", c.setCookieName},
		{"home", "/", "PATH", "where people go after signing in without a better place", sitePath(&c.Home)},
		{"after_logout", "", "PATH", "where people go after signing out (default: a page that says so)", sitePath(&c.AfterLogout)},
	}, c.gatewayConfig.settings(), []setting{
		{"store", "sqlite:curfew.db", "URL", "where sessions are kept: " + storeNames(), c.setStore},
		{"key_file", "", "FILE", "the keys that seal cookies and tokens (default: beside the database)", text(&c.KeyFile)},
		{"idle_timeout", "2h", "DURATION", "a session that is not used for so long ends", duration(&c.Idle, time.Second)},
		{"session_lifetime", "24h", "DURATION", "a session ends after so long in any case", duration(&c.Lifetime, time.Second)},
		{"refresh_grace", "1h", "", "", duration(&c.Grace, time.Second)},
		{"cache_ceiling", "1s", "", "", duration(&c.Ceiling, 0)},
		{"cache_size", "100000", "", "", whole(&c.CacheSize, 1, 100_000_000)},
		{"max_sessions_per_subject", "1000", "", "", whole(&c.PerSubject, 0, 10_000)},
		{"success_status", "200", "", "", status(&c.SuccessStatus, 200, 204)},
		{"failure_status", "503", "", "", status(&c.FailureStatus, 503, 400)},
		{"app", "", "", "", text(&c.App)},
		{"revoke_expired", "false", "", "", boolean(&c.RevokeExpired)},
		{"key_rotation", "2160h", "", "", c.setKeyRotation},
		{"trusted_proxies", "", "", "", c.setTrustedProxies},
		{"log_format", "text", "FORMAT", "text or json", oneOf(&c.LogFormat, "text", "json")},
		{"log_level", "info", "LEVEL", "debug, info, warn or error", c.setLogLevel},
	})
}

// settings of one provider.
func (p *provider) settings() []setting {
	return []setting{
		{"name", "main", "", "", p.set(func(c *oidc.Config, s string) { c.Name = s })},
		{"label", "", "", "", text(&p.Label)},
		{"issuer", "", "URL", "the provider's issuer", p.set(func(c *oidc.Config, s string) { c.Issuer = s })},
		{"client_id", "", "ID", "what the provider calls us", p.set(func(c *oidc.Config, s string) { c.ClientID = s })},
		{"client_secret", "", "", "", text(&p.ClientSecret)},
		{"client_secret_file", "", "FILE", "holds the client secret (or CURFEW_CLIENT_SECRET in the environment)", p.readSecret},
		{"token_endpoint_auth_method", "", "METHOD", "client_secret_basic, client_secret_post or none", oneOf(&p.AuthMethod, oidc.AuthBasic, oidc.AuthPost, oidc.AuthNone)},
		{"id_token_signed_response_alg", "RS256", "ALG", "the algorithm registered for ID Tokens", p.set(func(c *oidc.Config, s string) { c.SigningAlg = s })},
		{"scopes", "openid,profile,email", "LIST", "what to ask for, with commas between", p.setScopes},
		{"prompt", "", "", "", p.set(func(c *oidc.Config, s string) { c.Prompt = s })},
		{"userinfo", "always", "", "", p.setUserinfo},
		{"id_token_encrypted_response_alg", "", "", "", oneOf(&p.encryptionAlg, "RSA-OAEP", "RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW")},
		{"id_token_encrypted_response_enc", "", "", "", oneOf(&p.encryptionEnc, "A128CBC-HS256", "A256CBC-HS512", "A128GCM", "A256GCM")},
		{"decryption_key_file", "", "", "", p.readDecryptionKey},
		{"require", "", "", "", p.setRequire},
		{"require_verified_email", "false", "", "", boolean(&p.RequireVerifiedEmail)},
		{"offline_access", "keep", "", "", p.setOfflineAccess},
		{"allow_missing_exp", "false", "", "", boolean(&p.Quirks.AllowMissingExp)},
		{"logout_token_signed_response_alg", "", "", "", p.set(func(c *oidc.Config, s string) { c.Quirks.LogoutSigningAlg = s })},
		{"require_typ", "false", "", "", boolean(&p.Quirks.RequireTyp)},
		{"logout_scope", "session", "", "", oneOf(&p.Quirks.LogoutScope, "session", "subject")},
		{"sid_from_token_response", "false", "", "", boolean(&p.Quirks.SIDFromTokenResponse)},
	}
}

// scalar returns a value that is one text.
func (v value) scalar() (string, error) {
	s := v.text
	if v.node != nil {
		n := resolve(v.node)
		if n.Kind != yaml.ScalarNode {
			return "", errors.New("want a single value here, not a list or a map")
		}
		if s = n.Value; n.ShortTag() == "!!null" {
			s = ""
		}
	}
	if s == "" {
		return "", errors.New("is empty; leave it out, or say something")
	}
	return s, nil
}

// list returns a value that is a list: in the file a sequence (or one value), elsewhere with commas or spaces between.
func (v value) list() ([]string, error) {
	if v.node != nil {
		if n := resolve(v.node); n.Kind == yaml.SequenceNode {
			var all []string
			for _, item := range n.Content {
				s, err := value{node: item}.scalar()
				if err != nil {
					return nil, err
				}
				all = append(all, s)
			}
			return all, nil
		}
	}
	s, err := v.scalar()
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' }), err
}

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// parsed makes a setter of a function that reads one text.
func parsed(parse func(string) error) func(value) error {
	return func(v value) error {
		s, err := v.scalar()
		if err != nil {
			return err
		}
		return parse(s)
	}
}

func text(to *string) func(value) error {
	return parsed(func(s string) error { *to = s; return nil })
}

func oneOf(to *string, choices ...string) func(value) error {
	return parsed(func(s string) error {
		if !slices.Contains(choices, s) {
			return fmt.Errorf("%q is not one of: %s", s, strings.Join(choices, ", "))
		}
		*to = s
		return nil
	})
}

func boolean(to *bool) func(value) error {
	return parsed(func(s string) error {
		if s != "true" && s != "false" {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		*to = s == "true"
		return nil
	})
}

func whole(to *int, least, most int) func(value) error {
	return parsed(func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q is not a whole number from %d to %d", s, least, most)
		}
		*to = n
		return nil
	})
}

func status(to *int, choices ...int) func(value) error {
	return parsed(func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || !slices.Contains(choices, n) {
			return fmt.Errorf("%q is neither %d nor %d", s, choices[0], choices[1])
		}
		*to = n
		return nil
	})
}

func duration(to *time.Duration, least time.Duration) func(value) error {
	return parsed(func(s string) error {
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return fmt.Errorf("%q is not a duration; write it like 90s, 30m or 2h", s)
		case d < least:
			return fmt.Errorf("%s is too short; the least is %s", s, least)
		}
		*to = d
		return nil
	})
}

func address(to *string) func(value) error {
	return parsed(func(s string) error {
		_, port, err := net.SplitHostPort(s)
		if n, errPort := strconv.ParseUint(port, 10, 16); err != nil || errPort != nil || n > 65535 {
			return fmt.Errorf("%q is not an address; write it like 127.0.0.1:4180 or :4180", s)
		}
		*to = s
		return nil
	})
}

func (c *config) setAdminListen(v value) error {
	// "" is how a shell says that there is to be none.
	if s, err := v.scalar(); s == "off" || v.node == nil && s == "" && err != nil {
		c.AdminListen = ""
		return nil
	}
	return address(&c.AdminListen)(v)
}

func (c *config) setURL(v value) error {
	return parsed(func(s string) error {
		u, err := web.ParseURL(s)
		if err != nil {
			return fmt.Errorf("%s: %w", strconv.Quote(withoutUser(s)), flat(err))
		}
		c.URL = u
		return nil
	})(v)
}

// setPrefix leaves out nothing that a browser, a proxy or net/http would spell in another way.
func (c *config) setPrefix(v value) error {
	return parsed(func(s string) error {
		plain := !strings.ContainsFunc(s, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./", r)
		})
		if !plain || s == "/" || !strings.HasPrefix(s, "/") || path.Clean(s) != s {
			return fmt.Errorf("%q is not a prefix; write it like /auth, without a slash at the end", s)
		}
		c.Prefix = s
		return nil
	})(v)
}

func (c *config) setCookieName(v value) error {
	return parsed(func(s string) error {
		c.CookieName = s
		return session.CheckCookieName(s)
	})(v)
}

func sitePath(to *string) func(value) error {
	return parsed(func(s string) error {
		if web.ReturnTo(s) != s {
			return fmt.Errorf("%q is not a path on this site; write it like / or /welcome", s)
		}
		*to = s
		return nil
	})
}

func (c *config) setStore(v value) error {
	return parsed(func(s string) (err error) {
		c.Store, err = parseStore(s)
		return err
	})(v)
}

func (c *config) setTrustedProxies(v value) error {
	all, err := v.list()
	if err != nil {
		return err
	}
	for _, s := range all {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, errAddr := netip.ParseAddr(s)
			if errAddr != nil || a.Zone() != "" {
				return fmt.Errorf("%q is neither an address nor a network; write it like 10.0.0.7 or 10.0.0.0/8", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		c.TrustedProxies = append(c.TrustedProxies, p.Masked())
	}
	return nil
}

func (c *config) setLogLevel(v value) error {
	var name string
	if err := oneOf(&name, "debug", "info", "warn", "error")(v); err != nil {
		return err
	}
	return c.LogLevel.UnmarshalText([]byte(name))
}

// withoutUser keeps a password out of what we print.
func withoutUser(raw string) string {
	if i := strings.LastIndex(raw, "@"); i >= 0 {
		return "…" + raw[i:]
	}
	return raw
}

// flat puts several faults of one value on one line.
func flat(err error) error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		all := many.Unwrap()
		words := make([]string, len(all))
		for i, e := range all {
			words[i] = e.Error()
		}
		return errors.New(strings.Join(words, "; "))
	}
	return err
}
