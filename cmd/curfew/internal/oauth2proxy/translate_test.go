package oauth2proxy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/terminal"
)

// needed is what no translation can do without.
func needed(more ...string) []string {
	return append([]string{"--provider=oidc", "--oidc-issuer-url=https://id.example.com", "--client-id=app",
		"--client-secret=geheim", "--email-domain=*", "--redirect-url=https://app.example.com/oauth2/callback"}, more...)
}

// writeFile writes a file into the folder of a test.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// translate translates, and loads what was made: every configuration must be one that curfew loads without a fault.
func translate(t *testing.T, args, environ []string) (*Result, *config.Config) {
	t.Helper()
	dir := t.TempDir()
	files := Files{filepath.Join(dir, "curfew.yaml"), filepath.Join(dir, "secret"), filepath.Join(dir, "curfew.env")}
	made, err := Translate(args, environ, files)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	for name, text := range map[string][]byte{files.Config: made.YAML, files.Secret: []byte(made.Secret)} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Load(map[string]string{"config": files.Config}, strings.Fields(made.Env))
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, made.YAML)
	}
	return made, c
}

// sample returns a value for an option that is not its default.
func sample(t *testing.T, o option) string {
	switch {
	case o.kind == boolean:
		return map[string]string{"true": "false", "false": "true"}[o.def]
	case o.kind == duration:
		return "17m"
	case o.kind == number:
		return "7"
	case strings.Contains(o.flag, "redis") && strings.Contains(o.flag, "connection-url"):
		return "redis://r.example:6379"
	case strings.Contains(o.flag, "emails-file"):
		return writeFile(t, "emails", "Ada@corp.example\n# nobody\n\n")
	case o.flag == "oidc-issuer-url":
		return "https://other.example.com"
	case o.flag == "redirect-url":
		return "https://other.example.com/oauth2/callback"
	case o.flag == "upstream":
		return "http://127.0.0.1:3000"
	case strings.HasSuffix(o.flag, "-address"):
		return "127.0.0.1:9999"
	case o.flag == "trusted-proxy-ip":
		return "10.0.0.0/8"
	case o.flag == "prompt":
		return "login"
	case o.flag == "proxy-prefix":
		return "/sso"
	case o.flag == "oidc-enabled-signing-alg":
		return "ES256"
	case o.flag == "skip-auth-route":
		return "GET=^/public/"
	case o.flag == "client-secret-file":
		return writeFile(t, "secret", "geheim")
	case o.flag == "provider":
		return "keycloak-oidc"
	}
	return "sample"
}

func TestEveryOptionIsExplainedAndWhatIsWrittenLoads(t *testing.T) {
	t.Parallel()
	count := map[Outcome]int{}
	for _, o := range options() {
		value := sample(t, o)
		made, _ := translate(t, needed("--"+o.flag+"="+value), nil)
		i := slices.IndexFunc(made.Items, func(i Item) bool { return strings.HasPrefix(i.Name, "--"+o.flag) })
		if i < 0 || made.Items[i].Note == "" || made.Items[i].Outcome == "" {
			t.Errorf("--%s=%s: nothing is said of it", o.flag, value)
			continue
		}
		count[made.Items[i].Outcome]++
	}
	t.Logf("of %d options: %d carried over, %d not needed, %d differ, %d not there, each with what to do",
		len(options()), count[Carried], count[NotNeeded], count[Differs], count[Missing])
}

func TestTheSourcesOverrideEachOther(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "oauth2-proxy.cfg", `
# a comment
provider = "oidc"
client_id = "of the file"
oidc_issuer_url = "https://id.example.com"
redirect_url = "https://app.example.com/oauth2/callback"
email_domains = ["a.example", "b.example"]
cookie_refresh = ""
cookie_secure = "true"
`)
	for _, row := range []struct {
		name    string
		args    []string
		environ []string
		want    string
	}{
		{"the file", nil, nil, "of the file"},
		{"the environment", nil, []string{"OAUTH2_PROXY_CLIENT_ID=of the environment"}, "of the environment"},
		{"a flag", []string{"--client-id", "of the flag"}, []string{"OAUTH2_PROXY_CLIENT_ID=x"}, "of the flag"},
	} {
		made, c := translate(t, append([]string{"--config", file}, row.args...), append(row.environ,
			"OAUTH2_PROXY_PORT=tcp://10.0.0.1:4180", "OAUTH2_PROXY_SERVICE_HOST=10.0.0.1", "HOME=/root"))
		if got := c.Providers[0].ClientID; got != row.want {
			t.Errorf("%s: the client is %q, want %q", row.name, got, row.want)
		}
		if !strings.Contains(string(made.YAML), "email_domains: [a.example, b.example]") {
			t.Errorf("%s: no email_domains in\n%s", row.name, made.YAML)
		}
	}
}

func TestWhatIsWrongIsSaidAtOnceWithASuggestion(t *testing.T) {
	t.Parallel()
	toml := func(text string) []string { return needed("--config", writeFile(t, "o.cfg", text)) }
	alpha := func(text string) []string { return needed("--alpha-config", writeFile(t, "a.yaml", text)) }
	for _, row := range []struct {
		args    []string
		environ []string
		want    string
	}{
		{needed("--upstreams=http://a"), nil, "--upstreams: oauth2-proxy has no such option; did you mean --upstream?"},
		{needed("-upstream=http://a"), nil, `"-upstream" is not an option; did you mean --upstream?`},
		{needed("--cookie-expiry", "1h"), nil, "--cookie-expiry: oauth2-proxy has no such option; did you mean " +
			"--cookie-expire?"},
		{needed("--cookie-expire"), nil, "--cookie-expire: needs a value"},
		{needed("--cookie-expire=soon"), nil, `--cookie-expire: "soon" is not a duration`},
		{needed("--cookie-secure=perhaps"), nil, `--cookie-secure: "perhaps" is neither true nor false`},
		{needed("--logging-max-age=x"), nil, `--logging-max-age: "x" is not a whole number`},
		{needed(), []string{"OAUTH2_PROXY_EMAIL_DOMAIN=a"}, "OAUTH2_PROXY_EMAIL_DOMAIN: oauth2-proxy reads no such " +
			"variable; did you mean OAUTH2_PROXY_EMAIL_DOMAINS?"},
		{toml("\nupstream = \"http://a\"\n"), nil, "o.cfg:2: upstream: oauth2-proxy has no such option; did you mean " +
			"upstreams?"},
		{toml("client_secret = geheim\n"), nil, "o.cfg:1: is not valid TOML"},
		{toml("[client_id]\na = 1\n"), nil, "client_id: want a single value or a list"},
		{toml("client_id = [\"a\"]\n"), nil, "client_id: want a single value, not a list"},
		{needed("--config=/does/not/exist"), nil, "--config: open /does/not/exist"},
		{needed("--alpha-config=/does/not/exist"), nil, "--alpha-config: open /does/not/exist"},
		{alpha("upstreamConfig: {upstream: []}"), nil, "upstreamConfig.upstream: the alpha configuration has no such " +
			"field; did you mean upstreams?"},
		{alpha("providers: [{allowedGroups: [[a]]}]"), nil, "provider.allowedGroups: want a list of single values"},
		{alpha("provider: []"), nil, "provider: the alpha configuration has no such field; did you mean providers?"},
		{alpha("providers: [{clientId: a}]"), nil, "provider.clientId: the alpha configuration has no such field; did " +
			"you mean provider.clientID?"},
		{alpha("a: b: c"), nil, "is not valid YAML: mapping values are not allowed in this context"},
		{alpha("a: 1\n b: \"2"), nil, "is not valid YAML: line "},
		{alpha("providers: [{clientSecret: *geheim}]"), nil, "is not valid YAML: unknown anchor"},
		{alpha(""), nil, "a.yaml: want a map"},
		{alpha("# nothing\n"), nil, "a.yaml: want a map"},
		{alpha("---\n"), nil, "a.yaml: want a map"},
		{alpha("providers: [{oidcConfig: &o {oidcConfig: *o}}]"), nil, "provider.oidcConfig.oidcConfig: the alpha " +
			"configuration has no such field"},
		{[]string{"--client-id=a", "--email-domain=*"}, nil, "--redirect-url: is not set"},
		{needed("--redirect-url=http://app.example.com/oauth2/callback"), nil, "http is for loopback"},
		{needed("--redirect-url=/oauth2/callback"), nil, "is not an absolute URL"},
		{[]string{"--provider=github", "--client-id=a", "--email-domain=*", "--redirect-url=https://a.example/x"}, nil,
			`"github" is not an OpenID Provider: put Dex or Keycloak before it`},
		{[]string{"--provider=oidc", "--client-id=a", "--email-domain=*", "--redirect-url=https://a.example/x"}, nil,
			"--oidc-issuer-url: is missing"},
		{[]string{"--provider=google", "--client-id=a", "--redirect-url=https://a.example/x"}, nil,
			"--email-domain: is missing"},
		{needed("--session-store-type=redis"), nil, "--redis-connection-url: is missing"},
		{needed("--session-store-type=redis", "--redis-connection-url=unix:///r"), nil, "a Unix socket cannot be used"},
		{needed("--upstream=ftp://a"), nil, "is not the address of an app"},
		{needed("--upstream=http://a,http://b"), nil, "two upstreams have the path /*"},
	} {
		_, err := Translate(row.args, row.environ, Files{"curfew.yaml", "secret", "env"})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: %v, want %q", row.args[len(row.args)-1], err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "geheim") {
			t.Errorf("%v: tells a secret", err)
		}
	}
}

func TestNoSecretIsInTheConfigurationOrTheReport(t *testing.T) {
	t.Parallel()
	var args []string
	for _, o := range options() {
		if o.secret && !strings.Contains(o.flag, "url") {
			args = append(args, "--"+o.flag+"=geheim%&"+o.flag)
		}
	}
	for _, kind := range [][]string{
		{"--redis-connection-url=redis://ada:geheim@r.example:6379/3"},
		{"--redis-use-cluster", "--redis-cluster-connection-urls=rediss://ada:geheim@r1.example:6379,rediss://r2.example"},
		{"--redis-use-sentinel", "--redis-sentinel-master-name=m", "--redis-ca-path=" + selfSigned(t),
			"--redis-sentinel-connection-urls=redis://:geheim@s1.example:26379,redis://s2.example:26379"},
	} {
		made, c := translate(t, needed(append(append(args, "--session-store-type=redis"), kind...)...), nil)
		var report strings.Builder
		if err := made.Report(&report, terminal.Painter(false)); err != nil {
			t.Fatal(err)
		}
		for what, text := range map[string]string{"configuration": string(made.YAML), "report": report.String()} {
			if strings.Contains(text, "geheim") {
				t.Errorf("%s: the %s tells a secret:\n%s", kind, what, text)
			}
		}
		if !strings.Contains(made.Env, "geheim") || made.Secret != "geheim%&client-secret" ||
			c.Providers[0].ClientSecret != made.Secret {
			t.Errorf("%s: the secrets are lost: %q, %q", kind, made.Env, made.Secret)
		}
	}
}

// selfSigned returns the name of a file with a certificate.
func selfSigned(t *testing.T) string {
	t.Helper()
	return writeFile(t, "ca.pem", testCA(t))
}

func TestRestrictionsThatCannotBeExpressedLetNobodyIn(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--google-group=staff@corp.example"}, {"--github-org=corp"}, {"--gitlab-project=a/b"},
		{"--bitbucket-team=x"}, {"--github-user=ada"},
		{"--email-domain=.corp.example"}, {"--email-domain=*.corp.example"},
		{"--email-domain=corp.example", "--oidc-email-claim=upn"},
		{"--authenticated-emails-file=" + writeFile(t, "none", "# nobody\n")},
	} {
		all := slices.DeleteFunc(needed(args...), func(a string) bool { return a == "--email-domain=*" })
		if !slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "email") }) {
			all = needed(args...)
		}
		made, _ := translate(t, all, nil)
		if !strings.Contains(string(made.YAML), "groups: ['replace this: ") {
			t.Errorf("%q: somebody gets in:\n%s", args, made.YAML)
		}
	}
}

func TestHostsAreThoseThatTheCookieReaches(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ white, cookies, want string }{
		{".corp.example", ".corp.example", "'*.corp.example'"},
		{"*.corp.example,wiki.corp.example,id.other.example", "corp.example", "'*.corp.example', wiki.corp.example"},
		{".corp.example", "", ""},
		{"", ".corp.example", ""},
		{".co.uk", ".co.uk", ""}, // a public suffix
		{"notcorp.example", "corp.example", ""},
	} {
		args := needed()
		if row.white != "" {
			args = append(args, "--whitelist-domain="+row.white)
		}
		if row.cookies != "" {
			args = append(args, "--cookie-domain="+row.cookies)
		}
		made, _ := translate(t, args, nil)
		_, got, _ := strings.Cut(string(made.YAML), "hosts: [")
		if got, _, _ = strings.Cut(got, "]"); got != row.want {
			t.Errorf("%+v: hosts are %q", row, got)
		}
	}
}

func TestListenersAndTheLifeOfACookieAreCarriedOver(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		arg, want, says string
	}{
		{"--http-address=unix:///run/o/o.sock", "listen: unix:/run/o/o.sock\n", "can connect to the socket"},
		{"--http-address=fd:3", "listen: systemd\n", "the one socket that systemd opened"},
		{"--http-address=http://127.0.0.1:80", "listen: 127.0.0.1:80\n", "listen"},
		{"--http-address=unix://o.sock", "", "unix:PATH or systemd"},
		{"--http-address=-", "", "unix:PATH or systemd"},
		{"--cookie-expire=12h", "remember: true\n", "session_lifetime, idle_timeout and remember"},
		{"--cookie-expire=0", "", "the cookie ends with the browser"},
		{"--cookie-domain=example.com", "", "see cookie_domain there"},
	} {
		made, _ := translate(t, needed(row.arg), nil)
		if row.want != "" && !strings.Contains("\n"+string(made.YAML), "\n"+row.want) ||
			row.want == "" && strings.Contains("\n"+string(made.YAML), "\nlisten:") != strings.Contains(row.arg, "cookie") ||
			row.want == "" && strings.Contains(string(made.YAML), "remember") {
			t.Errorf("%s: %s", row.arg, made.YAML)
		}
		flag, _, _ := strings.Cut(row.arg, "=")
		if !slices.ContainsFunc(made.Items, func(i Item) bool {
			return strings.HasPrefix(i.Name, flag) && strings.Contains(i.Note, row.says)
		}) {
			t.Errorf("%s: %+v, want one that says %q", row.arg, made.Items, row.says)
		}
	}
}

func TestExpressionsBecomePaths(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		expression string
		all        bool
		want       string // no paths: cannot be expressed
	}{
		{"^/public/", false, "/public/*"},
		{"^/public/.*", false, "/public/*"},
		{"^/public/.*$", false, "/public/*"},
		{"^/health$", false, "/health"},
		{"^/health/$", false, "/health"},
		{"^/$", false, "/"},
		{"^/", false, "/*"},
		{"^.*$", false, "/*"},
		{"^/static", false, "/static/*"},
		{"^/(css|js)/", false, "/css/* /js/*"},
		{"^/api/v[12]/open$", false, "/api/v1/open /api/v2/open"},
		{"^/a/?$", false, "/a"},
		{"^/favicon.ico$", false, "/favicon.ico"},
		{`^/favicon\.ico$`, false, "/favicon.ico"},
		{"^/a$|^/b/", false, "/a /b/*"},
		{"(^/a$|^/b$)", false, "/a /b"},
		{"(^/a|^/b)$", false, "/a /b"},
		{"(?:^/healthz|^/readyz)$", false, "/healthz /readyz"},
		{"(^/api/v1|^/api/v2)/public$", false, "/api/v1/public /api/v2/public"},
		{"(^/api/|^/v2/)health$", false, "/api/health /v2/health"},
		{`(^/a|^/b)\.json$`, false, "/a.json /b.json"},
		{"(^/a|^/b)", false, "/a/* /b/*"},
		{"(^/a$|^/b)$", false, "/a /b"},
		{"(^/a$|^/b)/c", false, ""},
		{"(^/a|^/b.*)/c$", false, ""},
		{"^(/a|/b)$", false, "/a /b"},
		{"^(/a|/b$)", false, "/a/* /b"},
		{"^/a(/.*)?$", false, "/a /a/*"},
		{"^/a$/b", false, ""}, // accepts no path
		{"^/a$b|^/c$", false, ""},
		{"(^/a)?/b$", false, ""},
		{"(^/a|/b)$", false, ""},
		{"^//", false, ""},
		{"^/a//", false, ""},
		{"^/a//$", false, ""},
		{`^/\*$`, false, ""}, // a path, not a pattern
		{`^/a/\*$`, false, ""},
		{"^/a/[*b]$", false, ""},
		{`^/\x{D800}$`, false, ""}, // no character
		{"/public/", false, ""},    // anywhere in a path
		{`\.css$`, false, ""},
		{"(?i)^/a$", false, ""},
		{"^/[a-z]+$", false, ""},
		{"^/[^/]*$", false, ""},
		{"^/a/.+$", false, ""},
		{"^/a.*b$", false, ""},
		{"^/(a$|b)/c", false, ""},
		{"^a$", false, ""},
		{"^/a;b$", false, ""},
		{"^/a//b$", false, ""},
		{"^/(", false, ""},
		{"^/admin/", true, "/admin/*"},
		{"^/admin$", true, "/admin"},
		{"^/admin", true, ""}, // /administration too
		{"^/a.b$", true, ""},
		{"admin", true, ""},
		{"", false, ""},
	} {
		paths, _, ok := patterns(row.expression, row.all)
		if got := strings.Join(paths, " "); got != row.want || ok != (row.want != "") {
			t.Errorf("%q: %q %v, want %q", row.expression, got, ok, row.want)
		}
	}
}

func TestTheReportCountsAndPutsFirstWhatNeedsAttention(t *testing.T) {
	t.Parallel()
	made, _ := translate(t, needed("--trusted-ip=10.0.0.1", "--banner=\x1b[31mhello"), nil)
	var b strings.Builder
	if err := made.Report(&b, terminal.Painter(false)); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if strings.Contains(text, "\x1b") {
		t.Error("the report holds a control character")
	}
	missing, carried := strings.Index(text, "\nnot there\n"), strings.Index(text, "\ncarried over\n")
	if missing < 0 || missing > carried || !strings.Contains(text, "not there\n") {
		t.Errorf("the order is wrong:\n%s", text)
	}
	if want := fmt.Sprintf("%d settings: ", len(made.Items)); !strings.Contains(text, want) {
		t.Errorf("no line with %q in\n%s", want, text)
	}
}

func TestTheAlphaConfigurationIsRead(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "alpha.yaml", `
upstreamConfig:
  proxyRawPath: true
  upstreams:
    - {id: api, path: /api/, uri: "http://127.0.0.1:3001", timeout: 10s}
    - {id: root, path: /, uri: "http://127.0.0.1:3000/app", passHostHeader: false}
    - {id: old, path: "^/old/(.*)$", rewriteTarget: "/new/$1", uri: "http://127.0.0.1:3002"}
server: {bindAddress: "0.0.0.0:4180", tls: {minVersion: TLS1.3}}
metricsServer: {bindAddress: "0.0.0.0:9100"}
injectRequestHeaders:
  - name: X-Forwarded-User
    values: [{claimSource: {claim: user}}]
  - name: X-Forwarded-Email
    values: [{claim: email}]
  - name: X-Department
    values: [{claimSource: {claim: department}}]
  - name: Authorization
    values: [{claimSource: {claim: access_token, prefix: "Bearer "}}]
  - name: X-Secret
    values: [{secretSource: {value: Z2VoZWlt}}]
  - name: X-Id
    values: [{claimSource: {claim: id_token}}]
injectResponseHeaders:
  - name: X-Auth-Request-Groups
    values: [{claimSource: {claim: groups}}]
providers:
  - id: main
    provider: keycloak-oidc
    clientID: app
    clientSecret: ${SECRET}
    name: The realm
    allowedGroups: [/staff, "/a,b"]
    additionalClaims: [department]
    loginURLParameters: [{name: prompt, default: [login]}]
    keycloakConfig: {roles: ["app:admin"]}
    oidcConfig: {issuerURL: "https://${HOST:-id.example.com}/realms/a", groupsClaim: groups}
  - id: second
`)
	made, c := translate(t, []string{"--alpha-config", file, "--email-domain", "*", "--redirect-url",
		"https://app.example.com/oauth2/callback"}, []string{"SECRET=007"})
	p := c.Providers[0]
	if p.Issuer != "https://id.example.com/realms/a" || p.ClientSecret != "007" || p.Label != "The realm" {
		t.Errorf("the provider is %q, %q", p.Issuer, p.Label)
	}
	if len(c.Routes) != 1 || c.Routes[0].Path != "/api/*" || c.Upstream.String() != "http://127.0.0.1:3000/app" {
		t.Errorf("the apps are %v and %v", c.Routes, c.Upstream)
	}
	for _, want := range []string{"identity: none", "X-Forwarded-User: subject", "X-Department: claim:department",
		"Authorization: bearer", "X-Auth-Request-Groups: groups", "groups: [/staff, '/a,b']",
		"resource_access.app.roles: [admin]", "listen: 0.0.0.0:4180"} {
		if !strings.Contains(string(made.YAML), want) {
			t.Errorf("no %s in\n%s", want, made.YAML)
		}
	}
	for _, want := range []string{"header X-Secret", "header X-Id", "upstream rewriteTarget", "upstream passHostHeader",
		"provider.additionalClaims", "provider.loginURLParameters", "metricsServer.bindAddress", "providers"} {
		if !slices.ContainsFunc(made.Items, func(i Item) bool { return strings.Contains(i.Name, want) }) {
			t.Errorf("nothing is said of %s", want)
		}
	}
}

func TestAliasesInTheAlphaConfigurationAreResolved(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "alpha.yaml", `
upstreamConfig:
  proxyRawPath: # not looked at
    - &group /staff
    - &app {path: /api/, uri: "http://127.0.0.1:3001"}
    - &header {name: X-Department, values: [claim: department]}
    - &provider {provider: oidc, clientID: app, allowedGroups: [/a, *group],
        oidcConfig: {issuerURL: "https://a.example"}}
    - &value {claim: email}
  upstreams: [*app]
injectRequestHeaders: [*header, {name: X-Email, values: [*value]}]
server: {&address bindAddress: "127.0.0.1:4180"}
metricsServer: {*address : "127.0.0.1:9100"}
providers: [*provider]
`)
	made, c := translate(t, []string{"--alpha-config", file, "--email-domain", "*", "--redirect-url",
		"https://app.example.com/oauth2/callback"}, nil)
	if c.Providers[0].Issuer != "https://a.example" || len(c.Routes) != 1 || c.Routes[0].Path != "/api/*" {
		t.Errorf("the issuer is %q, and the routes are %v", c.Providers[0].Issuer, c.Routes)
	}
	for _, want := range []string{"groups: [/a, /staff]", "X-Department: claim:department", "X-Email: email"} {
		if !strings.Contains(string(made.YAML), want) {
			t.Errorf("no %s in\n%s", want, made.YAML)
		}
	}
}

func TestAnyNegationOfARouteCounts(t *testing.T) {
	t.Parallel()
	made, _ := translate(t, needed("--skip-auth-route=GET=^/a!=b/"), nil) // in oauth2-proxy all but these paths
	const want = "- path: /a!=b/*\n    methods: [GET]\n  - path: /*\n    methods: [GET]\n    public: true\n"
	if !strings.Contains(string(made.YAML), want) {
		t.Errorf("no %q in\n%s", want, made.YAML)
	}
}

func TestTokensInTheAuthorizationHeader(t *testing.T) {
	t.Parallel()
	made, c := translate(t, []string{"--provider", "keycloak-oidc", "--oidc-issuer-url", "https://id.example.com/realms/a",
		"--client-id", "app", "--client-secret", "x", "--email-domain", "*", "--cookie-secret", "0123456789abcdef",
		"--redirect-url", "https://app.example.com/oauth2/callback", "--skip-jwt-bearer-tokens",
		"--oidc-extra-audience", "api", "--extra-jwt-issuers", "https://other.example.com=api"}, nil)
	b := c.Providers[0].Bearer
	if b == nil || !slices.Equal(b.Audiences, []string{"app", "api"}) || b.Form != "keycloak" {
		t.Errorf("bearer is %+v", b)
	}
	for name, want := range map[string]Outcome{"skip-jwt-bearer-tokens": Differs, "extra-jwt-issuers": Missing} {
		if !slices.ContainsFunc(made.Items, func(i Item) bool {
			return strings.Contains(strings.ReplaceAll(i.Name, "_", "-"), name) && i.Outcome == want
		}) {
			t.Errorf("%s is not said to be %v: %v", name, want, made.Items)
		}
	}
}
