package main

import (
	queue "container/list"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"example.com/curfew/web"
)

const (
	// settle is how long a connection that has no request is left alone: what it was answered may still be on its way.
	settle = 100 * time.Millisecond
	// fullEvery is how often, at most, it is logged that a listener is full.
	fullEvery = time.Minute
	writePart = 64 << 10 // bytes that one write may hold back the next
)

// gate is a listener with so many connections at a time. When it is full, a new one takes the place of the one that has
// been without a request for longest, be it idle or silent from its beginning. When all have requests, it waits.
type gate struct {
	net.Listener
	name  string
	most  int
	quiet bool // nobody tells which connections have requests: one has none while its client says nothing
	log   *slog.Logger

	mu      sync.Mutex
	left    sync.Cond // a connection has ended or has no request any more, or the listener is closed
	closed  bool
	open    int
	waiting queue.List // *guest without a request, the longest first
	told    time.Time
}

func newGate(l net.Listener, name string, most int, log *slog.Logger) *gate {
	g := &gate{Listener: l, name: name, most: most, log: log}
	g.left.L = &g.mu
	return g
}

// Accept waits for a connection, and until there is room for it.
func (g *gate) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.open >= g.most && !g.closed {
		g.tell()
		g.makeRoom()
	}
	if g.closed {
		c.Close()
		return nil, net.ErrClosed
	}
	g.open++
	in := &guest{Conn: c, gate: g}
	in.wait()
	return in, nil
}

// makeRoom closes the connection that has been without a request for longest. If there is none, it waits for what
// changes.
func (g *gate) makeRoom() {
	if first := g.waiting.Front(); first != nil {
		c := first.Value.(*guest)
		rest := settle - time.Since(c.since)
		if rest <= 0 {
			c.leave()
			c.Conn.Close()
			return
		}
		defer time.AfterFunc(rest, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.left.Broadcast()
		}).Stop()
	}
	g.left.Wait()
}

// tell logs that the gate is full.
func (g *gate) tell() {
	if now := time.Now(); g.told.IsZero() || now.Sub(g.told) >= fullEvery {
		g.told = now
		g.log.Warn("there is no room for more connections: those without a request are closed for new ones, the "+
			"longest "+
			"first",
			"event", "connections_full", "listener", g.name, "most", g.most)
	}
}

// Close also ends an Accept that waits for room.
func (g *gate) Close() error {
	err := g.Listener.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.left.Broadcast()
	return err
}

// state is for [http.Server.ConnState].
func (g *gate) state(conn net.Conn, state http.ConnState) {
	if under, ok := conn.(interface{ NetConn() net.Conn }); ok { // of TLS
		conn = under.NetConn()
	}
	c, ok := conn.(*guest)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch state {
	case http.StateActive, http.StateHijacked:
		c.act()
	case http.StateIdle:
		c.wait()
	}
}

// guest is a connection that a gate let in. A write to it makes progress within [web.WriteTime], or it is closed.
type guest struct {
	net.Conn
	gate *gate

	// Guarded by gate.mu.
	at    *queue.Element // nil while it has a request
	since time.Time      // it has none
	gone  bool

	writing  sync.Mutex // of deadline
	deadline time.Time  // of writes, as it was set from outside
}

// wait is called when the connection has no request any more. The gate is locked, as in act and leave.
func (c *guest) wait() {
	if c.gone {
		return
	}
	c.act()
	c.since = time.Now()
	c.at = c.gate.waiting.PushBack(c)
	c.gate.left.Broadcast()
}

// act is called when the connection has a request.
func (c *guest) act() {
	if c.at != nil {
		c.gate.waiting.Remove(c.at)
		c.at = nil
	}
}

func (c *guest) leave() {
	if !c.gone {
		c.act()
		c.gone = true
		c.gate.open--
		c.gate.left.Broadcast()
	}
}

func (c *guest) Close() error {
	c.gate.mu.Lock()
	c.leave()
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite is for net/http, which has a client read the answer before it closes.
func (c *guest) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *guest) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.gate.quiet && n > 0 {
		c.gate.mu.Lock()
		c.wait()
		c.gate.mu.Unlock()
	}
	return n, err
}

func (c *guest) Write(p []byte) (n int, err error) {
	for {
		part := p[n:min(len(p), n+writePart)]
		c.allow()
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

// allow sets the deadline of the next write.
func (c *guest) allow() {
	c.writing.Lock()
	defer c.writing.Unlock()
	at := time.Now().Add(web.WriteTime)
	if !c.deadline.IsZero() && c.deadline.Before(at) {
		at = c.deadline
	}
	_ = c.Conn.SetWriteDeadline(at)
}

// SetWriteDeadline can shorten what [guest.allow] gives, also that of a write under way.
func (c *guest) SetWriteDeadline(t time.Time) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.deadline = t
	return c.Conn.SetWriteDeadline(t)
}

func (c *guest) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
