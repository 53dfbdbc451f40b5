package oidc

import (
	"context"
	"errors"
	"sync"
	"time"
)

// cached keeps one document of the provider. There is at most one fetch at a time. Each caller waits with its own
// context, and no caller's context ends the fetch: it ends by itself, within the time that the function fetch allows.
type cached[T any] struct {
	fetch func(context.Context) (T, error) // must return within a bounded time
	now   func() time.Time
	// older than this it is fetched again in the background; when it is twice as old, callers wait for that
	fresh time.Duration
	stale time.Duration // older than this it is not served any more; 0: always served

	mu      sync.Mutex
	doc     *document[T] // nil when there is none
	begun   int          // how many fetches have begun
	running *fetching
	next    chan struct{} // closed when the next fetch has ended; nil while nobody waits for that
	failed  time.Time     // when the last fetch failed; zero when it did not
	err     error         // what it failed with
	retry   time.Time     // no fetch in the background before this
}

type fetching struct {
	done chan struct{} // closed when the fetch has ended
	err  error         // to be read after that
}

const (
	retryNeeded  = time.Second // between fetches that failed and without which nothing works
	retryRefresh = time.Minute // between fetches that failed and that could wait
)

// document is what a fetch brought.
type document[T any] struct {
	value  T
	begun  time.Time // when the fetch began
	number int       // of the fetch; the first is 1
}

// get returns the document, fetched if there is none to be served. An error is an [ErrUnavailable].
func (c *cached[T]) get(ctx context.Context) (T, error) {
	d, err := c.have(ctx)
	if err != nil {
		var none T
		return none, err
	}
	return d.value, nil
}

// have is get for callers that need to know which fetch brought the document.
func (c *cached[T]) have(ctx context.Context) (*document[T], error) {
	c.mu.Lock()
	now := c.now()
	if c.servable(now) {
		if age := now.Sub(c.doc.begun); age >= c.fresh && !now.Before(c.retry) {
			f := c.start(now)
			if age >= 2*c.fresh { // nobody has asked for long: what the provider withdrew is not to be served once more
				c.mu.Unlock()
				_ = f.wait(ctx) // the old one is served if it fails
				c.mu.Lock()
			}
		}
		d := c.doc
		c.mu.Unlock()
		return d, nil
	}
	if c.running == nil && !c.failed.IsZero() && now.Sub(c.failed) < retryNeeded && !now.Before(c.failed) {
		err := c.err
		c.mu.Unlock()
		return nil, err
	}
	f := c.start(now)
	c.mu.Unlock()

	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doc, nil
}

// peek returns the document if it may be served, or nil. It begins no fetch.
func (c *cached[T]) peek() *document[T] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.servable(c.now()) {
		return nil
	}
	return c.doc
}

// renew has the document fetched anew: by the fetch under way, or by a new one if allow says so. It reports whether
// there is one, and does not wait for it.
func (c *cached[T]) renew(allow func() bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	allowed := c.running != nil || allow()
	if allowed {
		c.start(c.now())
	}
	return allowed
}

// count returns how many fetches have begun.
func (c *cached[T]) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begun
}

// landing returns a channel that is closed when the next fetch has ended, well or badly.
func (c *cached[T]) landing() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = make(chan struct{})
	}
	return c.next
}

// trouble returns why the last fetch failed; nil when it did not.
func (c *cached[T]) trouble() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// expire has the document fetched again when it is next needed, and keeps the present one until then.
func (c *cached[T]) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.doc != nil && c.fresh > 0 {
		if old := c.now().Add(-c.fresh); c.doc.begun.After(old) {
			d := *c.doc
			d.begun = old
			c.doc = &d
		}
	}
}

func (c *cached[T]) servable(now time.Time) bool {
	return c.doc != nil && (c.stale == 0 || now.Sub(c.doc.begun) < c.stale)
}

// start begins a fetch unless one is under way. c.mu is held.
func (c *cached[T]) start(now time.Time) *fetching {
	if c.running != nil {
		return c.running
	}
	c.begun++
	d := &document[T]{begun: now, number: c.begun}
	f := &fetching{done: make(chan struct{})}
	c.running = f
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
			d.value = v
			c.doc, c.failed, c.err = d, time.Time{}, nil
		}
		c.running = nil
		close(f.done)
		if c.next != nil {
			close(c.next)
			c.next = nil
		}
	}()
	return f
}

// wait returns when the fetch has ended or ctx is done.
func (f *fetching) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return unavailable("gave up waiting for its answer: %w", ctx.Err())
	}
}
