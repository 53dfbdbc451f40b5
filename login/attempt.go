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
	slots      = 1 << 12  // names of attempt cookies
	maxBytes   = 3 * 1024 // of attempt cookies in one browser: proxies take 8 KiB for all cookies
	maxState   = 4 * 1024 // a state of ours is far below

	// maxInState is how long a return path may be to travel in the state. Providers take an address of 4 KiB at least,
	// of which the rest of the request needs less than 1 KiB.
	maxInState = 1024
	// returnLife is how long a return path is kept that is too long for that: longer than the attempt, so that the page
	// for one that ran out can lead back.
	returnLife = 2 * store.AttemptLifetime
)

// Why a callback belongs to no login of this browser.
var (
	errForeignState = errors.New("the state is not one of ours")
	errRanOut       = errors.New("the login took longer than 15 minutes")
	errNoCookie     = errors.New("the browser sent no cookie of this login: it was finished already, made room for " +
		"newer ones, or was begun in another browser")
)

// attempt is a login under way. It travels sealed in its own state parameter, and so in no store and no large cookie.
// The browser keeps a secret in a small cookie: the state is worth nothing without it (RFC 9700 §4.7), and nonce and
// PKCE verifier are derived from both, so that neither the state nor the cookie alone gives them away.
type attempt struct {
	State    string `json:"-"`
	Nonce    string `json:"-"`
	Verifier string `json:"-"` // PKCE

	ID       []byte    `json:"i"`           // 128 random bits
	Slot     int       `json:"c"`           // the number of the cookie
	Browser  []byte    `json:"h"`           // hash of the secret in the cookie
	ReturnTo string    `json:"r,omitempty"` // empty: see Stored
	Stored   bool      `json:"l,omitempty"` // the return path is long and lies in the store
	Provider string    `json:"p"`
	Began    time.Time `json:"b"`           // a logout after it that names the person bars this login
	Era      string    `json:"e,omitempty"` // see [session.Manager.Begin]
	Silent   bool      `json:"q,omitempty"`
	Prompt   string    `json:"m,omitempty"` // what the provider was asked to prompt, if this login asked for something
}

// begin completes an attempt: all that must be known of it later goes into the state, and the secret into the cookie
// that it returns.
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
		if sealed.Stored = h.storeReturn(r, a); !sealed.Stored {
			sealed.ReturnTo = h.home()
		}
	}
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false) // a return path is full of &
	if err := enc.Encode(sealed); err != nil {
		return nil, err
	}
	a.State = base64.RawURLEncoding.EncodeToString(h.Ring.Seal(purpose, nil, plain.Bytes()))
	a.derive(secret)
	return h.Cookie.New(h.cookieName(a.Slot), cookieValue(h.Sessions.Now(), secret), store.AttemptLifetime), nil
}

// derive makes what is sent to the provider out of the browser's secret and the attempt's ID, which the browser does
// not know.
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

// id is the attempt's name in the store.
func (a *attempt) id() store.AttemptID { return sha256.Sum256([]byte(a.State)) }

// read opens a state, however old it is, and whoever brings it.
func (h *Handler) read(state string) (*attempt, error) {
	if len(state) > maxState {
		return nil, errForeignState
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(state)
	if err != nil || strings.ContainsAny(state, "\r\n") { // which the decoder skips
		return nil, errForeignState
	}
	plain, err := h.Ring.Open(purpose, nil, sealed)
	if err != nil {
		return nil, errForeignState
	}
	a := &attempt{State: state}
	if err := json.Unmarshal(plain, a); err != nil {
		return nil, errForeignState
	}
	return a, nil
}

// take returns the attempt of a state if it is one of this browser and has not run out. With an error too it returns
// what the state says, if it is one of ours: that may be a stranger's, and serves to lead back to a page of this site.
func (h *Handler) take(r *http.Request, state string) (*attempt, error) {
	a, err := h.read(state)
	if err != nil {
		return nil, err
	}
	if a.Stored {
		a.ReturnTo = h.loadReturn(r, a)
	}
	// The browser's own clock, which forgets the cookie, is not to be relied on.
	if h.Sessions.Now().Sub(a.Began) >= store.AttemptLifetime {
		return a, errRanOut
	}
	cookies := r.CookiesNamed(h.cookieName(a.Slot))
	if len(cookies) != 1 { // more than one: somebody else set one of them
		return a, errNoCookie
	}
	_, secret, ok := parseCookie(cookies[0].Value)
	if !ok || subtle.ConstantTimeCompare(browserHash(secret), a.Browser) != 1 {
		return a, errNoCookie
	}
	a.derive(secret)
	return a, nil
}

// The cookie of an attempt is as small as can be: when it began, in milliseconds, and the secret.

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

// cookieName returns the name of an attempt's cookie. Names are few, so that they are short, and many enough that tabs
// which are opened at the same moment do not meet in one.
func (h *Handler) cookieName(slot int) string {
	b := binary.BigEndian.AppendUint16(nil, uint16(slot)<<4)
	return h.cookiePrefix() + base64.RawURLEncoding.EncodeToString(b)[:2]
}

func (h *Handler) cookiePrefix() string { return h.Cookie.NameFor("login-") }

// freeSlot returns the number of a cookie that the browser does not have. There are far more than it should have, so a
// few tries do.
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

// makeRoom takes back the oldest attempts of the browser until size more bytes have room, and whatever is none.
func (h *Handler) makeRoom(w http.ResponseWriter, r *http.Request, size int) {
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
			h.forget(w, c.Name)
			continue
		}
		others = append(others, held{c.Name, cookieSize(c), began})
	}
	slices.SortStableFunc(others, func(a, b held) int { return b.began.Compare(a.began) })
	for _, o := range others {
		if size += o.size; size > maxBytes {
			h.forget(w, o.name)
		}
	}
}

func (h *Handler) forget(w http.ResponseWriter, name string) {
	http.SetCookie(w, h.Cookie.New(name, "", -time.Second))
}

// storeReturn keeps the return path of an attempt in the store, and says whether it could. Anybody can start a login,
// so what is kept in this way is bounded, and what does not fit is given up.
func (h *Handler) storeReturn(r *http.Request, a *attempt) bool {
	h.onceLong.Do(func() { h.long = rate.NewLimiter(rate.Every(2*time.Second), 100) })
	err := errors.New("too many of that length at the moment")
	if h.long.AllowN(h.Sessions.Now(), 1) {
		id := a.returnID()
		_, err = h.Sessions.ClaimAttempt(r.Context(), id, h.Ring.Seal(returnPurpose, id[:], []byte(a.ReturnTo)),
			returnLife)
	}
	if err != nil {
		h.returnLost(r, err)
	}
	return err == nil
}

// loadReturn returns the path that storeReturn kept, or the usual one.
func (h *Handler) loadReturn(r *http.Request, a *attempt) string {
	id := a.returnID()
	sealed, err := h.Sessions.Attempt(r.Context(), id)
	if err == nil {
		var plain []byte
		if plain, err = h.Ring.Open(returnPurpose, id[:], sealed); err == nil {
			return string(plain)
		}
	}
	h.returnLost(r, fmt.Errorf("it is no longer in the store: %w", err))
	return h.home()
}

func (a *attempt) returnID() store.AttemptID {
	return sha256.Sum256(append([]byte("return path\x00"), a.ID...))
}

// returnLost logs that a person will not come to the page they wanted.
func (h *Handler) returnLost(r *http.Request, err error) {
	h.Site.Event(r, slog.LevelInfo, "return_to_dropped", slog.String("error", err.Error()))
}
