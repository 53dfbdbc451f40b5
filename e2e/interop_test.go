package e2e_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// interop says what the tests of real providers do with the tables in docs/providers: "write" them, or "check" that
// they are as the run finds them. Without it these tests do not run, since they take minutes.
var interop = flag.String("interop", "", "run the scenarios with real providers, and `write` or check their tables")

// scenario is one row of the table of a provider. Run plays it and fails the test where Curfew breaks a promise. What
// it returns are the other cells of the row, as they were observed: what the provider sent, and what came of it here.
// They must be the same in each run, so without times and identifiers.
type scenario struct {
	what  string
	alone bool // no other scenario of the provider may run meanwhile; it is played after the others
	run   func(t *testing.T) (sends, curfew string)
}

// noUserinfo is a setting for access tokens that live for some seconds: on a busy machine they would have expired
// before userinfo is asked.
const noUserinfo = "userinfo: never"

const (
	tableBegins = "<!-- The table is made by `make interop`. -->"
	tableEnds   = "<!-- The end of the table. -->"
)

// needInterop skips the test unless the scenarios are to be played.
func needInterop(t *testing.T) {
	t.Helper()
	switch *interop {
	case "write", "check":
	case "":
		t.Skip("the scenarios with real providers take minutes: make interop")
	default:
		t.Fatalf("-interop=%s: want write or check", *interop)
	}
}

// play plays all scenarios of a provider, prints the table, and writes or checks that of docs/providers/PAGE.md. The
// table is not touched when a scenario failed, was skipped, or was left out by -run. Tested is the line above it.
func play(t *testing.T, page, tested string, all []scenario) {
	t.Helper()
	var mu sync.Mutex
	rows := map[string]string{}
	try := func(t *testing.T, s scenario) {
		sends, curfew := s.run(t)
		if !t.Failed() {
			mu.Lock()
			defer mu.Unlock()
			rows[s.what] = fmt.Sprintf("| %s | %s | %s |\n", s.what, sends, curfew)
		}
	}
	t.Run("together", func(t *testing.T) {
		for _, s := range all {
			if !s.alone {
				t.Run(s.what, func(t *testing.T) { t.Parallel(); try(t, s) })
			}
		}
	})
	for _, s := range all {
		if s.alone {
			t.Run(s.what, func(t *testing.T) { try(t, s) })
		}
	}
	table := new(bytes.Buffer)
	fmt.Fprintf(table, "%s\n\n| what happens | what the provider sends | what Curfew does |\n|---|---|---|\n", tested)
	for _, s := range all {
		table.WriteString(rows[s.what])
	}
	fmt.Printf("\n%s: %d of %d scenarios\n%s\n", page, len(rows), len(all), table)
	if len(rows) == len(all) {
		keepTable(t, filepath.Join("..", "docs", "providers", page+".md"), table.String())
	}
}

// keepTable writes the table into the file, or says how the file differs.
func keepTable(t *testing.T, file, table string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(text), tableBegins+"\n")
	old, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		t.Fatalf("%s has no %s and %s", file, tableBegins, tableEnds)
	}
	switch {
	case old == table:
	case *interop == "check":
		t.Errorf("%s is not what the run finds: run make interop, and look at the difference\nthere:\n%s\nhere:\n%s", file,
			old, table)
	default:
		err := os.WriteFile(file, []byte(before+tableBegins+"\n"+table+tableEnds+after), 0o644)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// newGateway returns a gateway in front of an app. Its client has the number of its port in its name, which nobody else
// has at the same time. It does not run yet.
func newGateway(t *testing.T, flags ...string) *gateway {
	t.Helper()
	g := &gateway{secret: "app-secret-0123456789abcdef0123456789", listen: reserve(t), admin: reserve(t),
		dir: t.TempDir()}
	g.client = "app-" + g.listen[strings.LastIndex(g.listen, ":")+1:]
	g.url = "http://" + g.listen
	g.flags = append([]string{"--listen", g.listen, "--url", g.url, "--upstream", app(t), "--admin-listen", g.admin,
		"--store", "sqlite:" + filepath.Join(g.dir, "curfew.db"), "--client-id", g.client, "--client-secret-file",
		g.write(t, "secret", g.secret), "--config", g.write(t, "curfew.yaml", "pass_access_token: true\n")}, flags...)
	return g
}

// yaml adds lines to the configuration file of the gateway.
func (g *gateway) yaml(t *testing.T, format string, args ...any) {
	t.Helper()
	old, err := os.ReadFile(filepath.Join(g.dir, "curfew.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	g.write(t, "curfew.yaml", string(old)+fmt.Sprintf(format, args...))
}

// provider writes the provider into the configuration file, with settings that are no flags.
func (g *gateway) provider(t *testing.T, issuer string, settings ...string) {
	t.Helper()
	g.flags = g.withoutProvider()
	g.yaml(t, "providers:\n  - name: main\n    issuer: %s\n    client_id: %s\n    client_secret_file: secret\n    %s\n",
		issuer, g.client, strings.Join(settings, "\n    "))
}

// withoutProvider returns the flags of a gateway without those that describe its provider.
func (g *gateway) withoutProvider() (flags []string) {
	for i := 0; i < len(g.flags); i++ {
		if strings.HasPrefix(g.flags[i], "--client-") || g.flags[i] == "--issuer" {
			i++ // its value
			continue
		}
		flags = append(flags, g.flags[i])
	}
	return flags
}

// logouts returns what became of the logout tokens that arrived since the gateway had said from lines.
func (g *gateway) logouts(from int) (results []string) {
	for _, line := range g.since(from) {
		if strings.Contains(line, "event=backchannel_logout ") {
			results = append(results, field(line, "result"))
		}
	}
	return results
}

// field returns a value of a line of the log, up to the next space.
func field(line, name string) string {
	_, rest, _ := strings.Cut(line, " "+name+"=")
	value, _, _ := strings.Cut(rest, " ")
	return value
}

// told returns what the app was told about a request to a page, or why it was not asked.
func (b *browser) told(g *gateway, accept string) (seen, error) {
	p, err := b.try(http.MethodGet, g.url+"/private", nil, "Accept", accept)
	if err != nil {
		return seen{}, err
	}
	var s seen
	if p.status != http.StatusOK || json.Unmarshal([]byte(p.body), &s) != nil {
		return seen{}, fmt.Errorf("%s is not signed in: %v", b.name, p)
	}
	return s, nil
}

// in fails the test unless the browser is signed in.
func (b *browser) in(t *testing.T, g *gateway) {
	t.Helper()
	if _, err := b.told(g, "application/json"); err != nil {
		t.Fatal(err)
	}
}

// out waits until the browser is signed out: a page leads to the sign-in, and an API request is answered 401.
func (b *browser) out(t *testing.T, g *gateway) {
	t.Helper()
	eventually(t, b.name+" is signed out", func() string {
		if p, err := b.try(http.MethodGet, g.url+"/private", nil, "Accept", "application/json"); err != nil {
			return err.Error()
		} else if p.status != http.StatusUnauthorized {
			return p.String()
		}
		return ""
	})
	b.mustBeOut(t, g)
}

// password fills in a form of a provider that asks for a name and a password, and returns where that led.
func (b *browser) password(t *testing.T, p *page, name, password string) *page {
	t.Helper()
	return b.follow(t, b.submit(t, p, url.Values{"username": {name}, "password": {password}}))
}

// ended does something at the provider that is to end the session of a browser. It returns what the provider sent, and
// how the session ended here. It fails if the session does not end.
func (g *gateway) ended(t *testing.T, b *browser, what func()) (sends, curfew string) {
	t.Helper()
	b.in(t, g)
	from := g.said()
	what()
	b.out(t, g)
	return g.sent(t, from)
}

// sent returns what the provider has sent since the gateway had said from lines, and what came of it, for a session
// that has ended since.
func (g *gateway) sent(t *testing.T, from int) (sends, curfew string) {
	t.Helper()
	var results []string
	eventually(t, "the log says why the session has ended", func() string { // it says so a moment later
		refused := slices.ContainsFunc(g.since(from), func(line string) bool {
			return strings.Contains(line, "event=session_ended")
		})
		results = g.logouts(from)
		return unless(refused || len(results) > 0, "%s", strings.Join(g.since(from), "\n"))
	})
	for _, r := range results {
		if r != "ok" {
			t.Errorf("a logout token was answered %q: %s", r, strings.Join(g.since(from), "\n"))
		}
	}
	if len(results) == 0 {
		return "**nothing**", "ends the session when it next refreshes it"
	}
	return "a logout token", "ends the session at once"
}

// refreshed waits until the session of a browser has another access token than now.
func (g *gateway) refreshed(t *testing.T, b *browser) {
	t.Helper()
	first, err := b.told(g, "application/json")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session is refreshed", func() string {
		next, err := b.told(g, "application/json")
		if err != nil {
			t.Fatal(err)
		}
		return unless(next.Header.Get("Authorization") != first.Header.Get("Authorization"), "the same access token")
	})
}

// kept does something at the provider after which a session goes on. It returns what the provider sent.
func (g *gateway) kept(t *testing.T, b *browser, what func()) (sends, curfew string) {
	t.Helper()
	from := g.said()
	what()
	g.refreshed(t, b)
	sends = "**nothing**"
	if len(g.logouts(from)) > 0 {
		sends = "a logout token"
	}
	return sends, "refreshes the session, which goes on there too"
}
