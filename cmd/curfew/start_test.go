package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/stores"
)

// Everybody is signed out by it, and nothing else would say why.
func TestALostKeyFileIsReplacedWithAWarning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	address, err := stores.Parse("sqlite:" + filepath.Join(dir, "curfew.db"))
	if err != nil {
		t.Fatal(err)
	}
	c := &config.Config{Store: address, KeyFile: filepath.Join(dir, "curfew.key")}
	for _, row := range []struct {
		name string
		lost bool
		want int // warnings
	}{{"the first start", false, 0}, {"the second", false, 0}, {"without the key file", true, 1}, {"again", false, 0}} {
		if row.lost {
			if err := os.Remove(c.KeyFile); err != nil {
				t.Fatal(err)
			}
		}
		logs := newBuffer()
		backend, _, err := openStore(t.Context(), c, slog.New(slog.NewTextHandler(logs, nil)))
		if err != nil {
			t.Fatal(err)
		}
		backend.Close()
		if got := strings.Count(logs.String(), "level=WARN"); got != row.want ||
			strings.Count(logs.String(), "event=key_file_made") != row.want {
			t.Errorf("%s: %d warnings, want %d: %s", row.name, got, row.want, logs)
		}
	}
}
