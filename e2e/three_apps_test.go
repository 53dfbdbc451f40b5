//go:build unix

package e2e_test

import (
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The page "Three apps behind Caddy" is followed to the letter, with a real provider and a real Caddy.
func TestThreeAppsBehindCaddyAreMadeByTheirPage(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app")
	g, site := gs[0], reserve(t)
	_, port, _ := strings.Cut(site, ":")
	g.url = "http://localhost:" + port
	p.start(t)
	proxy{name: "Caddy", binary: []string{"caddy"}, must: true}.find(t)

	text, err := os.ReadFile("../docs/three-apps.md")
	if err != nil {
		t.Fatal(err)
	}
	said := string(text)
	places := map[string]string{"https://id.example.com": p.issuer, "localhost:8080": "localhost:" + port,
		"127.0.0.1:4180": g.listen, "127.0.0.1:4181": g.admin, "../curfew": source(t)}
	for _, app := range []string{":3000", ":3001", ":3002"} {
		at := reserve(t)
		places["127.0.0.1"+app], places["http://"+app] = at, "http://"+at[strings.LastIndex(at, ":"):]
	}
	var pairs []string
	for from, to := range places {
		if !strings.Contains(said, from) {
			t.Fatalf("the page no longer holds %q", from)
		}
		pairs = append(pairs, from, to)
	}
	said = strings.NewReplacer(pairs...).Replace(said) // at once: an address that comes may begin with one that goes
	blocks := map[string][]string{}
	for _, m := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(said, -1) {
		blocks[m[1]] = append(blocks[m[1]], m[2])
	}
	if len(blocks["sh"]) != 3 || len(blocks["yaml"]) != 1 || len(blocks["caddyfile"]) != 1 {
		t.Fatalf("the page has other blocks than this test follows: %q", blocks)
	}
	for _, uri := range []string{"/auth/callback", "/auth/backchannel-logout", "/auth/logout/callback"} {
		if !strings.Contains(said, "| `"+g.url+uri+"`") {
			t.Errorf("the page does not say that %s is to be registered", uri)
		}
	}

	build := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", blocks["sh"][0])
	build.Dir, build.Env = g.dir, append(environ(), "CGO_ENABLED=0", "CLIENT_SECRET="+g.secret)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, blocks["sh"][0], out)
	}
	g.write(t, "curfew.yaml", blocks["yaml"][0])
	g.write(t, "Caddyfile", blocks["caddyfile"][0])
	g.child = script(t, g.dir, environ(), blocks["sh"][1], "./curfew serve")
	g.await(t, "event=serving", 0, func(line string) bool { return strings.Contains(line, "event=serving") })
	home := "HOME=" + filepath.Join(g.dir, "home")
	script(t, g.dir, append(environ(), home, "XDG_DATA_HOME=", "XDG_CONFIG_HOME="), blocks["sh"][2], "caddy run")
	nobody := newBrowser("nobody's browser").local("")
	eventually(t, "Caddy passes requests on", func() string {
		page, err := nobody.try(http.MethodGet, g.at("wiki")+"/", nil)
		if err != nil {
			return err.Error()
		}
		return unless(asksToSignIn(page), "%v", page)
	})

	alice := newBrowser("alice's browser").local("")
	asks := func(host, login string) {
		t.Helper()
		page := alice.handedOver(t, g.at(host)+"/", login)
		if want := host + ": hello alice"; page.body != want || page.url.String() != g.at(host)+"/" {
			t.Fatalf("%s should say %q: %v", host, want, page)
		}
	}
	for _, end := range []string{"at the provider", "at mail"} {
		asks("wiki", "alice")
		asks("mail", "nobody is asked")
		asks("main", "nobody is asked")
		if end == "at mail" {
			out := alice.get(t, g.at("mail")+"/auth/logout")
			page := alice.follow(t, alice.submit(t, out, url.Values{}))
			if page = alice.follow(t, alice.confirm(t, page)); page.status != http.StatusOK {
				t.Fatalf("alice signs out at mail: %v", page)
			}
		} else {
			from := p.said()
			alice.signOutAt(t, p)
			p.loggedOut(t, from, "backchannel.success", g)
		}
		for _, host := range []string{"wiki", "mail", "main"} {
			if page := alice.get(t, g.at(host)+"/"); !asksToSignIn(page) {
				t.Errorf("after a sign-out %s, %s should ask for a sign-in: %v", end, host, page)
			}
		}
	}
}

func asksToSignIn(p *page) bool {
	return p.location != nil && p.location.Path == "/auth/login"
}
