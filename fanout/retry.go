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

	breakAfter = 5 // failures in a row
	breakFirst = 5 * time.Second
	breakMost  = 5 * time.Minute
	obeyMost   = time.Hour // of a Retry-After
)

// verdict is what an attempt says about the next one.
type verdict uint8

const (
	done    verdict = iota // there is none
	later                  // it may go better another time
	refused                // it was understood and refused: that seldom changes
	never                  // it cannot go better
	ours                   // the fault is on our side: it says nothing about the app
)

// result is what became of an attempt.
type result struct {
	verdict    verdict
	name       string // a label of metrics
	status     int    // of the answer; 0 when there was none
	reason     string // for people; never text of a token, nor what the app wrote
	retryAfter time.Duration
}

// outcome decides what becomes of the notice.
func (r result) outcome(n store.Notice, now time.Time) store.Outcome {
	if r.verdict == done {
		return store.Outcome{Done: true}
	}
	if r.verdict == never || r.verdict == refused && n.Attempts >= maxRefused || !now.Before(n.Deadline) {
		return store.Outcome{GiveUp: true, Reason: r.reason}
	}
	at := now.Add(max(backoff(n.Attempts, retryFirst, retryMost), r.retryAfter))
	if at.After(n.Deadline) {
		at = n.Deadline // the last try
	}
	return store.Outcome{RetryAt: at, Reason: r.reason}
}

// backoff returns how long to wait after the nth try: twice as long each time, and with jitter, so that those who
// failed together do not come back together.
func backoff(n int, first, most time.Duration) time.Duration {
	d := most
	if n = max(n, 1); n < 32 {
		d = min(first<<(n-1), most)
	}
	return d/2 + rand.N(d/2+1)
}

// breaker keeps an app that does not answer from being asked for each of its notices: after some failures in a row
// nobody asks for a while, then one notice is tried, and so on.
type breaker struct {
	mu       sync.Mutex
	failures int
	trips    int       // since it last answered
	tripped  time.Time // the last of them
	until    time.Time // nobody asks before
}

// hold returns how long to wait before the next attempt, and whether that is to be a single one.
func (b *breaker) hold(now time.Time) (wait time.Duration, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.until.Sub(now), b.trips > 0
}

// record learns from an attempt that began at the given time.
func (b *breaker) record(r result, began, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch r.verdict {
	case ours:
		return
	case later:
	default: // it answers
		if !began.Before(b.tripped) {
			b.failures, b.trips, b.until = 0, 0, time.Time{}
		}
		return
	}
	b.failures++
	if b.failures < breakAfter && r.retryAfter == 0 || began.Before(b.tripped) {
		return // those that were under way when it tripped tell nothing new
	}
	b.trips++
	b.tripped = now
	b.until = now.Add(max(backoff(b.trips, breakFirst, breakMost), min(r.retryAfter, obeyMost)))
}
