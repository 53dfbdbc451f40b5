package extauthz

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"example.com/curfew/gateway"
)

// pipes is a listener whose connections are in memory, so that their time is that of a synctest bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// serve starts the server in memory, in a synctest bubble, and returns what connects.
func serve(t *testing.T) func(context.Context, string) (net.Conn, error) {
	t.Helper()
	line := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := NewServer(&gateway.Handler{})
	go server.Serve(line)
	t.Cleanup(func() {
		server.Stop()
		time.Sleep(time.Hour) // of the bubble
	})
	return func(context.Context, string) (net.Conn, error) {
		client, there := net.Pipe()
		line.conns <- there
		t.Cleanup(func() { client.Close() })
		return client, nil
	}
}

// raw is a client of HTTP/2 that does what Envoy would not.
type raw struct {
	framer   *http2.Framer
	settings map[http2.SettingID]uint32 // of the server
	window   uint32                     // by which that of the connection is larger than at first
	ended    map[uint32]time.Duration   // streams, and after what time
	closed   time.Duration
	over     chan struct{}
	mu       sync.Mutex
}

func speak(t *testing.T) *raw {
	t.Helper()
	conn, _ := serve(t)(t.Context(), "")
	c := &raw{framer: http2.NewFramer(conn, conn), settings: map[http2.SettingID]uint32{},
		ended: map[uint32]time.Duration{},
		over:  make(chan struct{})}
	began := time.Now()
	pings := make(chan [8]byte, 100)
	go func() {
		answers := http2.NewFramer(conn, nil)
		for data := range pings {
			answers.WritePing(true, data)
		}
	}()
	go func() {
		defer close(c.over)
		defer close(pings)
		for {
			frame, err := c.framer.ReadFrame()
			c.mu.Lock()
			switch f := frame.(type) {
			case *http2.SettingsFrame:
				f.ForeachSetting(func(one http2.Setting) error {
					c.settings[one.ID] = one.Val
					return nil
				})
			case *http2.WindowUpdateFrame:
				if f.StreamID == 0 {
					c.window += f.Increment
				}
			case *http2.RSTStreamFrame:
				c.ended[f.StreamID] = time.Since(began)
			case *http2.HeadersFrame:
				if f.StreamEnded() {
					c.ended[f.StreamID] = time.Since(began)
				}
			case *http2.PingFrame:
				if !f.IsAck() {
					pings <- f.Data
				}
			}
			if err != nil {
				c.closed = time.Since(began)
				c.mu.Unlock()
				return
			}
			c.mu.Unlock()
		}
	}()
	io.WriteString(conn, http2.ClientPreface)
	if err := c.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *raw) open(stream uint32) error {
	var head bytes.Buffer
	e := hpack.NewEncoder(&head)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "x"},
		{":path", "/envoy.service.auth.v3.Authorization/Check"}, {"content-type", "application/grpc"},
		{"te", "trailers"}} {
		e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(),
		EndHeaders: true})
}

func TestAQuestionThatIsTooLongIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, err := grpc.NewClient("passthrough:///x", grpc.WithContextDialer(serve(t)),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		q := &auth.CheckRequest{Attributes: &auth.AttributeContext{Request: &auth.AttributeContext_Request{
			Http: &auth.AttributeContext_HttpRequest{Path: "/", Body: string(make([]byte, maxMessage))},
		}}}
		_, err = auth.NewAuthorizationClient(conn).Check(t.Context(), q)
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("got %v, want ResourceExhausted", err)
		}
	})
}

// A question whose bytes do not come, or come a few at a time, is given up, and so is one that nobody asks.
func TestAQuestionThatDoesNotComeIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := speak(t)
		for _, stream := range []uint32{1, 3} {
			if err := c.open(stream); err != nil {
				t.Fatal(err)
			}
		}
		length := binary.BigEndian.AppendUint32([]byte{0}, maxMessage)
		if err := c.framer.WriteData(3, false, length); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			time.Sleep(time.Second)
			c.mu.Lock()
			over := c.ended[3] != 0
			c.mu.Unlock()
			if over {
				break
			}
			if err := c.framer.WriteData(3, false, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, stream := range []uint32{1, 3} {
			if after := c.ended[stream]; after < checkTimeout || after > checkTimeout+2*time.Second {
				t.Errorf("stream %d ended after %v, want %v", stream, after, checkTimeout)
			}
		}
	})
}

func TestAConnectionOfEnvoyIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := speak(t)
		for i := range uint32(maxStreams + 10) {
			if err := c.open(2*i + 1); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		c.mu.Lock()
		refused := len(c.ended)
		if c.settings[http2.SettingMaxConcurrentStreams] != maxStreams || refused != 10 {
			t.Errorf("the server says %v and refuses %d streams, want %d and 10", c.settings, refused, maxStreams)
		}
		if c.settings[http2.SettingMaxHeaderListSize] != maxHeader {
			t.Errorf("a header may have %d bytes", c.settings[http2.SettingMaxHeaderListSize])
		}
		if c.window+1<<16 > maxUnread+1<<10 {
			t.Errorf("%d bytes may be sent unasked, want %d", c.window+1<<16, maxUnread)
		}
		c.mu.Unlock()
		// The pings are answered, but nothing is asked any more.
		<-c.over
		if c.closed < idleTimeout || c.closed > 2*idleTimeout {
			t.Errorf("it was closed after %v, want %v", c.closed, idleTimeout)
		}
	})
}

func TestAConnectionThatIsNoHTTP2IsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, _ := serve(t)(t.Context(), "")
		began := time.Now()
		io.Copy(io.Discard, conn)
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("a connection that says nothing was closed after %v", took)
		}
	})
}
