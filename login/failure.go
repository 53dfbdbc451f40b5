package login

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// unmatched answers a callback that belongs to no login of this browser; err says why. a is what the state says, or nil
// if it is not one of ours. It may come from a stranger, so it leads no further than to a link to a page of this site.
// The provider's error may be a stranger's text too: the page shows the code of the error, and the log has the rest.
func (h *Handler) unmatched(w http.ResponseWriter, r *http.Request, p *oidc.Provider, a *attempt, q map[string]string,
	err error) error {
	back := &attempt{Provider: p.Name()}
	if a != nil {
		back.ReturnTo, back.For, back.Params, back.StepUp = a.ReturnTo, a.For, paramsFor(p, a.Params), a.StepUp
	}
	actions, signedIn := h.signInAgain(back), false
	if b, ok := h.Cookie.Read(r); ok {
		switch _, err := h.Sessions.Get(r.Context(), b); {
		case err == nil:
			signedIn = true
			to := cmp.Or(back.ReturnTo, h.home())
			if back.For != nil {
				to = h.link(request{handover: back.For})
			}
			actions = []web.Action{{Label: "Continue", Href: to}}
		case !errors.Is(err, store.ErrNotFound):
			return h.storeFailure(p, back, err)
		}
	}
	attrs := []slog.Attr{slog.String("provider", p.Name()), slog.String("check", "state")}
	m := web.Message{Title: "This sign-in cannot be continued", Actions: actions}
	switch {
	case q["error"] != "":
		err = fmt.Errorf("%w; the provider answered %s", err, quoteError(q["error"], q["error_description"]))
		m.Text = "{provider} did not sign you in. It reports the error “{error}”."
		m.Args = map[string]string{"provider": p.Label(), "error": printable(q["error"])}
	case signedIn && a == nil:
		redirect(w, h.home())
		return nil
	case signedIn:
		h.Site.Event(r, slog.LevelInfo, "login", append(attrs, slog.String("result", "repeated"),
			slog.String("error", err.Error()))...)
		h.Site.Render(w, r, http.StatusOK, web.Message{Title: "You are signed in",
			Text: "This sign-in was finished already, or another one took its place.", Actions: actions})
		return nil
	case errors.Is(err, errRanOut):
		m.Text, m.Args = h.tookTooLong()
	default:
		m.Text = "It was finished already, has run out, or was begun in another browser."
		m.Note = "If this happens every time, your browser may be blocking cookies for this site."
	}
	f := refuse(http.StatusBadRequest, "", err, attrs...)
	f.Message = m
	return f
}

// tookTooLong says within what time a sign-in has to be finished, in minutes if it is some.
func (h *Handler) tookTooLong() (text string, args map[string]string) {
	d := h.attemptLife()
	if n := int(d.Minutes()); d%time.Minute == 0 && n != 1 {
		return "It took too long: a sign-in has to be finished within {n} minutes.",
			map[string]string{"n": strconv.Itoa(n)}
	}
	return "It took too long: a sign-in has to be finished within {n} seconds.",
		map[string]string{"n": strconv.Itoa(int(d.Seconds()))}
}

// declined is the page for an error that the provider answered (RFC 6749 §4.1.2.1, Core §3.1.2.6). The code and the
// description come through the browser, so anybody may have written them.
func (h *Handler) declined(p *oidc.Provider, a *attempt, code, description string) error {
	f := refuse(http.StatusBadRequest, "", fmt.Errorf("the provider answered %s", quoteError(code, description)),
		slog.String("provider", p.Name()), slog.String("check", "error"))
	switch code {
	case "access_denied":
		f.Status = http.StatusForbidden
		f.Message = web.Message{Title: "Sign-in was cancelled",
			Text: "You, or {provider}, said no. Nobody was signed in."}
	case "login_required", "interaction_required", "account_selection_required", "consent_required":
		f.Message = web.Message{Title: "Please sign in",
			Text: "{provider} needs you to take part in this sign-in."}
	case "unmet_authentication_requirements": // OpenID Connect Core Unmet Authentication Requirements
		f.Status = http.StatusForbidden
		f.Message = h.unmetMessage(p, a)
		return f
	case "temporarily_unavailable":
		f.Status, f.Err = http.StatusServiceUnavailable, fmt.Errorf("%w: %w", oidc.ErrUnavailable, f.Err)
		f.Message = web.Message{Title: "Sign-in is not available just now",
			Text: "{provider} asks you to try again in a moment."}
	default:
		f.Message = web.Message{Title: "This sign-in failed",
			Text: "{provider} reports the error “{error}”."}
	}
	if code != "access_denied" && description != "" {
		f.Message.Note = "It adds: {description}"
	}
	f.Message.Args = map[string]string{"provider": p.Label(), "error": printable(code),
		"description": printable(description)}
	f.Message.Actions = h.signInAgain(a)
	return f
}

// providerFailure is the page for an error of a request to the provider, or of a check of its answer.
func (h *Handler) providerFailure(p *oidc.Provider, a *attempt, err error) error {
	f := &web.Failure{Event: "login", Err: err, Attrs: []slog.Attr{slog.String("provider", p.Name())}}
	check, failed := errors.AsType[*oidc.Error](err)
	switch {
	case errors.Is(err, oidc.ErrUnavailable):
		f.Status, f.Attrs = http.StatusServiceUnavailable, append(f.Attrs, slog.String("result", "unavailable"),
			slog.String("check", "provider"))
		f.Message = web.Message{Title: "Sign-in is not available just now",
			Text: "{provider} does not answer. Nothing is wrong with your account; please try again in a moment.",
			Args: map[string]string{"provider": p.Label()},
			Actions: []web.Action{{Label: "Try again",
				Href: h.link(a.again(""))}}}
		if errors.Is(err, oidc.ErrTooMany) {
			f.Message.Text = "Too many people are signing in at this moment. Please try again in a few seconds."
		}
	case errors.Is(err, oidc.ErrInvalidGrant):
		f.Status, f.Attrs = http.StatusBadRequest,
			append(f.Attrs, slog.String("result", "refused"), slog.String("check", "code"))
		f.Message = web.Message{Title: "This sign-in has run out",
			Text: "The provider no longer accepts it. That happens when it took too long, or when the page was " +
				"loaded twice.",
			Actions: h.signInAgain(a)}
	case failed && check.Check == "auth_time" && a.MaxAge != nil:
		f.Status, f.Attrs = http.StatusForbidden,
			append(f.Attrs, slog.String("result", "refused"), slog.String("check", check.Check))
		f.Message = h.unmetMessage(p, a)
	case failed:
		f.Status, f.Attrs = http.StatusBadRequest,
			append(f.Attrs, slog.String("result", "refused"), slog.String("check", check.Check))
		f.Message = web.Message{Title: "This sign-in was refused",
			Text:    "What {provider} answered did not pass a check ({check}), so nobody was signed in.",
			Args:    map[string]string{"provider": p.Label(), "check": check.Check},
			Actions: h.signInAgain(a)}
	default:
		return fmt.Errorf("login with %s: %w", p.Name(), err)
	}
	return f
}

// storeFailure is the page for a session that could not be created or looked up.
func (h *Handler) storeFailure(p *oidc.Provider, a *attempt, err error) error {
	switch {
	case errors.Is(err, store.ErrEnded):
		return &web.Failure{Status: http.StatusConflict, Err: err, Event: "login",
			Attrs: []slog.Attr{slog.String("result", "ended"), slog.String("provider", p.Name())},
			Message: web.Message{Title: "You were signed out",
				Text: "A sign-out arrived while you were signing in, so this sign-in was not completed.\n\n" +
					"To continue, sign in again.",
				Actions: h.signInAgain(a)}}
	case errors.Is(err, session.ErrUnavailable):
		return &web.Failure{Status: http.StatusServiceUnavailable, Err: err, Event: "login",
			Attrs: []slog.Attr{slog.String("result", "unavailable"), slog.String("provider", p.Name()),
				slog.String("check", "store")},
			Message: web.Message{Title: "Not available right now",
				Text: "This site cannot reach its store of sessions. Please try again in a moment.",
				Actions: []web.Action{{Label: "Try again",
					Href: h.link(a.again(""))}}}}
	}
	return err
}

// refusedByApp is the page for a person who signed in at the provider but is not let in here; see [Handler.Claims].
func (h *Handler) refusedByApp(
	ctx context.Context, p *oidc.Provider, a *attempt, id *oidc.IDToken, claims map[string]any, err error,
) error {
	attrs := []slog.Attr{slog.String("provider", p.Name()), slog.String("check", "app"), slog.String("sub", id.Subject)}
	if said, ok := errors.AsType[*web.Failure](err); ok { // made by the app
		f := *said
		f.Event = cmp.Or(f.Event, "login")
		f.Attrs = slices.Concat([]slog.Attr{slog.String("result", "refused")}, attrs, f.Attrs)
		switch {
		case len(f.Message.Actions) > 0:
		case IsTemporary(err):
			f.Attrs[0] = slog.String("result", "unavailable")
			f.Message.Actions = h.signInAgain(a)
		default:
			f.Message.Actions = h.otherAccount(ctx, p, a)
			f.Message.Args = maps.Clone(f.Message.Args)
			if f.Message.Args == nil {
				f.Message.Args = make(map[string]string)
			}
			f.Message.Args["provider"] = p.Label()
		}
		return &f
	}
	text, note := "You have signed in, but this site did not let you in.", ""
	var anew []web.Action
	args := map[string]string{}
	if missing, ok := errors.AsType[requirementError](err); ok {
		attrs[1], note = slog.String("check", "require"), "Whoever runs this site can change that."
		args = map[string]string{"claim": missing.claim}
		text = "You have signed in, but this site asks for more than your account says: its claim “{claim}” is not " +
			"one of those let in."
		if aboutSignIn(missing.claim) {
			text = "You have signed in, but this site asks for another way of signing in: the claim “{claim}” is not " +
				"one of those let in."
			anew = h.signInAnew(a)
		}
		h.logClaims(ctx, p, missing.claim, claims)
	}
	f := refuse(http.StatusForbidden, "", err, attrs...)
	f.Message = web.Message{Title: "You do not have access", Text: text, Note: note,
		Args: args, Actions: append(anew, h.otherAccount(ctx, p, a)...)}
	args["provider"] = p.Label()
	return f
}

// aboutSignIn reports whether a claim describes how or when the person signed in (Core §2), and not who it is.
func aboutSignIn(claim string) bool {
	return slices.Contains([]string{"acr", "amr", "auth_time"}, claim)
}

// signInAnew returns the action that has the person sign in at the provider once more. Otherwise the session there
// would answer at once, with the same claims as before. There is none if the provider was asked that already.
func (h *Handler) signInAnew(a *attempt) []web.Action {
	if slices.Contains(strings.Fields(a.Prompt), "login") {
		return nil
	}
	return []web.Action{{Label: "Sign in again", Href: h.link(a.again("login"))}}
}

// logClaims logs, at debug, which claim was required and the names of those that were there.
func (h *Handler) logClaims(ctx context.Context, p *oidc.Provider, required string, claims map[string]any) {
	cmp.Or(h.Site.Log, slog.Default()).DebugContext(ctx, "a required claim is not as required", "event",
		"claim_missing", "provider", p.Name(), "claim", required, "required", fmt.Sprint(p.Config().Require[required]),
		"claims", session.ClaimNames(claims))
}

// otherAccount returns the actions for a person whose account is refused. The provider would use the same account again
// without a question, so it is asked to let the person select one. If it was asked that already, it is asked to sign
// the person in again. If it can sign people out, the page offers that too.
func (h *Handler) otherAccount(ctx context.Context, p *oidc.Provider, a *attempt) []web.Action {
	prompt := selectAccount
	if asked := strings.Fields(a.Prompt); slices.Contains(asked, selectAccount) || slices.Contains(asked, "login") {
		prompt = "login"
	}
	actions := []web.Action{{Label: "Use another account",
		Href: h.link(a.again(prompt))}}
	// Without id_token_hint, which could make the URL too long: the provider asks the person.
	out, err := p.EndSessionURL(ctx, oidc.EndSessionRequest{PostLogoutRedirectURI: h.Site.Absolute("logout/callback")})
	if err == nil {
		actions = append(actions, web.Action{Label: "Sign out at {provider}", Href: out})
	}
	return actions
}

// endSilent ends a silent login that failed: it redirects back without a page, since the person did not ask for the
// login. An error on our own side is shown. For other logins it returns err.
func (h *Handler) endSilent(w http.ResponseWriter, r *http.Request, a *attempt, err error) error {
	f, ok := errors.AsType[*web.Failure](err)
	if !a.Silent || !ok || f.Status >= 500 && !errors.Is(err, oidc.ErrUnavailable) {
		return err
	}
	attrs := append([]slog.Attr{slog.Bool("silent", true), slog.String("reason", f.Error())}, f.Attrs...)
	h.Site.Event(r, slog.LevelInfo, cmp.Or(f.Event, "login"), attrs...)
	to := a.ReturnTo
	if a.For != nil {
		host, path := h.handoverTarget(r, a.For)
		to = host.Origin + path
	}
	redirect(w, to)
	return nil
}

// signInAgain returns the action that starts the same login again.
func (h *Handler) signInAgain(a *attempt) []web.Action {
	return []web.Action{{Label: "Sign in again", Href: h.link(a.again(""))}}
}

// refuse is the page that says why nobody was signed in.
func refuse(status int, say string, err error, attrs ...slog.Attr) *web.Failure {
	return &web.Failure{Status: status, Message: web.Message{Text: say}, Err: err, Event: "login",
		Attrs: append([]slog.Attr{slog.String("result", "refused")}, attrs...)}
}

// quoteError shows an error of the provider, with its description if it has one (RFC 6749 §4.1.2.1), for the log.
func quoteError(code, description string) string {
	if description == "" {
		return fmt.Sprintf("%q", web.Clip(code))
	}
	return fmt.Sprintf("%q: %q", web.Clip(code), web.Clip(description))
}

// printable removes from untrusted text what RFC 6749 §4.1.2.1 does not allow, and shortens it.
func printable(text string) string {
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, text)
	return web.Clip(text)
}
