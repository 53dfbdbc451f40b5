package curfew

import (
	"context"
	"io"
	"log/slog"
	"net/http"

	"example.com/curfew/internal/guard"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// guardHooks has a panic in code of the app fail the call of that hook alone, wherever it is called: most hooks are
// called by goroutines that serve no request as well, where a panic would end the process.
//
// A panic of OnLogin is an error that says nothing about the person: it is temporary (see login.IsTemporary). What a
// refresh has brought until then is kept, so the new refresh token is not lost. One of an observer loses what it was
// told.
func guardHooks(cfg Config, log *slog.Logger) Config {
	if hook := cfg.OnLogin; hook != nil {
		cfg.OnLogin = func(ctx context.Context, claims map[string]any) error {
			var fault error
			err := func() error {
				defer guard.Recover(log, "OnLogin", &fault)
				return hook(ctx, claims)
			}()
			if fault != nil {
				return web.Fail(http.StatusInternalServerError, web.OurFault, fault)
			}
			return err
		}
	}
	if hook := cfg.OnEnd; hook != nil {
		cfg.OnEnd = func(ctx context.Context, e store.Ended) {
			defer guard.Recover(log, "OnEnd", nil)
			hook(ctx, e)
		}
	}
	if cfg.AuditWriter != nil {
		cfg.AuditWriter = guardedWriter{cfg.AuditWriter, log}
	}
	o := &cfg.Observe
	o.SessionCreated = told1(log, "Observe.SessionCreated", o.SessionCreated)
	o.SessionEnded = told1(log, "Observe.SessionEnded", o.SessionEnded)
	o.Logout = told4(log, "Observe.Logout", o.Logout)
	o.KeyFetch = told2(log, "Observe.KeyFetch", o.KeyFetch)
	o.Bearer = told2(log, "Observe.Bearer", o.Bearer)
	o.Notice = told3(log, "Observe.Notice", o.Notice)
	o.Check = told1(log, "Observe.Check", o.Check)
	o.SignIn = told3(log, "Observe.SignIn", o.SignIn)
	o.Renewal = told3(log, "Observe.Renewal", o.Renewal)
	o.Store = told3(log, "Observe.Store", o.Store)
	return cfg
}

// told1 and the functions below return a guarded observer; nil: there is none.
func told1[A any](log *slog.Logger, name string, f func(A)) func(A) {
	if f == nil {
		return nil
	}
	return func(a A) {
		defer guard.Recover(log, name, nil)
		f(a)
	}
}

func told2[A, B any](log *slog.Logger, name string, f func(A, B)) func(A, B) {
	if f == nil {
		return nil
	}
	return func(a A, b B) {
		defer guard.Recover(log, name, nil)
		f(a, b)
	}
}

func told3[A, B, C any](log *slog.Logger, name string, f func(A, B, C)) func(A, B, C) {
	if f == nil {
		return nil
	}
	return func(a A, b B, c C) {
		defer guard.Recover(log, name, nil)
		f(a, b, c)
	}
}

func told4[A, B, C, D any](log *slog.Logger, name string, f func(A, B, C, D)) func(A, B, C, D) {
	if f == nil {
		return nil
	}
	return func(a A, b B, c C, d D) {
		defer guard.Recover(log, name, nil)
		f(a, b, c, d)
	}
}

// guardedWriter is [Config.AuditWriter] whose panics are errors of the write.
type guardedWriter struct {
	w   io.Writer
	log *slog.Logger
}

func (g guardedWriter) Write(p []byte) (n int, err error) {
	defer guard.Recover(g.log, "AuditWriter", &err)
	return g.w.Write(p)
}
