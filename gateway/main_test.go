package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
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
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		go func() {
			defer conn.Close()
			io.Copy(io.Discard, conn)
		}()
	}))
	fmt.Println(l.Addr())
	io.Copy(io.Discard, os.Stdin)
}
