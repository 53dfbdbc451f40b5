package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/curfew/internal/guard"
	"example.com/curfew/keyring"
	"example.com/curfew/store"
)

// The errors of a [Manager], beside those of a [store.Store].
var (
	// ErrRefreshRejected is returned by [Config.Refresh] when the provider rejects the refresh token for good. The
	// session then ends.
	ErrRefreshRejected = errors.New("the provider rejected the refresh token")
	// ErrRefused is returned by [Config.Refresh] when the person is no longer allowed in. The session then ends.
	ErrRefused = errors.New("the person is no longer let in")
	// ErrProviderEnded is returned by [Config.Revalidate] when the provider says that the session is over, or that the
	// tokens that came with it are worth nothing any more. The session then ends.
	ErrProviderEnded = errors.New("the provider has ended the session")
	// ErrUnavailable is returned when the store does not answer. Let nobody in and sign nobody out: answer 503.
	ErrUnavailable = errors.New("the session store does not answer")
	// ErrOtherHost is a [store.ErrNotFound]: the session is there, and this bearer does not open it at this host.
	ErrOtherHost = fmt.Errorf("%w: the bearer belongs to another host", store.ErrNotFound)
)

// Config is the configuration of a [Manager]. Only Store and Keyring are required. An app that uses package curfew does
// not need it: curfew.New makes the manager.
type Config struct {
	Store       store.Store
	Keyring     *keyring.Keyring
	IdleTimeout time.Duration // a session ends when it is not used for this long; default 2 h
	Lifetime    time.Duration // a session ends after this long in any case; default 24 h
	// MaxStale is how long the cache may be used after the last proof that the store's feed is in sync; default 1 s,
	// negative: no cache.
	MaxStale  time.Duration
	CacheSize int // how many sessions are cached; default 100,000
	// MaxPerSubject is how many sessions one subject of an issuer and client may have; default 1,000, at most 10,000,
	// negative: no limit. One more sign-in ends the oldest session, with [store.CauseCapped].
	MaxPerSubject int

	// Refresh gets new tokens and claims for a session whose access token has expired. [ErrRefreshRejected] and
	// [ErrRefused] end the session; any other error, or a panic, is temporary. If the provider sent a new refresh token
	// or a new sid all the same, it is in the Renewal beside the error. nil: sessions are not refreshed.
	Refresh func(ctx context.Context, s *Session) (Renewal, error)
	// RefreshGrace is how long a session goes on after its access token has expired while Refresh returns temporary
	// errors; default 1 h.
	RefreshGrace time.Duration

	// Revalidation returns how often the provider of an issuer and client is asked whether a session in use goes on;
	// nil: never.
	Revalidation func(issuer, clientID string) Revalidation
	// Revalidate asks the provider that. [ErrProviderEnded] and the final errors of Refresh end the session; any other
	// error is temporary, and the session goes on for RefreshGrace. It is needed with Revalidation.
	Revalidate func(ctx context.Context, s *Session) (Renewal, error)

	Notices       Notifier // plans and sends the notices of endings; nil: there are none
	RevokeExpired bool     // passes expired sessions to Notices; by default they are only removed

	// TokenLifetime is how long an access token may live that [Manager.Admit] is called for; 0: it is not called. End
	// marks are kept for that long, and [TokenSlack].
	TokenLifetime time.Duration

	// Serves reports whether sessions of this issuer and client are served; nil: all are. Sessions of a provider that
	// is no longer configured must not be served, since its logout tokens could not end them.
	Serves func(issuer, clientID string) bool
	// NameOf returns the name of a provider in today's configuration; nil: a session keeps that of its sign-in.
	NameOf func(issuer, clientID string) string

	// OnRenewal is called after each question to a provider about a session: kind is "refresh" or "revalidation", and
	// result "ok", "ended" (the answer ends the session) or "deferred" (there was none; the session goes on for a while).
	OnRenewal func(kind, provider, result string)

	Clock     *Clock            // compares times of different replicas; default a new one for Store and Now
	Now       func() time.Time  // the clock of this process; default time.Now
	Log       *slog.Logger      // default slog.Default()
	OnCreated func(*Session)    // is called for each session that this process created
	OnEnded   func(store.Ended) // is called for each session that this process ended
	// OnEnding is called after each ending that ended sessions, with what [Manager.End] returns.
	OnEnding func(store.Ending, []store.Ended)
	// OnHeard is called for each session that ended on any replica, when this process learns of it; for some sessions
	// twice. It must not block, nor call the manager or the store: either may wait for it.
	OnHeard func(store.Ended)
}

// Notifier plans the notices of endings and sends them: it notifies apps and revokes tokens. The one in use is
// fanout.Sender.
type Notifier interface {
	// Plan returns the notices that an ending leaves. The store writes them in the same step as it ends the sessions.
	Plan(store.Ending) []store.NoticeRequest
	// Wake is called after an ending that may have left notices. It must not block.
	Wake()
	// Orphaned receives tokens that no session holds: the session ended while they were fetched, or was never created,
	// because a logout named it ([store.ErrEnded]) or its sign-in was refused ([Manager.Refuse]). It may revoke them.
	Orphaned(ctx context.Context, s *Session, t Tokens)
	// Expired receives expired sessions with a refresh token, before they are removed. After an error they are kept and
	// passed again. It may receive a session more than once in any case.
	Expired(ctx context.Context, sessions []store.Record) error
}

// tracedNotifier is a [Notifier] that joins the notices of an ending to the trace of ctx. It is called before Wake.
type tracedNotifier interface {
	Traced(ctx context.Context, e store.Ending, ended []store.Ended)
}

// Renewal is the result of a refresh; see [Config.Refresh].
type Renewal struct {
	Tokens Tokens
	Claims map[string]any
	SID    string // of the new ID Token; empty: unchanged
	// Expires is when the session ends in any case, as the provider says; zero: unchanged. It is never later than
	// [Config.Lifetime] allows.
	Expires time.Time
	// Confirmed means that the provider would not have given this answer if it had ended the session.
	Confirmed bool
}

// SignIn describes the session that [Manager.Create] creates, with the meaning of the fields of [Session].
type SignIn struct {
	Provider string
	Issuer   string
	ClientID string
	Subject  string
	SID      string
	Claims   map[string]any
	Tokens   Tokens
	Expires  time.Time // the session ends then at the latest; zero: when [Config.Lifetime] says
	// Address and UserAgent are those of the browser that signed in, for the person and operators to tell sessions apart.
	Address   string
	UserAgent string
	Began     time.Time // when the login began, as [Manager.Begin] returned it
	Era       string    // of Began, as [Manager.Begin] returned it; empty: this process took the time
	// Host is the name of the host that the bearer is for, at a site with several: see [Session.BearerFor]. Empty: the
	// session has one bearer, which is bound to no host.
	Host string
}

// Manager creates, checks, refreshes and ends sessions in a [store.Store]. An app gets it from curfew.RP.Sessions. Its
// methods may be called concurrently.
//
// A check is answered from a bounded cache while the store's feed proves that no ending was missed (see [Manager.Run]),
// and from the store otherwise. A session that is not in the store is not served.
type Manager struct {
	cfg     Config
	started time.Time
	touch   time.Duration // how old LastSeen may be before it is written again
	cache   cache
	clock   *Clock
	copied  atomic.Pointer[time.Time] // see endingsSince
	// when the last successful Sync of the feed began, by the clock of this process; nil: the cache is not used
	synced    atomic.Pointer[time.Time]
	named     named
	refreshes guard.Group

	// the failures that have been logged: the event, and the provider by issuer and client
	refreshFailing sync.Map
	slots          slots

	counts counts

	mu       sync.Mutex
	watchers map[store.Key]map[*watcher]struct{}
}

// NewManager checks the configuration and sets its defaults. The error lists every fault. Call [Manager.Run] next.
func NewManager(cfg Config) (*Manager, error) {
	var faults []error
	if cfg.Store == nil {
		faults = append(faults, errors.New("session: Store is missing"))
	}
	if cfg.Keyring == nil {
		faults = append(faults, errors.New("session: Keyring is missing"))
	}
	if err := errors.Join(append(faults, cfg.CheckLimits())...); err != nil {
		return nil, err
	}
	cfg.MaxPerSubject = cmp.Or(cfg.MaxPerSubject, 1000)
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, 2*time.Hour)
	cfg.Lifetime = cmp.Or(cfg.Lifetime, DefaultLifetime)
	cfg.MaxStale = cmp.Or(cfg.MaxStale, time.Second)
	cfg.RefreshGrace = cmp.Or(cfg.RefreshGrace, time.Hour)
	cfg.CacheSize = cmp.Or(cfg.CacheSize, 100_000)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.Clock == nil {
		cfg.Clock = NewClock(cfg.Store, cfg.Now, cfg.Log)
	}
	m := &Manager{cfg: cfg, started: cfg.Now(), touch: min(time.Minute, cfg.IdleTimeout/4),
		watchers: make(map[store.Key]map[*watcher]struct{}), clock: cfg.Clock}
	if cfg.MaxStale > 0 {
		m.cache.init(cfg.CacheSize)
	}
	return m, nil
}

// CheckLimits returns the faults of the times and numbers.
func (cfg *Config) CheckLimits() error {
	var faults []error
	if cfg.IdleTimeout < 0 || cfg.Lifetime < 0 || cfg.RefreshGrace < 0 || cfg.CacheSize < 0 {
		faults = append(faults,
			errors.New("session: IdleTimeout, Lifetime, RefreshGrace and CacheSize must not be negative"))
	}
	if cfg.MaxPerSubject > mostPerSubject {
		faults = append(faults,
			fmt.Errorf("session: MaxPerSubject must not be above %d; for no limit make it negative", mostPerSubject))
	}
	return errors.Join(faults...)
}

// DefaultLifetime is the default of [Config.Lifetime].
const DefaultLifetime = 24 * time.Hour

// Now returns the time by which sessions expire. If replicas share a store with a clock of its own (see [store.Clock]),
// it is about the time of the store, once that has been read. It is not exact enough to say whether a login or a logout
// came first: [Manager.Begin] is for that.
func (m *Manager) Now() time.Time { return m.clock.Now() }

// Begin returns the stamp of a login that begins now, for [SignIn]. It is not later than the time of any ending that
// comes after it, on any replica. The error is [ErrUnavailable] if the clock of the store cannot be read and is not
// known well enough.
func (m *Manager) Begin(ctx context.Context) (began time.Time, era string, err error) {
	return m.clock.begin(ctx)
}

// Create creates a session with a fresh bearer, for the browser's cookie. The error is [store.ErrEnded] if a logout
// that came while the login was under way named the session, and [ErrUnavailable] if the store did not answer. A person
// who then has more than [Config.MaxPerSubject] sessions loses the oldest.
func (m *Manager) Create(ctx context.Context, n SignIn) (Bearer, *Session, error) {
	asked := m.cfg.Now()
	began, at, err := m.clock.comparableStamp(ctx, n.Began, n.Era)
	if err != nil {
		m.Refuse(ctx, n)
		return Bearer{}, nil, err
	}
	b, s := m.newSession(n, store.Time(m.Now()))
	if n.Host != "" {
		s.hostKey = make([]byte, sha256.Size)
		rand.Read(s.hostKey)
		b = b.bindTo(n.Host, s.hostKey)
	}
	rec, err := encode(m.cfg.Keyring, s)
	if err != nil {
		return Bearer{}, nil, err
	}
	err = m.cfg.Store.Create(ctx, rec, began, at)
	barred := false
	if err == nil {
		// The browser does not have the bearer yet, so a session that cannot be removed again is nobody's.
		barred, err = m.clientBarred(ctx, s.Issuer, s.ClientID, began)
	}
	if barred || err == nil && m.clock.since(asked) > store.AttemptLifetime/2 {
		// All sessions of the provider were ended meanwhile. Or this process was suspended, and the end mark that would
		// have barred the login may be gone.
		_, err = m.End(ctx, store.Ending{Selector: store.Selector{Issuer: s.Issuer, ClientID: s.ClientID, Key: s.Key},
			Cause: store.CauseExpired, KeepTokens: true})
		err = errors.Join(store.ErrEnded, err)
	}
	if errors.Is(err, store.ErrEnded) {
		m.orphaned(ctx, s)
	}
	if err != nil {
		return Bearer{}, nil, unavailable(err)
	}
	if m.cfg.OnCreated != nil {
		m.cfg.OnCreated(s)
	}
	m.enforceCap(ctx, s)
	return b, s, nil
}

const (
	mostPerSubject = 10_000 // a sign-in may have to look at all of them
	capTimeout     = 10 * time.Second
)

// enforceCap ends the oldest sessions of a subject that has too many. It runs after the sign-in, so that a sign-in that
// fails ends nothing. Since every sign-in does this once its own session exists, there are never more sessions too many
// than sign-ins under way. It goes on after the browser has disconnected: otherwise that would be a way around the cap.
func (m *Manager) enforceCap(ctx context.Context, s *Session) {
	if m.cfg.MaxPerSubject < 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), capTimeout)
	defer cancel()
	subject := store.Selector{Issuer: s.Issuer, ClientID: s.ClientID, Subject: s.Subject}
	ended, err := m.End(ctx, store.Ending{Selector: subject, Cause: store.CauseCapped, Spare: m.cfg.MaxPerSubject})
	switch {
	case err != nil:
		m.cfg.Log.WarnContext(ctx, "a person may have more sessions than allowed: the oldest could not be ended; "+
			"the next sign-in tries again",
			"event", "session_cap_failed", "session", s.Key.Handle(), "error", err)
	case len(ended) > 0:
		m.cfg.Log.InfoContext(ctx, "a person signed in more often than allowed: the oldest sessions have ended",
			"event", "session_capped", "session", s.Key.Handle(), "allowed", m.cfg.MaxPerSubject, "ended", len(ended))
	}
}

// Refuse is called instead of [Manager.Create] for a sign-in that is refused. It passes the tokens to
// [Notifier.Orphaned].
func (m *Manager) Refuse(ctx context.Context, n SignIn) {
	_, s := m.newSession(n, store.Time(m.Now()))
	m.orphaned(ctx, s)
}

// newSession makes a session that is not in the store yet.
func (m *Manager) newSession(n SignIn, now time.Time) (Bearer, *Session) {
	b := NewBearer(n.Issuer, n.ClientID, n.Subject)
	expires := now.Add(m.cfg.Lifetime)
	if at := store.Time(n.Expires); !at.IsZero() && at.Before(expires) {
		expires = at
	}
	return b, &Session{
		Key: b.Key(), Provider: n.Provider, Issuer: n.Issuer, ClientID: n.ClientID, Subject: n.Subject, SID: n.SID,
		Created: now, LastSeen: now, IdleExpires: now.Add(m.cfg.IdleTimeout), Expires: expires,
		Claims: n.Claims, Tokens: n.Tokens, Address: n.Address, UserAgent: n.UserAgent, revision: 1,
		confirmed: now,
	}
}

// orphaned passes on the tokens of a session that was not created.
func (m *Manager) orphaned(ctx context.Context, s *Session) {
	if m.cfg.Notices != nil {
		t := s.Tokens
		t.Inherited = nil // they belong to another session, which may be alive
		m.cfg.Notices.Orphaned(ctx, s, t)
	}
}

// Get returns the session of a bearer, and counts as a use of it. Call it for each request. The error is
// [store.ErrNotFound] if nobody is signed in with this bearer, and [ErrUnavailable] if the store does not answer.
//
// If the access token has expired, Get refreshes it first, once for all requests on all replicas. If the provider is to
// be asked whether the session goes on (see [Revalidation]), Get does that in the same way. While the last answer is
// fresh enough, it waits for the new one for a moment only.
func (m *Manager) Get(ctx context.Context, b Bearer) (*Session, error) {
	if err := m.clock.ensureRead(ctx); err != nil {
		return nil, err
	}
	key, now := b.Key(), m.Now()
	var s *Session
	var due, cached bool
	if m.cacheTrusted(m.cfg.Now()) {
		s, due = m.cached(key, now)
		cached = s != nil
	} else {
		m.counts.bypassed.Add(1)
	}
	if s == nil {
		var err error
		if s, err = m.read(ctx, key, now); err != nil {
			return nil, err
		}
		due = now.Sub(s.LastSeen) >= m.touch
	}
	if !s.opens(&b) {
		return nil, m.otherHost(ctx, s, &b)
	}
	switch {
	case s.refreshDue(now):
		return m.refreshed(ctx, s)
	case m.revalidationDue(s, now):
		next, err := m.revalidated(ctx, s, now, true)
		if err == nil && due && next.LastSeen.Equal(s.LastSeen) { // nothing was written
			return m.touched(ctx, next, now)
		}
		return next, err
	case due && (!cached || m.cache.claimTouch(key, now, m.touch)):
		return m.touched(ctx, s, now)
	}
	return s, nil
}

// otherHost logs that a bearer came to a host that it does not belong to, which no browser does by itself.
func (m *Manager) otherHost(ctx context.Context, s *Session, b *Bearer) error {
	m.cfg.Log.WarnContext(ctx, "the cookie of one host was sent to another: nobody is let in with it",
		"event", "bearer_of_another_host", "session", s.Key.Handle(), "host", b.host)
	return ErrOtherHost
}

// Find returns the session of a bearer, as [Manager.Get] does, but always from the store, without a refresh, and
// without counting as a use.
func (m *Manager) Find(ctx context.Context, b Bearer) (*Session, error) {
	s, err := m.Peek(ctx, b.Key())
	if err == nil && !s.opens(&b) {
		return nil, m.otherHost(ctx, s, &b)
	}
	return s, err
}

// Peek is [Manager.Find] for the key of a session, for a caller that has checked the bearer before.
func (m *Manager) Peek(ctx context.Context, key store.Key) (*Session, error) {
	if err := m.clock.ensureRead(ctx); err != nil {
		return nil, err
	}
	return m.read(ctx, key, m.Now())
}

// End ends the sessions that e names and returns them. An app calls it to sign somebody out, for instance everywhere
// when an account is closed. After it has returned nil, this replica serves none of these sessions, and no other
// replica does for longer than [Config.MaxStale]. The errors are [store.ErrReplayed] and [store.ErrNobody], after which
// nothing was done, and [ErrUnavailable], after which the caller tries again.
func (m *Manager) End(ctx context.Context, e store.Ending) ([]store.Ended, error) {
	if m.cfg.Notices != nil {
		e.Notices = slices.Concat(e.Notices, m.cfg.Notices.Plan(e))
	}
	if err := m.clock.ensureRead(ctx); err != nil {
		return nil, err
	}
	if m.cfg.TokenLifetime > 0 {
		e.MarkFor = max(e.MarkFor, m.cfg.TokenLifetime+TokenSlack)
	}
	// The store makes the end mark late enough. Here an early time is the safe one: a session that is taken for expired
	// is removed without a message to the other replicas, and a jti that is taken for forgotten can be used again.
	now, _ := m.clock.between()
	ended, err := m.cfg.Store.End(ctx, e, store.Time(now))
	if err != nil {
		if errors.Is(err, store.ErrReplayed) { // by another replica: the caller may answer for that
			m.named.add(e.Selector, m.cfg.Now())
		}
		return nil, unavailable(err)
	}
	if t, ok := m.cfg.Notices.(tracedNotifier); ok && len(e.Notices) > 0 {
		t.Traced(ctx, e, ended)
	}
	if m.cfg.Notices != nil && (len(ended) > 0 || e.Spare == 0) && e.Leaves(ended) {
		m.cfg.Notices.Wake()
	}
	switch {
	case !e.Selector.Key.IsZero():
		m.cache.forget(e.Selector.Key) // another replica may have ended it a moment earlier; see named
	case e.Spare == 0:
		m.named.add(e.Selector, m.cfg.Now())
	}
	if len(ended) == store.EndedMost { // there may be more that were not returned
		m.cache.forgetAll()
	}
	for _, e := range ended {
		m.sessionEnded(e)
		if m.cfg.OnEnded != nil {
			m.cfg.OnEnded(e)
		}
	}
	if m.cfg.OnEnding != nil && len(ended) > 0 {
		m.cfg.OnEnding(e, ended)
	}
	return ended, nil
}

// SubjectsOf returns the subjects of the living sessions that have this sid, or had it before. A provider may name a
// person by another subject in its logout tokens than in its ID Tokens.
func (m *Manager) SubjectsOf(ctx context.Context, issuer, clientID, sid string) ([]string, error) {
	if err := m.clock.ensureRead(ctx); err != nil {
		return nil, err
	}
	var subjects []string
	for q := (store.Query{Issuer: issuer, ClientID: clientID, SID: sid}); ; {
		page, err := m.cfg.Store.List(ctx, q, store.Time(m.Now()))
		if err != nil {
			return nil, unavailable(err)
		}
		for i := range page.Records {
			if s := page.Records[i].Subject; !slices.Contains(subjects, s) {
				subjects = append(subjects, s)
			}
		}
		if q.After = page.Next; q.After.IsZero() {
			return subjects, nil
		}
	}
}

// cached returns the copy of a session, if it may be used. The caller has asked [Manager.cacheTrusted].
func (m *Manager) cached(key store.Key, now time.Time) (s *Session, due bool) {
	if s, due = m.cache.get(key, now, m.touch); s != nil && m.named.has(s) {
		return nil, false
	}
	return s, due
}

// cacheTrusted reports whether the feed was in sync within MaxStale. It compares by the monotonic clock, which nobody
// can set back, and by the wall clock, which goes on while the machine is suspended.
func (m *Manager) cacheTrusted(now time.Time) bool {
	t := m.synced.Load()
	if t == nil || m.cfg.MaxStale < 0 {
		return false
	}
	mono, wall := now.Sub(*t), now.Round(0).Sub(t.Round(0))
	if mono <= m.cfg.MaxStale && wall <= m.cfg.MaxStale && mono >= 0 && wall >= 0 {
		return true
	}
	if last := m.counts.tripped.Load(); last != t && m.counts.tripped.CompareAndSwap(last, t) {
		m.counts.ceiling.Add(1) // once for each proof that grew too old
	}
	return false
}

// read reads a session from the store, and caches it unless it ended while it was being read.
func (m *Manager) read(ctx context.Context, key store.Key, now time.Time) (*Session, error) {
	epoch := m.cache.epoch(key)
	s, err := m.lookUp(ctx, key, now)
	if err != nil {
		return nil, err
	}
	m.cache.put(s, epoch)
	return s, nil
}

// lookUp reads a session from the store, and does not cache it.
func (m *Manager) lookUp(ctx context.Context, key store.Key, now time.Time) (*Session, error) {
	rec, err := m.cfg.Store.Find(ctx, key, store.Time(now))
	if err != nil {
		return nil, unavailable(err)
	}
	if m.cfg.Serves != nil && !m.cfg.Serves(rec.Issuer, rec.ClientID) {
		return nil, store.ErrNotFound
	}
	s, err := m.decode(rec)
	switch {
	case errors.Is(err, ErrAltered):
		m.cfg.Log.WarnContext(ctx, "a session was changed in the store by somebody without a key: it is not "+
			"served, and its browser has to sign in again",
			"event", "session_altered", "session", key.Handle(), "error", err)
		return nil, store.ErrNotFound
	case err != nil:
		m.cfg.Log.WarnContext(ctx, "a session cannot be opened with the keys of this process: its browser "+
			"has to sign in again",
			"event", "session_unreadable", "session", key.Handle(), "error", err)
		return nil, store.ErrNotFound
	case !now.Before(s.Expires): // a payload of version 1 that was restored from a backup
		return nil, store.ErrNotFound
	}
	return s, nil
}

// write updates a session in the store and in the cache, and returns it as it is then. It never creates a session. use
// says whether that counts as use of the session.
func (m *Manager) write(ctx context.Context, s *Session, now time.Time, use bool) (*Session, error) {
	return m.written(s, now, use, func(r store.Record) error { return m.cfg.Store.Update(ctx, r, store.Time(now)) })
}

// rename is write for a session whose sid was changed by a refresh. began and era are the stamp of that refresh (see
// [Manager.Begin]).
func (m *Manager) rename(ctx context.Context, s *Session, began time.Time, era string, now time.Time,
	use bool) (*Session, error) {
	began, at, err := m.clock.comparableStamp(ctx, began, era)
	if err != nil {
		return nil, err
	}
	return m.written(s, now, use, func(r store.Record) error { return m.cfg.Store.Rename(ctx, r, began, at) })
}

// written runs an update with s, as used at now if this is use, and caches its outcome.
func (m *Manager) written(s *Session, now time.Time, use bool, update func(store.Record) error,
) (*Session, error) {
	next := *s
	if use {
		next.LastSeen, next.IdleExpires = store.Time(now), store.Time(now.Add(m.cfg.IdleTimeout))
	}
	rec, err := encode(m.cfg.Keyring, &next)
	if err != nil {
		return nil, err
	}
	epoch := m.cache.epoch(next.Key)
	if err := update(rec); err != nil {
		m.cache.forget(next.Key)
		return nil, unavailable(err)
	}
	next.revision++
	m.cache.put(&next, epoch)
	return &next, nil
}

// touched writes LastSeen. The session is served even if another request wrote first, or if the store can be read but
// not written: it then ends by its idle timeout. A write that fails may have taken long, so the session is read again:
// a logout may have been answered meanwhile.
func (m *Manager) touched(ctx context.Context, s *Session, now time.Time) (*Session, error) {
	next, err := m.write(ctx, s, now, true)
	switch {
	case err == nil:
		return next, nil
	case errors.Is(err, store.ErrNotFound):
		return nil, err
	case errors.Is(err, store.ErrConflict):
		return s, nil
	case ctx.Err() == nil:
		m.cfg.Log.WarnContext(ctx, "the time of last use could not be written", "event", "session_touch_failed",
			"session", s.Key.Handle(), "error", err)
	}
	return m.read(ctx, s.Key, m.Now())
}

// unavailable wraps an error of the store in [ErrUnavailable], unless it is one of the errors of the contract.
func unavailable(err error) error {
	if err == nil || store.IsContractError(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
