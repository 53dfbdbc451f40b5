package gateway

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// What the body of a request may take when nobody is signed in: slowGrace, and the time that its bytes take at slowRate,
// but no more than slowMost in all.
const (
	slowGrace = 30 * time.Second
	slowRate  = 16 << 10 // bytes in a second
	slowMost  = 10 * time.Minute
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
	return b.began.Add(min(slowGrace+time.Duration(b.read.Load())*time.Second/slowRate, slowMost))
}

func (b *slowBody) allow() { _ = b.control.SetReadDeadline(b.deadline()) }

// late says whether a request was given up because its body came too slowly. The server cancels the request's context for
// that, as it does for a client that went away.
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
