package e2e_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// readme returns the fenced blocks of README.md in one language, with the addresses of the examples replaced by those
// of this test. It fails when an address is not there any more: then the test would try something else.
func readme(t *testing.T, language string, replace map[string]string) []string {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllSubmatch(text, -1) {
		blocks = append(blocks, string(m[1]))
	}
	all := strings.Join(blocks, "\x00")
	var pairs []string
	for from, to := range replace {
		if !strings.Contains(all, from) {
			t.Fatalf("the %s blocks of the README no longer hold %q", language, from)
		}
		pairs = append(pairs, from, to)
	}
	// All at once: an address that comes may begin with one that goes.
	return strings.Split(strings.NewReplacer(pairs...).Replace(all), "\x00")
}

// source is the absolute path of the repository.
func source(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// script runs commands of the README in a directory, as a person would type them. The last one, which begins with
// the given word, goes on running; the others are over when script returns, however long they take.
func script(t *testing.T, dir string, env []string, commands, last string) *child {
	t.Helper()
	at := strings.LastIndex("\n"+commands, "\n"+last)
	if at < 0 {
		t.Fatalf("the README no longer runs %s:\n%s", last, commands)
	}
	first := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", commands[:at])
	first.Dir, first.Env = dir, env
	if out, err := first.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, commands[:at], out)
	}
	// exec, so that the signal which ends it reaches it and not the shell.
	return start(t, "the README", dir, env, "bash", "-euo", "pipefail", "-c", "exec env "+commands[at:])
}

// The Go program of the README is a whole one: it is built by the commands there, signs somebody in with a real
// provider, greets them by name, and a logout at the provider ends the session.
func TestReadmeProgram(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app")
	g := gs[0]
	p.start(t)
	dir := t.TempDir()
	program := readme(t, "go", map[string]string{"https://id.example.com": p.issuer, "127.0.0.1:3000": g.listen})[0]
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	commands := readme(t, "sh", map[string]string{"=../curfew": "=" + source(t), "…": g.secret})[0]
	fetch, run, found := strings.Cut(commands, "CLIENT_SECRET=")
	if !found {
		t.Fatalf("the README no longer says how to run the program:\n%s", commands)
	}
	get := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", fetch)
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Skipf("NOT TESTED: the modules that the program needs could not be had: %v\n%s", err, out)
	}
	// Not `go run`: a signal would end it and leave the program alive.
	build, run := "go build -o app .\n", strings.Replace("CLIENT_SECRET="+run, "go run .", "./app", 1)
	script(t, dir, environ(), build+run, "CLIENT_SECRET=")

	alice := newBrowser("alice's browser")
	greeted := func() string {
		page, err := alice.try(http.MethodGet, g.url+"/", nil)
		if err != nil {
			return err.Error()
		}
		return unless(page.status == http.StatusSeeOther, "%v", page)
	}
	eventually(t, "the program of the README listens", greeted)
	if page, _ := alice.open(t, g.url+"/", "alice"); page.body != "Hello, alice of the tests\n" {
		t.Fatalf("the program of the README should greet alice: %v", page)
	}
	from := p.said()
	alice.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.success", g)
	if page := alice.get(t, g.url+"/"); page.status != http.StatusSeeOther {
		t.Fatalf("alice signed out at the provider: %v", page)
	}
}

// The gateway is built and started by the commands of the README, and what it prints to be registered at the provider
// is what the README says.
func TestReadmeGateway(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app")
	g := gs[0]
	p.start(t)
	blocks := readme(t, "sh", map[string]string{
		"https://id.example.com": p.issuer, "127.0.0.1:4180": g.listen,
		"127.0.0.1:3000":     strings.TrimPrefix(app(t), "http://"),
		"go build -o curfew": "go build -C '" + source(t) + "' -o '" + filepath.Join(g.dir, "curfew") + "'",
		"--upstream":         "--listen " + g.listen + " --admin-listen " + g.admin + " --upstream",
	})
	g.child = script(t, g.dir, append(environ(), "CGO_ENABLED=0", "CLIENT_SECRET="+g.secret), blocks[1],
		"./curfew serve")
	g.await(t, "event=serving", 0, func(line string) bool { return strings.Contains(line, "event=serving") })
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(g.since(0), "\n")
	uris := regexp.MustCompile("\\| `https://app.example.com(/[^`]+)`").FindAllSubmatch(text, -1)
	if len(uris) < 3 {
		t.Fatalf("the README names %d addresses to register, want at least 3", len(uris))
	}
	for _, uri := range uris {
		if !strings.Contains(said, g.url+string(uri[1])) {
			t.Errorf("the README says that %s is to be registered; serve says:\n%s", uri[1], said)
		}
	}
	alice := newBrowser("alice's browser")
	alice.signIn(t, g, "alice")
	from := p.said()
	alice.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.success", g)
	alice.mustBeOut(t, g)
}

// The two commands at the top of the README exist.
func TestReadmeFirstCommands(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"    go run ./cmd/curfew demo ", "    make test "} {
		if !strings.Contains(string(text), "\n"+command) {
			t.Errorf("the README no longer shows %q", command)
		}
	}
	g := &gateway{dir: t.TempDir()}
	if status, out := g.run(t, "", "demo", "--help"); status != 0 {
		t.Errorf("curfew demo --help: exit status %d\n%s", status, out)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(makefile), "\ntest: ") {
		t.Error("the Makefile has no target test")
	}
}
