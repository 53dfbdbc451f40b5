package demo

import (
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"example.com/curfew/oidc/oidctest"
)

const (
	keptStories = 5
	keptSteps   = 100 // of each story
	// storyGap is the pause after which the next step begins a new story.
	storyGap = 3 * time.Second
)

// journal records what happens, and notifies its listeners: one story for each sign-in and sign-out.
type journal struct {
	mu        sync.Mutex
	stories   []*story // newest first
	number    int
	last      time.Time
	sessions  int    // created by the apps so far
	opened    string // the app that created the last one
	listeners map[chan struct{}]struct{}
}

// story is a sign-in or a sign-out.
type story struct {
	Number int     `json:"number"`
	Title  string  `json:"title"`
	Clock  string  `json:"clock"` // when it began
	Steps  []step  `json:"steps"`
	Tokens []token `json:"tokens"` // the logout tokens sent in it
	began  time.Time
}

// step is one step of a story.
type step struct {
	At   float64 `json:"at"` // milliseconds since the story began
	Who  string  `json:"who"`
	What string  `json:"what"`
	// "", "open" for a new session, "end" for an ended session, "told" for a tab that is notified, "done" for a 2xx,
	// "fault"
	Kind string `json:"kind"`
}

// token is a decoded logout token, and its result.
type token struct {
	App    string          `json:"app"`
	Header json.RawMessage `json:"header"`
	Claims json.RawMessage `json:"claims"`
	Status int             `json:"status"` // 0 if there was no response
}

func newJournal() *journal { return &journal{listeners: make(map[chan struct{}]struct{})} }

// begin starts a story with its first step.
func (j *journal) begin(title, who, what string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.open(title)
	j.write(step{Who: who, What: what})
}

// add adds a step to the current story, or to a new one with the title.
func (j *journal) add(title string, s step) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.continueOr(title)
	j.write(s)
}

// session adds the step of an app that has created a session.
func (j *journal) session(title string, s step) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.continueOr(title)
	j.sessions++
	j.opened = s.Who
	j.write(s)
}

// delivered adds a logout token and its result.
func (j *journal) delivered(title string, s step, d oidctest.Delivery) {
	header, claims := readable(d.Token)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.continueOr(title)
	now := j.stories[0]
	now.Tokens = append(now.Tokens, token{App: d.ClientID, Header: header, Claims: claims, Status: d.Status})
	slices.SortFunc(now.Tokens, func(a, b token) int { // responses arrive in any order
		if a.App < b.App {
			return -1
		}
		return 1
	})
	j.write(s)
}

// notify wakes the listeners without a new step: a page may have to be updated.
func (j *journal) notify() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wake()
}

func (j *journal) continueOr(title string) {
	if len(j.stories) == 0 || time.Since(j.last) > storyGap {
		j.open(title)
	}
}

func (j *journal) open(title string) {
	now := time.Now()
	j.number++
	j.stories = slices.Insert(j.stories, 0, &story{Number: j.number, Title: title, Clock: now.Format("15:04:05"),
		began: now})
	j.stories = j.stories[:min(len(j.stories), keptStories)]
}

func (j *journal) write(s step) {
	now := j.stories[0]
	if len(now.Steps) >= keptSteps {
		return
	}
	j.last = time.Now()
	s.At = milliseconds(j.last.Sub(now.began))
	at := len(now.Steps)
	if s.Kind == "end" {
		// A tab may be notified before the observer, so the session ended no later than that.
		by := func(kind string) int {
			return slices.IndexFunc(now.Steps, func(o step) bool { return o.Who == s.Who && o.Kind == kind })
		}
		if told := by("told"); told >= 0 && by("end") < 0 {
			at, s.At = told, now.Steps[told].At
		}
	}
	now.Steps = slices.Insert(now.Steps, at, s)
	j.wake()
}

func (j *journal) wake() {
	for l := range j.listeners {
		select {
		case l <- struct{}{}:
		default: // it is awake already
		}
	}
}

// state returns the journal as JSON.
func (j *journal) state() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	text, err := json.Marshal(struct {
		Sessions int      `json:"sessions"`
		Opened   string   `json:"opened"`
		Stories  []*story `json:"stories"`
	}{j.sessions, j.opened, j.stories})
	if err != nil {
		panic(err)
	}
	return text
}

// stream sends the result of say as server-sent events, now and after each change.
func (j *journal) stream(say func() []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		l := make(chan struct{}, 1)
		j.mu.Lock()
		j.listeners[l] = struct{}{}
		j.mu.Unlock()
		defer func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			delete(j.listeners, l)
		}()
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		out := http.NewResponseController(w)
		for {
			if _, err := w.Write(slices.Concat([]byte("data: "), say(), []byte("\n\n"))); err != nil ||
				out.Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-l:
			}
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
