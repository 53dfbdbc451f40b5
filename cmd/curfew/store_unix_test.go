//go:build unix

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"example.com/curfew/internal/servers"
)

func TestADatabaseThatNoCurfewUsesIsLeftAlone(t *testing.T) {
	t.Parallel()
	address := servers.Postgres(t).URL
	_, stderr, status := command("store", "copy", address, "sqlite:"+filepath.Join(t.TempDir(), "to.db"))
	if status != 1 || !strings.Contains(stderr, "the database does not have the schema of this release") {
		t.Error(stderr)
	}
	for range 2 {
		if says := checkStore(t, address); !strings.Contains(says, "serve brings it to the schema") {
			t.Errorf("check says %s; want the database to have been left as it was", says)
		}
	}
}
