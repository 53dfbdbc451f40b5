package gateway_test

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"example.com/curfew/gateway"
	"example.com/curfew/session"
)

func assertion(jwt string, err error) *gateway.Assertion {
	return &gateway.Assertion{Sign: func(context.Context, string, []byte) (string, error) { return jwt, err }}
}

func TestWithoutConfigurationTheNamesAreOurs(t *testing.T) {
	t.Parallel()
	claims := map[string]any{"name": "Alice", "email": "a@b.c", "groups": []any{"x", "y"}}
	told := func(id gateway.Identity) http.Header {
		st := newStage(t)
		st.gateway.Identity, st.gateway.Assertion, st.gateway.App = id, assertion("signed", nil), "wiki"
		b, _ := st.signIn(claims)
		h := st.ask("Cookie", cookie(b)).Header()
		maps.DeleteFunc(h, func(name string, _ []string) bool { return !strings.HasPrefix(name, "X-Auth-") })
		if h.Get("X-Auth-Session") != "" {
			h.Set("X-Auth-Session", "of this session")
		}
		return h
	}
	id, err := gateway.NewIdentity(gateway.CurfewHeaders())
	if err != nil {
		t.Fatal(err)
	}
	byDefault, byName := told(gateway.Identity{}), told(id)
	if !maps.EqualFunc(byDefault, byName, slices.Equal) || len(byDefault) != len(gateway.CurfewHeaders()) {
		t.Errorf("default %v, named %v", byDefault, byName)
	}
	if byDefault.Get("X-Auth-Groups") != "x,y" {
		t.Errorf("groups %q", byDefault.Get("X-Auth-Groups"))
	}
}

func TestThePresetTellsWhatOAuth2ProxyTells(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	headers := gateway.OAuth2ProxyHeaders()
	headers["Authorization"], headers["X-Department"] = "bearer", "claim:org.department"
	var err error
	if st.gateway.Identity, err = gateway.NewIdentity(headers); err != nil {
		t.Fatal(err)
	}
	b, _, err := st.sessions.Create(t.Context(), session.New{Issuer: "i", ClientID: "c", Subject: "alice", Began: st.sessions.Now(),
		Tokens: session.Tokens{AccessToken: "at"}, Claims: map[string]any{
			"email": "a@b.c", "preferred_username": "al", "groups": []any{"x"}, "org": map[string]any{"department": "R, D"},
		}})
	if err != nil {
		t.Fatal(err)
	}
	st.send("GET", "/", "Cookie", cookie(b), "Authorization", "Basic mine", "X-Forwarded-User", "mallory")
	r := receive(t, st.seen, "a request to reach the app")
	for name, want := range map[string]string{
		"X-Forwarded-User": "alice", "X-Forwarded-Email": "a@b.c", "X-Forwarded-Preferred-Username": "al", "X-Forwarded-Groups": "x",
		"X-Auth-Request-User": "alice", "X-Auth-Request-Groups": "x", "Authorization": "Bearer at", "X-Department": "R, D",
	} {
		if got := r.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	b, _ = st.signIn(nil) // without an access token
	st.send("GET", "/", "Cookie", cookie(b), "Authorization", "Basic mine")
	if r := receive(t, st.seen, "a request to reach the app"); r.Header.Get("Authorization") != "" {
		t.Errorf("the client's %q took the place of the token", r.Header.Get("Authorization"))
	}
}

func TestNamesThatCannotCarryAnIdentityAreRefused(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Cookie": "means something else", "X-Forwarded-For": "means something else", "X User": "no name of a header", "": "no name of a header", "X-A\r\nB": "no name",
	} {
		if _, err := gateway.NewIdentity(map[string]string{name: "subject"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
	if _, err := gateway.NewIdentity(map[string]string{"X-A": "password"}); err == nil || !strings.Contains(err.Error(), `nothing called "password"`) {
		t.Errorf("%v", err)
	}
	if _, err := gateway.NewIdentity(map[string]string{"X-A": "subject", "X_A": "email"}); err == nil || !strings.Contains(err.Error(), "two spellings") {
		t.Errorf("%v", err)
	}
}
