package rig

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/web"
)

// Site is a site on a loopback port with sessions in a real store, and a clock that a test can put forward.
type Site struct {
	T       testing.TB
	Manager *session.Manager
	Ring    *keyring.Keyring
	Web     *web.Site
	Cookie  session.Cookie
	Server  *httptest.Server
	URL     string
	Log     Log
	Ahead   atomic.Int64 // by how many nanoseconds everybody's clock is ahead
}

// New makes a site that h serves. Its sessions are as cfg says, with its own keyring, log and clock, and in memory
// unless cfg has a store.
func New(t testing.TB, h http.Handler, cfg session.Config) *Site {
	t.Helper()
	if cfg.Store == nil {
		cfg.Store = memory.New()
	}
	t.Cleanup(func() { cfg.Store.Close() })
	s := &Site{T: t, Ring: Keyring(t), Cookie: session.Cookie{Insecure: true}, Server: Serve(t, h)}
	s.URL = s.Server.URL
	u, err := web.ParseURL(s.URL)
	Must(t, err)
	s.Web = &web.Site{URL: u, Log: s.Log.Logger()}
	cfg.Keyring, cfg.Log, cfg.Now = s.Ring, s.Web.Log, s.Now
	s.Manager, err = session.NewManager(cfg)
	Must(t, err)
	return s
}

// Now is the time on everybody's clock.
func (s *Site) Now() time.Time { return time.Now().Add(time.Duration(s.Ahead.Load())) }

// Pass puts everybody's clock forward.
func (s *Site) Pass(d time.Duration) { s.Ahead.Add(int64(d)) }

// Provider starts a provider at which alice is signed in, and returns it and the site's side of it, whose client is
// "app". change may change the configuration of the latter.
func (s *Site) Provider(change ...func(*oidc.Config)) (*oidctest.Provider, *oidc.Provider) {
	s.T.Helper()
	op := oidctest.Start(s.T, oidctest.Config{AutoLogin: "alice", Now: s.Now, SendTimeout: Patience})
	transport := &http.Transport{}
	s.T.Cleanup(transport.CloseIdleConnections)
	c := oidc.Config{Issuer: op.Issuer(), ClientID: "app", ClientSecret: "s3cret",
		HTTPClient: &http.Client{Transport: transport}, Now: s.Now}
	for _, f := range change {
		f(&c)
	}
	p, err := oidc.New(c)
	Must(s.T, err)
	return op, p
}

// Silent is told of everything by the sessions of a site, and tells nobody. Tests embed it.
type Silent struct{}

// Plan implements session.Notices.
func (Silent) Plan(store.Ending) []store.NoticeRequest { return nil }

// Wake implements session.Notices.
func (Silent) Wake() {}

// Orphaned implements session.Notices.
func (Silent) Orphaned(context.Context, *session.Session, session.Tokens) {}

// Expired implements session.Notices.
func (Silent) Expired(context.Context, []store.Record) error { return nil }

// Store is a store that can be away: then nothing is found, created or ended.
type Store struct {
	store.Store
	Away  atomic.Bool
	Fails atomic.Pointer[error] // what Find answers, unless nil
}

// ErrAway is what a Store answers while it is away.
var ErrAway = errors.New("the disk is gone")

// Find implements store.Store.
func (s *Store) Find(ctx context.Context, k store.Key, now time.Time) (store.Record, error) {
	if s.Away.Load() {
		return store.Record{}, ErrAway
	}
	if err := s.Fails.Load(); err != nil {
		return store.Record{}, *err
	}
	return s.Store.Find(ctx, k, now)
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, r store.Record, began, now time.Time) error {
	if s.Away.Load() {
		return ErrAway
	}
	return s.Store.Create(ctx, r, began, now)
}

// Admit implements store.Store.
func (s *Store) Admit(ctx context.Context, r store.Record, issued, now time.Time) error {
	if s.Away.Load() {
		return ErrAway
	}
	return s.Store.Admit(ctx, r, issued, now)
}

// End implements store.Store.
func (s *Store) End(ctx context.Context, e store.Ending, now time.Time) ([]store.Ended, error) {
	if s.Away.Load() {
		return nil, ErrAway
	}
	return s.Store.End(ctx, e, now)
}
