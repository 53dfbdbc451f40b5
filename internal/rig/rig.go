package rig

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/keyring"
)

// Patience bounds every wait of a test. Only what hangs reaches it.
const Patience = 2 * time.Minute

// Must ends the test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Changed returns a value with another character in its middle. The last characters of a value are often in part
// padding, or by chance what they would be changed to.
func Changed(value string) string {
	at, other := len(value)/2, "A"
	if value[at] == 'A' {
		other = "B"
	}
	return value[:at] + other + value[at+1:]
}

// Soon returns what comes from a channel. It fails the test after a time that only a hang takes.
func Soon[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(Patience):
		t.Fatalf("waited in vain: %s", what)
		panic("not reached")
	}
}

// Keyring returns a new one.
func Keyring(t testing.TB) *keyring.Keyring {
	t.Helper()
	ring, err := keyring.Parse(keyring.NewFile())
	Must(t, err)
	return ring
}

// Serve starts a server, which is closed when the test ends.
func Serve(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.MaxHeaderBytes = 64 << 10 // as curfew serve has it
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// Dial connects to a server. Nothing on the connection takes longer than Patience.
func Dial(t testing.TB, server *httptest.Server) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", server.Listener.Addr().String(), Patience)
	Must(t, err)
	t.Cleanup(func() { conn.Close() })
	Must(t, conn.SetDeadline(time.Now().Add(Patience)))
	return conn
}

// Log is a log that can be read while it is written.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Logger returns a logger that writes to the log, a JSON object a line, with all levels.
func (l *Log) Logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all that was logged.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Last returns the last line of an event, nil if there is none.
func (l *Log) Last(event string) map[string]any {
	var found map[string]any
	for line := range strings.Lines(l.String()) {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) == nil && m["event"] == event {
			found = m
		}
	}
	return found
}
