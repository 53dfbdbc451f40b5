package e2e_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInteropGlewlwyd plays the scenarios of Glewlwyd, of which each starts one.
func TestInteropGlewlwyd(t *testing.T) {
	needInterop(t)
	t.Parallel()
	missing := ""
	for _, name := range []string{"glewlwyd", "sqlite3"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = name + " is missing: apt-get install " + name
		}
	}
	if len(glewlwydTables()) == 0 {
		missing = "the tables of Glewlwyd are missing: " + glewlwydSQL
	}
	switch {
	case missing == "":
	case os.Getenv("CI") == "true":
		t.Fatal(missing)
	default:
		t.Skip("NOT TESTED: " + missing)
	}
	version, err := exec.Command("glewlwyd", "--version").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("console", glewlwydPictures)
	fields := strings.Fields(string(version))
	play(t, "glewlwyd", "Glewlwyd "+fields[len(fields)-1]+":", glewlwydScenarios())
}

// glewlwydSQL makes the database of a new Glewlwyd.
const glewlwydSQL = "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3"

func glewlwydTables() []byte {
	text, _ := os.ReadFile(glewlwydSQL)
	return text
}

// glewlwydTypes are the types of its files.
const glewlwydTypes = `{extension = ".html" mime_type = "text/html"}, {extension = ".css" mime_type = "text/css"},
	{extension = ".js" mime_type = "application/javascript"}, {extension = ".json" mime_type = "application/json"},
	{extension = ".png" mime_type = "image/png"}`

// glewlwyd is one with the users alice and bob, and the administrator that a new one has.
type glewlwyd struct {
	*child
	api   string // the address of its API
	admin *browser
}

const glewlwydPassword = "password-of-the-tests"

// startGlewlwyd starts one, and the gateways that use it. Access tokens live for ttl seconds.
func startGlewlwyd(t *testing.T, ttl int, apps ...*gateway) *glewlwyd {
	t.Helper()
	addr, dir := reserve(t), t.TempDir()
	port := addr[strings.LastIndex(addr, ":")+1:]
	database := filepath.Join(dir, "glewlwyd.db")
	make := exec.Command("sqlite3", database)
	make.Stdin = strings.NewReader(string(glewlwydTables()))
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v: %s", err, out)
	}
	config := filepath.Join(dir, "glewlwyd.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, `port=%s
bind_address="127.0.0.1"
external_url="http://%s"
login_url="login.html"
api_prefix="api"
static_files_path="%s"
log_mode="console"
log_level="INFO"
cookie_domain="127.0.0.1"
cookie_secure=0
session_expiration=2419200
session_key="GLEWLWYD2_SESSION_ID"
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="/usr/lib/glewlwyd/user"
user_middleware_module_path="/usr/lib/glewlwyd/user_middleware"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
hash_algorithm="SHA512"
static_files_mime_types = (%s)
database = { type = "sqlite3", path = "%s" };
`, port, addr, glewlwydPages(t), glewlwydTypes, database), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &glewlwyd{api: "http://" + addr + "/api", admin: newBrowser("the administrator")}
	p.child = start(t, "Glewlwyd", dir, os.Environ(), "glewlwyd", "-c", config)
	p.await(t, "started", 0, func(line string) bool { return strings.Contains(line, "Glewlwyd started") })
	eventually(t, "Glewlwyd listens", func() string { // it says that it has started a moment before
		if _, err := p.admin.try(http.MethodGet, p.api+"/", nil); err != nil {
			return err.Error()
		}
		return ""
	})
	p.call(t, p.admin, http.MethodPost, "/auth/", object{"username": "admin", "password": "password"})

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	p.call(t, p.admin, http.MethodPost, "/mod/plugin/", object{"module": "oidc", "name": "oidc",
		"display_name": "OpenID Connect", "parameters": object{
			"iss": p.api + "/oidc", "jwt-type": "rsa", "jwt-key-size": "256",
			"key":  text("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)),
			"cert": text("PUBLIC KEY", public), "jwks-show": true,
			"access-token-duration": ttl, "refresh-token-duration": 86400, "code-duration": 600,
			"refresh-token-rolling": true, "refresh-token-one-use": "never", "allow-non-oidc": false,
			"auth-type-code-enabled": true, "auth-type-refresh-enabled": true, "auth-type-token-enabled": false,
			"auth-type-id-token-enabled": false, "auth-type-none-enabled": false, "auth-type-password-enabled": false,
			"auth-type-client-enabled": false, "pkce-allowed": true,
			"allowed-scope": []string{"openid", "profile", "email"}, "name-claim": "on-demand",
			"name-claim-scope": []string{"profile"}, "email-claim": "on-demand",
			"email-claim-scope": []string{"email"}, "subject-type": "public", "introspection-revocation-allowed": true,
			"introspection-revocation-allow-target-client": true, "session-management-allowed": true,
			"session-cookie-name": "GLEWLWYD2_OIDC_SID", "session-cookie-expiration": 2419200,
			"front-channel-logout-allowed": false, "back-channel-logout-allowed": true}})
	for _, scope := range []string{"profile", "email"} {
		p.call(t, p.admin, http.MethodPost, "/scope/", object{"name": scope, "display_name": scope,
			"password_required": true, "password_max_age": 0})
	}
	for _, name := range []string{"alice", "bob"} {
		p.call(t, p.admin, http.MethodPost, "/user/", object{"username": name, "name": name,
			"email": name + "@example.test", "password": glewlwydPassword, "enabled": true,
			"scope": []string{"openid", "profile", "email", "g_profile"}})
	}
	for _, g := range apps {
		p.call(t, p.admin, http.MethodPost, "/client/", object{"client_id": g.client, "name": g.client,
			"confidential": true, "password": g.secret, "enabled": true, "scope": []string{},
			"redirect_uri":                        []string{g.url + "/auth/callback"},
			"post_logout_redirect_uris":           g.url + "/auth/logout/callback",
			"backchannel_logout_uri":              g.url + "/auth/backchannel-logout",
			"backchannel_logout_session_required": "true",
			"authorization_type":                  []string{"code", "refresh_token"},
			"token_endpoint_auth_method":          []string{"client_secret_basic"}})
		settings := []string{"allow_missing_exp: true"}
		if ttl < 60 {
			settings = append(settings, noUserinfo)
		}
		g.provider(t, p.api+"/oidc", settings...)
		g.start(t)
	}
	return p
}

// call sends JSON to the API, with the cookies of a browser.
func (p *glewlwyd) call(t *testing.T, b *browser, method, path string, body any) string {
	t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, p.api+path, strings.NewReader(string(content)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := b.client.Do(r)
	if err != nil {
		t.Fatalf("%s: %v", b.name, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s answered %d: %.500s, %v", b.name, method, path, resp.StatusCode, answer, err)
	}
	return string(answer)
}

// enter signs in as the page login.html does, which is a script.
func (p *glewlwyd) enter(t *testing.T, b *browser, g *gateway, name string) {
	t.Helper()
	page := b.follow(t, b.get(t, g.url+"/private"))
	if page.url.Path == "/login.html" {
		p.call(t, b, http.MethodPost, "/auth/", object{"username": name, "password": glewlwydPassword})
		p.call(t, b, http.MethodPut, "/auth/grant/"+g.client, object{"scope": "openid profile email"})
		page = b.follow(t, b.get(t, page.url.Query().Get("callback_url")+"&g_continue"))
	}
	if page.status != http.StatusOK || page.url.String() != g.url+"/private" {
		t.Fatalf("%s signs in and should be on the page that it wanted: %v", b.name, page)
	}
}

func (p *glewlwyd) signIn(t *testing.T, g *gateway, name string) *browser {
	t.Helper()
	b := newBrowser(name)
	p.enter(t, b, g, name)
	return b
}

// signOut signs out at the app, and at Glewlwyd as its page does that asks for it.
func (p *glewlwyd) signOut(t *testing.T, b *browser, g *gateway) {
	t.Helper()
	page := b.follow(t, b.post(t, g.url+"/auth/logout", url.Values{}))
	if page.url.Path != "/login.html" || page.url.Query().Get("prompt") != "end_session" {
		t.Fatalf("%s should be asked whether to sign out: %v", b.name, page)
	}
	p.call(t, b, http.MethodDelete, "/oidc/session/"+page.url.Query().Get("sid"), nil)
}

// glewlwydGoesOn is what comes of a user who is disabled.
const glewlwydGoesOn = "**lets the session go on**, up to `session_lifetime`: its tokens are still refreshed there"

func glewlwydScenarios() []scenario {
	two := func(t *testing.T, ttl int) (*glewlwyd, *gateway, *gateway, *browser) {
		t.Helper()
		g, other := newGateway(t), newGateway(t)
		other.yaml(t, "refresh_grace: 5s\n")
		p := startGlewlwyd(t, ttl, g, other)
		b := p.signIn(t, g, "alice")
		p.enter(t, b, other, "alice")
		return p, g, other, b
	}
	return []scenario{
		{what: "somebody signs out of one of two apps, and confirms it", run: func(t *testing.T) (string, string) {
			p, g, other, b := two(t, 300)
			elsewhere, bob := p.signIn(t, other, "alice"), p.signIn(t, other, "bob")
			sends, curfew := other.ended(t, b, func() { p.signOut(t, b, g) })
			elsewhere.in(t, other)
			bob.in(t, other)
			return sends, curfew
		}},
		{what: "**the same without `allow_missing_exp`**", run: func(t *testing.T) (string, string) {
			p, g, other, b := two(t, 300)
			other.kill()
			file := filepath.Join(other.dir, "curfew.yaml")
			settings, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			other.write(t, "curfew.yaml", strings.Replace(string(settings), "allow_missing_exp: true", "", 1))
			other.start(t)
			if _, out := other.run(t, "", "check"); !strings.Contains(out, "set allow_missing_exp: true") {
				t.Errorf("check should name the setting: %s", out)
			}
			other.namesTheSetting(t, "allow_missing_exp: true", func() { p.signOut(t, b, g) })
			b.in(t, other)
			return "a logout token", "**refuses it**; the log, `/readyz?detail` and `curfew check` name the setting"
		}},
		{what: "Curfew is away while somebody signs out", run: func(t *testing.T) (string, string) {
			p, g, other, b := two(t, 5)
			other.kill()
			p.signOut(t, b, g)
			other.start(t)
			b.out(t, other) // a refresh is answered 400 without an error code, which says nothing final
			return "a logout token, **once**", "ends the session `refresh_grace` after its access token has run out"
		}},
		{what: "a user is disabled", run: func(t *testing.T) (string, string) {
			g := newGateway(t)
			p := startGlewlwyd(t, 5, g)
			b := p.signIn(t, g, "alice")
			sends, _ := g.kept(t, b, func() {
				p.call(t, p.admin, http.MethodPut, "/user/alice", object{"username": "alice", "enabled": false,
					"scope": []string{"openid", "profile", "email", "g_profile"}})
			})
			return sends, glewlwydGoesOn
		}},
		{what: "somebody ends the session on the profile page", run: func(t *testing.T) (string, string) {
			g := newGateway(t)
			p := startGlewlwyd(t, 5, g)
			b := p.signIn(t, g, "alice")
			return g.kept(t, b, func() { p.call(t, b, http.MethodDelete, "/auth/", nil) })
		}},
		{what: "requests come together when an access token has run out", run: func(t *testing.T) (string, string) {
			g := newGateway(t)
			p := startGlewlwyd(t, 5, g)
			b := p.signIn(t, g, "alice")
			b.together(t, g, 20)
			g.refreshed(t, b)
			return "the same refresh token", "refreshes once, and the session goes on"
		}},
	}
}
