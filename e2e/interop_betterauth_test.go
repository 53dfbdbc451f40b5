package e2e_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

const betterAuthVersion = "1.7.5" // of e2e/better-auth/package.json

// TestInteropBetterAuth plays the scenarios of Better Auth. Each has a server of its own.
func TestInteropBetterAuth(t *testing.T) {
	needInterop(t)
	t.Parallel()
	missing := ""
	if _, err := exec.LookPath("node"); err != nil {
		missing = "node is missing; install Node.js 20 or later"
	} else if _, err := os.Stat("better-auth/node_modules/better-auth/package.json"); err != nil {
		missing = "Better Auth is missing; run .ci/deps"
	}
	switch {
	case missing == "":
	case os.Getenv("CI") == "true":
		t.Fatal(missing)
	default:
		t.Skip("NOT TESTED: " + missing)
	}
	play(t, "better-auth", "@better-auth/oauth-provider "+betterAuthVersion+":", betterAuthScenarios())
}

// betterAuth is better-auth/op.mjs, with one gateway.
type betterAuth struct {
	*child
	base string
	ttl  int // seconds that its access tokens live
	port string
	apps []*gateway
}

func startBetterAuth(t *testing.T, ttl int, apps ...*gateway) *betterAuth {
	t.Helper()
	addr := reserve(t)
	p := &betterAuth{base: "http://" + addr, ttl: ttl, port: addr[strings.LastIndex(addr, ":")+1:], apps: apps}
	p.start(t)
	for _, g := range apps {
		g.flags = append(g.flags, "--id-token-signed-response-alg", "EdDSA", "--scopes",
			"openid,profile,email,offline_access")
		if ttl < 30 {
			g.provider(t, p.base+"/api/auth", noUserinfo)
		} else {
			g.flags = append(g.flags, "--issuer", p.base+"/api/auth")
		}
		g.start(t)
	}
	return p
}

func (p *betterAuth) start(t *testing.T) {
	t.Helper()
	type client struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
		Base   string `json:"base"`
	}
	var clients []client
	for _, g := range p.apps {
		clients = append(clients, client{g.client, g.secret, g.url})
	}
	list, err := json.Marshal(clients)
	if err != nil {
		t.Fatal(err)
	}
	p.child = start(t, "Better Auth", "", append(os.Environ(), "OP_PORT="+p.port, "OP_CLIENTS="+string(list),
		"OP_ACCESS_TTL="+strconv.Itoa(p.ttl)), "node", "better-auth/op.mjs")
	p.await(t, "listening", 0, func(line string) bool { return line == "listening" })
}

func (p *betterAuth) signIn(t *testing.T, g *gateway, name string) *browser {
	t.Helper()
	b := newBrowser(name)
	p.enter(t, b, g, name)
	return b
}

func (p *betterAuth) enter(t *testing.T, b *browser, g *gateway, name string) {
	t.Helper()
	page := b.follow(t, b.get(t, g.url+"/private"))
	if page.url.Path == "/sign-in" {
		page = b.password(t, page, name, "password-of-the-tests")
	}
	if page.status != http.StatusOK || page.url.String() != g.url+"/private" {
		t.Fatalf("%s signs in and should be on the page that it wanted: %v", b.name, page)
	}
}

// call has a page of the app that uses Better Auth call one of its functions.
func (p *betterAuth) call(t *testing.T, b *browser, path, body string) {
	t.Helper()
	got := b.post(t, p.base+"/test/call?path="+url.QueryEscape(path), url.Values{"json": {body}})
	if got.status != http.StatusOK {
		t.Fatalf("%s at Better Auth: %v", path, got)
	}
}

// administer has the administrator do something to the person who uses a browser.
func (p *betterAuth) administer(t *testing.T, b *browser, path string) {
	t.Helper()
	s, err := b.told(p.apps[0], "application/json")
	if err != nil {
		t.Fatal(err)
	}
	admin := newBrowser("the administrator")
	p.call(t, admin, "/sign-in/email", `{"email": "admin@example.test", "password": "password-of-the-tests"}`)
	p.call(t, admin, path, `{"userId": "`+s.Header.Get("X-Auth-Subject")+`"}`)
}

func betterAuthScenarios() []scenario {
	one := func(what string, end func(t *testing.T, p *betterAuth, b *browser)) scenario {
		return scenario{what: what, run: func(t *testing.T) (string, string) {
			g := newGateway(t)
			p := startBetterAuth(t, 300, g)
			first, second, bob := p.signIn(t, g, "alice"), p.signIn(t, g, "alice"), p.signIn(t, g, "bob")
			sends, curfew := g.ended(t, first, func() { end(t, p, first) })
			bob.in(t, g)
			if strings.Contains(what, "all ") {
				second.out(t, g)
			} else {
				second.in(t, g)
			}
			return sends, curfew
		}}
	}
	return []scenario{
		one("somebody signs out at the provider (`/sign-out`)", func(t *testing.T, p *betterAuth, b *browser) {
			p.call(t, b, "/sign-out", "{}")
		}),
		one("somebody ends all sessions (`/revoke-sessions`)", func(t *testing.T, p *betterAuth, b *browser) {
			p.call(t, b, "/revoke-sessions", "{}")
		}),
		{what: "somebody ends the others (`/revoke-other-sessions`)", run: func(t *testing.T) (string, string) {
			g := newGateway(t)
			p := startBetterAuth(t, 300, g)
			b, there := p.signIn(t, g, "alice"), p.signIn(t, g, "alice")
			sends, curfew := g.ended(t, b, func() { p.call(t, there, "/revoke-other-sessions", "{}") })
			there.in(t, g)
			return sends, curfew
		}},
		{what: "somebody chooses another password (`revokeOtherSessions: true`)",
			run: func(t *testing.T) (string, string) {
				g := newGateway(t)
				p := startBetterAuth(t, 300, g)
				b, there := p.signIn(t, g, "alice"), p.signIn(t, g, "alice")
				return g.ended(t, b, func() {
					p.call(t, there, "/change-password", `{"currentPassword": "password-of-the-tests",
						"newPassword": "another-password", "revokeOtherSessions": true}`)
				})
			}},
		one("an administrator ends all sessions of a person (`/admin/revoke-user-sessions`)",
			func(t *testing.T, p *betterAuth, b *browser) { p.administer(t, b, "/admin/revoke-user-sessions") }),
		one("an administrator bans a person, and all sessions end (`/admin/ban-user`)",
			func(t *testing.T, p *betterAuth, b *browser) { p.administer(t, b, "/admin/ban-user") }),
		{what: "somebody signs out of one of two apps", run: func(t *testing.T) (string, string) {
			g, other := newGateway(t), newGateway(t)
			p := startBetterAuth(t, 300, g, other)
			b := p.signIn(t, g, "alice")
			p.enter(t, b, other, "alice")
			return other.ended(t, b, func() {
				page := b.follow(t, b.post(t, g.url+"/auth/logout", url.Values{}))
				if page.status != http.StatusOK || !strings.HasPrefix(page.url.String(), g.url) {
					t.Fatalf("after signing out, alice should be back at the app: %v", page)
				}
			})
		}},
		{what: "Curfew is away while somebody signs out", run: func(t *testing.T) (string, string) {
			// The refresh token outlives the session there, and userinfo does not: it answers 401 to each new token.
			g := newGateway(t)
			g.yaml(t, "refresh_grace: 5s\n")
			p := startBetterAuth(t, 30, g)
			b := p.signIn(t, g, "alice")
			g.kill()
			p.call(t, b, "/sign-out", "{}")
			g.start(t)
			b.out(t, g)
			return "a logout token, **once**", "ends the session `refresh_grace` after its access token has run out"
		}},
		{what: "requests come together when an access token has run out", run: func(t *testing.T) (string, string) {
			g := newGateway(t)
			p := startBetterAuth(t, 5, g)
			b := p.signIn(t, g, "alice")
			b.refreshedOnce(t, g)
			return "one new refresh token", "uses each once, and the session goes on"
		}},
	}
}
