package curfew

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"example.com/curfew/audit"
	"example.com/curfew/fanout"
	"example.com/curfew/gateway"
	"example.com/curfew/keyring"
	"example.com/curfew/login"
	"example.com/curfew/logout"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/store/observed"
	"example.com/curfew/web"
)

// Config is the configuration of a relying party, for [New]. URL and at least one of Providers are required.
type Config struct {
	// URL is the origin at which browsers and providers reach the app: https, or http on loopback, without a path.
	URL string
	// Hosts are further hosts at which browsers reach apps behind this relying party, like "wiki.example.com" or
	// "*.example.com", which stands for one label; see [web.ParseHosts]. People sign in at the host of URL, which alone
	// is registered at the providers. Every host gets the requests for Prefix to [RP.Handler], and has a cookie of its
	// own, which is worth nothing at another host; all belong to one session.
	Hosts []string
	// CookieDomain is for sites whose hosts do not pass Prefix to this relying party. All hosts at and below this domain
	// then get the same cookie, and each of them can read it, replace it, and use it at every other. Default: each host
	// has a cookie of its own.
	CookieDomain string
	// Prefix is the path under which Curfew's own routes lie; default "/auth". Mount [RP.Handler] there.
	Prefix string
	// CookieName is the base name of our cookies, after `__Host-`; see [session.CheckCookieName]. Browsers share
	// cookies between the ports of a host, so two relying parties on one host need two names. The default is "curfew".
	// With http and a port, it is followed by the port: "curfew-4180".
	CookieName string
	// Providers are the OpenID Providers that people can sign in with. With several, /auth/login shows a page to choose
	// one, in this order.
	Providers []oidc.Config

	// Store keeps the sessions. [RP.Close] does not close it. The default keeps them in memory: a restart then signs
	// everybody out.
	Store store.Store
	// Keyring holds the keys that seal cookies and tokens; see [KeyFile]. It is required with a Store. The default is a
	// random key.
	Keyring *keyring.Keyring

	// Remember has the session cookie outlive the browser, for as long as the session may live. By default the browser
	// removes the cookie when it is closed.
	Remember bool
	// AttemptLifetime is how long a person may take to sign in, between 1 and 15 minutes; default 15 minutes.
	AttemptLifetime time.Duration

	IdleTimeout time.Duration // a session ends when it is not used for this long; default 2 h
	Lifetime    time.Duration // a session ends after this long in any case; default 24 h
	// RefreshGrace is how long a session may go on after its access token has expired, while the provider does not
	// answer and the token cannot be refreshed; default 1 h.
	RefreshGrace time.Duration
	// MaxStale is the longest time that a replica may serve an ended session from its cache when it does not hear from
	// the store; default 1 s, negative: no cache.
	MaxStale  time.Duration
	CacheSize int // how many sessions are cached; default 100,000
	// MaxPerSubject is how many sessions a person may have at one provider; default 1,000, at most 10,000, negative: no
	// limit. One more sign-in ends the oldest session.
	MaxPerSubject int

	// Apps are the apps behind this relying party that are notified of logouts, with logout tokens that Curfew signs;
	// see [fanout.App].
	Apps []fanout.App
	// App is the client ID of the app that [RP.Proxy] forwards to; default: the only one of Apps.
	App string
	// Assertion adds a signed token about the person to requests for the app behind [RP.Proxy], and to answers of
	// forward-auth, with App as its `aud`; see [gateway.Assertion].
	Assertion bool
	// AssertionClaims are the claims about the person in that token; default name, email and groups.
	AssertionClaims []string
	// NoForwardAuth leaves out the route /auth/verify, for sites whose proxy does not use it; see [gateway.Handler].
	NoForwardAuth bool
	// OAuth2ProxyPaths also answers the paths of oauth2-proxy below Prefix; see [gateway.Handler].
	OAuth2ProxyPaths bool
	// KeyRotation is how often the keys that sign logout tokens and assertions are replaced; default 90 days,
	// negative: never.
	KeyRotation time.Duration
	// RevokeExpired also revokes the refresh tokens of sessions that expired, not only of those that were ended.
	RevokeExpired bool

	// OnLogin is called at each sign-in before the session is created, and again at each refresh of its tokens, with
	// all claims. It may add claims. An error refuses the sign-in; the page shows the text of an error made by
	// [web.Fail], and nothing of any other. When OnLogin replaces an address, what the provider said about the old one
	// (email_verified) is removed.
	//
	// At a refresh, an error ends the session. Three are taken as temporary and start RefreshGrace instead: one made by
	// web.Fail with a status of 500 or more, that of a canceled or expired context, and a panic, which is logged.
	OnLogin func(ctx context.Context, claims map[string]any) error
	// OnEnd is called when a session has ended, with its key, person and cause, so that the app can remove what it keeps
	// for that session: see docs/own-sessions.md. It is for tidying up, and not what keeps two people apart.
	//
	// Each replica calls it for the sessions that end on any replica, when it learns of the ending: as a rule once for
	// each session, within milliseconds, and seldom twice. It is not called for a session that expired, nor for one that
	// ended while this process did not run or could not reach the store. Calls come one at a time, from a goroutine of
	// their own: a slow call delays the calls after it and nothing else. When 100,000 are waiting, further ones are
	// dropped, which is logged. ctx is done when [RP.Close] is called; Close waits for the call under way. A panic ends
	// one call, and is logged.
	OnEnd func(ctx context.Context, ended store.Ended)
	// Look says how the pages for people look: name, logo, colours, footer, help, further languages, own templates. A
	// fault in any of it is one of New's.
	Look web.Look
	// Home is the path that a sign-in leads to when it was not started for another page; default "/".
	Home string
	// AfterLogout is the path that a sign-out leads to; the default is a page that says that the person is signed out.
	// Do not choose a page that requires sign-in: the provider may sign the person in again without a question.
	AfterLogout string

	// Policy says who may use which path; see [gateway.NewPolicy]. Default: everybody who is signed in.
	Policy gateway.Policy
	// Identity says in which headers the app behind [RP.Proxy] receives who is signed in.
	Identity      gateway.Identity
	GroupsClaim   string // the claim that lists a person's groups; default "groups"
	StreamsAreUse bool   // an open stream counts as use of its session; by default it does not
	// WebSocketOrigins are the origins of other sites whose pages may open a WebSocket here, like
	// "https://other.example.com". Pages of this site always may; others are answered 403 (RFC 6455 §10.2).
	WebSocketOrigins []string
	// Tabs puts a script into the pages of the app behind [RP.Proxy], which notifies open tabs of the end of their
	// session, and says what a page does then; default: no script. A Go app puts it into its pages itself, with
	// `<script async src="/auth/tab.js"></script>`; see docs/tabs.md.
	Tabs gateway.TabMode
	// NoStore has browsers keep nothing that they get for somebody who is signed in: `Cache-Control: no-store`, where a
	// handler does not say otherwise; see [gateway.Handler]. The default there is `private`.
	NoStore bool

	// BearerLifetime is how long an access token may live that a client sends (see [oidc.Config.Bearer]): between a minute
	// and 24 hours; default 1 h. Others are refused. End marks are kept for as long.
	BearerLifetime time.Duration
	// ClientCertificateHeader is the header in which a trusted proxy says with which certificate a client connected, for
	// access tokens that are bound to one; see [gateway.Bearer].
	ClientCertificateHeader string

	// Console is who may use the operators' console at Prefix and "/console/": nobody by default. See docs/console.md for
	// what to consider, since apps may be at the same origin.
	Console ConsoleAccess

	// SuccessStatus is the status of the back-channel endpoint after a logout: 200 (the default) or 204
	// (Back-Channel Logout §2.8).
	SuccessStatus int
	// FailureStatus is its status when a logout could not be carried out: 503 (the default) or 400 (§2.8).
	FailureStatus int

	// AuditWriter gets a line of JSON, with the names of OCSF, for each sign-in, logout, ending and action of an operator;
	// nil: none. It is called by one goroutine. See [RP.Audit].
	AuditWriter io.Writer
	// AuditKeep is how long the newest of these events stay in Store, where all replicas see them; default 30 days,
	// negative: they are not kept there. There is room for [store.JournalSize].
	AuditKeep time.Duration

	TrustedProxies []netip.Prefix // the proxies whose X-Forwarded-* headers are used; default none
	TrustUnix      bool           // uses those of peers without an address too, which come by a Unix socket
	Log            *slog.Logger   // default slog.Default()
	Observe        Observer       // is called for metrics
	// Tracer makes the spans of requests, logouts, notices, and calls of the store and of providers (OpenTelemetry). nil:
	// there are none, but where the context of a request has a span already. See docs/tracing.md.
	Tracer     trace.TracerProvider
	HTTPClient *http.Client     // for requests to providers; the default has timeouts and follows no redirects
	Now        func() time.Time // default time.Now
}

// Observer has functions that [New] calls for metrics, if they are not nil. They must not block. All arguments are from
// small fixed sets, or names from the configuration: they are safe as labels.
type Observer struct {
	SessionCreated func(provider string)
	SessionEnded   func(cause string)                             // for each session that this process ended
	Logout         func(channel, provider, result, reason string) // for each request for a logout
	KeyFetch       func(provider, result string)                  // for each request for a provider's keys
	Bearer         func(provider, result string)                  // for each access token that was verified
	Notice         func(kind, target, result string)              // for each attempt to notify an app or revoke a token
	Check          func(gateway.Check)                            // for each decision about a request
	// SignIn is called for each sign-in that begins or is decided. provider is "unknown" where it was not known yet.
	SignIn func(provider, result, reason string)
	// Renewal is called for each question to a provider about a session; see [session.Config.OnRenewal].
	Renewal func(kind, provider, result string)
	// Store is called for each call of the store; see package store/observed for the names of operations. failed: it could
	// not do its work, though the caller waited.
	Store func(operation string, took time.Duration, failed bool)
}

// RP is a running relying party, made by [New]. Its methods may be called concurrently.
type RP struct {
	site      *web.Site
	log       *slog.Logger
	providers []*oidc.Provider
	sessions  *session.Manager
	store     store.Store
	login     *login.Handler
	gateway   *gateway.Handler
	logout    *logout.Handler
	fanout    *fanout.Sender
	keys      *fanout.Keys // nil: nothing is signed for apps

	observe  Observer
	quiet    *quietProviders
	audit    *audit.Log
	replica  Replica
	replicas *replicas

	handler http.Handler
	stop    context.CancelFunc
	running sync.WaitGroup
}

// New checks the configuration and starts the relying party. The error lists every fault. New makes no network requests
// to providers: their metadata and keys are fetched when they are first needed. Background work runs until [RP.Close]
// is called or ctx is done.
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
	cfg = guardHooks(cfg, log)
	rp := &RP{log: log, site: &web.Site{URL: external, Prefix: cfg.Prefix, Home: cfg.Home, Log: log,
		TrustedProxies: cfg.TrustedProxies,
		TrustUnix:      cfg.TrustUnix, Tracer: cfg.Tracer}}
	if err == nil {
		rp.site.Hosts, err = web.ParseHosts(external, cfg.Hosts)
		fault("Hosts", err)
		if cfg.CookieDomain != "" && err == nil {
			rp.site.SharedCookie = true
			fault("CookieDomain", rp.site.CheckCookieDomain(cfg.CookieDomain))
		}
		fault("Policy", checkHosts(rp.site, cfg.Policy.Hosts()))
	}
	rp.site.Pages, err = web.NewPages(cfg.Look)
	fault("Look", err)
	fault("Prefix", web.CheckPrefix(cmp.Or(cfg.Prefix, "/auth")))
	fault("Home", web.CheckPath(cmp.Or(cfg.Home, "/")))
	fault("AfterLogout", web.CheckPath(cmp.Or(cfg.AfterLogout, "/")))
	fault("SuccessStatus", oneOf(cfg.SuccessStatus, 0, http.StatusOK, http.StatusNoContent))
	fault("FailureStatus", oneOf(cfg.FailureStatus, 0, http.StatusServiceUnavailable, http.StatusBadRequest))
	if l := cfg.AttemptLifetime; l != 0 && (l < time.Minute || l > store.AttemptLifetime) {
		fault("AttemptLifetime", errors.New("must be between 1 and 15 minutes"))
	}
	fault("Providers", rp.addProviders(cfg, log))
	if tokens := cfg.Identity.AccessTokens(); len(tokens) > 0 &&
		slices.ContainsFunc(cfg.Providers, func(c oidc.Config) bool { return c.DPoP }) {
		fault("Identity", fmt.Errorf("with DPoP the app could not use the access token (%s), which is bound to a key of "+
			"the session: leave out one of the two", strings.Join(tokens, ", ")))
	}
	fault("Bearer", checkBearer(&cfg))
	operators, err := cfg.Console.check(rp)
	fault("Console", err)
	cfg.App, err = proxiedApp(cfg)
	fault("App", err)
	fault("Apps", fanout.CheckApps(cfg.Apps))
	fault("KeyRotation", fanout.CheckEvery(cfg.KeyRotation))
	limits := session.Config{IdleTimeout: cfg.IdleTimeout, Lifetime: cfg.Lifetime, RefreshGrace: cfg.RefreshGrace,
		CacheSize: cfg.CacheSize, MaxPerSubject: cfg.MaxPerSubject}
	if err := limits.CheckLimits(); err != nil {
		faults = append(faults, err)
	}
	fault("AssertionClaims", gateway.CheckAssertionClaims(cfg.AssertionClaims))
	fault("WebSocketOrigins", checkOrigins(&cfg))
	fault("Tabs", gateway.CheckTabMode(cfg.Tabs))
	if cfg.CookieName != "" {
		fault("CookieName", session.CheckCookieName(cfg.CookieName))
	}

	if rp.store = cfg.Store; rp.store == nil {
		rp.store = memory.New()
		if cfg.Keyring == nil {
			cfg.Keyring, _ = keyring.Parse(keyring.NewFile())
		}
	} else if cfg.Keyring == nil {
		fault("Keyring", errors.New("a Store needs a Keyring that seals what it keeps; see KeyFile"))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	rp.observe = cfg.Observe
	if cfg.Observe.Store != nil || cfg.Tracer != nil {
		rp.store = observed.New(rp.store, observeStore(cfg.Observe.Store))
	}
	clock := session.NewClock(rp.store, cfg.Now, log)
	if err := rp.addFanout(cfg, clock, log); err != nil {
		return nil, err
	}
	rp.replica = thisReplica(cfg.Now())
	rp.audit = rp.newAudit(cfg, clock.Now, log)
	rp.site.OnEvent = rp.recordEvent
	rp.quiet = &quietProviders{log: log, now: cfg.Now, uri: rp.site.Absolute("backchannel-logout")}
	ended, err := newEndings(cfg.OnEnd, log)
	if err != nil {
		return nil, err
	}
	rp.sessions, err = session.NewManager(session.Config{
		Store: rp.store, Keyring: cfg.Keyring,
		IdleTimeout: cfg.IdleTimeout, Lifetime: cfg.Lifetime, RefreshGrace: cfg.RefreshGrace, MaxStale: cfg.MaxStale,
		CacheSize: cfg.CacheSize, MaxPerSubject: cfg.MaxPerSubject, TokenLifetime: bearerLifetime(&cfg),
		Refresh: rp.refresh, Revalidation: rp.revalidation, Revalidate: rp.revalidate, Serves: rp.serves, NameOf: rp.nameOf,
		Notices: rp.fanout, RevokeExpired: cfg.RevokeExpired, Clock: clock,
		Now: cfg.Now, Log: log,
		OnCreated: func(s *session.Session) {
			rp.quiet.signedIn(s.Provider)
			rp.replicas.signedIn(s.Provider)
			rp.recordSignIn(s)
			call(cfg.Observe.SessionCreated, s.Provider)
		},
		OnEnded: func(e store.Ended) {
			if p := rp.provider(e.Issuer, e.ClientID); p != nil && e.Cause == store.CauseRefreshRejected {
				rp.replicas.refreshEnded(p.Name())
			}
			call(cfg.Observe.SessionEnded, string(e.Cause))
		},
		OnEnding:  rp.recordEnding,
		OnRenewal: cfg.Observe.Renewal,
		OnHeard: func(e store.Ended) {
			ended.add(e)
			p := rp.provider(e.Issuer, e.ClientID)
			if p != nil && (e.Cause == store.CauseBackChannel || e.Cause == store.CauseFrontChannel) {
				rp.quiet.sentLogout(p.Name())
			}
			if p != nil && e.Cause == store.CauseBackChannel {
				rp.logout.Succeeded(p.Name())
			}
		},
	})
	if err != nil {
		return nil, err
	}
	rp.replicas = &replicas{store: rp.store, keyring: cfg.Keyring, now: clock.Now, log: log,
		inSync: rp.sessions.FeedInSync, self: rp.replica, seen: map[string]*ProviderTraffic{}}
	for _, p := range rp.providers {
		rp.replicas.names = append(rp.replicas.names, p.Name())
	}
	cookie := session.Cookie{Insecure: rp.site.Insecure(), Base: cmp.Or(cfg.CookieName, cookieName(external)),
		Domain: cfg.CookieDomain, Main: external.Hostname()}
	if cfg.Remember {
		cookie.Remember = cmp.Or(cfg.Lifetime, session.DefaultLifetime)
	}
	if rp.site.SeveralHosts() && !rp.site.SharedCookie {
		cookie.Host = func(r *http.Request) (string, bool) {
			host, err := rp.site.HostOf(r)
			return host.Name, err == nil
		}
	}
	rp.login = &login.Handler{
		Site: rp.site, Providers: rp.providers, Sessions: rp.sessions, Keyring: cfg.Keyring, Cookie: cookie,
		OnLogin: cfg.OnLogin, Home: cfg.Home, AttemptLife: cfg.AttemptLifetime,
	}
	rp.gateway = &gateway.Handler{
		Site: rp.site, Sessions: rp.sessions, Cookie: cookie,
		Policy: cfg.Policy, Identity: cfg.Identity, GroupsClaim: cfg.GroupsClaim, StreamsAreUse: cfg.StreamsAreUse,
		App: cfg.App, Assertion: rp.assertion(cfg), NoForwardAuth: cfg.NoForwardAuth,
		OAuth2ProxyPaths: cfg.OAuth2ProxyPaths, Bearer: rp.bearer(&cfg),
		WebSocketOrigins: cfg.WebSocketOrigins, Tabs: cfg.Tabs, NoStore: cfg.NoStore,
		OnCheck: cfg.Observe.Check,
	}
	for _, a := range cfg.Apps {
		rp.gateway.Apps = append(rp.gateway.Apps, a.ClientID)
	}
	rp.login.StepUp = rp.gateway.StepUp
	rp.logout = &logout.Handler{
		Site: rp.site, Providers: rp.providers, Sessions: rp.sessions, Cookie: cookie, Home: cfg.AfterLogout,
		SuccessStatus: cfg.SuccessStatus, FailureStatus: cfg.FailureStatus,
		OnResult: func(channel, provider, result, reason string) {
			if channel != "user" && (result == "ok" || result == "replayed") { // even if it ended no session
				rp.quiet.sentLogout(provider)
				rp.replicas.sentLogout(provider)
			}
			if cfg.Observe.Logout != nil {
				cfg.Observe.Logout(channel, provider, result, reason)
			}
		},
	}
	for _, said := range rp.site.Pages.Incomplete() {
		log.Warn("a language of the pages is not complete", "event", "messages_incomplete", "file", said)
	}
	mux := http.NewServeMux()
	rp.site.Mount(mux)
	rp.login.Mount(mux)
	rp.gateway.Mount(mux)
	rp.logout.Mount(mux)
	rp.mountClientKeys(mux)
	rp.mountConsole(mux, cfg, operators)
	if rp.keys != nil {
		(&fanout.Publisher{Site: rp.site, Keys: rp.keys}).Mount(mux)
	}
	mux.Handle("/", rp.site.NotFound())
	routes := rp.gateway.VerifyFirst(rp.gateway.OwnHosts(mux, "backchannel-logout", "jwks.json",
		".well-known/openid-configuration"))
	rp.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w, done := web.Steady(w)
		defer done()
		w, r, end := rp.site.Trace(w, r, rp.site.Path(""))
		defer end()
		routes.ServeHTTP(w, r)
	})

	ctx, rp.stop = context.WithCancel(ctx)
	rp.running.Go(func() { rp.sessions.Run(ctx) })
	rp.running.Go(func() { rp.fanout.Run(ctx) })
	rp.running.Go(func() { rp.audit.Run(ctx) })
	rp.running.Go(func() { rp.replicas.run(ctx) })
	rp.running.Go(func() { ended.run(ctx) })
	if rp.keys != nil {
		rp.running.Go(func() { rp.keys.Run(ctx) })
	}
	return rp, nil
}

// cookieName returns the default of [Config.CookieName].
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

// Close stops the background work and waits for notices that are being sent. Notices that are not yet sent stay in the
// store. Close does not close [Config.Store].
func (rp *RP) Close() error {
	rp.stop()
	rp.running.Wait()
	return nil
}

// Handler returns the handler of Curfew's own routes: sign-in, sign-out, and the endpoints that the provider calls.
// Mount it at the prefix and a slash ("/auth/"), without [http.StripPrefix].
func (rp *RP) Handler() http.Handler { return rp.handler }

// Require returns a handler that passes a request to next only if it has a session; next reads it with [SessionFrom]. A
// browser that opens a page without one is redirected to sign in; any other request is answered 401. A handler that
// runs for long, such as a stream, uses [UntilEnded] to stop when its session ends.
func (rp *RP) Require(next http.Handler) http.Handler { return rp.gateway.Require(next) }

// Optional returns a handler that passes every request to next. There [SessionFrom] returns the session, or nil.
func (rp *RP) Optional(next http.Handler) http.Handler { return rp.gateway.Optional(next) }

// Proxy is [RP.Require] around a reverse proxy to upstream. It passes who is signed in to upstream in the headers that
// [Config.Identity] names.
func (rp *RP) Proxy(upstream *url.URL) http.Handler { return rp.gateway.Proxy(upstream) }

// Gateway returns the handler that checks sessions, for callers that route to several apps or answer a proxy in another
// protocol.
func (rp *RP) Gateway() *gateway.Handler { return rp.gateway }

// Sessions returns the session manager, for callers that end sessions themselves, for instance when an account is
// closed: see [session.Manager.End].
func (rp *RP) Sessions() *session.Manager { return rp.sessions }

// UntilEnded returns a context for a handler that runs for long, such as that of a WebSocket or an event stream. ctx is
// the context of a request that went through [RP.Require]. The returned context is also canceled when the session ends,
// with the cause [gateway.ErrEnded]. Call stop when the handler returns. See [gateway.UntilEnded].
func UntilEnded(ctx context.Context) (until context.Context, stop context.CancelFunc) {
	return gateway.UntilEnded(ctx)
}

// SessionFrom returns the session of a request that went through [RP.Require] or [RP.Optional], or nil. ctx is the
// context of the request.
func SessionFrom(ctx context.Context) *session.Session { return gateway.SessionFrom(ctx) }

// Registration is what to register for this relying party at a provider; see [RP.Registrations].
type Registration struct {
	Provider        string
	Issuer          string
	ClientID        string
	RedirectURI     string // redirect_uris
	BackchannelURI  string // backchannel_logout_uri; with backchannel_logout_session_required
	FrontchannelURI string // frontchannel_logout_uri; with frontchannel_logout_session_required
	PostLogoutURI   string // post_logout_redirect_uris
	InitiateURI     string // initiate_login_uri (Core §4)
	JWKSURI         string // jwks_uri, where this client's public keys are; empty: it has none
}

// Registrations returns what to register at each provider, for instance to print it or to compare it with a provider's
// settings.
func (rp *RP) Registrations() []Registration {
	list := make([]Registration, 0, len(rp.providers))
	for _, p := range rp.providers {
		jwks := ""
		if p.HasClientKeys() {
			jwks = rp.site.Absolute(clientKeysRoute(p))
		}
		list = append(list, Registration{
			Provider: p.Name(), Issuer: p.Config().Issuer, ClientID: p.Config().ClientID,
			RedirectURI:     rp.login.RedirectURI(p.Name()),
			BackchannelURI:  rp.site.Absolute("backchannel-logout"),
			FrontchannelURI: rp.site.Absolute("frontchannel-logout"),
			PostLogoutURI:   rp.site.Absolute("logout/callback"),
			InitiateURI:     rp.site.Absolute("login"),
			JWKSURI:         jwks,
		})
	}
	return list
}

// Providers returns the providers in the order of [Config.Providers].
func (rp *RP) Providers() []*oidc.Provider { return rp.providers }

// Ready returns nil when the store answers and the metadata and keys of every provider are known. Otherwise the error
// lists everything that is wrong. A readiness endpoint calls it.
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

// Warnings returns what this process has seen go wrong with logouts of the providers, one sentence for each fault; for
// instance that a provider's logout tokens are refused, and the setting that it needs. See [logout.Handler.Warnings].
func (rp *RP) Warnings() []string { return rp.logout.Warnings() }

// addProviders makes the providers. Their names must be unique, and so must the pairs of issuer and client ID: a logout
// token must belong to exactly one provider.
func (rp *RP) addProviders(cfg Config, log *slog.Logger) error {
	if len(cfg.Providers) == 0 {
		return errors.New("is empty; give at least one provider")
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
		rp.site.PlainProviders = rp.site.PlainProviders || strings.HasPrefix(p.Config().Issuer, "http:")
		client := [2]string{p.Config().Issuer, p.Config().ClientID}
		if names[p.Name()] {
			faults = append(faults,
				fmt.Errorf("number %d: the name %q is taken; give each provider its own", i+1, p.Name()))
		}
		if clients[client] {
			faults = append(faults, fmt.Errorf("number %d: another provider has the same issuer and client ID", i+1))
		}
		names[p.Name()], clients[client] = true, true
		rp.providers = append(rp.providers, p)
	}
	return errors.Join(faults...)
}

// provider returns the provider of a session, or nil if it is no longer configured.
func (rp *RP) provider(issuer, clientID string) *oidc.Provider {
	return oidc.Find(rp.providers, issuer, clientID)
}

func (rp *RP) nameOf(issuer, clientID string) string {
	if p := rp.provider(issuer, clientID); p != nil {
		return p.Name()
	}
	return ""
}

func (rp *RP) serves(issuer, clientID string) bool { return rp.provider(issuer, clientID) != nil }
