package e2e_test

import (
	"net/http"
	"os"
	"testing"
)

// outages are scenarios in which one of the two is away. Those that stop Keycloak come last, one after the other.
func (k *keycloak) outages() []scenario {
	logout := func(t *testing.T, r *realm) {
		t.Helper()
		r.admin(t, http.MethodPost, "/users/"+r.users["alice"]+"/logout", nil, nil)
	}
	return []scenario{
		{what: "Curfew is away while somebody is logged out", run: func(t *testing.T) (string, string) {
			r, g := k.start(t, brief())
			b := r.signIn(t, g, "alice")
			g.kill()
			logout(t, r)
			g.start(t)
			b.out(t, g)
			_, curfew := g.sent(t, 0)
			return "a logout token, **once**", curfew
		}},
		{what: "Curfew is killed after it has answered", run: func(t *testing.T) (string, string) {
			r, g := k.start(t, changes{})
			b := r.signIn(t, g, "alice")
			from := g.said()
			logout(t, r)
			sends, _ := g.sent(t, from)
			g.kill()
			g.start(t)
			b.mustBeOut(t, g)
			return sends, "has ended the session, also after the start"
		}},
		{what: "Keycloak is suspended", alone: true, run: func(t *testing.T) (string, string) {
			k.mayStop(t)
			r, g := k.start(t, changes{})
			b := r.signIn(t, g, "alice")
			k.Freeze()
			defer k.Thaw()
			b.in(t, g)
			k.Thaw()
			b.in(t, g)
			_, curfew := g.ended(t, b, func() { logout(t, r) })
			return "nothing meanwhile; logout tokens afterwards", "lets in who is signed in; afterwards " + curfew
		}},
		{what: "Keycloak is stopped and started", alone: true, run: func(t *testing.T) (string, string) {
			k.mayStop(t)
			r, g := k.start(t, brief())
			b, idle := r.signIn(t, g, "alice"), r.signIn(t, g, "bob")
			k.Stop() // in order: what it has not written yet when it is killed is gone, and sessions with it
			b.in(t, g)
			from := g.said()
			eventually(t, "a refresh fails", func() string {
				b.in(t, g) // the session outlives its access token for refresh_grace
				for _, line := range g.since(from) {
					if field(line, "level") == "WARN" {
						return ""
					}
				}
				return "no warning yet"
			})
			k.Start()
			g.refreshed(t, idle) // the other waits for half a minute before it asks again
			_, curfew := g.ended(t, b, func() { logout(t, r) })
			return "nothing meanwhile; logout tokens afterwards",
				"lets in who is signed in, for `refresh_grace`; afterwards " + curfew
		}},
	}
}

// mayStop skips a scenario that stops Keycloak where others use it too.
func (k *keycloak) mayStop(t *testing.T) {
	t.Helper()
	if os.Getenv("CURFEW_TEST_KEYCLOAK") != "" {
		t.Skip("NOT TESTED: the server that CURFEW_TEST_KEYCLOAK names must not be stopped")
	}
}
