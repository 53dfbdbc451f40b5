package span

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Name is the name of the tracer.
const Name = "example.com/curfew"

// Start begins a span below that of ctx, if that is recorded, with the tracer of that span. end must be called; an
// error marks the span as failed, without the text, which may quote what somebody sent.
func Start(ctx context.Context, name string, kind trace.SpanKind, attrs ...string,
) (_ context.Context, end func(failed bool)) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, func(bool) {}
	}
	ctx, s := parent.TracerProvider().Tracer(Name).Start(ctx, name, trace.WithSpanKind(kind),
		trace.WithAttributes(pairs(attrs)...))
	return ctx, func(failed bool) {
		if failed {
			s.SetStatus(codes.Error, "")
		}
		s.End()
	}
}

// Rename gives the span of ctx, which is that of a request, the name of its route. The method stays in front.
func Rename(ctx context.Context, method, route string) {
	if s := trace.SpanFromContext(ctx); s.IsRecording() {
		s.SetName(method + " " + route)
	}
}

// Set adds attributes to the span of ctx: names and values by turns.
func Set(ctx context.Context, attrs ...string) {
	if s := trace.SpanFromContext(ctx); s.IsRecording() {
		s.SetAttributes(pairs(attrs)...)
	}
}

func pairs(attrs []string) []attribute.KeyValue {
	all := make([]attribute.KeyValue, 0, len(attrs)/2)
	for i := 0; i+1 < len(attrs); i += 2 {
		all = append(all, attribute.String(attrs[i], attrs[i+1]))
	}
	return all
}

// Begin begins the first span of a piece of work, below the context of a trace that is in ctx, or as a trace of its
// own. Without a provider it does nothing.
func Begin(ctx context.Context, provider trace.TracerProvider, name string, kind trace.SpanKind, attrs ...string,
) (context.Context, trace.Span) {
	if provider == nil {
		return ctx, noop.Span{}
	}
	return provider.Tracer(Name).Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(pairs(attrs)...))
}

// Inject writes the context of the trace into the headers of a request (W3C Trace Context), in place of any that is
// there. Without a trace it changes nothing.
func Inject(ctx context.Context, h http.Header) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return
	}
	h.Del("Tracestate")
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
}

// Extract returns ctx with the context of the trace that the headers name, if they do.
func Extract(ctx context.Context, h http.Header) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(h))
}

// Text returns the context of the trace of ctx as a traceparent, or "".
func Text(ctx context.Context) string {
	h := http.Header{}
	Inject(ctx, h)
	return h.Get("Traceparent")
}

// Link links the span of ctx to another, that [Text] named.
func Link(ctx context.Context, text string) {
	s := trace.SpanFromContext(ctx)
	if text == "" || !s.IsRecording() {
		return
	}
	other := trace.SpanContextFromContext(Extract(context.Background(), http.Header{"Traceparent": {text}}))
	if other.IsValid() {
		s.AddLink(trace.Link{SpanContext: other})
	}
}
