package login_test

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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/login"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/web"
)

// stage is a site at which people sign in, with a real provider and a real store.
type stage struct {
	t     testing.TB
	ops   []*oidctest.Provider
	store *shaky
	m     *session.Manager
	h     *login.Handler
	url   string
	log   *logged
	ahead atomic.Int64 // by how much everybody's clock is ahead
	tell  func(store.Ending) []store.NoticeRequest

	mu       sync.Mutex
	orphaned []string // the refresh tokens of sign-ins that got no session
}

// newStage makes a site with n providers, the client of each named "app". configure may change the handler before it is
// mounted, and each provider's configuration.
func newStage(t testing.TB, n int, configure func(*login.Handler), providers ...func(*oidc.Config)) *stage {
	t.Helper()
	s := &stage{t: t, store: &shaky{Store: memory.New()}, log: new(logged)}
	s.store.now = s.now
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
	s.m, err = session.NewManager(session.Config{Store: s.store, Keyring: ring, Now: s.now, Notices: notifier{s},
		Log: slog.New(slog.NewJSONHandler(s.log, nil))})
	must(t, err)
	s.h = &login.Handler{
		Site: &web.Site{URL: u, Log: slog.New(slog.NewJSONHandler(s.log,
			&slog.HandlerOptions{Level: slog.LevelDebug}))},
		Sessions: s.m, Keyring: ring, Cookie: session.Cookie{Insecure: true},
	}
	for i := range n {
		op := oidctest.Start(t, oidctest.Config{AutoLogin: "alice", Now: s.now})
		transport := &http.Transport{}
		t.Cleanup(transport.CloseIdleConnections)
		c := oidc.Config{Name: []string{"main", "second", "third"}[i], Issuer: op.Issuer(), ClientID: "app",
			ClientSecret: "s3cret",
			HTTPClient:   &http.Client{Transport: transport}, Now: s.now}
		for _, f := range providers {
			f(&c)
		}
		p, err := oidc.New(c)
		must(t, err)
		s.ops, s.h.Providers = append(s.ops, op), append(s.h.Providers, p)
		s.client(i, func(*oidctest.Client) {})
	}
	if configure != nil {
		configure(s.h)
	}
	s.h.Mount(mux)
	mux.HandleFunc("/{path...}", func(w http.ResponseWriter,
		r *http.Request) {
		io.WriteString(w, "the app at "+r.URL.RequestURI())
	})
	return s
}

// client registers the site at provider i.
func (s *stage) client(i int, change func(*oidctest.Client)) {
	c := oidctest.Client{ID: "app", Secret: "s3cret", RedirectURIs: []string{s.h.RedirectURI(s.h.Providers[i].Name())}}
	change(&c)
	s.ops[i].SetClient(c)
}

// serve starts a server and returns its URL.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

func (s *stage) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

func (s *stage) pass(d time.Duration) { s.ahead.Add(int64(d)) }

// sessions returns all that the store holds.
func (s *stage) sessions() []store.Record {
	s.t.Helper()
	page, err := s.store.Store.List(context.Background(), store.Query{Limit: 1000}, store.Time(s.now()))
	must(s.t, err)
	return page.Records
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

// page is one answer.
type page struct {
	status int
	to     string // absolute; where it redirects
	body   string
	header http.Header
}

// get asks once. A path is one of the site's.
func (b *browser) get(to string) page {
	b.s.t.Helper()
	if strings.HasPrefix(to, "/") {
		to = b.s.url + to
	}
	resp, err := b.c.Get(to)
	must(b.s.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(b.s.t, err)
	p := page{status: resp.StatusCode, body: string(body), header: resp.Header}
	if u, err := resp.Location(); err == nil {
		p.to = u.String()
	}
	return p
}

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

// begin starts a login, signs in at the provider, and returns the callback that the browser is sent to.
func (b *browser) begin(path string) string {
	b.s.t.Helper()
	p := b.get(path)
	if p.status != http.StatusSeeOther {
		b.s.t.Fatalf("%s: %d %s", path, p.status, p.body)
	}
	q := b.get(p.to)
	if q.to == "" {
		b.s.t.Fatalf("the provider answers %d %s", q.status, q.body)
	}
	return q.to
}

// cookie returns a cookie's value at the site, "" when it is not there.
func (b *browser) cookie(name string) string {
	u, _ := url.Parse(b.s.url)
	for _, c := range b.jar.Cookies(u) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// attempts returns the cookies of logins under way.
func (b *browser) attempts() (list []*http.Cookie) {
	u, _ := url.Parse(b.s.url)
	for _, c := range b.jar.Cookies(u) {
		if strings.HasPrefix(c.Name, "curfew-login-") {
			list = append(list, c)
		}
	}
	return list
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

// shaky is a store that can be away.
type shaky struct {
	store.Store
	now    func() time.Time // by its own clock
	unread atomic.Bool      // that clock cannot be read
	away   atomic.Bool
	dies   atomic.Bool // the replica, with each claim that it has made
}

var errAway = errors.New("the disk is gone")

func (s *shaky) Create(ctx context.Context, r store.Record, began, now time.Time) error {
	if s.away.Load() {
		return errAway
	}
	return s.Store.Create(ctx, r, began, now)
}

func (s *shaky) ClaimAttempt(ctx context.Context, id store.AttemptID, value []byte, expires, now time.Time) ([]byte,
	error) {
	held, err := s.Store.ClaimAttempt(ctx, id, value, expires, now)
	if s.dies.Load() {
		return nil, errAway
	}
	return held, err
}

func (s *shaky) Clock() store.Clock { return store.Clock{Now: s.clock} }

func (s *shaky) clock(context.Context) (time.Time, error) {
	if s.unread.Load() {
		return time.Time{}, errAway
	}
	return s.now(), nil
}

func (s *shaky) Find(ctx context.Context, k store.Key, now time.Time) (store.Record, error) {
	if s.away.Load() {
		return store.Record{}, errAway
	}
	return s.Store.Find(ctx, k, now)
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

// notifier is what the sessions of a stage tell.
type notifier struct{ *stage }

func (s notifier) Plan(e store.Ending) []store.NoticeRequest {
	if s.tell == nil {
		return nil
	}
	return s.tell(e)
}

func (notifier) Wake() {}

// Orphaned hears of tokens that no session holds.
func (s notifier) Orphaned(_ context.Context, _ *session.Session, t session.Tokens) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orphaned = append(s.orphaned, t.RefreshToken)
}

func (notifier) Expired(context.Context, []store.Record) error { return nil }
