package backchannel_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/backchannel"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/store/sqlite"
)

// stage is the endpoint of one replica, and a provider.
type stage struct {
	t        *testing.T
	provider *oidctest.Provider
	handler  *backchannel.Handler
	calls    atomic.Int64
	onLogout atomic.Pointer[func(context.Context, backchannel.LogoutToken) error]
}

func newStage(t *testing.T, backend store.Store, provider *oidctest.Provider, change ...func(*oidc.Config)) *stage {
	t.Helper()
	if provider == nil {
		provider = oidctest.Start(t, oidctest.Config{Clients: []oidctest.Client{{ID: "app"}, {ID: "two"}}})
	}
	st := &stage{t: t, provider: provider}
	st.answer(func(context.Context, backchannel.LogoutToken) error { return nil })
	one := oidc.Config{Name: "one", Issuer: provider.Issuer(), ClientID: "app"}
	for _, c := range change {
		c(&one)
	}
	h, err := backchannel.New(context.Background(), backchannel.Config{
		Providers: []oidc.Config{one, {Name: "two", Issuer: provider.Issuer(), ClientID: "two"}},
		OnLogout: func(ctx context.Context, token backchannel.LogoutToken) error {
			st.calls.Add(1)
			return (*st.onLogout.Load())(ctx, token)
		},
		Store: backend, Log: slog.New(slog.DiscardHandler),
	})
	rig.Must(t, err)
	t.Cleanup(func() { h.Close() })
	st.handler = h
	return st
}

func (st *stage) answer(f func(context.Context, backchannel.LogoutToken) error) {
	st.onLogout.Store(&f)
}

func (st *stage) post(token string) (int, string) {
	r := httptest.NewRequest("POST", "/logout", strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	st.handler.ServeHTTP(w, r)
	body, _ := io.ReadAll(w.Body)
	return w.Code, string(body)
}

func (st *stage) want(token string, status int, says string, calls int64) {
	st.t.Helper()
	got, body := st.post(token)
	if n := st.calls.Load(); got != status || !strings.Contains(body, says) || n != calls {
		st.t.Errorf("%d %q after %d calls, want %d %q after %d", got, body, n, status, says, calls)
	}
}

func stores(t *testing.T) map[string]store.Store {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "marks.db"), sqlite.Options{})
	rig.Must(t, err)
	t.Cleanup(func() { db.Close() })
	return map[string]store.Store{"memory": memory.New(), "sqlite": db}
}

func TestATokenIsCarriedOutOnce(t *testing.T) {
	t.Parallel()
	for name, backend := range stores(t) {
		t.Run(name, func(t *testing.T) {
			st := newStage(t, backend, nil)
			var got backchannel.LogoutToken
			st.answer(func(_ context.Context, token backchannel.LogoutToken) error { got = token; return nil })
			token := st.provider.SignLogoutToken("app", "alice", "s1")
			st.want(token, 200, "", 1)
			if got.Issuer != st.provider.Issuer() || got.ClientID != "app" || got.Subject != "alice" || got.SID != "s1" ||
				got.JTI == "" || got.IssuedAt.IsZero() {
				t.Errorf("called with %+v", got)
			}
			st.want(token, 400, "already processed", 1)
			// Another replica knows it too.
			newStage(t, backend, st.provider).want(token, 400, "already processed", 0)
			st.want(st.provider.SignLogoutToken("app", "alice", "s1"), 200, "", 2) // another token for the same session
			st.want("x.y.z", 400, "failed the check", 2)
			st.want(st.provider.SignLogoutToken("stranger", "alice", "s1"), 400, "failed the check", 2)
		})
	}
}

// The sid may be that of a session whose subject is another here.
func TestWithLogoutScopeSubjectTheSubjectAndTheSidAreNamed(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil, nil, func(c *oidc.Config) { c.Quirks.LogoutScope = "subject" })
	var got []string
	st.answer(func(_ context.Context, token backchannel.LogoutToken) error {
		got = append(got, token.Subject+"/"+token.SID)
		return nil
	})
	began, err := st.handler.Begin(t.Context())
	rig.Must(t, err)
	st.want(st.provider.SignLogoutToken("app", "alice", "s1"), 200, "", 2)
	if want := []string{"alice/", "/s1"}; !slices.Equal(got, want) {
		t.Errorf("called with %q, want %q", got, want)
	}
	for _, who := range [][2]string{{"alice", "s2"}, {"bob", "s1"}} {
		ended, err := st.handler.Ended(t.Context(), backchannel.SignIn{Issuer: st.provider.Issuer(), ClientID: "app",
			Subject: who[0], SID: who[1], Began: began})
		if err != nil || !ended {
			t.Errorf("a sign-in of %s with %s that was under way: ended %v, %v", who[0], who[1], ended, err)
		}
	}
}

func TestWhatFailedCanBeSentAgain(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil, nil)
	st.answer(func(context.Context, backchannel.LogoutToken) error { return errors.New("the table is locked") })
	token := st.provider.SignLogoutToken("app", "alice", "")
	for i := range int64(3) {
		st.want(token, 503, "send the token again", i+1)
	}
	st.answer(func(context.Context, backchannel.LogoutToken) error { return nil })
	st.want(token, 200, "", 4)
	st.want(token, 400, "already processed", 4)
}

func TestATokenForTwoClientsIsPassedForEach(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil, nil)
	var clients []string
	fail := "two"
	st.answer(func(_ context.Context, token backchannel.LogoutToken) error {
		if token.ClientID == fail {
			return errors.New("not now")
		}
		clients = append(clients, token.ClientID)
		return nil
	})
	token := st.provider.SignLogoutToken("app", "alice", "", func(j *oidctest.JWT) {
		j.Claims["aud"] = []string{"app", "two"}
	})
	st.want(token, 503, "send the token again", 2)
	fail = ""
	st.want(token, 200, "", 3) // the one that was done is not called again
	if strings.Join(clients, " ") != "app two" {
		t.Errorf("carried out for %q", clients)
	}
	st.want(token, 400, "already processed", 3)
}

func TestABrokenStoreBurnsNothing(t *testing.T) {
	t.Parallel()
	broken := &rig.Store{Store: memory.New()}
	st := newStage(t, broken, nil)
	token := st.provider.SignLogoutToken("app", "alice", "")
	broken.Away.Store(true)
	st.want(token, 503, "send the token again", 0)
	broken.Away.Store(false)
	st.want(token, 200, "", 1)
}

func TestOneTokenIsCarriedOutByOneRequestAtATime(t *testing.T) {
	t.Parallel()
	backend := memory.New()
	one := newStage(t, backend, nil)
	two := newStage(t, backend, one.provider)
	entered, leave := make(chan struct{}), make(chan struct{})
	one.answer(func(context.Context, backchannel.LogoutToken) error {
		close(entered)
		<-leave
		return nil
	})
	token := one.provider.SignLogoutToken("app", "alice", "")
	var first sync.WaitGroup
	first.Go(func() { one.want(token, 200, "", 1) })
	rig.Soon(t, "the first request is at work", entered)
	two.want(token, 503, "send the token again", 0)
	one.want(token, 503, "send the token again", 1)
	close(leave)
	first.Wait()
	two.want(token, 400, "already processed", 0)
}

func TestASignInUnderWayIsAskedAbout(t *testing.T) {
	t.Parallel()
	for name, backend := range stores(t) {
		for _, row := range []struct {
			name             string
			sub, sid         string // of the logout
			subject, session string // of the sign-in
			ended            bool
		}{
			{"by its sid", "", "s1", "alice", "s1", true},
			{"by its subject", "alice", "", "alice", "s1", true},
			{"by both", "alice", "s1", "alice", "s1", true},
			{"by both, without a sid of its own", "alice", "s1", "alice", "", true},
			{"another sid", "", "s2", "alice", "s1", false},
			{"another subject", "bob", "", "alice", "s1", false},
		} {
			t.Run(name+" "+row.name, func(t *testing.T) {
				st := newStage(t, backend, nil)
				ctx := t.Context()
				who := backchannel.SignIn{Issuer: st.provider.Issuer(), ClientID: "app", Subject: row.subject,
					SID: row.session}
				var err error
				who.Began, err = st.handler.Begin(ctx)
				rig.Must(t, err)
				asked := func(who backchannel.SignIn, want bool) {
					t.Helper()
					if got, err := st.handler.Ended(ctx, who); err != nil || got != want {
						t.Errorf("ended: %v, %v, want %v", got, err, want)
					}
				}
				asked(who, false)
				// The mark is there before OnLogout is called, and after it has failed.
				st.answer(func(context.Context, backchannel.LogoutToken) error {
					asked(who, row.ended)
					return errors.New("not now")
				})
				st.want(st.provider.SignLogoutToken("app", row.sub, row.sid), 503, "", 1)
				asked(who, row.ended)
				other := who
				other.ClientID = "two"
				asked(other, false)
				who.Began, err = st.handler.Begin(ctx)
				rig.Must(t, err)
				asked(who, false) // it began after the logout
			})
		}
	}
}

func TestWhatIsAskedHasToBeComplete(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil, nil)
	began, err := st.handler.Begin(t.Context())
	rig.Must(t, err)
	good := backchannel.SignIn{Issuer: st.provider.Issuer(), ClientID: "app", Subject: "alice", Began: began}
	for what, change := range map[string]func(*backchannel.SignIn){
		"no stamp":          func(n *backchannel.SignIn) { n.Began = "" },
		"a made-up stamp":   func(n *backchannel.SignIn) { n.Began = "soon" },
		"no subject":        func(n *backchannel.SignIn) { n.Subject = "" },
		"another issuer":    func(n *backchannel.SignIn) { n.Issuer = "https://other.example" },
		"another client":    func(n *backchannel.SignIn) { n.ClientID = "three" },
		"a stamp of nobody": func(n *backchannel.SignIn) { n.Began += "zz" },
	} {
		n := good
		change(&n)
		if _, err := st.handler.Ended(t.Context(), n); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	n := good
	n.Began = "1." + strings.SplitN(began, ".", 2)[1] // of 1970
	if ended, err := st.handler.Ended(t.Context(), n); !ended || err != nil {
		t.Errorf("a sign-in that began long ago: %v, %v", ended, err)
	}
}

func TestFaultsOfTheConfigurationAreListed(t *testing.T) {
	t.Parallel()
	_, err := backchannel.New(t.Context(), backchannel.Config{})
	for _, want := range []string{"Providers is empty", "OnLogout is missing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	c := oidc.Config{Issuer: "https://id.example.com", ClientID: "app"}
	_, err = backchannel.New(t.Context(), backchannel.Config{Providers: []oidc.Config{c, c, {}}})
	for _, want := range []string{"provider 2 has the issuer and client of another", "provider 3: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		token        backchannel.LogoutToken
		subject, sid string
		want         bool
	}{
		{backchannel.LogoutToken{Subject: "alice"}, "alice", "s1", true},
		{backchannel.LogoutToken{Subject: "alice"}, "bob", "s1", false},
		{backchannel.LogoutToken{SID: "s1"}, "alice", "s1", true},
		{backchannel.LogoutToken{SID: "s1"}, "alice", "", false},
		{backchannel.LogoutToken{Subject: "alice", SID: "s1"}, "alice", "s1", true},
		{backchannel.LogoutToken{Subject: "alice", SID: "s1"}, "alice", "s2", false},
		{backchannel.LogoutToken{Subject: "alice", SID: "s1"}, "alice", "", true},
		{backchannel.LogoutToken{Subject: "alice", SID: "s1"}, "bob", "s1", true}, // see ADR 0030
	} {
		row.token.Issuer, row.token.ClientID = "https://id.example.com", "app"
		if got := row.token.Names(row.subject, row.sid); got != row.want {
			t.Errorf("%+v names %q %q: %v, want %v", row.token, row.subject, row.sid, got, row.want)
		}
	}
}

var _ http.Handler = (*backchannel.Handler)(nil)

func TestACrashedProcessHoldsATokenForItsLeaseAlone(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	provider := oidctest.Start(t, oidctest.Config{Clients: []oidctest.Client{{ID: "app"}}})
	backend := memory.New()
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	h, err := backchannel.New(context.Background(), backchannel.Config{
		Providers: []oidc.Config{{Issuer: provider.Issuer(), ClientID: "app"}}, Store: backend,
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		Log: slog.New(slog.DiscardHandler),
		OnLogout: func(context.Context, backchannel.LogoutToken) error {
			entered <- struct{}{}
			<-leave
			return nil
		}})
	rig.Must(t, err)
	t.Cleanup(func() { h.Close() })
	st := &stage{t: t, provider: provider, handler: h}
	token := provider.SignLogoutToken("app", "alice", "")
	var requests sync.WaitGroup
	requests.Go(func() { st.post(token) }) // it hangs, like one of a process that is no more
	rig.Soon(t, "the first is at work", entered)
	st.want(token, 503, "send the token again", 0)
	ahead.Store(int64(31 * time.Second))
	requests.Go(func() { st.post(token) })
	rig.Soon(t, "the second is at work", entered)
	close(leave)
	requests.Wait()
	st.want(token, 400, "already processed", 0)
}

// It was good when it came, so the answer is that of the app.
func TestATokenThatExpiresWhileItIsCarriedOutIsAnswered(t *testing.T) {
	t.Parallel()
	for name, backend := range stores(t) {
		var ahead atomic.Int64
		provider := oidctest.Start(t, oidctest.Config{Clients: []oidctest.Client{{ID: "app"}}})
		h, err := backchannel.New(context.Background(), backchannel.Config{
			Providers: []oidc.Config{{Issuer: provider.Issuer(), ClientID: "app"}}, Store: backend,
			Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
			Log: slog.New(slog.DiscardHandler),
			OnLogout: func(context.Context, backchannel.LogoutToken) error {
				ahead.Store(int64(80 * time.Second)) // a minute is allowed for clocks that differ
				return nil
			}})
		rig.Must(t, err)
		t.Cleanup(func() { h.Close() })
		st := &stage{t: t, provider: provider, handler: h}
		token := provider.SignLogoutToken("app", "alice", "", func(j *oidctest.JWT) {
			j.Claims["exp"] = time.Now().Add(10 * time.Second).Unix()
		})
		if status, body := st.post(token); status != 200 {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}
