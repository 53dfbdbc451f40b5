package oidc_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that only the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// house is a provider, and a relying party of it.
type house struct {
	*clock
	op *oidctest.Provider
	rp *oidc.Provider
	// fetched receives the result of each attempt to fetch keys.
	fetched chan string
}

func build(t testing.TB, change ...func(*oidctest.Client, *oidc.Config)) *house {
	t.Helper()
	h := &house{clock: newClock(), fetched: make(chan string, 1000)}
	client := oidctest.Client{
		ID: "app", Secret: "s3cret/+ %", SigningAlg: "ES256", // ES256: its keys are made at once
		RedirectURIs:           []string{"https://app.example.com/auth/callback"},
		PostLogoutRedirectURIs: []string{"https://app.example.com/"},
	}
	cfg := oidc.Config{
		ClientID: client.ID, ClientSecret: client.Secret, SigningAlg: "ES256", Now: h.Now,
		OnKeyFetch: func(_, result string) { h.fetched <- result },
	}
	for _, f := range change {
		f(&client, &cfg)
	}
	h.op = oidctest.Start(t, oidctest.Config{Clients: []oidctest.Client{client}, SigningAlg: client.SigningAlg, AutoLogin: "alice", Now: h.Now})
	cfg.Issuer = h.op.Issuer()
	var err error
	if h.rp, err = oidc.New(cfg); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) verify(t testing.TB, raw string) (*oidc.LogoutToken, error) {
	t.Helper()
	return oidc.VerifyLogoutToken(t.Context(), []*oidc.Provider{h.rp}, raw, h.Now())
}

// wantCheck demands that err is a refusal by one check, for one reason.
func wantCheck(t testing.TB, err error, check, reason string) {
	t.Helper()
	var e *oidc.Error
	switch {
	case err == nil:
		t.Fatalf("passed; want it refused by %q: %s", check, reason)
	case errors.Is(err, oidc.ErrUnavailable):
		t.Fatalf("got %v, which asks to try again; want it refused by %q", err, check)
	case !errors.As(err, &e):
		t.Fatalf("got %v; want an *oidc.Error", err)
	case e.Check != check || !strings.Contains(e.Err.Error(), reason):
		t.Fatalf("refused by %q: %v\nwant         %q: …%s…", e.Check, e.Err, check, reason)
	}
}

func wantUnavailable(t testing.TB, err error, reason string) {
	t.Helper()
	if !errors.Is(err, oidc.ErrUnavailable) || !strings.Contains(err.Error(), reason) {
		t.Fatalf("got %v; want ErrUnavailable with …%s…", err, reason)
	}
}
