package session

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// DefaultCookie is the default of [Cookie.Base].
const DefaultCookie = "curfew"

// The prefixes of the names of Secure cookies (RFC 6265bis §4.1.3). hostPrefix binds a cookie to this host.
const (
	hostPrefix   = "__Host-"
	domainPrefix = "__Secure-"
)

// Cookie describes the session cookie: `__Host-curfew` with Secure, HttpOnly, SameSite=Lax, Path=/ and no Domain; or
// `curfew` without Secure if the site is http on loopback. An app sets only curfew.Config.CookieName.
type Cookie struct {
	Insecure bool // the site is http on loopback
	// Base replaces `curfew` in the name; see [CheckCookieName]. Browsers share cookies between the ports of a host
	// (RFC 6265 §8.5), so each relying party on a host needs a name of its own. Default [DefaultCookie].
	Base string
	// Remember is the lifetime of sessions, if the cookie is to outlive the browser. 0: the browser removes the cookie
	// when it is closed.
	Remember time.Duration
	// Domain lets all hosts below it have the session cookie, which is then `__Secure-curfew`. Each of them can read it,
	// replace it and use it at the others.
	Domain string
	// Main is the host at which people sign in, and Host returns the one that a request is for; both are names without
	// a port. A bearer is read for that host. With a nil Host all requests are for Main.
	Main string
	Host func(*http.Request) (name string, ok bool)
}

// CheckCookieName returns an error unless name can be [Cookie.Base]: 1 to 32 letters, digits and hyphens, a letter
// first, which all servers and proxies read alike. A name that could be that of a sign-in or sign-out cookie is
// refused.
func CheckCookieName(name string) error {
	switch {
	case !cookieName.MatchString(name):
		return fmt.Errorf("%q is no name for a cookie here: want 1 to 32 letters, digits and hyphens, "+
			"and a letter first", name)
	case strings.Contains(name, "-login") || strings.Contains(name, "-logout"):
		return fmt.Errorf("%q could be taken for a cookie of a sign-in or sign-out: leave out -login and -logout", name)
	}
	return nil
}

var cookieName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,31}$`)

// Name returns the name of the cookie.
func (c Cookie) Name() string {
	if c.Domain != "" {
		return domainPrefix + cmp.Or(c.Base, DefaultCookie)
	}
	return c.prefix() + cmp.Or(c.Base, DefaultCookie)
}

// NameFor returns the name of a related cookie, such as that of a sign-in under way. It belongs to one host.
func (c Cookie) NameFor(part string) string {
	return c.prefix() + cmp.Or(c.Base, DefaultCookie) + "-" + part
}

func (c Cookie) prefix() string {
	if c.Insecure {
		return ""
	}
	return hostPrefix
}

// Ours reports whether a cookie of this name belongs to this relying party, or to one with the default name on this
// host. Apps behind the gateway neither receive nor set such cookies.
func (c Cookie) Ours(name string) bool {
	name = strings.TrimPrefix(strings.TrimPrefix(name, hostPrefix), domainPrefix)
	for _, base := range [...]string{cmp.Or(c.Base, DefaultCookie), DefaultCookie} {
		if rest, ok := strings.CutPrefix(name, base); ok && (rest == "" || rest[0] == '-') {
			return true
		}
	}
	return false
}

// Read returns the bearer of a request. It returns false if there is no cookie, or more than one with the name: then
// somebody else has set one of them, and neither is believed. A bearer that is bound to no host is one of Main.
func (c Cookie) Read(r *http.Request) (Bearer, bool) {
	cookies := r.CookiesNamed(c.Name())
	if len(cookies) != 1 {
		return Bearer{}, false
	}
	return c.ReadValue(r, cookies[0].Value)
}

// ReadValue is [Cookie.Read] for a value that came in another way than in the cookie.
func (c Cookie) ReadValue(r *http.Request, value string) (Bearer, bool) {
	b, err := ParseBearer(value)
	if err != nil {
		return Bearer{}, false
	}
	if b.host = c.Main; c.Host != nil {
		name, ok := c.Host(r)
		if !ok || !b.bound && name != c.Main {
			return Bearer{}, false
		}
		b.host = name
	}
	return b, true
}

// Write sets the cookie of a new session, for the time that the browser is open, or for Remember. The session may end
// before that: the store decides.
func (c Cookie) Write(w http.ResponseWriter, b Bearer) { c.WriteFor(w, b, c.Remember) }

// WriteFor is [Cookie.Write] for a session that lives for that long still.
func (c Cookie) WriteFor(w http.ResponseWriter, b Bearer, rest time.Duration) {
	life := time.Duration(0)
	if c.Remember > 0 {
		life = max(min(c.Remember, rest), time.Second)
	}
	http.SetCookie(w, c.session(b.Reveal(), life))
}

// Clear removes the cookie from the browser.
func (c Cookie) Clear(w http.ResponseWriter) { http.SetCookie(w, c.session("", -time.Second)) }

func (c Cookie) session(value string, life time.Duration) *http.Cookie {
	cookie := c.New(c.Name(), value, life)
	cookie.Domain = c.Domain
	return cookie
}

// New returns a cookie with the same attributes and another name, as [Cookie.NameFor] returns it. With a life of 0 it
// lasts while the browser is open; a negative life removes it.
func (c Cookie) New(name, value string, life time.Duration) *http.Cookie {
	return &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second),
		Secure: !c.Insecure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

// NewCrossSite is [Cookie.New] for a cookie that browsers send with a form of another site too. With http on loopback,
// where SameSite=None is not allowed, it has no SameSite: some browsers then send it with such a form for 2 minutes.
func (c Cookie) NewCrossSite(name, value string, life time.Duration) *http.Cookie {
	cookie := c.New(name, value, life)
	if cookie.SameSite = http.SameSiteNoneMode; c.Insecure {
		cookie.SameSite = 0
	}
	return cookie
}
