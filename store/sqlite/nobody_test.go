//go:build linux

package sqlite_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.com/curfew/store/sqlite"
)

// nobody is a user who may write nowhere. The superuser, whom no mode holds back, becomes it.
const nobody = 65534

func childNobody(path string) int {
	if os.Geteuid() == 0 {
		if err := syscall.Setgid(nobody); err != nil {
			fmt.Println("setgid:", err)
			return 2
		}
		if err := syscall.Setuid(nobody); err != nil {
			fmt.Println("setuid:", err)
			return 2
		}
	}
	store, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	store.Close()
	fmt.Println("open")
	return 0
}

func TestAFolderThatCannotBeWrittenIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "curfew.db")
	wantSaid := func(when string, reasons ...string) {
		t.Helper()
		said := start(t, "nobody", path).line(t)
		for _, reason := range append(reasons, path) {
			if !strings.Contains(said, reason) {
				t.Errorf("%s: Open says %q, want a reason with %q", when, said, reason)
			}
		}
	}
	readOnly := func(mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() != 0 {
		readOnly(0o555)
		defer readOnly(0o755)
	}
	wantSaid("an empty folder", "permission denied")

	readOnly(0o755)
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // the files are its own, but the folder is not
		for _, name := range []string{path, path + ".lock"} {
			if err := os.Chown(name, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
	} else {
		readOnly(0o555)
	}
	wantSaid("a folder with a database", "readonly database")
}
