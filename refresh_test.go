package curfew_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// journal is a log that a test reads.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) count(words ...string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.text.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

// short has access tokens of one second, and lets a test change what a refresh is answered.
func (a *app) short(idToken func(*oidctest.JWT), userinfo func(map[string]any), tokens func(map[string]any)) {
	a.op.Mangle(func(m *oidctest.Mangle) {
		m.IDToken, m.Userinfo = idToken, userinfo
		m.Tokens = func(_ string, doc map[string]any) {
			doc["expires_in"] = 1
			if tokens != nil {
				tokens(doc)
			}
		}
	})
}

// aMinute has access tokens live for longer than a busy machine takes to sign somebody in.
func aMinute(doc map[string]any) { doc["expires_in"] = 60 }

func (a *app) pass(d time.Duration) { a.skew.Add(int64(d)) }

func TestWhatARefreshIsAnsweredEndsASessionOnlyIfItIsFinal(t *testing.T) {
	t.Parallel()
	page := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			w.Write([]byte("<html>invalid_grant"))
		}
	}
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		lie    func(*oidctest.JWT)
		cause  string // with which the session ends; empty: it does not
	}{
		"invalid_grant":          {answer: oidctest.OAuthError(400, "invalid_grant"), cause: "refresh_rejected"},
		"invalid_grant with 403": {answer: oidctest.OAuthError(403, "invalid_grant")},
		"invalid_client":         {answer: oidctest.OAuthError(401, "invalid_client")},
		"unauthorized_client":    {answer: oidctest.OAuthError(400, "unauthorized_client")},
		"a page of an ingress":   {answer: page(404)},
		"a page that says 400":   {answer: page(400)},
		"a page that says 200":   {answer: page(200)},
		"an empty 200":           {answer: oidctest.Status(200)},
		"429":                    {answer: oidctest.Status(429)},
		"503":                    {answer: oidctest.Status(503)},
		"another sub":            {lie: func(j *oidctest.JWT) { j.Claims["sub"] = "bob" }, cause: "refresh_rejected"},
		"another iss": {lie: func(j *oidctest.JWT) { j.Claims["iss"] = "https://evil.example" },
			cause: "refresh_rejected"},
		"another aud": {lie: func(j *oidctest.JWT) { j.Claims["aud"] = "other" },
			cause: "refresh_rejected"},
		"another sub, not signed": {lie: func(j *oidctest.JWT) {
			j.Claims["sub"], j.Key = "bob",
				oidctest.NewKey("RS256")
		}},
		"an ID Token that ran out": {lie: func(j *oidctest.JWT) { j.Claims["exp"], j.Claims["iat"] = 1000, 900 }},
		"no sub":                   {lie: func(j *oidctest.JWT) { delete(j.Claims, "sub") }},
		"no JSON":                  {lie: func(j *oidctest.JWT) { j.ClaimsJSON = "<html>" }},
		"at_hash of another token": {lie: func(j *oidctest.JWT) { j.Claims["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := new(journal)
			a := newApp(t, func(c *curfew.Config) {
				c.RefreshGrace, c.Log = time.Minute, slog.New(slog.NewTextHandler(log, nil))
			})
			a.short(nil, nil, nil)
			b := newBrowser(t)
			b.open(a.server.URL + "/")
			a.short(row.lie, nil, nil)
			a.op.Override(oidctest.Token, row.answer)
			a.pass(2 * time.Second)
			_, _, text := b.open(a.server.URL + "/public")
			if row.cause != "" {
				if text != "false" || a.end() != row.cause {
					t.Errorf("the session goes on: %s", text)
				}
				return
			}
			if text != "true" || log.count("level=WARN", "refresh_failed") != 1 {
				t.Fatalf("%s, and the log says %s", text, log.text.String())
			}
			a.pass(31 * time.Second)
			b.open(a.server.URL + "/public")
			if n := log.count("level=WARN", "refresh_failed"); n != 1 {
				t.Errorf("told %d times", n)
			}
			// The last try before the grace ends was at most 30 s ago, and the grace ends all the same.
			a.pass(29 * time.Second)
			if _, _, text := b.open(a.server.URL + "/public"); text != "false" || a.end() != "provider_silent" {
				t.Errorf("after the grace: %s", text)
			}
		})
	}
}

func TestAfterTroubleTheNewRefreshTokenIsUsed(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.short(nil, nil, nil)
	b := newBrowser(t)
	b.open(a.server.URL + "/")
	a.short(func(j *oidctest.JWT) { j.Claims["exp"] = 1000 }, nil, nil)
	a.pass(2 * time.Second)
	b.open(a.server.URL + "/public")
	a.short(nil, nil, nil)
	a.pass(31 * time.Second)
	if _, _, text := b.open(a.server.URL + "/public"); text != "true" {
		t.Error("the refresh token that came beside a broken ID Token is lost")
	}
}

// RFC 6749 §5.1 lets a provider leave out expires_in. The access token does not count as eternal then.
func TestASessionIsRefreshedAlsoWhenTheProviderDoesNotSayWhen(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ set, after time.Duration }{
		"by default": {0, 5 * time.Minute}, "as set": {time.Minute, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, func(c *curfew.Config) { c.Providers[0].AccessTokenLifetime = row.set })
			a.short(nil, nil, func(doc map[string]any) { delete(doc, "expires_in") })
			b := newBrowser(t)
			b.open(a.server.URL + "/")
			asked := func() int { return a.op.Count(oidctest.Token) }
			begun := asked()
			for range 2 { // the answer to a refresh does not say it either
				a.pass(row.after - 30*time.Second)
				if _, _, text := b.open(a.server.URL + "/public"); text != "true" || asked() != begun {
					t.Fatalf("%s, and the provider was asked %d times more", text, asked()-begun)
				}
				a.pass(31 * time.Second)
				if _, _, text := b.open(a.server.URL + "/public"); text != "true" || asked() != begun+1 {
					t.Fatalf("%s, and the provider was asked %d times more, want once", text, asked()-begun)
				}
				begun = asked()
			}
			// A provider that has ended the session and said nothing is noticed.
			a.op.Override(oidctest.Token, oidctest.OAuthError(400, "invalid_grant"))
			a.pass(row.after + time.Second)
			if _, _, text := b.open(a.server.URL + "/public"); text != "false" || a.end() != "refresh_rejected" {
				t.Errorf("a session that has ended at the provider goes on: %s", text)
			}
		})
	}
}

// A session that ends with a token response that is refused leaves nothing alive at the provider: neither what the
// response brought nor, if it brought no refresh token, the one that it took.
func TestTheTokensOfARefusedResponseAreRevokedWithTheSession(t *testing.T) {
	t.Parallel()
	other := func(j *oidctest.JWT) { j.Claims["sub"] = "bob" }
	same := func(doc map[string]any) { delete(doc, "refresh_token") }
	for name, row := range map[string]struct {
		lie    func(*oidctest.JWT)
		tokens func(map[string]any)
		pass   time.Duration // until it ends; the grace is a minute
		cause  string
	}{
		"an ID Token of somebody else":                           {other, nil, 0, "refresh_rejected"},
		"an ID Token of somebody else, and no new refresh token": {other, same, 0, "refresh_rejected"},
		"an ID Token that ran out": {func(j *oidctest.JWT) { j.Claims["exp"] = 1000 }, nil, time.Minute,
			"provider_silent"},
		"no access token": {nil, func(doc map[string]any) { delete(doc, "access_token") }, time.Minute,
			"provider_silent"},
		"another token type": {nil, func(doc map[string]any) { doc["token_type"] = "DPoP" }, time.Minute,
			"provider_silent"},
		"an ID Token that is no text": {nil, func(doc map[string]any) { doc["id_token"] = 1 }, time.Minute,
			"provider_silent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, func(c *curfew.Config) { c.RefreshGrace = time.Minute })
			var mu sync.Mutex
			var last string // the refresh token that the provider would take
			a.short(nil, nil, func(doc map[string]any) {
				mu.Lock()
				defer mu.Unlock()
				last = doc["refresh_token"].(string)
			})
			b := newBrowser(t)
			b.open(a.server.URL + "/")
			revoked := make(chan string, 10)
			a.op.Override(oidctest.Revoke, func(_ http.ResponseWriter,
				r *http.Request) {
				revoked <- r.FormValue("token")
			})
			a.short(row.lie, nil, func(doc map[string]any) {
				mu.Lock()
				defer mu.Unlock()
				if row.tokens != nil {
					row.tokens(doc)
				}
				if rt, ok := doc["refresh_token"].(string); ok {
					last = rt
				}
			})
			a.pass(2*time.Second + row.pass)
			if _, _, text := b.open(a.server.URL + "/public"); text != "false" ||
				rig.Soon(t, "the end", a.ended) != row.cause {
				t.Fatalf("the session goes on: %s", text)
			}
			got := rig.Soon(t, "the revocation", revoked)
			mu.Lock()
			defer mu.Unlock()
			for got != last { // the one from before may be revoked as well
				got = rig.Soon(t, "the revocation of the newest refresh token", revoked)
			}
		})
	}
}

// A response that is refused keeps the session going for the grace, with its new refresh token: the old one may be
// spent.
func TestTheRefreshTokenOfARefusedResponseIsKeptForTheNextTry(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.short(nil, nil, nil)
	b := newBrowser(t)
	b.open(a.server.URL + "/")
	a.short(nil, nil, func(doc map[string]any) { doc["token_type"] = "DPoP" })
	a.pass(2 * time.Second)
	b.open(a.server.URL + "/public")
	a.short(nil, nil, nil)
	a.pass(31 * time.Second)
	if _, _, text := b.open(a.server.URL + "/public"); text != "true" {
		t.Error("the refresh token that came in a refused response is lost")
	}
}

func TestClaimsRequireAndPolicyAreThoseOfTheLastRefresh(t *testing.T) {
	t.Parallel()
	groups := func(list ...any) func(map[string]any) {
		return func(c map[string]any) { c["groups"], c["employee"] = list, 1234567 }
	}
	var mu sync.Mutex
	var no error
	a := newApp(t, func(c *curfew.Config) {
		c.Providers[0].Require = map[string][]any{"groups": {"staff"}}
		c.Policy, _ = gateway.NewPolicy(gateway.Rule{Path: "/admin", Groups: []string{"admins"}},
			gateway.Rule{Path: "/own", Claims: map[string][]string{"mine": {"yes"}}})
		c.OnLogin = func(_ context.Context, claims map[string]any) error {
			mu.Lock()
			defer mu.Unlock()
			claims["mine"] = "yes"
			return no
		}
	})
	b := newBrowser(t)
	status := func(path string, want int) {
		t.Helper()
		if _, got, text := b.open(a.server.URL + path); got != want {
			t.Errorf("%s: %d, want %d: %s", path, got, want, text)
		}
	}
	a.short(nil, groups("staff", "admins"), nil)
	status("/admin", 200)
	status("/own", 200)

	// Without a new ID Token, what userinfo says now.
	a.short(nil, groups("staff"), func(doc map[string]any) { delete(doc, "id_token") })
	a.pass(2 * time.Second)
	status("/admin", 403)
	status("/own", 200)

	// What cannot be asked takes no claims away.
	a.short(nil, groups("staff", "admins"), nil)
	a.pass(2 * time.Second)
	status("/admin", 200)
	a.op.Override(oidctest.Userinfo, oidctest.Status(503))
	a.pass(2 * time.Second)
	status("/admin", 200)
	a.op.Override(oidctest.Userinfo, nil)
	a.pass(31 * time.Second)
	status("/admin", 200)

	// The app's own say: trouble that may pass, and then a no.
	mu.Lock()
	no = web.Fail(http.StatusServiceUnavailable, "The database is away.", nil)
	mu.Unlock()
	a.pass(2 * time.Second)
	status("/admin", 200)
	mu.Lock()
	no = nil
	mu.Unlock()
	a.pass(31 * time.Second)
	status("/admin", 200)

	// Whoever no longer meets require is out.
	a.short(nil, groups("guests"), nil)
	a.pass(2 * time.Second)
	if _, _, text := b.open(a.server.URL + "/public"); text != "false" || a.end() != "require" {
		t.Errorf("still in: %s", text)
	}

	a.short(nil, groups("staff"), nil)
	b = newBrowser(t) // revoking the tokens of that session may end what else has come of its sign-in
	status("/", 200)
	mu.Lock()
	no = errors.New("not any more")
	mu.Unlock()
	a.pass(2 * time.Second)
	if _, _, text := b.open(a.server.URL + "/public"); text != "false" || a.end() != "require" {
		t.Errorf("still in, though the app says no: %s", text)
	}
}

// Whatever a refresh brings, the app is asked.
func TestTheAppIsAskedAtEachRefresh(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ skip, idToken bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		var calls atomic.Int32
		a := newApp(t, func(c *curfew.Config) {
			c.Providers[0].SkipUserinfo = row.skip
			c.OnLogin = func(_ context.Context, claims map[string]any) error {
				if claims["sub"] != "alice" {
					t.Errorf("%+v: OnLogin is asked about %v", row, claims)
				}
				if claims["added"] != nil {
					t.Errorf("%+v: OnLogin is asked with what it has added itself", row)
				}
				claims["added"] = true
				if calls.Add(1) > 2 {
					return errors.New("the account is closed")
				}
				return nil
			}
		})
		a.short(nil, nil, aMinute) // so that none is refreshed during the sign-in
		b := newBrowser(t)
		b.open(a.server.URL + "/")
		if !row.idToken {
			a.short(nil, nil, func(doc map[string]any) { aMinute(doc); delete(doc, "id_token") })
		}
		for _, want := range []string{"true", "false"} {
			a.pass(time.Minute + 2*time.Second)
			if _, _, text := b.open(a.server.URL + "/public"); text != want {
				t.Errorf("%+v: signed in: %s, want %s, after %d calls", row, text, want, calls.Load())
			}
		}
		if cause := a.end(); cause != "require" {
			t.Errorf("%+v: ended by %q", row, cause)
		}
	}
}

func TestASidThatIsNewInARefreshedIDTokenIsOneThatALogoutNames(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.short(nil, nil, nil)
	b := newBrowser(t)
	b.open(a.server.URL + "/")
	logout := func(sid string) {
		t.Helper()
		token := a.op.SignLogoutToken("app", "", sid, func(j *oidctest.JWT) { delete(j.Claims, "sub") })
		resp, err := http.PostForm(a.server.URL+"/auth/backchannel-logout", url.Values{"logout_token": {token}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Fatalf("the logout was answered %d", resp.StatusCode)
		}
	}
	a.short(func(j *oidctest.JWT) { j.Claims["sid"] = "new" }, nil, nil)
	a.pass(2 * time.Second)
	if _, _, text := b.open(a.server.URL + "/public"); text != "true" {
		t.Fatal("not refreshed")
	}
	logout("new")
	if _, _, text := b.open(a.server.URL + "/public"); text != "false" || a.end() != string(store.CauseBackChannel) {
		t.Errorf("alive after a 200: %s", text)
	}

	// A logout that comes while the refresh is under way, by the sid that it brings.
	a.short(nil, nil, nil)
	b = newBrowser(t) // revoking the tokens of that session may end what else has come of its sign-in
	if to, status, text := b.open(a.server.URL + "/"); text != "alice" {
		t.Fatalf("signing in again led to %s: %d %s", to, status, text)
	}
	a.short(func(j *oidctest.JWT) { j.Claims["sid"] = "newer" }, func(map[string]any) { logout("newer") }, nil)
	a.pass(2 * time.Second)
	if _, _, text := b.open(a.server.URL + "/public"); text != "false" || a.end() != string(store.CauseBackChannel) {
		t.Errorf("a refresh under way revived it: %s", text)
	}
}

// The provider may name the session by the sid of a new ID Token, whatever else is wrong with the refresh.
func TestASIDOfARefreshThatFailsIsOneThatALogoutNames(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change  func(*curfew.Config)
		trouble func(*app)
		lie     func(*oidctest.JWT)
		doc     func(map[string]any)
		pass    time.Duration
	}{
		"userinfo is away": {trouble: func(a *app) { a.op.Override(oidctest.Userinfo, oidctest.Status(503)) }},
		"OnLogin cannot say": {change: func(c *curfew.Config) {
			var calls atomic.Int32
			c.OnLogin = func(context.Context, map[string]any) error {
				if calls.Add(1) > 1 {
					return web.Fail(503, "away", nil)
				}
				return nil
			}
		}},
		"at_hash is wrong": {lie: func(j *oidctest.JWT) { j.Claims["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA" }},
		"it has expired":   {lie: func(j *oidctest.JWT) { j.Claims["exp"] = 1000 }},
		"no key is known": {lie: func(j *oidctest.JWT) { j.Header["kid"] = "of tomorrow" },
			trouble: func(a *app) { a.op.Override(oidctest.JWKS, oidctest.Status(503)) }},
		"no ID Token": {change: func(c *curfew.Config) { c.Providers[0].Quirks.SIDFromTokenResponse = true },
			trouble: func(a *app) { a.op.Override(oidctest.Userinfo, oidctest.Status(503)) },
			doc:     func(doc map[string]any) { delete(doc, "id_token"); doc["session_state"] = "new" },
			lie:     func(j *oidctest.JWT) { delete(j.Claims, "sid") }},
		"introspection is away": {change: func(c *curfew.Config) {
			c.Providers[0].Revalidate, c.Providers[0].RevalidateBy = time.Minute, []string{"introspection"}
		}, trouble: func(a *app) { a.op.Override(oidctest.Introspect, oidctest.Status(503)) }, pass: 80 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, func(c *curfew.Config) {
				if row.change != nil {
					row.change(c)
				}
			})
			life := 60
			if row.pass > 0 {
				life = 2 + int(row.pass/time.Second)*9/8
			}
			var refreshed atomic.Bool
			a.op.Mangle(func(m *oidctest.Mangle) {
				m.IDToken = func(j *oidctest.JWT) {
					if name == "no ID Token" {
						delete(j.Claims, "sid")
					}
					if !refreshed.Load() {
						return
					}
					j.Claims["sid"] = "new"
					if row.lie != nil {
						row.lie(j)
					}
				}
				m.Tokens = func(_ string, doc map[string]any) {
					doc["expires_in"] = life
					if refreshed.Load() && row.doc != nil {
						row.doc(doc)
					}
				}
			})
			b := newBrowser(t)
			b.open(a.server.URL + "/")
			refreshed.Store(true)
			if row.trouble != nil {
				row.trouble(a)
			}
			a.pass(cmp.Or(row.pass, time.Minute+2*time.Second))
			if _, _, text := b.open(a.server.URL + "/public"); text != "true" {
				t.Fatalf("it does not go on for the grace: %s", text)
			}
			token := a.op.SignLogoutToken("app", "", "new", func(j *oidctest.JWT) { delete(j.Claims, "sub") })
			a.op.Override(oidctest.JWKS, nil)
			resp, err := http.PostForm(a.server.URL+"/auth/backchannel-logout", url.Values{"logout_token": {token}})
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if _, _, text := b.open(a.server.URL + "/public"); resp.StatusCode != 200 || text != "false" {
				t.Fatalf("answered %d, and signed in: %s", resp.StatusCode, text)
			}
			if cause := a.end(); cause != string(store.CauseBackChannel) {
				t.Errorf("ended by %q", cause)
			}
		})
	}
}

func TestASIDFromBeforeARefreshIsOneThatALogoutMayStillName(t *testing.T) {
	t.Parallel()
	logout := func(a *app, b browser, token string) int {
		body := strings.NewReader(url.Values{"logout_token": {token}}.Encode())
		req, _ := http.NewRequest("POST", a.server.URL+"/auth/backchannel-logout", body)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		_, status, _ := newBrowser(b.t).do(req)
		return status
	}
	for name, row := range map[string]struct {
		logout  func(a *app, b browser) int // its status
		cause   store.Cause
		sibling bool // lives on: it is of the same sid, and was not refreshed
	}{
		"a logout token": {func(a *app, b browser) int {
			return logout(a, b, a.op.SignLogoutToken("app", "", "old",
				func(j *oidctest.JWT) { delete(j.Claims, "sub") }))
		}, store.CauseBackChannel, false},
		"a logout token with sub": {func(a *app, b browser) int {
			return logout(a, b, a.op.SignLogoutToken("app", "alice", "old"))
		}, store.CauseBackChannel, false},
		"the front channel": {func(a *app, b browser) int {
			_, status, _ := b.open(a.server.URL + "/auth/frontchannel-logout?sid=old&iss=" +
				url.QueryEscape(a.op.Issuer()))
			return status
		}, store.CauseFrontChannel, true},
		"the front channel, undecoded": {func(a *app, b browser) int {
			_, status, _ := b.open(a.server.URL + "/auth/frontchannel-logout?iss=" + url.QueryEscape(a.op.Issuer()) +
				"&sid=ol%64")
			return status
		}, store.CauseFrontChannel, true},
		"the person": {func(a *app, b browser) int {
			req, _ := http.NewRequest("POST", a.server.URL+"/auth/logout", nil)
			_, status, _ := b.do(req)
			return status
		}, store.CauseUser, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t)
			b, sibling := newBrowser(t), newBrowser(t)
			a.op.Mangle(func(m *oidctest.Mangle) { m.IDToken = func(j *oidctest.JWT) { j.Claims["sid"] = "old" } })
			sibling.open(a.server.URL + "/")
			a.short(func(j *oidctest.JWT) { j.Claims["sid"] = "old" }, nil, nil)
			b.open(a.server.URL + "/")
			for _, sid := range []string{"new", "newer"} {
				a.short(func(j *oidctest.JWT) { j.Claims["sid"] = sid }, nil, nil)
				a.pass(2 * time.Second)
				if _, _, text := b.open(a.server.URL + "/public"); text != "true" {
					t.Fatal("not refreshed")
				}
			}
			if status := row.logout(a, b); status != 200 {
				t.Fatalf("the logout was answered %d", status)
			}
			if _, _, text := b.open(a.server.URL + "/public"); text != "false" ||
				rig.Soon(t, "the end", a.ended) != string(row.cause) {
				t.Errorf("alive after a 200: %s", text)
			}
			if _, _, text := sibling.open(a.server.URL + "/public"); text != strconv.FormatBool(row.sibling) {
				t.Errorf("the other browser with that sid is signed in: %s", text)
			}
		})
	}
}

func TestAClaimThatIsNullEndsNoSessionAtARefresh(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.short(nil, nil, nil)
	b := newBrowser(t)
	b.open(a.server.URL + "/")
	a.short(func(j *oidctest.JWT) {
		j.Claims["at_hash"], j.Claims["sid"], j.Claims["azp"] = []byte(nil), []byte(nil), []byte(nil)
	}, nil, nil)
	a.pass(2 * time.Second)
	if _, _, text := b.open(a.server.URL + "/public"); text != "true" {
		t.Errorf("the session ended: %s", text)
	}
	if s, err := a.store.List(t.Context(), store.Query{}, time.Now()); err != nil || len(s.Records) != 1 ||
		s.Records[0].SID == "" {
		t.Errorf("sid: %+v, %v", s, err)
	}
}
