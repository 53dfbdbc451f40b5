package gateway

import (
	"errors"
	"net/http"
	"time"

	"example.com/curfew/internal/span"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/web"
)

// Check is one decision about a request, for [Handler.OnCheck]. All texts are from small fixed sets: they are safe as
// labels of metrics.
type Check struct {
	Surface string // who asked: "verify", "ext_authz", "proxy" or "require"
	Result  string // "allowed", "signed_out", "refused", "unavailable" or "failed"
	Reason  string // why; see the docs on metrics
	Took    time.Duration
}

// begins returns the time at which a decision begins, if anybody wants to know.
func (h *Handler) begins() (now time.Time) {
	if h.OnCheck != nil {
		now = time.Now()
	}
	return now
}

// checked reports a decision that began at began. s is the session of a request that was let through, if it has one.
func (h *Handler) checked(r *http.Request, surface string, began time.Time, s *session.Session, err error) {
	if h.OnCheck == nil && h.Site.Tracer == nil {
		return
	}
	result, reason := outcome(r, s, err)
	if h.Site.Tracer != nil {
		if surface == "verify" { // no pattern of a mux leads to some of its paths
			span.Rename(r.Context(), web.MethodName(r), h.Site.Path("verify"))
		}
		span.Set(r.Context(), "curfew.surface", surface, "curfew.result", result, "curfew.reason", reason)
	}
	if h.OnCheck == nil {
		return
	}
	h.OnCheck(Check{Surface: surface, Result: result, Reason: reason, Took: time.Since(began)})
}

// outcome returns the result of a decision, and its reason.
func outcome(r *http.Request, s *session.Session, err error) (result, reason string) {
	switch {
	case err == nil && ofToken(s):
		return "allowed", "token"
	case err == nil && s != nil:
		return "allowed", "session"
	case err == nil:
		return "allowed", "public"
	case web.Gone(r, err):
		return "refused", "gone"
	case errors.Is(err, errTooManyOpen):
		return "unavailable", "busy"
	case errors.Is(err, errNotSignedIn):
		if _, ok := errors.AsType[stepUpNeeded](err); ok {
			return "signed_out", "step_up"
		}
		return "signed_out", "session"
	}
	f, ok := errors.AsType[*web.Failure](err)
	if !ok {
		return "failed", "internal"
	}
	if f.Event == "bearer_refused" {
		return "refused", "token"
	}
	switch f.Status {
	case http.StatusServiceUnavailable:
		if errors.Is(err, session.ErrUnavailable) {
			return "unavailable", "store"
		}
		if errors.Is(err, oidc.ErrUnavailable) {
			return "unavailable", "provider"
		}
		return "unavailable", "assertion"
	case http.StatusForbidden:
		switch f.Event {
		case "host_refused":
			return "refused", "host"
		case "identity_refused":
			return "refused", "identity"
		case "origin_refused":
			return "refused", "origin"
		}
		return "refused", "policy"
	case http.StatusInternalServerError:
		return "failed", "internal"
	case http.StatusNotFound:
		return "refused", "route"
	}
	return "refused", "request"
}
