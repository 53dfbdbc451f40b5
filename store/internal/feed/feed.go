// Package feed hands what ends in this process to those who watch it. Every store uses it for its own half of
// [store.Store.Watch]; what ends in other processes is the store's own affair.
package feed

import (
	"context"
	"errors"
	"sync"

	"example.com/curfew/store"
)

// ErrClosed: the subscription or its store is closed, so nothing more will be heard.
var ErrClosed = errors.New("the feed is closed")

// Hub is the meeting place of one store. The zero Hub is ready for use.
type Hub struct {
	mu     sync.Mutex // held while watching functions run: one call at a time, and none after a Close that returned
	closed bool
	feeds  map[*subscription]struct{}
}

type subscription struct {
	hub  *Hub
	ctx  context.Context
	fn   func(store.Ended)
	stop func() bool
}

// Watch calls fn for every session handed to Publish from now on, until the feed is closed or ctx is done.
func (h *Hub) Watch(ctx context.Context, fn func(store.Ended)) (store.Feed, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	s := &subscription{hub: h, ctx: ctx, fn: fn}
	if h.feeds == nil {
		h.feeds = make(map[*subscription]struct{})
	}
	h.feeds[s] = struct{}{}
	s.stop = context.AfterFunc(ctx, func() { h.drop(s) })
	return s, nil
}

// Publish hands each of ended to everybody who watches, before it returns.
func (h *Hub) Publish(ended []store.Ended) {
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

// Sync has nothing to wait for: Publish returns after the last call, and End after Publish. It fails once the
// subscription is over.
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
		return ErrClosed
	}
	return nil
}

// Close implements [store.Feed].
func (s *subscription) Close() error {
	s.stop()
	s.hub.drop(s)
	return nil
}
