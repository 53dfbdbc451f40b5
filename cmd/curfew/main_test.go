package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"example.com/curfew/oidc/oidctest"
)

func TestMain(m *testing.M) {
	testscript.Main(leakless{m}, map[string]func(){"curfew": main})
}

// leakless fails a run of tests that leaves goroutines behind.
type leakless struct{ m *testing.M }

func (l leakless) Run() int {
	status := l.m.Run()
	if status == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return status
}

// TestScripts runs the command as a user does; each file of testdata is a session at the shell. The provider that they
// talk to is the real thing, on loopback.
func TestScripts(t *testing.T) {
	t.Parallel()
	provider := oidctest.Start(t, oidctest.Config{Clients: []oidctest.Client{{ID: "app", Secret: "geheim",
		RedirectURIs:         []string{"http://127.0.0.1:4180/auth/callback"},
		BackchannelLogoutURI: "http://127.0.0.1:4180/auth/backchannel-logout"}}})
	stranger := oidctest.Start(t, oidctest.Config{})
	slow := oidctest.Start(t, oidctest.Config{Now: func() time.Time { return time.Now().Add(-10 * time.Minute) }})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		RequireUniqueNames: true,
		UpdateScripts:      os.Getenv("UPDATE_SCRIPTS") != "", // writes what cmp compares with anew
		Setup: func(e *testscript.Env) error {
			e.Setenv("ISSUER", provider.Issuer())
			e.Setenv("TAKEN", taken.Addr().String())
			for name, token := range map[string]string{
				"good.txt":     provider.SignLogoutToken("app", "alice", "s1"),
				"form.txt":     "logout_token=" + provider.SignLogoutToken("app", "alice", "s1"),
				"expired.txt":  slow.SignLogoutToken("app", "alice", "s1", claim("iss", provider.Issuer())),
				"stranger.txt": stranger.SignLogoutToken("app", "alice", "s1"),
				"forged.txt":   stranger.SignLogoutToken("app", "alice", "s1", claim("iss", provider.Issuer())),
				"away.txt":     provider.SignLogoutToken("app", "alice", "s1", claim("iss", "http://127.0.0.1:9")),
				"nonce.txt":    provider.SignLogoutToken("app", "alice", "s1", claim("nonce", "x")),
				"steering.txt": provider.SignLogoutToken("app", "\u202e\u009b31mevil", "s1"),
				"noexp.txt": provider.SignLogoutToken("app", "alice", "s1",
					func(j *oidctest.JWT) { delete(j.Claims, "exp") }),
			} {
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), []byte(token+"\n"), 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

func claim(name string, v any) func(*oidctest.JWT) {
	return func(j *oidctest.JWT) { j.Claims[name] = v }
}

// exits STATUS COMMAND ... runs a command that must end with the status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var failed *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &failed):
		got = failed.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want || neg {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// writeFile writes a configuration file.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "curfew.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
