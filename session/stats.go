package session

import (
	"sync/atomic"
	"time"
)

// Stats counts what a [Manager] has done since it was made, for metrics.
type Stats struct {
	Cached int    // the sessions in the cache
	Hits   uint64 // checks that were answered from the cache
	Misses uint64 // checks of sessions that were not in it
	// Bypassed counts the checks that did not use the cache, since the feed was not in sync or there is no cache.
	Bypassed uint64

	InSync  bool          // the cache is used
	FeedAge time.Duration // since the feed last proved that no ending was missed; 0: it did not yet, or is broken
	// Broken counts how often the feed was lost: the store said that an ending may have been missed, or did not answer.
	Broken uint64
	// Ceiling counts how often the proof was found to be older than [Config.MaxStale].
	Ceiling uint64
}

// counts has the numbers of [Stats] that are kept as they happen.
type counts struct {
	bypassed, broken, ceiling atomic.Uint64
	tripped                   atomic.Pointer[time.Time] // the proof of the feed that ceiling was last counted for
}

// Stats returns the numbers as they are now. It does not ask the store.
func (m *Manager) Stats() Stats {
	now := m.cfg.Now()
	s := Stats{Bypassed: m.counts.bypassed.Load(), Broken: m.counts.broken.Load()}
	if t := m.synced.Load(); t != nil {
		s.InSync, s.FeedAge = m.cacheTrusted(now), max(0, now.Sub(*t))
	}
	s.Ceiling = m.counts.ceiling.Load()
	s.Cached, s.Hits, s.Misses = m.cache.counts()
	return s
}
