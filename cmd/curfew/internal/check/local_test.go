package check

import (
	"path/filepath"
	"testing"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/stores"
)

// What serve would say of a key file, check says before.
func TestAKeyFileThatReplicasLackIsAFault(t *testing.T) {
	t.Parallel()
	backend, err := stores.Parse("postgres://127.0.0.1/curfew")
	if err != nil {
		t.Fatal(err)
	}
	c := &config.Config{KeyFile: filepath.Join(t.TempDir(), "curfew.key"), Store: backend}
	_, err = c.OpenKeyring()
	if err == nil {
		t.Fatal("it was made, and other replicas do not have it")
	}
	r := new(Report)
	checkKeyFile(r, c)
	want := look{"key file", Fault, err.Error(), "serve would not start"}
	if len(r.Findings) != 1 || !want.fits(r.Findings[0]) {
		t.Errorf("check says %+v", r.Findings)
	}
}
