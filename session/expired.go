package session

import (
	"context"
	"errors"
	"time"

	"example.com/curfew/store"
)

// expired is how far this replica has come with revoking what sessions held that ran out; see [Config.RevokeExpired].
type expired struct {
	through time.Time          // what ran out by then has been queued
	step    time.Duration      // how long the next slice of time may be
	queued  map[store.Key]bool // the sessions of the last slice: the store may not have removed all
	minute  int64              // the last one that this replica claimed
}

const (
	overduePage = 1000
	leastSlice  = time.Second
	// coarseSlice is how exactly each store prunes: PostgreSQL may leave what ran out in the five minutes before.
	coarseSlice = 5 * time.Minute
)

var errLargeSlice = errors.New("more sessions ran out than fit into a page")

// revokeExpired queues the tokens of all sessions that have run out for revocation and then removes the sessions,
// unless another replica does so in this minute.
//
// A page of [store.Sessions.Overdue] may cost as much as there are overdue sessions. So this goes by slices of time,
// the oldest first, and removes the sessions of one before it takes the next. A slice is halved if it has more than a
// page, or if the store fails; after one with less than a page the next may be twice as long. The error is that of a
// slice that cannot be halved.
func (m *Manager) revokeExpired(ctx context.Context, x *expired) error {
	for {
		early, _ := m.clock.between()
		now := store.Time(early)
		if mine, err := m.claimMinute(ctx, x, now); !mine {
			return err
		}
		rest := now.Sub(x.through)
		slice := min(x.step, rest, max(rest/2, time.Hour)) // at the start rest is half a century
		cutoff := x.through.Add(slice)
		err := m.queueExpired(ctx, x, slice, cutoff)
		switch {
		case err == nil:
			x.through = cutoff
			if !m.pruneAll(ctx, cutoff) || slice == rest {
				return nil
			}
		case slice <= leastSlice || ctx.Err() != nil:
			return err
		default:
			x.step = max(slice/2, leastSlice)
		}
	}
}

// claimMinute reports whether this replica is the one that revokes in the minute of now.
func (m *Manager) claimMinute(ctx context.Context, x *expired, now time.Time) (bool, error) {
	minute := now.Unix() / 60
	if minute == x.minute {
		return true, nil
	}
	held, err := m.ClaimAttempt(ctx, slotID([2]string{"", "sessions that ran out"}, minute), []byte{1}, slotLife)
	if err != nil || held != nil {
		return false, err
	}
	x.minute = minute
	return true, nil
}

// queueExpired passes to the notifier what ran out by cutoff, which is the end of the next slice. A slice with more
// than a page that can be halved is left alone.
func (m *Manager) queueExpired(ctx context.Context, x *expired, slice time.Duration, cutoff time.Time) error {
	seen, least := make(map[store.Key]bool), leastSlice
	for after, more := (store.Key{}), true; more; {
		due, err := m.cfg.Store.Overdue(ctx, after, overduePage, cutoff)
		if err != nil {
			return err
		}
		var added []store.Record
		for _, r := range due {
			if after, seen[r.Key] = r.Key, true; !x.queued[r.Key] {
				added = append(added, r)
			}
		}
		if len(added) < len(due) {
			least = coarseSlice // a shorter one would find the same sessions again
		}
		if more = len(due) == overduePage; more && slice > least {
			return errLargeSlice
		}
		if len(added) == 0 {
			continue
		}
		if err := m.cfg.Notices.Expired(ctx, added); err != nil {
			return err
		}
	}
	if x.queued = seen; len(seen) < overduePage {
		x.step = 2 * slice
	}
	x.step = max(x.step, least)
	return nil
}
