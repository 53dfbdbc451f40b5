package console

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/curfew/audit"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// unsure is a store that carries endings out and does not know whether its replicas have them.
type unsure struct {
	store.Store
	not atomic.Bool
}

func (u *unsure) End(ctx context.Context, e store.Ending, now time.Time) ([]store.Ended, error) {
	ended, err := u.Store.End(ctx, e, now)
	if err == nil && u.not.Load() {
		err = errors.New("too few replicas have acknowledged")
	}
	return ended, err
}

// An operator who ends a session again, because the first answer was an error, is not told that it has ended while
// that is not certain.
func TestAnOperatorCanRepeatAnEndingThatFailed(t *testing.T) {
	t.Parallel()
	backend := &unsure{Store: memory.New()}
	t.Cleanup(func() { backend.Close() })
	log, ring := slog.New(slog.DiscardHandler), rig.Keyring(t)
	m, err := session.NewManager(session.Config{Store: backend, Keyring: ring, Log: log})
	rig.Must(t, err)
	var providers []*oidc.Provider
	for _, client := range []string{"other", "c"} { // the session is of the second
		p, err := oidc.New(oidc.Config{Name: client, Issuer: "https://id.example.com", ClientID: client})
		rig.Must(t, err)
		providers = append(providers, p)
	}
	_, s, err := m.Create(t.Context(), session.SignIn{Issuer: "https://id.example.com", ClientID: "c", Subject: "alice",
		SID: "s1", Began: m.Now()})
	rig.Must(t, err)
	h := (&Console{Ready: &Readiness{}, Metrics: prometheus.NewRegistry(), Sessions: m, Log: log, Providers: providers,
		Audit: audit.New(audit.Config{Now: m.Now})}).Handler()
	end := func() (int, string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/api/sessions/"+s.ID()+"/end", nil)
		r.Host = "localhost"
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	backend.not.Store(true)
	for i := range 3 {
		if status, body := end(); status != http.StatusServiceUnavailable {
			t.Errorf("time %d, while the store is not sure: %d %s", i+1, status, body)
		}
	}
	backend.not.Store(false)
	if status, body := end(); status != http.StatusNotFound {
		t.Errorf("when it is: %d %s, want 404: it has ended", status, body)
	}
}
