package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/curfew/store"
	"github.com/jackc/pgx/v5"
)

// clockConn is the connection over which the server's clock is read. It is used for nothing else, so neither a full
// pool nor a locked table delays a reading.
type clockConn struct {
	address *address
	turn    chan struct{} // a mutex whose wait can be cancelled: holds one value while it is unlocked
	conn    *pgx.Conn     // nil before the first reading, and after one that failed
}

func newClockConn(a *address) *clockConn {
	c := &clockConn{address: a, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// A server that has become a standby is no longer the one whose clock end marks use.
const clockSQL = `SELECT clock_timestamp(), pg_is_in_recovery()`

var errStandby = errors.New("the server has become a standby")

// Clock implements [store.Store].
func (s *Store) Clock() store.Clock { return store.Clock{Now: s.now} }

func (s *Store) now(ctx context.Context) (time.Time, error) {
	if err := s.gate.Enter(ctx); err != nil {
		return time.Time{}, err
	}
	defer s.gate.Leave()
	ctx, cancel := context.WithTimeout(ctx, s.o.StatementTimeout)
	defer cancel()
	at, err := s.clock.read(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("postgres: clock: %w", err)
	}
	return at, nil
}

func (c *clockConn) read(ctx context.Context) (at time.Time, err error) {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return at, ctx.Err()
	}
	defer func() { c.turn <- struct{}{} }()
	if c.conn == nil {
		if c.conn, err = c.address.connect(ctx, func(uint32) {}); err != nil {
			return at, err
		}
	}
	var standby bool
	err = c.conn.QueryRow(ctx, clockSQL).Scan(&at, &standby)
	if err == nil && standby {
		err = errStandby
	}
	if err != nil {
		drop(c.conn)
		c.conn = nil
	}
	return at, err
}

// close closes the connection. The clock must not be read any more.
func (c *clockConn) close() {
	if c.conn != nil {
		drop(c.conn)
	}
}
