package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"example.com/curfew/internal/wait"
	"example.com/curfew/store"
)

// Run keeps the cache honest and the store small, until ctx is done. Without it every check asks the store.
//
// It watches what ends on any replica, and asks the feed four times in each ceiling whether it is whole. When it
// is not, all copies are dropped, and checks read through until it is.
func (m *Manager) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { m.prune(ctx) })
	wg.Go(func() { m.clock.run(ctx) })
	defer wg.Wait()
	for told := false; ctx.Err() == nil; {
		err := m.follow(ctx, func() { told = false })
		m.distrust()
		if ctx.Err() == nil && !told {
			told = true // and not again before it has been whole
			m.cfg.Log.ErrorContext(ctx, "the store's feed is broken: every check asks the store until it is whole "+
				"again",
				"event", "feed_broken", "error", err)
		}
		wait.Sleep(ctx, min(time.Second, max(m.cfg.MaxStale, 100*time.Millisecond)))
	}
}

// follow watches the feed until it is found broken.
func (m *Manager) follow(ctx context.Context, whole func()) error {
	feed, err := m.cfg.Store.Watch(ctx, m.drop)
	if err != nil {
		return err
	}
	defer feed.Close()
	m.distrust() // copies from before the watch
	if err := m.clock.sure(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(max(m.cfg.MaxStale, time.Second) / 4)
	defer tick.Stop()
	for first := true; ; first = false {
		began := m.cfg.Now()
		if err := feed.Sync(ctx); err != nil {
			return err
		}
		m.synced.Store(&began)
		whole()
		if first {
			m.recheck(ctx) // what ended while nobody watched
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// distrust drops all copies, and serves none before the next Sync.
func (m *Manager) distrust() {
	m.synced.Store(nil)
	m.cache.forgetAll()
}

// drop forgets a session that has ended and tells who waits for that. It is called by the feed and by [Manager.End],
// so often twice.
func (m *Manager) drop(e store.Ended) {
	m.cache.forget(e.Key)
	m.notifyWatchers(e.Key, e.Cause)
	if m.cfg.OnHeard != nil {
		m.cfg.OnHeard(e)
	}
}

// prune removes what is past its time, once a minute.
func (m *Manager) prune(ctx context.Context) {
	for wait.Sleep(ctx, time.Minute) {
		if m.clock.sure(ctx) != nil {
			continue // nothing is pruned by a clock that may be wrong
		}
		early, _ := m.clock.between()
		now := store.Time(early)
		if err := m.revokeExpired(ctx, now); err != nil {
			if ctx.Err() == nil {
				m.cfg.Log.WarnContext(ctx, "what expired sessions held could not be handed over; they are kept for "+
					"the next time, and not served",
					"event", "expired_kept", "error", err)
			}
			continue
		}
		for ctx.Err() == nil {
			n, err := m.cfg.Store.Prune(ctx, now)
			if err != nil && ctx.Err() == nil {
				m.cfg.Log.WarnContext(ctx, "expired sessions could not be removed; they are not served all the same",
					"event", "prune_failed", "error", err)
			}
			if err != nil || n == 0 {
				break
			}
		}
	}
}

// handOver hands over what is overdue at now, before it is pruned.
func (m *Manager) revokeExpired(ctx context.Context, now time.Time) error {
	if m.cfg.Notices == nil || !m.cfg.RevokeExpired {
		return nil
	}
	const batch = 1000 // each may cost the store as much as there are in all
	for after := (store.Key{}); ; {
		due, err := m.cfg.Store.Overdue(ctx, after, batch, now)
		if err != nil || len(due) == 0 {
			return err
		}
		if err := m.cfg.Notices.Expired(ctx, due); err != nil {
			return err
		}
		after = due[len(due)-1].Key
	}
}

// watcher is told once that its session has ended.
type watcher struct{ ended chan store.Cause }

// Watch tells when a session ends: ended receives the cause, once; it is "" when the session ended while this process
// did not hear the feed. Expiry is not told: who holds something open asks [Manager.Peek] when Expires or IdleExpires
// has passed. stop must be called.
func (m *Manager) Watch(k store.Key) (ended <-chan store.Cause, stop func()) {
	w := &watcher{make(chan store.Cause, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.watchers[k] == nil {
		m.watchers[k] = make(map[*watcher]struct{})
	}
	m.watchers[k][w] = struct{}{}
	return w.ended, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watchers[k], w)
		if len(m.watchers[k]) == 0 {
			delete(m.watchers, k)
		}
	}
}

func (m *Manager) notifyWatchers(k store.Key, c store.Cause) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for w := range m.watchers[k] {
		w.ended <- c // has room for one, and is gone from the map after it
	}
	delete(m.watchers, k)
}

// recheck tells those whose session is no longer there.
func (m *Manager) recheck(ctx context.Context) {
	m.mu.Lock()
	keys := make([]store.Key, 0, len(m.watchers))
	for k := range m.watchers {
		keys = append(keys, k)
	}
	m.mu.Unlock()
	for _, k := range keys {
		if _, err := m.Peek(ctx, k); errors.Is(err, store.ErrNotFound) {
			m.notifyWatchers(k, "")
		}
	}
}
