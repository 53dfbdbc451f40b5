package gateway_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
)

// What goes past TLS would end the connection with an error of TLS, and no close frame.
func TestAWebSocketOverTLSEndsWithACloseFrameToo(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	opened := make(chan net.Conn, 1)
	st.upstream = sockets(opened)
	upstream, err := url.Parse(st.app.URL)
	rig.Must(t, err)
	server := httptest.NewTLSServer(st.gateway.Proxy(upstream))
	t.Cleanup(server.Close)
	b, s := st.signIn(nil)
	conn := tls.Client(rig.Dial(t, server), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nCookie: %s\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+openingKey+"\r\n\r\n", cookie(b))
	client := &socket{conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(client.in, nil)
	rig.Must(t, err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the upgrade was answered %d", resp.StatusCode)
	}
	app := rig.Soon(t, "the app to open a WebSocket", opened)
	defer app.Close()
	st.end(s)
	opcode, payload, err := client.read()
	if err != nil || opcode != 8 || len(payload) < 2 || binary.BigEndian.Uint16([]byte(payload)) != 1008 {
		t.Errorf("the last frame: opcode %d, %q, %v; want a close with 1008", opcode, payload, err)
	}
}

// Of many streams of one session one client does not read. The others are told all the same, and the app loses them.
func TestAClientThatDoesNotReadKeepsNoOtherFromItsCloseFrame(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	opened := make(chan net.Conn, 1)
	st.upstream = sockets(opened)
	b, s := st.signIn(nil)
	st.dial(b)
	app := rig.Soon(t, "the app to open a WebSocket", opened)
	defer app.Close()
	for err := error(nil); err == nil; { // until all buffers between here and the client are full
		app.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = app.Write([]byte(frame(2, string(make([]byte, 60_000)))))
	}
	var readers []*socket
	for range 20 {
		readers = append(readers, st.dial(b))
		other := rig.Soon(t, "the app to open another", opened)
		defer other.Close()
	}
	st.end(s)
	for i, client := range readers {
		if opcode, payload, err := client.read(); err != nil || opcode != 8 {
			t.Errorf("the last frame of stream %d: opcode %d, %q, %v; want a close", i, opcode, payload, err)
		}
	}
}
