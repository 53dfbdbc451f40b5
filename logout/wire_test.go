package logout_test

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"

	"example.com/curfew/internal/rig"
)

// Keycloak keeps its connection and does not send again.
func TestEveryAnswerOfTheBackChannelClosesTheConnection(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	ask := func(method, kind, body string) string {
		c := rig.Dial(t, s.Server)
		fmt.Fprintf(c, "%s /auth/backchannel-logout HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: "+
			"%d\r\n\r\n%s",
			method, kind, len(body), body)
		all, err := io.ReadAll(c) // until it is closed
		rig.Must(t, err)
		return string(all)
	}
	send := func(token string) string { return ask("POST", form, url.Values{"logout_token": {token}}.Encode()) }
	good := func() string { return s.op.SignLogoutToken("app", "alice", "") }
	answers := map[string]string{
		"200": send(good()),
		"400": send("x"),
		"405": ask("PUT", form, ""),
	}
	s.store.endless.Store(true)
	answers["503"] = send(good())
	for status, answer := range answers {
		if !strings.HasPrefix(answer, "HTTP/1.1 "+status) || !strings.Contains(answer, "\r\nConnection: close\r\n") {
			t.Errorf("want %s and a closed connection: %s", status, answer)
		}
	}
}

func TestALogoutWhoseBodyDoesNotComeIsAnswered408(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	c := rig.Dial(t, s.Server)
	fmt.Fprintf(c, "POST /auth/backchannel-logout HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: "+
		"1000\r\n\r\nlogout", form)
	all, err := io.ReadAll(c)
	rig.Must(t, err)
	if !strings.HasPrefix(string(all), "HTTP/1.1 408 ") {
		t.Errorf("got %q", all)
	}
}
