package web_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/curfew/web"
)

// logging returns a site and what it logs.
func logging(t testing.TB) (*web.Site, *bytes.Buffer) {
	s, text := site(t, "https://app.example.com"), new(bytes.Buffer)
	s.Log = slog.New(slog.NewJSONHandler(text, nil))
	return s, text
}

func answer(h http.Handler, method, target string, body io.Reader, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, body)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestEveryAnswerHasTheHeadersThatItNeeds(t *testing.T) {
	t.Parallel()
	s, _ := logging(t)
	for name, h := range map[string]http.Handler{
		"a success":   s.Page(func(w http.ResponseWriter, _ *http.Request) error { w.Write([]byte("x")); return nil }),
		"a failure":   s.JSON(func(http.ResponseWriter, *http.Request) error { return web.Fail(403, "no", nil) }),
		"a surprise":  s.Protocol(func(http.ResponseWriter, *http.Request) error { return errors.New("secret") }),
		"a panic":     s.Page(func(http.ResponseWriter, *http.Request) error { panic("secret") }),
		"not found":   s.NotFound(),
		"not allowed": s.Page(nil, http.MethodPost),
	} {
		w := answer(h, "GET", "/auth/x", nil)
		for header, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		} {
			if got := w.Header().Get(header); got != want {
				t.Errorf("%s: %s is %q", name, header, got)
			}
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; ") ||
			!strings.HasSuffix(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: %s", name, csp)
		}
		if w.Header().Get("X-Request-Id") == "" {
			t.Errorf("%s has no id", name)
		}
	}
}

func TestWhatIsSaidAndWhatIsLoggedAreTwo(t *testing.T) {
	t.Parallel()
	failure := web.Fail(http.StatusForbidden, "You may not.", errors.New("the inner reason"))
	surprise := errors.New("the inner reason")
	for _, c := range []struct {
		why    string
		err    error
		panics bool
		status int
		said   string
		event  string
		level  string
	}{
		{why: "a failure", err: failure, status: 403, said: "You may not.", event: "request_refused", level: "INFO"},
		{why: "a failure that is wrapped", err: errors.Join(errors.New("while at it"), failure), status: 403,
			said: "You may not.", event: "request_refused", level: "INFO"},
		{why: "anything else", err: surprise, status: 500, said: "Something went wrong", event: "request_failed",
			level: "ERROR"},
		{why: "a panic", err: surprise, panics: true, status: 500, said: "Something went wrong",
			event: "request_failed", level: "ERROR"},
		{why: "away", err: web.Fail(503, "Later.", surprise), status: 503, said: "Later.", event: "request_failed",
			level: "WARN"},
		{why: "with a name of its own", err: &web.Failure{Status: 409, Message: web.Message{Text: "Late."},
			Err: surprise, Event: "login", Attrs: []slog.Attr{slog.String("result", "ended")}},
			status: 409, said: "Late.", event: "login", level: "INFO"},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			s, log := logging(t)
			h := func(http.ResponseWriter, *http.Request) error {
				if c.panics {
					panic(c.err)
				}
				return c.err
			}
			for name, adapter := range map[string]http.Handler{"page": s.Page(h), "json": s.JSON(h),
				"protocol": s.Protocol(h)} {
				log.Reset()
				w := answer(adapter, "GET", "/auth/x?code=SECRET", nil)
				if w.Code != c.status || !strings.Contains(w.Body.String(), c.said) ||
					strings.Contains(w.Body.String(), "inner reason") {
					t.Errorf("%s says %d %s", name, w.Code, w.Body)
				}
				if (w.Header().Get("Retry-After") != "") != (c.status == 503) {
					t.Errorf("%s: Retry-After %q", name, w.Header().Get("Retry-After"))
				}
				var l map[string]any
				if err := json.Unmarshal(log.Bytes(), &l); err != nil {
					t.Fatalf("%s does not log one line: %s", name, log)
				}
				if l["event"] != c.event || l["level"] != c.level ||
					!strings.Contains(l["error"].(string), "inner reason") ||
					l["request_id"] != w.Header().Get("X-Request-Id") || l["path"] != "/auth/x" {
					t.Errorf("%s logs %v", name, l)
				}
				if strings.Contains(log.String(), "SECRET") {
					t.Error("the query is logged")
				}
			}
		})
	}
}

// A store that was not waited for, since the client had left, is no trouble of the store.
func TestAClientThatLeftIsNoTrouble(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name         string
		gone         bool
		failure      web.Failure
		event, level string
	}{
		{"it left", true, web.Failure{Status: 503, Err: context.Canceled}, "client_gone", "INFO"},
		{"it left during a logout", true, web.Failure{Status: 503, Err: context.Canceled, Event: "backchannel_logout"},
			"backchannel_logout", "WARN"},
		{"it left, and the store fails", true, web.Failure{Status: 503, Err: io.ErrUnexpectedEOF}, "request_failed", "WARN"},
		{"it waits", false, web.Failure{Status: 503, Err: context.Canceled}, "request_failed", "WARN"},
	} {
		s, log := logging(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if row.gone {
			cancel()
		}
		row.failure.Err = fmt.Errorf("read the session: %w", row.failure.Err)
		s.Page(func(http.ResponseWriter, *http.Request) error { return &row.failure }).
			ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil))
		var line map[string]any
		if err := json.Unmarshal(log.Bytes(), &line); err != nil || line["event"] != row.event ||
			line["level"] != row.level {
			t.Errorf("%s: logged %s", row.name, log)
		}
	}
}

func TestTheBodiesThatProgramsRead(t *testing.T) {
	t.Parallel()
	s, _ := logging(t)
	for status, words := range map[int][2]string{
		400: {"bad_request", "invalid_request"}, 401: {"unauthorized", "invalid_request"},
		500: {"internal_server_error", "server_error"}, 503: {"service_unavailable", "temporarily_unavailable"},
	} {
		h := func(http.ResponseWriter, *http.Request) error { return web.Fail(status, `a "<reason>"`, nil) }
		for i, adapter := range []http.Handler{s.JSON(h), s.Protocol(h)} {
			w := answer(adapter, "GET", "/", nil)
			var body map[string]string
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil ||
				w.Header().Get("Content-Type") != "application/json" ||
				len(body) != 2 || body["error"] != words[i] || body["error_description"] != `a "<reason>"` {
				t.Errorf("%d: %s %s", status, w.Header().Get("Content-Type"), w.Body)
			}
		}
	}
}

func TestAFailureMaySayWhenToComeBack(t *testing.T) {
	t.Parallel()
	s, _ := logging(t)
	h := s.Protocol(func(http.ResponseWriter, *http.Request) error {
		return &web.Failure{Status: 400, Retry: 1500 * time.Millisecond}
	})
	if w := answer(h, "GET", "/", nil); w.Header().Get("Retry-After") != "2" {
		t.Errorf("Retry-After is %q", w.Header().Get("Retry-After"))
	}
}

func TestWhatIsTooLongIsNotRead(t *testing.T) {
	t.Parallel()
	s, _ := logging(t)
	var read int
	h := s.Page(func(_ http.ResponseWriter, r *http.Request) error {
		body, err := io.ReadAll(r.Body)
		read = len(body)
		return err
	})
	answer(h, "POST", "/", strings.NewReader(strings.Repeat("a", 1<<20)))
	if read > 64<<10 {
		t.Errorf("%d bytes of a body were read", read)
	}
	if w := answer(h, "GET", "/?"+strings.Repeat("a", 33<<10), nil); w.Code != 414 {
		t.Errorf("a long query: %d", w.Code)
	}
}

func TestAnAnswerThatHasBegunIsNotSpoiled(t *testing.T) {
	t.Parallel()
	s, log := logging(t)
	h := s.Page(func(w http.ResponseWriter, _ *http.Request) error {
		io.WriteString(w, "begun")
		return errors.New("too late")
	})
	if w := answer(h, "GET", "/", nil); w.Code != 200 || w.Body.String() != "begun" ||
		!strings.Contains(log.String(), "too late") {
		t.Errorf("%d %q, and the log says %s", w.Code, w.Body, log)
	}
	flushed := s.Page(func(w http.ResponseWriter, _ *http.Request) error {
		return http.NewResponseController(w).
			Flush()
	})
	if w := answer(flushed, "GET", "/", nil); !w.Flushed {
		t.Error("a handler cannot flush")
	}
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("an abort is swallowed")
		}
	}()
	answer(s.Page(func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }), "GET", "/", nil)
}

func TestARequestHasOneIDAndStrangersDoNotChooseIt(t *testing.T) {
	t.Parallel()
	s, _ := logging(t)
	var inner string
	h := s.Page(func(w http.ResponseWriter, r *http.Request) error {
		inner = web.RequestID(r.Context())
		return nil
	})
	if w := answer(s.Page(func(w http.ResponseWriter, r *http.Request) error { h.ServeHTTP(w, r); return nil }), "GET",
		"/", nil, "X-Request-Id", "mine"); inner == "" || inner == "mine" || w.Header().Get("X-Request-Id") != inner {
		t.Errorf("the id is %q", inner)
	}
	s.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} // where httptest's requests come from
	if answer(h, "GET", "/", nil, "X-Request-Id", "proxy-1"); inner != "proxy-1" {
		t.Errorf("a trusted proxy's id became %q", inner)
	}
	if answer(h, "GET", "/", nil, "X-Request-Id", "a\"b c"); inner == "a\"b c" {
		t.Error("an id may be anything")
	}
	if web.RequestID(context.Background()) != "" {
		t.Error("an id out of nowhere")
	}
}

func TestALongValueIsCutInTheLog(t *testing.T) {
	t.Parallel()
	s, log := logging(t)
	s.Event(httptest.NewRequest("GET", "/"+strings.Repeat("p", 5000), nil), slog.LevelInfo, "x",
		slog.String("sub", strings.Repeat("s", 5000)+"\nforged"))
	if n := strings.Count(log.String(), "\n"); n != 1 || log.Len() > 1000 {
		t.Errorf("%d lines, %d bytes", n, log.Len())
	}
}

var style = regexp.MustCompile(`(?s)<style>(.*)</style>`)

func TestAPageIsTextAndNothingElse(t *testing.T) {
	t.Parallel()
	s, _ := logging(t)
	evil := `"><script>alert(1)</script>`
	s.Name = evil
	h := s.Page(func(w http.ResponseWriter, r *http.Request) error {
		s.Render(w, r, 200, web.Message{Title: evil, Text: evil + "\n\nsecond", Note: evil, Choice: true,
			Actions: []web.Action{
				{Label: evil, Href: "/a?b=" + evil}, {Label: "x", Href: "javascript:alert(1)"},
				{Label: "go", Href: "/auth/logout", Post: true, Form: map[string]string{"a": evil}},
			}})
		return nil
	})
	w := answer(h, "GET", "/", nil)
	body := w.Body.String()
	if strings.Contains(body, "<script") || strings.Contains(body, "javascript:") || strings.Count(body, "<p>") != 2 {
		t.Error(body)
	}
	if w.Header().Get("Content-Type") != "text/html; charset=utf-8" ||
		w.Header().Get("Referrer-Policy") != "same-origin" {
		t.Error(w.Header())
	}
	sheet := style.FindStringSubmatch(body)
	if sheet == nil {
		t.Fatal("no style")
	}
	sum := sha256.Sum256([]byte(sheet[1]))
	if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'"; !strings.Contains(w.Header().Get("Content-Security-Policy"), want) {
		t.Errorf("browsers would not apply the style: %s", w.Header().Get("Content-Security-Policy"))
	}
	if strings.Contains(body, " style=") || strings.Contains(body, "Reference") {
		t.Error("what the policy forbids, or nobody needs, is there")
	}
}

func TestAnErrorPageNamesTheLogLine(t *testing.T) {
	t.Parallel()
	s, _ := logging(t)
	if w := answer(s.NotFound(), "GET", "/", nil); w.Code != 404 ||
		!strings.Contains(w.Body.String(), "Page not found") ||
		!strings.Contains(w.Body.String(), w.Header().Get("X-Request-Id")) ||
		!strings.Contains(w.Body.String(), "app.example.com") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAPageThatSubmitsItselfAllowsOneScript(t *testing.T) {
	t.Parallel()
	s, _ := logging(t)
	for _, c := range []struct{ to, formAction string }{
		{"https://op.example/end?a=b", "form-action 'self' https:"},
		{"http://127.0.0.1:9000/end", "form-action 'self' https: http://127.0.0.1:9000"},
	} {
		h := s.Page(func(w http.ResponseWriter, r *http.Request) error {
			s.Render(w, r, 200, web.Message{Submit: true,
				Actions: []web.Action{{Label: "Go on", Href: c.to, Post: true,
					Form: map[string]string{"state": `"><script>alert(1)</script>`}}}})
			return nil
		})
		w := answer(h, "POST", "/auth/x", nil)
		scripts := regexp.MustCompile(`<script>(.*?)</script>`).FindAllStringSubmatch(w.Body.String(), -1)
		if len(scripts) != 1 {
			t.Fatalf("%d scripts: %s", len(scripts), w.Body)
		}
		sum := sha256.Sum256([]byte(scripts[0][1]))
		script := "; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; "
		if policy := w.Header().Get("Content-Security-Policy"); !strings.Contains(policy, script) ||
			!strings.HasSuffix(policy, c.formAction) {
			t.Errorf("the policy %s should have %s and end with %s", policy, script, c.formAction)
		}
	}
}

func TestFramingIsForThoseNamed(t *testing.T) {
	t.Parallel()
	s, _ := logging(t)
	for _, c := range []struct {
		origins []string
		want    string
	}{{nil, "'none'"}, {[]string{"https://a.example", "https://b.example"}, "https://a.example https://b.example"}} {
		w := answer(s.Page(func(w http.ResponseWriter, _ *http.Request) error {
			s.AllowFraming(w,
				c.origins...)
			return nil
		}), "GET", "/", nil)
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasSuffix(csp, "frame-ancestors "+c.want) {
			t.Error(csp)
		}
	}
}

// A look at a route begins and ends nothing, and is no error; a route that can be looked at says so itself.
func TestHEADRunsNothingThatDoesNotAskForIt(t *testing.T) {
	t.Parallel()
	s, _ := logging(t)
	var ran int
	h := func(http.ResponseWriter, *http.Request) error { ran++; return nil }
	for _, c := range []struct {
		methods   []string
		code, ran int
	}{{[]string{"GET"}, 200, 0}, {[]string{"GET", "POST"}, 200, 0}, {[]string{"POST"}, 405, 0},
		{[]string{"GET", "HEAD"}, 200, 1}, {nil, 200, 1}} {
		ran = 0
		if w := answer(s.Page(h, c.methods...), "HEAD", "/auth/x", nil); w.Code != c.code || ran != c.ran {
			t.Errorf("HEAD where %v are taken: %d, ran %d times; want %d, %d", c.methods, w.Code, ran, c.code, c.ran)
		}
	}
}

func TestAPageThatSaysWhyNotHasAWayOn(t *testing.T) {
	t.Parallel()
	s, _ := logging(t)
	s.Home = "/home"
	fail := func(f *web.Failure, methods ...string) http.Handler {
		return s.Page(func(http.ResponseWriter, *http.Request) error { return f }, methods...)
	}
	refused := &web.Failure{Status: 403, Message: web.Message{Text: "You may not."}}
	const first = `<a href="/home">Go to the first page</a>`
	for _, row := range []struct {
		name    string
		handler http.Handler
		method  string
		target  string
		want    string // the actions
	}{
		{"refused", fail(refused), "GET", "/a", first},
		{"a panic", s.Page(func(http.ResponseWriter, *http.Request) error { panic("x") }), "GET", "/a", first},
		{"not allowed", fail(refused, "GET"), "POST", "/a", first},
		{"a long address", fail(refused), "GET", "/a?" + strings.Repeat("x", 33<<10), first},
		{"not found", s.NotFound(), "GET", "/a", first},
		{"the first page itself", fail(refused), "GET", "/home", ""},
		{"a form for the first page", fail(refused), "POST", "/home", first},
		{"it has one of its own", fail(&web.Failure{Status: 503, Message: web.Message{
			Actions: []web.Action{{Label: "Try again", Href: "/a"}}}}), "GET", "/a", `<a href="/a">Try again</a>`},
		{"a host that is not ours", fail(&web.Failure{Status: 403, Event: "host_refused"}), "GET", "/a", ""},
		{"no failure", s.Page(func(w http.ResponseWriter, r *http.Request) error {
			s.Render(w, r, 200, web.Message{Title: "You are signed out"})
			return nil
		}), "GET", "/a", ""},
	} {
		page := answer(row.handler, row.method, row.target, nil).Body.String()
		if got := strings.Join(regexp.MustCompile(`<a .*</a>`).FindAllString(page, -1), " "); got != row.want {
			t.Errorf("%s: the page leads to %q, want %q", row.name, got, row.want)
		}
	}
	page := answer(fail(refused), "GET", "/a", nil, "Accept-Language", "fr").Body.String()
	if !strings.Contains(page, `<a href="/home">Aller à la première page</a>`) {
		t.Errorf("in French: %s", page)
	}
	if len(refused.Message.Actions) != 0 {
		t.Error("the failure was changed")
	}
}
