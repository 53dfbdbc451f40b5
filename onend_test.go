package curfew_test

import (
	"context"
	"testing"

	"example.com/curfew"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/store"
)

func TestEachReplicaHearsOnceOfEachSessionThatEnded(t *testing.T) {
	t.Parallel()
	here, there := make(chan store.Ended, 10), make(chan store.Ended, 10)
	hold := make(chan struct{})
	a := newApp(t, func(c *curfew.Config) {
		c.OnEnd = func(_ context.Context, e store.Ended) { <-hold; here <- e } // a slow one holds up no logout
	})
	a.open(curfew.Config{URL: a.server.URL, Store: a.store, Keyring: ring(t),
		Providers: []oidc.Config{{Issuer: a.op.Issuer(), ClientID: "app", ClientSecret: "secret"}},
		OnEnd:     func(_ context.Context, e store.Ended) { there <- e }})
	b := newBrowser(t)
	if _, status, _ := b.open(a.server.URL + "/"); status != 200 {
		t.Fatalf("the sign-in is answered %d", status)
	}
	for _, d := range a.op.Logout(t.Context(), "alice", "") {
		if !d.OK() {
			t.Errorf("the logout is answered %d: %v", d.Status, d.Err)
		}
	}
	close(hold)
	mine, theirs := rig.Soon(t, "this replica hears", here), rig.Soon(t, "the other hears", there)
	if mine.Key != theirs.Key || mine.Subject != "alice" || mine.Cause != store.CauseBackChannel {
		t.Errorf("heard of %+v and %+v", mine, theirs)
	}
	// Whatever was still to come has come when the next ending is heard of.
	if _, status, _ := b.open(a.server.URL + "/"); status != 200 {
		t.Fatalf("the sign-in is answered %d", status)
	}
	a.op.Logout(t.Context(), "alice", "")
	if next := rig.Soon(t, "this replica hears", here); next.Key == mine.Key {
		t.Error("this replica heard twice of one session")
	}
}
