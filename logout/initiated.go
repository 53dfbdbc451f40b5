package logout

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
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
//  1. A GET shows only a button, and a POST from another site is refused. So a link cannot sign anybody out.
//  2. End the session here first, with those that share its sid: the provider may never call back. If the store fails,
//     nothing has happened, and the page says so.
//  3. Clear the cookie and send the browser to the provider's end_session_endpoint: by a redirect, or by a form if the
//     ID Token is large.
//
// A provider without that endpoint, or one that does not answer, leaves the person signed in there. The page says so.
func (h *Handler) logout(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodGet {
		return h.confirm(w, r)
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
	s, err := h.Sessions.Find(r.Context(), bearer)
	switch {
	case errors.Is(err, store.ErrNotFound):
		if err := h.endAgain(r, bearer, err); err != nil {
			return h.storeFailure(user, "unknown", err)
		}
		h.Cookie.Clear(w)
		h.result(user, "unknown", "nobody", "")
		h.done(w, r)
		return nil
	case err != nil:
		return h.storeFailure(user, "unknown", err)
	}
	ended, err := h.Sessions.EndSignIn(r.Context(), s, store.CauseUser)
	if err != nil {
		return h.storeFailure(user, s.Provider, err)
	}
	h.Cookie.Clear(w)
	h.result(user, s.Provider, "ok", "")
	h.Site.Event(r, slog.LevelInfo, "user_logout", slog.String("result", "ok"), slog.String("provider", s.Provider),
		slog.String("session", s.Key.Handle()), slog.String("sub", s.Subject), slog.Int("ended", len(ended)))
	h.sendToProvider(w, r, s)
	return nil
}

// endAgain repeats the ending of a session that is not found, as notFound says. It may have ended a moment ago in a
// store that could not confirm that its replicas have the ending too; only another ending confirms it. Whose session it
// was is not known, and not needed. A bearer of another host, whose session lives, ends nothing here.
//
// A sign-out that failed may have ended the session and not what else was of that sign-in: then all of it is repeated.
func (h *Handler) endAgain(r *http.Request, bearer session.Bearer, notFound error) error {
	if errors.Is(notFound, session.ErrOtherHost) {
		return nil
	}
	key := bearer.Key()
	for _, p := range h.Providers {
		c := p.Config()
		of := store.Selector{Issuer: c.Issuer, ClientID: c.ClientID, Key: key}
		if _, err := h.Sessions.EndAgain(r.Context(), session.IDOf(key), of, store.CauseUser); err != nil {
			return err
		}
	}
	return nil
}

// maxURL is how long the URL of a redirect may be. Many servers limit the request line, or all headers with the cookies
// together, to 8 KiB.
const maxURL = 4 << 10

// sendToProvider sends the browser to the provider, to be signed out there as well: by a redirect, or by a form if the
// ID Token is too large for a URL. A script cannot use a page with a form, and some providers accept no form. Then it
// is a redirect without the ID Token, and the provider asks the person (RP-Initiated Logout §2).
func (h *Handler) sendToProvider(w http.ResponseWriter, r *http.Request, s *session.Session) {
	p, to, err := oidc.Find(h.Providers, s.Issuer, s.ClientID), "", oidc.ErrUnsupported
	ask := oidc.EndSessionRequest{IDTokenHint: s.Tokens.IDToken, State: h.newState(r),
		PostLogoutRedirectURI: h.Site.Absolute("logout/callback")}
	if p != nil {
		to, err = p.EndSessionURL(r.Context(), ask)
	}
	var form url.Values
	if err == nil && len(to) > maxURL {
		if !fromScript(r) {
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
			Actions: []web.Action{{Label: "Continue", Href: cmp.Or(h.Home, h.Site.First())}}})
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

// fromScript reports whether the request comes from a script, which submits no form. Sec-Fetch-Mode decides if the
// browser sends it.
func fromScript(r *http.Request) bool {
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode != "navigate"
	}
	accept := strings.ToLower(strings.Join(r.Header.Values("Accept"), ","))
	return strings.EqualFold(r.Header.Get("X-Requested-With"), "XMLHttpRequest") ||
		strings.Contains(accept, "json") && !strings.Contains(accept, "text/html")
}

// returned is the post_logout_redirect_uri, to which the provider sends the person back (RP-Initiated Logout §3). It
// leads to one place in any case, so a wrong or absent state changes only the log line.
func (h *Handler) returned(w http.ResponseWriter, r *http.Request) error {
	result, state := "unasked", r.URL.Query()["state"]
	if to, ok := h.stateOrigin(r, state); ok {
		redirect(w, to+h.Site.Path("logout/callback")+"?"+url.Values{"state": state}.Encode())
		return nil
	}
	if h.stateMatches(r, state) {
		http.SetCookie(w, h.Cookie.New(h.stateCookie(), "", -time.Second))
		result = "ok"
	}
	h.Site.Event(r, slog.LevelInfo, "user_logout_returned", slog.String("result", result))
	if bearer, ok := h.Cookie.Read(r); ok {
		switch _, err := h.Sessions.Find(r.Context(), bearer); {
		case err == nil: // signed in again meanwhile, or never out: do not claim otherwise
			redirect(w, cmp.Or(h.Home, h.Site.First()))
			return nil
		case !errors.Is(err, store.ErrNotFound):
			return h.storeFailure("", "", err)
		}
	}
	h.done(w, r)
	return nil
}

// stateMatches reports whether state is the one that this browser was sent to the provider with.
func (h *Handler) stateMatches(r *http.Request, state []string) bool {
	left := r.CookiesNamed(h.stateCookie())
	return len(state) == 1 && len(left) == 1 && subtle.ConstantTimeCompare([]byte(left[0].Value), []byte(state[0])) == 1
}

// newState returns the state for the provider. It names the host that the person signs out at, if that is not the one
// of the post_logout_redirect_uri.
func (h *Handler) newState(r *http.Request) string {
	state := rand.Text()
	if host, err := h.Site.HostOf(r); err == nil && !host.Main {
		state += "." + host.Name
	}
	return state
}

// stateOrigin returns the origin of the host that a state names, if it is another host of this site: the sign-out began
// there, and its page is shown there. Anybody can name one, and gets no further than to that page.
func (h *Handler) stateOrigin(r *http.Request, state []string) (origin string, ok bool) {
	here, err := h.Site.HostOf(r)
	if err != nil || !here.Main || len(state) != 1 || len(state[0]) > maxState {
		return "", false
	}
	_, name, named := strings.Cut(state[0], ".")
	host, known := h.Site.FindHost(name)
	return host.Origin, named && known && !host.Main
}

// maxState is longer than any state of ours: a random text and the name of a host (RFC 1035 §2.3.4).
const maxState = 300

func (h *Handler) stateCookie() string { return h.Cookie.NameFor("logout") }

// confirm shows the button to sign out.
func (h *Handler) confirm(w http.ResponseWriter, r *http.Request) error {
	if bearer, ok := h.Cookie.Read(r); ok {
		switch _, err := h.Sessions.Find(r.Context(), bearer); {
		case err == nil:
			h.Site.Render(w, r, http.StatusOK, web.Message{Title: "Sign out?",
				Text: "You will be signed out here and at your provider.",
				Actions: []web.Action{{Label: "Sign out", Href: h.Site.Path("logout"), Post: true},
					{Label: "Stay signed in", Href: h.Site.First()},
					{Label: "Your sessions", Href: h.Site.Path("sessions")}}})
			return nil
		case !errors.Is(err, store.ErrNotFound):
			return h.storeFailure("", "", err)
		}
	}
	h.Site.Render(w, r, http.StatusOK, web.Message{Title: "You are not signed in",
		Actions: []web.Action{{Label: "Sign in", Href: h.Site.Path("login")}}})
	return nil
}

// done shows that the person is signed out. The default is a page of ours: the app would often start a sign-in at once,
// which the provider may complete without a question, as if the sign-out had done nothing.
func (h *Handler) done(w http.ResponseWriter, r *http.Request) {
	if h.Home != "" {
		redirect(w, h.Home)
		return
	}
	h.Site.Render(w, r, http.StatusOK, web.Message{Title: "You are signed out", Text: "You can close this page.",
		Actions: []web.Action{{Label: "Sign in again", Href: h.Site.Path("login")}}})
}

// storeFailure is the page for a store that does not answer: nobody was signed out, and the cookie stays. It reports a
// result of the channel, if that is not empty.
func (h *Handler) storeFailure(channel, provider string, err error) error {
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
				"a moment.",
			Actions: []web.Action{{Label: "Try again", Href: h.Site.Path("logout"), Post: true}}}}
}

func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}
