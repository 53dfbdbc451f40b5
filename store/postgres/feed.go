package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"example.com/curfew/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// tail follows what ends, on whatever replica, over a connection of its own.
//
// End writes what ended into the table curfew_ended, in its own transaction. To look is to read what has been committed
// since the look before: what was not visible in the snapshot of that one and is in the snapshot of this one. A number
// that counts would not do, since numbers are given out before the commit, and the commits come in another order. So a
// look proves itself: it sees every ending that was complete when it began, each once, and Sync is a look.
//
// NOTIFY is only the bell that says when to look. An ending does not ring it in its own transaction: PostgreSQL lets
// those that notify commit one at a time, each flush to the disk by itself, and 16 at once then make an eighth of the
// logouts. The replica that ended something rings when it has committed; if it dies before that, or the bell is lost,
// the others see it when they look next: at the next Sync, which asks for no bell.
//
// What cannot be made good is told as a gap: a connection that was lost, since a server that crashed or was replaced
// may give the same transaction numbers out again; a pooler that changed the server behind the connection; and endings
// that were pruned before they were looked at.
type follower struct {
	address *address
	channel string
	timeout time.Duration
	hub     store.Hub
	stop    context.CancelFunc
	stopped chan struct{}

	heard atomic.Bool // another replica rang

	mu      sync.Mutex
	asks    []ask
	ringing bool               // one of our own endings is to be told of
	wake    context.CancelFunc // ends the wait for a bell
	gone    bool

	// These are the goroutine's own.
	conn     *pgx.Conn
	pid      uint32 // of the server's process behind conn
	snapshot string // of the last look
	gaps     int64  // how often something may have been missed
}

// ask is a wish for a look that begins after it was asked for.
type ask struct {
	then   func(gaps int64) error // done before anything else is looked at; may be nil
	answer chan answer
}

type answer struct {
	gaps int64
	err  error
}

const (
	beginSQL = `SELECT pg_current_snapshot()::text, pg_backend_pid()`

	// What is not visible in a snapshot is from its xmax on, or in its list of those under way. If one of these has
	// come to its end since, and is no newer than the newest of what was pruned, then it may have been pruned. (A
	// number that is not given out yet is from another server, from which the tables were copied.)
	lookSQL = `WITH look AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot),
		news AS (
			SELECT * FROM curfew_ended WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
			UNION ALL
			SELECT * FROM curfew_ended WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
		)
		SELECT look.snapshot::text, pg_backend_pid(),
			p.xid < pg_snapshot_xmax(look.snapshot) AND (p.xid >= pg_snapshot_xmax($1::text::pg_snapshot)
				OR EXISTS (SELECT FROM pg_snapshot_xip($1::text::pg_snapshot) AS x
					WHERE x <= p.xid AND pg_visible_in_snapshot(x, look.snapshot))),
			n.at, n.key, n.issuer, n.client, n.subject, n.sid, n.cause
		FROM look CROSS JOIN curfew_ended_pruned p LEFT JOIN news n ON pg_visible_in_snapshot(n.xid, look.snapshot)`

	announceSQL = `SELECT pg_notify($1, '')`
)

var (
	errGap   = errors.New("postgres: what ended may have been missed: the connection was lost, or it was too long ago")
	errMoved = errors.New("another process of the server answers than before")
)

// follow begins to follow what ends in the table with this number. It returns when it has heard a bell that was rung
// through the pool.
func follow(ctx context.Context, a *address, table uint32, timeout time.Duration, pool *pgxpool.Pool) (*follower,
	error) {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	t := &follower{address: a, channel: fmt.Sprint("curfew_", table), timeout: timeout, stop: stop,
		stopped: make(chan struct{})}
	err := t.begin(ctx)
	if err == nil {
		if err = t.prove(ctx, pool); err != nil {
			drop(t.conn)
		}
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("listen: %w", err)
	}
	go t.run(running)
	return t, nil
}

// begin connects, and looks from now on.
func (t *follower) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.address.direct.ConnectTimeout+t.timeout)
	defer cancel()
	conn, err := t.address.connect(ctx, func(pid uint32) {
		if pid != t.pid { // who rings has looked
			t.heard.Store(true)
		}
	})
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `LISTEN `+pgx.Identifier{t.channel}.Sanitize())
	if err == nil {
		err = conn.QueryRow(ctx, beginSQL).Scan(&t.snapshot, &t.pid)
	}
	if err != nil {
		drop(conn)
		return err
	}
	t.conn = conn
	return nil
}

// prove rings and waits until it is heard. Behind a pooler that lends its connections for a transaction, nothing is.
func (t *follower) prove(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	if _, err := pool.Exec(ctx, announceSQL, t.channel); err != nil {
		return err
	}
	for !t.heard.Load() {
		if err := t.conn.PgConn().WaitForNotification(ctx); err != nil {
			return fmt.Errorf("%w: no NOTIFY is heard here; %s", err, poolerHint)
		}
	}
	return nil
}

// run looks whenever there is a reason to, until ctx is done, and connects again when the connection is lost.
func (t *follower) run(ctx context.Context) {
	defer close(t.stopped)
	defer t.refuse(errClosed)
	for {
		err := t.watchOver(ctx)
		drop(t.conn)
		t.gaps++
		for pause := 50 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, time.Second) {
			t.refuse(fmt.Errorf("postgres: the connection that hears what ends is lost: %w", err))
			t.pause(ctx, pause)
			if err = t.begin(ctx); err == nil {
				break
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// watchOver waits and looks until the connection is lost or ctx is done.
func (t *follower) watchOver(ctx context.Context) error {
	for {
		asks, ring, err := t.wait(ctx)
		if err == nil && ring {
			err = t.exec(ctx, announceSQL, t.channel)
		}
		if err == nil {
			err = t.look(ctx)
		}
		for _, a := range asks {
			got := answer{gaps: t.gaps, err: err}
			if err == nil && a.then != nil {
				got.err = a.then(t.gaps)
			}
			a.answer <- got
		}
		if err != nil {
			return err
		}
	}
}

// wait returns when there is a reason to look, and takes what is asked for. No look that began before may answer it.
func (t *follower) wait(ctx context.Context) (asks []ask, ring bool, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		t.mu.Lock()
		heard := t.heard.Swap(false)
		if len(t.asks) > 0 || t.ringing || heard {
			asks, ring = t.asks, t.ringing
			t.asks, t.ringing = nil, false
			t.mu.Unlock()
			return asks, ring, nil
		}
		waiting, wake := context.WithCancel(ctx)
		t.wake = wake
		t.mu.Unlock()
		err := t.conn.PgConn().WaitForNotification(waiting)
		woken := waiting.Err() != nil
		wake()
		if err != nil && !woken || t.conn.IsClosed() {
			return nil, false, errors.Join(err, ctx.Err())
		}
	}
}

func (t *follower) exec(ctx context.Context, statement string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	_, err := t.conn.Exec(ctx, statement, args...)
	return err
}

// look hands on what has ended since the look before.
func (t *follower) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	rows, err := t.conn.Query(ctx, lookSQL, pgx.QueryExecModeCacheStatement, t.snapshot)
	if err != nil {
		return err
	}
	var snapshot string
	var pid uint32
	var pruned bool
	ended, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e store.Ended, err error) {
		var at *int64 // all of these are null in the one row of a look that sees nothing new
		var key []byte
		var issuer, client, subject, sid, cause *string
		err = row.Scan(&snapshot, &pid, &pruned, &at, &key, &issuer, &client, &subject, &sid, &cause)
		if err != nil || at == nil {
			return e, err
		}
		if len(key) != len(e.Key) {
			return e, fmt.Errorf("a key of %d bytes is stored, not of %d", len(key), len(e.Key))
		}
		copy(e.Key[:], key)
		e.Issuer, e.ClientID, e.Subject, e.SID = *issuer, *client, *subject, *sid
		e.Cause, e.At = store.Cause(*cause), store.FromMicros(*at)
		return e, nil
	})
	switch {
	case err != nil:
		return err
	case len(ended) == 0:
		return errors.New("the table curfew_ended_pruned has lost its row")
	case pid != t.pid:
		return errMoved
	}
	if ended[0].Key.IsZero() {
		ended = nil
	}
	t.snapshot = snapshot
	if pruned {
		t.gaps++
	}
	t.hub.Publish(ended)
	return nil
}

// ring has the others told that something ended.
func (t *follower) announce() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ringing = true
	if t.wake != nil {
		t.wake()
	}
}

// ask looks, and returns how many gaps there have been.
func (t *follower) ask(ctx context.Context, then func(gaps int64) error) (int64, error) {
	a := ask{then: then, answer: make(chan answer, 1)}
	t.mu.Lock()
	if t.gone {
		t.mu.Unlock()
		return 0, errClosed
	}
	t.asks = append(t.asks, a)
	if t.wake != nil {
		t.wake()
	}
	t.mu.Unlock()
	select {
	case got := <-a.answer:
		return got.gaps, got.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// refuse answers all who ask with err.
func (t *follower) refuse(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.asks {
		a.answer <- answer{err: err}
	}
	t.asks = nil
	t.gone = t.gone || errors.Is(err, errClosed)
}

// pause waits, but not when somebody asks.
func (t *follower) pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	t.mu.Lock()
	t.wake = cancel
	asked := len(t.asks) > 0
	t.mu.Unlock()
	if !asked {
		<-ctx.Done()
	}
}

func (t *follower) close() {
	t.hub.Close()
	t.stop()
	<-t.stopped
}

// drop closes a connection, and does not wait for a server that is not there.
func drop(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	conn.Close(ctx)
}

// subscription is one [store.Feed].
type subscription struct {
	store.Feed // of the hub
	tail       *follower
	seen       atomic.Int64 // how many of the gaps its watcher knows of
}

func (t *follower) watch(ctx context.Context, fn func(store.Ended)) (store.Feed, error) {
	s := &subscription{tail: t}
	if _, err := t.ask(ctx, func(gaps int64) (err error) {
		s.seen.Store(gaps)
		s.Feed, err = t.hub.Watch(ctx, fn)
		return err
	}); err != nil {
		return nil, err
	}
	return s, nil
}

// Sync implements [store.Feed].
func (s *subscription) Sync(ctx context.Context) error {
	gaps, err := s.tail.ask(ctx, nil)
	if err != nil {
		return err
	}
	if s.seen.Swap(gaps) != gaps {
		return errGap
	}
	return s.Feed.Sync(ctx) // whether the subscription is over
}
