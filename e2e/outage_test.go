package e2e_test

import (
	"net/http"
	"strings"
	"testing"
)

// Who is signed in goes on working while the provider is away, and nobody has to restart anything when it is back.
func TestAGatewayStartsWithoutItsProviderAndRecovers(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app")
	g := gs[0]
	p.start(t)
	g.start(t)
	alice, bob := newBrowser("alice's browser"), newBrowser("bob's browser")
	alice.signIn(t, g, "alice")
	if got := g.ready(t); got.status != http.StatusOK {
		t.Fatalf("with everything there it should be ready: %v", got)
	}

	g.stop(t)
	p.kill()
	g.start(t)
	if got := g.ready(t); got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, "provider main") ||
		!strings.Contains(got.body, p.issuer) {
		t.Errorf("without its provider it should not be ready, and say why: %v", got)
	}
	if got := bob.get(t, "http://"+g.admin+"/healthz"); got.status != http.StatusOK {
		t.Errorf("it should be alive, whoever is away: %v", got)
	}
	if got := bob.get(t, g.url+"/auth/login?return_to=/private"); got.status != http.StatusServiceUnavailable ||
		!strings.HasPrefix(got.header.Get("Content-Type"), "text/html") ||
		!strings.Contains(got.body, "not available") {
		t.Errorf("a sign-in should find a page that says that it is not available: %v", got)
	}
	alice.mustBeIn(t, g, "alice")

	p.start(t)
	eventually(t, "the gateway is ready again", func() string {
		got := g.ready(t)
		return unless(got.status == http.StatusOK, "%v", got)
	})
	alice.mustBeIn(t, g, "alice")
	bob.signIn(t, g, "bob")
	from := p.said()
	bob.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.success", g)
	bob.mustBeOut(t, g)
	alice.mustBeIn(t, g, "alice")
}
