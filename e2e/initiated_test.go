package e2e_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// Who signs out at one app is signed out at the provider, and the provider tells the other app.
func TestASignOutAtOneAppEndsTheSessionAtTheProviderAndAtTheOtherApp(t *testing.T) {
	t.Parallel()
	p, g := world(t, "app", "app2")
	p.start(t)
	g[0].start(t)
	g[1].start(t)
	alice, bob := newBrowser("alice's browser"), newBrowser("bob's browser")
	alice.signIn(t, g[0], "alice")
	alice.signIn(t, g[1], "alice")
	bob.signIn(t, g[0], "bob")
	bob.signIn(t, g[1], "bob")

	kept := alice.copy(t, g[0].url)
	from := p.said()
	sent := alice.post(t, g[0].url+"/auth/logout", url.Values{})
	if sent.status != http.StatusSeeOther || !strings.HasPrefix(sent.location.String(), p.issuer+"/session/end?") {
		t.Fatalf("who signs out should be sent to the provider's end_session_endpoint: %v", sent)
	}
	for _, name := range []string{"id_token_hint", "client_id", "post_logout_redirect_uri", "state"} {
		if !sent.location.Query().Has(name) {
			t.Errorf("the provider is not told %s: %v", name, sent.location)
		}
	}
	alice.mustBeOut(t, g[0]) // before the provider has said anything
	kept.mustBeOut(t, g[0])  // nor does it help to have kept the cookie
	alice.mustBeIn(t, g[1], "alice")

	back := alice.confirm(t, alice.follow(t, sent))
	if back.location == nil || !strings.HasPrefix(back.location.String(), g[0].url+"/auth/logout/callback?") ||
		back.location.Query().Get("state") != sent.location.Query().Get("state") {
		t.Fatalf("the provider should send the browser back, with the state: %v", back)
	}
	if done := alice.follow(t, back); done.status != http.StatusOK {
		t.Errorf("back from the provider there should be a page: %v", done)
	}
	p.loggedOut(t, from, "backchannel.success", g[1])
	alice.mustBeOut(t, g[1])
	p.loggedOut(t, from, "backchannel.success", g[0]) // of a session that is no more: a success all the same
	bob.mustBeIn(t, g[0], "bob")
	bob.mustBeIn(t, g[1], "bob")

	if _, asked := alice.open(t, g[0].url+"/private", "alice"); !slices.Contains(asked, "login") {
		t.Errorf("the provider asked for %q at the next sign-in, want that it asks for the login again", asked)
	}
	alice.mustBeIn(t, g[0], "alice")
	alice.mustBeOut(t, g[1])
}
