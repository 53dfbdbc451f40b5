package e2e_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// A 101 makes a tunnel of a connection, past sign-in, policy and header stripping. It is only for a WebSocket.
func TestBehindAProxyNothingButAWebSocketBecomesATunnel(t *testing.T) {
	each(t, func(t *testing.T, f *front) {
		bob := newBrowser("bob's browser")
		bob.signIn(t, f.gateway, "bob")
		const settings = "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
		const ws = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
		for what, row := range map[string]struct {
			path, head string
			tunnel     bool
		}{
			"a WebSocket": {"/socket", "Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: " + f.url +
				"\r\n" + ws, true},
			"a WebSocket of another site": {"/socket",
				"Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: https://evil.example\r\n" + ws, false},
			"a WebSocket without a key": {"/socket", "Connection: Upgrade\r\nUpgrade: websocket\r\n", false},
			"h2c":                       {"/tunnel", settings + "Upgrade: h2c\r\n", false},
			"h2c, in capitals":          {"/tunnel", settings + "Upgrade: H2C\r\n", false},
			"a WebSocket and h2c":       {"/tunnel", settings + "Upgrade: websocket, h2c\r\n" + ws, false},
			"h2c and a WebSocket":       {"/tunnel", settings + "Upgrade: h2c\r\nUpgrade: websocket\r\n" + ws, false},
			"another protocol":          {"/tunnel", "Connection: Upgrade\r\nUpgrade: chat\r\n", false},
			"an app that was not asked": {"/tunnel", "", false},
			"a public path":             {"/public/tunnel", settings + "Upgrade: h2c\r\n", false},
		} {
			u, err := url.Parse(f.url)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.DialTimeout("tcp", u.Host, patience)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(patience / 2))
			head := "GET " + row.path + " HTTP/1.1\r\nHost: " + u.Host + "\r\n" + row.head
			for _, c := range bob.client.Jar.Cookies(u) {
				head += "Cookie: " + c.Name + "=" + c.Value + "\r\n"
			}
			io.WriteString(conn, head+"\r\n")
			in := bufio.NewReader(conn)
			resp, err := http.ReadResponse(in, nil)
			through := ""
			if err == nil && resp.StatusCode == http.StatusSwitchingProtocols && !row.tunnel {
				// nginx and Envoy may pass such an answer on, and nothing after it.
				io.WriteString(conn, "GET /inside HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				rest, _ := io.ReadAll(in)
				through = string(rest)
			}
			conn.Close()
			switch {
			case err != nil && !row.tunnel: // closed, or not understood
			case err != nil:
				t.Errorf("%s: %v", what, err)
			case row.tunnel && resp.StatusCode != http.StatusSwitchingProtocols || strings.Contains(through, "echo"):
				t.Errorf("%s is answered %s, and a tunnel: %q", what, resp.Status, through)
			case strings.Join(resp.Header.Values("X-Tunnel"), "") != "":
				t.Errorf("%s: the app was asked for another protocol: %v", what, resp.Header)
			}
		}
		// Envoy may use a connection once more on which an app has answered 101 unasked.
		eventually(t, "bob is in", func() string { return bob.isIn(f.gateway, "bob") })
	})
}
