package oidc

// This file is the agreed surface of the package while it is being built. Move each piece to the file where it
// belongs, keep names and signatures (ask before changing one), and delete this file.

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

// Error is a check that failed.
type Error struct {
	Check string // which one: "shape", "alg", "typ", "iss", "aud", "exp", "iat", "jti", "events", "nonce", "sub", "sid", "signature", "azp", "at_hash", "crit", "kid", "jwe", "json", ...
	Err   error  // why; never holds a token or a secret
}

func (e *Error) Error() string { return e.Check + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// ErrUnavailable: the provider could not be asked (network, 5xx, bad metadata): nothing is known, try again later.
// Every error of that kind satisfies errors.Is(err, ErrUnavailable).
// ErrInvalidGrant: the provider refuses the refresh token (or code) for good.
// ErrUnsupported: the provider has no such endpoint.

// Config says who the provider is and how this relying party is registered there.
type Config struct {
	Name         string // what it is called here: letters, digits, "-", "_"; default "main"
	Label        string // what people see on the page that lets them choose; default: the issuer's host
	Issuer       string // https, or http on loopback
	ClientID     string
	ClientSecret string
	AuthMethod   string   // client_secret_basic (the default with a secret), client_secret_post, none (the default without)
	SigningAlg   string   // the registered id_token_signed_response_alg; default RS256
	Scopes       []string // default openid, profile, email; openid is added when missing
	SkipUserinfo bool     // userinfo: never
	Encryption   *Encryption
	Quirks       Quirks

	HTTPClient *http.Client     // default: its own, with timeouts, no redirects followed
	Now        func() time.Time // for the key cache and discovery alone; default time.Now
	Log        *slog.Logger
	OnKeyFetch func(provider, result string) // "ok", "error", "refused" (over the rate); may be nil
}

// Quirks are departures from the standards that one provider needs. All off by default.
type Quirks struct {
	AllowMissingExp      bool   // logout tokens without exp: iat at most 10 minutes old instead
	LogoutSigningAlg     string // logout_token_signed_response_alg, when it differs from SigningAlg
	RequireTyp           bool   // refuse logout tokens whose typ is absent or JWT
	LogoutScope          string // "session" (default) or "subject": widen tokens with sub and sid to the subject
	SIDFromTokenResponse bool   // take sid from session_state of the token response when the ID Token has none
}

// Encryption is for providers registered to encrypt ID Tokens and logout tokens (Back-Channel Logout §2.6 step 1).
type Encryption struct {
	Alg string // id_token_encrypted_response_alg: RSA-OAEP, RSA-OAEP-256, ECDH-ES, ECDH-ES+A128KW, ECDH-ES+A256KW
	Enc string // id_token_encrypted_response_enc: A128CBC-HS256 (default), A256CBC-HS512, A128GCM, A256GCM
	Key any    // *rsa.PrivateKey, *ecdsa.PrivateKey
}

// Provider is one OpenID Provider. New asks nothing of the network; discovery happens on first need, once for all
// who wait, and again after a failure (at most once a second).
//
//	func New(Config) (*Provider, error)                    // every fault of the Config at once, errors.Join
//	func (p *Provider) Config() Config
//	func (p *Provider) Name() string
//	func (p *Provider) Ready(ctx) error                    // nil when metadata and keys have been fetched (asks if not)
//	func (p *Provider) Metadata(ctx) (*Metadata, error)
//	func (p *Provider) Keys(ctx) ([]KeyInfo, error)        // kid, kty, alg, use of the published keys, for `check`
//	func (p *Provider) AuthURL(ctx, AuthRequest) (string, error)
//	func (p *Provider) CheckIssParameter(ctx, iss string) error   // RFC 9207: compared when there, refused when promised and absent; iss=="" means absent
//	func (p *Provider) Exchange(ctx, code, verifier, redirectURI string) (*Tokens, error)
//	func (p *Provider) VerifyIDToken(ctx, raw string, e Expect, now time.Time) (*IDToken, error)
//	func (p *Provider) Userinfo(ctx, accessToken, subject string, now time.Time) (map[string]any, error)
//	func (p *Provider) Refresh(ctx, refreshToken string, before IDToken/claims, now time.Time) (*Tokens, *IDToken /* nil when none came */, error)
//	func (p *Provider) Revoke(ctx, token, hint string) error      // RFC 7009
//	func (p *Provider) EndSessionURL(ctx, EndSessionRequest) (string, error)  // ErrUnsupported without end_session_endpoint
//
//	func VerifyLogoutToken(ctx, providers []*Provider, raw string, now time.Time) (*LogoutToken, error)
//	func ExplainLogoutToken(ctx, providers []*Provider, raw string, now time.Time) []Step
type Provider struct{ cfg Config }

// KeyInfo describes a published key.
type KeyInfo struct {
	KID, Kty, Alg, Use, Crv string
	Bits                    int
	Problem                 string // why it is not used with the registered algorithm; empty when it is
}

// Metadata is what discovery said (OpenID Connect Discovery §3).
type Metadata struct {
	Issuer                string
	AuthorizationEndpoint string
	TokenEndpoint         string
	UserinfoEndpoint      string
	JWKSURI               string
	EndSessionEndpoint    string
	RevocationEndpoint    string
	IDTokenSigningAlgs    []string
	PKCEMethods           []string // code_challenge_methods_supported
	TokenAuthMethods      []string
	Scopes                []string
	IssParameter          bool // authorization_response_iss_parameter_supported
	BackchannelLogout     bool
	BackchannelSession    bool
	FrontchannelLogout    bool
	FrontchannelSession   bool

	Date time.Time // the provider's Date header, for the clock difference; zero when there was none
	At   time.Time // when we received it
}

// AuthRequest asks a person to sign in.
type AuthRequest struct {
	RedirectURI string
	State       string
	Nonce       string
	Verifier    string // PKCE; sent as its S256 challenge
	LoginHint   string
	Prompt      string
	MaxAge      *int
	Extra       url.Values
}

// Tokens is what the token endpoint answered.
type Tokens struct {
	IDToken      string
	AccessToken  string
	RefreshToken string
	Expires      time.Time // of the access token; zero when not said
	Scopes       []string  // granted; as asked when not said
	SessionState string    // session_state, for the quirk
}

// Expect is what an ID Token is held against (Core §3.1.3.7).
type Expect struct {
	Nonce       string // always compared when NoNonce is false
	NoNonce     bool   // at refresh
	AccessToken string // at_hash is compared when the token has one
}

// IDToken is a verified ID Token.
type IDToken struct {
	Raw      string
	Issuer   string
	ClientID string
	Subject  string
	SID      string
	Expiry   time.Time
	IssuedAt time.Time
	AuthTime time.Time
	Claims   map[string]any // all of them
}

// EndSessionRequest is RP-Initiated Logout §2.
type EndSessionRequest struct {
	IDTokenHint           string
	PostLogoutRedirectURI string
	State                 string
}

// LogoutToken is a verified logout token (Back-Channel Logout §2.4).
type LogoutToken struct {
	Provider *Provider
	Issuer   string
	ClientID string
	Subject  string // may be empty, then SID is not
	SID      string
	JTI      string
	IssuedAt time.Time
	Expiry   time.Time // zero only with AllowMissingExp
	// Remember is until when the jti must be refused: Expiry (or what stands in for it) plus the skew.
	Remember time.Time
	// RevokeOffline: Keycloak's revoke_offline_access inside the event.
	RevokeOffline bool
}

// Step is one step of the validation of a logout token, for `curfew token explain`.
type Step struct {
	Name    string // "alg", "iss", ...
	Status  string // "ok", "failed", "skipped"
	Detail  string // what was found, or what is wrong and what to do
	Section string // "Back-Channel Logout §2.6"
}

// The errors that callers act on.
var (
	ErrUnavailable          = errors.New("the provider could not be asked")
	ErrInvalidGrant         = errors.New("the provider refuses the grant (invalid_grant)")
	ErrUnsupported          = errors.New("the provider has no such endpoint")
	ErrUnsupportedTokenType = errors.New("the provider does not revoke tokens of this kind (unsupported_token_type)")
)

var errTodo = errors.New("not written yet")

func New(c Config) (*Provider, error)                                          { return &Provider{cfg: c}, nil }
func (p *Provider) Config() Config                                             { return p.cfg }
func (p *Provider) Name() string                                               { return p.cfg.Name }
func (p *Provider) Ready(ctx context.Context) error                            { return errTodo }
func (p *Provider) Metadata(ctx context.Context) (*Metadata, error)            { return nil, errTodo }
func (p *Provider) Keys(ctx context.Context) ([]KeyInfo, error)                { return nil, errTodo }
func (p *Provider) AuthURL(ctx context.Context, r AuthRequest) (string, error) { return "", errTodo }
func (p *Provider) CheckIssParameter(ctx context.Context, iss string) error    { return errTodo }
func (p *Provider) Exchange(ctx context.Context, code, verifier, redirectURI string) (*Tokens, error) {
	return nil, errTodo
}
func (p *Provider) VerifyIDToken(ctx context.Context, raw string, e Expect, now time.Time) (*IDToken, error) {
	return nil, errTodo
}
func (p *Provider) Userinfo(ctx context.Context, accessToken, subject string, now time.Time) (map[string]any, error) {
	return nil, errTodo
}

// Refresh: of before, only Issuer, ClientID and Subject are read.
func (p *Provider) Refresh(ctx context.Context, refreshToken string, before IDToken, now time.Time) (*Tokens, *IDToken, error) {
	return nil, nil, errTodo
}
func (p *Provider) Revoke(ctx context.Context, token, hint string) error { return errTodo }
func (p *Provider) EndSessionURL(ctx context.Context, r EndSessionRequest) (string, error) {
	return "", errTodo
}
func VerifyLogoutToken(ctx context.Context, providers []*Provider, raw string, now time.Time) (*LogoutToken, error) {
	return nil, errTodo
}
func ExplainLogoutToken(ctx context.Context, providers []*Provider, raw string, now time.Time) []Step {
	return nil
}
