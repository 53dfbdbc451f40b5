package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
)

// What the gateway does to a page that a signed-in person opens. TAG stands for the script.
func TestTheScriptIsPutWhereTheHeadOfAPageBegins(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.gateway.Tabs = gateway.TabsOverlay
	b, s := st.signIn(nil)
	tag := `<script async src="/auth/tab.js" data-session="` + s.Key.Handle() + `" data-mode="overlay"></script>`
	long := "<!-- " + strings.Repeat("x", 20<<10) + " -->"
	for name, c := range map[string]struct{ page, want string }{
		"a head": {"<!doctype html><html lang=en><head><title>x</title>",
			"<!doctype html><html lang=en><head>TAG<title>x</title>"},
		"a head with attributes": {"\n<!DOCTYPE html>\n<HTML>\n<Head prefix='a>b'>\n<p>",
			"\n<!DOCTYPE html>\n<HTML>\n<Head prefix='a>b'>TAG\n<p>"},
		"no head":                   {"<!doctype html><html><body>x", "<!doctype html><html>TAG<body>x"},
		"no html":                   {"<!doctype html>\n<title>x</title>", "<!doctype html>\nTAG<title>x</title>"},
		"no doctype":                {"<h1>x</h1>", "TAG<h1>x</h1>"},
		"text alone":                {"hello", "TAGhello"},
		"a header, not a head":      {"<header>x", "TAG<header>x"},
		"a head in a comment":       {"<!-- <head> --><!doctype html><p>", "<!-- <head> --><!doctype html>TAG<p>"},
		"a short comment":           {"<!--><head>-->", "<!--><head>TAG-->"},
		"a byte order mark":         {"\uFEFF<!doctype html><p>", "\uFEFF<!doctype html>TAG<p>"},
		"UTF-16":                    {"\xFE\xFF\x00<\x00p\x00>", "\xFE\xFF\x00<\x00p\x00>"},
		"a doctype and nothing":     {"<!doctype html>", "<!doctype html>"},
		"nothing":                   {"", ""},
		"a comment that never ends": {"<!-- <head>", "<!-- <head>"},
		"a very long comment":       {long + "<head>", long + "<head>"},
		"an SVG in a page":          {"<svg><head>", "TAG<svg><head>"},
	} {
		st.upstream = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, c.page)
		}
		resp, body := st.send("GET", "/", "Cookie", cookie(b), "Sec-Fetch-Dest", "document")
		if want := strings.ReplaceAll(c.want, "TAG", tag); body != want {
			t.Errorf("%s: %.200q, want %.200q", name, body, want)
		}
		if n := resp.Header.Get("Content-Length"); n != "" && n != strconv.Itoa(len(body)) {
			t.Errorf("%s: Content-Length %s for %d bytes", name, n, len(body))
		}
	}
}

func TestTheScriptIsPutIntoPagesOnly(t *testing.T) {
	t.Parallel()
	const page = "<!doctype html><head><p>"
	for name, c := range map[string]struct {
		off     bool
		nobody  bool
		method  string
		status  int
		request []string    // in place of Sec-Fetch-Dest: document
		answer  http.Header // beside Content-Type
		with    bool        // the script is there
		says    string      // in the log
	}{
		"a page":           {with: true},
		"after a form":     {method: "POST", with: true},
		"a frame":          {request: []string{"Sec-Fetch-Dest", "iframe"}, with: true},
		"switched off":     {off: true},
		"nobody":           {nobody: true},
		"fetch":            {request: []string{"Sec-Fetch-Dest", "empty"}},
		"an image":         {request: []string{"Sec-Fetch-Dest", "image"}},
		"an older browser": {request: []string{"Accept", "text/html"}},
		"not found":        {status: 404},
		"part of a page":   {status: 206, answer: http.Header{"Content-Range": {"bytes 0-23/99"}}},
		"XHTML":            {answer: http.Header{"Content-Type": {"application/xhtml+xml"}}},
		"text":             {answer: http.Header{"Content-Type": {"text/html-template"}}},
		"UTF-16":           {answer: http.Header{"Content-Type": {"text/html; charset=UTF-16LE"}}},
		"a download":       {answer: http.Header{"Content-Disposition": {"attachment; filename=x.html"}}},
		"inline":           {answer: http.Header{"Content-Disposition": {"inline; filename=x.html"}}, with: true},
		"no-transform":     {answer: http.Header{"Cache-Control": {"private, No-Transform"}}},
		"compressed":       {answer: http.Header{"Content-Encoding": {"br"}}, says: "compresses its answers (br)"},
		"identity":         {answer: http.Header{"Content-Encoding": {"identity"}}, with: true},
		"CSP: 'self'": {answer: csp("default-src 'none'; script-src 'self'; connect-src 'self'"),
			with: true},
		"CSP: default":      {answer: csp("default-src 'SELF'"), with: true},
		"CSP: https: alone": {answer: csp("script-src https:"), says: "/auth/tab.js: add 'self' to script-src"},
		"CSP: other hosts": {answer: csp("script-src cdn.example"),
			says: "/auth/tab.js: add 'self' to script-src"},
		"CSP: none":      {answer: csp("default-src 'none'"), says: "/auth/events: add 'self' to default-src"},
		"CSP: no events": {answer: csp("connect-src 'none'"), says: "/auth/events: add 'self' to connect-src"},
		"CSP: two policies": {answer: csp("script-src 'self'", "script-src 'none'"),
			says: "add 'self' to script-src"},
		"CSP: two in one": {answer: csp("script-src 'self', script-src 'none'"),
			says: "add 'self' to script-src"},
		"CSP: first counts": {answer: csp("script-src 'none'; script-src 'self'"),
			says: "add 'self' to script-src"},
		"CSP: elem": {answer: csp("script-src 'self'; script-src-elem 'none'"),
			says: "add 'self' to script-src-elem"},
		"CSP: sandbox":         {answer: csp("sandbox allow-forms"), says: "sandbox without allow-scripts"},
		"CSP: sandbox allowed": {answer: csp("sandbox allow-scripts"), with: true},
		"CSP: strict-dynamic": {answer: csp("script-src 'self' 'strict-dynamic' 'sha256-x'"),
			says: "add 'self' to script-src"},
		"CSP: a nonce": {answer: csp("script-src 'nonce-r4nd0m+/=' 'strict-dynamic'"),
			with: true, says: `nonce="r4nd0m+/="`},
		"CSP: hostile nonce": {answer: csp(`script-src 'nonce-"><script>alert(1)</script>'`),
			with: true, says: `nonce="&#34;&gt;&lt;script`},
		"CSP: other nonces": {answer: csp("script-src 'nonce-a'", "script-src 'nonce-b'"),
			says: "add 'self' to script-src"},
		"CSP: report only": {answer: http.Header{"Content-Security-Policy-Report-Only": {"script-src 'none'"}},
			with: true},
	} {
		st := newStage(t)
		if !c.off {
			st.gateway.Tabs = gateway.TabsOverlay
		}
		policy, err := gateway.NewPolicy(gateway.Rule{Path: "/*", Public: true})
		rig.Must(t, err)
		st.gateway.Policy = policy
		b, _ := st.signIn(nil)
		st.upstream = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("Content-Length", strconv.Itoa(len(page)))
			for k, v := range c.answer {
				w.Header()[k] = v
			}
			if c.status != 0 {
				w.WriteHeader(c.status)
			}
			io.WriteString(w, page)
		}
		headers := c.request
		if headers == nil {
			headers = []string{"Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "same-origin"}
		}
		if !c.nobody {
			headers = append(headers, "Cookie", cookie(b))
		}
		method := c.method
		if method == "" {
			method = "GET"
		}
		resp, body := st.send(method, "/", append(headers, "Accept-Encoding", "gzip, br")...)
		if got := strings.Contains(body, "/auth/tab.js"); got != c.with {
			t.Errorf("%s: with the script: %v, want %v", name, got, c.with)
		}
		kept := resp.Header.Get("ETag") == `"1"` && resp.ContentLength == int64(len(page)) && body == page
		if kept == c.with {
			t.Errorf("%s: %v %q", name, resp.Header, body)
		}
		log := st.Log.String()
		if c.says != "" && !strings.Contains(log+body, c.says) {
			t.Errorf("%s: neither the log nor the page says %q: %s\n%s", name, c.says, log, body)
		}
		if c.says == "" && strings.Contains(log, "tab_script_left_out") {
			t.Errorf("%s: %s", name, log)
		}
		st.send(method, "/", append(headers, "Accept-Encoding", "gzip, br")...)
		if strings.Count(st.Log.String(), `"event":"tab_script_left_out"`) > 1 {
			t.Errorf("%s: logged twice", name)
		}
		// A HEAD promises no length of another body.
		if head, _ := st.send("HEAD", "/", headers...); c.with && (head.Header.Get("Content-Length") != "" ||
			head.Header.Get("ETag") != "") {
			t.Errorf("%s: HEAD %v", name, head.Header)
		}
	}
}

// A browser may have the page without the script: from before tabs was switched on, or from a fetch.
func TestAPageWithoutTheScriptIsNotTakenFromACache(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	st.upstream = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Cache-Control", "private, max-age=60")
		w.Header().Set("Vary", "Accept-Language")
		if r.URL.Path == "/image" {
			w.Header().Set("Content-Type", "image/png")
		}
		if r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Modified-Since") != "" {
			w.WriteHeader(http.StatusNotModified)
		}
	}
	there := []string{"If-None-Match", `"1"`, "If-Modified-Since", "Wed, 01 Jan 2025 00:00:00 GMT", "If-Range", `"1"`,
		"Range", "bytes=0-3"}
	for name, c := range map[string]struct {
		mode       gateway.TabMode
		path, dest string
		nobody     bool
		status     int
		passed     bool // the headers above reach the app
		vary       string
	}{
		"a page":           {gateway.TabsOverlay, "/", "document", false, 200, false, "Accept-Language, Sec-Fetch-Dest"},
		"a frame":          {gateway.TabsEvent, "/", "iframe", false, 200, false, "Accept-Language, Sec-Fetch-Dest"},
		"a fetch":          {gateway.TabsOverlay, "/", "empty", false, 304, true, "Accept-Language, Sec-Fetch-Dest"},
		"an older browser": {gateway.TabsOverlay, "/", "", false, 304, true, "Accept-Language, Sec-Fetch-Dest"},
		"an image opened":  {gateway.TabsOverlay, "/image", "document", false, 200, false, "Accept-Language"},
		"switched off":     {gateway.TabsOff, "/", "document", false, 304, true, "Accept-Language"},
		"nobody":           {gateway.TabsOverlay, "/", "document", true, 304, true, "Accept-Language"},
	} {
		st.gateway.Tabs = c.mode
		st.gateway.Policy, _ = gateway.NewPolicy(gateway.Rule{Path: "/*", Public: c.nobody})
		headers := append([]string{"Sec-Fetch-Dest", c.dest}, there...)
		if !c.nobody {
			headers = append(headers, "Cookie", cookie(b))
		}
		resp, _ := st.send("GET", c.path, headers...)
		if got := strings.Join(resp.Header["Vary"], ", "); resp.StatusCode != c.status || got != c.vary {
			t.Errorf("%s: %d with Vary %q, want %d with %q", name, resp.StatusCode, got, c.status, c.vary)
		}
		seen := <-st.seen
		for i := 0; i < len(there); i += 2 {
			if got := seen.Header.Get(there[i]) != ""; got != c.passed {
				t.Errorf("%s: the app sees %s: %t, want %t", name, there[i], got, c.passed)
			}
		}
	}
	// What a fetch gets as a whole is kept apart from the page too.
	st.gateway.Tabs = gateway.TabsOverlay
	resp, _ := st.send("GET", "/", "Sec-Fetch-Dest", "empty", "Cookie", cookie(b))
	if got := resp.Header["Vary"]; resp.StatusCode != 200 || len(got) != 2 || got[1] != "Sec-Fetch-Dest" {
		t.Errorf("a fetch is answered %d with Vary %q", resp.StatusCode, got)
	}
}

func csp(policies ...string) http.Header { return http.Header{"Content-Security-Policy": policies} }

// A page that comes in parts is passed on as it comes, in whatever pieces.
func TestAPageWithTheScriptIsPassedOnAsItComes(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.gateway.Tabs = gateway.TabsReload
	b, _ := st.signIn(nil)
	goOn := make(chan struct{})
	st.upstream = func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "identity" {
			t.Errorf("the app was asked for %q", got)
		}
		w.Header().Set("Content-Type", "text/html")
		for _, part := range []string{"<!doc", "type html><he", "ad", "><title>x</title>\n"} {
			fmt.Fprint(w, part)
			w.(http.Flusher).Flush()
		}
		<-goOn
		fmt.Fprint(w, "the end")
	}
	req, err := http.NewRequest(http.MethodGet, st.Server.URL+"/", nil)
	rig.Must(t, err)
	req.Header.Set("Cookie", cookie(b))
	req.Header.Set("Sec-Fetch-Dest", "document")
	resp, err := bounded().RoundTrip(req)
	rig.Must(t, err)
	defer resp.Body.Close()
	body := bufio.NewReader(resp.Body)
	line, err := body.ReadString('\n') // comes while the app has not finished
	close(goOn)
	if err != nil || !strings.HasPrefix(line, "<!doctype html><head><script async") ||
		!strings.HasSuffix(line, "<title>x</title>\n") {
		t.Errorf("%q %v", line, err)
	}
	if rest, err := io.ReadAll(body); err != nil || string(rest) != "the end" {
		t.Errorf("%q %v", rest, err)
	}
}
