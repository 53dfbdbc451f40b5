package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// planned fills the tables at address with so many sessions, marks and the rest that a plan which scans would show.
func planned(t *testing.T, address string) (string, *postgres.Store) {
	t.Helper()
	backend := open(t, address, patient())
	run(t, address,
		`INSERT INTO curfew_sessions (key, subject_hash, sid_hash, created, last_seen, idle_expires,
			expires, revision, refresh, issuer, client, subject, sid, payload)
			SELECT sha256(i::text::bytea), i/2, i, 1, 1, i*1000000::bigint, i*1000000::bigint, 1, 0,
				'https://id.example', 'app', 'user'||i/2, 's'||i, 'x' FROM generate_series(1, 20000) i`,
		`UPDATE curfew_sessions SET former = ARRAY['f'||sid], former_hash = ARRAY[-sid_hash] WHERE sid_hash < 5000`,
		`INSERT INTO curfew_marks SELECT 'https://id.example', 'app', 'user'||i, 's'||i, i, i
			FROM generate_series(1, 5000) i`,
		`INSERT INTO curfew_jtis SELECT sha256(i::text::bytea), i FROM generate_series(1, 5000) i`,
		`INSERT INTO curfew_ended SELECT i::text::xid8, i, sha256(i::text::bytea),
			'https://id.example', 'app', 'x', 'y', 'user' FROM generate_series(1, 20000) i`,
		`INSERT INTO curfew_notices (created, due, deadline, kind, target, issuer, client, subject, sid, cause, key, payload)
			SELECT 1, i, 1, 'logout', 't', 'i', 'c', 's', 's', 'user', '', convert_to(repeat('x', 600), 'utf8')
				FROM generate_series(1, 5000) i`,
		`INSERT INTO curfew_shared_values SELECT i, 'x', 1 FROM generate_series(1, 1000) i`,
		`INSERT INTO curfew_attempts SELECT sha256(i::text::bytea), i, 'x' FROM generate_series(1, 5000) i`,
		`INSERT INTO curfew_journal (added, entry) SELECT i, 'x' FROM generate_series(1, 20000) i`,
		`VACUUM ANALYZE curfew_sessions, curfew_marks, curfew_jtis,
			curfew_ended, curfew_notices, curfew_shared_values, curfew_attempts, curfew_journal`)
	return address, backend
}

// wantIndexed fails if a plan reads the whole of one of our tables, in its own order or in that of an index. The one
// that has a single row may be, and the first rows of an index, up to a limit.
func wantIndexed(t *testing.T, what, plan string) (scans int) {
	t.Helper()
	lines := strings.Split(plan, "\n")
	for i, line := range lines {
		if strings.Contains(line, "Seq Scan on curfew_") && !strings.Contains(line, "Seq Scan on curfew_ended_pruned") {
			t.Errorf("%s\nscans: %s", what, strings.TrimSpace(line))
		}
		if !strings.Contains(line, "Index Scan") && !strings.Contains(line, "Index Only Scan") &&
			!strings.Contains(line, "Tid Scan") {
			continue
		}
		scans++
		bounded := !strings.Contains(line, " on curfew_") || i > 0 && strings.Contains(lines[i-1], "Limit")
		for _, below := range lines[i+1:] {
			if bounded || strings.Contains(below, "->") {
				break
			}
			bounded = strings.Contains(below, "Index Cond: ") || strings.Contains(below, "TID Cond: ")
		}
		if !bounded {
			t.Errorf("%s\nreads a whole index: %s\n%s", what, strings.TrimSpace(line), plan)
		}
	}
	return scans
}

// asConnected is an address with the settings that the store gives to its connections.
func asConnected(t *testing.T, address string) string {
	t.Helper()
	for name, value := range postgres.Planning() {
		address = with(t, address, name, value)
	}
	return address
}

func TestEveryStatementSearchesAnIndex(t *testing.T) {
	t.Parallel()
	address, _ := planned(t, schema(t))
	there := asConnected(t, address)
	for _, pooled := range []bool{false, true} {
		conn := dial(t, there)
		if pooled {
			conn = dial(t, address)
		}
		for statement, args := range postgres.Statements() {
			if strings.Contains(statement, "GROUP BY") {
				continue // it counts all there are
			}
			rows, err := conn.Query(t.Context(), `EXPLAIN `+statement, append([]any{pgx.QueryExecModeExec}, args...)...)
			if err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
			plan := strings.Join(lines, "\n")
			if wantIndexed(t, statement, plan) == 0 {
				t.Errorf("%s\nhas no search in its plan: this test looks at the wrong thing\n%s", statement, plan)
			}
		}
	}
}

// The statements in curfew_end have plans that EXPLAIN does not show. It counts the blocks that they read, though.
func TestAnEndingReadsTheSameWhateverTheNumberOfSessions(t *testing.T) {
	t.Parallel()
	address, _ := planned(t, quiet(t)) // what others change in the catalogue is read again
	there := asConnected(t, address)
	for _, own := range []bool{true, false} { // false: as it is behind a pooler, without settings of the connection
		conn := dial(t, map[bool]string{true: there, false: address}[own])
		for name, names := range map[string]string{
			"a sid": `'', 'none', NULL, NULL, 4711000`, "a subject": `'none', '', NULL, 4711000, NULL`,
			"both": `'none', 'none', NULL, 4711000, 4711000`, "a key": `'', '', sha256('none'), NULL, NULL`,
		} {
			statement := `EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM curfew_end('https://id.example', 'app', ` + names +
				`, 'user', NULL, 0, 1, 1, '', NULL, '{}', '{}', '{}', '{}', '{}', 0, 0, 0, 500)`
			blocks := 0
			for range 2 { // the first reads the catalogue too
				rows, err := conn.Query(t.Context(), statement, pgx.QueryExecModeSimpleProtocol)
				if err != nil {
					t.Fatal(err)
				}
				lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
				if err != nil {
					t.Fatal(err)
				}
				var hit, read int
				_, buffers, found := strings.Cut(strings.Join(lines, "\n"), "Buffers: shared")
				fmt.Sscanf(buffers, " hit=%d read=%d", &hit, &read)
				if blocks = hit + read; !found || blocks == 0 {
					t.Fatalf("%s: no blocks in %q", name, lines)
				}
			}
			if blocks > 60 {
				t.Errorf("own settings %v: an ending of %s that finds nothing reads %d blocks", own, name, blocks)
			}
		}
	}
}

// A plan that is kept is made for no target in particular, when one app may have all the notices that there are.
func TestAClaimForOneTargetDoesNotWalkThroughWhatWaitsForAnother(t *testing.T) {
	t.Parallel()
	address := schema(t)
	open(t, address, patient()).Close()
	leave := func(target string, first, last int) {
		run(t, address, fmt.Sprintf(`INSERT INTO curfew_notices (created, due, deadline, kind, target,
			issuer, client, subject, sid, cause, key, payload)
			SELECT i, i, i, 'logout', '%s', 'i', 'c', 's', 's', 'user', '', convert_to(repeat('x', 600), 'utf8')
				FROM generate_series(%d, %d) i`, target, first, last))
	}
	claimed := 0
	for _, kept := range []bool{true, false} {
		// A plan that is kept, as the store has them made; and one for each time, as it is behind a pooler.
		settings := map[string]string{"plan_cache_mode": "force_custom_plan"}
		if kept {
			settings = postgres.Planning()
			settings["plan_cache_mode"] = "force_generic_plan"
		}
		there := address
		for name, value := range settings {
			there = with(t, there, name, value)
		}
		conn := dial(t, there)
		statement, args := postgres.ClaimStatement("b")
		claim := func(when string, wantRows int) {
			rows, err := conn.Query(t.Context(), `EXPLAIN (ANALYZE, BUFFERS) `+statement,
				append([]any{pgx.QueryExecModeCacheStatement}, args...)...)
			if err != nil {
				t.Fatal(err)
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			claimed += wantRows
			plan := strings.Join(lines, "\n")
			if !kept && strings.HasSuffix(when, "few") {
				return // when there is no index to be quicker by
			}
			wantIndexed(t, statement, plan)
			if !strings.Contains(plan, "using curfew_notices_by_target") || strings.Contains(plan, "Sort") ||
				strings.Contains(plan, "Rows Removed") {
				t.Errorf("kept %v, %s: it does not go straight to the notices of the target\n%s", kept, when, plan)
			}
			var hit int
			_, buffers, _ := strings.Cut(plan, "Buffers: shared hit=")
			fmt.Sscan(buffers, &hit)
			if hit == 0 || hit > 30*(1+wantRows) {
				t.Errorf("kept %v, %s: it looked at %d pages\n%s", kept, when, hit, plan)
			}
		}
		claim("with few", 0)
		leave("a", 1, 10)
		run(t, address, `ANALYZE curfew_notices`)
		claim("with a few", 0)
		leave("a", 11, 5000)
		claim("with many for another", 0)
		run(t, address, `VACUUM ANALYZE curfew_notices`)
		claim("with many for another, and known", 0)
		leave("b", 2000, 2004)
		claim("with some of its own", 5)
		run(t, address, `DELETE FROM curfew_notices`)
	}
	if claimed != 10 {
		t.Errorf("claimed %d: this test looks at the wrong thing", claimed)
	}
}

// The plans inside of functions are only told of as they run. One that is made while a table is small is kept while it
// grows.
func TestEveryStatementOfAFunctionSearchesAnIndex(t *testing.T) {
	t.Parallel()
	t.Run("of large tables", func(t *testing.T) {
		t.Parallel()
		address, _ := planned(t, schema(t))
		testFunctionPlans(t, asConnected(t, address))
	})
	t.Run("of large tables behind a pooler, without settings of the connection", func(t *testing.T) {
		t.Parallel()
		address, _ := planned(t, schema(t))
		testFunctionPlans(t, address)
	})
	t.Run("of small tables", func(t *testing.T) {
		t.Parallel()
		address := schema(t)
		backend := open(t, address, patient())
		now := time.Now()
		for i := range 3 {
			if _, err := backend.End(t.Context(), rig.Ending(store.Selector{SID: fmt.Sprint("x", i)},
				fmt.Sprint("x", i),
				now), now); err != nil {
				t.Fatal(err)
			}
			signIn(t, backend, "bob", fmt.Sprint("y", i), now)
		}
		run(t, address, `ANALYZE curfew_sessions, curfew_marks, curfew_jtis, curfew_ended, curfew_notices`)
		testFunctionPlans(t, address)
	})
}

func testFunctionPlans(t *testing.T, address string) {
	t.Helper()
	var mu sync.Mutex
	var plans []string
	c, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	c.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		mu.Lock()
		defer mu.Unlock()
		plans = append(plans, n.Message)
	}
	conn, err := pgx.ConnectConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, s := range []string{`LOAD 'auto_explain'`, `SET auto_explain.log_min_duration = 0`,
		`SET auto_explain.log_nested_statements = on`,
		`SET auto_explain.log_level = notice`, `SET client_min_messages = notice`} {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	// later than the server's own time, which a mark may have too
	now := store.Time(time.Now().Add(store.AttemptLifetime))
	// More often than the five times after which a plan is made for good.
	for i := range 8 {
		sid := fmt.Sprint("sid", i)
		for _, who := range []store.Selector{{Subject: "alice"}, {SID: sid}, {Subject: "alice", SID: sid}, {}} {
			now = now.Add(time.Second)
			r := rig.Record("alice", sid, now)
			if who == (store.Selector{}) {
				who.Key = r.Key
			}
			e := rig.Ending(who, fmt.Sprint("j", now), now)
			e.Notices = append(e.Notices, store.NoticeRequest{Kind: store.NoticeRevoke, Target: "main"})
			create, createArgs := postgres.CreateStatement(r, now)
			renamed := r
			renamed.SID, renamed.Former = "new "+sid, []string{sid}
			rename, renameArgs := postgres.RenameStatement(renamed, now)
			end, endArgs := postgres.EndStatement(e, now)
			for _, st := range []struct {
				sql  string
				args []any
			}{{create, createArgs}, {rename, renameArgs}, {end, endArgs}} {
				if _, err := conn.Exec(t.Context(), st.sql, st.args...); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	scans, former := 0, 0
	for _, p := range plans {
		if strings.Contains(p, "curfew_sessions_by_former") {
			former++
		}
		scans += wantIndexed(t, "a statement in a function", p)
	}
	if former == 0 {
		t.Error("no former sid was looked up: this test looks at the wrong thing")
	}
	if scans < 100 {
		t.Errorf("only %d searches were seen: this test looks at the wrong thing", scans)
	}
}

// A list of one name, or a page, reads what it returns, and not what else there is.
func TestAPageReadsFewBlocks(t *testing.T) {
	t.Parallel()
	address, _ := planned(t, schema(t))
	there := asConnected(t, address)
	conn := dial(t, there)
	looked := 0
	for statement, args := range postgres.Statements() {
		if !strings.Contains(statement, "ORDER BY key") || strings.Contains(statement, "slot") {
			continue
		}
		looked++
		rows, err := conn.Query(t.Context(), `EXPLAIN (ANALYZE, BUFFERS) `+statement,
			append([]any{pgx.QueryExecModeExec}, args...)...)
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		plan := strings.Join(lines, "\n")
		var hit, read int
		_, counts, _ := strings.Cut(plan, "Buffers: shared")
		for word := range strings.FieldsSeq(counts[:strings.IndexByte(counts, '\n')]) {
			if _, err := fmt.Sscanf(word, "hit=%d", &hit); err != nil {
				_, _ = fmt.Sscanf(word, "read=%d", &read)
			}
		}
		if blocks := hit + read; blocks == 0 || blocks > 150 {
			t.Errorf("%s\nreads %d blocks\n%s", statement, blocks, plan)
		}
	}
	if looked < 3 {
		t.Errorf("%d statements were looked at: this test looks at the wrong thing", looked)
	}
}
