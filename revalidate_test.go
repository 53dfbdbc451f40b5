package curfew_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

// asksEveryMinute has the provider asked every minute, in these ways.
func asksEveryMinute(ways ...string) func(*curfew.Config) {
	return func(c *curfew.Config) {
		c.Providers[0].Revalidate, c.Providers[0].RevalidateBy = time.Minute, ways
	}
}

// both puts the clocks of the app and of the provider forward.
func (a *app) both(d time.Duration) {
	a.skew.Add(int64(d))
	a.opSkew.Add(int64(d))
}

func TestWithHalfOfAllLogoutTokensLostASessionThatEndedIsRefusedWithinTheBound(t *testing.T) {
	t.Parallel()
	for way, endpoint := range map[string]string{
		oidc.ByRefresh: oidctest.Token, oidc.ByIntrospection: oidctest.Introspect, oidc.ByUserinfo: oidctest.Userinfo,
	} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			var cfg curfew.Config
			a := newApp(t, asksEveryMinute(way), func(c *curfew.Config) {
				c.Providers[0].SkipUserinfo = way != oidc.ByUserinfo
				cfg = *c
			})
			second := a.open(cfg)
			replica := httptest.NewServer(second.Require(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
			t.Cleanup(replica.Close)

			var tokens atomic.Int64
			back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tokens.Add(1)%2 == 0 { // every second one is lost
					w.WriteHeader(http.StatusBadGateway)
					return
				}
				second.Handler().ServeHTTP(w, r)
			}))
			t.Cleanup(back.Close)
			a.op.SetClient(oidctest.Client{ID: "app", Secret: "secret",
				RedirectURIs:         []string{a.server.URL + "/auth/callback"},
				BackchannelLogoutURI: back.URL + "/auth/backchannel-logout"})

			const people = 10
			var browsers []browser
			for range people {
				b := newBrowser(t)
				if _, status, _ := b.open(a.server.URL + "/"); status != http.StatusOK {
					t.Fatalf("sign-in: %d", status)
				}
				browsers = append(browsers, b)
			}
			// in says who is signed in, at both replicas at once.
			in := func() (alive [people]bool) {
				var all sync.WaitGroup
				for i, b := range browsers {
					var here, there int
					var each sync.WaitGroup
					ask := func(url string, status *int) {
						req, _ := http.NewRequest(http.MethodGet, url, nil)
						_, *status, _ = b.do(req)
					}
					each.Go(func() { ask(a.server.URL+"/", &here) })
					each.Go(func() { ask(replica.URL+"/", &there) })
					all.Go(func() { each.Wait(); alive[i] = here == http.StatusOK && there == http.StatusOK })
				}
				all.Wait()
				return alive
			}
			before := a.op.Count(endpoint)
			const step = 10 * time.Second
			for at := step; at <= 5*time.Minute; at += step {
				if at == 2*time.Minute { // of which the tokens for three are lost
					ended := a.op.Sessions()[:6]
					for _, s := range ended {
						a.op.Logout(t.Context(), "", s.SID)
					}
				}
				a.both(step)
				alive := in()
				for i, live := range alive {
					switch {
					case i >= 6 && !live, at < 2*time.Minute && !live:
						t.Fatalf("after %v number %d is refused", at, i)
					case i < 6 && live && at > 2*time.Minute+75*time.Second:
						t.Fatalf("%v after it ended, number %d is served", at-2*time.Minute, i)
					}
				}
				if n := a.op.Count(endpoint) - before; n > people*int(at/time.Minute) {
					t.Fatalf("after %v the provider was asked %d times about %d sessions", at, n, people)
				}
			}
			if n := a.op.Count(endpoint) - before; n < 4*5 {
				t.Errorf("the provider was asked %d times", n)
			}
			if tokens.Load() != 6 {
				t.Errorf("%d logout tokens", tokens.Load())
			}
		})
	}
}

func TestOnlyWhatTheProviderSaysOnPurposeEndsASessionThatIsAskedAbout(t *testing.T) {
	t.Parallel()
	challenge := func(status int, header, media, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", header)
			w.Header().Set("Content-Type", media)
			w.WriteHeader(status)
			w.Write([]byte(body))
		}
	}
	const js = "application/json"
	for name, row := range map[string]struct {
		way, endpoint string
		answer        http.HandlerFunc
		cause         string // with which the session ends; empty: it goes on
		why           string // in the log, if it goes on
	}{
		"active": {oidc.ByIntrospection, oidctest.Introspect, challenge(200, "", js, `{"active":true}`), "", ""},
		"not active": {oidc.ByIntrospection, oidctest.Introspect, challenge(200, "", js, `{"active":false}`),
			"provider_ended", ""},
		"active as a text": {oidc.ByIntrospection, oidctest.Introspect, challenge(200, "", js, `{"active":"false"}`),
			"", "says `active`"},
		"a page": {oidc.ByIntrospection, oidctest.Introspect, challenge(200, "", "text/html", "<html>"), "",
			"says `active`"},
		"active twice": {oidc.ByIntrospection, oidctest.Introspect,
			challenge(200, "", js, `{"active":true,"active":false}`), "", "says `active`"},
		"not allowed to ask": {oidc.ByIntrospection, oidctest.Introspect, oidctest.OAuthError(403, "access_denied"), "",
			"set revalidate_by"},
		"503":        {oidc.ByIntrospection, oidctest.Introspect, oidctest.Status(503), "", "answered 503"},
		"a redirect": {oidc.ByIntrospection, oidctest.Introspect, oidctest.Status(302), "", "redirects are not"},
		"userinfo: invalid_token": {oidc.ByUserinfo, oidctest.Userinfo,
			challenge(401, `Bearer realm="x", error="invalid_token"`, "", ""), "provider_ended", ""},
		"userinfo: invalid_token as JSON": {oidc.ByUserinfo, oidctest.Userinfo,
			challenge(401, "Bearer", js, `{"error":"invalid_token"}`), "provider_ended", ""},
		"userinfo: 401 alone": {oidc.ByUserinfo, oidctest.Userinfo, challenge(401, "Basic", "text/html", "<html>"), "",
			"answered 401"},
		"userinfo: another scope": {oidc.ByUserinfo, oidctest.Userinfo,
			challenge(403, `Bearer error="insufficient_scope"`, "", ""), "", "answered 403"},
		"userinfo: a description that says invalid_token": {oidc.ByUserinfo, oidctest.Userinfo,
			challenge(401, `Bearer error="x", error_description="not invalid_token"`, "", ""), "", "answered 401"},
		"userinfo: a page": {oidc.ByUserinfo, oidctest.Userinfo, challenge(200, "", "text/html", "<html>"), "",
			"userinfo"},
		"refresh: invalid_grant": {oidc.ByRefresh, oidctest.Token, oidctest.OAuthError(400, "invalid_grant"),
			"refresh_rejected", ""},
		"refresh: 401": {oidc.ByRefresh, oidctest.Token, oidctest.Status(401), "", "answered 401"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := new(journal)
			a := newApp(t, asksEveryMinute(row.way), func(c *curfew.Config) {
				c.Log, c.RefreshGrace = slog.New(slog.NewTextHandler(log, nil)), 10*time.Minute
			})
			b := newBrowser(t)
			b.open(a.server.URL + "/")
			a.op.Override(row.endpoint, row.answer)
			a.both(76 * time.Second) // nobody is served before there is an answer
			_, _, text := b.open(a.server.URL + "/public")
			if row.cause != "" {
				if text != "false" || a.end() != row.cause {
					t.Errorf("the session goes on: %s", text)
				}
				return
			}
			warned := 1
			if row.why == "" {
				warned = 0
			}
			if n := log.count("level=WARN", "revalidation_failed", row.why); text != "true" || n != warned {
				t.Fatalf("signed in: %s; warned %d times: %s", text, n, log.text.String())
			}
			if warned == 0 {
				return
			}
			for range 3 { // it is told once, and the session goes on for the grace
				a.both(76 * time.Second)
				b.open(a.server.URL + "/public")
			}
			if n := log.count("level=WARN", "revalidation_failed"); n != 1 {
				t.Errorf("warned %d times: %s", n, log.text.String())
			}
		})
	}
}

// Where refresh tokens outlive the session at the provider, a refresh says nothing.
func TestARefreshTokenThatOutlivesTheSessionDoesNotConfirmIt(t *testing.T) {
	t.Parallel()
	a := newApp(t, asksEveryMinute(oidc.ByIntrospection), func(c *curfew.Config) {
		c.Providers[0].Scopes = []string{"openid", "offline_access"}
		c.Providers[0].SkipUserinfo = true
	})
	a.op.Mangle(func(m *oidctest.Mangle) {
		m.Tokens = func(_ string, doc map[string]any) { doc["expires_in"] = 100 }
	})
	b := newBrowser(t)
	b.open(a.server.URL + "/")
	for range 5 {
		a.both(80 * time.Second)
		if _, _, text := b.open(a.server.URL + "/public"); text != "true" {
			t.Fatal("the session ended, and the provider did not end it")
		}
	}
	if n := a.op.Count(oidctest.Introspect); n != 5 {
		t.Errorf("asked %d times", n)
	}
	var refreshed atomic.Int64
	a.op.Mangle(func(m *oidctest.Mangle) {
		m.Tokens = func(kind string, doc map[string]any) {
			if kind == "refresh_token" {
				refreshed.Add(1)
			}
			doc["expires_in"] = 100
		}
	})
	a.op.Override(oidctest.Introspect, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"active":false}`))
	})
	a.both(80 * time.Second)
	if _, _, text := b.open(a.server.URL + "/public"); text != "false" || a.end() != "provider_ended" {
		t.Errorf("the session goes on: %s", text)
	}
	if refreshed.Load() != 1 {
		t.Errorf("refreshed %d times before it asked", refreshed.Load())
	}
}

func TestTheFirstWayToAskThatThereIsIsTaken(t *testing.T) {
	t.Parallel()
	missing := func(names ...string) func(map[string]any) {
		return func(d map[string]any) {
			for _, name := range names {
				delete(d, name)
			}
		}
	}
	for name, row := range map[string]struct {
		ways      []string
		discovery func(map[string]any)
		client    func(*oidctest.Client)
		config    func(*oidc.Config)
		asked     string // the endpoint; empty: none
	}{
		"a refresh token":  {asked: oidctest.Token},
		"none":             {client: func(c *oidctest.Client) { c.NoRefreshToken = true }, asked: oidctest.Introspect},
		"another order":    {ways: []string{"userinfo", "refresh"}, asked: oidctest.Userinfo},
		"no introspection": {[]string{"introspection", "userinfo"}, missing("introspection_endpoint"), nil, nil, "userinfo"},
		"a public client": {[]string{"introspection", "userinfo"}, nil, func(c *oidctest.Client) { c.Secret = "" },
			func(c *oidc.Config) { c.ClientSecret = "" }, oidctest.Userinfo},
		"userinfo is skipped, and asked": {[]string{"userinfo"}, nil, nil,
			func(c *oidc.Config) { c.SkipUserinfo = true }, oidctest.Userinfo},
		"none at all": {discovery: missing("introspection_endpoint"),
			client: func(c *oidctest.Client) { c.NoRefreshToken = true },
			config: func(c *oidc.Config) { c.SkipUserinfo = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := new(journal)
			prepare := func(a *app) { a.op.Mangle(func(m *oidctest.Mangle) { m.Discovery = row.discovery }) }
			a := newAppAt(t, prepare, asksEveryMinute(row.ways...), func(c *curfew.Config) {
				c.Log = slog.New(slog.NewTextHandler(log, nil))
				if row.config != nil {
					row.config(&c.Providers[0])
				}
			})
			client := oidctest.Client{ID: "app", Secret: "secret", RedirectURIs: []string{a.server.URL + "/auth/callback"}}
			if row.client != nil {
				row.client(&client)
			}
			a.op.SetClient(client)
			b := newBrowser(t)
			b.open(a.server.URL + "/")
			before := map[string]int{}
			for _, e := range []string{oidctest.Token, oidctest.Introspect, oidctest.Userinfo} {
				before[e] = a.op.Count(e)
			}
			a.both(76 * time.Second)
			if _, _, text := b.open(a.server.URL + "/public"); text != "true" {
				t.Error("the session ended")
			}
			for e, n := range before {
				if asked := a.op.Count(e) > n; asked != (e == row.asked) && !(row.asked == oidctest.Token &&
					e == oidctest.Userinfo) { // a refresh brings new claims
					t.Errorf("%s was asked: %v", e, asked)
				}
			}
			warned := 0
			if row.asked == "" {
				warned = 1
			}
			if n := log.count("level=WARN", "revalidation_failed", "have the provider issue refresh tokens"); n != warned {
				t.Errorf("warned %d times: %s", n, log.text.String())
			}
		})
	}
}
