package curfew

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"example.com/curfew/fanout"
	"example.com/curfew/gateway"
	"example.com/curfew/keyring"
	"example.com/curfew/login"
	"example.com/curfew/logout"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/web"
)

// Config is all that a relying party needs to know. URL and one provider are required.
type Config struct {
	URL    string // how browsers and providers reach the app: https, or http on loopback; no path
	Prefix string // where our own routes lie; default /auth
	// CookieName is what our cookies are called, after `__Host-`; see [session.CheckCookieName]. Browsers do not tell
	// ports apart there, so two relying parties on one host need two names. Default "curfew", and on http, which is for
	// loopback alone, with the port, if there is one: "curfew-4180".
	CookieName string
	Providers  []oidc.Config // who signs people in; the page to choose shows them in this order

	Store store.Store // default: in memory, so everybody is signed out by a restart. New does not close it.
	// the keys that seal cookies and tokens (see [KeyFile]); required with a Store, default: random
	Keyring *keyring.Keyring

	IdleTimeout time.Duration // a session that is not used for so long ends; default 2 h
	Lifetime    time.Duration // a session ends after so long in any case; default 24 h
	// for how long a session outlives a provider that is away when it should be refreshed; default 1 h
	RefreshGrace time.Duration
	// how long an ended session may be served when the store's feed is silent; default 1 s, negative: no cache
	MaxStale  time.Duration
	CacheSize int // how many sessions are cached; default 100,000
	// PerSubject is how many sessions one person may have at a provider; default 1,000, at most 10,000, negative: any
	// number. Who signs in once more loses the oldest.
	MaxPerSubject int

	// Apps are the apps behind us that are told of logouts, with tokens that we sign (see [fanout.App]). App is the
	// client ID of the one that [RP.Proxy] leads to; default: the only one there is.
	Apps []fanout.App
	App  string
	// Assertion has the app behind [RP.Proxy], or behind a proxy that asks, told who is there in a signed token as well
	// (see [gateway.Assertion]), with App as its `aud`. AssertionClaims are what it says of a person; default name,
	// email and groups.
	Assertion       bool
	AssertionClaims []string
	// NoForwardAuth leaves out /auth/verify, where no proxy asks (see [gateway.Handler]).
	NoForwardAuth bool
	// KeyRotation is how often the keys that sign those tokens are replaced; default 90 days, negative: never.
	KeyRotation time.Duration
	// RevokeExpired revokes also what sessions held that nobody ended: those that ran out.
	RevokeExpired bool

	// OnLogin is called at each sign-in, before the session begins, and again at each refresh of its tokens, with all
	// claims. It may add to them; an error refuses the sign-in, and if it is made by [web.Fail] the person is told why.
	// At a refresh an error ends the session, unless it is made by web.Fail with a status of 500 or more, or by a
	// context that was done: that is trouble that may pass (see Grace). What is said of an address (email_verified)
	// goes when it puts another in its place.
	OnLogin func(ctx context.Context, claims map[string]any) error
	// Home is where people go after signing in without a better place; default "/".
	Home string
	// AfterLogout is where people go after signing out; default a page of ours that says so. An app that asks whoever
	// opens it to sign in is a poor place: the provider may let them straight back in.
	AfterLogout string

	Policy        gateway.Policy   // who may use which path; see [gateway.NewPolicy]. Default: whoever is signed in
	Identity      gateway.Identity // in which headers an app behind [RP.Proxy] is told who is there
	GroupsClaim   string           // the claim that lists a person's groups; default "groups"
	StreamsAreUse bool             // an open stream counts as use of its session; by default it does not
	// WebSocketOrigins are other sites whose pages may open a WebSocket here, like "https://other.example.com". Pages
	// of this site may in any case; those of any other are answered 403 (RFC 6455 §10.2).
	WebSocketOrigins []string

	SuccessStatus int // of the back-channel endpoint: 200 (default; §2.8) or 204
	FailureStatus int // of the back-channel endpoint when a logout could not be done: 503 (default) or 400 (§2.8)

	TrustedProxies []netip.Prefix // whose X-Forwarded-* headers are believed; default nobody's
	Log            *slog.Logger   // default slog.Default()
	Observe        Observer
	HTTPClient     *http.Client     // for requests to providers; the default has timeouts and follows no redirects
	Now            func() time.Time // default time.Now
}

// Observer is told what happens, for metrics. Its functions may be nil and must not block. No argument holds text of
// a stranger.
type Observer struct {
	SessionCreated func(provider string)
	SessionEnded   func(cause string)
	Logout         func(channel, provider, result, reason string)
	KeyFetch       func(provider, result string)
	Notice         func(kind, target, result string) // of each attempt to tell an app, or to revoke a token
}

// RP is a relying party at work. Its methods may be called concurrently.
type RP struct {
	site      *web.Site
	providers []*oidc.Provider
	sessions  *session.Manager
	store     store.Store
	login     *login.Handler
	gateway   *gateway.Handler
	logout    *logout.Handler
	fanout    *fanout.Sender
	keys      *fanout.Keys // nil: no app is told anything that is signed

	quiet *quiet

	handler http.Handler
	stop    context.CancelFunc
	running sync.WaitGroup
}

// New checks the configuration, telling every fault at once, and starts the relying party. It asks nothing of the
// network: a provider that is away is asked again when somebody needs it. Background work goes on until [RP.Close], or
// until ctx is done.
func New(ctx context.Context, cfg Config) (*RP, error) {
	var faults []error
	fault := func(what string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("curfew: %s: %w", what, err))
		}
	}
	external, err := web.ParseURL(cfg.URL)
	fault("URL", err)
	log := cfg.Log
	if log == nil {
		log = slog.Default()
	}
	rp := &RP{site: &web.Site{URL: external, Prefix: cfg.Prefix, Log: log, TrustedProxies: cfg.TrustedProxies}}
	fault("Prefix", checkPrefix(cfg.Prefix))
	fault("Home", checkPath(cfg.Home))
	fault("AfterLogout", checkPath(cfg.AfterLogout))
	fault("SuccessStatus", oneOf(cfg.SuccessStatus, 0, http.StatusOK, http.StatusNoContent))
	fault("FailureStatus", oneOf(cfg.FailureStatus, 0, http.StatusServiceUnavailable, http.StatusBadRequest))
	fault("Providers", rp.addProviders(cfg, log))
	cfg.App, err = behind(cfg)
	fault("App", err)
	fault("AssertionClaims", gateway.CheckAssertionClaims(cfg.AssertionClaims))
	fault("WebSocketOrigins", checkOrigins(&cfg))
	if cfg.CookieName != "" {
		fault("CookieName", session.CheckCookieName(cfg.CookieName))
	}

	if rp.store = cfg.Store; rp.store == nil {
		rp.store = memory.New()
		if cfg.Keyring == nil {
			cfg.Keyring, _ = keyring.Parse(keyring.NewFile())
		}
	} else if cfg.Keyring == nil {
		fault("Keyring", errors.New("a store needs a key ring to seal what it keeps; see KeyFile"))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	clock := session.NewClock(rp.store, cfg.Now, log)
	if err := rp.addFanout(cfg, clock, log); err != nil {
		return nil, err
	}
	rp.quiet = &quiet{log: log, now: cfg.Now, uri: rp.site.Absolute("backchannel-logout")}
	rp.sessions, err = session.NewManager(session.Config{
		Store: rp.store, Keyring: cfg.Keyring,
		IdleTimeout: cfg.IdleTimeout, Lifetime: cfg.Lifetime, RefreshGrace: cfg.RefreshGrace, MaxStale: cfg.MaxStale,
		CacheSize: cfg.CacheSize, MaxPerSubject: cfg.MaxPerSubject,
		Refresh: rp.refresh, Serves: rp.serves, Notices: rp.fanout, RevokeExpired: cfg.RevokeExpired, Clock: clock,
		Now: cfg.Now, Log: log,
		OnCreated: func(s *session.Session) {
			rp.quiet.signedIn(s.Provider)
			call(cfg.Observe.SessionCreated, s.Provider)
		},
		OnEnded: func(e store.Ended) { call(cfg.Observe.SessionEnded, string(e.Cause)) },
		OnHeard: func(e store.Ended) {
			p := rp.provider(e.Issuer, e.ClientID)
			if p != nil && (e.Cause == store.CauseBackChannel || e.Cause == store.CauseFrontChannel) {
				rp.quiet.heard(p.Name())
			}
		},
	})
	if err != nil {
		return nil, err
	}
	cookie := session.Cookie{Insecure: rp.site.Insecure(), Base: cmp.Or(cfg.CookieName, cookieName(external))}
	rp.login = &login.Handler{
		Site: rp.site, Providers: rp.providers, Sessions: rp.sessions, Ring: cfg.Keyring, Cookie: cookie,
		OnLogin: cfg.OnLogin, Home: cfg.Home,
	}
	rp.gateway = &gateway.Handler{
		Site: rp.site, Sessions: rp.sessions, Cookie: cookie,
		Policy: cfg.Policy, Identity: cfg.Identity, GroupsClaim: cfg.GroupsClaim, StreamsAreUse: cfg.StreamsAreUse,
		App: cfg.App, Assertion: rp.assertion(cfg), NoForwardAuth: cfg.NoForwardAuth,
		WebSocketOrigins: cfg.WebSocketOrigins,
	}
	for _, a := range cfg.Apps {
		rp.gateway.Apps = append(rp.gateway.Apps, a.ClientID)
	}
	rp.logout = &logout.Handler{
		Site: rp.site, Providers: rp.providers, Sessions: rp.sessions, Cookie: cookie, Home: cfg.AfterLogout,
		SuccessStatus: cfg.SuccessStatus, FailureStatus: cfg.FailureStatus,
		OnResult: func(channel, provider, result, reason string) {
			if channel != "user" && (result == "ok" || result == "replayed") { // also one that named nobody here
				rp.quiet.heard(provider)
			}
			if cfg.Observe.Logout != nil {
				cfg.Observe.Logout(channel, provider, result, reason)
			}
		},
	}
	mux := http.NewServeMux()
	rp.login.Mount(mux)
	rp.gateway.Mount(mux)
	rp.logout.Mount(mux)
	if rp.keys != nil {
		(&fanout.Publisher{Site: rp.site, Keys: rp.keys}).Mount(mux)
	}
	mux.Handle("/", rp.site.NotFound())
	routes := rp.gateway.VerifyFirst(mux)
	rp.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w, done := web.Steady(w)
		defer done()
		routes.ServeHTTP(w, r)
	})

	ctx, rp.stop = context.WithCancel(ctx)
	rp.running.Go(func() { rp.sessions.Run(ctx) })
	rp.running.Go(func() { rp.fanout.Run(ctx) })
	if rp.keys != nil {
		rp.running.Go(func() { rp.keys.Run(ctx) })
	}
	return rp, nil
}

// cookieName is the default of [Config.CookieName].
func cookieName(site *url.URL) string {
	if port := site.Port(); site.Scheme == "http" && port != "" {
		return session.DefaultCookie + "-" + port
	}
	return session.DefaultCookie
}

func call(f func(string), arg string) {
	if f != nil {
		f(arg)
	}
}

// Close stops what runs in the background, and waits for notices that are being carried out; the others stay in the
// store. The store stays open: who opened it closes it.
func (rp *RP) Close() error {
	rp.stop()
	rp.running.Wait()
	return nil
}

// Handler serves everything under the prefix. Mount it at the prefix with a slash, and do not strip that.
func (rp *RP) Handler() http.Handler { return rp.handler }

// Require lets a request through to next if somebody is signed in. A browser that opens a page is sent to sign in
// otherwise; anything else is answered 401. What next goes on with after that, a stream for instance, ends with its
// session if it uses [UntilEnded].
func (rp *RP) Require(next http.Handler) http.Handler { return rp.gateway.Require(next) }

// Optional lets every request through to next; [SessionFrom] tells whether somebody is signed in.
func (rp *RP) Optional(next http.Handler) http.Handler { return rp.gateway.Optional(next) }

// Proxy is [RP.Require] around a reverse proxy to upstream, which is told in headers who is signed in.
func (rp *RP) Proxy(upstream *url.URL) http.Handler { return rp.gateway.Proxy(upstream) }

// Gateway returns what checks sessions, for who routes to several apps or answers a proxy in another protocol.
func (rp *RP) Gateway() *gateway.Handler { return rp.gateway }

// Sessions returns the manager, for who wants to end sessions in other ways.
func (rp *RP) Sessions() *session.Manager { return rp.sessions }

// UntilEnded is for a handler that goes on for long, as one of a WebSocket or an event stream does: it returns a
// context that is done also when the session of the request has ended, with the cause [gateway.ErrEnded]. See
// [gateway.UntilEnded].
func UntilEnded(ctx context.Context) (until context.Context, stop context.CancelFunc) {
	return gateway.UntilEnded(ctx)
}

// SessionFrom returns the session of a request that went through [RP.Require] or [RP.Optional], or nil.
func SessionFrom(ctx context.Context) *session.Session { return gateway.SessionFrom(ctx) }

// Registration is what to enter at a provider.
type Registration struct {
	Provider        string
	Issuer          string
	ClientID        string
	RedirectURI     string // redirect_uris
	BackchannelURI  string // backchannel_logout_uri; with backchannel_logout_session_required
	FrontchannelURI string // frontchannel_logout_uri; with frontchannel_logout_session_required
	PostLogoutURI   string // post_logout_redirect_uris
}

// Registrations returns what to enter at each provider.
func (rp *RP) Registrations() []Registration {
	list := make([]Registration, 0, len(rp.providers))
	for _, p := range rp.providers {
		list = append(list, Registration{
			Provider: p.Name(), Issuer: p.Config().Issuer, ClientID: p.Config().ClientID,
			RedirectURI:     rp.login.RedirectURI(p.Name()),
			BackchannelURI:  rp.site.Absolute("backchannel-logout"),
			FrontchannelURI: rp.site.Absolute("frontchannel-logout"),
			PostLogoutURI:   rp.site.Absolute("logout/callback"),
		})
	}
	return list
}

// Providers returns the providers, in the order of the configuration.
func (rp *RP) Providers() []*oidc.Provider { return rp.providers }

// Ready returns nil when the store answers and every provider's metadata and keys are known, and otherwise all that is
// amiss.
func (rp *RP) Ready(ctx context.Context) error {
	var faults []error
	if _, err := rp.store.Find(ctx, store.Key{}, store.Time(rp.sessions.Now())); err != nil &&
		!errors.Is(err, store.ErrNotFound) {
		faults = append(faults, fmt.Errorf("store: %w", err))
	}
	for _, p := range rp.providers {
		if err := p.Ready(ctx); err != nil {
			faults = append(faults, fmt.Errorf("provider %s: %w", p.Name(), err))
		}
	}
	return errors.Join(faults...)
}

// addProviders makes the providers. Names, and pairs of issuer and client, are unique: a logout token must mean one.
func (rp *RP) addProviders(cfg Config, log *slog.Logger) error {
	if len(cfg.Providers) == 0 {
		return errors.New("there is none; name at least one")
	}
	var faults []error
	names := make(map[string]bool)
	clients := make(map[[2]string]bool)
	for i, c := range cfg.Providers {
		if c.HTTPClient == nil {
			c.HTTPClient = cfg.HTTPClient
		}
		if c.Now == nil {
			c.Now = cfg.Now
		}
		if c.Log == nil {
			c.Log = log
		}
		if c.OnKeyFetch == nil {
			c.OnKeyFetch = cfg.Observe.KeyFetch
		}
		p, err := oidc.New(c)
		if err != nil {
			faults = append(faults, fmt.Errorf("number %d: %w", i+1, err))
			continue
		}
		client := [2]string{p.Config().Issuer, p.Config().ClientID}
		if names[p.Name()] {
			faults = append(faults, fmt.Errorf("number %d: the name %q is taken; give each provider its own", i+1,
				p.Name()))
		}
		if clients[client] {
			faults = append(faults, fmt.Errorf("number %d: this issuer with this client is there already", i+1))
		}
		names[p.Name()], clients[client] = true, true
		rp.providers = append(rp.providers, p)
	}
	return errors.Join(faults...)
}

// provider returns the provider of a session, or nil when it is no longer configured.
func (rp *RP) provider(issuer, clientID string) *oidc.Provider {
	return oidc.Find(rp.providers, issuer, clientID)
}

func (rp *RP) serves(issuer, clientID string) bool { return rp.provider(issuer, clientID) != nil }
