package e2e_test

import (
	"bufio"
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// The main job: who is signed out at the provider is signed out here, at once, and nobody else is.
func TestASignOutAtTheProviderEndsExactlyThatSession(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			p, g := world(t, "app")
			p.alg = alg
			g[0].flags = append(g[0].flags, "--id-token-signed-response-alg", alg)
			p.start(t)
			g[0].start(t)
			signedOutAt(t, p, g[0])
		})
	}
}

func signedOutAt(t *testing.T, p *provider, g *gateway) {
	first, second, other := newBrowser("alice's first browser"), newBrowser("alice's second browser"),
		newBrowser("bob's browser")
	told := first.signIn(t, g, "alice")
	for name, want := range map[string]string{
		"X-Auth-Subject": "alice", "X-Auth-Name": "alice of the tests", "X-Auth-Email": "alice@example.test",
		"X-Auth-Provider": "main",
	} {
		if got := told.Header.Get(name); got != want {
			t.Errorf("the app was told %s %q, want %q", name, got, want)
		}
	}
	// the provider's are there: cookies know no ports
	if got := told.Header.Get("Cookie"); strings.Contains(got, "curfew") {
		t.Errorf("the app was told the cookies %q, want none of the gateway's", got)
	}
	second.signIn(t, g, "alice")
	other.signIn(t, g, "bob")
	tab := first.listen(t, g)
	stillIn := watch(t, g, map[*browser]string{second: "alice", other: "bob"})

	from := p.said()
	first.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.success", g)
	first.mustBeOut(t, g)
	stillIn()
	second.mustBeIn(t, g, "alice")
	other.mustBeIn(t, g, "bob")
	if got := tab(); got != "ended" {
		t.Errorf("the open tab was told %q, want that its session has ended", got)
	}

	// The same token again, as somebody who saw it could send it: it has had its effect, and has none on a new sign-in.
	post, _ := p.event(t, from, "backchannel.post")
	first.signIn(t, g, "alice")
	again := newBrowser("somebody").post(t, g.url+"/auth/backchannel-logout", url.Values{"logout_token": {post.Token}})
	if again.status != http.StatusBadRequest || !strings.Contains(again.body, "already processed") {
		t.Errorf("a logout token that comes again should be refused as already processed: %v", again)
	}
	first.mustBeIn(t, g, "alice")
}

// watch has browsers use the app until it is told to stop, which fails the test if one of them was ever refused.
func watch(t *testing.T, g *gateway, browsers map[*browser]string) (stop func()) {
	t.Helper()
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(all.Wait)
	t.Cleanup(cancel)
	for b, login := range browsers {
		all.Go(func() {
			for n := 0; n == 0 || ctx.Err() == nil; n++ {
				if wrong := b.isIn(g, login); wrong != "" {
					t.Errorf("while another session was ended: %s", wrong)
					return
				}
			}
		})
	}
	return func() {
		t.Helper()
		cancel()
		all.Wait()
	}
}

// listen opens a tab that waits to hear of the end of its session. The function returned waits for the word.
func (b *browser) listen(t *testing.T, g *gateway) func() string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/auth/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the events of a session answered %d", resp.StatusCode)
	}
	return func() string {
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok && name != "session" {
				return name
			}
		}
		return "nothing before the end of the stream"
	}
}

// A 2xx means dead, also when the process dies in the moment after it.
func TestALogoutOutlivesTheGatewayBeingKilledAfterItsAnswer(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app")
	g := gs[0]
	p.start(t)
	g.start(t)
	first, second, other := newBrowser("alice's first browser"), newBrowser("alice's second browser"),
		newBrowser("bob's browser")
	first.signIn(t, g, "alice")
	second.signIn(t, g, "alice")
	other.signIn(t, g, "bob")

	from := p.said()
	first.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.success", g)
	g.kill()
	g.start(t)

	first.mustBeOut(t, g)
	second.mustBeIn(t, g, "alice")
	other.mustBeIn(t, g, "bob")
	g.stop(t)
	g.start(t)
	first.mustBeOut(t, g)
	second.mustBeIn(t, g, "alice")
	other.mustBeIn(t, g, "bob")
}

// Anything but a 2xx means that nothing was done: this provider does not try again, and says so in its log.
func TestALogoutThatFindsTheGatewayDownEndsNothing(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app")
	g := gs[0]
	p.start(t)
	g.start(t)
	first, second := newBrowser("alice's first browser"), newBrowser("alice's second browser")
	first.signIn(t, g, "alice")
	second.signIn(t, g, "alice")

	g.kill()
	from := p.said()
	first.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.error", g)
	post, _ := p.event(t, from, "backchannel.post")
	g.start(t)
	first.mustBeIn(t, g, "alice")
	second.mustBeIn(t, g, "alice")

	// Had the provider tried again, that would have been welcome.
	again := newBrowser("the provider").post(t, g.url+"/auth/backchannel-logout",
		url.Values{"logout_token": {post.Token}})
	if again.status != http.StatusOK || again.body != "" {
		t.Fatalf("a logout token that was never carried out should be, with 200 and nothing else: %v", again)
	}
	first.mustBeOut(t, g)
	second.mustBeIn(t, g, "alice")

	from = p.said()
	second.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.success", g)
	second.mustBeOut(t, g)
}
