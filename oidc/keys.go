package oidc

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	keysFresh  = time.Hour        // older keys are fetched again in the background
	keysStale  = 24 * time.Hour   // older keys are not trusted any more, however long the provider is away
	keyBurst   = 3                // fetches for unknown key ids at once
	keyEvery   = 10 * time.Second // and then one in this time
	absentFor  = time.Minute      // how long a key id that the provider does not have is refused without asking again
	absentMost = 1024             // how many such key ids are remembered
	keysTried  = 4                // keys that a token which names none is tried with
	maxKID     = 1024             // bytes of a key id
)

// keySet is the guarded cache of a provider's keys. Anybody can make it look for a key, so looking is what is guarded:
//
//   - A key id that is here costs nothing, and a bad signature under it fetches nothing.
//   - One that is not is fetched for at once, since the provider may have changed its keys this moment; at most
//     keyBurst times, then once in keyEvery, however many ask. Who asks while a fetch is in flight waits for it.
//   - One that a fetch did not bring is refused for absentFor without another, so that a token sent over and over does
//     not use up the fetches.
//   - When no fetch is allowed and the key id is not known to be absent, nothing is known: that is an [ErrUnavailable], so
//     that the provider tries again. Were it a refusal, somebody who sends rubbish could have a genuine logout
//     under a new key refused for good. The next fetch, whoever causes it, brings the new key.
//
// Keys older than keysFresh are fetched again without anybody waiting, and what the provider has withdrawn is then no longer
// trusted; when they are twice as old, because nobody has needed them for long, the next caller waits. A fetch that fails leaves the keys there are, until they are keysStale.
type keySet struct {
	docs    *cached[keyRing]
	limit   *rate.Limiter // of the fetches for unknown key ids
	refused func()        // told when a fetch was not allowed

	mu     sync.Mutex
	absent map[string]time.Time // until when a key id is taken to be absent
}

// keyRing is what the provider published, by key id; those without one under "".
type keyRing map[string][]publicKey

func newKeySet(fetch func(context.Context) (keyRing, error), now func() time.Time, refused func()) *keySet {
	return &keySet{
		docs:    &cached[keyRing]{fetch: fetch, now: now, fresh: keysFresh, stale: keysStale},
		limit:   rate.NewLimiter(rate.Every(keyEvery), keyBurst),
		refused: refused,
		absent:  map[string]time.Time{},
	}
}

// verify says whether one of the provider's keys signed the token with the algorithm a. The error is an [Error] of the
// check "kid" or "signature", or an [ErrUnavailable].
func (s *keySet) verify(ctx context.Context, t *signed, a *algorithm) error {
	ring, err := s.docs.get(ctx)
	if err != nil {
		return err
	}
	for tries, sure := 0, false; ; tries++ {
		if ok, err := ring.verify(t, a); ok || err != nil {
			return err
		}
		// No key here could have signed it. Perhaps the provider has a new one.
		if sure {
			s.setAbsent(t.header.kid)
			return noKey(t, ring, a)
		}
		if s.isAbsent(t.header.kid) {
			return noKey(t, ring, a)
		}
		newer, joined, err := s.docs.renew(ctx, func(now time.Time) bool { return s.limit.AllowN(now, 1) })
		if errors.Is(err, errRefused) {
			s.refused()
			return unavailable("the token is signed with a key that is not known here (%s), and the keys were fetched only just now; they are fetched again within %v", quote(t.header.kid), keyEvery)
		}
		if err != nil {
			return err
		}
		ring = newer
		// A fetch that was under way when we asked proves nothing. The one after it does.
		sure = !joined || tries > 0
	}
}

func (s *keySet) isAbsent(kid string) bool {
	now := s.docs.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	until, there := s.absent[kid]
	return there && now.Before(until)
}

func (s *keySet) setAbsent(kid string) {
	if kid == "" {
		return // no name that could be absent
	}
	now := s.docs.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.absent) >= absentMost {
		maps.DeleteFunc(s.absent, func(_ string, until time.Time) bool { return !now.Before(until) })
	}
	for k := range s.absent { // any one: a flood makes room for itself
		if len(s.absent) < absentMost {
			break
		}
		delete(s.absent, k)
	}
	s.absent[kid] = now.Add(absentFor)
}

// verify tries the keys that the token could have been signed with. False and no error: there is none, or the token
// names none and none fits; a newer set might have one. A key that the token names decides at once.
func (ring keyRing) verify(t *signed, a *algorithm) (bool, error) {
	named, problem := ring[t.header.kid], ""
	if t.header.kid == "" {
		named = ring.all()
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
			return true, nil
		}
	}
	switch {
	case t.header.kid == "" || len(named) == 0:
		return false, nil
	case tried == 0:
		return false, failed("kid", "the provider's key %s is not for %s: %s", quote(t.header.kid), a.name, problem)
	default:
		return false, failed("signature", "it is not the signature of this token by the provider's key %s", quote(t.header.kid))
	}
}

// noKey is the refusal of a token when it is sure that the provider has no key for it.
func noKey(t *signed, ring keyRing, a *algorithm) error {
	if t.header.kid != "" {
		return failed("kid", "the provider has no key %s", quote(t.header.kid))
	}
	for _, k := range ring.all() {
		if k.problemWith(a) == "" {
			return failed("signature", "the token names no key, and none of the provider's keys for %s signed it", a.name)
		}
	}
	return failed("kid", "the token names no key, and the provider has none for %s", a.name)
}

// all returns the keys in the order of their ids.
func (ring keyRing) all() []publicKey {
	var all []publicKey
	for _, kid := range slices.Sorted(maps.Keys(ring)) {
		all = append(all, ring[kid]...)
	}
	return all
}
