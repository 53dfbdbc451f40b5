package gateway

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"example.com/curfew/web"
)

// The time that the body of a request without a session may take: slowGrace, plus the time for its bytes at slowRate,
// but at most slowLimit.
const (
	slowGrace = 30 * time.Second
	slowRate  = 16 << 10 // bytes per second
	slowLimit = 10 * time.Minute
)

var errSlow = errors.New("the body of a request without a session arrived too slowly")

// limitSlowBody limits how long a body on a public path may hold a connection, and one to the app. Signed-in users may
// take as long as the app allows.
func limitSlowBody(w http.ResponseWriter, r *http.Request) *http.Request {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return r
	}
	b := &slowBody{ReadCloser: r.Body, control: http.NewResponseController(w), began: time.Now()}
	b.extend()
	out := *r
	out.Body = b
	return &out
}

type slowBody struct {
	io.ReadCloser
	control *http.ResponseController
	began   time.Time
	read    atomic.Int64
}

// deadline returns when the next bytes must have arrived.
func (b *slowBody) deadline() time.Time {
	return b.began.Add(min(slowGrace+time.Duration(b.read.Load())*time.Second/slowRate, slowLimit))
}

func (b *slowBody) extend() { _ = b.control.SetReadDeadline(b.deadline()) }

// isSlow reports whether a request was given up because its body arrived too slowly. The server cancels the request's
// context then, as it does when the client disconnects.
func isSlow(r *http.Request) bool {
	b, ok := r.Body.(*slowBody)
	return ok && !time.Now().Before(b.deadline())
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Add(int64(n))
	switch {
	case err == io.EOF:
		_ = b.control.SetReadDeadline(time.Time{})
	case err == nil:
		b.extend()
	}
	return n, err
}

// slots counts the open requests.
type slots struct {
	mu        sync.Mutex
	total     int
	anonymous int // those without a session
}

var errTooManyOpen = errors.New("max_connections: too many requests are open")

// acquire takes one of most slots; requests without a session may take half of them. release gives it back. The error
// is a 503.
func (p *slots) acquire(most int, anonymous bool) (release func(), err error) {
	if most <= 0 {
		return func() {}, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total >= most || anonymous && p.anonymous >= max(1, most/2) {
		return nil, web.Fail(http.StatusServiceUnavailable,
			"Too many requests are open at the moment. Please try again.", errTooManyOpen)
	}
	count := func(n int) {
		p.total += n
		if anonymous {
			p.anonymous += n
		}
	}
	count(1)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		count(-1)
	}, nil
}
