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

// Notices lie with the person whom they are about, in 256 buckets, since End leaves them in the step that ends the
// session. Who does the work of one app would have to look into all of them, every two seconds, and most often for
// nothing. So each queue has a wake-up: it says which buckets have something to be done, and when first. Who finds it
// silent has asked one key.
//
// On one server a wake-up is rung by the script that leaves the notice, and all is one step. On a Cluster the wake-up
// is in another slot, and is rung after that script (N then R). Who claims reads the wake-up, claims in the bucket, and
// then says of the bucket when there is something to do next, unless the wake-up rang since it was read (B, C, H). In
// whatever order they come, a notice that was left is told of, or has been claimed:
//
//   - N before C: C finds it.
//   - C before N, H before R: R rings after all.
//   - C before N, R before H: each ring leaves another value, so H does nothing.
//
// What is left is a crash between N and R, or a wake-up that cannot be reached then, or that a failover has lost.
// [Store.Prune], which is called each minute, finds those notices and rings for them. A wake-up that rings for nothing
// costs a look into the bucket.

// wake-up is where the wake-up of a queue is.
func (s *Store) wakeupKey(queue name) string {
	if s.cluster {
		return s.named(queue[0], keyWakeup, queue[:])
	}
	return s.wakeupPrefix() + string(queue[:])
}

// wakeups is what the keys of all wakeups begin with, for scripts that ring themselves. On a Cluster they cannot.
func (s *Store) wakeupPrefix() string {
	if s.cluster {
		return ""
	}
	return s.key(0, keyWakeup)
}

func bucketText(b bucket) string { return hex.EncodeToString([]byte{b}) }

// ring rings for a place on a Cluster. What was done is done, so a failure fails nothing: see above.
func (s *Store) wake(ctx context.Context, at place, due string) {
	s.wakeAll(ctx, map[place]string{at: due})
}

// ringDeed rings for the queues in which a step left notices.
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
		calls = append(calls, call{s.scripts.wake, []string{s.wakeupKey(at.queue)},
			[]string{bucketText(at.bucket), due}})
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout/4)
	defer cancel()
	s.runEach(ctx, calls)
}

// rung is what a wake-up says of one bucket.
type wakeup struct {
	place
	at  float64
	raw string // as it was read
}

// wakeups returns what the wake-up of a queue says, in order.
func (s *Store) wakeups(ctx context.Context, queue name) ([]wakeup, error) {
	said, err := s.client.Do(ctx, s.client.B().Hgetall().Key(s.wakeupKey(queue)).Build()).AsStrMap()
	if err != nil {
		return nil, fmt.Errorf("redis: claim: %w", err)
	}
	var all []wakeup
	for field, raw := range said {
		b, ok := bucketOf(field)
		at, _, _ := strings.Cut(raw, " ")
		due, err := strconv.ParseFloat(at, 64)
		if !ok || err != nil { // the count of the rings
			continue
		}
		all = append(all, wakeup{place{b, queue}, due, raw})
	}
	slices.SortFunc(all, func(a, b wakeup) int {
		return cmp.Or(cmp.Compare(a.at, b.at),
			cmp.Compare(a.bucket, b.bucket))
	})
	return all, nil
}

// looks is how many buckets are looked into at once.
const bucketsAtOnce = 16

// Claim implements [store.Outbox].
func (s *Store) Claim(ctx context.Context, kind store.NoticeKind, target string, now time.Time, lease time.Duration,
	limit int) ([]store.Notice, error) {
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

// answer claims where a wake-up has called, and says when there is something to be done next in the buckets that it has
// seen to.
func (s *Store) claimDue(ctx context.Context, wakeups []wakeup, now time.Time, lease time.Duration,
	max int) (due []candidate, got []store.Notice, next map[place]string, fault error) {
	silent := slices.IndexFunc(wakeups, func(r wakeup) bool { return r.at > float64(store.Micros(now)) })
	if silent >= 0 {
		wakeups = wakeups[:silent]
	}
	next = make(map[place]string)
	for chunk := range slices.Chunk(wakeups, bucketsAtOnce) {
		// What is due in a bucket is never earlier than its wake-up says, so the rest may not have to be looked into.
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
			if when, ok := upcoming[at]; ok && !slices.ContainsFunc(found,
				func(c candidate) bool { return c.place == at }) {
				next[at] = when
			}
		}
	}
	due = oldest(due, max)
	got, upcoming, err := s.claim(ctx, due, now, now.Add(lease))
	maps.Copy(next, upcoming)
	return due, got, next, cmp.Or(fault, err)
}

// reschedule says when there is something to be done next, where the wake-up has not rung since.
func (s *Store) reschedule(ctx context.Context, queue name, wakeups []wakeup, next map[place]string) {
	var args []string
	for _, r := range wakeups {
		if when, ok := next[r.place]; ok {
			args = append(args, bucketText(r.bucket), r.raw, when)
		}
	}
	if len(args) > 0 {
		// It does no harm when this fails: somebody looks there once more.
		_, _ = s.run(ctx, call{s.scripts.reschedule, []string{s.wakeupKey(queue)}, args})
	}
}
