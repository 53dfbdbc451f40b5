package login

import (
	"testing"

	"example.com/curfew/session"
)

func TestASessionIsOfTheSameSignInUnderAnySIDThatItHad(t *testing.T) {
	t.Parallel()
	old := session.Session{Issuer: "i", ClientID: "c", Subject: "alice", SID: "s3", Former: []string{"s1", "s2"}}
	for sid, want := range map[string]bool{"s1": true, "s2": true, "s3": true, "s4": false, "": false} {
		if got := sameSignIn(&old, &session.SignIn{Issuer: "i", ClientID: "c", Subject: "alice",
			SID: sid}); got != want {
			t.Errorf("sid %q: %t, want %t", sid, got, want)
		}
		if sameSignIn(&old, &session.SignIn{Issuer: "i", ClientID: "c", Subject: "bob", SID: sid}) {
			t.Errorf("sid %q of another person is the same sign-in", sid)
		}
	}
	without := session.Session{Issuer: "i", ClientID: "c", Subject: "alice"}
	if !sameSignIn(&without, &session.SignIn{Issuer: "i", ClientID: "c", Subject: "alice"}) {
		t.Error("without a sid nobody can tell, and it may be the same")
	}
}
