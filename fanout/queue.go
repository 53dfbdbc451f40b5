package fanout

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"example.com/curfew/internal/guard"
	"example.com/curfew/internal/span"
	"example.com/curfew/internal/wait"
	"example.com/curfew/store"
)

const (
	completeTimeout = 10 * time.Second
	tryTimeout      = 25 * time.Second // of one whole attempt
)

// queue sends the notices of one kind for one target. Queues do not depend on one another, so a slow app does not delay
// others.
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
	next    time.Time // when the next notice that this queue postponed is due; zero: none
}

// run claims and sends notices until ctx is done. It then finishes the attempts under way and gives the other notices
// back.
func (q *queue) run(ctx context.Context) {
	jobs := make(chan store.Notice)
	var workers sync.WaitGroup
	for range q.width {
		workers.Go(func() {
			for n := range jobs {
				q.attempt(context.WithoutCancel(ctx), n)
			}
		})
	}
	defer workers.Wait()
	defer close(jobs)
	for failures := 0; ctx.Err() == nil; {
		now := q.s.cfg.Now()
		hold, probe := q.breaker.hold(now)
		if hold > 0 {
			pause, cancel := context.WithTimeout(ctx, hold)
			select {
			case <-pause.Done():
			case <-q.woken: // an operator may have ended the pause
			}
			cancel()
			continue
		}
		// Claim no more than can be tried well within the lease.
		most := 2 * q.width
		if probe {
			most = 1
		}
		notices, err := q.s.cfg.Outbox.Claim(ctx, q.kind, q.target, store.Time(now), q.lease, most)
		if err != nil {
			if failures++; ctx.Err() == nil {
				q.s.cfg.Log.WarnContext(ctx, "notices could not be claimed", "event", "notice_claim_failed",
					"kind", q.kind, "target", q.target, "error", err)
				wait.Sleep(ctx, backoff(failures, retryFirst, time.Minute))
			}
			continue
		}
		failures = 0
		switch {
		case len(notices) == 0:
			q.waitForWork(ctx)
		case probe:
			q.probe(ctx, notices[0])
		default:
			q.dispatch(ctx, jobs, notices)
		}
	}
}

// dispatch passes notices to the workers. If the app stops answering, or ctx is done, it gives the rest back untried.
func (q *queue) dispatch(ctx context.Context, jobs chan<- store.Notice, notices []store.Notice) {
	for i, n := range notices {
		_, tripped := q.breaker.hold(q.s.cfg.Now())
		if !tripped {
			select {
			case jobs <- n:
				continue
			case <-ctx.Done():
			}
		}
		for _, n := range notices[i:] {
			q.complete(context.WithoutCancel(ctx), n, store.Outcome{RetryAt: n.Due, Untried: true, Reason: n.Reason})
		}
		return
	}
}

// probe tries one notice of an app that has not answered. A notice whose deadline has passed is given up instead.
func (q *queue) probe(ctx context.Context, n store.Notice) {
	ctx = context.WithoutCancel(ctx)
	if now := q.s.cfg.Now(); !now.Before(n.Deadline) {
		reason := cmp.Or(n.Reason, "never tried: the app did not answer before its deadline")
		q.report(ctx, n, result{verdict: expired, name: "expired", reason: reason}, now)
		return
	}
	q.attempt(ctx, n)
}

// attempt tries one notice and reports the result.
func (q *queue) attempt(ctx context.Context, n store.Notice) {
	began := q.s.cfg.Now()
	trying, cancel := context.WithTimeout(ctx, tryTimeout)
	trying, sp := span.Begin(q.s.traces.of(trying, &n), q.s.cfg.Tracer, "notice "+string(q.kind), trace.SpanKindClient,
		"curfew.notice.kind", string(q.kind), "curfew.notice.target", q.target, "curfew.notice.id", n.ID)
	r := q.guarded(trying, n)
	span.Set(trying, "curfew.result", r.name)
	if r.verdict != done {
		sp.SetStatus(codes.Error, "")
	}
	sp.End()
	cancel()
	q.breaker.record(r, began, q.s.cfg.Now())
	q.report(ctx, n, r, began)
}

// guarded is try, in which the app's HTTP client may panic: the process would end, and at the next start again.
func (q *queue) guarded(ctx context.Context, n store.Notice) result {
	var fault error
	r := func() result {
		defer guard.Recover(cmp.Or(q.s.cfg.Log, slog.Default()), "a notice", &fault)
		return q.try(ctx, n)
	}()
	if fault != nil {
		return result{verdict: temporary, name: "unreachable", reason: clip(fault.Error())}
	}
	return r
}

// report writes the result of an attempt to the store, the log and the metrics.
func (q *queue) report(ctx context.Context, n store.Notice, r result, began time.Time) {
	now := q.s.cfg.Now()
	o := r.outcome(n, now)
	level, next := slog.LevelInfo, "done"
	switch {
	case o.GiveUp:
		level, next = slog.LevelError, "given up"
	case !o.Done:
		level, next = slog.LevelWarn, "again in "+o.RetryAt.Sub(now).Round(time.Second).String()
	}
	attrs := []slog.Attr{slog.String("event", "notice"), slog.String("kind", string(n.Kind)),
		slog.String("target", n.Target), slog.String("notice", n.ID), slog.Int("attempt", n.Attempts),
		slog.String("result", r.name), slog.String("next", next), slog.Duration("took", now.Sub(began)),
		slog.String("cause", string(n.Cause))}
	if r.status != 0 {
		attrs = append(attrs, slog.Int("status", r.status))
	}
	if r.reason != "" {
		attrs = append(attrs, slog.String("reason", r.reason))
	}
	q.s.cfg.Log.LogAttrs(ctx, level, "a notice was tried", attrs...)
	if q.s.cfg.OnAttempt != nil {
		q.s.cfg.OnAttempt(n.Kind, n.Target, r.name)
	}
	q.complete(ctx, n, o)
}

// complete writes the outcome of a notice. If that fails, the notice is sent once more when its lease has expired,
// which does no harm.
func (q *queue) complete(ctx context.Context, n store.Notice, o store.Outcome) {
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	o.RetryAt = store.Time(o.RetryAt)
	switch err := q.s.cfg.Outbox.Complete(ctx, n, o); {
	case err == nil:
		q.due(o.RetryAt)
	case errors.Is(err, store.ErrLeaseLost):
		q.s.cfg.Log.DebugContext(ctx, "a notice was taken over by another replica, or dropped",
			"event", "notice_lease_lost", "notice", n.ID)
	default:
		q.s.cfg.Log.WarnContext(ctx, "the outcome of a notice could not be written: it will be sent once more",
			"event", "notice_not_recorded", "notice", n.ID, "error", err)
	}
}

// due notes when a notice that this queue postponed is due.
func (q *queue) due(at time.Time) {
	if at.IsZero() {
		return
	}
	q.mu.Lock()
	earlier := q.next.IsZero() || at.Before(q.next)
	if earlier {
		q.next = at
	}
	q.mu.Unlock()
	if earlier {
		q.wake()
	}
}

// wake makes the queue look for notices.
func (q *queue) wake() {
	select {
	case q.woken <- struct{}{}:
	default:
	}
}

// waitForWork waits until wake is called, a postponed notice is due, or it is time to look for notices of other
// replicas.
func (q *queue) waitForWork(ctx context.Context) {
	poll := q.s.cfg.Poll
	t := time.NewTimer(poll - poll/10 + rand.N(poll/5))
	defer t.Stop()
	q.mu.Lock()
	next := q.next
	q.mu.Unlock()
	var due <-chan time.Time
	if !next.IsZero() {
		wait := time.NewTimer(max(0, next.Sub(q.s.cfg.Now())))
		defer wait.Stop()
		due = wait.C
	}
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-q.woken:
	case <-due:
		q.mu.Lock()
		if q.next.Equal(next) {
			q.next = time.Time{}
		}
		q.mu.Unlock()
	}
}
