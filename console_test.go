package curfew_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/audit"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// withConsole returns an app with a console for the group ops. groups says what groups the provider gives to whom.
func withConsole(t *testing.T, groups map[string]any, change ...func(*curfew.Config)) *app {
	t.Helper()
	a := newApp(t, append([]func(*curfew.Config){func(c *curfew.Config) {
		c.Console.Require = map[string][]any{"groups": {"ops"}}
	}}, change...)...)
	a.op.Mangle(func(m *oidctest.Mangle) {
		m.IDToken = func(j *oidctest.JWT) {
			if g, ok := groups[j.Claims["sub"].(string)]; ok {
				j.Claims["groups"] = g
			}
		}
	})
	return a
}

// as signs in.
func (a *app) as(sub string) browser {
	a.t.Helper()
	b := newBrowser(a.t)
	b.open(a.server.URL + "/auth/login?login_hint=" + sub)
	if status, text := b.api(a.server.URL + "/"); status != http.StatusOK || text != sub {
		a.t.Fatalf("%s did not get in: %d %s", sub, status, text)
	}
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b
}

// opened are the headers of a browser in which a person opens a page.
func opened() []string {
	return []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document",
		"Accept", "text/html"}
}

// sent are those of a form of the same origin.
func sent() []string {
	return []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document",
		"Accept", "text/html"}
}

func (b browser) send(method, to string, form url.Values, header ...string) (*http.Response, string) {
	b.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequest(method, to, body)
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := b.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp, string(text)
}

var formToken = regexp.MustCompile(`name="token" value="([A-Za-z0-9_-]+)"`)

// token returns the token in the forms of a page of the console.
func (b browser) token(a *app) string {
	b.t.Helper()
	resp, text := b.send(http.MethodGet, a.server.URL+"/auth/console/providers", nil, opened()...)
	m := formToken.FindStringSubmatch(text)
	if resp.StatusCode != http.StatusOK || m == nil {
		b.t.Fatalf("the page of the providers: %s %s", resp.Status, text)
	}
	return m[1]
}

func TestTheConsoleIsForOperatorsAndNobodyElseLearnsOfIt(t *testing.T) {
	t.Parallel()
	a := withConsole(t, map[string]any{"olga": []any{"staff", "ops"}, "omar": "ops", "eve": []any{"Ops", "ops2", "opsx"},
		"mallory": map[string]any{"ops": true}, "nil": nil})
	paths := []string{"", "/", "/sessions", "/events", "/events/rows", "/notices", "/providers", "/person?sub=alice",
		"/console.css", "/nothing"}
	nothing := regexp.MustCompile(`[A-Z0-9]{26}`)
	for _, who := range []string{"olga", "omar"} {
		b := a.as(who)
		resp, text := b.send(http.MethodGet, a.server.URL+"/auth/console/", nil, opened()...)
		if resp.StatusCode != http.StatusOK || !strings.Contains(text, "Overview") {
			t.Errorf("%s: %s %s", who, resp.Status, text)
		}
		if resp, _ = b.send(http.MethodGet, a.server.URL+"/auth/console", nil, opened()...); resp.Header.Get("Location") !=
			"/auth/console/" {
			t.Errorf("without a slash: %s %q", resp.Status, resp.Header.Get("Location"))
		}
		resp, text = b.send(http.MethodGet, a.server.URL+"/auth/console/nothing", nil, opened()...)
		if resp.StatusCode != http.StatusNotFound || !strings.Contains(text, "Curfew console") {
			t.Errorf("a page that does not exist: %s %s", resp.Status, text)
		}
	}
	for _, who := range []string{"alice", "eve", "mallory", "nil"} {
		b := a.as(who)
		want, wantText := b.send(http.MethodGet, a.server.URL+"/auth/nothing", nil, opened()...)
		for _, path := range paths {
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut} {
				resp, text := b.send(method, a.server.URL+"/auth/console"+path, nil, opened()...)
				if resp.StatusCode != http.StatusNotFound {
					t.Errorf("%s %s as %s: %s", method, path, who, resp.Status)
				}
				if method == http.MethodGet && nothing.ReplaceAllString(text, "") != nothing.ReplaceAllString(wantText, "") {
					t.Errorf("%s as %s differs from an address without anything:\n%s", path, who, text)
				}
				for name := range resp.Header {
					if name != "Content-Length" && len(resp.Header[name]) != len(want.Header[name]) && method == http.MethodGet {
						t.Errorf("%s as %s: the header %s is %q, and %q elsewhere", path, who, name, resp.Header[name],
							want.Header[name])
					}
				}
			}
		}
	}
	// Nobody: a page leads to the sign-in and back, everything else is 401.
	b := newBrowser(t)
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, _ := b.send(http.MethodGet, a.server.URL+"/auth/console/person?sub=x", nil, opened()...)
	to, err := resp.Location()
	if err != nil || to.Path != "/auth/login" || to.Query().Get("return_to") != "/auth/console/person?sub=x" ||
		to.Query().Get("provider") != "main" {
		t.Errorf("a page without a session: %s, to %v", resp.Status, to)
	}
	for _, row := range [][2]string{{http.MethodPost, "/person/end"}, {http.MethodGet, "/events/rows"}} {
		if resp, _ := b.send(row[0], a.server.URL+"/auth/console"+row[1], nil, "Sec-Fetch-Mode", "cors",
			"Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin"); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a session: %s", row[1], resp.Status)
		}
	}
	a.happened("a refusal of alice", func(e audit.Event) bool {
		return e.Type == audit.Operator && e.Result == audit.Refused && e.Action == "open_console" && e.Actor == "alice" &&
			e.ActorProvider == "main" && e.Check == "claims: groups" && e.Address == "127.0.0.1"
	})
}

// happened waits for an event.
func (a *app) happened(what string, match func(audit.Event) bool) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	if err := a.rp.Audit().Flush(ctx); err != nil {
		a.t.Fatal(err)
	}
	page, err := a.rp.Audit().Events(ctx, audit.Query{Limit: 1000, Match: func(e *audit.Event) bool { return match(*e) }})
	if err != nil || len(page.Events) == 0 {
		a.t.Errorf("no event says %s: %v", what, err)
	}
}

// Without the setting there is no console at the public URL, whatever claims somebody has.
func TestTheConsoleIsOffByDefault(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	b := a.as("alice")
	for _, path := range []string{"/auth/console", "/auth/console/", "/auth/console/console.js"} {
		if resp, _ := b.send(http.MethodGet, a.server.URL+path, nil, opened()...); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
		if resp, _ := newBrowser(t).send(http.MethodGet, a.server.URL+path, nil,
			opened()...); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s without a session: %s", path, resp.Status)
		}
	}
}

// Another page of the same origin, which runs in the operator's browser, neither reads the console nor acts by it, nor
// does a page of another site, nor one that has a token of another session.
func TestOnlyTheConsoleItselfActsForAnOperator(t *testing.T) {
	t.Parallel()
	a := withConsole(t, map[string]any{"olga": "ops", "omar": "ops"})
	alice, olga, omar := a.as("alice"), a.as("olga"), a.as("omar")
	own, foreign := olga.token(a), omar.token(a)
	at := a.server.URL + "/auth/console"
	act := url.Values{"sub": {"alice"}, "provider": {"main"}}
	with := func(token string) url.Values {
		v := url.Values{"sub": act["sub"], "provider": act["provider"]}
		if token != "" {
			v.Set("token", token)
		}
		return v
	}
	set := func(header []string, name, value string) []string {
		out := append([]string{}, header...)
		for i := 0; i < len(out); i += 2 {
			if out[i] == name {
				out[i+1] = value
			}
		}
		return out
	}
	for _, row := range []struct {
		why    string
		token  string
		header []string
		say    string
	}{
		{"no token", "", sent(), "nothing was done"},
		{"a token of another operator", foreign, sent(), "nothing was done"},
		{"a token that was changed", rig.Changed(own), sent(), "nothing was done"},
		{"no token at all", "x", sent(), "nothing was done"},
		{"another site", own, set(sent(), "Sec-Fetch-Site", "cross-site"), "not come from a page of the console"},
		{"another host of the site", own, set(sent(), "Sec-Fetch-Site", "same-site"), "not come from a page of the console"},
		{"typed by hand", own, set(sent(), "Sec-Fetch-Site", "none"), "not come from a page of the console"},
		{"a script", own, set(set(sent(), "Sec-Fetch-Mode", "cors"), "Sec-Fetch-Dest", "empty"),
			"not come from a page of the console"},
		{"a form in a frame", own, set(sent(), "Sec-Fetch-Dest", "iframe"), "not come from a page of the console"},
		{"no Fetch Metadata", own, nil, "does not say for what it asks"},
		{"Origin of another site", own, []string{"Origin", "https://evil.example"}, "does not say for what it asks"},
	} {
		for _, path := range []string{"/person/end", "/providers/main/end", "/notices/1/drop", "/notices/1/retry"} {
			resp, text := olga.send(http.MethodPost, at+path, with(row.token), row.header...)
			// Without this header the claims are judged, and nothing else.
			if resp.StatusCode != http.StatusForbidden || !strings.Contains(text, row.say) {
				t.Errorf("%s at %s: %s, want 403 and %q:\n%s", row.why, path, resp.Status, row.say, text)
			}
		}
	}
	if !alice.signedIn(a) {
		t.Fatal("a refused form ended a session")
	}
	// Reading: in a window of its own alone.
	for _, row := range [][3]string{{"navigate", "iframe", "same-origin"}, {"navigate", "frame", "same-origin"},
		{"navigate", "embed", "same-origin"}, {"navigate", "object", "same-origin"}, {"cors", "empty", "same-origin"},
		{"same-origin", "empty", "same-origin"}, {"no-cors", "image", "same-origin"}, {"no-cors", "document", "cross-site"},
		{"cors", "empty", "cross-site"}, {"", "", ""}} {
		for _, path := range []string{"/", "/person?sub=alice", "/events/rows?after=0", "/providers"} {
			resp, text := olga.send(http.MethodGet, at+path, nil, "Sec-Fetch-Mode", row[0], "Sec-Fetch-Dest", row[1],
				"Sec-Fetch-Site", row[2])
			if resp.StatusCode != http.StatusForbidden || strings.Contains(text, "alice") {
				t.Errorf("%s with %q: %s %s", path, row, resp.Status, text)
			}
			csp := resp.Header.Get("Content-Security-Policy")
			if !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") ||
				resp.Header.Get("X-Frame-Options") != "DENY" ||
				resp.Header.Get("Cross-Origin-Opener-Policy") != "same-origin" ||
				resp.Header.Get("Cross-Origin-Resource-Policy") != "same-origin" ||
				resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %v", path, resp.Header)
			}
		}
	}
	// What is for programs, on the private listener, is not here at all.
	for _, path := range []string{"/api/sessions", "/metrics", "/readyz", "/healthz", "/api/keys"} {
		if resp, _ := olga.send(http.MethodGet, at+path, nil, opened()...); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	// The stream of events, by the script of the page, for the own session.
	script := []string{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin"}
	for token, want := range map[string]int{own: 200, foreign: 403, "": 403} {
		if resp, _ := olga.send(http.MethodGet, at+"/events/rows", nil, append(script, "Curfew-Token",
			token)...); resp.StatusCode != want {
			t.Errorf("events with the token %q: %s, want %d", token, resp.Status, want)
		}
	}
	// And now as it should be, by a link from elsewhere to begin with.
	if resp, _ := olga.send(http.MethodGet, at+"/person?sub=alice", nil, set(opened(), "Sec-Fetch-Site",
		"cross-site")...); resp.StatusCode != http.StatusOK {
		t.Errorf("by a link: %s", resp.Status)
	}
	resp, text := olga.send(http.MethodPost, at+"/person/end", with(own), sent()...)
	if want := "/auth/console/person?provider=main&sub=alice&ended=1"; resp.StatusCode != http.StatusSeeOther ||
		resp.Header.Get("Location") != want {
		t.Errorf("the form: %s, to %q, want %q\n%s", resp.Status, resp.Header.Get("Location"), want, text)
	}
	if alice.signedIn(a) {
		t.Error("the session did not end")
	}
	a.happened("who did it", func(e audit.Event) bool {
		return e.Type == audit.Operator && e.Action == "end_sessions" && e.Subject == "alice" && e.Actor == "olga" &&
			e.ActorProvider == "main" && e.ActorSession != "" && e.Address == "127.0.0.1"
	})
}

// The claim is judged at each request: who loses it, or the session, is out at once, also with a page still open.
func TestAnOperatorIsJudgedAtEachRequest(t *testing.T) {
	t.Parallel()
	groups := map[string]any{"olga": "ops", "omar": "ops"}
	a := withConsole(t, groups)
	olga, omar := a.as("olga"), a.as("omar")
	token := olga.token(a)
	at := a.server.URL + "/auth/console"
	script := []string{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin",
		"Curfew-Token", token}
	if resp, _ := olga.send(http.MethodGet, at+"/events/rows", nil, script...); resp.StatusCode != http.StatusOK {
		t.Fatalf("events: %s", resp.Status)
	}
	a.op.Mangle(func(m *oidctest.Mangle) { m.IDToken = nil })               // nobody is in ops any more,
	a.skew.Store(int64(5*time.Minute + 30*time.Second))                     // which the next refresh shows
	resp, _ := olga.send(http.MethodGet, at+"/events/rows", nil, script...) // a script does not cause one
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("events, with claims that are due: %s, want 401", resp.Status)
	}
	if resp, _ := olga.send(http.MethodGet, at+"/", nil, opened()...); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a page without the claim: %s, want 404", resp.Status)
	}
	if resp, _ := olga.send(http.MethodPost, at+"/person/end", url.Values{"sub": {"omar"}, "provider": {"main"},
		"token": {token}}, sent()...); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a form without the claim: %s, want 404", resp.Status)
	}
	if status, _ := omar.api(a.server.URL + "/"); status != http.StatusOK {
		t.Error("it was done all the same")
	}
	if _, err := a.rp.Sessions().End(t.Context(), store.Ending{Cause: store.CauseAdmin, Selector: store.Selector{
		Issuer: a.op.Issuer(), ClientID: "app", Subject: "olga"}}); err != nil {
		t.Fatal(err)
	}
	if resp, _ := olga.send(http.MethodGet, at+"/", nil, opened()...); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("a page after the end of the session: %s, want a sign-in", resp.Status)
	}
}

// A session that somebody else began, planted in an operator's browser, is theirs: it has their claims, and the forms
// of the operator's own pages do nothing with it. A new sign-in has a new session, with other tokens.
func TestNobodyFixesTheSessionOfAnOperator(t *testing.T) {
	t.Parallel()
	a := withConsole(t, map[string]any{"olga": "ops", "omar": "ops"})
	olga, omar, mallory := a.as("olga"), a.as("omar"), a.as("mallory")
	token := olga.token(a)
	at, _ := url.Parse(a.server.URL)
	cookies := olga.Jar.Cookies(at)
	end := url.Values{"sub": {"mallory"}, "provider": {"main"}, "token": {token}}
	for who, planted := range map[string]browser{"mallory": mallory, "omar": omar} {
		olga.Jar.SetCookies(at, planted.Jar.Cookies(at))
		resp, _ := olga.send(http.MethodPost, a.server.URL+"/auth/console/person/end", end, sent()...)
		if want := map[string]int{"mallory": 404, "omar": 403}[who]; resp.StatusCode != want {
			t.Errorf("with the session of %s: %s, want %d", who, resp.Status, want)
		}
	}
	olga.Jar.SetCookies(at, cookies)
	again := a.as("olga")
	if resp, _ := again.send(http.MethodPost, a.server.URL+"/auth/console/person/end", end,
		sent()...); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a token from before the sign-in: %s, want 403", resp.Status)
	}
	if status, _ := mallory.api(a.server.URL + "/"); status != http.StatusOK {
		t.Error("a session ended")
	}
}

// With several providers it is said which one makes operators; the claims of another do not.
func TestTheConsoleTrustsOneProvider(t *testing.T) {
	t.Parallel()
	other := oidctest.Start(t, oidctest.Config{AutoLogin: "eve", Users: people()})
	a := withConsole(t, map[string]any{"olga": "ops"}, func(c *curfew.Config) {
		other.SetClient(oidctest.Client{ID: "app", Secret: "secret", RedirectURIs: []string{c.URL + "/auth/callback",
			c.URL + "/auth/callback/other"}})
		c.Providers[0].Name = "main"
		c.Providers = append(c.Providers, oidc.Config{Name: "other", Issuer: other.Issuer(), ClientID: "app",
			ClientSecret: "secret"})
		c.Console.Provider = "main"
	})
	other.Mangle(func(m *oidctest.Mangle) {
		m.IDToken = func(j *oidctest.JWT) { j.Claims["groups"] = "ops" }
	})
	for provider, want := range map[string]int{"main": http.StatusOK, "other": http.StatusNotFound} {
		b := newBrowser(t)
		b.open(a.server.URL + "/auth/login?login_hint=olga&provider=" + provider)
		if _, text := b.api(a.server.URL + "/"); text != "olga" {
			t.Fatalf("olga of %s did not get in: %s", provider, text)
		}
		if resp, _ := b.send(http.MethodGet, a.server.URL+"/auth/console/", nil, opened()...); resp.StatusCode != want {
			t.Errorf("olga of %s: %s, want %d", provider, resp.Status, want)
		}
	}
}

func TestAConsoleForNobodyIsAFault(t *testing.T) {
	t.Parallel()
	two := []oidc.Config{{Name: "a", Issuer: "https://a.example", ClientID: "app", ClientSecret: "s"},
		{Name: "b", Issuer: "https://b.example", ClientID: "app", ClientSecret: "s"}}
	ops := map[string][]any{"groups": {"ops"}}
	for want, row := range map[string]struct {
		access    curfew.ConsoleAccess
		providers []oidc.Config
	}{
		"say at which provider":                 {curfew.ConsoleAccess{Require: ops}, two},
		`there is no provider "c"`:              {curfew.ConsoleAccess{Provider: "c", Require: ops}, two},
		"names a provider, and no claim":        {curfew.ConsoleAccess{Provider: "a"}, two},
		`the claim "groups" has no values`:      {curfew.ConsoleAccess{Require: map[string][]any{"groups": {}}}, two[:1]},
		`the claim "" has no values, so nobody`: {curfew.ConsoleAccess{Require: map[string][]any{"": {"x"}}}, two[:1]},
	} {
		_, err := curfew.New(t.Context(), curfew.Config{URL: "https://app.example.com", Providers: row.providers,
			Store: memory.New(), Keyring: ring(t), Console: row.access})
		if err == nil || !strings.Contains(err.Error(), "Console: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A name that another provider had does not open the console to its people.
func TestAProviderThatGetsTheNameOfAnotherDoesNotGetItsSessions(t *testing.T) {
	t.Parallel()
	keys := ring(t)
	a := withConsole(t, map[string]any{"olga": "ops"}, func(c *curfew.Config) { c.Keyring = keys })
	b := a.as("olga") // at the provider that is called main today
	rp, err := curfew.New(t.Context(), curfew.Config{
		URL: a.server.URL, Store: a.store, Keyring: keys, Log: new(rig.Log).Logger(),
		Providers: []oidc.Config{{Name: "main", Issuer: "https://new.example.com", ClientID: "app", ClientSecret: "x"},
			{Name: "partner", Issuer: a.op.Issuer(), ClientID: "app", ClientSecret: "secret"}},
		Console: curfew.ConsoleAccess{Provider: "main", Require: map[string][]any{"groups": {"ops"}}},
	})
	rig.Must(t, err)
	t.Cleanup(func() { rp.Close() })
	server := rig.Serve(t, rp.Handler())
	if resp, _ := b.send(http.MethodGet, server.URL+"/auth/console/", nil, opened()...); resp.StatusCode != 404 {
		t.Errorf("the console answers %s", resp.Status)
	}
	resp, _ := b.send(http.MethodGet, server.URL+"/auth/verify", nil)
	if name := resp.Header.Get("X-Auth-Provider"); resp.StatusCode != 200 || name != "partner" {
		t.Errorf("%s, and the app is told that the provider is %q", resp.Status, name)
	}
}
