package oidc_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that only the test moves: its own, or that of a bubble (testing/synctest).
type clock struct {
	mu     sync.Mutex
	now    time.Time
	bubble bool
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	if c.bubble {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	if c.bubble {
		time.Sleep(d)
		synctest.Wait()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// house is a provider, and a relying party of it.
type fixture struct {
	*clock
	op *oidctest.Provider
	rp *oidc.Provider
	// fetched receives the result of each attempt to fetch keys.
	fetched chan string
}

func build(t testing.TB, change ...func(*oidctest.Client, *oidc.Config)) *fixture {
	t.Helper()
	return buildAt(t, newClock(), change...)
}

// inBubble runs a test with a fixture whose time is that of a bubble. Its requests go from function to function.
func inBubble(t *testing.T, test func(t *testing.T, h *fixture), change ...func(*oidctest.Client, *oidc.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t, buildAt(t, &clock{bubble: true}, change...))
		time.Sleep(time.Minute) // whatever is under way ends
	})
}

func buildAt(t testing.TB, c *clock, change ...func(*oidctest.Client, *oidc.Config)) *fixture {
	t.Helper()
	h := &fixture{clock: c, fetched: make(chan string, 1000)}
	client := oidctest.Client{
		ID: "app", Secret: "s3cret/+ %", SigningAlg: "ES256", // ES256: its keys are made at once
		RedirectURIs:           []string{"https://app.example.com/auth/callback"},
		PostLogoutRedirectURIs: []string{"https://app.example.com/"},
	}
	cfg := oidc.Config{
		ClientID: client.ID, ClientSecret: client.Secret, SigningAlg: "ES256", Now: h.Now,
		OnKeyFetch: func(_, result string) {
			select {
			case h.fetched <- result:
			default: // a test with so many does not look
			}
		},
	}
	for _, f := range change {
		f(&client, &cfg)
	}
	provider := oidctest.Config{Clients: []oidctest.Client{client}, SigningAlg: client.SigningAlg, AutoLogin: "alice",
		Now: h.Now}
	if c.bubble {
		provider.Issuer = "https://id.example.com"
		h.op = oidctest.New(provider)
		cfg.HTTPClient = &http.Client{Transport: within(h.op.Handler())}
	} else {
		h.op = oidctest.Start(t, provider)
	}
	cfg.Issuer = h.op.Issuer()
	var err error
	if h.rp, err = oidc.New(cfg); err != nil {
		t.Fatal(err)
	}
	return h
}

// settle has the keys fetched two minutes after what is signed from now on, so that a token is refused without waiting
// for keys to come.
func (h *fixture) settle(t testing.TB) {
	t.Helper()
	h.Add(2 * time.Minute)
	if err := h.rp.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Add(-2 * time.Minute)
	h.drain()
}

// within has requests answered by a handler, without a network.
func within(h http.Handler) transport {
	return func(r *http.Request) (*http.Response, error) {
		out := make(chan *http.Response, 1)
		go func() {
			w := httptest.NewRecorder()
			if r.Body == nil {
				r.Body = http.NoBody
			}
			h.ServeHTTP(w, r)
			out <- w.Result()
		}()
		select {
		case resp := <-out:
			return resp, nil
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
}

func (h *fixture) verify(t testing.TB, raw string) (*oidc.LogoutToken, error) {
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
