package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"example.com/curfew/store"

	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

var (
	// ErrInUse: another process, or this one, has the database open already.
	ErrInUse = errors.New("another curfew is using this file")
	// ErrOlder: the schema would have to be made or changed, and [Options] forbids that.
	ErrNotMigrated = errors.New("no curfew of this release has been here")
)

// errClosed answers every method of a closed store.
var errClosed = errors.New("sqlite: the store is closed")

// Options say how to open a store. The zero value is good.
type Options struct {
	// BusyTimeout is how long to wait when another program (a backup, a shell) locks the database. 0 means 5 s.
	BusyTimeout time.Duration
	// Readers is the number of connections that read. 0 means one for each processor, and at least two.
	Readers int
	// AsItIs opens only what is there and has our schema already: [ErrNotMigrated] otherwise. The schema and what is
	// kept are not changed by opening it.
	NoMigration bool
}

// Store keeps sessions and notices in an SQLite database. It is a [store.Store].
type Store struct {
	lock    *os.File
	db      *sql.DB
	opened  []io.Closer // connections and statements, the writer's first
	changes chan *change
	stopped chan struct{} // closed when the writer has gone
	readers chan *reader
	hub     store.Hub

	gate   sync.RWMutex // held for reading while a method is under way, for writing to close
	closed bool
}

// Open opens the database at path, and makes it, with mode 0600, if there is none; its folder must exist. The file
// and those that SQLite keeps beside it hold sealed sessions and are for this process alone: it is refused when
// another process has it, when it is not ours, when it is damaged, and when a newer release wrote it.
func Open(ctx context.Context, path string, o Options) (_ *Store, err error) {
	if path == "" {
		return nil, errors.New("sqlite: no file named")
	}
	named, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("sqlite: %s: %w", named, err)
		}
	}()
	if o.BusyTimeout == 0 {
		o.BusyTimeout = 5 * time.Second
	}
	if o.Readers == 0 {
		o.Readers = max(2, runtime.NumCPU())
	}
	s := &Store{
		changes: make(chan *change, maxGroup),
		stopped: make(chan struct{}),
		readers: make(chan *reader, o.Readers),
	}
	if o.NoMigration {
		if _, err := os.Stat(named); err != nil {
			return nil, err
		}
	}
	if path, s.lock, err = takeFile(named); err != nil {
		return nil, err
	}
	if s.db, err = sql.Open("sqlite", dsn(path, o)); err != nil {
		return nil, errors.Join(err, unlockFile(s.lock))
	}
	if err = s.start(ctx, o); err != nil {
		return nil, errors.Join(err, s.giveBack())
	}
	return s, nil
}

// start brings the database to our schema and opens the connections.
func (s *Store) start(ctx context.Context, o Options) error {
	err := migrate(ctx, s.db, o.NoMigration)
	if err != nil {
		return err
	}
	s.db.SetMaxIdleConns(-1) // from here on a connection that is closed is closed, and not kept for later
	w := new(writer)
	if w.conn, err = s.connect(ctx, w.statements()); err != nil {
		return err
	}
	for range o.Readers {
		r := new(reader)
		if _, err = s.connect(ctx, r.statements()); err != nil {
			return err
		}
		s.readers <- r
	}
	go func() {
		defer close(s.stopped)
		w.run(s.changes)
	}()
	return nil
}

// connect opens a connection with its statements, for as long as the store is open.
func (s *Store) connect(ctx context.Context, statements []statement) (*sql.Conn, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	s.opened = append(s.opened, conn)
	var mode string
	var synchronous int
	if err := conn.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode); err != nil {
		return nil, err
	}
	if err := conn.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&synchronous); err != nil {
		return nil, err
	}
	const full = 2
	if mode != "wal" || synchronous != full {
		return nil, fmt.Errorf("cannot be made durable here (journal %s, synchronous %d)", mode, synchronous)
	}
	for _, st := range statements {
		if *st.to, err = conn.PrepareContext(ctx, st.sql); err != nil {
			return nil, err
		}
		// Statements of a sql.Conn are not closed with it, and SQLite keeps a file open until its last one is.
		s.opened = append(s.opened, *st.to)
	}
	return conn, nil
}

// giveBack closes what is open: the writer after the readers, so that it can move the log into the database, and the
// lock after everything.
func (s *Store) giveBack() error {
	var errs []error
	for _, c := range slices.Backward(s.opened) {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, s.db.Close(), unlockFile(s.lock))...)
}

func dsn(path string, o Options) string {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: url.Values{"_pragma": {
		"busy_timeout(" + strconv.FormatInt(o.BusyTimeout.Milliseconds(), 10) + ")",
		"journal_mode(WAL)",
		"synchronous(FULL)", // NORMAL could lose the last commits with the power, and a session would come back
		"foreign_keys(ON)",
		"temp_store(MEMORY)",
		"wal_autocheckpoint(4000)", // 16 MiB of log: a page that many logouts touch is then written back once
		"journal_size_limit(67108864)",
		"cache_size(-16384)",
		"trusted_schema(OFF)",
	}}.Encode()}
	return u.String()
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

// Clock implements [store.Store]: the file belongs to one process, by whose own clock it goes.
func (*Store) Clock() store.Clock { return store.Clock{} }

// Close finishes what is under way and gives the file back.
func (s *Store) Close() error {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.hub.Close()
	close(s.changes)
	<-s.stopped
	return s.giveBack()
}

// Watch implements [store.Store]. What End does is heard of after it is on the disk and before End returns.
func (s *Store) Watch(ctx context.Context, fn func(store.Ended)) (store.Feed, error) {
	return s.hub.Watch(ctx, fn)
}
