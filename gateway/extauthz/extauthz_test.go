package extauthz_test

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"example.com/curfew/gateway"
	"example.com/curfew/gateway/extauthz"
	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store/memory"
	"example.com/curfew/web"
)

// start serves a gateway over gRPC on loopback, and returns a client as Envoy is one, and the cookie of somebody who is
// signed in.
func start(t *testing.T) (auth.AuthorizationClient, string) {
	t.Helper()
	ring, err := keyring.Parse(keyring.NewFile())
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	sessions, err := session.NewManager(session.Config{Store: memory.New(), Keyring: ring, MaxStale: -1, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := gateway.NewPolicy(gateway.Rule{Path: "/public/*", Public: true},
		gateway.Rule{Path: "/admin/*", Groups: []string{"admins"}})
	if err != nil {
		t.Fatal(err)
	}
	h := &gateway.Handler{
		Site:     &web.Site{URL: &url.URL{Scheme: "https", Host: "app.example.com"}, Log: log},
		Sessions: sessions, Policy: policy,
		App:  "wiki",
		Apps: []string{"wiki", "mail"},
		Assertion: &gateway.Assertion{Sign: func(_ context.Context, app string, _ []byte) (string,
			error) {
			return "signed for " + app, nil
		}},
	}
	b, _, err := sessions.Create(t.Context(), session.SignIn{Issuer: "i", ClientID: "c", Subject: "alice",
		Began: sessions.Now()})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := extauthz.NewServer(h)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return auth.NewAuthorizationClient(conn), "__Host-curfew=" + b.Reveal()
}

func question(method, path string, headers map[string]string) *auth.CheckRequest {
	socket := &core.SocketAddress{Address: "192.0.2.7", PortSpecifier: &core.SocketAddress_PortValue{PortValue: 1234}}
	return &auth.CheckRequest{Attributes: &auth.AttributeContext{
		Source: &auth.AttributeContext_Peer{Address: &core.Address{
			Address: &core.Address_SocketAddress{SocketAddress: socket}}},
		Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
			Method: method, Path: path, Host: "app.example.com", Scheme: "https", Headers: headers,
		}},
	}}
}

func TestEnvoyGetsTheDecisionsOfTheGateway(t *testing.T) {
	t.Parallel()
	envoy, cookie := start(t)
	const page = "text/html"
	for name, row := range map[string]struct {
		method, path string
		headers      map[string]string
		status       int32  // of the denial; 0: let through
		location     string // of the denial
	}{
		"nobody, a page": {"GET", "/deep?a=b", map[string]string{"accept": page}, 303,
			"https://app.example.com/auth/login?return_to=%2Fdeep%3Fa%3Db"},
		"nobody, an API":            {"GET", "/deep", nil, 401, ""},
		"nobody, a form":            {"POST", "/deep", map[string]string{"accept": page}, 401, ""},
		"nobody, a public path":     {"GET", "/public/x", nil, 0, ""},
		"signed in":                 {"GET", "/deep", map[string]string{"cookie": cookie}, 0, ""},
		"signed in, not in a group": {"GET", "/admin/x", map[string]string{"cookie": cookie}, 403, ""},
		"two meanings":              {"GET", "/public/../admin", map[string]string{"cookie": cookie}, 400, ""},
		"a header names a path": {"GET", "/deep", map[string]string{"x-forwarded-uri": "/public/x",
			"x-original-uri": "/public/x"}, 401, ""},
		"no path":             {"GET", "", map[string]string{"cookie": cookie}, 400, ""},
		"a path that is none": {"GET", "\x7f", map[string]string{"cookie": cookie}, 400, ""},
	} {
		answer, err := envoy.Check(t.Context(), question(row.method, row.path, row.headers))
		if err != nil {
			t.Fatal(err)
		}
		denied := answer.GetDeniedResponse()
		if row.status == 0 {
			if answer.GetStatus().GetCode() != 0 || answer.GetOkResponse() == nil {
				t.Errorf("%s: %v", name, answer)
			}
			continue
		}
		if answer.GetStatus().GetCode() == 0 || int32(denied.GetStatus().GetCode()) != row.status ||
			header(denied.GetHeaders(), "location") != row.location {
			t.Errorf("%s: %v, want %d %s", name, answer, row.status, row.location)
		}
	}
}

func header(options []*core.HeaderValueOption, name string) string {
	for _, o := range options {
		if o.GetHeader().GetKey() == name {
			return o.GetHeader().GetValue()
		}
	}
	return ""
}

func TestEnvoyIsToldWhatTheAppMaySeeAndWhatNot(t *testing.T) {
	t.Parallel()
	envoy, cookie := start(t)
	answer, err := envoy.Check(t.Context(), question("GET", "/", map[string]string{
		"cookie": cookie + "; theme=dark", "x-auth-subject": "mallory", "x_auth_subject": "mallory",
		"x-auth-groups": "admins", "x.forwarded.user": "mallory", "accept": "x", "x-auth-assertion": "mallory",
		"x_auth_assertion": "mallory",
		"x-forwarded-for":  "192.0.2.7",
	}))
	if err != nil {
		t.Fatal(err)
	}
	ok := answer.GetOkResponse()
	if header(ok.GetHeaders(), "x-auth-subject") != "alice" || header(ok.GetHeaders(), "cookie") != "theme=dark" {
		t.Errorf("set %v", ok.GetHeaders())
	}
	if got := header(ok.GetHeaders(), "x-auth-assertion"); got != "signed for wiki" {
		t.Errorf("the assertion is %q", got)
	}
	for _, o := range ok.GetHeaders() {
		if o.GetAppendAction() != core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("%s would stand beside what the client sent", o.GetHeader().GetKey())
		}
	}
	removed := map[string]bool{}
	for _, name := range ok.GetHeadersToRemove() {
		removed[name] = true
	}
	if got := slices.Sorted(maps.Keys(removed)); strings.Join(got,
		" ") != "x-auth-groups x.forwarded.user x_auth_assertion x_auth_subject" {
		t.Errorf("removed %q", got)
	}
}

// The configuration of Envoy names the app, so it is no word of the client's; but it may be spelled wrong.
func TestARouteOfEnvoyNamesItsApp(t *testing.T) {
	t.Parallel()
	envoy, cookie := start(t)
	sessions := map[string]bool{}
	for _, row := range []struct {
		name       string
		extensions map[string]string
		app        string // that is told; empty: refused
	}{
		{"none", nil, "wiki"},
		{"something else", map[string]string{"virtual_host": "mail"}, "wiki"},
		{"the default", map[string]string{"app": "wiki"}, "wiki"},
		{"another", map[string]string{"app": "mail"}, "mail"},
		{"one that there is not", map[string]string{"app": "Mail"}, ""},
		{"the empty name", map[string]string{"app": ""}, ""},
	} {
		for _, path := range []string{"/", "/public/x"} {
			q := question("GET", path, map[string]string{"cookie": cookie, "app": "mail"})
			q.Attributes.ContextExtensions = row.extensions
			answer, err := envoy.Check(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if row.app == "" {
				denied := answer.GetDeniedResponse()
				if answer.GetStatus().GetCode() == 0 || denied.GetStatus().GetCode() != 500 ||
					!strings.Contains(denied.GetBody(), "asks for an app that is not configured") {
					t.Errorf("%s at %s: %v", row.name, path, answer)
				}
				continue
			}
			told := answer.GetOkResponse().GetHeaders()
			if got := header(told, "x-auth-assertion"); got != "signed for "+row.app {
				t.Errorf("%s at %s: the assertion is %q", row.name, path, got)
			}
			sessions[row.app+" "+header(told, "x-auth-session")] = true
		}
	}
	if len(sessions) != 2 {
		t.Errorf("the apps know the session as %v", sessions)
	}
}

func TestACookieOfTheAppThatIsNotUTF8LocksNobodyOut(t *testing.T) {
	t.Parallel()
	envoy, cookie := start(t)
	q := question("GET", "/", nil)
	q.Attributes.Request.Http.HeaderMap = &core.HeaderMap{Headers: []*core.HeaderValue{
		{Key: "cookie", RawValue: []byte(cookie + "; name=Andr\xe9")}}}
	answer, err := envoy.Check(t.Context(), q)
	if err != nil || answer.GetOkResponse() == nil {
		t.Fatalf("%v, %v", answer, err)
	}
	for _, o := range answer.GetOkResponse().GetHeaders() {
		if o.GetHeader().GetKey() == "cookie" && o.GetHeader().GetValue() != "name=Andr?" {
			t.Errorf("the app gets the cookies %q", o.GetHeader().GetValue())
		}
	}
}
