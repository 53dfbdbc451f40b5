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

// Close codes (RFC 6455 §7.4.1).
const (
	closeGoingAway = 1001
	closePolicy    = 1008
)

const (
	closeTimeout  = 250 * time.Millisecond // for a pending write to finish and the close frame to be sent
	lingerTimeout = time.Second            // for the client to read the frame and close
)

// upgradeWriter is the ResponseWriter of a request that is passed on and may open a WebSocket.
type upgradeWriter struct {
	http.ResponseWriter
	webSocket bool
	stream    *stream // nil if nobody is signed in
}

// WriteHeader filters the interim responses of the app. A 101 over HTTP/2 is invalid (RFC 9113 §8.6), and the server
// sends a 100 itself when needed, so both are dropped. Others keep only their Link headers, as early hints (RFC 8297
// §2).
func (u *upgradeWriter) WriteHeader(code int) {
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
func (u *upgradeWriter) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// Hijack returns the client's connection, attached to the session, if there is one.
func (u *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if !u.webSocket {
		return nil, nil, http.ErrNotSupported
	}
	under, buffered, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil || u.stream == nil {
		return under, buffered, err
	}
	c := &upgradedConn{Conn: under, buffered: buffered.Reader, ended: make(chan struct{}), drained: make(chan struct{})}
	u.stream.attach(func() { u.stream.conn, u.stream.lasting = c, true })
	return c, bufio.NewReadWriter(buffered.Reader, bufio.NewWriterSize(c, 1<<10)), nil
}

// upgradedConn is a client's connection after a change of protocol. It tracks what the app sends, to know where a
// WebSocket frame ends and a close frame may be inserted.
type upgradedConn struct {
	net.Conn
	buffered *bufio.Reader // what the client sent before the switch
	cutOff   atomic.Bool   // no more data passes; end is called next
	ended    chan struct{} // closed by end
	drained  chan struct{} // closed when the client's side has been read to EOF
	once     sync.Once

	mu        sync.Mutex // guards writes
	frames    frameTracker
	unsent    []byte // the rest of a close frame, of which a part was sent
	closeSent bool   // a close frame was sent; set only by sendClose and end
}

func (c *upgradedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cutOff.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Write(p)
	c.frames.track(p[:n])
	return n, err
}

func (c *upgradedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.cutOff.Load() {
		return 0, net.ErrClosed
	}
	return n, err
}

// ReadFrom copies what the app sends.
func (c *upgradedConn) ReadFrom(app io.Reader) (int64, error) {
	return pump(app.Read, func(p []byte) error {
		_, err := c.Write(p)
		return err
	})
}

// WriteTo copies what the client sends. After the end that is read and discarded until the client closes: closing a
// connection with unread data would reset it, and the client might never see the close frame.
func (c *upgradedConn) WriteTo(app io.Writer) (int64, error) {
	defer c.once.Do(func() { close(c.drained) })
	if n := c.buffered.Buffered(); n > 0 {
		first, _ := c.buffered.Peek(n)
		if _, err := app.Write(first); err != nil {
			return 0, err
		}
	}
	return pump(c.Conn.Read, func(p []byte) error {
		if c.cutOff.Load() {
			return nil
		}
		_, err := app.Write(p)
		if c.cutOff.Load() {
			return nil
		}
		return err
	})
}

// CloseWrite closes the direction from the app to the client.
func (c *upgradedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return net.ErrClosed
}

// Close waits, if the session has ended, until the close frame is sent and the client has closed its side.
func (c *upgradedConn) Close() error {
	if !c.cutOff.Load() {
		return c.Conn.Close()
	}
	<-c.ended
	if c.closeSent {
		wait := time.NewTimer(lingerTimeout)
		defer wait.Stop()
		select {
		case <-c.drained:
		case <-wait.C:
		}
	}
	return c.Conn.Close()
}

// cut stops all data, and reports whether this call was the first.
func (c *upgradedConn) cut() bool { return c.cutOff.CompareAndSwap(false, true) }

// closeFrame returns a close frame (RFC 6455 §5.5.1).
func closeFrame(code uint16, reason string) []byte {
	frame := append([]byte{0x88, byte(2 + len(reason))}, binary.BigEndian.AppendUint16(nil, code)...)
	return append(frame, reason...)
}

// sendClose sends a close frame if that can be done at once, and reports whether it did. It is called once, after cut.
// After true, call finish; after false, end.
func (c *upgradedConn) sendClose(frame []byte) bool {
	if !c.mu.TryLock() { // a write is waiting for the client
		return false
	}
	defer c.mu.Unlock()
	if !c.frames.atBoundary() {
		return false
	}
	n := writeNow(c.Conn, frame)
	if n < len(frame) {
		if n > 0 {
			c.unsent = frame[n:]
		}
		return false
	}
	c.closeSent = true
	return true
}

// finish ends the direction to the client after a close frame.
func (c *upgradedConn) finish() {
	defer close(c.ended)
	c.Conn.SetReadDeadline(time.Now().Add(lingerTimeout))
	c.CloseWrite()
}

// end sends a close frame, and waits a moment for a client that does not read. It is called once, after sendClose
// could not. After true, call finish. After false, the connection is closed: the app's last frame is not complete, or
// the client did not take the close frame.
func (c *upgradedConn) end(frame []byte) bool {
	c.Conn.SetWriteDeadline(time.Now().Add(closeTimeout)) // also for a pending write
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frames.atBoundary() {
		if c.unsent != nil {
			frame = c.unsent
		}
		if _, err := c.Conn.Write(frame); err == nil {
			c.closeSent = true
			return true
		}
	}
	defer close(c.ended)
	c.Conn.Close()
	return false
}

const (
	smallBuffer = 1 << 10
	largeBuffer = 32 << 10
)

// pump copies with a buffer that is small while little data arrives: most connections are idle most of the time.
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

// frameTracker follows the server's side of a WebSocket: the response that switches protocols, then frames (RFC 6455
// §5.2). On a connection with any other protocol it never reports a frame boundary.
type frameTracker struct {
	line        []byte // the current header line, up to 256 bytes
	headDone    bool   // the response header is complete
	isWebSocket bool   // it opens a WebSocket
	ignored     bool   // not a WebSocket, or closed by the app
	head        [14]byte
	headLen     int    // bytes of the frame header read so far
	payloadLeft uint64 // payload bytes still to come
}

// atBoundary reports whether a frame may begin here.
func (f *frameTracker) atBoundary() bool {
	return f.headDone && !f.ignored && f.headLen == 0 && f.payloadLeft == 0
}

// track follows what was sent.
func (f *frameTracker) track(p []byte) {
	for len(p) > 0 && !f.ignored {
		switch {
		case !f.headDone:
			p = f.parseResponse(p)
		case f.payloadLeft > 0:
			n := min(f.payloadLeft, uint64(len(p)))
			f.payloadLeft -= n
			p = p[n:]
		default:
			f.head[f.headLen] = p[0]
			f.headLen++
			p = p[1:]
			f.parseFrameHeader()
		}
	}
}

// parseFrameHeader parses the header of a frame, if it is complete.
func (f *frameTracker) parseFrameHeader() {
	if f.headLen < 2 {
		return
	}
	size := 2
	switch f.payloadLeft = uint64(f.head[1] & 0x7f); f.payloadLeft {
	case 126:
		size = 4
		f.payloadLeft = uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		size = 10
		f.payloadLeft = binary.BigEndian.Uint64(f.head[2:])
	}
	if f.head[1]&0x80 != 0 {
		size += 4 // a mask, which servers do not use
	}
	if f.headLen < size {
		f.payloadLeft = 0
		return
	}
	f.headLen = 0
	f.ignored = f.head[0]&0x0f == 8 // a close frame (RFC 6455 §5.5.1)
}

// parseResponse reads the header of the response, and whether it opens a WebSocket.
func (f *frameTracker) parseResponse(p []byte) []byte {
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
			f.line, f.headDone, f.ignored = nil, true, !f.isWebSocket
			return p[i+1:]
		}
		name, value, _ := strings.Cut(line, ":")
		f.isWebSocket = f.isWebSocket || strings.EqualFold(name, "Upgrade") &&
			strings.EqualFold(strings.TrimSpace(value), "websocket")
	}
	return nil
}
