package logout_test

import (
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

// A mapper of the provider may change the `sub` of ID Tokens and not that of logout tokens: the `sid` is what counts.
func TestALogoutTokenOfAnotherSubEndsTheSessionOfItsSid(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	phone, laptop, bob := s.signedIn("alice"), s.signedIn("alice"), s.signedIn("bob")
	login := s.Browser()
	callback := login.Get(login.Get("/auth/login?login_hint=alice").To).To
	var underWay string
	for _, one := range s.op.Sessions() {
		if sid := one.SID; sid != phone.Session().SID && sid != laptop.Session().SID && sid != bob.Session().SID {
			underWay = sid
		}
	}

	s.Pass(time.Second)
	p := s.send(s.op.SignLogoutToken("app", "id-of-alice", phone.Session().SID))
	if p.Status != 200 || phone.Session() != nil {
		t.Fatalf("%d, and signed in: %v", p.Status, phone.Session() != nil)
	}
	if laptop.Session() == nil || bob.Session() == nil {
		t.Error("somebody else was signed out")
	}
	if l := s.Log.Last("logout_other_subject"); l["level"] != "WARN" || l["provider"] != "main" ||
		l["sub"] != "id-of-alice" {
		t.Errorf("the log says %v", l)
	}
	if all := s.h.Warnings(); len(all) != 1 || !strings.Contains(all[0], "another `sub`") {
		t.Errorf("Warnings: %q", all)
	}
	if p := s.send(s.op.SignLogoutToken("app", "id-of-alice", underWay)); p.Status != 200 {
		t.Fatal(p.Status)
	}
	s.Pass(time.Second)
	if p := login.Get(callback); p.Status != 409 || login.Session() != nil {
		t.Errorf("the sign-in that was under way: %d %s", p.Status, p.Body)
	}

	// Without a sid it names nobody here, and the log says why.
	if p := s.send(s.op.SignLogoutToken("app", "id-of-alice", "")); p.Status != 200 || laptop.Session() == nil {
		t.Fatalf("%d, laptop signed in: %v", p.Status, laptop.Session() != nil)
	}
	if l := s.Log.Last("backchannel_logout"); l["level"] != "WARN" || l["ended"] != 0.0 ||
		!strings.Contains(l["hint"].(string), "another `sub`") {
		t.Errorf("the log says %v", l)
	}

	// Neither the front channel nor a sign-out here looks at the sub.
	sid := laptop.Session().SID
	other := s.Browser()
	other.Follow("/auth/login?login_hint=alice")
	if p := laptop.Do("POST", "/auth/logout", "", "Sec-Fetch-Site", "same-origin"); p.Status/100 != 3 ||
		laptop.Session() != nil || other.Session() == nil {
		t.Errorf("a sign-out here: %d, of sid %s", p.Status, sid)
	}
}

func TestWithLogoutScopeSubjectAnotherSubEndsAllOfThePersonOfTheSid(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil, func(p *oidc.Config) { p.Quirks.LogoutScope = "subject" })
	phone, laptop, bob := s.signedIn("alice"), s.signedIn("alice"), s.signedIn("bob")
	token := s.op.SignLogoutToken("app", "id-of-alice", phone.Session().SID)
	s.store.endless.Store(true)
	if p := s.send(token); p.Status != 503 {
		t.Fatal(p.Status)
	}
	s.store.endless.Store(false)
	if p := s.send(token); p.Status != 200 {
		t.Fatal(p.Status, p.Body)
	}
	if phone.Session() != nil || laptop.Session() != nil || bob.Session() == nil {
		t.Errorf("signed in: phone %v, laptop %v, bob %v", phone.Session() != nil, laptop.Session() != nil,
			bob.Session() != nil)
	}
	s.Pass(time.Second)
	again := s.signedIn("alice")
	if p := s.send(token); p.Status != 400 || again.Session() == nil {
		t.Errorf("the token again: %d, and signed in: %v", p.Status, again.Session() != nil)
	}
}

// A provider may use a sid again. A token that was carried out names none of the sessions that came later.
func TestWithLogoutScopeSubjectAReplayEndsNobodyWhoseSessionCameLater(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ before, later string }{ // whose sessions have the sid
		{"", "alice"}, {"alice", "alice"}, {"alice", "carol"}, {"id-of-alice", "carol"},
	} {
		s := newStage(t, nil, func(p *oidc.Config) { p.Quirks.LogoutScope = "subject" })
		signIn := func(subject, sid string) store.Key {
			_, one, err := s.Manager.Create(t.Context(), session.SignIn{Provider: "main", Issuer: s.op.Issuer(),
				ClientID: "app", Subject: subject, SID: sid, Began: s.Now()})
			rig.Must(t, err)
			return one.Key
		}
		if row.before != "" {
			signIn(row.before, "s1")
		}
		token := s.op.SignLogoutToken("app", "id-of-alice", "s1")
		if p := s.send(token); p.Status != 200 {
			t.Fatal(p.Status, p.Body)
		}
		s.Pass(time.Second)
		later := []store.Key{signIn(row.later, "s1"), signIn(row.later, "s2")}
		for range 2 {
			if p := s.send(token); p.Status != 400 || !strings.Contains(p.Body, "already processed") {
				t.Errorf("%+v: the replay: %d %s", row, p.Status, p.Body)
			}
		}
		for i, key := range later {
			if _, err := s.Manager.Peek(t.Context(), key); err != nil {
				t.Errorf("%+v: the replay ended session %d of %s: %v", row, i+1, row.later, err)
			}
		}
	}
}

// The token says whose session it is by its sid alone. That session may be gone after a first try that failed.
func TestWithLogoutScopeSubjectARetryEndsWhatTheFirstTryDidNotReach(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil, func(p *oidc.Config) { p.Quirks.LogoutScope = "subject" })
	subjects := []string{"alice", "also-alice"} // of sessions with the sid
	for i := range 2*store.EndBatch + 1 {
		n := session.SignIn{Provider: "main", Issuer: s.op.Issuer(), ClientID: "app", Subject: subjects[i%2],
			Began: s.Now()}
		if i < len(subjects) {
			n.SID = "s1"
		}
		_, _, err := s.Manager.Create(t.Context(), n)
		rig.Must(t, err)
	}
	bob := s.signedIn("bob")
	alive := func() (n int) {
		for _, subject := range subjects {
			found, err := s.Manager.Search(t.Context(), session.Search{Issuer: s.op.Issuer(), ClientID: "app",
				Subject: subject, Limit: 1000})
			rig.Must(t, err)
			n += len(found.Sessions)
		}
		return n
	}
	withSID := func(r store.Record) bool { return r.HasSID("s1") }
	token := s.op.SignLogoutToken("app", "id-of-alice", "s1")
	s.store.batch.Store(&withSID)
	for range 2 { // the second finds no session with the sid and the first subject any more
		if p := s.send(token); p.Status != 503 {
			t.Fatalf("a try that fails is answered %d", p.Status)
		}
	}
	if before := alive(); before == 0 {
		t.Fatal("the tries that failed ended everything")
	}
	s.store.batch.Store(nil)
	if p := s.send(token); p.Status != 200 {
		t.Fatal(p.Status, p.Body)
	}
	if n := alive(); n != 0 || bob.Session() == nil {
		t.Errorf("after 200, %d sessions live, and bob is signed in: %v", n, bob.Session() != nil)
	}
	s.Pass(time.Second)
	again := s.signedIn("alice")
	if p := s.send(token); p.Status != 400 || again.Session() == nil {
		t.Errorf("the token again: %d, and signed in: %v", p.Status, again.Session() != nil)
	}
}

// The first token that is refused for want of a setting says which, until one succeeds. What the provider did not sign
// says nothing.
func TestARefusedLogoutNamesTheSettingUntilOneSucceeds(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	drop := func(j *oidctest.JWT) { delete(j.Claims, "exp") }
	forged := s.op.SignLogoutToken("app", "alice", "", drop)
	s.refused(s.send(forged[:strings.LastIndexByte(forged, '.')+1]+strings.Repeat("A", 86)), 400, "exp")
	if all := s.h.Warnings(); len(all) != 0 || s.Log.Last("logout_setting_needed") != nil {
		t.Fatalf("after a forged token: %q", all)
	}
	s.refused(s.send(s.op.SignLogoutToken("app", "alice", "", drop)), 400, "exp")
	if l := s.Log.Last("logout_setting_needed"); l["level"] != "WARN" || l["provider"] != "main" ||
		l["settings"] != "allow_missing_exp: true" {
		t.Errorf("the log says %v", l)
	}
	all := s.h.Warnings()
	if len(all) != 1 || !strings.Contains(all[0], "provider main") ||
		!strings.Contains(all[0], "allow_missing_exp: true") {
		t.Errorf("Warnings: %q", all)
	}
	if p := s.send(s.op.SignLogoutToken("app", "alice", "")); p.Status != 200 || b.Session() != nil {
		t.Fatal(p.Status)
	}
	if all := s.h.Warnings(); len(all) != 0 {
		t.Errorf("after one that succeeded: %q", all)
	}
}
