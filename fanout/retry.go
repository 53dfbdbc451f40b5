package fanout

import (
	"math/rand/v2"
	"sync"
	"time"

	"example.com/curfew/store"
)

const (
	retryFirst = time.Second
	retryMost  = 15 * time.Minute
	maxRefused = 3 // tries of a notice that is refused each time

	breakAfter     = 5 // failures in a row
	breakFirst     = 5 * time.Second
	breakMost      = 5 * time.Minute
	retryAfterMost = time.Hour // that the breaker honors
)

// verdict says whether a notice is to be tried again.
type verdict uint8

const (
	done      verdict = iota // it succeeded
	temporary                // it may succeed later
	refused                  // the target understood and refused: that seldom changes
	permanent                // it can never succeed
	expired                  // its deadline came before it was tried
	internal                 // the fault is on our side, and says nothing about the target: it was not tried
)

// result is the result of an attempt.
type result struct {
	verdict    verdict
	name       string // a label of metrics
	status     int    // of the answer; 0 if there was none
	reason     string // for people; has no text of a token or of the app
	retryAfter time.Duration
}

// outcome returns what is to be done with the notice.
func (r result) outcome(n store.Notice, now time.Time) store.Outcome {
	if r.verdict == done {
		return store.Outcome{Done: true}
	}
	untried := r.verdict == expired || r.verdict == internal
	if r.verdict == permanent || r.verdict == refused && n.Attempts >= maxRefused || !now.Before(n.Deadline) {
		return store.Outcome{GiveUp: true, Untried: untried, Reason: r.reason}
	}
	pause := max(backoff(n.Attempts, retryFirst, retryMost), r.retryAfter)
	if r.verdict == refused && n.Attempts == maxRefused-1 {
		// Before the last try, what may pass: the app's store is away for a moment, or the keys have changed, and the app
		// or another replica does not know the new ones yet.
		pause = max(pause, jitter(4*maxAge))
	}
	if untried {
		// The attempts do not grow. About as long again as it has waited is twice as long each time too.
		pause = jitter(min(max(now.Sub(n.Created), retryFirst), retryMost))
	}
	at := now.Add(pause)
	if at.After(n.Deadline) {
		at = n.Deadline // for the last try
	}
	return store.Outcome{RetryAt: at, Untried: untried, Reason: r.reason}
}

// backoff returns how long to wait after try n: twice as long each time, with jitter.
func backoff(n int, first, most time.Duration) time.Duration {
	d := most
	if n = max(n, 1); n < 32 {
		d = min(first<<(n-1), most)
	}
	return jitter(d)
}

// jitter returns d less a random part of up to half, so that notices that failed together are not retried together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// breaker is a circuit breaker for an app that does not answer. After some failures in a row there is a pause, then one
// notice is tried, and so on.
type breaker struct {
	mu       sync.Mutex
	failures int
	trips    int       // since the app last answered
	tripped  time.Time // the last trip
	until    time.Time // no attempts before this
}

// hold returns how long to wait before the next attempt. probe means that it must be a single one.
func (b *breaker) hold(now time.Time) (wait time.Duration, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.until.Sub(now), b.trips > 0
}

// release ends the pause. The next attempt is still a single one.
func (b *breaker) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.until = time.Time{}
}

// record records the result of an attempt that began at the given time.
func (b *breaker) record(r result, began, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch r.verdict {
	case expired, internal:
		return
	case temporary:
	default: // it answers
		if !began.Before(b.tripped) {
			b.failures, b.trips, b.until = 0, 0, time.Time{}
		}
		return
	}
	b.failures++
	if b.failures < breakAfter && r.retryAfter == 0 || began.Before(b.tripped) {
		return // attempts that were under way when it tripped say nothing new
	}
	b.trips++
	b.tripped = now
	b.until = now.Add(max(backoff(b.trips, breakFirst, breakMost), min(r.retryAfter, retryAfterMost)))
}
