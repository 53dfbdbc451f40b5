// Package more has the test that drives the examples below with a provider.
package more

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"example.com/curfew/oidc/oidctest"
)

// example is a running example, and the provider that it is registered at.
type example struct {
	t        *testing.T
	site     string
	provider *oidctest.Provider
}

// start builds an example, and runs it.
func start(t *testing.T, name, auth string) *example {
	t.Helper()
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	e := &example{t: t, site: "http://" + address}
	e.provider = oidctest.Start(t, oidctest.Config{AutoLogin: "alice", Clients: []oidctest.Client{{
		ID: "app", Secret: "secret", RedirectURIs: []string{e.site + auth + "/callback"},
		BackchannelLogoutURI: e.site + auth + "/backchannel-logout",
	}}})
	binary := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", binary, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	free.Close()
	cmd := exec.Command(binary, "-listen", address, "-issuer", e.provider.Issuer())
	cmd.Env = append(os.Environ(), "CLIENT_SECRET=secret")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Dir = t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for late := time.Now().Add(time.Minute); ; {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return e
		}
		if time.Now().After(late) {
			t.Fatal(err)
		}
	}
}

// browser returns a browser in which a person signs in when it is asked to.
func (e *example) browser(who *string) *http.Client {
	jar, _ := cookiejar.New(nil)
	return &http.Client{Jar: jar, Timeout: time.Minute, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > 10 {
			return fmt.Errorf("too many redirects")
		}
		if q := r.URL.Query(); q.Has("client_id") {
			q.Set("login_hint", *who)
			r.URL.RawQuery = q.Encode()
		}
		return nil
	}}
}

// want requests a page like a script, which is not redirected to sign in.
func (e *example) want(c *http.Client, method, path string, form url.Values, status int, body string) {
	e.t.Helper()
	var resp *http.Response
	var err error
	if method == "POST" {
		resp, err = c.PostForm(e.site+path, form)
	} else {
		resp, err = c.Get(e.site + path)
	}
	if err != nil {
		e.t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != status || body != "" && string(text) != body {
		e.t.Errorf("%s %s: %d %q, want %d %q", method, path, resp.StatusCode, text, status, body)
	}
}

// logout signs a person out at the provider, which the app must confirm.
func (e *example) logout(who string) {
	e.t.Helper()
	for _, d := range e.provider.Logout(context.Background(), who, "") {
		if !d.OK() {
			e.t.Errorf("the logout is answered %d %s %v", d.Status, d.Body, d.Err)
		}
	}
}

func TestRouters(t *testing.T) {
	for _, name := range []string{"chi", "gin", "echo"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, who := start(t, name, "/auth"), "alice"
			c := e.browser(&who)
			e.want(c, "GET", "/", nil, 401, "")
			e.want(c, "GET", "/auth/login", nil, 200, "alice")
			e.want(c, "GET", "/", nil, 200, "alice")
			e.logout("alice")
			e.want(c, "GET", "/", nil, 401, "")
		})
	}
}

func TestAppsWithSessionsOfTheirOwn(t *testing.T) {
	for name, first := range map[string]string{"scs": "alice, visit 1", "gorilla": "alice"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, who, other := start(t, name, ""), "alice", "bob"
			c, second := e.browser(&who), e.browser(&other)
			e.want(c, "GET", "/", nil, 401, "")
			e.want(c, "GET", "/login", nil, 200, first)
			e.want(second, "GET", "/login", nil, 200, "")
			e.logout("alice")
			e.want(c, "GET", "/", nil, 401, "")
			e.want(second, "GET", "/", nil, 200, "") // nobody else is affected
			who = "bob"
			e.want(c, "GET", "/login", nil, 200, map[string]string{"scs": "bob, visit 1", "gorilla": "bob"}[name])

			// A logout while a sign-in is under way bars it.
			who = "carol"
			late := e.browser(&who)
			follow := late.CheckRedirect
			late.CheckRedirect = func(r *http.Request, via []*http.Request) error {
				if r.URL.Path == "/callback" {
					d := e.provider.Send(context.Background(), e.site+"/backchannel-logout",
						e.provider.SignLogoutToken("app", "carol", ""))
					if !d.OK() {
						t.Errorf("the logout is answered %d %s %v", d.Status, d.Body, d.Err)
					}
				}
				return follow(r, via)
			}
			e.want(late, "GET", "/login", nil, 403, "")
			e.want(late, "GET", "/", nil, 401, "")
		})
	}
}

func TestACartIsTiedToItsSession(t *testing.T) {
	t.Parallel()
	e, who := start(t, "cart", "/auth"), "alice"
	c := e.browser(&who)
	e.want(c, "GET", "/auth/login", nil, 200, "alice: ")
	e.want(c, "POST", "/", url.Values{"add": {"ring"}}, 200, "alice: ring ")
	e.want(c, "GET", "/", nil, 200, "alice: ring ")
	e.logout("alice")
	e.want(c, "GET", "/", nil, 401, "")
	who = "bob"
	e.want(c, "GET", "/auth/login", nil, 200, "bob: ")
	e.want(c, "POST", "/", url.Values{"add": {"book"}}, 200, "bob: book ")
	// Also when one signs in while the other still is.
	who = "carol"
	e.want(c, "GET", "/auth/login?prompt=login", nil, 200, "carol: ")
}
