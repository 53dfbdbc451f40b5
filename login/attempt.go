package login

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"example.com/curfew/store"
)

const (
	purpose       = "login attempt v2"
	returnPurpose = "login return path v1"

	secretSize = 18
	slots      = 1 << 12  // how many names attempt cookies can have
	maxBytes   = 3 * 1024 // of all attempt cookies in one browser: proxies accept 8 KiB of cookies
	maxState   = 4 * 1024 // ours are far shorter

	// maxInState is how long a return path in the state may be. Providers accept URLs of at least 4 KiB, of which the
	// rest of the request needs less than 1 KiB.
	maxInState = 1024
	// returnLife is how long a longer return path is kept in the store. It is longer than the attempt, so that the page
	// for an expired attempt can still link to it.
	returnLife = 2 * store.AttemptLifetime
)

// The reasons why a callback belongs to no login of this browser.
var (
	errForeignState = errors.New("the state is not one of ours")
	errRanOut       = errors.New("the login took longer than it may")
	errNoCookie     = errors.New("the browser sent no cookie of this login: it was finished already, made room for " +
		"newer ones, or was begun in another browser")
)

// attempt is a login under way. It is sealed into its own state parameter, so it needs neither the store nor a large
// cookie. The browser keeps a secret in a small cookie, without which the state is useless (RFC 9700 §4.7). Nonce and
// PKCE verifier are derived from both, so that neither the state nor the cookie alone reveals them.
type attempt struct {
	State    string `json:"-"`
	Nonce    string `json:"-"`
	Verifier string `json:"-"` // PKCE

	ID       []byte    `json:"i"`           // 128 random bits
	Slot     int       `json:"c"`           // the number of the cookie
	Browser  []byte    `json:"h"`           // hash of the secret in the cookie
	ReturnTo string    `json:"r,omitempty"` // empty: see Stored
	Stored   bool      `json:"l,omitempty"` // the return path is long and is in the store
	For      *handover `json:"o,omitempty"` // the sign-in is for another host, and ReturnTo is empty
	Provider string    `json:"p"`
	Began    time.Time `json:"b"`           // a logout after this that names the person bars this login
	Era      string    `json:"e,omitempty"` // see [session.Manager.Begin]
	Silent   bool      `json:"q,omitempty"`
	Prompt   string    `json:"m,omitempty"` // the prompt parameter of the request, if any
	// the parameters that the link set for the provider; see [oidc.Config.LinkParams]
	Params map[string]string `json:"x,omitempty"`
	MaxAge *int              `json:"a,omitempty"` // the max_age that was asked for
	StepUp string            `json:"u,omitempty"` // see request.stepUp
	Trace  string            `json:"t,omitempty"` // the traceparent of the request that began it
}

// begin completes an attempt. It seals the attempt into its state and returns the cookie with the secret.
func (h *Handler) begin(r *http.Request, a *attempt) (*http.Cookie, error) {
	a.ID = make([]byte, 16)
	rand.Read(a.ID)
	secret := make([]byte, secretSize)
	rand.Read(secret)
	a.Browser = browserHash(secret)
	a.Slot = h.freeSlot(r)
	sealed := *a
	if len(a.ReturnTo) > maxInState {
		sealed.ReturnTo = ""
		if sealed.Stored = h.storeReturn(r, a.ID, a.ReturnTo); !sealed.Stored {
			sealed.ReturnTo = h.home()
		}
	}
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false) // a return path often has many &
	if err := enc.Encode(sealed); err != nil {
		return nil, err
	}
	a.State = base64.RawURLEncoding.EncodeToString(h.Keyring.Seal(purpose, nil, plain.Bytes()))
	a.derive(secret)
	return h.Cookie.New(h.cookieName(a.Slot), cookieValue(h.Sessions.Now(), secret), h.attemptLife()), nil
}

// derive computes the nonce and the PKCE verifier from the secret in the cookie and the attempt's ID, which the browser
// does not know.
func (a *attempt) derive(secret []byte) {
	from := func(what string) string {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(what))
		mac.Write(a.ID)
		return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	a.Nonce, a.Verifier = from("nonce"), from("verifier")
}

func browserHash(secret []byte) []byte {
	sum := sha256.Sum256(append([]byte("curfew attempt\x00"), secret...))
	return sum[:16]
}

// id names the attempt in the store.
func (a *attempt) id() store.AttemptID { return sha256.Sum256([]byte(a.State)) }

// openState opens a state of any age, from any browser.
func (h *Handler) openState(state string) (*attempt, error) {
	if len(state) > maxState {
		return nil, errForeignState
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(state)
	if err != nil || strings.ContainsAny(state, "\r\n") { // the decoder skips line ends
		return nil, errForeignState
	}
	plain, err := h.Keyring.Open(purpose, nil, sealed)
	if err != nil {
		return nil, errForeignState
	}
	a := &attempt{State: state}
	if err := json.Unmarshal(plain, a); err != nil {
		return nil, errForeignState
	}
	return a, nil
}

// findAttempt returns the attempt of a state if it belongs to this browser and has not expired. With most errors it
// also returns what the state says, for a link back to a page of this site only: the attempt may be a stranger's.
func (h *Handler) findAttempt(r *http.Request, state string) (*attempt, error) {
	a, err := h.openState(state)
	if err != nil {
		return nil, err
	}
	if a.Stored {
		a.ReturnTo = h.loadReturn(r, a.ID)
	}
	// Do not rely on the browser to remove the cookie in time.
	if h.Sessions.Now().Sub(a.Began) >= h.attemptLife() {
		return a, errRanOut
	}
	secret, ok := h.secretOf(r, a.Slot, a.Browser)
	if !ok {
		return a, errNoCookie
	}
	a.derive(secret)
	return a, nil
}

// secretOf returns the secret in the cookie of an attempt, if its hash is browser.
func (h *Handler) secretOf(r *http.Request, slot int, browser []byte) (secret []byte, ok bool) {
	cookies := r.CookiesNamed(h.cookieName(slot))
	if len(cookies) != 1 { // with more than one, somebody else has set one of them
		return nil, false
	}
	_, secret, ok = parseCookie(cookies[0].Value)
	return secret, ok && subtle.ConstantTimeCompare(browserHash(secret), browser) == 1
}

// cookieValue returns the value of an attempt's cookie: when it began, in milliseconds since 1970 (6 bytes), and the
// secret.
func cookieValue(began time.Time, secret []byte) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(began.UnixMilli()))[2:]
	return base64.RawURLEncoding.EncodeToString(append(b, secret...))
}

func parseCookie(value string) (began time.Time, secret []byte, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil || len(b) != 6+secretSize {
		return time.Time{}, nil, false
	}
	ms := binary.BigEndian.Uint64(append([]byte{0, 0}, b[:6]...))
	return time.UnixMilli(int64(ms)), b[6:], true
}

func cookieSize(c *http.Cookie) int { return len(c.Name) + len(c.Value) + len("=; ") }

// cookieName returns the name of an attempt's cookie. Names are short. There are enough of them that tabs opened at the
// same moment do not get the same one.
func (h *Handler) cookieName(slot int) string {
	b := binary.BigEndian.AppendUint16(nil, uint16(slot)<<4)
	return h.cookiePrefix() + base64.RawURLEncoding.EncodeToString(b)[:2]
}

func (h *Handler) cookiePrefix() string { return h.Cookie.NameFor("login-") }

// freeSlot returns the number of a cookie that the browser does not have. There are far more numbers than cookies, so a
// few tries are enough.
func (h *Handler) freeSlot(r *http.Request) (slot int) {
	for range 8 {
		var b [2]byte
		rand.Read(b[:])
		slot = int(binary.BigEndian.Uint16(b[:])) % slots
		if len(r.CookiesNamed(h.cookieName(slot))) == 0 {
			break
		}
	}
	return slot
}

// evictAttempts clears the oldest attempt cookies of the browser until size more bytes fit, and all invalid ones.
func (h *Handler) evictAttempts(w http.ResponseWriter, r *http.Request, size int) {
	type held struct {
		name  string
		size  int
		began time.Time
	}
	var others []held
	soon := h.Sessions.Now().Add(time.Minute)
	for _, c := range r.Cookies() {
		if !strings.HasPrefix(c.Name, h.cookiePrefix()) {
			continue
		}
		began, _, ok := parseCookie(c.Value)
		if !ok || began.After(soon) {
			h.clearCookie(w, c.Name)
			continue
		}
		others = append(others, held{c.Name, cookieSize(c), began})
	}
	slices.SortStableFunc(others, func(a, b held) int { return b.began.Compare(a.began) })
	for _, o := range others {
		if size += o.size; size > maxBytes {
			h.clearCookie(w, o.name)
		}
	}
}

func (h *Handler) clearCookie(w http.ResponseWriter, name string) {
	http.SetCookie(w, h.Cookie.New(name, "", -time.Second))
}

// storeReturn puts the return path of the attempt with this ID into the store, and reports whether it did. Anybody can
// start a login, so the rate is limited; a path beyond the limit is dropped.
func (h *Handler) storeReturn(r *http.Request, attempt []byte, to string) bool {
	h.initLimiter.Do(func() { h.longReturns = rate.NewLimiter(rate.Every(2*time.Second), 100) })
	err := errors.New("too many long return paths at the moment")
	if h.longReturns.AllowN(h.Sessions.Now(), 1) {
		id := returnID(attempt)
		_, err = h.Sessions.ClaimAttempt(r.Context(), id, h.Keyring.Seal(returnPurpose, id[:], []byte(to)), returnLife)
	}
	if err != nil {
		h.returnLost(r, err)
	}
	return err == nil
}

// loadReturn returns the path that storeReturn stored, or the home page.
func (h *Handler) loadReturn(r *http.Request, attempt []byte) string {
	id := returnID(attempt)
	sealed, err := h.Sessions.Attempt(r.Context(), id)
	if err == nil {
		var plain []byte
		if plain, err = h.Keyring.Open(returnPurpose, id[:], sealed); err == nil {
			return string(plain)
		}
	}
	h.returnLost(r, fmt.Errorf("it is no longer in the store: %w", err))
	return h.home()
}

func returnID(attempt []byte) store.AttemptID {
	return sha256.Sum256(append([]byte("return path\x00"), attempt...))
}

// returnLost logs that a person will not get to the page that they came for.
func (h *Handler) returnLost(r *http.Request, err error) {
	h.Site.Event(r, slog.LevelInfo, "return_to_dropped", slog.String("error", err.Error()))
}
