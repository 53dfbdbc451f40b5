package curfew_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/store"
)

// department is a hook that falls over: nobody here has a department.
func department(_ context.Context, claims map[string]any) error {
	_ = claims["department"].(string)
	return nil
}

// once fails unless a panic of the hook is one line of the log, with the place where it happened and no claim.
func (j *journal) once(t *testing.T, hook string) {
	t.Helper()
	if n := j.count("level=ERROR", "event=panic", hook+" panicked", "hooks_test.go"); n != 1 {
		t.Errorf("the panic of %s is logged %d times: %s", hook, n, j.text.String())
	}
	if j.count("event=panic", "alice@") != 0 {
		t.Error("a claim is logged")
	}
}

func TestAPanicOfTheAppAtARefreshSignsNobodyOut(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		config func(*curfew.Config)
		passes time.Duration
	}{
		"a refresh":      {func(*curfew.Config) {}, 2 * time.Second},
		"a revalidation": {asksEveryMinute("userinfo"), 76 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := new(journal)
			var broken atomic.Bool
			a := newApp(t, row.config, func(c *curfew.Config) {
				c.RefreshGrace, c.Log = time.Minute, slog.New(slog.NewTextHandler(log, nil))
				c.OnLogin = func(ctx context.Context, claims map[string]any) error {
					if broken.Load() {
						return department(ctx, claims)
					}
					return nil
				}
			})
			if name == "a refresh" {
				a.short(nil, nil, nil)
			}
			b := newBrowser(t)
			b.open(a.server.URL + "/")
			broken.Store(true)
			a.pass(row.passes)
			if _, _, text := b.open(a.server.URL + "/public"); text != "true" {
				t.Fatalf("signed in: %s, and the log says %s", text, log.text.String())
			}
			log.once(t, "OnLogin")
			// The provider takes no refresh token twice, so the next try needs the new one. It comes as after any other
			// temporary error, when the session is no longer held.
			broken.Store(false)
			before := a.op.Count(oidctest.Token) + a.op.Count(oidctest.Userinfo)
			a.pass(61 * time.Second)
			if _, _, text := b.open(a.server.URL + "/public"); text != "true" {
				t.Errorf("after the next try, signed in: %s, and the log says %s", text, log.text.String())
			}
			if a.op.Count(oidctest.Token)+a.op.Count(oidctest.Userinfo) == before {
				t.Error("the provider was not asked again")
			}
		})
	}
}

func TestAPanicOfTheAppAtASignInIsOurFault(t *testing.T) {
	t.Parallel()
	log := new(journal)
	a := newApp(t, func(c *curfew.Config) {
		c.OnLogin, c.Log = department, slog.New(slog.NewTextHandler(log, nil))
	})
	b := newBrowser(t)
	_, status, text := b.open(a.server.URL + "/")
	if status != 500 || !strings.Contains(text, "Something went wrong on our side") || b.signedIn(a) {
		t.Errorf("%d %s", status, text)
	}
	log.once(t, "OnLogin")
}

func TestAPanicOfTheAppForAnAccessTokenIs503(t *testing.T) {
	t.Parallel()
	log := new(journal)
	var broken atomic.Bool
	broken.Store(true)
	m := newMachines(t, func(c *curfew.Config) {
		c.Log = slog.New(slog.NewTextHandler(log, nil))
		c.OnLogin = func(ctx context.Context, claims map[string]any) error {
			if broken.Load() {
				return department(ctx, claims)
			}
			return nil
		}
	})
	token := m.token()
	if status := m.ask(m.proxy[0].URL+"/page", "Authorization", "Bearer "+token).StatusCode; status != 503 {
		t.Errorf("status %d", status)
	}
	if said := rig.Soon(t, "the outcome", m.events); !strings.HasSuffix(said, " unavailable") {
		t.Errorf("observed %q", said)
	}
	log.once(t, "OnLogin")
	broken.Store(false)
	if status := m.ask(m.proxy[0].URL+"/page", "Authorization", "Bearer "+token).StatusCode; status != 200 {
		t.Errorf("when the app is well again: status %d", status)
	}
}

func TestAPanicOfOnEndLosesThatCallAlone(t *testing.T) {
	t.Parallel()
	log := new(journal)
	heard := make(chan string, 10)
	a := newApp(t, func(c *curfew.Config) {
		c.Log = slog.New(slog.NewTextHandler(log, nil))
		c.OnEnd = func(_ context.Context, e store.Ended) {
			if heard <- e.Subject; e.Subject == "alice" {
				panic("the app fell over")
			}
		}
	})
	for _, person := range []string{"alice", "bob"} {
		b := newBrowser(t)
		if _, status, _ := b.open(a.server.URL + "/auth/login?login_hint=" + person); status != 200 {
			t.Fatalf("the sign-in of %s is answered %d", person, status)
		}
		for _, d := range a.op.Logout(t.Context(), person, "") {
			if !d.OK() {
				t.Errorf("the logout is answered %d: %v", d.Status, d.Err)
			}
		}
		if got := rig.Soon(t, "OnEnd", heard); got != person {
			t.Errorf("OnEnd was called for %q, want %q", got, person)
		}
	}
	log.once(t, "OnEnd")
}

// brokenWriter falls over at each write.
type brokenWriter struct{ wrote chan struct{} }

func (w brokenWriter) Write(p []byte) (int, error) {
	select {
	case w.wrote <- struct{}{}:
	default:
	}
	panic("the disk fell off")
}

// Whatever an app hands over to be told of things, the things go on when it panics.
func TestNoObserverCanStopWhatItObserves(t *testing.T) {
	t.Parallel()
	log := new(journal)
	writer := brokenWriter{make(chan struct{}, 1)}
	m := newMachines(t, func(c *curfew.Config) {
		c.Log, c.AuditWriter = slog.New(slog.NewTextHandler(log, nil)), writer
		c.Observe = curfew.Observer{
			SessionCreated: func(string) { panic("x") },
			SessionEnded:   func(string) { panic("x") },
			Logout:         func(_, _, _, _ string) { panic("x") },
			KeyFetch:       func(_, _ string) { panic("x") },
			Bearer:         func(_, _ string) { panic("x") },
			Notice:         func(_, _, _ string) { panic("x") },
			Check:          func(gateway.Check) { panic("x") },
			SignIn:         func(_, _, _ string) { panic("x") },
			Renewal:        func(_, _, _ string) { panic("x") },
			Store:          func(string, time.Duration, bool) { panic("x") },
		}
	})
	m.short(nil, nil, nil)
	b := newBrowser(t)
	if _, status, text := b.open(m.server.URL + "/"); status != 200 || text != "alice" {
		t.Fatalf("the sign-in: %d %s", status, text)
	}
	m.pass(2 * time.Second)
	if !b.signedIn(m.app) {
		t.Error("the refresh signed somebody out")
	}
	if status := m.ask(m.proxy[0].URL+"/page", "Authorization", "Bearer "+m.token()).StatusCode; status != 200 {
		t.Errorf("an access token: %d", status)
	}
	for _, d := range m.op.Logout(t.Context(), "alice", "") {
		if !d.OK() {
			t.Errorf("the logout is answered %d: %v", d.Status, d.Err)
		}
	}
	if b.signedIn(m.app) {
		t.Error("the logout ended nothing")
	}
	rig.Soon(t, "the audit record", writer.wrote)
	for _, hook := range []string{"SessionCreated", "SessionEnded", "Logout", "KeyFetch", "Bearer", "Check", "SignIn",
		"Renewal", "Store"} {
		if log.count("level=ERROR", "event=panic", "Observe."+hook+" panicked") == 0 {
			t.Errorf("the log says nothing of Observe.%s", hook)
		}
	}
}
