package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// appServer runs an app on a server that many apps run on. Each has a WebSocket at /socket, an event stream at /stream,
// and at /asked what it was asked for before, each time by whom. To anything else it answers with an appAnswer.
type appServer struct {
	name  string
	h2c   bool     // takes an upgrade to HTTP/2
	needs []string // programs, and files in apps/
	argv  func(port string) []string
}

var appServers = []appServer{
	{name: "Node.js", needs: []string{"node", "apps/node_modules/ws/package.json"},
		argv: func(port string) []string { return []string{"node", "node.mjs", port} }},
	{name: "Hypercorn", h2c: true, needs: []string{"python3", "apps/pip/hypercorn/__init__.py"},
		argv: func(port string) []string {
			// Without workers it is one process.
			return []string{"python3", "-m", "hypercorn", "--workers", "0", "--bind", "127.0.0.1:" + port, "asgi:app"}
		}},
	{name: "uvicorn", needs: []string{"python3", "apps/pip/uvicorn/__init__.py"},
		argv: func(port string) []string {
			return []string{"python3", "-m", "uvicorn", "--host", "127.0.0.1", "--port", port, "asgi:app"}
		}},
	{name: "Undertow", h2c: true, needs: []string{"java", "apps/jars/undertow-core-*.jar"},
		argv: func(port string) []string {
			return []string{"java", "-XX:TieredStopAtLevel=1", "-cp", "jars/*", "App.java", port}
		}},
	{name: "Go"}, // in this process
}

// appAnswer is what an app was told, and the SHA-256 of the body that it got.
type appAnswer struct {
	seen
	Sum string
}

// start runs the app, or skips the test aloud. It returns the URL.
func (a appServer) start(t *testing.T) string {
	t.Helper()
	if a.argv == nil {
		return goApp(t)
	}
	for _, what := range a.needs {
		_, err := exec.LookPath(what)
		if strings.Contains(what, "/") {
			files, _ := filepath.Glob(what)
			err = nil
			if len(files) == 0 {
				err = errors.New("no such file")
			}
		}
		if err == nil {
			continue
		}
		say := fmt.Sprintf("NOT TESTED: an app on %s: %s is missing (%v); `make deps` installs it", a.name, what, err)
		if os.Getenv("CI") == "true" {
			t.Fatal(say)
		}
		t.Skip(say)
	}
	addr := reserve(t)
	_, port, _ := net.SplitHostPort(addr)
	packages, err := filepath.Abs("apps/pip")
	if err != nil {
		t.Fatal(err)
	}
	env := append(environ(), "PYTHONPATH="+packages, "PYTHONDONTWRITEBYTECODE=1")
	c := start(t, a.name, "apps", env, a.argv(port)...)
	site := "http://" + addr
	eventually(t, a.name+" listens", func() string {
		select {
		case <-c.gone:
			t.Fatalf("%s ended (%v)", a.name, c.cmd.ProcessState)
		default:
		}
		_, err := newBrowser("the test").try(http.MethodGet, site+"/asked", nil)
		return unless(err == nil, "%v", err)
	})
	return site
}

// goApp is the app on the server of Go, which also speaks HTTP/2 without TLS.
func goApp(t *testing.T) string {
	var mu sync.Mutex
	var asked []string
	live := liveHandler(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/asked" {
			io.WriteString(w, strings.Join(asked, "\n"))
			return
		}
		asked = append(asked, r.URL.Path+" "+r.Header.Get("X-Auth-Subject"))
		if r.URL.Path == "/socket" || r.URL.Path == "/stream" {
			mu.Unlock()
			defer mu.Lock()
			live.ServeHTTP(w, r)
			return
		}
		sum := sha256.New()
		io.Copy(sum, r.Body)
		json.NewEncoder(w).Encode(appAnswer{seen{Path: r.URL.Path, Header: r.Header}, hex.EncodeToString(sum.Sum(nil))})
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// Each app behind the gateway alone, and behind each proxy with a gateway at its side.
func TestAppsOnTheServersThatPeopleUse(t *testing.T) {
	t.Parallel()
	ways := append([]string{"gateway"}, clients(proxies)...)
	for _, a := range appServers {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			app := a.start(t)
			a.takesH2C(t, app)
			p, all := world(t, ways...) // one provider, and a gateway for each
			alone := all[0]
			alone.set("--upstream", app)
			alone.set("--config", alone.write(t, "curfew.yaml", "policy:\n  - {path: /public/*, public: true}\n"))
			var fronts []*front
			for i, x := range proxies {
				fronts = append(fronts, beside(t, x, p, all[i+1], app))
			}
			p.start(t)
			t.Run("behind the gateway", func(t *testing.T) {
				t.Parallel()
				alone.start(t)
				a.try(t, p, alone, app)
			})
			for _, f := range fronts {
				t.Run("behind "+f.kind.name, func(t *testing.T) {
					t.Parallel()
					f.run(t)
					a.try(t, p, f.gateway, app)
				})
			}
		})
	}
}

// try has two people use an app, and somebody attack it.
func (a appServer) try(t *testing.T, p *provider, g *gateway, app string) {
	t.Helper()
	alice, bob := newBrowser("alice's browser"), newBrowser("bob's browser")
	alice.client.Transport = &http.Transport{ExpectContinueTimeout: patience} // keeps its connections, as browsers do
	t.Cleanup(alice.client.CloseIdleConnections)
	alice.signIn(t, g, "alice")
	bob.signIn(t, g, "bob")

	// Ordinary requests, and uploads, with a length and in chunks.
	upload := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
	for _, row := range []struct {
		what, method, path string
		body               []byte
		chunked, expect    bool
	}{
		{"a page", "GET", "/private/page", nil, false, false},
		{"a page without its body", "HEAD", "/private/page", nil, false, false},
		{"a form", "POST", "/private/form", []byte("a=b"), false, false},
		{"an upload", "PUT", "/private/upload", upload, false, false},
		{"an upload in chunks", "POST", "/private/upload", upload, true, false},
		{"an upload that waits to be asked for", "PUT", "/private/upload", upload, false, true},
		{"a page after them", "GET", "/private/page", nil, false, false},
	} {
		var body io.Reader = bytes.NewReader(row.body)
		if row.chunked {
			body = io.MultiReader(body) // of a length that the client does not know
		}
		r, err := http.NewRequest(row.method, g.url+row.path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", g.url)
		r.Header.Set("X-Auth-Subject", "root")
		if row.expect {
			r.Header.Set("Expect", "100-continue") // RFC 9110 §10.1.1
		}
		resp, err := alice.client.Do(r)
		if err != nil {
			t.Fatalf("%s: %v", row.what, err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		var got appAnswer
		switch sum := sha256.Sum256(row.body); {
		case err != nil || resp.StatusCode != http.StatusOK:
			t.Errorf("%s is answered %s, %v: %.500s", row.what, resp.Status, err, text)
		case row.method == "HEAD":
		case json.Unmarshal(text, &got) != nil || got.Path != row.path || got.Sum != hex.EncodeToString(sum[:]) ||
			strings.Join(got.Header.Values("X-Auth-Subject"), ",") != "alice":
			t.Errorf("%s is not what the app was told: %.500s", row.what, text)
		}
	}

	// A WebSocket after them, and an event stream.
	hello, socketEnd := alice.socket(t, g.url)
	if hello != "hello alice" {
		t.Fatalf("alice opens a WebSocket: %s", hello)
	}
	hello, streamEnd := alice.stream(t, g.url)
	if hello != "hello alice" {
		t.Fatalf("alice opens an event stream: %s", hello)
	}

	a.smuggle(t, g, app, alice)

	// Both end with the session, and nothing else does.
	from := p.said()
	alice.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.success", g)
	if got := socketEnd(); got != "close 1008" {
		t.Errorf("the WebSocket ended with %q, want that it is closed with 1008", got)
	}
	if got := streamEnd(); got != "closed" {
		t.Errorf("the event stream is %s", got)
	}
	if status, _ := alice.socket(t, g.url); !strings.HasPrefix(status, "401") {
		t.Errorf("alice, signed out, opens a WebSocket: %s, want 401", status)
	}
	bob.mustBeIn(t, g, "bob")
}

// takesH2C shows that an attack by h2c succeeds on an app that nothing protects, if it speaks that; or the attack is
// none.
func (a appServer) takesH2C(t *testing.T, app string) {
	t.Helper()
	if !a.h2c {
		return
	}
	if status, _ := h2c(t, app, "/public/control", "/control", nil, false); status != http.StatusSwitchingProtocols {
		t.Fatalf("%s itself answers an upgrade to h2c with %d, want 101", a.name, status)
	}
	eventually(t, a.name+" itself is told a lie", func() string {
		told := newBrowser("the test").get(t, app+"/asked").body
		return unless(strings.Contains(told, "/control root"), "%s", told)
	})
}

// smuggle tries to open HTTP/2 to the app behind the gateway (RFC 7540 §3.2), and to send another request through it.
func (a appServer) smuggle(t *testing.T, g *gateway, app string, alice *browser) {
	t.Helper()
	site, err := url.Parse(g.url)
	if err != nil {
		t.Fatal(err)
	}
	hidden, after := "/admin/"+g.client, "/public/after/"+g.client // an app has several gateways
	for what, cookies := range map[string][]*http.Cookie{"nobody": nil, "alice": alice.client.Jar.Cookies(site)} {
		status, body := h2c(t, g.url, "/public/h2c", hidden, cookies, true)
		var got appAnswer
		if err := json.Unmarshal([]byte(body), &got); status != http.StatusOK || err != nil {
			t.Errorf("an upgrade to h2c by %s is answered %d, want 200 and no upgrade: %.500s", what, status, body)
		}
		for _, name := range []string{"Upgrade", "Http2-Settings"} {
			if values := got.Header.Values(name); len(values) > 0 {
				t.Errorf("the app was told by %s %s: %s", what, name, values)
			}
		}
	}
	// Whatever was on its way has come before this.
	if got := alice.get(t, g.url+after); got.status != http.StatusOK {
		t.Errorf("a page after the attack: %v", got)
	}
	told := newBrowser("the test").get(t, app+"/asked").body
	if strings.Contains(told, hidden) || strings.Contains(strings.ReplaceAll(told, "/control root", ""), " root") {
		t.Errorf("the attack has reached the app: %s", told)
	}
	if !strings.Contains(told, after) {
		t.Errorf("the app was not asked for the page after the attack: %s", told)
	}
}

// h2c asks for an upgrade to HTTP/2 and then sends a request for the path hidden, as root, as if it had been granted.
// It returns the first answer. If closes is set, the server has to end the connection after that.
func h2c(t *testing.T, site, path, hidden string, cookies []*http.Cookie, closes bool) (status int, body string) {
	t.Helper()
	host := strings.TrimPrefix(site, "http://")
	conn, err := net.DialTimeout("tcp", host, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	head := "GET " + path + " HTTP/1.1\r\nHost: " + host +
		"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" +
		"HTTP2-Settings: AAMAAABkAAQAAP__\r\n"
	for _, c := range cookies {
		head += "Cookie: " + c.Name + "=" + c.Value + "\r\n"
	}
	io.WriteString(conn, head+"\r\n")
	raw := new(bytes.Buffer) // all that comes
	in := bufio.NewReader(io.TeeReader(conn, raw))
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("an upgrade to h2c: %v after %.500q", err, raw)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("an upgrade to h2c: %v", err)
		}
		body = string(text)
	}

	// RFC 7541 §6: fields of the static table, then literals.
	literal := func(name rune, s ...string) string {
		out := string(name)
		for _, s := range s {
			out += string(rune(len(s))) + s
		}
		return out
	}
	fields := "\x82\x86" + literal(4, hidden) + literal(1, "x") + literal(0, "x-auth-subject", "root")
	// RFC 9113 §3.4, §6.5 and §6.2: the preface, settings, and the headers of stream 3, which are all of the request.
	io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"+
		"\x00\x00"+string(rune(len(fields)))+"\x01\x05\x00\x00\x00\x03"+fields)
	if closes {
		if _, err := io.Copy(io.Discard, in); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection that was sent HTTP/2 after it was refused is open still: %.1000q", raw)
		}
	}
	return resp.StatusCode, body
}
