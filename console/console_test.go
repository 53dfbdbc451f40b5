package console

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/curfew/store/memory"
)

func TestReadyzSaysWhenServeIsStopping(t *testing.T) {
	t.Parallel()
	draining := make(chan struct{})
	r := &Readiness{Ask: func(context.Context) error { return nil }, Draining: draining,
		Log: slog.New(slog.DiscardHandler)}
	h := (&Console{Ready: r, Metrics: prometheus.NewRegistry(), Hosts: []string{"example.com"}}).Handler()
	ask := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if status, body := ask("/readyz"); status != http.StatusOK {
		t.Errorf("got %d %s, want 200", status, body)
	}
	close(draining)
	if status, body := ask("/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "stopping") {
		t.Errorf("got %d %s, want 503 and stopping", status, body)
	}
	if status, _ := ask("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: got %d, want 200", status)
	}
}

func TestAListenerIsReachedByItsConfiguredNames(t *testing.T) {
	t.Parallel()
	named := hosts{"admin.internal:4181", "curfew.curfew.svc"}
	for host, want := range map[string]bool{
		"admin.internal:4181": true, "Admin.internal": true, "internal": false, "curfew.curfew.svc:4181": true,
		"curfew.curfew.svc.": true,
		"svc":                false, "x.curfew.curfew.svc": false, "app.localhost:1": true, "[fd00::7]:4181": true,
		"2130706433": false, "127.0.0.1@evil.example": false,
	} {
		if named.accepts(host) != want {
			t.Errorf("%q is meant: %t, want %t", host, !want, want)
		}
	}
}

// A warning is no reason to send requests elsewhere.
func TestReadyzTellsWarningsWhenItIsAskedFor(t *testing.T) {
	t.Parallel()
	r := &Readiness{Ask: func(context.Context) error { return nil }, Log: slog.New(slog.DiscardHandler),
		Warnings: func() []string { return []string{"set allow_missing_exp"} }}
	for query, want := range map[string]bool{"": false, "?detail": true, "?detail=true": true, "?detail=1": true,
		"?detail=false": false, "?other": false} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz"+query, nil))
		has := strings.Contains(w.Body.String(), `"warnings":["set allow_missing_exp"]`)
		if w.Code != http.StatusOK || has != want {
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
	}
}

func TestAnOperatorIsNamedAsTheCommandSaid(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"": "unnamed", "olga@vm": "olga@vm", "J%C3%B6rg@vm": "Jörg@vm", "%E5%BC%A0%20%E4%BC%9F": "张 伟",
		"100% olga": "100% olga", // as an older command sends it
		"ol%0Aga":   "olga", "%E2%80%AEaglo": "aglo", "%20%20": "unnamed", "%00": "unnamed",
		strings.Repeat("%C3%B6", 70): strings.Repeat("ö", 64),
	} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set(OperatorHeader, header)
		if got := operator(r); got != want {
			t.Errorf("%q: got %q, want %q", header, got, want)
		}
	}
}

func TestNoticesAreListedOfAKindThatThereIs(t *testing.T) {
	t.Parallel()
	h := (&Console{Ready: &Readiness{}, Metrics: prometheus.NewRegistry(), Notices: memory.New()}).Handler()
	for kind, want := range map[string]string{
		"": `{"notices":[]}`, "logout": `{"notices":[]}`, "revoke": `{"notices":[]}`,
		"foo": `{"error":"kind: want logout or revoke"}`,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/api/notices?kind="+kind, nil))
		if got := strings.TrimSpace(w.Body.String()); got != want {
			t.Errorf("%q: %d %s, want %s", kind, w.Code, got, want)
		}
	}
}
