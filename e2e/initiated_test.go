package e2e_test

import (
	"fmt"
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

// An ID Token with 250 groups is too large for an address. A provider that takes a form gets it in one, any other goes
// without.
func TestASignOutWithALargeIDTokenReachesTheProviderAndTheOtherApp(t *testing.T) {
	t.Parallel()
	for _, post := range []string{"yes", "no"} {
		t.Run("POST "+post, func(t *testing.T) {
			t.Parallel()
			p, g := world(t, "app", "app2")
			p.env = []string{"OP_GROUPS=250", "OP_POST=" + post}
			p.start(t)
			g[0].start(t)
			g[1].start(t)
			alice := newBrowser("alice's browser")
			alice.signIn(t, g[0], "alice")
			alice.signIn(t, g[1], "alice")

			from := p.said()
			sent := alice.post(t, g[0].url+"/auth/logout", url.Values{})
			alice.mustBeOut(t, g[0])
			var asked *page
			if post == "yes" {
				to, form := sent.form(t, url.Values{})
				if sent.status != http.StatusOK || to != p.issuer+"/session/end" ||
					len(form.Get("id_token_hint")) < 8<<10 {
					t.Fatalf("there should be a form for the provider: %d to %s, with an ID Token of %d bytes",
						sent.status, to, len(form.Get("id_token_hint")))
				}
				asked = alice.submit(t, sent, url.Values{})
			} else {
				if sent.status != http.StatusSeeOther || len(sent.location.String()) > 1<<10 {
					t.Fatalf("there should be a redirect with a short address: %v", sent)
				}
				asked = alice.follow(t, sent)
			}
			back := alice.confirm(t, asked)
			if back.location == nil || !strings.HasPrefix(back.location.String(),
				g[0].url+"/auth/logout/callback?state=") {
				t.Fatalf("the provider should send the browser back, with the state: %v", back)
			}
			if done := alice.follow(t, back); done.status != http.StatusOK {
				t.Errorf("back from the provider there should be a page: %v", done)
			}
			p.loggedOut(t, from, "backchannel.success", g[1])
			alice.mustBeOut(t, g[1])
		})
	}
}

// Chromium runs the script that the policy allows, and holds the redirects after the form to the policy as well.
func TestInChromiumASignOutWithALargeIDTokenComesBackFromTheProvider(t *testing.T) {
	t.Parallel()
	p, g := world(t, "app")
	p.env = []string{"OP_GROUPS=250", "OP_POST=yes"}
	p.start(t)
	g[0].start(t)
	b := newTab(t)
	b.open(g[0].url + "/private")
	b.until(fmt.Sprintf(`location.origin === %q && document.querySelector("[name=login]")`, p.issuer))
	b.run(`document.querySelector("[name=login]").value = "alice"; document.forms[0].submit()`)
	b.until(fmt.Sprintf(`location.href === %q`, g[0].url+"/private"))
	from := p.said()
	b.open(g[0].url + "/auth/logout")
	b.run(`document.querySelector("form button").click()`)
	b.until(fmt.Sprintf(`location.origin === %q && document.querySelector("button[name=logout]")`, p.issuer))
	b.run(`document.querySelector("button[name=logout]").click()`)
	b.until(fmt.Sprintf(`location.href.startsWith(%q) && document.body.innerText.includes("You are signed out")`,
		g[0].url+"/auth/logout/callback?state="))
	p.loggedOut(t, from, "backchannel.success", g[0])
}
