package drivers

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"
	_ "modernc.org/sqlite"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

const (
	group   = 13 // how many logouts of 16 callers share a transaction
	pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000; PRAGMA cache_size=-16384;"
	create  = `INSERT INTO sessions (key, issuer, client, subject, sid, created, last_seen, idle_expires, expires, revision,
		refresh, payload) VALUES (?1, 'i', 'c', ?2, ?2, 1, 1, 1, 1, 1, 0, zeroblob(600))`
	jti = `INSERT INTO jtis (issuer, client, jti, expires) VALUES ('i', 'c', ?1, ?2)
		ON CONFLICT DO UPDATE SET expires = excluded.expires WHERE jtis.expires <= ?2`
	mark = `INSERT INTO marks (issuer, client, subject, sid, at) VALUES ('i', 'c', '', ?1, ?2)
		ON CONFLICT DO UPDATE SET at = excluded.at WHERE marks.at < excluded.at`
	end = `DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE issuer = 'i' AND client = 'c' AND sid = ?1
		AND sid <> '' UNION ALL SELECT session FROM former_sids WHERE issuer = 'i' AND client = 'c' AND sid = ?1 LIMIT 500)
		RETURNING key, subject, sid`
)

// database runs statements of one connection by their index.
type database interface {
	exec(statement int, args ...any) error
	query(statement int, args ...any) (rows int, err error)
}

func statements() []string { return []string{"BEGIN IMMEDIATE", "COMMIT", create, jti, mark, end} }

func schema(b *testing.B) string {
	text, err := os.ReadFile("../../store/sqlite/migrations/00001_schema.sql")
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

type standard []*sql.Stmt

func (s standard) exec(i int, args ...any) error { _, err := s[i].Exec(args...); return err }
func (s standard) query(i int, args ...any) (n int, err error) {
	rows, err := s[i].Query(args...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var key []byte
	var subject, sid string
	for rows.Next() {
		if err := rows.Scan(&key, &subject, &sid); err != nil {
			return 0, err
		}
		n++
	}
	return n, rows.Err()
}

func openStandard(b *testing.B, driver string) database {
	db, err := sql.Open(driver, "file:"+filepath.Join(b.TempDir(), "x.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	for _, text := range []string{pragmas, schema(b)} {
		if _, err := db.Exec(text); err != nil {
			b.Fatal(err)
		}
	}
	var s standard
	for _, text := range statements() {
		st, err := db.Prepare(text)
		if err != nil {
			b.Fatal(err)
		}
		s = append(s, st)
	}
	return s
}

type zombie []*sqlite.Stmt

func (z zombie) exec(i int, args ...any) error { _, err := z.query(i, args...); return err }
func (z zombie) query(i int, args ...any) (n int, err error) {
	st := z[i]
	for at, a := range args {
		switch a := a.(type) {
		case int:
			st.BindInt64(at+1, int64(a))
		case string:
			st.BindText(at+1, a)
		case []byte:
			st.BindBytes(at+1, a)
		}
	}
	for {
		row, err := st.Step()
		if err != nil {
			return 0, err
		}
		if !row {
			return n, st.Reset()
		}
		key := make([]byte, st.ColumnLen(0))
		st.ColumnBytes(0, key)
		_, _ = st.ColumnText(1), st.ColumnText(2)
		n++
	}
}

func openZombie(b *testing.B) database {
	conn, err := sqlite.OpenConn(filepath.Join(b.TempDir(), "x.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	for pragma := range strings.SplitSeq(strings.TrimSuffix(pragmas, ";"), ";") { // a script is one transaction
		if err := sqlitex.ExecuteTransient(conn, pragma, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := sqlitex.ExecuteScript(conn, schema(b), nil); err != nil {
		b.Fatal(err)
	}
	var z zombie
	for _, text := range statements() {
		st, err := conn.Prepare(text)
		if err != nil {
			b.Fatal(err)
		}
		z = append(z, st)
	}
	return z
}

type driver struct {
	name string
	open func(b *testing.B) database
}

// BenchmarkLogouts ends sessions as groups of logouts do. An operation is one logout.
func BenchmarkLogouts(b *testing.B) {
	all := []driver{
		{"modernc", func(b *testing.B) database { return openStandard(b, "sqlite") }},
		{"mattn", func(b *testing.B) database { return openStandard(b, "sqlite3") }},
		{"zombiezen", openZombie},
	}
	for _, d := range append(all, ncruces()...) {
		b.Run(d.name, func(b *testing.B) {
			db := d.open(b)
			must := func(err error) {
				if err != nil {
					b.Fatal(err)
				}
			}
			must(db.exec(0))
			for i := range b.N + 1000 {
				must(db.exec(2, fmt.Appendf(nil, "key-%032d", i*7919%1_000_003), fmt.Sprint("sid-", i*7919%1_000_003)))
			}
			must(db.exec(1))
			began := cpu()
			b.ResetTimer()
			for at := 0; at < b.N; {
				must(db.exec(0))
				for range min(group, b.N-at) {
					sid := fmt.Sprint("sid-", at*7919%1_000_003)
					must(db.exec(3, "jti-of-"+sid, at))
					must(db.exec(4, sid, at))
					n, err := db.query(5, sid)
					must(err)
					if n != 1 {
						b.Fatalf("%d sessions have the sid %s", n, sid)
					}
					at++
				}
				must(db.exec(1))
			}
			b.StopTimer()
			b.ReportMetric(float64((cpu()-began).Nanoseconds())/float64(b.N)/1000, "µs-cpu/op")
		})
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
