package curfew_test

import (
	"log/slog"
	"testing"
	"time"

	"example.com/curfew"
)

// A provider that signs people in for a day and sends no logout is told of once, with what to register; one that has
// sent a logout is not.
func TestAProviderThatNeverSendsALogoutIsToldOfOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		logout bool
		want   int
	}{{"none came", false, 1}, {"one came", true, 0}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			said := new(journal)
			a := newApp(t, func(cfg *curfew.Config) { cfg.Log = slog.New(slog.NewTextHandler(said, nil)) })
			for i := range 12 {
				if i == 8 {
					a.skew.Store(int64(25 * time.Hour))
					a.opSkew.Store(int64(25 * time.Hour))
				}
				newBrowser(t).open(a.server.URL + "/")
				if c.logout && i == 0 {
					a.op.Logout(t.Context(), "alice", a.op.Sessions()[0].SID)
				}
			}
			uri := "backchannel_logout_uri=" + a.server.URL + "/auth/backchannel-logout"
			if got := said.count("event=provider_quiet", "level=WARN", uri); got != c.want {
				t.Errorf("told %d times with what to register, want %d:\n%s", got, c.want, said.text.String())
			}
		})
	}
}
