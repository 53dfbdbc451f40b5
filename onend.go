package curfew

import (
	"context"
	"log/slog"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"example.com/curfew/store"
)

const (
	// maxEndings bounds how many ended sessions wait for [Config.OnEnd].
	maxEndings = 100_000
	// maxRecent is how many of those that were passed are remembered: one may be reported twice, by the call that ended
	// it and by the store's feed.
	maxRecent = 10_000
)

// endings passes ended sessions to [Config.OnEnd], in a goroutine of its own: the store's feed must not wait for it.
type endings struct {
	onEnd  func(context.Context, store.Ended)
	log    *slog.Logger
	recent *lru.Cache[store.Key, struct{}]
	wake   chan struct{}

	mu    sync.Mutex
	queue []store.Ended
	lost  int // since the last one that was passed
}

func newEndings(onEnd func(context.Context, store.Ended), log *slog.Logger) (*endings, error) {
	recent, err := lru.New[store.Key, struct{}](maxRecent)
	return &endings{onEnd: onEnd, log: log, recent: recent, wake: make(chan struct{}, 1)}, err
}

// add queues an ended session, unless it was added before. It does not block.
func (q *endings) add(e store.Ended) {
	if q.onEnd == nil {
		return
	}
	if known, _ := q.recent.ContainsOrAdd(e.Key, struct{}{}); known {
		return
	}
	q.mu.Lock()
	if len(q.queue) < maxEndings {
		q.queue = append(q.queue, e)
	} else {
		q.lost++
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run passes what is queued until ctx is done.
func (q *endings) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		}
		for ctx.Err() == nil {
			q.mu.Lock()
			due, lost := q.queue, q.lost
			q.queue, q.lost = nil, 0
			q.mu.Unlock()
			if lost > 0 {
				q.log.WarnContext(ctx, "OnEnd was too slow: it was not called for some sessions that ended",
					"event", "on_end_dropped", "sessions", lost)
			}
			if len(due) == 0 {
				break
			}
			for _, e := range due {
				if ctx.Err() != nil {
					return
				}
				q.onEnd(ctx, e)
			}
		}
	}
}
