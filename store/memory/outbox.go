package memory

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"time"

	"example.com/curfew/store"
)

// notice is a notice and its position in every queue.
type notice struct {
	timer
	store.Notice
	order      uint64 // in which it was added
	state      state
	inTarget   place // among those that wait for the same target
	byCreation place // among those of the same target that are not given up
}

// place is the position of a notice in one more queue.
type place struct {
	timer
	n *notice
}

type state uint8

const (
	waiting state = iota // to be claimed when it is due
	leased
	givenUp // a dead letter
)

type outbox struct {
	all     map[string]*notice
	leased  queue[*notice] // by when the lease runs out
	targets map[targetName]*target
	count   uint64
}

// target holds the notices of one kind for one target.
type target struct {
	waiting queue[*place] // by when they are due
	pending queue[*place] // by when they were created
	dead    int
}

type targetName struct {
	kind   store.NoticeKind
	target string
}

func newOutbox() outbox {
	return outbox{all: make(map[string]*notice), targets: make(map[targetName]*target)}
}

func (o *outbox) target(n *notice) *target { return o.targets[targetName{n.Kind, n.Target}] }

func (o *outbox) add(n store.Notice) {
	o.count++
	n.ID = strconv.FormatUint(o.count, 10)
	n.Payload = bytes.Clone(n.Payload)
	kept := &notice{Notice: n, order: o.count}
	kept.inTarget.n, kept.byCreation.n = kept, kept
	name := targetName{n.Kind, n.Target}
	if o.targets[name] == nil {
		o.targets[name] = new(target)
	}
	o.all[n.ID] = kept
	o.targets[name].pending.add(&kept.byCreation, n.Created.UnixMicro(), kept.order)
	o.wait(kept)
}

// wait makes n, which must be neither waiting nor leased, a waiting notice.
func (o *outbox) wait(n *notice) {
	n.state = waiting
	o.target(n).waiting.add(&n.inTarget, n.Due.UnixMicro(), n.order)
}

// dequeue removes n from the queue of waiting or of leased notices.
func (o *outbox) dequeue(n *notice) {
	switch n.state {
	case waiting:
		o.target(n).waiting.drop(&n.inTarget)
	case leased:
		o.leased.drop(n)
	}
}

// giveUp makes n, which must have been dequeued, a dead letter.
func (o *outbox) giveUp(n *notice) {
	n.state, n.GivenUp = givenUp, true
	o.target(n).pending.drop(&n.byCreation)
	o.target(n).dead++
}

// forget removes n, which must have been dequeued.
func (o *outbox) forget(n *notice) {
	l := o.target(n)
	if n.state == givenUp {
		l.dead--
	} else {
		l.pending.drop(&n.byCreation)
	}
	if l.dead == 0 && len(l.pending) == 0 {
		delete(o.targets, targetName{n.Kind, n.Target})
	}
	delete(o.all, n.ID)
}

// Claim implements [store.Outbox].
func (s *Store) Claim(
	ctx context.Context, kind store.NoticeKind, target string, now time.Time, lease time.Duration, limit int,
) ([]store.Notice, error) {
	now = store.Time(now)
	at := now.UnixMicro()
	var claimed []store.Notice
	err := s.do(ctx, func() error {
		o := &s.outbox
		for n, ok := o.leased.until(at); ok; n, ok = o.leased.until(at) {
			o.dequeue(n)
			o.wait(n)
		}
		l := o.targets[targetName{kind, target}]
		token := rand.Text()
		for l != nil && len(claimed) < limit {
			next, ok := l.waiting.until(at)
			if !ok {
				break
			}
			n := next.n
			o.dequeue(n)
			n.state = leased
			n.Lease = token
			n.Attempts++
			o.leased.add(n, now.Add(lease).UnixMicro(), n.order)
			out := n.Notice
			out.Payload = bytes.Clone(n.Payload)
			claimed = append(claimed, out)
		}
		return nil
	})
	return claimed, err
}

// Complete implements [store.Outbox].
func (s *Store) Complete(ctx context.Context, n store.Notice, out store.Outcome) error {
	if err := out.Validate(); err != nil {
		return err
	}
	return s.do(ctx, func() error {
		kept := s.outbox.all[n.ID]
		if kept == nil || kept.Lease == "" || kept.Lease != n.Lease {
			return store.ErrLeaseLost
		}
		o := &s.outbox
		o.dequeue(kept)
		if out.Done {
			o.forget(kept)
			return nil
		}
		kept.Lease, kept.Reason = "", out.Reason
		if out.Untried {
			kept.Attempts = max(0, kept.Attempts-1)
		}
		if out.GiveUp {
			o.giveUp(kept)
			return nil
		}
		kept.Due = store.Time(out.RetryAt)
		o.wait(kept)
		return nil
	})
}

// Enqueue implements [store.Outbox].
func (s *Store) Enqueue(ctx context.Context, notices []store.Notice) error {
	added, err := store.NewNotices(notices)
	if err != nil {
		return err
	}
	return s.do(ctx, func() error {
		for _, n := range added {
			s.outbox.add(n)
		}
		return nil
	})
}

// Notices implements [store.Outbox]. The order is that in which the notices were added.
func (s *Store) Notices(ctx context.Context, q store.NoticeQuery) (store.NoticePage, error) {
	limit, err := q.PageSize()
	if err != nil {
		return store.NoticePage{}, err
	}
	var page store.NoticePage
	err = s.do(ctx, func() error {
		after, _ := strconv.ParseUint(q.After, 10, 64)
		var found []*notice
		for _, n := range s.outbox.all {
			if n.order > after && q.Matches(&n.Notice) {
				found = append(found, n)
			}
		}
		slices.SortFunc(found, func(a, b *notice) int { return cmp.Compare(a.order, b.order) })
		for i, n := range found {
			if i == limit {
				page.Next = found[i-1].ID
				break
			}
			shown := n.Notice
			shown.Payload, shown.Lease = nil, ""
			page.Notices = append(page.Notices, shown)
		}
		return nil
	})
	return page, err
}

// onNotice runs fn on one notice, with the mutex held.
func (s *Store) onNotice(ctx context.Context, id string, fn func(*outbox, *notice)) error {
	return s.do(ctx, func() error {
		n := s.outbox.all[id]
		if n == nil {
			return store.ErrNoNotice
		}
		fn(&s.outbox, n)
		return nil
	})
}

// Retry implements [store.Outbox].
func (s *Store) Retry(ctx context.Context, id string, due, deadline time.Time) error {
	return s.onNotice(ctx, id, func(o *outbox, n *notice) {
		n.Due, n.Deadline, n.Attempts = store.Time(due), store.Time(deadline), 0
		switch n.state {
		case givenUp:
			n.GivenUp = false
			o.target(n).dead--
			o.target(n).pending.add(&n.byCreation, n.Created.UnixMicro(), n.order)
			o.wait(n)
		case waiting:
			o.target(n).waiting.move(&n.inTarget, n.Due.UnixMicro())
		}
	})
}

// Drop implements [store.Outbox].
func (s *Store) Drop(ctx context.Context, id string) error {
	return s.onNotice(ctx, id, func(o *outbox, n *notice) {
		o.dequeue(n)
		o.forget(n)
	})
}

// Stats implements [store.Outbox].
func (s *Store) Stats(ctx context.Context) ([]store.NoticeStats, error) {
	var all []store.NoticeStats
	err := s.do(ctx, func() error {
		for name, l := range s.outbox.targets {
			t := store.NoticeStats{Kind: name.kind, Target: name.target, Pending: len(l.pending), Dead: l.dead}
			if len(l.pending) > 0 {
				t.Oldest = l.pending[0].item.n.Created
			}
			all = append(all, t)
		}
		return nil
	})
	return all, err
}

// Overdue implements [store.Sessions].
func (s *Store) Overdue(ctx context.Context, after store.Key, limit int, now time.Time) ([]store.Record, error) {
	var all []store.Record
	err := s.do(ctx, func() error {
		var due []*entry
		for e := range s.expiry.upTo(store.Time(now).UnixMicro()) {
			if e.rec.Refresh != store.RefreshNone {
				due = append(due, e)
			}
		}
		for _, e := range inOrder(due, after) {
			if len(all) >= limit {
				break
			}
			all = append(all, own(e.rec))
		}
		return nil
	})
	return all, err
}
