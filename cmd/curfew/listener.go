package main

import (
	queue "container/list"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"example.com/curfew/web"
)

const (
	// closeDelay is how long a connection without a request is kept: its last response may still be on its way.
	closeDelay = 100 * time.Millisecond
	// fullLogInterval limits how often a full listener is logged.
	fullLogInterval = time.Minute
	writePart       = 64 << 10 // bytes per write
)

// limitListener is a listener with a maximum number of connections. When it is full, a new connection replaces the one
// that has been without a request for longest, whether idle or new. If all have requests, the new one waits.
type limitListener struct {
	net.Listener
	name       string
	limit      int
	trackReads bool // connState is not called: a connection counts as idle while its client sends nothing
	log        *slog.Logger

	mu      sync.Mutex
	changed sync.Cond // a connection has ended or become idle, or the listener is closed
	closed  bool
	open    int
	idle    queue.List // *limitedConn without a request, the longest idle first
	logged  time.Time
}

func newLimitListener(l net.Listener, name string, most int, log *slog.Logger) *limitListener {
	g := &limitListener{Listener: l, name: name, limit: most, log: log}
	g.changed.L = &g.mu
	return g
}

// Accept waits for a connection, and until there is room for it.
func (g *limitListener) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.open >= g.limit && !g.closed {
		g.logFull()
		g.closeIdle()
	}
	if g.closed {
		c.Close()
		return nil, net.ErrClosed
	}
	g.open++
	in := &limitedConn{Conn: c, listener: g}
	in.setIdle()
	return in, nil
}

// closeIdle closes the connection that has been idle for longest. If there is none, it waits for a change.
func (g *limitListener) closeIdle() {
	if first := g.idle.Front(); first != nil {
		c := first.Value.(*limitedConn)
		rest := closeDelay - time.Since(c.idleSince)
		if rest <= 0 {
			c.release()
			c.Conn.Close()
			return
		}
		defer time.AfterFunc(rest, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.changed.Broadcast()
		}).Stop()
	}
	g.changed.Wait()
}

// logFull logs that the listener is full.
func (g *limitListener) logFull() {
	if now := time.Now(); g.logged.IsZero() || now.Sub(g.logged) >= fullLogInterval {
		g.logged = now
		g.log.Warn("there is no room for more connections: those without a request are closed for new ones, the "+
			"longest first",
			"event", "connections_full", "listener", g.name, "most", g.limit)
	}
}

// connections returns how many connections are open.
func (g *limitListener) connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// Close also ends an Accept that waits for room.
func (g *limitListener) Close() error {
	err := g.Listener.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.changed.Broadcast()
	return err
}

// connState is for [http.Server.ConnState].
func (g *limitListener) connState(conn net.Conn, state http.ConnState) {
	if under, ok := conn.(interface{ NetConn() net.Conn }); ok { // a TLS connection
		conn = under.NetConn()
	}
	c, ok := conn.(*limitedConn)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch state {
	case http.StateActive, http.StateHijacked:
		c.setActive()
	case http.StateIdle:
		c.setIdle()
	}
}

// limitedConn is a connection of a limitListener. It is closed if one write takes longer than
// [web.WriteTime], or a little more.
type limitedConn struct {
	net.Conn
	listener *limitListener

	// Guarded by listener.mu.
	element   *queue.Element // its element in listener.idle; nil while it has a request
	idleSince time.Time      // when it became idle
	closed    bool

	writing  sync.Mutex // guards the fields below
	deadline time.Time  // the write deadline set by SetWriteDeadline
	until    time.Time  // the write deadline in force
}

// setIdle is called when the connection has no request any more. As for setActive and release, listener.mu is held.
func (c *limitedConn) setIdle() {
	if c.closed {
		return
	}
	c.setActive()
	c.idleSince = time.Now()
	c.element = c.listener.idle.PushBack(c)
	c.listener.changed.Broadcast()
}

// setActive is called when the connection has a request.
func (c *limitedConn) setActive() {
	if c.element != nil {
		c.listener.idle.Remove(c.element)
		c.element = nil
	}
}

func (c *limitedConn) release() {
	if !c.closed {
		c.setActive()
		c.closed = true
		c.listener.open--
		c.listener.changed.Broadcast()
	}
}

func (c *limitedConn) Close() error {
	c.listener.mu.Lock()
	c.release()
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite is for net/http, which lets a client read the response before it closes.
func (c *limitedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

var _ syscall.Conn = (*limitedConn)(nil)

// SyscallConn is for the gateway, which sends a close frame without waiting for a client that does not read.
func (c *limitedConn) SyscallConn() (syscall.RawConn, error) {
	if socket, ok := c.Conn.(syscall.Conn); ok {
		return socket.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.listener.trackReads && n > 0 {
		c.listener.mu.Lock()
		c.setIdle()
		c.listener.mu.Unlock()
	}
	return n, err
}

func (c *limitedConn) Write(p []byte) (n int, err error) {
	for {
		part := p[n:min(len(p), n+writePart)]
		c.extendDeadline()
		wrote, err := c.Conn.Write(part)
		n += wrote
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.Close()
		}
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// extendDeadline sets the deadline of the next write. It is set a little later than it has to be, so that the writes
// that follow soon need not set it again.
func (c *limitedConn) extendDeadline() {
	c.writing.Lock()
	defer c.writing.Unlock()
	now := time.Now()
	if c.deadline.IsZero() && c.until.Sub(now) >= web.WriteTime {
		return
	}
	c.until = now.Add(web.WriteTime + web.WriteTime/8)
	if !c.deadline.IsZero() && c.deadline.Before(c.until) {
		c.until = c.deadline
	}
	_ = c.Conn.SetWriteDeadline(c.until)
}

// SetWriteDeadline can shorten the limit of [limitedConn.extendDeadline], also for a pending write.
func (c *limitedConn) SetWriteDeadline(t time.Time) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.deadline, c.until = t, t
	return c.Conn.SetWriteDeadline(t)
}

func (c *limitedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
