package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
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
func slowly(w http.ResponseWriter, r *http.Request, cancel context.CancelCauseFunc) *http.Request {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return r
	}
	b := &slowBody{ReadCloser: r.Body, control: http.NewResponseController(w), began: time.Now(), cancel: cancel}
	b.allow()
	out := *r
	out.Body = b
	return &out
}

type slowBody struct {
	io.ReadCloser
	control *http.ResponseController
	cancel  context.CancelCauseFunc
	began   time.Time
	read    int64
}

func (b *slowBody) allow() {
	most := min(slowGrace+time.Duration(b.read)*time.Second/slowRate, slowMost)
	_ = b.control.SetReadDeadline(b.began.Add(most))
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	switch {
	case err == io.EOF:
		_ = b.control.SetReadDeadline(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.cancel(errSlow)
	case err == nil:
		b.allow()
	}
	return n, err
}
