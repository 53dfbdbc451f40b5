package console

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"example.com/curfew/internal/wait"
	"example.com/curfew/web"
)

const (
	readyTimeout = 8 * time.Second // longer than one fetch of a provider's documents may take
	readyFirst   = 5 * time.Second // between two checks
	readyMost    = time.Minute     // between two checks after a long outage
)

// Readiness reports whether everything that a sign-in reads is available, and logs each change once. It serves /readyz.
// Nothing is written to find out.
type Readiness struct {
	// Ask returns what is missing, one fault per line.
	Ask      func(context.Context) error
	Draining <-chan struct{} // closed when the process stops
	Log      *slog.Logger
	// Upstreams returns which of the apps behind us accept no connection; nil: there are none. It is called only for
	// /readyz?upstreams=true: if one app is down the gateway must stay available for the others.
	Upstreams func(context.Context) error
	// Warnings returns what is wrong and no reason to send requests elsewhere, one sentence each; nil: there is nothing.
	// It is called only for /readyz?detail.
	Warnings func() []string

	mu    sync.Mutex
	known bool
	ready bool
}

// ServeHTTP answers 200 if nothing is missing, and 503 with the faults as JSON otherwise. With ?detail the warnings are
// there too.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	type answer struct {
		Status   string   `json:"status"`
		Faults   []string `json:"faults,omitempty"`
		Warnings []string `json:"warnings,omitempty"`
	}
	select {
	case <-r.Draining:
		web.WriteJSON(w, http.StatusServiceUnavailable, answer{Status: "stopping"})
		return
	default:
	}
	err := r.Check(req.Context())
	query := req.URL.Query()
	var warnings []string
	if detail := query.Get("detail"); r.Warnings != nil && query.Has("detail") && detail != "false" {
		warnings = r.Warnings()
	}
	if r.Upstreams != nil && query.Get("upstreams") == "true" {
		ctx, cancel := context.WithTimeout(req.Context(), readyTimeout)
		err = errors.Join(err, r.Upstreams(ctx))
		cancel()
	}
	if err != nil {
		web.WriteJSON(w, http.StatusServiceUnavailable, answer{"not ready", lines(err), warnings})
		return
	}
	web.WriteJSON(w, http.StatusOK, answer{"ready", nil, warnings})
}

// Check calls Ask once, for 8 seconds at most, and returns what is missing.
func (r *Readiness) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := r.Ask(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch was := r.ready; {
	case ctx.Err() != nil && context.Cause(ctx) == context.Canceled:
		return err // the client has gone, so this says nothing about readiness
	case err != nil && (was || !r.known):
		r.Log.Warn("not ready: sign-in may fail until this is mended; existing sessions keep working",
			"event", "not_ready", "error", strings.Join(lines(err), "; "))
	case err == nil && r.known && !was:
		r.Log.Info("ready again", "event", "ready")
	case err == nil && !r.known:
		r.Log.Info("ready", "event", "ready")
	}
	r.known, r.ready = true, err == nil
	return err
}

// Ready reports whether nothing was missing at the last [Readiness.Check], and the process does not stop.
func (r *Readiness) Ready() bool {
	select {
	case <-r.Draining:
		return false
	default:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready
}

// Watch checks every 5 seconds until ctx is done, so that the log reports an outage even if nobody requests /readyz.
// During an outage it checks less and less often, but at least once a minute.
func (r *Readiness) Watch(ctx context.Context) {
	every := readyFirst
	for {
		if r.Check(ctx) == nil {
			every = readyFirst
		} else {
			every = min(2*every, readyMost)
		}
		if !wait.Sleep(ctx, every) {
			return
		}
	}
}

func lines(err error) []string { return strings.Split(err.Error(), "\n") }
