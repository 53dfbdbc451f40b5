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
	// streamDelay is how long a request may take before it counts as a stream. The session of a shorter one has just
	// been checked.
	streamDelay = 200 * time.Millisecond
	// recheckInterval is how often a session with open streams is looked up, whatever the feed reports.
	recheckInterval = time.Minute
	// recheckRetry is how soon a failed lookup is repeated.
	recheckRetry  = 10 * time.Second
	lookUpTimeout = 10 * time.Second
)

var (
	// ErrEnded is the [context.Cause] of a context from [UntilEnded] whose session has ended.
	ErrEnded    = errors.New("the session has ended")
	errDraining = errors.New("the gateway is stopping")
)

// stream is one request that may stay open. An upgrade or an event stream is attached to its session at once, any other
// request after streamDelay.
type stream struct {
	handler *Handler
	key     store.Key
	bearer  session.Bearer
	cancel  context.CancelCauseFunc
	timer   *time.Timer

	// Guarded by handler.streams.mu.
	group    *group // nil unless attached
	released bool
	lasting  bool          // an upgrade or an event stream: does not end by itself
	conn     *upgradedConn // the connection of an upgrade
}

// streams are the open streams, by session.
type streams struct {
	mu     sync.Mutex
	groups map[store.Key]*group
}

// group holds the open streams of one session. One goroutine watches the session for all of them.
type group struct {
	open  map[*stream]struct{}
	empty chan struct{}
}

// UntilEnded is for a handler behind [Handler.Require] or [Handler.Optional] that runs for long: it streams events,
// answers a long poll, or serves a WebSocket. It returns a context that is also done when the session of the request
// has ended, by any cause and on any replica, or has expired, or when its state could not be checked for a minute; then
// its cause is [ErrEnded]. stop releases the resources. Until stop is called or ctx is done, one goroutine watches the
// session for all its streams.
//
// The context of a request is done when its handler returns. A handler that hijacks the connection and returns passes
// context.WithoutCancel(ctx).
func UntilEnded(ctx context.Context) (until context.Context, stop context.CancelFunc) {
	v := stateFrom(ctx)
	until, cancel := context.WithCancelCause(ctx)
	if v.session == nil || v.handler == nil {
		return until, func() { cancel(nil) }
	}
	st := &stream{handler: v.handler, key: v.session.Key, bearer: v.bearer, cancel: cancel}
	st.attach(func() {})
	context.AfterFunc(until, st.release)
	return until, func() { cancel(nil) }
}

// newStream starts a stream. release must be called when the request is over.
func (h *Handler) newStream(s *session.Session, r *http.Request, cancel context.CancelCauseFunc) *stream {
	st := &stream{handler: h, key: s.Key, cancel: cancel}
	if h.StreamsAreUse {
		st.bearer, _ = h.Cookie.Read(r)
	}
	st.timer = time.AfterFunc(streamDelay, func() { st.attach(func() {}) })
	return st
}

// markLasting marks a stream that does not end by itself, and attaches it.
func (st *stream) markLasting() {
	if st != nil {
		st.attach(func() { st.lasting = true })
	}
}

// attach makes the stream end with its session. with runs under the lock.
func (st *stream) attach(with func()) {
	h := st.handler
	h.streams.mu.Lock()
	defer h.streams.mu.Unlock()
	with()
	if st.released || st.group != nil {
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

// release is called when the request is over.
func (st *stream) release() {
	if st.timer != nil && st.timer.Stop() && st.group == nil { // then no group has it
		return
	}
	all := &st.handler.streams
	all.mu.Lock()
	defer all.mu.Unlock()
	st.released = true
	if st.group == nil {
		return
	}
	delete(st.group.open, st)
	if len(st.group.open) == 0 && all.groups[st.key] == st.group {
		delete(all.groups, st.key)
		close(st.group.empty)
	}
}

// watch ends the streams of a session when it ends, on any replica and by any cause, or expires; or when its state
// could not be checked for a minute: then a logout may have been missed.
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
			next, err := h.nextCheck(key, bearer)
			switch {
			case err == nil:
				failed = false
				look.Reset(next)
				continue
			case !errors.Is(err, store.ErrNotFound) && !failed:
				failed = true
				look.Reset(recheckRetry)
				continue
			}
		}
		h.end(g, key)
		return
	}
}

// nextCheck looks up a session, and returns when to do so again.
func (h *Handler) nextCheck(key store.Key, bearer session.Bearer) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookUpTimeout)
	defer cancel()
	s, due, err := h.Sessions.Recheck(ctx, key)
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
	if !due.IsZero() { // when the provider is to be asked again; another replica, or a request, may be doing it
		rest = min(rest, max(due.Sub(now), time.Second))
	}
	return min(max(rest, time.Millisecond), recheckInterval), nil
}

// end ends the streams of a group. Each gets its own goroutine, so that one client that does not read does not delay
// the others.
func (h *Handler) end(g *group, key store.Key) {
	h.streams.mu.Lock()
	defer h.streams.mu.Unlock()
	if h.streams.groups[key] == g {
		delete(h.streams.groups, key) // a new stream gets a new group, and with it a lookup
	}
	for st := range g.open {
		st.end(closePolicy, "session ended", ErrEnded, func() {})
	}
}

// end closes one stream, and calls done when its client has been notified. The lock is held.
func (st *stream) end(code uint16, reason string, why error, done func()) {
	conn := st.conn
	if conn == nil {
		st.cancel(why)
	}
	if conn == nil || !conn.cut() { // from here on no data passes
		done()
		return
	}
	go func() {
		defer done()
		conn.end(code, reason)
		st.cancel(why)
	}()
}

// Drain ends the streams that do not end by themselves: upgraded connections, with WebSocket close code 1001 (going
// away), and event streams, those of open tabs too. Call it before the gateway stops; it returns when all clients have
// been notified. They reconnect to another replica.
func (h *Handler) Drain() {
	h.tabs.stop()
	var notified sync.WaitGroup
	h.streams.mu.Lock()
	for _, g := range h.streams.groups {
		for st := range g.open {
			if st.lasting {
				notified.Add(1)
				st.end(closeGoingAway, "stopping", errDraining, notified.Done)
			}
		}
	}
	h.streams.mu.Unlock()
	notified.Wait()
}
