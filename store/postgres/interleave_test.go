package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"
	"example.com/curfew/store/storetest"
)

// Each of these stops one transaction before its commit, starts the other, sees it wait, and lets the first go on.

// shapes are endings that name a session, and that session's sid.
func shapes() map[string]struct {
	who store.Selector
	sid string
} {
	return map[string]struct {
		who store.Selector
		sid string
	}{
		"sub":                        {store.Selector{Subject: "alice"}, "s1"},
		"sub, of one without a sid":  {store.Selector{Subject: "alice"}, ""},
		"sid":                        {store.Selector{SID: "s1"}, "s1"},
		"both":                       {store.Selector{Subject: "alice", SID: "s1"}, "s1"},
		"both, of another subject":   {store.Selector{Subject: "id of alice", SID: "s1"}, "s1"},
		"both, of one without a sid": {store.Selector{Subject: "alice", SID: "s1"}, ""},
	}
}

func TestAnEndingFindsTheSessionThatIsBeingCreated(t *testing.T) {
	t.Parallel()
	for name, shape := range shapes() {
		for _, commits := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, commits %v", name, commits), func(t *testing.T) {
				t.Parallel()
				address := schema(t)
				backend := open(t, address, patient())
				now := time.Now()
				r := rig.Record("alice", shape.sid, now)
				create := begin(t, address)
				statement, args := postgres.CreateStatement(r, now)
				send(t, create, statement, args)

				type result struct {
					ended []store.Ended
					err   error
				}
				done := make(chan result, 1)
				go func() {
					ended, err := backend.End(context.Background(), rig.Ending(shape.who, "j1", now), now)
					done <- result{ended, err}
				}()
				waitBlocked(t, address, create, 1)
				if commits {
					create.Commit(context.Background())
				} else {
					create.Rollback(context.Background())
				}
				got := rig.Soon(t, "the answer", done)
				if got.err != nil || len(got.ended) == 1 != commits {
					t.Errorf("End: %d sessions, error %v; the session was there: %v", len(got.ended), got.err, commits)
				}
				wantGone(t, backend, r, now)
			})
		}
	}
}

func TestACreateFindsTheMarkThatIsBeingLeft(t *testing.T) {
	t.Parallel()
	for name, shape := range shapes() {
		for _, commits := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, commits %v", name, commits), func(t *testing.T) {
				t.Parallel()
				address := schema(t)
				backend := open(t, address, patient())
				now := time.Now()
				r := rig.Record("alice", shape.sid, now)
				end := beginEnd(t, address, shape.who, "j1", now)

				done := make(chan error, 1)
				go func() { done <- backend.Create(context.Background(), r, now, now) }()
				waitBlocked(t, address, end, 1)
				if commits {
					end.Commit(context.Background())
					if err := rig.Soon(t, "the answer", done); !errors.Is(err, store.ErrEnded) {
						t.Errorf("Create: got error %v, want %v", err, store.ErrEnded)
					}
					wantGone(t, backend, r, now)
				} else {
					end.Rollback(context.Background())
					if err := rig.Soon(t, "the answer", done); err != nil {
						t.Errorf("Create: %v, want success: the ending did not take place", err)
					}
					wantAlive(t, backend, r, now)
				}
			})
		}
	}
}

func TestOthersDoNotWaitForAnEnding(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	// later than the server's own time, which a mark may have too
	now := store.Time(time.Now().Add(store.AttemptLifetime))
	r := signIn(t, backend, "alice", "s1", now)
	for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
		end := beginEnd(t, address, who, "j1", now)
		// Any wait would be for ever: nobody commits meanwhile.
		wantAlive(t, backend, r, now)
		bob := signIn(t, backend, "bob", "s2", now)
		if _, err := backend.End(t.Context(), rig.Ending(store.Selector{Subject: "bob"}, "j2", now), now); err != nil {
			t.Errorf("End of another: %v", err)
		}
		wantGone(t, backend, bob, now)
		if _, err := backend.Prune(t.Context(), now.Add(1000*time.Hour)); err != nil {
			t.Errorf("Prune: %v", err)
		}
		end.Rollback(context.Background())
		now = now.Add(time.Second)
		r = signIn(t, backend, "alice", "s1", now)
	}
}

func TestAnUpdateThatWaitsForAnEndingFindsNothing(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	end := beginEnd(t, address, store.Selector{Key: r.Key}, "j1", now)
	done := make(chan error, 1)
	go func() { done <- backend.Update(context.Background(), r, now) }()
	waitBlocked(t, address, end, 1)
	end.Commit(context.Background())
	if err := rig.Soon(t, "the answer", done); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Update: got error %v, want %v", err, store.ErrNotFound)
	}
	wantGone(t, backend, r, now)
}

func TestAnEndingThatWaitsForAnUpdateTakesWhatThatLeft(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	update := begin(t, address)
	send(t, update, `UPDATE curfew_sessions SET payload = 'newest', refresh = 1, revision = revision + 1`, nil)
	e := rig.Ending(store.Selector{Subject: "alice"}, "j1", now)
	e.Notices[0].Kind = store.NoticeRevoke
	done := goEnd(backend, e, now)
	waitBlocked(t, address, update, 1)
	update.Commit(context.Background())
	if err := rig.Soon(t, "the answer", done); err != nil {
		t.Errorf("End: %v", err)
	}
	wantGone(t, backend, r, now)
	notices, err := storetest.ClaimAll(t.Context(), backend, now, time.Minute, 10)
	if err != nil || len(notices) != 1 || string(notices[0].Payload) != "newest" {
		t.Errorf("claimed %v (error %v), want one notice with what the session held last", notices, err)
	}
}

func TestAReplayThatWaitsForTheFirstIsOneOnlyIfThatSucceeds(t *testing.T) {
	t.Parallel()
	for _, commits := range []bool{true, false} {
		address := schema(t)
		backend := open(t, address, patient())
		now := time.Now()
		r := signIn(t, backend, "bob", "s2", now)
		first := beginEnd(t, address, store.Selector{Subject: "alice"}, "j1", now)
		done := goEnd(backend, rig.Ending(store.Selector{Subject: "bob"}, "j1", now), now)
		waitBlocked(t, address, first, 1)
		if commits {
			first.Commit(context.Background())
			if err := rig.Soon(t, "the answer", done); !errors.Is(err, store.ErrReplayed) {
				t.Errorf("End: got error %v, want %v", err, store.ErrReplayed)
			}
			wantAlive(t, backend, r, now)
		} else {
			first.Rollback(context.Background())
			if err := rig.Soon(t, "the answer", done); err != nil {
				t.Errorf("End: %v, want success: the first was undone", err)
			}
			wantGone(t, backend, r, now)
		}
	}
}

// Endings by different names take the sessions that both name in the same order, that of their keys, or they could wait
// in a circle; PostgreSQL would break it after a second with an error, and the provider would have to try again.
func TestAnEndingTakesSessionsInTheOrderOfTheirKeys(t *testing.T) {
	t.Parallel()
	for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
		address := schema(t)
		backend := open(t, address, patient())
		now := time.Now()
		first, last := rig.Record("alice", "s1", now), rig.Record("alice", "s1", now)
		if bytes.Compare(first.Key[:], last.Key[:]) > 0 {
			first, last = last, first
		}
		for _, r := range []store.Record{last, first} { // which is the order in the table
			if err := backend.Create(t.Context(), r, now, now); err != nil {
				t.Fatal(err)
			}
		}
		tx := begin(t, address)
		send(t, tx, `SELECT FROM curfew_sessions WHERE key = $1 FOR UPDATE`, []any{first.Key[:]})
		done := goEnd(backend, rig.Ending(who, "j1", now), now)
		waitBlocked(t, address, tx, 1)
		if _, err := dial(t, address).Exec(t.Context(), `SELECT FROM curfew_sessions WHERE key = $1 FOR UPDATE NOWAIT`,
			last.Key[:]); err != nil {
			t.Errorf("an ending of %+v holds the last session while it waits for the first: %v", who, err)
		}
		tx.Rollback(context.Background())
		if err := rig.Soon(t, "the answer", done); err != nil {
			t.Errorf("End: %v", err)
		}
	}
}

// An ending of a token by its key, and one of its subject, may come to wait for each other. The server then undoes one
// of them, and what it undid is done again, so no provider is answered with an error.
func TestWhatADeadlockUndidIsDoneAgain(t *testing.T) {
	t.Parallel()
	for undone, want := range map[int]string{1: "", 2: "", 3: "40P01"} {
		address := schema(t)
		backend := open(t, address, patient())
		now := time.Now()
		r := signIn(t, backend, "alice", "s1", now)
		// The sequence goes on where a transaction is undone.
		if _, err := dial(t, address).Exec(t.Context(), fmt.Sprintf(`CREATE SEQUENCE tries;
			CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				IF nextval('tries') <= %d THEN RAISE EXCEPTION 'deadlock' USING ERRCODE = 'deadlock_detected'; END IF;
				RETURN NULL;
			END $$;
			CREATE TRIGGER undo AFTER DELETE ON curfew_sessions FOR EACH ROW EXECUTE FUNCTION undo()`, undone)); err != nil {
			t.Fatal(err)
		}
		ended, err := backend.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j1", now), now)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("undone %d times: %v, want an error with %s", undone, err, want)
			}
			wantAlive(t, backend, r, now)
			continue
		}
		if err != nil || len(ended) != 1 {
			t.Errorf("undone %d times: ended %v, error %v", undone, ended, err)
		}
		wantGone(t, backend, r, now)
	}
}

func TestADifferentIsolationIsRefused(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	strict := open(t, with(t, address, "default_transaction_isolation", "repeatable read"), patient())
	_, err := strict.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j1", now), now)
	wantTrouble(t, "End", err)
	wantTrouble(t, "Create", strict.Create(t.Context(), rig.Record("alice", "s1", now), now, now))
	wantAlive(t, backend, r, now)
}
