package fanout

import (
	"context"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"go.opentelemetry.io/otel/trace"

	"example.com/curfew/store"
)

// mostTraces is how many endings are remembered with their trace.
const mostTraces = 10_000

// traces remembers which trace an ending of this process belongs to, for the first attempts at its notices. The store
// does not keep it: an attempt of another replica, or after a restart, is a trace of its own.
type traces struct {
	mu   sync.Mutex
	seen *simplelru.LRU[traceKey, trace.SpanContext]
}

// traceKey is what a notice and the ending that left it have in common.
type traceKey struct {
	key                       store.Key // zero: the notice is about a subject
	issuer, clientID, subject string
}

// Traced joins the notices of an ending to the trace of ctx.
func (s *Sender) Traced(ctx context.Context, e store.Ending, ended []store.Ended) {
	at := trace.SpanContextFromContext(ctx)
	if s.cfg.Tracer == nil || !at.IsSampled() {
		return
	}
	t := &s.traces
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen, _ = simplelru.NewLRU[traceKey, trace.SpanContext](mostTraces, nil) // fails for sizes below 1
	}
	if e.Selector.Subject != "" {
		t.seen.Add(traceKey{issuer: e.Selector.Issuer, clientID: e.Selector.ClientID, subject: e.Selector.Subject}, at)
	}
	for _, one := range ended {
		t.seen.Add(traceKey{key: one.Key}, at)
	}
}

// of returns ctx with the trace of the ending that left n, if that is known.
func (t *traces) of(ctx context.Context, n *store.Notice) context.Context {
	k := traceKey{key: n.Key}
	if n.Key.IsZero() {
		k = traceKey{issuer: n.Issuer, clientID: n.ClientID, subject: n.Subject}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		return ctx
	}
	at, ok := t.seen.Get(k)
	if !ok {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, at)
}
