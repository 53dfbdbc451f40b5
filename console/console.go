package console

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.com/curfew/audit"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// Timeout is how long a request may take.
const Timeout = 15 * time.Second

// Console is the HTTP interface for operators. All that is not said to be optional is required.
type Console struct {
	Ready   *Readiness
	Metrics *prometheus.Registry
	// Hosts are the host names of the listener, with or without a port. IP addresses and localhost are always accepted.
	Hosts   []string
	Notices store.Outbox // the notices to show and change
	Retried func()       // if not nil, is called after a notice has been made due
	Keys    Keys         // optional; nil: nothing is signed
	Log     *slog.Logger

	Level *slog.LevelVar // of Log, for operators to change; optional
	Debug http.Handler   // serves /debug/; optional

	Pages *web.Pages // whose colours the pages have; nil: our own

	Sessions  *session.Manager
	Providers []*oidc.Provider
	Audit     *audit.Log
	Replicas  func(context.Context) ([]Replica, error)          // optional
	Traffic   func(context.Context) (map[string]Traffic, error) // by provider; optional

	access *Access // nil: on the private listener
}

// Handler returns the handler for the whole listener.
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /api/notices", c.answer(c.listNotices))
	mux.Handle("GET /api/notices/{id}", c.answer(c.showNotice))
	mux.Handle("POST /api/notices/{id}/retry", c.answer(c.retryNotice))
	mux.Handle("POST /api/notices/{id}/drop", c.answer(c.dropNotice))
	mux.Handle("GET /api/keys", c.answer(c.listKeys))
	mux.Handle("POST /api/keys/rotate", c.answer(c.rotateKeys))
	mux.Handle("GET /api/sessions", c.answer(c.listSessions))
	mux.Handle("POST /api/sessions/end", c.answer(c.endSessions))
	mux.Handle("GET /api/sessions/{id}", c.answer(c.showSession))
	mux.Handle("POST /api/sessions/{id}/end", c.answer(c.endSession))
	mux.Handle("GET /api/events", c.answer(c.listEvents))
	mux.Handle("GET /api/person", c.answer(c.showPerson))
	mux.Handle("POST /api/person/export", c.answer(c.exportPerson))
	mux.Handle("POST /api/person/forget", c.answer(c.forgetPerson))
	mux.Handle("GET /api/providers", c.answer(c.listProviders))
	mux.Handle("POST /api/providers/{name}/end", c.answer(c.endProvider))
	mux.Handle("GET /api/replicas", c.answer(c.listReplicas))
	if c.Level != nil {
		mux.Handle("GET /api/log-level", c.answer(c.showLevel))
		mux.Handle("POST /api/log-level", c.answer(c.setLevel))
	}
	if c.Debug != nil {
		mux.Handle("/debug/", c.Debug)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		web.WriteJSON(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.Handle("GET /readyz", c.Ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.Metrics,
		promhttp.HandlerOpts{Registry: c.Metrics, ErrorHandling: promhttp.ContinueOnError}))
	c.mountPages(mux)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			http.Redirect(w, r, "/console/", http.StatusSeeOther)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("Curfew, private listener: /console/ /healthz /readyz /metrics /api/\n"))
	})
	return hosts(c.Hosts).only(mux)
}

// answer returns a handler that writes what do returns, or its error. It refuses requests from a page of another site;
// [hosts] prevents such a page from reading anything.
func (c *Console) answer(do func(context.Context, *http.Request) (any, error)) http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		ctx, cancel := context.WithTimeout(r.Context(), Timeout)
		defer cancel()
		v, err := do(ctx, r)
		if err == nil {
			web.WriteJSON(w, http.StatusOK, v)
			return
		}
		status, say := c.explain(r, err)
		web.WriteJSON(w, status, map[string]string{"error": say})
	}))
}

// explain returns the status and the text for an error, and logs one that is our fault.
func (c *Console) explain(r *http.Request, err error) (status int, say string) {
	status, say = http.StatusInternalServerError, "it did not work; the log of the gateway says why"
	if f, ok := errors.AsType[*web.Failure](err); ok {
		status, say = f.Status, f.Message.String()
	} else if errors.Is(err, store.ErrNoNotice) {
		status, say = http.StatusNotFound, "there is no such notice: it is done, dropped, or never was"
	} else if errors.Is(err, session.ErrUnavailable) {
		status, say = http.StatusServiceUnavailable, "the store does not answer; try again"
	}
	if status >= 500 {
		c.Log.Error("a request on the private listener failed",
			"event", "admin_failed", "path", r.URL.Path, "error", err)
	}
	return status, say
}
