package curfew_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/internal/rig"
	"example.com/curfew/store"
)

// until asks until it is so; only what hangs reaches the limit.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(late) {
			t.Fatalf("it is never so: %s", what)
		}
	}
}

func TestReplicasKnowOfEachOther(t *testing.T) {
	t.Parallel()
	keys := ring(t)
	a := newApp(t, func(c *curfew.Config) { c.Keyring = keys })
	b := newApp(t, func(c *curfew.Config) { c.Store, c.Keyring = a.store, keys })
	until(t, "both replicas are known, and in sync", func() bool {
		if _, err := b.rp.Traffic(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := a.rp.Traffic(t.Context()); err != nil {
			t.Fatal(err)
		}
		all, err := a.rp.Replicas(t.Context())
		return err == nil && len(all) == 2 && all[0].InSync && all[1].InSync && !all[0].Gone && !all[1].Gone
	})
	if err := b.rp.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := a.rp.Replicas(t.Context())
	if err != nil || len(all) != 2 || all[0].Gone == all[1].Gone {
		t.Errorf("after one has stopped: %+v, %v", all, err)
	}
}

func TestTheTrafficOfAProviderIsCounted(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	traffic := func() curfew.ProviderTraffic {
		t.Helper()
		all, err := a.rp.Traffic(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all["main"]
	}
	newBrowser(t).open(a.server.URL + "/")
	newBrowser(t).open(a.server.URL + "/")
	if got := traffic(); got.SignIns != 2 || !got.LastLogout.IsZero() || got.Since.IsZero() {
		t.Errorf("%+v", got)
	}
	for _, token := range []struct {
		raw    string
		status int
	}{{a.op.SignLogoutToken("other", "alice", ""), 400}, {a.op.SignLogoutToken("app", "alice", ""), 200}} {
		if got := traffic(); !got.LastLogout.IsZero() {
			t.Errorf("a logout is counted: %+v", got)
		}
		resp, err := http.PostForm(a.server.URL+"/auth/backchannel-logout", map[string][]string{"logout_token": {token.raw}})
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != token.status {
			t.Fatalf("%s, want %d", resp.Status, token.status)
		}
	}
	if got := traffic(); got.SignIns != 0 || got.LastLogout.IsZero() {
		t.Errorf("after a logout: %+v", got)
	}
}

// hung is a store whose journal does not answer until it is told to.
type hung struct {
	store.Store
	answer <-chan struct{}
}

func (h hung) Append(context.Context, [][]byte, time.Time) error {
	<-h.answer
	return nil
}

// A logout is carried out and answered while the audit record cannot be written.
func TestALogoutDoesNotWaitForItsRecord(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	a := newApp(t, func(c *curfew.Config) { c.Store = hung{c.Store, answer} })
	t.Cleanup(func() { close(answer) })
	s := newBrowser(t)
	s.open(a.server.URL + "/")
	client := http.Client{Timeout: rig.Patience} // one that waited for its record would wait for ever
	resp, err := client.PostForm(a.server.URL+"/auth/backchannel-logout",
		map[string][]string{"logout_token": {a.op.SignLogoutToken("app", "alice", "")}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%s", resp.Status)
	}
	if s.signedIn(a) {
		t.Error("the session lives")
	}
}
