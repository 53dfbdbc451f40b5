package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/web"
)

// listen opens an event stream, and returns it after its first event.
func (st *stage) listen(query string, b session.Bearer) (events *bufio.Reader, retry int) {
	st.T.Helper()
	return st.listenIn("", query, b)
}

// listenIn is listen in a browser that asks for a language.
func (st *stage) listenIn(language, query string, b session.Bearer) (events *bufio.Reader, retry int) {
	st.T.Helper()
	req, err := http.NewRequest(http.MethodGet, st.Server.URL+"/auth/events"+query, nil)
	rig.Must(st.T, err)
	req.Header.Set("Cookie", cookie(b))
	req.Header.Set("Accept-Language", language)
	resp, err := bounded().RoundTrip(req)
	rig.Must(st.T, err)
	st.T.Cleanup(func() { resp.Body.Close() })
	events = bufio.NewReader(resp.Body)
	if line := st.line(events); resp.StatusCode != http.StatusOK || !strings.HasPrefix(line, "retry: ") {
		st.T.Fatalf("%s %q", resp.Status, line)
	} else if _, err := fmt.Sscanf(line, "retry: %d\n", &retry); err != nil {
		st.T.Fatal(err)
	}
	for st.line(events) != "\n" { // the rest of the first event
	}
	return events, retry
}

func (st *stage) line(r *bufio.Reader) string {
	st.T.Helper()
	line, err := r.ReadString('\n')
	rig.Must(st.T, err)
	return line
}

func TestATabListensToItsOwnSessionOnly(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, s := st.signIn(nil)
	other, theirs := st.signIn(nil)
	for name, c := range map[string]struct {
		query, cookie string
		status        int
		body          string
	}{
		"nobody, without a name": {"", "", 401, "Nobody is signed in."},
		"nobody, an empty name":  {"?session=", "", 200, "event: nobody\ndata: {}\n\n"},
		"nobody, a name":         {"?session=" + s.Key.Handle(), "", 200, "event: ended\ndata: {\"cause\":\"\","},
		"another session": {"?session=" + s.Key.Handle(), cookie(other), 200,
			"event: ended\ndata: {\"cause\":\"replaced\","},
		"another session, theirs": {"?session=" + theirs.Key.Handle(), cookie(b), 200,
			"event: ended\ndata: {\"cause\":\"replaced\","},
		"a key in place of a name": {"?session=" + s.Key.String(), cookie(b), 200,
			"event: ended\ndata: {\"cause\":\"replaced\","},
		"no such session": {"?session=x", cookie(session.NewBearer("i", "c", "s")), 200,
			"event: ended\ndata: {\"cause\":\"\","},
	} {
		headers := []string{}
		if c.cookie != "" {
			headers = []string{"Cookie", c.cookie}
		}
		resp, body := st.send("GET", "/auth/events"+c.query, headers...)
		if resp.StatusCode != c.status || !strings.Contains(body, c.body) {
			t.Errorf("%s: %d %q, want %d %q", name, resp.StatusCode, body, c.status, c.body)
		}
		if strings.Contains(body, theirs.Key.Handle()) || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %q %v", name, body, resp.Header)
		}
	}
	st.store.Away.Store(true) // nobody knows: the tab asks again, and nothing has ended
	resp, body := st.send("GET", "/auth/events?session="+s.Key.Handle(), "Cookie", cookie(b))
	if resp.StatusCode != 503 {
		t.Errorf("without a store: %d %q", resp.StatusCode, body)
	}
}

func TestAPageOfAnotherSiteOpensNoEventStream(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"},
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site", "Origin", st.Server.URL},
	} {
		resp, body := st.send("GET", "/auth/events", append(headers, "Cookie", cookie(b))...)
		if resp.StatusCode != 403 || !strings.Contains(body, "Only pages of this site") {
			t.Errorf("%q: %d %s", headers, resp.StatusCode, body)
		}
		if resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%q: %v", headers, resp.Header)
		}
	}
}

// When a replica stops, all its tabs reconnect elsewhere, at different times, and nothing has ended.
func TestTheTabsOfAReplicaThatStopsReconnectAtDifferentTimes(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, s := st.signIn(nil)
	var open []*bufio.Reader
	times := map[int]bool{}
	for range 20 {
		events, retry := st.listen("?session="+s.Key.Handle(), b)
		if open = append(open, events); retry < 1000 || retry > 5000 {
			t.Errorf("retry: %d ms", retry)
		}
		times[retry] = true
	}
	if len(times) < 10 {
		t.Errorf("20 tabs reconnect at %d times", len(times))
	}
	st.gateway.Drain()
	st.gateway.Drain()
	for _, events := range open {
		if rest, err := io.ReadAll(events); err != nil || len(rest) != 0 {
			t.Errorf("a tab was told %q, %v", rest, err)
		}
	}
}

// While a replica hears nothing of other replicas, its tabs are told by asking the store, and an idle session that has
// expired is told at once.
func TestATabIsToldEvenIfTheReplicaHearsNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end    func(*session.Manager, *session.Session) error // as another replica does; nil: it expires
		cause  string
		within time.Duration
	}{
		"ended elsewhere": {func(other *session.Manager, s *session.Session) error {
			_, err := other.End(context.Background(), store.Ending{Cause: store.CauseUser,
				Selector: store.Selector{Issuer: s.Issuer, ClientID: s.ClientID, Key: s.Key}})
			return err
		}, "", 20 * time.Second},
		"expired": {nil, "expired", time.Hour + time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			backend := memory.New()
			defer backend.Close()
			site := &web.Site{URL: &url.URL{Scheme: "https", Host: "x"}, Log: slog.New(slog.DiscardHandler)}
			cfg := session.Config{Store: backend, Keyring: rig.Keyring(t), Log: site.Log, IdleTimeout: time.Hour}
			here, err := session.NewManager(cfg) // nobody runs it: it follows no feed
			rig.Must(t, err)
			other, err := session.NewManager(cfg)
			rig.Must(t, err)
			b, s, err := here.Create(t.Context(),
				session.SignIn{Issuer: "i", ClientID: "c", Subject: "s", Began: here.Now()})
			rig.Must(t, err)
			mux := http.NewServeMux()
			(&gateway.Handler{Site: site, Sessions: here}).Mount(mux)
			answer := httptest.NewRecorder()
			done := make(chan struct{})
			began := time.Now()
			go func() {
				defer close(done)
				r := httptest.NewRequest(http.MethodGet, "/auth/events", nil)
				r.Header.Set("Cookie", "__Host-curfew="+b.Reveal())
				mux.ServeHTTP(answer, r)
			}()
			synctest.Wait()
			if c.end != nil {
				rig.Must(t, c.end(other, s))
			}
			<-done
			if took := time.Since(began); took > c.within {
				t.Errorf("%s: told after %v, want %v", name, took, c.within)
			}
			want := "event: ended\ndata: {\"cause\":\"" + c.cause + `"`
			if body := answer.Body.String(); !strings.Contains(body, want) {
				t.Errorf("%s: %s", name, body)
			}
		})
	}
}

func TestOneSessionHasABoundedNumberOfEventStreams(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	other, _ := st.signIn(nil)
	for range 100 {
		st.listen("", b)
	}
	if resp, body := st.send("GET", "/auth/events", "Cookie", cookie(b)); resp.StatusCode != 429 {
		t.Errorf("one more: %d %s", resp.StatusCode, body)
	}
	st.listen("", other)
}

func TestTheScriptForOpenTabsIsSmallAndTheSameForEverybody(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	resp, script := st.send("GET", "/auth/tab.js")
	if resp.StatusCode != 200 || len(script) < 1000 || len(script) > 3000 {
		t.Errorf("%s, %d bytes", resp.Status, len(script))
	}
	for name, want := range map[string]string{"Content-Type": "text/javascript; charset=utf-8",
		"X-Content-Type-Options": "nosniff", "Cache-Control": "public, max-age=600", "Vary": ""} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// A strict Content-Security-Policy and Trusted Types of the app allow all that it does.
	for _, not := range []string{"innerHTML", "eval(", "Function(", "setAttribute(\"style", "<style",
		"document.write"} {
		if strings.Contains(script, not) {
			t.Errorf("the script has %s", not)
		}
	}
	if resp, body := st.send("GET", "/auth/tab.js", "If-None-Match", resp.Header.Get("ETag")); resp.StatusCode != 304 {
		t.Errorf("asked again: %d %s", resp.StatusCode, body)
	}
}

// What a tab shows is in the language of its browser and in the colours of the pages, and is data: neither a text nor a
// colour can be more than that.
func TestTheNoticeIsInTheLanguageAndLookOfThePages(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	var err error
	st.Web.Pages, err = web.NewPages(web.Look{Light: web.Colors{Accent: "#0b6e4f"}, Messages: fstest.MapFS{
		"he.json": {Data: []byte(`{"You are signed out": "</script>\n\ndata: x\u2028 <b>\u05d0"}`)}}})
	rig.Must(t, err)
	for language, want := range map[string]struct{ lang, dir, title, text string }{
		"":                        {"en", "ltr", "You are signed out", "You were signed out at your provider."},
		"en-GB,fr;q=0.5":          {"en", "ltr", "You are signed out", "You were signed out at your provider."},
		"fr-CA,fr;q=0.9,en;q=0.5": {"fr", "ltr", "Vous êtes déconnecté", "chez votre fournisseur"},
		"he": {"he", "rtl", "</script>\n\ndata: x\u2028 <b>\u05d0",
			"You were signed out at your provider."},
		"xx, ;;\"<": {"en", "ltr", "You are signed out", "You were signed out at your provider."},
	} {
		b, s := st.signIn(nil)
		events, _ := st.listenIn(language, "?session="+s.Key.Handle(), b)
		st.end(s)
		if line := st.line(events); line != "event: ended\n" {
			t.Fatalf("%q: %q", language, line)
		}
		text, ok := strings.CutPrefix(st.line(events), "data: ")
		var got struct{ Cause, Title, Text, Action, Lang, Dir, Style string }
		if err := json.Unmarshal([]byte(text), &got); err != nil || !ok {
			t.Fatalf("%q: %q, %v", language, text, err)
		}
		if got.Lang != want.lang || got.Dir != want.dir || got.Title != want.title ||
			!strings.Contains(got.Text, want.text) || got.Action == "" || got.Cause != "backchannel" {
			t.Errorf("%q: %+v", language, got)
		}
		if !strings.Contains(got.Style, "--accent:#0b6e4f;") || strings.ContainsAny(got.Style, "<&") {
			t.Errorf("%q: the style is %s", language, got.Style)
		}
		if strings.ContainsAny(text, "<\u2028") {
			t.Errorf("%q: not escaped: %s", language, text)
		}
	}
	// Of each way to be told.
	b, _ := st.signIn(nil)
	for query, c := range map[string]struct{ cookie, says string }{
		"?session=x": {cookie(b), `"action":"La recharger"`}, "?session=y": {"", `"text":"Votre session est terminée."`},
	} {
		resp, body := st.send("GET", "/auth/events"+query, "Cookie", c.cookie, "Accept-Language", "fr")
		if resp.Header.Get("Vary") != "Accept-Language" || !strings.Contains(body, `"lang":"fr"`) ||
			!strings.Contains(body, c.says) {
			t.Errorf("%s: %v %s", query, resp.Header, body)
		}
	}
}

// BenchmarkOpenTabs opens event streams of as many sessions, over HTTP/1.1 on real connections, and measures the memory
// of this process for each, that of the client's side of the connection included.
func BenchmarkOpenTabs(b *testing.B) {
	st := newStage(b)
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := memory()
	b.ResetTimer()
	var last *session.Session
	var events *bufio.Reader
	for range b.N {
		bearer, s := st.signIn(map[string]any{"name": strings.Repeat("n", 1000)})
		conn := rig.Dial(b, st.Server)
		fmt.Fprintf(conn, "GET /auth/events HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n", cookie(bearer))
		events = bufio.NewReaderSize(conn, 512)
		for {
			line, err := events.ReadString('\n')
			rig.Must(b, err)
			if strings.HasPrefix(line, "data: ") {
				break
			}
		}
		last = s
	}
	b.StopTimer()
	b.ReportMetric(float64(memory()-before)/float64(b.N), "B/stream")
	began := time.Now()
	st.end(last)
	for {
		line, err := events.ReadString('\n')
		rig.Must(b, err)
		if line == "event: ended\n" {
			break
		}
	}
	b.ReportMetric(float64(time.Since(began).Microseconds()), "µs/told")
}
