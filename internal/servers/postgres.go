package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postgres starts a PostgreSQL server with an empty database, or creates a schema on the server that
// CURFEW_TEST_POSTGRES names. Settings are such as "max_connections=50".
func Postgres(t T, settings ...string) *Server {
	t.Helper()
	if named := os.Getenv("CURFEW_TEST_POSTGRES"); named != "" {
		return &Server{URL: Schema(t, named), t: t,
			notOwned: "the server that CURFEW_TEST_POSTGRES names must not be stopped"}
	}
	return OwnPostgres(t, "", settings...)
}

// SharedPostgres returns a PostgreSQL server for many tests, each of which creates its own [Schema].
func SharedPostgres() *Shared {
	return &Shared{start: func(t T) *Group {
		if named := os.Getenv("CURFEW_TEST_POSTGRES"); named != "" {
			return &Group{URL: named}
		}
		s := OwnPostgres(t, "")
		return &Group{URL: s.URL, Nodes: []*Server{s}}
	}}
}

// OwnPostgres is [Postgres], but always starts a server. Its data is below parent, a directory that every user can
// access; "" means one that this package chooses.
func OwnPostgres(t T, parent string, settings ...string) *Server {
	t.Helper()
	bin := postgresPrograms(t)
	s := newServer(t, parent, "ready to accept connections", syscall.SIGINT)
	s.orphan = syscall.SIGQUIT // which it passes on to its child processes
	s.dropRoot()
	data := filepath.Join(s.dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "curfew", "-A", "trust", "-E", "UTF8",
		"--locale=C", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = s.dir, s.as
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatal(fmt.Sprintf("initdb: %v\n%s", err, out))
	}
	s.launch(func(port int) []string {
		command := []string{filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(port),
			"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200",
			"-c", "fsync=on", "-c", "logging_collector=off"}
		for _, setting := range settings {
			command = append(command, "-c", setting)
		}
		return command
	})
	s.URL = fmt.Sprintf("postgres://curfew@%s/postgres?sslmode=disable", s.Addr())
	return s
}

// PostgresPair starts a PostgreSQL server and its synchronous standby, which are the Nodes, in this order. The primary
// reports a transaction as committed when the standby has it on its disk. [Server.Promote] makes the standby a primary.
func PostgresPair(t T) *Group {
	t.Helper()
	primary := OwnPostgres(t, "")
	standby := newServer(t, "", "ready to accept read-only connections", syscall.SIGINT)
	standby.orphan = syscall.SIGQUIT
	standby.dropRoot()
	bin, data := postgresPrograms(t), filepath.Join(standby.dir, "data")
	backup := exec.Command(filepath.Join(bin, "pg_basebackup"), "-D", data, "-R", "-X", "stream", "-c", "fast",
		"--no-sync", "-d", fmt.Sprintf("host=127.0.0.1 port=%d user=curfew application_name=standby", primary.Port))
	backup.Dir, backup.SysProcAttr = standby.dir, standby.as
	if out, err := backup.CombinedOutput(); err != nil {
		t.Fatal(fmt.Sprintf("pg_basebackup: %v\n%s", err, out))
	}
	standby.launch(func(port int) []string {
		command := slices.Clone(primary.command)
		command[slices.Index(command, "-D")+1], command[slices.Index(command, "-p")+1] = data, strconv.Itoa(port)
		return command
	})
	standby.URL = fmt.Sprintf("postgres://curfew@%s/postgres?sslmode=disable", standby.Addr())
	for _, statement := range []string{`ALTER SYSTEM SET synchronous_standby_names = 'standby'`,
		`SELECT pg_reload_conf()`} {
		run(t, primary.URL, statement)
	}
	primary.awaitRow(`SELECT true FROM pg_stat_replication WHERE sync_state = 'sync'`)
	return &Group{URL: primary.URL, Nodes: []*Server{primary, standby}}
}

// Promote makes a standby a primary, and returns when it accepts changes.
func (s *Server) Promote() {
	s.t.Helper()
	s.awaitRow(`SELECT NOT pg_is_in_recovery() OR pg_promote(wait => false)`)
	s.awaitRow(`SELECT true WHERE NOT pg_is_in_recovery()`)
}

// awaitRow repeats a query for one boolean until the result is true.
func (s *Server) awaitRow(query string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for {
		var yes bool
		switch err := conn.QueryRow(ctx, query).Scan(&yes); {
		case err == nil && yes:
			return
		case err != nil && !errors.Is(err, pgx.ErrNoRows):
			s.t.Fatal(fmt.Sprintf("%s: %v\n%s", query, err, s.Log()))
		}
		select {
		case <-ctx.Done():
			s.t.Fatal(fmt.Sprintf("never: %s\n%s", query, s.Log()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// run runs a statement on a PostgreSQL server.
func run(t T, address, statement string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), statement); err != nil {
		t.Fatal(err)
	}
}

// dropRoot makes the server run as another user if this process runs as root, which PostgreSQL refuses.
func (s *Server) dropRoot() {
	s.t.Helper()
	var err error
	if s.as, err = unprivileged(s.dir); err != nil {
		s.t.Fatal(err)
	}
}

// postgresPrograms returns the directory of PostgreSQL's programs.
func postgresPrograms(t T) string {
	t.Helper()
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(found) > 0 {
		return filepath.Dir(slices.Max(found))
	}
	return filepath.Dir(find(t, "initdb", "apt-get install postgresql, or name a server in CURFEW_TEST_POSTGRES"))
}

// Schema creates an empty schema on a server, for as long as the test runs, and returns its URL.
func Schema(t T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("the address of a server is not a URL") // not shown, since it may contain a password
	}
	name := "curfew_test_" + strings.ToLower(rand.Text())
	run(t, address, `CREATE SCHEMA `+name)
	t.Cleanup(func() { run(t, address, `DROP SCHEMA `+name+` CASCADE`) })
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}

// PgBouncer starts a PgBouncer in transaction mode for the server at host:port. It accepts only these roles.
func PgBouncer(t T, server string, roles []string, settings ...string) *Server {
	t.Helper()
	program := "/usr/sbin/pgbouncer" // which may not be in the PATH
	if _, err := os.Stat(program); err != nil {
		program = find(t, "pgbouncer", "apt-get install pgbouncer")
	}
	host, at, err := net.SplitHostPort(server)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, "", "process up", syscall.SIGTERM)
	s.dropRoot()
	conf, users := filepath.Join(s.dir, "pgbouncer.ini"), filepath.Join(s.dir, "users.txt")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(users, `"`+strings.Join(roles, "\" \"\"\n\"")+"\" \"\"\n")
	s.launch(func(port int) []string {
		write(conf, fmt.Sprintf("[databases]\n* = host=%s port=%s\n"+
			"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
			"auth_type = trust\nauth_file = %s\npool_mode = transaction\n"+
			"default_pool_size = 4\nmax_db_connections = 40\nmax_client_conn = 500\n",
			host, at, port, users)+strings.Join(settings, "\n"))
		return []string{program, conf}
	})
	return s
}
