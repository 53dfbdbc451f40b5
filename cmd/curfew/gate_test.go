package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/cmd/curfew/internal/config"
	room "example.com/curfew/gateway"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/web"
)

// pipes is a listener whose connections are in memory, so that their time is that of a synctest bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

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

// door is a server behind a gate.
type door struct {
	t    *testing.T
	gate *limitListener
	line *pipes
	logs *buffer
}

func openDoor(t *testing.T, most int, h http.Handler, secure *tls.Config) *door {
	t.Helper()
	d := &door{t: t, line: newPipes(), logs: newBuffer()}
	d.gate = newLimitListener(d.line, "public", most, slog.New(slog.NewTextHandler(d.logs, nil)))
	s := newServer(d.gate, newHTTPServer(h, slog.New(slog.DiscardHandler)))
	s.http.TLSConfig = secure
	over := make(chan error, 1)
	go func() { over <- s.serve() }()
	t.Cleanup(func() {
		s.http.Close()
		<-over
		time.Sleep(2 * routeTimeout) // of the bubble
	})
	return d
}

// certified is called outside of the bubble.
func certified(t *testing.T) *tls.Config {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
}

// caller is the client's end of a connection.
type caller struct {
	net.Conn
	in *bufio.Reader
}

// call connects, as soon as the server takes the connection.
func (d *door) call() *caller {
	client, there := net.Pipe()
	d.line.conns <- there
	d.t.Cleanup(func() { client.Close() })
	return &caller{client, bufio.NewReader(client)}
}

// ask sends a request and returns the status of the answer, or an error.
func (c *caller) ask(path string) (int, error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// closed says whether the server has closed the connection.
func (c *caller) closed() bool {
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	defer c.SetReadDeadline(time.Time{})
	_, err := c.in.Peek(1)
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// held answers /held when it is let go, and anything else at once.
type held struct {
	began, let chan struct{}
}

func (h *held) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/held" {
		h.began <- struct{}{}
		<-h.let
	}
}

func newHeld() *held { return &held{make(chan struct{}), make(chan struct{})} }

// Strangers that connect and say nothing, or nothing more, keep nobody out.
func TestAListenerFullOfIdleConnectionsTakesNewOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const most = 10
		d := openDoor(t, most, newHeld(), nil)
		var all []*caller
		for i := range 3 * most {
			c := d.call()
			all = append(all, c)
			if i%2 == 0 { // the others say nothing
				if status, err := c.ask("/"); err != nil || status != http.StatusOK {
					t.Fatalf("connection %d: %d %v", i, status, err)
				}
			}
			time.Sleep(closeDelay)
		}
		for i, c := range all {
			if got, want := c.closed(), i < 2*most; got != want {
				t.Errorf("connection %d: closed %t, want %t", i, got, want)
			}
		}
		if n := strings.Count(d.logs.String(), "event=connections_full"); n != 1 {
			t.Errorf("it was logged %d times that the listener is full, want once", n)
		}
	})
}

// The one that was used last stays.
func TestTheConnectionThatIsIdleForLongestMakesRoom(t *testing.T) {
	t.Parallel()
	for _, secure := range []*tls.Config{nil, certified(t)} {
		synctest.Test(t, func(t *testing.T) {
			h := newHeld()
			d := openDoor(t, 3, h, secure)
			call := func() *caller {
				c := d.call()
				if secure != nil {
					c.Conn = tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
					c.in = bufio.NewReader(c.Conn)
				}
				if status, err := c.ask("/"); err != nil || status != http.StatusOK {
					t.Fatal(status, err)
				}
				return c
			}
			busy, first, second := call(), call(), call()
			answered := make(chan error, 1)
			go func() {
				_, err := busy.ask("/held")
				answered <- err
			}()
			<-h.began
			time.Sleep(time.Second)
			if _, err := first.ask("/"); err != nil { // so that it is the second that has been idle for longest
				t.Fatal(err)
			}
			call()
			if _, err := first.ask("/"); err != nil {
				t.Errorf("TLS %t: the connection used last was closed: %v", secure != nil, err)
			}
			if _, err := second.ask("/"); err == nil {
				t.Errorf("TLS %t: the connection idle for longest is open", secure != nil)
			}
			close(h.let)
			if err := <-answered; err != nil {
				t.Errorf("TLS %t: a connection with a request was closed: %v", secure != nil, err)
			}
		})
	}
}

// When all connections have requests, a new one waits until one of them has none.
func TestAFullListenerClosesNoRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHeld()
		d := openDoor(t, 2, h, nil)
		answered := make(chan error, 2)
		for range 2 {
			c := d.call()
			go func() {
				_, err := c.ask("/held")
				answered <- err
			}()
			<-h.began
		}
		waited := make(chan time.Duration)
		began := time.Now()
		go func() {
			if _, err := d.call().ask("/"); err != nil {
				t.Error(err)
			}
			waited <- time.Since(began)
		}()
		time.Sleep(time.Hour)
		h.let <- struct{}{}
		if took := <-waited; took != time.Hour+closeDelay {
			t.Errorf("it waited for %v, want %v", took, time.Hour+closeDelay)
		}
		h.let <- struct{}{}
		for range 2 {
			if err := <-answered; err != nil {
				t.Errorf("a request was cut: %v", err)
			}
		}
	})
}

func TestAConnectionThatEndsMakesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hijacked := make(chan net.Conn, 1)
		d := openDoor(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/socket" {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
				}
				hijacked <- conn
			}
		}), nil)
		for range 5 {
			c := d.call()
			io.WriteString(c, "GET /socket HTTP/1.1\r\nHost: x\r\n\r\n")
			conn := <-hijacked
			time.Sleep(time.Hour)
			if c.closed() {
				t.Fatal("a WebSocket was closed for being idle")
			}
			go func() {
				time.Sleep(time.Hour)
				conn.Close()
				conn.Close() // which gives back no second place
			}()
			next := d.call()
			if status, err := next.ask("/"); err != nil || status != http.StatusOK {
				t.Fatal(status, err)
			}
			next.Close()
			synctest.Wait()
		}
		if d.gate.open != 0 || d.gate.idle.Len() != 0 {
			t.Errorf("%d connections are counted, %d are said to wait, and there is none", d.gate.open,
				d.gate.idle.Len())
		}
	})
}

func TestAListenerThatIsFullCanBeClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHeld()
		d := openDoor(t, 1, h, nil)
		c := d.call()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			c.ask("/held")
		}()
		<-h.began
		d.call()
		synctest.Wait() // it is being waited for room
		d.gate.Close()
		close(h.let)
		<-answered
	}) // which ends when the server has
}

// Where nobody tells which connections have requests, those of clients that say nothing make room.
func TestAConnectionWhoseClientSaysNothingMakesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		line := newPipes()
		g := newLimitListener(line, "ext_authz", 2, slog.New(slog.DiscardHandler))
		g.trackReads = true
		accept := func() (client, server net.Conn) {
			client, there := net.Pipe()
			go func() { line.conns <- there }()
			server, err := g.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { client.Close(); server.Close() })
			return client, server
		}
		talks, hears := accept()
		silent, _ := accept()
		time.Sleep(time.Second)
		go io.WriteString(talks, "x")
		if _, err := hears.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		accept()
		if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the silent one: %v, want it closed", err)
		}
		go io.WriteString(talks, "x")
		if _, err := hears.Read(make([]byte, 1)); err != nil {
			t.Errorf("the one that talks: %v", err)
		}
	})
}

// Whatever is written to a connection is read in time, or the connection is closed: the answers of net/http itself too,
// and what follows a protocol switch.
func TestAConnectionThatIsNotReadIsClosed(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		says string
		most time.Duration
	}{
		"a small answer":       {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", web.WriteTime},
		"requests in a row":    {strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1000), web.WriteTime},
		"no request at all":    {"rubbish\r\n\r\n", web.WriteTime},
		"a tunnel":             {"GET /socket HTTP/1.1\r\nHost: x\r\n\r\n", web.WriteTime},
		"a tunnel in a hurry":  {"GET /hurry HTTP/1.1\r\nHost: x\r\n\r\n", time.Second},
		"a tunnel's last word": {"GET /last HTTP/1.1\r\nHost: x\r\n\r\n", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := openDoor(t, 10, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/" {
						w.Write([]byte("hello"))
						return
					}
					conn, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
					}
					defer conn.Close()
					switch r.URL.Path {
					case "/hurry":
						conn.SetWriteDeadline(time.Now().Add(time.Second))
					case "/last":
						time.AfterFunc(time.Second, func() { conn.SetWriteDeadline(time.Now()) })
					}
					for err == nil {
						_, err = conn.Write(make([]byte, 1<<20))
					}
				}), nil)
				began := time.Now()
				go io.WriteString(d.call(), row.says)
				synctest.Wait()
				for d.gate.opened() > 0 && time.Since(began) < time.Hour {
					time.Sleep(time.Second)
				}
				if took := time.Since(began); took > row.most*9/8+time.Second {
					t.Errorf("it was closed after %v, want %v", took, row.most)
				}
			})
		})
	}
}

func (g *limitListener) opened() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// A client that reads something now and then is no such client, however large one write is.
func TestAConnectionThatIsReadSlowlyLives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := openDoor(t, 10, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1048576")
			w.Write(make([]byte, 1<<20))
		}), nil)
		c := d.call()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(c.in, nil)
		if err != nil {
			t.Fatal(err)
		}
		for left := 1 << 20; left > 0; left -= writePart {
			time.Sleep(web.WriteTime / 3)
			if _, err := io.ReadFull(resp.Body, make([]byte, writePart)); err != nil {
				t.Fatalf("it was cut with %d bytes to come: %v", left, err)
			}
		}
	})
}

func TestTheNumberOfConnectionsFollowsFromTheOpenFiles(t *testing.T) {
	t.Parallel()
	app := config.Gateway{Routes: []room.Route{{}}}
	for name, row := range map[string]struct {
		config config.Config
		files  uint64
		want   int
		fault  string
	}{
		"plenty":          {config.Config{}, 1 << 20, maxPublic, ""},
		"few":             {config.Config{}, 1024, 1024 - reservedFiles, ""},
		"few, and an app": {config.Config{Gateway: app}, 1024, (1024 - reservedFiles) / 2, ""},
		"few, and other listeners": {config.Config{AdminListen: ":1", GRPCListen: ":2"}, 4096,
			4096 - reservedFiles - maxPrivate - maxGRPC, ""},
		"next to none":           {config.Config{}, 64, minPublic, ""},
		"no limit":               {config.Config{}, 1<<64 - 1, maxPublic, ""},
		"said":                   {config.Config{MaxConnections: 20_000}, 1 << 20, 20_000, ""},
		"said, and not too much": {config.Config{MaxConnections: 500, Gateway: app}, 1256, 500, ""},
		"said, and too much": {config.Config{MaxConnections: 500, Gateway: app}, 1255, 0,
			"max_connections: 500 may need 1256 open files, and this process may have 1255"},
	} {
		got, err := connectionLimit(&row.config, row.files)
		if got != row.want || (err == nil) != (row.fault == "") || err != nil &&
			!strings.Contains(err.Error(), row.fault) {
			t.Errorf("%s: %d %v, want %d %s", name, got, err, row.want, row.fault)
		}
	}
}

// Strangers who fill a listener keep no logout out.
func TestALogoutFindsRoomOnAFullListener(t *testing.T) {
	t.Parallel()
	op := oidctest.Start(t, oidctest.Config{Clients: []oidctest.Client{{ID: "app"}}})
	g := startGateway(t, "--config", writeFile(t, "url: http://127.0.0.1:4180\nstore: 'memory:'\nmax_connections: 16\n"+
		"providers: [{issuer: '"+op.Issuer()+"', client_id: app}]\n"))
	for _, at := range []string{g.public, g.private} {
		for range 100 {
			conn, err := net.DialTimeout("tcp", at, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
		}
	}
	if status, body := g.logout(t, op.SignLogoutToken("app", "alice", "s1")); status != http.StatusOK {
		t.Errorf("a logout: %d %s", status, body)
	}
	if status, _ := g.get(t, g.private+"/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d", status)
	}
	for _, listener := range []string{"public most=16", "private most=64"} {
		if want := "event=connections_full listener=" + listener; !strings.Contains(g.logs.String(), want) {
			t.Errorf("want %s in:\n%s", want, g.logs)
		}
	}
}

func TestMoreConnectionsThanOpenFilesEndTheStart(t *testing.T) {
	t.Parallel()
	if files, known := maxOpenFiles(); !known || files > 1_000_000 {
		t.Skip("NOT TESTED: this process may open any number of files")
	}
	var errs bytes.Buffer
	file := writeFile(t, "url: http://127.0.0.1:4180\nstore: 'memory:'\nmax_connections: 1000000\n"+
		"providers: [{issuer: 'http://127.0.0.1:9', client_id: app}]\n")
	p := process{stdin: strings.NewReader(""), stdout: io.Discard, stderr: &errs}
	if status := runIn(t.Context(), p, []string{"serve", "--config", file}); status != 2 ||
		!strings.Contains(errs.String(), "max_connections: 1000000 may need") {
		t.Errorf("status %d: %s", status, &errs)
	}
}
