package login

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// At a site with several hosts people sign in at one of them, the main host. Each other host gets its own bearer of the
// session by a hand-over:
//
//  1. /auth/login at the other host gives the browser a secret in a cookie, and sends it to /auth/login of the main
//     host, with a sealed [handover] that has the hash of the secret.
//  2. The main host signs the person in, unless it has their session. It answers with a form that posts a [code] to
//     /auth/handover of the other host: so the code is in no address, and no log or Referer has it.
//  3. The other host takes the code once, within codeLife, from the browser that has the secret; looks the session up
//     in the store; and sets the cookie.
const (
	handoverPurpose = "hand-over v1"
	codePurpose     = "hand-over code v1"

	codeLife = time.Minute // of a code: to send a form, possibly by a click
	maxTries = 3           // how often one hand-over begins again by itself
)

// handover says for which host and which browser a sign-in is. It travels sealed, through the address bar: it is worth
// nothing without the secret in the cookie of that browser.
type handover struct {
	ID       []byte    `json:"i"` // 128 random bits
	Host     string    `json:"h"` // its name
	Slot     int       `json:"c"` // the number of the cookie
	Browser  []byte    `json:"s"` // hash of the secret in the cookie
	Began    time.Time `json:"b"`
	ReturnTo string    `json:"r,omitempty"` // empty: see Stored
	Stored   bool      `json:"l,omitempty"` // the return path is long and is in the store
	Replaces []byte    `json:"k,omitempty"` // the key of the session that the browser has at the host
	Tries    int       `json:"n,omitempty"` // how often it began again
}

// code is what the main host gives to the other host, sealed.
type code struct {
	For    handover  `json:"f"`
	Bearer string    `json:"b"` // of the other host
	Made   time.Time `json:"t"`
}

// beginHandover sends a browser to the main host to sign in.
func (h *Handler) beginHandover(w http.ResponseWriter, r *http.Request, q request, tries int) error {
	f := &handover{ID: make([]byte, 16), Host: q.here.Name, Slot: h.freeSlot(r), Began: h.Sessions.Now(),
		ReturnTo: q.returnTo, Tries: tries}
	rand.Read(f.ID)
	secret := make([]byte, secretSize)
	rand.Read(secret)
	f.Browser = browserHash(secret)
	old, err := h.previousSession(r)
	if err != nil {
		return h.handoverStoreFailure(h.link(q), err)
	}
	if old != nil {
		f.Replaces = old.Key[:]
	}
	if len(q.returnTo) > maxInState {
		f.ReturnTo = ""
		if f.Stored = h.storeReturn(r, f.ID, q.returnTo); !f.Stored {
			f.ReturnTo = h.home()
		}
	}
	cookie := h.Cookie.NewCrossSite(h.cookieName(f.Slot), cookieValue(f.Began, secret), h.attemptLife())
	h.evictAttempts(w, r, cookieSize(cookie))
	http.SetCookie(w, cookie)
	q.handover = f
	redirect(w, h.Site.Origin()+h.link(q))
	return nil
}

// sealed returns v sealed, in text for a URL or a form.
func (h *Handler) sealText(purpose string, v any) string {
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // it is made of texts, numbers and times
	}
	return base64.RawURLEncoding.EncodeToString(h.Keyring.Seal(purpose, nil, plain.Bytes()))
}

// openText is the inverse of sealText.
func (h *Handler) openText(purpose, text string, v any) error {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") { // the decoder skips line ends
		return errors.New("not of ours")
	}
	plain, err := h.Keyring.Open(purpose, nil, sealed)
	if err != nil {
		return err
	}
	return json.Unmarshal(plain, v)
}

func (h *Handler) sealHandover(f *handover) string { return h.sealText(handoverPurpose, f) }

// openHandover opens the parameter of a link to the login route. Its host must still be one of the site.
func (h *Handler) openHandover(text string) (*handover, error) {
	f := new(handover)
	err := errors.New("too long")
	if len(text) <= maxState {
		err = h.openText(handoverPurpose, text, f)
	}
	if err == nil {
		if _, ok := h.Site.FindHost(f.Host); !ok {
			err = errors.New("its host is not among hosts any more")
		}
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "This link to sign in is not one of this site's.", err,
			slog.String("check", "handover"))
	}
	return f, nil
}

// handoverTarget returns the host that a hand-over is for, and the path to go to there.
func (h *Handler) handoverTarget(r *http.Request, f *handover) (web.Host, string) {
	host, ok := h.Site.FindHost(f.Host)
	if !ok {
		return h.Site.Main(), h.home()
	}
	if f.Stored {
		return host, h.loadReturn(r, f.ID)
	}
	return host, f.ReturnTo
}

// handOverSession hands over the session that the browser has at the main host, unless the link asks for another
// sign-in. It reports whether it has answered.
func (h *Handler) handOverSession(w http.ResponseWriter, r *http.Request, q request) (bool, error) {
	b, ok := h.Cookie.Read(r)
	if !ok || q.prompt != "" && !q.silent || len(q.params) > 0 || q.loginHint != "" {
		return false, nil
	}
	s, err := h.Sessions.Find(r.Context(), b)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	case err != nil:
		return false, h.handoverStoreFailure(h.link(q), err)
	}
	if h.demand(r, q.handover, q.stepUp, "").Missing(s.Claims, h.Sessions.Now()) != "" {
		return false, nil // the page asks for another sign-in than that of this session
	}
	if _, ok := s.BearerFor(q.handover.Host, b); !ok || q.provider != "" && q.provider != s.Provider {
		return false, nil
	}
	return true, h.handOver(w, r, q.handover, s, b)
}

// handOver answers with the form that takes a code to the other host. b is a bearer of s.
func (h *Handler) handOver(w http.ResponseWriter, r *http.Request, f *handover, s *session.Session,
	b session.Bearer) error {
	host, known := h.Site.FindHost(f.Host)
	theirs, ok := s.BearerFor(f.Host, b)
	if !known || !ok {
		redirect(w, h.home())
		return nil
	}
	sealed := h.sealText(codePurpose, code{For: *f, Bearer: theirs.Reveal(), Made: h.Sessions.Now()})
	h.Site.Render(w, r, http.StatusOK, web.Message{Title: "You are signed in",
		Text: "Continue to {host}.", Args: map[string]string{"host": host.Addr()}, Submit: true,
		Actions: []web.Action{{Label: "Continue", Post: true, Href: host.Origin + h.Site.Path("handover"),
			Form: map[string]string{"code": sealed}}}})
	return nil
}

// redeem takes the code of a hand-over, and sets the cookie of this host:
//
//  1. The code must be one of ours, for this host, and come from the browser whose cookie has its secret.
//  2. A code that is too old, or was used before, signs nobody in: the hand-over begins again, without a question.
//  3. The session must be in the store: a hand-over cannot bring back one that has ended.
//  4. The code is used up, on all replicas.
//  5. A session that the browser had at this host is ended.
func (h *Handler) redeem(w http.ResponseWriter, r *http.Request) error {
	c, host, err := h.readCode(r)
	if err != nil {
		return err
	}
	_, to := h.handoverTarget(r, &c.For)
	again := h.Site.Origin() + h.link(request{handover: &c.For}) // to may not have been in reach
	if _, ok := h.secretOf(r, c.For.Slot, c.For.Browser); !ok {
		return h.refuseCode("It was finished already, or was begun in another browser.", to, errNoCookie)
	}
	text := r.PostForm.Get("code")
	if age := h.Sessions.Now().Sub(c.Made); age >= codeLife || age < -codeLife {
		return h.handOverAgain(w, r, c, host, to, "late")
	}
	b, ok := h.Cookie.ReadValue(r, c.Bearer)
	if !ok {
		return h.refuseCode("It does not belong here.", to, errors.New("the bearer in the code is not one of ours"))
	}
	s, err := h.Sessions.Find(r.Context(), b)
	switch {
	case errors.Is(err, store.ErrNotFound):
		h.clearCookie(w, h.cookieName(c.For.Slot))
		return &web.Failure{Status: http.StatusConflict, Event: "handover", Err: err,
			Attrs: []slog.Attr{slog.String("result", "ended"), slog.String("host", host.Name)},
			Message: web.Message{Title: "You were signed out",
				Text:    "A sign-out arrived while you were signing in, so this sign-in was not completed.",
				Actions: []web.Action{{Label: "Sign in again", Href: h.link(request{returnTo: to})}}}}
	case err != nil:
		return h.handoverStoreFailure(again, err)
	}
	held, err := h.Sessions.ClaimAttempt(r.Context(), sha256.Sum256([]byte(text)), []byte{1}, store.AttemptLifetime)
	switch {
	case err != nil:
		return h.handoverStoreFailure(again, err)
	case held != nil:
		return h.handOverAgain(w, r, c, host, to, "repeated")
	}
	h.clearCookie(w, h.cookieName(c.For.Slot))
	h.replaceAt(r, c.For.Replaces, s)
	h.Site.Event(r, slog.LevelInfo, "handover", slog.String("result", "ok"), slog.String("host", host.Name),
		slog.String("session", s.Key.Handle()))
	h.Cookie.WriteFor(w, b, s.Expires.Sub(h.Sessions.Now()))
	redirect(w, to)
	return nil
}

// readCode returns the code in the form, if it is for this host.
func (h *Handler) readCode(r *http.Request) (*code, web.Host, error) {
	host, err := h.Site.HostOf(r)
	if err != nil {
		return nil, host, err
	}
	if err := r.ParseForm(); err != nil {
		return nil, host, h.refuseCode("What your browser sent is malformed.", "", err)
	}
	c := new(code)
	if len(r.PostForm["code"]) != 1 {
		return nil, host, h.refuseCode("What your browser sent is malformed.", "", errors.New("want one code"))
	}
	if err := h.openText(codePurpose, r.PostForm.Get("code"), c); err != nil {
		return nil, host, h.refuseCode("It is not one of this site's.", "", err)
	}
	if c.For.Host != host.Name {
		return nil, host, h.refuseCode("It is for another host.", "", errors.New("the code is for another host"))
	}
	return c, host, nil
}

// handOverAgain begins a hand-over again whose code signs nobody in any more. The browser that began it still has its
// session at the main host, and gets another code.
func (h *Handler) handOverAgain(w http.ResponseWriter, r *http.Request, c *code, host web.Host, to, why string) error {
	h.clearCookie(w, h.cookieName(c.For.Slot))
	if c.For.Tries >= maxTries {
		return h.refuseCode("It took too long, or a proxy sent it more than once.", to, errors.New(why))
	}
	h.Site.Event(r, slog.LevelInfo, "handover", slog.String("result", why), slog.String("host", host.Name))
	return h.beginHandover(w, r, request{here: host, returnTo: to}, c.For.Tries+1)
}

// replaceAt ends the session that the browser had at this host, if it is not s.
func (h *Handler) replaceAt(r *http.Request, key []byte, s *session.Session) {
	var old store.Key
	if copy(old[:], key); len(key) != len(old) || old == s.Key {
		return
	}
	before, err := h.Sessions.Peek(r.Context(), old)
	if err == nil {
		now := session.SignIn{Issuer: s.Issuer, ClientID: s.ClientID, Subject: s.Subject, SID: s.SID}
		h.replace(r, before, sameSignIn(before, &now))
	}
}

// refuseCode is the page for a code that signs nobody in. to is a path of this host, or empty.
func (h *Handler) refuseCode(why, to string, err error) error {
	if to == "" {
		to = h.home()
	}
	f := refuse(http.StatusBadRequest, "", err, slog.String("check", "handover"))
	f.Event = "handover"
	f.Message = web.Message{Title: "This sign-in cannot be continued", Text: why,
		Note:    "If this happens every time, your browser may be blocking cookies for this site.",
		Actions: []web.Action{{Label: "Continue", Href: to}}}
	return f
}

// handoverStoreFailure is the page for a hand-over while the store does not answer. again leads to another try.
func (h *Handler) handoverStoreFailure(again string, err error) error {
	if !errors.Is(err, session.ErrUnavailable) {
		return err
	}
	return &web.Failure{Status: http.StatusServiceUnavailable, Err: err, Event: "handover",
		Attrs: []slog.Attr{slog.String("result", "unavailable")},
		Message: web.Message{Title: "Not just now",
			Text:    "This site cannot reach its store of sessions. Please try again in a moment.",
			Actions: []web.Action{{Label: "Try again", Href: again}}}}
}
