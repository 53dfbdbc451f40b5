package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/curfew/store"
)

// configure puts a configuration file beside what the flags of a gateway say.
func (g *gateway) configure(t *testing.T, text string) {
	t.Helper()
	g.flags = append(g.flags, "--config", g.write(t, "curfew.yaml", text))
}

// redeem uses a refresh token as whoever had stolen it could, and says whether it lives.
func (p *provider) redeem(t *testing.T, g *gateway, token string) bool {
	t.Helper()
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.issuer+"/token",
		strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(url.QueryEscape(g.client), url.QueryEscape(g.secret))
	resp, err := newBrowser("somebody").client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK && !strings.Contains(string(body), `"invalid_grant"`) {
		t.Fatalf("the refresh token is neither taken nor refused: %d %s (error %v)", resp.StatusCode, body, err)
	}
	return resp.StatusCode == http.StatusOK
}

// Back-Channel Logout §2.7: what a session held is dead with it; what was granted for offline use is kept, unless we
// are told otherwise.
func TestAfterALogoutTheRefreshTokenIsDeadAtTheProviderOrKeptAsThePolicySays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, scopes, policy, refresh string
		asked, lives                  bool
	}{
		{"without offline_access", "openid,profile", "keep", "always", true, false},
		{"with offline_access it is kept", "openid,profile,offline_access", "keep", "", false, true},
		{"with offline_access and the policy revoke", "openid,profile,offline_access", "revoke", "", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, gs := world(t, "app")
			g := gs[0]
			p.env = []string{"OP_REFRESH=" + c.refresh, "OP_ACCESS_TTL=300"}
			g.flags = append(g.flags, "--scopes", c.scopes)
			g.configure(t, "providers: [{offline_access: "+c.policy+"}]\n")
			p.start(t)
			g.start(t)
			alice, bob := newBrowser("alice's browser"), newBrowser("bob's browser")
			from := p.said()
			alice.consent(t, p, g, "alice")
			issued, _ := p.event(t, from, "refresh.issued")
			bob.consent(t, p, g, "bob")

			from = p.said()
			alice.signOutAt(t, p)
			p.loggedOut(t, from, "backchannel.success", g)
			alice.mustBeOut(t, g)
			if c.asked {
				g.await(t, "the notice is done", 0, func(line string) bool {
					return strings.Contains(line, "event=notice ") && strings.Contains(line, "kind=revoke") &&
						strings.Contains(line, "next=done")
				})
			}
			if lives := p.redeem(t, g, issued.Token); lives != c.lives {
				t.Errorf("the refresh token lives: %v, want %v", lives, c.lives)
			}
			if n := len(p.events(t, from, "revocation")); (n == 1) != c.asked || n > 1 {
				t.Errorf("the provider was asked to revoke %d times", n)
			}
			bob.mustBeIn(t, g, "bob")
			for _, line := range g.since(0) {
				if strings.Contains(line, issued.Token) {
					t.Error("the log holds a refresh token")
				}
			}
		})
	}
}

// relyingParty is an app that none of us wrote, which takes our logout tokens.
type relyingParty struct {
	*child
	client string
	uri    string // backchannel_logout_uri
	took   func(line, sid string) bool
	start  func(t *testing.T, issuer string)
}

// fromNPM is rp.mjs of a kind.
func fromNPM(t *testing.T, kind string, took func(line, sid string) bool) *relyingParty {
	t.Helper()
	if _, err := os.Stat("relying-parties/node_modules/jose/package.json"); err != nil {
		lacking(t, "the npm packages of e2e/relying-parties are missing; run `npm ci` there, or `make test`")
	}
	addr := reserve(t)
	rp := &relyingParty{client: kind, uri: "http://" + addr + "/backchannel-logout", took: took}
	rp.start = func(t *testing.T, issuer string) {
		env := append(os.Environ(), "RP_PORT="+addr[strings.LastIndex(addr, ":")+1:], "RP_ISSUER="+issuer,
			"RP_KIND="+kind)
		rp.child = start(t, kind, "", env, "node", "relying-parties/rp.mjs")
		rp.await(t, "listening", 0, func(line string) bool { return strings.Contains(line, `"listening"`) })
	}
	return rp
}

// apache is Apache with mod_auth_openidc, from Debian.
func apache(t *testing.T) *relyingParty {
	t.Helper()
	const modules = "/usr/lib/apache2/modules"
	server, err := exec.LookPath("apache2")
	if _, errModule := os.Stat(modules + "/mod_auth_openidc.so"); err != nil || errModule != nil {
		t.Skip("apache2 with mod_auth_openidc is missing; apt-get install apache2-bin libapache2-mod-auth-openidc")
	}
	addr := reserve(t)
	rp := &relyingParty{client: "apache", uri: "http://" + addr + "/callback?logout=backchannel"}
	rp.took = func(line, sid string) bool {
		return strings.Contains(line, "oidc_cleanup_by_sid: enter") && strings.Contains(line, sid)
	}
	rp.start = func(t *testing.T, issuer string) {
		dir := t.TempDir()
		write := func(name, text string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) { // it gives up being root
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		name := strings.ReplaceAll(url.QueryEscape(strings.TrimPrefix(issuer, "http://")), "+", "%20")
		write(name+".provider", fmt.Sprintf(
			`{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q,"jwks_uri":%q}`,
			issuer, issuer+"/none", issuer+"/none", issuer+"/jwks.json"))
		write(name+".client", `{"client_id":"apache","client_secret":"unused"}`)
		write(name+".conf", `{"id_token_signed_response_alg":"ES256"}`)
		user := ""
		if os.Geteuid() == 0 {
			user = "User www-data\nGroup www-data"
		}
		write("httpd.conf", fmt.Sprintf(`
ServerRoot %[1]s
ServerName 127.0.0.1
PidFile %[1]s/pid
DefaultRuntimeDir %[1]s
Listen %[2]s
%[4]s
LoadModule mpm_event_module %[3]s/mod_mpm_event.so
LoadModule authn_core_module %[3]s/mod_authn_core.so
LoadModule authz_core_module %[3]s/mod_authz_core.so
LoadModule authz_user_module %[3]s/mod_authz_user.so
LoadModule auth_openidc_module %[3]s/mod_auth_openidc.so
ErrorLog /dev/stderr
LogLevel auth_openidc:debug
DocumentRoot %[1]s
OIDCMetadataDir %[1]s
OIDCRedirectURI http://%[2]s/callback
OIDCCryptoPassphrase unused
OIDCCacheType shm
<Location />
AuthType openid-connect
Require valid-user
</Location>
`, dir, addr, modules, user))
		rp.child = start(t, "apache", dir, os.Environ(), server, "-X", "-f", filepath.Join(dir, "httpd.conf"))
		rp.await(t, "that it listens", 0, func(line string) bool {
			return strings.Contains(line, "resuming normal operations") || strings.Contains(line, "configured")
		})
	}
	return rp
}

// lacking skips a test for want of something, or fails it where it must run.
func lacking(t *testing.T, missing string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

// Relying parties that none of us wrote take our tokens, with their own verification and our published keys, and refuse
// what is not ours.
func TestRelyingPartiesThatNoneOfUsWroteTakeOurLogoutTokens(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		make func(t *testing.T) *relyingParty
	}{
		{"openid-client and jose, strictly", func(t *testing.T) *relyingParty {
			return fromNPM(t, "strict", func(line, sid string) bool {
				return strings.Contains(line,
					`"told","id":"`+sid+`"`)
			})
		}},
		{"express-openid-connect", func(t *testing.T) *relyingParty {
			return fromNPM(t, "express", func(line, sid string) bool {
				return strings.Contains(line, `"told"`) && strings.Contains(line, "|"+sid+`"`)
			})
		}},
		{"apache with mod_auth_openidc", apache},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, gs := world(t, "app")
			g := gs[0]
			rp := c.make(t)
			g.configure(t, fmt.Sprintf("apps: [{client_id: %s, backchannel_logout_uri: %q, session_required: true}]\n",
				rp.client, rp.uri))
			p.start(t)
			g.start(t)
			rp.start(t, g.url+"/auth")
			alice := newBrowser("alice's browser")
			told := alice.signIn(t, g, "alice")
			sid := told.Header.Get("X-Auth-Session")
			if sid == "" || strings.Contains(fmt.Sprint(told.Header["X-Auth-Session"]), " ") {
				t.Fatalf("the app was told its session %q", told.Header["X-Auth-Session"])
			}
			if _, err := store.ParseKey(sid); err == nil {
				t.Error("the app was told the key of the session")
			}

			from := rp.said()
			said := p.said()
			alice.signOutAt(t, p)
			p.loggedOut(t, said, "backchannel.success", g)
			g.await(t, "the notice is done", 0, func(line string) bool {
				return strings.Contains(line, "event=notice ") && strings.Contains(line, "kind=logout") &&
					strings.Contains(line, "next=done")
			})
			rp.await(t, "that it was told of "+sid, from, func(line string) bool { return rp.took(line, sid) })

			// The same relying party refuses a token of the provider's, which is not ours.
			post, _ := p.event(t, said, "backchannel.post")
			got := newBrowser("somebody").post(t, rp.uri, url.Values{"logout_token": {post.Token}})
			if got.status < 400 {
				t.Errorf("a token that is not ours is taken: %v", got)
			}
		})
	}
}

// Signing in again in the same browser ends the session before. What that held is of the same grant at this provider,
// as long as the sign-in there is the same: to revoke it would end the new session too. It is revoked with the new
// one's.
func TestSigningInAgainEndsNoNewSessionAndLeavesNoOldTokenAlive(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app")
	g := gs[0]
	p.env = []string{"OP_REFRESH=always", "OP_ACCESS_TTL=300"}
	p.start(t)
	g.start(t)
	alice := newBrowser("alice's browser")
	again := func() string {
		t.Helper()
		from := p.said()
		if got, _ := alice.open(t, g.url+"/auth/login?return_to=/private", "alice"); got.status != http.StatusOK {
			t.Fatalf("alice signs in again: %v", got)
		}
		issued, _ := p.event(t, from, "refresh.issued")
		return issued.Token
	}
	first, second := again(), again()
	if asked := len(p.events(t, 0, "revocation")); asked != 0 || first == second {
		t.Errorf("the provider was asked to revoke %d times while the sign-in there goes on", asked)
	}

	// Another sign-in at the provider: what the sessions of the first held goes, and what the new one holds lives.
	u, err := url.Parse(p.issuer)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range alice.client.Jar.Cookies(u) {
		if !strings.HasPrefix(c.Name, "curfew") {
			alice.client.Jar.SetCookies(u, []*http.Cookie{{Name: c.Name, Path: "/", MaxAge: -1}})
		}
	}
	third := again()
	g.await(t, "the notice is done", 0, func(line string) bool {
		return strings.Contains(line, "event=notice ") && strings.Contains(line, "kind=revoke") &&
			strings.Contains(line, "next=done")
	})
	for name, token := range map[string]string{"first": first, "second": second} {
		if p.redeem(t, g, token) {
			t.Errorf("the %s refresh token lives", name)
		}
	}
	alice.mustBeIn(t, g, "alice")
	if !p.redeem(t, g, third) {
		t.Error("the new session's refresh token was revoked with the old one's")
	}
}
