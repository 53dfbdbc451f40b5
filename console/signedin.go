package console

import (
	"cmp"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"

	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/web"
)

// Access is how people who are signed in reach the pages; see [Console.SignedIn]. All fields are required.
type Access struct {
	Path     string // below which the pages are, without a slash at its end: "/auth/console"
	SignOut  string // where a page leads to sign out
	Operator func(*http.Request) *session.Session
	Address  func(*http.Request) string // of the client
	Keyring  *keyring.Keyring           // binds forms to sessions
}

const formPurpose = "console form v1" // the purpose under which the token of a form is sealed

// SignedIn returns a handler for the pages alone, for people who are signed in and may use them: the caller has judged
// that at each request. It serves neither the interface for programs nor metrics.
//
// The pages may share their origin with apps, and an app may run what an attacker wrote. So a page is served only to a
// browser that opens it in a window of its own (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/), and every form,
// and the stream of events, needs a token that is in the page and bound to the session: another page of the origin can
// neither read the one nor send the other.
func (c *Console) SignedIn(a Access) http.Handler {
	signed := *c
	signed.access = &a
	mux := http.NewServeMux()
	signed.mountPages(mux)
	mux.Handle("GET "+a.Path, http.RedirectHandler(a.Path+"/", http.StatusSeeOther))
	mux.HandleFunc(a.Path+"/", func(w http.ResponseWriter, r *http.Request) {
		pageHeaders(w)
		signed.fault(w, r, web.Fail(http.StatusNotFound, "there is no such page", nil))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pageHeaders(w)
		if err := signed.checkOwn(r); err != nil {
			signed.Log.Warn("a request for the console is none that its pages make", "event", "console_foreign",
				"path", web.Printable(r.URL.Path), "error", err, "operator", signed.actor(r).name)
			signed.fault(w, r, err)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// checkOwn returns an error unless a request is one that a browser makes when a person opens a page of the console, or
// that a page of the console makes. The token of a form is checked when the form has been read.
func (c *Console) checkOwn(r *http.Request) error {
	site, mode, dest := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	switch {
	case site == "" || mode == "" || dest == "":
		return web.Fail(http.StatusForbidden, "this browser does not say for what it asks (Sec-Fetch-Dest): use one that "+
			"is no older than 2023, over https; programs use the private listener", nil)
	case r.Method != http.MethodGet && r.Method != http.MethodHead && site != "same-origin":
		return errForeign()
	case mode == "navigate" && dest == "document":
		return nil
	case r.Method != http.MethodGet:
	case dest == "style" || dest == "script": // which hold nothing of anybody
		return nil
	case dest == "empty" && site == "same-origin" && r.URL.Path == c.path("/events/rows") &&
		c.checkToken(r, r.Header.Get(tokenHeader)) == nil:
		return nil
	}
	return errForeign()
}

func errForeign() error {
	return web.Fail(http.StatusForbidden, "this does not come from a page of the console", nil)
}

// tokenHeader carries the token of the page when its script asks for events.
const tokenHeader = "Curfew-Token"

// token returns the token for the forms of a page, which is empty on the private listener.
func (c *Console) token(r *http.Request) string {
	if c.access == nil {
		return ""
	}
	key := c.access.Operator(r).Key
	return base64.RawURLEncoding.EncodeToString(c.access.Keyring.Seal(formPurpose, key[:], nil))
}

// checkToken returns an error unless token is from a page of the console for the same session.
func (c *Console) checkToken(r *http.Request, token string) error {
	if c.access == nil {
		return nil
	}
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		key := c.access.Operator(r).Key
		_, err = c.access.Keyring.Open(formPurpose, key[:], sealed)
	}
	if err != nil {
		return web.Fail(http.StatusForbidden, "this page is from before your sign-in, or does not come from the console: "+
			"nothing was done; go back, reload the page, and try again", errors.New("no token of this session"))
	}
	return nil
}

// path returns the path of a page, given below the console's own.
func (c *Console) path(below string) string {
	if c.access == nil {
		return "/console" + below
	}
	return c.access.Path + below
}

// actor is who does something.
type actor struct {
	name     string
	provider string // empty: the name is what they said
	session  string
}

func (c *Console) actor(r *http.Request) actor {
	if c.access == nil {
		return actor{name: operator(r)}
	}
	s := c.access.Operator(r)
	return actor{s.Subject, s.Provider, s.ID()}
}

// who names the person for the head of a page, or is empty.
func (c *Console) who(r *http.Request) string {
	if c.access == nil {
		return ""
	}
	s := c.access.Operator(r)
	return cmp.Or(s.Email(), s.Claim("preferred_username"), s.Claim("name"), s.Subject)
}

func (a actor) attr() slog.Attr {
	if a.provider == "" {
		return slog.String("operator", a.name)
	}
	return slog.Group("operator", "sub", web.Printable(a.name), "provider", a.provider, "session", a.session)
}
