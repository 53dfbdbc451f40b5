//go:build unix

package servers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postgres starts a PostgreSQL server with an empty database. Settings are such as "max_connections=50".
func Postgres(t testing.TB, settings ...string) *Server {
	t.Helper()
	if named := os.Getenv("CURFEW_TEST_POSTGRES"); named != "" {
		return lentPostgres(t, named)
	}
	bin, err := postgresPrograms()
	if err != nil {
		need(t, err.Error())
	}
	run, err := asServer()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "curfew-postgres-") // a test's own folder is closed to others, and so to the server's user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if run != nil {
		if err := os.Chown(dir, int(run.Credential.Uid), int(run.Credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "curfew", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = dir, run
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s := &Server{t: t, ready: "ready to accept connections", orderly: syscall.SIGINT}
	s.command = func() *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(s.Port), "-c", "listen_addresses=127.0.0.1",
			"-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "fsync=on", "-c", "logging_collector=off")
		for _, setting := range settings {
			cmd.Args = append(cmd.Args, "-c", setting)
		}
		cmd.Dir, cmd.SysProcAttr = dir, run
		return cmd
	}
	s.begin(t, 1, func(ports []int) {
		s.Port = ports[0]
		s.URL = fmt.Sprintf("postgres://curfew@%s/postgres?sslmode=disable", s.Addr())
	})
	return s
}

// postgresPrograms returns the folder of PostgreSQL's programs.
func postgresPrograms() (string, error) {
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(found) > 0 {
		return filepath.Dir(slices.Max(found)), nil
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", errors.New("there is no PostgreSQL server: apt-get install postgresql, or name one in CURFEW_TEST_POSTGRES")
}

// asServer says as whom PostgreSQL is to run: it refuses root. Nil means as whoever we are.
func asServer() (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	var missing []error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, errors.Join(errUID, errGID)
	}
	return nil, errors.Join(missing...)
}

// lentPostgres makes a schema of its own on a server that somebody named.
func lentPostgres(t testing.TB, named string) *Server {
	t.Helper()
	u, err := url.Parse(named)
	if err != nil {
		t.Fatal("CURFEW_TEST_POSTGRES is no URL") // which may hold a password
	}
	schema := fmt.Sprintf("curfew_test_%d_%d", os.Getpid(), time.Now().UnixNano())
	run := func(statement string) {
		conn, err := pgx.Connect(context.Background(), named)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), statement); err != nil {
			t.Fatal(err)
		}
	}
	run(`CREATE SCHEMA ` + schema)
	t.Cleanup(func() { run(`DROP SCHEMA ` + schema + ` CASCADE`) })
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return &Server{URL: u.String(), t: t, log: new(tail), lent: "the server that CURFEW_TEST_POSTGRES names is not ours to stop"}
}
