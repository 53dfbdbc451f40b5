package gateway

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
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
	token   string // the access token that its session is of, if any
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
	if ofToken(v.session) {
		st.token = v.session.Tokens.AccessToken
	}
	st.attach(func() {})
	context.AfterFunc(until, st.release)
	return until, func() { cancel(nil) }
}

// newStream starts a stream. release must be called when the request is over.
func (h *Handler) newStream(s *session.Session, r *http.Request, cancel context.CancelCauseFunc) *stream {
	st := &stream{handler: h, key: s.Key, cancel: cancel}
	switch {
	case ofToken(s):
		st.token = s.Tokens.AccessToken
	case h.StreamsAreUse:
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
		go h.watch(g, st.key, st.bearer, st.token)
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
func (h *Handler) watch(g *group, key store.Key, bearer session.Bearer, token string) {
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
			next, err := h.nextCheck(key, bearer, token)
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
func (h *Handler) nextCheck(key store.Key, bearer session.Bearer, token string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookUpTimeout)
	defer cancel()
	s, due, err := h.Sessions.Recheck(ctx, key)
	if err == nil && h.StreamsAreUse && !s.IsToken {
		s, err = h.Sessions.Get(ctx, bearer)
	}
	if err != nil {
		return 0, err
	}
	now := h.Sessions.Now()
	again, err := h.askAboutToken(ctx, token, now)
	if err != nil {
		return 0, err
	}
	rest := min(s.Expires.Sub(now), s.IdleExpires.Sub(now), again)
	if h.StreamsAreUse {
		rest /= 2
	}
	if !due.IsZero() { // when the provider is to be asked again; another replica, or a request, may be doing it
		rest = min(rest, max(due.Sub(now), time.Second))
	}
	return min(max(rest, time.Millisecond), recheckInterval), nil
}

// end ends the streams of a group.
func (h *Handler) end(g *group, key store.Key) {
	h.streams.mu.Lock()
	if h.streams.groups[key] == g {
		delete(h.streams.groups, key) // a new stream gets a new group, and with it a lookup
	}
	all := slices.Collect(maps.Keys(g.open))
	h.streams.mu.Unlock()
	h.endAll(all, closePolicy, "session ended", ErrEnded, func() {})
}

// endAll closes streams, and calls done for each whose client has been notified. It first stops the data of all, then
// sends the close frames, and does the rest afterwards, so that many clients learn of the end soon. A client that does
// not read does not delay the others.
func (h *Handler) endAll(all []*stream, code uint16, reason string, why error, done func()) {
	frame := closeFrame(code, reason)
	upgraded := make([]*stream, 0, len(all))
	for _, st := range all {
		h.streams.mu.Lock()
		conn := st.conn
		h.streams.mu.Unlock()
		if conn == nil {
			st.cancel(why)
		}
		if conn == nil || !conn.cut() { // from here on no data passes
			done()
			continue
		}
		upgraded = append(upgraded, st)
	}
	for _, st := range upgraded {
		finish := func() { st.conn.finish(); st.cancel(why) }
		if st.conn.sendClose(frame) {
			done()
			h.closings.add(finish)
			continue
		}
		go func() {
			defer done()
			if st.conn.end(frame) {
				h.closings.add(finish)
			} else {
				st.cancel(why)
			}
		}()
	}
}

const (
	closingFew   = 16                     // connections, for which nothing waits
	closingFirst = time.Millisecond       // after which it is known whether there are more
	closingPause = 20 * time.Millisecond  // without another close frame, before the rest is done
	closingMost  = 250 * time.Millisecond // for which the rest waits in any case
)

// closings is what is left to do for connections whose close frame is sent. One goroutine does it. When there are many,
// it waits until no more frames are being sent: the rest takes longer than they do, and keeps the app busy too.
type closings struct {
	mu      sync.Mutex
	left    []func()
	running bool
}

func (c *closings) add(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = append(c.left, do)
	if !c.running {
		c.running = true
		go c.run()
	}
}

func (c *closings) run() {
	for more := true; more; more = c.flush() {
		time.Sleep(closingFirst)
		began, before := time.Now(), 0
		for n := c.len(); n > closingFew && n > before && time.Since(began) < closingMost; n = c.len() {
			before = n
			time.Sleep(closingPause)
		}
	}
}

func (c *closings) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.left)
}

// flush does what is left, and reports whether there was anything; if not, run is to stop.
func (c *closings) flush() bool {
	c.mu.Lock()
	left := c.left
	c.left = nil
	if len(left) == 0 {
		c.running = false
	}
	c.mu.Unlock()
	for _, do := range left {
		do()
	}
	return len(left) > 0
}

// Drain ends the streams that do not end by themselves: upgraded connections, with WebSocket close code 1001 (going
// away), and event streams, those of open tabs too. Call it before the gateway stops; it returns when all clients have
// been notified. They reconnect to another replica.
func (h *Handler) Drain() {
	h.tabs.stop()
	var lasting []*stream
	h.streams.mu.Lock()
	for _, g := range h.streams.groups {
		for st := range g.open {
			if st.lasting {
				lasting = append(lasting, st)
			}
		}
	}
	h.streams.mu.Unlock()
	var notified sync.WaitGroup
	notified.Add(len(lasting))
	h.endAll(lasting, closeGoingAway, "stopping", errDraining, notified.Done)
	notified.Wait()
	for h.closings.flush() {
	}
}
