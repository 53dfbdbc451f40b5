package memory

import (
	"bytes"
	"context"
	"crypto/rand"
	"strconv"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store/internal/rules"
)

// notice is a notice in its place: waiting to be due, leased, or put aside for good.
type notice struct {
	timer
	session.Notice
	state state
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
	count   uint64
}

func (o *outbox) add(n session.Notice) {
	o.count++
	n.ID = strconv.FormatUint(o.count, 10)
	n.Payload = bytes.Clone(n.Payload)
	kept := &notice{Notice: n, timer: timer{order: o.count}}
	o.all[n.ID] = kept
	o.waiting.add(kept, n.Due.UnixMicro())
}

// lift takes n out of the queue that it is in.
func (o *outbox) lift(n *notice) {
	switch n.state {
	case waiting:
		o.waiting.drop(n)
	case leased:
		o.leased.drop(n)
	}
}

// Claim implements [session.Outbox].
func (s *Store) Claim(ctx context.Context, now time.Time, lease time.Duration, max int) ([]session.Notice, error) {
	now = session.Time(now)
	var claimed []session.Notice
	err := s.do(ctx, func() error {
		o := &s.outbox
		for n, ok := o.leased.until(now.UnixMicro()); ok; n, ok = o.leased.until(now.UnixMicro()) {
			o.lift(n)
			n.state = waiting
			o.waiting.add(n, n.Due.UnixMicro())
		}
		token := rand.Text()
		for len(claimed) < max {
			n, ok := o.waiting.until(now.UnixMicro())
			if !ok {
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
			delete(o.all, kept.ID)
			return nil
		}
		kept.Lease, kept.Reason, kept.state = "", out.Reason, givenUp
		if !out.GiveUp {
			kept.state, kept.Due = waiting, session.Time(out.RetryAt)
			o.waiting.add(kept, kept.Due.UnixMicro())
		}
		return nil
	})
}
