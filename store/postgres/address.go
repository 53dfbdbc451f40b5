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

// address is where the database is.
type address struct {
	pool   *pgxpool.Config
	direct *pgx.ConnConfig // leads to the server itself
	pooler bool            // the pool leads to a pooler
}

// parseAddress reads a URL. Its errors hold no password.
func parseAddress(text string, o Options) (*address, error) {
	if !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") {
		return nil, errors.New("the address must look like postgres://user:password@host:5432/database")
	}
	base, query, _ := strings.Cut(text, "?")
	// What is not ours is handed on as it stands: libpq and net/url do not agree about a plus.
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

	a.direct.DefaultQueryExecMode = pgx.QueryExecModeExec // most of what is said there is said once
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
		// A standby may not know yet what has ended.
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
		setUnlessNamed(c, map[string]string{"application_name": "curfew"})
	}
	setUnlessNamed(a.direct, planning())
	if a.pooler {
		// A statement that is prepared on one connection is not there on the next; and what a connection is to be set
		// to when it begins, a pooler refuses.
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

// planning are settings for statements that search an index. A plan that was made while a table was small would scan
// it, or fetch all of a name and sort them, for as long as it is kept.
func planning() map[string]string {
	return map[string]string{"enable_seqscan": "off", "enable_bitmapscan": "off", "jit": "off"}
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

// connect makes a connection to the server itself.
func (a *address) connect(ctx context.Context, heard func(pid uint32)) (*pgx.Conn, error) {
	c := a.direct.Copy()
	c.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { heard(n.PID) }
	return pgx.ConnectConfig(ctx, c)
}

// explain says what is likely meant by an error of a server that we have just met.
func explain(err error) error {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return err
	}
	switch {
	case strings.Contains(answer.Message, "unsupported startup parameter"):
		return fmt.Errorf("%w: %s", err, poolerHint)
	case answer.Code == "42501":
		return fmt.Errorf("%w: curfew makes tables in the first schema of the search_path: "+
			"give its user one of its own, with CREATE SCHEMA curfew AUTHORIZATION …, and ALTER ROLE … SET "+
			"search_path = curfew", err)
	}
	return err
}

const poolerHint = "it looks as if a pooler such as PgBouncer were at this address: " +
	"add feed=HOST:PORT to it, with the address of the server itself"
