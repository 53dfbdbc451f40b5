package gateway

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are in memory, so that their deadlines pass in the time of a synctest bubble.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// trickle sends a request by nobody who is signed in, whose body comes in pieces, and returns after how long it was
// given up, if that is before the body was whole.
func trickle(t *testing.T, size, piece int, every time.Duration) (after time.Duration, gaveUp bool) {
	t.Helper()
	listener := make(pipes, 1)
	ended := make(chan bool, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = limitSlowBody(w, r)
		_, err := io.Copy(io.Discard, r.Body)
		if err != nil && !isSlow(r) {
			t.Errorf("the body broke off, and not for being late: %v", err)
		}
		ended <- err != nil
	})}
	go server.Serve(listener)
	client, conn := net.Pipe()
	over := make(chan struct{})
	defer func() {
		close(over)
		close(listener)
		client.Close()
		server.Close()
		time.Sleep(time.Minute) // of the bubble: until everything has ended
	}()
	listener <- conn
	began := time.Now()
	go func() {
		io.WriteString(client, "POST /public HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: "+
			strconv.Itoa(size)+"\r\n\r\n")
		for sent := 0; sent < size; sent += piece {
			select {
			case <-over:
				return
			case <-time.After(every):
			}
			if _, err := io.WriteString(client, strings.Repeat("x", min(piece, size-sent))); err != nil {
				return
			}
		}
	}()
	go io.Copy(io.Discard, client)
	gaveUp = <-ended
	return time.Since(began), gaveUp
}

// A body by nobody who is signed in may take slowGrace, and the time that its bytes take at slowRate, but not more.
func TestASlowBodyOfAStrangerIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		size, piece int
		every       time.Duration
		gaveUp      time.Duration // 0: the body arrives
	}{
		{"nothing comes", 10, 10, time.Hour, slowGrace},
		{"a byte in 15 s", 100, 1, 15 * time.Second, slowGrace},
		{"as fast as is asked", 4 << 20, slowRate, time.Second, 0},
		{"ten times too slow", 4 << 20, slowRate, 10 * time.Second, 33 * time.Second},
		{"fast enough, but without end", 1 << 30, slowRate, time.Second, slowLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				after, gaveUp := trickle(t, c.size, c.piece, c.every)
				if gaveUp != (c.gaveUp > 0) || gaveUp && (after-c.gaveUp).Abs() > time.Second {
					t.Errorf("given up %v after %v, want after %v", gaveUp, after, c.gaveUp)
				}
			})
		})
	}
}
