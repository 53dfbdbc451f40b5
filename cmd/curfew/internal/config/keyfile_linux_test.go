package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/curfew/cmd/curfew/internal/stores"
	"example.com/curfew/internal/rig"
	"example.com/curfew/keyring"
)

func TestAKeyFileThatThisUserMayNotReadSaysSo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	closed, unreadable := filepath.Join(dir, "closed"), filepath.Join(dir, "unreadable")
	if err := errors.Join(os.Mkdir(closed, 0o700), os.WriteFile(unreadable, keyring.NewFile(), 0o600),
		os.Chmod(unreadable, 0), os.Chmod(closed, 0), os.Chmod(dir, 0o555),
		os.Chmod(filepath.Dir(dir), 0o755)); err != nil { // the directory of all directories of this test
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	defer os.Chmod(closed, 0o700)
	for name, says := range map[string]string{
		unreadable:                      "permission denied: let the user that this process runs as read it",
		filepath.Join(dir, "new"):       "permission denied: this user may neither read nor create it there",
		filepath.Join(closed, "hidden"): "permission denied: this user may neither read nor create it there",
	} {
		backend, err := stores.Parse("sqlite:" + name + ".db")
		if err != nil {
			t.Fatal(err)
		}
		rig.AsNobody(t, func() { _, err = (&Config{KeyFile: name, Store: backend}).OpenKeyring() })
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), says) ||
			!strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, want %q", name, err, says)
		}
	}
}
