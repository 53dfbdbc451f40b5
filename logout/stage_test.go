package logout_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/login"
	"example.com/curfew/logout"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// stage is a site where people sign in and out, with a real provider.
type stage struct {
	*rig.Site
	op    *oidctest.Provider
	store *shaky
	h     *logout.Handler

	mu      sync.Mutex
	results []string       // what OnResult heard
	endings []store.Ending // that were asked for notices
}

// newStage makes a site; configure may change the handler before it is mounted, and the provider's configuration.
func newStage(t testing.TB, configure func(*logout.Handler), provider ...func(*oidc.Config)) *stage {
	t.Helper()
	s := &stage{store: &shaky{Store: rig.Store{Store: memory.New()}}}
	mux := http.NewServeMux()
	s.Site = rig.New(t, mux, session.Config{Store: s.store, Notices: notifier{stage: s}})
	op, p := s.Provider(provider...)
	s.op = op
	s.h = &logout.Handler{
		Site: s.Web, Providers: []*oidc.Provider{p}, Sessions: s.Manager, Cookie: s.Cookie,
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
	(&login.Handler{Site: s.Web, Providers: s.h.Providers, Sessions: s.Manager, Keyring: s.Ring,
		Cookie: s.Cookie}).Mount(mux)
	mux.HandleFunc("/{path...}", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "the app at "+r.URL.RequestURI())
	})
	s.client(func(*oidctest.Client) {})
	return s
}

// client registers the site at the provider.
func (s *stage) client(change func(*oidctest.Client)) {
	c := oidctest.Client{ID: "app", Secret: "s3cret", RedirectURIs: []string{s.URL + "/auth/callback"},
		PostLogoutRedirectURIs: []string{s.URL + "/auth/logout/callback"},
		BackchannelLogoutURI:   s.URL + "/auth/backchannel-logout"}
	change(&c)
	s.op.SetClient(c)
}

// notifier is what the sessions of a stage notify.
type notifier struct {
	rig.Silent
	*stage
}

// Plan has each ending leave a notice for an app.
func (s notifier) Plan(e store.Ending) []store.NoticeRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endings = append(s.endings, e)
	return []store.NoticeRequest{{Kind: store.NoticeLogout, Target: "another app", Deadline: s.Now().Add(time.Hour)}}
}

// heard returns what OnResult heard last.
func (s *stage) heard() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.results) == 0 {
		return ""
	}
	return s.results[len(s.results)-1]
}

// signedIn returns a browser in which a person is signed in.
func (s *stage) signedIn(subject string) *rig.Browser {
	s.T.Helper()
	b := s.Browser()
	b.Follow("/auth/login?login_hint=" + subject)
	if got := b.Session(); got == nil || got.Subject != subject {
		s.T.Fatalf("%s could not sign in", subject)
	}
	return b
}

const form = "application/x-www-form-urlencoded"

// send posts a logout token, as a provider does.
func (s *stage) send(token string) rig.Page {
	s.T.Helper()
	return s.Browser().Do("POST", "/auth/backchannel-logout", url.Values{"logout_token": {token}}.Encode(),
		"Content-Type", form)
}

// shaky is a store that can be away, wholly or for endings alone.
type shaky struct {
	rig.Store
	endless atomic.Bool
	unsure  atomic.Bool           // whether its replicas have what it has ended
	ending  func(context.Context) // called before each End, if not nil
	// batch, if not nil, says of each session whether it is of the first batch of an ending of its subject. After that
	// batch the ending fails, as it may if it names more than [store.EndBatch].
	batch atomic.Pointer[func(store.Record) bool]
}

func (s *shaky) End(ctx context.Context, e store.Ending, now time.Time) ([]store.Ended, error) {
	if s.ending != nil {
		s.ending(ctx)
	}
	if s.endless.Load() {
		return nil, rig.ErrAway
	}
	if first := s.batch.Load(); first != nil && e.Selector.Subject != "" && e.Selector.SID == "" {
		return nil, s.endBatch(ctx, e, now, *first)
	}
	ended, err := s.Store.End(ctx, e, now)
	if s.unsure.Load() {
		return nil, rig.ErrAway
	}
	return ended, err
}

// endBatch ends the first batch, and fails.
func (s *shaky) endBatch(ctx context.Context, e store.Ending, now time.Time, first func(store.Record) bool) error {
	who := e.Selector
	for q := (store.Query{Issuer: who.Issuer, ClientID: who.ClientID, Subject: who.Subject}); ; {
		page, err := s.Store.List(ctx, q, now)
		if err != nil {
			return err
		}
		for _, r := range page.Records {
			one := e
			one.Selector, one.JTI = store.Selector{Issuer: who.Issuer, ClientID: who.ClientID, Key: r.Key}, ""
			if first(r) {
				if _, err := s.Store.End(ctx, one, now); err != nil {
					return err
				}
			}
		}
		if q.After = page.Next; q.After.IsZero() {
			return rig.ErrAway
		}
	}
}
