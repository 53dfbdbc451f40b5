package sqlite_test

import (
	"path/filepath"
	"testing"

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
