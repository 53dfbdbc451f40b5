package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/console"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc/oidctest"
)

// command runs a command and returns what it printed, and its exit status.
func command(args ...string) (stdout, stderr string, status int) {
	var out, err bytes.Buffer
	status = runIn(context.Background(), process{stdin: strings.NewReader(""), stdout: &out, stderr: &err}, args)
	return out.String(), err.String(), status
}

// A logout reaches the app; when it does not, whoever is on duty sees it, and has it tried again.
func TestNoticesAreSeenAndSteered(t *testing.T) {
	t.Parallel()
	op := oidctest.Start(t, oidctest.Config{Clients: []oidctest.Client{{ID: "app", Secret: "geheim"}}})
	var well atomic.Bool
	told := make(chan string, 10)
	wiki := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusGone)
			return
		}
		told <- r.PostFormValue("logout_token")
	}))
	defer wiki.Close()
	dir := t.TempDir()
	config := writeFile(t, `
url: http://127.0.0.1:4180
store: sqlite:`+filepath.Join(dir, "curfew.db")+`
providers:
  - issuer: `+op.Issuer()+`
    client_id: app
    client_secret: geheim
    offline_access: revoke
apps:
  - client_id: wiki
    backchannel_logout_uri: `+wiki.URL+`/logout?secret=hunter2
`)
	g := startGateway(t, "--config", config)
	if !strings.Contains(g.start, "told of logouts") || strings.Contains(g.start, "hunter2") {
		t.Errorf("the start says:\n%s", g.start)
	}
	if status, body := g.logout(t, op.SignLogoutToken("app", "alice", "")); status != 200 {
		t.Fatal(status, body)
	}
	admin := []string{"--admin", "http://" + g.private}
	list := func(more ...string) []console.Notice {
		out, stderr, status := command(append(append([]string{"notice", "list", "--json"}, admin...), more...)...)
		if status != 0 {
			t.Fatalf("notice list: %d %s", status, stderr)
		}
		var all []console.Notice
		for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
			var n console.Notice
			if err := d.Decode(&n); err != nil {
				t.Fatal(err)
			}
			all = append(all, n)
		}
		return all
	}
	g.logs.await(t, "next=\"given up\"")
	var dead []console.Notice
	for late := time.Now().Add(time.Minute); len(dead) == 0; { // it is logged a moment before it is written
		if time.Now().After(late) {
			t.Fatal("there is no dead letter")
		}
		dead = list("--state", "dead")
	}
	if dead[0].Target != "wiki" || dead[0].Subject != "alice" || dead[0].Reason != "it answered 410" ||
		len(list("--state", "pending")) != 0 {
		t.Fatalf("dead letters %+v", dead)
	}
	if out, _, status := command(append([]string{"notice", "list"}, admin...)...); status != 0 ||
		!strings.Contains(out, "dead") || !strings.Contains(out, "it answered 410") {
		t.Errorf("notice list: %s", out)
	}
	if out, _, status := command(append([]string{"notice", "show", dead[0].ID}, admin...)...); status != 0 ||
		!strings.Contains(out, `"reason": "it answered 410"`) {
		t.Errorf("notice show: %s", out)
	}
	_, metrics := g.get(t, g.private+"/metrics")
	for _, want := range []string{`curfew_notices_dead{kind="logout",target="wiki"} 1`,
		`curfew_notices_pending{kind="logout",target="wiki"} 0`,
		`curfew_notice_attempts_total{kind="logout",result="error",target="wiki"} 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	well.Store(true)
	if out, stderr, status := command(append([]string{"notice", "retry", "--dead", "--target", "wiki"},
		admin...)...); status != 0 || out != "1 notice tried again\n" {
		t.Fatalf("notice retry: %s%s", out, stderr)
	}
	token := rig.Soon(t, "the app is told", told)
	for _, row := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"notice", "show", "999"}, 1, "there is no such notice"},
		{[]string{"notice", "drop", "999"}, 1, "notice 999: there is no such notice"},
		{[]string{"notice", "retry"}, 2, "name the notices, or say --dead"},
		{[]string{"notice", "drop", "1", "--dead"}, 2, "name the notices, or say --dead"},
		{[]string{"notice", "list", "--state", "lost"}, 1, "state: want pending or dead"},
		{[]string{"notice", "list", "--limit", "0"}, 2, "--limit"},
		{[]string{"notice", "lose"}, 2, `"lose" is not a command of curfew notice`},
	} {
		if _, stderr, status := command(append(row.args, admin...)...); status != row.status ||
			!strings.Contains(stderr, row.says) {
			t.Errorf("%v: %d %q, want %d and %q", row.args, status, stderr, row.status, row.says)
		}
	}
	if _, stderr, status := command("notice", "list", "--admin", "http://127.0.0.1:1"); status != 1 ||
		!strings.Contains(stderr, "does not answer") {
		t.Errorf("without a gateway: %d %s", status, stderr)
	}

	kidOf := func(out string) []string { return strings.Fields(strings.Split(out, "\n")[1]) }
	out, _, _ := command(append([]string{"key", "list"}, admin...)...)
	first := kidOf(out)
	if first[1] != "ES256" || first[len(first)-1] != "signs" {
		t.Errorf("key list: %s", out)
	}
	if out, _, _ = command(append([]string{"key", "rotate"}, admin...)...); strings.Count(out, "\n") != 3 ||
		!strings.Contains(out, "published\n") {
		t.Errorf("key rotate: %s", out)
	}
	if _, body := g.get(t, g.public+"/auth/jwks.json"); strings.Count(body, `"kid"`) != 2 ||
		strings.Contains(body, `"d"`) {
		t.Errorf("jwks: %s", body)
	}
	if out, _, _ = command(append([]string{"key", "rotate", "--now"}, admin...)...); strings.Contains(out, first[0]) ||
		strings.Count(out, "\n") != 2 {
		t.Errorf("key rotate --now: %s", out)
	}
	if _, body := g.get(t, g.public+"/auth/.well-known/openid-configuration"); !strings.Contains(body,
		`"issuer":"http://127.0.0.1:4180/auth"`) {
		t.Errorf("discovery: %s", body)
	}
	g.stop()
	if logs := g.logs.String(); strings.Contains(logs, token) || strings.Contains(logs, "hunter2") {
		t.Error("the log holds a token, or the query of an address")
	}
}

// A page that somebody on duty has open cannot steer notices.
func TestNoOtherSiteSteersNotices(t *testing.T) {
	t.Parallel()
	op := oidctest.Start(t, oidctest.Config{})
	g := startGateway(t, "--url", "http://127.0.0.1:4180", "--issuer", op.Issuer(), "--client-id", "app", "--store",
		"memory:")
	for _, path := range []string{"/api/notices/1/drop", "/api/notices/1/retry", "/api/keys/rotate"} {
		r, _ := http.NewRequest(http.MethodPost, "http://"+g.private+path, nil)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		if status, _ := g.do(t, r); status != http.StatusForbidden {
			t.Errorf("%s from another site: %d", path, status)
		}
		if status, _ := g.get(t, g.private+path); status != http.StatusMethodNotAllowed &&
			status != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, status)
		}
		if status, _ := g.get(t, g.public+path); status != http.StatusNotFound {
			t.Errorf("%s on the public listener: %d", path, status)
		}
	}
	if status, body := g.get(t, g.private+"/api/keys"); status != 404 ||
		!strings.Contains(body, "no apps are configured") {
		t.Errorf("keys without apps: %d %s", status, body)
	}
	if status, _ := g.get(t, g.public+"/auth/jwks.json"); status != 404 {
		t.Errorf("a gateway without apps publishes keys: %d", status)
	}
}

// A name that leads to us today may have led to somebody's page a moment ago: what asks by it may be that page.
func TestThePrivateListenerAnswersToItsOwnNamesAlone(t *testing.T) {
	t.Parallel()
	op := oidctest.Start(t, oidctest.Config{})
	g := startGateway(t, "--url", "http://127.0.0.1:4180", "--issuer", op.Issuer(), "--client-id", "app", "--store",
		"memory:")
	for host, want := range map[string]int{
		"127.0.0.1:4181": 200, "localhost": 200, "LOCALHOST:4181": 200, "[::1]:4181": 200, "[::1]": 200,
		"10.0.0.7:4181": 200,
		"evil.example":  421, "evil.example:4181": 421, "127.0.0.1.evil.example": 421,
		"localhost.evil.example:4181": 421,
	} {
		for _, path := range []string{"/api/notices", "/healthz", "/readyz", "/metrics", "/"} {
			r, _ := http.NewRequest(http.MethodGet, "http://"+g.private+path, nil)
			r.Host = host
			expected := want
			status, body := g.do(t, r)
			if status != expected || status == 421 && !strings.Contains(body, `"error":"this listener goes by`) {
				t.Errorf("%s of %s: %d %s, want %d", path, host, status, body, expected)
			}
		}
	}
	if status, body := g.get(t, g.private+"/metrics"); status != 200 {
		t.Errorf("by its address: %d %s", status, body)
	}
}
