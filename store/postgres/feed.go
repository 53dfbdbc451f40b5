package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"example.com/curfew/store"
	"example.com/curfew/store/internal/gate"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// follower follows the endings of all replicas, over a connection of its own.
//
// End inserts the ended sessions into the table curfew_ended, in its own transaction. A read of the feed selects the
// rows that were committed since the previous read: those that were not visible in the snapshot of that read, and are
// visible in the snapshot of this one. A sequence number would not do, since numbers are assigned before the commit,
// and transactions commit in another order. So each read returns every ending that was complete when it began, once,
// and Sync is a read.
//
// NOTIFY only says when to read. What ends within a few milliseconds shares one (see burst). An ending does not notify
// in its own transaction: PostgreSQL commits transactions that notify one at a time, each with its own flush to the
// disk, so 16 concurrent callers would achieve an eighth of the logouts. Instead the replica that ended sessions
// notifies after the commit. If it crashes before that, or the notification is lost, the others find the ending at
// their next read, at the latest in the next Sync, which does not depend on notifications.
//
// These are reported as a gap: a lost connection, since a server that crashed or was replaced may assign the same
// transaction numbers again; a pooler that changed the server behind the connection; and endings that were pruned
// before they were read.
type follower struct {
	address *address
	channel string
	timeout time.Duration
	hub     store.Hub
	stop    context.CancelFunc
	stopped chan struct{}

	notified atomic.Bool // by another replica

	mu           sync.Mutex
	requests     []request
	announcement bool               // the other replicas are to be notified
	early        bool               // the last read began less than burst ago
	wake         context.CancelFunc // ends the wait for a notification
	closed       bool

	// Only the goroutine of run uses these.
	conn     *pgx.Conn
	pid      uint32 // of the server's process behind conn
	snapshot string // of the last read
	gaps     int64  // how often something may have been missed
}

// burst is how long after a read the next one begins, unless it is requested: where there are many endings, they share
// a NOTIFY and a read.
const burst = 5 * time.Millisecond

// request asks for a read that begins after the request.
type request struct {
	then   func(gaps int64) error // called before the next read; may be nil
	answer chan answer
}

type answer struct {
	gaps int64
	err  error
}

const (
	beginSQL = `SELECT pg_current_snapshot()::text, pg_backend_pid()`

	// A transaction that is not visible in a snapshot is at or after its xmax, or in its list of those in progress. If
	// such a transaction has ended since, and is not newer than the newest pruned one, then its rows may have been
	// pruned. (A pruned number that is not assigned yet is from another server, from which the tables were copied.)
	readSQL = `WITH look AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot),
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
	errGap = errors.New("postgres: endings may have been missed: the connection was lost, " +
		"or the last check was too long ago")
	errMoved = errors.New("the connection leads to another process of the server than before")
)

// follow starts a follower of the endings in the table with this OID. It returns when the follower has received a
// notification that was sent through the pool.
func follow(
	ctx context.Context, a *address, table uint32, timeout time.Duration, pool *pgxpool.Pool,
) (*follower, error) {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	f := &follower{address: a, channel: fmt.Sprint("curfew_", table), timeout: timeout, stop: stop,
		stopped: make(chan struct{})}
	err := f.begin(ctx)
	if err == nil {
		if err = f.testNotify(ctx, pool); err != nil {
			drop(f.conn)
		}
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("listen: %w", err)
	}
	go f.run(running, pool)
	return f, nil
}

// begin connects, and takes the snapshot from which the first read starts.
func (f *follower) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.address.connectTimeout()+f.timeout)
	defer cancel()
	conn, err := f.address.connect(ctx, func(pid uint32) {
		if pid != f.pid { // not by this follower
			f.notified.Store(true)
		}
	})
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `LISTEN `+pgx.Identifier{f.channel}.Sanitize())
	if err == nil {
		err = conn.QueryRow(ctx, beginSQL).Scan(&f.snapshot, &f.pid)
	}
	if err != nil {
		drop(conn)
		return err
	}
	f.conn = conn
	return nil
}

// testNotify sends a notification and waits until it arrives. Behind a pooler in transaction mode none arrives.
func (f *follower) testNotify(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	if _, err := pool.Exec(ctx, announceSQL, f.channel); err != nil {
		return err
	}
	for !f.notified.Load() {
		if err := f.conn.PgConn().WaitForNotification(ctx); err != nil {
			return fmt.Errorf("%w: no NOTIFY arrives; %s", err, poolerHint)
		}
	}
	return nil
}

// run reads whenever there is a reason to, until ctx is done. It connects again when the connection is lost, and has
// the pool do the same: the old connections may be to a server that was replaced while it did not answer.
func (f *follower) run(ctx context.Context, pool *pgxpool.Pool) {
	defer close(f.stopped)
	defer f.refuse(gate.ErrClosed)
	for {
		err := f.readLoop(ctx)
		drop(f.conn)
		f.gaps++
		for pause := 50 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, time.Second) {
			f.refuse(fmt.Errorf("postgres: the connection of the feed is lost: %w", err))
			f.pause(ctx, pause)
			if err = f.begin(ctx); err == nil {
				pool.Reset()
				break
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// readLoop waits and reads until the connection is lost or ctx is done.
func (f *follower) readLoop(ctx context.Context) error {
	for {
		requests, announce, err := f.wait(ctx)
		if err == nil && announce {
			err = f.notify(ctx)
		}
		if err == nil {
			err = f.read(ctx)
		}
		for _, r := range requests {
			a := answer{gaps: f.gaps, err: err}
			if err == nil && r.then != nil {
				a.err = r.then(f.gaps)
			}
			r.answer <- a
		}
		if err != nil {
			return err
		}
	}
}

// wait waits for a reason to read, and takes the requests. A read that began before a request does not answer it.
func (f *follower) wait(ctx context.Context) (requests []request, announce bool, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		f.mu.Lock()
		if len(f.requests) > 0 || !f.early && (f.announcement || f.notified.Load()) {
			requests, announce = f.requests, f.announcement
			f.requests, f.announcement, f.early = nil, false, true
			f.notified.Store(false)
			time.AfterFunc(burst, f.late)
			f.mu.Unlock()
			return requests, announce, nil
		}
		waiting, wake := context.WithCancel(ctx)
		f.wake = wake
		f.mu.Unlock()
		err := f.conn.PgConn().WaitForNotification(waiting)
		woken := waiting.Err() != nil
		wake()
		if err != nil && !woken || f.conn.IsClosed() {
			return nil, false, errors.Join(err, ctx.Err())
		}
	}
}

// late lets the next read begin.
func (f *follower) late() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.early = false
	if f.wake != nil {
		f.wake()
	}
}

// notify notifies the other replicas.
func (f *follower) notify(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	_, err := f.conn.Exec(ctx, announceSQL, pgx.QueryExecModeCacheStatement, f.channel)
	return err
}

// read hands over the sessions that ended since the previous read.
func (f *follower) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	rows, err := f.conn.Query(ctx, readSQL, pgx.QueryExecModeCacheStatement, f.snapshot)
	if err != nil {
		return err
	}
	var snapshot string
	var pid uint32
	var pruned bool
	ended, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e store.Ended, err error) {
		var at *int64 // these are null in the only row of a read that finds nothing new
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
	case pid != f.pid:
		return errMoved
	}
	if ended[0].Key.IsZero() {
		ended = nil
	}
	f.snapshot = snapshot
	if pruned {
		f.gaps++
	}
	f.hub.Publish(ended)
	return nil
}

// announce has the other replicas notified of an ending.
func (f *follower) announce() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.announcement && f.wake != nil {
		f.wake()
	}
	f.announcement = true
}

// request has the feed read, and returns how many gaps there have been.
func (f *follower) request(ctx context.Context, then func(gaps int64) error) (int64, error) {
	r := request{then: then, answer: make(chan answer, 1)}
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return 0, gate.ErrClosed
	}
	f.requests = append(f.requests, r)
	if f.wake != nil {
		f.wake()
	}
	f.mu.Unlock()
	select {
	case a := <-r.answer:
		return a.gaps, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// refuse answers all requests with err.
func (f *follower) refuse(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		r.answer <- answer{err: err}
	}
	f.requests = nil
	f.closed = f.closed || errors.Is(err, gate.ErrClosed)
}

// pause waits for d, or until there is a request.
func (f *follower) pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	f.mu.Lock()
	f.wake = cancel
	requested := len(f.requests) > 0
	f.mu.Unlock()
	if !requested {
		<-ctx.Done()
	}
}

func (f *follower) close() {
	f.hub.Close()
	f.stop()
	<-f.stopped
}

// drop closes a connection. It does not wait long for a server that does not answer.
func drop(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	conn.Close(ctx)
}

// subscription is one [store.Feed].
type subscription struct {
	store.Feed // of the hub
	follower   *follower
	seen       atomic.Int64 // the number of gaps that Sync has reported
}

func (f *follower) watch(ctx context.Context, fn func(store.Ended)) (store.Feed, error) {
	s := &subscription{follower: f}
	if _, err := f.request(ctx, func(gaps int64) (err error) {
		s.seen.Store(gaps)
		s.Feed, err = f.hub.Watch(ctx, fn)
		return err
	}); err != nil {
		return nil, err
	}
	return s, nil
}

// Sync implements [store.Feed].
func (s *subscription) Sync(ctx context.Context) error {
	gaps, err := s.follower.request(ctx, nil)
	if err != nil {
		return err
	}
	if s.seen.Swap(gaps) != gaps {
		return errGap
	}
	return s.Feed.Sync(ctx) // fails if the subscription is over
}
