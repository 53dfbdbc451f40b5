package postgres_test

import (
	"context"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"
)

func TestTheOtherReplicaIsNotifiedWithoutASync(t *testing.T) {
	t.Parallel()
	address := schema(t)
	here, there := open(t, address, patient()), open(t, address, patient())
	heard := listen(t, there)
	now := time.Now()
	for range 20 {
		r := signIn(t, here, "alice", "s1", now)
		if _, err := here.End(t.Context(), rig.Ending(store.Selector{Key: r.Key}, "", now), now); err != nil {
			t.Fatal(err)
		}
		heard.wantNotified(t, r)
	}
}

// endSilently ends as a replica does that dies before it can notify the others.
func endSilently(t *testing.T, address string, who store.Selector, now time.Time) {
	t.Helper()
	tx := beginEnd(t, address, who, "", now)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestASyncHearsWhatNoNotificationTellsOf(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	heard := listen(t, backend)
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	endSilently(t, address, store.Selector{SID: "s1"}, now)
	heard.sync(t)
	heard.wantHeard(t, r, 1)
	heard.sync(t)
	heard.wantHeard(t, r, 1)
}

func TestEndingsThatCommitOutOfTheirOrderAreHeardOnce(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	heard := listen(t, backend)
	now := time.Now()
	slow, quick := signIn(t, backend, "slow", "s1", now), signIn(t, backend, "quick", "s2", now)
	tx := beginEnd(t, address, store.Selector{Subject: "slow"}, "j1", now) // has its number now
	endSilently(t, address, store.Selector{Subject: "quick"}, now)
	heard.sync(t)
	heard.wantHeard(t, quick, 1)
	heard.wantHeard(t, slow, 0)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	heard.sync(t)
	heard.wantHeard(t, quick, 1)
	heard.wantHeard(t, slow, 1)
}

func TestAnEndingThatWasUndoneIsNotHeardOf(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	heard := listen(t, backend)
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	tx := beginEnd(t, address, store.Selector{Subject: "alice"}, "j1", now)
	heard.sync(t)
	tx.Rollback(t.Context())
	heard.sync(t)
	heard.wantHeard(t, r, 0)
}

func TestALostConnectionIsAGap(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	heard := listen(t, backend)
	now := time.Now()
	pid, err := backend.FeedPID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run(t, address, `SELECT pg_terminate_backend(`+fmtInt(pid)+`, 60000)`)
	signIn(t, backend, "alice", "s1", now)
	endSilently(t, address, store.Selector{SID: "s1"}, now)
	if heard.recover(t) == 0 {
		t.Error("the connection was lost, and no Sync failed")
	}
	after := signIn(t, backend, "bob", "s2", now)
	endSilently(t, address, store.Selector{SID: "s2"}, now)
	heard.sync(t)
	heard.wantHeard(t, after, 1)
}

func TestEachFeedIsToldOfAGapOnce(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	one, two := listen(t, backend), listen(t, backend)
	pid, err := backend.FeedPID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run(t, address, `SELECT pg_terminate_backend(`+fmtInt(pid)+`, 60000)`)
	if one.recover(t) == 0 {
		t.Error("the first feed was not told")
	}
	if two.recover(t) != 1 {
		t.Error("the second feed was not told once, after the connection was there again")
	}
	late := listen(t, backend)
	late.sync(t)
	two.sync(t)
}

// later is when everything of now may be pruned.
func later(now time.Time) time.Time { return now.Add(time.Hour) }

func prune(t *testing.T, backend *postgres.Store, now time.Time) {
	t.Helper()
	for {
		n, err := backend.Prune(context.Background(), now)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}

func TestPruneLeavesNothingBehindThatItDoesNotCount(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	now := time.Now()
	// More than two batches.
	run(t, address, `INSERT INTO curfew_ended SELECT i::text::xid8, i, sha256(i::text::bytea), 'i', 'c', 's', 'x', 'user'
		FROM generate_series(3, 1300) i`)
	r := signIn(t, backend, "alice", "s1", now)
	if _, err := backend.End(t.Context(), rig.Ending(store.Selector{Key: r.Key}, "", now), now); err != nil {
		t.Fatal(err)
	}
	left := func() (n int) {
		if err := dial(t, address).QueryRow(t.Context(), `SELECT count(*) FROM curfew_ended`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n, err := backend.Prune(t.Context(), now); err != nil || n != 0 {
		t.Errorf("Prune: %d, error %v, want 0: no session, mark or jti has run out", n, err)
	}
	if n := left(); n != 1 {
		t.Errorf("%d are kept for the feed, want the one that ended just now", n)
	}
	if n, err := backend.Prune(t.Context(), later(now)); err != nil || n != 0 || left() != 0 {
		t.Errorf("Prune an hour later: %d, error %v, and %d are left; want none", n, err, left())
	}
}

// quiet is a server where nobody else has a transaction under way: one that is older than what is pruned, and ends only
// now, might have been an ending.
func quiet(t *testing.T) string { return servers.OwnPostgres(t, "", "autovacuum=off").URL }

func TestWhatWasPrunedUnseenIsAGap(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		sees     bool
		restored bool // the tables are from a dump of another server, whose numbers were higher
	}{{"unseen", false, false}, {"seen", true, false}, {"unseen, restored", false, true}, {"seen, restored", true, true}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			address := quiet(t)
			backend, other := open(t, address, patient()), open(t, address, patient())
			if row.restored {
				run(t, address, `INSERT INTO curfew_ended VALUES
					('1000000000000', 1, decode(repeat('ab', 32), 'hex'), 'i', 'c', 's', 'x', 'user')`,
					`UPDATE curfew_ended_pruned SET xid = '1000000000000'`)
			}
			heard := listen(t, backend)
			now := time.Now()
			signIn(t, backend, "alice", "s1", now)
			endSilently(t, address, store.Selector{SID: "s1"}, now)
			if row.sees {
				heard.sync(t)
			}
			// A replica that was suspended: it has looked at nothing since.
			prune(t, other, later(now))
			if failed := heard.recover(t); failed == 1 == row.sees {
				t.Errorf("%d Syncs failed, and what was pruned had been seen: %v", failed, row.sees)
			}
		})
	}
}

func TestASlowEndingThatWasPrunedUnseenIsAGap(t *testing.T) {
	t.Parallel()
	address := quiet(t)
	backend, other := open(t, address, patient()), open(t, address, patient())
	heard := listen(t, backend)
	now := time.Now()
	signIn(t, backend, "slow", "s1", now)
	signIn(t, backend, "quick", "s2", now)
	tx := beginEnd(t, address, store.Selector{Subject: "slow"}, "j1", now)
	endSilently(t, address, store.Selector{Subject: "quick"}, now)
	heard.sync(t) // of the quick one, which is the newer
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	prune(t, other, later(now))
	if failed := heard.recover(t); failed != 1 {
		t.Errorf("%d Syncs failed, want 1", failed)
	}
}

func TestALongTransactionOfOthersIsNoGap(t *testing.T) {
	t.Parallel()
	address := quiet(t)
	backend, other := open(t, address, patient()), open(t, address, patient())
	heard := listen(t, backend)
	now := time.Now()
	tx := begin(t, address)
	send(t, tx, `CREATE TABLE something_else ()`, nil)
	for range 3 {
		r := signIn(t, backend, "alice", "s1", now)
		endSilently(t, address, store.Selector{Key: r.Key}, now)
		heard.sync(t)
		heard.wantHeard(t, r, 1)
		prune(t, other, later(now))
		heard.sync(t)
	}
	tx.Rollback(t.Context())
}

func TestNumbersOfAnotherServerAreNeitherHeardNorAGap(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	heard := listen(t, backend)
	// As a restored dump has them.
	run(t, address, `INSERT INTO curfew_ended VALUES
		('1000000000000', 1, decode(repeat('ab', 32), 'hex'), 'i', 'c', 's', 'x', 'user')`,
		`UPDATE curfew_ended_pruned SET xid = '1000000000000'`)
	heard.sync(t)
	heard.wantHeard(t, store.Record{Key: store.Key{0xab}}, 0)
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	endSilently(t, address, store.Selector{SID: "s1"}, now)
	heard.sync(t)
	heard.wantHeard(t, r, 1)
	heard.mu.Lock()
	defer heard.mu.Unlock()
	if len(heard.all) != 1 {
		t.Errorf("heard of %d sessions, want 1", len(heard.all))
	}
}
