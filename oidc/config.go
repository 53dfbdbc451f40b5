package oidc

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
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

	"example.com/curfew/internal/guard"
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
	// token_endpoint_auth_method: client_secret_basic (the default with a secret), client_secret_post, client_secret_jwt,
	// private_key_jwt (the default with Keys and no secret), or none (the default without either)
	AuthMethod string
	// Keys are the private keys of this client. The first that goes with an algorithm signs; the others are published
	// too, so that keys can be replaced: add a new key at the end, move it to the front when the provider has fetched
	// it, and remove the old one later. See [Provider.ClientKeys].
	Keys []PrivateKey
	// AuthSigningAlg is token_endpoint_auth_signing_alg. Default: HS256 with client_secret_jwt; with private_key_jwt
	// that of the first key: RS256, ES256, ES384, ES512 or EdDSA.
	AuthSigningAlg string
	// AssertionAudience is the `aud` of client assertions: [AudienceIssuer] (the default), or [AudienceTokenEndpoint]
	// for a provider that does not take its issuer.
	AssertionAudience string
	// RequestObjectSigningAlg is request_object_signing_alg. When it is set, authentication requests are signed (RFC
	// 9101): with one of Keys, or with HS256, HS384 or HS512 and the client secret.
	RequestObjectSigningAlg string
	// GetClientCertificate returns the certificate that this client shows when it connects to the provider (RFC 8705),
	// as in [tls.Config]: to authenticate with tls_client_auth or self_signed_tls_client_auth, or to have its tokens
	// bound to the certificate. The provider's mtls_endpoint_aliases are used then.
	GetClientCertificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	// PushRequests has authentication requests pushed to the provider (RFC 9126), so that a browser carries only a
	// reference. They are also pushed when the provider's metadata requires it.
	PushRequests bool
	// DPoP has the tokens of each session bound to a key of that session (RFC 9449). What the provider does not bind is
	// refused.
	DPoP bool
	// ResponseMode is how the provider answers an authentication request: "query" (the default), "form_post", or as a
	// signed JWT (JARM) "jwt", "query.jwt" or "form_post.jwt". An answer in the other form, JWT or not, is refused.
	ResponseMode string
	// ResponseSigningAlg is the registered authorization_signed_response_alg (JARM §3). Default: SigningAlg.
	ResponseSigningAlg string
	SigningAlg         string   // the registered id_token_signed_response_alg; default RS256
	Scopes             []string // default openid, profile, email; openid is added when missing
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
	// ResponseEncryption is the registered authorization_encrypted_response_alg and _enc (JARM §3).
	ResponseEncryption *Encryption
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
	// Bearer has access tokens of this provider taken in the Authorization header; nil: none are. See
	// [VerifyAccessToken].
	Bearer *Bearer

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
	Key any    // *rsa.PrivateKey, *ecdsa.PrivateKey; may be left out when there are Keys
	// Keys are more keys to decrypt with, for instance to replace one: what is encrypted to any of them is taken.
	// [New] moves Key to their front.
	Keys []PrivateKey
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
	switch {
	case c.ClientSecret != "":
		or(&c.AuthMethod, AuthBasic)
	case len(c.Keys) > 0:
		or(&c.AuthMethod, AuthPrivateJWT)
	default:
		or(&c.AuthMethod, AuthNone)
	}
	if c.AuthMethod == AuthSecretJWT {
		or(&c.AuthSigningAlg, "HS256")
	}
	c.AuthSigningAlg = canonicalAlg(c.AuthSigningAlg)
	c.RequestObjectSigningAlg = canonicalAlg(c.RequestObjectSigningAlg)
	or(&c.AssertionAudience, AudienceIssuer)
	or(&c.ResponseMode, ModeQuery)
	c.ResponseSigningAlg = canonicalAlg(c.ResponseSigningAlg)
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
	for _, e := range []**Encryption{&c.Encryption, &c.UserinfoEncryption, &c.ResponseEncryption} {
		if *e != nil {
			filled := **e
			or(&filled.Enc, "A128CBC-HS256")
			if filled.Key != nil {
				filled.Keys = slices.Insert(slices.Clone(filled.Keys), 0, PrivateKey{Key: filled.Key})
				filled.Key = nil
			}
			*e = &filled
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	tell, log := c.OnKeyFetch, c.Log
	c.OnKeyFetch = func(provider, result string) {
		if tell != nil {
			defer guard.Recover(log, "OnKeyFetch", nil)
			tell(provider, result)
		}
	}
	c.withBearer()
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
	c.checkAuth(fault)
	c.checkResponse(fault)
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
	c.validateBearer(fault)
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

// checkResponse adds the faults of how the provider answers authentication requests.
func (c *Config) checkResponse(fault func(format string, args ...any)) {
	if !slices.Contains(responseModes(), c.ResponseMode) {
		fault("response_mode: %s: it is one of %s", quote(c.ResponseMode), strings.Join(responseModes(), ", "))
		return
	}
	if c.ResponseSigningAlg != "" {
		if _, err := findAlgorithm(c.ResponseSigningAlg); err != nil {
			fault("authorization_signed_response_alg: %w", err)
		}
	}
	if !c.SignsResponse() && (c.ResponseSigningAlg != "" || c.ResponseEncryption != nil) {
		fault("authorization_signed_response_alg and authorization_encrypted_response_alg need response_mode jwt, "+
			"query.jwt or form_post.jwt; it is %s", c.ResponseMode)
	}
	if c.ResponseEncryption != nil {
		if err := c.ResponseEncryption.validate(); err != nil {
			fault("encryption of authorization responses: %w", err)
		}
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
	keys, err := completeKeys(e.Keys)
	if err != nil {
		return errors.Join(append(faults, err)...)
	}
	if e.Keys = keys; len(keys) == 0 {
		faults = append(faults, errors.New("the private key to decrypt with is missing"))
	}
	for i := range keys {
		_, isRSA := keys[i].Key.(*rsa.PrivateKey)
		_, isEC := keys[i].Key.(*ecdsa.PrivateKey)
		switch {
		case keys[i].Use == "sig":
			faults = append(faults, fmt.Errorf("key %d is for signing (its `use` is sig)", i+1))
		case keys[i].Alg != "" && keys[i].Alg != e.Alg:
			faults = append(faults, fmt.Errorf("key %d is for alg %s, not %s", i+1, quote(keys[i].Alg), quote(e.Alg)))
		case rsaAlg && !isRSA:
			faults = append(faults, fmt.Errorf("alg %s does not go with key %d, which is no RSA key", quote(e.Alg), i+1))
		case !rsaAlg && !isEC:
			faults = append(faults, fmt.Errorf("alg %s does not go with key %d, which is no EC key", quote(e.Alg), i+1))
		}
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
