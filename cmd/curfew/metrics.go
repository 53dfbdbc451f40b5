package main

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"example.com/curfew"
	"example.com/curfew/audit"
	"example.com/curfew/store"
)

// newMetrics returns a new registry and the observer that counts into it. Every label has few values: none comes from a
// client.
func newMetrics(providers, apps []string) (*prometheus.Registry, curfew.Observer) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	logouts := counter("curfew_logout_requests_total", "Logout requests, by result.",
		"channel", "provider", "result", "reason")
	created := counter("curfew_sessions_created_total", "Sessions created.", "provider")
	ended := counter("curfew_sessions_ended_total", "Sessions ended, by cause.", "cause")
	notices := counter("curfew_notice_attempts_total",
		"Attempts to notify an app of a logout, or to revoke a token at a provider.", "kind", "target", "result")
	fetches := counter("curfew_key_fetches_total", "Fetches of a provider's keys; refused are those over the rate.",
		"provider", "result")
	bearer := counter("curfew_bearer_tokens_total", "Access tokens of clients that were verified, by result.",
		"provider", "result")
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "curfew_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version(), "goversion": runtime.Version()},
	})
	build.Set(1)
	// Counters start at 0: an alert on a rate needs the value before the first event.
	for _, cause := range endCauses() {
		ended.WithLabelValues(string(cause))
	}
	for _, o := range logoutOutcomes() {
		who := providers
		if o.unknown {
			who = []string{"unknown"}
		}
		for _, provider := range who {
			logouts.WithLabelValues(o.channel, provider, o.result, o.reason)
		}
	}
	for _, result := range bearerResults() {
		for _, p := range append([]string{"unknown"}, providers...) {
			bearer.WithLabelValues(p, result)
		}
	}
	for _, p := range providers {
		created.WithLabelValues(p)
		for _, result := range []string{"ok", "error", "refused"} {
			fetches.WithLabelValues(p, result)
		}
		for _, result := range revokeResults() {
			notices.WithLabelValues(string(store.NoticeRevoke), p, result)
		}
	}
	for _, app := range apps {
		for _, result := range notifyResults() {
			notices.WithLabelValues(string(store.NoticeLogout), app, result)
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(logouts, created, ended, fetches, notices, bearer, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry, curfew.Observer{
		SessionCreated: func(provider string) { created.WithLabelValues(provider).Inc() },
		SessionEnded:   func(cause string) { ended.WithLabelValues(cause).Inc() },
		Logout: func(channel, provider, result, reason string) {
			logouts.WithLabelValues(channel, provider, result, reason).Inc()
		},
		Notice: func(kind, target, result string) { notices.WithLabelValues(kind, target, result).Inc() },
		Bearer: func(provider, result string) {
			bearer.WithLabelValues(cmp.Or(provider, "unknown"), result).Inc()
		},
		KeyFetch: func(provider, result string) { fetches.WithLabelValues(provider, result).Inc() },
	}
}

// The values of the labels. A test compares these lists with the code that sets them.

func endCauses() []store.Cause {
	return []store.Cause{store.CauseBackChannel, store.CauseFrontChannel, store.CauseUser, store.CauseAdmin,
		store.CauseReplaced, store.CauseRefreshRejected, store.CauseProviderEnded, store.CauseRequire,
		store.CauseProviderSilent,
		store.CauseCapped, store.CauseTooManySIDs, store.CauseExpired}
}

// refusalReasons returns the checks that a logout request can fail; see [oidc.Error].
func refusalReasons() []string {
	return []string{"content_type", "size", "form", "logout_token",
		"shape", "jwe", "json", "alg", "crit", "typ", "iss", "aud", "iat", "exp", "nbf", "jti", "events", "nonce",
		"sub", "sid", "kid", "signature"}
}

// bearerResults returns the outcomes of verifying an access token; see [gateway.Bearer].
func bearerResults() []string { return []string{"ok", "refused", "ended", "unavailable"} }

func notifyResults() []string {
	return []string{"ok", "refused", "redirect", "error", "timeout", "unreachable", "impossible", "internal", "expired"}
}

func revokeResults() []string {
	return []string{"ok", "dropped", "unsupported", "refused", "unreachable", "impossible", "internal", "expired"}
}

// logoutOutcome is one possible result of a logout request.
type logoutOutcome struct {
	channel, result, reason string
	unknown                 bool // the provider is not known at that point
}

func logoutOutcomes() []logoutOutcome {
	const back, front, user = "backchannel", "frontchannel", "user"
	all := []logoutOutcome{
		{back, "ok", "", false}, {back, "replayed", "jti", false}, {back, "unavailable", "store", false},
		{back, "failed", "internal", false},
		{back, "unavailable", "keys", true}, {back, "failed", "internal", true},
		{front, "ok", "", false}, {front, "unavailable", "store", false},
		{front, "nobody", "", true}, {front, "ignored", "", true}, {front, "unavailable", "store", true},
		{user, "ok", "", false}, {user, "unavailable", "store", false},
		{user, "nobody", "", true}, {user, "refused", "cross_site", true}, {user, "unavailable", "store", true},
	}
	for _, reason := range refusalReasons() {
		all = append(all, logoutOutcome{back, "refused", reason, true})
	}
	return all
}

// statsTimeout limits the store's answer to one scrape.
const statsTimeout = 3 * time.Second

// outboxCollector reads the numbers of notices from the store at each scrape.
type outboxCollector struct {
	store                 store.Outbox
	pending, oldest, dead *prometheus.Desc
}

func newOutboxCollector(from store.Outbox) *outboxCollector {
	labels := []string{"kind", "target"}
	return &outboxCollector{
		store:   from,
		pending: prometheus.NewDesc("curfew_notices_pending", "Notices that are not delivered yet.", labels, nil),
		oldest:  prometheus.NewDesc("curfew_notices_oldest_seconds", "Age of the oldest of them.", labels, nil),
		dead:    prometheus.NewDesc("curfew_notices_dead", "Notices that were given up.", labels, nil),
	}
}

func (o *outboxCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- o.pending
	ch <- o.oldest
	ch <- o.dead
}

func (o *outboxCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	all, err := o.store.Stats(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(o.pending, errors.New("the store does not answer"))
		return
	}
	for _, t := range all {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, string(t.Kind), t.Target)
		}
		gauge(o.pending, float64(t.Pending))
		gauge(o.dead, float64(t.Dead))
		if t.Pending > 0 {
			gauge(o.oldest, max(0, time.Since(t.Oldest).Seconds()))
		}
	}
}

// auditCollector counts the events of the audit record.
type auditCollector struct {
	log    *audit.Log
	events *prometheus.Desc
}

func newAuditCollector(log *audit.Log) *auditCollector {
	return &auditCollector{log, prometheus.NewDesc("curfew_audit_events_total",
		"Events of the audit record: written, and lost because they could not be.", []string{"result"}, nil)}
}

func (a *auditCollector) Describe(ch chan<- *prometheus.Desc) { ch <- a.events }

func (a *auditCollector) Collect(ch chan<- prometheus.Metric) {
	written, lost := a.log.Counts()
	ch <- prometheus.MustNewConstMetric(a.events, prometheus.CounterValue, float64(written), "written")
	ch <- prometheus.MustNewConstMetric(a.events, prometheus.CounterValue, float64(lost), "lost")
}
