package memory

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store/internal/rules"
)

// notice is a notice in its place: waiting to be due, leased, or put aside for good.
type notice struct {
	timer
	session.Notice
	state  state
	inLane slip // among those that wait for the same target
	byAge  slip // among those of the same target that are not given up
}

// slip is a notice's place in one more queue.
type slip struct {
	timer
	n *notice
}

type state uint8

const (
	waiting state = iota
	leased
	givenUp
)

type outbox struct {
	all     map[string]*notice
	waiting queue[*notice] // by when they are due
	leased  queue[*notice] // by when the lease runs out
	lanes   map[laneName]*lane
	count   uint64
}

// lane is what there is for one target.
type lane struct {
	waiting queue[*slip] // by when they are due
	pending queue[*slip] // by when they were created
	dead    int
}

type laneName struct {
	kind   session.NoticeKind
	target string
}

func newOutbox() outbox {
	return outbox{all: make(map[string]*notice), lanes: make(map[laneName]*lane)}
}

func (o *outbox) lane(n *notice) *lane { return o.lanes[laneName{n.Kind, n.Target}] }

func (o *outbox) add(n session.Notice) {
	o.count++
	n.ID = strconv.FormatUint(o.count, 10)
	n.Payload = bytes.Clone(n.Payload)
	kept := &notice{Notice: n, timer: timer{order: o.count}}
	kept.inLane = slip{timer{order: o.count}, kept}
	kept.byAge = slip{timer{order: o.count}, kept}
	name := laneName{n.Kind, n.Target}
	if o.lanes[name] == nil {
		o.lanes[name] = new(lane)
	}
	o.all[n.ID] = kept
	o.lanes[name].pending.add(&kept.byAge, n.Created.UnixMicro())
	o.wait(kept)
}

// wait puts n, which is in no queue of these, to those that wait.
func (o *outbox) wait(n *notice) {
	n.state = waiting
	o.waiting.add(n, n.Due.UnixMicro())
	o.lane(n).waiting.add(&n.inLane, n.Due.UnixMicro())
}

// lift takes n out of the queues that say what is to be done next.
func (o *outbox) lift(n *notice) {
	switch n.state {
	case waiting:
		o.waiting.drop(n)
		o.lane(n).waiting.drop(&n.inLane)
	case leased:
		o.leased.drop(n)
	}
}

// bury makes n, which has been lifted, a dead letter.
func (o *outbox) bury(n *notice) {
	n.state, n.GivenUp = givenUp, true
	o.lane(n).pending.drop(&n.byAge)
	o.lane(n).dead++
}

// forget removes n, which has been lifted.
func (o *outbox) forget(n *notice) {
	l := o.lane(n)
	if n.state == givenUp {
		l.dead--
	} else {
		l.pending.drop(&n.byAge)
	}
	if l.dead == 0 && len(l.pending) == 0 {
		delete(o.lanes, laneName{n.Kind, n.Target})
	}
	delete(o.all, n.ID)
}

// Claim implements [session.Outbox].
func (s *Store) Claim(ctx context.Context, now time.Time, lease time.Duration, max int) ([]session.Notice, error) {
	return s.claim(ctx, now, lease, max, func(at int64) *notice {
		n, _ := s.outbox.waiting.until(at)
		return n
	})
}

// ClaimFor implements [session.Desk].
func (s *Store) ClaimFor(ctx context.Context, kind session.NoticeKind, target string, now time.Time, lease time.Duration, max int) ([]session.Notice, error) {
	return s.claim(ctx, now, lease, max, func(at int64) *notice {
		if l := s.outbox.lanes[laneName{kind, target}]; l != nil {
			if next, ok := l.waiting.until(at); ok {
				return next.n
			}
		}
		return nil
	})
}

// claim leases up to max of those that next returns, one after the other.
func (s *Store) claim(ctx context.Context, now time.Time, lease time.Duration, max int, next func(at int64) *notice) ([]session.Notice, error) {
	now = session.Time(now)
	at := now.UnixMicro()
	var claimed []session.Notice
	err := s.do(ctx, func() error {
		o := &s.outbox
		for n, ok := o.leased.until(at); ok; n, ok = o.leased.until(at) {
			o.lift(n)
			o.wait(n)
		}
		token := rand.Text()
		for len(claimed) < max {
			n := next(at)
			if n == nil {
				break
			}
			o.lift(n)
			n.state = leased
			n.Lease = token
			n.Attempts++
			o.leased.add(n, now.Add(lease).UnixMicro())
			out := n.Notice
			out.Payload = bytes.Clone(n.Payload)
			claimed = append(claimed, out)
		}
		return nil
	})
	return claimed, err
}

// Settle implements [session.Outbox].
func (s *Store) Settle(ctx context.Context, n session.Notice, out session.Outcome) error {
	if err := rules.CheckOutcome(out); err != nil {
		return err
	}
	return s.do(ctx, func() error {
		kept := s.outbox.all[n.ID]
		if kept == nil || kept.Lease == "" || kept.Lease != n.Lease {
			return session.ErrLeaseLost
		}
		o := &s.outbox
		o.lift(kept)
		if out.Done {
			o.forget(kept)
			return nil
		}
		kept.Lease, kept.Reason = "", out.Reason
		if out.GiveUp {
			o.bury(kept)
			return nil
		}
		kept.Due = session.Time(out.RetryAt)
		o.wait(kept)
		return nil
	})
}

// Leave implements [session.Desk].
func (s *Store) Leave(ctx context.Context, notices []session.Notice) error {
	left, err := rules.Left(notices)
	if err != nil {
		return err
	}
	return s.do(ctx, func() error {
		for _, n := range left {
			s.outbox.add(n)
		}
		return nil
	})
}

// Notices implements [session.Desk]. They are in the order in which they were left.
func (s *Store) Notices(ctx context.Context, q session.NoticeQuery) (session.NoticePage, error) {
	limit, err := rules.NoticeLimit(q)
	if err != nil {
		return session.NoticePage{}, err
	}
	var page session.NoticePage
	err = s.do(ctx, func() error {
		after, _ := strconv.ParseUint(q.After, 10, 64)
		var found []*notice
		for _, n := range s.outbox.all {
			if n.order > after && rules.AsksNotice(q, &n.Notice) {
				found = append(found, n)
			}
		}
		slices.SortFunc(found, func(a, b *notice) int { return cmp.Compare(a.order, b.order) })
		for i, n := range found {
			if i == limit {
				page.Next = found[i-1].ID
				break
			}
			page.Notices = append(page.Notices, n.shown())
		}
		return nil
	})
	return page, err
}

// shown is the notice as who looks at it sees it.
func (n *notice) shown() session.Notice {
	out := n.Notice
	out.Payload, out.Lease = nil, ""
	return out
}

// onNotice runs fn alone with a notice that is there.
func (s *Store) onNotice(ctx context.Context, id string, fn func(*outbox, *notice)) error {
	return s.do(ctx, func() error {
		n := s.outbox.all[id]
		if n == nil {
			return session.ErrNoNotice
		}
		fn(&s.outbox, n)
		return nil
	})
}

// Notice implements [session.Desk].
func (s *Store) Notice(ctx context.Context, id string) (session.Notice, error) {
	var found session.Notice
	err := s.onNotice(ctx, id, func(_ *outbox, n *notice) { found = n.shown() })
	return found, err
}

// Retry implements [session.Desk].
func (s *Store) Retry(ctx context.Context, id string, due, deadline time.Time) error {
	return s.onNotice(ctx, id, func(o *outbox, n *notice) {
		n.Due, n.Deadline = session.Time(due), session.Time(deadline)
		switch n.state {
		case givenUp:
			n.GivenUp = false
			o.lane(n).dead--
			o.lane(n).pending.add(&n.byAge, n.Created.UnixMicro())
			o.wait(n)
		case waiting:
			o.waiting.move(n, n.Due.UnixMicro())
			o.lane(n).waiting.move(&n.inLane, n.Due.UnixMicro())
		}
	})
}

// Drop implements [session.Desk].
func (s *Store) Drop(ctx context.Context, id string) error {
	return s.onNotice(ctx, id, func(o *outbox, n *notice) {
		o.lift(n)
		o.forget(n)
	})
}

// Tally implements [session.Desk].
func (s *Store) Tally(ctx context.Context) ([]session.Tally, error) {
	var all []session.Tally
	err := s.do(ctx, func() error {
		for name, l := range s.outbox.lanes {
			t := session.Tally{Kind: name.kind, Target: name.target, Pending: len(l.pending), Dead: l.dead}
			if len(l.pending) > 0 {
				t.Oldest = l.pending[0].item.n.Created
			}
			all = append(all, t)
		}
		return nil
	})
	return all, err
}

// Overdue implements [session.Desk].
func (s *Store) Overdue(ctx context.Context, after session.Key, limit int, now time.Time) ([]session.Record, error) {
	var all []session.Record
	err := s.do(ctx, func() error {
		var due []*entry
		for e := range s.expiry.upTo(session.Time(now).UnixMicro()) {
			if e.rec.Refresh != session.RefreshNone {
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
