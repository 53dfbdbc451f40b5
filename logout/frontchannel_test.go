package logout_test

import (
	"net/url"
	"strings"
	"testing"

	"example.com/curfew/oidc/oidctest"
)

func TestTheFrontChannelEndsTheSessionOfThisBrowserAlone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why    string
		query  func(iss, sid string) url.Values
		result string
		out    bool
	}{
		{"iss and sid are its own", func(iss, sid string) url.Values { return url.Values{"iss": {iss}, "sid": {sid}} },
			"main ok", true},
		{"neither", func(_, _ string) url.Values { return nil }, "unknown ignored", false},
		{"no iss", func(_, sid string) url.Values { return url.Values{"sid": {sid}} }, "unknown ignored", false},
		{"no sid", func(iss, _ string) url.Values { return url.Values{"iss": {iss}} }, "unknown ignored", false},
		{"an empty sid", func(iss, _ string) url.Values { return url.Values{"iss": {iss}, "sid": {""}} },
			"unknown ignored", false},
		{"another sid", func(iss, sid string) url.Values { return url.Values{"iss": {iss}, "sid": {sid + "x"}} },
			"unknown ignored", false},
		{"another issuer", func(iss, sid string) url.Values { return url.Values{"iss": {iss + "/x"}, "sid": {sid}} },
			"unknown ignored", false},
		{"two issuers", func(iss, sid string) url.Values { return url.Values{"iss": {iss, "x"}, "sid": {sid}} },
			"unknown ignored", false},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			b, other, stranger := s.signedIn("alice"), s.signedIn("alice"), s.Browser()
			q := c.query(s.op.Issuer(), b.Session().SID).Encode()
			refresh := b.Session().Tokens.RefreshToken
			if p := stranger.Get("/auth/frontchannel-logout?" + q); p.Status != 200 || b.Session() == nil ||
				s.heard() != "frontchannel unknown nobody" {
				t.Errorf("a stranger's browser: %d, heard %q", p.Status, s.heard())
			}
			p := b.Get("/auth/frontchannel-logout?" + q)
			if p.Status != 200 || s.heard() != "frontchannel "+c.result || p.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%d %v, heard %q", p.Status, p.Header, s.heard())
			}
			if (b.Session() == nil) != c.out || (b.Cookie("curfew") == "") != c.out {
				t.Errorf("signed out: %v, want %v; cookie %q", b.Session() == nil, c.out, b.Cookie("curfew"))
			}
			if other.Session() == nil {
				t.Error("another browser's session ended")
			}
			if s.op.Count(oidctest.Revoke) != 0 || !s.op.Alive(refresh) {
				t.Error("a token was revoked")
			}
			if csp := p.Header.Get("Content-Security-Policy"); !strings.HasSuffix(csp,
				"frame-ancestors "+s.op.Issuer()) {
				t.Errorf("who may frame it: %s", csp)
			}
		})
	}
}

func TestAFrontChannelSIDIsTakenAsProvidersWriteIt(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	for sid, written := range map[string]string{
		"plain":  "plain",
		"a+b/=":  "a+b/=",
		"a b":    "a%20b",
		"a&b":    "a&b",
		"c d+e":  "c%20d+e",
		"100%":   "100%",
		"x;y":    "x;y",
		`q"u"o`:  "q%22u%22o",
		"en/c&d": "en%2Fc%26d",
	} {
		s.op.Mangle(func(m *oidctest.Mangle) { m.IDToken = func(j *oidctest.JWT) { j.Claims["sid"] = sid } })
		b := s.signedIn("alice")
		if p := b.Get("/auth/frontchannel-logout?iss=" + url.QueryEscape(s.op.Issuer()) + "&sid=" +
			written); p.Status != 200 || b.Session() != nil {
			t.Errorf("sid %q written as %q: %d, heard %q", sid, written, p.Status, s.heard())
		}
	}
}

func TestTheFrontChannelTouchesNoCookieWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	path := "/auth/frontchannel-logout?" + url.Values{"iss": {s.op.Issuer()}, "sid": {b.Session().SID}}.Encode()
	for _, away := range []func(bool){s.store.Away.Store, s.store.endless.Store} {
		away(true)
		if p := b.Get(path); p.Status != 503 || p.Header.Get("Set-Cookie") != "" ||
			!strings.HasSuffix(s.heard(), "unavailable store") {
			t.Errorf("%d %v, heard %q", p.Status, p.Header, s.heard())
		}
		away(false)
	}
	if b.Session() == nil {
		t.Fatal("signed out by a store that was away")
	}
	if b.Get(path); b.Session() != nil {
		t.Error("not signed out afterwards")
	}
}

func TestTheFrontChannelTakesBackACookieWhoseSessionIsGone(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	s.send(s.op.SignLogoutToken("app", "alice", ""))
	if p := b.Get("/auth/frontchannel-logout"); p.Status != 200 || b.Cookie("curfew") != "" {
		t.Errorf("%d, cookie %q", p.Status, b.Cookie("curfew"))
	}
}
