package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
)

const (
	// AssertionType is the `typ` of an assertion. It is no other token's (RFC 8725 §3.11).
	AssertionType = "curfew-assertion+jwt"
	// AssertionLife is how long an assertion is valid at most, and with that how long one that somebody kept is worth
	// anything after a logout.
	AssertionLife = time.Minute

	// assertionUse is how long one is told again. A signature costs twice what the rest of a check does.
	assertionUse = 20 * time.Second
	// assertionCache bounds half of what is kept, in bytes.
	assertionCache = 4 << 20
)

// Assertion is a signed statement of who is there (a JWT, RFC 7519), for apps that want more than a header's word:
// Issuer, and the app as `aud`, `sub`, `sid` as that app's logout tokens have it, `provider`, `iat`, `exp`, and Claims.
type Assertion struct {
	Issuer string
	// Claims are what else is said of a person, where the session knows it. Of "email" and "groups" it is what the app
	// would be told in a header. nil: name, email and groups.
	Claims []string
	// Sign returns claims as a compact JWS with [AssertionType] as its `typ`. An error means that it cannot sign just
	// now: the request is answered 503.
	Sign func(ctx context.Context, app string, claims []byte) (string, error)

	cache assertions
}

// usualClaims are what is said where nobody chose.
var usualClaims = [...]string{"name", "email", "groups"}

// CheckAssertionClaims returns an error for each name that cannot be said of a person, since it means something in
// every token.
func CheckAssertionClaims(names []string) error {
	var faults []error
	for i, name := range names {
		switch {
		case slices.Contains([]string{"", "iss", "aud", "sub", "sid", "provider", "iat", "exp", "nbf", "jti", "nonce",
			"events", "azp", "cnf"}, name):
			faults = append(faults, fmt.Errorf("%q cannot be chosen", name))
		case slices.Contains(names[:i], name):
			faults = append(faults, fmt.Errorf("%q is there twice", name))
		}
	}
	return errors.Join(faults...)
}

// assert returns an assertion about a session that has just been found alive, for app.
func (h *Handler) assert(ctx context.Context, s *session.Session, app string) (string, error) {
	a, now := h.Assertion, h.Sessions.Now()
	about := aboutWhom{s.Key, app, s.Tokens.Expires.UnixMicro()}
	if jwt := a.cache.get(about, now); jwt != "" {
		return jwt, nil
	}
	claims := make(map[string]any, 12)
	names := a.Claims
	if names == nil {
		names = usualClaims[:]
	}
	for _, name := range names {
		switch name {
		case "email":
			if v := s.Email(); v != "" {
				claims[name] = v
			}
		case "groups":
			if v := h.groups(s); v != nil {
				claims[name] = v
			}
		default:
			if v := session.Lookup(s.Claims, name); v != nil {
				claims[name] = v
			}
		}
	}
	expiry := now.Add(AssertionLife)
	if s.Expires.Before(expiry) {
		expiry = s.Expires
	}
	claims["iss"], claims["aud"], claims["sub"], claims["sid"] = a.Issuer, app, s.Subject, s.Key.SIDFor(app)
	claims["iat"], claims["exp"] = now.Unix(), expiry.Unix()
	if s.Provider != "" {
		claims["provider"] = s.Provider
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jwt, err := a.Sign(ctx, app, payload)
	if err == nil {
		a.cache.put(about, jwt, now)
	}
	return jwt, err
}

// aboutWhom is what an assertion is about. A session that begins later has another key, and of one that has ended
// nobody asks. Its claims change when its access token is refreshed, which then expires at another time.
type aboutWhom struct {
	key     store.Key
	app     string
	expires int64
}

type asserted struct {
	jwt string
	at  time.Time
}

// assertions keep what was signed a moment ago. They are two generations: when the younger is large or old enough the
// older is dropped as a whole.
type assertions struct {
	mu           sync.Mutex
	young, older map[aboutWhom]asserted
	size         int       // of the younger, in bytes
	since        time.Time // when the younger began
}

func (c *assertions) get(about aboutWhom, now time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.young[about]
	if !ok {
		a = c.older[about]
	}
	if age := now.Sub(a.at); age < 0 || age >= assertionUse {
		return ""
	}
	return a.jwt
}

func (c *assertions) put(about aboutWhom, jwt string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := now.Sub(c.since); c.young == nil || c.size >= assertionCache || age < 0 || age >= assertionUse {
		c.older, c.young, c.size, c.since = c.young, make(map[aboutWhom]asserted), 0, now
	}
	c.young[about] = asserted{jwt, now}
	c.size += len(jwt) + len(about.app) + 128 // and what the map itself takes
}
