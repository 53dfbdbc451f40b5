package oidctest

import (
	"crypto/rand"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config says what the provider is to be. The zero value of each field is useful.
type Config struct {
	Issuer     string // filled in by [Start]
	Clients    []Client
	Users      []User // default: alice, bob and carol
	SigningAlg string // of clients that name none; default RS256

	// AutoLogin signs in without a page: the user whom login_hint names, else the one with this subject.
	AutoLogin string
	// LoginPage draws the page that asks who is there; default: one button for each user. It answers the whole request.
	LoginPage func(http.ResponseWriter, *http.Request, LoginPage)
	// LoggedOutPage draws the page after a logout that leads nowhere else; default: a sentence.
	LoggedOutPage func(http.ResponseWriter, *http.Request)
	// OnDelivery hears of each logout token that was sent, from any goroutine; may be nil.
	OnDelivery func(Delivery)
	// OnChange is called after each change of the provider's sessions, from any goroutine; may be nil.
	OnChange func()

	CookieName     string           // default "op_session"
	AccessTokenTTL time.Duration    // default 5 minutes
	IDTokenTTL     time.Duration    // default 5 minutes
	LogoutTokenTTL time.Duration    // default 2 minutes
	SendTimeout    time.Duration    // for one logout token; default 5 seconds
	Now            func() time.Time // default time.Now
}

// Client is a relying party that is registered here.
type Client struct {
	ID                     string
	Secret                 string   // none: a public client
	AuthMethod             string   // client_secret_basic or client_secret_post; default either
	RedirectURIs           []string // exact
	PostLogoutRedirectURIs []string // exact
	BackchannelLogoutURI   string
	SigningAlg             string // id_token_signed_response_alg; default the provider's
	LogoutSigningAlg       string // of logout tokens; default SigningAlg
	NoRefreshToken         bool   // it gets none
	NoSID                  bool   // its ID Tokens and logout tokens have no sid
	SignedUserinfo         bool   // as a JWT
	UserinfoSigningAlg     string // of that JWT; default SigningAlg
	UserinfoEncryption     *Encryption
	Encryption             *Encryption
	PlainLogoutTokens      bool // its logout tokens are not encrypted, whatever Encryption says
}

// Encryption says how tokens for a client are encrypted.
type Encryption struct {
	Alg, Enc string
	Key      any // *rsa.PublicKey, *ecdsa.PublicKey
}

// User is somebody who can sign in.
type User struct {
	Subject string
	Name    string
	Email   string
	Claims  map[string]any // more of them
}

// Provider is the provider. It is safe for concurrent use.
type Provider struct {
	cfg    Config
	prefix string // path of the issuer
	sender *http.Client

	mu         sync.Mutex
	clients    []Client
	keys       []*Key
	sessions   map[string]*Session // by sid
	browsers   map[string]string   // cookie to sid
	codes      map[string]*grant
	access     map[string]*grant
	refresh    map[string]*grant
	counts     map[string]int
	overrides  map[string]http.HandlerFunc
	mangle     Mangle
	deliveries []Delivery
}

// New makes a provider that is served by [Provider.Handler].
func New(c Config) *Provider {
	if c.SigningAlg == "" {
		c.SigningAlg = "RS256"
	}
	if c.Users == nil {
		c.Users = []User{
			{Subject: "alice", Name: "Alice Ahn", Email: "alice@example.com"},
			{Subject: "bob", Name: "Bob Bauer", Email: "bob@example.com"},
			{Subject: "carol", Name: "Carol Cruz", Email: "carol@example.com"},
		}
	}
	if c.LoginPage == nil {
		c.LoginPage = plainLoginPage
	}
	if c.LoggedOutPage == nil {
		c.LoggedOutPage = plainLoggedOutPage
	}
	if c.OnDelivery == nil {
		c.OnDelivery = func(Delivery) {}
	}
	if c.OnChange == nil {
		c.OnChange = func() {}
	}
	if c.CookieName == "" {
		c.CookieName = "op_session"
	}
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	or(&c.AccessTokenTTL, 5*time.Minute)
	or(&c.IDTokenTTL, 5*time.Minute)
	or(&c.LogoutTokenTTL, 2*time.Minute)
	or(&c.SendTimeout, 5*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	p := &Provider{
		cfg: c,
		sender: &http.Client{
			// Each delivery has its own connection, so that none is left behind; no redirect is followed.
			Transport:     &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		clients:   slices.Clone(c.Clients),
		sessions:  map[string]*Session{},
		browsers:  map[string]string{},
		codes:     map[string]*grant{},
		access:    map[string]*grant{},
		refresh:   map[string]*grant{},
		counts:    map[string]int{},
		overrides: map[string]http.HandlerFunc{},
	}
	if u, err := url.Parse(c.Issuer); err == nil {
		p.prefix = strings.TrimSuffix(u.Path, "/")
	}
	p.Rotate(c.SigningAlg)
	for _, cl := range p.clients {
		p.keyFor(p.algOf(cl))
		p.keyFor(p.logoutAlgOf(cl))
	}
	return p
}

// TB is what [Start] needs of a *testing.T.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Start serves a provider on loopback until the test ends. With an Issuer it listens where that says.
func Start(t TB, c Config) *Provider {
	t.Helper()
	addr := "127.0.0.1:0"
	if u, err := url.Parse(c.Issuer); err == nil && u.Host != "" {
		addr = u.Host
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("oidctest: %v", err)
	}
	if c.Issuer == "" {
		c.Issuer = "http://" + l.Addr().String()
	}
	p := New(c)
	s := &http.Server{Handler: p.Handler(), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return p
}

// Issuer returns the provider's name, which is where it is.
func (p *Provider) Issuer() string { return p.cfg.Issuer }

// Users returns those who can sign in.
func (p *Provider) Users() []User { return slices.Clone(p.cfg.Users) }

// SetClient registers a client, or changes the one with that ID. Tests need it, because a client's addresses are often
// not known before it has been started, which needs the issuer.
func (p *Provider) SetClient(c Client) {
	p.mu.Lock()
	if i := slices.IndexFunc(p.clients, func(o Client) bool { return o.ID == c.ID }); i >= 0 {
		p.clients[i] = c
	} else {
		p.clients = append(p.clients, c)
	}
	p.mu.Unlock()
	p.keyFor(p.algOf(c))
	p.keyFor(p.logoutAlgOf(c))
}

func (p *Provider) client(id string) (Client, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.clients, func(c Client) bool { return c.ID == id })
	if i < 0 {
		return Client{}, false
	}
	return p.clients[i], true
}

func (p *Provider) user(subject string) (User, bool) {
	i := slices.IndexFunc(p.cfg.Users, func(u User) bool { return u.Subject == subject })
	if i < 0 {
		return User{}, false
	}
	return p.cfg.Users[i], true
}

// The endpoints, by the names that [Provider.Count] and [Provider.Override] know.
const (
	Discovery  = "discovery"
	JWKS       = "jwks"
	Authorize  = "authorize"
	Login      = "login"
	Token      = "token"
	Userinfo   = "userinfo"
	Revoke     = "revoke"
	Introspect = "introspect"
	EndSession = "end_session"
)

// Handler serves the provider under the path of its issuer.
func (p *Provider) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, e := range []struct {
		name, path string
		serve      http.HandlerFunc
	}{
		{Discovery, "/.well-known/openid-configuration", p.serveDiscovery},
		{JWKS, "/jwks", p.serveJWKS},
		{Authorize, "/authorize", p.serveAuthorize},
		{Login, "/login", p.serveLogin},
		{Token, "/token", p.serveToken},
		{Userinfo, "/userinfo", p.serveUserinfo},
		{Revoke, "/revoke", p.serveRevoke},
		{Introspect, "/introspect", p.serveIntrospect},
		{EndSession, "/end_session", p.serveEndSession},
	} {
		mux.HandleFunc(p.prefix+e.path, func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			p.counts[e.name]++
			serve := e.serve
			if o := p.overrides[e.name]; o != nil {
				serve = o
			}
			p.mu.Unlock()
			r.Body = http.MaxBytesReader(w, r.Body, 256<<10)
			serve(w, r)
		})
	}
	return mux
}

// URL returns where an endpoint is.
func (p *Provider) URL(endpoint string) string {
	if endpoint == Discovery {
		return strings.TrimSuffix(p.cfg.Issuer, "/") + "/.well-known/openid-configuration"
	}
	return strings.TrimSuffix(p.cfg.Issuer, "/") + "/" + endpoint
}

// Count says how often an endpoint was called.
func (p *Provider) Count(endpoint string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[endpoint]
}

func (p *Provider) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	algs := []any{}
	p.mu.Lock()
	for _, k := range p.keys {
		if !slices.Contains(algs, any(k.Alg)) {
			algs = append(algs, k.Alg)
		}
	}
	mangle := p.mangle.Discovery
	p.mu.Unlock()
	doc := map[string]any{
		"issuer":                                         p.cfg.Issuer,
		"authorization_endpoint":                         p.URL(Authorize),
		"token_endpoint":                                 p.URL(Token),
		"userinfo_endpoint":                              p.URL(Userinfo),
		"jwks_uri":                                       p.URL(JWKS),
		"revocation_endpoint":                            p.URL(Revoke),
		"introspection_endpoint":                         p.URL(Introspect),
		"end_session_endpoint":                           p.URL(EndSession),
		"response_types_supported":                       []any{"code"},
		"grant_types_supported":                          []any{"authorization_code", "refresh_token"},
		"subject_types_supported":                        []any{"public"},
		"id_token_signing_alg_values_supported":          algs,
		"scopes_supported":                               []any{"openid", "profile", "email", "offline_access"},
		"token_endpoint_auth_methods_supported":          []any{"client_secret_basic", "client_secret_post", "none"},
		"code_challenge_methods_supported":               []any{"S256"},
		"prompt_values_supported":                        []any{"none", "login"},
		"backchannel_logout_supported":                   true,
		"backchannel_logout_session_supported":           true,
		"authorization_response_iss_parameter_supported": true,
	}
	if mangle != nil {
		mangle(doc)
	}
	writeJSON(w, http.StatusOK, doc)
}

func (p *Provider) serveJWKS(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	list := []any{}
	for _, k := range p.keys {
		if !k.withdrawn {
			list = append(list, k.JWK())
		}
	}
	mangle := p.mangle.JWKS
	p.mu.Unlock()
	doc := map[string]any{"keys": list}
	if mangle != nil {
		mangle(doc)
	}
	writeJSON(w, http.StatusOK, doc)
}

func random() string { return rand.Text() }
