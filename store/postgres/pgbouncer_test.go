//go:build unix

package postgres_test

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store/postgres"
	"example.com/curfew/store/storetest"
)

// startPgBouncer puts a PgBouncer, in transaction mode, before the server at host:port and returns its own address.
func startPgBouncer(t *testing.T, server string, settings ...string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program = "/usr/sbin/pgbouncer"; !exists(program) {
			need(t, "SKIPPED: needs PgBouncer: apt-get install pgbouncer")
		}
	}
	dir, err := serverDir("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	host, serverPort, _ := strings.Cut(server, ":")
	conf, users := filepath.Join(dir, "pgbouncer.ini"), filepath.Join(dir, "users.txt")
	text := fmt.Sprintf("[databases]\n* = host=%s port=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
		"auth_type = trust\nauth_file = %s\npool_mode = transaction\ndefault_pool_size = 4\nmax_db_connections = 40\nmax_client_conn = 500\n",
		host, serverPort, port, users) + strings.Join(settings, "\n")
	var all strings.Builder
	for i := range maxRoles {
		fmt.Fprintf(&all, "\"%s\" \"\"\n", role(i))
	}
	for name, text := range map[string]string{conf: text, users: all.String()} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, conf)
	if err := asServer(cmd); err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "process up") {
			go func() {
				for lines.Scan() {
				}
			}()
			return fmt.Sprintf("127.0.0.1:%d", port)
		}
	}
	t.Fatal("PgBouncer has ended")
	return ""
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

const maxRoles = 1000

func role(n int) string { return fmt.Sprintf("curfew_test_role_%d_%d", os.Getpid(), n) }

// bounced makes an empty schema on the shared server, and returns how to get there directly and through a PgBouncer. It hands
// on no search_path, so each schema has a role of its own that has one; and it may do nothing else.
func bounced(t *testing.T, bouncer string) (direct, through string) {
	t.Helper()
	name := role(int(shared.tested.Add(1)) % maxRoles)
	run(t, shared.url, `CREATE ROLE `+name+` LOGIN`, `CREATE SCHEMA `+name+` AUTHORIZATION `+name, `ALTER ROLE `+name+` SET search_path = `+name)
	t.Cleanup(func() { run(t, shared.url, `DROP SCHEMA `+name+` CASCADE`, `DROP ROLE `+name) })
	u, err := url.Parse(shared.url)
	if err != nil {
		t.Fatal(err)
	}
	server := u.Host
	u.User = url.User(name)
	direct = u.String()
	u.Host = bouncer
	return direct, with(t, u.String(), "feed", server)
}

func TestStoreKeepsTheContractBehindPgBouncer(t *testing.T) {
	t.Parallel()
	need(t, shared.why)
	bouncer := startPgBouncer(t, mustHost(t, shared.url))
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		direct, through := bounced(t, bouncer)
		store := open(t, through, patient())
		return storetest.Harness{
			Store: store,
			Reopen: func(t *testing.T) storetest.Store {
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
				return open(t, through, patient())
			},
			FailEnd: func(t *testing.T) func() {
				run(t, direct, `CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'on purpose'; END $$`,
					`CREATE TRIGGER fails BEFORE INSERT ON curfew_notices EXECUTE FUNCTION fail()`)
				return func() { run(t, direct, `DROP TRIGGER fails ON curfew_notices`) }
			},
		}
	})
}

func TestOpenSaysWhatAPoolerNeeds(t *testing.T) {
	t.Parallel()
	need(t, shared.why)
	for _, ignored := range []string{"extra_float_digits",
		"extra_float_digits, enable_seqscan, enable_bitmapscan, jit, statement_timeout, lock_timeout, idle_in_transaction_session_timeout, default_transaction_isolation"} {
		bouncer := startPgBouncer(t, mustHost(t, shared.url), "ignore_startup_parameters = "+ignored)
		_, through := bounced(t, bouncer)
		without, _, _ := strings.Cut(through, "?")
		for _, feed := range []string{"", "&feed=" + bouncer} {
			o := patient()
			o.ConnectTimeout, o.StatementTimeout = 5*time.Second, time.Second
			store, err := postgres.Open(t.Context(), without+"?sslmode=disable"+feed, o)
			if err == nil {
				store.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "feed=HOST:PORT") {
				t.Errorf("Open with %q, ignoring %s: got error %v, want one that names feed=HOST:PORT", feed, ignored, err)
			}
		}
	}
}

func TestReplicasBehindPgBouncerHearOneAnother(t *testing.T) {
	t.Parallel()
	need(t, shared.why)
	_, through := bounced(t, startPgBouncer(t, mustHost(t, shared.url)))
	here, there := open(t, through, patient()), open(t, through, patient())
	heard := listen(t, there)
	now := time.Now()
	r := signIn(t, here, "alice", "s1", now)
	if _, err := here.End(context.Background(), ending(session.Who{SID: "s1"}, "j1", now), now); err != nil {
		t.Fatal(err)
	}
	heard.wantBell(t, r)
}
