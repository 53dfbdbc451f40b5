package redis

import (
	"context"
	"fmt"
	"sync"
	"time"

	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// clockLine has the connections that the servers' clocks are read over, one to each. They are used for nothing else: an
// answer on a connection of the feed would wait for whoever takes in what came before it.
type clockLine struct {
	mu     sync.Mutex
	client rueidis.Client // nil before the first reading
}

func (c *clockLine) get(ctx context.Context, s *Store) (rueidis.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		return c.client, nil
	}
	option := s.option
	option.DisableRetry = true    // a reading that fails is soon followed by another
	option.PipelineMultiplex = -1 // one connection to each server
	client, err := dial(ctx, option)
	if err == nil {
		c.client = client
	}
	return client, err
}

// close is called when nobody reads any more.
func (c *clockLine) close() {
	if c.client != nil {
		c.client.Close()
	}
}

// Clock implements [store.Store].
func (s *Store) Clock() store.Clock { return store.Clock{Now: s.now} }

// now reads the server's time. On a Cluster each master stamps the endings of its own slots, so all are asked, by a key
// of each bucket: who has which slot may be changing.
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
