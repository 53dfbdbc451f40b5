package logout_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
	"example.com/curfew/web"
)

// The session lives, at the host that it belongs to; see docs/hosts.md.
func TestABearerOfAnotherHostEndsNothing(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ method, path string }{
		{"POST", "/auth/logout"}, {"GET", "/auth/frontchannel-logout"},
		{"POST", "/auth/sessions"}, {"GET", "/auth/sessions"},
	} {
		s := newStage(t, nil)
		var err error
		s.Web.URL, err = web.ParseURL("https://auth.example.com")
		rig.Must(t, err)
		s.Web.Hosts, err = web.ParseHosts(s.Web.URL, []string{"wiki.example.com"})
		rig.Must(t, err)
		s.h.Cookie = session.Cookie{Main: "auth.example.com", Host: func(r *http.Request) (string, bool) {
			h, err := s.Web.HostOf(r)
			return h.Name, err == nil
		}}
		b, one, err := s.Manager.Create(t.Context(), session.SignIn{Issuer: s.op.Issuer(), ClientID: "app",
			Subject: "alice", SID: "s1", Began: s.Manager.Now(), Host: "auth.example.com"})
		rig.Must(t, err)
		mux := http.NewServeMux()
		s.h.Mount(mux)
		r, w := httptest.NewRequest(row.method, row.path, nil), httptest.NewRecorder()
		r.Host = "wiki.example.com"
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("Cookie", "__Host-curfew="+b.Reveal())
		mux.ServeHTTP(w, r)
		if _, err := s.Manager.Peek(t.Context(), one.Key); err != nil || w.Code >= 400 {
			t.Errorf("%+v: answered %d, and the session: %v", row, w.Code, err)
		}
	}
}
