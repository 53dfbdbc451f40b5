package e2e_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// livePage holds a WebSocket and listens to whether its session ends, as an app would.
const livePage = `<!doctype html><title>live</title><a href="/private">next</a><p></p><script>
const say = (what) => { document.querySelector("p").append(what + "; "); };
const socket = new WebSocket("ws://" + location.host + "/socket");
socket.onmessage = (e) => say("socket: " + e.data);
socket.onclose = (e) => say("socket closed: " + e.code);
const events = new EventSource("/auth/events");
events.onopen = () => say("listening");
events.addEventListener("ended", (e) => { say("told: " + JSON.parse(e.data).cause); events.close(); });
</script>`

// liveApp is an app with a WebSocket at /socket, an event stream at /stream and a page that uses them at /live. To
// anything else it answers with what it was told.
func liveApp(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(liveHandler(t))
	t.Cleanup(s.Close)
	return s.URL
}

func liveHandler(t *testing.T) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/live", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, livePage)
	})
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		// RFC 6455 §4.2.2
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		conn, in, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "+
			"Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:]))
		hello := "hello " + r.Header.Get("X-Auth-Subject")
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, " "), "mallory") {
				hello = name + " is mallory"
			}
		}
		conn.Write(append([]byte{0x81, byte(len(hello))}, hello...))
		for { // echoes texts, until somebody closes it
			kind, text, err := frame(in.Reader)
			if err != nil || kind == 8 {
				return
			}
			conn.Write(append([]byte{0x80 | kind, byte(len(text))}, text...))
		}
	})
	tunnel := func(w http.ResponseWriter, r *http.Request) { // speaks any protocol, whether it was asked or not
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		upgrade := r.Header.Get("Upgrade")
		if upgrade == "" {
			upgrade = "h2c"
		}
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-Tunnel: "+
			"%s%s\r\n\r\n",
			upgrade, r.Header.Get("Upgrade"), r.Header.Get("HTTP2-Settings"))
		conn.SetDeadline(time.Now().Add(5 * time.Second)) // nginx passes the 101 on, and waits for a body
		if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
			fmt.Fprintf(conn, "echo of %s", line)
		}
	}
	mux.HandleFunc("/tunnel", tunnel)
	mux.HandleFunc("/public/tunnel", tunnel)
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: hello %s\n\n", r.Header.Get("X-Auth-Subject"))
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // the trailers come after it
		json.NewEncoder(w).Encode(seen{Path: r.URL.RequestURI(), Header: r.Header, Trailer: r.Trailer})
	})
	return mux
}

// socket opens a WebSocket with the cookies of a browser, and has the app echo what it is sent. What it returns waits
// for its end, and says how it came.
func (b *browser) socket(t *testing.T, site string) (hello string, end func() string) {
	t.Helper()
	return b.socketAt(t, strings.TrimPrefix(site, "http://"), site)
}

// socketAt is socket for a site that is reached at that address.
func (b *browser) socketAt(t *testing.T, addr, site string) (hello string, end func() string) {
	t.Helper()
	u, err := url.Parse(site)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	r, err := http.NewRequest(http.MethodGet, site+"/socket", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Upgrade": "websocket", "Connection": "Upgrade",
		"Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key":     "dGhlIHNhbXBsZSBub25jZQ==", "Origin": site} {
		r.Header.Set(name, value)
	}
	for _, c := range b.client.Jar.Cookies(u) {
		r.AddCookie(c)
	}
	if err := r.Write(conn); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return resp.Status, nil
	}
	kind, text, err := frame(in)
	if err != nil || kind != 1 {
		t.Fatalf("%s opens a WebSocket, and gets a frame of kind %d: %v", b.name, kind, err)
	}
	conn.Write([]byte("\x81\x84mask\x08\x02\x1b\x04")) // "echo", masked as a client has to (RFC 6455 §5.3)
	if kind, echo, err := frame(in); err != nil || kind != 1 || string(echo) != "echo" {
		t.Fatalf("%s says echo, and gets a frame of kind %d: %q, %v", b.name, kind, echo, err)
	}
	return string(text), func() string {
		switch kind, body, err := frame(in); {
		case err != nil:
			return err.Error()
		case kind == 8 && len(body) >= 2:
			return fmt.Sprintf("close %d", binary.BigEndian.Uint16(body))
		default:
			return fmt.Sprintf("a frame of kind %d", kind)
		}
	}
}

// frame reads one short frame (RFC 6455 §5.2).
func frame(in *bufio.Reader) (kind byte, body []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(in, head); err != nil {
		return 0, nil, err
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(in, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	body = make([]byte, head[1]&0x7f)
	_, err = io.ReadFull(in, body)
	for i := range body {
		body[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, body, err
}

// stream opens an event stream of the app. What it returns waits for its end, and says what had come.
func (b *browser) stream(t *testing.T, site string) (hello string, end func() string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, site+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	resp, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		return resp.Status, nil
	}
	in := bufio.NewReader(resp.Body)
	line, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(strings.TrimPrefix(line, "data:")), func() string {
		if _, err := io.Copy(io.Discard, in); err != nil && strings.Contains(err.Error(), "Timeout") {
			return "still open"
		}
		return "closed"
	}
}
