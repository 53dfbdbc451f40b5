package postgres_test

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"
)

// wantRefused fails unless the replica says at once that b is nobody's.
func wantRefused(t *testing.T, r *rig.Replica, b session.Bearer) {
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
	here := rig.Replicate(t, open(t, address, patient()), deaf)
	there := rig.Replicate(t, open(t, address, patient()), deaf)
	bystander := here.SignIn(t, "bob", "s9")
	there.Cache(t, bystander)
	// Each ending names another person: one who was named is not served from a copy until the feed is in sync again.
	for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s2"}, {Subject: "carol", SID: "s3"}} {
		b := here.SignIn(t, cmp.Or(who.Subject, "dave"), cmp.Or(who.SID, "s1"))
		here.Cache(t, b)
		there.Cache(t, b)
		there.Hears(t, b, func() {
			here.EndAll(t, who)
			wantRefused(t, here, b)
		})
		wantRefused(t, there, b)
	}
	there.Cache(t, bystander)
}

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
			here := rig.Replicate(t, open(t, address, patient()), session.Config{})
			backend := open(t, with(t, address, "feed", w.listener.Addr().String()), patient())
			there := rig.Replicate(t, backend, session.Config{})
			ends, stays := here.SignIn(t, "alice", "s1"), here.SignIn(t, "bob", "s2")
			pid, err := backend.FeedPID(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			rig.Deaf(t, here, there, ends, stays, func() { fault.begin(t, w, address, pid) }, func() { fault.end(w) })
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
	here := rig.Replicate(t, openSoon(t, address, o), session.Config{})
	there := rig.Replicate(t, openSoon(t, address, o), session.Config{})
	setup := open(t, address, patient())
	owner := rig.Replicate(t, setup, session.Config{})
	ends, stays, wished := owner.SignIn(t, "alice", "s1"), owner.SignIn(t, "bob", "s2"), owner.SignIn(t, "carol", "s3")
	rig.Frozen(t, s, here, there, ends, stays, wished)
}

// TestAFullPoolDoesNotLetALoginOutliveALogout: checks that wait for a locked table hold every connection of one
// replica, for as long as it reads the clock.
func TestAFullPoolDoesNotLetALoginOutliveALogout(t *testing.T) {
	t.Parallel()
	address := schema(t)
	other := rig.Replicate(t, open(t, address, patient()), session.Config{})
	busy := open(t, address, patient())
	tx := begin(t, address)
	send(t, tx, `LOCK TABLE curfew_sessions IN ACCESS EXCLUSIVE MODE`, nil)
	var checks sync.WaitGroup
	for range 24 {
		checks.Go(func() { _, _ = busy.Find(t.Context(), store.Key{}, time.Now()) })
	}
	waitBlocked(t, address, tx, int(patient().MaxConns))
	full := rig.Replicate(t, busy, session.Config{}) // and takes its first reading
	unlocked := make(chan struct{})
	time.AfterFunc(3*time.Second, func() {
		defer close(unlocked)
		_ = tx.Rollback(context.Background())
	})
	rig.Soon(t, "the table is unlocked", unlocked)
	checks.Wait()
	rig.Poll(t, "the feed is whole", func() bool {
		_, err := full.Peek(t.Context(), store.Key{})
		return errors.Is(err, store.ErrNotFound)
	})
	for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
		began, era, err := full.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		other.EndAll(t, who)
		_, _, err = full.Create(t.Context(), session.SignIn{Issuer: rig.Issuer, ClientID: rig.ClientID,
			Subject: "alice", SID: "s1", Began: began, Era: era})
		if !errors.Is(err, store.ErrEnded) {
			t.Errorf("a login from before a logout of %+v: %v, want %v", who, err, store.ErrEnded)
		}
	}
}

func TestAReplicaWhoseClockIsWrongGoesByTheServers(t *testing.T) {
	t.Parallel()
	address := schema(t)
	rig.WrongClock(t, func(cfg session.Config) *rig.Replica {
		return rig.Replicate(t, open(t, address, patient()), cfg)
	})
}
