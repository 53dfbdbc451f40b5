package redis

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/curfew/store"
)

// How Claim finds notices.
//
// A notice is in the bucket of the subject that it is about, because End adds it in the script that ends the session.
// So the notices of one queue (one kind for one target) are spread over 256 buckets. A worker would have to read all of
// them every two seconds, mostly to find nothing. Therefore each queue has a hash of wake-ups, under one key: for each
// bucket with work, when the first notice there is due. Claim reads that key, and then only the buckets that it names.
//
// On one server the script that adds the notice also sets the wake-up, so both are one atomic step. On a Cluster the
// wake-ups are in another slot, and adding a notice takes two steps:
//
//	N  add the notice in its bucket
//	W  set the wake-up
//
// Claim takes three:
//
//	R  read the wake-ups
//	C  claim in the buckets
//	S  set the wake-up of each of these buckets to when its next notice is due, or remove it; but only if it was not
//	   set again since R
//
// Whatever the order, each notice is claimed or has a wake-up:
//
//   - N before C: C finds the notice.
//   - C before N, S before W: W sets the wake-up.
//   - C before N, W before S: W has changed the value (each W writes a new one), so S does nothing.
//
// That leaves a crash between N and W, a server that W could not reach, and a wake-up that was lost in a failover. For
// these [Store.Prune], which is called every minute, sets the missing wake-ups. A wake-up without a notice costs one
// look into the bucket.

// wakeupKey returns the key of the wake-ups of a queue.
func (s *Store) wakeupKey(queue name) string {
	if s.cluster {
		return s.named(queue[0], keyWakeup, queue[:])
	}
	return s.wakeupPrefix() + string(queue[:])
}

// wakeupPrefix returns the prefix of the keys of all wake-ups, for scripts that set them. It is empty on a Cluster,
// where a script cannot reach them.
func (s *Store) wakeupPrefix() string {
	if s.cluster {
		return ""
	}
	return s.key(0, keyWakeup)
}

func bucketText(b bucket) string { return hex.EncodeToString([]byte{b}) }

// wake sets one wake-up on a Cluster. An error does not matter: see above.
func (s *Store) wake(ctx context.Context, at place, due string) {
	s.wakeAll(ctx, map[place]string{at: due})
}

// wakeAfter sets the wake-ups of the queues to which a script for bucket b added notices. queues holds their names, one
// after the other.
func (s *Store) wakeAfter(ctx context.Context, b bucket, queues string, now time.Time) {
	all := make(map[place]string)
	for ; len(queues) >= nameSize; queues = queues[nameSize:] {
		all[place{b, name([]byte(queues[:nameSize]))}] = decimal(now)
	}
	s.wakeAll(ctx, all)
}

func (s *Store) wakeAll(ctx context.Context, all map[place]string) {
	if !s.cluster || len(all) == 0 {
		return
	}
	var calls []call
	for at, due := range all {
		calls = append(calls, call{
			s.scripts.wake, []string{s.wakeupKey(at.queue)}, []string{bucketText(at.bucket), due},
		})
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout/4)
	defer cancel()
	s.runEach(ctx, calls)
}

// wakeup says when the first notice of a queue in one bucket is due.
type wakeup struct {
	place
	at  float64 // microseconds since 1970
	raw string  // as stored
}

// wakeups returns the wake-ups of a queue, the earliest first.
func (s *Store) wakeups(ctx context.Context, queue name) ([]wakeup, error) {
	stored, err := s.client.Do(ctx, s.client.B().Hgetall().Key(s.wakeupKey(queue)).Build()).AsStrMap()
	if err != nil {
		return nil, fmt.Errorf("redis: claim: %w", err)
	}
	var all []wakeup
	for field, raw := range stored {
		b, ok := bucketOf(field)
		at, _, _ := strings.Cut(raw, " ")
		due, err := strconv.ParseFloat(at, 64)
		if !ok || err != nil { // the counter of queue.lua
			continue
		}
		all = append(all, wakeup{place{b, queue}, due, raw})
	}
	slices.SortFunc(all, func(a, b wakeup) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.bucket, b.bucket))
	})
	return all, nil
}

// Claim implements [store.Outbox].
func (s *Store) Claim(
	ctx context.Context, kind store.NoticeKind, target string, now time.Time, lease time.Duration, limit int,
) ([]store.Notice, error) {
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	queue := queueName(kind, target)
	return claimUntil(limit, func(max int) ([]candidate, []store.Notice, error) {
		wakeups, err := s.wakeups(ctx, queue)
		if err != nil {
			return nil, nil, err
		}
		due, got, next, err := s.claimDue(ctx, wakeups, now, lease, max)
		s.reschedule(ctx, queue, wakeups, next)
		return due, got, err
	})
}

// claimDue claims up to max notices from the buckets whose wake-up is due. next is when the next notice is due in each
// bucket that was read.
func (s *Store) claimDue(
	ctx context.Context, wakeups []wakeup, now time.Time, lease time.Duration, max int,
) (due []candidate, got []store.Notice, next map[place]string, fault error) {
	later := slices.IndexFunc(wakeups, func(w wakeup) bool { return w.at > float64(store.Micros(now)) })
	if later >= 0 {
		wakeups = wakeups[:later]
	}
	next = make(map[place]string)
	for chunk := range slices.Chunk(wakeups, bucketsAtOnce) {
		// No notice in a bucket is due before its wake-up, so the remaining buckets may not have to be read.
		if len(due) >= max && oldest(due, max)[max-1].due <= chunk[0].at {
			break
		}
		places := make([]place, len(chunk))
		for i := range chunk {
			places[i] = chunk[i].place
		}
		found, upcoming, err := s.findDue(ctx, places, now, max)
		fault = cmp.Or(fault, err)
		due = append(due, found...)
		for _, at := range places {
			found := slices.ContainsFunc(found, func(c candidate) bool { return c.place == at })
			if when, ok := upcoming[at]; ok && !found {
				next[at] = when
			}
		}
	}
	due = oldest(due, max)
	got, upcoming, err := s.claim(ctx, due, now, now.Add(lease))
	maps.Copy(next, upcoming)
	return due, got, next, cmp.Or(fault, err)
}

// reschedule sets the wake-ups that were read to next, unless they were set again since.
func (s *Store) reschedule(ctx context.Context, queue name, wakeups []wakeup, next map[place]string) {
	var args []string
	for _, w := range wakeups {
		if when, ok := next[w.place]; ok {
			args = append(args, bucketText(w.bucket), w.raw, when)
		}
	}
	if len(args) > 0 {
		// An error is harmless: these buckets are read once more.
		_, _ = s.run(ctx, call{s.scripts.reschedule, []string{s.wakeupKey(queue)}, args})
	}
}
