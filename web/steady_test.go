package web

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// pipes is a listener whose connections are in memory, so that their deadlines pass in the time of a synctest bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// answering serves h on a connection in memory, over HTTP/1 and HTTP/2, and returns the client's end.
func answering(t *testing.T, h http.Handler) net.Conn {
	t.Helper()
	l := &pipes{make(chan net.Conn, 1), make(chan struct{})}
	server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			w, done := Steady(w)
			defer done()
			h.ServeHTTP(w, r)
		})}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go server.Serve(l)
	client, there := net.Pipe()
	l.conns <- there
	t.Cleanup(func() {
		client.Close()
		server.Close()
		time.Sleep(2 * WriteTime) // of the bubble: until everything has ended
	})
	return client
}

// handler answers as c says, and tells when it returned and with what.
type handler struct {
	pieces int
	size   int
	every  time.Duration
	flush  bool
	over   chan outcome
}

type outcome struct {
	after time.Duration
	err   error
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	var err error
	for i := 0; i < h.pieces && err == nil; i++ {
		if i > 0 {
			time.Sleep(h.every)
		}
		_, err = w.Write(bytes.Repeat([]byte("x"), h.size))
		if err == nil && h.flush {
			err = http.NewResponseController(w).Flush()
		}
	}
	h.over <- outcome{time.Since(began), err}
}

// reader reads so much, every so often; 0: nothing at all.
type reader struct {
	size  int
	every time.Duration
}

var steadyCases = []struct {
	name   string
	answer handler
	client reader
	given  time.Duration // after this the answer is given up; 0: it goes on to its end
}{
	{"a large answer that is not read", handler{pieces: 1, size: 8 << 20}, reader{}, WriteTime},
	{"an endless answer that is not read", handler{pieces: 1 << 20, size: 16 << 10}, reader{}, WriteTime},
	{"a stream that is not read", handler{pieces: 1 << 20, size: 100, every: time.Second, flush: true}, reader{},
		WriteTime},
	{"a large answer, read slowly", handler{pieces: 1, size: 8 << 20}, reader{16 << 10, 10 * time.Second}, 0},
	{"many pieces, read slowly", handler{pieces: 256, size: 16 << 10}, reader{16 << 10, 20 * time.Second}, 0},
	{"a stream that says something in an hour",
		handler{pieces: 10, size: 100, every: time.Hour, flush: true}, reader{4 << 10, time.Millisecond}, 0},
}

func judge(t *testing.T, h *handler, given time.Duration) {
	t.Helper()
	got := <-h.over
	switch late := got.after - given; {
	case given == 0 && got.err != nil:
		t.Errorf("given up after %v: %v", got.after, got.err)
	case given > 0 && (got.err == nil || late < 0 || late > 10*time.Second):
		t.Errorf("ended after %v with %v, want it given up after %v", got.after, got.err, given)
	}
}

func TestAnAnswerOverHTTP1MakesProgressOrEnds(t *testing.T) {
	t.Parallel()
	for _, c := range steadyCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := c.answer
				h.over = make(chan outcome, 1)
				conn := answering(t, &h)
				go func() {
					io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
					for buf := make([]byte, c.client.size); c.client.size > 0; time.Sleep(c.client.every) {
						if _, err := io.ReadFull(conn, buf); err != nil {
							return
						}
					}
				}()
				judge(t, &h, c.given)
			})
		})
	}
}

// A client that opens the window of a stream never, or little by little.
func TestAnAnswerOverHTTP2MakesProgressOrEnds(t *testing.T) {
	t.Parallel()
	for _, c := range steadyCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := c.answer
				h.over = make(chan outcome, 1)
				client := speak(t, answering(t, &h), 0)
				client.open(1)
				go func() {
					for c.client.size > 0 {
						for _, stream := range []uint32{0, 1} {
							if client.framer.WriteWindowUpdate(stream, uint32(c.client.size)) != nil {
								return
							}
						}
						time.Sleep(max(c.client.every, time.Second))
					}
				}()
				judge(t, &h, c.given)
			})
		})
	}
}

// What a handler leaves in a buffer is written when it has returned.
func TestTheEndOfAnAnswerThatIsNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := &handler{pieces: 1, size: 100, over: make(chan outcome, 1)}
			began := time.Now()
			conn := answering(t, h)
			if http2 {
				client := speak(t, conn, 0)
				client.open(1)
				<-client.reset
				if after := time.Since(began); after != WriteTime {
					t.Errorf("over HTTP/2 the stream ended after %v, want %v", after, WriteTime)
				}
				return
			}
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			<-h.over
			time.Sleep(WriteTime + time.Second)
			rest, _ := io.ReadAll(conn)
			if strings.Contains(string(rest), "xxx") {
				t.Error("over HTTP/1 the answer was kept for longer")
			}
		})
	}
}

// Over HTTP/1 what bounded one answer must not cut the next.
func TestAnAnswerLeavesNoDeadlineToTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &handler{pieces: 1, size: 100, over: make(chan outcome, 2)}
		conn := answering(t, h)
		lines := bufio.NewReader(conn)
		for range 2 {
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(lines, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * WriteTime)
		}
	})
}

// speaker is a client of HTTP/2 that does what no browser would.
type speaker struct {
	t      *testing.T
	framer *http2.Framer
	reset  chan uint32 // streams that the server has given up
}

// speak begins HTTP/2, with so large a window for each stream, and reads whatever frames come.
func speak(t *testing.T, conn net.Conn, window uint32) *speaker {
	t.Helper()
	s := &speaker{t, http2.NewFramer(conn, conn), make(chan uint32, 1)}
	go func() {
		for {
			frame, err := s.framer.ReadFrame()
			if err != nil {
				return
			}
			if rst, ok := frame.(*http2.RSTStreamFrame); ok {
				s.reset <- rst.StreamID
			}
		}
	}()
	io.WriteString(conn, http2.ClientPreface)
	if err := s.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *speaker) open(stream uint32) {
	s.t.Helper()
	var head bytes.Buffer
	e := hpack.NewEncoder(&head)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "x"}, {":path", "/"}} {
		e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	err := s.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: head.Bytes(), EndHeaders: true, EndStream: true,
	})
	if err != nil {
		s.t.Fatal(err)
	}
}
