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
	// AssertionType is the `typ` header of an assertion. No other kind of token has it (RFC 8725 §3.11).
	AssertionType = "curfew-assertion+jwt"
	// AssertionLife is the longest validity of an assertion. It also bounds how long a copy of one stays valid after a
	// logout.
	AssertionLife = time.Minute

	// assertionReuse is how long a signed assertion is reused: a signature costs twice as much as the rest of a check.
	assertionReuse = 20 * time.Second
	// assertionCacheSize bounds one of the two generations of the cache, in bytes.
	assertionCacheSize = 4 << 20
)

// Assertion signs statements about the signed-in user (JWTs, RFC 7519), for apps that do not want to rely on headers
// alone. An assertion holds `iss` (Issuer), `aud` (the client ID of the app), `sub`, `sid` as in the logout tokens of
// that app, `provider`, `iat`, `exp`, and the claims in Claims.
type Assertion struct {
	Issuer string
	// Claims names the user's claims to include, where the session has them. "email" and "groups" have the same values
	// as in the identity headers. nil: name, email and groups.
	Claims []string
	// Sign returns the claims as a compact JWS (RFC 7515) with [AssertionType] as its `typ`. If it returns an error,
	// the request is answered 503.
	Sign func(ctx context.Context, app string, claims []byte) (string, error)

	cache assertionCache
}

// defaultClaims are used when Claims is nil.
var defaultClaims = [...]string{"name", "email", "groups"}

// CheckAssertionClaims returns an error that lists the names that cannot be used in [Assertion.Claims]: names that
// occur twice, and names that have a meaning in every token, such as "sub".
func CheckAssertionClaims(names []string) error {
	var faults []error
	for i, name := range names {
		switch {
		case slices.Contains([]string{"", "iss", "aud", "sub", "sid", "provider", "iat", "exp", "nbf", "jti",
			"nonce", "events", "azp", "cnf"}, name):
			faults = append(faults, fmt.Errorf("%q cannot be chosen", name))
		case slices.Contains(names[:i], name):
			faults = append(faults, fmt.Errorf("%q is there twice", name))
		}
	}
	return errors.Join(faults...)
}

// assert returns an assertion for app about a session that has just been checked.
func (h *Handler) assert(ctx context.Context, s *session.Session, app string) (string, error) {
	a, now := h.Assertion, h.Sessions.Now()
	about := assertionKey{s.Key, app, s.Revision()}
	if jwt := a.cache.get(about, now); jwt != "" {
		return jwt, nil
	}
	claims := make(map[string]any, 12)
	names := a.Claims
	if names == nil {
		names = defaultClaims[:]
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

// assertionKey identifies a cached assertion. A later session has another key, and no assertion is requested for an
// ended one. The claims change when the provider has been asked, and then the session has been written.
type assertionKey struct {
	key      store.Key
	app      string
	revision int64
}

type cachedAssertion struct {
	jwt string
	at  time.Time
}

// assertionCache keeps recently signed assertions, in two generations: when the current one is large or old enough, the
// previous one is dropped as a whole.
type assertionCache struct {
	mu                sync.Mutex
	current, previous map[assertionKey]cachedAssertion
	bytes             int       // size of current
	started           time.Time // when current was started
}

func (c *assertionCache) get(about assertionKey, now time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.current[about]
	if !ok {
		a = c.previous[about]
	}
	if age := now.Sub(a.at); age < 0 || age >= assertionReuse {
		return ""
	}
	return a.jwt
}

func (c *assertionCache) put(about assertionKey, jwt string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	age := now.Sub(c.started)
	if c.current == nil || c.bytes >= assertionCacheSize || age < 0 || age >= assertionReuse {
		c.previous, c.current, c.bytes, c.started = c.current, make(map[assertionKey]cachedAssertion), 0, now
	}
	c.current[about] = cachedAssertion{jwt, now}
	c.bytes += len(jwt) + len(about.app) + 128 // plus the overhead of the map
}
