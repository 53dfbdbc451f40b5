package postgres_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store/postgres"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// shared is the server that most tests share, each in a schema of its own.
var shared = servers.SharedPostgres()

func TestMain(m *testing.M) {
	code := m.Run()
	shared.Close()
	if leak := goleak.Find(); code == 0 && leak != nil {
		fmt.Fprintln(os.Stderr, leak)
		code = 1
	}
	os.Exit(code)
}

// schema makes an empty schema on the shared server, and returns how to get there.
func schema(t testing.TB) string {
	t.Helper()
	return servers.Schema(t, shared.Get(t).URL)
}

// with is address with one parameter more.
func with(t testing.TB, address, name, value string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}

// dial connects as any other program would, for as long as the test runs.
func dial(t testing.TB, address string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// run runs statements as any other program would.
func run(t testing.TB, address string, statements ...string) {
	t.Helper()
	conn := dial(t, address)
	defer conn.Close(context.Background())
	for _, s := range statements {
		if _, err := conn.Exec(context.Background(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// patient are options that no slow machine can exhaust.
func patient() postgres.Options {
	return postgres.Options{MaxConns: 6, ConnectTimeout: time.Minute, StatementTimeout: time.Minute,
		LockTimeout: time.Minute, Grace: time.Minute}
}

// openSoon opens a store with short limits, which on a slow machine opening may exceed.
func openSoon(t testing.TB, address string, o postgres.Options) (backend *postgres.Store) {
	t.Helper()
	rig.Poll(t, "the store opens", func() bool {
		var err error
		backend, err = postgres.Open(t.Context(), address, o)
		return err == nil
	})
	t.Cleanup(func() { backend.Close() })
	return backend
}

func open(t testing.TB, address string, o postgres.Options) *postgres.Store {
	t.Helper()
	store, err := postgres.Open(context.Background(), address, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}
