package logout

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

const user = "user" // the channel, in metrics

// logout signs a person out (RP-Initiated Logout §2):
//
//  1. A GET only shows the button, and a POST from another site is refused: nobody is signed out by a link.
//  2. The session here is ended first, with those that share its sid: the provider may never call back, and what is
//     done here must not depend on it. If the store cannot do it, nothing has happened, and the page says so.
//  3. The cookie is taken back, and the browser sent to the provider's end_session_endpoint, by a form if the ID Token
//     is large.
//
// A provider that has none, or does not answer, leaves the person signed in there; the page says that too.
func (h *Handler) logout(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodGet {
		return h.ask(w, r)
	}
	if err := h.Site.SameOrigin(r); err != nil {
		h.result(user, "unknown", "refused", "cross_site")
		return &web.Failure{Status: http.StatusForbidden, Err: err, Event: "user_logout",
			Attrs: []slog.Attr{slog.String("result", "refused")},
			Message: web.Message{Title: "You are still signed in",
				Text:    "Another site asked to sign you out, and that is yours to decide.",
				Actions: []web.Action{{Label: "Sign out", Href: h.Site.Path("logout"), Post: true}}}}
	}
	bearer, ok := h.Cookie.Read(r)
	if !ok {
		h.result(user, "unknown", "nobody", "")
		h.done(w, r)
		return nil
	}
	s, err := h.Sessions.Peek(r.Context(), bearer.Key())
	switch {
	case errors.Is(err, store.ErrNotFound):
		if err := h.endAgain(r, bearer.Key()); err != nil {
			return h.away(user, "unknown", err)
		}
		h.Cookie.Clear(w)
		h.result(user, "unknown", "nobody", "")
		h.done(w, r)
		return nil
	case err != nil:
		return h.away(user, "unknown", err)
	}
	ended, err := h.end(r, s)
	if err != nil {
		return h.away(user, s.Provider, err)
	}
	h.Cookie.Clear(w)
	h.result(user, s.Provider, "ok", "")
	h.Site.Event(r, slog.LevelInfo, "user_logout", slog.String("result", "ok"), slog.String("provider", s.Provider),
		slog.String("session", s.Key.Handle()), slog.Int("ended", ended))
	h.leave(w, r, s)
	return nil
}

// end ends a session and those that share its sid, or one that it had before, and says how many. By its sids, because
// that leaves the marks that bar a login of the same sign-in that is under way in another tab.
func (h *Handler) end(r *http.Request, s *session.Session) (int, error) {
	var ended []store.Ended
	end := func(who store.Selector) error {
		who.Issuer, who.ClientID = s.Issuer, s.ClientID
		more, err := h.Sessions.End(r.Context(), store.Ending{Selector: who, Cause: store.CauseUser})
		ended = append(ended, more...)
		return err
	}
	for _, sid := range append([]string{s.SID}, s.Former...) {
		if sid == "" {
			continue
		}
		if err := end(store.Selector{SID: sid}); err != nil {
			return 0, err
		}
	}
	if !slices.ContainsFunc(ended, func(e store.Ended) bool { return e.Key == s.Key }) {
		if err := end(store.Selector{Key: s.Key}); err != nil {
			return 0, err
		}
	}
	return len(ended), nil
}

// endAgain repeats the ending of a session that is not found. It may have ended a moment ago at a store that could not
// say that its replicas have the ending too, and has not until an ending says so. Who it was is no longer known, nor
// needed.
func (h *Handler) endAgain(r *http.Request, key store.Key) error {
	for _, p := range h.Providers {
		c := p.Config()
		who := store.Selector{Issuer: c.Issuer, ClientID: c.ClientID, Key: key}
		if _, err := h.Sessions.End(r.Context(), store.Ending{Selector: who, Cause: store.CauseUser}); err != nil {
			return err
		}
	}
	return nil
}

// maxAddress is how long an address may be for a redirect. Many servers take a request line, or all headers together,
// of 8 KiB, and there are cookies beside it.
const maxAddress = 4 << 10

// leave sends the browser on to the provider, to be signed out there as well: by a redirect, or by a form where the ID
// Token is too large for an address. A script cannot use a page with a form, and some providers take none: then it is a
// redirect without the ID Token, and the provider asks the person (RP-Initiated Logout §2).
func (h *Handler) leave(w http.ResponseWriter, r *http.Request, s *session.Session) {
	p, to, err := oidc.Find(h.Providers, s.Issuer, s.ClientID), "", oidc.ErrUnsupported
	ask := oidc.EndSessionRequest{IDTokenHint: s.Tokens.IDToken,
		PostLogoutRedirectURI: h.Site.Absolute("logout/callback"),
		State:                 rand.Text()}
	if p != nil {
		to, err = p.EndSessionURL(r.Context(), ask)
	}
	var form url.Values
	if err == nil && len(to) > maxAddress {
		if !scripted(r) {
			to, form, err = p.EndSessionForm(r.Context(), ask)
		}
		if form == nil {
			ask.IDTokenHint = ""
			to, err = p.EndSessionURL(r.Context(), ask)
		}
	}
	if err != nil {
		h.Site.Event(r, slog.LevelWarn, "user_logout_only_here", slog.String("provider", s.Provider),
			slog.String("error", err.Error()))
		h.Site.Render(w, r, http.StatusOK, web.Message{Title: "You are signed out here",
			Text: "Your provider could not be asked to sign you out as well. You may still be signed in there, " +
				"and could come back in without a password.",
			Note:    "On a shared computer, sign out at your provider too, or close the browser.",
			Actions: []web.Action{{Label: "Continue", Href: cmp.Or(h.Home, "/")}}})
		return
	}
	http.SetCookie(w, h.Cookie.New(h.stateCookie(), ask.State, store.AttemptLifetime))
	if form == nil {
		redirect(w, to)
		return
	}
	fields := make(map[string]string, len(form))
	for name := range form {
		fields[name] = form.Get(name)
	}
	h.Site.Render(w, r, http.StatusOK, web.Message{Title: "You are signed out here",
		Text:    "Please continue, to be signed out at your provider too.",
		Actions: []web.Action{{Label: "Continue", Href: to, Post: true, Form: fields}}, Submit: true})
}

// scripted says whether a script asked, in which no form is sent on. What a browser says of itself comes first.
func scripted(r *http.Request) bool {
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode != "navigate"
	}
	accept := strings.ToLower(strings.Join(r.Header.Values("Accept"), ","))
	return strings.EqualFold(r.Header.Get("X-Requested-With"), "XMLHttpRequest") ||
		strings.Contains(accept, "json") && !strings.Contains(accept, "text/html")
}

// returned receives the person back from the provider (RP-Initiated Logout §3). There is one place to go from here, so
// a state that is wrong or absent changes nothing but the log line.
func (h *Handler) returned(w http.ResponseWriter, r *http.Request) error {
	result := "unasked"
	if h.matches(r, r.URL.Query()["state"]) {
		http.SetCookie(w, h.Cookie.New(h.stateCookie(), "", -time.Second))
		result = "ok"
	}
	h.Site.Event(r, slog.LevelInfo, "user_logout_returned", slog.String("result", result))
	if bearer, ok := h.Cookie.Read(r); ok {
		switch _, err := h.Sessions.Peek(r.Context(), bearer.Key()); {
		case err == nil: // signed in again meanwhile, or never out: do not claim otherwise
			redirect(w, cmp.Or(h.Home, "/"))
			return nil
		case !errors.Is(err, store.ErrNotFound):
			return h.away("", "", err)
		}
	}
	h.done(w, r)
	return nil
}

// matches says whether state is the one that this browser left with.
func (h *Handler) matches(r *http.Request, state []string) bool {
	left := r.CookiesNamed(h.stateCookie())
	return len(state) == 1 && len(left) == 1 && subtle.ConstantTimeCompare([]byte(left[0].Value), []byte(state[0])) == 1
}

func (h *Handler) stateCookie() string { return h.Cookie.NameFor("logout") }

// ask shows the button.
func (h *Handler) ask(w http.ResponseWriter, r *http.Request) error {
	if bearer, ok := h.Cookie.Read(r); ok {
		switch _, err := h.Sessions.Peek(r.Context(), bearer.Key()); {
		case err == nil:
			h.Site.Render(w, r, http.StatusOK, web.Message{Title: "Sign out?",
				Text: "You will be signed out here and at your provider.",
				Actions: []web.Action{{Label: "Sign out", Href: h.Site.Path("logout"), Post: true},
					{Label: "Stay signed in", Href: "/"}}})
			return nil
		case !errors.Is(err, store.ErrNotFound):
			return h.away("", "", err)
		}
	}
	h.Site.Render(w, r, http.StatusOK, web.Message{Title: "You are not signed in",
		Actions: []web.Action{{Label: "Sign in", Href: h.Site.Path("login")}}})
	return nil
}

// done ends a logout. The usual place is a page of ours: the app itself would often start a sign-in at once, which a
// provider may complete without a question, and the person would find that signing out did nothing.
func (h *Handler) done(w http.ResponseWriter, r *http.Request) {
	if h.Home != "" {
		redirect(w, h.Home)
		return
	}
	h.Site.Render(w, r, http.StatusOK, web.Message{Title: "You are signed out", Text: "You can close this page.",
		Actions: []web.Action{{Label: "Sign in again", Href: h.Site.Path("login")}}})
}

// away is the page for a store that does not answer: nobody was signed out, and no cookie is touched. It counts as a
// result of the channel, if that is not empty.
func (h *Handler) away(channel, provider string, err error) error {
	if !errors.Is(err, session.ErrUnavailable) {
		return err
	}
	if channel != "" {
		h.result(channel, provider, "unavailable", "store")
	}
	return &web.Failure{Status: http.StatusServiceUnavailable, Err: err, Event: cmp.Or(channel, user) + "_logout",
		Attrs: []slog.Attr{slog.String("result", "unavailable"), slog.String("check", "store")},
		Message: web.Message{Title: "You are not signed out yet",
			Text: "This site cannot reach its store of sessions, so you may still be signed in. Please try again in " +
				"a moment."}}
}

func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}
