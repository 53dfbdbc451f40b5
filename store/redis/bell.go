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

// Notices lie with the person whom they are about, in 256 buckets, since End leaves them in the step that ends the session. Who
// does the work of one app would have to look into all of them, every two seconds, and most often for nothing. So each lane
// has a bell: it says which buckets have something to be done, and when first. Who finds it silent has asked one key.
//
// On one server a bell is rung by the script that leaves the notice, and all is one step. On a Cluster the bell is in another
// slot, and is rung after that script (N then R). Who claims reads the bell, claims in the bucket, and then says of the
// bucket when there is something to do next, unless the bell rang since it was read (B, C, H). In whatever order they come, a
// notice that was left is told of, or has been claimed:
//
//   - N before C: C finds it.
//   - C before N, H before R: R rings after all.
//   - C before N, R before H: each ring leaves another value, so H does nothing.
//
// What is left is a crash between N and R, or a bell that cannot be reached then, or that a failover has lost. [Store.Prune],
// which is called each minute, finds those notices and rings for them. A bell that rings for nothing costs a look into the
// bucket.

// bell is where the bell of a lane is.
func (s *Store) bell(lane name) string {
	if s.cluster {
		return s.named(lane[0], keyBell, lane[:])
	}
	return s.bells() + string(lane[:])
}

// bells is what the keys of all bells begin with, for scripts that ring themselves. On a Cluster they cannot.
func (s *Store) bells() string {
	if s.cluster {
		return ""
	}
	return s.key(0, keyBell)
}

func bucketText(b bucket) string { return hex.EncodeToString([]byte{b}) }

// ring rings for a spot on a Cluster. What was done is done, so a failure fails nothing: see above.
func (s *Store) ring(ctx context.Context, at spot, due string) {
	s.ringAll(ctx, map[spot]string{at: due})
}

// ringDeed rings for the lanes in which a deed left notices.
func (s *Store) ringDeed(ctx context.Context, b bucket, lanes string, now time.Time) {
	all := make(map[spot]string)
	for ; len(lanes) >= nameSize; lanes = lanes[nameSize:] {
		all[spot{b, name([]byte(lanes[:nameSize]))}] = decimal(now)
	}
	s.ringAll(ctx, all)
}

func (s *Store) ringAll(ctx context.Context, all map[spot]string) {
	if !s.cluster || len(all) == 0 {
		return
	}
	var calls []call
	for at, due := range all {
		calls = append(calls, call{s.scripts.ring, []string{s.bell(at.lane)}, []string{bucketText(at.bucket), due}})
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout/4)
	defer cancel()
	s.runEach(ctx, calls)
}

// rung is what a bell says of one bucket.
type rung struct {
	spot
	at  float64
	raw string // as it was read
}

// heard returns what the bell of a lane says, in order.
func (s *Store) heard(ctx context.Context, lane name) ([]rung, error) {
	said, err := s.client.Do(ctx, s.client.B().Hgetall().Key(s.bell(lane)).Build()).AsStrMap()
	if err != nil {
		return nil, fmt.Errorf("redis: claim: %w", err)
	}
	var all []rung
	for field, raw := range said {
		b, ok := bucketOf(field)
		at, _, _ := strings.Cut(raw, " ")
		due, err := strconv.ParseFloat(at, 64)
		if !ok || err != nil { // the count of the rings
			continue
		}
		all = append(all, rung{spot{b, lane}, due, raw})
	}
	slices.SortFunc(all, func(a, b rung) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.bucket, b.bucket)) })
	return all, nil
}

// looks is how many buckets are looked into at once.
const looks = 16

// Claim implements [store.Outbox].
func (s *Store) Claim(ctx context.Context, kind store.NoticeKind, target string, now time.Time, lease time.Duration, limit int) ([]store.Notice, error) {
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	lane := laneName(kind, target)
	return claimUntil(limit, func(max int) ([]candidate, []store.Notice, error) {
		bells, err := s.heard(ctx, lane)
		if err != nil {
			return nil, nil, err
		}
		due, got, next, err := s.answer(ctx, bells, now, lease, max)
		s.hush(ctx, lane, bells, next)
		return due, got, err
	})
}

// answer claims where a bell has called, and says when there is something to be done next in the buckets that it has seen to.
func (s *Store) answer(ctx context.Context, bells []rung, now time.Time, lease time.Duration, max int) (due []candidate, got []store.Notice, next map[spot]string, fault error) {
	silent := slices.IndexFunc(bells, func(r rung) bool { return r.at > float64(micros(now)) })
	if silent >= 0 {
		bells = bells[:silent]
	}
	next = make(map[spot]string)
	for chunk := range slices.Chunk(bells, looks) {
		// What is due in a bucket is never earlier than its bell says, so the rest may not have to be looked into.
		if len(due) >= max && oldest(due, max)[max-1].due <= chunk[0].at {
			break
		}
		spots := make([]spot, len(chunk))
		for i := range chunk {
			spots[i] = chunk[i].spot
		}
		found, upcoming, err := s.peek(ctx, spots, now, max)
		fault = cmp.Or(fault, err)
		due = append(due, found...)
		for _, at := range spots {
			if when, ok := upcoming[at]; ok && !slices.ContainsFunc(found, func(c candidate) bool { return c.spot == at }) {
				next[at] = when
			}
		}
	}
	due = oldest(due, max)
	got, upcoming, err := s.claim(ctx, due, now, now.Add(lease))
	maps.Copy(next, upcoming)
	return due, got, next, cmp.Or(fault, err)
}

// hush says when there is something to be done next, where the bell has not rung since.
func (s *Store) hush(ctx context.Context, lane name, bells []rung, next map[spot]string) {
	var args []string
	for _, r := range bells {
		if when, ok := next[r.spot]; ok {
			args = append(args, bucketText(r.bucket), r.raw, when)
		}
	}
	if len(args) > 0 {
		// It does no harm when this fails: somebody looks there once more.
		_, _ = s.run(ctx, call{s.scripts.hush, []string{s.bell(lane)}, args})
	}
}
