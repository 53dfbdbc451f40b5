package sqlite

import (
	"cmp"
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
	"time"

	"example.com/curfew/store"
	"example.com/curfew/store/internal/gate"

	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

var (
	// ErrInUse means that another process, or this one, has the database open already.
	ErrInUse = errors.New("another curfew is using this file")
	// ErrNotMigrated means that the schema would have to be created or changed, which [Options] forbids.
	ErrNotMigrated = errors.New("the database does not have the schema of this release")
)

// Options are the options of [Open]. The zero value is ready for use.
type Options struct {
	// BusyTimeout is how long to wait while another program (a backup, a shell) locks the database. 0 means 5 s.
	BusyTimeout time.Duration
	// Readers is the number of connections that read. 0 means one for each processor, and at least two.
	Readers int
	// NoMigration opens the database only if it exists and has the schema of this release, and changes nothing. Without
	// the schema Open returns [ErrNotMigrated]; without the file, an error that is [io/fs.ErrNotExist].
	NoMigration bool
}

// Store keeps sessions and notices in an SQLite database. It is a [store.Store].
type Store struct {
	lock    *os.File
	db      *sql.DB
	opened  []io.Closer // connections and statements, the writer's first
	changes chan *change
	stopped chan struct{} // closed when the writing goroutine has ended
	readers chan *reader
	hub     store.Hub
	gate    gate.Gate
}

// Open opens the database at path. If there is none, it creates it with mode 0600; the directory must exist. The file,
// and those that SQLite keeps beside it, are for one process alone. Open fails when another process has the database
// open ([ErrInUse]), when it is not one of Curfew's, when it is damaged, and when a newer release wrote it.
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
	o.BusyTimeout = cmp.Or(o.BusyTimeout, 5*time.Second)
	o.Readers = cmp.Or(o.Readers, max(2, runtime.NumCPU()))
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
	if path, s.lock, err = lockDatabase(named); err != nil {
		return nil, err
	}
	if s.db, err = sql.Open("sqlite", dsn(path, o)); err != nil {
		return nil, errors.Join(err, unlockFile(s.lock))
	}
	if err = s.start(ctx, o); err != nil {
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

// start migrates the schema, opens the connections and starts the writer.
func (s *Store) start(ctx context.Context, o Options) error {
	err := migrate(ctx, s.db, o.NoMigration)
	if err != nil {
		return err
	}
	s.db.SetMaxIdleConns(-1) // from here on a closed connection is not kept in the pool
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

// connect opens a connection and prepares its statements. They stay open as long as the store.
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

// release closes everything: the writer after the readers, so that it can move the log into the database, and the lock
// last.
func (s *Store) release() error {
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
		"synchronous(FULL)", // with NORMAL a loss of power could undo the last commits, and a session would come back
		"foreign_keys(ON)",
		"temp_store(MEMORY)",
		"wal_autocheckpoint(4000)", // 16 MiB of log: a page that many logouts change is then written back only once
		"journal_size_limit(67108864)",
		"cache_size(-16384)",
		"trusted_schema(OFF)",
	}}.Encode()}
	return u.String()
}

// Clock implements [store.Store]. The file belongs to one process, whose own clock counts.
func (*Store) Clock() store.Clock { return store.Clock{} }

// Close waits for the methods that are running, and releases the file.
func (s *Store) Close() error {
	return s.gate.Close(func() error {
		s.hub.Close()
		close(s.changes)
		<-s.stopped
		return s.release()
	})
}

// Watch implements [store.Store]. fn is called after the ending is on the disk, and before End returns.
func (s *Store) Watch(ctx context.Context, fn func(store.Ended)) (store.Feed, error) {
	return s.hub.Watch(ctx, fn)
}
