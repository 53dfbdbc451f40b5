package postgres_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"
	"example.com/curfew/store/storetest"

	"github.com/jackc/pgx/v5"
)

func BenchmarkEnd(b *testing.B)         { storetest.BenchEnd(b, openBench) }
func BenchmarkEndParallel(b *testing.B) { storetest.BenchEndParallel(b, openBench) }
func BenchmarkFind(b *testing.B)        { storetest.BenchFind(b, openBench) }
func BenchmarkCrowd(b *testing.B)       { storetest.BenchCrowd(b, openBench) }
func BenchmarkClock(b *testing.B)       { storetest.BenchClock(b, openBench) }

func openBench(b *testing.B) store.Store {
	o := patient()
	o.MaxConns = 16
	return open(b, schema(b), o)
}

// BenchmarkSearch copies its sessions into the table: one by one a million would take a quarter of an hour.
func BenchmarkSearch(b *testing.B) {
	address := ""
	storetest.BenchSearch(b, func(b *testing.B) store.Store {
		address = schema(b)
		o := patient()
		o.MaxConns = 16
		return open(b, address, o)
	}, func(b *testing.B, size int, record func(int) store.Record) {
		i, one := 0, store.Record{}
		_, err := dial(b, address).CopyFrom(b.Context(), pgx.Identifier{"curfew_sessions"}, postgres.RowColumns(),
			pgx.CopyFromFunc(func() ([]any, error) {
				if i++; i > size {
					return nil, nil
				}
				r := record(i - 1)
				if i == size/2 {
					one = r
				}
				return postgres.Row(r), nil
			}))
		if err != nil {
			b.Fatal(err)
		}
		run(b, address, `VACUUM ANALYZE curfew_sessions`, `CHECKPOINT`)
		logPlans(b, address, one, size)
	})
}

// logPlans logs how the pages of a list are found, as the store's own connections plan it. r is one that is there.
func logPlans(b *testing.B, address string, r store.Record, size int) {
	b.Helper()
	for name, value := range postgres.Planning() {
		address = with(b, address, name, value)
	}
	conn := dial(b, address)
	for what, q := range map[string]store.Query{
		"of a subject": {Issuer: r.Issuer, ClientID: r.ClientID, Subject: r.Subject},
		"with a sid":   {Issuer: r.Issuer, ClientID: r.ClientID, SID: r.SID},
		"a page":       {After: r.Key},
	} {
		statement, args := postgres.ListStatement(q, 100, r.Created)
		rows, err := conn.Query(b.Context(), `EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) `+statement,
			append([]any{pgx.QueryExecModeExec}, args...)...)
		if err != nil {
			b.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			b.Fatal(err)
		}
		b.Logf("%s, of %d\n%s", what, size, strings.Join(lines, "\n"))
	}
}

// BenchmarkFloor is one bare transaction of the same server, to compare BenchmarkEnd with: a row inserted, durably.
func BenchmarkFloor(b *testing.B) {
	address := schema(b)
	run(b, address, `CREATE TABLE floor (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, text text)`)
	conn := dial(b, address)
	for b.Loop() {
		if _, err := conn.Exec(b.Context(), `INSERT INTO floor (text) VALUES ($1)`,
			"4d3559ec-67504aaba65d"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFloorParallel(b *testing.B) {
	address := schema(b)
	run(b, address, `CREATE TABLE floor (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, text text)`)
	const callers, each = 16, 100
	var conns []*pgx.Conn
	for range callers {
		conns = append(conns, dial(b, address))
	}
	var took time.Duration
	n := 0
	for b.Loop() {
		began := time.Now()
		done := make(chan error)
		for _, conn := range conns {
			go func() {
				for range each {
					if _, err := conn.Exec(b.Context(), `INSERT INTO floor (text) VALUES ($1)`,
						"4d3559ec-67504aaba65d"); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		for range conns {
			if err := rig.Soon(b, "the answer", done); err != nil {
				b.Fatal(err)
			}
		}
		took += time.Since(began)
		n += callers * each
	}
	b.ReportMetric(float64(n)/took.Seconds(), "tx/s")
}

// BenchmarkEndCopied measures End as BenchmarkEnd and BenchmarkEndParallel do, with sessions that are copied into the
// table: a million of them are there in a minute.
func BenchmarkEndCopied(b *testing.B) {
	for _, size := range []int{1_000, 100_000, 1_000_000} {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("sessions=%d/callers=%d", size, callers), func(b *testing.B) {
				address := schema(b)
				o := patient()
				o.MaxConns = 16
				backend := open(b, address, o)
				now := time.Now()
				all := copySessions(b, address, size, now)
				var next atomic.Int64
				b.SetParallelism(callers / runtime.GOMAXPROCS(0))
				end := func() {
					n := next.Add(1)
					if int(n) > len(all) {
						return // and the figure is worthless: ask for fewer
					}
					r := all[n-1]
					e := rig.Ending(store.Selector{Subject: r.Subject, SID: r.SID},
						fmt.Sprint("4d3559ec-67504aaba65d-", n),
						now)
					e.Notices = nil
					if ended, err := backend.End(context.Background(), e, now); err != nil || len(ended) != 1 {
						b.Errorf("End: %d sessions, error %v", len(ended), err)
					}
				}
				b.ResetTimer()
				if callers == 1 {
					for range b.N {
						end()
					}
				} else {
					b.RunParallel(func(p *testing.PB) {
						for p.Next() {
							end()
						}
					})
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ends/s")
			})
		}
	}
}

// copySessions fills the table, and returns some of what is there, chosen at random.
func copySessions(b *testing.B, address string, size int, now time.Time) []store.Record {
	b.Helper()
	conn := dial(b, address)
	var some []store.Record
	i := 0
	_, err := conn.CopyFrom(b.Context(), pgx.Identifier{"curfew_sessions"},
		[]string{"key", "subject_hash", "sid_hash", "created", "last_seen",
			"idle_expires", "expires", "revision", "refresh", "issuer", "client", "subject", "sid", "payload"},
		pgx.CopyFromFunc(func() ([]any, error) {
			if i == size {
				return nil, nil
			}
			r := rig.Record(fmt.Sprintf("248289761001-%d", i/2),
				fmt.Sprintf("%016x-%d", rand.Uint64(), i), now)
			i++
			if size < 10_000 || rand.IntN(size/10_000) == 0 {
				some = append(some, r)
			}
			subject, sid := postgres.Hashes(r)
			at, until := now.UnixMicro(), now.Add(time.Duration(i)*time.Second+time.Hour).UnixMicro()
			return []any{r.Key[:], subject, sid, at, at, until, until, int64(1), int16(0), r.Issuer, r.ClientID,
				r.Subject, r.SID, r.Payload}, nil
		}))
	if err != nil {
		b.Fatal(err)
	}
	for _, statement := range []string{`VACUUM ANALYZE curfew_sessions`, `CHECKPOINT`} {
		if _, err := conn.Exec(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	rand.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	return some
}

// BenchmarkHeard measures from the moment when End has returned here to the moment when it is heard there.
func BenchmarkHeard(b *testing.B) {
	address := schema(b)
	here, there := open(b, address, patient()), open(b, address, patient())
	heard := listen(b, there)
	// later than the server's own time, which a mark may have too
	now := store.Time(time.Now().Add(store.AttemptLifetime))
	var took []time.Duration
	for b.Loop() {
		r := signIn(b, here, "alice", "s1", now)
		if _, err := here.End(context.Background(), rig.Ending(store.Selector{Key: r.Key}, "", now), now); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		rig.Soon(b, "news of the ending", heard.each)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(took[len(took)*p/100].Microseconds()), fmt.Sprintf("p%d-µs", p))
	}
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
}

// BenchmarkSize measures the bytes that a session takes on the disk, its indexes included, and after each was used.
func BenchmarkSize(b *testing.B) {
	address := schema(b)
	o := patient()
	o.MaxConns = 16
	backend := open(b, address, o)
	// later than the server's own time, which a mark may have too
	now := store.Time(time.Now().Add(store.AttemptLifetime))
	const sessions, workers = 100_000, 32
	for b.Loop() {
		done := make(chan error)
		for w := range workers {
			go func() {
				for i := w; i < sessions; i += workers {
					r := rig.Record(fmt.Sprintf("248289761001-%d", i/2),
						fmt.Sprintf("08a5019c-17e1-4977-8f42-%012d", i),
						now)
					err := backend.Create(b.Context(), r, now, now)
					r.LastSeen, r.IdleExpires = now.Add(time.Minute), r.IdleExpires.Add(time.Minute)
					if err == nil {
						err = backend.Update(b.Context(), r, now)
					}
					if err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		for range workers {
			if err := rig.Soon(b, "the answer", done); err != nil {
				b.Fatal(err)
			}
		}
	}
	conn := dial(b, address)
	var total int64
	var parts string
	if err := conn.QueryRow(b.Context(),
		`SELECT pg_total_relation_size('curfew_sessions'),
			(SELECT string_agg(relname || ' ' || pg_relation_size(oid) / $1, ', ')
			FROM pg_class WHERE relname LIKE 'curfew_sessions%' AND relnamespace = current_schema()::regnamespace)`,
		sessions*b.N).Scan(&total, &parts); err != nil {
		b.Fatal(err)
	}
	b.Log(strings.TrimSpace(parts))
	b.ReportMetric(float64(total)/float64(sessions*b.N), "B/session")
}
