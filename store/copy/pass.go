package storecopy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/curfew/internal/wait"
	"example.com/curfew/store"
)

const (
	pageSize = 1000 // sessions in memory, of each store
	writers  = 64   // changes under way at to at the same time
	tries    = 3    // of each step
)

// tally counts what a pass found and did.
type tally struct {
	Result
	unsure  int // sessions that another process changed at to meanwhile: they are to be compared again
	refused RefusedError
}

func (t *tally) changes() int { return t.Created + t.Updated + t.Ended + t.unsure }

// job is a session that at least one of the two stores has.
type job struct{ from, to *store.Record }

// pass goes through both stores once. With write it makes the sessions at to equal to those at from.
func (c *copier) pass(ctx context.Context, name string, write bool) (t tally, err error) {
	now := c.now()
	to := &walk{store: c.to, now: now}
	for after := (store.Key{}); ; {
		page, err := list(ctx, c.from, after, now)
		if err != nil {
			return t, fmt.Errorf("FROM: %w", err)
		}
		t.Living += len(page.Records)
		if err := c.compare(ctx, &t, page, to, write); err != nil {
			return t, err
		}
		if after = page.Next; after.IsZero() {
			break
		}
		// Keys begin with a hash, so they are spread evenly over the key space.
		c.progress(name, float64(binary.BigEndian.Uint32(after[:4]))/(1<<32), t.Living)
	}
	c.progress(name, 1, t.Living)
	if !write {
		return t, nil
	}
	return t, c.catchUp(ctx, &t)
}

func list(ctx context.Context, backend store.Store, after store.Key, now time.Time) (page store.Page, err error) {
	err = retry(ctx, func() (err error) {
		page, err = backend.List(ctx, store.Query{After: after, Limit: pageSize}, now)
		return err
	})
	return page, err
}

// compare compares a page of from with the sessions at to between the same keys.
func (c *copier) compare(ctx context.Context, t *tally, page store.Page, to *walk, write bool) error {
	var jobs []job
	add := func(j job) error {
		if jobs = append(jobs, j); len(jobs) < pageSize {
			return nil
		}
		err := c.work(ctx, t, jobs, write)
		jobs = jobs[:0]
		return err
	}
	for i := range page.Records {
		r := &page.Records[i]
		have, err := to.until(ctx, r.Key, func(extra store.Record) error { return add(job{to: &extra}) })
		if err == nil {
			err = add(job{from: r, to: have})
		}
		if err != nil {
			return err
		}
	}
	last := page.Next
	if last.IsZero() {
		last = store.Key(bytes.Repeat([]byte{0xff}, len(last)))
	}
	have, err := to.until(ctx, last, func(extra store.Record) error { return add(job{to: &extra}) })
	if err == nil && have != nil { // the last one of from has been added above, so only to has this one
		err = add(job{to: have})
	}
	if err == nil {
		err = c.work(ctx, t, jobs, write)
	}
	return err
}

// walk goes through a store in the order of the keys.
type walk struct {
	store store.Store
	now   time.Time
	page  []store.Record // the records of the current page that are still to come
	next  store.Key
	begun bool
}

// until calls extra with each session before key, and returns the session with that key, or nil.
func (w *walk) until(ctx context.Context, key store.Key, extra func(store.Record) error) (*store.Record, error) {
	for {
		for len(w.page) == 0 {
			if w.begun && w.next.IsZero() {
				return nil, nil
			}
			page, err := list(ctx, w.store, w.next, w.now)
			if err != nil {
				return nil, fmt.Errorf("TO: %w", err)
			}
			w.page, w.next, w.begun = page.Records, page.Next, true
		}
		r := w.page[0]
		order := bytes.Compare(r.Key[:], key[:])
		if order > 0 {
			return nil, nil
		}
		w.page = w.page[1:]
		if order == 0 {
			return &r, nil
		}
		if err := extra(r); err != nil {
			return nil, err
		}
	}
}

// work does the jobs, several at a time.
func (c *copier) work(ctx context.Context, t *tally, jobs []job, write bool) error {
	var suspects []store.Record
	err := forEach(ctx, jobs, func(ctx context.Context, j job) (func(), error) {
		now := c.now()
		if j.from != nil {
			return c.reconcile(ctx, t, j, now, write)
		}
		extra, err := c.surplus(ctx, j.to, now)
		switch {
		case err != nil || !extra:
			return nil, err
		case write && c.mirror:
			return c.end(ctx, t, store.Ended{Key: j.to.Key, Issuer: j.to.Issuer, ClientID: j.to.ClientID})
		}
		return func() { suspects = append(suspects, *j.to) }, nil
	})
	if err != nil {
		return err
	}
	if len(suspects) > 0 {
		// They may have ended at from a moment ago. After Sync the feed has reported that.
		if err := c.feed.Sync(ctx); err != nil {
			return feedBroken(err)
		}
	}
	for _, r := range suspects {
		if c.hasEnded(r.Key) {
			continue
		}
		if t.refused.Extras++; len(t.refused.Extra) < shown {
			t.refused.Extra = append(t.refused.Extra, r)
		}
	}
	return nil
}

// forEach calls do for each of all, several at a time. The functions that do returns are called one at a time.
func forEach[T any](ctx context.Context, all []T, do func(context.Context, T) (func(), error)) error {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for _, one := range all {
		group.Go(func() error {
			var then func()
			err := retry(ctx, func() (err error) { then, err = do(ctx, one); return err })
			if err == nil && then != nil {
				mu.Lock()
				defer mu.Unlock()
				then()
			}
			return err
		})
	}
	return group.Wait()
}

// retry calls do up to three times: a failover should not break a long copy. It must be safe to call do twice.
func retry(ctx context.Context, do func() error) error {
	for try := time.Duration(1); ; try++ {
		err := do()
		if err == nil || try == tries || !wait.Sleep(ctx, try*time.Second) {
			return err
		}
	}
}

// reconcile makes a session at to equal to that at from. It returns a function that counts what was done.
func (c *copier) reconcile(ctx context.Context, t *tally, j job, now time.Time, write bool) (func(), error) {
	switch {
	case !j.from.Lives(now):
		return nil, nil // it is not alive at to either
	case j.to != nil && same(j.from, j.to):
		return func() { t.Same++ }, nil
	case !write:
		if j.to != nil && j.to.LastSeen.After(j.from.LastSeen) {
			return func() { t.refused.Newer++ }, nil
		}
		return nil, nil
	case j.to != nil:
		return c.update(ctx, t, j.from, j.to, now)
	}
	return c.create(ctx, t, j.from, now)
}

// same compares everything that can change in a session, except the revision, which each store counts by itself.
func same(a, b *store.Record) bool {
	return a.LastSeen.Equal(b.LastSeen) && a.IdleExpires.Equal(b.IdleExpires) && a.Expires.Equal(b.Expires) &&
		a.Refresh == b.Refresh && bytes.Equal(a.Payload, b.Payload) && sameSIDs(a, b)
}

func sameSIDs(a, b *store.Record) bool { return a.SID == b.SID && slices.Equal(a.Former, b.Former) }

// surplus reports whether a session that lives at to is not at from.
func (c *copier) surplus(ctx context.Context, r *store.Record, now time.Time) (bool, error) {
	if !r.Lives(now) {
		return false, nil
	}
	// It may have been created after the page of from was read, and copied by another process.
	_, err := c.from.Find(ctx, r.Key, now)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, fmt.Errorf("FROM: %w", err)
	}
	return err != nil, nil
}

// begun returns when a session began, for [store.Sessions.Create] at to. An end mark at to from then or later bars the
// session. It goes back no further than end marks are kept: an older login is refused for its age.
func begun(r *store.Record, now time.Time) time.Time {
	earliest := now.Add(time.Microsecond - store.AttemptLifetime)
	if r.Created.After(earliest) {
		return r.Created
	}
	return earliest
}

// create creates a session at to, unless an end mark there bars it.
func (c *copier) create(ctx context.Context, t *tally, r *store.Record, now time.Time) (func(), error) {
	began := begun(r, now)
	err := c.to.Create(ctx, *r, began, now)
	if err != nil && !errors.Is(err, store.ErrEnded) {
		// It may exist at to. If it was copied before it was last used at from, it may also have expired at to.
		have, missing := c.to.Find(ctx, r.Key, now)
		if missing == nil {
			return c.update(ctx, t, r, &have, now)
		}
		if !errors.Is(missing, store.ErrNotFound) {
			return nil, fmt.Errorf("TO: %w", err)
		}
		if _, err := c.end(ctx, t, store.Ended{Key: r.Key, Issuer: r.Issuer, ClientID: r.ClientID}); err != nil {
			return nil, err
		}
		err = c.to.Create(ctx, *r, began, now)
	}
	switch {
	case errors.Is(err, store.ErrEnded):
		return func() { t.Barred++ }, nil
	case err != nil:
		return nil, fmt.Errorf("TO: %w", err)
	}
	return func() { t.Created++ }, nil
}

// update makes a session at to equal to that at from. If its sid has changed since, an end mark may bar the new one.
// Then the session is ended at to, where it could not be found by that sid.
func (c *copier) update(ctx context.Context, t *tally, r, have *store.Record, now time.Time) (func(), error) {
	if same(r, have) {
		return func() { t.Same++ }, nil
	}
	next := *r
	next.Revision = have.Revision
	var err error
	if sameSIDs(r, have) {
		err = c.to.Update(ctx, next, now)
	} else {
		err = c.to.Rename(ctx, next, begun(r, now), now)
	}
	switch {
	case errors.Is(err, store.ErrEnded):
		_, err := c.end(ctx, t, store.Ended{Key: r.Key, Issuer: r.Issuer, ClientID: r.ClientID})
		return func() { t.Barred++ }, err
	case errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound):
		return func() { t.unsure++ }, nil
	case err != nil:
		return nil, fmt.Errorf("TO: %w", err)
	}
	return func() { t.Updated++ }, nil
}

// end ends a session at to. It leaves no notices: they are sent from from.
func (c *copier) end(ctx context.Context, t *tally, e store.Ended) (func(), error) {
	who := store.Selector{Issuer: e.Issuer, ClientID: e.ClientID, Key: e.Key}
	ended, err := c.to.End(ctx, store.Ending{Selector: who, Cause: cmp.Or(e.Cause, store.CauseAdmin)}, c.now())
	if err != nil {
		return nil, fmt.Errorf("TO: %w", err)
	}
	return func() { t.Ended += len(ended) }, nil
}

// catchUp ends at to all sessions that ended at from before the call. It is called after all pages of a pass are
// written.
func (c *copier) catchUp(ctx context.Context, t *tally) error {
	if err := c.feed.Sync(ctx); err != nil {
		return feedBroken(err)
	}
	c.mu.Lock()
	news := c.pending
	c.pending = nil
	c.mu.Unlock()
	return forEach(ctx, news, func(ctx context.Context, e store.Ended) (func(), error) { return c.end(ctx, t, e) })
}

func feedBroken(err error) error {
	return fmt.Errorf("FROM: what ended there meanwhile may have been missed, run this again: %w", err)
}
