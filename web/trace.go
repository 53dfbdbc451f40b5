package web

import (
	"bufio"
	"io"
	"net"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"example.com/curfew/internal/span"
)

// Trace begins the span of a request, if the site has a tracer. end must be called. The trace goes on from a
// traceparent (W3C Trace Context) of a trusted proxy. One of anybody else is ignored: strangers would decide what is
// recorded, and could join their requests to the traces of others.
func (s *Site) Trace(w http.ResponseWriter, r *http.Request, name string) (http.ResponseWriter, *http.Request, func()) {
	if s.Tracer == nil {
		return w, r, func() {}
	}
	ctx := r.Context()
	if !trace.SpanContextFromContext(ctx).IsValid() && s.FromTrustedProxy(r) {
		ctx = span.Extract(ctx, r.Header)
	}
	method := MethodName(r)
	ctx, sp := span.Begin(ctx, s.Tracer, method+" "+name, trace.SpanKindServer, "http.request.method", method)
	if !sp.IsRecording() { // it is only passed on
		return w, r.WithContext(ctx), func() {}
	}
	if w == nil { // what is answered is sent by other means
		return w, r.WithContext(ctx), func() { sp.End() }
	}
	traced := &tracedWriter{ResponseWriter: w, status: http.StatusOK}
	return traced.asWrapped(), r.WithContext(ctx), func() {
		sp.SetAttributes(attribute.Int("http.response.status_code", traced.status))
		if traced.status >= 500 {
			sp.SetStatus(codes.Error, "")
		}
		sp.End()
	}
}

// MethodName returns the method of a request, or _OTHER for one that a client made up, as the conventions of
// OpenTelemetry say.
func MethodName(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return r.Method
	}
	return "_OTHER"
}

// nameTrace names the span of a request by its route.
func nameTrace(r *http.Request) {
	if r.Pattern == "" {
		return
	}
	if sp := trace.SpanFromContext(r.Context()); sp.IsRecording() {
		sp.SetName(MethodName(r) + " " + r.Pattern)
		sp.SetAttributes(attribute.String("http.route", r.Pattern),
			attribute.String("curfew.request_id", RequestID(r.Context())))
	}
}

// tracedWriter records the status.
type tracedWriter struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (w *tracedWriter) WriteHeader(status int) {
	if !w.wrote {
		w.status, w.wrote = status, status >= 200 || status == http.StatusSwitchingProtocols
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *tracedWriter) Write(p []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController set deadlines.
func (w *tracedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// asWrapped returns the writer with [http.Flusher], [http.Hijacker] and [io.ReaderFrom] exactly where the wrapped one
// has them: apps ask for these by type.
func (w *tracedWriter) asWrapped() http.ResponseWriter {
	_, flushes := w.ResponseWriter.(http.Flusher)
	_, hijacks := w.ResponseWriter.(http.Hijacker)
	_, reads := w.ResponseWriter.(io.ReaderFrom)
	f := tracedF{w}
	h, fh := tracedH{w}, tracedFH{f}
	switch {
	case flushes && hijacks && reads:
		return tracedFHR{fh}
	case flushes && hijacks:
		return fh
	case flushes && reads:
		return tracedFR{f}
	case hijacks && reads:
		return tracedHR{h}
	case flushes:
		return f
	case hijacks:
		return h
	case reads:
		return tracedR{w}
	}
	return w
}

type (
	tracedF   struct{ *tracedWriter }
	tracedH   struct{ *tracedWriter }
	tracedR   struct{ *tracedWriter }
	tracedFH  struct{ tracedF }
	tracedFR  struct{ tracedF }
	tracedHR  struct{ tracedH }
	tracedFHR struct{ tracedFH }
)

func (w tracedF) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController prefers.
func (w tracedF) FlushError() error {
	w.wrote = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w tracedH) Hijack() (net.Conn, *bufio.ReadWriter, error)  { return w.hijack() }
func (w tracedFH) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

func (w tracedR) ReadFrom(r io.Reader) (int64, error)   { return w.readFrom(r) }
func (w tracedFR) ReadFrom(r io.Reader) (int64, error)  { return w.readFrom(r) }
func (w tracedHR) ReadFrom(r io.Reader) (int64, error)  { return w.readFrom(r) }
func (w tracedFHR) ReadFrom(r io.Reader) (int64, error) { return w.readFrom(r) }

func (w *tracedWriter) hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.ResponseWriter.(http.Hijacker).Hijack()
}

func (w *tracedWriter) readFrom(r io.Reader) (int64, error) {
	w.wrote = true
	return w.ResponseWriter.(io.ReaderFrom).ReadFrom(r)
}
