package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/curfew/cmd/curfew/internal/stores"
	"example.com/curfew/fanout"
	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/store/sqlite"
)

func TestWhatCannotBeCopiedIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	there := filepath.Join(dir, "there.db")
	openSQLite(t, there).Close()
	held := filepath.Join(dir, "held.db")
	holder := openSQLite(t, held)
	defer holder.Close()
	fresh := "sqlite:" + filepath.Join(dir, "new.db")
	for _, row := range []struct {
		name   string
		args   []string
		status int
		says   []string
	}{
		{"two faults are two", []string{"memory:", "mysql://root:s3cret@db/x"}, 2,
			[]string{"FROM: memory: exists only inside one process", `TO: "mysql" is not a store`}},
		{"one store twice", []string{"sqlite:" + there, "sqlite:" + dir + "/../" + filepath.Base(dir) + "/there.db"}, 2,
			[]string{"the same store"}},
		{"an address that is not there", []string{"@" + dir + "/none", fresh}, 2, []string{"FROM: open", "none"}},
		{"one store", []string{fresh}, 2, []string{"TO is missing: curfew store copy FROM TO"}},
		{"FROM is not there", []string{"sqlite:" + dir + "/none.db", fresh}, 1, []string{"FROM: sqlite: ", "none.db"}},
		{"TO does not answer", []string{"sqlite:" + there, "redis://:s3cret@127.0.0.1:1"}, 1, []string{"TO: redis: "}},
		{"a file in use", []string{"sqlite:" + held, fresh}, 1,
			[]string{"FROM: ", "another curfew is using this file",
				"stop the gateway, copy, then start it with --store TO"}},
	} {
		stdout, stderr, status := command(append([]string{"store", "copy"}, row.args...)...)
		if status != row.status || strings.Contains(stderr, "s3cret") || stdout != "" {
			t.Errorf("%s: exit status %d, want %d\n%s%s", row.name, status, row.status, stdout, stderr)
		}
		for _, want := range row.says {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: does not say %q:\n%s", row.name, want, stderr)
			}
		}
	}
	// Neither a FROM that was not there, nor a TO that nothing was copied to.
	if made, err := filepath.Glob(filepath.Join(dir, "n*")); err != nil || made != nil {
		t.Errorf("left behind: %q, %v", made, err)
	}
}

func openSQLite(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func copyNow(from, to string, more ...string) (stdout, stderr string, status int) {
	return command(append([]string{"store", "copy", "sqlite:" + from, "sqlite:" + to}, more...)...)
}

// Apps go on trusting what is signed at TO, and what FROM has yet to tell them is not forgotten.
func TestSigningKeysAreCopiedAndNoticesAreTold(t *testing.T) {
	t.Parallel()
	from, to := filepath.Join(t.TempDir(), "from.db"), filepath.Join(t.TempDir(), "to.db")
	ring, err := keyring.Parse(keyring.NewFile())
	if err != nil {
		t.Fatal(err)
	}
	kids := func(path string, rotate bool) (all string) {
		backend := openSQLite(t, path)
		defer backend.Close()
		keys, err := fanout.NewKeys(fanout.KeysConfig{Values: backend, Keyring: ring,
			Log: slog.New(slog.DiscardHandler)})
		if err == nil && rotate {
			err = keys.Rotate(t.Context(), true)
		}
		if err != nil {
			t.Fatal(err)
		}
		infos, err := keys.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range infos {
			all += k.ID + " "
		}
		return all
	}
	want := kids(from, false)
	backend := openSQLite(t, from)
	now := store.Time(time.Now())
	if err := backend.Enqueue(t.Context(), []store.Notice{{Kind: store.NoticeLogout, Target: "wiki", Issuer: "i",
		ClientID: "c", Created: now, Due: now, Deadline: now.Add(time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	backend.Close()
	stdout, stderr, status := copyNow(from, to)
	if status != 0 || !strings.Contains(stdout, "warning: 1 notice still to be delivered from FROM") {
		t.Errorf("%d\n%s%s", status, stdout, stderr)
	}
	if got := kids(to, false); got != want {
		t.Errorf("TO signs with %s, want %s", got, want)
	}
	others := kids(to, true)
	if stdout, stderr, status := copyNow(from, to); status != 1 ||
		!strings.Contains(stderr, "TO has signing keys that are not those of FROM. Nothing was changed.") {
		t.Errorf("%d\n%s%s", status, stdout, stderr)
	}
	if got := kids(to, false); got != others {
		t.Errorf("a copy that was refused replaced the keys of TO")
	}
	if stdout, stderr, status := copyNow(from, to, "--mirror"); status != 0 {
		t.Errorf("%d\n%s%s", status, stdout, stderr)
	}
	if got := kids(to, false); got != want {
		t.Errorf("TO signs with %s, want %s", got, want)
	}
}

func TestACopyTheWrongWayRoundEndsNobody(t *testing.T) {
	t.Parallel()
	empty, full := filepath.Join(t.TempDir(), "empty.db"), filepath.Join(t.TempDir(), "full.db")
	openSQLite(t, empty).Close()
	backend := openSQLite(t, full)
	now := store.Time(time.Now())
	b := session.NewBearer("i", "c", "alice")
	r := store.Record{Key: b.Key(), Issuer: "i", ClientID: "c", Subject: "alice", Created: now, LastSeen: now,
		IdleExpires: now.Add(time.Hour), Expires: now.Add(time.Hour)}
	if err := backend.Create(t.Context(), r, now, now); err != nil {
		t.Fatal(err)
	}
	backend.Close()
	if _, stderr, status := copyNow(empty, full, "--mirror"); status != 1 ||
		!strings.Contains(stderr, "have the two been swapped? Nothing was changed") {
		t.Errorf("%d %s", status, stderr)
	}
	if stdout, stderr, status := copyNow(empty, full); status != 1 ||
		!strings.Contains(stderr, "1 session at TO and not at FROM. Nothing was changed.") ||
		!strings.Contains(stdout, "session "+r.Key.Handle()+" of alice") {
		t.Errorf("%d %s%s", status, stdout, stderr)
	}
	backend = openSQLite(t, full)
	defer backend.Close()
	if _, err := backend.Find(t.Context(), r.Key, now); err != nil {
		t.Errorf("the session at TO: %v", err)
	}
}

// busy is a store in service: somebody signs in whenever it is looked through.
type busy struct {
	*memory.Store
	quiet  bool
	people int
}

func (b *busy) List(ctx context.Context, q store.Query, now time.Time) (store.Page, error) {
	if !b.quiet && q.After.IsZero() {
		b.people++
		bearer := session.NewBearer("i", "c", fmt.Sprint("person ", b.people))
		r := store.Record{Key: bearer.Key(), Issuer: "i", ClientID: "c", Subject: fmt.Sprint("person ", b.people),
			Created: now, LastSeen: now,
			IdleExpires: now.Add(time.Hour), Expires: now.Add(time.Hour)}
		if err := b.Create(ctx, r, now, now); err != nil {
			return store.Page{}, err
		}
	}
	return b.Store.List(ctx, q, now)
}

// A script that moves a store has to know whether a gateway was forgotten.
func TestTheExitStatusSaysWhetherFROMIsInService(t *testing.T) {
	t.Parallel()
	from := &busy{Store: memory.New()}
	defer from.Close()
	to := memory.New()
	defer to.Close()
	for _, row := range []struct {
		quiet, mirror bool
		status        int
		says          string
	}{
		{false, false, 3, "FROM is in service: it changed while it was copied"},
		{false, true, 3, "FROM is in service: it changed while it was copied"},
		{true, true, 0, "TO has every session of FROM, as it was there just now: "},
	} {
		from.quiet = row.quiet
		var out bytes.Buffer
		err := copySessions(t.Context(), &process{stdout: &out, stderr: io.Discard}, from, to, stores.Address{},
			row.mirror)
		var e exit
		if err != nil && !errors.As(err, &e) || e.status != row.status || e.err != nil ||
			!strings.Contains(out.String(), row.says) {
			t.Errorf("quiet %t, mirror %t: %v, want exit status %d\n%s", row.quiet, row.mirror, err, row.status, &out)
		}
	}
}

func TestAnAddressCanBeReadFromAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openSQLite(t, filepath.Join(dir, "from.db")).Close()
	file := writeFile(t, "sqlite:"+filepath.Join(dir, "from.db")+"\n# the old one\n")
	if stdout, stderr, status := command("store", "copy", "@"+file,
		"sqlite:"+filepath.Join(dir, "to.db")); status != 0 {
		t.Errorf("%d %s%s", status, stdout, stderr)
	}
}

// checkStore returns what check says of a store, among other things: no provider answers on that port.
func checkStore(t *testing.T, address string) string {
	t.Helper()
	stdout, stderr, _ := command("check", "--store", address, "--url", "http://localhost:4180",
		"--key-file", filepath.Join(t.TempDir(), "none.key"),
		"--issuer", "http://127.0.0.1:1", "--client-id", "app", "--upstream", "http://127.0.0.1:1")
	return stdout + stderr
}

func TestAStoreOfAnOlderReleaseIsNotBroughtForwardByWhoOnlyLooks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "curfew.db")
	openSQLite(t, path).Close()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`DELETE FROM goose_db_version WHERE version_id > 0`); err != nil {
		t.Fatal(err)
	}
	unchanged := func() {
		t.Helper()
		var version int
		if err := db.QueryRow(`SELECT max(version_id) FROM goose_db_version`).Scan(&version); err != nil ||
			version != 0 {
			t.Fatalf("the schema is %d now, %v; want 0", version, err)
		}
	}
	_, stderr, status := copyNow(path, filepath.Join(t.TempDir(), "to.db"))
	if status != 1 || !strings.Contains(stderr, "the database does not have the schema of this release (schema 0") ||
		!strings.Contains(stderr, "it is not changed by a copy") {
		t.Errorf("%d %s", status, stderr)
	}
	unchanged()
	stdout := checkStore(t, "sqlite:"+path)
	if !strings.Contains(stdout, "serve brings it to the schema of this release") {
		t.Errorf("check says %s", stdout)
	}
	unchanged()
}

// What each number of a copy is called.
func TestACopySaysWhatItDid(t *testing.T) {
	t.Parallel()
	from, to := filepath.Join(t.TempDir(), "from.db"), filepath.Join(t.TempDir(), "to.db")
	now := store.Time(time.Now())
	person := func(name string) store.Record {
		b := session.NewBearer("i", "c", name)
		return store.Record{Key: b.Key(), Issuer: "i", ClientID: "c", Subject: name, Created: now, LastSeen: now,
			IdleExpires: now.Add(time.Hour), Expires: now.Add(time.Hour)}
	}
	var people []store.Record
	for i := range 11 {
		people = append(people, person(fmt.Sprint("person ", i)))
	}
	change := func(do func(*sqlite.Store) error) {
		t.Helper()
		backend := openSQLite(t, from)
		defer backend.Close()
		if err := do(backend); err != nil {
			t.Fatal(err)
		}
	}
	change(func(s *sqlite.Store) (err error) {
		for _, r := range people[:10] {
			err = errors.Join(err, s.Create(t.Context(), r, now, now))
		}
		return err
	})
	wantOut := func(status int, all []string, more ...string) {
		t.Helper()
		stdout, stderr, got := copyNow(from, to, more...)
		if got != status {
			t.Errorf("exit status %d, want %d", got, status)
		}
		for _, want := range all {
			if !strings.Contains(stdout+stderr, want) {
				t.Errorf("it does not say %q:\n%s%s", want, stdout, stderr)
			}
		}
	}
	wantOut(0, []string{"      10  copied\n", "as it was there just now: 10."})
	change(func(s *sqlite.Store) (err error) {
		for _, r := range people[:6] {
			who := store.Selector{Issuer: "i", ClientID: "c", Key: r.Key}
			_, gone := s.End(t.Context(), store.Ending{Selector: who, Cause: store.CauseUser}, now)
			err = errors.Join(err, gone)
		}
		used, missing := s.Find(t.Context(), people[6].Key, now)
		used.LastSeen = now.Add(time.Second)
		return errors.Join(err, missing, s.Update(t.Context(), used, now), s.Create(t.Context(), people[10], now, now))
	})
	wantOut(1, []string{"6 sessions at TO and not at FROM. Nothing was changed.", "at TO alone: session ",
		"and 1 more\n", "--mirror"})
	wantOut(0, []string{"       1  copied\n       1  brought up to date\n       3  there already\n       6  ended " +
		"at TO",
		"as it was there just now: 5."}, "--mirror")
	wantOut(0, []string{"       0  copied\n       5  there already\n"})
}
