package main

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"example.com/curfew"
	"example.com/curfew/audit"
	gw "example.com/curfew/gateway"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/observed"
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
	checks := counter("curfew_checks_total", "Decisions about requests, by result.", "surface", "result", "reason")
	checkTime := histogram("curfew_check_seconds", "The time of a decision about a request.", "surface")
	signIns := counter("curfew_sign_ins_total", "Sign-ins that were begun, and what became of them.",
		"provider", "result", "reason")
	renewals := counter("curfew_renewals_total", "Refreshes of tokens, and questions whether a session goes on.",
		"kind", "provider", "result")
	storeTime := histogram("curfew_store_seconds", "The time of a call of the store.", "operation")
	storeFailed := counter("curfew_store_failures_total", "Calls that the store could not carry out.", "operation")
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
	for _, o := range signInOutcomes() {
		for _, provider := range append(slices.Clone(providers), "unknown") {
			signIns.WithLabelValues(provider, o.result, o.reason)
		}
	}
	decisions := make(map[gw.Check]prometheus.Counter) // looked up at each request
	for _, surface := range surfaces() {
		checkTime.WithLabelValues(surface)
		for _, o := range checkOutcomes() {
			c := gw.Check{Surface: surface, Result: o.result, Reason: o.reason}
			decisions[c] = checks.WithLabelValues(surface, o.result, o.reason)
		}
	}
	for _, operation := range observed.Operations() {
		storeTime.WithLabelValues(operation)
		storeFailed.WithLabelValues(operation)
	}
	for _, p := range providers {
		for _, kind := range []string{"refresh", "revalidation"} {
			for _, result := range renewalResults() {
				renewals.WithLabelValues(kind, p, result)
			}
		}
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
	registry.MustRegister(logouts, created, ended, fetches, notices, bearer, build, checks, checkTime, signIns, renewals,
		storeTime, storeFailed,
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
		Check: func(c gw.Check) {
			took := c.Took
			c.Took = 0
			if n := decisions[c]; n != nil {
				n.Inc()
			} else {
				checks.WithLabelValues(c.Surface, c.Result, c.Reason).Inc()
			}
			checkTime.WithLabelValues(c.Surface).Observe(took.Seconds())
		},
		SignIn: func(provider, result, reason string) { signIns.WithLabelValues(provider, result, reason).Inc() },
		Renewal: func(kind, provider, result string) {
			renewals.WithLabelValues(kind, provider, result).Inc()
		},
		Store: func(operation string, took time.Duration, failed bool) {
			storeTime.WithLabelValues(operation).Observe(took.Seconds())
			if failed {
				storeFailed.WithLabelValues(operation).Inc()
			}
		},
	}
}

// histogram returns a histogram of times. A Prometheus that asks for native histograms gets one; any other gets the
// buckets, from 50 µs to 10 s.
func histogram(name, help string, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help,
		Buckets:                     []float64{50e-6, 200e-6, 1e-3, 5e-3, 20e-3, 100e-3, 500e-3, 2, 10},
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}, labels)
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

// outcome is one possible result of a decision.
type outcome struct{ result, reason string }

func surfaces() []string { return []string{"verify", "ext_authz", "proxy", "require"} }

func checkOutcomes() []outcome {
	return []outcome{{"allowed", "session"}, {"allowed", "token"}, {"allowed", "public"}, {"signed_out", "session"},
		{"signed_out", "step_up"}, {"refused", "policy"}, {"refused", "token"}, {"refused", "host"}, {"refused", "origin"},
		{"refused", "identity"}, {"refused", "request"}, {"refused", "route"}, {"refused", "gone"},
		{"unavailable", "store"}, {"unavailable", "provider"}, {"unavailable", "assertion"}, {"unavailable", "busy"},
		{"failed", "internal"}}
}

// signInOutcomes returns what may become of a sign-in; see package login.
func signInOutcomes() []outcome {
	all := []outcome{{"begun", ""}, {"ok", ""}, {"repeated", ""}, {"repeated", "state"}, {"again", ""}, {"ended", ""},
		{"unavailable", "provider"}, {"unavailable", "store"}, {"unavailable", "app"}, {"failed", "internal"}}
	for _, reason := range slices.Concat([]string{"", "state", "error", "code", "app", "require", "step_up",
		"iss", "redirect_uri", "response"}, signInChecks()) {
		if o := (outcome{"refused", reason}); !slices.Contains(all, o) {
			all = append(all, o)
		}
	}
	return all
}

// signInChecks returns the checks that the answers of a provider to a sign-in can fail; see [oidc.Error].
func signInChecks() []string {
	return []string{"shape", "jwe", "json", "alg", "crit", "typ", "iss", "aud", "iat", "exp", "nbf", "nonce", "sub", "sid",
		"kid", "signature", "at_hash", "auth_time", "azp", "token_response", "userinfo", "par", "request_uri", "response",
		"session_expiry"}
}

func renewalResults() []string { return []string{"ok", "ended", "deferred"} }

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

// outboxCollector reads the numbers of notices from the store at each scrape. Targets that are configured are always
// there.
type outboxCollector struct {
	store                 store.Outbox
	targets               []store.NoticeStats // without any notices
	pending, oldest, dead *prometheus.Desc
}

func newOutboxCollector(from store.Outbox, providers, apps []string) *outboxCollector {
	labels := []string{"kind", "target"}
	var targets []store.NoticeStats
	for _, p := range providers {
		targets = append(targets, store.NoticeStats{Kind: store.NoticeRevoke, Target: p})
	}
	for _, a := range apps {
		targets = append(targets, store.NoticeStats{Kind: store.NoticeLogout, Target: a})
	}
	return &outboxCollector{
		store: from, targets: targets,
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
	for _, t := range o.targets {
		if !slices.ContainsFunc(all, func(has store.NoticeStats) bool {
			return has.Kind == t.Kind && has.Target == t.Target
		}) {
			all = append(all, t)
		}
	}
	for _, t := range all {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, string(t.Kind), t.Target)
		}
		gauge(o.pending, float64(t.Pending))
		gauge(o.dead, float64(t.Dead))
		age := 0.0
		if t.Pending > 0 {
			age = max(0, time.Since(t.Oldest).Seconds())
		}
		gauge(o.oldest, age)
	}
}

// sessionCollector reads what the manager of sessions counts.
type sessionCollector struct {
	stats                              func() session.Stats
	lookups, cached, inSync, age, lost *prometheus.Desc
}

func newSessionCollector(stats func() session.Stats) *sessionCollector {
	return &sessionCollector{stats: stats,
		lookups: prometheus.NewDesc("curfew_session_lookups_total", "Checks of a session: hit (answered from the cache), "+
			"miss (not in the cache), bypassed (the cache could not be trusted).", []string{"cache"}, nil),
		cached: prometheus.NewDesc("curfew_sessions_cached", "Sessions in the cache.", nil, nil),
		inSync: prometheus.NewDesc("curfew_feed_in_sync", "1 while the store's feed proves that no ending was missed; "+
			"0: every check asks the store.", nil, nil),
		age: prometheus.NewDesc("curfew_feed_age_seconds", "How old that proof is; 0 without one.", nil, nil),
		lost: prometheus.NewDesc("curfew_feed_lost_total", "How often the cache was given up: broken (the feed missed "+
			"endings, or the store did not answer), ceiling (the proof was older than cache_ceiling).",
			[]string{"reason"}, nil),
	}
}

func (c *sessionCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.lookups, c.cached, c.inSync, c.age, c.lost} {
		ch <- d
	}
}

func (c *sessionCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.stats()
	counter := func(d *prometheus.Desc, n uint64, label string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), label)
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	counter(c.lookups, s.Hits, "hit")
	counter(c.lookups, s.Misses, "miss")
	counter(c.lookups, s.Bypassed, "bypassed")
	counter(c.lost, s.Broken, "broken")
	counter(c.lost, s.Ceiling, "ceiling")
	inSync := 0.0
	if s.InSync {
		inSync = 1
	}
	gauge(c.inSync, inSync)
	gauge(c.age, s.FeedAge.Seconds())
	gauge(c.cached, float64(s.Cached))
}

// newStateMetrics returns gauges of the process: whether it is ready, and its connections.
func newStateMetrics(ready func() bool, listeners []*limitListener) []prometheus.Collector {
	all := []prometheus.Collector{prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "curfew_ready",
		Help: "1 while the store can be read and every provider is known, as of the last look."}, func() float64 {
		if ready() {
			return 1
		}
		return 0
	})}
	for _, l := range listeners {
		labels := prometheus.Labels{"listener": l.name}
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "curfew_connections",
			Help: "Open connections of a listener.", ConstLabels: labels}, func() float64 { return float64(l.connections()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "curfew_connections_limit",
				Help: "How many connections it may have.", ConstLabels: labels}, func() float64 { return float64(l.limit) }))
	}
	return all
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
