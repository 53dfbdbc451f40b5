package redis

import (
	"context"
	"fmt"
	"sync"
	"time"

	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// clockClient has one connection to each server, over which its clock is read. They are used for nothing else: on a
// connection of the feed, an answer would wait until the messages before it have been handled.
type clockClient struct {
	mu     sync.Mutex
	client rueidis.Client // nil before the first reading
}

func (c *clockClient) get(ctx context.Context, s *Store) (rueidis.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		return c.client, nil
	}
	client, err := s.dialOwn(ctx) // a retry is of no use: the caller soon reads the clock again
	if err == nil {
		c.client = client
	}
	return client, err
}

// close closes the connections. The clock must not be read any more.
func (c *clockClient) close() {
	if c.client != nil {
		c.client.Close()
	}
}

// Clock implements [store.Store].
func (s *Store) Clock() store.Clock { return store.Clock{Now: s.now} }

// now returns the server's time. On a Cluster each master marks endings with its own time, so all are asked, with a key
// of each bucket, since slots may be moving between masters. The earliest time counts.
func (s *Store) now(ctx context.Context) (time.Time, error) {
	ctx, leave, err := s.read(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer leave()
	client, err := s.clock.get(ctx, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("redis: clock: %w", err)
	}
	asked := 1
	if s.cluster {
		asked = buckets
	}
	commands := make([]rueidis.Completed, asked)
	for b := range commands {
		commands[b] = client.B().Eval().Script("return redis.call('TIME')").Numkeys(1).
			Key(s.named(bucket(b), "clock", nil)).Build()
	}
	var earliest time.Time
	for _, result := range client.DoMulti(ctx, commands...) {
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
