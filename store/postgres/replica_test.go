package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"
)

// replica is a process as [session.Manager] makes one of a store.
type replica struct {
	*session.Manager
	store *counted
}

// counted counts the questions that no cache answered.
type counted struct {
	*postgres.Store
	finds atomic.Int64
}

func (c *counted) Find(ctx context.Context, key store.Key, now time.Time) (store.Record, error) {
	c.finds.Add(1)
	return c.Store.Find(ctx, key, now)
}

// replicate runs a replica for as long as the test runs.
func replicate(t *testing.T, backend *postgres.Store, cfg session.Config) *replica {
	t.Helper()
	ring, err := keyring.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{store: &counted{Store: backend}}
	cfg.Store, cfg.Keyring, cfg.Log = r.store, ring, slog.New(slog.DiscardHandler)
	if r.Manager, err = session.NewManager(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return r
}

// poll asks again and again, until it is answered true.
func poll(t *testing.T, what string, ask func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	often := time.NewTicker(5 * time.Millisecond)
	defer often.Stop()
	for !ask() {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-often.C:
		}
	}
}

func (r *replica) signIn(t *testing.T, subject, sid string) session.Bearer {
	t.Helper()
	b, _, err := r.Create(t.Context(), session.SignIn{Issuer: issuer, ClientID: client, Subject: subject, SID: sid,
		Began: r.Now()})
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return b
}

// cache returns when the replica answers for b without asking the store. What is unavailable is asked for again.
func (r *replica) cache(t *testing.T, b session.Bearer) {
	t.Helper()
	poll(t, "it is answered from the cache", func() bool {
		before := r.store.finds.Load()
		_, err := r.Get(t.Context(), b)
		if err != nil && !errors.Is(err, session.ErrUnavailable) {
			t.Fatalf("Get: %v", err)
		}
		return err == nil && r.store.finds.Load() == before
	})
}

// end ends who, and returns when it is dead.
func (r *replica) end(t *testing.T, who store.Selector) (dead time.Time) {
	t.Helper()
	poll(t, "the ending is acknowledged", func() bool {
		_, err := r.End(t.Context(), ending(who, "", time.Now()))
		dead = time.Now()
		if err != nil && !errors.Is(err, session.ErrUnavailable) {
			t.Fatalf("End: %v", err)
		}
		return err == nil
	})
	return dead
}

func (r *replica) wantRefused(t *testing.T, b session.Bearer) {
	t.Helper()
	if _, err := r.Get(t.Context(), b); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get: got error %v, want %v", err, store.ErrNotFound)
	}
}

func TestWhoIsEndedOnOneReplicaIsRefusedOnTheOther(t *testing.T) {
	t.Parallel()
	address := schema(t)
	// Who hears nothing would serve a copy for an hour.
	deaf := session.Config{MaxStale: time.Hour}
	here, there := replicate(t, open(t, address, patient()), deaf), replicate(t, open(t, address, patient()), deaf)
	bystander := here.signIn(t, "bob", "s9")
	there.cache(t, bystander)
	for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
		b := here.signIn(t, "alice", "s1")
		here.cache(t, b)
		there.cache(t, b)
		heard, stop := there.Watch(b.Key())
		here.end(t, who)
		here.wantRefused(t, b)
		select {
		case <-heard:
		case <-time.After(2 * time.Minute):
			t.Fatal("the other replica does not hear of it")
		}
		stop()
		there.wantRefused(t, b)
	}
	there.cache(t, bystander)
}

// ceiling is the default of [session.Config].
const ceiling = time.Second

func TestAReplicaThatHearsNothingServesNobodyPastTheCeiling(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name  string
		begin func(t *testing.T, w *wire, address string, pid uint32)
		end   func(w *wire)
	}{
		{"its feed is held up", func(_ *testing.T, w *wire, _ string, _ uint32) { w.held.Lock() },
			func(w *wire) { w.held.Unlock() }},
		{"its feed is cut", func(t *testing.T, _ *wire, address string, pid uint32) {
			run(t, address, `SELECT pg_terminate_backend(`+fmtInt(pid)+`, 60000)`)
		}, func(*wire) {}},
		{"its feed is cut and cannot be made anew", func(t *testing.T, w *wire, address string, pid uint32) {
			w.held.Lock()
			run(t, address, `SELECT pg_terminate_backend(`+fmtInt(pid)+`, 60000)`)
		}, func(w *wire) { w.held.Unlock() }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			address := schema(t)
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			w := newWire(t, u.Host)
			here := replicate(t, open(t, address, patient()), session.Config{})
			backend := open(t, with(t, address, "feed", w.listener.Addr().String()), patient())
			there := replicate(t, backend, session.Config{})
			ends, stays := here.signIn(t, "alice", "s1"), here.signIn(t, "bob", "s2")
			pid, err := backend.FeedPID(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			there.cache(t, ends)
			there.cache(t, stays)
			fault.begin(t, w, address, pid)
			var once sync.Once
			mend := func() { once.Do(func() { fault.end(w) }) }
			t.Cleanup(mend)

			dead := here.end(t, store.Selector{Subject: "alice"})
			poll(t, "twice the ceiling has passed", func() bool {
				began := time.Now()
				if _, err := there.Get(t.Context(), ends); err == nil && began.Sub(dead) > ceiling {
					t.Errorf("served %v after the end", began.Sub(dead))
				} else if err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Errorf("Get: got error %v, but the store can be asked", err)
				}
				if _, err := there.Get(t.Context(), stays); err != nil {
					t.Errorf("Get of who is alive: %v", err)
				}
				return began.Sub(dead) > 2*ceiling
			})
			there.wantRefused(t, ends)

			mend()
			there.cache(t, stays)
			heard, stop := there.Watch(stays.Key())
			defer stop()
			here.end(t, store.Selector{SID: "s2"})
			select {
			case <-heard:
			case <-time.After(2 * time.Minute):
				t.Error("the feed does not recover")
			}
			there.wantRefused(t, stays)
		})
	}
}

func TestAServerFrozenForTenSecondsServesNobodyPastTheCeilingAndSignsNobodyOut(t *testing.T) {
	t.Parallel()
	s := servers.OwnPostgres(t, "")
	address := s.URL
	open(t, address, patient()).Close() // and has made the tables
	o := postgres.Options{MaxConns: 6, ConnectTimeout: time.Second, StatementTimeout: time.Second,
		Grace: 500 * time.Millisecond}
	quick := func() (backend *postgres.Store) {
		poll(t, "the store opens", func() bool { // which on a slow machine may take longer than that
			var err error
			backend, err = postgres.Open(t.Context(), address, o)
			return err == nil
		})
		t.Cleanup(func() { backend.Close() })
		return backend
	}
	here, there := replicate(t, quick(), session.Config{}), replicate(t, quick(), session.Config{})
	setup := open(t, address, patient())
	owner := replicate(t, setup, session.Config{})
	ends, stays, wished := owner.signIn(t, "alice", "s1"), owner.signIn(t, "bob", "s2"), owner.signIn(t, "carol", "s3")
	for _, b := range []session.Bearer{ends, stays, wished} {
		there.cache(t, b)
	}

	dead := here.end(t, store.Selector{Subject: "alice"})
	s.Freeze()
	thaw := sync.OnceFunc(s.Thaw)
	t.Cleanup(thaw)
	frozen := time.Now()
	wish := ending(store.Selector{Subject: "carol"}, "j1", frozen)
	var asking sync.WaitGroup
	// Each is asked again and again, and one who is not answered in time is answered at last when the server goes on.
	during := func(what string, ask func(began time.Time) error) {
		asking.Go(func() {
			answers := 0
			often := time.NewTicker(5 * time.Millisecond)
			defer often.Stop()
			for time.Since(frozen) < 10*time.Second {
				began := time.Now()
				if err := ask(began); err != nil {
					answers++
					if !errors.Is(err, session.ErrUnavailable) {
						t.Errorf("%s: got error %v, want %v", what, err, session.ErrUnavailable)
					}
				}
				<-often.C
			}
			if answers < 2 {
				t.Errorf("%s: it was refused %d times in ten seconds; one waits for the statement timeout and not "+
					"for the server", what, answers)
			}
		})
	}
	during("Get of who ended", func(began time.Time) error {
		_, err := there.Get(t.Context(), ends)
		if err == nil && began.Sub(dead) > ceiling {
			t.Errorf("served %v after the end", began.Sub(dead))
		}
		if errors.Is(err, store.ErrNotFound) && began.Sub(dead) <= ceiling {
			return nil // heard of before the server froze
		}
		return err
	})
	during("Get of who is alive", func(began time.Time) error {
		_, err := there.Get(t.Context(), stays)
		if err == nil && began.Sub(frozen) > ceiling {
			t.Errorf("served %v after anything was heard of the server", began.Sub(frozen))
		}
		return err
	})
	during("End", func(time.Time) error {
		_, err := here.End(t.Context(), wish)
		if err == nil {
			t.Error("End: no error of a frozen server")
		}
		return err
	})
	asking.Wait()
	thaw()

	there.cache(t, stays) // and was never signed out
	poll(t, "a logout that failed is carried out, or was", func() bool {
		_, err := here.End(t.Context(), wish)
		return err == nil || errors.Is(err, store.ErrReplayed)
	})
	for _, b := range []session.Bearer{ends, wished} {
		poll(t, "who ended is refused", func() bool {
			_, err := there.Get(t.Context(), b)
			if err == nil && b == ends {
				t.Fatal("who ended is served again")
			}
			return errors.Is(err, store.ErrNotFound)
		})
	}
}

// TestAFullPoolDoesNotLetALoginOutliveALogout: checks that wait for a locked table hold every connection of one
// replica, for as long as it reads the clock.
func TestAFullPoolDoesNotLetALoginOutliveALogout(t *testing.T) {
	t.Parallel()
	address := schema(t)
	other := replicate(t, open(t, address, patient()), session.Config{})
	busy := open(t, address, patient())
	tx := begin(t, address)
	send(t, tx, `LOCK TABLE curfew_sessions IN ACCESS EXCLUSIVE MODE`, nil)
	var checks sync.WaitGroup
	for range 24 {
		checks.Go(func() { _, _ = busy.Find(t.Context(), store.Key{}, time.Now()) })
	}
	waitBlocked(t, address, tx, int(patient().MaxConns))
	full := replicate(t, busy, session.Config{}) // and takes its first reading
	unlocked := make(chan struct{})
	time.AfterFunc(3*time.Second, func() {
		defer close(unlocked)
		_ = tx.Rollback(context.Background())
	})
	soon(t, "the table is unlocked", unlocked)
	checks.Wait()
	poll(t, "the feed is whole", func() bool {
		_, err := full.Peek(t.Context(), store.Key{})
		return errors.Is(err, store.ErrNotFound)
	})
	for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
		began, era, err := full.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		other.end(t, who)
		_, _, err = full.Create(t.Context(), session.SignIn{Issuer: issuer, ClientID: client, Subject: "alice",
			SID: "s1", Began: began, Era: era})
		if !errors.Is(err, store.ErrEnded) {
			t.Errorf("a login from before a logout of %+v: %v, want %v", who, err, store.ErrEnded)
		}
	}
}

func TestAReplicaWhoseClockIsWrongGoesByTheServers(t *testing.T) {
	t.Parallel()
	address := schema(t)
	right := replicate(t, open(t, address, patient()), session.Config{})
	for name, off := range map[string]time.Duration{"fast": 30 * time.Second, "slow": -30 * time.Second} {
		wrong := replicate(t, open(t, address, patient()),
			session.Config{Now: func() time.Time { return time.Now().Add(off) }})
		for _, r := range []*replica{right, wrong} {
			poll(t, "it has asked for the time", func() bool { return time.Until(r.Now()).Abs() < 2*time.Second })
		}
		// More than both can be off still.
		const margin = 5 * time.Second
		begun := func(who *replica, began time.Time) error {
			_, _, err := who.Create(t.Context(), session.SignIn{Issuer: issuer, ClientID: client, Subject: name,
				Began: began})
			return err
		}
		before := wrong.Now().Add(-margin)
		right.end(t, store.Selector{Subject: name})
		if err := begun(right, before); !errors.Is(err, store.ErrEnded) {
			t.Errorf("a login from before the logout, by a clock that is %s: got error %v, want %v", name, err,
				store.ErrEnded)
		}
		if err := begun(right, wrong.Now().Add(margin)); err != nil {
			t.Errorf("a login from after the logout, by a clock that is %s: %v", name, err)
		}
		wrong.end(t, store.Selector{Subject: name})
		if err := begun(right, right.Now().Add(-margin)); !errors.Is(err, store.ErrEnded) {
			t.Errorf("a login from before a logout by a clock that is %s: got error %v, want %v", name, err,
				store.ErrEnded)
		}
		if err := begun(right, right.Now().Add(margin)); err != nil {
			t.Errorf("a login from after a logout by a clock that is %s: %v", name, err)
		}
	}
}
