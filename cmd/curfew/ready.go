package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.com/curfew/web"
)

const (
	readyTimeout = 8 * time.Second // of one look; more than one fetch of a provider's documents may take
	readyEvery   = 5 * time.Second
	readySeldom  = time.Minute // when it has not been ready for long
)

// readiness asks whether all that a sign-in needs is there, and logs each change once.
type readiness struct {
	ask      func(context.Context) error
	draining <-chan struct{}
	log      *slog.Logger
	// upstreams says whether the apps behind us take connections; nil without any. It is asked on request alone: an app
	// that is down is no reason to take the gateway away from the others.
	upstreams func(context.Context) error

	mu    sync.Mutex
	known bool
	ready bool
}

// check asks once.
func (r *readiness) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := r.ask(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch was := r.ready; {
	case ctx.Err() != nil && context.Cause(ctx) == context.Canceled:
		return err // whoever asked went away: nothing was learnt
	case err != nil && (was || !r.known):
		r.log.Warn("not ready: sign-in may fail until this is over; sessions that exist go on working",
			"event", "not_ready", "error", strings.Join(lines(err), "; "))
	case err == nil && r.known && !was:
		r.log.Info("ready again", "event", "ready")
	case err == nil && !r.known:
		r.log.Info("ready", "event", "ready")
	}
	r.known, r.ready = true, err == nil
	return err
}

// watch asks now and then until ctx is done, so that the log tells of an outage that nobody asked about. It asks ever
// less often while that lasts.
func (r *readiness) watch(ctx context.Context) {
	every := readyEvery
	for {
		if r.check(ctx) == nil {
			every = readyEvery
		} else {
			every = min(2*every, readySeldom)
		}
		wait := time.NewTimer(every)
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

func lines(err error) []string { return strings.Split(err.Error(), "\n") }

// private serves what operators and machines ask on the private listener, by one of its names.
func private(r *readiness, metrics *prometheus.Registry, a *admin, names hosts) http.Handler {
	mux := http.NewServeMux()
	if a != nil {
		a.mount(mux)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		web.WriteJSON(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, req *http.Request) {
		type answer struct {
			Status string   `json:"status"`
			Faults []string `json:"faults,omitempty"`
		}
		select {
		case <-r.draining:
			web.WriteJSON(w, http.StatusServiceUnavailable, answer{"stopping", nil})
			return
		default:
		}
		err := r.check(req.Context())
		if r.upstreams != nil && req.URL.Query().Get("upstreams") == "true" {
			ctx, cancel := context.WithTimeout(req.Context(), readyTimeout)
			err = errors.Join(err, r.upstreams(ctx))
			cancel()
		}
		if err != nil {
			web.WriteJSON(w, http.StatusServiceUnavailable, answer{"not ready", lines(err)})
			return
		}
		web.WriteJSON(w, http.StatusOK, answer{"ready", nil})
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{Registry: metrics, ErrorHandling: promhttp.ContinueOnError}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("Curfew, private listener: /healthz /readyz /metrics /api/notices /api/keys\n"))
	})
	return names.only(mux)
}
