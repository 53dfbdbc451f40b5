package gateway_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
)

// socket is a client's end of a WebSocket, as far as these tests need one.
type socket struct {
	net.Conn
	in *bufio.Reader
}

// dial opens a WebSocket through the gateway.
func (st *stage) dial(b session.Bearer) *socket {
	st.T.Helper()
	conn := rig.Dial(st.T, st.Server)
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nCookie: %s\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", cookie(b))
	s := &socket{conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(s.in, nil)
	rig.Must(st.T, err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		st.T.Fatalf("the upgrade was answered %d", resp.StatusCode)
	}
	return s
}

// read returns the next frame: its opcode and payload.
func (s *socket) read() (byte, string, error) {
	var head [2]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return 0, "", err
	}
	size := int(head[1])
	if size == 126 {
		var ext [2]byte
		if _, err := io.ReadFull(s.in, ext[:]); err != nil {
			return 0, "", err
		}
		size = int(binary.BigEndian.Uint16(ext[:]))
	}
	body := make([]byte, size)
	_, err := io.ReadFull(s.in, body)
	return head[0] & 0x0f, string(body), err
}

// frame is one that a server sends.
func frame(opcode byte, payload string) string {
	if len(payload) < 126 {
		return string([]byte{0x80 | opcode, byte(len(payload))}) + payload
	}
	return string(binary.BigEndian.AppendUint16([]byte{0x80 | opcode, 126}, uint16(len(payload)))) + payload
}

// sockets is an app that opens WebSockets and hands them to a test.
func sockets(opened chan<- net.Conn) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		conn.SetDeadline(time.Now().Add(rig.Patience))
		io.WriteString(conn, switching(r))
		opened <- conn
	}
}

func TestAWebSocketEndsWithItsSessionAndNoOtherDoes(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	opened := make(chan net.Conn, 4)
	st.upstream = sockets(opened)
	mine, s := st.signIn(nil)
	other, _ := st.signIn(nil)
	gone := st.dial(mine)
	app := rig.Soon(t, "the app to open a WebSocket", opened)
	defer app.Close()
	stays := st.dial(other) // after the first was taken: two at once may come in either order
	appStays := rig.Soon(t, "the app to open another", opened)
	defer appStays.Close()

	io.WriteString(app, frame(1, "hello")+frame(2, strings.Repeat("x", 300)))
	for _, want := range []string{"hello", strings.Repeat("x", 300)} {
		if _, got, err := gone.read(); err != nil || got != want {
			t.Fatalf("read %q %v", got, err)
		}
	}
	io.WriteString(gone, "from the client")
	buf := make([]byte, 15)
	if _, err := io.ReadFull(app, buf); err != nil || string(buf) != "from the client" {
		t.Fatalf("the app read %q %v", buf, err)
	}

	st.end(s)
	opcode, payload, err := gone.read()
	if err != nil || opcode != 8 || len(payload) < 2 || binary.BigEndian.Uint16([]byte(payload)) != 1008 {
		t.Errorf("the last frame: opcode %d, %q, %v; want a close with 1008", opcode, payload, err)
	}
	io.WriteString(gone, "too late")
	if n, err := io.Copy(io.Discard, gone.in); n != 0 || err != nil {
		t.Errorf("after the close frame: %d bytes, %v", n, err)
	}
	if late, err := io.ReadAll(app); len(late) > 0 {
		t.Errorf("the app received %q after the end (%v)", late, err)
	}
	io.WriteString(appStays, frame(1, "still here"))
	if _, got, err := stays.read(); err != nil || got != "still here" {
		t.Errorf("another session's WebSocket: %q %v", got, err)
	}
}

func TestAWebSocketInTheMiddleOfAFrameIsCutWithoutACloseFrame(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	opened := make(chan net.Conn, 1)
	st.upstream = sockets(opened)
	b, s := st.signIn(nil)
	client := st.dial(b)
	app := rig.Soon(t, "the app to open a WebSocket", opened)
	defer app.Close()
	half := frame(1, strings.Repeat("x", 100))[:50]
	io.WriteString(app, half)
	_, err := io.ReadFull(client.in, make([]byte, len(half)))
	rig.Must(t, err)
	st.end(s)
	if rest, _ := io.ReadAll(client.in); len(rest) > 0 {
		t.Errorf("%q was put into the middle of a frame", rest)
	}
}

func TestAClientThatDoesNotReadKeepsNoWebSocketOpen(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	opened := make(chan net.Conn, 1)
	st.upstream = sockets(opened)
	b, s := st.signIn(nil)
	st.dial(b)
	app := rig.Soon(t, "the app to open a WebSocket", opened)
	defer app.Close()
	// A write that gets nowhere says that all buffers between here and the client are full.
	for err := error(nil); err == nil; {
		app.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = io.WriteString(app, frame(2, strings.Repeat("x", 60_000)))
	}
	st.end(s)
	app.SetDeadline(time.Now().Add(rig.Patience))
	io.Copy(io.Discard, app) // until the gateway lets go of the app
}

// streaming is an app that sends one line and then waits until its request is given up.
func streaming(contentType string, given chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		io.WriteString(w, "data: one\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(given)
	}
}

func TestAStreamEndsWithItsSession(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, contentType string
		end               func(*stage, *session.Session)
	}{
		{"events", "text/event-stream", (*stage).end},
		{"lines", "application/x-ndjson", (*stage).end},
		{"events, when the gateway stops", "text/event-stream",
			func(st *stage, _ *session.Session) { st.gateway.Drain() }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			st := newStage(t)
			given := make(chan struct{})
			st.upstream = streaming(row.contentType, given)
			b, s := st.signIn(nil)
			resp := st.get(b)
			if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "data: one\n" {
				t.Fatalf("%q %v", line, err)
			}
			row.end(st, s)
			if _, err := io.Copy(io.Discard, resp.Body); err == nil {
				t.Error("the stream ended as if it were complete")
			}
			rig.Soon(t, "the app to be told that nobody reads", given)
			if broke := st.Log.Last("upstream_broke"); broke != nil {
				t.Errorf("logged as a fault of the app: %v", broke)
			}
		})
	}
}

// get opens a request whose answer is read by the test.
func (st *stage) get(b session.Bearer) *http.Response {
	st.T.Helper()
	req, err := http.NewRequest("GET", st.Server.URL+"/stream", nil)
	rig.Must(st.T, err)
	req.Header.Set("Cookie", cookie(b))
	resp, err := bounded().RoundTrip(req)
	rig.Must(st.T, err)
	st.T.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestALongPollWhoseSessionEndsIsAnswered401(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	asked := make(chan struct{})
	st.upstream = func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}
	b, s := st.signIn(nil)
	go func() {
		<-asked
		st.end(s)
	}()
	if resp := st.get(b); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d, want 401", resp.StatusCode)
	}
}

func TestAStreamEndsWhenItsSessionExpires(t *testing.T) {
	t.Parallel()
	// It is longer than a busy machine takes to open a stream.
	st := newStageWith(t, session.Config{IdleTimeout: 5 * time.Second})
	opened := make(chan net.Conn, 1)
	st.upstream = sockets(opened)
	b, _ := st.signIn(nil)
	client := st.dial(b)
	defer rig.Soon(t, "the app to open a WebSocket", opened).Close()
	if opcode, payload, err := client.read(); err != nil || opcode != 8 ||
		binary.BigEndian.Uint16([]byte(payload)) != 1008 {
		t.Errorf("opcode %d, %q, %v", opcode, payload, err)
	}
}

func TestDrainSaysGoingAwayToWhatWouldNotEnd(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	opened := make(chan net.Conn, 1)
	st.upstream = sockets(opened)
	b, s := st.signIn(nil)
	client := st.dial(b)
	defer rig.Soon(t, "the app to open a WebSocket", opened).Close()
	st.gateway.Drain()
	if opcode, payload, err := client.read(); err != nil || opcode != 8 ||
		binary.BigEndian.Uint16([]byte(payload)) != 1001 {
		t.Errorf("opcode %d, %q, %v; want a close with 1001", opcode, payload, err)
	}
	if _, err := st.Manager.Peek(t.Context(), s.Key); err != nil {
		t.Errorf("the session itself: %v", err)
	}
}

func TestAnAnswerThatBreaksOffIsNotTakenForComplete(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.upstream = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		io.WriteString(w, strings.Repeat("x", 64<<10))
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	b, _ := st.signIn(nil)
	if _, err := io.ReadAll(st.get(b).Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("err %v", err)
	}
	if broke := st.Log.Last("upstream_broke"); broke["level"] != "WARN" {
		t.Errorf("logged as %v", broke)
	}
}
