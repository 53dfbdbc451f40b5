package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/curfew/store"
	"example.com/curfew/store/internal/gate"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrNotMigrated means that the schema would have to be created or changed, which [Options] forbids.
var ErrNotMigrated = errors.New("the database does not have the schema of this release")

// Options are the options of [Open]. The zero value is ready for use.
type Options struct {
	// MaxConns is the largest number of connections in the pool. Two further connections follow the endings and read
	// the clock. 0 means the pool_max_conns of the URL, or else 10.
	MaxConns int
	// ConnectTimeout bounds the time to connect. 0 means the connect_timeout of the URL, or else 5 s.
	ConnectTimeout time.Duration
	// StatementTimeout bounds each statement, including the wait for a connection. 0 means 5 s.
	StatementTimeout time.Duration
	// LockTimeout bounds how long a statement waits for another one that locks the same subject or sid. 0 means 2 s.
	LockTimeout time.Duration
	// Grace is how much longer a change that has been sent is waited for when its context is done. To cut it short
	// would leave its outcome unknown. 0 means 1 s.
	Grace time.Duration
	// NoMigration opens the database only if it has the schema of this release: [ErrNotMigrated] otherwise.
	NoMigration bool
}

// Store keeps sessions, notices and shared values in a PostgreSQL database. It is a [store.Store].
type Store struct {
	o    Options
	pool *pgxpool.Pool
	feed *follower

	clock *clockConn
	gate  gate.Gate
}

// Open connects to the database at url (postgres://user:password@host:port/database?…, in the form of libpq) and
// migrates the tables there to the schema of this release. Several replicas may do so at once. Besides libpq's
// parameters the url may have feed=HOST:PORT: the address of the server itself, which is needed if url is that of a
// pooler in transaction mode. Open fails if the server does not keep what it commits, and if a newer release has
// migrated the schema.
func Open(ctx context.Context, url string, o Options) (_ *Store, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("postgres: %w", err)
		}
	}()
	o.StatementTimeout = cmp.Or(o.StatementTimeout, 5*time.Second)
	o.LockTimeout = cmp.Or(o.LockTimeout, 2*time.Second)
	o.Grace = cmp.Or(o.Grace, time.Second)
	a, err := parseAddress(url, o)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, a, o.NoMigration); err != nil {
		return nil, err
	}
	s := &Store{o: o, clock: newClockConn(a)}
	if s.pool, err = pgxpool.NewWithConfig(ctx, a.pool); err != nil {
		return nil, err
	}
	table, err := s.inspect(ctx)
	if err == nil {
		s.feed, err = follow(ctx, a, table, o.StatementTimeout, s.pool)
	}
	if err != nil {
		s.pool.Close()
		return nil, err
	}
	return s, nil
}

// inspect refuses a server that may lose what it commits, and returns the OID of the table of sessions.
func (s *Store) inspect(ctx context.Context) (table uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.StatementTimeout)
	defer cancel()
	var encoding, fsync, commit string
	err = s.pool.QueryRow(ctx, `SELECT 'curfew_sessions'::regclass::oid, current_setting('server_encoding'),
		current_setting('fsync'), current_setting('synchronous_commit')`).Scan(&table, &encoding, &fsync, &commit)
	switch {
	case err != nil:
		return 0, fmt.Errorf("inspect the server: %w", err)
	case encoding != "UTF8":
		return 0, fmt.Errorf("the database has the encoding %s, and needs UTF8", encoding)
	case fsync != "on" || commit == "off":
		return 0, fmt.Errorf("the server may forget what it has committed (fsync %s, synchronous_commit %s): "+
			"a session that was ended could be back after a crash", fsync, commit)
	}
	return table, nil
}

// read runs a query that changes nothing. It ends when ctx is done.
func (s *Store) read(ctx context.Context, what string, fn func(ctx context.Context, conn *pgxpool.Conn) error) error {
	if err := s.gate.Enter(ctx); err != nil {
		return err
	}
	defer s.gate.Leave()
	ctx, cancel := context.WithTimeout(ctx, s.o.StatementTimeout)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("postgres: %s: %w", what, err)
	}
	defer conn.Release()
	return s.failed(what, fn(ctx, conn))
}

// write runs a change. The wait for a connection ends when ctx is done. A change that may have been sent is waited for
// until [Options.Grace] later. A change that the server has undone because of a deadlock is made again, twice at most.
func (s *Store) write(ctx context.Context, what string, fn func(ctx context.Context, conn *pgxpool.Conn) error) error {
	if err := s.gate.Enter(ctx); err != nil {
		return err
	}
	defer s.gate.Leave()
	bounded, cancel := context.WithTimeout(ctx, s.o.StatementTimeout)
	defer cancel()
	conn, err := s.pool.Acquire(bounded)
	if err != nil {
		return fmt.Errorf("postgres: %s: %w", what, err)
	}
	defer conn.Release()
	if err := ctx.Err(); err != nil {
		return err
	}
	graceful, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	stop := context.AfterFunc(bounded, func() {
		time.AfterFunc(s.o.Grace, func() { cut(context.Cause(bounded)) })
	})
	defer stop()
	forgetWarning(conn)
	for range 3 {
		if err = fn(graceful, conn); !isDeadlock(err) {
			break
		}
	}
	// This holds for errors of the contract too: what they were read from may still be lost.
	if warning := warningOf(conn); warning != nil && (err == nil || store.IsContractError(err)) {
		return fmt.Errorf("postgres: %s: %w: %s", what, errUncertain, warning.Message)
	}
	return s.failed(what, err)
}

// isDeadlock reports whether the server undid the transaction because another one and it waited for each other.
func isDeadlock(err error) bool {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	return ok && answer.Code == "40P01"
}

// failed adds what failed to an error. After an error of a connection it resets the pool: if the server was restarted,
// all connections are broken.
func (s *Store) failed(what string, err error) error {
	if err == nil || store.IsContractError(err) {
		return err
	}
	var answer *pgconn.PgError
	const class57 = "57P" // the server is being stopped
	if !errors.As(err, &answer) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) ||
		answer != nil && len(answer.Code) == 5 && answer.Code[:3] == class57 {
		s.pool.Reset()
	}
	return fmt.Errorf("postgres: %s: %w", what, err)
}

// Close waits for the methods that are running and closes the connections.
func (s *Store) Close() error {
	return s.gate.Close(func() error {
		s.feed.close()
		s.clock.close()
		s.pool.Close()
		return nil
	})
}

// Watch implements [store.Store]. See follower for how it works.
func (s *Store) Watch(ctx context.Context, fn func(store.Ended)) (store.Feed, error) {
	if err := s.gate.Enter(ctx); err != nil {
		return nil, err
	}
	defer s.gate.Leave()
	return s.feed.watch(ctx, fn)
}

// one reads the only row of rows into dest; [pgx.ErrNoRows] if there is none.
func one(rows pgx.Rows, err error, dest ...any) error {
	if err != nil {
		return err
	}
	_, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
		return struct{}{}, row.Scan(dest...)
	})
	return err
}
