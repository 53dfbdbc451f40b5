package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/oauth2proxy"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/store/memory"
)

// These examples are those of oauth2-proxy's documentation, written anew; page names the page. The answers were
// written down from there. With OAUTH2_PROXY=/path/of/oauth2-proxy in the environment the test also asks the program
// itself (7.15.6 gave these answers).

// asked is a request, and whether it reaches the app. An answer of the two programs differs only if why says so.
type asked struct {
	who    string // alice, bob, or "" for somebody without a session
	method string
	path   string
	reach  bool // it reaches the app, or is answered 202
	curfew bool // what Curfew answers, if why is not empty
	why    string
}

type example struct {
	page, name string
	args       []string
	asked      []asked
}

func decisions() []example {
	get := func(who, path string, reach bool) asked {
		return asked{who: who, method: "GET", path: path, reach: reach}
	}
	everybody := "--email-domain=*"
	return []example{
		{"Endpoints", "everything needs a sign-in", []string{everybody}, []asked{
			get("", "/", false), get("alice", "/", true), get("bob", "/a/b?c=d", true),
			{who: "alice", method: "POST", path: "/form", reach: true},
			get("", "/oauth2/auth", false), get("alice", "/oauth2/auth", true),
		}},
		{"Endpoints", "the auth endpoint takes restrictions from its query", []string{everybody}, []asked{
			get("alice", "/oauth2/auth?allowed_groups=staff,ops", true),
			get("alice", "/oauth2/auth?allowed_groups=ops", false),
			get("bob", "/oauth2/auth?allowed_groups=staff", false),
			get("alice", "/oauth2/auth?allowed_emails=alice@corp.example", true),
			get("alice", "/oauth2/auth?allowed_emails=bob@other.example", false),
			get("alice", "/oauth2/auth?allowed_email_domains=corp.example", true),
			get("bob", "/oauth2/auth?allowed_email_domains=corp.example", false),
			get("alice", "/oauth2/auth?allowed_groups=staff&allowed_email_domains=other.example", false),
			get("", "/oauth2/auth?allowed_groups=staff", false),
		}},
		{"Overview", "skip-auth-route with a method", []string{everybody,
			"--skip-auth-route=GET=^/api/status$,POST=^/api/saved_objects/_import$"}, []asked{
			get("", "/api/status", true), get("", "/api/status?full=1", true), get("", "/api/other", false),
			{who: "", method: "POST", path: "/api/status"},
			{who: "", method: "POST", path: "/api/saved_objects/_import", reach: true},
			get("", "/api/saved_objects/_import", false),
			get("", "/x/api/status", false), get("", "/api/statuses", false),
			{"", "HEAD", "/api/status", false, true, "a rule for GET covers HEAD"},
			{"", "GET", "/api/status/", false, true, "a path with and without a slash at its end are one"},
		}},
		{"Overview", "skip-auth-route of all methods, below a path", []string{everybody, "--skip-auth-route=^/public/"},
			[]asked{
				get("", "/public/a", true), get("", "/public/a/b.css", true), get("", "/private/public/a", false),
				{who: "", method: "DELETE", path: "/public/a", reach: true},
				get("", "/publication", false), get("alice", "/private", true),
				// "Skip-auth path matching": an ambiguous path grants no exemption.
				get("", "/public/%2e%2e/private", false), get("", "/public/..%2fprivate", false),
				get("", "/public/a;b", false), get("", "/public/a%5cb", false),
				{"", "GET", "/public", false, true, "a path with and without a slash at its end are one"},
				{"alice", "GET", "/public/a;b", true, false, "with a policy an ambiguous path is answered 400"},
			}},
		{"Overview", "skip-auth-route with !=", []string{everybody, "--skip-auth-route=!=^/admin/"}, []asked{
			get("", "/", true), get("", "/docs/a", true), get("", "/admin/users", false),
			get("alice", "/admin/users", true), get("", "/administration", true),
			{"", "GET", "/Admin/users", true, false, "many apps take /Admin for /admin"},
		}},
		{"Overview", "skip-auth-preflight", []string{everybody, "--skip-auth-preflight"}, []asked{
			{who: "", method: "OPTIONS", path: "/api", reach: true}, get("", "/api", false),
		}},
		{"Overview", "email-domain", []string{"--email-domain=corp.example"}, []asked{
			get("alice", "/", true), get("bob", "/", false), get("", "/", false),
		}},
		{"Overview", "two email domains", []string{"--email-domain=corp.example", "--email-domain=other.example"},
			[]asked{get("alice", "/", true), get("bob", "/", true), get("carol", "/", false)}},
		{"Overview", "allowed-group", []string{everybody, "--allowed-group=staff"}, []asked{
			get("alice", "/", true), get("bob", "/", false), get("", "/", false),
		}},
		{"Overview", "a group and an exemption", []string{everybody, "--allowed-group=staff",
			"--skip-auth-route=^/health$"}, []asked{
			get("bob", "/health", true), get("bob", "/", false), get("", "/health", true),
		}},
	}
}

func TestImportedDecisionsAreThoseOfOAuth2Proxy(t *testing.T) {
	t.Parallel()
	binary := os.Getenv("OAUTH2_PROXY")
	if binary == "" {
		t.Log("oauth2-proxy itself is not asked: set OAUTH2_PROXY to the file of the program")
	}
	app := rig.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "the app") }))
	provider := oidctest.Start(t, oidctest.Config{AutoLogin: "alice", Users: []oidctest.User{
		{Subject: "alice", Email: "alice@corp.example", Claims: map[string]any{"groups": []string{"staff", "a,b"},
			"email_verified": true}},
		{Subject: "bob", Email: "bob@other.example", Claims: map[string]any{"email_verified": true}},
		{Subject: "carol", Email: "carol@third.example", Claims: map[string]any{"email_verified": true}},
	}})
	for _, e := range decisions() {
		t.Run(e.page+": "+e.name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"--provider=oidc", "--oidc-issuer-url=" + provider.Issuer(), "--upstream=" + app.URL,
				"--client-secret=secret", "--skip-provider-button", "--cookie-secure=false",
				"--code-challenge-method=S256"}, e.args...)
			ours := serveImported(t, provider, args)
			answers := map[string]string{"curfew": ours}
			if binary != "" {
				answers["oauth2-proxy"] = serveOAuth2Proxy(t, binary, provider, args)
			}
			for program, site := range answers {
				people := map[string]*http.Client{"": browserOf(t, site, "")}
				for _, a := range e.asked {
					if people[a.who] == nil {
						people[a.who] = browserOf(t, site, a.who)
					}
					want := a.reach
					if program == "curfew" && a.why != "" {
						want = a.curfew
					}
					r, _ := http.NewRequest(a.method, site, nil)
					r.URL.Opaque = "//" + r.URL.Host + a.path // as it is, without cleaning
					resp, err := people[a.who].Do(r)
					if err != nil {
						t.Fatal(err)
					}
					body, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					reached := resp.StatusCode == 202 || resp.StatusCode == 200 &&
						(string(body) == "the app" || a.method == "HEAD")
					if reached != want {
						t.Errorf("%s: %s %s of %q: %d, reaches the app: %v, want %v", program, a.method, a.path, a.who,
							resp.StatusCode, reached, want)
					}
				}
			}
		})
	}
}

// serveImported serves Curfew with the imported configuration, and returns its address.
func serveImported(t *testing.T, provider *oidctest.Provider, args []string) string {
	t.Helper()
	front := httptest.NewUnstartedServer(nil)
	front.Listener.Close()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front.Listener = listener
	site := "http://" + listener.Addr().String()
	id := "curfew-" + listener.Addr().String()
	args = append(args, "--client-id="+id, "--redirect-url="+site+"/oauth2/callback")
	provider.SetClient(oidctest.Client{ID: id, Secret: "secret", RedirectURIs: []string{site + "/oauth2/callback"}})

	dir := t.TempDir()
	files := oauth2proxy.Files{Config: filepath.Join(dir, "curfew.yaml"), Secret: filepath.Join(dir, "secret"),
		Env: filepath.Join(dir, "env")}
	made, err := oauth2proxy.Translate(args, nil, files)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeImported(made, files, false); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(map[string]string{"config": files.Config}, nil)
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	rp, err := curfew.New(context.Background(), c.RelyingParty(memory.New(), rig.Keyring(t), quiet, curfew.Observer{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rp.Close() })
	apps, err := c.Router(rp)
	if err != nil {
		t.Fatal(err)
	}
	front.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, c.Prefix+"/") {
			rp.Handler().ServeHTTP(w, r)
			return
		}
		apps.ServeHTTP(w, r)
	})
	front.Start()
	t.Cleanup(front.Close)
	return site
}

// serveOAuth2Proxy runs the program, and returns its address.
func serveOAuth2Proxy(t *testing.T, binary string, provider *oidctest.Provider, args []string) string {
	t.Helper()
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	site, id := "http://"+address, "oauth2-proxy-"+address
	provider.SetClient(oidctest.Client{ID: id, Secret: "secret", RedirectURIs: []string{site + "/oauth2/callback"}})
	var logs strings.Builder
	cmd := exec.Command(binary, append(args, "--http-address="+address, "--client-id="+id,
		"--redirect-url="+site+"/oauth2/callback", "--scope=openid email profile",
		"--cookie-secret="+base64.URLEncoding.EncodeToString(make([]byte, 32)))...)
	cmd.Stdout, cmd.Stderr = &logs, &logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(logs.String())
		}
	})
	rig.Poll(t, "oauth2-proxy answers", func() bool {
		resp, err := http.Get(site + "/ping")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == 200
	})
	return site
}

// browserOf returns a browser that follows no redirect, after it has tried to sign somebody in.
func browserOf(t *testing.T, site, who string) *http.Client {
	t.Helper()
	jar, _ := cookiejar.New(nil)
	c := &http.Client{Jar: jar, Timeout: 2 * time.Minute}
	if who != "" {
		c.CheckRedirect = func(r *http.Request, via []*http.Request) error {
			if len(via) > 10 {
				return fmt.Errorf("too many redirects")
			}
			if q := r.URL.Query(); q.Has("client_id") {
				q.Set("login_hint", who)
				r.URL.RawQuery = q.Encode()
			}
			return nil
		}
		resp, err := c.Get(site + "/oauth2/start?rd=" + url.QueryEscape("/"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}
