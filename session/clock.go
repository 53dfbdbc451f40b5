package session

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"example.com/curfew/internal/wait"
	"example.com/curfew/store"
)

const (
	clockEvery   = time.Second            // between two readings when nobody asks
	clockFresh   = 50 * time.Millisecond  // who needs the time exactly takes no older reading, if there is time
	clockWait    = 250 * time.Millisecond // how long a login waits for a fresh reading
	clockStale   = time.Minute            // without a newer reading no login begins and none is completed
	clockTimeout = 5 * time.Second        // of one reading
	clockOff     = 5 * time.Second        // an operator is told from here on
)

// Clock compares times that were taken on different replicas. It knows bounds of the store's time, never the time
// itself: a reading takes a while, and the answer may have been made at any moment of it.
//
//   - A login is stamped with the earliest time that the store may have.
//   - An ending is stamped by the store itself, when it is carried out; see [store.Store.End].
//
// So a login that began before an ending has the lower stamp, however slow the reading was. A slow reading costs only
// this: a login that begins within its length after the ending may be refused.
//
// A store without a clock belongs to one process, whose own clock is then read in place of a server's.
type Clock struct {
	source   func(context.Context) (time.Time, error) // nil: the process's own clock counts
	now      func() time.Time
	start    time.Time // by now; what instants count from
	log      *slog.Logger
	era      string
	volatile bool // the store forgets its marks with itself: logins of another era are refused

	offset atomic.Int64 // from our own clock to the middle of the bounds, in nanoseconds
	known  atomic.Bool  // there has been a reading

	mu      sync.Mutex
	bounds  bounds
	read    instant  // when the last reading that succeeded began
	reading *reading // the one under way, or nil
}

// reading is a reading under way; err may be read when done is closed.
type reading struct {
	done chan struct{}
	err  error
}

// sharedEra is the era of every store with a clock. Where a process has its own clock, that of each process is another:
// the one before may have been ahead.
const sharedEra = "store"

// NewClock returns the clock of a store. now is the clock of this process.
func NewClock(s store.Store, now func() time.Time, log *slog.Logger) *Clock {
	c := &Clock{now: now, start: now(), log: log, era: rand.Text(), bounds: bounds{own: true, drift: 100}}
	of := s.Clock()
	if of.Now != nil {
		c.source, c.era, c.bounds = of.Now, sharedEra, bounds{drift: 4}
	}
	if of.Incarnation != "" {
		c.era, c.volatile = of.Incarnation, true
	}
	return c
}

// run reads the clock now and then until ctx is done.
func (c *Clock) run(ctx context.Context) {
	for failed := false; ; {
		err := c.refresh(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			c.log.WarnContext(ctx, "the store's clock cannot be read; without it no login can begin a minute from now",
				"event", "clock_unread", "error", err)
		}
		failed = err != nil
		if !wait.Sleep(ctx, clockEvery) {
			return
		}
	}
}

// sure returns nil when there has been a reading. It takes the first one if need be; the error is [ErrUnavailable].
func (c *Clock) sure(ctx context.Context) error {
	if c.known.Load() {
		return nil
	}
	if err := c.refresh(ctx); err != nil && !c.known.Load() {
		return fmt.Errorf("%w: its clock: %w", ErrUnavailable, err)
	}
	return nil
}

// exact is sure, and waits a little for a reading that is fresh. If none comes the bounds are wider, but hold.
func (c *Clock) exact(ctx context.Context) error {
	c.mu.Lock()
	_, age := c.bounds.elapsed(c.read, c.instant(c.now()))
	c.mu.Unlock()
	if c.source != nil && c.known.Load() && age < clockFresh {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, clockWait)
	defer cancel()
	if err := c.refresh(waiting); err != nil && (!c.known.Load() || age >= clockStale) {
		if err := c.refresh(ctx); err != nil {
			return fmt.Errorf("%w: its clock: %w", ErrUnavailable, err)
		}
	}
	return nil
}

// refresh returns when a reading has succeeded, or says why not. All who ask meanwhile share one, which goes on without
// them.
func (c *Clock) refresh(ctx context.Context) error {
	if c.source == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		now := c.now() // under the lock: taken in after a later one, it would look like a clock that was set back
		c.observe(now, now, now)
		return nil
	}
	c.mu.Lock()
	r := c.reading
	if r == nil {
		r = &reading{done: make(chan struct{})}
		c.reading = r
		go c.take(context.WithoutCancel(ctx), r)
	}
	c.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.done:
		return r.err
	}
}

func (c *Clock) take(ctx context.Context, r *reading) {
	ctx, cancel := context.WithTimeout(ctx, clockTimeout)
	defer cancel()
	before := c.now()
	at, err := c.source(ctx)
	after := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.observe(at, before, after)
	}
	c.reading, r.err = nil, err
	close(r.done)
}

// observe takes in a reading: at some moment between before and after, by our own clock, the store's time was at.
// mu is held.
func (c *Clock) observe(at, before, after time.Time) {
	back := c.bounds.observe(store.Time(at), c.instant(before), c.instant(after))
	c.read = c.instant(before)
	if back > 0 {
		c.log.Warn("the clock that orders logins and logouts was set back: until logins from before that have run "+
			"out, "+
			"somebody who signs out has to wait for so long before signing in again",
			"event", "clock_back", "by", back.String())
	}
	if c.source != nil {
		middle := c.bounds.earliest.Add(c.bounds.latest.Sub(c.bounds.earliest) / 2)
		offset := middle.Sub(after.Round(0))
		if was := time.Duration(c.offset.Swap(int64(offset))); offset.Abs() >= clockOff && was.Abs() < clockOff {
			c.log.Warn("this machine's clock differs from the store's, whose time is used for sessions; set it",
				"event", "clock_off", "by", offset.Round(time.Millisecond).String())
		}
	}
	c.known.Store(true)
}

// Now returns what the store's time is likely to be.
func (c *Clock) Now() time.Time { return c.now().Add(time.Duration(c.offset.Load())) }

// since says how long ago a time of our own clock is, at most.
func (c *Clock) since(then time.Time) time.Duration {
	now := c.now()
	return max(0, now.Sub(then), now.Round(0).Sub(then.Round(0)))
}

// instant is a time of our own clock as bounds take it.
func (c *Clock) instant(t time.Time) instant {
	return instant{mono: t.Sub(c.start), wall: t.Round(0).Sub(c.start.Round(0))}
}

// between returns bounds of the store's time. Before the first reading there are none, and our own clock has to do.
func (c *Clock) between() (earliest, latest time.Time) {
	if c.source == nil {
		_ = c.refresh(context.Background())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if !c.bounds.known {
		return now, now
	}
	return c.bounds.at(c.instant(now))
}

// begin stamps a login that begins now.
func (c *Clock) begin(ctx context.Context) (began time.Time, era string, err error) {
	if err := c.exact(ctx); err != nil {
		return time.Time{}, "", err
	}
	began, _ = c.between()
	return store.Time(began), c.era, nil
}

// compared returns a login's stamp as it is to be compared with the marks of endings now, and the time to judge its age
// by. Marks that were left after the clock was set back may be lower than stamps from before that; and the stamps of
// another process tell nothing where each process has its own clock: any mark that is still there bars such a login.
func (c *Clock) compared(ctx context.Context, began time.Time, era string) (stamp, now time.Time, err error) {
	if c.volatile && era != "" && era != c.era {
		return time.Time{}, time.Time{}, store.ErrEnded // a logout may have named it, and that is forgotten
	}
	if err := c.exact(ctx); err != nil {
		return time.Time{}, time.Time{}, err
	}
	_, now = c.between()
	now = store.Time(now)
	if now.Sub(began) >= store.AttemptLifetime {
		return began, now, nil
	}
	c.mu.Lock()
	stamp = began.Add(-c.bounds.setBack(c.instant(c.now())))
	c.mu.Unlock()
	lowest := now.Add(time.Microsecond - store.AttemptLifetime)
	if era != "" && era != c.era || stamp.Before(lowest) {
		stamp = lowest
	}
	return store.Time(stamp), now, nil
}

// instant is a time of this machine, since some moment, by both of its clocks. The monotonic one stands still while the
// machine is suspended, and the wall clock can be set.
type instant struct{ mono, wall time.Duration }

// bounds are what is known of a clock elsewhere. The zero value, with a drift, knows nothing.
type bounds struct {
	// own: the clock is this machine's own wall clock, and what tells that it was set is the monotonic clock alone.
	own bool
	// drift: in a second either clock may gain or lose one drift-th of a second on the other. Linux lets no clock be
	// slewed by more than a tenth (adjtimex(2); chrony does up to a twelfth), so two differ by less than a quarter. The
	// two clocks of one machine are slewed alike.
	drift time.Duration

	known            bool
	earliest, latest time.Time // it was between these
	seen             instant   // when it was this

	back   time.Duration // by how much it was set back
	backAt instant       // when that was seen
}

// elapsed says how long it was from one instant to another, at least and at most.
func (b *bounds) elapsed(from, to instant) (least, most time.Duration) {
	mono, wall := to.mono-from.mono, to.wall-from.wall
	if b.own {
		wall = mono
	}
	return max(0, min(mono, wall)), max(0, mono, wall)
}

// at returns the bounds at a later instant.
func (b *bounds) at(now instant) (earliest, latest time.Time) {
	least, most := b.elapsed(b.seen, now)
	return b.earliest.Add(least - least/b.drift), b.latest.Add(most + most/b.drift)
}

// observe takes in that it was at at some moment between before and after. What was known before still counts, so a
// slow reading makes the bounds no wider. It returns by how much the clock was set back, if that is what the reading
// shows.
func (b *bounds) observe(at time.Time, before, after instant) (back time.Duration) {
	_, took := b.elapsed(before, after)
	earliest, latest := at, at.Add(took+took/b.drift+time.Microsecond) // at has no fractions of one
	if b.known {
		low, high := b.at(after)
		switch {
		case latest.Before(low):
			back = high.Sub(earliest)
			b.back, b.backAt = b.setBack(after)+back, after
		case earliest.After(high): // it was set forward: stamps from now on are higher than all before
		default:
			earliest, latest = later(earliest, low), earlier(latest, high)
		}
	}
	b.known, b.earliest, b.latest, b.seen = true, earliest, latest, after
	return back
}

// setBack says by how much the clock may be behind what it was when a login began that is still under way.
func (b *bounds) setBack(now instant) time.Duration {
	if least, _ := b.elapsed(b.backAt, now); b.back == 0 || least >= b.back+store.AttemptLifetime {
		return 0
	}
	return b.back
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
