package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc/oidctest"
)

// gateway is a running `curfew serve`.
type gateway struct {
	public, private string // addresses
	start           string // what it printed
	logs            *buffer
	client          *http.Client
	stop            func() int // ends it as SIGTERM does, and returns the exit status
}

// buffer is a log that can be read while it is written.
type buffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	written sync.Cond
}

func newBuffer() *buffer {
	b := new(buffer)
	b.written.L = &b.mu
	return b
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.written.Broadcast()
	return b.b.Write(p)
}

// await waits until something has been logged.
func (b *buffer) await(t *testing.T, what string) {
	t.Helper()
	late := time.Now().Add(2 * time.Minute)
	defer time.AfterFunc(time.Until(late), b.written.Broadcast).Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for !strings.Contains(b.b.String(), what) {
		if time.Now().After(late) {
			t.Fatalf("not logged: %s\n%s", what, &b.b)
		}
		b.written.Wait()
	}
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// startGateway runs the command in this process, and waits until it has said where it listens.
func startGateway(t *testing.T, args ...string) *gateway {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	g := &gateway{logs: newBuffer(), client: &http.Client{Timeout: time.Minute,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	status := make(chan int, 1)
	go func() {
		args := append([]string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, args...)
		status <- runIn(ctx, process{stdin: strings.NewReader(""), stdout: in, stderr: g.logs}, args)
		in.Close()
	}()
	g.stop = sync.OnceValue(func() int { // also called by other goroutines, so it fails nothing at once
		cancel()
		select {
		case s := <-status:
			return s
		case <-time.After(2 * time.Minute):
			t.Error("serve did not end")
			return -1
		}
	})
	t.Cleanup(func() { g.stop() })
	late := time.AfterFunc(2*time.Minute, func() { out.CloseWithError(errors.New("it says nothing more")) })
	defer late.Stop()
	lines := bufio.NewScanner(out)
	var told strings.Builder
	for !strings.Contains(told.String(), "post-logout redirect URI") && lines.Scan() {
		fmt.Fprintln(&told, lines.Text())
	}
	go io.Copy(io.Discard, out)
	g.start = told.String()
	addr := func(which string) string {
		m := regexp.MustCompile(`(?m)^  ` + which + ` +https?://(\S+)`).FindStringSubmatch(g.start)
		if m == nil {
			t.Fatalf("it did not start:\n%s\n%s", g.start, g.logs)
		}
		return m[1]
	}
	g.public, g.private = addr("public"), addr("private")
	return g
}

func (g *gateway) do(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	w, err := g.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.StatusCode, string(body)
}

func (g *gateway) get(t *testing.T, where string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+where, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g.do(t, r)
}

func (g *gateway) logout(t *testing.T, token string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, "http://"+g.public+"/auth/backchannel-logout",
		strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return g.do(t, r)
}

// metric returns the value of a line of /metrics, or "".
func (g *gateway) metric(t *testing.T, series string) string {
	t.Helper()
	_, body := g.get(t, g.private+"/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func memoryGateway(t *testing.T, issuer string, more ...string) *gateway {
	t.Helper()
	return startGateway(t, append([]string{"--url", "http://127.0.0.1:4180", "--issuer", issuer, "--client-id", "app",
		"--store", "memory:"}, more...)...)
}

func TestServeTellsWhatToRegister(t *testing.T) {
	t.Parallel()
	op := oidctest.Start(t, oidctest.Config{Clients: []oidctest.Client{{ID: "app"}}})
	g := memoryGateway(t, op.Issuer(), "--upstream", "http://127.0.0.1:9", "--hosts", "wiki.localhost,*.apps.localhost")
	for _, want := range []string{
		`(?m)^curfew `,
		`(?m)^  public +http://127\.0\.0\.1:\d+ +reached as http://127\.0\.0\.1:4180$`,
		`(?m)^  hosts +wiki\.localhost, \*\.apps\.localhost +signed in at 127\.0\.0\.1:4180; each passes /auth/ to curfew$`,
		`(?m)^  private +http://127\.0\.0\.1:\d+ +/healthz /readyz /metrics /console/$`,
		`(?m)^  upstream +http://127\.0\.0\.1:9$`,
		`(?m)^  sessions +memory: +gone when this process ends$`,
		`(?m)^Register at the provider main \(` + regexp.QuoteMeta(op.Issuer()) + `\), for the client app:$`,
		// The first that people enter somewhere is the one that matters.
		`(?m), for the client app:\n  back-channel logout URI +http://127\.0\.0\.1:4180/auth/backchannel-logout ` +
			`+session required: yes$`,
		`(?m)^  redirect URI +http://127\.0\.0\.1:4180/auth/callback`,
		`(?m)^  post-logout redirect URI +http://127\.0\.0\.1:4180/auth/logout/callback$`,
	} {
		if !regexp.MustCompile(want).MatchString(g.start) {
			t.Errorf("want %s in:\n%s", want, g.start)
		}
	}
	// With both registered Keycloak uses the front channel alone.
	if strings.Contains(strings.ToLower(g.start), "front-channel") {
		t.Errorf("the front channel is offered to people who did not ask for it:\n%s", g.start)
	}
	if status := g.stop(); status != 0 {
		t.Errorf("stopped with status %d, want 0:\n%s", status, g.logs)
	}
	if !strings.Contains(g.logs.String(), "event=stopped") {
		t.Errorf("the log does not tell of the end:\n%s", g.logs)
	}
}

func TestServeLogsEachQuirk(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "url: http://127.0.0.1:4180\nstore: 'memory:'\nproviders:\n"+
		"  - {issuer: 'http://127.0.0.1:9', client_id: app, allow_missing_exp: true, logout_scope: subject}\n")
	g := startGateway(t, "--config", file)
	g.stop()
	for _, quirk := range []string{"allow_missing_exp: true", "logout_scope: subject"} {
		if want := fmt.Sprintf("event=quirk provider=main quirk=%q", quirk); !strings.Contains(g.logs.String(), want) {
			t.Errorf("want %s in:\n%s", want, g.logs)
		}
	}
}

func TestPrivateListenerTellsLifeReadinessAndMetrics(t *testing.T) {
	t.Parallel()
	op := oidctest.Start(t, oidctest.Config{Clients: []oidctest.Client{{ID: "app"}}})
	g := memoryGateway(t, op.Issuer())
	for path, want := range map[string]string{"/healthz": `"alive"`, "/readyz": `"ready"`} {
		if status, body := g.get(t, g.private+path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: got %d %s, want 200 with %s", path, status, body, want)
		}
	}
	if status, _ := g.get(t, g.public+"/metrics"); status != http.StatusNotFound {
		t.Errorf("the public listener answers %d to /metrics, want 404", status)
	}

	token := op.SignLogoutToken("app", "alice", "s1")
	if status, body := g.logout(t, token); status != http.StatusOK || body != "" {
		t.Errorf("a good logout token: got %d %q, want 200 and nothing", status, body)
	}
	if status, _ := g.logout(t, token); status != http.StatusBadRequest {
		t.Errorf("the same token again: got %d, want 400", status)
	}
	if status, _ := g.logout(t, op.SignLogoutToken("other", "alice", "s1")); status != http.StatusBadRequest {
		t.Errorf("a token for another client: got %d, want 400", status)
	}
	_, all := g.get(t, g.private+"/metrics")
	counted := map[string]int{}
	logouts := regexp.MustCompile(`(?m)^curfew_logout_requests_total\{channel="backchannel",provider="(?:main)?",` +
		`reason="[a-z_]*",result="(\w+)"\} (\d+)`)
	for _, m := range logouts.FindAllStringSubmatch(all, -1) {
		counted[m[1]] += len(m[2])
	}
	if len(counted) < 2 {
		t.Errorf("want logouts counted by result and reason, got:\n%s", grep(all, "curfew_"))
	}
	if g.metric(t, `curfew_key_fetches_total{provider="main",result="ok"}`) != "1" {
		t.Errorf("want one fetch of keys, got:\n%s", grep(all, "curfew_key"))
	}
	for _, want := range []string{"curfew_build_info{", "go_goroutines", "process_"} {
		if !strings.Contains(all, want) {
			t.Errorf("want %s in /metrics", want)
		}
	}
}

func grep(text, what string) string {
	var found strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, what) {
			found.WriteString(line)
		}
	}
	return found.String()
}

func TestWithoutUpstreamEverythingElseIsNotFound(t *testing.T) {
	t.Parallel()
	g := memoryGateway(t, "http://127.0.0.1:9")
	status, body := g.get(t, g.public+"/private/data")
	if status != http.StatusNotFound || !strings.Contains(body, "forward-auth") {
		t.Errorf("got %d %s, want a 404 that says what this is", status, body)
	}
	if status, _ := g.get(t, g.public+"/auth/verify"); status != http.StatusUnauthorized {
		t.Errorf("forward-auth without a session: got %d, want 401", status)
	}
}

func TestUpstreamIsReachedBySessionsAlone(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a request without a session reached the app")
	}))
	t.Cleanup(app.Close)
	g := memoryGateway(t, "http://127.0.0.1:9", "--upstream", app.URL)
	for _, path := range []string{"/", "//", "/authentic", "/x/../auth/session", "/AUTH/session"} {
		if status, body := g.get(t, g.public+path); status != http.StatusUnauthorized {
			t.Errorf("%s: got %d %s, want 401", path, status, body)
		}
	}
}

func TestAProviderThatIsAwayAtTheStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	op := oidctest.Start(t, oidctest.Config{Clients: []oidctest.Client{{ID: "app"}}})
	// hangs up
	op.Override(oidctest.Discovery, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	g := memoryGateway(t, op.Issuer())

	status, body := g.get(t, g.private+"/readyz")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, `"faults":["provider main: `) ||
		!strings.Contains(body, "EOF") {
		t.Errorf("/readyz: got %d %s, want 503 and why", status, body)
	}
	if status, _ := g.get(t, g.private+"/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: got %d, want 200: the process is alive", status)
	}
	r, err := http.NewRequest(http.MethodGet, "http://"+g.public+"/auth/login", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html")
	if status, body := g.do(t, r); status != http.StatusServiceUnavailable || !strings.Contains(body, "<html") ||
		strings.Contains(body, "EOF") {
		t.Errorf("sign-in: got %d %s, want a plain page with 503", status, body)
	}

	op.Override(oidctest.Discovery, nil)
	// A failed fetch is repeated at most once a second, so this is asked until it is so; the test's own limit ends it.
	for status != http.StatusOK && t.Context().Err() == nil {
		status, _ = g.get(t, g.private+"/readyz")
	}
	if status, _ := g.get(t, g.public+"/auth/login"); status != http.StatusFound && status != http.StatusSeeOther {
		t.Errorf("sign-in: got %d, want a redirect to the provider", status)
	}
	g.stop()
	if n := strings.Count(g.logs.String(), "event=not_ready"); n != 1 {
		t.Errorf("the outage was logged %d times, want once:\n%s", n, g.logs)
	}
	if n := strings.Count(g.logs.String(), `msg="ready again"`); n != 1 {
		t.Errorf("its end was logged %d times, want once:\n%s", n, g.logs)
	}
}

func TestASecondGatewayOnTheSameDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	database := filepath.Join(t.TempDir(), "curfew.db")
	args := []string{"--url", "http://127.0.0.1:4180", "--issuer", "http://127.0.0.1:9", "--client-id", "app",
		"--store",
		"sqlite:" + database}
	first := startGateway(t, args...)
	if !strings.Contains(first.start, "keys in "+strings.TrimSuffix(database, ".db")+".key") {
		t.Errorf("want the key file beside the database in:\n%s", first.start)
	}

	var out, errs bytes.Buffer
	p := process{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
	status := runIn(t.Context(), p, append([]string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "off"},
		args...))
	if status != 1 || !strings.Contains(errs.String(), database) || !strings.Contains(errs.String(), "another curfew") {
		t.Errorf("got status %d and %q, want 1 and who has the file", status, &errs)
	}
	// check is run beside it all the same.
	out.Reset()
	runIn(t.Context(), p, append([]string{"check"}, args...))
	if !regexp.MustCompile(`ok +store +.* is in use by a running curfew`).MatchString(out.String()) {
		t.Errorf("check says:\n%s", &out)
	}

	if status := first.stop(); status != 0 {
		t.Errorf("the first stopped with status %d:\n%s", status, first.logs)
	}
	startGateway(t, args...) // the file is free again
}

// With the audit record on stdout, all that is there is one JSON object a line.
func TestAnAuditRecordOnStdoutIsAlone(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	out, errs := newBuffer(), newBuffer()
	status := make(chan int, 1)
	go func() {
		status <- runIn(ctx, process{stdin: strings.NewReader(""), stdout: out, stderr: errs}, []string{"serve", "--listen",
			"127.0.0.1:0", "--admin-listen", "off", "--url", "http://127.0.0.1:4180", "--issuer", "http://127.0.0.1:9",
			"--client-id", "app", "--store", "memory:", "--audit-file", "stdout"})
		stop()
	}()
	errs.await(t, "event=serving")
	at := regexp.MustCompile(` public=(\S+)`).FindStringSubmatch(errs.String())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+at[1]+"/auth/backchannel-logout",
		strings.NewReader("logout_token=x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	w.Body.Close()
	out.await(t, "{")
	stop()
	if s := <-status; s != 0 || !strings.Contains(errs.String(), "post-logout redirect URI") {
		t.Errorf("status %d: %s", s, errs)
	}
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON on stdout: %s", line)
		}
	}
}

func TestARequestUnderWayIsFinishedWhenServeStops(t *testing.T) {
	t.Parallel()
	g := memoryGateway(t, "http://127.0.0.1:9")
	// The body is not sent before the handler asks for it, and then it is held back until serve is stopping.
	form := &heldBody{asked: make(chan struct{}), rest: make(chan struct{}), text: strings.NewReader("logout_token=x")}
	r, err := http.NewRequest(http.MethodPost, "http://"+g.public+"/auth/backchannel-logout", form)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = int64(form.text.Len())
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Expect", "100-continue")
	client := &http.Client{Timeout: time.Minute,
		Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: time.Hour}}
	answered := make(chan error, 1)
	go func() {
		w, err := client.Do(r)
		if err == nil {
			w.Body.Close()
			if w.StatusCode != http.StatusBadRequest { // the token is none
				err = fmt.Errorf("got %s, want 400", w.Status)
			}
		}
		answered <- err
	}()
	select {
	case <-form.asked:
	case err := <-answered:
		t.Fatalf("answered before the body was sent: %v", err)
	}
	stopped := make(chan int, 1)
	go func() { stopped <- g.stop() }()
	g.logs.await(t, "event=stopping")
	close(form.rest)
	if err := rig.Soon(t, "the answer", answered); err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if status := rig.Soon(t, "serve ends", stopped); status != 0 {
		t.Errorf("stopped with status %d", status)
	}
}

// heldBody is a request body that tells when it is first asked for, and waits.
type heldBody struct {
	once  sync.Once
	asked chan struct{}
	rest  chan struct{}
	text  *strings.Reader
}

func (b *heldBody) Read(p []byte) (int, error) {
	b.once.Do(func() { close(b.asked) })
	<-b.rest
	return b.text.Read(p)
}
