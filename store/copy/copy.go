package storecopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/curfew/store"
)

const (
	passes = 3 // how often FROM is looked through while it goes on changing
	shown  = 5 // sessions that a RefusedError shows

	signingKeys = "signing keys" // under this name, package fanout keeps them in the shared values
)

// Options says how to copy.
type Options struct {
	// Mirror ends at TO what is not at FROM, and replaces the signing keys of TO. Without it such a copy is refused: no
	// process may use TO yet.
	Mirror bool
	// Now is the clock of this process, such as [time.Now]. It is corrected by the clock of the stores.
	Now func() time.Time
	// Progress, if it is not nil, is told how much of a pass is done, from 0 to 1, and how many sessions that were.
	Progress func(pass string, done float64, sessions int)
}

// Result says what [Copy] found and did.
type Result struct {
	Living  int // sessions at FROM
	Same    int // were at TO already, just so
	Created int // were not at TO
	Updated int // were different at TO
	Ended   int // were at TO, and had ended at FROM
	Barred  int // were not copied: a logout at TO names them
	// Settled says whether the last pass found nothing to do: TO has every session of FROM. Otherwise FROM went on
	// changing, so some process uses it.
	Settled bool
}

// RefusedError is the error of a copy that is refused, since TO holds what FROM does not hold.
type RefusedError struct {
	Extra   []store.Record // some of the sessions that only TO has
	Extras  int            // all of these
	Newer   int            // sessions used at TO later than at FROM
	Keys    bool           // the signing keys differ
	Changed bool           // something had been changed at TO by then
}

// Error says what TO holds.
func (r *RefusedError) Error() string {
	switch {
	case r.Extras > 0:
		return plural(r.Extras) + " at TO and not at FROM"
	case r.Newer > 0:
		return plural(r.Newer) + " used at TO later than at FROM"
	}
	return "TO has signing keys that are not those of FROM"
}

func plural(sessions int) string {
	if sessions == 1 {
		return "1 session"
	}
	return fmt.Sprintf("%d sessions", sessions)
}

var errSwapped = errors.New(
	"nobody is signed in at FROM, and somebody is at TO: have the two been swapped? Nothing was changed")

// Copy makes TO hold the sessions that live at FROM, and its signing keys. It changes nothing at FROM, which may be in
// use; no process may use TO yet. A copy that failed or was interrupted can be repeated, and loses nothing.
//
// Both stores list their sessions in the order of their keys, so each pass goes through the two side by side. What only
// FROM has is created, what differs is updated, and what only TO has is ended, or else refused with a [RefusedError]
// before anything has been changed.
//
// Copy watches FROM for sessions that end there meanwhile. They may be on the page that is being copied, so they are
// ended at TO after the pass, when everything has been written. A session that is at TO though it has ended at FROM
// ends at the next copy. So the last copy, when FROM is not used any more, leaves exactly what lives there.
func Copy(ctx context.Context, from, to store.Store, o Options) (Result, error) {
	now, err := clock(ctx, from, to, o.Now)
	if err != nil {
		return Result{}, err
	}
	c := &copier{from: from, to: to, now: now, mirror: o.Mirror, progress: o.Progress}
	if c.progress == nil {
		c.progress = func(string, float64, int) {}
	}
	result, err := c.run(ctx)
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		refused.Changed = result.Created+result.Updated+result.Ended > 0
	}
	return result, err
}

// clock returns the time by the store whose clock all replicas will see, or have seen, or else by our own.
func clock(ctx context.Context, from, to store.Store, now func() time.Time) (func() time.Time, error) {
	for _, s := range []store.Store{to, from} {
		read := s.Clock().Now
		if read == nil {
			continue
		}
		began := now()
		at, err := read(ctx)
		if err != nil {
			return nil, err
		}
		offset := at.Sub(began)
		return func() time.Time { return store.Time(now().Add(offset)) }, nil
	}
	return func() time.Time { return store.Time(now()) }, nil
}

// copier copies what lives at from to to.
type copier struct {
	from, to store.Store
	now      func() time.Time
	mirror   bool
	progress func(pass string, done float64, sessions int)

	feed  store.Feed
	mu    sync.Mutex
	ended map[store.Key]struct{} // at from, since it is watched: this takes as much memory as there are
	news  []store.Ended          // those of them that have not been ended at to yet
}

// run copies until a pass finds nothing to do.
func (c *copier) run(ctx context.Context) (total Result, err error) {
	c.ended = make(map[store.Key]struct{})
	if c.feed, err = c.from.Watch(ctx, c.hear); err != nil {
		return total, fmt.Errorf("FROM: %w", err)
	}
	defer c.feed.Close()
	if err := c.survey(ctx); err != nil {
		return total, err
	}
	for n := range passes {
		name := "looking again"
		if n == 0 {
			name = "copying"
		}
		t, err := c.pass(ctx, name, true)
		if n == 0 {
			total.Same = t.Same
		}
		total.Living, total.Barred = t.Living, t.Barred
		total.Created, total.Updated, total.Ended = total.Created+t.Created, total.Updated+t.Updated,
			total.Ended+t.Ended
		if err != nil {
			return total, err
		}
		if t.refused.Extras > 0 { // and there were none before
			return total, &t.refused
		}
		if total.Settled = t.changes() == 0; total.Settled {
			break
		}
	}
	return total, c.copyKeys(ctx, true)
}

// survey refuses what cannot be right, before anything is changed.
func (c *copier) survey(ctx context.Context) error {
	from, err := c.from.List(ctx, store.Query{Limit: 1}, c.now())
	if err != nil {
		return fmt.Errorf("FROM: %w", err)
	}
	to, err := c.to.List(ctx, store.Query{Limit: 1}, c.now())
	if err != nil {
		return fmt.Errorf("TO: %w", err)
	}
	if c.mirror {
		if len(from.Records) == 0 && len(to.Records) > 0 {
			return errSwapped
		}
		return nil
	}
	if len(to.Records) > 0 {
		t, err := c.pass(ctx, "comparing", false)
		if err != nil {
			return err
		}
		if t.refused.Extras > 0 || t.refused.Newer > 0 {
			return &t.refused
		}
	}
	return c.copyKeys(ctx, false)
}

// hear is called with each session that ends at from.
func (c *copier) hear(e store.Ended) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended[e.Key] = struct{}{}
	c.news = append(c.news, e)
}

func (c *copier) hasEnded(k store.Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ended := c.ended[k]
	return ended
}

// copyKeys copies the keys that sign logout tokens, sealed as they are, so that apps go on accepting these tokens.
// Without write it only says whether they may be copied.
func (c *copier) copyKeys(ctx context.Context, write bool) error {
	value, revision, err := c.from.Load(ctx, signingKeys)
	if err != nil || revision == 0 {
		return wrap("FROM: signing keys", err)
	}
	have, revision, err := c.to.Load(ctx, signingKeys)
	switch {
	case err != nil:
		return wrap("TO: signing keys", err)
	case bytes.Equal(value, have):
		return nil
	case revision > 0 && !c.mirror:
		return &RefusedError{Keys: true}
	case !write:
		return nil
	}
	return wrap("TO: signing keys", c.to.Save(ctx, signingKeys, value, revision))
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
