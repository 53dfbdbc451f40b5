package logout_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/login"
	"example.com/curfew/logout"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/web"
)

// stage is a site where people sign in and out, with a real provider and a real store.
type stage struct {
	t     testing.TB
	op    *oidctest.Provider
	store *shaky
	m     *session.Manager
	h     *logout.Handler
	url   string
	log   *logged
	ahead atomic.Int64 // by how much everybody's clock is ahead

	mu      sync.Mutex
	results []string       // what OnResult heard
	endings []store.Ending // that were asked to tell
}

// newStage makes a site; configure may change the handler before it is mounted, and the provider's configuration.
func newStage(t testing.TB, configure func(*logout.Handler), provider ...func(*oidc.Config)) *stage {
	t.Helper()
	s := &stage{t: t, store: &shaky{Store: memory.New()}, log: new(logged)}
	t.Cleanup(func() { s.store.Close() })
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	u, err := web.ParseURL(server.URL)
	must(t, err)
	key := make([]byte, 32)
	rand.Read(key)
	ring, err := keyring.New(key)
	must(t, err)
	log := slog.New(slog.NewJSONHandler(s.log, nil))
	s.m, err = session.NewManager(session.Config{Store: s.store, Keyring: ring, Now: s.now, Log: log,
		Notices: notifier{s}})
	must(t, err)
	s.op = oidctest.Start(t, oidctest.Config{AutoLogin: "alice", Now: s.now})
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := oidc.Config{Issuer: s.op.Issuer(), ClientID: "app", ClientSecret: "s3cret",
		HTTPClient: &http.Client{Transport: transport}, Now: s.now}
	for _, f := range provider {
		f(&c)
	}
	p, err := oidc.New(c)
	must(t, err)
	site := &web.Site{URL: u, Log: log}
	cookie := session.Cookie{Insecure: true}
	s.h = &logout.Handler{
		Site: site, Providers: []*oidc.Provider{p}, Sessions: s.m, Cookie: cookie,
		OnResult: func(channel, provider, result, reason string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.results = append(s.results, strings.TrimSpace(strings.Join([]string{channel, provider, result, reason},
				" ")))
		},
	}
	if configure != nil {
		configure(s.h)
	}
	s.h.Mount(mux)
	(&login.Handler{Site: site, Providers: s.h.Providers, Sessions: s.m, Keyring: ring, Cookie: cookie}).Mount(mux)
	mux.HandleFunc("/{path...}", func(w http.ResponseWriter,
		r *http.Request) {
		io.WriteString(w, "the app at "+r.URL.RequestURI())
	})
	s.client(func(*oidctest.Client) {})
	return s
}

// client registers the site at the provider.
func (s *stage) client(change func(*oidctest.Client)) {
	c := oidctest.Client{ID: "app", Secret: "s3cret", RedirectURIs: []string{s.url + "/auth/callback"},
		PostLogoutRedirectURIs: []string{s.url + "/auth/logout/callback"},
		BackchannelLogoutURI:   s.url + "/auth/backchannel-logout"}
	change(&c)
	s.op.SetClient(c)
}

// notifier is what the sessions of a stage tell.
type notifier struct{ *stage }

func (notifier) Wake()                                                      {}
func (notifier) Orphaned(context.Context, *session.Session, session.Tokens) {}
func (notifier) Expired(context.Context, []store.Record) error              { return nil }

// Plan has each ending leave a notice for an app.
func (s notifier) Plan(e store.Ending) []store.NoticeRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endings = append(s.endings, e)
	return []store.NoticeRequest{{Kind: store.NoticeTell, Target: "another app", Deadline: s.now().Add(time.Hour)}}
}

func (s *stage) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

func (s *stage) pass(d time.Duration) { s.ahead.Add(int64(d)) }

// heard returns what OnResult heard last.
func (s *stage) heard() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.results) == 0 {
		return ""
	}
	return s.results[len(s.results)-1]
}

// browser keeps cookies, and follows redirects only when told to.
type browser struct {
	s   *stage
	c   *http.Client
	jar *cookiejar.Jar
}

func (s *stage) browser() *browser {
	jar, _ := cookiejar.New(nil)
	transport := &http.Transport{}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &browser{s, &http.Client{Jar: jar, Transport: transport, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, jar}
}

// signedIn returns a browser in which a person is signed in.
func (s *stage) signedIn(subject string) *browser {
	s.t.Helper()
	b := s.browser()
	b.follow("/auth/login?login_hint=" + subject)
	if got := b.session(); got == nil || got.Subject != subject {
		s.t.Fatalf("%s could not sign in", subject)
	}
	return b
}

// page is one answer.
type page struct {
	status int
	to     string // absolute; where it redirects
	body   string
	header http.Header
}

// do asks once. A path is one of the site's; headers are given as name, value, name, value.
func (b *browser) do(method, to, body string, headers ...string) page {
	b.s.t.Helper()
	if strings.HasPrefix(to, "/") {
		to = b.s.url + to
	}
	r, err := http.NewRequest(method, to, strings.NewReader(body))
	must(b.s.t, err)
	for pair := range slices.Chunk(headers, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	resp, err := b.c.Do(r)
	must(b.s.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(b.s.t, err)
	p := page{status: resp.StatusCode, body: string(text), header: resp.Header}
	if u, err := resp.Location(); err == nil {
		p.to = u.String()
	}
	return p
}

func (b *browser) get(to string) page { b.s.t.Helper(); return b.do("GET", to, "") }

// follow asks, and goes where it is sent.
func (b *browser) follow(to string) page {
	b.s.t.Helper()
	for range 10 {
		p := b.get(to)
		if p.to == "" {
			return p
		}
		to = p.to
	}
	b.s.t.Fatal("redirected in circles")
	return page{}
}

func (b *browser) cookie(name string) string {
	u, _ := url.Parse(b.s.url)
	for _, c := range b.jar.Cookies(u) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// session returns the browser's session, or nil.
func (b *browser) session() *session.Session {
	b.s.t.Helper()
	bearer, err := session.ParseBearer(b.cookie("curfew"))
	if err != nil {
		return nil
	}
	s, err := b.s.m.Peek(context.Background(), bearer.Key())
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	must(b.s.t, err)
	return s
}

const form = "application/x-www-form-urlencoded"

// send posts a logout token, as a provider does.
func (s *stage) send(token string) page {
	s.t.Helper()
	return s.browser().do("POST", "/auth/backchannel-logout", url.Values{"logout_token": {token}}.Encode(),
		"Content-Type", form)
}

// shaky is a store that can be away, wholly or for endings alone.
type shaky struct {
	store.Store
	away, endless atomic.Bool
	unsure        atomic.Bool           // whether its replicas have what it has ended
	ending        func(context.Context) // called before each End, if not nil
}

var errAway = errors.New("the disk is gone")

func (s *shaky) Find(ctx context.Context, k store.Key, now time.Time) (store.Record, error) {
	if s.away.Load() {
		return store.Record{}, errAway
	}
	return s.Store.Find(ctx, k, now)
}

func (s *shaky) End(ctx context.Context, e store.Ending, now time.Time) ([]store.Ended, error) {
	if s.ending != nil {
		s.ending(ctx)
	}
	if s.away.Load() || s.endless.Load() {
		return nil, errAway
	}
	ended, err := s.Store.End(ctx, e, now)
	if s.unsure.Load() {
		return nil, errAway
	}
	return ended, err
}

// logged is what was logged, line by line.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// last returns the last line of an event.
func (l *logged) last(event string) map[string]any {
	var found map[string]any
	for line := range strings.Lines(l.String()) {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) == nil && m["event"] == event {
			found = m
		}
	}
	return found
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// soon returns what comes from a channel. It fails the test after a time that only a hang takes.
func soon[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(2 * time.Minute):
		t.Fatalf("waited in vain: %s", what)
		panic("not reached")
	}
}
