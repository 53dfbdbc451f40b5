package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/curfew/store/sqlite"
)

// wantRefused fails unless Open refuses the file at path, names it, and gives each of the reasons.
func wantRefused(t *testing.T, path string, reasons ...string) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{BusyTimeout: 1e6})
	if err == nil {
		store.Close()
		t.Fatalf("Open took %s, want it refused: %s", path, reasons)
	}
	for _, reason := range append(reasons, filepath.Base(path)) {
		if !strings.Contains(err.Error(), reason) {
			t.Errorf("Open: %v, want a reason with %q", err, reason)
		}
	}
}

// childHold holds the database open until its standard input ends.
func childHold(path string) int {
	store, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("open")
	os.Stdin.Read(make([]byte, 1))
	if err := store.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func TestASecondProcessIsRefusedUntilTheFirstIsGone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "curfew.db")
	for name, leave := range map[string]func(p *process){
		"after kill -9": func(p *process) { p.kill() },
		"after Close":   func(p *process) { p.stdin.Close(); p.cmd.Wait() },
	} {
		first := start(t, "hold", path)
		if said := first.line(t); said != "open" {
			t.Fatalf("the first process: %s", said)
		}
		wantRefused(t, path, "another curfew", fmt.Sprintf("process %d", first.cmd.Process.Pid))
		second := start(t, "hold", path)
		if said := second.line(t); !strings.Contains(said, "another curfew") {
			t.Errorf("a second process says %q, want it refused", said)
		}
		leave(first)
		store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
		if err != nil {
			t.Fatalf("Open %s of the first: %v", name, err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestASecondOpenInTheSameProcessIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, other := filepath.Join(dir, "curfew.db"), filepath.Join(dir, "other-name.db")
	store := open(t, path)
	wantRefused(t, path, "another curfew", fmt.Sprintf("process %d", os.Getpid()))
	if err := os.Symlink(path, other); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, other, "another curfew")
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	if err := open(t, other).Close(); err != nil {
		t.Error(err)
	}
}

func TestOnlyTheOwnerMayReadTheFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "curfew.db")
	for _, before := range []string{"none", "one that all may read"} {
		if before != "none" {
			if err := os.Chmod(path, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		store := open(t, path)
		run(t, store, `INSERT INTO jtis VALUES ('i', 'c', '`+before+`', 1)`)
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) != 4 {
			t.Errorf("there are %d files, want the database, its log, the log's index and the lock", len(files))
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o600 {
				t.Errorf("with %s before, %s has mode %v, want 0600", before, f.Name(), info.Mode().Perm())
			}
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnyFileNameWillDo(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a b.db", "a?b=c&d.db", "a#b.db", "a%41b.db", "a'b\".db", ":memory:", "file:x",
		"ü.db", "-x"} {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		if err := open(t, path).Close(); err != nil {
			t.Error(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Size() == 0 {
			t.Errorf("the database is not in the file that was named: %v", err)
		}
	}
}

func TestAFileThatCannotServeIsRefused(t *testing.T) {
	t.Parallel()
	t.Run("no name", func(t *testing.T) {
		t.Parallel()
		if _, err := sqlite.Open(t.Context(), "", sqlite.Options{}); err == nil ||
			!strings.Contains(err.Error(), "no file named") {
			t.Errorf("Open: %v", err)
		}
	})
	t.Run("a folder that is not there", func(t *testing.T) {
		t.Parallel()
		wantRefused(t, filepath.Join(t.TempDir(), "no", "curfew.db"), "no such file or directory")
	})
	t.Run("a folder", func(t *testing.T) {
		t.Parallel()
		wantRefused(t, t.TempDir(), "is a directory")
	})
	t.Run("a text", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "curfew.db")
		write(t, path, strings.Repeat("this is no database\n", 1000))
		wantRefused(t, path, "not a database")
	})
	t.Run("somebody else's database", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "curfew.db")
		plain(t, path, `CREATE TABLE accounts (name TEXT)`)
		wantRefused(t, path, "not one of curfew's")
		plain(t, path, `INSERT INTO accounts VALUES ('it is as it was')`)
	})
	t.Run("one of a newer release", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "curfew.db")
		if err := open(t, path).Close(); err != nil {
			t.Fatal(err)
		}
		plain(t, path, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9001, 1)`)
		wantRefused(t, path, "newer curfew", "9001")
	})
	t.Run("a damaged one", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "curfew.db")
		if err := open(t, path).Close(); err != nil {
			t.Fatal(err)
		}
		damage(t, path, 100, 4096)
		wantRefused(t, path, "malformed")
	})
	t.Run("one cut short", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "curfew.db")
		if err := open(t, path).Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 3*4096); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, path, "malformed")
	})
	t.Run("one that another program locks", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "curfew.db")
		if err := open(t, path).Close(); err != nil {
			t.Fatal(err)
		}
		release := lockAll(t, path)
		wantRefused(t, path, "locked")
		release()
		if err := open(t, path).Close(); err != nil {
			t.Error(err)
		}
	})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// damage overwrites a part of a file.
func damage(t *testing.T, path string, from, to int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at := from; at < to; at++ {
		if _, err := f.WriteAt([]byte{0x5a}, at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAsItIsOpensWhatIsThereAndChangesNothing(t *testing.T) {
	t.Parallel()
	asItIs := sqlite.Options{NoMigration: true}
	path := filepath.Join(t.TempDir(), "curfew.db")
	if _, err := sqlite.Open(t.Context(), path, asItIs); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it has been made")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), path, asItIs); !errors.Is(err, sqlite.ErrNotMigrated) {
		t.Errorf("an empty file: %v, want ErrNotMigrated", err)
	}
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), path, asItIs)
	if err != nil {
		t.Fatalf("one of this release: %v", err)
	}
	store.Close()
	plain(t, path, `DELETE FROM goose_db_version WHERE version_id > 0`)
	if _, err := sqlite.Open(t.Context(), path, asItIs); !errors.Is(err, sqlite.ErrNotMigrated) ||
		!strings.Contains(err.Error(), "schema 0") {
		t.Errorf("one of an older release: %v, want ErrNotMigrated and its schema", err)
	}
}
