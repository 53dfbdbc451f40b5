package config

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/curfew/cmd/curfew/internal/stores"
	"example.com/curfew/keyring"
)

// What is to be run is run: the message that tells of a missing key file is followed to the letter.
func TestAMissingKeyFileTellsHowToMakeOne(t *testing.T) {
	t.Parallel()
	for _, base := range []string{"curfew.key", "a key's file; rm -rf x.key"} {
		name := filepath.Join(t.TempDir(), base)
		backend, err := stores.Parse("postgres://127.0.0.1/curfew")
		if err != nil {
			t.Fatal(err)
		}
		c := &Config{KeyFile: name, Store: backend}
		_, err = c.OpenKeyring()
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("got %v", err)
		}
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Error("a key file was made that other replicas do not have")
		}
		command := regexp.MustCompile(`\(umask .*\)`).FindString(err.Error())
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", command, err, out)
		}
		if _, err := c.OpenKeyring(); err != nil {
			t.Errorf("after %s: %v", command, err)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("after %s: %v, %v", command, info, err)
		}
	}
}

func TestAKeyFileThatIsNoneSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := string(keyring.NewFile())
	for _, row := range []struct {
		name, text string
		mode       fs.FileMode
		says       string
	}{
		{"empty", "", 0o600, "holds no key; write one with `openssl rand -base64 32`"},
		{"blank", "\n \n# nothing\n", 0o600, "holds no key"},
		{"short", "c2VjcmV0\n", 0o600, "line 1 holds 6 bytes: want the base64 of 32 random bytes, as `openssl rand " +
			"-base64 32` prints it"},
		{"long", strings.Repeat("A", 88) + "\n", 0o600, "line 1 holds 66 bytes"},
		{"second-short", good + "c2VjcmV0\n", 0o600, "line 3 holds 6 bytes"},
		{"raw", string(make([]byte, 32)), 0o600, "line 1 is not base64"},
		{"word", "correct horse battery staple\n", 0o600, "line 1 is not base64"},
		{"open", good, 0o644, "others can read it (mode 0644): run chmod 600 "},
		{"written", good, 0o620, "others can read it (mode 0620)"},
	} {
		name := filepath.Join(dir, row.name)
		if err := os.WriteFile(name, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, row.mode); err != nil {
			t.Fatal(err)
		}
		backend, err := stores.Parse("sqlite:" + name + ".db")
		if err != nil {
			t.Fatal(err)
		}
		_, err = (&Config{KeyFile: name, Store: backend}).OpenKeyring()
		if err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), name) ||
			strings.Contains(err.Error(), "c2VjcmV0") || strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: got %v, want %q", row.name, err, row.says)
		}
	}
	backend, err := stores.Parse("sqlite:x.db")
	if err != nil {
		t.Fatal(err)
	}
	for name, says := range map[string]string{
		filepath.Join(dir, "none", "x.key"): "no such file or directory: create its directory",
		dir:                                 "others can read it",
	} {
		if _, err := (&Config{KeyFile: name, Store: backend}).OpenKeyring(); err == nil ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", name, err, says)
		}
	}
}
