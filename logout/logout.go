package logout

import (
	"context"
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

	Home string // the path that a sign-out leads to; default: a page that says that the person is signed out

	SuccessStatus int // of the back channel: 200, the default, or 204 (Back-Channel Logout §2.8 requires 200)
	// FailureStatus is the status of the back channel when the logout failed on our side: 503, the default, or 400 (as
	// §2.8 requires).
	FailureStatus int

	// CarryOut, if not nil, is called for each verified logout token in place of ending Sessions. [store.ErrReplayed]
	// means that the token was carried out before; [session.ErrUnavailable], that the same token can be sent again.
	CarryOut func(ctx context.Context, t *oidc.LogoutToken) error

	// OnResult is called after every request for a logout. channel is "backchannel", "frontchannel" or "user". provider
	// is a name, or "unknown" if none was verified. result is ok, refused, replayed, unavailable or failed; or ignored
	// or nobody, if the browser's cookie named no session to end. reason is the check that failed. All are fit for
	// labels of metrics: none is text of a stranger.
	OnResult func(channel, provider, result, reason string)

	trouble trouble
}

// Mount registers the routes of this package on mux.
func (h *Handler) Mount(mux *http.ServeMux) {
	mux.Handle(h.Site.Path("backchannel-logout"), h.Backchannel())
	mux.Handle(h.Site.Path("frontchannel-logout"), h.Site.Page(h.framedLogout, http.MethodGet))
	mux.Handle(h.Site.Path("logout"), h.Site.Page(h.logout, http.MethodGet, http.MethodPost))
	mux.Handle(h.Site.Path("sessions"), h.ownSessions())
	mux.Handle(h.Site.Path("logout/callback"), h.Site.Page(h.returned, http.MethodGet))
}

// Backchannel returns the handler of logout tokens alone (Back-Channel Logout §2.5).
func (h *Handler) Backchannel() http.Handler {
	return closing(h.Site.Protocol(h.token, http.MethodPost))
}

// closing closes the connection after each answer (over HTTP/2 net/http sends GOAWAY for it). Some providers reuse
// connections and do not retry: a logout that they send on one while this process stops would be lost.
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
