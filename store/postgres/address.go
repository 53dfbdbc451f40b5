package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// address is where the database is, and how to connect to it.
type address struct {
	pool   *pgxpool.Config
	direct *pgx.ConnConfig // connects to the server itself
	pooler bool            // whether the pool connects to a pooler
}

// parseAddress parses a URL. Its errors contain no password.
func parseAddress(text string, o Options) (*address, error) {
	if !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") {
		return nil, errors.New("the address must look like postgres://user:password@host:5432/database")
	}
	base, query, _ := strings.Cut(text, "?")
	// Other parameters are passed on unchanged, since libpq and net/url decode a plus differently.
	var feed string
	var pool, direct []string
	for param := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(param, "=")
		if name == "feed" {
			var err error
			if feed, err = url.PathUnescape(value); err != nil {
				return nil, errors.New("feed= cannot be decoded")
			}
			continue
		}
		pool = append(pool, param)
		if !strings.HasPrefix(name, "pool_") {
			direct = append(direct, param)
		}
	}
	a := &address{pooler: feed != ""}
	if a.pooler {
		host, port, err := net.SplitHostPort(feed)
		if err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("feed=%s is not HOST:PORT, the address of the server itself", feed)
		}
		direct = append(direct, "host="+url.PathEscape(host), "port="+url.PathEscape(port)) // the last one counts
	}
	var err error
	if a.pool, err = pgxpool.ParseConfig(join(base, pool)); err != nil {
		return nil, err
	}
	if a.direct, err = pgx.ParseConfig(join(base, direct)); err != nil {
		return nil, err
	}

	a.direct.DefaultQueryExecMode = pgx.QueryExecModeExec // most statements there are run only once
	switch {
	case o.MaxConns > 0:
		a.pool.MaxConns = int32(o.MaxConns)
	case !strings.Contains(query, "pool_max_conns="):
		a.pool.MaxConns = 10
	}
	a.pool.PingTimeout = o.StatementTimeout
	a.pool.ConnConfig.OnNotice = keepWarning
	for _, c := range []*pgx.ConnConfig{a.pool.ConnConfig, a.direct} {
		switch {
		case o.ConnectTimeout > 0:
			c.ConnectTimeout = o.ConnectTimeout
		case !strings.Contains(query, "connect_timeout="):
			c.ConnectTimeout = 5 * time.Second
		}
		setUnlessNamed(c, map[string]string{"application_name": "curfew"})
	}
	// A standby may not have the latest endings yet, and a primary that was replaced never gets them.
	seen := newTimelines(a.pool.ConnConfig)
	a.pool.ConnConfig.ValidateConnect, a.direct.ValidateConnect = seen.validate, seen.validate
	setUnlessNamed(a.direct, planning())
	if a.pooler {
		// Behind a pooler, a statement that was prepared on one connection does not exist on the next, and startup
		// parameters are refused.
		a.pool.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
		return a, nil
	}
	setUnlessNamed(a.pool.ConnConfig, planning())
	setUnlessNamed(a.pool.ConnConfig, map[string]string{
		"statement_timeout":                   millis(o.StatementTimeout),
		"lock_timeout":                        millis(o.LockTimeout),
		"idle_in_transaction_session_timeout": millis(o.StatementTimeout),
		"default_transaction_isolation":       "read committed",
	})
	return a, nil
}

// planning returns settings that make statements search an index. A plan that was made while a table was small would
// scan the table, or sort all rows of a name, for as long as the plan is kept. No statement reads so much that it would
// be worth to start other processes for it.
func planning() map[string]string {
	return map[string]string{"enable_seqscan": "off", "enable_bitmapscan": "off", "jit": "off",
		"max_parallel_workers_per_gather": "0"}
}

func setUnlessNamed(c *pgx.ConnConfig, settings map[string]string) {
	for name, value := range settings {
		if _, named := c.RuntimeParams[name]; !named {
			c.RuntimeParams[name] = value
		}
	}
}

func join(base string, params []string) string {
	return strings.TrimSuffix(base+"?"+strings.Join(params, "&"), "?")
}

func millis(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) }

// connectTimeout bounds connect: each server may take its time, and then all are asked for their timelines.
func (a *address) connectTimeout() time.Duration {
	return time.Duration(1+len(a.direct.Fallbacks))*a.direct.ConnectTimeout + askTimeout
}

// connect connects to the server itself. notified is called for each notification, with the process that sent it.
func (a *address) connect(ctx context.Context, notified func(pid uint32)) (*pgx.Conn, error) {
	c := a.direct.Copy()
	c.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { notified(n.PID) }
	return pgx.ConnectConfig(ctx, c)
}

// explain adds to an error of the first connection what it probably means.
func explain(err error) error {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return err
	}
	switch {
	case strings.Contains(answer.Message, "unsupported startup parameter"):
		return fmt.Errorf("%w: %s", err, poolerHint)
	case answer.Code == "42501":
		return fmt.Errorf("%w: curfew creates tables in the first schema of the search_path: give its user one of "+
			"its own, with CREATE SCHEMA curfew AUTHORIZATION …, and ALTER ROLE … SET search_path = curfew", err)
	}
	return err
}

const poolerHint = "this seems to be the address of a pooler such as PgBouncer: " +
	"add feed=HOST:PORT to it, with the address of the server itself"
