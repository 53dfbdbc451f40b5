package main

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"example.com/curfew"
)

// newMetrics returns a registry of our own and the observer that counts into it. Every label has few values: none holds
// what a stranger sent.
func newMetrics() (*prometheus.Registry, curfew.Observer) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	logouts := counter("curfew_logout_requests_total", "Logout requests, by what became of them.", "channel", "provider", "result", "reason")
	created := counter("curfew_sessions_created_total", "Sessions begun.", "provider")
	ended := counter("curfew_sessions_ended_total", "Sessions ended before their time, by cause.", "cause")
	fetches := counter("curfew_key_fetches_total", "Fetches of a provider's keys; refused are those over the rate.", "provider", "result")
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "curfew_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version(), "goversion": runtime.Version()},
	})
	build.Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(logouts, created, ended, fetches, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry, curfew.Observer{
		SessionCreated: func(provider string) { created.WithLabelValues(provider).Inc() },
		SessionEnded:   func(cause string) { ended.WithLabelValues(cause).Inc() },
		Logout: func(channel, provider, result, reason string) {
			logouts.WithLabelValues(channel, provider, result, reason).Inc()
		},
		KeyFetch: func(provider, result string) { fetches.WithLabelValues(provider, result).Inc() },
	}
}
