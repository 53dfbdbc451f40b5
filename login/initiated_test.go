package login_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

const formType = "application/x-www-form-urlencoded"

// Core §4: another site may start a login, by GET or POST.
func TestAnotherSiteStartsALogin(t *testing.T) {
	t.Parallel()
	s := newStage(t, 2, nil)
	iss := s.ops[1].Issuer()
	for _, row := range []struct {
		name   string
		form   url.Values
		status int
		to     string // the return path
	}{
		{"an address of ours", url.Values{"iss": {iss}, "target_link_uri": {s.URL + "/a?b=c"}}, 303, "/a?b=c"},
		{"a path", url.Values{"iss": {iss}, "target_link_uri": {"/a"}}, 303, "/a"},
		{"no address", url.Values{"iss": {iss}}, 303, "/"},
		{"another site", url.Values{"iss": {iss}, "target_link_uri": {"https://evil.example/"}}, 303, "/"},
		{"a site whose name begins as ours", url.Values{"iss": {iss}, "target_link_uri": {s.URL + ".evil.example/"}},
			303, "/"},
		{"our name as a user", url.Values{"iss": {iss}, "target_link_uri": {s.URL + "@evil.example/"}}, 303, "/"},
		{"a script", url.Values{"iss": {iss}, "target_link_uri": {"javascript:alert(1)"}}, 303, "/"},
		{"our own logout", url.Values{"iss": {iss}, "target_link_uri": {s.URL + "/auth/logout"}}, 303, "/"},
		{"an issuer that is not ours", url.Values{"iss": {"https://evil.example"}}, 400, ""},
		{"an issuer with a slash more", url.Values{"iss": {iss + "/"}}, 400, ""},
		{"the issuer of another provider than is named", url.Values{"iss": {iss}, "provider": {"main"}}, 400, ""},
		{"the provider and its issuer", url.Values{"iss": {iss}, "provider": {"second"}}, 303, "/"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.form.Set("login_hint", "bob")
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				b := s.browser()
				var p rig.Page
				if method == http.MethodGet {
					p = b.Get("/auth/login?" + row.form.Encode())
				} else {
					p = b.Do(method, "/auth/login", row.form.Encode(), "Content-Type", formType,
						"Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site")
					if len(b.attempts()) > 0 {
						t.Error("the form began a login")
					}
					if row.status == 303 {
						if !strings.HasPrefix(p.To, s.URL+"/auth/login?") {
							t.Fatalf("the form leads to %s", p.To)
						}
						p = b.Get(p.To)
					}
				}
				if p.Status != row.status {
					t.Fatalf("%s: %d %s", method, p.Status, p.Body)
				}
				if row.status != 303 {
					continue
				}
				if !strings.HasPrefix(p.To, iss) || !strings.Contains(p.To, "login_hint=bob") {
					t.Errorf("%s leads to %s", method, p.To)
				}
				if got := b.Get(b.Get(p.To).To).To; got != s.URL+row.to {
					t.Errorf("%s leads to %s in the end, want %s", method, got, row.to)
				}
			}
		})
	}
	for _, c := range []struct{ kind, body string }{{"text/plain", "iss=" + iss}, {"", ""},
		{"application/json", `{"iss": "x"}`}} {
		if p := s.browser().Do(http.MethodPost, "/auth/login", c.body, "Content-Type", c.kind); p.Status != 415 {
			t.Errorf("%s: %d", c.kind, p.Status)
		}
	}
}

// fields returns what the only form of a page sends.
func fields(body string) url.Values {
	form := url.Values{}
	for _, m := range regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)"`).
		FindAllStringSubmatch(body, -1) {
		form.Set(m[1], strings.ReplaceAll(m[2], "&#43;", "+"))
	}
	return form
}

// posted starts a login and returns the form with which the provider's page would answer it.
func (b *browser) posted(path string) url.Values {
	b.Site.T.Helper()
	u, err := url.Parse(b.begin(path))
	if err != nil {
		b.Site.T.Fatal(err)
	}
	return u.Query()
}

// A form of another site comes without cookies. A page of ours sends it once more, and then all checks are made.
func TestAnAnswerThatComesAsAForm(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil, func(c *oidc.Config) { c.ResponseMode = oidc.ModeFormPost })
	b := s.browser()
	if to := b.Get("/auth/login").To; !strings.Contains(to, "response_mode=form_post") {
		t.Errorf("the provider is asked %s", to)
	}
	form := b.posted("/auth/login?return_to=/a")
	stranger := s.browser() // what a browser does with SameSite=Lax
	form.Set("evil", "<script>")
	page := stranger.Do(http.MethodPost, "/auth/callback", form.Encode(), "Content-Type", formType,
		"Origin", s.ops[0].Issuer(), "Sec-Fetch-Site", "cross-site")
	again := fields(page.Body)
	if page.Status != 200 || again.Get("code") != form.Get("code") || again.Get("state") != form.Get("state") ||
		again.Has("evil") || !strings.Contains(page.Body, `action="/auth/callback"`) || len(page.Header["Set-Cookie"]) > 0 ||
		!strings.Contains(page.Header.Get("Content-Security-Policy"), "script-src 'sha256-") ||
		page.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v %s", page.Status, page.Header, page.Body)
	}
	send := func(b *browser, form url.Values) (status int, to string) {
		p := b.Do(http.MethodPost, "/auth/callback", form.Encode(), "Content-Type", formType, "Origin", s.URL)
		return p.Status, p.To
	}
	if status, _ := send(stranger, again); status != 400 { // login CSRF
		t.Errorf("a browser that began no login is signed in: %d", status)
	}
	if len(s.sessions()) > 0 {
		t.Error("there is a session")
	}
	if status, to := send(b, again); status != 303 || to != s.URL+"/a" || b.Session() == nil {
		t.Errorf("the person is not signed in: %d %s", status, to)
	}
	first := b.Session()
	again = b.posted("/auth/login?return_to=/b")
	again.Set("relayed", "1")
	if status, to := send(b, again); status != 303 || to != s.URL+"/b" || len(s.sessions()) != 1 ||
		b.Session().Key == first.Key {
		t.Errorf("the second session does not replace the first: %d %s, %d sessions", status, to, len(s.sessions()))
	}

	// An error comes the same way, and a provider may answer with a redirect all the same.
	again = url.Values{"error": {"access_denied"}, "state": {b.posted("/auth/login").Get("state")},
		"iss": {s.ops[0].Issuer()}, "relayed": {"1"}}
	if status, _ := send(b, again); status != 403 {
		t.Errorf("an error is answered %d", status)
	}
	if p := b.Get(b.begin("/auth/login?return_to=/c")); p.To != s.URL+"/c" {
		t.Errorf("a redirect is answered %d", p.Status)
	}
	for _, twice := range []string{"code", "state", "iss"} {
		form := b.posted("/auth/login")
		form.Add(twice, "other")
		if p := b.Do(http.MethodPost, "/auth/callback", form.Encode(), "Content-Type", formType); p.Status != 400 {
			t.Errorf("%s twice: %d", twice, p.Status)
		}
	}
	if p := b.Do(http.MethodPost, "/auth/callback", strings.Repeat("a", 65<<10), "Content-Type", formType); p.Status !=
		400 {
		t.Errorf("a huge form: %d", p.Status)
	}
}

// JARM §4.4: the state is looked at first, then the signature; nothing of another form is taken.
func TestAnAnswerThatIsAJWT(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil, func(c *oidc.Config) { c.ResponseMode = oidc.ModeQueryJWT })
	op := s.ops[0]
	answer := func(form url.Values, lie func(*oidctest.JWT)) string {
		k := op.Key("RS256")
		token := oidctest.JWT{Header: map[string]any{"alg": "RS256", "kid": k.KID}, Key: k, Alg: "RS256",
			Claims: map[string]any{"iss": op.Issuer(), "aud": "app", "exp": s.Now().Add(time.Minute).Unix()}}
		for name := range form {
			token.Claims[name] = form.Get(name)
		}
		if lie != nil {
			lie(&token)
		}
		return "/auth/callback?response=" + oidctest.Sign(token)
	}
	b := s.browser()
	if to := b.Get("/auth/login").To; !strings.Contains(to, "response_mode=query.jwt") {
		t.Errorf("the provider is asked %s", to)
	}
	form := b.posted("/auth/login?return_to=/a")
	for name, path := range map[string]string{
		"not a JWT":          "/auth/callback?" + form.Encode(),
		"not a JWT, and one": "/auth/callback?" + form.Encode() + "&response=x",
		"no state":           answer(url.Values{"code": {form.Get("code")}}, nil),
		"a foreign state":    answer(url.Values{"code": {form.Get("code")}, "state": {"x"}}, nil),
	} {
		if p := b.Get(path); p.Status != 400 || b.Session() != nil {
			t.Errorf("%s: %d %s", name, p.Status, p.Body)
		}
	}
	if p := s.browser().Get(answer(form, nil)); p.Status != 400 {
		t.Errorf("in another browser: %d", p.Status)
	}
	if p := b.Get(answer(form, nil)); p.To != s.URL+"/a" || b.Session() == nil {
		t.Errorf("the person is not signed in: %d %s", p.Status, p.Body)
	}
	for name, lie := range map[string]func(*oidctest.JWT){
		"aud": func(t *oidctest.JWT) { t.Claims["aud"] = "other" },
		"iss": func(t *oidctest.JWT) { t.Claims["iss"] = "https://evil.example" },
		"exp": func(t *oidctest.JWT) { t.Claims["exp"] = 1 },
	} {
		b := s.browser()
		if p := b.Get(answer(b.posted("/auth/login"), lie)); p.Status != 400 || b.Session() != nil ||
			s.Log.Last("login")["check"] != "response" {
			t.Errorf("%s: %d %v", name, p.Status, s.Log.Last("login"))
		}
	}
	b = s.browser()
	denied := url.Values{"error": {"access_denied"}, "state": {b.posted("/auth/login").Get("state")}}
	if p := b.Get(answer(denied, nil)); p.Status != 403 {
		t.Errorf("an error is answered %d", p.Status)
	}
}
