package main

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

	"example.com/curfew/store"
)

const (
	copyPage    = 1000 // sessions at hand, of each store
	copyWriters = 64   // changes under way at TO
	copyPasses  = 3    // how often FROM is looked through while it goes on changing
	copyTries   = 3    // of each step
	copyShown   = 5    // sessions that are shown when the copy is refused

	signingKeys = "signing keys" // what fanout keeps in the vault
)

// mover copies what lives at from to to, which is not in service yet. It changes nothing at from, and may be run again.
//
// Both stores list their sessions in the order of their keys, so a pass walks through the two side by side: what only from
// has is created, what differs is brought up to date, and what only to has is ended, or else refused before anything has
// been changed.
//
// What ends at from meanwhile is heard of. It may be on a page that is at hand, so it is ended at to when the pass is over and
// everything has been written. A session that ended at from, and that to keeps for all that, ends at the next run. So
// the last run, when nobody uses from any more, leaves exactly what lived there.
type mover struct {
	from, to store.Store
	now      func() time.Time
	mirror   bool // end what from lacks
	moved    func(pass string, done float64, sessions int)

	feed  store.Feed
	mu    sync.Mutex
	ended map[store.Key]struct{} // at from, since it is watched: as much memory as there were
	news  []store.Ended          // of these, those that have not been ended at to yet
}

// tally is what a pass found and did.
type tally struct {
	living  int // at from
	same    int
	created int
	updated int
	ended   int
	barred  int // an end mark at to bars them
	unsure  int // were changed at to meanwhile: to be looked at again

	extra []store.Record // of what only to has, some
	extras,
	newer int // used at to after they were used at from
}

func (t *tally) changes() int { return t.created + t.updated + t.ended + t.unsure }

// errRefused: to holds what from does not.
type refusal struct {
	tally
	keys bool // the signing keys differ
}

func (r *refusal) Error() string {
	switch {
	case r.extras > 0:
		return fmt.Sprintf("%s at TO and not at FROM", count(r.extras, "session"))
	case r.newer > 0:
		return fmt.Sprintf("%s used at TO later than at FROM", count(r.newer, "session"))
	}
	return "TO has signing keys that are not those of FROM"
}

var errSwapped = errors.New("nobody is signed in at FROM, and somebody is at TO: have the two been swapped? Nothing was changed")

// run copies until a pass finds nothing to do any more, and says whether one did.
func (m *mover) run(ctx context.Context) (total tally, settled bool, err error) {
	m.ended = make(map[store.Key]struct{})
	if m.feed, err = m.from.Watch(ctx, m.hear); err != nil {
		return total, false, fmt.Errorf("FROM: %w", err)
	}
	defer m.feed.Close()
	if err := m.survey(ctx); err != nil {
		return total, false, err
	}
	for n := range copyPasses {
		t, err := m.pass(ctx, []string{"copying", "looking again", "looking again"}[n], true)
		total.created, total.updated, total.ended = total.created+t.created, total.updated+t.updated, total.ended+t.ended
		if n == 0 {
			total.same = t.same
		}
		total.living, total.barred = t.living, t.barred
		if err != nil {
			return total, false, err
		}
		if t.extras > 0 { // and there were none before
			return total, false, &refusal{tally: t}
		}
		if settled = t.changes() == 0; settled {
			break
		}
	}
	return total, settled, m.copyKeys(ctx, true)
}

// survey refuses what cannot be right, before anything is changed.
func (m *mover) survey(ctx context.Context) error {
	from, err := m.from.List(ctx, store.Query{Limit: 1}, m.now())
	if err != nil {
		return fmt.Errorf("FROM: %w", err)
	}
	to, err := m.to.List(ctx, store.Query{Limit: 1}, m.now())
	if err != nil {
		return fmt.Errorf("TO: %w", err)
	}
	if m.mirror {
		if len(from.Records) == 0 && len(to.Records) > 0 {
			return errSwapped
		}
		return nil
	}
	if len(to.Records) > 0 {
		t, err := m.pass(ctx, "comparing", false)
		if err != nil {
			return err
		}
		if t.extras > 0 || t.newer > 0 {
			return &refusal{tally: t}
		}
	}
	return m.copyKeys(ctx, false)
}

// hear is told what ends at from.
func (m *mover) hear(e store.Ended) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended[e.Key] = struct{}{}
	m.news = append(m.news, e)
}

func (m *mover) hasEnded(k store.Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ended := m.ended[k]
	return ended
}

// job is a session that has to be looked at: at least one of the two stores has it.
type job struct{ from, to *store.Record }

// pass looks through both stores once, and with write makes to what from is.
func (m *mover) pass(ctx context.Context, name string, write bool) (t tally, err error) {
	now := m.now()
	to := &walk{store: m.to, now: now}
	for after := (store.Key{}); ; {
		page, err := list(ctx, m.from, after, now)
		if err != nil {
			return t, fmt.Errorf("FROM: %w", err)
		}
		t.living += len(page.Records)
		if err := m.compare(ctx, &t, page, to, write); err != nil {
			return t, err
		}
		if after = page.Next; after.IsZero() {
			break
		}
		// Keys begin with a hash, so they are spread evenly over all keys that there can be.
		m.moved(name, float64(binary.BigEndian.Uint32(after[:4]))/(1<<32), t.living)
	}
	m.moved(name, 1, t.living)
	if !write {
		return t, nil
	}
	return t, m.catchUp(ctx, &t)
}

func list(ctx context.Context, backend store.Store, after store.Key, now time.Time) (page store.Page, err error) {
	err = again(ctx, func() (err error) {
		page, err = backend.List(ctx, store.Query{After: after, Limit: copyPage}, now)
		return err
	})
	return page, err
}

// compare finds out what to do about a page of from, and about what to has of the same keys.
func (m *mover) compare(ctx context.Context, t *tally, page store.Page, to *walk, write bool) error {
	var jobs []job
	add := func(j job) error {
		if jobs = append(jobs, j); len(jobs) < copyPage {
			return nil
		}
		err := m.work(ctx, t, jobs, write)
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
	if err == nil && have != nil { // from's last has been dealt with, so nobody but to has it
		err = add(job{to: have})
	}
	if err == nil {
		err = m.work(ctx, t, jobs, write)
	}
	return err
}

// walk goes through a store in the order of the keys.
type walk struct {
	store store.Store
	now   time.Time
	page  []store.Record // the rest of it
	next  store.Key
	begun bool
}

// until hands the sessions before a key to extra, and returns the one with that key, if there is one.
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

// work does the jobs, many at once.
func (m *mover) work(ctx context.Context, t *tally, jobs []job, write bool) error {
	var suspects []store.Record
	err := together(ctx, jobs, func(ctx context.Context, j job) (func(), error) {
		now := m.now()
		if j.from != nil {
			return m.settle(ctx, t, j, now, write)
		}
		extra, err := m.surplus(ctx, j.to, now)
		switch {
		case err != nil || !extra:
			return nil, err
		case write && m.mirror:
			return m.end(ctx, t, store.Ended{Key: j.to.Key, Issuer: j.to.Issuer, ClientID: j.to.ClientID})
		}
		return func() { suspects = append(suspects, *j.to) }, nil
	})
	if err != nil {
		return err
	}
	if len(suspects) > 0 {
		// Perhaps they ended at from a moment ago. Then that is heard by now, or will be.
		if err := m.feed.Sync(ctx); err != nil {
			return feedBroken(err)
		}
	}
	for _, r := range suspects {
		if m.hasEnded(r.Key) {
			continue
		}
		if t.extras++; len(t.extra) < copyShown {
			t.extra = append(t.extra, r)
		}
	}
	return nil
}

// together does something for each of many at once, but not for all. What it returns is done one after the other.
func together[T any](ctx context.Context, all []T, do func(context.Context, T) (func(), error)) error {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(copyWriters)
	for _, one := range all {
		group.Go(func() error {
			var then func()
			err := again(ctx, func() (err error) { then, err = do(ctx, one); return err })
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

// again tries something three times: a long copy should not fail for a failover, and what it does can be done twice.
func again(ctx context.Context, do func() error) error {
	for try := time.Duration(1); ; try++ {
		err := do()
		if err == nil || try == copyTries {
			return err
		}
		wait := time.NewTimer(try * time.Second)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return err
		}
	}
}

// settle makes a session at to what it is at from. What it returns counts that.
func (m *mover) settle(ctx context.Context, t *tally, j job, now time.Time, write bool) (func(), error) {
	switch {
	case !j.from.Lives(now):
		return nil, nil // nor does it at to, if it is there
	case j.to != nil && same(j.from, j.to):
		return func() { t.same++ }, nil
	case !write:
		if j.to != nil && j.to.LastSeen.After(j.from.LastSeen) {
			return func() { t.newer++ }, nil
		}
		return nil, nil
	case j.to != nil:
		return m.update(ctx, t, j.from, j.to, now)
	}
	return m.create(ctx, t, j.from, now)
}

// same leaves out what cannot differ where the keys are the same, and revisions, which count in each store for itself.
func same(a, b *store.Record) bool {
	return a.LastSeen.Equal(b.LastSeen) && a.IdleExpires.Equal(b.IdleExpires) && a.Expires.Equal(b.Expires) &&
		a.Refresh == b.Refresh && bytes.Equal(a.Payload, b.Payload) && sameSIDs(a, b)
}

func sameSIDs(a, b *store.Record) bool { return a.SID == b.SID && slices.Equal(a.Former, b.Former) }

// surplus says whether a session that lives at to has gone from from.
func (m *mover) surplus(ctx context.Context, r *store.Record, now time.Time) (bool, error) {
	if !r.Lives(now) {
		return false, nil
	}
	// It may be younger than the page of from that is at hand, and another copy was faster.
	_, err := m.from.Find(ctx, r.Key, now)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, fmt.Errorf("FROM: %w", err)
	}
	return err != nil, nil
}

// begun is when a session began, as far as to is concerned. End marks that were left there at or after that bar it: as
// far back as marks are kept, since an older login is refused for its age.
func begun(r *store.Record, now time.Time) time.Time {
	earliest := now.Add(time.Microsecond - store.AttemptLifetime)
	if r.Created.After(earliest) {
		return r.Created
	}
	return earliest
}

// create makes a session at to, unless an end mark there bars it.
func (m *mover) create(ctx context.Context, t *tally, r *store.Record, now time.Time) (func(), error) {
	began := begun(r, now)
	err := m.to.Create(ctx, *r, began, now)
	if err != nil && !errors.Is(err, store.ErrEnded) {
		// Is it there already? If it was copied before it was last used at from, it may have run out at to.
		have, missing := m.to.Find(ctx, r.Key, now)
		if missing == nil {
			return m.update(ctx, t, r, &have, now)
		}
		if !errors.Is(missing, store.ErrNotFound) {
			return nil, fmt.Errorf("TO: %w", err)
		}
		if _, err := m.end(ctx, t, store.Ended{Key: r.Key, Issuer: r.Issuer, ClientID: r.ClientID}); err != nil {
			return nil, err
		}
		err = m.to.Create(ctx, *r, began, now)
	}
	switch {
	case errors.Is(err, store.ErrEnded):
		return func() { t.barred++ }, nil
	case err != nil:
		return nil, fmt.Errorf("TO: %w", err)
	}
	return func() { t.created++ }, nil
}

// update makes a session at to what it is at from. One that has another sid by now may be barred by it: then it ends,
// since it would not be found there by that sid.
func (m *mover) update(ctx context.Context, t *tally, r, have *store.Record, now time.Time) (func(), error) {
	if same(r, have) {
		return func() { t.same++ }, nil
	}
	next := *r
	next.Revision = have.Revision
	var err error
	if sameSIDs(r, have) {
		err = m.to.Update(ctx, next, now)
	} else {
		err = m.to.Rename(ctx, next, begun(r, now), now)
	}
	switch {
	case errors.Is(err, store.ErrEnded):
		_, err := m.end(ctx, t, store.Ended{Key: r.Key, Issuer: r.Issuer, ClientID: r.ClientID})
		return func() { t.barred++ }, err
	case errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound):
		return func() { t.unsure++ }, nil
	case err != nil:
		return nil, fmt.Errorf("TO: %w", err)
	}
	return func() { t.updated++ }, nil
}

// end ends a session at to. It leaves no notices: those are from's to deliver.
func (m *mover) end(ctx context.Context, t *tally, e store.Ended) (func(), error) {
	who := store.Selector{Issuer: e.Issuer, ClientID: e.ClientID, Key: e.Key}
	ended, err := m.to.End(ctx, store.Ending{Selector: who, Cause: cmp.Or(e.Cause, store.CauseAdmin)}, m.now())
	if err != nil {
		return nil, fmt.Errorf("TO: %w", err)
	}
	return func() { t.ended += len(ended) }, nil
}

// catchUp ends at to everything that had ended at from before it was called. What a pass had at hand has been written by now.
func (m *mover) catchUp(ctx context.Context, t *tally) error {
	if err := m.feed.Sync(ctx); err != nil {
		return feedBroken(err)
	}
	m.mu.Lock()
	news := m.news
	m.news = nil
	m.mu.Unlock()
	return together(ctx, news, func(ctx context.Context, e store.Ended) (func(), error) { return m.end(ctx, t, e) })
}

func feedBroken(err error) error {
	return fmt.Errorf("FROM: what ended there meanwhile may have been missed, run this again: %w", err)
}

// copyKeys copies the keys that sign logout tokens, sealed as they are, so that apps go on trusting what they are told. Without
// write it only looks whether it may.
func (m *mover) copyKeys(ctx context.Context, write bool) error {
	value, revision, err := m.from.Load(ctx, signingKeys)
	if err != nil || revision == 0 {
		return wrap("FROM: signing keys", err)
	}
	have, revision, err := m.to.Load(ctx, signingKeys)
	switch {
	case err != nil:
		return wrap("TO: signing keys", err)
	case bytes.Equal(value, have):
		return nil
	case revision > 0 && !m.mirror:
		return &refusal{keys: true}
	case !write:
		return nil
	}
	return wrap("TO: signing keys", m.to.Save(ctx, signingKeys, value, revision))
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
