package gateway_test

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/curfew/internal/rig"
)

// socketAppEnv has this binary be the app of a benchmark.
const socketAppEnv = "CURFEW_GATEWAY_TEST_APP"

func TestMain(m *testing.M) {
	if os.Getenv(socketAppEnv) != "" {
		serveSockets()
		return
	}
	goleak.VerifyTestMain(m)
}

// serveSockets opens every WebSocket that it is asked for, and holds it until stdin ends.
func serveSockets() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(conn, switching(r))
		go func() {
			defer conn.Close()
			io.Copy(io.Discard, conn)
		}()
	}))
	fmt.Println(l.Addr())
	io.Copy(io.Discard, os.Stdin)
}

// openingKey is a Sec-WebSocket-Key, and openingAccept what a server answers to it: those of RFC 6455 §1.3.
const (
	openingKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	openingAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// switching is the answer that opens a WebSocket.
func switching(r *http.Request) string {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n"
}

// bounded is a transport for one request each; the whole answer comes within rig.Patience.
func bounded() *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network,
		address string) (net.Conn, error) {
		conn, err := (&net.Dialer{Timeout: rig.Patience}).DialContext(ctx, network, address)
		if err == nil {
			err = conn.SetDeadline(time.Now().Add(rig.Patience))
		}
		return conn, err
	}}
}
