//go:build unix

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/stores"
	"example.com/curfew/internal/servers"
)

func TestADatabaseThatNoCurfewUsesIsLeftAlone(t *testing.T) {
	t.Parallel()
	address := servers.Postgres(t).URL
	_, stderr, status := command("store", "copy", address, "sqlite:"+filepath.Join(t.TempDir(), "to.db"))
	if status != 1 || !strings.Contains(stderr, "the database does not have the schema of this release") {
		t.Error(stderr)
	}
	s, err := stores.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	r := new(report)
	for range 2 {
		checkStore(t.Context(), r, &config.Config{Store: s})
	}
	if len(r.all) != 2 || r.all[1].Status != "ok" || !strings.Contains(r.all[1].Detail,
		"serve brings it to the schema") {
		t.Errorf("check says %+v; want the database to have been left as it was", r.all)
	}
}
