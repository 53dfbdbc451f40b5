package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	tracing "go.opentelemetry.io/otel/trace"
)

const (
	traceFlush       = 5 * time.Second // for the spans that wait when the process stops
	traceLogInterval = time.Minute     // between two log lines about spans that could not be exported
)

// newTracer returns what makes spans and exports them with OTLP, as the OTEL_* variables say; nil: nothing is traced.
// stop exports those that wait. setting is that of the configuration: "otlp", "none", or empty for what
// OTEL_TRACES_EXPORTER says, and otherwise none.
func newTracer(ctx context.Context, setting string, environ []string, log *slog.Logger,
) (tracer tracing.TracerProvider, stop func() error, err error) {
	stop = func() error { return nil }
	env := func(name string) string {
		for i := len(environ) - 1; i >= 0; i-- {
			if v, ok := strings.CutPrefix(environ[i], name+"="); ok {
				return v
			}
		}
		return ""
	}
	switch choice := cmp.Or(setting, env("OTEL_TRACES_EXPORTER"), "none"); {
	case choice == "none" || strings.EqualFold(env("OTEL_SDK_DISABLED"), "true"):
		return nil, stop, nil
	case choice != "otlp":
		return nil, stop, errors.New("OTEL_TRACES_EXPORTER: want otlp or none")
	}
	var client otlptrace.Client
	switch protocol := cmp.Or(env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), env("OTEL_EXPORTER_OTLP_PROTOCOL"),
		"http/protobuf"); protocol {
	case "http/protobuf":
		client = otlptracehttp.NewClient()
	case "grpc":
		client = otlptracegrpc.NewClient()
	default:
		return nil, stop, errors.New("OTEL_EXPORTER_OTLP_PROTOCOL: want http/protobuf or grpc")
	}
	// OpenTelemetry would write what it cannot read of its settings to stderr, headers with secrets included.
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(&traceFailures{log: log})
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, stop, fmt.Errorf("traces: %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "curfew"), attribute.String("service.version", version())), resource.WithFromEnv())
	if err != nil {
		return nil, stop, errors.Join(errors.New("OTEL_RESOURCE_ATTRIBUTES: want name=value, separated by commas"),
			exporter.Shutdown(ctx))
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(about))
	return provider, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), traceFlush)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			log.Warn("the last spans could not be exported", "event", "traces_not_exported", "error", err)
		}
		return nil // a collector that is away is no fault of ours
	}, nil
}

// traceFailures logs spans that could not be exported, once a minute. They are dropped: nobody waits for a collector.
type traceFailures struct {
	log *slog.Logger

	mu     sync.Mutex
	logged time.Time
}

// Handle is for [otel.SetErrorHandler].
func (f *traceFailures) Handle(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); f.logged.IsZero() || now.Sub(f.logged) >= traceLogInterval {
		f.logged = now
		f.log.Warn("spans could not be exported, and are lost: see OTEL_EXPORTER_OTLP_ENDPOINT", "event",
			"traces_not_exported", "error", err)
	}
}
