package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"
	"example.com/curfew/store/storetest"
)

// settled waits until the store works again, and returns how often it did not.
func settled(t *testing.T, backend *postgres.Store, now time.Time) (failed int) {
	t.Helper()
	for ; ; failed++ {
		_, err := backend.List(t.Context(), store.Query{Limit: 1}, now)
		if err == nil {
			return failed
		}
		wantTrouble(t, "List", err)
		if failed == 1000 {
			t.Fatalf("the store does not recover: %v", err)
		}
	}
}

func TestARestartIsTroubleForAMomentAndLosesNothing(t *testing.T) {
	t.Parallel()
	s := servers.OwnPostgres(t, "")
	backend := open(t, s.URL, patient())
	heard := listen(t, backend)
	now := time.Now()
	stays, ends := signIn(t, backend, "alice", "s1", now), signIn(t, backend, "bob", "s2", now)
	e := rig.Ending(store.Selector{Subject: "bob"}, "j1", now)
	if _, err := backend.End(t.Context(), e, now); err != nil {
		t.Fatal(err)
	}
	for _, end := range []func(){s.Stop, s.Kill} {
		if err := backend.FillPool(t.Context()); err != nil {
			t.Fatal(err)
		}
		end()
		s.Start()
		// The first that fails has all others of the pool made anew.
		if failed := settled(t, backend, now); failed > 1 {
			t.Errorf("%d statements failed after the server was there again, want at most 1", failed)
		}
		end()
		_, err := backend.Find(t.Context(), stays.Key, now)
		wantTrouble(t, "Find", err)
		_, err = backend.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j2", now), now)
		wantTrouble(t, "End", err)
		wantTrouble(t, "Sync", heard.feed.Sync(t.Context()))
		s.Start()
		settled(t, backend, now)
		heard.recover(t)
		wantAlive(t, backend, stays, now)
		wantGone(t, backend, ends, now)
		if _, err := backend.End(t.Context(), e, now); !errors.Is(err, store.ErrReplayed) {
			t.Errorf("End again: got error %v, want %v", err, store.ErrReplayed)
		}
	}
	if n, err := backend.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j2", now), now); err != nil ||
		len(n) != 1 {
		t.Errorf("End: %d sessions, error %v, want 1", len(n), err)
	}
}

func TestWhatWasAcknowledgedSurvivesKill9OfTheServer(t *testing.T) {
	t.Parallel()
	s := servers.OwnPostgres(t, "")
	o := patient()
	o.MaxConns = 8
	backend := open(t, s.URL, o)
	now := time.Now()
	const acknowledged, begun, created = 1, 2, 3
	var mu sync.Mutex
	state := make(map[store.Key]int)
	sids := make(map[store.Key]string)
	note := func(r store.Record, to int) (ends int) {
		mu.Lock()
		defer mu.Unlock()
		state[r.Key], sids[r.Key] = to, r.SID
		for _, s := range state {
			if s == acknowledged {
				ends++
			}
		}
		return ends
	}
	enough := make(chan struct{})
	var once sync.Once
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			for i := 0; ; i++ {
				sid := fmt.Sprintf("%d-%d", w, i)
				r := rig.Record("alice", sid, now)
				if backend.Create(context.Background(), r, now, now) != nil {
					return
				}
				note(r, created)
				if i%3 == 0 {
					continue
				}
				note(r, begun)
				if _, err := backend.End(context.Background(), rig.Ending(store.Selector{SID: sid}, "jti-"+sid, now),
					now); err != nil {
					return
				}
				if note(r, acknowledged) >= 200 {
					once.Do(func() { close(enough) })
				}
			}
		})
	}
	rig.Soon(t, "200 endings", enough)
	s.Kill()
	s.Start()
	workers.Wait()

	settled(t, backend, now)
	notices, err := storetest.ClaimAll(t.Context(), backend, now, time.Hour, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[store.Key]bool)
	for _, n := range notices {
		told[n.Key] = true
	}
	counts := make(map[int]int)
	for key, state := range state {
		counts[state]++
		_, err := backend.Find(t.Context(), key, now)
		gone := errors.Is(err, store.ErrNotFound)
		switch {
		case err != nil && !gone:
			t.Errorf("Find: %v", err)
		case state == acknowledged && !gone:
			t.Error("a session whose End was acknowledged is back")
		case state == created && gone:
			t.Error("a session whose Create was acknowledged is lost")
		case gone != told[key]:
			t.Errorf("a session is gone: %v, and its notice is there: %v; want both or neither", gone, told[key])
		}
		again, err := backend.End(t.Context(), rig.Ending(store.Selector{SID: sids[key]}, "jti-"+sids[key], now), now)
		switch {
		case gone && !errors.Is(err, store.ErrReplayed):
			t.Errorf("End again of one that is gone: %d sessions, error %v, want %v", len(again), err,
				store.ErrReplayed)
		case !gone && (err != nil || len(again) != 1):
			t.Errorf("End again of one that is not gone: %d sessions, error %v: the jti was burnt", len(again), err)
		}
	}
	t.Logf("acknowledged, begun, created only: %v", counts)
}

func TestAFrozenServerIsTroubleAndNoVerdict(t *testing.T) {
	t.Parallel()
	s := servers.OwnPostgres(t, "")
	o := patient()
	o.StatementTimeout, o.ConnectTimeout, o.Grace = 300*time.Millisecond, 300*time.Millisecond, 100*time.Millisecond
	patientStore := open(t, s.URL, patient())
	now := time.Now()
	r := signIn(t, patientStore, "alice", "s1", now)
	backend := openSoon(t, s.URL, o)
	heard := listen(t, patientStore)

	s.Freeze()
	_, err := backend.Find(t.Context(), r.Key, now)
	wantTrouble(t, "Find", err)
	_, err = backend.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j1", now), now)
	wantTrouble(t, "End", err)
	wantTrouble(t, "Update", backend.Update(t.Context(), r, now))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := heard.feed.Sync(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Sync: got error %v, want %v", err, context.DeadlineExceeded)
	}
	s.Thaw()

	settled(t, patientStore, now)
	settled(t, backend, now)
	// The End that nobody waited for may have been carried out; if not, the same token ends the session now.
	_, err = patientStore.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j1", now), now)
	if err != nil && !errors.Is(err, store.ErrReplayed) {
		t.Errorf("End again: %v", err)
	}
	wantGone(t, patientStore, r, now)
	heard.recover(t)
}

func TestOneWhoWaitsTooLongForALockIsTold(t *testing.T) {
	t.Parallel()
	address := schema(t)
	o := patient()
	o.LockTimeout = 10 * time.Millisecond
	backend := open(t, address, o)
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	tx := beginEnd(t, address, store.Selector{Subject: "alice"}, "j1", now)
	_, err := backend.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j2", now), now)
	wantTrouble(t, "End", err)
	tx.Rollback(t.Context())
	if _, err := backend.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j2", now), now); err != nil {
		t.Errorf("End with the same jti: %v", err)
	}
	wantGone(t, backend, r, now)
}

func TestAFullPoolIsTroubleAndTheFeedGoesOn(t *testing.T) {
	t.Parallel()
	address := schema(t)
	o := patient()
	o.MaxConns = 1
	backend := open(t, address, o)
	heard := listen(t, backend)
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	tx := beginEnd(t, address, store.Selector{Subject: "bob"}, "j1", now)
	done := goEnd(backend, rig.Ending(store.Selector{Subject: "bob"}, "j2", now), now)
	waitBlocked(t, address, tx, 1) // and has the only connection
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := backend.Find(ctx, r.Key, now)
	wantTrouble(t, "Find", err)
	endSilently(t, address, store.Selector{Subject: "alice"}, now)
	heard.sync(t)
	heard.wantHeard(t, r, 1)
	tx.Rollback(t.Context())
	if err := rig.Soon(t, "the answer", done); err != nil {
		t.Errorf("End: %v", err)
	}
}

func TestACallerWhoLeavesWhileItWaitsLearnsWhatBecameOfIt(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	tx := beginEnd(t, address, store.Selector{Subject: "alice"}, "j1", now)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := backend.End(ctx, rig.Ending(store.Selector{Subject: "alice"}, "j2", now), now)
		done <- err
	}()
	waitBlocked(t, address, tx, 1)
	cancel()
	tx.Rollback(context.Background())
	if err := rig.Soon(t, "the answer", done); err != nil {
		t.Errorf("End: %v, want the success that it was", err)
	}
	wantGone(t, backend, r, now)
}
