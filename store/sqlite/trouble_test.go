package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/store"
	"example.com/curfew/store/sqlite"
)

// plainly opens the database as any other program would.
func plainly(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path}).String())
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

// plain runs a statement as another program would.
func plain(t *testing.T, path, statement string) {
	t.Helper()
	db := plainly(t, path)
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

// lockAll locks the database against everybody, as a shell or a careless backup can.
func lockAll(t *testing.T, path string) (release func()) {
	t.Helper()
	db := plainly(t, path)
	for _, statement := range []string{`PRAGMA locking_mode = EXCLUSIVE`, `BEGIN EXCLUSIVE`,
		`UPDATE marks SET at = 0`} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	return func() { db.Close() }
}

// wantTrouble fails unless err says that the store could not do its work, and why, and says nothing about a session.
func wantTrouble(t *testing.T, what string, err error, reason string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("%s: got error %v, want one with %q", what, err, reason)
	}
	if store.IsContractError(err) {
		t.Errorf("%s: got error %v, which says something about the session", what, err)
	}
}

func wantAlive(t *testing.T, backend *sqlite.Store, r store.Record, now time.Time) {
	t.Helper()
	if _, err := backend.Find(t.Context(), r.Key, now); err != nil {
		t.Errorf("Find: %v, want it alive", err)
	}
}

func signIn(t *testing.T, backend *sqlite.Store, subject, sid string, now time.Time) store.Record {
	t.Helper()
	r := rig.Record(subject, sid, now)
	if err := backend.Create(t.Context(), r, now, now); err != nil {
		t.Fatalf("Create: %v", err)
	}
	return r
}

func TestAFullDiskIsTroubleAndChangesNothing(t *testing.T) {
	t.Parallel()
	backend := open(t, filepath.Join(t.TempDir(), "curfew.db"))
	now := time.Now()
	alice := signIn(t, backend, "alice", "s1", now)
	run(t, backend, `PRAGMA max_page_count = 1`) // which means: no more than there are
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		r := rig.Record(fmt.Sprint("user", i), strings.Repeat("s", 1000), now)
		if err = backend.Create(t.Context(), r, now, now); err == nil {
			wantAlive(t, backend, r, now)
			continue
		}
		if _, found := backend.Find(t.Context(), r.Key, now); !errors.Is(found, store.ErrNotFound) {
			t.Errorf("Find of what could not be created: %v", found)
		}
	}
	wantTrouble(t, "Create", err, "full")
	big := alice
	big.Revision, big.Payload = 1, make([]byte, 1<<20)
	wantTrouble(t, "Update", backend.Update(t.Context(), big, now), "full")

	e := rig.Ending(store.Selector{Subject: "alice"}, strings.Repeat("j", 100_000), now)
	_, err = backend.End(t.Context(), e, now)
	wantTrouble(t, "End", err, "full")
	wantAlive(t, backend, alice, now)

	run(t, backend, `PRAGMA max_page_count = 1000000`)
	if ended, err := backend.End(t.Context(), e, now); err != nil || len(ended) != 1 {
		t.Errorf("End when there is room again: %d sessions, error %v, want 1", len(ended), err)
	}
}

func TestAChangeWhoseCallerHasLeftIsNotMade(t *testing.T) {
	t.Parallel()
	backend := open(t, filepath.Join(t.TempDir(), "curfew.db"))
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	release := backend.Block()
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		_, err := backend.End(ctx, rig.Ending(store.Selector{SID: "s1"}, "j1", now), now)
		answer <- err
	}()
	backend.WaitQueued(1)
	cancel()
	if err := rig.Soon(t, "End", answer); !errors.Is(err, context.Canceled) {
		t.Errorf("End: got error %v, want %v while the writer is busy", err, context.Canceled)
	}
	release()
	run(t, backend, `SELECT 1`) // which waits for all before it
	wantAlive(t, backend, r, now)
}

func TestAChangeThatHasBegunIsWaitedFor(t *testing.T) {
	t.Parallel()
	backend := open(t, filepath.Join(t.TempDir(), "curfew.db"))
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		if err := backend.Write(ctx, cancel); err != nil {
			t.Fatalf("the context ended in the middle of a change: got error %v, want none: it was made", err)
		}
	}
}

func TestCloseFinishesWhatIsQueued(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "curfew.db")
	backend := open(t, path)
	now := time.Now()
	release := backend.Block()
	var all []store.Record
	errs := make([]error, 50)
	var callers sync.WaitGroup
	for i := range errs {
		r := rig.Record("alice", fmt.Sprint("s", i), now)
		all = append(all, r)
		callers.Go(func() { errs[i] = backend.Create(t.Context(), r, now, now) })
	}
	backend.WaitQueued(len(errs))
	closed := make(chan error, 1)
	go func() { closed <- backend.Close() }()
	release()
	if err := rig.Soon(t, "Close", closed); err != nil {
		t.Errorf("Close: %v", err)
	}
	callers.Wait()
	backend = open(t, path)
	for i, r := range all {
		if errs[i] != nil {
			t.Errorf("Create before Close: %v", errs[i])
		}
		wantAlive(t, backend, r, now)
	}
}

func TestWhileAnotherProgramLocksItEverythingIsTrouble(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "curfew.db")
	backend, err := sqlite.Open(t.Context(), path, sqlite.Options{BusyTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	db := plainly(t, path)
	if _, err := db.Exec(`BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	e := rig.Ending(store.Selector{Subject: "alice"}, "j1", now)
	_, err = backend.End(t.Context(), e, now)
	wantTrouble(t, "End", err, "locked")
	wantTrouble(t, "Create", backend.Create(t.Context(), rig.Record("bob", "s2", now), now, now), "locked")
	wantAlive(t, backend, r, now) // reading goes on
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if ended, err := backend.End(t.Context(), e, now); err != nil || len(ended) != 1 {
		t.Errorf("End after the lock: %d sessions, error %v, want 1", len(ended), err)
	}
}

func TestADamagedPageIsTroubleNotAnAbsence(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "curfew.db")
	backend := open(t, path)
	now := time.Now()
	var all []store.Record
	for i := range 200 {
		all = append(all, signIn(t, backend, fmt.Sprint("user", i), fmt.Sprint("s", i), now))
	}
	if err := backend.Close(); err != nil {
		t.Fatal(err)
	}
	var root int64
	db := plainly(t, path)
	if err := db.QueryRow(`SELECT rootpage FROM sqlite_schema WHERE name = 'sessions_by_key'`).Scan(&root); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	damage(t, path, (root-1)*4096, root*4096)

	backend = open(t, path)
	_, err := backend.Find(t.Context(), all[0].Key, now)
	wantTrouble(t, "Find", err, "malformed")
	wantTrouble(t, "Update", backend.Update(t.Context(), all[0], now), "malformed")
	_, err = backend.End(t.Context(), rig.Ending(store.Selector{SID: "s1"}, "j1", now), now)
	wantTrouble(t, "End", err, "malformed")
	_, err = backend.List(t.Context(), store.Query{}, now)
	wantTrouble(t, "List", err, "malformed")
}
