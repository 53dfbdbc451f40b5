package main

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"example.com/curfew/web"
)

// speaker is a client of HTTP/2 that does what no browser would.
type speaker struct {
	t       *testing.T
	conn    net.Conn
	framer  *http2.Framer
	head    bytes.Buffer
	encoder *hpack.Encoder

	mu       sync.Mutex
	settings map[http2.SettingID]uint32 // of the server
	resets   map[http2.ErrCode]int      // of streams
	away     []http2.ErrCode            // of GOAWAY frames
	closed   chan struct{}
}

// speak begins HTTP/2 with newServer, in memory. It is called in a synctest bubble.
func speak(t *testing.T, h http.Handler) *speaker {
	t.Helper()
	line := newPipes()
	server := newHTTPServer(h, slog.New(slog.DiscardHandler))
	server.Protocols = new(http.Protocols) // as after TLS
	server.Protocols.SetUnencryptedHTTP2(true)
	go server.Serve(line)
	client, there := net.Pipe()
	line.conns <- there
	s := &speaker{t: t, conn: client, framer: http2.NewFramer(client, client), settings: map[http2.SettingID]uint32{},
		resets: map[http2.ErrCode]int{}, closed: make(chan struct{})}
	s.encoder = hpack.NewEncoder(&s.head)
	t.Cleanup(func() {
		client.Close()
		server.Close()
		time.Sleep(2 * web.WriteTime) // of the bubble
	})
	go s.listen()
	io.WriteString(client, http2.ClientPreface)
	if err := s.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *speaker) listen() {
	defer close(s.closed)
	for {
		frame, err := s.framer.ReadFrame()
		if err != nil {
			return
		}
		s.mu.Lock()
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			f.ForeachSetting(func(one http2.Setting) error {
				s.settings[one.ID] = one.Val
				return nil
			})
		case *http2.RSTStreamFrame:
			s.resets[f.ErrCode]++
		case *http2.GoAwayFrame:
			s.away = append(s.away, f.ErrCode)
		}
		s.mu.Unlock()
	}
}

// open begins a request.
func (s *speaker) open(stream uint32, method, path string, whole bool) error {
	s.head.Reset()
	for _, f := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "x"}, {":path", path}} {
		s.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return s.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: s.head.Bytes(), EndHeaders: true, EndStream: whole,
	})
}

// crowd counts the handlers that run at a time.
type crowd struct {
	now, most atomic.Int64
	let       chan struct{}
}

func (c *crowd) ServeHTTP(http.ResponseWriter, *http.Request) {
	n := c.now.Add(1)
	defer c.now.Add(-1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	<-c.let
}

func TestAConnectionOfHTTP2HasSoManyStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{let: make(chan struct{})}
		s := speak(t, c)
		for i := range uint32(maxStreams + 50) {
			if err := s.open(2*i+1, http.MethodGet, "/", true); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if c.most.Load() != maxStreams {
			t.Errorf("%d handlers run, want %d", c.most.Load(), maxStreams)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.settings[http2.SettingMaxConcurrentStreams] != maxStreams {
			t.Errorf("the server says %v", s.settings)
		}
		if refused := s.resets[http2.ErrCodeProtocol] + s.resets[http2.ErrCodeRefusedStream]; refused != 50 {
			t.Errorf("the server resets %v, want 50 streams", s.resets)
		}
		close(c.let)
	})
}

// CVE-2023-44487: each request is taken back at once, and its handler may run on.
func TestARapidResetStartsNoMoreHandlers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{let: make(chan struct{})}
		s := speak(t, c)
		var err error
		for i := uint32(0); i < 20*maxStreams && err == nil; i++ {
			if err = s.open(2*i+1, http.MethodGet, "/", true); err == nil {
				err = s.framer.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
			}
		}
		<-s.closed
		if c.most.Load() > maxStreams {
			t.Errorf("%d handlers ran at a time, want %d", c.most.Load(), maxStreams)
		}
		if len(s.away) != 1 || s.away[0] != http2.ErrCodeEnhanceYourCalm {
			t.Errorf("the server goes away with %v, want ENHANCE_YOUR_CALM", s.away)
		}
		close(c.let)
	})
}

// CVE-2023-45288: a header that goes on in CONTINUATION frames is bounded in size, and in time.
func TestAHeaderOverHTTP2IsBounded(t *testing.T) {
	t.Parallel()
	never := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })
	synctest.Test(t, func(t *testing.T) {
		s := speak(t, never)
		s.head.Reset()
		s.encoder.WriteField(hpack.HeaderField{Name: "x-a", Value: strings.Repeat("\xff", 8<<10), Sensitive: true})
		err := s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: nil})
		sent := 0
		for sent < 1<<20 && err == nil {
			err = s.framer.WriteContinuation(1, false, s.head.Bytes()[:min(s.head.Len(), 16<<10)])
			sent += s.head.Len()
		}
		if err == nil || sent > 4*maxHeader {
			t.Errorf("%d bytes of a header were taken, then %v", sent, err)
		}
		<-s.closed
	})
	for name, begin := range map[string]func(s *speaker) error{
		"nothing":       func(*speaker) error { return nil },
		"half a header": func(s *speaker) error { return s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1}) },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := speak(t, never)
			began := time.Now()
			if err := begin(s); err != nil {
				t.Fatal(err)
			}
			<-s.closed
			if took := time.Since(began); took > idleTimeout+10*time.Second {
				t.Errorf("%s, and the connection was closed after %v", name, took)
			}
		})
	}
}

func TestABodyOverHTTP2IsBounded(t *testing.T) {
	t.Parallel()
	for path, most := range map[string]time.Duration{"/auth/form": 10 * time.Second, "/auth/x": routeTimeout} {
		synctest.Test(t, func(t *testing.T) {
			site := &web.Site{URL: &url.URL{Scheme: "https", Host: "x"}, Log: slog.New(slog.DiscardHandler)}
			read := func(_ http.ResponseWriter, r *http.Request) error {
				_, err := io.Copy(io.Discard, r.Body)
				return err
			}
			over := make(chan error, 1)
			s := speak(t, limitTime(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if path == "/auth/form" {
					site.Page(read).ServeHTTP(w, r)
					over <- nil
				} else {
					over <- read(w, r)
				}
			}), "/auth"))
			began := time.Now()
			if err := s.open(1, http.MethodPost, path, false); err != nil {
				t.Fatal(err)
			}
			go func() {
				for s.framer.WriteData(1, false, []byte("x")) == nil {
					time.Sleep(time.Second)
				}
			}()
			<-over
			if took := time.Since(began); took > most+time.Second {
				t.Errorf("%s: the body was waited for %v, want %v", path, took, most)
			}
		})
	}
}

// A body that nobody reads takes as much memory as the client may send unasked.
func TestABodyOverHTTP2ThatIsNotReadIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{let: make(chan struct{})}
		s := speak(t, c)
		if err := s.open(1, http.MethodPost, "/", false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if window := s.settings[http2.SettingInitialWindowSize]; window > maxUnread {
			t.Errorf("the window of a stream is %d, want %d", window, maxUnread)
		}
		if frame := s.settings[http2.SettingMaxFrameSize]; frame > 16<<10 {
			t.Errorf("a frame may have %d bytes, want %d", frame, 16<<10)
		}
		var err error
		sent := 0
		for ; sent < 2*maxUnread && err == nil; sent += 16 << 10 {
			err = s.framer.WriteData(1, false, make([]byte, 16<<10))
			synctest.Wait()
			s.mu.Lock()
			if s.resets[http2.ErrCodeFlowControl]+len(s.away) > 0 {
				err = net.ErrClosed
			}
			s.mu.Unlock()
		}
		if sent > maxUnread+16<<10 {
			t.Errorf("%d bytes were taken, want %d", sent, maxUnread)
		}
		close(c.let)
	})
}

// Over HTTP/2 strangers could have as many requests as all connections have streams.
func TestRequestsToOurOwnRoutesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{let: make(chan struct{})}
		s := speak(t, limitRequests(10, c))
		for i := range uint32(30) {
			if err := s.open(2*i+1, http.MethodGet, "/", true); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if c.most.Load() != 10 {
			t.Errorf("%d handlers run, want 10", c.most.Load())
		}
		close(c.let)
		synctest.Wait()
		if err := s.open(101, http.MethodGet, "/", true); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if c.now.Load() != 0 {
			t.Error("a place was not given back")
		}
	})
}

// The private listener has no streams, so a whole request and a whole answer are bounded.
func TestThePrivateListenerCutsSlowClients(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		says, drips string
		reads       bool
		cut         time.Duration
	}{
		"nothing":     {"", "", true, headerTimeout},
		"half a head": {"GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: ", "x", true, headerTimeout},
		"half a form": {"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", "x", true,
			routeTimeout},
		"a body that is not asked": {"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", "x", true,
			routeTimeout},
		"an answer that is not read": {"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "", false, 2 * routeTimeout},
		"nothing more":               {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", true, idleTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				line := newPipes()
				g := newLimitListener(line, "private", maxPrivate, slog.New(slog.DiscardHandler))
				s := newServer(g, newPrivateServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch r.URL.Path {
					case "/api":
						io.Copy(io.Discard, r.Body)
					case "/metrics":
						w.Write(make([]byte, 1<<20))
					}
				}), slog.New(slog.DiscardHandler)))
				go s.serve()
				defer s.http.Close()
				client, there := net.Pipe()
				defer client.Close()
				line.conns <- there
				began := time.Now()
				var saying sync.WaitGroup
				saying.Go(func() {
					_, err := io.WriteString(client, row.says)
					for err == nil && row.drips != "" {
						time.Sleep(time.Second)
						_, err = io.WriteString(client, row.drips)
					}
				})
				if row.reads {
					go io.Copy(io.Discard, client)
				}
				synctest.Wait()
				for g.opened() > 0 && time.Since(began) < time.Hour {
					time.Sleep(time.Second)
				}
				if took := time.Since(began); took < row.cut || took > row.cut+2*time.Second {
					t.Errorf("it was cut after %v, want %v", took, row.cut)
				}
				client.Close()
				saying.Wait() // in fake time, it may be asleep until now
			})
		})
	}
}
