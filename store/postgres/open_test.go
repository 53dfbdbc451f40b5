package postgres_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"
	"example.com/curfew/store/storetest"
)

func TestReplicasOpenAnEmptyDatabaseTogether(t *testing.T) {
	t.Parallel()
	address := schema(t)
	now := time.Now()
	stores := make([]*postgres.Store, 8)
	var all sync.WaitGroup
	for i := range stores {
		all.Go(func() { stores[i] = open(t, address, patient()) })
	}
	all.Wait()
	r := signIn(t, stores[0], "alice", "s1", now)
	for _, s := range stores {
		wantAlive(t, s, r, now)
	}
	if _, err := stores[7].End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j1", now), now); err != nil {
		t.Fatal(err)
	}
	for _, s := range stores {
		wantGone(t, s, r, now)
	}
}

func TestOpenWaitsForAnotherThatLooksAtTheSchema(t *testing.T) {
	t.Parallel()
	address := schema(t)
	other := begin(t, address)
	send(t, other, `SELECT pg_advisory_xact_lock($1)`, []any{postgres.SchemaLock})
	opened := make(chan error, 1)
	go func() {
		backend, err := postgres.Open(context.Background(), address, patient())
		if err == nil {
			backend.Close()
		}
		opened <- err
	}()
	waitBlocked(t, address, other, 1)
	other.Rollback(context.Background())
	if err := rig.Soon(t, "Open", opened); err != nil {
		t.Errorf("Open: %v", err)
	}
}

func TestTwoWhoShareADatabaseDoNotMeet(t *testing.T) {
	t.Parallel()
	one, two := schema(t), schema(t)
	here, there := open(t, one, patient()), open(t, two, patient())
	heard := listen(t, there)
	now := time.Now()
	mine, yours := signIn(t, here, "alice", "s1", now), signIn(t, there, "alice", "s1", now)
	tx := beginEnd(t, one, store.Selector{Subject: "alice"}, "j1", now)
	signIn(t, there, "alice", "s2", now) // and waits for nobody
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantGone(t, here, mine, now)
	wantAlive(t, there, yours, now)
	heard.sync(t)
	heard.wantHeard(t, mine, 0)
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	newer := func(t *testing.T) string {
		address := schema(t)
		open(t, address, patient()).Close()
		run(t, address, `INSERT INTO curfew_schema (version_id, is_applied) VALUES (999, true)`)
		return address
	}
	plain := func(edit func(u *url.URL)) func(*testing.T) string {
		return func(t *testing.T) string {
			u, err := url.Parse(schema(t))
			if err != nil {
				t.Fatal(err)
			}
			edit(u)
			return u.String()
		}
	}
	for _, row := range []struct {
		name    string
		address func(t *testing.T) string
		reason  string
	}{
		{"what is no address", func(*testing.T) string { return "curfew:s3cret@db/x" }, "must look like postgres://"},
		{"a bad port", func(*testing.T) string { return "postgres://curfew:s3cret@db:port/x" }, "cannot parse"},
		{"a bad feed", func(*testing.T) string { return "postgres://curfew:s3cret@db/x?feed=db" }, "is not HOST:PORT"},
		{"a newer schema", newer, "a newer curfew has been here (schema 999"},
		{"a search_path without a schema",
			plain(func(u *url.URL) { u.RawQuery = "sslmode=disable&search_path=nowhere" }), "the search_path names no schema"},
		{"a schema that is not ours", plain(func(u *url.URL) { u.RawQuery = "sslmode=disable&search_path=pg_catalog" }),
			"CREATE SCHEMA curfew"},
		{"a user without a password", plain(func(u *url.URL) { u.User = url.UserPassword("nobody_here", "s3cret") }),
			"nobody_here"},
		{"a server that is only read", plain(func(u *url.URL) { u.RawQuery += "&default_transaction_read_only=on" }),
			"read only"},
		{"commits that are not waited for", plain(func(u *url.URL) { u.RawQuery += "&synchronous_commit=off" }),
			"may forget"},
		{"nobody at the address", func(t *testing.T) string {
			return fmt.Sprintf("postgres://curfew:s3cret@127.0.0.1:%d/x?sslmode=disable", servers.Port(t))
		}, "refused"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			backend, err := postgres.Open(context.Background(), row.address(t), patient())
			if err == nil {
				backend.Close()
			}
			if err == nil || !strings.Contains(err.Error(), row.reason) {
				t.Errorf("Open: got error %v, want one with %q", err, row.reason)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error holds the password: %v", err)
			}
		})
	}
}

func TestADatabaseOfAnotherEncodingIsRefused(t *testing.T) {
	t.Parallel()
	server := shared.Get(t).URL
	name := fmt.Sprintf("curfew_test_latin_%d", os.Getpid())
	run(t, server, `CREATE DATABASE `+name+` ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0`)
	t.Cleanup(func() { run(t, server, `DROP DATABASE `+name+` WITH (FORCE)`) })
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	if _, err := postgres.Open(t.Context(), u.String(), patient()); err == nil ||
		!strings.Contains(err.Error(), "needs UTF8") {
		t.Errorf("Open: got error %v, want one that says that it needs UTF8", err)
	}
}

func TestAServerThatForgetsIsRefused(t *testing.T) {
	t.Parallel()
	s := servers.OwnPostgres(t, "", "fsync=off")
	if _, err := postgres.Open(t.Context(), s.URL, patient()); err == nil ||
		!strings.Contains(err.Error(), "fsync off") {
		t.Errorf("Open: got error %v, want one that says that fsync is off", err)
	}
}

func TestANameThatCannotBeKeptIsRefused(t *testing.T) {
	t.Parallel()
	backend := open(t, schema(t), patient())
	now := time.Now()
	for _, bad := range []string{"a\x00b", "\xff"} {
		for what, err := range map[string]error{
			"Create": backend.Create(t.Context(), rig.Record(bad, "s1", now), now, now),
			"End":    second(backend.End(t.Context(), rig.Ending(store.Selector{Subject: bad}, "j1", now), now)),
			"List": second(backend.List(t.Context(), store.Query{Issuer: rig.Issuer, ClientID: rig.ClientID,
				Subject: bad},
				now)),
		} {
			wantTrouble(t, what, err)
			if err == nil || !strings.Contains(err.Error(), "cannot be stored") {
				t.Errorf("%s of %q: got error %v, want one that says that it cannot be stored", what, bad, err)
			}
		}
	}
	// What an app answered is only shown.
	if _, err := backend.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j1", now), now); err != nil {
		t.Fatal(err)
	}
	n, err := storetest.ClaimAll(t.Context(), backend, now, time.Minute, 1)
	if err != nil || len(n) != 1 {
		t.Fatalf("claimed %d (error %v), want 1", len(n), err)
	}
	if err := backend.Complete(t.Context(), n[0], store.Outcome{RetryAt: now, Reason: "a\x00b\xff"}); err != nil {
		t.Errorf("Complete: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }
