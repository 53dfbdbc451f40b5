package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const hydraVersion = "2.3.0" // of e2e/hydra/go.mod

// TestInteropHydra plays the scenarios of Ory Hydra, of which one is started: it makes keys of 4096 bits.
func TestInteropHydra(t *testing.T) {
	needInterop(t)
	t.Parallel()
	if _, err := os.Stat(hydraProgram()); err != nil {
		missing := "there is no Ory Hydra " + hydraVersion + ": run .ci/deps interop"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip("NOT TESTED: " + missing)
	}
	play(t, "hydra", "Ory Hydra "+hydraVersion+":", startHydra(t).scenarios())
}

// hydraProgram is where .ci/deps puts it.
func hydraProgram() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "curfew", "hydra-"+hydraVersion)
}

// hydra is one, with the app that signs people in: Hydra itself knows no people.
type hydra struct {
	*child
	issuer, admin string
	people        *httptest.Server
}

// startHydra starts one.
func startHydra(t *testing.T) *hydra {
	t.Helper()
	public, admin := reserve(t), reserve(t)
	p := &hydra{issuer: "http://" + public, admin: "http://" + admin + "/admin"}
	mux := http.NewServeMux()
	p.people = httptest.NewServer(mux)
	t.Cleanup(p.people.Close)
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { p.login(t, w, r) })
	mux.HandleFunc("/consent", func(w http.ResponseWriter, r *http.Request) { p.consent(t, w, r) })
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		p.accept(t, w, r, "logout", r.FormValue("logout_challenge"), object{})
	})
	mux.HandleFunc("/out", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "signed out") })
	port := func(addr string) string { return addr[strings.LastIndex(addr, ":")+1:] }
	dir := t.TempDir()
	config := filepath.Join(dir, "hydra.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `dsn: memory
serve:
  public: {host: 127.0.0.1, port: %s}
  admin: {host: 127.0.0.1, port: %s}
urls:
  self: {issuer: %s}
  login: %[4]s/login
  consent: %[4]s/consent
  logout: %[4]s/logout
  post_logout_redirect: %[4]s/out
secrets: {system: [a-secret-of-the-tests]}
oidc: {subject_identifiers: {supported_types: [public]}}
`, port(public), port(admin), p.issuer, p.people.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	p.child = start(t, "Hydra", dir, os.Environ(), hydraProgram(), "serve", "all", "--dev", "--sqa-opt-out", "-c", config)
	for _, path := range []string{"/health/ready", "/.well-known/jwks.json"} { // it makes its keys when first asked
		eventually(t, "Hydra is ready", func() string {
			page, err := newBrowser("the supervisor").try(http.MethodGet, p.issuer+path, nil)
			if err != nil {
				return err.Error()
			}
			return unless(page.status == http.StatusOK, "%v", page)
		})
	}
	return p
}

// serve has gateways use it. Their access tokens live for 5 s if they get refresh tokens.
func (p *hydra) serve(t *testing.T, scopes string, apps ...*gateway) {
	t.Helper()
	for _, g := range apps {
		p.call(t, http.MethodPost, "/clients", object{"client_id": g.client, "client_secret": g.secret,
			"redirect_uris":             []string{g.url + "/auth/callback"},
			"post_logout_redirect_uris": []string{g.url + "/auth/logout/callback"},
			"backchannel_logout_uri":    g.url + "/auth/backchannel-logout", "backchannel_logout_session_required": true,
			"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
			"scope": "openid profile email offline_access", "token_endpoint_auth_method": "client_secret_basic"})
		g.flags = append(g.flags, "--scopes", scopes)
		settings := []string{"allow_missing_exp: true"}
		if strings.Contains(scopes, "offline_access") {
			p.call(t, http.MethodPut, "/clients/"+g.client+"/lifespans", object{
				"authorization_code_grant_access_token_lifespan": "5s", "refresh_token_grant_access_token_lifespan": "5s"})
			settings = append(settings, noUserinfo)
		}
		g.provider(t, p.issuer, settings...)
		g.start(t)
	}
}

// call sends JSON to the admin API.
func (p *hydra) call(t *testing.T, method, path string, body any) (answer map[string]any) {
	t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		t.Error(err)
		return nil
	}
	r, err := http.NewRequest(method, p.admin+path, bytes.NewReader(content))
	if err != nil {
		t.Error(err)
		return nil
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := newBrowser("the administrator").client.Do(r)
	if err != nil {
		t.Errorf("Hydra: %s %s: %v", method, path, err)
		return nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Errorf("Hydra: %s %s answered %d: %.500s, %v", method, path, resp.StatusCode, text, err)
		return nil
	}
	json.Unmarshal(text, &answer) // 204 has none
	return answer
}

// accept says yes to a question of Hydra's, and sends the browser where it says.
func (p *hydra) accept(t *testing.T, w http.ResponseWriter, r *http.Request, what, challenge string, body object) {
	to := p.call(t, http.MethodPut, "/oauth2/auth/requests/"+what+"/accept?"+what+"_challenge="+
		url.QueryEscape(challenge), body)
	address, _ := to["redirect_to"].(string)
	http.Redirect(w, r, address, http.StatusSeeOther)
}

// login asks who it is, unless Hydra knows.
func (p *hydra) login(t *testing.T, w http.ResponseWriter, r *http.Request) {
	challenge := r.FormValue("login_challenge")
	asks := p.call(t, http.MethodGet, "/oauth2/auth/requests/login?login_challenge="+url.QueryEscape(challenge), nil)
	name := r.PostFormValue("username")
	if asks["skip"] == true {
		name, _ = asks["subject"].(string)
	}
	if name == "" {
		fmt.Fprintf(w, `<form method="post" action="/login"><input type="hidden" name="login_challenge" value="%s">`+
			`<input name="username"><input name="password"></form>`, html.EscapeString(challenge))
		return
	}
	p.accept(t, w, r, "login", challenge, object{"subject": name, "remember": true, "remember_for": 3600})
}

func (p *hydra) consent(t *testing.T, w http.ResponseWriter, r *http.Request) {
	challenge := r.FormValue("consent_challenge")
	asks := p.call(t, http.MethodGet, "/oauth2/auth/requests/consent?consent_challenge="+url.QueryEscape(challenge), nil)
	name, _ := asks["subject"].(string)
	p.accept(t, w, r, "consent", challenge, object{"grant_scope": asks["requested_scope"], "remember": true,
		"session": object{"id_token": object{"name": name, "email": name + "@example.test"}}})
}

func (p *hydra) signIn(t *testing.T, g *gateway, name string) *browser {
	t.Helper()
	b := newBrowser(name)
	p.enter(t, b, g, name)
	return b
}

func (p *hydra) enter(t *testing.T, b *browser, g *gateway, name string) {
	t.Helper()
	page := b.follow(t, b.get(t, g.url+"/private"))
	if page.url.Path == "/login" {
		page = b.password(t, page, name, "pw")
	}
	if page.status != http.StatusOK || page.url.String() != g.url+"/private" {
		t.Fatalf("%s signs in and should be on the page that it wanted: %v", b.name, page)
	}
}

// signOut signs out at the app, and by that at Hydra.
func (p *hydra) signOut(t *testing.T, b *browser, g *gateway) {
	t.Helper()
	page := b.follow(t, b.post(t, g.url+"/auth/logout", url.Values{}))
	if page.status != http.StatusOK || !strings.HasPrefix(page.url.String(), g.url) {
		t.Fatalf("after signing out, %s should be back at the app: %v", b.name, page)
	}
}

func (p *hydra) scenarios() []scenario {
	const session, lasting = "openid,profile,email", "openid,profile,email,offline_access"
	// Nobody else has the name.
	somebody := func(name string, g *gateway) string { return name + "-" + g.client }
	one := func(t *testing.T, scopes string) (g *gateway, b *browser, alice string) {
		t.Helper()
		g = newGateway(t)
		p.serve(t, scopes, g)
		alice = somebody("alice", g)
		return g, p.signIn(t, g, alice), alice
	}
	two := func(t *testing.T, scopes string) (g, other *gateway, b *browser, alice string) {
		t.Helper()
		g, other = newGateway(t), newGateway(t)
		p.serve(t, scopes, g, other)
		alice = somebody("alice", g)
		b = p.signIn(t, g, alice)
		p.enter(t, b, other, alice)
		return g, other, b, alice
	}
	revoke := func(t *testing.T, what string) {
		t.Helper()
		p.call(t, http.MethodDelete, "/oauth2/auth/sessions/"+what, nil)
	}
	goesOn := func(t *testing.T, g *gateway, b *browser, what func()) (string, string) {
		t.Helper()
		sends, _ := g.kept(t, b, what)
		return sends, "**lets the session go on**, up to `session_lifetime`: its tokens are still refreshed there"
	}
	all := []scenario{
		{what: "somebody signs out of one of two apps", run: func(t *testing.T) (string, string) {
			g, other, b, alice := two(t, session)
			elsewhere, bob := p.signIn(t, other, alice), p.signIn(t, other, somebody("bob", g))
			if status, out := g.run(t, "", "check"); status != 0 || !strings.Contains(out, "looks like Ory Hydra") {
				t.Errorf("check should recognize Hydra, and find no faults: %s", out)
			}
			sends, curfew := other.ended(t, b, func() { p.signOut(t, b, g) })
			elsewhere.in(t, other)
			bob.in(t, other)
			return sends, curfew
		}},
		{what: "the same with the scope `offline_access`", run: func(t *testing.T) (string, string) {
			g, other, b, _ := two(t, lasting)
			return other.ended(t, b, func() { p.signOut(t, b, g) })
		}},
		{what: "an administrator revokes one login session (`DELETE /admin/oauth2/auth/sessions/login?sid=`)",
			run: func(t *testing.T) (string, string) {
				g, b, alice := one(t, session)
				sid := ""
				for _, line := range g.since(0) {
					if strings.Contains(line, "event=login ") {
						sid = field(line, "sid")
					}
				}
				elsewhere := p.signIn(t, g, alice)
				sends, curfew := g.ended(t, b, func() { revoke(t, "login?sid="+sid) })
				elsewhere.in(t, g)
				return sends, curfew
			}},
		{what: "an administrator revokes all login sessions of a person (`?subject=`)",
			run: func(t *testing.T) (string, string) {
				g, b, alice := one(t, lasting)
				return goesOn(t, g, b, func() { revoke(t, "login?subject="+alice) })
			}},
		{what: "an administrator revokes all consents of a person", run: func(t *testing.T) (string, string) {
			g, b, alice := one(t, lasting)
			return g.ended(t, b, func() { revoke(t, "consent?all=true&subject="+alice) })
		}},
		{what: "Curfew is away for more than 3 s while somebody signs out", run: func(t *testing.T) (string, string) {
			g, other, b, _ := two(t, lasting)
			other.kill()
			from := p.said()
			p.signOut(t, b, g)
			p.await(t, "it gives up", from, func(line string) bool {
				return strings.Contains(line, "Unable to execute OpenID Connect Back-Channel Logout Request") &&
					strings.Contains(line, other.client)
			})
			other.start(t)
			_, curfew := goesOn(t, other, b, func() {})
			return "a logout token, **three times within 3 s**", curfew
		}},
		{what: "requests come together when an access token has run out", run: func(t *testing.T) (string, string) {
			g, b, _ := one(t, lasting)
			b.refreshedOnce(t, g)
			return "one new refresh token", "uses each once, and the session goes on"
		}},
	}
	for i := range all {
		all[i].alone = true // its database in memory takes one change at a time
	}
	return all
}
