package session_test

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

const (
	issuer = "https://id.example.com"
	client = "app"
)

// faulty is a real store with a hand on it: a test may come between, and may silence the feed.
type faulty struct {
	*memory.Store
	updates atomic.Int64
	// called after the store was read, before the answer is given
	find       atomic.Pointer[func(store.Key)]
	away       atomic.Pointer[error]                       // the answer to everything
	sync       atomic.Pointer[func(context.Context) error] // in place of the feed's own
	deaf       atomic.Bool                                 // the feed hands nothing on
	failUpdate atomic.Pointer[error]
	update     atomic.Pointer[func()] // called before an update
}

func (f *faulty) Find(ctx context.Context, k store.Key, now time.Time) (store.Record, error) {
	if err := f.away.Load(); err != nil {
		return store.Record{}, *err
	}
	r, err := f.Store.Find(ctx, k, now)
	if between := f.find.Load(); between != nil {
		(*between)(k)
	}
	return r, err
}

func (f *faulty) Update(ctx context.Context, r store.Record, now time.Time) error {
	f.updates.Add(1)
	if before := f.update.Load(); before != nil {
		(*before)()
	}
	if err := f.failUpdate.Load(); err != nil {
		return *err
	}
	return f.Store.Update(ctx, r, now)
}

func (f *faulty) Watch(ctx context.Context, fn func(store.Ended)) (store.Feed, error) {
	feed, err := f.Store.Watch(ctx, func(e store.Ended) {
		if !f.deaf.Load() {
			fn(e)
		}
	})
	return faultyFeed{feed, f}, err
}

type faultyFeed struct {
	store.Feed
	f *faulty
}

func (f faultyFeed) Sync(ctx context.Context) error {
	if instead := f.f.sync.Load(); instead != nil {
		return (*instead)(ctx)
	}
	return f.Feed.Sync(ctx)
}

// bench is what most tests need: a manager at work on a store, inside a bubble.
type bench struct {
	t     *testing.T
	store *faulty
	ring  *keyring.Keyring
	m     *session.Manager
}

// bubble runs test with a manager at work, in fake time.
func bubble(t *testing.T, cfg session.Config, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: &faulty{Store: memory.New()}, ring: ring(t, 1)}
		b.m = b.replica(cfg)
		test(b)
	})
}

// replica returns one more manager at work on the same store.
func (b *bench) replica(cfg session.Config) *session.Manager {
	cfg.Store, cfg.Keyring, cfg.Log = b.store, b.ring, slog.New(slog.DiscardHandler)
	m, err := session.NewManager(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.start(m)
	return m
}

// start runs a manager until the test is over.
func (b *bench) start(m *session.Manager) {
	ctx, cancel := context.WithCancel(b.t.Context())
	var done sync.WaitGroup
	done.Go(func() { m.Run(ctx) })
	b.t.Cleanup(func() { cancel(); done.Wait() })
	synctest.Wait() // the feed has been found whole
}

func (b *bench) signIn(tokens session.Tokens) (session.Bearer, *session.Session) {
	b.t.Helper()
	bearer, s, err := b.m.Create(b.t.Context(), session.SignIn{
		Provider: "main", Issuer: issuer, ClientID: client, Subject: "alice", SID: "s1",
		Claims: map[string]any{"name": "Alice"}, Tokens: tokens, Began: b.m.Now(),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return bearer, s
}

// want fails unless the manager answers err (nil: signed in) for the bearer.
func (b *bench) want(m *session.Manager, bearer session.Bearer, err error) *session.Session {
	b.t.Helper()
	s, got := m.Get(b.t.Context(), bearer)
	if !errors.Is(got, err) {
		b.t.Fatalf("Get: %v, want %v", got, err)
	}
	return s
}

func (b *bench) end(m *session.Manager, who store.Selector) {
	b.t.Helper()
	who.Issuer, who.ClientID = issuer, client
	if _, err := m.End(b.t.Context(), store.Ending{Selector: who, Cause: store.CauseBackChannel}); err != nil {
		b.t.Fatal(err)
	}
}

func ring(t testing.TB, first byte) *keyring.Keyring {
	t.Helper()
	key := make([]byte, 32)
	key[0] = first
	r, err := keyring.New(key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestASessionIsWhatWasSignedInWith(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{IDToken: "id", AccessToken: "at", RefreshToken: "rt", Offline: true})
		for range 2 { // from the store, then from the cache
			s := b.want(b.m, bearer, nil)
			if s.Subject != "alice" || s.SID != "s1" || s.Provider != "main" || s.Claim("name") != "Alice" ||
				!reflect.DeepEqual(s.Tokens, session.Tokens{IDToken: "id", AccessToken: "at", RefreshToken: "rt",
					Offline: true}) {
				t.Errorf("got %+v", s)
			}
		}
	})
}

func TestAnEndedSessionIsRefusedAtOnceOnEveryReplica(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		other := b.replica(session.Config{})
		bearer, _ := b.signIn(session.Tokens{})
		b.want(b.m, bearer, nil)
		b.want(other, bearer, nil)
		b.end(b.m, store.Selector{SID: "s1"})
		b.want(b.m, bearer, store.ErrNotFound)
		b.want(other, bearer, store.ErrNotFound)
	})
}

func TestASessionEndsWhenItIsNotUsed(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{IdleTimeout: time.Hour}, func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{})
		for range 3 {
			time.Sleep(59 * time.Minute)
			b.want(b.m, bearer, nil)
		}
		time.Sleep(time.Hour)
		b.want(b.m, bearer, store.ErrNotFound)
	})
}

func TestASessionUsedOnAnotherReplicaIsNotIdleHere(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{IdleTimeout: time.Hour}, func(b *bench) {
		other := b.replica(session.Config{IdleTimeout: time.Hour})
		bearer, _ := b.signIn(session.Tokens{})
		b.want(other, bearer, nil)
		for range 3 {
			time.Sleep(30 * time.Minute)
			b.want(b.m, bearer, nil)
		}
		b.want(other, bearer, nil) // its copy says that the session is idle for too long
	})
}

func TestASessionEndsAfterItsAbsoluteLifetimeHoweverMuchItIsUsed(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{IdleTimeout: time.Hour, Lifetime: 3 * time.Hour}, func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{})
		for range 5 {
			time.Sleep(30 * time.Minute)
			b.want(b.m, bearer, nil)
		}
		time.Sleep(30 * time.Minute)
		b.want(b.m, bearer, store.ErrNotFound)
	})
}

func TestLastSeenIsWrittenAtMostOnceAMinute(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		bearer, s := b.signIn(session.Tokens{})
		for range 120 {
			time.Sleep(time.Second)
			var all sync.WaitGroup
			for range 5 {
				all.Go(func() { b.want(b.m, bearer, nil) })
			}
			all.Wait()
		}
		if n := b.store.updates.Load(); n != 2 {
			t.Errorf("%d updates in two minutes, want 2", n)
		}
		if got := b.want(b.m, bearer, nil); got.LastSeen.Sub(s.Created) < time.Minute {
			t.Errorf("last seen %v after it began", got.LastSeen.Sub(s.Created))
		}
	})
}

func TestATouchUnderWayCannotReviveAnEndedSession(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		bearer, s := b.signIn(session.Tokens{})
		time.Sleep(2 * time.Minute)
		between := func(store.Key) {
			b.store.find.Store(nil)
			b.end(b.m, store.Selector{Key: s.Key})
		}
		b.store.find.Store(&between) // it is read, it ends, and then its use is written
		b.want(b.m, bearer, store.ErrNotFound)
		if b.store.updates.Load() != 1 {
			t.Error("the touch was not tried, so this shows nothing")
		}
		b.want(b.m, bearer, store.ErrNotFound)
	})
}

// A write may hang, and then fail. The logout that was answered meanwhile counts, on every replica.
func TestATouchThatFailsServesNobodyWhoWasEndedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]error{"it fails": errors.New("broken pipe"), "it is late": nil} {
		for _, here := range []bool{true, false} {
			bubble(t, session.Config{}, func(b *bench) {
				other := b.replica(session.Config{})
				bearer, s := b.signIn(session.Tokens{})
				time.Sleep(2 * time.Minute)
				b.want(other, bearer, nil)
				time.Sleep(2 * time.Minute)
				if fails != nil {
					b.store.failUpdate.Store(&fails)
				}
				hangs := func() {
					b.store.update.Store(nil)
					b.end(map[bool]*session.Manager{true: b.m, false: other}[here], store.Selector{SID: s.SID})
					time.Sleep(5 * time.Second)
				}
				b.store.update.Store(&hangs)
				before := b.store.updates.Load()
				if _, err := b.m.Get(b.t.Context(), bearer); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("%s, ended here: %v: Get: %v", name, here, err)
				}
				if b.store.updates.Load() != before+1 {
					t.Error("the touch was not tried, so this shows nothing")
				}
			})
		}
	}
}

func TestASessionIsServedWhileTheStoreCanBeReadAndNotWritten(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{})
		fails := errors.New("read-only")
		b.store.failUpdate.Store(&fails)
		time.Sleep(2 * time.Minute)
		b.want(b.m, bearer, nil)
		b.store.away.Store(&fails)
		time.Sleep(2 * time.Minute)
		b.want(b.m, bearer, session.ErrUnavailable)
	})
}

func TestASessionThatEndsWhileItIsReadIsNotCached(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		bearer, s := b.signIn(session.Tokens{})
		between := func(store.Key) {
			b.store.find.Store(nil)
			b.end(b.m, store.Selector{Key: s.Key})
		}
		b.store.find.Store(&between)
		b.want(b.m, bearer, nil) // it was alive when the store was read
		b.want(b.m, bearer, store.ErrNotFound)
	})
}

// The caller may answer for an ending that another replica carried out, whose news has not come yet.
func TestWhatWasEndedElsewhereIsNotServedHereAfterItsReplay(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		other := b.replica(session.Config{})
		bearer, s := b.signIn(session.Tokens{})
		b.want(b.m, bearer, nil)
		b.store.deaf.Store(true)
		e := store.Ending{Cause: store.CauseBackChannel, JTI: "j", JTIExpires: b.m.Now().Add(time.Minute),
			Selector: store.Selector{Issuer: issuer, ClientID: client, Subject: s.Subject}}
		if _, err := other.End(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		b.want(b.m, bearer, nil) // a copy, and within the ceiling
		if _, err := b.m.End(t.Context(), e); !errors.Is(err, store.ErrReplayed) {
			t.Fatal(err)
		}
		b.want(b.m, bearer, store.ErrNotFound)
	})
}

func TestACopyIsNotServedPastTheCeilingWhenTheFeedIsSilent(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{MaxStale: time.Second}, func(b *bench) {
		other := b.replica(session.Config{MaxStale: time.Second})
		bearer, s := b.signIn(session.Tokens{})
		b.want(other, bearer, nil)
		frozen := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		b.store.sync.Store(&frozen)
		b.store.deaf.Store(true)
		time.Sleep(300 * time.Millisecond)
		b.end(b.m, store.Selector{Key: s.Key})
		b.want(other, bearer, nil) // which shows that there was a copy
		time.Sleep(time.Second)
		b.want(other, bearer, store.ErrNotFound)
	})
}

// Two replicas get one logout at once. The second finds nothing to end, and has not yet heard that the first ended
// the session. Its answer is a success all the same, so it must not serve its copy from then on.
func TestACopyIsNotServedAfterAnEndingHereThatFoundNothing(t *testing.T) {
	t.Parallel()
	for name, selects := range map[string]func(s *session.Session) store.Selector{
		"sid":     func(s *session.Session) store.Selector { return store.Selector{SID: s.SID} },
		"subject": func(s *session.Session) store.Selector { return store.Selector{Subject: s.Subject} },
		"both":    func(s *session.Session) store.Selector { return store.Selector{Subject: s.Subject, SID: s.SID} },
		"key":     func(s *session.Session) store.Selector { return store.Selector{Key: s.Key} },
		"sid of somebody whose subject is another one here": func(s *session.Session) store.Selector {
			return store.Selector{Subject: "another", SID: s.SID}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, session.Config{MaxStale: time.Second}, func(b *bench) {
				other := b.replica(session.Config{MaxStale: time.Second})
				bearer, s := b.signIn(session.Tokens{})
				b.want(other, bearer, nil)
				b.store.deaf.Store(true)
				b.end(b.m, store.Selector{Key: s.Key})
				b.want(other, bearer, nil) // which shows that there was a copy
				b.end(other, selects(s))
				b.want(other, bearer, store.ErrNotFound)

				// Once the feed has proved itself again, copies are used again.
				b.store.deaf.Store(false)
				time.Sleep(time.Second)
				bearer, _ = b.signIn(session.Tokens{})
				b.want(other, bearer, nil)
				broken := errors.New("the store is away")
				b.store.away.Store(&broken)
				b.want(other, bearer, nil)
			})
		})
	}
}

func TestAGapInTheFeedDropsAllCopiesAndChecksReadThroughUntilItIsWhole(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		bearer, s := b.signIn(session.Tokens{})
		b.want(b.m, bearer, nil)
		gap := func(context.Context) error { return errors.New("something may have been missed") }
		b.store.sync.Store(&gap)
		b.store.deaf.Store(true)
		time.Sleep(300 * time.Millisecond)
		b.want(b.m, bearer, nil)
		if _, err := b.store.End(b.t.Context(), store.Ending{Selector: store.Selector{Issuer: issuer, ClientID: client,
			Key: s.Key}}, b.m.Now()); err != nil {
			t.Fatal(err)
		}
		b.want(b.m, bearer, store.ErrNotFound)

		b.store.sync.Store(nil)
		b.store.deaf.Store(false)
		time.Sleep(2 * time.Second)
		bearer, _ = b.signIn(session.Tokens{})
		b.want(b.m, bearer, nil)
		broken := errors.New("the store is away")
		b.store.away.Store(&broken)
		b.want(b.m, bearer, nil) // from the cache, which is trusted again
	})
}

func TestACopyFromBeforeTheFeedWasWatchedIsNotServed(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		bearer, s := b.signIn(session.Tokens{})
		late, err := session.NewManager(session.Config{Store: b.store, Keyring: b.ring})
		if err != nil {
			t.Fatal(err)
		}
		b.want(late, bearer, nil)
		b.end(b.m, store.Selector{Key: s.Key})
		ctx, cancel := context.WithCancel(b.t.Context())
		var done sync.WaitGroup
		done.Go(func() { late.Run(ctx) })
		synctest.Wait()
		b.want(late, bearer, store.ErrNotFound)
		cancel()
		done.Wait()
	})
}

// The first Sync may succeed while the message of an ending since Watch is still on its way, or lost.
func TestACopyFromBeforeTheFirstSyncIsNotServed(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		bearer, s := b.signIn(session.Tokens{})
		first := make(chan struct{})
		hold := func(context.Context) error { <-first; return nil }
		b.store.sync.Store(&hold)
		b.store.deaf.Store(true)
		late := b.replica(session.Config{})
		b.want(late, bearer, nil)
		if n := late.Stats().Cached; n != 1 {
			t.Fatalf("%d sessions are cached before the first Sync, so this shows nothing", n)
		}
		reading, held := make(chan struct{}), make(chan struct{})
		answer := sync.OnceFunc(func() { close(held) })
		defer answer()
		between := func(store.Key) {
			b.store.find.Store(nil)
			close(reading)
			<-held
		}
		b.store.find.Store(&between)
		var slow sync.WaitGroup // it lives when it is read, and the answer comes after the Sync
		slow.Go(func() { _, _ = late.Get(b.t.Context(), bearer) })
		<-reading
		b.end(b.m, store.Selector{Key: s.Key})
		b.store.sync.Store(nil)
		close(first)
		synctest.Wait()
		if !late.FeedInSync() {
			t.Fatal("the first Sync has not succeeded, so this shows nothing")
		}
		b.want(late, bearer, store.ErrNotFound)
		answer()
		slow.Wait()
		b.want(late, bearer, store.ErrNotFound)
	})
}

func TestAStoreThatIsAwayIsNeitherSignedInNorSignedOut(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{MaxStale: -1}, func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{})
		b.want(b.m, bearer, nil)
		broken := errors.New("connection refused")
		b.store.away.Store(&broken)
		b.want(b.m, bearer, session.ErrUnavailable)
		b.store.away.Store(nil)
		b.want(b.m, bearer, nil)
	})
}

func TestASessionIsServedWhenItsUseCannotBeWritten(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{IdleTimeout: time.Hour}, func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{})
		full := errors.New("the disk is full")
		b.store.failUpdate.Store(&full)
		time.Sleep(30 * time.Minute)
		b.want(b.m, bearer, nil)
		time.Sleep(30 * time.Minute)
		b.want(b.m, bearer, store.ErrNotFound) // and not for longer than it lives without
	})
}

func TestASessionOfAnotherKeyRingMeansSigningInAgain(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{})
		b.ring = ring(t, 2)
		b.want(b.replica(session.Config{}), bearer, store.ErrNotFound)
	})
}

func TestASessionOfAProviderThatIsNoLongerConfiguredIsNotServed(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{})
		other := b.replica(session.Config{Serves: func(i, c string) bool { return i == issuer && c != client }})
		b.want(other, bearer, store.ErrNotFound)
	})
}

func TestALoginThatBeganBeforeALogoutMakesNoSession(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		began := b.m.Now()
		time.Sleep(time.Second)
		b.end(b.m, store.Selector{Subject: "alice"})
		_, _, err := b.m.Create(b.t.Context(), session.SignIn{Issuer: issuer, ClientID: client, Subject: "alice",
			Began: began})
		if !errors.Is(err, store.ErrEnded) {
			t.Errorf("Create: %v, want %v", err, store.ErrEnded)
		}
	})
}

func TestWhoWatchesASessionIsToldOnceThatItEnded(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		_, s := b.signIn(session.Tokens{})
		_, other := b.signIn(session.Tokens{})
		ended, stop := b.m.Watch(s.Key)
		defer stop()
		spared, stop := b.m.Watch(other.Key)
		defer stop()
		b.end(b.m, store.Selector{Key: s.Key})
		if cause := <-ended; cause != store.CauseBackChannel {
			t.Errorf("cause %q", cause)
		}
		select {
		case c := <-ended:
			t.Errorf("told twice: %q", c)
		case <-spared:
			t.Error("another session was told")
		default:
		}
	})
}

func TestWhoWatchesIsToldAfterAGapOfWhatEndedInIt(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		other := b.replica(session.Config{})
		_, s := b.signIn(session.Tokens{})
		ended, stop := other.Watch(s.Key)
		defer stop()
		gap := func(context.Context) error { return errors.New("something may have been missed") }
		b.store.deaf.Store(true)
		b.store.sync.Store(&gap)
		time.Sleep(time.Second)
		b.end(b.m, store.Selector{Key: s.Key})
		b.store.sync.Store(nil)
		b.store.deaf.Store(false)
		<-ended // or the bubble says that all are asleep
	})
}

// crowded is a store that takes a while for each look-up, and does not answer the first one of a session.
type crowded struct {
	*faulty
	now, most atomic.Int64 // how many look-ups are under way, and were at once
	missing   store.Key
	asked     atomic.Bool
}

func (c *crowded) Find(ctx context.Context, k store.Key, now time.Time) (store.Record, error) {
	c.most.Store(max(c.most.Load(), c.now.Add(1)))
	defer c.now.Add(-1)
	time.Sleep(100 * time.Millisecond)
	if k == c.missing && c.asked.CompareAndSwap(false, true) {
		return store.Record{}, errors.New("on purpose")
	}
	return c.faulty.Find(ctx, k, now)
}

func TestTheFeedStaysInSyncWhileAllWhoWatchAreLookedUp(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{MaxPerSubject: -1}, func(b *bench) {
		backend := &crowded{faulty: b.store}
		m, err := session.NewManager(session.Config{Store: backend, Keyring: b.ring,
			Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		var streams []<-chan store.Cause
		watch := func() store.Key {
			_, s := b.signIn(session.Tokens{})
			ended, stop := m.Watch(s.Key)
			b.t.Cleanup(stop)
			streams = append(streams, ended)
			return s.Key
		}
		for range 200 {
			watch()
		}
		b.end(b.m, store.Selector{Key: watch()})
		backend.missing = watch() // the store does not answer at first
		b.end(b.m, store.Selector{Key: backend.missing})
		b.start(m)
		for range 100 {
			if !m.FeedInSync() {
				t.Fatal("the feed is not in sync, so every check asks the store")
			}
			time.Sleep(100 * time.Millisecond)
		}
		for i, ended := range streams {
			select {
			case cause := <-ended:
				if i < 200 || cause != "" {
					t.Errorf("watcher %d was told %q", i, cause)
				}
			default:
				if i >= 200 {
					t.Errorf("watcher %d was not told", i)
				}
			}
		}
		if n := m.Stats().Cached; n != 0 {
			t.Errorf("%d sessions are cached that nobody has used", n)
		}
		if n := backend.most.Load(); n > 4 {
			t.Errorf("%d look-ups were under way at once", n)
		}
	})
}

func TestConfigurationFaultsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	_, err := session.NewManager(session.Config{IdleTimeout: -1})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 3 {
		t.Errorf("got %v, want three faults: Store, Ring, Idle", err)
	}
}

func BenchmarkGetCached(b *testing.B) {
	m, err := session.NewManager(session.Config{Store: memory.New(), Keyring: ring(b, 1), MaxPerSubject: -1})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var done sync.WaitGroup
	done.Go(func() { m.Run(ctx) })
	defer done.Wait()
	defer cancel()
	const n = 10_000
	bearers := make([]session.Bearer, n)
	for i := range bearers {
		if bearers[i], _, err = m.Create(ctx, session.SignIn{Issuer: issuer, ClientID: client, Subject: "alice",
			Began: m.Now()}); err != nil {
			b.Fatal(err)
		}
		m.Get(ctx, bearers[i])
	}
	for range 2 { // all of them are in the cache once the feed has been found whole
		for _, bearer := range bearers {
			m.Get(ctx, bearer)
		}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := m.Get(ctx, bearers[i%n]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// TestACachedCheckAllocatesNothing holds the manager to its number: it is a count, not a time.
func TestACachedCheckAllocatesNothing(t *testing.T) {
	bubble(t, session.Config{}, func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{})
		b.want(b.m, bearer, nil)
		ctx := b.t.Context()
		if n := testing.AllocsPerRun(100, func() { b.m.Get(ctx, bearer) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// clocked is a store with a clock of its own, as replicas share one.
type clocked struct{ *memory.Store }

func (clocked) Clock() store.Clock {
	return store.Clock{Now: func(context.Context) (time.Time, error) { return time.Now(), nil }}
}

func TestReplicasWhoseClocksDifferAgreeOnWhatCameFirst(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ login, logout time.Duration }{
		"the login's replica is ahead":  {login: 30 * time.Second},
		"the login's replica is behind": {login: -30 * time.Second},
		"the logout's is ahead":         {logout: 30 * time.Second},
		"both are off":                  {login: 20 * time.Second, logout: -20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				backend := clocked{memory.New()}
				var done sync.WaitGroup
				ctx, cancel := context.WithCancel(t.Context())
				replica := func(off time.Duration) *session.Manager {
					m, err := session.NewManager(session.Config{Store: backend, Keyring: ring(t, 1),
						Log: slog.New(slog.DiscardHandler),
						Now: func() time.Time { return time.Now().Add(off) }})
					if err != nil {
						t.Fatal(err)
					}
					done.Go(func() { m.Run(ctx) })
					return m
				}
				login, logout := replica(c.login), replica(c.logout)
				synctest.Wait()
				create := func(began time.Time) error {
					_, _, err := login.Create(ctx, session.SignIn{Issuer: issuer, ClientID: client, Subject: "alice",
						Began: began})
					return err
				}
				began := login.Now()
				time.Sleep(time.Second)
				if _, err := logout.End(ctx, store.Ending{Selector: store.Selector{Issuer: issuer, ClientID: client,
					Subject: "alice"}}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				if err := create(began); !errors.Is(err, store.ErrEnded) {
					t.Errorf("a login from before the logout: %v, want %v", err, store.ErrEnded)
				}
				if err := create(login.Now()); err != nil {
					t.Errorf("a login from after the logout: %v", err)
				}
				cancel()
				done.Wait()
			})
		})
	}
}

// A memory store that was made anew has forgotten the logouts before it: a login from before it may be one of theirs.
func TestALoginFromBeforeAMemoryStoreWasMadeIsRefused(t *testing.T) {
	t.Parallel()
	ring, err := keyring.Parse(keyring.NewFile())
	if err != nil {
		t.Fatal(err)
	}
	var orphans int
	manager := func() *session.Manager {
		m, err := session.NewManager(session.Config{Store: memory.New(), Keyring: ring,
			Notices: &notifier{orphaned: func(session.Tokens) { orphans++ }}})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	before, after := manager(), manager()
	n := session.SignIn{Provider: "main", Issuer: "https://id.example.com", ClientID: "app", Subject: "alice"}
	if n.Began, n.Era, err = before.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := after.Create(t.Context(), n); !errors.Is(err, store.ErrEnded) {
		t.Errorf("after a restart: %v, want %v", err, store.ErrEnded)
	}
	if orphans != 1 {
		t.Errorf("%d refused sign-ins were handed over to be revoked, want 1", orphans)
	}
	if _, _, err := before.Create(t.Context(), n); err != nil {
		t.Errorf("without a restart: %v", err)
	}
}
