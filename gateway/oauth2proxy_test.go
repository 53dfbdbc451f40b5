package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"example.com/curfew/gateway"
)

// formerStage answers the paths of oauth2-proxy. The prefix stays /auth: only the names below it count.
func formerStage(t *testing.T, rules ...gateway.Rule) (*stage, http.Handler) {
	t.Helper()
	st := newStage(t)
	st.gateway.OAuth2ProxyPaths = true
	st.gateway.Identity, _ = gateway.NewIdentity(gateway.OAuth2ProxyHeaders())
	policy, err := gateway.NewPolicy(rules...)
	if err != nil {
		t.Fatal(err)
	}
	st.gateway.Policy = policy
	mux := http.NewServeMux()
	st.gateway.Mount(mux)
	return st, mux
}

func askFormer(host string, mux http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = host
	r.RemoteAddr = "127.0.0.9:1"
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

func TestOAuth2ProxyPathsLeadToOurs(t *testing.T) {
	t.Parallel()
	st, mux := formerStage(t)
	own := st.Web.Origin()
	for _, row := range []struct{ name, method, target, header, value, want string }{
		{"a path", "GET", "/auth/start?rd=%2Fa%3Fb%3D1", "", "", "/auth/login?return_to=%2Fa%3Fb%3D1"},
		{"no page", "GET", "/auth/start", "", "", "/auth/login?return_to=%2F"},
		{"our own URL", "GET", "/auth/sign_in?rd=" + own + "/a", "", "", "/auth/login?return_to=%2Fa"},
		{"another site", "GET", "/auth/start?rd=https://evil.example/", "", "", "/auth/login?return_to=%2F"},
		{"another site without a scheme", "GET", "/auth/start?rd=//evil.example/", "", "", "/auth/login?return_to=%2F"},
		{"another site with a backslash", "GET", `/auth/start?rd=/%5Cevil.example/`, "", "",
			"/auth/login?return_to=%2F"},
		{"our origin as a prefix", "GET", "/auth/start?rd=" + own + ".evil.example/", "", "",
			"/auth/login?return_to=%2F"},
		{"a script", "GET", "/auth/start?rd=javascript:alert(1)", "", "", "/auth/login?return_to=%2F"},
		{"itself", "GET", "/auth/start?rd=/auth/start", "", "", "/auth/login?return_to=%2F"},
		{"itself, encoded", "GET", "/auth/start?rd=/%2561uth/sign_in", "", "", "/auth/login?return_to=%2F"},
		{"nginx's header", "GET", "/auth/sign_in", "X-Auth-Request-Redirect", "/deep?x=1",
			"/auth/login?return_to=%2Fdeep%3Fx%3D1"},
		{"a header to another site", "GET", "/auth/sign_in", "X-Auth-Request-Redirect", "https://evil.example/",
			"/auth/login?return_to=%2F"},
		{"Traefik's header", "GET", "/auth/sign_in", "X-Forwarded-Uri", "/deep", "/auth/login?return_to=%2Fdeep"},
		{"the query counts first", "GET", "/auth/start?rd=/one", "X-Auth-Request-Redirect", "/two",
			"/auth/login?return_to=%2Fone"},
		{"a prompt", "GET", "/auth/start?prompt=login", "", "", "/auth/login?prompt=login&return_to=%2F"},
		{"sign-out", "GET", "/auth/sign_out?rd=https://evil.example/", "", "", "/auth/logout"},
		{"sign-out by a form", "POST", "/auth/sign_out", "", "", "/auth/logout"},
	} {
		w := askFormer(st.Web.URL.Host, mux, row.method, row.target, row.header, row.value, "Accept", "text/html")
		if got := w.Header().Get("Location"); w.Code != http.StatusSeeOther || got != row.want {
			t.Errorf("%s: %d to %q, want 303 to %q", row.name, w.Code, got, row.want)
		}
	}
}

func TestOAuth2ProxyAuthAnswers202AndTheQueryOnlyRestricts(t *testing.T) {
	t.Parallel()
	st, mux := formerStage(t, gateway.Rule{Path: "/public/*", Public: true})
	b, _ := st.signIn(map[string]any{"email": "ada@corp.example", "groups": []any{"staff"}})
	const path = "/auth/auth"
	for _, row := range []struct {
		name, query, uri string
		signedIn         bool
		want             int
	}{
		{"signed in", "", "/a", true, 202},
		{"nobody", "", "/a", false, 401},
		{"nobody, on a public path", "", "/public/a", false, 202},
		{"a group", "?allowed_groups=ops,staff", "/a", true, 202},
		{"another group", "?allowed_groups=ops", "/a", true, 403},
		{"another group, on a public path", "?allowed_groups=ops", "/public/a", true, 403},
		{"a group of nobody, on a public path", "?allowed_groups=ops", "/public/a", false, 401},
		{"an address", "?allowed_emails=ada@corp.example", "/a", true, 202},
		{"another address", "?allowed_emails=eve@corp.example", "/a", true, 403},
		{"a domain", "?allowed_email_domains=corp.example", "/a", true, 202},
		{"another domain", "?allowed_email_domains=evil.example", "/a", true, 403},
		{"all must be met", "?allowed_groups=staff&allowed_emails=eve@corp.example", "/a", true, 403},
		{"an empty list restricts nothing", "?allowed_groups=", "/a", true, 202},
		{"a list given twice", "?allowed_groups=ops&allowed_groups=staff", "/a", true, 202},
		{"a query that is none", "?allowed_groups=%zz", "/a", true, 400},
		{"a query with a semicolon", "?x=1;allowed_groups=ops", "/a", true, 400},
	} {
		headers := []string{"X-Forwarded-Uri", row.uri, "X-Forwarded-Method", "GET"}
		if row.signedIn {
			headers = append(headers, "Cookie", cookie(b))
		}
		w := askFormer(st.Web.URL.Host, mux, "GET", path+row.query, headers...)
		if w.Code != row.want {
			t.Errorf("%s: %d, want %d: %s", row.name, w.Code, row.want, w.Body)
		}
		if told := w.Header().Get("X-Auth-Request-Email"); (told != "") != (row.signedIn && row.want == 202) {
			t.Errorf("%s: the app is told of %q", row.name, told)
		}
	}
}

func TestOAuth2ProxyUserinfo(t *testing.T) {
	t.Parallel()
	st, mux := formerStage(t)
	if w := askFormer(st.Web.URL.Host, mux, "GET", "/auth/userinfo"); w.Code != 401 {
		t.Errorf("nobody: %d, want 401", w.Code)
	}
	b, s := st.signIn(map[string]any{"email": "ada@corp.example", "groups": []any{"staff"}, "preferred_username": "ada"})
	w := askFormer(st.Web.URL.Host, mux, "GET", "/auth/userinfo", "Cookie", cookie(b))
	want := `{"user":"` + s.Subject + `","email":"ada@corp.example","groups":["staff"],"preferredUsername":"ada"}`
	if strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("got %s, want %s", w.Body, want)
	}
}

func TestOAuth2ProxyPathsAreOffByDefault(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, _ := st.signIn(nil)
	mux := http.NewServeMux()
	st.gateway.Mount(mux)
	for _, path := range []string{"start", "sign_in", "sign_out", "auth", "userinfo"} {
		if w := askFormer(st.Web.URL.Host, mux, "GET", "/auth/"+path, "Cookie", cookie(b)); w.Code != 404 {
			t.Errorf("%s: %d, want 404", path, w.Code)
		}
	}
}
