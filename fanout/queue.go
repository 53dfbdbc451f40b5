package fanout

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"example.com/curfew/internal/wait"
	"example.com/curfew/store"
)

const (
	completeTimeout = 10 * time.Second
	tryTimeout      = 25 * time.Second // of one attempt, all included
)

// queue carries out the notices of one kind for one target. Queues know nothing of one another: what one app does,
// delays no other.
type queue struct {
	s      *Sender
	kind   store.NoticeKind
	target string
	width  int // how many at a time
	lease  time.Duration
	try    func(context.Context, store.Notice) result

	breaker breaker
	woken   chan struct{}
	mu      sync.Mutex
	next    time.Time // when the first of those is due that this queue put off; zero: none is known
}

// run claims and carries out until ctx is done. What it holds then is finished, or given back.
func (l *queue) run(ctx context.Context) {
	jobs := make(chan store.Notice)
	var workers sync.WaitGroup
	for range l.width {
		workers.Go(func() {
			for n := range jobs {
				l.attempt(context.WithoutCancel(ctx), n)
			}
		})
	}
	defer workers.Wait()
	defer close(jobs)
	for failures := 0; ctx.Err() == nil; {
		now := l.s.cfg.Now()
		hold, probe := l.breaker.hold(now)
		if hold > 0 {
			wait.Sleep(ctx, hold)
			continue
		}
		// No more than can be tried well within the lease.
		most := 2 * l.width
		if probe {
			most = 1
		}
		notices, err := l.s.cfg.Outbox.Claim(ctx, l.kind, l.target, store.Time(now), l.lease, most)
		if err != nil {
			if failures++; ctx.Err() == nil {
				l.s.cfg.Log.WarnContext(ctx, "notices could not be claimed", "event", "notice_claim_failed", "kind",
					l.kind, "target", l.target, "error", err)
				wait.Sleep(ctx, backoff(failures, retryFirst, time.Minute))
			}
			continue
		}
		failures = 0
		switch {
		case len(notices) == 0:
			l.waitForWork(ctx)
		case probe:
			l.probe(ctx, notices[0])
		default:
			l.dispatch(ctx, jobs, notices)
		}
	}
}

// hand gives notices to the workers. What is left when the app stops answering, or when we are to stop, goes back
// unharmed.
func (l *queue) dispatch(ctx context.Context, jobs chan<- store.Notice, notices []store.Notice) {
	for i, n := range notices {
		_, tripped := l.breaker.hold(l.s.cfg.Now())
		if !tripped {
			select {
			case jobs <- n:
				continue
			case <-ctx.Done():
			}
		}
		for _, n := range notices[i:] {
			l.complete(context.WithoutCancel(ctx), n, store.Outcome{RetryAt: n.Due, Reason: n.Reason})
		}
		return
	}
}

// probe tries one notice of an app that did not answer. One that is past its time is not worth it.
func (l *queue) probe(ctx context.Context, n store.Notice) {
	ctx = context.WithoutCancel(ctx)
	if now := l.s.cfg.Now(); !now.Before(n.Deadline) {
		reason := n.Reason
		if reason == "" {
			reason = "never tried: the app did not answer before its deadline"
		}
		l.report(ctx, n, result{verdict: never, name: "expired", reason: reason}, now)
		return
	}
	l.attempt(ctx, n)
}

// attempt carries out one notice and settles it.
func (l *queue) attempt(ctx context.Context, n store.Notice) {
	began := l.s.cfg.Now()
	trying, cancel := context.WithTimeout(ctx, tryTimeout)
	r := l.try(trying, n)
	cancel()
	l.breaker.record(r, began, l.s.cfg.Now())
	l.report(ctx, n, r, began)
}

// conclude tells what became of a notice: the store, the log and the metrics.
func (l *queue) report(ctx context.Context, n store.Notice, r result, began time.Time) {
	now := l.s.cfg.Now()
	o := r.outcome(n, now)
	level, next := slog.LevelInfo, "done"
	switch {
	case o.GiveUp:
		level, next = slog.LevelError, "given up"
	case !o.Done:
		level, next = slog.LevelWarn, "again in "+o.RetryAt.Sub(now).Round(time.Second).String()
	}
	attrs := []slog.Attr{slog.String("event", "notice"), slog.String("kind", string(n.Kind)),
		slog.String("target", n.Target),
		slog.String("notice", n.ID), slog.Int("attempt", n.Attempts), slog.String("result", r.name),
		slog.String("next", next),
		slog.Duration("took", now.Sub(began)), slog.String("cause", string(n.Cause))}
	if r.status != 0 {
		attrs = append(attrs, slog.Int("status", r.status))
	}
	if r.reason != "" {
		attrs = append(attrs, slog.String("reason", r.reason))
	}
	l.s.cfg.Log.LogAttrs(ctx, level, "a notice was tried", attrs...)
	if l.s.cfg.OnAttempt != nil {
		l.s.cfg.OnAttempt(n.Kind, n.Target, r.name)
	}
	l.complete(ctx, n, o)
}

// settle writes what becomes of a notice. If that fails it is carried out once more when its lease has run out, which
// does no harm.
func (l *queue) complete(ctx context.Context, n store.Notice, o store.Outcome) {
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	o.RetryAt = store.Time(o.RetryAt)
	switch err := l.s.cfg.Outbox.Complete(ctx, n, o); {
	case err == nil:
		l.due(o.RetryAt)
	case errors.Is(err, store.ErrLeaseLost):
		l.s.cfg.Log.DebugContext(ctx, "a notice was taken over by somebody else, or dropped", "event",
			"notice_lease_lost", "notice", n.ID)
	default:
		l.s.cfg.Log.WarnContext(ctx, "what became of a notice could not be written: it will be carried out once more",
			"event", "notice_settle_failed", "notice", n.ID, "error", err)
	}
}

// due notes when a notice that this queue put off comes due.
func (l *queue) due(at time.Time) {
	if at.IsZero() {
		return
	}
	l.mu.Lock()
	earlier := l.next.IsZero() || at.Before(l.next)
	if earlier {
		l.next = at
	}
	l.mu.Unlock()
	if earlier {
		l.wake()
	}
}

// nudge has the queue look for notices.
func (l *queue) wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// rest waits until there may be something to do: somebody nudged, one that was put off is due, or other replicas may
// have left something.
func (l *queue) waitForWork(ctx context.Context) {
	poll := l.s.cfg.Poll
	t := time.NewTimer(poll - poll/10 + rand.N(poll/5))
	defer t.Stop()
	l.mu.Lock()
	next := l.next
	l.mu.Unlock()
	var due <-chan time.Time
	if !next.IsZero() {
		wait := time.NewTimer(max(0, next.Sub(l.s.cfg.Now())))
		defer wait.Stop()
		due = wait.C
	}
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-l.woken:
	case <-due:
		l.mu.Lock()
		if l.next.Equal(next) {
			l.next = time.Time{}
		}
		l.mu.Unlock()
	}
}
