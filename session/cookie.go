package session

import (
	"net/http"
	"time"
)

// Cookie says how the bearer travels: `__Host-curfew` (Secure, HttpOnly, SameSite=Lax, Path=/, no Domain), or plain
// `curfew` without Secure where the site is http on loopback.
type Cookie struct{ Insecure bool }

// Name returns the name of the cookie.
func (c Cookie) Name() string { return c.Prefixed("curfew") }

// Prefixed returns name with the prefix that binds a cookie to this host (RFC 6265bis §4.1.3), where it can be had.
func (c Cookie) Prefixed(name string) string {
	if c.Insecure {
		return name
	}
	return "__Host-" + name
}

// Read returns the bearer of a request. It answers false when there is none, or when there is more than one cookie of the
// name: then somebody else set one of them, and neither is believed.
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

// New returns a cookie with our attributes, for name as [Cookie.Prefixed] made it. A life of 0 ends with the browser, a
// negative one at once.
func (c Cookie) New(name, value string, life time.Duration) *http.Cookie {
	return &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second),
		Secure: !c.Insecure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}
