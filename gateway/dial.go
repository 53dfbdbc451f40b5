package gateway

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// spareWait is how long a dial waits to be of use. A request that still waits for it has a connection long before: of
// those that the app has, one is idle then.
const spareWait = time.Second

var errSpare = errors.New("there are as many connections to the app as there were ever requests")

// lines bounds the connections to an app by the most requests that were under way at once. Go's transport dials for each
// request that finds no idle connection, and keeps what it dialled when another connection has served the request
// meanwhile: under load there would be ever more of them.
type lines struct {
	dialer net.Dialer

	mu      sync.Mutex
	active  int // requests under way
	most    int // of these at once
	open    int // connections, and dials under way
	changed chan struct{}
}

// enter counts a request; leave is called when it is over, body and all.
func (l *lines) enter() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active++
	if l.active > l.most {
		l.most = l.active
		l.wake()
	}
}

func (l *lines) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
}

// wake lets those that wait look again. The lock is held.
func (l *lines) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// dial is for http.Transport.
func (l *lines) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := l.reserve(ctx); err != nil {
		return nil, err
	}
	conn, err := l.dialer.DialContext(ctx, network, address)
	if err != nil {
		l.free()
		return nil, err
	}
	return &counted{TCPConn: conn.(*net.TCPConn), free: sync.OnceFunc(l.free)}, nil
}

func (l *lines) reserve(ctx context.Context) error {
	var late <-chan time.Time
	for {
		l.mu.Lock()
		if l.open < l.most {
			l.open++
			l.mu.Unlock()
			return nil
		}
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		if late == nil {
			timer := time.NewTimer(spareWait)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return errSpare
		}
	}
}

func (l *lines) free() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.wake()
}

// counted is a connection that is counted until it is closed.
type counted struct {
	*net.TCPConn
	free func()
}

func (c *counted) Close() error {
	c.free()
	return c.TCPConn.Close()
}
