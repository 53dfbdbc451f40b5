package sqlite_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/store"
	"example.com/curfew/store/sqlite"
	"example.com/curfew/store/storetest"
)

// endTogether ends each of all by its sid, in one transaction. The one at bad leaves a notice for the target "bad".
func endTogether(t *testing.T, backend *sqlite.Store, all []store.Record, bad int, now time.Time) []error {
	t.Helper()
	release := backend.Block() // so that all of them wait, and then share a transaction
	errs := make([]error, len(all))
	var enders sync.WaitGroup
	for i, r := range all {
		e := rig.Ending(store.Selector{SID: r.SID}, "j-"+r.SID, now)
		if i == bad {
			e.Notices[0].Target = "bad"
		}
		enders.Go(func() { _, errs[i] = backend.End(t.Context(), e, now) })
		backend.WaitQueued(i + 1)
	}
	release()
	enders.Wait()
	return errs
}

func TestWhenTheTransactionFailsEveryChangeInItHasFailed(t *testing.T) {
	t.Parallel()
	// A trap in the middle of a change takes the transaction, and what was changed before it, down.
	for name, trap := range map[string][]string{
		"undone by SQLite in the middle": {
			`CREATE TEMP TRIGGER fails BEFORE INSERT ON main.notices WHEN NEW.target = 'bad'
				BEGIN SELECT RAISE(ROLLBACK, 'on purpose'); END`,
		},
		"refused by COMMIT": {
			`CREATE TEMP TABLE parents (id INTEGER PRIMARY KEY)`,
			`CREATE TEMP TABLE orphans (parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED)`,
			`CREATE TEMP TRIGGER fails BEFORE INSERT ON main.notices WHEN NEW.target = 'bad'
				BEGIN INSERT INTO orphans VALUES (1); END`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := open(t, filepath.Join(t.TempDir(), "curfew.db"))
			for _, statement := range trap {
				run(t, backend, statement)
			}
			now := time.Now()
			var all []store.Record
			for i := range 9 {
				all = append(all, signIn(t, backend, fmt.Sprint("user", i), fmt.Sprint("s", i), now))
			}
			heard := 0
			feed, err := backend.Watch(t.Context(), func(store.Ended) { heard++ })
			if err != nil {
				t.Fatal(err)
			}
			defer feed.Close()
			for i, err := range endTogether(t, backend, all, 4, now) {
				wantTrouble(t, fmt.Sprintf("End %d", i), err, "")
				wantAlive(t, backend, all[i], now)
			}
			if heard != 0 {
				t.Errorf("%d endings were heard of, and none was", heard)
			}
			// Nothing was burnt, and the store has not been left in the middle of anything.
			for i, err := range endTogether(t, backend, all, -1, now) {
				if err != nil {
					t.Errorf("End %d again: %v", i, err)
				}
				if _, err := backend.Find(t.Context(), all[i].Key, now); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("Find after the End: %v", err)
				}
			}
			if notices, err := storetest.ClaimAll(t.Context(), backend, now, time.Minute, 100); err != nil ||
				len(notices) != len(all) || heard != len(all) {
				t.Errorf("%d notices and %d heard of, want %d (error %v)", len(notices), heard, len(all), err)
			}
		})
	}
}

func TestOneChangeThatFailsDoesNotTouchThoseBesideIt(t *testing.T) {
	t.Parallel()
	backend := open(t, filepath.Join(t.TempDir(), "curfew.db"))
	now := time.Now()
	run(t, backend, `CREATE TEMP TRIGGER fails BEFORE INSERT ON main.notices WHEN NEW.target = 'bad'
		BEGIN SELECT RAISE(ABORT, 'on purpose'); END`)
	var all []store.Record
	for i := range 9 {
		all = append(all, signIn(t, backend, fmt.Sprint("user", i), fmt.Sprint("s", i), now))
	}
	for i, err := range endTogether(t, backend, all, 4, now) {
		_, found := backend.Find(t.Context(), all[i].Key, now)
		if i != 4 && (err != nil || !errors.Is(found, store.ErrNotFound)) {
			t.Errorf("End beside one that failed: %v, and then Find: %v", err, found)
		}
		if i == 4 {
			wantTrouble(t, "End", err, "on purpose")
			wantAlive(t, backend, all[i], now)
		}
	}
	if _, err := backend.End(t.Context(), rig.Ending(store.Selector{SID: "s4"}, "j-s4", now), now); err != nil {
		t.Errorf("the same jti again: %v: it was burnt", err)
	}
}
