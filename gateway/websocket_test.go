package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/gateway"
	"example.com/curfew/session"
)

// opening is a well-formed opening of a WebSocket, without its end; more is put into it.
func opening(path string, more ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " +
		"websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: " + openingKey + "\r\n" + strings.Join(more, "")
}

// answerTo sends a request, and returns the connection and its answer.
func (st *stage) answerTo(request string) (net.Conn, *http.Response) {
	st.t.Helper()
	conn := dialTCP(st.t, st.public.Listener.Addr().String())
	io.WriteString(conn, request)
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		st.t.Fatalf("%.80q: %v", request, err)
	}
	return conn, resp
}

func TestOnlyAWebSocketOpeningAsksTheAppForAnotherProtocol(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/public/*", Public: true})
	b, _ := st.signIn(nil)
	get, ws := "GET %s HTTP/1.1\r\nHost: x\r\n", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+openingKey+"\r\n"
	both := "Connection: Upgrade\r\nUpgrade: websocket\r\n"
	for name, row := range map[string]struct {
		head   string
		opens  bool
		status int
	}{
		"a WebSocket": {get + both + ws, true, 200},
		"in other words": {get + "connection: keep-alive , uPGRADE\r\nupgrade: \tWebSocket \r\n" + ws,
			true, 200},
		"two lines of Connection": {get +
			"Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" + ws, true, 200},
		"a folded line": {get + "Connection: Upgrade\r\nUpgrade:\r\n websocket\r\n" + ws, true, 200},
		"with more in Connection": {get +
			"Connection: Upgrade, HTTP2-Settings, X-Auth-Subject\r\nUpgrade: websocket\r\nHTTP2-Settings: " +
			"AAMAAABkAAQAAP__\r\n" + ws, true, 200},
		"h2c": {get +
			"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", false, 200},
		"h2c, with a WebSocket's rest": {get +
			"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n" + ws, false,
			200},
		"settings alone":        {get + "HTTP2-Settings: AAMAAABkAAQAAP__\r\n", false, 200},
		"TLS":                   {get + "Connection: Upgrade\r\nUpgrade: TLS/1.3\r\n", false, 200},
		"a list":                {get + "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n" + ws, false, 200},
		"a list, the other way": {get + "Connection: Upgrade\r\nUpgrade: h2c,websocket\r\n" + ws, false, 200},
		"two lines": {get + "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n" + ws,
			false, 200},
		"with a version":            {get + "Connection: Upgrade\r\nUpgrade: websocket/13\r\n" + ws, false, 200},
		"no text":                   {get + "Connection: Upgrade\r\nUpgrade: h2\xffc\r\n", false, 200},
		"no Connection":             {get + "Upgrade: websocket\r\n" + ws, false, 200},
		"Connection says otherwise": {get + "Connection: x-upgrade\r\nUpgrade: websocket\r\n" + ws, false, 200},
		"Connection takes the key": {get + "Connection: Upgrade, sec-websocket-key\r\nUpgrade: websocket\r\n" + ws,
			false, 200},
		"no key": {get + both + "Sec-WebSocket-Version: 13\r\n", false, 200},
		"a short key": {get + both + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hvcnQ=\r\n",
			false, 200},
		"a key that is no base64": {get + both + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " +
			"dGhlIHNhbXBsZSBub25jZ!==\r\n", false, 200},
		"two keys":   {get + both + ws + "Sec-WebSocket-Key: " + openingKey + "\r\n", false, 200},
		"no version": {get + both + "Sec-WebSocket-Key: " + openingKey + "\r\n", false, 200},
		"an old version": {get + both + "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: " + openingKey +
			"\r\n", false, 200},
		"a body":         {get + both + ws + "Content-Length: 1\r\n", false, 200},
		"a chunked body": {get + both + ws + "Transfer-Encoding: chunked\r\n", false, 200},
		"HTTP/1.0":       {"GET %s HTTP/1.0\r\nHost: x\r\n" + both + ws, false, 200},
		"POST": {"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" + both + ws, false,
			200},
		"HEAD":                     {"HEAD %s HTTP/1.1\r\nHost: x\r\n" + both + ws, false, 200},
		"CONNECT":                  {"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n" + both + ws, false, 501},
		"a space before the colon": {get + "Connection: Upgrade\r\nUpgrade : websocket\r\n" + ws, false, 400},
	} {
		for path, signedIn := range map[string]string{"/ws": "Cookie: " + cookie(b) + "\r\n", "/public/ws": ""} {
			head := row.head
			if strings.Contains(head, "%s") {
				head = fmt.Sprintf(head, path)
			}
			body := map[bool]string{true: "0\r\n\r\n", false: "x"}[strings.Contains(head, "chunked")]
			conn, resp := st.answerTo(head + signedIn + "\r\n" + body)
			conn.Close()
			if resp.StatusCode != row.status {
				t.Errorf("%s: %d, want %d", name, resp.StatusCode, row.status)
			}
			if row.status != http.StatusOK {
				st.untouched()
				continue
			}
			r := receive(t, st.seen, "a request to reach the app")
			if opens := strings.EqualFold(r.Header.Get("Upgrade"), "websocket") &&
				r.Header.Get("Connection") == "Upgrade" &&
				r.Header.Get("Sec-WebSocket-Key") == openingKey; opens != row.opens {
				t.Errorf("%s: the app received %v; it opens a WebSocket: %v, want %v", name, r.Header, opens, row.opens)
			}
			for _, gone := range []string{"Upgrade", "Sec-Websocket-Key", "Sec-Websocket-Version"} {
				if !row.opens && r.Header[gone] != nil {
					t.Errorf("%s: the app received %s: %q", name, gone, r.Header[gone])
				}
			}
			if r.Header["Http2-Settings"] != nil || strings.Contains(strings.Join(r.Header["Connection"], ","),
				"HTTP2") {
				t.Errorf("%s: the app received %v", name, r.Header)
			}
		}
	}
}

func TestA101ThatNobodyAskedForIs502AndCostsNothing(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/public/*", Public: true})
	b, _ := st.signIn(nil)
	signedIn := "Cookie: " + cookie(b) + "\r\n"
	plain := "GET /private HTTP/1.1\r\nHost: x\r\n" + signedIn
	const upgrade, accept = "Connection: Upgrade\r\nUpgrade: websocket\r\n", "Sec-WebSocket-Accept: " + openingAccept +
		"\r\n"
	for name, row := range map[string]struct{ request, answer string }{
		"to a page":      {plain, upgrade + accept},
		"to a page, h2c": {plain, "Connection: Upgrade\r\nUpgrade: h2c\r\n"},
		"to h2c": {plain +
			"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n",
			"Connection: Upgrade\r\nUpgrade: h2c\r\n"},
		"to a page, without Upgrade": {plain, ""},
		"to a POST": {"POST /private HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n" + signedIn,
			upgrade + accept},
		"to HEAD":                        {"HEAD /private HTTP/1.1\r\nHost: x\r\n" + signedIn, upgrade + accept},
		"to who is not signed in":        {"GET /public/x HTTP/1.1\r\nHost: x\r\n", upgrade + accept},
		"to an opening, without Upgrade": {opening("/private", signedIn), accept},
		"to an opening, with two":        {opening("/private", signedIn), upgrade + "Upgrade: h2c\r\n" + accept},
		"to an opening, h2c": {opening("/private", signedIn), "Connection: Upgrade\r\nUpgrade: h2c\r\n" +
			accept},
		"to an opening, without an accept": {opening("/private", signedIn), upgrade},
		"to an opening, with a wrong one": {opening("/private", signedIn),
			upgrade + "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n"},
		"to an opening, with two accepts": {opening("/private", signedIn), upgrade + accept + accept},
		"to an opening that is public":    {opening("/public/ws"), upgrade},
	} {
		closed := make(chan error, 1)
		st.upstream = func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			conn.SetDeadline(time.Now().Add(patience))
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n"+row.answer+"\r\nbytes of another protocol")
			go func() {
				_, err := io.Copy(io.Discard, conn)
				conn.Close()
				closed <- err
			}()
		}
		_, resp := st.answerTo(row.request + "\r\nx")
		if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 502 ||
			strings.Contains(string(body), "another protocol") {
			t.Errorf("%s: %d %s, want 502", name, resp.StatusCode, body)
		}
		if err := receive(t, closed, "the gateway to let go of the app"); err != nil &&
			strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: the connection stays open: %v", name, err)
		}
		receive(t, st.seen, "a request to reach the app")
		st.upstream = nil
		if resp, _ := st.send("GET", "/private", "Cookie", cookie(b)); resp.StatusCode != 200 {
			t.Errorf("%s: the next request: %d", name, resp.StatusCode)
		}
		receive(t, st.seen, "a request to reach the app")
	}
}

// Over HTTP/2 there is no 101; net/http takes it for an interim answer, of which there may be any number.
func TestAnInterimAnswerIsPassedOnAsAHintAlone(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.Header().Set("Set-Cookie", "curfew=planted")
		w.Header().Set("X-Hint", "x")
		for _, code := range []int{102, 103, 103} {
			w.WriteHeader(code)
		}
		clear(w.Header())
		io.WriteString(w, "done")
	}))
	app.Config.Protocols = new(http.Protocols)
	app.Config.Protocols.SetHTTP1(true)
	app.Config.Protocols.SetUnencryptedHTTP2(true)
	app.Start()
	t.Cleanup(app.Close)
	b, _ := st.signIn(nil)
	for _, scheme := range []string{"http", "h2c"} {
		u, _ := url.Parse(app.URL)
		u.Scheme = scheme
		st.routed(gateway.Route{Upstream: gateway.Upstream{URL: u}})
		answer := st.raw("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: " + cookie(b) + "\r\n\r\n")
		if strings.Count(answer, "HTTP/1.1 103 ") != 2 || strings.Contains(answer, "planted") ||
			strings.Contains(answer, "X-Hint") ||
			!strings.Contains(answer, "Link: </style.css>") || !strings.Contains(answer, "HTTP/1.1 200 OK") {
			t.Errorf("%s: %q", scheme, answer)
		}
	}
}

func TestAnAppThatClosesRightAfterItOpenedAWebSocket(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.upstream = func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(conn, switching(r)+"\x88\x02\x03\xe8")
		conn.Close()
	}
	b, _ := st.signIn(nil)
	s := st.dial(b)
	if opcode, payload, err := s.read(); err != nil || opcode != 8 || payload != "\x03\xe8" {
		t.Errorf("opcode %d, %q, %v", opcode, payload, err)
	}
	if rest, err := io.ReadAll(s.in); len(rest) > 0 || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

func TestAWebSocketFromAnotherOriginIsRefused(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.policed(gateway.Rule{Path: "/public/*", Public: true})
	st.gateway.WebSocketOrigins = []string{"https://other.example.com"}
	st.gateway.Site.TrustedProxies = nil
	b, _ := st.signIn(nil)
	site := st.public.URL
	// One host of a route's own, at the port of the site.
	u, _ := url.Parse(st.app.URL)
	port := st.gateway.Site.URL.Port()
	st.routed(gateway.Route{Host: "status.example.com", Upstream: gateway.Upstream{URL: u}},
		gateway.Route{Upstream: gateway.Upstream{URL: u}})
	for name, row := range map[string]struct {
		headers []string
		status  int
	}{
		"this site":                    {[]string{"Origin", site}, 200},
		"this site, in capitals":       {[]string{"Origin", strings.ToUpper(site)}, 200},
		"a listed one":                 {[]string{"Origin", "https://other.example.com"}, 200},
		"no browser":                   {nil, 200},
		"a proxy has dropped it":       {[]string{"Sec-Fetch-Site", "same-origin"}, 200},
		"another":                      {[]string{"Origin", "https://evil.example"}, 403},
		"another port":                 {[]string{"Origin", "http://127.0.0.1:1"}, 403},
		"without its port":             {[]string{"Origin", "http://127.0.0.1"}, 403},
		"another scheme":               {[]string{"Origin", strings.Replace(site, "http", "https", 1)}, 403},
		"a sub-domain of a listed one": {[]string{"Origin", "https://x.other.example.com"}, 403},
		"one that begins as we do":     {[]string{"Origin", site + ".evil.example"}, 403},
		"none that can be named":       {[]string{"Origin", "null"}, 403},
		"empty":                        {[]string{"Origin", ""}, 403},
		"two":                          {[]string{"Origin", site, "Origin", "https://evil.example"}, 403},
		"a browser, and it is missing": {[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		"another route's host":         {[]string{"Origin", "http://status.example.com:" + port}, 403},
		"what Host says":               {[]string{"Origin", "http://evil.example", "Host", "evil.example"}, 403},
		"a route's own host": {[]string{"Origin", "http://status.example.com:" + port, "Host",
			"status.example.com:" + port}, 200},
		"a route's host, elsewhere": {[]string{"Origin", "https://status.example.com", "Host",
			"status.example.com:" + port}, 403},
	} {
		socket := append([]string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-Websocket-Version", "13",
			"Sec-Websocket-Key", openingKey}, row.headers...)
		in := append([]string{"Cookie", cookie(b)}, socket...)
		for what, ask := range map[string]func() int{
			"the proxy": func() int { resp, _ := st.send("GET", "/ws", in...); return resp.StatusCode },
			"the proxy, a public path": func() int {
				resp,
					_ := st.send("GET", "/public/ws", socket...)
				return resp.StatusCode
			},
			"verify": func() int { return st.askAt("/auth/verify/ws", in...).Code },
			"the middleware": func() int {
				return request(st.gateway.Require(http.NotFoundHandler()), "/ws",
					in...).Code
			},
			"the middleware, who may": func() int {
				return request(st.gateway.Optional(http.NotFoundHandler()), "/ws",
					in...).Code
			},
			"ext_authz":                 func() int { return st.asked(in...) },
			"ext_authz, a public path ": func() int { return st.asked(socket...) },
		} {
			want := row.status
			switch {
			case strings.Contains(strings.Join(row.headers, " "), "status.example.com:") &&
				!strings.Contains(what, "proxy"):
				want = 403 // only a route has a host of its own
			case want == 200 && strings.HasPrefix(what, "the middleware"):
				want = 404
			case want == 200 && what == "ext_authz, a public path ":
				want = 401
			}
			if got := ask(); got != want {
				t.Errorf("%s, %s: %d, want %d", name, what, got, want)
			}
		}
	}
	// What is no WebSocket may come from anywhere: that is for the app and its CORS to say.
	if resp, _ := st.send("GET", "/private", "Cookie", cookie(b), "Origin",
		"https://evil.example"); resp.StatusCode != 200 {
		t.Errorf("an ordinary request: %d", resp.StatusCode)
	}
	if !strings.Contains(st.logs.String(), `https://evil.example`) {
		t.Error("the log does not say which origin was refused")
	}
}

// asked is the status that a request gets of [gateway.Handler.Decide].
func (st *stage) asked(headers ...string) int {
	r := httptest.NewRequest("GET", "/ws", nil)
	r.Host = st.gateway.Site.URL.Host
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	if a := st.gateway.Decide(r); !a.Allowed {
		return a.Status
	}
	return 200
}

func TestWhoAsksForAnotherProtocolIsRelievedOfIt(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	for upgrade, removed := range map[string]string{"h2c": "Http2-Settings Upgrade", "websocket": "Http2-Settings"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = st.gateway.Site.URL.Host
		r.Header.Set("Cookie", cookie(b))
		r.Header.Set("Upgrade", upgrade)
		r.Header.Set("HTTP2-Settings", "AAMA")
		a := st.gateway.Decide(r)
		var got []string
		for _, name := range []string{"Http2-Settings", "Upgrade"} {
			for _, is := range a.Remove {
				if is == name {
					got = append(got, name)
				}
			}
		}
		if strings.Join(got, " ") != removed {
			t.Errorf("%s: removed %q, want %q", upgrade, a.Remove, removed)
		}
	}
}

func TestAnOriginIsReadAsBrowsersWriteIt(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"https://app.example.com": "https://app.example.com", "HTTPS://App.Example.com:443": "https://app.example.com",
		"http://localhost:80": "http://localhost", "http://[::1]:3000": "http://[::1]:3000",
		"chrome-extension://abc": "chrome-extension://abc",
	} {
		if got, err := gateway.ParseOrigin(raw); got != want || err != nil {
			t.Errorf("%s: %s, %v", raw, got, err)
		}
	}
	for _, raw := range []string{"", "*", "null", "app.example.com", "https://", "https://*.example.com", "https://a/",
		"https://a?b", "https://a#b", "https://u@a", "https://a:"} {
		if got, err := gateway.ParseOrigin(raw); err == nil ||
			!strings.Contains(err.Error(), "is not an origin; write it like") {
			t.Errorf("%q: %q, %v", raw, got, err)
		}
	}
}

// keepAlive is an app that closes idle connections early, and opens WebSockets.
func (st *stage) keepAlive() *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			io.Copy(w, r.Body)
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(conn, switching(r)+"\x88\x00")
		conn.Close()
	}))
	s.Config.IdleTimeout = time.Millisecond
	s.Start()
	st.t.Cleanup(s.Close)
	return s
}

func TestAWebSocketMayFollowOrdinaryRequests(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.upstream = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			return
		}
		sockets(make(chan net.Conn, 1))(w, r)
	}
	b, _ := st.signIn(nil)
	for range 2 {
		if resp, _ := st.send("GET", "/", "Cookie", cookie(b)); resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
	}
	st.dial(b)
}

func TestAThousandRequestsOfEachKindToAnAppThatClosesEarly(t *testing.T) {
	t.Parallel()
	const each, workers = 1000, 16
	st := newStageWith(t, session.Config{MaxStale: time.Hour})
	u, _ := url.Parse(st.keepAlive().URL)
	st.routed(gateway.Route{Upstream: gateway.Upstream{URL: u}})
	b, _ := st.signIn(nil)
	head := " / HTTP/1.1\r\nHost: x\r\nCookie: " + cookie(b) + "\r\n"
	kinds := map[string]int{
		"GET" + head + "\r\n":                                        200,
		"POST" + head + "Content-Length: 5\r\n\r\nhello":             200,
		"PUT" + head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 200,
		opening("/", "Cookie: "+cookie(b)+"\r\n") + "\r\n":           101,
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			var conn net.Conn
			var in *bufio.Reader
			for range each / workers {
				for request, want := range kinds { // in any order
					if conn == nil {
						conn = dialTCP(t, st.public.Listener.Addr().String())
						in = bufio.NewReader(conn)
					}
					io.WriteString(conn, request)
					resp, err := http.ReadResponse(in, nil)
					if err != nil {
						t.Errorf("%.20q: %v", request, err)
						return
					}
					io.Copy(io.Discard, resp.Body)
					if resp.StatusCode != want {
						t.Errorf("%.20q: %d, want %d", request, resp.StatusCode, want)
						return
					}
					if want == 101 {
						conn.Close()
						conn = nil
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestABurstLeavesFewConnectionsBehind(t *testing.T) {
	t.Parallel()
	const clients, kept = 300, 128
	st := newStageWith(t, session.Config{MaxStale: time.Hour})
	all := make(chan struct{})
	var there sync.WaitGroup
	there.Add(clients)
	go func() { there.Wait(); close(all) }()
	changes := make(chan int, 4*clients)
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		there.Done()
		<-all
	}))
	app.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			changes <- 1
		case http.StateClosed:
			changes <- -1
		}
	}
	app.Start()
	t.Cleanup(app.Close)
	u, _ := url.Parse(app.URL)
	st.routed(gateway.Route{Upstream: gateway.Upstream{URL: u}})
	b, _ := st.signIn(nil)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			if resp, _ := st.send("GET", "/", "Cookie", cookie(b)); resp.StatusCode != 200 {
				t.Error(resp.Status)
			}
		})
	}
	wg.Wait()
	for open, seen := 0, 0; open > kept || seen < clients; seen++ {
		open += receive(t, changes, fmt.Sprintf("no more than %d connections to be left; there are %d", kept, open))
	}
}
