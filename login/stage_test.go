package login_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/login"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// stage is a site at which people sign in, with real providers.
type stage struct {
	*rig.Site
	ops   []*oidctest.Provider
	store *shaky
	h     *login.Handler
	tell  func(store.Ending) []store.NoticeRequest

	mu       sync.Mutex
	orphaned []string // the refresh tokens of sign-ins that got no session
}

// newStage makes a site with n providers, the client of each named "app". configure may change the handler before it is
// mounted, and each provider's configuration.
func newStage(t testing.TB, n int, configure func(*login.Handler), providers ...func(*oidc.Config)) *stage {
	t.Helper()
	s := &stage{store: &shaky{Store: rig.Store{Store: memory.New()}}}
	mux := http.NewServeMux()
	s.Site = rig.New(t, mux, session.Config{Store: s.store, Notices: notifier{stage: s}})
	s.store.now = s.Now
	s.h = &login.Handler{Site: s.Web, Sessions: s.Manager, Keyring: s.Ring, Cookie: s.Cookie}
	for i := range n {
		name := func(c *oidc.Config) { c.Name = []string{"main", "second", "third"}[i] }
		op, p := s.Provider(append([]func(*oidc.Config){name}, providers...)...)
		s.ops, s.h.Providers = append(s.ops, op), append(s.h.Providers, p)
		s.client(i, func(*oidctest.Client) {})
	}
	if configure != nil {
		configure(s.h)
	}
	s.h.Mount(mux)
	mux.HandleFunc("/{path...}", func(w http.ResponseWriter, r *http.Request) {
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

// sessions returns all that the store holds.
func (s *stage) sessions() []store.Record {
	s.T.Helper()
	page, err := s.store.List(context.Background(), store.Query{Limit: 1000}, store.Time(s.Now()))
	rig.Must(s.T, err)
	return page.Records
}

// browser is one in which somebody signs in.
type browser struct{ *rig.Browser }

func (s *stage) browser() *browser { return &browser{s.Browser()} }

// begin starts a login, signs in at the provider, and returns the callback that the browser is sent to.
func (b *browser) begin(path string) string {
	b.Site.T.Helper()
	p := b.Get(path)
	if p.Status != http.StatusSeeOther {
		b.Site.T.Fatalf("%s: %d %s", path, p.Status, p.Body)
	}
	q := b.Get(p.To)
	if q.To == "" {
		b.Site.T.Fatalf("the provider answers %d %s", q.Status, q.Body)
	}
	return q.To
}

// attempts returns the cookies of logins under way.
func (b *browser) attempts() (list []*http.Cookie) {
	for _, c := range b.Cookies() {
		if strings.HasPrefix(c.Name, "curfew-login-") {
			list = append(list, c)
		}
	}
	return list
}

// shaky is a store that can be away, and whose clock can.
type shaky struct {
	rig.Store
	now    func() time.Time // by its own clock
	unread atomic.Bool      // that clock cannot be read
	dies   atomic.Bool      // the replica, with each claim that it has made
}

func (s *shaky) ClaimAttempt(ctx context.Context, id store.AttemptID, value []byte, expires, now time.Time) ([]byte,
	error) {
	held, err := s.Store.ClaimAttempt(ctx, id, value, expires, now)
	if s.dies.Load() {
		return nil, rig.ErrAway
	}
	return held, err
}

func (s *shaky) Clock() store.Clock { return store.Clock{Now: s.clock} }

func (s *shaky) clock(context.Context) (time.Time, error) {
	if s.unread.Load() {
		return time.Time{}, rig.ErrAway
	}
	return s.now(), nil
}

// notifier is what the sessions of a stage tell.
type notifier struct {
	rig.Silent
	*stage
}

func (s notifier) Plan(e store.Ending) []store.NoticeRequest {
	if s.tell == nil {
		return nil
	}
	return s.tell(e)
}

// Orphaned hears of tokens that no session holds.
func (s notifier) Orphaned(_ context.Context, _ *session.Session, t session.Tokens) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orphaned = append(s.orphaned, t.RefreshToken)
}
