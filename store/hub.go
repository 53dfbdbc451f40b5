package store

import (
	"context"
	"errors"
	"sync"
)

// errClosed means that the subscription or its store is closed.
var errClosed = errors.New("the feed is closed")

// Hub passes the sessions that end to the watching functions of this process. It is for stores, which use one for
// [Sessions.Watch]. The zero Hub is ready for use.
type Hub struct {
	mu     sync.Mutex // held while watching functions run: one call at a time, and none after a Close that returned
	closed bool
	feeds  map[*subscription]struct{}
}

type subscription struct {
	hub  *Hub
	ctx  context.Context
	fn   func(Ended)
	stop func() bool
}

// Watch calls fn for every session handed to Publish from now on, until the feed is closed or ctx is done.
func (h *Hub) Watch(ctx context.Context, fn func(Ended)) (Feed, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosed
	}
	s := &subscription{hub: h, ctx: ctx, fn: fn}
	if h.feeds == nil {
		h.feeds = make(map[*subscription]struct{})
	}
	h.feeds[s] = struct{}{}
	s.stop = context.AfterFunc(ctx, func() { h.drop(s) })
	return s, nil
}

// Publish calls every watching function for each of ended, before it returns. A store calls it before any ending can
// return that found these sessions gone: its caller relies on the next Sync.
func (h *Hub) Publish(ended []Ended) {
	if len(ended) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.feeds {
		for _, e := range ended {
			if s.ctx.Err() != nil {
				break
			}
			s.fn(e)
		}
	}
}

// Close ends all subscriptions.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.feeds {
		s.stop()
	}
	h.feeds = nil
}

func (h *Hub) drop(s *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.feeds, s)
}

// Sync has nothing to wait for: a store publishes what an ending removed before any other ending that finds it gone
// returns. It fails once the subscription is over.
func (s *subscription) Sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.ctx.Err(); err != nil {
		return err
	}
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if _, ok := s.hub.feeds[s]; !ok {
		return errClosed
	}
	return nil
}

// Close implements [Feed].
func (s *subscription) Close() error {
	s.stop()
	s.hub.drop(s)
	return nil
}
