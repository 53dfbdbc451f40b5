package logout

import (
	"net/http"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/web"
)

// Handler signs people out. Site, Providers and Sessions are required.
type Handler struct {
	Site      *web.Site
	Providers []*oidc.Provider
	Sessions  *session.Manager
	Cookie    session.Cookie

	Home string // where a person goes who has signed out; default: a page of ours that says so

	SuccessStatus int // of the back channel: 200, the default, or 204 (Back-Channel Logout §2.8 wants 200)
	// of the back channel when the logout failed on our side: 503, the default, or 400 (§2.8 to the letter)
	FailureStatus int

	// OnResult hears of every logout: on which channel ("backchannel", "frontchannel", "user"), of which provider
	// ("unknown" while that is not verified), with what result (ok, refused, replayed, unavailable or failed; ignored
	// or nobody where the browser's cookie named nobody to end), and of a refusal the check that failed. All are labels
	// fit for metrics: none is text of a stranger.
	OnResult func(channel, provider, result, reason string)
}

// Mount registers the routes of this room.
func (h *Handler) Mount(mux *http.ServeMux) {
	mux.Handle(h.Site.Path("backchannel-logout"), closing(h.Site.Protocol(h.token, http.MethodPost)))
	mux.Handle(h.Site.Path("frontchannel-logout"), h.Site.Page(h.framedLogout, http.MethodGet))
	mux.Handle(h.Site.Path("logout"), h.Site.Page(h.logout, http.MethodGet, http.MethodPost))
	mux.Handle(h.Site.Path("logout/callback"), h.Site.Page(h.returned, http.MethodGet))
}

// closing has the connection closed after each answer (over HTTP/2 net/http sends GOAWAY for it). Some providers keep
// it and do not send again: a logout that they put on it as we stop would be lost.
func closing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		next.ServeHTTP(w, r)
	})
}

func (h *Handler) result(channel, provider, result, reason string) {
	if h.OnResult != nil {
		h.OnResult(channel, provider, result, reason)
	}
}
