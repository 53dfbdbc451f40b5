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

// What the body of a request may take when nobody is signed in: slowGrace, and the time that its bytes take at
// slowRate, but no more than slowMost in all.
const (
	slowGrace = 30 * time.Second
	slowRate  = 16 << 10 // bytes in a second
	slowLimit = 10 * time.Minute
)

var errSlow = errors.New("the body of a request by nobody who is signed in came too slowly")

// slowly bounds how long a body on a public path may hold a connection, and one to the app. Whoever is signed in may
// take as long as the app allows.
func slowly(w http.ResponseWriter, r *http.Request) *http.Request {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return r
	}
	b := &slowBody{ReadCloser: r.Body, control: http.NewResponseController(w), began: time.Now()}
	b.allow()
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

// deadline is when what comes next has to be there.
func (b *slowBody) deadline() time.Time {
	return b.began.Add(min(slowGrace+time.Duration(b.read.Load())*time.Second/slowRate, slowLimit))
}

func (b *slowBody) allow() { _ = b.control.SetReadDeadline(b.deadline()) }

// late says whether a request was given up because its body came too slowly. The server cancels the request's context
// for that, as it does for a client that went away.
func late(r *http.Request) bool {
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
		b.allow()
	}
	return n, err
}

// places are those of requests that are open.
type places struct {
	mu        sync.Mutex
	all       int
	strangers int // of all, those by nobody who is signed in
}

var errFull = errors.New("max_connections: so many requests are open already")

// enter takes one of most places, of which strangers have half; leave gives it back. The error is a 503.
func (p *places) enter(most int, stranger bool) (leave func(), err error) {
	if most <= 0 {
		return func() {}, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= most || stranger && p.strangers >= max(1, most/2) {
		return nil, web.Fail(http.StatusServiceUnavailable, "Too many people are here at the moment. Please try again.",
			errFull)
	}
	count := func(n int) {
		p.all += n
		if stranger {
			p.strangers += n
		}
	}
	count(1)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		count(-1)
	}, nil
}
