//go:build unix

package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

// Figures are ratios of one run: both sides take turns, a thousand requests at a time, so that what else the machine
// does meets both.

// client sends one fixed request again and again on one connection, and does as little else as it can.
type client struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
}

func newClient(b *testing.B, address, request string) *client {
	conn, err := net.Dial("tcp", address)
	rig.Must(b, err)
	b.Cleanup(func() { conn.Close() })
	return &client{conn, bufio.NewReader(conn), []byte(request)}
}

func (c *client) do(b *testing.B) {
	if _, err := c.conn.Write(c.request); err != nil {
		b.Fatal(err)
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		b.Fatal(err)
	}
	if resp.StatusCode != 200 {
		b.Fatal(resp.Status)
	}
	io.Copy(io.Discard, resp.Body)
}

// against measures ours against theirs: the throughput of ours as a part of theirs.
func against(b *testing.B, ours, theirs *client) {
	const turn = 1000
	spend := func(c *client) time.Duration {
		began := time.Now()
		for range turn {
			c.do(b)
		}
		return time.Since(began)
	}
	spend(ours)
	spend(theirs)
	var a, z time.Duration
	ratios := 0.0
	turns := 0
	for b.Loop() {
		x, y := spend(ours), spend(theirs)
		a, z = a+x, z+y
		ratios += float64(y) / float64(x)
		turns++
	}
	b.ReportMetric(float64(a.Nanoseconds())/float64(turns*turn), "ns/ours")
	b.ReportMetric(float64(z.Nanoseconds())/float64(turns*turn), "ns/bare")
	b.ReportMetric(float64(z)/float64(a), "ratio")
	b.ReportMetric(0, "ns/op")
}

// cached is a stage whose manager caches, as it does in production.
func cached(b *testing.B) (*stage, session.Bearer) {
	st := newStageWith(b, session.Config{MaxStale: time.Hour})
	bearer, _ := st.signIn(map[string]any{"name": "Alice Ahn", "email": "alice@example.com",
		"groups": []any{"users", "staff"}})
	return st, bearer
}

func BenchmarkVerify(b *testing.B) {
	st, bearer := cached(b)
	mux := http.NewServeMux()
	st.gateway.Mount(mux)
	ours := httptest.NewServer(mux)
	defer ours.Close()
	type person struct{ subject, name, email, groups string }
	known := map[string]person{bearer.Reveal(): {"alice", "Alice Ahn", "alice@example.com", "users,staff"}}
	var mu sync.RWMutex
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("curfew")
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mu.RLock()
		p, ok := known[c.Value]
		mu.RUnlock()
		if !ok {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h := w.Header()
		h.Set("X-Auth-Subject", p.subject)
		h.Set("X-Auth-Name", p.name)
		h.Set("X-Auth-Email", p.email)
		h.Set("X-Auth-Groups", p.groups)
		h.Set("X-Auth-Provider", "main")
		h.Set("Cache-Control", "no-store")
	}))
	defer bare.Close()
	request := "GET /auth/verify HTTP/1.1\r\nHost: x\r\nCookie: theme=dark; " + cookie(bearer) +
		"\r\nAccept: text/html\r\nX-Forwarded-Uri: /a/b\r\nX-Forwarded-Method: GET\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept-Language: " +
		"en\r\n\r\n"
	against(b, newClient(b, ours.Listener.Addr().String(), request),
		newClient(b, bare.Listener.Addr().String(), request))
}

func BenchmarkProxy(b *testing.B) {
	st, bearer := cached(b)
	st.upstream = func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }
	u, _ := url.Parse(st.app.URL)
	st.policed(gateway.Rule{Path: "/admin/*", Groups: []string{"admins"}})
	transport := &http.Transport{MaxIdleConnsPerHost: 1024}
	defer transport.CloseIdleConnections()
	bare := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.SetXForwarded()
	}})
	defer bare.Close()
	request := "GET /a/b HTTP/1.1\r\nHost: x\r\nCookie: theme=dark; " + cookie(bearer) + "\r\nAccept: text/html\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept-Language: " +
		"en\r\n\r\n"
	against(b, newClient(b, st.Server.Listener.Addr().String(), request),
		newClient(b, bare.Listener.Addr().String(), request))
}

// BenchmarkStreams opens WebSockets of one person in a hundred sessions, and ends them by one logout. So that a process
// of 20,000 descriptors can hold 10,000 of them, the app is a process of its own and the clients are in this one,
// behind pipes. Memory is that of the gateway together with its server and these clients, which the bare figure has
// too.
func BenchmarkStreams(b *testing.B) {
	const sessions = 100
	var limit syscall.Rlimit
	rig.Must(b, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	for _, count := range []int{1000, int(min(10_000, limit.Cur-500))} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			for b.Loop() {
				bare := heldBy(b, count, 0)
				held := heldBy(b, count, sessions)
				b.ReportMetric(float64(bare.memory)/float64(count), "B/stream-bare")
				b.ReportMetric(float64(held.memory)/float64(count), "B/stream")
				b.ReportMetric(float64(held.closed.Milliseconds()), "ms/last-close")
				b.ReportMetric(float64(held.told)/float64(count), "told") // with a close frame; the others are cut
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

type holding struct {
	memory uint64 // heap and stacks
	closed time.Duration
	told   int // of the streams that ended, by a close frame
}

// pipes is a listener to which connections are made in memory.
type pipes struct {
	made chan net.Conn
	shut chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.made:
		return c, nil
	case <-p.shut:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.shut); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// socketApp starts an app that opens each WebSocket that it is asked for, as a process of its own.
func socketApp(b *testing.B) *url.URL {
	self, err := os.Executable()
	rig.Must(b, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), socketAppEnv+"=yes")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	rig.Must(b, err)
	out, err := cmd.StdoutPipe()
	rig.Must(b, err)
	rig.Must(b, cmd.Start())
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	rig.Must(b, err)
	return &url.URL{Scheme: "http", Host: strings.TrimSpace(address)}
}

// heldBy opens count sockets through the gateway, or, without sessions, through a bare httputil.ReverseProxy.
func heldBy(b *testing.B, count, sessions int) holding {
	st, _ := cached(b)
	app := socketApp(b)
	bearers := make([]session.Bearer, max(1, sessions))
	for i := range bearers {
		bearers[i], _ = st.signIn(nil)
	}
	var front http.Handler = st.gateway.Proxy(app)
	if sessions == 0 {
		front = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(app) }}
	}
	listener := &pipes{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: front, ErrorLog: log.New(io.Discard, "", 0)} // closing is all that goes wrong
	go server.Serve(listener)
	defer server.Close()

	before := inUse()
	sockets := make([]net.Conn, count)
	ended := make(chan bool, count) // whether it was told, for each socket that has ended
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < count; i += 8 {
				conn, there := net.Pipe()
				listener.made <- there
				fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
					"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+openingKey+"\r\nCookie: %s\r\n\r\n",
					cookie(bearers[i%len(bearers)]))
				var head [512]byte
				if n, err := conn.Read(head[:]); err != nil || string(head[:12]) != "HTTP/1.1 101" {
					b.Errorf("%v %q", err, head[:n])
					return
				}
				sockets[i] = conn
				go func() { ended <- policyClose(conn) }()
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
	h := holding{memory: inUse() - before}
	if sessions > 0 {
		began := time.Now()
		who := store.Selector{Issuer: "https://id.example.com", ClientID: "app", Subject: "alice"}
		_, err := st.Manager.End(b.Context(), store.Ending{Selector: who, Cause: store.CauseBackChannel})
		rig.Must(b, err)
		for range count {
			if <-ended {
				h.told++
			}
		}
		h.closed = time.Since(began)
	}
	for _, s := range sockets {
		s.Close()
	}
	if sessions == 0 {
		for range count {
			<-ended
		}
	}
	return h
}

// policyClose waits for the end of a connection, takes its leave, and says whether it was told by a close frame.
func policyClose(conn net.Conn) bool {
	defer conn.Close()
	var frame [64]byte
	n, err := conn.Read(frame[:])
	return err == nil && n >= 4 && frame[0] == 0x88 && frame[2] == 0x03 && frame[3] == 0xf0 // 1008
}

func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
