package logout

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

const (
	backchannel = "backchannel" // the channel, in metrics
	// tokenTimeout bounds a logout whose caller has disconnected; see [Handler.token].
	tokenTimeout = 10 * time.Second
	// retryAfter is when a provider is asked to send the token again.
	retryAfter = 5 * time.Second
)

// token receives a logout token (Back-Channel Logout §2.5 to §2.8):
//
//  1. Read one logout_token from the form in the body. Other parameters, cookies and Origin are ignored.
//  2. Verify the token (§2.6). If a check fails the answer is 400, with the name of the check.
//  3. End the sessions that it names, in one step with the record of its jti. If there are none, the work and the
//     answer are the same: that is a success (§2.7).
//  4. Answer 200 without a body; or 400 `already processed` if the token was carried out before.
//
// If the provider's keys or the store cannot be reached the answer is 503, and nothing was used up: the same token can
// be sent again. §2.8 requires 400 for a logout that failed, but providers take that as final, so it is not the
// default.
//
// The logout is carried out even if the caller disconnects: some providers wait for only 2.5 s.
func (h *Handler) token(w http.ResponseWriter, r *http.Request) error {
	raw, err := logoutToken(r)
	if err != nil {
		return h.refused(r, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), tokenTimeout)
	defer cancel()
	t, err := oidc.VerifyLogoutToken(ctx, h.Providers, raw, h.Sessions.Now())
	if err != nil {
		if errors.Is(err, oidc.ErrUnavailable) {
			return h.unavailable("unknown", "keys",
				"the keys of the provider cannot be had just now; send the token again", err, h.claimed(raw)...)
		}
		return h.refused(r, err, h.claimed(raw)...)
	}
	ended, err := h.carryOut(ctx, t)
	provider := t.Provider.Name()
	verified := []slog.Attr{slog.String("provider", provider), slog.String("jti", t.JTI), slog.String("sub", t.Subject),
		slog.String("sid", t.SID)}
	switch {
	case err == nil:
	case errors.Is(err, store.ErrReplayed):
		h.result(backchannel, provider, "replayed", "jti")
		return refusal("already processed", "replayed", "jti", err, verified...)
	case errors.Is(err, session.ErrUnavailable):
		return h.unavailable(provider, "store", "the logout could not be carried out; send the token again", err,
			verified...)
	default:
		h.result(backchannel, provider, "failed", "internal")
		return err
	}
	h.result(backchannel, provider, "ok", "")
	h.Succeeded(provider)
	h.warnOfSubjects(r, t, ended)
	level := slog.LevelInfo
	if len(ended) == 0 && h.CarryOut == nil {
		var hint string
		if level, hint = h.namedNobody(t); hint != "" {
			verified = append(verified, slog.String("hint", hint))
		}
	}
	h.Site.Event(r, level, "backchannel_logout",
		append(verified, slog.String("result", "ok"), slog.Int("ended", len(ended)))...)
	w.WriteHeader(cmp.Or(h.SuccessStatus, http.StatusOK))
	return nil
}

// carryOut ends the sessions that a logout token names, for each client in its `aud` that is ours. Each client is a
// step of its own. If one fails the token can be sent again, and the clients that are done are skipped.
func (h *Handler) carryOut(ctx context.Context, t *oidc.LogoutToken) (ended []store.Ended, err error) {
	if h.CarryOut != nil {
		return nil, h.CarryOut(ctx, t)
	}
	replayed := 0
	for _, p := range append([]*oidc.Provider{t.Provider}, t.Others...) {
		if t.Subject != "" && t.SID != "" && p.Config().Quirks.LogoutScope == "subject" {
			some, err := h.endSubjects(ctx, t, p)
			if err != nil {
				return nil, err
			}
			ended = append(ended, some...)
		}
		some, err := h.Sessions.End(ctx, h.ending(t, p))
		switch {
		case errors.Is(err, store.ErrReplayed):
			replayed++
		case err != nil:
			return nil, err
		}
		ended = append(ended, some...)
	}
	if replayed > len(t.Others) {
		return nil, store.ErrReplayed
	}
	return ended, nil
}

// ending returns the ending that a logout token requests for one client.
func (h *Handler) ending(t *oidc.LogoutToken, p *oidc.Provider) store.Ending {
	return store.Ending{
		Selector: store.Selector{Issuer: t.Issuer, ClientID: p.Config().ClientID, Subject: t.Subject, SID: t.SID},
		Cause:    store.CauseBackChannel, JTI: t.JTI, JTIExpires: t.Remember,
		RevokeOffline: t.RevokeOffline,
	}
}

// endSubjects ends all sessions of the person that a logout token names by sub and sid, for logout_scope: subject. The
// session with that sid may have another subject than the token says; then those of that subject end too. It comes
// before the ending of the token itself, by which the session could no longer be found when the token is sent again.
// Each subject has a jti of its own, so that a replay ends no newer session.
func (h *Handler) endSubjects(
	ctx context.Context, t *oidc.LogoutToken, p *oidc.Provider,
) (all []store.Ended, err error) {
	subjects, err := h.subjects(ctx, t, p)
	if err != nil {
		return nil, err
	}
	for _, subject := range subjects {
		e := h.ending(t, p)
		e.Selector.Subject, e.Selector.SID = subject, ""
		e.JTI += " of all sessions of " + subject
		ended, err := h.Sessions.End(ctx, e)
		if err != nil && !errors.Is(err, store.ErrReplayed) {
			return nil, err
		}
		all = append(all, ended...)
	}
	return all, nil
}

// subjects returns whose sessions a logout token ends: those of its sub, and those of each subject that a session with
// its sid has now, or had when this token came before.
//
// A retry has to find every subject that an earlier try found. If somebody has more than [store.EndBatch] sessions,
// that try may have ended the one with the sid, and failed before the others. So each subject is kept, until the token
// can come no more, before the first of its sessions ends: under a hash of the token, the first one with the number 0,
// and so on. A number is claimed once and never changed, so tries at the same time find the same. After the last one
// comes noMore: a replay must not find a session that got the sid later. A store may lose these values in a crash (see
// [store.Attempts]), but not while it keeps the endings that came after them: only on a Redis Cluster can a failover do
// that, since the two are on different masters.
func (h *Handler) subjects(ctx context.Context, t *oidc.LogoutToken, p *oidc.Provider) ([]string, error) {
	found, err := h.Sessions.SubjectsOf(ctx, t.Issuer, p.Config().ClientID, t.SID)
	if err != nil {
		return nil, err
	}
	all, life := []string{t.Subject}, t.Remember.Sub(h.Sessions.Now())
	for n := 0; ; n++ {
		found = slices.DeleteFunc(found, func(s string) bool { return slices.Contains(all, s) })
		id := subjectID(t, p, n)
		next := noMore
		if len(found) > 0 {
			next = found[0]
		}
		kept, err := h.Sessions.ClaimAttempt(ctx, id, []byte(next), life)
		if err != nil { // a full store may keep nothing more, and still end sessions
			if kept, err = h.Sessions.Attempt(ctx, id); errors.Is(err, store.ErrNotFound) {
				return append(all, found...), nil
			}
		}
		switch {
		case err != nil:
			return nil, err
		case kept == nil: // this try is the first
			kept = []byte(next)
		}
		if string(kept) == noMore {
			return all, nil
		}
		all = append(all, string(kept))
	}
}

const noMore = "\x00" // no subject is that

// subjectID names a subject of a logout token in the store.
func subjectID(t *oidc.LogoutToken, p *oidc.Provider, n int) store.AttemptID {
	return sha256.Sum256(fmt.Appendf(nil, "logout subject %q %q %q %d", t.Issuer, p.Config().ClientID, t.JTI, n))
}

// logoutToken reads the one logout_token of a form (Back-Channel Logout §2.5). The query is not part of it.
func logoutToken(r *http.Request) (string, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return "", &oidc.Error{Check: "content_type", Err: errors.New("want application/x-www-form-urlencoded")}
	}
	body, err := io.ReadAll(r.Body) // bounded by web
	if err != nil {
		if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
			return "", &oidc.Error{Check: "size", Err: err}
		}
		return "", &oidc.Error{Check: "form", Err: errors.New("the body ended early")}
	}
	form, err := url.ParseQuery(string(body))
	if err != nil { // its text may quote the body
		return "", &oidc.Error{Check: "form", Err: errors.New("the body is not form-encoded")}
	}
	switch tokens := form["logout_token"]; {
	case len(tokens) == 0 || len(tokens) == 1 && tokens[0] == "":
		return "", &oidc.Error{Check: "logout_token", Err: errors.New("the form has no logout_token")}
	case len(tokens) > 1:
		return "", &oidc.Error{Check: "logout_token", Err: errors.New("the form must have exactly one logout_token")}
	}
	return form.Get("logout_token"), nil
}

// refused is the answer to a request that failed a check. It names the check; the log has the details.
func (h *Handler) refused(r *http.Request, err error, attrs ...slog.Attr) error {
	check, ok := errors.AsType[*oidc.Error](err)
	if !ok {
		h.result(backchannel, "unknown", "failed", "internal")
		return err
	}
	h.result(backchannel, "unknown", "refused", check.Check)
	h.settingNeeded(r, check)
	return refusal("the logout request failed the check: "+check.Check, "refused", check.Check, err, attrs...)
}

// claimed returns what a rejected token claims to be about, so that an operator can find out whose logout it was. It is
// not verified, and the names of the attributes say so.
func (h *Handler) claimed(raw string) []slog.Attr {
	iss, sub, sid := oidc.Claimed(raw)
	var attrs []slog.Attr
	for _, a := range []slog.Attr{slog.String("claimed_iss", iss), slog.String("claimed_sub", sub),
		slog.String("claimed_sid", sid)} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	if said := oidc.Describe(raw); said != nil {
		attrs = append(attrs, slog.Any("claims", web.Detail(said)))
	}
	for _, p := range h.Providers {
		if iss != "" && p.Config().Issuer == iss {
			return append(attrs, slog.String("claimed_provider", p.Name()))
		}
	}
	return attrs
}

func refusal(say, result, check string, err error, attrs ...slog.Attr) error {
	return &web.Failure{Status: http.StatusBadRequest, Message: web.Message{Text: say}, Err: err,
		Event: "backchannel_logout", Warn: true,
		Attrs: append([]slog.Attr{slog.String("result", result), slog.String("check", check)}, attrs...)}
}

func (h *Handler) unavailable(provider, what, say string, err error, attrs ...slog.Attr) error {
	h.result(backchannel, provider, "unavailable", what)
	return &web.Failure{Status: cmp.Or(h.FailureStatus, http.StatusServiceUnavailable), Retry: retryAfter,
		Message: web.Message{Text: say}, Err: err, Event: "backchannel_logout",
		Attrs: append([]slog.Attr{slog.String("result", "unavailable"), slog.String("check", what)}, attrs...)}
}
