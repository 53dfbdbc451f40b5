package postgres_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"

	"github.com/jackc/pgx/v5"
)

func signIn(t testing.TB, backend *postgres.Store, subject, sid string, now time.Time) store.Record {
	t.Helper()
	r := rig.Record(subject, sid, now)
	if err := backend.Create(context.Background(), r, now, now); err != nil {
		t.Fatalf("Create: %v", err)
	}
	return r
}

func wantAlive(t testing.TB, backend *postgres.Store, r store.Record, now time.Time) {
	t.Helper()
	if _, err := backend.Find(context.Background(), r.Key, now); err != nil {
		t.Errorf("Find: %v, want it alive", err)
	}
}

func wantGone(t testing.TB, backend *postgres.Store, r store.Record, now time.Time) {
	t.Helper()
	if _, err := backend.Find(context.Background(), r.Key, now); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Find: got error %v, want %v", err, store.ErrNotFound)
	}
}

// wantTrouble fails unless err says that the store could not do its work, and says nothing about a session.
func wantTrouble(t testing.TB, what string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: got no error", what)
	}
	if store.IsContractError(err) {
		t.Errorf("%s: got error %v, which says something about the session", what, err)
	}
}

// ears hear what a store's feed says.
type ears struct {
	feed store.Feed
	each chan store.Ended

	mu  sync.Mutex
	all map[store.Key]int
}

func listen(t testing.TB, backend *postgres.Store) *ears {
	t.Helper()
	e := &ears{each: make(chan store.Ended, 1000), all: make(map[store.Key]int)}
	feed, err := backend.Watch(context.Background(), func(ended store.Ended) {
		e.mu.Lock()
		e.all[ended.Key]++
		e.mu.Unlock()
		select {
		case e.each <- ended:
		default:
		}
	})
	if err != nil {
		t.Fatalf("Watch: %v", err)
	}
	e.feed = feed
	t.Cleanup(func() { feed.Close() })
	e.sync(t)
	return e
}

func (e *ears) sync(t testing.TB) {
	t.Helper()
	if err := e.feed.Sync(context.Background()); err != nil {
		t.Errorf("Sync: %v", err)
	}
}

// recover syncs until it succeeds, and returns how often it failed before.
func (e *ears) recover(t testing.TB) (failed int) {
	t.Helper()
	for ; ; failed++ {
		err := e.feed.Sync(t.Context())
		if err == nil {
			return failed
		}
		if t.Context().Err() != nil || failed == 100_000 {
			t.Fatalf("the feed does not recover: %v", err)
		}
	}
}

// wantHeard fails unless, after a Sync, r has been heard of so many times in all.
func (e *ears) wantHeard(t testing.TB, r store.Record, times int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := e.all[r.Key]; n != times {
		t.Errorf("heard of it %d times, want %d", n, times)
	}
}

// wantNotified fails unless r is what is heard of next, without a Sync.
func (e *ears) wantNotified(t testing.TB, r store.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case ended := <-e.each:
		if ended.Key != r.Key {
			t.Error("heard of another session")
		}
	case <-ctx.Done():
		t.Fatal("no notification came")
	}
}

// begin begins a transaction on a connection of its own.
func begin(t testing.TB, address string) pgx.Tx {
	t.Helper()
	tx, err := dial(t, address).Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// beginEnd carries out an ending in a transaction that stays open.
func beginEnd(t testing.TB, address string, who store.Selector, jti string, now time.Time) pgx.Tx {
	t.Helper()
	tx := begin(t, address)
	statement, args := postgres.EndStatement(rig.Ending(who, jti, now), now)
	send(t, tx, statement, args)
	return tx
}

// goEnd carries out an ending in the background, and returns where its error will be.
func goEnd(backend *postgres.Store, e store.Ending, now time.Time) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := backend.End(context.Background(), e, now)
		done <- err
	}()
	return done
}

// send runs a statement in a transaction that stays open.
func send(t testing.TB, tx pgx.Tx, statement string, args []any) {
	t.Helper()
	if _, err := tx.Exec(context.Background(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// waitBlocked returns when n transactions wait for a lock that the one of tx holds.
func waitBlocked(t testing.TB, address string, tx pgx.Tx, n int) {
	t.Helper()
	conn := dial(t, address)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		var blocked int
		if err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))`,
			tx.Conn().PgConn().PID()).Scan(&blocked); err != nil {
			t.Fatalf("nobody waits for the other: %v", err)
		}
		if blocked >= n {
			return
		}
	}
}

func fmtInt(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
