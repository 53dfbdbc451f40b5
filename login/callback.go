package login

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// callback receives the person back from the provider:
//
//  1. The state must belong to an attempt of this browser, made for this provider (RFC 9700 §4.7, §4.4.2). Nothing else
//     is looked at before.
//  2. The iss parameter (RFC 9207 §2.4), then the provider's error, then the code.
//  3. The code is exchanged, once (see [Handler.once]), and the ID Token verified (Core §3.1.3.7).
//  4. Only then userinfo is asked, for the same subject (Core §5.3.2).
//  5. The claims that the site requires, and the app's own say. Who is refused here leaves a refresh token to be
//     revoked.
//  6. The session is created, unless a logout overtook this login; the browser gets a new bearer, and the session that
//     it had is ended.
func (h *Handler) callback(w http.ResponseWriter, r *http.Request, p *oidc.Provider) error {
	q, err := answered(r)
	if err != nil {
		return err
	}
	a, err := h.take(r, q["state"])
	if err != nil {
		return h.lost(w, r, p, a, q, err)
	}
	if err := h.check(r.Context(), p, a, q); err != nil {
		h.forget(w, h.cookieName(a.Slot))
		if errors.Is(err, errNoSelection) {
			h.Site.Event(r, slog.LevelInfo, "login", slog.String("result", "again"), slog.String("provider", p.Name()),
				slog.String("error", err.Error()))
			redirect(w, h.link(request{provider: a.Provider, returnTo: a.ReturnTo, prompt: withLogin(a.Prompt)}))
			return nil
		}
		return h.quietly(w, r, a, err)
	}
	o, err := h.once(r, p, a, q["code"])
	if errors.Is(err, errNotBegun) { // nothing was used up, so the page can be loaded again
		return h.kept(p, a, err)
	}
	h.forget(w, h.cookieName(a.Slot))
	if err == nil {
		err = h.answer(w, r, p, a, o)
	}
	return h.quietly(w, r, a, err)
}

// answered returns the parameters of the provider's answer; none of them may come twice (RFC 6749 §3.1).
func answered(r *http.Request) (map[string]string, error) {
	values, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "The address of this page is malformed.", err)
	}
	q := make(map[string]string)
	for _, name := range []string{"state", "iss", "error", "error_description", "code"} {
		if len(values[name]) > 1 {
			return nil, refuse(http.StatusBadRequest, "The address of this page is malformed.",
				fmt.Errorf("%s comes more than once", name))
		}
		q[name] = values.Get(name)
	}
	return q, nil
}

// lost answers for a callback that belongs to no login of this browser: err says why. a is what its state says, if that
// is one of ours, else nil; it may have been begun by a stranger, so it gets nobody further than a link to a page of
// this site. The same goes for what the provider says: the page names its error, and the log has the rest.
func (h *Handler) lost(w http.ResponseWriter, r *http.Request, p *oidc.Provider, a *attempt, q map[string]string,
	err error) error {
	back := &attempt{Provider: p.Name()}
	if a != nil {
		back.ReturnTo = a.ReturnTo
	}
	actions, in := h.again(back), false
	if b, ok := h.Cookie.Read(r); ok {
		switch _, err := h.Sessions.Get(r.Context(), b); {
		case err == nil:
			in = true
			actions = []web.Action{{Label: "Continue", Href: cmp.Or(back.ReturnTo, h.home())}}
		case !errors.Is(err, store.ErrNotFound):
			return h.kept(p, back, err)
		}
	}
	attrs := []slog.Attr{slog.String("provider", p.Name()), slog.String("check", "state")}
	m := web.Message{Title: "This sign-in cannot be continued", Actions: actions}
	switch {
	case q["error"] != "":
		err = fmt.Errorf("%w; the provider answered %s", err, quoteError(q["error"], q["error_description"]))
		m.Text = fmt.Sprintf("%s did not sign you in. It reports the error “%s”.", label(p), printable(q["error"]))
	case in && a == nil:
		redirect(w, h.home())
		return nil
	case in:
		h.Site.Event(r, slog.LevelInfo, "login", append(attrs, slog.String("result", "repeated"),
			slog.String("error", err.Error()))...)
		h.Site.Render(w, r, http.StatusOK, web.Message{Title: "You are signed in",
			Text: "This sign-in was finished already, or another one took its place.", Actions: actions})
		return nil
	case errors.Is(err, errRanOut):
		m.Text = "It took too long: a sign-in has to be finished within 15 minutes."
	default:
		m.Text = "It was finished already, has run out, or was begun in another browser."
		m.Note = "If this happens every time, your browser may be blocking cookies for this site."
	}
	f := refuse(http.StatusBadRequest, "", err, attrs...)
	f.Message = m
	return f
}

// check is steps 1 (its last part) and 2 of [Handler.callback].
func (h *Handler) check(ctx context.Context, p *oidc.Provider, a *attempt, q map[string]string) error {
	if a.Provider != p.Name() {
		return h.asked(p, a, &oidc.Error{Check: "redirect_uri",
			Err: errors.New("the answer came to another provider's redirect URI")})
	}
	if err := p.CheckIssParameter(ctx, q["iss"]); err != nil {
		return h.asked(p, a, err)
	}
	if refusesSelection(a, q["error"]) {
		return fmt.Errorf("%w: it answered %s", errNoSelection, quoteError(q["error"], q["error_description"]))
	}
	if q["error"] != "" {
		return h.declined(p, a, q["error"], q["error_description"])
	}
	if q["code"] == "" {
		return h.asked(p, a, &oidc.Error{Check: "code", Err: errors.New("the answer has neither a code nor an error")})
	}
	return nil
}

// errNoSelection: the provider was asked to let the person select an account, and does not do that.
var errNoSelection = errors.New("the provider takes no select_account and is asked to sign the person in anew")

// refusesSelection says whether an error may be about select_account. Once that is not asked for any more, an error is
// one.
func refusesSelection(a *attempt, code string) bool {
	return withLogin(a.Prompt) != a.Prompt &&
		slices.Contains([]string{"invalid_request", "account_selection_required", "interaction_required",
			"login_required"}, code)
}

// finish is steps 3 to 6 of [Handler.callback]. It returns the bearer for the browser.
func (h *Handler) finish(r *http.Request, p *oidc.Provider, a *attempt, code string) (bearer session.Bearer,
	err error) {
	ctx := r.Context()
	tokens, err := p.Exchange(ctx, code, a.Verifier, h.RedirectURI(p.Name()))
	if err != nil {
		return bearer, h.asked(p, a, err)
	}
	now := h.Sessions.Now()
	id, err := p.VerifyIDToken(ctx, tokens.IDToken, oidc.Expect{Nonce: a.Nonce, AccessToken: tokens.AccessToken}, now)
	if err != nil {
		return bearer, h.asked(p, a, err)
	}
	var info map[string]any
	if !p.Config().SkipUserinfo {
		info, err = p.Userinfo(ctx, tokens.AccessToken, id.Subject, now)
		if err != nil && !errors.Is(err, oidc.ErrUnsupported) {
			return bearer, h.asked(p, a, err)
		}
	}
	claims, refused := h.Claims(ctx, p, id.Claims, info)
	n := session.SignIn{
		Provider: p.Name(), Issuer: id.Issuer, ClientID: id.ClientID, Subject: id.Subject, SID: id.SID,
		Claims: claims, Began: a.Began, Era: a.Era,
		Tokens: session.Tokens{
			IDToken: id.Raw, AccessToken: tokens.AccessToken, RefreshToken: tokens.RefreshToken,
			Expires: tokens.Expires, Offline: slices.Contains(tokens.Scopes, "offline_access"),
		},
	}
	if n.SID == "" && p.Config().Quirks.SIDFromTokenResponse {
		n.SID = tokens.SessionState
	}
	old, err := h.before(r)
	if refused != nil {
		// To revoke a token may end its whole grant, and with it the session that the browser has: see
		// [session.Tokens.Inherit].
		if err == nil && (old == nil || !sameSignIn(old, &n)) {
			h.Sessions.Refuse(ctx, n)
		}
		return bearer, h.refused(ctx, p, a, id, refused)
	}
	inherited := old != nil && sameSignIn(old, &n) && n.Tokens.Inherit(old.Tokens)
	if err != nil {
		h.notReplaced(r, err)
	}
	bearer, s, err := h.Sessions.Create(ctx, n)
	if err != nil {
		return bearer, h.kept(p, a, err)
	}
	if old != nil {
		h.replace(r, old, inherited)
	}
	h.Site.Event(r, slog.LevelInfo, "login", slog.String("result", "ok"), slog.String("provider", p.Name()),
		slog.String("session", s.Key.Handle()), slog.String("sub", s.Subject), slog.String("sid", s.SID),
		slog.Bool("silent", a.Silent))
	return bearer, nil
}

// refused says why somebody who has signed in at the provider does not come in; see [Handler.Claims].
func (h *Handler) refused(ctx context.Context, p *oidc.Provider, a *attempt, id *oidc.IDToken, err error) error {
	attrs := []slog.Attr{slog.String("provider", p.Name()), slog.String("check", "app"), slog.String("sub", id.Subject)}
	if said, ok := errors.AsType[*web.Failure](err); ok { // the app's own words
		f := *said
		f.Event = cmp.Or(f.Event, "login")
		f.Attrs = slices.Concat([]slog.Attr{slog.String("result", "refused")}, attrs, f.Attrs)
		switch {
		case len(f.Message.Actions) > 0:
		case MayPass(err):
			f.Attrs[0] = slog.String("result", "unavailable")
			f.Message.Actions = h.again(a)
		default:
			f.Message.Actions = h.another(ctx, p, a)
		}
		return &f
	}
	text, note := "You have signed in, but this site did not let you in.", ""
	if missing, ok := errors.AsType[lackingError](err); ok {
		attrs[1], note = slog.String("check", "require"), "Whoever runs this site can change that."
		text = fmt.Sprintf("You have signed in, but this site asks for more than your account says: its claim “%s” "+
			"is not one of those let in.", missing.claim)
	}
	f := refuse(http.StatusForbidden, "", err, attrs...)
	f.Message = web.Message{Title: "You cannot come in", Text: text, Note: note, Actions: h.another(ctx, p, a)}
	return f
}

// another is what somebody can do whose account does not do: take another one. The provider would let the same one
// straight through, so it is asked to let the person choose, or, if it was asked that and they are here again, to sign
// them in anew; and where it can sign people out, the page offers that too.
func (h *Handler) another(ctx context.Context, p *oidc.Provider, a *attempt) []web.Action {
	prompt := selectAccount
	if asked := strings.Fields(a.Prompt); slices.Contains(asked, selectAccount) || slices.Contains(asked, "login") {
		prompt = "login"
	}
	actions := []web.Action{{Label: "Use another account",
		Href: h.link(request{provider: a.Provider, returnTo: a.ReturnTo, prompt: prompt})}}
	// Without a hint of who it is, which would make the address too long for some: the provider asks the person.
	out, err := p.EndSessionURL(ctx, oidc.EndSessionRequest{PostLogoutRedirectURI: h.Site.Absolute("logout/callback")})
	if err == nil {
		actions = append(actions, web.Action{Label: "Sign out at " + label(p), Href: out})
	}
	return actions
}

// declined says what it means that the provider answered with an error (RFC 6749 §4.1.2.1, Core §3.1.2.6). The code and
// its description come by way of the browser, so anybody may have written them.
func (h *Handler) declined(p *oidc.Provider, a *attempt, code, description string) error {
	f := refuse(http.StatusBadRequest, "", fmt.Errorf("the provider answered %s", quoteError(code, description)),
		slog.String("provider", p.Name()), slog.String("check", "error"))
	switch code {
	case "access_denied":
		f.Status = http.StatusForbidden
		f.Message = web.Message{Title: "Sign-in was cancelled",
			Text: fmt.Sprintf("You, or %s, said no. Nobody was signed in.", label(p))}
	case "login_required", "interaction_required", "account_selection_required", "consent_required":
		f.Message = web.Message{Title: "Please sign in",
			Text: fmt.Sprintf("%s needs you to take part in this sign-in.", label(p))}
	case "temporarily_unavailable":
		f.Status, f.Err = http.StatusServiceUnavailable, fmt.Errorf("%w: %w", oidc.ErrUnavailable, f.Err)
		f.Message = web.Message{Title: "Sign-in is not available just now",
			Text: fmt.Sprintf("%s asks you to try again in a moment.", label(p))}
	default:
		f.Message = web.Message{Title: "This sign-in failed",
			Text: fmt.Sprintf("%s reports the error “%s”.", label(p), printable(code))}
	}
	if code != "access_denied" && description != "" {
		f.Message.Note = "It adds: " + printable(description)
	}
	f.Message.Actions = h.again(a)
	return f
}

// kept says what it means that the session was not created, or could not be looked up.
func (h *Handler) kept(p *oidc.Provider, a *attempt, err error) error {
	switch {
	case errors.Is(err, store.ErrEnded):
		return &web.Failure{Status: http.StatusConflict, Err: err, Event: "login",
			Attrs: []slog.Attr{slog.String("result", "ended"), slog.String("provider", p.Name())},
			Message: web.Message{Title: "You were signed out",
				Text: "A sign-out arrived while you were signing in, so this sign-in was not completed.\n\nIf " +
					"you want to come in all the same, sign in again.",
				Actions: h.again(a)}}
	case errors.Is(err, session.ErrUnavailable):
		return &web.Failure{Status: http.StatusServiceUnavailable, Err: err, Event: "login",
			Attrs: []slog.Attr{slog.String("result", "unavailable"), slog.String("provider", p.Name())},
			Message: web.Message{Title: "Not just now",
				Text: "This site cannot reach its store of sessions. Please try again in a moment.",
				Actions: []web.Action{{Label: "Try again",
					Href: h.link(request{provider: a.Provider, returnTo: a.ReturnTo})}}}}
	}
	return err
}

// before returns the session that the browser has had until now, or nil.
func (h *Handler) before(r *http.Request) (*session.Session, error) {
	b, ok := h.Cookie.Read(r)
	if !ok {
		return nil, nil
	}
	s, err := h.Sessions.Peek(r.Context(), b.Key())
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return s, err
}

// sameSignIn says whether a session and the one that is about to take its place may be of one sign-in at the provider.
// Without a sid nobody can tell.
func sameSignIn(old *session.Session, n *session.SignIn) bool {
	return old.Issuer == n.Issuer && old.ClientID == n.ClientID && old.Subject == n.Subject &&
		(old.SID == n.SID || old.HasSID(n.SID))
}

// replace ends the session that the browser had before. The new one stands even if that fails: the browser's cookie
// is replaced in any case, and the old session runs out by itself.
func (h *Handler) replace(r *http.Request, old *session.Session, inherited bool) {
	_, err := h.Sessions.End(r.Context(), store.Ending{Cause: store.CauseReplaced, KeepTokens: inherited,
		Selector: store.Selector{Issuer: old.Issuer, ClientID: old.ClientID, Key: old.Key}})
	if err != nil {
		h.notReplaced(r, err)
	}
}

func (h *Handler) notReplaced(r *http.Request, err error) {
	b, _ := h.Cookie.Read(r)
	h.Site.Event(r, slog.LevelWarn, "session_not_replaced", slog.String("session", b.Key().Handle()),
		slog.String("error", err.Error()))
}

// quoteError shows an error of the provider, with its description if it has one (RFC 6749 §4.1.2.1), for the log.
func quoteError(code, description string) string {
	if description == "" {
		return fmt.Sprintf("%q", web.Clip(code))
	}
	return fmt.Sprintf("%q: %q", web.Clip(code), web.Clip(description))
}

// printable keeps of a stranger's text what RFC 6749 §4.1.2.1 allows in it, and not too much.
func printable(text string) string {
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, text)
	return web.Clip(text)
}
