package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

// Clock implements [session.Clock]. It asks over the connections of the feed, where no request waits. On a Cluster each master
// stamps the endings of its own slots, so all are asked, by a key of each bucket: who has which slot may be changing.
func (s *Store) Clock(ctx context.Context) (time.Time, error) {
	ctx, leave, err := s.read(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer leave()
	l, err := s.listen(ctx)
	if err != nil {
		return time.Time{}, err
	}
	asked := 1
	if s.cluster {
		asked = buckets
	}
	commands := make([]rueidis.Completed, asked)
	for b := range commands {
		commands[b] = l.client.B().Eval().Script("return redis.call('TIME')").Numkeys(1).Key(s.named(bucket(b), "clock", nil)).Build()
	}
	var earliest time.Time
	for _, result := range l.client.DoMulti(ctx, commands...) {
		answer, err := result.AsIntSlice()
		if err != nil || len(answer) != 2 {
			return time.Time{}, fmt.Errorf("redis: clock: %v, %w", answer, err)
		}
		if at := time.Unix(answer[0], answer[1]*1000); earliest.IsZero() || at.Before(earliest) {
			earliest = at
		}
	}
	return earliest, nil
}
