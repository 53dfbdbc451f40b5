package e2e_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// offline is a world whose provider gives refresh tokens, and access tokens that live for so many seconds: the first of
// a session, and those after it.
func offline(t *testing.T, first, next string) (*provider, *gateway) {
	t.Helper()
	p, g := world(t, "app")
	p.env = []string{"OP_ACCESS_TTL=" + first, "OP_NEXT_TTL=" + next}
	g[0].flags = append(g[0].flags, "--scopes", "openid,profile,email,offline_access")
	p.start(t)
	g[0].start(t)
	return p, g[0]
}

// consent signs in with the question whether to grant lasting access, without which this provider gives none.
func (b *browser) consent(t *testing.T, p *provider, g *gateway, login string) {
	t.Helper()
	got, asked := b.open(t, g.url+"/auth/login?prompt=consent&return_to=/private", login)
	if got.status != http.StatusOK || got.url.String() != g.url+"/private" {
		t.Fatalf("%s signs in, and was asked for %q: %v", b.name, asked, got)
	}
	b.mustBeIn(t, g, login)
}

// A refresh token of this provider works once. Requests that come together must not use it twice.
func TestRequestsThatComeTogetherRefreshASessionOnce(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow: waits for an access token to run out")
	}
	p, g := offline(t, "2", "300")
	alice := newBrowser("alice's browser")
	from := p.said()
	alice.consent(t, p, g, "alice")

	runOut := time.NewTimer(2 * time.Second) // no request may refresh the session before they come together
	defer runOut.Stop()
	<-runOut.C
	eventually(t, "the provider is asked for new tokens", func() string {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if wrong := alice.isIn(g, "alice"); wrong != "" {
					t.Errorf("while the session is refreshed: %s", wrong)
				}
			})
		}
		all.Wait()
		return unless(t.Failed() || len(p.events(t, from, "refresh")) > 0, "nobody asked")
	})
	if n := len(p.events(t, from, "refresh")); n != 1 {
		t.Errorf("the session was refreshed %d times, want once", n)
	}
	if failed := p.events(t, from, "refresh.error"); len(failed) > 0 {
		t.Errorf("the provider refused to refresh: %v", failed)
	}

	// What it got is kept.
	g.kill()
	g.start(t)
	alice.mustBeIn(t, g, "alice")
}

// Some providers end a grant and tell nobody: what they no longer refresh is over here too.
func TestASessionEndsWhenTheProviderNoLongerRefreshesIt(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow: waits for an access token to run out")
	}
	p, g := offline(t, "1", "1")
	alice, bob := newBrowser("alice's browser"), newBrowser("bob's browser")
	from := p.said()
	alice.consent(t, p, g, "alice")
	bob.consent(t, p, g, "bob")
	p.revoke(t, "bob")

	eventually(t, "bob's session ends", func() string {
		return unless(bob.isIn(g, "bob") != "", "it goes on")
	})
	bob.mustBeOut(t, g)
	failed := p.events(t, from, "refresh.error")
	if len(failed) != 1 || failed[0].Error != "invalid_grant" {
		t.Errorf("the provider said %v, want invalid_grant, once", failed)
	}
	got := slices.DeleteFunc(g.metric(t, "curfew_sessions_ended_total{"),
		func(line string) bool { return strings.HasSuffix(line, " 0") })
	if len(got) != 1 || !strings.HasSuffix(got[0], `cause="refresh_rejected"} 1`) {
		t.Errorf("the sessions that ended are counted as %q, want one by refresh_rejected", got)
	}
	alice.mustBeIn(t, g, "alice")
}

// A logout that never arrived is noticed when the session has to be refreshed.
func TestALogoutThatGotLostIsNoticedAtTheNextRefresh(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow: waits for an access token to run out")
	}
	p, gs := world(t, "app")
	g := gs[0]
	p.env = []string{"OP_REFRESH=always", "OP_ACCESS_TTL=1", "OP_NEXT_TTL=1"}
	p.start(t)
	g.start(t)
	first, second := newBrowser("alice's first browser"), newBrowser("alice's second browser")
	from := p.said()
	first.signIn(t, g, "alice")
	second.signIn(t, g, "alice")

	g.kill()
	first.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.error", g)
	g.start(t)
	eventually(t, "alice's first session ends", func() string {
		return unless(first.isIn(g, "alice") != "", "it goes on")
	})
	first.mustBeOut(t, g)
	eventually(t, "alice's second session is refreshed", func() string {
		second.mustBeIn(t, g, "alice")
		return unless(len(p.events(t, from, "refresh")) > 0, "nobody asked")
	})
	second.mustBeIn(t, g, "alice")
}
