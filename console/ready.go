package console

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"example.com/curfew/web"
)

const (
	readyTimeout = 8 * time.Second // longer than one fetch of a provider's documents may take
	readyEvery   = 5 * time.Second
	readySeldom  = time.Minute // when it has not been ready for long
)

// Readiness says whether everything that a sign-in needs is there, and logs each change once. It answers /readyz.
type Readiness struct {
	// Ask says what is missing, one fault a line.
	Ask      func(context.Context) error
	Draining <-chan struct{} // closed when the process stops
	Log      *slog.Logger
	// Upstreams says which of the apps behind us take no connection; nil without any. It is asked on request only: an
	// app that is down is no reason to take the gateway away from the others.
	Upstreams func(context.Context) error

	mu    sync.Mutex
	known bool
	ready bool
}

// ServeHTTP answers 200 when all is there, and 503 otherwise, with the faults as JSON.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	type answer struct {
		Status string   `json:"status"`
		Faults []string `json:"faults,omitempty"`
	}
	select {
	case <-r.Draining:
		web.WriteJSON(w, http.StatusServiceUnavailable, answer{"stopping", nil})
		return
	default:
	}
	err := r.Check(req.Context())
	if r.Upstreams != nil && req.URL.Query().Get("upstreams") == "true" {
		ctx, cancel := context.WithTimeout(req.Context(), readyTimeout)
		err = errors.Join(err, r.Upstreams(ctx))
		cancel()
	}
	if err != nil {
		web.WriteJSON(w, http.StatusServiceUnavailable, answer{"not ready", lines(err)})
		return
	}
	web.WriteJSON(w, http.StatusOK, answer{"ready", nil})
}

// Check asks once, for 8 seconds at most.
func (r *Readiness) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := r.Ask(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch was := r.ready; {
	case ctx.Err() != nil && context.Cause(ctx) == context.Canceled:
		return err // the client has gone: this says nothing about us
	case err != nil && (was || !r.known):
		r.Log.Warn("not ready: sign-in may fail until this is over; sessions that exist go on working",
			"event", "not_ready", "error", strings.Join(lines(err), "; "))
	case err == nil && r.known && !was:
		r.Log.Info("ready again", "event", "ready")
	case err == nil && !r.known:
		r.Log.Info("ready", "event", "ready")
	}
	r.known, r.ready = true, err == nil
	return err
}

// Watch asks every few seconds until ctx is done, so that the log tells of an outage that nobody asked about. During an
// outage it asks less and less often, at least once a minute.
func (r *Readiness) Watch(ctx context.Context) {
	every := readyEvery
	for {
		if r.Check(ctx) == nil {
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
