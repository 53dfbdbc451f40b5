package oidc

import (
	"context"
	"errors"
	"sync"
	"time"
)

// cached keeps one document of the provider. However many ask, one fetch is in flight; each waits with its own
// context, and the fetch belongs to none of them: it ends by itself, within the time that fetch allows it.
type cached[T any] struct {
	fetch func(context.Context) (T, error) // must return within a bounded time
	now   func() time.Time
	fresh time.Duration // older than this it is fetched again, behind the callers' backs; twice as old, they wait for it
	stale time.Duration // older than this it is not served any more; 0: always served

	mu     sync.Mutex
	value  T
	begun  time.Time // when the fetch began that brought value; zero when there is none
	flight *flight
	failed time.Time // when the last fetch failed; zero when it did not
	err    error     // what it failed with
	retry  time.Time // no fetch behind the callers' backs before this
}

type flight struct {
	begun time.Time
	done  chan struct{} // closed when it has landed
	err   error         // to be read when it has
}

const (
	retryNeeded  = time.Second // between fetches that failed and without which nothing works
	retryRefresh = time.Minute // between fetches that failed and that could wait
)

// get returns the document, fetched if there is none to be served. An error is an [ErrUnavailable].
func (c *cached[T]) get(ctx context.Context) (T, error) {
	c.mu.Lock()
	now := c.now()
	if c.servable(now) {
		if age := now.Sub(c.begun); age >= c.fresh && !now.Before(c.retry) {
			f := c.start(now)
			if age >= 2*c.fresh { // nobody has asked for long: what the provider withdrew is not to be served once more
				c.mu.Unlock()
				_ = f.wait(ctx) // the old one is served if it fails
				c.mu.Lock()
			}
		}
		v := c.value
		c.mu.Unlock()
		return v, nil
	}
	if c.flight == nil && !c.failed.IsZero() && now.Sub(c.failed) < retryNeeded && !now.Before(c.failed) {
		err := c.err
		c.mu.Unlock()
		var none T
		return none, err
	}
	f := c.start(now)
	c.mu.Unlock()

	var none T
	if err := f.wait(ctx); err != nil {
		return none, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value, nil
}

// renew fetches the document anew. It joins the fetch in flight, and then says so: that one began before the caller
// asked, and may have missed what he asks about. With none in flight it starts one if allow says so, and returns
// errRefused if not.
func (c *cached[T]) renew(ctx context.Context, allow func(now time.Time) bool) (v T, joined bool, err error) {
	c.mu.Lock()
	f := c.flight
	if joined = f != nil; !joined {
		now := c.now()
		if !allow(now) {
			c.mu.Unlock()
			return v, false, errRefused
		}
		f = c.start(now)
	}
	c.mu.Unlock()

	if err := f.wait(ctx); err != nil {
		return v, joined, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value, joined, nil
}

var errRefused = errors.New("refused")

// expire has the document fetched again at the next need, without letting go of the one there is.
func (c *cached[T]) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun.IsZero() && c.fresh > 0 {
		if old := c.now().Add(-c.fresh); c.begun.After(old) {
			c.begun = old
		}
	}
}

func (c *cached[T]) servable(now time.Time) bool {
	return !c.begun.IsZero() && (c.stale == 0 || now.Sub(c.begun) < c.stale)
}

// start begins a fetch unless one is in flight. c.mu is held.
func (c *cached[T]) start(now time.Time) *flight {
	if c.flight != nil {
		return c.flight
	}
	f := &flight{begun: now, done: make(chan struct{})}
	c.flight = f
	go func() {
		v, err := c.fetch(context.Background())
		if err != nil && !errors.Is(err, ErrUnavailable) {
			err = unavailable("%w", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			f.err, c.err, c.failed = err, err, c.now()
			c.retry = c.failed.Add(retryRefresh)
		} else {
			c.value, c.begun, c.failed, c.err = v, f.begun, time.Time{}, nil
		}
		c.flight = nil
		close(f.done)
	}()
	return f
}

// wait returns when the flight has landed or ctx is done.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return unavailable("gave up waiting for its answer: %w", ctx.Err())
	}
}
