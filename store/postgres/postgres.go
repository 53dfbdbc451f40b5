package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/curfew/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrOlder: the schema would have to be made or changed, and [Options] forbids that.
var ErrNotMigrated = errors.New("the database does not have the schema of this release")

// errClosed answers every method of a closed store.
var errClosed = errors.New("postgres: the store is closed")

// Options say how to open a store. The zero value is good.
type Options struct {
	// MaxConns is how many connections the pool may hold, besides the two that follow what ends and read
	// the clock. 0 means the
	// pool_max_conns of the URL, or else 10.
	MaxConns int
	// ConnectTimeout bounds the making of a connection. 0 means the connect_timeout of the URL, or else 5 s.
	ConnectTimeout time.Duration
	// StatementTimeout bounds each statement, the wait for a connection included. 0 means 5 s.
	StatementTimeout time.Duration
	// LockTimeout bounds the wait of a statement for one that works on the same names. 0 means 2 s.
	LockTimeout time.Duration
	// Grace is how long a change that has been sent may still be waited for when its context is done: to cut it short
	// would leave the caller not knowing. 0 means 1 s.
	Grace time.Duration
	// AsItIs opens only what has our schema already: [ErrNotMigrated] otherwise.
	NoMigration bool
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		field   *time.Duration
		usually time.Duration
	}{{&o.StatementTimeout, 5 * time.Second}, {&o.LockTimeout, 2 * time.Second}, {&o.Grace, time.Second}} {
		if *d.field == 0 {
			*d.field = d.usually
		}
	}
	return o
}

// Store keeps sessions, notices and what replicas share in a PostgreSQL database. It is a
// [store.Store].
type Store struct {
	o    Options
	pool *pgxpool.Pool
	feed *follower

	clock *clockConn

	gate   sync.RWMutex // held for reading while a method is under way, for writing to close
	closed bool
}

// Open connects to the database at url (postgres://user:password@host:port/database?…, as libpq writes it) and brings
// our tables there to the newest schema; several may do so at once. Besides libpq's parameters there is feed=HOST:PORT,
// the address of the server itself when url leads to a pooler that lends its connections for a transaction at a time.
// It is an error if the server does not keep what it commits, or if a newer release has been here.
func Open(ctx context.Context, url string, o Options) (_ *Store, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("postgres: %w", err)
		}
	}()
	o = o.withDefaults()
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

// inspect refuses a server that cannot keep our promises, and returns the number of our table.
func (s *Store) inspect(ctx context.Context) (table uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.StatementTimeout)
	defer cancel()
	var encoding, fsync, commit string
	err = s.pool.QueryRow(ctx, `SELECT 'curfew_sessions'::regclass::oid, current_setting('server_encoding'),
		current_setting('fsync'), current_setting('synchronous_commit')`).Scan(&table, &encoding, &fsync, &commit)
	switch {
	case err != nil:
		return 0, fmt.Errorf("look at the server: %w", err)
	case encoding != "UTF8":
		return 0, fmt.Errorf("the database has the encoding %s, and needs UTF8", encoding)
	case fsync != "on" || commit == "off":
		return 0, fmt.Errorf("the server may forget what it has committed (fsync %s, synchronous_commit %s): "+
			"a session that was ended could be back after a crash", fsync, commit)
	}
	return table, nil
}

// enter says that a method begins. Whoever got nil must leave.
func (s *Store) enter(ctx context.Context) error {
	s.gate.RLock()
	err := ctx.Err()
	if s.closed {
		err = errClosed
	}
	if err != nil {
		s.gate.RUnlock()
	}
	return err
}

func (s *Store) leave() { s.gate.RUnlock() }

// read runs a query that changes nothing; it ends with ctx.
func (s *Store) read(ctx context.Context, what string, fn func(ctx context.Context, conn *pgxpool.Conn) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	ctx, cancel := context.WithTimeout(ctx, s.o.StatementTimeout)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("postgres: %s: %w", what, err)
	}
	defer conn.Release()
	return s.failed(what, fn(ctx, conn))
}

// write runs a change. The wait for a connection ends with ctx; the change, once it can have been sent, is given a
// grace to say what became of it.
func (s *Store) write(ctx context.Context, what string, fn func(ctx context.Context, conn *pgxpool.Conn) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
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
	err = fn(graceful, conn)
	// Nor is an answer of the contract one, if what it was read from may be lost yet.
	if warning := warningOf(conn); warning != nil && (err == nil || isVerdict(err)) {
		return fmt.Errorf("postgres: %s: %w: %s", what, errUncertain, warning.Message)
	}
	return s.failed(what, err)
}

// judge says what went wrong. After trouble with a connection the others in the pool are not trusted either: a server
// that was started anew has cut them all.
func (s *Store) failed(what string, err error) error {
	if err == nil || isVerdict(err) {
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

// isVerdict says whether err is an answer of the contract, and no trouble.
func isVerdict(err error) bool {
	for _, verdict := range []error{store.ErrEnded, store.ErrNotFound, store.ErrConflict, store.ErrReplayed,
		store.ErrLeaseLost, store.ErrNoNotice} {
		if errors.Is(err, verdict) {
			return true
		}
	}
	return false
}

// Close finishes what is under way and gives the connections back.
func (s *Store) Close() error {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.feed.close()
	s.clock.close()
	s.pool.Close()
	return nil
}

// Watch implements [store.Store]. See tail for how it is done.
func (s *Store) Watch(ctx context.Context, fn func(store.Ended)) (store.Feed, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	return s.feed.watch(ctx, fn)
}

// one reads the only row of rows into dest; [pgx.ErrNoRows] if there is none.
func one(rows pgx.Rows, err error, dest ...any) error {
	if err != nil {
		return err
	}
	_, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
		return struct{}{},
			row.Scan(dest...)
	})
	return err
}
