package fanout_test

import (
	"strings"
	"testing"
	"time"

	"example.com/curfew/fanout"
	"example.com/curfew/internal/rig"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

func TestAnAppThatCannotBeToldIsAFaultThatNamesIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		app    fanout.App
		reason string // empty: it is good
	}{
		{fanout.App{URI: "https://wiki.example/logout"}, ""},
		{fanout.App{URI: "https://wiki.example/logout?tenant=a%20b"}, ""},
		{fanout.App{URI: "http://127.0.0.1:3000/logout"}, ""},
		{fanout.App{URI: "http://[::1]:3000/logout"}, ""},
		{fanout.App{URI: "http://localhost/logout", Alg: "RS256", Scope: "subject", Concurrency: 1,
			Deadline: time.Hour}, ""},
		{fanout.App{URI: "http://10.0.0.7/logout", Insecure: true}, ""},
		{fanout.App{}, "backchannel_logout_uri is missing"},
		{fanout.App{URI: "http://10.0.0.7/logout"},
			"backchannel_logout_uri is http: use https, or set `insecure: true`"},
		{fanout.App{URI: "https://wiki.example/logout#top"}, "must have no fragment"},
		{fanout.App{URI: "https://wiki.example/logout#"}, "must have no fragment"},
		{fanout.App{URI: "https://user:hunter2@wiki.example/logout"}, "must have no user and no password"},
		{fanout.App{URI: "/logout"}, "must be absolute"},
		{fanout.App{URI: "wiki.example/logout"}, "must be absolute"},
		{fanout.App{URI: "//wiki.example/logout"}, "must be absolute"},
		{fanout.App{URI: "ftp://wiki.example/logout"}, `has the unknown scheme "ftp"`},
		{fanout.App{URI: "javascript:alert(1)"}, `has the unknown scheme "javascript"`},
		{fanout.App{URI: "https:wiki.example"}, "has no host"},
		{fanout.App{URI: "https:///logout"}, "has no host"},
		{fanout.App{URI: "https://:443/logout"}, "has no host"},
		{fanout.App{URI: "https://wiki.example/%zz"}, "is not a URL"},
		{fanout.App{URI: "https://wiki.example/a\nb"}, "is not a URL"},
		{fanout.App{URI: "https://wiki.example/", Alg: "HS256"}, `"HS256" is not one of the algorithms`},
		{fanout.App{URI: "https://wiki.example/", Alg: "none"}, `"none" is not one of the algorithms`},
		{fanout.App{URI: "https://wiki.example/", Scope: "all"}, `logout_scope "all" is neither session nor subject`},
		{fanout.App{URI: "https://wiki.example/", Scope: "subject", SessionRequired: true}, "contradict each other"},
		{fanout.App{URI: "https://wiki.example/", Concurrency: -1}, "concurrency must be between 1 and 256"},
		{fanout.App{URI: "https://wiki.example/", Deadline: time.Second}, "deadline must be at least a minute"},
		{fanout.App{ClientID: "a\nb", URI: "https://wiki.example/"}, "client_id must have"},
	} {
		if c.app.ClientID == "" {
			c.app.ClientID = "wiki"
		}
		err := c.app.Validate()
		switch {
		case c.reason == "" && err != nil:
			t.Errorf("%q: %v", c.app.URI, err)
		case c.reason != "" && (err == nil || !strings.Contains(err.Error(), c.reason) ||
			!strings.Contains(err.Error(), "app \"")):
			t.Errorf("%q: %v, want the app and %q", c.app.URI, err, c.reason)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("the fault tells a password: %v", err)
		}
	}
}

func TestASenderTellsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	_, err := fanout.New(fanout.Config{Apps: []fanout.App{{ClientID: "a"}, {ClientID: "b", URI: "https://b.example"},
		{ClientID: "b", URI: "ftp://b"}}, Lease: -1})
	for _, want := range []string{"Outbox is missing", `app "a": backchannel_logout_uri is missing`,
		`app "b": is there twice`, "ftp", "Issuer and Signer", "Lease"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	s, err := fanout.New(fanout.Config{Outbox: memory.New()})
	rig.Must(t, err)
	if err := s.SetApps([]fanout.App{{ClientID: "a", URI: "https://a.example"}}); err == nil {
		t.Error("apps were taken without anybody to sign")
	}
}

func TestALogoutThatCannotBeToldIsRefused(t *testing.T) {
	t.Parallel()
	backend := memory.New()
	s, err := fanout.New(fanout.Config{Outbox: backend, Issuer: issuer, Signer: &fanout.Keys{}, Apps: []fanout.App{
		{ClientID: "wiki", URI: "https://wiki.example"},
		{ClientID: "mail", URI: "https://mail.example", SessionRequired: true}}})
	rig.Must(t, err)
	for _, c := range []struct {
		logout fanout.Logout
		reason string
	}{
		{fanout.Logout{ClientID: "chat", Subject: "alice"}, `there is no app "chat"`},
		{fanout.Logout{ClientID: "wiki"}, "names nobody"},
		{fanout.Logout{ClientID: "mail", Subject: "alice"}, "without the sid that it requires"},
	} {
		err := s.Notify(t.Context(), fanout.Logout{ClientID: "wiki", Subject: "bob"}, c.logout)
		if err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%+v: %v, want %q", c.logout, err, c.reason)
		}
	}
	if page, err := backend.Notices(t.Context(), store.NoticeQuery{}); err != nil || len(page.Notices) != 0 {
		t.Errorf("%d notices were left of refused ones (error %v)", len(page.Notices), err)
	}
}
