package redis

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// batch is how many entries one Prune removes at most, and one script looks at: a logout may be waiting behind it.
const batch = 100

// Prune implements [store.Store].
func (s *Store) Prune(ctx context.Context, now time.Time) (int, error) {
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	queues := make([]rueidis.Completed, buckets)
	for b := range queues {
		queues[b] = s.client.B().Zrangebyscore().Key(s.key(bucket(b), keyExpiry)).Min("-inf").Max(decimal(now)).
			Limit(0, 1).Build()
	}
	total := 0
	for b, result := range s.do(ctx, queues) {
		due, err := result.AsStrSlice()
		if err != nil {
			return total, fmt.Errorf("redis: prune: %w", err)
		}
		if len(due) == 0 {
			continue
		}
		n, err := s.pruneBucket(ctx, bucket(b), now, batch-total)
		if total += n; err != nil || total >= batch {
			return total, err
		}
	}
	if total == 0 {
		return 0, s.repair(ctx)
	}
	return total, nil
}

// pruneBucket removes up to limit entries from one bucket. An entry that expires later than listed is moved and does
// not count, so it goes on until one is removed, or nothing is due.
func (s *Store) pruneBucket(ctx context.Context, b bucket, now time.Time, limit int) (int, error) {
	for {
		answer, err := s.run(ctx, call{s.scripts.prune, []string{s.key(b, keyExpiry), s.key(b, keyTags)},
			[]string{decimal(now), s.key(b, ""), strconv.Itoa(limit),
				strconv.FormatInt(store.MarkLifetime.Microseconds(), 10)}})
		if err != nil {
			return 0, err
		}
		counts, err := answer.AsIntSlice()
		if err != nil || len(counts) != 2 {
			return 0, errAnswer
		}
		if counts[0] > 0 || counts[1] < int64(limit) {
			return int(counts[0]), nil
		}
	}
}
