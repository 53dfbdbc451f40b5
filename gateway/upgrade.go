package gateway

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Close codes of RFC 6455 §7.4.1.
const (
	closeGoingAway = 1001
	closePolicy    = 1008
)

const (
	lastWord = 250 * time.Millisecond // for a write under way to finish, and the close frame to be sent
	linger   = time.Second            // for the client to read it and close
)

// upgrader is the ResponseWriter of a request that is passed on, which may open a WebSocket.
type upgrader struct {
	http.ResponseWriter
	opens  bool
	stream *stream // nil when nobody is signed in
}

// WriteHeader lets no interim answer of the app pass for more than that: a 101 that came over HTTP/2 is none (RFC 9113
// §8.6), our server sends a 100 itself when one is due, and what else there may be is cut down to hints (RFC 8297 §2).
func (u *upgrader) WriteHeader(code int) {
	if code < 200 {
		if code <= http.StatusSwitchingProtocols {
			return
		}
		for name := range u.Header() {
			if name != "Link" {
				delete(u.Header(), name)
			}
		}
	}
	u.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (u *upgrader) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// Hijack hands over the client's connection, tied to the session from now on, if there is one.
func (u *upgrader) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if !u.opens {
		return nil, nil, http.ErrNotSupported
	}
	under, buffered, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil || u.stream == nil {
		return under, buffered, err
	}
	c := &upgraded{Conn: under, early: buffered.Reader, ended: make(chan struct{}), drained: make(chan struct{})}
	u.stream.tie(func() { u.stream.conn, u.stream.lasting = c, true })
	return c, bufio.NewReadWriter(buffered.Reader, bufio.NewWriterSize(c, 1<<10)), nil
}

// upgraded is a client's connection that speaks another protocol. It follows what the app sends, so that it is known
// where the frame of a WebSocket ends and a close frame may be put in.
type upgraded struct {
	net.Conn
	early   *bufio.Reader // what the client sent before its time
	over    atomic.Bool   // nothing passes any more; end is called next
	ended   chan struct{} // closed by end
	drained chan struct{} // closed when the client's side has been read to its end
	once    sync.Once

	mu     sync.Mutex // of writes
	frames frames
	said   bool // a close frame was sent; written by end alone
}

func (c *upgraded) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Write(p)
	c.frames.pass(p[:n])
	return n, err
}

func (c *upgraded) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.over.Load() {
		return 0, net.ErrClosed
	}
	return n, err
}

// ReadFrom copies what the app sends.
func (c *upgraded) ReadFrom(app io.Reader) (int64, error) {
	return pump(app.Read, func(p []byte) error {
		_, err := c.Write(p)
		return err
	})
}

// WriteTo copies what the client sends. After the end that is read and thrown away, until the client closes: closing
// with something unread would reset the connection, and the client might never see the close frame.
func (c *upgraded) WriteTo(app io.Writer) (int64, error) {
	defer c.once.Do(func() { close(c.drained) })
	if n := c.early.Buffered(); n > 0 {
		first, _ := c.early.Peek(n)
		if _, err := app.Write(first); err != nil {
			return 0, err
		}
	}
	return pump(c.Conn.Read, func(p []byte) error {
		if c.over.Load() {
			return nil
		}
		_, err := app.Write(p)
		if c.over.Load() {
			return nil
		}
		return err
	})
}

// CloseWrite says that the app has said all.
func (c *upgraded) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return net.ErrClosed
}

// Close waits, when the session has ended, for the close frame to be sent and for the client to take its leave.
func (c *upgraded) Close() error {
	if !c.over.Load() {
		return c.Conn.Close()
	}
	<-c.ended
	if c.said {
		wait := time.NewTimer(linger)
		defer wait.Stop()
		select {
		case <-c.drained:
		case <-wait.C:
		}
	}
	return c.Conn.Close()
}

// cut lets nothing pass any more, and says whether it is the first to.
func (c *upgraded) cut() bool { return c.over.CompareAndSwap(false, true) }

// end closes the connection, once, after cut: with a close frame if the app's last frame is complete, else hard.
func (c *upgraded) end(code uint16, reason string) {
	defer close(c.ended)
	c.Conn.SetWriteDeadline(time.Now().Add(lastWord)) // also of a write that waits for a client that does not read
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frames.between() {
		frame := append([]byte{0x88, byte(2 + len(reason))}, binary.BigEndian.AppendUint16(nil, code)...)
		if _, err := c.Conn.Write(append(frame, reason...)); err == nil {
			c.said = true
			c.Conn.SetReadDeadline(time.Now().Add(linger))
			c.CloseWrite()
			return
		}
	}
	c.Conn.Close()
}

const (
	smallBuffer = 1 << 10
	largeBuffer = 32 << 10
)

// pump copies with a buffer that is small while little comes at a time: most connections are silent most of the time.
func pump(read func([]byte) (int, error), write func([]byte) error) (total int64, err error) {
	small := make([]byte, smallBuffer)
	buf := small
	for {
		n, err := read(buf)
		if n > 0 {
			total += int64(n)
			if err := write(buf[:n]); err != nil {
				return total, err
			}
		}
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		case n == smallBuffer && len(buf) == smallBuffer:
			buf = make([]byte, largeBuffer)
		case n <= smallBuffer/4:
			buf = small
		}
	}
}

// frames follows the server's side of a WebSocket: the answer that switches protocols, then frames (RFC 6455 §5.2). On
// a connection that has become something else it never finds itself between two frames.
type frames struct {
	line   []byte // of the answer's head, as far as it is of interest
	opened bool   // the head is over
	socket bool   // it opens a WebSocket
	other  bool   // no WebSocket, or closed by the app already
	head   [14]byte
	have   int    // bytes of a frame's head seen
	left   uint64 // bytes of its payload to come
}

// between says whether a frame may begin here.
func (f *frames) between() bool { return f.opened && !f.other && f.have == 0 && f.left == 0 }

// pass takes note of what was sent.
func (f *frames) pass(p []byte) {
	for len(p) > 0 && !f.other {
		switch {
		case !f.opened:
			p = f.answer(p)
		case f.left > 0:
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
		default:
			f.head[f.have] = p[0]
			f.have++
			p = p[1:]
			f.begin()
		}
	}
}

// begin looks whether the head of a frame is complete.
func (f *frames) begin() {
	if f.have < 2 {
		return
	}
	size := 2
	switch f.left = uint64(f.head[1] & 0x7f); f.left {
	case 126:
		size = 4
		f.left = uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		size = 10
		f.left = binary.BigEndian.Uint64(f.head[2:])
	}
	if f.head[1]&0x80 != 0 {
		size += 4 // a mask, which a server does not use
	}
	if f.have < size {
		f.left = 0
		return
	}
	f.have = 0
	f.other = f.head[0]&0x0f == 8 // the app has closed it
}

// answer reads the head of the answer, and whether it opens a WebSocket.
func (f *frames) answer(p []byte) []byte {
	for i, b := range p {
		if b != '\n' {
			if len(f.line) < 256 {
				f.line = append(f.line, b)
			}
			continue
		}
		line := strings.TrimSuffix(string(f.line), "\r")
		f.line = f.line[:0]
		if line == "" {
			f.line, f.opened, f.other = nil, true, !f.socket
			return p[i+1:]
		}
		name, value, _ := strings.Cut(line, ":")
		f.socket = f.socket || strings.EqualFold(name, "Upgrade") &&
			strings.EqualFold(strings.TrimSpace(value), "websocket")
	}
	return nil
}
