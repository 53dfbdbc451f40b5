package oidc

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
)

// The ways in which this relying party proves who it is at the token endpoint (Core §9).
const (
	AuthBasic = "client_secret_basic"
	AuthPost  = "client_secret_post"
	AuthNone  = "none"
)

// The ways in which a provider can be asked whether a session goes on.
const (
	ByRefresh       = "refresh"       // a refresh (Core §12), of a session with a refresh token
	ByIntrospection = "introspection" // of the access token (RFC 7662), where there is such an endpoint
	ByUserinfo      = "userinfo"      // with the access token (Core §5.3)
)

// leastRevalidateRate is the smallest RevalidateRate. A smaller one cannot be spread over a minute.
const leastRevalidateRate = 6

// DefaultAccessTokenLifetime is how long an access token is taken to live when neither the provider nor the
// configuration says it.
const DefaultAccessTokenLifetime = 5 * time.Minute

// Config says who the provider is and how this relying party is registered there.
type Config struct {
	Name         string // what it is called here: letters, digits, "-", "_"; default "main"
	Label        string // what people see on the page that lets them choose; default: the issuer's host
	Issuer       string // https, or http on loopback
	ClientID     string
	ClientSecret string
	// client_secret_basic (the default with a secret), client_secret_post, none (the default without)
	AuthMethod string
	SigningAlg string   // the registered id_token_signed_response_alg; default RS256
	Scopes     []string // default openid, profile, email; openid is added when missing
	// what an authentication request asks for that asks for nothing else (Core §3.1.2.1), with spaces between
	Prompt string
	// AuthParams are further parameters of every authentication request, such as `acr_values`, `kc_idp_hint`,
	// `audience` or `ui_locales`. With `max_age`, `auth_time` of the ID Token is checked (Core §3.1.3.7). Those that this
	// package sets itself are refused.
	AuthParams map[string]string
	// LinkParams are the parameters that a link to the login route may set too. What a link sets replaces the value in
	// AuthParams; of two values for `max_age` the smaller one counts.
	LinkParams   []string
	SkipUserinfo bool // userinfo: never
	// UserinfoSigningAlg is the registered userinfo_signed_response_alg. When it is set, an answer that is not signed
	// is refused. Default: JSON is taken, and what is signed must be signed with SigningAlg.
	UserinfoSigningAlg string
	// UserinfoEncryption is the registered userinfo_encrypted_response_alg and _enc. When it is set, an answer that is
	// not encrypted is refused. Default: what is encrypted must be encrypted as Encryption says.
	UserinfoEncryption *Encryption
	// AccessTokenLifetime is how long an access token is taken to live when the token response does not say it
	// (`expires_in`, RFC 6749 §5.1); then it is refreshed. Default: [DefaultAccessTokenLifetime].
	AccessTokenLifetime time.Duration
	// Revalidate is how often the provider is asked whether a session in use goes on, for providers that end sessions
	// and do not always say so; 0: never. A session that the provider has ended is then refused. The fields below are
	// read with it.
	Revalidate time.Duration
	// RevalidateBy are the ways in which it may be asked, in the order in which they are tried: [ByRefresh],
	// [ByIntrospection], [ByUserinfo]. The first that the provider and the session have is used. Default: these three,
	// without userinfo if that is skipped.
	RevalidateBy []string
	// RevalidateRate is how often it may be asked in a minute, about all sessions together; 0: as often as it takes.
	RevalidateRate int
	// RequireVerifiedEmail has an e-mail address count only with `email_verified: true` (Core §5.1). Without it, an
	// address of which the provider does not say whether it is verified counts too.
	RequireVerifiedEmail bool
	// Require is what the claims of a person must be to sign in and to stay signed in, by the claim's name: one of the
	// values or, if the claim is a list, one of its elements is.
	Require map[string][]any
	// RevokeOffline has refresh tokens that were granted for offline use revoked when their session ends, as all others
	// are. By default they are kept (Back-Channel Logout §2.7).
	RevokeOffline bool

	// InternalURL is where this process asks the provider, if that is another address than the one of the issuer, which
	// browsers use: for containers. Its path, if any, goes before that of each endpoint. Metadata, keys, tokens,
	// userinfo, revocation and introspection are asked for there, without a proxy; browsers are never sent there.
	InternalURL string
	// AllowHTTPToPrivate allows http, without encryption, where issuer or InternalURL have a private address (RFC 1918,
	// RFC 4193, RFC 6598, link-local). Everybody on that network can read secrets and tokens, and change keys. A
	// connection to any other address is refused. On loopback http is always allowed.
	AllowHTTPToPrivate bool
	CA                 *x509.CertPool // may have signed the provider's certificate; default: the system's CAs
	Proxy              *url.URL       // http, https, socks5; default: as HTTPS_PROXY and NO_PROXY say

	Encryption *Encryption
	Quirks     Quirks

	HTTPClient *http.Client // default: its own, with timeouts; either way no redirect is followed
	// for the key cache, discovery and the expiry of fresh access tokens alone; default time.Now
	Now func() time.Time
	Log *slog.Logger // default: nothing is logged
	// "ok", "error", "refused" (over the rate; a token waits); may be nil; must not block
	OnKeyFetch func(provider, result string)
}

// Quirks are departures from the standards that one provider needs. All off by default.
type Quirks struct {
	AllowMissingExp  bool   // logout tokens without exp: iat at most 10 minutes old instead
	LogoutSigningAlg string // logout_token_signed_response_alg, when it differs from SigningAlg
	// PlainLogoutTokens takes logout tokens that are not encrypted where ID Tokens are (Back-Channel Logout §2.6 step 1
	// only recommends to refuse them); encrypted ones are taken as well
	PlainLogoutTokens    bool
	RequireTyp           bool   // refuse logout tokens whose typ is absent or JWT
	LogoutScope          string // "session" (default) or "subject": widen tokens with sub and sid to the subject
	SIDFromTokenResponse bool   // take sid from session_state of the token response when the ID Token has none
}

// Encryption says how the provider encrypts to this client: ID Tokens and logout tokens (Back-Channel Logout §2.6
// step 1), or userinfo (Core §5.3.2).
type Encryption struct {
	Alg string // …_encrypted_response_alg: RSA-OAEP, RSA-OAEP-256, ECDH-ES, ECDH-ES+A128KW, ECDH-ES+A256KW
	Enc string // …_encrypted_response_enc: A128CBC-HS256 (default), A256CBC-HS512, A128GCM, A256GCM
	Key any    // *rsa.PrivateKey, *ecdsa.PrivateKey
}

// String leaves the secret out.
func (c Config) String() string { return fmt.Sprintf("[provider %s: %s]", c.Name, c.Issuer) }

// GoString leaves the secret out.
func (c Config) GoString() string { return c.String() }

// LogValue leaves the secret out.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// withDefaults fills in what was left empty, in a copy.
func (c Config) withDefaults() Config {
	or := func(s *string, d string) {
		if *s == "" {
			*s = d
		}
	}
	or(&c.Name, "main")
	if u, err := url.Parse(c.Issuer); err == nil {
		or(&c.Label, u.Host)
	}
	if c.ClientSecret == "" {
		or(&c.AuthMethod, AuthNone)
	} else {
		or(&c.AuthMethod, AuthBasic)
	}
	or(&c.SigningAlg, "RS256")
	c.SigningAlg = canonicalAlg(c.SigningAlg)
	c.UserinfoSigningAlg = canonicalAlg(c.UserinfoSigningAlg)
	if c.AccessTokenLifetime == 0 {
		c.AccessTokenLifetime = DefaultAccessTokenLifetime
	}
	if c.RevalidateBy == nil {
		c.RevalidateBy = []string{ByRefresh, ByIntrospection, ByUserinfo}
		if c.SkipUserinfo {
			c.RevalidateBy = c.RevalidateBy[:2]
		}
	}
	or(&c.Quirks.LogoutSigningAlg, c.SigningAlg)
	c.Quirks.LogoutSigningAlg = canonicalAlg(c.Quirks.LogoutSigningAlg)
	or(&c.Quirks.LogoutScope, "session")
	if c.Scopes == nil {
		c.Scopes = []string{"openid", "profile", "email"}
	}
	c.Scopes = slices.Clone(c.Scopes)
	if !slices.Contains(c.Scopes, "openid") {
		c.Scopes = slices.Insert(c.Scopes, 0, "openid")
	}
	for _, e := range []**Encryption{&c.Encryption, &c.UserinfoEncryption} {
		if *e != nil {
			filled := **e
			or(&filled.Enc, "A128CBC-HS256")
			*e = &filled
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.OnKeyFetch == nil {
		c.OnKeyFetch = func(string, string) {}
	}
	c.HTTPClient = c.httpClient(c.HTTPClient)
	return c
}

// validate returns every fault of a configuration that has its defaults.
func (c *Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("provider %s: %w", quote(c.Name), fmt.Errorf(format, args...)))
	}
	if len(c.Name) > 64 || strings.ContainsFunc(c.Name, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '_'
	}) {
		fault("name: letters, digits, \"-\" and \"_\" only, at most 64")
	}
	switch u, err := c.checkAddress(c.Issuer); {
	case c.Issuer == "":
		fault("issuer is missing")
	case err != nil:
		fault("issuer: %w", err)
	case u.RawQuery != "" || u.ForceQuery:
		fault("issuer: it has no query (Discovery §3)")
	}
	if c.ClientID == "" || strings.ContainsFunc(c.ClientID, unicode.IsControl) {
		fault("client_id is missing, or holds a control character")
	}
	switch c.AuthMethod {
	case AuthBasic, AuthPost:
		if c.ClientSecret == "" {
			fault("%s needs a client secret", c.AuthMethod)
		}
	case AuthNone:
		if c.ClientSecret != "" {
			fault("token_endpoint_auth_method is none, but there is a client secret: remove one of the two")
		}
	default:
		fault("token_endpoint_auth_method %s: it is client_secret_basic, client_secret_post or none",
			quote(c.AuthMethod))
	}
	if _, err := findAlgorithm(c.SigningAlg); err != nil {
		fault("id_token_signed_response_alg: %w", err)
	}
	if c.Quirks.LogoutSigningAlg != c.SigningAlg {
		if _, err := findAlgorithm(c.Quirks.LogoutSigningAlg); err != nil {
			fault("logout_token_signed_response_alg: %w", err)
		}
	}
	for _, s := range c.Scopes {
		// RFC 6749 §3.3
		bad := func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }
		if s == "" || strings.ContainsFunc(s, bad) {
			fault("scope %s: it is empty or holds a space or another character that a scope cannot have", quote(s))
		}
	}
	prompts := strings.Fields(c.Prompt)
	for i, s := range prompts {
		known := slices.Contains([]string{"none", "login", "consent", "select_account"}, s)
		if !known || s == "none" && len(prompts) > 1 || slices.Contains(prompts[:i], s) {
			fault("prompt: %s: it is none alone, or some of login, consent and select_account (Core §3.1.2.1)",
				quote(c.Prompt))
			break
		}
	}
	if s := c.Quirks.LogoutScope; s != "session" && s != "subject" {
		fault("logout_scope %s: it is session or subject", quote(s))
	}
	if c.UserinfoSigningAlg != "" {
		if _, err := findAlgorithm(c.UserinfoSigningAlg); err != nil {
			fault("userinfo_signed_response_alg: %w", err)
		}
	}
	if c.AccessTokenLifetime < 0 {
		fault("access_token_lifetime: %v is less than nothing", c.AccessTokenLifetime)
	}
	c.validateRevalidation(fault)
	c.validateParams(fault)
	c.validateWhere(fault)
	if c.Encryption != nil {
		if err := c.Encryption.validate(); err != nil {
			fault("encryption: %w", err)
		}
	}
	if c.UserinfoEncryption != nil {
		if err := c.UserinfoEncryption.validate(); err != nil {
			fault("encryption of userinfo: %w", err)
		}
	}
	return errors.Join(faults...)
}

func (c *Config) validateRevalidation(fault func(format string, args ...any)) {
	if c.Revalidate != 0 && c.Revalidate < time.Second {
		fault("revalidate: %v is less than a second", c.Revalidate)
	}
	if c.RevalidateRate != 0 && c.RevalidateRate < leastRevalidateRate {
		fault("revalidate_rate: %d: it is at least %d a minute, or 0 for no limit", c.RevalidateRate,
			leastRevalidateRate)
	}
	for i, way := range c.RevalidateBy {
		switch {
		case !slices.Contains([]string{ByRefresh, ByIntrospection, ByUserinfo}, way):
			fault("revalidate_by: %s: it is refresh, introspection or userinfo", quote(way))
		case slices.Contains(c.RevalidateBy[:i], way):
			fault("revalidate_by: %s is there twice", way)
		}
	}
	if c.Revalidate != 0 && len(c.RevalidateBy) == 0 {
		fault("revalidate_by is empty: name a way in which the provider may be asked, or leave out revalidate")
	}
}

func (e *Encryption) validate() error {
	var faults []error
	rsaAlg := slices.Contains([]string{"RSA-OAEP", "RSA-OAEP-256"}, e.Alg)
	if !rsaAlg && !slices.Contains([]string{"ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW"}, e.Alg) {
		faults = append(faults, fmt.Errorf(
			"alg %s: it is RSA-OAEP, RSA-OAEP-256, ECDH-ES, ECDH-ES+A128KW or ECDH-ES+A256KW", quote(e.Alg)))
	}
	if !slices.Contains([]string{"A128CBC-HS256", "A256CBC-HS512", "A128GCM", "A256GCM"}, e.Enc) {
		faults = append(faults, fmt.Errorf("enc %s: it is A128CBC-HS256, A256CBC-HS512, A128GCM or A256GCM",
			quote(e.Enc)))
	}
	switch k := e.Key.(type) {
	case *rsa.PrivateKey:
		if !rsaAlg {
			faults = append(faults, fmt.Errorf("alg %s does not go with an RSA key", quote(e.Alg)))
		} else if k == nil || k.N.BitLen() < rsaLeast {
			faults = append(faults, fmt.Errorf("the RSA key has less than %d bits", rsaLeast))
		}
	case *ecdsa.PrivateKey:
		if rsaAlg {
			faults = append(faults, fmt.Errorf("alg %s does not go with an EC key", quote(e.Alg)))
		} else if k == nil {
			faults = append(faults, errors.New("the key is missing"))
		}
	default:
		faults = append(faults, fmt.Errorf("the key is a %T; it is an *rsa.PrivateKey or an *ecdsa.PrivateKey", e.Key))
	}
	return errors.Join(faults...)
}

// checkURL parses a URL that secrets or people are sent to: https, or http on this machine itself.
func checkURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return nil, fmt.Errorf("%s is not an absolute URL", quote(raw))
	case u.User != nil:
		return nil, errors.New("a URL with a user name in it is not taken")
	case strings.Contains(raw, "#"):
		return nil, fmt.Errorf("%s has a fragment", quote(raw))
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return u, nil
	default:
		return nil, fmt.Errorf("%s is not https (http is taken on loopback alone)", quote(raw))
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
