package oidc

import (
	"container/list"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	keysFresh = time.Hour       // older keys are fetched again in the background
	keysStale = 24 * time.Hour  // older keys are not trusted any more, however long the provider is away
	keyBurst  = 3               // fetches at once for tokens that no known key signed
	keyEvery  = 2 * time.Second // and then one in this time; less than the least that a provider waits, 2.5 s

	// holdFor is how long a token waits for its key, all included. Providers wait 2.5 s to 5 s for an answer.
	holdFor = 4500 * time.Millisecond
	// holdMost and holdBytes bound the tokens of strangers that wait at one time for the keys of one provider.
	holdMost, holdBytes = 512, 2 << 20
	// publishDelay is the age at which a token's key must have been published: a minute, and the difference of two clocks.
	publishDelay = time.Minute + skew

	keysTried = 4    // keys that are tried with a token which names none, or a name that several have
	maxKID    = 1024 // bytes of a key id
)

// keySet is the guarded cache of a provider's keys. Anybody can make it look for a key, so looking is what is guarded.
//
// A token whose signature a key confirms costs one look-up. For any other, nothing is known at first: the provider may
// have new keys, under new names or under the same ones. So the keys are fetched again, at most keyBurst times at once
// and then once in keyEvery, however many ask, and meanwhile the token is held, for at most holdFor. It is refused
//
//   - for its signature, when keys whose fetch began after the token came say so;
//   - for its key id, when keys that were fetched long after the token was signed do not have it (see publishDelay). A
//     set of keys behind a cache shows a new key late. The age of the token decides, and not how long the key id has
//     been missing, since anybody can name a key before the provider does.
//
// What is not decided within holdFor is an [ErrUnavailable], and so is everything while the keys cannot be fetched.
//
// Tokens that anybody can send and those that come from the provider itself (ID Tokens) have fetches and places of
// their own, so that a flood of the former leaves the latter alone; see waitingList.
//
// Keys older than keysFresh are fetched again without anybody waiting, and what the provider has withdrawn is then no
// longer trusted; when they are twice as old, because nobody has needed them for long, the next caller waits. A fetch
// that fails leaves the keys there are, until they are keysStale.
type keySet struct {
	docs      *cached[keysByID]
	strangers *waitingList
	provider  *waitingList
	clients   *waitingList // access tokens, so that they neither wait for nor displace logout tokens
	late      func()       // told when a token has to wait because a fetch was not allowed
}

// keysByID is what the provider published, by key id; those without one under "".
type keysByID map[string][]publicKey

func newKeySet(fetch func(context.Context) (keysByID, error), now func() time.Time, late func()) *keySet {
	return &keySet{
		docs:      &cached[keysByID]{fetch: fetch, now: now, fresh: keysFresh, stale: keysStale},
		strangers: newWaitingList(),
		provider:  newWaitingList(),
		clients:   newWaitingList(),
		late:      late,
	}
}

// verify reports whether one of the provider's keys signed the token with the algorithm a. iat is when the token says
// that it was signed; zero when it does not. It waits at d; without one, it decides by a single fetch what the token is
// worth now, as `curfew token explain` wants it. The error is an [Error] of the check "kid" or "signature", or an
// [ErrUnavailable].
func (s *keySet) verify(ctx context.Context, t *signed, a *algorithm, iat time.Time, d *waitingList) error {
	if iat.IsZero() {
		iat = s.docs.now()
	}
	once := d == nil
	if once {
		d = s.provider
	}
	ctx, cancel := context.WithTimeout(ctx, holdFor)
	defer cancel()
	began := s.docs.count()
	var c *waiter // none for a token that need not wait
	defer func() { c.leave() }()
	var open error // why it is not decided
	for ask, tries := true, 0; ; tries++ {
		landing := s.docs.landing() // before the keys are looked at, so that no fetch is missed
		keys, err := s.docs.have(ctx)
		if err == nil || ctx.Err() == nil || open == nil { // otherwise there was no time to look once more
			open = err
		}
		if err == nil {
			var says verdict
			if says, open = keys.value.verify(t, a); says == verified {
				return nil
			}
			since, long := keys.number > began, keys.begun.Sub(iat) >= publishDelay
			ask = ask && (tries > 0 || !since) // these keys were fetched for this token
			if once && since || says == wrong && (since || long) || says == missing && long && len(keys.value) > 0 {
				return open
			}
		} else if once {
			return open
		}
		if ctx.Err() != nil {
			return s.undecided(ctx, open)
		}
		if c == nil {
			c = d.take(len(t.raw))
		}
		wait := keyEvery
		switch {
		case keys == nil: // to get them has failed only just now
			wait = retryNeeded
		case ask:
			wait = s.ask(d.limit, tries == 0)
		}
		timer := time.NewTimer(wait)
		select {
		case <-landing:
			ask = false
		case <-timer.C:
			ask = true
		case <-ctx.Done():
		case <-c.taken:
			timer.Stop()
			return unavailable("too many tokens wait for keys of the provider: %v", open)
		}
		timer.Stop()
	}
}

// verifyKnown is verify by the keys in the cache alone. It neither begins a fetch nor waits.
func (s *keySet) verifyKnown(t *signed, a *algorithm) error {
	keys := s.docs.peek()
	if keys == nil {
		return unavailable("the keys are not in the cache")
	}
	_, err := keys.value.verify(t, a)
	return err
}

// ask begins a fetch, if it may, and returns after how long to ask again.
func (s *keySet) ask(limit *rate.Limiter, first bool) time.Duration {
	if s.docs.renew(limit.Allow) {
		return keyEvery
	}
	if first {
		s.late()
	}
	return max(time.Duration((1-limit.Tokens())*float64(keyEvery)), time.Millisecond)
}

// undecided is the answer when a token has waited for as long as it may. It does not wrap what is open, which is final
// for callers that look for an [Error].
func (s *keySet) undecided(ctx context.Context, open error) error {
	if _, refused := open.(*Error); !refused {
		return open
	}
	err := s.docs.trouble()
	if err == nil {
		err = errors.New("the provider may be about to publish another key")
	}
	return unavailable("%v; %v: %w", open, err, ctx.Err())
}

// verdict is what a set of keys says about a token.
type verdict int

const (
	verified verdict = iota
	wrong            // there is such a key, and it did not make this signature, or is not for it
	missing          // there is no such key
)

// verify tries the keys that the token could have been signed with. The error says why none of them signed it.
func (keys keysByID) verify(t *signed, a *algorithm) (verdict, error) {
	kid := t.header.kid
	named, problem := keys[kid], ""
	if kid == "" {
		named = keys.all()
	}
	tried := 0
	for i := range named {
		k := &named[i]
		if p := k.problemWith(a); p != "" {
			problem = p
			continue
		}
		if tried++; tried > keysTried {
			break
		}
		if a.verify(k.key, t.input, t.signature) {
			return verified, nil
		}
	}
	switch {
	case kid != "" && len(named) == 0:
		return missing, failed("kid", "the provider has no key %s", quote(kid))
	case kid == "" && tried == 0:
		return missing, failed("kid", "the token names no key, and the provider has none for %s", a.name)
	case kid == "":
		return wrong, failed("signature", "the token names no key, and none of the provider's keys for %s signed it",
			a.name)
	case tried == 0:
		return wrong, failed("kid", "the provider's key %s is not for %s: %s", quote(kid), a.name, problem)
	default:
		return wrong, failed("signature", "it is not the signature of this token by the provider's key %s", quote(kid))
	}
}

// all returns the keys in the order of their ids.
func (keys keysByID) all() []publicKey {
	var all []publicKey
	for _, kid := range slices.Sorted(maps.Keys(keys)) {
		all = append(all, keys[kid]...)
	}
	return all
}

// waitingList holds the tokens that wait for a key: at most holdMost, of holdBytes in all. When it is full, the token
// that has waited longest makes room. That one has seen the most fetches go by without its key: a genuine token is
// served by the next fetch, at most keyEvery away, unless so many come within that time.
type waitingList struct {
	limit *rate.Limiter // of the fetches that are made for those who wait here

	mu    sync.Mutex
	queue list.List // of *waiter
	bytes int
}

// waiter is one token that waits.
type waiter struct {
	list  *waitingList
	size  int
	at    *list.Element
	taken chan struct{} // closed when somebody else has it
}

func newWaitingList() *waitingList {
	return &waitingList{limit: rate.NewLimiter(rate.Every(keyEvery), keyBurst)}
}

func (d *waitingList) take(size int) *waiter {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.queue.Len() > 0 && (d.queue.Len() >= holdMost || d.bytes+size > holdBytes) {
		longest := d.queue.Front().Value.(*waiter)
		longest.remove()
		close(longest.taken)
	}
	c := &waiter{list: d, size: size, taken: make(chan struct{})}
	c.at = d.queue.PushBack(c)
	d.bytes += size
	return c
}

// leave gives the place back, if it was not taken away. Nil has none.
func (c *waiter) leave() {
	if c == nil {
		return
	}
	c.list.mu.Lock()
	defer c.list.mu.Unlock()
	c.remove()
}

func (c *waiter) remove() {
	if c.at != nil {
		c.list.queue.Remove(c.at)
		c.list.bytes -= c.size
		c.at = nil
	}
}
