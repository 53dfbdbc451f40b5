package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
)

const (
	// streamAfter is how long a request may take before it counts as a stream. What is shorter has been checked just
	// now.
	streamAfter = 200 * time.Millisecond
	// recheck is how often a session with open streams is looked up, whatever the feed says.
	recheck = time.Minute
	// recheckAgain is how soon after a look-up that failed.
	recheckAgain = 10 * time.Second
	lookUp       = 10 * time.Second
)

var (
	// ErrEnded is the cause of a context from [UntilEnded] whose session has ended.
	ErrEnded    = errors.New("the session has ended")
	errDraining = errors.New("the gateway is stopping")
)

// stream is one proxied request that may stay open. It is tied to its session at once when it is an upgrade or an event
// stream, and otherwise when it has taken long enough to be one.
type stream struct {
	home   *Handler
	key    store.Key
	bearer session.Bearer
	cancel context.CancelCauseFunc
	timer  *time.Timer

	// Guarded by home.streams.mu.
	group   *group // nil unless tied
	left    bool
	lasting bool      // does not end by itself: an upgrade or an event stream
	conn    *upgraded // of an upgrade
}

// streams are the open streams, by session.
type streams struct {
	mu     sync.Mutex
	groups map[store.Key]*group
}

// group is the open streams of one session. One goroutine watches the session for all of them.
type group struct {
	open  map[*stream]struct{}
	empty chan struct{}
}

// UntilEnded is for a handler behind [Handler.Require] or [Handler.Optional] that goes on for long: one that streams
// events, answers a long poll, or serves a WebSocket. It returns a context that is done also when the session of the
// request has ended, by whatever cause and on whatever replica, or has expired, or when for a minute nobody could say
// whether it lives; then its cause is [ErrEnded]. stop gives back what it holds; until then, or until ctx is done, one
// goroutine watches the session for all who wait for it.
//
// The context of a request is done when its handler returns. One that hijacks the connection and returns hands over
// context.WithoutCancel(ctx).
func UntilEnded(ctx context.Context) (until context.Context, stop context.CancelFunc) {
	v := stateFrom(ctx)
	until, cancel := context.WithCancelCause(ctx)
	if v.session == nil || v.home == nil {
		return until, func() { cancel(nil) }
	}
	st := &stream{home: v.home, key: v.session.Key, bearer: v.bearer, cancel: cancel}
	st.tie(func() {})
	context.AfterFunc(until, st.leave)
	return until, func() { cancel(nil) }
}

// open begins a stream. leave must be called when the request is over.
func (h *Handler) open(s *session.Session, r *http.Request, cancel context.CancelCauseFunc) *stream {
	st := &stream{home: h, key: s.Key, cancel: cancel}
	if h.StreamsAreUse {
		st.bearer, _ = h.Cookie.Read(r)
	}
	st.timer = time.AfterFunc(streamAfter, func() { st.tie(func() {}) })
	return st
}

// endless marks a stream that does not end by itself, and ties it.
func (st *stream) endless() {
	if st != nil {
		st.tie(func() { st.lasting = true })
	}
}

// tie makes the stream end with its session. with runs under the lock.
func (st *stream) tie(with func()) {
	h := st.home
	h.streams.mu.Lock()
	defer h.streams.mu.Unlock()
	with()
	if st.left || st.group != nil {
		return
	}
	g := h.streams.groups[st.key]
	if g == nil {
		g = &group{open: make(map[*stream]struct{}, 1), empty: make(chan struct{})}
		if h.streams.groups == nil {
			h.streams.groups = make(map[store.Key]*group)
		}
		h.streams.groups[st.key] = g
		go h.watch(g, st.key, st.bearer)
	}
	g.open[st] = struct{}{}
	st.group = g
}

// leave is called when the request is over.
func (st *stream) leave() {
	if st.timer != nil && st.timer.Stop() && st.group == nil { // then nobody else knows it
		return
	}
	all := &st.home.streams
	all.mu.Lock()
	defer all.mu.Unlock()
	st.left = true
	if st.group == nil {
		return
	}
	delete(st.group.open, st)
	if len(st.group.open) == 0 && all.groups[st.key] == st.group {
		delete(all.groups, st.key)
		close(st.group.empty)
	}
}

// watch ends the streams of a session when it ends, on whatever replica and by whatever cause, or expires; or when for
// a minute nobody could say whether it lives: then a logout may have been missed.
func (h *Handler) watch(g *group, key store.Key, bearer session.Bearer) {
	ended, stop := h.Sessions.Watch(key)
	defer stop()
	look := time.NewTimer(0) // at once: it may have ended between the check and the watch
	defer look.Stop()
	for failed := false; ; {
		select {
		case <-g.empty:
			return
		case <-ended:
		case <-look.C:
			next, err := h.look(key, bearer)
			switch {
			case err == nil:
				failed = false
				look.Reset(next)
				continue
			case !errors.Is(err, store.ErrNotFound) && !failed:
				failed = true
				look.Reset(recheckAgain)
				continue
			}
		}
		h.end(g, key)
		return
	}
}

// look returns when to look again at a session that lives.
func (h *Handler) look(key store.Key, bearer session.Bearer) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookUp)
	defer cancel()
	s, err := h.Sessions.Peek(ctx, key)
	if err == nil && h.StreamsAreUse {
		s, err = h.Sessions.Get(ctx, bearer)
	}
	if err != nil {
		return 0, err
	}
	now := h.Sessions.Now()
	rest := min(s.Expires.Sub(now), s.IdleExpires.Sub(now))
	if h.StreamsAreUse {
		rest /= 2
	}
	return min(max(rest, time.Millisecond), recheck), nil
}

// end ends the streams of a group. Each gets its own goroutine: one whose client does not read keeps no other open.
func (h *Handler) end(g *group, key store.Key) {
	h.streams.mu.Lock()
	defer h.streams.mu.Unlock()
	if h.streams.groups[key] == g {
		delete(h.streams.groups, key) // a stream that comes now gets a group of its own, and with it a look
	}
	for st := range g.open {
		st.end(closePolicy, "session ended", ErrEnded, func() {})
	}
}

// end closes one stream, and calls done when its client has been told. The lock is held.
func (st *stream) end(code uint16, reason string, why error, done func()) {
	conn := st.conn
	if conn == nil {
		st.cancel(why)
	}
	if conn == nil || !conn.cut() { // from here on nothing passes
		done()
		return
	}
	go func() {
		defer done()
		conn.end(code, reason)
		st.cancel(why)
	}()
}

// Drain ends what would not end by itself: upgraded connections, with the WebSocket code for going away, and event
// streams. It is called when the gateway is about to stop, and returns when all have been told; clients come back to
// another replica.
func (h *Handler) Drain() {
	var told sync.WaitGroup
	h.streams.mu.Lock()
	for _, g := range h.streams.groups {
		for st := range g.open {
			if st.lasting {
				told.Add(1)
				st.end(closeGoingAway, "stopping", errDraining, told.Done)
			}
		}
	}
	h.streams.mu.Unlock()
	told.Wait()
}
