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
	clockEvery   = time.Second            // between two readings in the background
	clockFresh   = 50 * time.Millisecond  // a login uses no older reading, if a new one can be had in time
	clockWait    = 250 * time.Millisecond // how long a login waits for a fresh reading
	clockStale   = time.Minute            // without a newer reading no login begins or is completed
	clockTimeout = 5 * time.Second        // of one reading
	clockOff     = 5 * time.Second        // a difference from here on is logged
)

// Clock compares times that were taken on different replicas. It knows bounds of the store's time, not the exact time:
// a reading takes a while, and the store may have answered at any moment of it. An app does not need it, since
// [NewManager] makes one.
//
//   - A login is stamped with the earliest time that the store may have.
//   - An ending is stamped by the store itself, when it is carried out; see [store.Sessions.End].
//
// So a login that began before an ending has the lower stamp, however slow the reading was. The cost of a slow reading
// is that a login that begins shortly after an ending may be refused: within as long as the reading took.
//
// A store without a clock belongs to one process, and the clock of that process is read instead.
type Clock struct {
	source   func(context.Context) (time.Time, error) // nil: the clock of this process is used
	now      func() time.Time
	start    time.Time // instants count from here
	log      *slog.Logger
	era      string
	volatile bool // end marks end with the process of the store: logins of another era are refused

	offset atomic.Int64 // from the clock of this process to the middle of the bounds, in nanoseconds
	known  atomic.Bool  // there has been a reading

	mu      sync.Mutex
	bounds  bounds
	read    instant  // when the last successful reading began
	reading *reading // the one under way, or nil
}

// reading is a reading under way. err may be read once done is closed.
type reading struct {
	done chan struct{}
	err  error
}

// sharedEra is the era of every store with a clock. Without one each process has an era of its own, since the clock of
// the process before it may have been ahead.
const sharedEra = "store"

// NewClock returns the clock for a store, to share it between a [Manager] and other code ([Config.Clock]). now is the
// clock of this process.
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

// run reads the clock every second until ctx is done.
func (c *Clock) run(ctx context.Context) {
	for failed := false; ; {
		err := c.refresh(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			c.log.WarnContext(ctx, "the store's clock cannot be read: a minute from now no login can begin without it",
				"event", "clock_unread", "error", err)
		}
		failed = err != nil
		if !wait.Sleep(ctx, clockEvery) {
			return
		}
	}
}

// ensureRead returns nil once a reading has succeeded. It takes the first one itself if needed; the error is
// [ErrUnavailable].
func (c *Clock) ensureRead(ctx context.Context) error {
	if c.known.Load() {
		return nil
	}
	if err := c.refresh(ctx); err != nil && !c.known.Load() {
		return fmt.Errorf("%w: its clock: %w", ErrUnavailable, err)
	}
	return nil
}

// ensureFresh is ensureRead that also waits shortly for a fresh reading. Without one the bounds are wider, but they
// hold.
func (c *Clock) ensureFresh(ctx context.Context) error {
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

// refresh waits for a reading. Concurrent callers share one, which goes on if a caller's ctx is done.
func (c *Clock) refresh(ctx context.Context) error {
	if c.source == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		// Under the lock: recorded after a later one, it would look like a clock that was set back. So would one that was
		// held up after the wall clock and before the monotonic one, which are read one after the other; hence before.
		before := c.now()
		now := c.now()
		c.observe(now, before, now)
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

// observe records a reading: at some moment between before and after, by the clock of this process, the store's time
// was at. mu is held.
func (c *Clock) observe(at, before, after time.Time) {
	back := c.bounds.observe(store.Time(at), c.instant(before), c.instant(after))
	c.read = c.instant(before)
	if back > 0 {
		c.log.Warn("the clock that orders logins and logouts was set back: until the logins from before that have "+
			"ended, somebody who signs out has to wait for as long before signing in again",
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

// Now returns the approximate time of the store.
func (c *Clock) Now() time.Time { return c.now().Add(time.Duration(c.offset.Load())) }

// since returns how long ago a time of this process's clock is, at most.
func (c *Clock) since(then time.Time) time.Duration {
	now := c.now()
	return max(0, now.Sub(then), now.Round(0).Sub(then.Round(0)))
}

// instant returns a time of this process's clock in the form that bounds use.
func (c *Clock) instant(t time.Time) instant {
	return instant{mono: t.Sub(c.start), wall: t.Round(0).Sub(c.start.Round(0))}
}

// between returns bounds of the store's time. Before the first reading it returns the time of this process.
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

// begin returns the stamp of a login that begins now.
func (c *Clock) begin(ctx context.Context) (began time.Time, era string, err error) {
	if err := c.ensureFresh(ctx); err != nil {
		return time.Time{}, "", err
	}
	began, _ = c.between()
	return store.Time(began), c.era, nil
}

// comparableStamp returns the stamp of a login in the form that is compared with the end marks of now, and the time by
// which its age is judged.
//
// End marks that were left after the clock was set back may be lower than stamps from before that. Where each process
// has its own clock, the stamp of another process says nothing. In both cases every end mark that is still there bars
// the login.
func (c *Clock) comparableStamp(ctx context.Context, began time.Time, era string) (stamp, now time.Time, err error) {
	if c.volatile && era != "" && era != c.era {
		return time.Time{}, time.Time{}, store.ErrEnded // a logout may have named it, and its end mark is lost
	}
	if err := c.ensureFresh(ctx); err != nil {
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

// instant is a time of this machine since [Clock.start] by both of its clocks. The monotonic clock stands still while
// the machine is suspended, and the wall clock can be set.
type instant struct{ mono, wall time.Duration }

// bounds are the bounds of a clock elsewhere. The zero value, with a drift, knows nothing.
type bounds struct {
	// own means that the clock is the wall clock of this machine. Only the monotonic clock can then show that it was
	// set.
	own bool
	// drift: in a second either clock may gain or lose 1/drift seconds on the other. Linux slews a clock by a tenth at
	// most (adjtimex(2); chrony by up to a twelfth), so two clocks differ by less than a quarter. The two clocks of one
	// machine are slewed alike.
	drift time.Duration

	known            bool
	earliest, latest time.Time // at the instant seen the clock was between these
	highest          time.Time // latest by the last reading alone; see observe
	seen             instant

	back   time.Duration // by how much the clock was set back
	backAt instant       // when that was seen
}

// elapsed returns how long it was from one instant to another, at least and at most.
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

// observe records that the clock showed at at some moment between before and after. The bounds from before still count,
// so a slow reading does not widen them. It returns by how much the clock was set back, if the reading shows that. A
// slow reading may not show that the clock was set forward, and then leaves latest too low. So how far the clock was
// set back is counted from the most that the reading before allowed by itself.
func (b *bounds) observe(at time.Time, before, after instant) (back time.Duration) {
	_, took := b.elapsed(before, after)
	earliest, latest := at, at.Add(took+took/b.drift+time.Microsecond) // at is cut to microseconds
	highest := latest
	if b.known {
		low, high := b.at(after)
		switch {
		case latest.Before(low):
			_, most := b.elapsed(b.seen, after)
			back = b.highest.Add(most + most/b.drift).Sub(earliest)
			b.back, b.backAt = b.setBack(after)+back, after
		case earliest.After(high): // it was set forward: stamps from now on are higher than all earlier ones
		default:
			earliest, latest = later(earliest, low), earlier(latest, high)
		}
	}
	b.known, b.earliest, b.latest, b.highest, b.seen = true, earliest, latest, highest, after
	return back
}

// setBack returns by how much the clock may be behind what it showed when a login that is still under way began.
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
