package e2e_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// each runs a test with every proxy.
func each(t *testing.T, test func(t *testing.T, f *front)) {
	t.Parallel()
	for _, f := range fronts(t) {
		t.Run(f.kind.name, func(t *testing.T) {
			t.Parallel()
			f.run(t)
			test(t, f)
		})
	}
}

// asked returns what is wrong if a page is not answered by being sent to sign in and back to the same page.
func asked(p *page, returnTo string) string {
	ok := (p.status == http.StatusFound || p.status == http.StatusSeeOther) && p.location.Path == "/auth/login" &&
		p.location.Query().Get("return_to") == returnTo
	return unless(ok, "should be sent to sign in and back to %s: %v", returnTo, p)
}

func TestBehindAProxyPeopleSignInAndOutAsWithoutOne(t *testing.T) {
	each(t, func(t *testing.T, f *front) {
		alice, second, bob := newBrowser("alice's browser"), newBrowser("alice's second browser"),
			newBrowser("bob's browser")

		// A page asks to sign in, and the deep link is kept, its query too.
		deep := "/private/a%20b?page=1&q=x%26y"
		if wrong := asked(alice.get(t, f.url+deep), deep); wrong != "" {
			t.Error(wrong)
		}
		if p, _ := alice.open(t, f.url+deep, "alice"); p.status != http.StatusOK || p.url.RequestURI() != deep {
			t.Fatalf("alice signs in, and should be on the page that she wanted: %v", p)
		}
		told := alice.signIn(t, f.gateway, "alice")
		for name, want := range map[string]string{
			"X-Auth-Subject": "alice", "X-Auth-Name": "alice of the tests", "X-Auth-Email": "alice@example.test",
			"X-Auth-Provider": "main",
			"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http",
			"X-Forwarded-Host": strings.TrimPrefix(f.url, "http://"),
		} {
			if got := told.Header.Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("the app was told %s %q, want %q", name, got, want)
			}
		}
		if got := verified(t, f, told.Header["X-Auth-Assertion"]); got.Subject != "alice" ||
			got.Email != "alice@example.test" || got.Session != told.Header.Get("X-Auth-Session") || got.Session == "" {
			t.Errorf("the app was told %+v, signed", got)
		}
		second.signIn(t, f.gateway, "alice")
		bob.signIn(t, f.gateway, "bob")

		// Streams are open.
		hello, socketEnd := alice.socket(t, f.url)
		if hello != "hello alice" {
			t.Fatalf("alice opens a WebSocket: %s", hello)
		}
		hello, streamEnd := alice.stream(t, f.url)
		if hello != "hello alice" {
			t.Fatalf("alice opens an event stream: %s", hello)
		}
		hello, bobsEnd := bob.socket(t, f.url)
		if hello != "hello bob" {
			t.Fatalf("bob opens a WebSocket: %s", hello)
		}
		tab := alice.listen(t, f.gateway)

		// The provider says that alice is out, through the proxy.
		from := f.provider.said()
		alice.signOutAt(t, f.provider)
		f.provider.loggedOut(t, from, "backchannel.success", f.gateway)
		if wrong := asked(alice.get(t, f.url+"/private"), "/private"); wrong != "" {
			t.Error(wrong)
		}
		if got := tab(); got != "ended" {
			t.Errorf("the open tab was told %q, want that its session has ended", got)
		}
		if got := socketEnd(); got != "close 1008" {
			t.Errorf("the WebSocket ended with %q, want that it is closed with 1008", got)
		}
		if got := streamEnd(); got != "closed" {
			t.Errorf("the event stream is %s", got)
		}
		if status, _ := alice.socket(t, f.url); !strings.HasPrefix(status, "401") {
			t.Errorf("alice, signed out, opens a WebSocket: %s, want 401", status)
		}
		if status, _ := alice.stream(t, f.url); !strings.HasPrefix(status, "401") {
			t.Errorf("alice, signed out, opens an event stream: %s, want 401", status)
		}

		// Nobody else is.
		second.mustBeIn(t, f.gateway, "alice")
		bob.mustBeIn(t, f.gateway, "bob")
		bobs := make(chan string, 1)
		go func() { bobs <- bobsEnd() }()
		select {
		case got := <-bobs:
			t.Errorf("bob's WebSocket ended with %q", got)
		default:
		}
		sent := bob.post(t, f.url+"/auth/logout", url.Values{})
		if sent.status != http.StatusSeeOther || sent.location.Host != strings.TrimPrefix(f.provider.issuer,
			"http://") {
			t.Errorf("bob signs out here, and should be sent to the provider: %v", sent)
		}
		if got := <-bobs; got != "close 1008" {
			t.Errorf("bob's WebSocket ended with %q after he signed out, want that it is closed with 1008", got)
		}
	})
}

// assertion is what an app reads in one.
type assertion struct {
	jwt.Claims
	Session string `json:"sid"`
	Email   string `json:"email"`
}

// verified reads an assertion as the app would, with the keys that are published through the proxy.
func verified(t *testing.T, f *front, header []string) (a assertion) {
	t.Helper()
	if len(header) != 1 {
		t.Fatalf("the app was told %d assertions", len(header))
	}
	token, err := jwt.ParseSigned(header[0], []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatalf("%q: %v", header[0], err)
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(newBrowser("the app").get(t, f.url+"/auth/jwks.json").body), &keys); err != nil {
		t.Fatal(err)
	}
	if err := token.Claims(keys, &a); err != nil {
		t.Fatal(err)
	}
	if err := a.Validate(jwt.Expected{Issuer: f.url + "/auth", AnyAudience: jwt.Audience{"wiki"}}); err != nil {
		t.Error(err)
	}
	return a
}

func TestBehindAProxyOnlyAPageLeadsToTheSignIn(t *testing.T) {
	each(t, func(t *testing.T, f *front) {
		nobody := newBrowser("nobody's browser")
		for what, c := range map[string]struct {
			method string
			header []string
		}{
			"a form": {http.MethodPost,
				[]string{"Content-Type", "application/x-www-form-urlencoded"}},
			"a form that lies": {http.MethodPost,
				[]string{"X-Forwarded-Method", "GET", "X-Original-Method", "GET"}},
			"an upload":                {http.MethodPut, nil},
			"an API request":           {http.MethodGet, []string{"Accept", "application/json"}},
			"a script":                 {http.MethodGet, []string{"X-Requested-With", "XMLHttpRequest"}},
			"a script's fetch":         {http.MethodGet, []string{"Sec-Fetch-Mode", "cors"}},
			"a cookie that is made up": {http.MethodPost, []string{"Cookie", "curfew=made-up"}},
		} {
			p := nobody.request(t, c.method, f.url+"/private", nil, c.header...)
			if p.status != http.StatusUnauthorized || p.location != nil || len(p.header.Values("Set-Cookie")) > 0 {
				t.Errorf("%s should be answered 401: %v", what, p)
			}
		}
		for what, header := range map[string][]string{
			"where it says it comes from": {"X-Forwarded-Uri", "/evil", "X-Original-Uri", "/evil", "X-Original-Url",
				"http://evil.example/"},
			"which site it says it is": {"X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "gopher",
				"Forwarded", "host=evil.example"},
			"that it would rather be let in": {"X-Forwarded-Uri", "/auth/login", "X-Auth-Subject", "alice",
				"User-Agent", "GoogleHC/1.0"},
		} {
			p := nobody.get(t, f.url+"/private?x=1", header...)
			if wrong := asked(p, "/private?x=1"); wrong != "" {
				t.Errorf("a request is believed %s: %s", what, wrong)
			}
			if p.location == nil || "http://"+p.location.Host != f.url { // Location was made absolute
				t.Errorf("a request is believed %s: %v", what, p)
			}
		}
		if p := nobody.get(t, f.url+"/auth/verify"); p.status == http.StatusOK {
			t.Errorf("what is for the proxy is open to everybody: %v", p)
		}
		// Who is signed in gets to see no answer that is for the proxy: it would show him the assertion that is for the
		// app.
		alice := newBrowser("alice's browser")
		alice.signIn(t, f.gateway, "alice")
		for _, path := range []string{"/auth/verify", "/auth/verify/", "/auth/verify/x", "/auth/verif%79",
			"/auth/verif%79/x", "/auth//verify"} {
			for _, accept := range []string{"*/*", "text/event-stream"} {
				if p := alice.request(t, http.MethodGet, f.url+path, nil, "Accept",
					accept); len(p.header.Values("X-Auth-Assertion"))+len(p.header.Values("X-Auth-Subject")) > 0 {
					t.Errorf("%s for %s shows what is for the proxy: %v", path, accept, p)
				}
			}
		}
	})
}

// Every advisory about an identity that a client smuggled past a proxy (CVE-2025-64484 and its kin) is one of these.
func TestBehindAProxyNothingThatAClientMadeUpReachesTheApp(t *testing.T) {
	each(t, func(t *testing.T, f *front) {
		bob := newBrowser("bob's browser")
		bob.signIn(t, f.gateway, "bob")
		u, err := url.Parse(f.url)
		if err != nil {
			t.Fatal(err)
		}
		for what, lies := range map[string][]string{
			"the names themselves": {"X-Auth-Subject", "mallory", "X-Auth-Email", "mallory@example.test",
				"X-Auth-Name", "mallory"},
			"another case":               {"x-auth-subject", "mallory", "X-AUTH-SUBJECT", "mallory"},
			"names that Curfew left out": {"X-Auth-Groups", "mallory", "X-Auth-Session", "mallory"},
			"a signed word": {"X-Auth-Assertion", "mallory", "x_auth_assertion", "mallory",
				"X.Auth-Assertion", "mallory"},
			"underscores": {"X_Auth_Subject", "mallory", "X-Auth_Subject", "mallory", "x_auth_groups",
				"mallory"},
			"dots":                   {"X.Auth.Subject", "mallory", "X.Auth-Groups", "mallory"},
			"hop by hop":             {"Connection", "X-Auth-Subject, x-auth-email, X-Auth-Name, X-Forwarded-For"},
			"hop by hop, lower case": {"connection", "x-auth-subject", "X-Auth-Subject", "mallory"},
			"where it comes from": {"X-Forwarded-For", "6.6.6.6", "X-Real-Ip", "6.6.6.6", "Forwarded",
				"for=6.6.6.6"},
			"where it goes": {"X-Forwarded-Uri", "/mallory", "X-Forwarded-Method", "MALLORY",
				"X-Forwarded-Host", "mallory.example", "X-Forwarded-Prefix", "/mallory", "X-Forwarded-Port", "666"},
			"a user of another proxy's": {"X-Forwarded-User", "mallory", "X_Forwarded_User", "mallory",
				"X-Forwarded-Email", "mallory@example.test"},
		} {
			r, err := http.NewRequest(http.MethodGet, f.url+"/private", nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(lies); i += 2 {
				r.Header[lies[i]] = append(r.Header[lies[i]], lies[i+1]) // as spelled
			}
			// A cookie of the app's own on either side of ours.
			r.Header.Set("Cookie", "theme=dark")
			for _, c := range bob.client.Jar.Cookies(u) {
				if strings.HasPrefix(c.Name, "curfew") {
					r.AddCookie(c)
				}
			}
			// Those of other instances on this host too, which it is not to see either.
			r.Header.Set("Cookie", r.Header.Get("Cookie")+
				"; curfew-1-login-aa=x; lang=en; curfew=y; zone=; __Host-curfew=z; __Secure-curfew=z; curfewish=1")
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			var got seen
			err = json.NewDecoder(resp.Body).Decode(&got)
			resp.Body.Close()
			if strings.HasPrefix(what, "hop by hop") && resp.StatusCode == http.StatusBadRequest {
				continue // Envoy does not put up with it
			}
			if resp.StatusCode != http.StatusOK || err != nil {
				t.Errorf("%s: %s, %v", what, resp.Status, err)
				continue
			}
			if is := got.Header.Values("X-Auth-Subject"); len(is) != 1 || is[0] != "bob" {
				t.Errorf("%s: the app was told that it is %q, want bob", what, is)
			}
			for name, values := range got.Header {
				for _, v := range values {
					if l := strings.ToLower(v); strings.Contains(l, "mallory") || strings.Contains(l, "6.6.6.6") ||
						v == "666" {
						t.Errorf("%s: the app was told %s: %s", what, name, v)
					}
				}
			}
			if is := got.Header.Values("Cookie"); !f.kind.leaks &&
				(len(is) != 1 || is[0] != "theme=dark; lang=en; zone=; curfewish=1") {
				t.Errorf("%s: the app was told the cookies %q, want its own alone", what, is)
			}
		}
	})
}

func TestBehindAProxyNobodyGetsInOrOutWhileTheGatewayIsAway(t *testing.T) {
	each(t, func(t *testing.T, f *front) {
		bob := newBrowser("bob's browser")
		bob.signIn(t, f.gateway, "bob")
		f.kill()
		var asking sync.WaitGroup // all at once: HAProxy tries to connect for 3 s
		for _, b := range []*browser{bob, newBrowser("nobody's browser")} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				asking.Go(func() {
					p, err := b.try(method, f.url+"/private", nil)
					if err != nil || p.status < 500 || len(p.header.Values("Set-Cookie")) > 0 {
						t.Errorf("%s sends a %s while the gateway is away, and should be told that it cannot be "+
							"said: %v, %v", b.name, method, p, err)
					}
				})
			}
		}
		asking.Wait()
		f.start(t)
		eventually(t, "bob is in again", func() string { return bob.isIn(f.gateway, "bob") })
	})
}
