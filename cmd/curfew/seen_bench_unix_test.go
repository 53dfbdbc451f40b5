//go:build unix

package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime/pprof"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/trace"
	tracing "go.opentelemetry.io/otel/trace"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"example.com/curfew"
	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
)

// dropped encodes spans as for a collector, and sends them nowhere.
type dropped struct{}

func (dropped) Start(context.Context) error { return nil }
func (dropped) Stop(context.Context) error  { return nil }

func (dropped) UploadTraces(_ context.Context, spans []*otlp.ResourceSpans) error {
	_, err := proto.Marshal(&otlp.TracesData{ResourceSpans: spans})
	return err
}

// BenchmarkSeen measures what it costs a check to be seen: one at /auth/verify with a session that is cached. Compare
// cpu-ns/op, which is the processor time of all that the process does: other programs do not change it, and spans are
// exported in the background.
func BenchmarkSeen(b *testing.B) {
	traced := func(s trace.Sampler) tracing.TracerProvider {
		exporter, err := otlptrace.New(b.Context(), dropped{})
		if err != nil {
			b.Fatal(err)
		}
		// Blocking: here spans are made faster than they can be encoded, and none may be saved by dropping it.
		p := trace.NewTracerProvider(trace.WithBatcher(exporter, trace.WithBlocking()), trace.WithSampler(s))
		b.Cleanup(func() { p.Shutdown(context.Background()) })
		return p
	}
	_, observer := newMetrics([]string{"main"}, nil)
	quiet := slog.New(slog.DiscardHandler)
	talk := func(level slog.Level) *slog.Logger {
		log, _ := newLog(io.Discard, &config.Config{LogFormat: "json", LogLevel: level})
		return log
	}
	for _, row := range []struct {
		name    string
		observe curfew.Observer
		log     *slog.Logger
		tracer  tracing.TracerProvider
		profile bool
	}{
		{name: "nothing", log: quiet},
		{name: "log", log: talk(slog.LevelInfo)},
		{name: "log, debug", log: talk(slog.LevelDebug)},
		{name: "metrics", observe: observer, log: quiet},
		{name: "metrics and log", observe: observer, log: talk(slog.LevelInfo)},
		{name: "metrics and log, a profile being made", observe: observer, log: talk(slog.LevelInfo), profile: true},
		{name: "metrics and traces, none sampled", observe: observer, log: quiet, tracer: traced(trace.NeverSample())},
		{name: "metrics and traces, 1 in 100", observe: observer, log: quiet,
			tracer: traced(trace.TraceIDRatioBased(0.01))},
		{name: "metrics and traces, all", observe: observer, log: quiet, tracer: traced(trace.AlwaysSample())},
	} {
		b.Run(row.name, func(b *testing.B) {
			site, _ := url.Parse("https://app.example.com")
			rp, err := curfew.New(b.Context(), curfew.Config{URL: site.String(), Observe: row.observe, Tracer: row.tracer,
				Providers: []oidc.Config{{Issuer: "https://id.example.com", ClientID: "app"}},
				Log:       row.log})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { rp.Close() })
			bearer, _, err := rp.Sessions().Create(b.Context(), session.SignIn{Provider: "main",
				Issuer: "https://id.example.com", ClientID: "app", Subject: "alice", Began: rp.Sessions().Now()})
			if err != nil {
				b.Fatal(err)
			}
			rig.Poll(b, "the feed is in sync", func() bool { return rp.Sessions().Stats().InSync })
			handler := rp.Handler()
			r := httptest.NewRequest(http.MethodGet, "https://app.example.com/auth/verify", nil)
			r.Header.Set("Cookie", "__Host-curfew="+bearer.Reveal())
			w := &discard{header: http.Header{}}
			handler.ServeHTTP(w, r)
			hits := rp.Sessions().Stats().Hits
			if row.profile {
				if err := pprof.StartCPUProfile(io.Discard); err != nil {
					b.Fatal(err)
				}
				defer pprof.StopCPUProfile()
			}
			b.ReportAllocs()
			began := processorTime(b)
			for b.Loop() {
				clear(w.header)
				w.status = http.StatusOK
				handler.ServeHTTP(w, r)
				if w.status != http.StatusOK {
					b.Fatal(w.status)
				}
			}
			b.ReportMetric(float64(processorTime(b)-began)/float64(b.N), "cpu-ns/op")
			if rp.Sessions().Stats().Hits == hits {
				b.Fatal("no check was answered from the cache")
			}
		})
	}
}

// processorTime is what this process has used so far.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// discard is a response that nobody reads.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// SetWriteDeadline is what the response of a server has, too.
func (d *discard) SetWriteDeadline(time.Time) error { return nil }
