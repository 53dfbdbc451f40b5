package logout

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

const frontchannel = "frontchannel" // the channel, in metrics

// framedLogout ends the session of this browser, if the request has iss and sid and they are those of this session
// (Front-Channel Logout §2, §3). Without them any page could sign people out, so nothing is ended. It ends no other
// session, since the page that frames this one has proved nothing. The tokens of the session are revoked, as after any
// ending.
//
// Do not rely on it. A provider loads this URL in a frame on its own site, and browsers send our SameSite cookie there
// only if the provider is on the same site (id.example.com and app.example.com). Everywhere else the answer is that
// nobody is signed in. Use the back channel.
func (h *Handler) framedLogout(w http.ResponseWriter, r *http.Request) error {
	h.Site.AllowFraming(w, h.providerOrigins()...)
	bearer, ok := h.Cookie.Read(r)
	if !ok {
		return h.framed(w, r, "unknown", "nobody", "Nobody is signed in here.")
	}
	s, err := h.Sessions.Find(r.Context(), bearer)
	switch {
	case errors.Is(err, store.ErrNotFound):
		if err := h.endAgain(r, bearer, err); err != nil {
			return h.storeFailure(frontchannel, "unknown", err)
		}
		h.Cookie.Clear(w)
		return h.framed(w, r, "unknown", "nobody", "Nobody is signed in here.")
	case err != nil:
		return h.storeFailure(frontchannel, "unknown", err)
	}
	if !names(r, s) {
		return h.framed(w, r, "unknown", "ignored", "This request names another session. Nothing has changed.")
	}
	_, err = h.Sessions.End(r.Context(), store.Ending{Cause: store.CauseFrontChannel,
		Selector: store.Selector{Issuer: s.Issuer, ClientID: s.ClientID, Key: s.Key}})
	if err != nil {
		return h.storeFailure(frontchannel, s.Provider, err)
	}
	h.Cookie.Clear(w)
	return h.framed(w, r, s.Provider, "ok", "You are signed out.", slog.String("session", s.Key.Handle()))
}

// framed is the answer. The logout may already have happened, so every answer is a success (Front-Channel Logout §2).
func (h *Handler) framed(w http.ResponseWriter, r *http.Request, provider, result, say string,
	attrs ...slog.Attr) error {
	h.result(frontchannel, provider, result, "")
	h.Site.Event(r, slog.LevelInfo, "frontchannel_logout",
		append(attrs, slog.String("provider", provider), slog.String("result", result))...)
	h.Site.Render(w, r, http.StatusOK, web.Message{Title: "Sign-out", Text: say})
	return nil
}

// names reports whether iss and sid are each there once and are those of the session. An earlier sid of the session
// counts too.
//
// A sid may have any punctuation, and some providers do not encode it. So it is also compared without decoding, and up
// to the end of the query.
func names(r *http.Request, s *session.Session) bool {
	q := r.URL.Query()
	if len(q["iss"]) != 1 || q.Get("iss") != s.Issuer {
		return false
	}
	if len(q["sid"]) == 1 && s.HasSID(q.Get("sid")) {
		return true
	}
	_, rest, ok := strings.Cut("&"+r.URL.RawQuery, "&sid=")
	if !ok {
		return false
	}
	one, _, _ := strings.Cut(rest, "&")
	return slices.ContainsFunc([]string{one, rest}, func(raw string) bool {
		decoded, err := url.PathUnescape(raw) // unlike QueryUnescape it leaves + as it is
		return s.HasSID(raw) || err == nil && s.HasSID(decoded)
	})
}

// providerOrigins returns the origins of the providers, whose pages may frame ours.
func (h *Handler) providerOrigins() []string {
	var all []string
	for _, p := range h.Providers {
		if u, err := url.Parse(p.Config().Issuer); err == nil {
			all = append(all, u.Scheme+"://"+u.Host)
		}
	}
	return all
}
