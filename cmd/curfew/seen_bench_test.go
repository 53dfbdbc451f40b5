package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	tracing "go.opentelemetry.io/otel/trace"

	"example.com/curfew"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
)

// dropped is an exporter that throws spans away, as a collector does for the one who sends them.
type dropped struct{}

func (dropped) ExportSpans(context.Context, []trace.ReadOnlySpan) error { return nil }
func (dropped) Shutdown(context.Context) error                          { return nil }

// BenchmarkSeen measures what it costs a check to be seen: one at /auth/verify with a session that is cached.
func BenchmarkSeen(b *testing.B) {
	traced := func(s trace.Sampler) tracing.TracerProvider {
		p := trace.NewTracerProvider(trace.WithBatcher(dropped{}), trace.WithSampler(s))
		b.Cleanup(func() { p.Shutdown(context.Background()) })
		return p
	}
	_, observer := newMetrics([]string{"main"}, nil)
	for _, row := range []struct {
		name    string
		observe curfew.Observer
		tracer  tracing.TracerProvider
	}{
		{"nothing", curfew.Observer{}, nil},
		{"metrics", observer, nil},
		{"metrics and traces, none sampled", observer, traced(trace.NeverSample())},
		{"metrics and traces, 1 in 100", observer, traced(trace.TraceIDRatioBased(0.01))},
		{"metrics and traces, all", observer, traced(trace.AlwaysSample())},
	} {
		b.Run(row.name, func(b *testing.B) {
			site, _ := url.Parse("https://app.example.com")
			rp, err := curfew.New(b.Context(), curfew.Config{URL: site.String(), Observe: row.observe, Tracer: row.tracer,
				Providers: []oidc.Config{{Issuer: "https://id.example.com", ClientID: "app"}},
				Log:       slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { rp.Close() })
			bearer, _, err := rp.Sessions().Create(b.Context(), session.SignIn{Provider: "main",
				Issuer: "https://id.example.com", ClientID: "app", Subject: "alice", Began: rp.Sessions().Now()})
			if err != nil {
				b.Fatal(err)
			}
			for !rp.Sessions().Stats().InSync {
				time.Sleep(time.Millisecond)
			}
			handler := rp.Handler()
			r := httptest.NewRequest(http.MethodGet, "https://app.example.com/auth/verify", nil)
			r.Header.Set("Cookie", "__Host-curfew="+bearer.Reveal())
			w := &discard{header: http.Header{}}
			handler.ServeHTTP(w, r)
			hits := rp.Sessions().Stats().Hits
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				w.status = http.StatusOK
				handler.ServeHTTP(w, r)
				if w.status != http.StatusOK {
					b.Fatal(w.status)
				}
			}
			if rp.Sessions().Stats().Hits == hits {
				b.Fatal("no check was answered from the cache")
			}
		})
	}
}

// discard is a response that nobody reads.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
