package login

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"example.com/curfew/session"
)

const (
	purpose     = "login attempt v1"
	maxAttempts = 6        // at once, in one browser
	maxBytes    = 5 * 1024 // of their cookies together: proxies take 8 KiB for all cookies
)

// errNoAttempt: no login of this browser belongs to the state, or no longer.
var errNoAttempt = errors.New("no login of this browser is under way with this state")

// attempt is a login under way. It lies in the browser alone, sealed.
type attempt struct {
	State    string    `json:"s"`
	Nonce    string    `json:"n"`
	Verifier string    `json:"v"` // PKCE
	ReturnTo string    `json:"r"`
	Provider string    `json:"p"`
	Began    time.Time `json:"b"`           // a logout after it that names the person bars this login
	Era      string    `json:"e,omitempty"` // see [session.Manager.Begin]
	Silent   bool      `json:"q,omitempty"`
}

// keep gives the browser the attempt, and takes back those that have run out or are too many.
func (h *Handler) keep(w http.ResponseWriter, r *http.Request, a *attempt) error {
	name := h.cookieName(a.State)
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false) // a return path is full of &
	if err := enc.Encode(a); err != nil {
		return err
	}
	value := base64.RawURLEncoding.EncodeToString(h.Ring.Seal(purpose, []byte(name), plain.Bytes()))
	h.makeRoom(w, r, len(name)+len(value))
	http.SetCookie(w, h.Cookie.New(name, value, session.AttemptLifetime))
	return nil
}

// makeRoom clears the oldest attempts of the browser until a new one of that size has room.
func (h *Handler) makeRoom(w http.ResponseWriter, r *http.Request, size int) {
	type held struct {
		name  string
		size  int
		began time.Time
	}
	var others []held
	for _, c := range r.Cookies() {
		if strings.HasPrefix(c.Name, h.cookieName("")) {
			o := held{name: c.Name, size: len(c.Name) + len(c.Value)}
			if a, err := h.open(c); err == nil {
				o.began = a.Began
			}
			others = append(others, o)
		}
	}
	slices.SortFunc(others, func(a, b held) int { return b.began.Compare(a.began) })
	for i, o := range others {
		size += o.size
		if o.began.IsZero() || i+1 >= maxAttempts || size > maxBytes {
			h.forget(w, o.name)
		}
	}
}

// take returns the attempt that belongs to a state, and takes its cookie back: whatever comes of it, it was used.
func (h *Handler) take(w http.ResponseWriter, r *http.Request, state string) (*attempt, error) {
	name := h.cookieName(state)
	cookies := r.CookiesNamed(name)
	if state == "" || len(cookies) != 1 {
		return nil, errNoAttempt
	}
	a, err := h.open(cookies[0])
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(a.State), []byte(state)) != 1 {
		return nil, errNoAttempt
	}
	h.forget(w, name)
	return a, nil
}

// open reads an attempt that is ours and has not run out.
func (h *Handler) open(c *http.Cookie) (*attempt, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return nil, errNoAttempt
	}
	plain, err := h.Ring.Open(purpose, []byte(c.Name), sealed)
	if err != nil {
		return nil, errNoAttempt
	}
	a := new(attempt)
	if err := json.Unmarshal(plain, a); err != nil {
		return nil, errNoAttempt
	}
	// The browser's own clock, which forgets the cookie, is not to be relied on.
	if h.Sessions.Now().Sub(a.Began) >= session.AttemptLifetime {
		return nil, errNoAttempt
	}
	return a, nil
}

func (h *Handler) forget(w http.ResponseWriter, name string) {
	http.SetCookie(w, h.Cookie.New(name, "", -time.Second))
}

// cookieName returns the cookie of one state; of "", what the names of all attempts begin with.
func (h *Handler) cookieName(state string) string {
	prefix := h.Cookie.Prefixed("curfew-login-")
	if state == "" {
		return prefix
	}
	sum := sha256.Sum256([]byte(state))
	return prefix + base64.RawURLEncoding.EncodeToString(sum[:12])
}
