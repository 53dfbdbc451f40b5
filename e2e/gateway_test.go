package e2e_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// gateway is `curfew serve` before an app, with a store of its own.
type gateway struct {
	*child
	client, secret string
	url            string // as browsers know it
	listen, admin  string
	dir            string          // its database, key ring and secret
	flags          []string        // of serve and check
	env            []string        // of both
	more           map[string]any  // of its metadata at the provider
	program        string          // in place of the command as it is shipped
	front          string          // where it is reached, if not at listen
	clock          func() []string // what sets its clock off, for each start
}

// app is an upstream: it answers with the headers of the request, and knows nothing of sign-in.
func app(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(seen{Path: r.URL.RequestURI(), Header: r.Header})
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// seen is what the app was told.
type seen struct {
	Path    string
	Header  http.Header
	Trailer http.Header
}

// world has a provider with one gateway, or several, before one app each. None of them runs yet. Options change them
// before the provider is told of its clients.
func world(t *testing.T, clients ...string) (*provider, []*gateway) {
	t.Helper()
	need(t)
	addr := reserve(t)
	p := &provider{issuer: "http://" + addr, port: addr[strings.LastIndex(addr, ":")+1:], alg: "RS256"}
	for _, client := range clients {
		g := &gateway{client: client, secret: client + "-secret-0123456789abcdef0123456789", listen: reserve(t),
			admin: reserve(t), dir: t.TempDir()}
		g.url = "http://" + g.listen
		g.flags = []string{"--listen", g.listen, "--url", g.url, "--issuer", p.issuer, "--client-id", g.client,
			"--client-secret-file", g.write(t, "secret", g.secret), "--upstream", app(t), "--admin-listen", g.admin,
			"--store", "sqlite:" + filepath.Join(g.dir, "curfew.db")}
		p.apps = append(p.apps, g)
	}
	return p, p.apps
}

// write puts a file into the directory of the gateway, readable by nobody else.
func (g *gateway) write(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(g.dir, name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// start has it run on the database that it had before, if there was one.
func (g *gateway) start(t *testing.T) {
	t.Helper()
	g.child = start(t, "the gateway of "+g.client, g.dir, append(environ(), g.env...),
		append([]string{curfew(t), "serve"}, g.flags...)...)
	g.await(t, "event=serving", 0, func(line string) bool { return strings.Contains(line, "event=serving") })
}

// environ is the environment without what configures the command.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CURFEW_") })
}

// ready returns what /readyz says.
func (g *gateway) ready(t *testing.T) *page {
	t.Helper()
	return newBrowser("the supervisor").get(t, "http://"+g.admin+"/readyz")
}

// metric returns the lines of /metrics that begin so.
func (g *gateway) metric(t *testing.T, prefix string) (lines []string) {
	t.Helper()
	for line := range strings.Lines(newBrowser("the supervisor").get(t, "http://"+g.admin+"/metrics").body) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// eventually asks until there is nothing left to wait for; a machine may take long.
func eventually(t *testing.T, what string, missing func() string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		why := missing()
		if why == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s: %s", patience, what, why)
		}
	}
}
