package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/curfew/audit"
	"example.com/curfew/console"
	"example.com/curfew/keyring"
	"example.com/curfew/oidc/oidctest"
)

// person is somebody's browser.
type person struct {
	t      *testing.T
	client *http.Client
}

// arrive returns a browser for which the gateway is at http://127.0.0.1:4180.
func (g *gateway) arrive(t *testing.T, agent string) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "127.0.0.1:4180" {
				addr = g.public
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}}
	return &person{t, &http.Client{Jar: jar, Timeout: time.Minute, Transport: agentTransport{transport, agent}}}
}

type agentTransport struct {
	*http.Transport
	agent string
}

func (a agentTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("User-Agent", a.agent)
	return a.Transport.RoundTrip(r)
}

func (b *person) get(path string) int {
	b.t.Helper()
	resp, err := b.client.Get("http://127.0.0.1:4180" + path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// signIn signs in as a user of a provider with AutoLogin. It is a new session there too: while the tokens of one that
// was ended here are being revoked, the provider may refuse what else comes of it.
func (b *person) signIn(sub string) {
	b.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.client.Jar = jar
	b.get("/auth/login?login_hint=" + sub)
	if status := b.get("/auth/session"); status != http.StatusOK {
		b.t.Fatalf("%s did not get in: %d", sub, status)
	}
}

func (b *person) wantIn(want bool) {
	b.t.Helper()
	if status := b.get("/auth/session"); (status == http.StatusOK) != want {
		b.t.Errorf("/auth/session: %d, want in: %v", status, want)
	}
}

// operated is a gateway with an operator.
type operated struct {
	*gateway
	t     *testing.T
	op    *oidctest.Provider
	audit string // the file
}

// signInThree signs alice in with a phone and a laptop, and bob with a browser.
func (g *gateway) signInThree(t *testing.T) (phone, laptop, bob *person) {
	t.Helper()
	phone, laptop, bob = g.arrive(t, "Phone/1"), g.arrive(t, "Laptop/2"), g.arrive(t, "Bob/3")
	phone.signIn("alice")
	laptop.signIn("alice")
	bob.signIn("bob")
	return phone, laptop, bob
}

func operate(t *testing.T, more ...string) *operated {
	t.Helper()
	return operateReplicas(t, []string{"sqlite:" + filepath.Join(t.TempDir(), "curfew.db")}, more...)[0]
}

// operateReplicas starts a gateway for each address of a store; they are replicas if it is the same store.
func operateReplicas(t *testing.T, stores []string, more ...string) (all []*operated) {
	t.Helper()
	op := oidctest.Start(t, oidctest.Config{AutoLogin: "alice", Clients: []oidctest.Client{{ID: "app", Secret: "geheim",
		RedirectURIs: []string{"http://127.0.0.1:4180/auth/callback"}}}})
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.jsonl")
	secret, key := filepath.Join(dir, "secret"), filepath.Join(dir, "curfew.key")
	for path, text := range map[string]string{secret: "geheim", key: string(keyring.NewFile())} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, address := range stores {
		g := startGateway(t, append([]string{"--url", "http://127.0.0.1:4180", "--issuer", op.Issuer(), "--client-id", "app",
			"--client-secret-file", secret, "--store", address, "--key-file", key, "--audit-file", file}, more...)...)
		all = append(all, &operated{g, t, op, file})
	}
	return all
}

// run runs a command as an operator.
func (o *operated) run(args ...string) (stdout, stderr string, status int) {
	return o.runWith("", args...)
}

func (o *operated) runWith(stdin string, args ...string) (stdout, stderr string, status int) {
	var out, err bytes.Buffer
	args = append(args, "--admin", "http://"+o.private)
	status = runIn(context.Background(), process{stdin: strings.NewReader(stdin), stdout: &out, stderr: &err,
		environ: []string{"USER=olga", "HOME=/"}}, args)
	return out.String(), err.String(), status
}

// want runs a command and returns what it printed, if it ended with this status.
func (o *operated) want(status int, args ...string) string {
	o.t.Helper()
	out, stderr, got := o.run(args...)
	if got != status {
		o.t.Fatalf("curfew %s: exit status %d, want %d\n%s%s", strings.Join(args, " "), got, status, out, stderr)
	}
	return out
}

func (o *operated) list(args ...string) (all []console.Session) {
	o.t.Helper()
	out := o.want(0, append([]string{"session", "list", "--json"}, args...)...)
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var s console.Session
		if err := d.Decode(&s); err != nil {
			o.t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// happened waits until an event of the journal matches, and returns it.
func (o *operated) happened(what string, match func(audit.Event) bool) audit.Event {
	o.t.Helper()
	for late := time.Now().Add(time.Minute); ; {
		out := o.want(0, "events", "--json", "--limit", "1000")
		for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
			var e audit.Event
			if err := d.Decode(&e); err != nil {
				o.t.Fatal(err)
			}
			if match(e) {
				return e
			}
		}
		if time.Now().After(late) {
			o.t.Fatalf("no event says: %s\n%s", what, out)
		}
	}
}

func TestAnIDThatBeginsWithADashIsNotAFlag(t *testing.T) {
	t.Parallel()
	const id, other, handle = "-A50fw.OA0YljuvxOKs", "--50fw.-A0YljuvxOKs", "-A0YljuvxOKs"
	for _, row := range []struct{ args, want string }{
		{"session end " + id, "session end -- " + id},
		{"session end " + id + " x --json " + other, "session end x --json -- " + id + " " + other},
		{"session show " + handle + " --admin http://x", "session show --admin http://x -- " + handle},
		{"session end --json " + id, "session end --json -- " + id},
		{"session end " + id + " -- " + other, "session end -- " + id + " " + other},
		// The value of a flag, and what is no ID.
		{"session end --sub " + id, "session end --sub " + id},
		{"session end --sub=" + id, "session end --sub=" + id},
		{"session end --admin " + handle, "session end --admin " + handle},
		{"session end -- " + id, "session end -- " + id},
		{"session end --everything", "session end --everything"},
		{"session list " + id, "session list " + id},
		{"nonsense " + id, "nonsense " + id},
	} {
		got := strings.Join(idsLast(newRoot(&process{}), strings.Fields(row.args)), " ")
		if got != row.want {
			t.Errorf("curfew %s: read as %s, want %s", row.args, got, row.want)
		}
	}
}

func TestAnOperatorFindsAndEndsSessions(t *testing.T) {
	t.Parallel()
	o := operate(t)
	phone, laptop, bob := o.signInThree(t)

	if all := o.list(); len(all) != 3 {
		t.Fatalf("%d sessions, want 3: %+v", len(all), all)
	}
	alice := o.list("--sub", "alice")
	if len(alice) != 2 || alice[0].Provider != "main" || alice[0].Address != "127.0.0.1" || alice[0].SID == "" {
		t.Fatalf("alice's sessions: %+v", alice)
	}
	var onPhone console.Session
	for _, s := range alice {
		if s.UserAgent == "Phone/1" {
			onPhone = s
		}
	}
	for _, row := range []struct {
		why  string
		args []string
		want int
	}{
		{"a sid", []string{"--sid", onPhone.SID}, 1},
		{"a sid of somebody else", []string{"--sid", onPhone.SID, "--sub", "bob"}, 0},
		{"an unknown subject", []string{"--sub", "Alice"}, 0},
		{"an e-mail address, in any case", []string{"--email", strings.ToUpper(onPhone.Email)}, 2},
		{"another e-mail address", []string{"--email", "nobody@example.com"}, 0},
		{"an address", []string{"--address", "127.0.0.1"}, 3},
		{"another address", []string{"--address", "127.0.0.2"}, 0},
		{"a provider", []string{"--provider", "main"}, 3},
		{"an age", []string{"--since", "1h"}, 3},
		{"an age that none has", []string{"--before", "1h"}, 0},
		{"a limit", []string{"--limit", "2"}, 2},
	} {
		if got := o.list(row.args...); len(got) != row.want {
			t.Errorf("%s: %d sessions, want %d: %+v", row.why, len(got), row.want, got)
		}
	}
	table := o.want(0, "session", "list", "--sub", "alice")
	for _, want := range []string{"ID ", "SUBJECT", onPhone.ID, "alice", "127.0.0.1"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
	if out := o.want(0, "session", "show", onPhone.ID); !strings.Contains(out, `"user_agent": "Phone/1"`) {
		t.Errorf("session show: %s", out)
	}
	o.happened("alice signed in", func(e audit.Event) bool { return e.Session == onPhone.ID })
	if out := o.want(0, "session", "show", onPhone.Handle); !strings.Contains(out, onPhone.ID) {
		t.Errorf("session show with the name of log lines: %s", out)
	}
	for _, row := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"session", "show", "nonsense"}, 1, "there is no such session"},
		{[]string{"session", "show", "AAAAAA.AAAAAAAAAAAA"}, 1, "there is no such session"},
		{[]string{"session", "show", "AAAAAAAAAAAA"}, 1, "no session of this name"},
		{[]string{"session", "show", "-AAAAA.AAAAAAAAAAAA"}, 1, "there is no such session"},
		{[]string{"session", "show", "--AAAA.AAAAAAAAAAAA"}, 1, "there is no such session"},
		{[]string{"session", "show", "-AAAAAAAAAAA"}, 1, "no session of this name"},
		{[]string{"session", "end", "-AAAAA.AAAAAAAAAAAA"}, 1, "there is no such session"},
		{[]string{"session", "end", "--providers"}, 2, "unknown flag: --providers"},
		{[]string{"session", "end", "--everything"}, 2, "unknown flag: --everything"},
		{[]string{"session", "end"}, 2, "say which"},
		{[]string{"session", "end", "--all"}, 2, "say which"},
		{[]string{"session", "end", "--sub", "alice", "--sid", "x"}, 2, "say which"},
		{[]string{"session", "end", "--sub", "alice", "--provider", "nope"}, 1, `there is no provider "nope"; there is main`},
		{[]string{"session", "end", "--provider", "main", "--all"}, 1, "not confirmed: nothing was done"},
		{[]string{"session", "list", "--since", "yesterday"}, 1, "since: want how long ago"},
		{[]string{"session", "list", "--limit", "0"}, 2, "--limit"},
		{[]string{"events", "--type", "party", "--limit", "1"}, 1, "there is no such type"},
	} {
		if out, stderr, status := o.run(row.args...); status != row.status || !strings.Contains(stderr, row.says) {
			t.Errorf("curfew %v: %d %s%q, want %d and %q", row.args, status, out, stderr, row.status, row.says)
		}
	}
	phone.wantIn(true)

	// One session.
	if out := o.want(0, "session", "end", onPhone.ID); out != "1 session ended\n" {
		t.Errorf("session end: %s", out)
	}
	phone.wantIn(false)
	laptop.wantIn(true)
	bob.wantIn(true)
	ending := o.happened("what olga did", func(e audit.Event) bool { return e.Action == "end_session" })
	if !strings.HasPrefix(ending.Actor, "olga@") || ending.Session != onPhone.ID || ending.Subject != "alice" ||
		ending.Address != "127.0.0.1" || ending.Result != audit.OK {
		t.Errorf("the action of the operator: %+v", ending)
	}
	o.happened("the session ended", func(e audit.Event) bool {
		return e.Type == audit.SessionEnded && e.Session == onPhone.ID && e.Cause == "admin"
	})
	if out := o.want(3, "why", "alice"); !strings.Contains(out, "alice can get in: 1 session") ||
		!strings.Contains(out, "others ended") {
		t.Errorf("why alice: %s", out)
	}

	// All of a person.
	if out := o.want(0, "session", "end", "--sub", "alice"); out != "1 session ended\n" {
		t.Errorf("session end --sub: %s", out)
	}
	laptop.wantIn(false)
	bob.wantIn(true)
	if out := o.want(0, "why", "alice"); !strings.Contains(out, "cannot get in") ||
		!strings.Contains(out, "an operator ended it") {
		t.Errorf("why alice: %s", out)
	}
	laptop.signIn("alice") // a new sign-in is welcome

	// All of a provider.
	if _, stderr, status := o.runWith("mian\n", "session", "end", "--provider", "main", "--all"); status != 1 ||
		!strings.Contains(stderr, `Type "main" to go on`) {
		t.Errorf("a wrong confirmation: %d %s", status, stderr)
	}
	bob.wantIn(true)
	if out, stderr, status := o.runWith("main\n", "session", "end", "--provider", "main", "--all"); status != 0 ||
		out != "2 sessions ended\n" {
		t.Errorf("session end --all: %d %s%s", status, out, stderr)
	}
	bob.wantIn(false)
	laptop.wantIn(false)
	bob.signIn("bob")
	if out := o.want(0, "session", "end", "--provider", "main", "--all", "--yes", "--json"); out != `{"ended":1}`+"\n" {
		t.Errorf("session end --all --yes: %s", out)
	}
	o.stop()
	text, err := os.ReadFile(o.audit)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	counted := map[string]int{}
	for _, l := range lines {
		var e struct {
			Class    int `json:"class_uid"`
			Activity int `json:"activity_id"`
			Type     int `json:"type_uid"`
			Unmapped struct{ Type string }
		}
		if err := json.Unmarshal([]byte(l), &e); err != nil || e.Type != e.Class*100+e.Activity {
			t.Errorf("the audit file has %s: %v", l, err)
		}
		counted[e.Unmapped.Type]++
	}
	if counted["sign_in"] != 5 || counted["session_ended"] != 5 || counted["operator"] != 4 {
		t.Errorf("the audit file has %v\n%s", counted, text)
	}
	if info, err := os.Stat(o.audit); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the audit file: %v %v", info.Mode(), err)
	}
}

// A provider's logout is refused: within a minute the operator sees which check failed, and whose logout it was.
func TestAnOperatorSeesWhyALogoutWasRefused(t *testing.T) {
	t.Parallel()
	o := operate(t)
	alice := o.arrive(t, "Phone/1")
	alice.signIn("alice")
	token := o.op.SignLogoutToken("app", "alice", "", func(j *oidctest.JWT) {
		j.Claims["aud"] = "another"
		j.Claims["note"] = "private"
	})
	if status, _ := o.logout(t, token); status != 400 {
		t.Fatalf("the token was answered %d", status)
	}
	refused := o.happened("the token was refused", func(e audit.Event) bool {
		return e.Type == audit.BackchannelLogout && e.Result == "refused"
	})
	if refused.Check != "aud" || refused.Subject != "alice" || !refused.Claimed || refused.Provider != "main" ||
		refused.Claims["aud"] != "another" || refused.Claims["note"] != "(not shown)" || refused.Address != "127.0.0.1" {
		t.Errorf("the event: %+v", refused)
	}
	out := o.want(3, "why", "alice")
	if !strings.Contains(out, "can get in: 1 session") || !strings.Contains(out, `check "aud"`) {
		t.Errorf("why alice: %s", out)
	}
	if out := o.want(0, "events", "--result", "refused", "--limit", "5"); !strings.Contains(out, "check=aud") ||
		!strings.Contains(out, "claims: sub=alice") {
		t.Errorf("events: %s", out)
	}
	// The provider mends it.
	if status, _ := o.logout(t, o.op.SignLogoutToken("app", "alice", "")); status != 200 {
		t.Fatalf("the token was answered %d", status)
	}
	o.happened("alice's session ended", func(e audit.Event) bool { return e.Cause == "backchannel" })
	if out := o.want(0, "why", "alice"); !strings.Contains(out, "the provider sent a logout token") ||
		strings.Contains(out, "was not carried out") {
		t.Errorf("why alice: %s", out)
	}
	if strings.Contains(o.logs.String(), "private") {
		t.Error("the log has a claim that is not its business")
	}
}

func TestAPersonIsExportedAndForgotten(t *testing.T) {
	t.Parallel()
	o := operate(t)
	o.op.Mangle(func(m *oidctest.Mangle) {
		m.IDToken = func(j *oidctest.JWT) { j.Claims["tenant"] = json.Number("12345678901234567890") }
	})
	alice, bob := o.arrive(t, "Phone/1"), o.arrive(t, "Bob/3")
	alice.signIn("alice")
	bob.signIn("bob")
	o.happened("both signed in", func(e audit.Event) bool { return e.Type == audit.SignIn && e.Subject == "bob" })
	var all console.Export
	out := o.want(0, "person", "export", "alice")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, `"tenant": 12345678901234567890`) {
		t.Errorf("a number has other digits: %s", out)
	}
	if len(all.Sessions) != 1 || all.Sessions[0].Claims["email"] == nil || len(all.Events) != 1 ||
		all.Events[0].Type != audit.SignIn {
		t.Errorf("export: %+v", all)
	}
	if _, stderr, status := o.runWith("bob\n", "person", "forget", "alice"); status != 1 ||
		!strings.Contains(stderr, "not confirmed") {
		t.Errorf("person forget without confirmation: %d %s", status, stderr)
	}
	alice.wantIn(true)
	if out, _, status := o.runWith("alice\n", "person", "forget", "alice"); status != 0 ||
		!strings.HasPrefix(out, "1 session ended, ") {
		t.Errorf("person forget: %d %s", status, out)
	}
	alice.wantIn(false)
	bob.wantIn(true)
	o.happened("it is recorded", func(e audit.Event) bool { return e.Action == "forget_person" })
	if out := o.want(0, "events", "--limit", "1000", "--json"); strings.Contains(out, "alice") ||
		!strings.Contains(out, "forget_person") || !strings.Contains(out, "bob") {
		t.Errorf("after alice was forgotten the events are:\n%s", out)
	}
	if out := o.want(0, "why", "alice"); !strings.Contains(out, "nothing is known") {
		t.Errorf("why: %s", out)
	}
}

// Events come as they happen.
func TestEventsAreFollowed(t *testing.T) {
	t.Parallel()
	o := operate(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := newBuffer()
	ended := make(chan int, 1)
	go func() {
		ended <- runIn(ctx, process{stdin: strings.NewReader(""), stdout: out, stderr: out},
			[]string{"events", "--admin", "http://" + o.private})
	}()
	b := o.arrive(t, "Phone/1")
	b.signIn("alice")
	out.await(t, "sub=alice")
	if status, _ := o.logout(t, o.op.SignLogoutToken("app", "alice", "")); status != 200 {
		t.Fatalf("the token was answered %d", status)
	}
	out.await(t, "cause=backchannel")
	cancel()
	select {
	case status := <-ended:
		if status != 0 {
			t.Errorf("interrupted, it ends with %d", status)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	if n := strings.Count(out.String(), "sign_in"); n != 1 {
		t.Errorf("the sign-in was shown %d times:\n%s", n, out)
	}
}
