package session

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// DefaultCookie is what the cookie is called, without its prefix, when nobody says anything else.
const DefaultCookie = "curfew"

// hostPrefix binds a cookie to this host (RFC 6265bis §4.1.3).
const hostPrefix = "__Host-"

// Cookie says how the bearer travels: `__Host-curfew` (Secure, HttpOnly, SameSite=Lax, Path=/, no Domain), or plain
// `curfew` without Secure where the site is http on loopback.
type Cookie struct {
	Insecure bool
	// Base takes the place of `curfew`, as [CheckCookieName] allows; default [DefaultCookie]. Browsers keep cookies by
	// host and not by port (RFC 6265 §8.5), so each relying party on a host needs a name of its own.
	Base string
}

// CheckCookieName returns nil if name may be the base of a [Cookie]. It holds only what every server and proxy reads in
// the same way, and is not the name of a cookie of another kind.
func CheckCookieName(name string) error {
	switch {
	case !cookieName.MatchString(name):
		return fmt.Errorf("%q is no name for a cookie here: want 1 to 32 letters, digits and hyphens, and a letter "+
			"first", name)
	case strings.Contains(name, "-login") || strings.Contains(name, "-logout"):
		return fmt.Errorf("%q could be taken for a cookie of a sign-in or sign-out: leave out -login and -logout", name)
	}
	return nil
}

var cookieName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,31}$`)

// Name returns the name of the cookie.
func (c Cookie) Name() string { return c.prefix() + cmp.Or(c.Base, DefaultCookie) }

// NameFor returns the name of a cookie that belongs to this one, such as that of a sign-in under way.
func (c Cookie) NameFor(part string) string { return c.Name() + "-" + part }

func (c Cookie) prefix() string {
	if c.Insecure {
		return ""
	}
	return hostPrefix
}

// Ours says whether a cookie of this name is one of ours, or of another relying party of the default name on this host:
// no app has a need to see or set one.
func (c Cookie) Ours(name string) bool {
	name = strings.TrimPrefix(name, hostPrefix)
	for _, base := range [...]string{cmp.Or(c.Base, DefaultCookie), DefaultCookie} {
		if rest, ok := strings.CutPrefix(name, base); ok && (rest == "" || rest[0] == '-') {
			return true
		}
	}
	return false
}

// Read returns the bearer of a request. It answers false when there is none, or when there is more than one cookie of
// the name: then somebody else set one of them, and neither is believed.
func (c Cookie) Read(r *http.Request) (Bearer, bool) {
	cookies := r.CookiesNamed(c.Name())
	if len(cookies) != 1 {
		return Bearer{}, false
	}
	b, err := ParseBearer(cookies[0].Value)
	return b, err == nil
}

// Write sets the cookie. It ends with the browser, or when the session does; the store decides.
func (c Cookie) Write(w http.ResponseWriter, b Bearer) {
	http.SetCookie(w, c.New(c.Name(), b.Reveal(), 0))
}

// Clear takes the cookie back.
func (c Cookie) Clear(w http.ResponseWriter) { http.SetCookie(w, c.New(c.Name(), "", -time.Second)) }

// New returns a cookie with our attributes, for name as [Cookie.NameFor] made it. A life of 0 ends with the browser, a
// negative one at once.
func (c Cookie) New(name, value string, life time.Duration) *http.Cookie {
	return &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second),
		Secure: !c.Insecure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}
