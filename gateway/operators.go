package gateway

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"example.com/curfew/session"
	"example.com/curfew/store"
)

// Operators is who may use pages for operators: those who signed in at one provider, whose claims meet all of Require.
type Operators struct {
	Provider string           // its name; another provider may give anybody the same claims
	Require  map[string][]any // each claim must be, or contain, one of its values: see [session.Meets]
}

// RequireOperator passes a request to next if the sender is an operator; next gets the session with [SessionFrom]. The
// claims are judged at each request, as they are in the store. Requests that are not a page, such as those of a script,
// do not count as use of the session, and are refused when its claims are due to be fetched again.
//
// If nobody is signed in, it answers as [Handler.Require] does. Everybody else gets the answer of an address at which
// there is nothing, and so does everybody at the other hosts of a site.
func (h *Handler) RequireOperator(who Operators, next http.Handler) http.Handler {
	nothing := h.Site.NotFound()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.here(r).Main {
			nothing.ServeHTTP(w, r)
			return
		}
		r = h.Site.Identify(r)
		s, err := h.operator(r)
		if err != nil {
			h.deny(w, r, r.Method, err, func() string {
				return h.loginLink(r, h.returnTo(r, requestTarget(r)), url.Values{"provider": {who.Provider}})
			})
			return
		}
		if missing := who.missing(s); missing != "" {
			h.Site.Event(r, slog.LevelWarn, "console_refused", slog.String("result", "refused"),
				slog.String("check", missing), slog.String("session", s.ID()), slog.String("provider", s.Provider),
				slog.String("sub", s.Subject))
			nothing.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{},
			requestState{session: s, handler: h})))
	})
}

// operator returns the session of a request as it is in the store.
func (h *Handler) operator(r *http.Request) (*session.Session, error) {
	b, ok := h.Cookie.Read(r)
	if !ok {
		return nil, errNotSignedIn
	}
	page := r.Header.Get("Sec-Fetch-Mode") == "navigate"
	if page { // refreshes the claims when they are due
		if s, err := h.byCookie(r); err != nil {
			return nil, err
		} else if s == nil {
			return nil, errNotSignedIn
		}
	}
	s, err := h.Sessions.Find(r.Context(), b)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, errNotSignedIn
	case err != nil:
		return nil, unchecked(err)
	case !page && s.Tokens.RefreshToken != "" && !h.Sessions.Now().Before(s.Tokens.Expires):
		return nil, errNotSignedIn
	}
	return s, nil
}

// missing names what the session lacks, or is empty.
func (o *Operators) missing(s *session.Session) string {
	if s.Provider != o.Provider || len(o.Require) == 0 {
		return "provider"
	}
	for _, name := range slices.Sorted(maps.Keys(o.Require)) {
		if !session.Meets(s.Claims, name, o.Require[name]) {
			return "claims: " + name
		}
	}
	return ""
}
