package curfew

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/trace"

	"example.com/curfew/internal/span"
	"example.com/curfew/store"
	"example.com/curfew/store/observed"
)

// observeStore returns what makes a span of each call of a store, and tells tell of it, if that is not nil.
func observeStore(tell func(operation string, took time.Duration, failed bool)) observed.Begin {
	return func(ctx context.Context, operation string) (context.Context, func(error)) {
		began := time.Now()
		ctx, end := span.Start(ctx, "store "+operation, trace.SpanKindClient)
		return ctx, func(err error) {
			// A caller that did not wait for the answer says nothing about the store.
			failed := err != nil && !store.IsContractError(err) && ctx.Err() == nil
			end(failed)
			if tell != nil {
				tell(operation, time.Since(began), failed)
			}
		}
	}
}

// traceEvent adds to the span of a request what was decided about a login or a logout. Who it was about stays in the
// log and the audit record.
func traceEvent(r *http.Request, event string, attrs []slog.Attr) {
	said := map[string]string{"curfew.event": event}
	for _, a := range attrs {
		name := map[string]string{"result": "curfew.result", "check": "curfew.reason", "provider": "curfew.provider"}[a.Key]
		if _, ok := said[name]; !ok && name != "" {
			said[name] = a.Value.String()
		}
	}
	var pairs []string
	for name, value := range said {
		pairs = append(pairs, name, value)
	}
	span.Set(r.Context(), pairs...)
}

// countSignIn tells [Observer.SignIn] of an event of the login.
func (rp *RP) countSignIn(event string, attrs []slog.Attr) {
	if rp.observe.SignIn == nil || event != "login" && event != "login_started" {
		return
	}
	said := map[string]string{}
	for _, a := range attrs {
		if _, ok := said[a.Key]; !ok { // what an app adds to its own refusals comes last
			said[a.Key] = a.Value.String()
		}
	}
	provider := "unknown"
	for _, p := range rp.providers {
		if p.Name() == said["provider"] {
			provider = p.Name()
		}
	}
	if event == "login_started" {
		said["result"] = "begun"
	}
	rp.observe.SignIn(provider, said["result"], said["check"])
}
