package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/sqlite"
	"example.com/curfew/store/storetest"
)

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		path := filepath.Join(t.TempDir(), "curfew.db")
		backend := open(t, path)
		return storetest.Harness{
			Store: backend,
			Reopen: func(t *testing.T) store.Store {
				if err := backend.Close(); err != nil {
					t.Fatal(err)
				}
				return open(t, path)
			},
			FailEnd: func(t *testing.T) func() {
				run(t, backend, `CREATE TEMP TRIGGER fails BEFORE INSERT ON main.notices
					BEGIN SELECT RAISE(ABORT, 'on purpose'); END`)
				return func() { run(t, backend, `DROP TRIGGER fails`) }
			},
		}
	})
}

func TestALoginFromBeforeALogoutIsRefused(t *testing.T) {
	t.Parallel()
	storetest.Order(t, func(t *testing.T) store.Store { return open(t, filepath.Join(t.TempDir(), "curfew.db")) })
}

// The clock of the machine is set back while the process is not running: the mark of the logout is earlier than the
// stamp of the login before it.
func TestALoginFromBeforeARestartIsBarredThoughTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	ring, err := keyring.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "curfew.db")
	process := func(ahead time.Duration) (*session.Manager, *sqlite.Store) {
		backend := open(t, path)
		m, err := session.NewManager(session.Config{Store: backend, Keyring: ring,
			Now: func() time.Time { return time.Now().Add(ahead) }})
		if err != nil {
			t.Fatal(err)
		}
		return m, backend
	}
	before, backend := process(5 * time.Minute)
	alice := session.SignIn{Issuer: "https://id.example", ClientID: "app", Subject: "alice"}
	if alice.Began, alice.Era, err = before.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	bob := alice
	bob.Subject = "bob"
	if err := backend.Close(); err != nil {
		t.Fatal(err)
	}
	after, backend := process(0)
	defer backend.Close()
	e := store.Ending{Selector: store.Selector{Issuer: alice.Issuer, ClientID: alice.ClientID, Subject: alice.Subject},
		Cause: store.CauseBackChannel}
	if _, err := after.End(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if _, _, err := after.Create(t.Context(), alice); !errors.Is(err, store.ErrEnded) {
		t.Errorf("a login from before the restart and the logout: %v, want %v", err, store.ErrEnded)
	}
	if _, _, err := after.Create(t.Context(), bob); err != nil {
		t.Errorf("a login from before the restart that no logout names: %v", err)
	}
}

// open opens the database at path.
func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	backend, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { backend.Close() })
	return backend
}

// run runs a statement on the connection that writes.
func run(t *testing.T, backend *sqlite.Store, statement string) {
	t.Helper()
	if err := backend.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// The first process makes the file that the link leads to; the next one must find the same lock.
func TestALinkToAFileThatIsToBeMadeIsLockedWhereItLeads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	link, target := filepath.Join(dir, "curfew.db"), filepath.Join(dir, "data", "curfew.db")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	first, err := sqlite.Open(t.Context(), link, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{link, target} {
		if second, err := sqlite.Open(t.Context(), name, sqlite.Options{}); !errors.Is(err, sqlite.ErrInUse) {
			t.Errorf("%s a second time: %v", name, err)
			if err == nil {
				second.Close()
			}
		}
	}
	first.Close()
}
