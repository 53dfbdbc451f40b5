package login_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/login"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

func TestASignInOpensASession(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	callback := b.begin("/auth/login?return_to=" + url.QueryEscape("/reports?year=2026&all#top"))
	if len(s.sessions()) != 0 {
		t.Error("starting a login wrote to the store")
	}
	attempt := b.attempts()
	p := b.Get(callback)
	if p.Status != http.StatusSeeOther || p.To != s.URL+"/reports?year=2026&all#top" {
		t.Fatalf("the callback answers %d to %q: %s", p.Status, p.To, p.Body)
	}
	got := b.Session()
	if got == nil || got.Subject != "alice" || got.SID != s.ops[0].Sessions()[0].SID || got.Provider != "main" ||
		got.Issuer != s.ops[0].Issuer() || got.ClientID != "app" {
		t.Fatalf("the session is %+v", got)
	}
	if got.Claim("email") == "" || got.Claim("iss") != s.ops[0].Issuer() || got.Tokens.IDToken == "" ||
		got.Tokens.RefreshToken == "" || got.Tokens.Offline {
		t.Errorf("its claims are %v", got.Claims)
	}
	if got.Claims["nonce"] != nil {
		t.Error("the nonce is kept for no purpose")
	}
	if n := len(b.attempts()); len(attempt) != 1 || n != 0 {
		t.Errorf("%d attempts before the callback, %d after it", len(attempt), n)
	}
	for what, secret := range map[string]string{"bearer": b.Cookie("curfew"), "attempt": attempt[0].Value,
		"ID Token":     got.Tokens.IDToken,
		"access token": got.Tokens.AccessToken, "query of the callback": callback[strings.Index(callback, "?"):]} {
		if strings.Contains(s.Log.String(), secret) {
			t.Errorf("the log holds the %s", what)
		}
	}
	if l := s.Log.Last("login"); l["result"] != "ok" || l["sub"] != "alice" || l["request_id"] == "" {
		t.Errorf("the log says %v", l)
	}
}

func TestTheAuthorizationRequestIsBoundToThisBrowser(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	seen := map[string]bool{}
	for range 2 {
		p := s.browser().Get("/auth/login?login_hint=bob&prompt=login+consent")
		u, err := url.Parse(p.To)
		rig.Must(t, err)
		q := u.Query()
		if q.Get("code_challenge_method") != "S256" || q.Get("login_hint") != "bob" ||
			q.Get("prompt") != "login consent" || q.Get("redirect_uri") != s.URL+"/auth/callback" {
			t.Errorf("the request says %v", q)
		}
		for _, name := range []string{"state", "nonce", "code_challenge"} {
			if v := q.Get(name); len(v) < 22 || seen[v] {
				t.Errorf("%s is %q: not random enough", name, v)
			} else {
				seen[v] = true
			}
		}
		if p.Header.Get("Cache-Control") != "no-store" {
			t.Error("the redirect may be stored")
		}
	}
}

// What is refused, and by which check: the one that the log names.
func TestTheCallbackRefuses(t *testing.T) {
	t.Parallel()
	idToken := func(f func(*oidctest.JWT)) func(*oidctest.Mangle) {
		return func(m *oidctest.Mangle) { m.IDToken = f }
	}
	query := func(f func(url.Values)) func(string) string {
		return func(callback string) string {
			u, _ := url.Parse(callback)
			q := u.Query()
			f(q)
			u.RawQuery = q.Encode()
			return u.String()
		}
	}
	for _, c := range []struct {
		why     string
		mangle  func(*oidctest.Mangle)
		change  func(callback string) string
		check   string
		status  int
		askedUI bool // userinfo may have been asked
	}{
		{why: "a state of nobody", change: query(func(q url.Values) { q.Set("state", "AAAAAAAAAAAAAAAAAAAAAAAAAA") }),
			check: "state", status: 400},
		{why: "no state", change: query(func(q url.Values) { q.Del("state") }), check: "state", status: 400},
		{why: "a state that is cut", change: query(func(q url.Values) { q.Set("state", q.Get("state")[:25]) }),
			check: "state", status: 400},
		{why: "an answer of another issuer", change: query(func(q url.Values) { q.Set("iss", "https://evil.example") }),
			check: "iss", status: 400},
		{why: "the promised iss is missing", change: query(func(q url.Values) { q.Del("iss") }), check: "iss",
			status: 400},
		{why: "neither code nor error", change: query(func(q url.Values) { q.Del("code") }), check: "code",
			status: 400},
		{why: "a code of nobody", change: query(func(q url.Values) { q.Set("code", "x") }), check: "code", status: 400},
		{why: "an error", change: query(func(q url.Values) { q.Set("error", "server_error") }), check: "error",
			status: 400},
		{why: "the person, or the provider, said no", change: query(func(q url.Values) {
			q.Set("error",
				"access_denied")
		}), check: "error", status: 403},
		{why: "another nonce", mangle: idToken(func(j *oidctest.JWT) { j.Claims["nonce"] = "other" }), check: "nonce",
			status: 400},
		{why: "another issuer", mangle: idToken(func(j *oidctest.JWT) { j.Claims["iss"] = "https://evil.example" }),
			check: "iss", status: 400},
		{why: "another audience", mangle: idToken(func(j *oidctest.JWT) { j.Claims["aud"] = "other" }), check: "aud",
			status: 400},
		{why: "no sub", mangle: idToken(func(j *oidctest.JWT) { delete(j.Claims, "sub") }), check: "sub", status: 400},
		{why: "no iat", mangle: idToken(func(j *oidctest.JWT) { delete(j.Claims, "iat") }), check: "iat", status: 400},
		{why: "not signed", mangle: idToken(func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "none", "none" }),
			check: "alg", status: 400},
		{why: "signed by a stranger", mangle: idToken(func(j *oidctest.JWT) { j.Key = oidctest.NewKey("RS256") }),
			check: "signature", status: 400},
		{why: "another access token", mangle: idToken(
			func(j *oidctest.JWT) { j.Claims["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA" }), check: "at_hash", status: 400},
		{why: "userinfo of another person", mangle: func(m *oidctest.Mangle) {
			m.Userinfo = func(claims map[string]any) { claims["sub"] = "bob" }
		}, check: "userinfo", status: 400, askedUI: true},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, 1, nil)
			if c.mangle != nil {
				s.ops[0].Mangle(c.mangle)
			}
			b := s.browser()
			callback := b.begin("/auth/login")
			if c.change != nil {
				callback = c.change(callback)
			}
			p := b.Get(callback)
			if l := s.Log.Last("login"); p.Status != c.status || l["check"] != c.check || l["result"] != "refused" {
				t.Errorf("it answers %d, and the log says %v; want %d by the check %s", p.Status, l, c.status, c.check)
			}
			if !strings.Contains(p.Body, "/auth/login?provider=main") {
				t.Error("the page has no button to sign in again")
			}
			if n := len(s.sessions()); n != 0 || b.Cookie("curfew") != "" {
				t.Errorf("%d sessions all the same", n)
			}
			if !c.askedUI && s.ops[0].Count(oidctest.Userinfo) > 0 {
				t.Error("userinfo was asked before the ID Token was found good")
			}
			if c.check != "state" && len(b.attempts()) > 0 {
				t.Error("the state could be used a second time")
			}
		})
	}
}

func TestParametersMustNotComeTwice(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	for _, name := range []string{"state", "code", "iss", "error"} {
		b := s.browser()
		callback := b.begin("/auth/login")
		if p := b.Get(callback + "&error=a&" + name + "=b&" + name + "=c"); p.Status != 400 ||
			!strings.Contains(fmt.Sprint(s.Log.Last("login")["error"]), name+" comes more than once") {
			t.Errorf("%s: it answers %d, and the log says %v", name, p.Status, s.Log.Last("login"))
		}
	}
}

func TestAnErrorPageShowsNothingAsItCame(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	callback := b.begin("/auth/login")
	evil := "<script>alert(1)</script>\n" + strings.Repeat("x", 4000)
	p := b.Get(callback + "&error=" + url.QueryEscape(evil) + "&error_description=" + url.QueryEscape(evil))
	if p.Status != 400 || strings.Contains(p.Body, "<script") || len(p.Body) > 8000 {
		t.Errorf("%d bytes: %s", len(p.Body), p.Body)
	}
}

func TestACallbackLoadedTwiceOpensOneSession(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	callback := b.begin("/auth/login?return_to=/a")
	b.Get(callback)
	before := b.Cookie("curfew")
	if p := b.Get(callback); p.Status != http.StatusOK || !strings.Contains(p.Body, `href="/a"`) {
		t.Errorf("whoever is signed in is not led on, but %d %q", p.Status, p.To)
	}
	if n := len(s.sessions()); n != 1 || b.Cookie("curfew") != before {
		t.Errorf("%d sessions", n)
	}
	other := s.browser()
	if p := other.Get(callback); p.Status != 400 || other.Cookie("curfew") != "" {
		t.Errorf("in another browser the callback answers %d", p.Status)
	}
}

func TestAnAttemptIsGoodForItsBrowserItsStateAndAQuarterOfAnHour(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why  string
		then func(s *stage, b *browser, callback string) string
	}{
		{"another browser", func(s *stage, b *browser, callback string) string {
			*b = *s.browser()
			return callback
		}},
		{"it took too long, though the browser kept the cookie", func(s *stage, b *browser, callback string) string {
			s.Pass(store.AttemptLifetime)
			return callback
		}},
		{"the cookie of another state", func(s *stage, b *browser, callback string) string {
			mine := b.attempts()[0]
			other := s.browser()
			second := other.begin("/auth/login")
			moved := other.attempts()[0]
			moved.Value, moved.Path = mine.Value, "/"
			b.SetCookie(moved)
			return second
		}},
		{"changed", func(s *stage, b *browser, callback string) string {
			c := b.attempts()[0]
			c.Value, c.Path = rig.Changed(c.Value), "/"
			b.SetCookie(c)
			return callback
		}},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, 1, nil)
			b := s.browser()
			callback := c.then(s, b, b.begin("/auth/login"))
			if p := b.Get(callback); p.Status != 400 || s.Log.Last("login")["check"] != "state" ||
				s.ops[0].Count(oidctest.Token) != 0 {
				t.Errorf("it answers %d, and the log says %v", p.Status, s.Log.Last("login"))
			}
		})
	}
}

func TestSeveralTabsSignInAtOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	one, two, three := b.begin("/auth/login?return_to=/1"), b.begin("/auth/login?return_to=/2"),
		b.begin("/auth/login?return_to=/3")
	for want, callback := range map[string]string{"/2": two, "/1": one, "/3": three} {
		if p := b.Get(callback); p.To != s.URL+want {
			t.Errorf("sent to %q, want %s", p.To, want)
		}
	}
	if n := len(s.sessions()); n != 1 {
		t.Errorf("%d sessions are left of one browser", n)
	}
}

func TestOldAttemptsMakeRoomForNewOnes(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	size := func() (n int) {
		for _, c := range b.attempts() {
			n += len(c.Name) + len(c.Value) + len("=; ")
		}
		return n
	}
	oldest := b.begin("/auth/login?return_to=/oldest")
	s.Pass(time.Second)
	first := b.begin("/auth/login?return_to=/first")
	for range 24 { // tabs
		s.Pass(time.Second)
		b.begin("/auth/login?return_to=/" + strings.Repeat("a", 2000))
	}
	if p := b.Get(first); p.To != s.URL+"/first" || size() > 2<<10 {
		t.Errorf("%d, and the attempts take %d bytes", p.Status, size())
	}
	for range 80 {
		s.Pass(time.Second)
		b.Get("/auth/login")
	}
	if n := size(); n > 3<<10 || n < 2<<10 {
		t.Errorf("the attempts take %d bytes of every request", n)
	}
	if p := b.Get(b.begin("/auth/login?return_to=/newest")); p.To != s.URL+"/newest" {
		t.Errorf("the newest attempt does not work: %d", p.Status)
	}
	rig.Must(t, endAll(s))
	if p := b.Get(oldest); p.Status != 400 || !strings.Contains(p.Body, "return_to=%2Foldest") {
		t.Errorf("the oldest did not make room, or does not lead back: %d %s", p.Status, p.Body)
	}
}

func TestASignOutOvertakesASignIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why string
		who func(w *store.Selector, sid string)
		ok  bool
	}{
		{"by sub", func(w *store.Selector, _ string) { w.Subject = "alice" }, false},
		{"by sid", func(w *store.Selector, sid string) { w.SID = sid }, false},
		{"by both", func(w *store.Selector, sid string) { w.Subject, w.SID = "alice", sid }, false},
		{"of somebody else", func(w *store.Selector, _ string) { w.Subject = "bob" }, true},
		{"of another sid", func(w *store.Selector, _ string) { w.SID = "other" }, true},
		{"at another client", func(w *store.Selector, _ string) { w.Subject, w.ClientID = "alice", "other" }, true},
	} {
		for _, silent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, silent %v", c.why, silent), func(t *testing.T) {
				t.Parallel()
				s := newStage(t, 1, nil)
				b := s.browser()
				b.Follow(b.begin("/auth/login")) // so that the provider knows who it is
				rig.Must(t, endAll(s))
				s.Pass(time.Second)
				callback := b.begin(fmt.Sprintf("/auth/login?return_to=/a&silent=%v", silent))
				s.Pass(time.Second)
				who := store.Selector{Issuer: s.ops[0].Issuer(), ClientID: "app"}
				c.who(&who, s.ops[0].Sessions()[0].SID)
				_, err := s.Manager.End(context.Background(),
					store.Ending{Selector: who, Cause: store.CauseBackChannel})
				rig.Must(t, err)
				s.Pass(time.Second)
				p := b.Get(callback)
				switch {
				case c.ok:
					if b.Session() == nil {
						t.Errorf("refused: %d %s", p.Status, p.Body)
					}
					return
				case silent:
					if p.Status != http.StatusSeeOther || p.To != s.URL+"/a" {
						t.Errorf("it is not quiet: %d %s", p.Status, p.Body)
					}
				default:
					if p.Status != http.StatusConflict || !strings.Contains(p.Body, "signed out") ||
						!strings.Contains(p.Body, "/auth/login?provider=main&amp;return_to=%2Fa") {
						t.Errorf("no page that says so, with a button: %d %s", p.Status, p.Body)
					}
				}
				if n := len(s.sessions()); n != 0 || b.Session() != nil || s.Log.Last("login")["result"] != "ended" {
					t.Errorf("%d sessions; the log says %v", n, s.Log.Last("login"))
				}
				s.Pass(time.Second)
				if b.Follow("/auth/login"); b.Session() == nil {
					t.Error("a sign-in begun after the sign-out is not welcome")
				}
			})
		}
	}
}

// endAll ends every session by its key, which leaves no mark.
func endAll(s *stage) error {
	for _, r := range s.sessions() {
		if _, err := s.Manager.End(context.Background(), store.Ending{Selector: store.Selector{Issuer: r.Issuer,
			ClientID: r.ClientID, Key: r.Key}}); err != nil {
			return err
		}
	}
	return nil
}

func TestSigningInAgainReplacesTheSessionOfThisBrowserAlone(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b, other := s.browser(), s.browser()
	b.Follow("/auth/login")
	other.Follow("/auth/login")
	old := b.Session()
	ended, stop := s.Manager.Watch(old.Key)
	defer stop()
	b.Follow("/auth/login")
	if now := b.Session(); now == nil || now.Key == old.Key {
		t.Error("the bearer is not a new one")
	}
	select {
	case cause := <-ended:
		if cause != store.CauseReplaced {
			t.Errorf("the old session ended by %q", cause)
		}
	default:
		t.Error("the old session lives on")
	}
	if other.Session() == nil || len(s.sessions()) != 2 {
		t.Error("another browser's session ended too")
	}
}

// To revoke what the old session held would end the new one at providers that revoke a whole grant, if both are of one
// sign-in.
func TestSigningInAgainAnswersForTheOldTokenOfTheSameSignInAndHasAnyOtherRevoked(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change    func(s *stage, b *browser)
		inherited bool
	}{
		"the same sign-in at the provider": {func(*stage, *browser) {}, true},
		"another sign-in of the same person": {func(s *stage, b *browser) {
			s.ops[0].Mangle(func(m *oidctest.Mangle) {
				m.IDToken = func(j *oidctest.JWT) { j.Claims["sid"] = "another" }
			})
		}, false},
		"another person": {func(s *stage, b *browser) {
			s.ops[0].Mangle(func(m *oidctest.Mangle) {
				m.IDToken = func(j *oidctest.JWT) { j.Claims["sub"] = "bob" }
				m.Userinfo = func(claims map[string]any) { claims["sub"] = "bob" }
			})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, 1, nil)
			b := s.browser()
			b.Follow("/auth/login")
			old := b.Session()
			row.change(s, b)
			var endings []store.Ending
			s.tell = func(e store.Ending) []store.NoticeRequest {
				if e.Cause != store.CauseCapped { // a sign-in asks for room too, and there is plenty
					endings = append(endings, e)
				}
				return nil
			}
			b.Follow("/auth/login")
			now := b.Session()
			if now == nil || now.Key == old.Key || old.Tokens.RefreshToken == "" {
				t.Fatalf("the new session is %+v", now)
			}
			if len(endings) != 1 || endings[0].Cause != store.CauseReplaced || endings[0].Selector.Key != old.Key ||
				endings[0].KeepTokens != row.inherited {
				t.Errorf("ended: %+v", endings)
			}
			if got := now.Tokens.Inherited; (len(got) == 1 && got[0] == old.Tokens.RefreshToken) != row.inherited ||
				len(got) > 1 {
				t.Errorf("inherited %d tokens", len(got))
			}
		})
	}
}

func TestAWrongOrPlantedCookieIsNotKept(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	planted := session.NewBearer("a", "b", "c")
	b.SetCookie(&http.Cookie{Name: "curfew", Value: planted.Reveal(), Path: "/"})
	b.Follow("/auth/login")
	if b.Cookie("curfew") == planted.Reveal() || b.Session() == nil {
		t.Error("the sign-in kept a bearer that it did not make")
	}
}

// error_description is optional (RFC 6749 §4.1.2.1): the log does not show one that is not there.
func TestAnErrorWithoutADescriptionIsLoggedWithoutOne(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		path, description string
		attr, want        string
	}{
		{"/auth/login", "", "error", `the provider answered "login_required"`},
		{"/auth/login", "nobody is there", "error", `the provider answered "login_required": "nobody is there"`},
		{"/auth/login?silent=true", "", "reason", `the provider answered "login_required"`},
	} {
		s := newStage(t, 1, nil)
		s.ops[0].Override(oidctest.Authorize, func(w http.ResponseWriter, r *http.Request) {
			q := url.Values{"error": {"login_required"}, "state": {r.FormValue("state")}, "iss": {s.ops[0].Issuer()}}
			if row.description != "" {
				q.Set("error_description", row.description)
			}
			http.Redirect(w, r, r.FormValue("redirect_uri")+"?"+q.Encode(), http.StatusSeeOther)
		})
		b := s.browser()
		b.Follow(row.path)
		if got := s.Log.Last("login")[row.attr]; got != row.want {
			t.Errorf("%s: logged %v, want %s", row.path, got, row.want)
		}
		// The answer to a sign-in of nobody here.
		b.Get("/auth/callback?error=login_required&state=x")
		if got, _ := s.Log.Last("login")["error"].(string); !strings.HasSuffix(got,
			`the provider answered "login_required"`) {
			t.Errorf("a stranger's: logged %v", got)
		}
	}
}

func TestASilentSignIn(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/auth/login?return_to=/a&silent=true", "/auth/login?return_to=/a&prompt=none"} {
		s := newStage(t, 1, nil)
		b := s.browser()
		if p := b.Follow(path); p.Status != 200 || p.Body != "the app at /a" || b.Session() != nil {
			t.Errorf("nobody is signed in at the provider: %d %s", p.Status, p.Body)
		}
		if l := s.Log.Last("login"); l["silent"] != true || l["check"] != "error" {
			t.Errorf("the log says %v", l)
		}
		b.Follow("/auth/login")
		rig.Must(t, endAll(s))
		if p := b.Follow(path); p.Body != "the app at /a" || b.Session() == nil {
			t.Errorf("somebody is signed in at the provider: %d %s", p.Status, p.Body)
		}
		s.ops[0].Override(oidctest.Token, oidctest.Status(503))
		if p := b.Follow(path); p.Body != "the app at /a" {
			t.Errorf("the provider is away: %d %s", p.Status, p.Body)
		}
		s.ops[0].Override(oidctest.Token, nil)
		callback := b.begin(path)
		s.store.Away.Store(true)
		if p := b.Get(callback); p.Status != 503 {
			t.Errorf("our own trouble is hidden: %d %s", p.Status, p.Body)
		}
	}
}

func TestAnythingAwayIsA503AndNobodyIsSignedIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why  string
		away func(*stage)
		back func(*stage)
		late bool // at the callback
		says string
	}{
		{"discovery", func(s *stage) { s.ops[0].Override(oidctest.Discovery, oidctest.Status(502)) },
			func(s *stage) { s.ops[0].Override(oidctest.Discovery, nil); s.Pass(2 * time.Second) }, false,
			"does not answer"},
		{"the token endpoint", func(s *stage) { s.ops[0].Override(oidctest.Token, oidctest.Status(503)) },
			func(s *stage) { s.ops[0].Override(oidctest.Token, nil) }, true, "does not answer"},
		{"the keys", func(s *stage) { s.ops[0].Override(oidctest.JWKS, oidctest.Status(500)) },
			func(s *stage) { s.ops[0].Override(oidctest.JWKS, nil); s.Pass(time.Minute) }, true, "does not answer"},
		{"userinfo", func(s *stage) { s.ops[0].Override(oidctest.Userinfo, oidctest.Status(500)) },
			func(s *stage) { s.ops[0].Override(oidctest.Userinfo, nil) }, true, "does not answer"},
		{"the store", func(s *stage) { s.store.Away.Store(true) }, func(s *stage) { s.store.Away.Store(false) }, true,
			"store of sessions"},
		{"the store's clock, before it was ever read", func(s *stage) { s.store.unread.Store(true) },
			func(s *stage) { s.store.unread.Store(false) }, false, "store of sessions"},
		{"the store's clock, for a minute", func(s *stage) {
			s.browser().
				begin("/auth/login")
			s.Pass(time.Minute)
			s.store.unread.Store(true)
		},
			func(s *stage) { s.store.unread.Store(false) }, false, "store of sessions"},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, 1, nil)
			b := s.browser()
			c.away(s)
			var p rig.Page
			if c.late {
				p = b.Get(b.begin("/auth/login?return_to=/a"))
			} else {
				p = b.Get("/auth/login?return_to=/a")
			}
			if p.Status != 503 || p.Header.Get("Retry-After") == "" || !strings.Contains(p.Body, c.says) ||
				!strings.Contains(p.Body, "/auth/login?provider=main&amp;return_to=%2Fa") {
				t.Errorf("%d %s", p.Status, p.Body)
			}
			if b.Cookie("curfew") != "" || len(s.sessions()) != 0 {
				t.Error("somebody is signed in")
			}
			c.back(s)
			if p := b.Follow("/auth/login?return_to=/a"); p.Body != "the app at /a" || b.Session() == nil {
				t.Errorf("it does not recover: %d %s", p.Status, p.Body)
			}
		})
	}
}

func TestAStoreThatIsAwayCostsNobodyTheirSession(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	b.Follow("/auth/login")
	before := b.Cookie("curfew")
	callback := b.begin("/auth/login")
	s.store.Away.Store(true)
	if p := b.Get(callback); p.Status != 503 {
		t.Error(p.Status)
	}
	if p := b.Get(callback); p.Status != 503 { // without an attempt by now
		t.Error(p.Status)
	}
	s.store.Away.Store(false)
	if b.Cookie("curfew") != before || b.Session() == nil {
		t.Error("the session that was there is lost")
	}
}

func TestALinkThatAsksForNonsenseIsRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	for _, c := range []struct{ query, says string }{
		{"provider=nobody", "no such provider"},
		{"iss=https://evil.example", "no such provider"},
		{"prompt=create", "prompt is"},
		{"prompt=none+login", "stands alone"},
		{"prompt=login&silent=true", "cannot prompt"},
		{"silent=yes", "true or false"},
		{"login_hint=" + strings.Repeat("a", 257), "login_hint"},
		{"login_hint=a%0ab", "login_hint"},
		{"return_to=%zz", "malformed"},
	} {
		if p := s.browser().Get("/auth/login?" + c.query); p.Status != 400 || !strings.Contains(p.Body, c.says) {
			t.Errorf("%s: %d %s", c.query, p.Status, p.Body)
		}
	}
	if p := s.browser().Get("/auth/login?" + strings.Repeat("a", 33<<10)); p.Status != 414 {
		t.Errorf("a very long query: %d", p.Status)
	}
	// A HEAD is answered, and begins nothing.
	for method, want := range map[string]struct {
		status int
		allow  string
	}{"HEAD /auth/login": {200, ""}, "POST /auth/login": {415, ""}, "PUT /auth/login": {405, "GET, POST"},
		"HEAD /auth/callback": {200, ""}, "POST /auth/callback": {405, "GET"}, "PUT /auth/callback": {405, "GET"}} {
		{
			method, path, _ := strings.Cut(method, " ")
			r, _ := http.NewRequest(method, s.URL+path, nil)
			resp, err := s.browser().Client.Do(r)
			rig.Must(t, err)
			resp.Body.Close()
			if resp.StatusCode != want.status || resp.Header.Get("Allow") != want.allow ||
				resp.Header.Get("Cache-Control") != "no-store" ||
				resp.Header.Get("Location") != "" || len(resp.Cookies()) != 0 {
				t.Errorf("%s %s: %d %v", method, path, resp.StatusCode, resp.Header)
			}
		}
	}
}

func TestReturnToLeadsBackToThisSiteAndNotIntoACircle(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, func(h *login.Handler) { h.Home = "/home" })
	for returnTo, want := range map[string]string{
		"":                         "/home",
		"/a?b=c":                   "/a?b=c",
		s.URL + "/a":               "/a",
		"https://evil.example/":    "/",
		"//evil.example":           "/",
		"/auth/login?return_to=/a": "/home",
		"/auth/logout":             "/home",
		"/auth/callback/second":    "/home",
		"/auth/sessions":           "/auth/sessions",
		"/auth/loginx":             "/auth/loginx",
	} {
		b := s.browser()
		if p := b.Get(b.begin("/auth/login?return_to=" + url.QueryEscape(returnTo))); p.To != s.URL+want {
			t.Errorf("return_to %q leads to %q, want %s", returnTo, p.To, want)
		}
	}
}

func TestSeveralProvidersAreKeptApart(t *testing.T) {
	t.Parallel()
	s := newStage(t, 3, nil, func(c *oidc.Config) {
		if c.Name == "second" {
			c.Label = "The Second <b>House</b>"
		}
	})
	if got := []string{s.h.RedirectURI("main"), s.h.RedirectURI("second")}; got[0] != s.URL+"/auth/callback" ||
		got[1] != s.URL+"/auth/callback/second" {
		t.Errorf("the redirect URIs are %v", got)
	}
	b := s.browser()
	p := b.Get("/auth/login?return_to=/a&login_hint=bob")
	for _, want := range []string{
		"/auth/login?login_hint=bob&amp;provider=main&amp;return_to=%2Fa", "provider=second&amp;return_to=%2Fa",
		"provider=third",
		"The Second &lt;b&gt;House&lt;/b&gt;", strings.TrimPrefix(s.ops[0].Issuer(), "http://"),
	} {
		if p.Status != 200 || !strings.Contains(p.Body, want) {
			t.Errorf("the page to choose (%d) does not say %q: %s", p.Status, want, p.Body)
		}
	}
	if b.Follow("/auth/login?provider=second"); b.Session() == nil || b.Session().Provider != "second" ||
		b.Session().Issuer != s.ops[1].Issuer() {
		t.Error("not signed in with the second provider")
	}
	if b.Follow("/auth/login?iss=" + url.QueryEscape(s.ops[2].Issuer())); b.Session().Provider != "third" {
		t.Error("iss does not choose the provider")
	}
	// An answer of the second provider, brought to the first one's redirect URI and the reverse (RFC 9700 §4.4).
	for from, to := range map[string]string{"second": "/auth/callback", "main": "/auth/callback/third"} {
		before := s.ops[0].Count(oidctest.Token) + s.ops[1].Count(oidctest.Token) + s.ops[2].Count(oidctest.Token)
		callback := b.begin("/auth/login?provider=" + from)
		if p := b.Get(to + callback[strings.Index(callback, "?"):]); p.Status != 400 ||
			s.Log.Last("login")["check"] != "redirect_uri" {
			t.Errorf("%s at %s: %d, and the log says %v", from, to, p.Status, s.Log.Last("login"))
		}
		if after := s.ops[0].Count(oidctest.Token) + s.ops[1].Count(oidctest.Token) +
			s.ops[2].Count(oidctest.Token); after != before {
			t.Error("the code was taken to a token endpoint")
		}
	}
}

func TestWhatTheSiteRequires(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why     string
		claims  map[string]any
		require map[string][]any
		missing string
	}{
		{"nothing", nil, nil, ""},
		{"equal", map[string]any{"dept": "it"}, map[string][]any{"dept": {"hr", "it"}}, ""},
		{"another value", map[string]any{"dept": "ops"}, map[string][]any{"dept": {"hr", "it"}}, "dept"},
		{"absent", nil, map[string][]any{"dept": {"it"}}, "dept"},
		{"null", map[string]any{"dept": nil}, map[string][]any{"dept": {"it"}}, "dept"},
		{"in an array", map[string]any{"groups": []any{"a", "b"}}, map[string][]any{"groups": {"b"}}, ""},
		{"not in the array", map[string]any{"groups": []any{"a", "bb"}}, map[string][]any{"groups": {"b"}}, "groups"},
		{"a string is no boolean", map[string]any{"ok": "true"}, map[string][]any{"ok": {true}}, "ok"},
		{"a boolean is no string", map[string]any{"ok": true}, map[string][]any{"ok": {"true"}}, "ok"},
		{"a boolean", map[string]any{"ok": true}, map[string][]any{"ok": {true}}, ""},
		{"a number", map[string]any{"level": 3}, map[string][]any{"level": {3}}, ""},
		{"a number written in another way", map[string]any{"level": 3.0}, map[string][]any{"level": {uint8(3)}}, ""},
		{"another number", map[string]any{"level": 3}, map[string][]any{"level": {30}}, "level"},
		{"a number is no string", map[string]any{"level": "3"}, map[string][]any{"level": {3}}, "level"},
		{"a dotted name", map[string]any{"realm_access": map[string]any{"roles": []any{"x", "staff"}}},
			map[string][]any{"realm_access.roles": {"staff"}}, ""},
		{"a name that holds dots", map[string]any{"https://example.com/roles": []any{"staff"}},
			map[string][]any{"https://example.com/roles": {"staff"}}, ""},
		{"a dotted name that leads nowhere", map[string]any{"realm_access": "staff"},
			map[string][]any{"realm_access.roles": {"staff"}}, "realm_access.roles"},
		{"a number of many digits", map[string]any{"id": json.Number("12345678901234567891")},
			map[string][]any{"id": {json.Number("12345678901234567891")}}, ""},
		{"one of them differs", map[string]any{"id": json.Number("12345678901234567890")},
			map[string][]any{"id": {json.Number("12345678901234567891")}}, "id"},
		{"a number of an odd size", map[string]any{"n": json.Number("1e400")}, map[string][]any{"n": {1}}, "n"},
		{"an address has no case", map[string]any{"email": "Boss@Corp.example"},
			map[string][]any{"email": {"boss@corp.example"}}, ""},
		{"an address that is not verified", map[string]any{"email": "boss@corp.example", "email_verified": false},
			map[string][]any{"email": {"boss@corp.example"}}, "email"},
		{"an address of which it is not said", map[string]any{"email": "boss@corp.example", "email_verified": nil},
			map[string][]any{"email": {"boss@corp.example"}}, ""},
		{"an object is nothing", map[string]any{"dept": map[string]any{"it": true}}, map[string][]any{"dept": {"it"}},
			"dept"},
		{"all of them", map[string]any{"a": "1"}, map[string][]any{"a": {"1"}, "b": {"2"}}, "b"},
		{"no value would do", map[string]any{"a": "1"}, map[string][]any{"a": {}}, "a"},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, 1, nil, func(p *oidc.Config) { p.Require = c.require })
			s.ops[0].Mangle(func(m *oidctest.Mangle) {
				m.Userinfo = func(claims map[string]any) {
					for k, v := range c.claims {
						claims[k] = v
					}
				}
			})
			b := s.browser()
			p := b.Follow("/auth/login")
			if c.missing == "" {
				if b.Session() == nil {
					t.Errorf("refused: %s", p.Body)
				}
				return
			}
			for _, link := range []string{"Use another account", "prompt=select_account", "Sign out at ",
				s.ops[0].Issuer()} {
				if !strings.Contains(p.Body, link) {
					t.Errorf("the page does not offer %q: %s", link, p.Body)
				}
			}
			if p.Status != 403 || !strings.Contains(p.Body, "“"+c.missing+"”") ||
				s.Log.Last("login")["check"] != "require" || len(s.sessions()) != 0 {
				t.Errorf("%d %s, and the log says %v", p.Status, p.Body, s.Log.Last("login"))
			}
		})
	}
}

func TestTheAppHasItsSay(t *testing.T) {
	t.Parallel()
	var say func(claims map[string]any) error
	s := newStage(t, 1, func(h *login.Handler) {
		h.OnLogin = func(_ context.Context, claims map[string]any) error { return say(claims) }
	})
	b := s.browser()
	say = func(claims map[string]any) error {
		if claims["email"] == nil {
			t.Error("the app does not see what userinfo said")
		}
		claims["user_id"], claims["sub"], claims["sid"] = 7, "mallory", "other"
		delete(claims, "iss")
		return nil
	}
	b.Follow("/auth/login")
	if got := b.Session(); got == nil || got.Claims["user_id"] == nil || got.Subject != "alice" ||
		got.Claim("sub") != "alice" || got.Claim("iss") == "" || got.SID == "other" {
		t.Errorf("the session is %+v", got)
	}
	rig.Must(t, endAll(s))
	say = func(map[string]any) error { return errors.New("the database knows no alice") }
	if p := b.Follow("/auth/login"); p.Status != 403 || strings.Contains(p.Body, "database") || b.Session() != nil {
		t.Errorf("%d %s", p.Status, p.Body)
	}
	if l := s.Log.Last("login"); l["check"] != "app" || l["error"] != "the database knows no alice" {
		t.Errorf("the log says %v", l)
	}
}

// The provider has given a refresh token by then. To revoke it may end its whole grant, which a session of the same
// sign-in stands on.
func TestWhatARefusedSignInBroughtIsHandedBackUnlessASessionOfThatSignInLives(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		before, require, say bool // a session of the browser's, and who refuses
		other                bool // it is of another sign-in at the provider
		away                 bool // whether there is one cannot be said
		handed               int
	}{
		"a claim is lacking":                             {require: true, handed: 1},
		"the app says no":                                {say: true, handed: 1},
		"nobody says no":                                 {},
		"over a session of the same sign-in":             {before: true, say: true},
		"over a session of another sign-in":              {before: true, other: true, require: true, handed: 1},
		"over a session that may be of the same sign-in": {before: true, away: true, say: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s *stage
			no, require := false, map[string][]any{}
			s = newStage(t, 1, func(h *login.Handler) {
				h.OnLogin = func(context.Context, map[string]any) error {
					if no && row.say {
						return errors.New("no")
					}
					return nil
				}
			}, func(p *oidc.Config) { p.Require = require })
			b := s.browser()
			if row.before {
				b.Follow("/auth/login")
			}
			if no = true; row.require {
				require["dept"] = []any{"it"}
			}
			if row.other {
				s.ops[0].Mangle(func(m *oidctest.Mangle) {
					m.IDToken = func(j *oidctest.JWT) { j.Claims["sid"] = "another" }
				})
			}
			to := b.begin("/auth/login")
			s.store.Away.Store(row.away)
			p := b.Get(to)
			s.store.Away.Store(false)
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.orphaned) != row.handed || row.handed == 1 && !s.ops[0].Alive(s.orphaned[0]) {
				t.Errorf("%d %s: handed back %d", p.Status, p.Body, len(s.orphaned))
			}
			if in := b.Session() != nil; in != (row.before || !row.require && !row.say) {
				t.Errorf("signed in: %t", in)
			}
		})
	}
}

func TestUserinfoCannotSpeakForTheIDToken(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	s.client(0, func(c *oidctest.Client) { c.NoSID = true })
	s.ops[0].Mangle(func(m *oidctest.Mangle) {
		m.Userinfo = func(claims map[string]any) {
			claims["sid"], claims["iss"], claims["acr"], claims["name"] = "forged", "https://evil.example", "high",
				"Alice Again"
		}
	})
	b := s.browser()
	b.Follow("/auth/login")
	if got := b.Session(); got.SID != "" || got.Claims["sid"] != nil || got.Claims["acr"] != nil ||
		got.Claim("iss") != s.ops[0].Issuer() || got.Claim("name") != "Alice Again" {
		t.Errorf("the session is %+v", got)
	}
}

func TestWhatOneProviderNeeds(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil, func(c *oidc.Config) {
		c.SkipUserinfo, c.Quirks.SIDFromTokenResponse, c.Scopes = true, true, []string{"openid", "offline_access"}
	})
	s.client(0, func(c *oidctest.Client) { c.NoSID = true })
	s.ops[0].Mangle(func(m *oidctest.Mangle) {
		m.Tokens = func(_ string, doc map[string]any) { doc["session_state"] = "state-as-sid" }
	})
	b := s.browser()
	b.Follow("/auth/login")
	if got := b.Session(); got.SID != "state-as-sid" || !got.Tokens.Offline || s.ops[0].Count(oidctest.Userinfo) != 0 {
		t.Errorf("sid %q, offline %v, userinfo asked %d times", got.SID, got.Tokens.Offline,
			s.ops[0].Count(oidctest.Userinfo))
	}
	s.client(0, func(*oidctest.Client) {})
	b = s.browser()
	if b.Follow("/auth/login"); b.Session().SID == "state-as-sid" {
		t.Error("the ID Token's own sid does not come first")
	}
}

func TestAProviderWithoutUserinfoIsFine(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	s.ops[0].Mangle(func(m *oidctest.Mangle) {
		m.Discovery = func(doc map[string]any) { delete(doc, "userinfo_endpoint") }
	})
	b := s.browser()
	if p := b.Follow("/auth/login"); b.Session() == nil {
		t.Errorf("%d %s", p.Status, p.Body)
	}
}

func TestClaimsThatBelongTogetherComeFromOneSource(t *testing.T) {
	t.Parallel()
	mallory := func(verified any) map[string]any {
		return map[string]any{"email": "mallory@free.example", "email_verified": verified}
	}
	for _, c := range []struct {
		why      string
		id, info map[string]any
		demand   bool // that an address is verified
		email    string
	}{
		{"another address in userinfo", mallory(true), map[string]any{"email": "boss@corp.example"}, false,
			"boss@corp.example"},
		{"another address in userinfo, of which nobody says that it is verified", mallory(true),
			map[string]any{"email": "boss@corp.example"}, true, ""},
		{"another address in userinfo, which is not verified", mallory(true),
			map[string]any{"email": "boss@corp.example", "email_verified": false}, false, ""},
		{"another address in userinfo, which is", mallory(false),
			map[string]any{"email": "boss@corp.example", "email_verified": true}, true, "boss@corp.example"},
		{"userinfo says verified, and not what", mallory(false), map[string]any{"email_verified": true}, false, ""},
		{"userinfo says verified, and of null", mallory(false), map[string]any{"email": nil, "email_verified": true},
			false, ""},
		{"the same address again, without a word", mallory(false), map[string]any{"email": "Mallory@Free.example"},
			false, ""},
		{"the same address again", mallory(true), map[string]any{"email": "mallory@free.example",
			"email_verified": nil}, true, "mallory@free.example"},
		{"demanded, and said as a text", mallory("true"), nil, true, "mallory@free.example"},
		{"demanded, and not said", mallory(nil), nil, true, ""},
		{"demanded, and 1", mallory(1), nil, true, ""},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, 1, nil, func(p *oidc.Config) { p.RequireVerifiedEmail = c.demand })
			s.ops[0].Mangle(func(m *oidctest.Mangle) {
				m.IDToken = func(j *oidctest.JWT) { maps.Copy(j.Claims, c.id) }
				m.Userinfo = func(claims map[string]any) {
					delete(claims, "email")
					delete(claims, "email_verified")
					maps.Copy(claims, c.info)
				}
			})
			b := s.browser()
			b.Follow("/auth/login")
			if got := b.Session(); got == nil || got.Email() != c.email {
				t.Errorf("known by %q, want %q", got.Email(), c.email)
			}
		})
	}
}

func TestAnAddressThatTheAppPutsInPlaceIsNotVerifiedByWhatWasSaidOfTheOldOne(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why    string
		hook   func(claims map[string]any)
		demand bool
		email  string
	}{
		{"another address", func(c map[string]any) { c["email"] = "a@corp.example" }, false, "a@corp.example"},
		{"another address, where true is demanded", func(c map[string]any) { c["email"] = "a@corp.example" }, true, ""},
		{"another address, and that it is verified", func(c map[string]any) {
			c["email"], c["email_verified"] = "a@corp.example", "true"
		}, true, "a@corp.example"},
	} {
		s := newStage(t, 1, func(h *login.Handler) {
			h.OnLogin = func(_ context.Context, claims map[string]any) error { c.hook(claims); return nil }
		}, func(p *oidc.Config) { p.RequireVerifiedEmail = c.demand })
		s.ops[0].Mangle(func(m *oidctest.Mangle) {
			m.Userinfo = func(claims map[string]any) {
				claims["email"], claims["email_verified"] = "old@free.example",
					true
			}
		})
		b := s.browser()
		b.Follow("/auth/login")
		if got := b.Session(); got == nil || got.Email() != c.email {
			t.Errorf("%s: known by %q, want %q", c.why, got.Email(), c.email)
		}
	}
}

// A provider need not know select_account (Core §15.1 names login among what it must): one may say so in its metadata,
// answer it with an error, or pass over it and let the same person through once more.
func TestWhoIsRefusedGetsToAnotherAccountAtAnyProvider(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		offers  any
		answers string // to select_account; "": it passes over it
		clicks  int    // on "Use another account" until the provider is asked to sign in anew
		again   int    // logins that were begun anew for want of select_account
	}{
		// and passes over it all the same
		"it offers select_account":               {[]any{"none", "login", "select_account"}, "", 2, 0},
		"it offers login alone":                  {[]any{"none", "login"}, "", 1, 0},
		"it offers neither":                      {[]any{"none"}, "", 1, 0},
		"it does not say, and passes over it":    {nil, "", 2, 0},
		"it offers nothing, and passes over it":  {[]any{}, "", 2, 0},
		"it offers what is no text":              {"select_account", "", 2, 0},
		"it answers invalid_request":             {nil, "invalid_request", 1, 1},
		"it answers account_selection_required":  {nil, "account_selection_required", 1, 1},
		"it answers interaction_required":        {nil, "interaction_required", 1, 1},
		"it offers select_account, and has none": {[]any{"select_account"}, "invalid_request", 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, 1, nil, func(p *oidc.Config) { p.Require = map[string][]any{"sub": {"bob"}} })
			var last atomic.Value // the prompt that the provider was asked
			s.ops[0].Mangle(func(m *oidctest.Mangle) {
				m.Discovery = func(d map[string]any) { d["prompt_values_supported"] = row.offers }
				m.Authorize = func(q url.Values) string {
					last.Store(q.Get("prompt"))
					if strings.Contains(q.Get("prompt"), "select_account") {
						return row.answers
					}
					return ""
				}
			})
			b := s.browser()
			p := b.Follow("/auth/login?return_to=/a%25")
			for click := 1; ; click++ {
				link := regexp.MustCompile(`<a href="([^"]*)">Use another account`).FindStringSubmatch(p.Body)
				if p.Status != 403 || link == nil || click > row.clicks {
					t.Fatalf("click %d: %d %s", click, p.Status, p.Body)
				}
				p = b.Follow(html.UnescapeString(link[1]))
				if last.Load() == "login" {
					if click != row.clicks {
						t.Errorf("login was asked after %d clicks, want %d", click, row.clicks)
					}
					break
				}
			}
			if n := strings.Count(s.Log.String(), `"result":"again"`); n != row.again {
				t.Errorf("%d logins were begun anew, want %d", n, row.again)
			}
		})
	}
}

func TestAnErrorIsTakenForAWantOfSelectAccountOnlyWhereThatWasAsked(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		prompt, code string
		again        string // what is asked then; "": the error is shown
	}{
		{"select_account", "invalid_request", "login"},
		{"consent select_account", "invalid_request", "consent login"},
		{"login select_account", "invalid_request", "login"},
		{"login", "invalid_request", ""},
		{"", "invalid_request", ""},
		{"select_account", "access_denied", ""},
		{"select_account", "temporarily_unavailable", ""},
		{"select_account", "invalid_scope", ""},
	} {
		s := newStage(t, 1, nil)
		var asked []string
		s.ops[0].Mangle(func(m *oidctest.Mangle) {
			m.Discovery = func(d map[string]any) { delete(d, "prompt_values_supported") }
			m.Authorize = func(q url.Values) string { asked = append(asked, q.Get("prompt")); return row.code }
		})
		p := s.browser().Follow("/auth/login?return_to=/a&prompt=" + url.QueryEscape(row.prompt))
		want := []string{row.prompt}
		if row.again != "" {
			want = append(want, row.again)
		}
		if !slices.Equal(asked, want) || p.Status < 400 || !strings.Contains(p.Body, "return_to=%2Fa") {
			t.Errorf("%q answered %s: asked %q, want %q; then %d %s", row.prompt, row.code, asked, want, p.Status,
				p.Body)
		}
	}
}

// A parameter that is there and empty says no more than one that is not there.
func TestAParameterThatIsEmptyIsAbsent(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	if p := s.browser().Follow("/auth/login?provider=&iss=&login_hint=&prompt=&silent=&return_to="); p.Status != 200 ||
		p.Body != "the app at /" {
		t.Errorf("a login: %d %s", p.Status, p.Body)
	}
	for _, row := range []struct {
		name   string
		change func(url.Values)
		check  string // "": signed in
	}{
		{"an empty error beside a code", func(q url.Values) { q.Set("error", ""); q.Set("error_description", "") }, ""},
		{"an empty code", func(q url.Values) { q.Set("code", "") }, "code"},
		{"an empty code and an empty error", func(q url.Values) { q.Set("code", ""); q.Set("error", "") }, "code"},
		{"an empty iss, where one is promised (RFC 9207)", func(q url.Values) { q.Set("iss", "") }, "iss"},
		{"an empty state", func(q url.Values) { q.Set("state", "") }, "state"},
		{"an empty state and an empty code", func(q url.Values) { q.Set("state", ""); q.Set("code", "") }, "state"},
	} {
		b := s.browser()
		u, err := url.Parse(b.begin("/auth/login?return_to=/a"))
		rig.Must(t, err)
		q := u.Query()
		row.change(q)
		u.RawQuery = q.Encode()
		p := b.Get(u.String())
		if in := b.Session() != nil; in != (row.check == "") || !in &&
			(p.Status != 400 || s.Log.Last("login")["check"] != row.check) {
			t.Errorf("%s: %d %s, and the log says %v", row.name, p.Status, p.Body, s.Log.Last("login"))
		}
	}
}

func TestWhomTheAppRefusesIsOfferedAnotherAccount(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		err    error
		status int
		says   []string
		not    string
		result string
	}{
		"an error": {errors.New("the database knows no alice"), 403,
			[]string{"did not let you in", "Use another account", "Sign out at "}, "database", "refused"},
		"web.Fail": {web.Fail(403, "You have left us.", errors.New("gone")), 403,
			[]string{"You have left us.", "Use another account", "Sign out at "}, "gone", "refused"},
		"web.Fail 400": {fmt.Errorf("wrapped: %w", web.Fail(400, "No.", nil)), 400,
			[]string{"No.", "Use another account"}, "wrapped", "refused"},
		"web.Fail 503": {web.Fail(503, "Not now.", nil), 503, []string{"Not now.", "Sign in again", "return_to=%2Fa"},
			"another account", "unavailable"},
		"its own links": {&web.Failure{Status: 403, Message: web.Message{Text: "No.",
			Actions: []web.Action{{Label: "Ask for access", Href: "/ask"}}}}, 403, []string{"Ask for access"},
			"another account", "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, 1, func(h *login.Handler) {
				h.OnLogin = func(context.Context, map[string]any) error { return row.err }
			})
			p := s.browser().Follow("/auth/login?return_to=/a")
			for _, want := range row.says {
				if !strings.Contains(p.Body, want) {
					t.Errorf("no %q in %s", want, p.Body)
				}
			}
			l := s.Log.Last("login")
			if p.Status != row.status || strings.Contains(p.Body, row.not) || l["result"] != row.result ||
				l["check"] != "app" || l["sub"] != "alice" || l["provider"] != "main" {
				t.Errorf("%d %s, and the log says %v", p.Status, p.Body, l)
			}
		})
	}
}
