package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/curfew/store"
	"github.com/jackc/pgx/v5"
)

// clockConn is the connection that the server's clock is read over. It is used for nothing else, so no full pool and no
// locked table delays a reading.
type clockConn struct {
	address *address
	turn    chan struct{} // holds one token while nobody reads
	conn    *pgx.Conn     // nil before the first reading, and after one that failed
}

func newClockConn(a *address) *clockConn {
	w := &clockConn{address: a, turn: make(chan struct{}, 1)}
	w.turn <- struct{}{}
	return w
}

// A server that has become a standby is not the one whose clock endings are stamped by.
const clockSQL = `SELECT clock_timestamp(), pg_is_in_recovery()`

var errStandby = errors.New("the server has become a standby")

// Clock implements [store.Store].
func (s *Store) Clock() store.Clock { return store.Clock{Now: s.now} }

func (s *Store) now(ctx context.Context) (time.Time, error) {
	if err := s.enter(ctx); err != nil {
		return time.Time{}, err
	}
	defer s.leave()
	ctx, cancel := context.WithTimeout(ctx, s.o.StatementTimeout)
	defer cancel()
	at, err := s.clock.read(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("postgres: clock: %w", err)
	}
	return at, nil
}

func (w *clockConn) read(ctx context.Context) (at time.Time, err error) {
	select {
	case <-w.turn:
	case <-ctx.Done():
		return at, ctx.Err()
	}
	defer func() { w.turn <- struct{}{} }()
	if w.conn == nil {
		if w.conn, err = w.address.connect(ctx, func(uint32) {}); err != nil {
			return at, err
		}
	}
	var standby bool
	err = w.conn.QueryRow(ctx, clockSQL).Scan(&at, &standby)
	if err == nil && standby {
		err = errStandby
	}
	if err != nil {
		drop(w.conn)
		w.conn = nil
	}
	return at, err
}

// close is called when nobody reads any more.
func (w *clockConn) close() {
	if w.conn != nil {
		drop(w.conn)
	}
}
