package gateway

import (
	"cmp"
	"log/slog"
	"net/http"
	"strings"

	"example.com/curfew/session"
	"example.com/curfew/web"
)

// onward is what a person can do on a page that says that the app has no answer for them: ask for the page once more,
// if that helps and loses nothing that they sent; go to the first page; sign out.
func (h *Handler) onward(r *http.Request, s *session.Session, again bool) []web.Action {
	var all []web.Action
	to, err := web.ParseReturnTo(wanted(r))
	if err == nil && again && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		all = append(all, web.Action{Label: "Try again", Href: to})
	}
	if to != "/" {
		all = append(all, web.Action{Label: "Go to the first page", Href: "/"})
	}
	if s != nil {
		all = append(all, web.Action{Label: "Sign out", Href: h.Site.Path("logout"), Post: true})
	}
	return all
}

// letIn logs, at debug, a request that is let through: where it was asked about, what for, by whose session, by which
// rule. The sub and the session are absent where nobody is signed in, the rule where none covers the path. It returns
// the request with the id of that line, which is that of all lines to come.
func (h *Handler) logAllowed(r *http.Request, surface, method, target string, s *session.Session,
	by *rule) *http.Request {
	if !cmp.Or(h.Site.Log, slog.Default()).Enabled(r.Context(), slog.LevelDebug) {
		return r
	}
	r = h.Site.Identify(r)
	attrs := []slog.Attr{slog.String("surface", surface)}
	if target != r.URL.EscapedPath() { // a proxy asks about it
		attrs = append(attrs, slog.String("asked_method", method), slog.String("asked_path", pathAlone(target)))
	}
	if s != nil {
		attrs = append(attrs, slog.String("session", s.Key.Handle()), slog.String("provider", s.Provider),
			slog.String("sub", s.Subject))
	}
	if by != nil {
		attrs = append(attrs, slog.Int("rule", by.number))
	}
	h.Site.Event(r, slog.LevelDebug, "let_in", attrs...)
	return r
}

// pathAlone leaves out the query, which may hold a secret.
func pathAlone(target string) string {
	path, _, _ := strings.Cut(target, "?")
	return path
}
