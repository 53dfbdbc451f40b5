package session

import (
	"sync"
	"time"

	"example.com/curfew/store"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// cache is a bounded set of sessions. Its zero value keeps nothing.
//
// Every removal increments the epoch of its shard, and put rejects a session that was read under an older epoch. So a
// session that ended while it was being read is not put back.
type cache struct{ shards []shard }

type shard struct {
	mu    sync.Mutex
	epoch uint64
	lru   *simplelru.LRU[store.Key, *entry]
	hits  uint64 // sessions that get returned
	miss  uint64 // and those that it did not have
}

type entry struct {
	session *Session
	touched time.Time // when a caller last took on to write LastSeen
}

const shards = 64

func (c *cache) init(size int) {
	c.shards = make([]shard, shards)
	for i := range c.shards {
		// fails only for sizes below 1
		c.shards[i].lru, _ = simplelru.NewLRU[store.Key, *entry](max(1, size/shards), nil)
	}
}

// shardOf returns the shard of a key, by the last byte of its hash. The tag would not do: it is the same for all
// sessions of one person.
func (c *cache) shardOf(k store.Key) *shard { return &c.shards[int(k[len(k)-1])%shards] }

// get returns a session that has not expired, or nil. due reports whether LastSeen should be written, if claimTouch
// agrees.
func (c *cache) get(k store.Key, now time.Time, period time.Duration) (s *Session, due bool) {
	if c.shards == nil {
		return nil, false
	}
	sh := c.shardOf(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, ok := sh.lru.Get(k)
	// One that has expired may have been used on another replica: the store decides.
	if !ok || !now.Before(e.session.Expires) || !now.Before(e.session.IdleExpires) {
		sh.miss++
		return nil, false
	}
	sh.hits++
	return e.session, now.Sub(e.touched) >= period
}

// counts returns how many sessions are cached, and how often get returned one or did not.
func (c *cache) counts() (cached int, hits, misses uint64) {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		cached, hits, misses = cached+sh.lru.Len(), hits+sh.hits, misses+sh.miss
		sh.mu.Unlock()
	}
	return cached, hits, misses
}

// claimTouch reports whether the caller is to write LastSeen; it is true for one caller in each period.
func (c *cache) claimTouch(k store.Key, now time.Time, period time.Duration) bool {
	sh := c.shardOf(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, ok := sh.lru.Peek(k)
	if !ok || now.Sub(e.touched) < period {
		return false
	}
	e.touched = now
	return true
}

// epoch returns the value for put. Call it before the session is read or written.
func (c *cache) epoch(k store.Key) uint64 {
	if c.shards == nil {
		return 0
	}
	sh := c.shardOf(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.epoch
}

func (c *cache) put(s *Session, epoch uint64) {
	if c.shards == nil {
		return
	}
	sh := c.shardOf(s.Key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.epoch != epoch {
		return
	}
	if e, ok := sh.lru.Peek(s.Key); ok && e.session.revision > s.revision {
		return // a slower reader of an older revision
	}
	sh.lru.Add(s.Key, &entry{s, s.LastSeen})
}

func (c *cache) forget(k store.Key) {
	if c.shards == nil {
		return
	}
	sh := c.shardOf(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.epoch++
	sh.lru.Remove(k)
}

func (c *cache) forgetAll() {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		sh.epoch++
		sh.lru.Purge()
		sh.mu.Unlock()
	}
}
