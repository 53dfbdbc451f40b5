package sqlite_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store/sqlite"
	"example.com/curfew/store/storetest"
)

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		path := filepath.Join(t.TempDir(), "curfew.db")
		store := open(t, path)
		return storetest.Harness{
			Store: store,
			Reopen: func(t *testing.T) storetest.Store {
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
				return open(t, path)
			},
			FailEnd: func(t *testing.T) func() {
				run(t, store, `CREATE TEMP TRIGGER fails BEFORE INSERT ON main.notices BEGIN SELECT RAISE(ABORT, 'on purpose'); END`)
				return func() { run(t, store, `DROP TRIGGER fails`) }
			},
		}
	})
}

func TestALoginFromBeforeALogoutIsRefused(t *testing.T) {
	t.Parallel()
	storetest.Order(t, func(t *testing.T) session.Store {
		store := open(t, filepath.Join(t.TempDir(), "curfew.db"))
		t.Cleanup(func() { store.Close() })
		return store
	})
}

// The clock of the machine is set back while the process is not running: the mark of the logout is earlier than the stamp of the
// login before it.
func TestALoginFromBeforeARestartIsBarredThoughTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	ring, err := session.NewRing(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "curfew.db")
	process := func(ahead time.Duration) (*session.Manager, *sqlite.Store) {
		store := open(t, path)
		m, err := session.NewManager(session.Config{Store: store, Ring: ring, Now: func() time.Time { return time.Now().Add(ahead) }})
		if err != nil {
			t.Fatal(err)
		}
		return m, store
	}
	before, store := process(5 * time.Minute)
	alice := session.New{Issuer: "https://id.example", ClientID: "app", Subject: "alice"}
	if alice.Began, alice.Era, err = before.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	bob := alice
	bob.Subject = "bob"
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	after, store := process(0)
	defer store.Close()
	e := session.Ending{Who: session.Who{Issuer: alice.Issuer, ClientID: alice.ClientID, Subject: alice.Subject}, Cause: session.CauseBackChannel}
	if _, err := after.End(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if _, _, err := after.Create(t.Context(), alice); !errors.Is(err, session.ErrEnded) {
		t.Errorf("a login from before the restart and the logout: %v, want %v", err, session.ErrEnded)
	}
	if _, _, err := after.Create(t.Context(), bob); err != nil {
		t.Errorf("a login from before the restart that no logout names: %v", err)
	}
}

// open opens the database at path.
func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return store
}

// run runs a statement on the connection that writes.
func run(t *testing.T, store *sqlite.Store, statement string) {
	t.Helper()
	if err := store.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
