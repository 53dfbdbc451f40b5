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

// callback is the redirect URI, to which the provider sends the person back:
//
//  1. The state must belong to an attempt of this browser, made for this provider (RFC 9700 §4.7, §4.4.2). This is
//     checked before anything else.
//  2. Check the iss parameter (RFC 9207 §2.4), then the provider's error, then that there is a code.
//  3. Exchange the code, once (see exchangeOnce), and verify the ID Token (Core §3.1.3.7).
//  4. Request userinfo, which must be of the same subject (Core §5.3.2).
//  5. Check the claims that the site requires, and call OnLogin. If the person is refused here, the refresh token is
//     revoked.
//  6. Create the session, unless a logout that came meanwhile bars it. The browser gets a new bearer, and the session
//     that it had is ended.
func (h *Handler) callback(w http.ResponseWriter, r *http.Request, p *oidc.Provider) error {
	q, err := callbackParams(r)
	if err != nil {
		return err
	}
	a, err := h.findAttempt(r, q["state"])
	if err != nil {
		return h.unmatched(w, r, p, a, q, err)
	}
	if err := h.checkParams(r.Context(), p, a, q); err != nil {
		h.clearCookie(w, h.cookieName(a.Slot))
		if errors.Is(err, errNoSelection) {
			h.Site.Event(r, slog.LevelInfo, "login", slog.String("result", "again"), slog.String("provider", p.Name()),
				slog.String("error", err.Error()))
			redirect(w, h.link(request{provider: a.Provider, returnTo: a.ReturnTo, prompt: withLogin(a.Prompt)}))
			return nil
		}
		return h.endSilent(w, r, a, err)
	}
	o, err := h.exchangeOnce(r, p, a, q["code"])
	if errors.Is(err, errNotBegun) { // nothing was used up, so the page can be loaded again
		return h.storeFailure(p, a, err)
	}
	h.clearCookie(w, h.cookieName(a.Slot))
	if err == nil {
		err = h.respond(w, r, p, a, o)
	}
	return h.endSilent(w, r, a, err)
}

// callbackParams returns the parameters of the provider's answer. None may be repeated (RFC 6749 §3.1).
func callbackParams(r *http.Request) (map[string]string, error) {
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

// unmatched answers a callback that belongs to no login of this browser; err says why. a is what the state says, or nil
// if it is not one of ours. It may come from a stranger, so it leads no further than to a link to a page of this site.
// The provider's error may be a stranger's text too: the page shows the code of the error, and the log has the rest.
func (h *Handler) unmatched(w http.ResponseWriter, r *http.Request, p *oidc.Provider, a *attempt, q map[string]string,
	err error) error {
	back := &attempt{Provider: p.Name()}
	if a != nil {
		back.ReturnTo = a.ReturnTo
	}
	actions, signedIn := h.signInAgain(back), false
	if b, ok := h.Cookie.Read(r); ok {
		switch _, err := h.Sessions.Get(r.Context(), b); {
		case err == nil:
			signedIn = true
			actions = []web.Action{{Label: "Continue", Href: cmp.Or(back.ReturnTo, h.home())}}
		case !errors.Is(err, store.ErrNotFound):
			return h.storeFailure(p, back, err)
		}
	}
	attrs := []slog.Attr{slog.String("provider", p.Name()), slog.String("check", "state")}
	m := web.Message{Title: "This sign-in cannot be continued", Actions: actions}
	switch {
	case q["error"] != "":
		err = fmt.Errorf("%w; the provider answered %s", err, quoteError(q["error"], q["error_description"]))
		m.Text = fmt.Sprintf("%s did not sign you in. It reports the error “%s”.", label(p), printable(q["error"]))
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
		m.Text = "It took too long: a sign-in has to be finished within 15 minutes."
	default:
		m.Text = "It was finished already, has run out, or was begun in another browser."
		m.Note = "If this happens every time, your browser may be blocking cookies for this site."
	}
	f := refuse(http.StatusBadRequest, "", err, attrs...)
	f.Message = m
	return f
}

// checkParams does step 2 of callback, and the last check of step 1.
func (h *Handler) checkParams(ctx context.Context, p *oidc.Provider, a *attempt, q map[string]string) error {
	if a.Provider != p.Name() {
		return h.providerFailure(p, a, &oidc.Error{Check: "redirect_uri",
			Err: errors.New("the answer came to another provider's redirect URI")})
	}
	if err := p.CheckIssParameter(ctx, q["iss"]); err != nil {
		return h.providerFailure(p, a, err)
	}
	if refusesSelection(a, q["error"]) {
		return fmt.Errorf("%w: it answered %s", errNoSelection, quoteError(q["error"], q["error_description"]))
	}
	if q["error"] != "" {
		return h.declined(p, a, q["error"], q["error_description"])
	}
	if q["code"] == "" {
		return h.providerFailure(p, a, &oidc.Error{Check: "code",
			Err: errors.New("the answer has neither a code nor an error")})
	}
	return nil
}

// errNoSelection means that the provider does not support prompt=select_account.
var errNoSelection = errors.New("the provider does not support select_account: it is asked for login instead")

// refusesSelection reports whether an error may be about select_account in the request.
func refusesSelection(a *attempt, code string) bool {
	return withLogin(a.Prompt) != a.Prompt &&
		slices.Contains([]string{"invalid_request", "account_selection_required", "interaction_required",
			"login_required"}, code)
}

// finish does steps 3 to 6 of callback. It returns the bearer for the browser.
func (h *Handler) finish(r *http.Request, p *oidc.Provider, a *attempt,
	code string) (bearer session.Bearer, err error) {
	ctx := r.Context()
	tokens, err := p.Exchange(ctx, code, a.Verifier, h.RedirectURI(p.Name()))
	if err != nil {
		return bearer, h.providerFailure(p, a, err)
	}
	now := h.Sessions.Now()
	id, err := p.VerifyIDToken(ctx, tokens.IDToken, oidc.Expect{Nonce: a.Nonce, AccessToken: tokens.AccessToken}, now)
	if err != nil {
		return bearer, h.providerFailure(p, a, err)
	}
	var info map[string]any
	if !p.Config().SkipUserinfo {
		info, err = p.Userinfo(ctx, tokens.AccessToken, id.Subject, now)
		if err != nil && !errors.Is(err, oidc.ErrUnsupported) {
			return bearer, h.providerFailure(p, a, err)
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
	old, err := h.previousSession(r)
	if refused != nil {
		// Refuse revokes the token, which may end its whole grant, and with it the session that the browser has: see
		// [session.Tokens.Inherit].
		if err == nil && (old == nil || !sameSignIn(old, &n)) {
			h.Sessions.Refuse(ctx, n)
		}
		return bearer, h.refusedByApp(ctx, p, a, id, refused)
	}
	inherited := old != nil && sameSignIn(old, &n) && n.Tokens.Inherit(old.Tokens)
	if err != nil {
		h.notReplaced(r, err)
	}
	bearer, s, err := h.Sessions.Create(ctx, n)
	if err != nil {
		return bearer, h.storeFailure(p, a, err)
	}
	if old != nil {
		h.replace(r, old, inherited)
	}
	h.Site.Event(r, slog.LevelInfo, "login", slog.String("result", "ok"), slog.String("provider", p.Name()),
		slog.String("session", s.Key.Handle()), slog.String("sub", s.Subject), slog.String("sid", s.SID),
		slog.Bool("silent", a.Silent))
	return bearer, nil
}

// refusedByApp is the page for a person who signed in at the provider but is not let in here; see [Handler.Claims].
func (h *Handler) refusedByApp(ctx context.Context, p *oidc.Provider, a *attempt, id *oidc.IDToken, err error) error {
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
		}
		return &f
	}
	text, note := "You have signed in, but this site did not let you in.", ""
	if missing, ok := errors.AsType[requirementError](err); ok {
		attrs[1], note = slog.String("check", "require"), "Whoever runs this site can change that."
		text = fmt.Sprintf("You have signed in, but this site asks for more than your account says: its claim “%s” "+
			"is not one of those let in.", missing.claim)
	}
	f := refuse(http.StatusForbidden, "", err, attrs...)
	f.Message = web.Message{Title: "You cannot come in", Text: text, Note: note, Actions: h.otherAccount(ctx, p, a)}
	return f
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
		Href: h.link(request{provider: a.Provider, returnTo: a.ReturnTo, prompt: prompt})}}
	// Without id_token_hint, which could make the URL too long: the provider asks the person.
	out, err := p.EndSessionURL(ctx, oidc.EndSessionRequest{PostLogoutRedirectURI: h.Site.Absolute("logout/callback")})
	if err == nil {
		actions = append(actions, web.Action{Label: "Sign out at " + label(p), Href: out})
	}
	return actions
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
	f.Message.Actions = h.signInAgain(a)
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
					"If you want to come in all the same, sign in again.",
				Actions: h.signInAgain(a)}}
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

// previousSession returns the session that the browser had until now, or nil.
func (h *Handler) previousSession(r *http.Request) (*session.Session, error) {
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

// sameSignIn reports whether a session and the one that replaces it may be of one sign-in at the provider. Without a
// sid that cannot be known, so they may.
func sameSignIn(old *session.Session, n *session.SignIn) bool {
	return old.Issuer == n.Issuer && old.ClientID == n.ClientID && old.Subject == n.Subject &&
		(old.SID == n.SID || old.HasSID(n.SID))
}

// replace ends the session that the browser had before. The new session stays even if that fails: the browser no longer
// has the old cookie, and the old session expires.
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
