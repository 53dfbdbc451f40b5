package main

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// single is a listener of one connection.
type single struct {
	conn chan net.Conn
	done chan struct{}
}

func (l *single) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *single) Close() error   { close(l.done); return nil }
func (l *single) Addr() net.Addr { return &net.TCPAddr{} }

// A client that says a byte now and then holds a connection for as long as we let it: until the head of its request
// should be over, or the body of one that is for us.
func TestCVE_2026_26999_AClientThatNeverFinishesIsCut(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		says string // at once
		cut  time.Duration
	}{
		"nothing":             {"", headerTimeout},
		"a head that goes on": {"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", headerTimeout},
		"a form a byte at a time": {"POST /auth/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
			routeTimeout},
		"no second request, ever": {"GET /auth/x HTTP/1.1\r\nHost: x\r\n\r\n", idleTimeout},
		"chunks that say nothing much": {"POST /auth/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n1\r\nx\r\n",
			routeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &single{make(chan net.Conn, 1), make(chan struct{})}
				server := newHTTPServer(limitTime(http.HandlerFunc(func(w http.ResponseWriter,
					r *http.Request) {
					io.Copy(io.Discard, r.Body)
				}), ""),
					slog.New(slog.DiscardHandler))
				go server.Serve(l)
				defer server.Close()
				client, there := net.Pipe()
				defer client.Close()
				l.conn <- there
				began := time.Now()
				var saying sync.WaitGroup
				saying.Go(func() {
					io.WriteString(client, row.says)
					for row.cut != idleTimeout && row.says != "" {
						time.Sleep(time.Second)
						if _, err := io.WriteString(client, "1"); err != nil {
							return
						}
					}
				})
				io.Copy(io.Discard, client) // until it is closed
				if took := time.Since(began); took < row.cut || took > row.cut+2*time.Second {
					t.Errorf("it was cut after %v, want %v", took, row.cut)
				}
				client.Close()
				saying.Wait()
			})
		})
	}
}
