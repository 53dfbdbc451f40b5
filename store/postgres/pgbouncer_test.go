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
func startPgBouncer(t *testing.T, server string) string {
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
	conf := filepath.Join(dir, "pgbouncer.ini")
	text := fmt.Sprintf("[databases]\n* = host=%s port=%s user=curfew\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
		"auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 100\n", host, serverPort, port)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
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

// database makes an empty database on the shared server: a pooler hands on no search_path.
func database(t *testing.T) (name string) {
	t.Helper()
	need(t, shared.why)
	name = fmt.Sprintf("curfew_test_%d_%d", os.Getpid(), shared.tested.Add(1))
	run(t, shared.url, `CREATE DATABASE `+name)
	t.Cleanup(func() { run(t, shared.url, `DROP DATABASE `+name+` WITH (FORCE)`) })
	return name
}

func TestStoreKeepsTheContractBehindPgBouncer(t *testing.T) {
	t.Parallel()
	need(t, shared.why)
	u, err := url.Parse(shared.url)
	if err != nil {
		t.Fatal(err)
	}
	bouncer := startPgBouncer(t, u.Host)
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		name := database(t)
		through := *u
		through.Host, through.Path, through.RawQuery = bouncer, "/"+name, "sslmode=disable&feed="+u.Host
		plain := *u
		plain.Path = "/" + name
		store := open(t, through.String(), patient())
		return storetest.Harness{
			Store: store,
			Reopen: func(t *testing.T) storetest.Store {
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
				return open(t, through.String(), patient())
			},
			FailEnd: func(t *testing.T) func() {
				run(t, plain.String(), `CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'on purpose'; END $$`,
					`CREATE TRIGGER fails BEFORE INSERT ON curfew_notices EXECUTE FUNCTION fail()`)
				return func() { run(t, plain.String(), `DROP TRIGGER fails ON curfew_notices`) }
			},
		}
	})
}

func TestOpenSaysWhatAPoolerNeeds(t *testing.T) {
	t.Parallel()
	need(t, shared.why)
	u, err := url.Parse(shared.url)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + database(t)
	bouncer := startPgBouncer(t, u.Host)
	for _, feed := range []string{"", "feed=" + bouncer + "&"} {
		through := *u
		through.Host, through.RawQuery = bouncer, feed+"sslmode=disable"
		o := patient()
		o.ConnectTimeout, o.StatementTimeout = time.Second, time.Second
		store, err := postgres.Open(t.Context(), through.String(), o)
		if err == nil {
			store.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "feed=HOST:PORT") {
			t.Errorf("Open with %q: got error %v, want one that names feed=HOST:PORT", feed, err)
		}
	}
}

func TestReplicasBehindPgBouncerHearOneAnother(t *testing.T) {
	t.Parallel()
	need(t, shared.why)
	u, err := url.Parse(shared.url)
	if err != nil {
		t.Fatal(err)
	}
	through := *u
	through.Host, through.Path = startPgBouncer(t, u.Host), "/"+database(t)
	through.RawQuery = "sslmode=disable&feed=" + u.Host
	here, there := open(t, through.String(), patient()), open(t, through.String(), patient())
	heard := listen(t, there)
	now := time.Now()
	r := signIn(t, here, "alice", "s1", now)
	if _, err := here.End(context.Background(), ending(session.Who{SID: "s1"}, "j1", now), now); err != nil {
		t.Fatal(err)
	}
	if e := <-heard.each; e.Key != r.Key {
		t.Error("heard of another session")
	}
}
