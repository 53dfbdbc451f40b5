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
	passes = 3 // how many passes there are at most while FROM keeps changing
	shown  = 5 // how many sessions a RefusedError has

	signingKeys = "signing keys" // the name under which package fanout keeps them in the shared values
)

// Options says how to copy.
type Options struct {
	// Mirror ends sessions at TO that are not at FROM, and replaces the signing keys of TO. Without it such a copy is
	// refused. No process may use TO yet in any case.
	Mirror bool
	// Now is the clock of this process, such as [time.Now]. It is corrected by the clock of the stores.
	Now func() time.Time
	// Progress, if it is not nil, is called with how much of a pass is done, from 0 to 1, and with how many sessions.
	Progress func(pass string, done float64, sessions int)
}

// Result says what [Copy] found and did.
type Result struct {
	Living  int // sessions at FROM
	Same    int // of them, were at TO already and equal
	Created int // were not at TO
	Updated int // were different at TO
	Ended   int // were at TO, and had ended at FROM
	Barred  int // were not copied: a logout at TO names them
	// Settled reports whether the last pass found nothing to do: TO has every session of FROM. Otherwise FROM kept
	// changing, so some process uses it.
	Settled bool
}

// RefusedError is the error of a copy that was refused because TO has data that FROM does not have.
type RefusedError struct {
	Extra   []store.Record // some of the sessions that only TO has
	Extras  int            // how many there are
	Newer   int            // how many sessions were used at TO later than at FROM
	Keys    bool           // the signing keys differ
	Changed bool           // the copy had already changed something at TO
}

// Error returns what TO has.
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

// Copy copies the sessions that live at FROM, and its signing keys, to TO. It changes nothing at FROM, which may be in
// use. No process may use TO yet. A copy that failed or was interrupted can be repeated, and loses nothing.
//
// Both stores list their sessions in the order of their keys, so each pass goes through the two side by side. A session
// that only FROM has is created, one that differs is updated, and one that only TO has is ended or, without Mirror,
// refused with a [RefusedError] before anything was changed.
//
// Copy watches FROM for sessions that end meanwhile. They may be on the page that is being copied, so they are ended at
// TO after the pass, when everything has been written. A session at TO that has ended at FROM before is ended by the
// next copy. So the last copy, when FROM is no longer in use, leaves exactly the sessions that live there.
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

// clock returns the time of the store that has a clock of its own, TO first, or else that of this process.
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

	feed    store.Feed
	mu      sync.Mutex
	ended   map[store.Key]struct{} // ended at from since the copy began; grows with their number
	pending []store.Ended          // those of them that have not been ended at to yet
}

// run copies until a pass finds nothing to do.
func (c *copier) run(ctx context.Context) (total Result, err error) {
	c.ended = make(map[store.Key]struct{})
	if c.feed, err = c.from.Watch(ctx, c.onEnded); err != nil {
		return total, fmt.Errorf("FROM: %w", err)
	}
	defer c.feed.Close()
	if err := c.feed.Sync(ctx); err != nil { // it proves nothing about earlier endings, so nothing is read before
		return total, feedBroken(err)
	}
	if err := c.precheck(ctx); err != nil {
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
		total.Created += t.Created
		total.Updated += t.Updated
		total.Ended += t.Ended
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
	if err := c.copyKeys(ctx, true); err != nil {
		return total, err
	}
	return total, c.leaveTime(ctx)
}

// leaveTime leaves at to when it was copied. End marks are not copied, so an access token that was issued before, and
// is not a session there, may have been ended.
func (c *copier) leaveTime(ctx context.Context) error {
	_, revision, err := c.to.Load(ctx, store.CopiedValue)
	if err != nil {
		return wrap("TO: the time of the copy", err)
	}
	at := c.now().UTC().Format(time.RFC3339Nano)
	return wrap("TO: the time of the copy", c.to.Save(ctx, store.CopiedValue, []byte(at), revision))
}

// precheck refuses a copy that cannot be right, before anything is changed.
func (c *copier) precheck(ctx context.Context) error {
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

// onEnded is called with each session that ends at from.
func (c *copier) onEnded(e store.Ended) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended[e.Key] = struct{}{}
	c.pending = append(c.pending, e)
}

func (c *copier) hasEnded(k store.Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ended := c.ended[k]
	return ended
}

// copyKeys copies the keys that sign logout tokens, sealed as they are, so that apps go on accepting these tokens.
// Without write it only checks whether they may be copied.
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
