package session_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// expiring is a store with sessions that run out one after the other. It counts what Overdue has to look at.
type expiring struct {
	*memory.Store
	most   int           // of more overdue sessions Overdue runs into its timeout; 0: it does not
	coarse time.Duration // how exactly it prunes

	mu            sync.Mutex
	times         []time.Time // when the sessions run out, in order
	gone          int         // how many have been removed
	calls, looked int
	queued        map[store.Key]int // how often each session was passed to the notifier
}

// newExpiring returns a store of n sessions that run out within a while from now on.
func newExpiring(t *testing.T, n int, within time.Duration) *expiring {
	e := &expiring{Store: memory.New(), queued: make(map[store.Key]int), coarse: time.Microsecond}
	now := time.Now()
	for i := range n {
		at := store.Time(now.Add(within * time.Duration(i+1) / time.Duration(n)))
		bearer := session.NewBearer(issuer, client, "alice")
		r := store.Record{Key: bearer.Key(), Issuer: issuer, ClientID: client,
			Subject: "alice", Created: now, LastSeen: now, IdleExpires: at, Expires: at, Refresh: store.RefreshOnline}
		if err := e.Create(t.Context(), r, now, now); err != nil {
			t.Fatal(err)
		}
		e.times = append(e.times, at)
	}
	return e
}

// ranOut returns how many sessions have run out by then. mu is held.
func (e *expiring) ranOut(by time.Time) int {
	n, _ := slices.BinarySearchFunc(e.times, by, func(at, by time.Time) int {
		if at.After(by) {
			return 1
		}
		return -1
	})
	return n
}

func (e *expiring) Overdue(ctx context.Context, after store.Key, limit int, now time.Time) ([]store.Record, error) {
	defer time.Sleep(10 * time.Millisecond) // meanwhile others read the same
	e.mu.Lock()
	n := e.ranOut(now) - e.gone
	e.calls++
	e.looked += n
	e.mu.Unlock()
	if e.most > 0 && n > e.most {
		return nil, errors.New("on purpose: it took too long")
	}
	return e.Store.Overdue(ctx, after, limit, now)
}

func (e *expiring) Prune(ctx context.Context, now time.Time) (int, error) {
	now = now.Truncate(e.coarse)
	n, err := e.Store.Prune(ctx, now)
	if n == 0 && err == nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.gone = e.ranOut(now)
	}
	return n, err
}

// run starts a manager that revokes what ran out.
func (e *expiring) run(t *testing.T) (stop func()) {
	t.Helper()
	m, err := session.NewManager(session.Config{Store: e, Keyring: ring(t, 1), Log: slog.New(slog.DiscardHandler),
		RevokeExpired: true, Notices: &notifier{expired: func(all []store.Record) error {
			e.mu.Lock()
			defer e.mu.Unlock()
			for _, r := range all {
				e.queued[r.Key]++
			}
			return nil
		}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { m.Run(ctx) })
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return stop
}

// wantAllQueuedOnce fails unless each session was passed to the notifier once, and nothing is left in the store.
func (e *expiring) wantAllQueuedOnce(t *testing.T) {
	t.Helper()
	synctest.Wait()
	again := 0
	for _, n := range e.queued {
		if n > 1 {
			again++
		}
	}
	if len(e.queued) != len(e.times) || again > 0 {
		t.Errorf("%d of %d sessions were queued, and %d more than once", len(e.queued), len(e.times), again)
	}
	due, err := e.Store.Overdue(t.Context(), store.Key{}, len(e.times), time.Now())
	if err != nil || len(due) > 0 {
		t.Errorf("%d sessions are left (error %v)", len(due), err)
	}
}

func TestWhatRanOutWhileNobodyRanCostsInProportion(t *testing.T) {
	t.Parallel()
	looked := func(n int) (looked int) {
		synctest.Test(t, func(t *testing.T) {
			e := newExpiring(t, n, 10*time.Minute)
			time.Sleep(100 * time.Hour)
			e.run(t)
			time.Sleep(3 * time.Minute)
			e.wantAllQueuedOnce(t)
			if looked = e.looked; e.calls > 200 {
				t.Errorf("%d sessions ran out in ten of 6,000 minutes: Overdue was called %d times", n, e.calls)
			}
		})
		return looked
	}
	few, many := looked(3000), looked(24_000)
	if many > 16*few {
		t.Errorf("for 3,000 sessions Overdue looks at %d in all, for 24,000 at %d", few, many)
	}
}

func TestAStoreThatIsTooSlowForAllThatRanOutTakesItInParts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newExpiring(t, 5000, 10*time.Minute)
		e.most = 300
		if _, err := e.End(t.Context(), store.Ending{Selector: store.Selector{Issuer: issuer, ClientID: client,
			Subject: "bob"}, JTI: "j", JTIExpires: time.Now().Add(time.Minute)}, time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		stop := e.run(t)
		time.Sleep(3 * time.Minute)
		stop()
		e.wantAllQueuedOnce(t)
		if n, err := e.Store.Prune(t.Context(), time.Now().Add(-2*time.Minute)); n != 0 || err != nil {
			t.Errorf("%d marks, jtis and attempts are left (error %v)", n, err)
		}
	})
}

func TestReplicasTakeTurnsAtWhatRanOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newExpiring(t, 3000, 3*time.Hour)
		stop := e.run(t)
		e.run(t)
		time.Sleep(time.Hour)
		stop() // the other goes on
		time.Sleep(2*time.Hour + 2*time.Minute)
		e.wantAllQueuedOnce(t)
	})
}

func TestWhatAStoreHasNotRemovedYetIsNotQueuedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const minutes = 20
		e := newExpiring(t, 600*minutes, minutes*time.Minute)
		e.coarse = 5 * time.Minute // as PostgreSQL
		e.run(t)
		time.Sleep((minutes + 6) * time.Minute)
		e.wantAllQueuedOnce(t)
		if e.calls > 8*minutes {
			t.Errorf("Overdue was called %d times in %d minutes", e.calls, minutes)
		}
	})
}
