package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A primary that was replaced by its standby and comes back still accepts changes. It has the sessions that ended
// since, and lacks those that began since. It is told by its timeline: each promotion begins a higher one.

// askTimeout bounds the time to ask the servers of an address for their timelines. So does half of the time to connect.
const askTimeout = time.Second

// timelines knows the highest timeline that this process has seen of each database system.
type timelines struct {
	mu      sync.Mutex
	highest map[string]uint64 // by system identifier
	hosts   []*pgconn.Config  // of the address; none if it is one
	timeout time.Duration     // of asking them
}

// newTimelines returns the timelines for connections by c, whose host this process may choose.
func newTimelines(c *pgx.ConnConfig) *timelines {
	t := &timelines{highest: make(map[string]uint64), timeout: min(askTimeout, c.ConnectTimeout/2)}
	type at struct {
		host string
		port uint16
	}
	hosts := make(map[at]*pgconn.Config)
	for _, way := range append([]*pgconn.FallbackConfig{{Host: c.Host, Port: c.Port, TLSConfig: c.TLSConfig}},
		c.Fallbacks...) {
		where := at{way.Host, way.Port}
		if one := hosts[where]; one != nil { // the same server without TLS
			one.Fallbacks = append(one.Fallbacks, way)
			continue
		}
		one := c.Config.Copy()
		one.Host, one.Port, one.TLSConfig, one.Fallbacks = way.Host, way.Port, way.TLSConfig, nil
		hosts[where] = one
	}
	if len(hosts) > 1 {
		for _, one := range hosts {
			t.hosts = append(t.hosts, one)
		}
	}
	return t
}

// validate refuses a connection to a server that accepts no changes, and to one that was replaced. With several hosts
// it asks them all first: a server that was replaced may be the first that this process meets.
func (t *timelines) validate(ctx context.Context, conn *pgconn.PgConn) error {
	if err := pgconn.ValidateConnectTargetSessionAttrsReadWrite(ctx, conn); err != nil {
		return err
	}
	system, timeline, err := timelineOf(ctx, conn)
	if err != nil || timeline == 0 {
		return err
	}
	t.see(system, timeline)
	t.askAll(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if highest := t.highest[system]; timeline < highest {
		return fmt.Errorf("this server was replaced: it is on timeline %d, and another one of the same database on %d: "+
			"stop it, or make it a standby of the other", timeline, highest)
	}
	return nil
}

func (t *timelines) see(system string, timeline uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.highest[system] = max(t.highest[system], timeline)
}

// askAll asks all servers at the same time. Those that do not answer are left out.
func (t *timelines) askAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	var asked sync.WaitGroup
	for _, c := range t.hosts {
		asked.Go(func() {
			conn, err := pgconn.ConnectConfig(ctx, c)
			if err != nil {
				return
			}
			defer conn.Close(ctx)
			if system, timeline, err := timelineOf(ctx, conn); err == nil && timeline > 0 {
				t.see(system, timeline)
			}
		})
	}
	asked.Wait()
}

// timelineSQL has no row for a standby. pg_control_checkpoint would say the timeline of the last checkpoint, which may
// be older than the promotion.
const timelineSQL = `SELECT system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8)
	FROM pg_control_system() WHERE NOT pg_is_in_recovery()`

// timelineOf returns what a primary calls its database system, and its timeline; 0 for a standby, and for a server that
// does not say, as some that are only like PostgreSQL.
func timelineOf(ctx context.Context, conn *pgconn.PgConn) (system string, timeline uint64, err error) {
	results, err := conn.Exec(ctx, timelineSQL).ReadAll()
	if _, refused := errors.AsType[*pgconn.PgError](err); refused {
		return "", 0, nil
	}
	if err != nil || len(results) != 1 || len(results[0].Rows) != 1 {
		return "", 0, err
	}
	row := results[0].Rows[0]
	timeline, err = strconv.ParseUint(string(row[1]), 16, 32)
	return string(row[0]), timeline, err
}
