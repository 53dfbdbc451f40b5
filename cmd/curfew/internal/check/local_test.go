package check

import (
	"os"
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

// With a new key file nobody's session can be opened, which is known only here.
func TestAKeyFileThatIsMissingBesideADatabaseIsAWarning(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		database bool
		status   string
		is, todo string
	}{
		{false, OK, "curfew.key is not there yet; serve makes it", ""},
		{true, Warning, "curfew.db is", "put the old key file back if there is one"},
	} {
		dir := t.TempDir()
		database := filepath.Join(dir, "curfew.db")
		if row.database {
			if err := os.WriteFile(database, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		backend, err := stores.Parse("sqlite:" + database)
		if err != nil {
			t.Fatal(err)
		}
		r := new(Report)
		checkKeyFile(r, &config.Config{KeyFile: filepath.Join(dir, "curfew.key"), Store: backend})
		want := look{"key file", row.status, row.is, row.todo}
		if len(r.Findings) != 1 || !want.fits(r.Findings[0]) {
			t.Errorf("database %v: check says %+v", row.database, r.Findings)
		}
	}
}

// No two listeners can have one address.
func TestListenersAtOneAddressAreAFault(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ settings, want string }{
		{"listen: 127.0.0.1:1\nadmin_listen: 127.0.0.1:1", ":4: admin_listen: 127.0.0.1:1 is the public"},
		{"listen: 127.0.0.1:1\ngrpc_listen: 127.0.0.1:1", ":4: grpc_listen: 127.0.0.1:1 is the public"},
		{"admin_listen: 127.0.0.1:1\ngrpc_listen: 127.0.0.1:1", ":4: grpc_listen: 127.0.0.1:1 is the private"},
		{"grpc_listen: 127.0.0.1:4181", ":3: grpc_listen: 127.0.0.1:4181 is the private"}, // the default
		{"listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\ngrpc_listen: 127.0.0.1:0", ""},
		{"admin_listen: off\ngrpc_listen: 127.0.0.1:1", ""},
		{"admin_listen: off", ""}, // nor a grpc_listen
	} {
		file := filepath.Join(t.TempDir(), "curfew.yaml")
		if err := os.WriteFile(file, []byte("url: http://127.0.0.1:4180\n"+
			"providers: [{issuer: 'http://127.0.0.1:1', client_id: app}]\n"+row.settings+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := config.Load(map[string]string{"config": file}, nil)
		want := file + row.want + " listener's address as well"
		if row.want == "" && err != nil || row.want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: got %v, want %q", row.settings, err, row.want)
		}
	}
}

// Each finding is one line: drivers put what they tried on lines of their own.
func TestAnErrorOfSeveralLinesIsOneLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"one line": "one line", "a\tb": "a b", "a\nb": "a; b", "a\r\n\n\tb\n": "a; b",
		"failed:\n\t127.0.0.1:5432: refused\n\t[::1]:5432: refused": "failed: 127.0.0.1:5432: refused; [::1]:5432: refused",
	} {
		r := new(Report)
		r.fault("store", text, text)
		if got := r.Findings[0]; got.Detail != want || got.Do != want {
			t.Errorf("%q: got %+v, want %q", text, got, want)
		}
	}
}
