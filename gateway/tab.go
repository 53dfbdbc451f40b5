package gateway

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"example.com/curfew/store"
	"example.com/curfew/web"
)

// This file notifies open tabs of the end of their session: an event stream, and the script that listens to it.

const (
	// keepAlive is about how often an open event stream sends a comment, so that proxies do not close it.
	keepAlive = 20 * time.Second
	// A browser whose stream broke off reconnects after a time between these two. All tabs of a replica that stops
	// reconnect, and should not do so at once.
	minRetry, maxRetry = time.Second, 5 * time.Second
	// maxTabs is how many event streams one session may have open here.
	maxTabs = 100
)

// tabs are the open event streams.
type tabs struct {
	mu      sync.Mutex
	open    map[store.Key]int
	stopped chan struct{} // closed by stop
}

// draining returns the channel that is closed when the gateway stops.
func (t *tabs) draining() chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped == nil {
		t.stopped = make(chan struct{})
	}
	return t.stopped
}

// stop ends all event streams, and those that are opened later.
func (t *tabs) stop() {
	stopped := t.draining()
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-stopped:
	default:
		close(stopped)
	}
}

var errTooManyTabs = errors.New("the session has too many event streams open")

// acquire counts a stream of a session. The error is a 429 if it has too many.
func (t *tabs) acquire(k store.Key) (release func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[k] >= maxTabs {
		return nil, web.Fail(http.StatusTooManyRequests, "Too many tabs of this session are open.", errTooManyTabs)
	}
	if t.open == nil {
		t.open = make(map[store.Key]int)
	}
	t.open[k]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.open[k]--; t.open[k] == 0 {
			delete(t.open, k)
		}
	}, nil
}

// notice is the data of the event `ended`: why the session has ended, and what a page can say about it.
type notice struct {
	Cause  store.Cause `json:"cause"` // empty: not known
	Title  string      `json:"title"` // this and the next two are in the language of the browser
	Text   string      `json:"text"`
	Action string      `json:"action"` // of the button that loads the page again
	Lang   string      `json:"lang"`
	Dir    string      `json:"dir"`
	Style  string      `json:"style"` // the CSS with which the script shows it
}

// noticeStyle follows the style sheet that all pages have. The notice stands in a shadow root, where the styles of the
// app do not reach: not even its custom properties, since the colours are set within.
const (
	noticeColors = "dialog,dialog::backdrop"
	noticeStyle  = ":host{all:initial!important}" +
		"dialog{border:0;width:min(30em,100%);padding:1.5em;text-align:start}" +
		"dialog::backdrop{background:var(--paper)}" +
		"button{padding:.7em 1em;background:var(--accent);border-color:var(--accent);color:var(--on)}"
)

func (h *Handler) newNotice(r *http.Request, cause store.Cause) notice {
	m := web.Message{Title: "You are signed out", Text: "Your session has ended.",
		Actions: []web.Action{{Label: "Sign in again"}}}
	switch cause {
	case store.CauseBackChannel, store.CauseFrontChannel, store.CauseProviderEnded:
		m.Text = "You were signed out at your provider."
	case store.CauseUser:
		m.Text = "You signed out in another tab or window."
	case store.CauseAdmin:
		m.Text = "Somebody who runs this site, or you yourself on another device, ended this session."
	case store.CauseExpired:
		m.Text = "Your session has expired."
	case store.CauseReplaced:
		m.Title, m.Text = "This page is out of date", "Somebody has signed in again in this browser."
		m.Actions[0].Label = "Load it again"
	}
	words := h.Site.Words(r)
	return notice{cause, words.Say(m.Title), words.Say(m.Text), words.Say(m.Actions[0].Label), words.Lang, words.Dir,
		h.Site.Pages.Style(noticeColors) + noticeStyle}
}

// events is an event stream that notifies an open tab of the end of its own session, and of no other. Its first event,
// `session`, has the name of the session ([store.Key.Handle]). When the session ends it sends the event `ended` with a
// [notice] and closes.
//
// The parameter session is the name of the session that the page was made for, if the page knows it. If another one is
// signed in by now, or none, the only event is `ended`. With an empty parameter it is `nobody`, if nobody is signed in.
// Without the parameter, the answer is 401 then, after which browsers do not try again.
func (h *Handler) events(w http.ResponseWriter, r *http.Request) error {
	if err := h.ownPage(r); err != nil {
		return err
	}
	name := r.URL.Query().Get("session")
	b, ok := h.Cookie.Read(r)
	if !ok {
		return h.noSession(w, r, errNoCookie)
	}
	ended, stop := h.Sessions.Watch(b.Key()) // before the lookup, so that no ending is missed
	defer stop()
	s, err := h.Sessions.Find(r.Context(), b)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return h.noSession(w, r, err)
	case err != nil:
		return unchecked(err)
	case name != "" && name != s.Key.Handle():
		return sendOnly(w, "ended", h.newNotice(r, store.CauseReplaced))
	}
	release, err := h.tabs.acquire(s.Key)
	if err != nil {
		return err
	}
	defer release()
	releaseSlot, err := h.slots.acquire(h.MaxOpen, false)
	if err != nil {
		return err
	}
	defer releaseSlot()
	h.listen(w, r, times{s.Key, s.IdleExpires, s.Expires}, ended)
	return nil
}

// times is what a stream keeps of its session: the rest of it, with its tokens, would take much memory.
type times struct {
	key           store.Key
	idle, expires time.Time
}

// left returns how long the session lives still, if it is not used.
func (t times) left(now time.Time) time.Duration { return min(t.idle.Sub(now), t.expires.Sub(now)) }

// listen sends what happens to a session until it ends, the client leaves, or the gateway stops.
func (h *Handler) listen(w http.ResponseWriter, r *http.Request, s times, ended <-chan store.Cause) {
	out := http.NewResponseController(w)
	send := func(text string) bool {
		_, err := w.Write([]byte(text))
		return err == nil && out.Flush() == nil
	}
	beginStream(w)
	if !send(fmt.Sprintf("retry: %d\nevent: session\ndata: %s\n\n",
		(minRetry + rand.N(maxRetry-minRetry)).Milliseconds(), s.key.Handle())) {
		return
	}
	draining := h.tabs.draining()
	// Streams that were opened together do not send together.
	pause := func() time.Duration { return min(keepAlive/2+rand.N(keepAlive/2), max(s.left(h.Sessions.Now()), 0)) }
	timer := time.NewTimer(pause())
	defer timer.Stop()
	for {
		var cause store.Cause
		select {
		case <-r.Context().Done():
			return
		case <-draining:
			return // the browser reconnects to another replica
		case cause = <-ended:
		case <-timer.C:
			over := h.look(r, &s)
			if !over {
				if !send(": still here\n\n") {
					return
				}
				timer.Reset(max(pause(), time.Second))
				continue
			}
			if s.left(h.Sessions.Now()) <= 0 {
				cause = store.CauseExpired
			}
			select {
			case cause = <-ended: // it was not that
			default:
			}
		}
		sendEvent(w, "ended", h.newNotice(r, cause))
		_ = out.Flush()
		return
	}
}

// look reports whether a session is over, and updates its times. The store is asked if the session should have expired,
// since it may have been used meanwhile, and while the feed is broken, since nobody reports an ending then.
func (h *Handler) look(r *http.Request, s *times) (over bool) {
	if s.left(h.Sessions.Now()) > 0 && h.Sessions.FeedInSync() {
		return false
	}
	fresh, err := h.Sessions.Peek(r.Context(), s.key)
	if err == nil {
		s.idle, s.expires = fresh.IdleExpires, fresh.Expires
	}
	return errors.Is(err, store.ErrNotFound)
}

var errNoCookie = errors.New("no cookie")

// noSession answers a tab of a browser in which nobody is signed in.
func (h *Handler) noSession(w http.ResponseWriter, r *http.Request, err error) error {
	query := r.URL.Query()
	switch {
	case !query.Has("session"):
		return web.Fail(http.StatusUnauthorized, "Nobody is signed in.", err)
	case query.Get("session") == "":
		return sendOnly(w, "nobody", struct{}{})
	}
	return sendOnly(w, "ended", h.newNotice(r, ""))
}

// ownPage returns a 403 unless a page of the same origin opens the stream, or a program that is no browser. No other
// page could read it, but it could keep many open.
func (h *Handler) ownPage(r *http.Request) error {
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	if site == "same-origin" || site == "none" || site == "" && (origin == "" || origin == h.here(r).Origin) {
		return nil
	}
	return web.Fail(http.StatusForbidden, "Only pages of this site may listen here.",
		fmt.Errorf("a page of another site asked for an event stream: Sec-Fetch-Site %q, Origin %q", site, origin))
}

func beginStream(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	w.Header().Add("Vary", "Accept-Language") // for caches that store it in spite of no-store
}

// sendOnly answers with a stream of one event.
func sendOnly(w http.ResponseWriter, event string, data any) error {
	beginStream(w)
	sendEvent(w, event, data)
	return nil
}

func sendEvent(w http.ResponseWriter, event string, data any) {
	text, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, text)
}

//go:embed tab.js
var tabSource string

var (
	tabScript = func() string { return compact(tabSource) }()
	tabETag   = func() string {
		sum := sha256.Sum256([]byte(tabScript))
		return `"` + hex.EncodeToString(sum[:8]) + `"`
	}()
)

// compact removes comment lines and spaces. No string in the source has any of these.
func compact(source string) string {
	var b strings.Builder
	short := strings.NewReplacer(" = ", "=", " => ", "=>", ", ", ",", "; ", ";", " + ", "+", " * ", "*", " || ", "||",
		" && ", "&&", " === ", "===", " !== ", "!==", " < ", "<", " > ", ">", " ? ", "?", " : ", ":", ": ", ":",
		" {", "{", "{ ", "{", " }", "}", ") ", ")", "if (", "if(", "for (", "for(")
	for line := range strings.Lines(source) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			b.WriteString(short.Replace(line))
			if !strings.ContainsAny(line[len(line)-1:], ";{(,") {
				b.WriteByte('\n')
			}
		}
	}
	return b.String()
}

// tabJS serves the script for open tabs. It is the same for everybody.
func (h *Handler) tabJS(w http.ResponseWriter, r *http.Request) error {
	header := w.Header()
	header.Set("Content-Type", "text/javascript; charset=utf-8")
	header.Set("Cache-Control", "public, max-age=600")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("ETag", tabETag)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(tabScript))
	return nil
}
