package logout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/medama-io/go-useragent"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

const (
	maxListed = 1000 // sessions in the answer to a program
	maxShown  = 50   // on the page
)

// mine is one session of the person, for programs.
type mine struct {
	ID        string    `json:"id"`
	Current   bool      `json:"current"`           // it is the one that asks
	Browser   string    `json:"browser,omitempty"` // in words; empty: unknown
	System    string    `json:"system,omitempty"`
	UserAgent string    `json:"user_agent,omitempty"` // at the sign-in
	Address   string    `json:"address,omitempty"`    // at the sign-in
	Created   time.Time `json:"created"`
	LastSeen  time.Time `json:"last_seen"`
	Expires   time.Time `json:"expires"` // in any case; or when it is not used until IdleExpires
	Idle      time.Time `json:"idle_expires"`

	session *session.Session
}

// ownSessions answers /auth/sessions: a GET shows the sessions of the person, and a POST ends some of them. Programs
// get JSON.
func (h *Handler) ownSessions() http.Handler {
	page := h.Site.Page(h.sessions, http.MethodGet, http.MethodPost)
	program := h.Site.JSON(h.sessions, http.MethodGet, http.MethodPost)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept")
		if wantsJSON(r) {
			program.ServeHTTP(w, r)
			return
		}
		page.ServeHTTP(w, r)
	})
}

// wantsJSON reports whether the answer is for a program.
func wantsJSON(r *http.Request) bool {
	accept := strings.ToLower(strings.Join(r.Header.Values("Accept"), ","))
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

func (h *Handler) sessions(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		if err := h.Site.SameOrigin(r); err != nil {
			h.result(user, "unknown", "refused", "cross_site")
			return &web.Failure{Status: http.StatusForbidden, Err: err, Event: "user_logout",
				Attrs: []slog.Attr{slog.String("result", "refused")},
				Message: web.Message{Title: "Nothing has changed",
					Text:    "Another site asked to end sessions of yours, and that is yours to decide.",
					Actions: []web.Action{{Label: "Your sessions", Href: h.Site.Path("sessions")}}}}
		}
	}
	own, err := h.current(r)
	switch {
	case err != nil:
		return h.sessionsUnavailable(err)
	case own == nil && wantsJSON(r):
		return web.Fail(http.StatusUnauthorized, "Nobody is signed in.", nil)
	case own == nil:
		redirect(w, h.Site.Path("login")+"?"+url.Values{"return_to": {h.Site.Path("sessions")}}.Encode())
		return nil
	case r.Method == http.MethodPost:
		return h.endSessions(w, r, own)
	}
	return h.listSessions(w, r, own)
}

// current returns the session of the browser, nil if nobody is signed in.
func (h *Handler) current(r *http.Request) (*session.Session, error) {
	bearer, ok := h.Cookie.Read(r)
	if !ok {
		return nil, nil
	}
	s, err := h.Sessions.Find(r.Context(), bearer)
	switch {
	case err == nil:
		return s, nil
	case !errors.Is(err, store.ErrNotFound):
		return nil, err
	case r.Method == http.MethodPost: // an ending of all may have failed after the own one
		return nil, h.endAgain(r, bearer, err)
	}
	return nil, nil
}

// find returns the living sessions of the same account: this one first, then those seen last. more: there are others.
func (h *Handler) find(ctx context.Context, own *session.Session) (all []mine, more bool, err error) {
	ask := session.Search{Issuer: own.Issuer, ClientID: own.ClientID, Subject: own.Subject, Limit: maxListed}
	for {
		page, err := h.Sessions.Search(ctx, ask)
		if err != nil {
			return nil, false, err
		}
		for _, s := range page.Sessions {
			m := mine{ID: s.ID(), Current: s.Key == own.Key, UserAgent: s.UserAgent, Address: s.Address,
				Created: s.Created, LastSeen: s.LastSeen, Expires: s.Expires, Idle: s.IdleExpires, session: s.Session}
			m.Browser, m.System = inWords(s.UserAgent)
			all = append(all, m)
		}
		if ask.After = page.Next; ask.After.IsZero() || len(all) >= maxListed {
			more = !ask.After.IsZero()
			break
		}
	}
	slices.SortFunc(all, func(a, b mine) int {
		if a.Current != b.Current {
			if a.Current {
				return -1
			}
			return 1
		}
		return b.LastSeen.Compare(a.LastSeen)
	})
	return all, more, nil
}

// inWords returns the names of the browser and the system that a User-Agent header tells of, as the makers write them.
// They are from a fixed set, whatever the header has.
func inWords(header string) (browser, system string) {
	agent := useragent.NewParser().Parse(header)
	browser, system = agent.Browser().String(), agent.OS().String()
	if system == "MacOS" {
		system = "macOS"
	}
	return browser, system
}

// listSessions shows the sessions of the person.
func (h *Handler) listSessions(w http.ResponseWriter, r *http.Request, own *session.Session) error {
	all, more, err := h.find(r.Context(), own)
	if err != nil {
		return h.sessionsUnavailable(err)
	}
	if wantsJSON(r) {
		web.WriteJSON(w, http.StatusOK, map[string]any{"sessions": all, "more": more})
		return nil
	}
	m := web.Message{Title: "Your sessions", Args: map[string]string{"provider": h.label(own)},
		Text: "These browsers are signed in here with your account at {provider}."}
	// Only a number comes from the address: a link from elsewhere cannot put words here.
	if n, err := strconv.ParseUint(r.URL.Query().Get("ended"), 10, 16); err == nil {
		m.Done, m.Args["n"] = "Sessions that have ended: {n}.", strconv.FormatUint(n, 10)
	}
	if len(all) > maxShown {
		m.Args["left"] = strconv.Itoa(len(all) - maxShown)
		if m.Note = "Sessions that are not shown here: {left}."; more {
			m.Note = "Sessions that are not shown here: {left} or more."
		}
	}
	for _, s := range all[:min(len(all), maxShown)] {
		m.Items = append(m.Items, h.item(&s))
	}
	here := h.Site.Path("sessions")
	if len(all) > 1 {
		m.Actions = append(m.Actions, web.Action{Label: "End all others", Href: here, Post: true,
			Form: map[string]string{"end": "others"}})
	}
	m.Actions = append(m.Actions,
		web.Action{Label: "End all, and sign out at {provider}", Href: here, Post: true,
			Form: map[string]string{"end": "all"}},
		web.Action{Label: "Go to the first page", Href: h.Site.First()})
	h.Site.Render(w, r, http.StatusOK, m)
	return nil
}

// item shows a session on the page.
func (h *Handler) item(s *mine) web.Item {
	i := web.Item{ID: s.ID, Args: map[string]string{"browser": s.Browser, "system": s.System}}
	switch {
	case s.Browser != "" && s.System != "":
		i.Title = "{browser} on {system}"
	case s.Browser != "":
		i.Title = "{browser}"
	case s.System != "":
		i.Title = "A browser on {system}"
	default:
		i.Title = "An unknown browser"
		if s.UserAgent != "" {
			i.Facts = append(i.Facts, web.Fact{Name: "It calls itself", Value: s.UserAgent})
		}
	}
	if s.Address != "" {
		i.Facts = append(i.Facts, web.Fact{Name: "Address", Value: s.Address})
	}
	i.Facts = append(i.Facts, web.Fact{Name: "Signed in", Time: s.Created}, web.Fact{Name: "Last seen", Time: s.LastSeen})
	if s.Current {
		i.Mark = "This browser"
		i.Actions = []web.Action{{Label: "Sign out", Href: h.Site.Path("logout"), Post: true}}
		return i
	}
	i.Actions = []web.Action{{Label: "End this session", Href: h.Site.Path("sessions"), Post: true,
		Form: map[string]string{"session": s.ID}}}
	return i
}

// label returns the name of the provider of a session, for people.
func (h *Handler) label(s *session.Session) string {
	if p := oidc.Find(h.Providers, s.Issuer, s.ClientID); p != nil {
		return p.Label()
	}
	return s.Provider
}

// endSessions ends one session of the person (`session`), all but this one (`end=others`), or all, here and at the
// provider (`end=all`).
func (h *Handler) endSessions(w http.ResponseWriter, r *http.Request, own *session.Session) error {
	if err := r.ParseForm(); err != nil {
		return web.Fail(http.StatusBadRequest, "What your browser sent is malformed.", err)
	}
	id, which := r.PostForm["session"], r.PostForm["end"]
	if len(id)+len(which) != 1 {
		return web.Fail(http.StatusBadRequest, "What your browser sent is malformed.",
			errors.New("want one session, or one end"))
	}
	var ended []store.Ended
	var err error
	what := "one"
	switch {
	case len(id) == 1:
		var gone bool
		ended, gone, err = h.endOne(r.Context(), own, id[0])
		if gone && err == nil {
			h.Cookie.Clear(w)
		}
	case which[0] == "others":
		what = "others"
		ended, err = h.endOthers(r.Context(), own)
	case which[0] == "all":
		what = "all"
		ended, err = h.Sessions.EndSubject(r.Context(), own, store.CauseUser)
		if err == nil {
			h.Cookie.Clear(w)
		}
	default:
		return web.Fail(http.StatusBadRequest, "What your browser sent is malformed.",
			fmt.Errorf("end is others or all, not %q", web.Clip(which[0])))
	}
	if err != nil {
		if errors.Is(err, session.ErrUnavailable) {
			h.result(user, own.Provider, "unavailable", "store")
		}
		return h.sessionsUnavailable(err)
	}
	h.result(user, own.Provider, "ok", "")
	h.Site.Event(r, slog.LevelInfo, "user_logout", slog.String("result", "ok"), slog.String("provider", own.Provider),
		slog.String("session", own.Key.Handle()), slog.String("sub", own.Subject), slog.String("which", what),
		slog.Int("ended", len(ended)))
	switch {
	case wantsJSON(r):
		names := []string{}
		for _, e := range ended {
			names = append(names, session.IDOf(e.Key))
		}
		answer := map[string]any{"ended": names}
		if what == "all" {
			if to, _ := h.endAtProvider(r, own); to != "" {
				answer["sign_out_at_provider"] = to
			}
		}
		web.WriteJSON(w, http.StatusOK, answer)
	case what == "all":
		h.sendToProvider(w, r, own)
	default:
		redirect(w, h.Site.Path("sessions")+"?ended="+strconv.Itoa(len(ended)))
	}
	return nil
}

// endAtProvider returns the address at which a program can have the browser signed out at the provider too. The
// provider asks the person, since the ID Token is not in it.
func (h *Handler) endAtProvider(r *http.Request, own *session.Session) (string, error) {
	p := oidc.Find(h.Providers, own.Issuer, own.ClientID)
	if p == nil {
		return "", oidc.ErrUnsupported
	}
	return p.EndSessionURL(r.Context(),
		oidc.EndSessionRequest{PostLogoutRedirectURI: h.Site.Absolute("logout/callback")})
}

// endOne ends the session of the person with this ID. gone: it was the own one. A session of somebody else is not
// found, as one that has ended.
func (h *Handler) endOne(ctx context.Context, own *session.Session, id string) (ended []store.Ended, gone bool,
	err error) {
	other, err := h.Sessions.ByID(ctx, id)
	if errors.Is(err, store.ErrNotFound) { // it has ended, which is what was asked for
		ended, err = h.Sessions.EndAgain(ctx, id, ofSubject(own), store.CauseUser)
		return ended, false, err
	}
	if err == nil && (other.Issuer != own.Issuer || other.ClientID != own.ClientID || other.Subject != own.Subject) {
		return nil, false, nil // not the person's
	}
	if err != nil {
		return nil, false, err
	}
	if other.Key == own.Key {
		ended, err = h.Sessions.EndSignIn(ctx, own, store.CauseUser)
		return ended, true, err
	}
	ended, err = h.endOther(ctx, own, other.Session)
	return ended, false, err
}

// endOthers ends all sessions of the person but the own one.
func (h *Handler) endOthers(ctx context.Context, own *session.Session) (ended []store.Ended, err error) {
	done := map[store.Key]bool{own.Key: true}
	for more := true; more; {
		var all []mine
		if all, more, err = h.find(ctx, own); err != nil {
			return ended, err
		}
		fresh := false
		for _, s := range all {
			if done[s.session.Key] {
				continue
			}
			gone, err := h.endOther(ctx, own, s.session)
			if ended = append(ended, gone...); err != nil {
				return ended, err
			}
			done[s.session.Key], fresh = true, true
			for _, e := range gone {
				done[e.Key] = true
			}
		}
		more = more && fresh
	}
	if len(ended) == 0 { // a try before may have ended them all, without the store being certain
		return h.Sessions.EndAgain(ctx, own.ID(), ofSubject(own), store.CauseUser)
	}
	return ended, nil
}

// ofSubject names the person of a session, for [session.Manager.EndAgain].
func ofSubject(s *session.Session) store.Selector {
	return store.Selector{Issuer: s.Issuer, ClientID: s.ClientID, Subject: s.Subject}
}

// endOther ends a session, with those of the same sign-in at the provider, which bars a login of it that is under way.
// But the own session stays: if that is of the same sign-in, only the other one ends.
func (h *Handler) endOther(ctx context.Context, own, other *session.Session) ([]store.Ended, error) {
	if slices.ContainsFunc(append([]string{other.SID}, other.Former...),
		func(sid string) bool { return sid != "" && own.HasSID(sid) }) {
		return h.Sessions.EndOne(ctx, other, store.CauseUser)
	}
	return h.Sessions.EndSignIn(ctx, other, store.CauseUser)
}

// sessionsUnavailable is the page for a store that does not answer.
func (h *Handler) sessionsUnavailable(err error) error {
	if !errors.Is(err, session.ErrUnavailable) {
		return err
	}
	return &web.Failure{Status: http.StatusServiceUnavailable, Err: err, Event: "user_logout",
		Attrs: []slog.Attr{slog.String("result", "unavailable"), slog.String("check", "store")},
		Message: web.Message{Title: "Not available right now",
			Text: "This site cannot reach its store of sessions. What you asked for may not be done, or only in part. " +
				"Please try again in a moment.",
			Actions: []web.Action{{Label: "Your sessions", Href: h.Site.Path("sessions")}}}}
}
