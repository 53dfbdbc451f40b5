package rig

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

// Issuer and ClientID are those of every record and ending that is made here.
const (
	Issuer   = "https://id.example"
	ClientID = "app"
)

// MaxStale is the default of [session.Config].
const MaxStale = time.Second

// Record returns a session that lives for an hour.
func Record(subject, sid string, now time.Time) store.Record {
	bearer := session.NewBearer(Issuer, ClientID, subject)
	return store.Record{Key: bearer.Key(), Issuer: Issuer, ClientID: ClientID, Subject: subject, SID: sid,
		Created: now, LastSeen: now, IdleExpires: now.Add(time.Hour), Expires: now.Add(time.Hour), Revision: 1,
		Payload: make([]byte, 600)}
}

// Ending returns an ending that leaves a notice.
func Ending(who store.Selector, jti string, now time.Time) store.Ending {
	who.Issuer, who.ClientID = Issuer, ClientID
	return store.Ending{Selector: who, Cause: store.CauseBackChannel, JTI: jti, JTIExpires: now.Add(time.Hour),
		Notices: []store.NoticeRequest{{Kind: store.NoticeLogout, Target: "app2", Deadline: now.Add(time.Hour)}}}
}

// Poll asks again and again, until it is answered true.
func Poll(t testing.TB, what string, ask func() bool) {
	t.Helper()
	late := time.Now().Add(Patience)
	often := time.NewTicker(5 * time.Millisecond)
	defer often.Stop()
	for !ask() {
		if time.Now().After(late) {
			t.Fatalf("never: %s", what)
		}
		<-often.C
	}
}

// Replica is a process as [session.Manager] makes one of a store. All replicas have the same keyring.
type Replica struct {
	*session.Manager
	backend *counted
}

// counted counts the questions that no cache answered.
type counted struct {
	store.Store
	finds atomic.Int64
}

func (c *counted) Find(ctx context.Context, key store.Key, now time.Time) (store.Record, error) {
	c.finds.Add(1)
	return c.Store.Find(ctx, key, now)
}

// NewReplica makes a replica, which the caller runs.
func NewReplica(backend store.Store, cfg session.Config) (*Replica, error) {
	ring, err := keyring.New(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	r := &Replica{backend: &counted{Store: backend}}
	cfg.Store, cfg.Keyring, cfg.Log = r.backend, ring, slog.New(slog.DiscardHandler)
	r.Manager, err = session.NewManager(cfg)
	return r, err
}

// Replicate runs a replica for as long as the test runs.
func Replicate(t testing.TB, backend store.Store, cfg session.Config) *Replica {
	t.Helper()
	r, err := NewReplica(backend, cfg)
	Must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return r
}

// Finds is how often the store was asked for a session.
func (r *Replica) Finds() int64 { return r.backend.finds.Load() }

// SignIn signs somebody in. What is unavailable is asked for again, and so is a session that is refused because it
// began, by a clock that may be off, before a logout.
func (r *Replica) SignIn(t testing.TB, subject, sid string) (b session.Bearer) {
	t.Helper()
	Poll(t, "somebody signs in", func() bool {
		var err error
		b, _, err = r.Create(t.Context(), session.SignIn{Issuer: Issuer, ClientID: ClientID, Subject: subject, SID: sid,
			Began: r.Now()})
		if err != nil && !errors.Is(err, session.ErrUnavailable) && !errors.Is(err, store.ErrEnded) {
			t.Fatalf("Create: %v", err)
		}
		return err == nil
	})
	return b
}

// Cache returns when the replica answers for b without asking the store. What is unavailable is asked for again.
func (r *Replica) Cache(t testing.TB, b session.Bearer) {
	t.Helper()
	Poll(t, "it is answered from the cache", func() bool {
		before := r.Finds()
		_, err := r.Get(t.Context(), b)
		if err != nil && !errors.Is(err, session.ErrUnavailable) {
			t.Fatalf("Get: %v", err)
		}
		return err == nil && r.Finds() == before
	})
}

// EndAll ends who, and returns when they are dead. What is unavailable is asked for again.
func (r *Replica) EndAll(t testing.TB, who store.Selector) (dead time.Time) {
	t.Helper()
	Poll(t, "the ending is acknowledged", func() bool {
		_, err := r.End(t.Context(), Ending(who, "", time.Now()))
		dead = time.Now()
		if err != nil && !errors.Is(err, session.ErrUnavailable) {
			t.Fatalf("End: %v", err)
		}
		return err == nil
	})
	return dead
}

// WantRefused fails unless the store says that b is nobody's. What is unavailable is asked for again.
func (r *Replica) WantRefused(t testing.TB, b session.Bearer) {
	t.Helper()
	Poll(t, "it is refused", func() bool {
		_, err := r.Get(t.Context(), b)
		if err == nil {
			t.Fatal("who ended is served")
		}
		return errors.Is(err, store.ErrNotFound)
	})
}

// Hears fails unless the replica hears of an ending of b on another.
func (r *Replica) Hears(t testing.TB, b session.Bearer, end func()) {
	t.Helper()
	heard, stop := r.Watch(b.Key())
	defer stop()
	end()
	Soon(t, "the other replica hears of it", heard)
}

// Deaf is a test of a replica, there, that hears nothing from fault until mend: it serves nobody for longer than
// [MaxStale] after they have been ended, here, and signs nobody out. The two bearers are signed in.
func Deaf(t testing.TB, here, there *Replica, ends, stays session.Bearer, fault, mend func()) {
	t.Helper()
	there.Cache(t, ends)
	there.Cache(t, stays)
	fault()
	mend = sync.OnceFunc(mend)
	t.Cleanup(mend)
	dead := here.EndAll(t, store.Selector{Subject: "alice"})
	Poll(t, "twice as long has passed", func() bool {
		began := time.Now()
		if _, err := there.Get(t.Context(), ends); err == nil && began.Sub(dead) > MaxStale {
			t.Errorf("served %v after the end", began.Sub(dead))
		} else if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get: got error %v, but the store can be asked", err)
		}
		if _, err := there.Get(t.Context(), stays); err != nil {
			t.Errorf("Get of who is alive: %v", err)
		}
		return began.Sub(dead) > 2*MaxStale
	})
	there.WantRefused(t, ends)
	mend()
	there.Cache(t, stays)
	there.Hears(t, stays, func() { here.EndAll(t, store.Selector{SID: "s2"}) })
	there.WantRefused(t, stays)
}

// Frozen is a test of two replicas of a server that is frozen for ten seconds: each question is refused in time, nobody
// is served for longer than [MaxStale], and nobody is signed out. Alice, Bob and Carol are signed in with the bearers.
func Frozen(t testing.TB, server interface {
	Freeze()
	Thaw()
}, here, there *Replica,
	ends, stays, wished session.Bearer) {
	t.Helper()
	for _, b := range []session.Bearer{ends, stays, wished} {
		there.Cache(t, b)
	}
	dead := here.EndAll(t, store.Selector{Subject: "alice"})
	server.Freeze()
	thaw := sync.OnceFunc(server.Thaw)
	t.Cleanup(thaw)
	frozen := time.Now()
	wish := Ending(store.Selector{Subject: "carol"}, "j1", frozen)
	var asking sync.WaitGroup
	// Each is asked again and again, and one who is not answered in time is answered at last when the server goes on.
	during := func(what string, ask func(began time.Time) error) {
		asking.Go(func() {
			refused := 0
			often := time.NewTicker(5 * time.Millisecond)
			defer often.Stop()
			for time.Since(frozen) < 10*time.Second {
				if err := ask(time.Now()); err != nil {
					refused++
					if !errors.Is(err, session.ErrUnavailable) {
						t.Errorf("%s: got error %v, want %v", what, err, session.ErrUnavailable)
					}
				}
				<-often.C
			}
			if refused < 2 {
				t.Errorf("%s: it was refused %d times in ten seconds; one waits for our timeout and not for the server",
					what, refused)
			}
		})
	}
	during("Get of who ended", func(began time.Time) error {
		_, err := there.Get(t.Context(), ends)
		if err == nil && began.Sub(dead) > MaxStale {
			t.Errorf("served %v after the end", began.Sub(dead))
		}
		if errors.Is(err, store.ErrNotFound) && began.Sub(dead) <= MaxStale {
			return nil // heard of before the server froze
		}
		return err
	})
	during("Get of who is alive", func(began time.Time) error {
		_, err := there.Get(t.Context(), stays)
		if err == nil && began.Sub(frozen) > MaxStale {
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

	there.Cache(t, stays) // and was never signed out
	Poll(t, "a logout that failed is carried out, or was", func() bool {
		_, err := here.End(t.Context(), wish)
		return err == nil || errors.Is(err, store.ErrReplayed)
	})
	there.WantRefused(t, ends)
	Poll(t, "who was ended by it is refused", func() bool {
		_, err := there.Get(t.Context(), wished)
		return errors.Is(err, store.ErrNotFound)
	})
}

// WrongClock fails unless a replica whose clock is off goes by the clock of the store. replicate starts one more
// replica of the same store.
func WrongClock(t *testing.T, replicate func(session.Config) *Replica) {
	t.Helper()
	right := replicate(session.Config{})
	for name, off := range map[string]time.Duration{"fast": 30 * time.Second, "slow": -30 * time.Second} {
		wrong := replicate(session.Config{Now: func() time.Time { return time.Now().Add(off) }})
		for _, r := range []*Replica{right, wrong} {
			Poll(t, "it has asked for the time", func() bool { return time.Until(r.Now()).Abs() < 2*time.Second })
		}
		const margin = 5 * time.Second // more than both can be off still
		create := func(began time.Time) error {
			_, _, err := right.Create(t.Context(), session.SignIn{Issuer: Issuer, ClientID: ClientID, Subject: name,
				Began: began})
			return err
		}
		for _, ends := range []*Replica{right, wrong} {
			for _, by := range []*Replica{right, wrong} {
				before := by.Now().Add(-margin)
				ends.EndAll(t, store.Selector{Subject: name})
				if err := create(before); !errors.Is(err, store.ErrEnded) {
					t.Errorf("a login from before the logout, by a clock that is %s: got error %v, want %v", name, err,
						store.ErrEnded)
				}
				if err := create(by.Now().Add(margin)); err != nil {
					t.Errorf("a login from after the logout, by a clock that is %s: %v", name, err)
				}
			}
		}
	}
}
