package session

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"example.com/curfew/internal/wait"
	"example.com/curfew/store"
	"golang.org/x/sync/errgroup"
)

// Run keeps the cache in sync with the store and removes what has expired from the store, until ctx is done. Without it
// every check reads from the store. Start it once for each manager.
//
// It watches the sessions that end on any replica, and checks four times in each [Config.MaxStale] that the store's
// feed has missed none. If it may have missed one, the cache is emptied and not used until the feed is in sync again.
func (m *Manager) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { m.prune(ctx) })
	wg.Go(func() { m.clock.run(ctx) })
	defer wg.Wait()
	for logged := false; ctx.Err() == nil; {
		err := m.followFeed(ctx, func() { logged = false })
		if ctx.Err() == nil {
			m.counts.broken.Add(1)
		}
		if ctx.Err() == nil && !logged {
			logged = true // and not again before the feed has been in sync
			m.cfg.Log.ErrorContext(ctx, "the store's feed is broken: every check asks the store until it is in "+
				"sync again",
				"event", "feed_broken", "error", err)
		}
		wait.Sleep(ctx, min(time.Second, max(m.cfg.MaxStale, 100*time.Millisecond)))
	}
}

// followFeed watches the feed until an ending may have been missed. It calls inSync after each successful Sync. The
// cache is not used before the first, nor after it has returned.
func (m *Manager) followFeed(ctx context.Context, inSync func()) error {
	feed, err := m.cfg.Store.Watch(ctx, m.sessionEnded)
	if err != nil {
		return err
	}
	defer feed.Close()
	if err := m.clock.ensureRead(ctx); err != nil {
		return err
	}
	rechecking, cancel := context.WithCancel(ctx)
	var recheck sync.WaitGroup
	defer recheck.Wait()
	defer cancel()
	defer m.dropCache() // before it waits
	tick := time.NewTicker(max(m.cfg.MaxStale, time.Second) / 4)
	defer tick.Stop()
	for first := true; ; first = false {
		began := m.cfg.Now()
		if err := feed.Sync(ctx); err != nil {
			return err
		}
		if first {
			m.cache.forgetAll() // the first Sync does not prove that what was read before it still lives
			recheck.Go(func() { m.recheckWatched(rechecking) })
		}
		m.synced.Store(&began)
		m.named.proved(began)
		inSync()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// dropCache empties the cache, which is then not used before the next Sync.
func (m *Manager) dropCache() {
	m.synced.Store(nil)
	m.cache.forgetAll()
}

// sessionEnded removes a session that has ended from the cache and notifies its watchers. The feed and [Manager.End]
// call it, so it often runs twice for one session.
func (m *Manager) sessionEnded(e store.Ended) {
	m.cache.forget(e.Key)
	m.notifyWatchers(e.Key, e.Cause)
	if m.cfg.OnHeard != nil {
		m.cfg.OnHeard(e)
	}
}

// prune removes what has expired from the store, once a minute.
func (m *Manager) prune(ctx context.Context) {
	x := &expired{through: time.Unix(0, 0), step: math.MaxInt64}
	for wait.Sleep(ctx, time.Minute) {
		if m.clock.ensureRead(ctx) != nil {
			continue // do not prune by a clock that may be wrong
		}
		if m.cfg.Notices == nil || !m.cfg.RevokeExpired {
			early, _ := m.clock.between()
			m.pruneAll(ctx, store.Time(early))
			continue
		}
		if err := m.revokeExpired(ctx, x); err != nil && ctx.Err() == nil {
			m.cfg.Log.WarnContext(ctx, "the tokens of expired sessions could not be queued for revocation: the "+
				"sessions are kept for the next try, and not served",
				"event", "expired_kept", "error", err)
		}
	}
}

// pruneAll removes what has expired at now from the store, and reports whether nothing is left.
func (m *Manager) pruneAll(ctx context.Context, now time.Time) bool {
	for ctx.Err() == nil {
		n, err := m.cfg.Store.Prune(ctx, now)
		if err != nil && ctx.Err() == nil {
			m.cfg.Log.WarnContext(ctx, "expired sessions could not be removed; they are not served",
				"event", "prune_failed", "error", err)
		}
		if err != nil || n == 0 {
			return err == nil
		}
	}
	return false
}

// watcher receives the cause once when its session has ended.
type watcher struct{ ended chan store.Cause }

// Watch returns a channel that receives the cause once when the session ends, for a handler that keeps a stream open.
// The cause is "" if the session ended while this process did not receive the feed. Expiry sends nothing: the caller
// calls [Manager.Peek] once Expires or IdleExpires has passed. stop must be called.
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
		w.ended <- c // does not block: it has room for one, and w is removed from the map
	}
	delete(m.watchers, k)
}

// recheckedAtOnce is how many sessions recheckWatched looks up at once: the store has to answer checks too.
const recheckedAtOnce = 4

// recheckWatched notifies the watchers of sessions that ended while the feed was not watched. Those about which the
// store does not answer are looked up again a second later, until ctx is done.
func (m *Manager) recheckWatched(ctx context.Context) {
	m.mu.Lock()
	keys := slices.Collect(maps.Keys(m.watchers))
	m.mu.Unlock()
	for more := true; more && len(keys) > 0; more = wait.Sleep(ctx, time.Second) {
		var mu sync.Mutex
		var failed []store.Key
		var all errgroup.Group
		all.SetLimit(recheckedAtOnce)
		for _, k := range keys {
			if ctx.Err() != nil || !m.watched(k) {
				continue
			}
			all.Go(func() error {
				switch _, err := m.lookUp(ctx, k, m.Now()); {
				case errors.Is(err, store.ErrNotFound):
					m.notifyWatchers(k, "")
				case err != nil:
					mu.Lock()
					defer mu.Unlock()
					failed = append(failed, k)
				}
				return nil
			})
		}
		_ = all.Wait()
		keys = failed
	}
}

// watched reports whether somebody still watches the session.
func (m *Manager) watched(k store.Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.watchers[k] != nil
}
