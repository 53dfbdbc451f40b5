//go:build unix

package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"example.com/curfew/internal/servers"

	"github.com/jackc/pgx/v5"
)

// A logout that only the primary has is not answered with 200; sent again after the failover it is, and the session is
// dead. The replicas know both servers, and go over to the new primary by themselves.
func TestALogoutThatTheStandbyDidNotGetIsAnsweredAfterTheFailover(t *testing.T) {
	t.Parallel()
	nodes := servers.PostgresPair(t).Nodes
	primary, standby := nodes[0], nodes[1]
	c := newCrowd(t, fmt.Sprintf("postgres://curfew@%s,%s/postgres?sslmode=disable&target_session_attrs=primary",
		primary.Addr(), standby.Addr()), 2)
	run(t, c.gs)
	const n = 6
	all := make([]*member, n)
	for i := range all {
		all[i] = &member{user: person(i)}
		c.signIn(all[i])
	}
	token := func(m *member) url.Values {
		return url.Values{"logout_token": {c.op.SignLogoutToken("app", "", m.sid)}}
	}
	send := func(g *gateway, form url.Values) (int, string) {
		resp, body, err := c.do(g, http.MethodPost, "/auth/backchannel-logout", "", form)
		if err != nil {
			return 0, err.Error()
		}
		return resp.StatusCode, body
	}
	done, lost := all[:n/2], all[n/2:]
	for _, m := range done {
		if status, body := send(c.gs[1], token(m)); status != http.StatusOK {
			t.Fatalf("a logout that the standby has: %d %s", status, body)
		}
	}
	standby.Kill() // one that is frozen would read later what has been sent to it
	admin, err := pgx.Connect(t.Context(), primary.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	var tokens []url.Values
	for i, m := range lost {
		form := token(m)
		tokens = append(tokens, form)
		answered := make(chan string, 1)
		go func() {
			status, body := send(c.gs[i%2], form)
			answered <- fmt.Sprint(status, " ", body)
		}()
		eventually(t, "it waits for the standby, and the wait is cancelled", func() string {
			select {
			case got := <-answered:
				answered <- got
				return ""
			default:
			}
			_, err := admin.Exec(t.Context(),
				`SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
			if err != nil {
				t.Fatal(err)
			}
			return "no answer yet"
		})
		if got := <-answered; !strings.HasPrefix(got, "503") {
			t.Errorf("a logout that only the primary has: %s, want 503", got)
		}
	}
	primary.Kill()
	standby.Start()
	standby.Promote()
	for i, form := range tokens {
		eventually(t, "the same token again is answered with 200", func() string {
			status, body := send(c.gs[i%2], form)
			if status == http.StatusBadRequest {
				t.Fatalf("the same token again: %s", body)
			}
			return unless(status == http.StatusOK, "%d %s", status, body)
		})
	}
	for _, m := range all {
		for i, g := range c.gs {
			if _, status := c.ask(m, g); status != http.StatusUnauthorized {
				t.Errorf("replica %d answers %d about %s, who was logged out", i, status, m.user)
			}
		}
	}
	for _, wrong := range c.wrong {
		t.Error(wrong)
	}
}
