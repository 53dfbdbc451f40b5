package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	room "example.com/curfew/gateway"
)

// identityNames are the names of both presets, and what else oauth2-proxy is known to set: whichever an app knows, only
// the gateway may say it.
func identityNames() []string {
	names := []string{"X-Forwarded-Access-Token", "X-Auth-Request-Access-Token", "X-Forwarded-Uri", "X-Original-Url",
		"X-Rewrite-Url"}
	names = slices.AppendSeq(names, maps.Keys(room.CurfewHeaders()))
	return slices.Sorted(slices.Values(slices.AppendSeq(names, maps.Keys(room.OAuth2ProxyHeaders()))))
}

// exchange sends a request as it is spelled, and returns the status and what the app was told, if it answered.
func exchange(t *testing.T, site, request string) (int, *seen) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(site, "http://"), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	defer resp.Body.Close()
	var told seen
	if json.NewDecoder(resp.Body).Decode(&told) != nil || told.Path == "" {
		return resp.StatusCode, nil
	}
	return resp.StatusCode, &told
}

// mustNotHold fails the test where an app was told something that the client made up.
func (s *seen) mustNotHold(t *testing.T, what, lie string) {
	t.Helper()
	for _, header := range []http.Header{s.Header, s.Trailer} {
		for name, values := range header {
			if strings.Contains(strings.Join(values, " "), lie) {
				t.Errorf("%s: the app was told %s: %q", what, name, values)
			}
		}
	}
}

func TestBehindAProxyNoNameOfEitherPresetIsTheClients(t *testing.T) {
	each(t, func(t *testing.T, f *front) {
		bob := newBrowser("bob's browser")
		bob.signIn(t, f.gateway, "bob")
		u, err := url.Parse(f.url)
		if err != nil {
			t.Fatal(err)
		}
		var cookies []string
		for _, c := range bob.client.Jar.Cookies(u) {
			cookies = append(cookies, c.String())
		}
		with := func(method, path, more string, who bool) string {
			head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nAccept: text/html\r\nConnection: close\r\n", method,
				path, u.Host)
			if who {
				head += "Cookie: " + strings.Join(cookies, "; ") + "\r\n"
			}
			return head + more
		}
		spellings := map[string]func(string) string{
			"as it is":    func(n string) string { return n },
			"lower case":  strings.ToLower,
			"upper case":  strings.ToUpper,
			"underscores": func(n string) string { return strings.ReplaceAll(n, "-", "_") },
			"one of them": func(n string) string { return strings.Replace(n, "-", "_", 1) },
		}
		for _, c := range ".!#$%&'*+^`|~" {
			spellings[string(c)] = func(n string) string { return strings.ReplaceAll(n, "-", string(c)) }
		}
		for how, spell := range spellings {
			var lies strings.Builder
			for _, name := range identityNames() {
				fmt.Fprintf(&lies, "%s: mallory\r\n", spell(name))
			}
			for _, row := range []struct {
				path string
				who  bool
			}{{"/public/a", false}, {"/public/a", true}, {"/private", true}} {
				what := fmt.Sprintf("%s, %s, signed in: %v", how, row.path, row.who)
				status, told := exchange(t, f.url, with("GET", row.path, lies.String()+"\r\n", row.who))
				switch {
				case told != nil:
					told.mustNotHold(t, what, "mallory")
					if is := told.Header.Get("X-Auth-Subject"); row.who && is != "bob" || !row.who && is != "" {
						t.Errorf("%s: the app was told that it is %q", what, is)
					}
				case status != http.StatusBadRequest || strings.ContainsAny(spell("-"), "-_."):
					t.Errorf("%s: answered %d", what, status)
				}
			}
		}

		names := strings.Join(identityNames(), ", ")
		var twice, trailers strings.Builder
		for _, name := range identityNames() {
			fmt.Fprintf(&twice, "%s: mallory\r\n%s:mallory\r\n", name, strings.ToLower(name))
			fmt.Fprintf(&trailers, "%s: mallory\r\n", name)
		}
		chunked := "Trailer: " + names + "\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" + trailers.String() +
			"\r\n"
		for what, more := range map[string]string{
			"several lines":            twice.String() + "\r\n",
			"hop by hop":               "Connection: " + names + "\r\n\r\n",
			"hop by hop, with values":  "connection: " + strings.ToLower(names) + "\r\n" + twice.String() + "\r\n",
			"a space before the colon": "X-Auth-Request-User : mallory\r\nX-Auth-Subject : mallory\r\n\r\n",
			"a line that goes on":      "X-A: a\r\n X-Auth-Subject: mallory\r\n\r\n",
			"a bare line end":          "X-A: a\nX-Auth-Subject: mallory\r\n\r\n",
			"a bare carriage return":   "X-A: a\rX-Auth-Subject: mallory\r\n\r\n",
			"an upgrade to another thing": "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n" +
				twice.String() + "\r\n",
			"trailers": chunked,
		} {
			method := "GET"
			if what == "trailers" {
				method = "POST"
			}
			for _, who := range []bool{true, false} {
				status, told := exchange(t, f.url, with(method, "/public/a", more, who))
				if told == nil {
					if status < 400 {
						t.Errorf("%s: answered %d", what, status)
					}
					continue
				}
				if what == "a line that goes on" || what == "a bare carriage return" { // it is all one value
					told.Header.Del("X-A")
				}
				told.mustNotHold(t, what, "mallory")
				if is := told.Header.Get("X-Auth-Subject"); who && is != "bob" || !who && is != "" {
					t.Errorf("%s, signed in %v: the app was told that it is %q", what, who, is)
				}
			}
		}

		// A WebSocket goes another way through these proxies.
		for _, name := range identityNames() {
			r := with("GET", "/socket", name+": mallory\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: "+f.url+"\r\n\r\n", true)
			if hello := greeting(t, f.url, strings.Replace(r, "Connection: close", "Connection: Upgrade",
				1)); hello != "hello bob" {
				t.Errorf("a WebSocket with %s: the app says %q", name, hello)
			}
		}
	})
}

// greeting opens a WebSocket with a request as it is spelled, and returns its first message.
func greeting(t *testing.T, site, request string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(site, "http://"), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return resp.Status
	}
	_, text, err := frame(in)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// What a header cannot carry as it is does not arrive as something else; the rest does, under the names of both
// presets.
func TestBehindAProxyValuesArriveAsTheyAre(t *testing.T) {
	each(t, func(t *testing.T, f *front) {
		zoe := newBrowser("zoe's browser")
		told := zoe.signIn(t, f.gateway, "zoe")
		for name, want := range map[string]string{
			"X-Auth-Subject": "zoe", "X-Forwarded-User": "zoe", "X-Auth-Request-User": "zoe",
			"X-Auth-Name":   "Zoë Ünal",
			"X-Auth-Groups": "staff,Zürich,a b", "X-Forwarded-Groups": "staff,Zürich,a b",
			"X-Auth-Request-Groups": "staff,Zürich,a b",
			"X-Auth-Email":          "zoe@example.test", "X-Forwarded-Email": "zoe@example.test",
			"X-Auth-Request-Email":           "zoe@example.test",
			"X-Forwarded-Preferred-Username": "", "X-Auth-Request-Preferred-Username": "",
		} {
			if got := strings.Join(told.Header.Values(name), "|"); got != want {
				t.Errorf("the app was told %s %q, want %q", name, got, want)
			}
		}
		if p := zoe.get(t, f.url+"/admin/a"); p.status != http.StatusForbidden {
			t.Errorf("zoe's groups have spaces around them, and should open nothing: %v", p)
		}
		wire, _ := json.Marshal(told.Header)
		t.Logf("%s: %s", f.kind.name, wire)
	})
}
