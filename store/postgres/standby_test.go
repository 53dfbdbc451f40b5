package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"
	"example.com/curfew/store/storetest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// pair is a server with a synchronous standby.
type pair struct {
	primary, standby *servers.Server
	admin            *pgx.Conn
}

func newPair(t *testing.T) *pair {
	t.Helper()
	nodes := servers.PostgresPair(t).Nodes
	return &pair{primary: nodes[0], standby: nodes[1], admin: dial(t, nodes[0].URL)}
}

// weak opens address as a role whose commits do not wait for the standby.
func (p *pair) weak(t *testing.T, address string) *postgres.Store {
	t.Helper()
	run(t, p.primary.URL, `DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'weak') THEN
		CREATE ROLE weak LOGIN; CREATE SCHEMA weak AUTHORIZATION weak; ALTER ROLE weak SET search_path = weak;
		ALTER ROLE weak SET synchronous_commit = local; END IF; END $$`)
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User("weak")
	return open(t, u.String(), patient())
}

// Ways to end a wait for the standby: it is cancelled, or the process that waits is ended.
const cancelWait, terminateWait = `pg_cancel_backend`, `pg_terminate_backend`

// waits runs a change in another goroutine and returns when it waits for the standby, with where its outcome will be.
func (p *pair) waits(t *testing.T, what string, change func() error) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- change() }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		select {
		case err := <-done:
			t.Fatalf("%s: it did not wait for the standby: error %v", what, err)
		default:
		}
		var waiting bool
		if err := p.admin.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')`).
			Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		if waiting {
			return done
		}
	}
}

// interrupted runs a change while the standby is frozen, ends its wait for the standby, and returns its error.
func (p *pair) interrupted(t *testing.T, what, how string, change func() error) error {
	t.Helper()
	done := p.waits(t, what, change)
	if _, err := p.admin.Exec(t.Context(), `SELECT `+how+
		`(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`); err != nil {
		t.Fatal(err)
	}
	return rig.Soon(t, what, done)
}

func TestWhatTheStandbyHasNotConfirmedIsTroubleUntilItHas(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	bouncer := servers.PgBouncer(t, p.primary.Addr(), []string{"weak"})
	direct, weak := open(t, p.primary.URL, patient()), p.weak(t, p.primary.URL)
	pooled := p.weak(t, "postgres://"+bouncer.Addr()+"/postgres?sslmode=disable&feed="+p.primary.Addr())
	now := time.Now()
	for i, row := range []struct {
		name  string
		store *postgres.Store
		how   string
		who   func(r store.Record) store.Selector
		jti   string
	}{
		{"a subject, cancelled", direct, cancelWait,
			func(r store.Record) store.Selector { return store.Selector{Subject: r.Subject} }, "j"},
		{"a subject, terminated", direct, terminateWait,
			func(r store.Record) store.Selector { return store.Selector{Subject: r.Subject} }, "j"},
		{"a sid", direct, cancelWait, func(r store.Record) store.Selector { return store.Selector{SID: r.SID} }, "j"},
		{"both, without a jti", direct, cancelWait,
			func(r store.Record) store.Selector { return store.Selector{Subject: r.Subject, SID: r.SID} }, ""},
		{"a key", direct, cancelWait, func(r store.Record) store.Selector { return store.Selector{Key: r.Key} }, ""},
		{"a role that does not wait for the standby", weak, cancelWait,
			func(r store.Record) store.Selector { return store.Selector{SID: r.SID} }, "j"},
		{"such a role, through PgBouncer", pooled, cancelWait,
			func(r store.Record) store.Selector { return store.Selector{Key: r.Key} }, "j"},
	} {
		r := signIn(t, row.store, fmt.Sprint("user", i), fmt.Sprint("s", i), now)
		e := rig.Ending(row.who(r), "", now)
		if row.jti != "" {
			e.JTI = fmt.Sprint(row.jti, i)
		}
		ended := 0
		end := func() error {
			gone, err := row.store.End(context.Background(), e, now)
			ended += len(gone)
			return err
		}
		p.standby.Freeze()
		for _, try := range []string{"first", "second", "third"} { // the later ones find nothing left to do
			wantTrouble(t, row.name+", "+try, p.interrupted(t, row.name, row.how, end))
		}
		done := p.waits(t, row.name, end)
		p.standby.Thaw()
		switch err := rig.Soon(t, row.name, done); {
		case row.jti != "" && !errors.Is(err, store.ErrReplayed):
			t.Errorf("%s: repeated when the standby is back: got error %v, want %v", row.name, err, store.ErrReplayed)
		case row.jti == "" && err != nil:
			t.Errorf("%s: repeated when the standby is back: %v", row.name, err)
		}
		if ended != 0 {
			t.Errorf("%s: %d sessions were returned with an error, or twice", row.name, ended)
		}
		wantGone(t, row.store, r, now)
	}
}

// A logout may name the new sid as soon as the refresh is done, and the standby may be promoted by then.
func TestANewSIDWaitsForTheStandby(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for name, backend := range map[string]*postgres.Store{
		"direct": open(t, p.primary.URL, patient()), "a role that does not wait": p.weak(t, p.primary.URL),
	} {
		now := time.Now()
		r := signIn(t, backend, "alice", "old "+name, now)
		r.SID, r.Former = "new "+name, []string{r.SID}
		p.standby.Freeze()
		done := p.waits(t, name, func() error { return backend.Rename(context.Background(), r, now, now) })
		p.standby.Thaw()
		if err := rig.Soon(t, name, done); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestALogoutWhoseWaitForTheStandbyWasCancelledIsNotLostWithThePrimary(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	backend := open(t, p.primary.URL, patient())
	now := time.Now()
	ended, cancelled := signIn(t, backend, "alice", "s1", now), signIn(t, backend, "bob", "s2", now)
	if _, err := backend.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j1", now), now); err != nil {
		t.Fatal(err)
	}
	p.standby.Kill() // one that is frozen would read later what has been sent to it
	e := rig.Ending(store.Selector{Subject: "bob"}, "j2", now)
	err := p.interrupted(t, "End", cancelWait, func() error {
		_, err := backend.End(context.Background(), e, now)
		return err
	})
	wantTrouble(t, "End", err)
	p.primary.Kill()
	p.standby.Start()
	p.standby.Promote()

	promoted := open(t, p.standby.URL, patient())
	wantGone(t, promoted, ended, now)
	wantAlive(t, promoted, cancelled, now) // the standby never had it, and so the answer was no success
	if gone, err := promoted.End(t.Context(), e, now); err != nil || len(gone) != 1 {
		t.Errorf("the token again: %d ended, error %v; want 1", len(gone), err)
	}
	wantGone(t, promoted, cancelled, now)
}

// Each promotion begins a new timeline. A primary that was replaced and comes back accepts changes, comes first in the
// address, and has the sessions that ended since.
func TestAPrimaryThatComesBackAfterItsStandbyWasPromotedIsNotAsked(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	both := strings.Replace(p.primary.URL, p.primary.Addr(), p.primary.Addr()+","+p.standby.Addr(), 1)
	running, now := open(t, both, patient()), time.Now()
	before := signIn(t, running, "alice", "s1", now)
	p.primary.Kill()
	p.standby.Promote()
	promoted := open(t, p.standby.URL, patient())
	if gone, err := promoted.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j1", now), now); err != nil ||
		len(gone) != 1 {
		t.Fatalf("%d ended, error %v", len(gone), err)
	}
	since := signIn(t, promoted, "bob", "s2", now)
	p.primary.Start()

	for name, backend := range map[string]*postgres.Store{
		"had a connection to the old one": running, "starts when both are there": open(t, both, patient()),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := backend.Find(ctx, since.Key, now)
		for err != nil && !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
			_, err = backend.Find(ctx, since.Key, now) // the connections that were cut with the old one
		}
		if err != nil {
			t.Errorf("a store that %s does not know a session that began since: %v", name, err)
		}
		wantGone(t, backend, before, now)
	}

	old := open(t, p.primary.URL, patient()) // an address that names only this server uses it
	wantAlive(t, old, before, now)
}

// A primary that was frozen, replaced, and goes on still has the connections of before.
func TestAPrimaryThatGoesOnAfterItsStandbyWasPromotedIsNotAsked(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	both := strings.Replace(p.primary.URL, p.primary.Addr(), p.primary.Addr()+","+p.standby.Addr(), 1)
	o := patient()
	o.ConnectTimeout, o.StatementTimeout = 500*time.Millisecond, 500*time.Millisecond
	running, now := openSoon(t, both, o), time.Now()
	var feed store.Feed
	rig.Poll(t, "the store is watched", func() bool { // half a second may be too short
		var err error
		feed, err = running.Watch(t.Context(), func(store.Ended) {})
		return err == nil
	})
	defer feed.Close()
	before := signIn(t, open(t, p.primary.URL, patient()), "alice", "s1", now)
	p.primary.Freeze()
	p.standby.Promote()
	promoted := open(t, p.standby.URL, patient())
	if gone, err := promoted.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j1", now), now); err != nil ||
		len(gone) != 1 {
		t.Fatalf("%d ended, error %v", len(gone), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for err := feed.Sync(ctx); err == nil; err = feed.Sync(ctx) { // until it knows that the connection is lost
	}
	for err := feed.Sync(ctx); err != nil && ctx.Err() == nil; err = feed.Sync(ctx) { // until it has another
	}
	if err := ctx.Err(); err != nil {
		t.Fatal(err)
	}
	p.primary.Thaw()
	_, err := running.Find(ctx, before.Key, now)
	for err != nil && !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
		_, err = running.Find(ctx, before.Key, now)
	}
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Find: got error %v, want %v", err, store.ErrNotFound)
	}
}

func TestEveryChangeThatTheStandbyHasNotConfirmedIsTrouble(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	backend := open(t, p.primary.URL, patient())
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	notice := func() store.Notice {
		return store.Notice{Kind: store.NoticeLogout, Target: "app2", Issuer: rig.Issuer,
			ClientID: rig.ClientID, Subject: "alice",
			Cause: store.CauseBackChannel, Created: now, Due: now, Deadline: now.Add(time.Hour)}
	}
	if err := backend.Enqueue(t.Context(), []store.Notice{notice()}); err != nil {
		t.Fatal(err)
	}
	p.standby.Freeze()
	defer p.standby.Thaw()
	for _, change := range []struct {
		name string
		do   func() error
	}{
		{"Create", func() error {
			return backend.Create(context.Background(), rig.Record("bob", "s2", now), now, now)
		}},
		{"Update", func() error { return backend.Update(context.Background(), r, now) }},
		{"Leave", func() error { return backend.Enqueue(context.Background(), []store.Notice{notice()}) }},
		{"Claim", func() error {
			_, err := storetest.ClaimAll(context.Background(), backend, now, time.Hour, 1)
			return err
		}},
		{"Save", func() error { return backend.Save(context.Background(), "keys", []byte("new"), 0) }},
	} {
		wantTrouble(t, change.name, p.interrupted(t, change.name, cancelWait, change.do))
	}
}

func TestWarningsThatCastDoubtOnAChange(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		why    string
		notice pgconn.Notice
		want   bool
	}{
		{"a cancelled wait", pgconn.Notice{SeverityUnlocalized: "WARNING", Severity: "WARNING", Code: "01000",
			Routine: "SyncRepWaitForLSN",
			Message: "canceling wait for synchronous replication due to user request"}, true},
		{"the same in German", pgconn.Notice{SeverityUnlocalized: "WARNING", Severity: "WARNUNG", Code: "01000",
			Routine: "SyncRepWaitForLSN",
			Message: "storniere Warten auf synchrone Replikation wegen Benutzeraufforderung"}, true},
		{"the wait of a process that is ended", pgconn.Notice{SeverityUnlocalized: "WARNING", Code: "57P01",
			Routine: "SyncRepWaitForLSN"}, true},
		{"one that is not known", pgconn.Notice{SeverityUnlocalized: "WARNING", Code: "01000", Routine: "SomethingNew"},
			true},
		{"one that names no function", pgconn.Notice{SeverityUnlocalized: "WARNING", Code: "01000"}, true},
		{"a warning by its code alone", pgconn.Notice{Severity: "ACHTUNG", Code: "01000"}, true},
		{"RAISE WARNING", pgconn.Notice{SeverityUnlocalized: "WARNING", Code: "01000", Routine: "exec_stmt_raise"},
			false},
		{"transaction numbers run out", pgconn.Notice{SeverityUnlocalized: "WARNING", Code: "01000",
			Routine: "GetNewTransactionId"}, false},
		{"a notice", pgconn.Notice{SeverityUnlocalized: "NOTICE", Severity: "HINWEIS", Code: "00000"}, false},
		{"a notice with the code of a warning", pgconn.Notice{SeverityUnlocalized: "NOTICE", Code: "01000"}, false},
	} {
		if got := postgres.Doubtful(&row.notice); got != row.want {
			t.Errorf("%s: casts doubt: %v, want %v", row.why, got, row.want)
		}
	}
}

func TestAWarningOfATriggerIsNoTrouble(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	run(t, address, `CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN RAISE WARNING 'somebody ends'; RETURN OLD; END $$`,
		`CREATE CONSTRAINT TRIGGER warns AFTER DELETE ON curfew_sessions DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION warn()`)
	gone, err := backend.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j1", now), now)
	if err != nil ||
		len(gone) != 1 {
		t.Errorf("End: %d ended, error %v; want 1", len(gone), err)
	}
	wantGone(t, backend, r, now)
}
