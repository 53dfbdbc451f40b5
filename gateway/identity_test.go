package gateway_test

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
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
	rig.Must(t, err)
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
	b, _, err := st.Manager.Create(t.Context(), session.SignIn{Issuer: "i", ClientID: "c", Subject: "alice",
		Began:  st.Manager.Now(),
		Tokens: session.Tokens{AccessToken: "at"}, Claims: map[string]any{
			"email": "a@b.c", "preferred_username": "al", "groups": []any{"x"},
			"org": map[string]any{"department": "R, D"},
		}})
	rig.Must(t, err)
	st.send("GET", "/", "Cookie", cookie(b), "Authorization", "Basic mine", "X-Forwarded-User", "mallory")
	r := rig.Soon(t, "a request to reach the app", st.seen)
	for name, want := range map[string]string{
		"X-Forwarded-User": "alice", "X-Forwarded-Email": "a@b.c", "X-Forwarded-Preferred-Username": "al",
		"X-Forwarded-Groups":  "x",
		"X-Auth-Request-User": "alice", "X-Auth-Request-Groups": "x", "Authorization": "Bearer at",
		"X-Department": "R, D",
	} {
		if got := r.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	b, _ = st.signIn(nil) // without an access token
	st.send("GET", "/", "Cookie", cookie(b), "Authorization", "Basic mine")
	if r := rig.Soon(t, "a request to reach the app", st.seen); r.Header.Get("Authorization") != "" {
		t.Errorf("the client's %q took the place of the token", r.Header.Get("Authorization"))
	}
}

func TestNamesThatCannotCarryAnIdentityAreRefused(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Cookie": "already has another meaning", "X-Forwarded-For": "already has another meaning",
		"X User": "not a header name",
		"":       "not a header name", "X-A\r\nB": "not a header name",
	} {
		if _, err := gateway.NewIdentity(map[string]string{name: "subject"}); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
	if _, err := gateway.NewIdentity(map[string]string{"X-A": "password"}); err == nil ||
		!strings.Contains(err.Error(), `no value called "password"`) {
		t.Errorf("%v", err)
	}
	if _, err := gateway.NewIdentity(map[string]string{"X-A": "subject", "X_A": "email"}); err == nil ||
		!strings.Contains(err.Error(), "two spellings") {
		t.Errorf("%v", err)
	}
}

// What would arrive as something else does not arrive: by each of the ways in which an app is told.
func TestAValueArrivesAsItIsOrNotAtAll(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		groups []any
		want   string
	}{
		{"spaces in front", []any{" admins", "staff"}, "staff"},
		{"spaces behind", []any{"admins ", "staff"}, "staff"},
		{"a tab", []any{"admins\t", "staff"}, "staff"},
		{"spaces within", []any{"a b", "staff"}, "a b,staff"},
		{"a space that is not ASCII", []any{"\u00a0admins", "admins\u2003", "\u3000admins", "admins\u0085"}, ""},
		{"nothing to be seen", []any{"\ufeffadmins", "admins\u200b", "", " ", "\u2003"}, ""},
		{"a comma", []any{"ops,admins", ",", "staff"}, "staff"},
		{"a line end", []any{"a\r\nX-Auth-Subject: root", "a\u2028b", "a\x00"}, ""},
		{"other scripts", []any{"Zürich", "管理"}, "Zürich,管理"},
		{"very long", []any{strings.Repeat("x", 20000), "staff"}, strings.Repeat("x", 20000) + ",staff"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			st := newStage(t)
			b, _ := st.signIn(map[string]any{"groups": row.groups, "name": row.groups[0]})
			st.send("GET", "/", "Cookie", cookie(b))
			asked := st.gateway.Decide(carrying(t, cookie(b)))
			for way, h := range map[string]http.Header{
				"proxy": (<-st.seen).Header, "verify": st.ask("Cookie", cookie(b)).Header(), "ext_authz": asked.Header,
			} {
				if got := h.Get("X-Auth-Groups"); got != row.want {
					t.Errorf("%s: groups %q, want %q", way, got, row.want)
				}
				if got := h.Get("X-Auth-Name"); got != "" && got != row.groups[0] {
					t.Errorf("%s: name %q is neither %q nor absent", way, got, row.groups[0])
				}
			}
		})
	}
}

func carrying(t *testing.T, cookie string) *http.Request {
	t.Helper()
	r, err := http.NewRequest("GET", "/", nil)
	rig.Must(t, err)
	r.Header.Set("Cookie", cookie)
	return r
}

func TestWhoseSubjectCannotBeToldIsNotLetIn(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _, err := st.Manager.Create(t.Context(), session.SignIn{Issuer: "i", ClientID: "c", Subject: "root ",
		Provider: "main", Claims: map[string]any{"name": "Root", "email": "root@example.com"}, Began: st.Manager.Now()})
	rig.Must(t, err)
	resp, body := st.send("GET", "/", "Cookie", cookie(b))
	if resp.StatusCode != 403 || !strings.Contains(body, "cannot be told to the app") {
		t.Errorf("proxy: %d %s", resp.StatusCode, body)
	}
	w := st.ask("Cookie", cookie(b))
	told := slices.DeleteFunc(slices.Collect(maps.Keys(w.Header())),
		func(name string) bool { return !strings.HasPrefix(name, "X-Auth-") })
	if w.Code != 403 || len(told) > 0 { // with the others an app could take the person for somebody else
		t.Errorf("verify: %d, and told of %s", w.Code, told)
	}
	if a := st.gateway.Decide(carrying(t, cookie(b))); a.Allowed || a.Status != 403 {
		t.Errorf("ext_authz: %+v", a)
	}
	if !strings.Contains(st.Log.String(), `"event":"identity_refused"`) {
		t.Errorf("not logged: %s", st.Log.String())
	}
}

// The names of both presets are the gateway's, whichever is in use.
func TestNamesOfBothPresetsAreRemoved(t *testing.T) {
	t.Parallel()
	for _, preset := range []map[string]string{nil, gateway.CurfewHeaders(), gateway.OAuth2ProxyHeaders(), {}} {
		st := newStage(t)
		if preset != nil {
			var err error
			if st.gateway.Identity, err = gateway.NewIdentity(preset); err != nil {
				t.Fatal(err)
			}
		}
		var lies []string
		for _, names := range []map[string]string{gateway.CurfewHeaders(), gateway.OAuth2ProxyHeaders()} {
			for name := range names {
				lies = append(lies, name, "mallory", strings.ReplaceAll(name, "-", "_"), "mallory")
			}
		}
		b, _ := st.signIn(nil)
		st.send("GET", "/", append(lies, "Cookie", cookie(b))...)
		for name, values := range (<-st.seen).Header {
			if slices.Contains(values, "mallory") {
				t.Errorf("%v: the app was told %s by the client", preset, name)
			}
		}
	}
}
