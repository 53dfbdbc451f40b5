package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/store"
	"golang.org/x/sync/singleflight"
)

// The errors of a [Manager], beside those of a [store.Store].
var (
	// ErrRefreshRejected is what [Config.Refresh] answers when the provider refuses the refresh token for good.
	ErrRefreshRejected = errors.New("the provider rejected the refresh token")
	// ErrRefused is what [Config.Refresh] answers when the person is no longer let in.
	ErrRefused = errors.New("the person is no longer let in")
	// ErrUnavailable: the store did not answer. Nobody is let in and nobody is signed out.
	ErrUnavailable = errors.New("the session store does not answer")
)

// Config is what a [Manager] needs. Only Store and Ring are required.
type Config struct {
	Store       store.Store
	Keyring     *keyring.Keyring
	IdleTimeout time.Duration // a session that is not used for so long ends; default 2 h
	Lifetime    time.Duration // a session ends after so long in any case; default 24 h
	// how long a cached session may be served when the feed is silent; default 1 s, negative: no cache
	MaxStale  time.Duration
	CacheSize int // how many sessions are cached; default 100,000
	// PerSubject is how many sessions one subject of an issuer and client may have; default 1,000, at most 10,000,
	// negative: any number. Who signs in once more loses the oldest, with [store.CauseCapped].
	MaxPerSubject int

	// Refresh gets new tokens and claims for a session whose access token has run out: [ErrRefreshRejected] and
	// [ErrRefused] end the session, any other error means trouble that may pass. A refresh token that came all the same
	// is in the Renewal beside the error. nil: no session is ever refreshed.
	Refresh func(ctx context.Context, s *Session) (Renewal, error)
	// for how long after its access token a session outlives a provider that is away; default 1 h
	RefreshGrace time.Duration

	Notices       Notifier // plans and carries out the notices that endings leave; nil: they leave none
	RevokeExpired bool     // Notices is also passed the sessions that ran out; by default they are forgotten

	// Serves says whether sessions of this issuer and client are served at all; nil: all are. Those of a provider that
	// is no longer configured must not be: its logout tokens could not end them.
	Serves func(issuer, clientID string) bool

	Clock     *Clock           // by which times are compared; default a new one for Store and Now
	Now       func() time.Time // the clock of this process; default time.Now
	Log       *slog.Logger     // default slog.Default()
	OnCreated func(*Session)
	OnEnded   func(store.Ended) // for each session that this process ended
	// for each ended session that this process hears of, on whatever replica; sometimes twice
	OnHeard func(store.Ended)
}

// Notifier plans the notices that endings leave, and carries them out: it tells apps, and revokes tokens. Package
// fanout has one.
type Notifier interface {
	// Plan returns the notices that an ending leaves, in the same step, whatever called [Manager.End].
	Plan(store.Ending) []store.NoticeRequest
	// Wake is called after an ending that may have left notices. It must not block.
	Wake()
	// Orphaned takes tokens that came for a session which had ended meanwhile, or which never began: a logout named it
	// ([store.ErrEnded]), or its sign-in was refused ([Manager.Refuse]). It may revoke them.
	Orphaned(ctx context.Context, s *Session, t Tokens)
	// Expired takes sessions with a refresh token that ran out, before they are forgotten. After an error they are
	// kept, and passed to it again. It may get the same sessions more than once in any case.
	Expired(ctx context.Context, sessions []store.Record) error
}

// Renewal is what a refresh brought.
type Renewal struct {
	Tokens Tokens
	Claims map[string]any
	SID    string // of the new ID Token; empty: as before
}

// New describes a session that is about to begin.
type SignIn struct {
	Provider string
	Issuer   string
	ClientID string
	Subject  string
	SID      string
	Claims   map[string]any
	Tokens   Tokens
	Began    time.Time // when its login began; see [Manager.Begin]
	Era      string    // what [Manager.Begin] said of Began; empty: this process took the time
}

// Manager is what the rooms ask: it opens, checks and ends sessions in any [store.Store].
//
// A check is answered from a bounded cache while the store's feed proves that it is whole (see [Manager.Run]), and from
// the store otherwise. A session that is not in the store is not alive, whatever else is remembered of it.
type Manager struct {
	cfg   Config
	touch time.Duration // how old LastSeen may grow before it is written
	cache cache
	clock *Clock
	// by our own clock: when the Sync began that last found the feed whole; nil: the cache is not trusted
	synced    atomic.Pointer[time.Time]
	refreshes singleflight.Group

	troubled sync.Map // the providers at which refreshes fail, by issuer and client: that has been told

	mu       sync.Mutex
	watchers map[store.Key]map[*watcher]struct{}
}

// NewManager checks the configuration and fills in its defaults.
func NewManager(cfg Config) (*Manager, error) {
	var faults []error
	if cfg.Store == nil {
		faults = append(faults, errors.New("session: Store is missing"))
	}
	if cfg.Keyring == nil {
		faults = append(faults, errors.New("session: Ring is missing"))
	}
	if cfg.IdleTimeout < 0 || cfg.Lifetime < 0 || cfg.RefreshGrace < 0 || cfg.CacheSize < 0 {
		faults = append(faults, errors.New("session: Idle, Absolute, Grace and Cached must not be negative"))
	}
	if cfg.MaxPerSubject > mostPerSubject {
		faults = append(faults, fmt.Errorf("session: PerSubject must not be above %d, or be negative for any number",
			mostPerSubject))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	or(&cfg.MaxPerSubject, 1000)
	or(&cfg.IdleTimeout, 2*time.Hour)
	or(&cfg.Lifetime, 24*time.Hour)
	or(&cfg.MaxStale, time.Second)
	or(&cfg.RefreshGrace, time.Hour)
	or(&cfg.CacheSize, 100_000)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	or(&cfg.Log, slog.Default())
	if cfg.Clock == nil {
		cfg.Clock = NewClock(cfg.Store, cfg.Now, cfg.Log)
	}
	m := &Manager{cfg: cfg, touch: min(time.Minute, cfg.IdleTimeout/4),
		watchers: make(map[store.Key]map[*watcher]struct{}),
		clock:    cfg.Clock}
	if cfg.MaxStale > 0 {
		m.cache.init(cfg.CacheSize)
	}
	return m, nil
}

func or[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Now is the time by which sessions expire. Where replicas share a store that is a [store.Clock], it is about the
// store's, as soon as that has been read. It is not exact enough to say whether a login or a logout came first; see
// [Manager.Begin].
func (m *Manager) Now() time.Time { return m.clock.Now() }

// Begin returns the stamp of a login that begins now, for [SignIn]. It is no later than the time of any ending that
// comes after, on whatever replica. [ErrUnavailable] when the store's clock is not known well enough, and cannot be
// read.
func (m *Manager) Begin(ctx context.Context) (began time.Time, era string, err error) {
	return m.clock.begin(ctx)
}

// Create opens a session under a fresh bearer. [store.ErrEnded] when a logout named it while its login was under way.
func (m *Manager) Create(ctx context.Context, n SignIn) (Bearer, *Session, error) {
	asked := m.cfg.Now()
	began, at, err := m.clock.compared(ctx, n.Began, n.Era)
	if err != nil {
		m.Refuse(ctx, n)
		return Bearer{}, nil, err
	}
	b, s := m.begin(n, store.Time(m.Now()))
	rec, err := encode(m.cfg.Keyring, s)
	if err != nil {
		return Bearer{}, nil, err
	}
	err = m.cfg.Store.Create(ctx, rec, began, at)
	if err == nil && m.clock.since(asked) > store.AttemptLifetime/2 {
		// This process was suspended meanwhile, and the mark that would have barred the login may be gone.
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
	m.makeRoom(ctx, s)
	return b, s, nil
}

const (
	mostPerSubject = 10_000 // as many may be looked at when one more signs in
	roomTimeout    = 10 * time.Second
)

// makeRoom ends the oldest sessions of a subject that has more than it may. It is done after the sign-in, so that
// nothing ends for one that fails: each sign-in sees to it when it has its own session, so there are never more too
// many than sign-ins under way. It goes on when the browser has hung up, which would be a way round it.
func (m *Manager) makeRoom(ctx context.Context, s *Session) {
	if m.cfg.MaxPerSubject < 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), roomTimeout)
	defer cancel()
	ended, err := m.End(ctx, store.Ending{Selector: store.Selector{Issuer: s.Issuer, ClientID: s.ClientID,
		Subject: s.Subject}, Cause: store.CauseCapped,
		Spare: m.cfg.MaxPerSubject})
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

// Refuse is for a sign-in that gets no session: what the provider gave for it goes to [Notifier].
func (m *Manager) Refuse(ctx context.Context, n SignIn) {
	_, s := m.begin(n, store.Time(m.Now()))
	m.orphaned(ctx, s)
}

// begin makes a session that nobody keeps yet.
func (m *Manager) begin(n SignIn, now time.Time) (Bearer, *Session) {
	b := NewBearer(n.Issuer, n.ClientID, n.Subject)
	return b, &Session{
		Key: b.Key(), Provider: n.Provider, Issuer: n.Issuer, ClientID: n.ClientID, Subject: n.Subject, SID: n.SID,
		Created: now, LastSeen: now, IdleExpires: now.Add(m.cfg.IdleTimeout), Expires: now.Add(m.cfg.Lifetime),
		Claims: n.Claims, Tokens: n.Tokens, revision: 1,
	}
}

// orphaned hands over the tokens of a session that did not begin.
func (m *Manager) orphaned(ctx context.Context, s *Session) {
	if m.cfg.Notices != nil {
		t := s.Tokens
		t.Inherited = nil // those are another session's, which may live
		m.cfg.Notices.Orphaned(ctx, s, t)
	}
}

// Get answers with the session of a bearer, and counts as a use of it. [store.ErrNotFound] when nobody is signed in
// with it, [ErrUnavailable] when the store cannot say.
//
// When the access token has run out it is refreshed first, once for all requests and replicas that ask meanwhile.
func (m *Manager) Get(ctx context.Context, b Bearer) (*Session, error) {
	if err := m.clock.sure(ctx); err != nil {
		return nil, err
	}
	key, now := b.Key(), m.Now()
	var s *Session
	var touch bool
	if m.trusted(m.cfg.Now()) {
		s, touch = m.cached(key, now)
	}
	if s == nil {
		var err error
		if s, err = m.read(ctx, key, now); err != nil {
			return nil, err
		}
		touch = now.Sub(s.LastSeen) >= m.touch
	}
	switch {
	case s.refreshDue(now):
		return m.refreshed(ctx, s)
	case touch:
		return m.touched(ctx, s, now)
	}
	return s, nil
}

// Peek is [Manager.Get] that does not count as a use, refreshes nothing, and always asks the store.
func (m *Manager) Peek(ctx context.Context, key store.Key) (*Session, error) {
	if err := m.clock.sure(ctx); err != nil {
		return nil, err
	}
	return m.read(ctx, key, m.Now())
}

// End ends what the ending names. When it has returned nil, no replica serves these sessions for longer than the
// ceiling, this one not at all. [store.ErrReplayed], [store.ErrNobody], or [ErrUnavailable]: then try again.
func (m *Manager) End(ctx context.Context, e store.Ending) ([]store.Ended, error) {
	if m.cfg.Notices != nil {
		e.Notices = slices.Concat(e.Notices, m.cfg.Notices.Plan(e))
	}
	if err := m.clock.sure(ctx); err != nil {
		return nil, err
	}
	// The store sees to it that the mark is late enough. Here an early time is the safe one: a session that is taken
	// for expired goes without a word to the other replicas, and a jti that is taken for forgotten can be used again.
	now, _ := m.clock.between()
	ended, err := m.cfg.Store.End(ctx, e, store.Time(now))
	if err != nil {
		return nil, unavailable(err)
	}
	if len(e.Notices) > 0 && m.cfg.Notices != nil && (len(ended) > 0 || e.Spare == 0) {
		m.cfg.Notices.Wake()
	}
	if len(ended) == store.EndedMost { // there may be more that are not named
		m.cache.forgetAll()
	}
	for _, e := range ended {
		m.drop(e)
		if m.cfg.OnEnded != nil {
			m.cfg.OnEnded(e)
		}
	}
	return ended, nil
}

// cached returns the copy of a session, if there is one that still lives, and whether LastSeen is to be written now,
// which is said to one caller only.
func (m *Manager) cached(key store.Key, now time.Time) (*Session, bool) {
	s, touch := m.cache.get(key, now, m.touch)
	if s == nil || !now.Before(s.Expires) || !now.Before(s.IdleExpires) {
		return nil, false // another replica may have seen it used: the store decides
	}
	return s, touch
}

// trusted says whether the feed was whole no longer than the ceiling ago, by the monotonic clock (which nobody can set
// back) and by the wall clock (which goes on while the machine is suspended).
func (m *Manager) trusted(now time.Time) bool {
	t := m.synced.Load()
	if t == nil {
		return false
	}
	mono, wall := now.Sub(*t), now.Round(0).Sub(t.Round(0))
	return mono <= m.cfg.MaxStale && wall <= m.cfg.MaxStale && mono >= 0 && wall >= 0
}

// read asks the store, and remembers the answer unless the session ended while it was being read.
func (m *Manager) read(ctx context.Context, key store.Key, now time.Time) (*Session, error) {
	epoch := m.cache.epoch(key)
	rec, err := m.cfg.Store.Find(ctx, key, store.Time(now))
	if err != nil {
		return nil, unavailable(err)
	}
	if m.cfg.Serves != nil && !m.cfg.Serves(rec.Issuer, rec.ClientID) {
		return nil, store.ErrNotFound
	}
	s, err := decode(m.cfg.Keyring, rec, m.cfg.Lifetime)
	switch {
	case errors.Is(err, ErrAltered):
		m.cfg.Log.WarnContext(ctx, "a session was changed in the store by somebody without a key: it is not served, "+
			"and its browser has to sign in again",
			"event", "session_altered", "session", key.Handle(), "error", err)
		return nil, store.ErrNotFound
	case err != nil:
		m.cfg.Log.WarnContext(ctx, "a session cannot be opened with the keys of this process: its browser has to "+
			"sign in again",
			"event", "session_unreadable", "session", key.Handle(), "error", err)
		return nil, store.ErrNotFound
	case !now.Before(s.Expires): // a payload of an earlier release that was put back
		return nil, store.ErrNotFound
	}
	m.cache.put(s, epoch)
	return s, nil
}

// write updates a session in the store and in the cache, and returns what is there now. It never creates.
func (m *Manager) write(ctx context.Context, s *Session, now time.Time) (*Session, error) {
	next := *s
	next.LastSeen, next.IdleExpires = store.Time(now), store.Time(now.Add(m.cfg.IdleTimeout))
	rec, err := encode(m.cfg.Keyring, &next)
	if err != nil {
		return nil, err
	}
	return m.written(&next, func() error { return m.cfg.Store.Update(ctx, rec, store.Time(now)) })
}

// rename is write for a session whose sid has changed in a refresh that began at began, in the era (see
// [Manager.Begin]).
func (m *Manager) rename(ctx context.Context, s *Session, began time.Time, era string, now time.Time) (*Session,
	error) {
	began, at, err := m.clock.compared(ctx, began, era)
	if err != nil {
		return nil, err
	}
	next := *s
	next.LastSeen, next.IdleExpires = store.Time(now), store.Time(now.Add(m.cfg.IdleTimeout))
	rec, err := encode(m.cfg.Keyring, &next)
	if err != nil {
		return nil, err
	}
	return m.written(&next, func() error { return m.cfg.Store.Rename(ctx, rec, began, at) })
}

func (m *Manager) written(next *Session, update func() error) (*Session, error) {
	epoch := m.cache.epoch(next.Key)
	if err := update(); err != nil {
		m.cache.forget(next.Key)
		return nil, unavailable(err)
	}
	next.revision++
	m.cache.put(next, epoch)
	return next, nil
}

// touched writes LastSeen. A session is served all the same when another request wrote first, or when the store can be
// read but not written: it ends by its idle lifetime then.
func (m *Manager) touched(ctx context.Context, s *Session, now time.Time) (*Session, error) {
	next, err := m.write(ctx, s, now)
	switch {
	case err == nil:
		return next, nil
	case errors.Is(err, store.ErrNotFound):
		return nil, err
	case !errors.Is(err, store.ErrConflict) && ctx.Err() == nil:
		m.cfg.Log.WarnContext(ctx, "the time of last use could not be written", "event", "session_touch_failed",
			"session", s.Key.Handle(), "error", err)
	}
	return s, nil
}

// unavailable marks an error of a store as trouble, unless it is one of the contract's own answers.
func unavailable(err error) error {
	for _, answer := range []error{store.ErrNotFound, store.ErrEnded, store.ErrReplayed, store.ErrConflict,
		store.ErrNobody} {
		if errors.Is(err, answer) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
