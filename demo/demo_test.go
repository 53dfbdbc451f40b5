package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// open starts a demo, until the test ends.
func open(t *testing.T, cfg Config) *instance {
	t.Helper()
	h, err := start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// browser is a visitor without a screen: a client with a cookie jar, which like a browser's knows hosts and no ports.
type browser struct {
	t *testing.T
	*http.Client
}

func newBrowser(t *testing.T) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{t, &http.Client{Jar: jar, Transport: transport, Timeout: time.Minute}}
}

// page follows redirects to a page, and returns where it ended up and what is there.
func (b *browser) page(method, address string, form url.Values) (string, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := b.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.t.Fatalf("%s %s: %s, %v", method, resp.Request.URL.Path, resp.Status, err)
	}
	return resp.Request.URL.String(), string(body)
}

var (
	hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
	action = regexp.MustCompile(`action="([^"]*)"`)
)

// signIn signs in at an app by the provider's page.
func (b *browser) signIn(a *app, subject string) {
	b.t.Helper()
	_, login := b.page(http.MethodGet, a.url+"/auth/login?return_to=/", nil)
	form := url.Values{"sub": {subject}}
	for _, field := range hidden.FindAllStringSubmatch(login, -1) {
		form.Add(html.UnescapeString(field[1]), html.UnescapeString(field[2]))
	}
	to := action.FindStringSubmatch(login)
	if to == nil {
		b.t.Fatalf("no page to sign in: %s", login)
	}
	at, _ := b.page(http.MethodPost, html.UnescapeString(to[1]), form)
	if at != a.url+"/" {
		b.t.Fatalf("signing in leads to %s, not back to %s", at, a.name)
	}
}

// user returns who is signed in at an app, or "".
func (b *browser) user(a *app) string {
	b.t.Helper()
	_, body := b.page(http.MethodGet, a.url+"/", nil)
	if m := regexp.MustCompile(`<b id="user">([^<]*)</b>`).FindStringSubmatch(body); m != nil {
		return m[1]
	}
	if !strings.Contains(body, `data-state="out"`) {
		b.t.Fatalf("%s shows neither somebody nor nobody: %s", a.name, body)
	}
	return ""
}

// tab opens the event stream of an app, as its open page does. What it returns waits for the cause of the end.
func (b *browser) tab(a *app) func() string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	b.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/auth/events", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		b.t.Fatalf("the events of %s: %s", a.name, resp.Status)
	}
	return func() string {
		b.t.Helper()
		lines, name := bufio.NewScanner(resp.Body), ""
		for lines.Scan() {
			if event, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				name = event
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && name == "ended" {
				var event struct{ Cause string }
				if err := json.Unmarshal([]byte(data), &event); err != nil {
					b.t.Fatal(err)
				}
				return event.Cause
			}
		}
		b.t.Fatalf("the stream of %s ends without a word: %v", a.name, lines.Err())
		return ""
	}
}

func (b *browser) silently(a *app) {
	b.t.Helper()
	if at, _ := b.page(http.MethodGet, a.url+"/auth/login?silent=true&return_to=/", nil); at != a.url+"/" {
		b.t.Fatalf("signing in silently leads to %s", at)
	}
}

func TestSignedInOnceAndOutAnywhereTwoAppsAgree(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		out    func(*browser, *instance)
		causes [2]string // that the open tabs of Notes and Photos hear
	}{
		{"at the provider", func(b *browser, h *instance) {
			b.page(http.MethodPost, h.provider.url+"/end_session", url.Values{})
		}, [2]string{"backchannel", "backchannel"}},
		{"at one app", func(b *browser, h *instance) {
			if at, _ := b.page(http.MethodPost, h.apps[0].url+"/auth/logout", url.Values{}); at != h.apps[0].url+
				"/?signed-out" {
				t.Errorf("signing out leads to %s", at)
			}
		}, [2]string{"user", "backchannel"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := open(t, Config{})
			alice, bob := newBrowser(t), newBrowser(t)
			bob.signIn(h.apps[0], "bob")
			bob.silently(h.apps[1])

			alice.silently(h.apps[1])
			if who := alice.user(h.apps[1]); who != "" {
				t.Fatalf("Photos says %q before anybody signed in", who)
			}
			alice.signIn(h.apps[0], "alice")
			alice.silently(h.apps[1])
			for _, a := range h.apps {
				if who := alice.user(a); who != "Alice Ahn" {
					t.Errorf("%s says %q", a.name, who)
				}
			}

			var tabs []func() string
			for _, a := range h.apps {
				tabs = append(tabs, alice.tab(a))
			}
			row.out(alice, h)
			for i, a := range h.apps {
				if cause := tabs[i](); cause != row.causes[i] {
					t.Errorf("the open tab of %s hears %q, want %q", a.name, cause, row.causes[i])
				}
				if who := alice.user(a); who != "" {
					t.Errorf("%s still says %q", a.name, who)
				}
				if who := bob.user(a); who != "Bob Bauer" {
					t.Errorf("%s says %q to the other browser", a.name, who)
				}
			}
			if d := h.provider.op.Deliveries(); len(d) != 2 || !d[0].OK() || !d[1].OK() {
				t.Errorf("the provider delivered %d logout tokens, want 2 that were taken", len(d))
			}
		})
	}
}

func TestJournalTellsASignOutFromTheClickToTheAnswer(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	b := newBrowser(t)
	b.signIn(h.apps[0], "carol")
	told := b.tab(h.apps[0])
	b.page(http.MethodPost, h.provider.url+"/end_session", url.Values{})
	told()

	var state struct {
		Sessions int
		Opened   string
		Stories  []story
	}
	if err := json.Unmarshal(h.journal.state(), &state); err != nil {
		t.Fatal(err)
	}
	if state.Sessions != 1 || state.Opened != "notes" || len(state.Stories) != 2 {
		t.Fatalf("got %d sessions, the last of %q, and %d stories", state.Sessions, state.Opened, len(state.Stories))
	}
	out := state.Stories[0]
	var at float64
	seen := make(map[string]bool)
	for _, s := range out.Steps {
		if s.At < at {
			t.Errorf("%q is told out of order", s.What)
		}
		at = s.At
		seen[s.Who+": "+s.What] = true
	}
	for _, want := range []string{
		"provider: Carol Cruz signs out, so the apps are told", "notes: A logout token arrives",
		"notes: Token verified, session ended", "notes: The open tab is told", "notes: Answers the provider: 200 OK",
	} {
		if !seen[want] {
			t.Errorf("%q is missing in %v", want, out.Steps)
		}
	}
	if len(out.Tokens) != 1 || out.Tokens[0].App != "notes" || out.Tokens[0].Status != http.StatusOK {
		t.Fatalf("got the tokens %+v", out.Tokens)
	}
	var claims struct{ Iss, Aud, Sub string }
	if err := json.Unmarshal(out.Tokens[0].Claims, &claims); err != nil {
		t.Fatal(err)
	}
	if claims.Iss != h.provider.url || claims.Aud != "notes" || claims.Sub != "carol" {
		t.Errorf("the token shown has the claims %+v", claims)
	}
	if raw := h.provider.op.Deliveries()[0].Token; strings.Contains(string(h.journal.state()),
		raw[strings.LastIndex(raw, "."):]) {
		t.Error("the journal shows the signature of a token: it could be sent again by whoever sees it")
	}
}

func TestJournalPutsTheEndOfASessionBeforeTheTabThatWasTold(t *testing.T) {
	t.Parallel()
	j := newJournal()
	j.begin("Sign-out", "provider", "click")
	for _, s := range []step{{Who: "notes", Kind: "told"}, {Who: "photos", Kind: "told"}, {Who: "photos", Kind: "end"},
		{Who: "notes", Kind: "end"}} {
		j.add("Sign-out", s)
	}
	var got []string
	for i, s := range j.stories[0].Steps {
		if i > 0 && s.At < j.stories[0].Steps[i-1].At {
			t.Errorf("step %d is dated before the one that it follows", i)
		}
		got = append(got, s.Who+" "+s.Kind)
	}
	want := []string{"provider ", "notes end", "notes told", "photos end", "photos told"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhoeverComesByAnotherNameIsSentToTheRightOne(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	b := newBrowser(t)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(h.overview.url, "http://"))
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, h.overview.url+"/", nil)
	r.Host = "localhost:" + port
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := b.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusTemporaryRedirect || resp.Header.Get("Location") != h.overview.url+"/" {
		t.Errorf("got %s to %q", resp.Status, resp.Header.Get("Location"))
	}
	r, _ = http.NewRequestWithContext(t.Context(), http.MethodPost, h.provider.url+"/end_session", nil)
	r.Host = "stranger.example"
	resp, err = b.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("a post to another name got %s", resp.Status)
	}
}

func TestRunGreetsAndEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := Run(ctx, Config{Out: in})
		done <- errors.Join(err, in.Close())
	}()
	late := time.AfterFunc(patience, func() { out.CloseWithError(errors.New("it says nothing more")) })
	defer late.Stop()
	var greeting strings.Builder
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		greeting.WriteString(lines.Text() + "\n")
		if strings.HasPrefix(lines.Text(), "Ctrl-C") {
			break
		}
	}
	address := regexp.MustCompile(`Open +(http://\S+)`).FindStringSubmatch(greeting.String())
	if address == nil {
		t.Fatalf("the greeting does not say what to open: %s", greeting.String())
	}
	b := newBrowser(t)
	resp, err := b.Get(address[1] + "/live") // a stream that somebody still listens to holds nothing up
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	if lines.Scan() {
		t.Errorf("more is said: %s", lines.Text())
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the demo does not end with its context")
	}
}

func TestRunSaysWhichPortIsTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	err = Run(t.Context(), Config{Port: port})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprint(port)) {
		t.Errorf("got %v, want an error that names port %d", err, port)
	}
}
