package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/gateway"
	"example.com/curfew/oidc"
	"example.com/curfew/web"
)

// needed is what no configuration can do without.
func needed(more ...string) map[string]string {
	flags := map[string]string{"url": "http://127.0.0.1:4180", "issuer": "https://id.example.com", "client-id": "app"}
	for i := 0; i < len(more); i += 2 {
		flags[more[i]] = more[i+1]
	}
	return flags
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "curfew.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDefaultsAreThoseOfTheDesign(t *testing.T) {
	t.Parallel()
	c, err := Load(needed(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		what      string
		got, want any
	}{
		{"listen", c.Listen, "127.0.0.1:4180"},
		{"admin_listen", c.AdminListen, "127.0.0.1:4181"},
		{"prefix", c.Prefix, "/auth"},
		{"home", c.Home, "/"},
		{"store", c.Store.String(), "sqlite:curfew.db"},
		{"key_file beside the database", c.KeyFile, "curfew.key"},
		{"idle_timeout", c.Idle, 2 * time.Hour},
		{"session_lifetime", c.Lifetime, 24 * time.Hour},
		{"refresh_grace", c.Grace, time.Hour},
		{"cache_ceiling", c.MaxStale, time.Second},
		{"cache_size", c.CacheSize, 100_000},
		{"success_status (Back-Channel Logout §2.8)", c.SuccessStatus, 200},
		{"failure_status", c.FailureStatus, 503},
		{"name", c.Providers[0].Name, "main"},
		{"scopes", c.Providers[0].Scopes, []string{"openid", "profile", "email"}},
		{"id_token_signed_response_alg", c.Providers[0].SigningAlg, "RS256"},
		{"quirks", Quirks(c.Providers[0].Quirks), []string(nil)},
	} {
		if !reflect.DeepEqual(row.got, row.want) {
			t.Errorf("%s: got %v, want %v", row.what, row.got, row.want)
		}
	}
}

func TestALaterLayerOverridesAnEarlierOne(t *testing.T) {
	t.Parallel()
	const file = `
idle_timeout: 11m
providers:
  - issuer: https://file.example.com
    client_id: app
    scopes: [openid, groups]
`
	for _, row := range []struct {
		name, flag, env string
		want            time.Duration
		issuer          string
	}{
		{"file over default", "", "", 11 * time.Minute, "https://file.example.com"},
		{"environment over file", "", "12m", 12 * time.Minute, "https://env.example.com"},
		{"flag over environment", "13m", "12m", 13 * time.Minute, "https://flag.example.com"},
		{"flag over file", "13m", "", 13 * time.Minute, "https://flag.example.com"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			flags := map[string]string{"config": writeFile(t, file), "url": "http://127.0.0.1:4180"}
			var environ []string
			if row.env != "" {
				environ = []string{"CURFEW_IDLE_TIMEOUT=" + row.env, "CURFEW_ISSUER=https://env.example.com", "OTHER=x",
					"CURFEW_OPERATOR=alice", "CURFEW_PORT_4180_TCP=tcp://10.0.0.1:4180"}
			}
			if row.flag != "" {
				flags["idle-timeout"], flags["issuer"] = row.flag, "https://flag.example.com"
			}
			c, err := Load(flags, environ)
			if err != nil {
				t.Fatal(err)
			}
			if c.Idle != row.want || c.Providers[0].Issuer != row.issuer {
				t.Errorf("got %s at %s, want %s at %s", c.Idle, c.Providers[0].Issuer, row.want, row.issuer)
			}
			if got := c.Providers[0].Scopes; !slices.Equal(got, []string{"openid", "groups"}) {
				t.Errorf("what nobody overrides stays as the file has it; got scopes %q", got)
			}
		})
	}
}

func TestEverySettingReachesTheRelyingParty(t *testing.T) {
	t.Parallel()
	c, err := Load(map[string]string{"config": writeFile(t, `
url: https://app.example.com
hosts: [wiki.example.com, "*.apps.example.com"]
prefix: /session
remember: true
attempt_lifetime: 5m
home: /welcome
after_logout: /bye
look: {name: The Northgate, footer: Somewhere, help: "mailto:help@example.com", colors: {accent: "#124"}}
upstream: http://127.0.0.1:3000/app
routes: [{host: wiki.example.com, upstream: "http://127.0.0.1:3001", tabs: off}]
store: "memory:"
idle_timeout: 1h
session_lifetime: 8h
refresh_grace: 5m
cache_ceiling: 0s
cache_size: 7
success_status: 204
bearer_lifetime: 20m
client_certificate_header: X-Cert
failure_status: 400
trusted_proxies: [10.0.0.7, 192.168.0.0/16]
admin_listen: off
forward_auth: false
assertion: true
assertion_claims: [email, org.unit]
tabs: overlay
no_store: true
websocket_origins: ["HTTPS://Other.example.com:443", "http://localhost:3000"]
console: {provider: one, require: {groups: [ops, 7], mfa: true}}
app: wiki
log_format: json
log_level: warn
providers:
  - name: one
    label: The One
    issuer: https://id.example.com
    client_id: app
    client_secret: geheim
    token_endpoint_auth_method: client_secret_post
    id_token_signed_response_alg: ES256
    scopes: [openid]
    userinfo: never
    require: {groups: [staff, 7, true], email_verified: true}
    require_verified_email: true
    userinfo_signed_response_alg: PS256
    access_token_lifetime: 90s
    internal_url: http://10.1.2.3:8080/kc
    allow_http_to_private_address: true
    proxy: http://u:geheim@proxy.example.com:3128
    authorization_params: {acr_values: gold silver, max_age: 600, kc_idp_hint: corp}
    link_params: [kc_idp_hint, ui_locales]
    revalidate: 1m
    revalidate_by: [userinfo, refresh]
    revalidate_rate: 600
    allow_missing_exp: true
    allow_unencrypted_logout_tokens: true
    logout_token_signed_response_alg: RS256
    require_typ: true
    logout_scope: subject
    sid_from_token_response: true
    bearer:
      issuer: https://sts.example.com/
      audiences: [https://api.example.com, app]
      algorithms: [PS256]
      form: entra
      introspection: true
  - name: two
    issuer: https://other.example.com
    client_id: app
`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rp := c.RelyingParty(nil, nil, nil, curfew.Observer{})
	one := rp.Providers[0]
	for _, row := range []struct {
		what      string
		got, want any
	}{
		{"URL", rp.URL, "https://app.example.com"},
		{"Hosts", rp.Hosts, []string{"wiki.example.com", "*.apps.example.com"}},
		{"Prefix", rp.Prefix, "/session"},
		{"Remember", rp.Remember, true},
		{"AttemptLifetime", rp.AttemptLifetime, 5 * time.Minute},
		{"Home", rp.Home, "/welcome"},
		{"AfterLogout", rp.AfterLogout, "/bye"},
		{"Look.Name", rp.Look.Name, "The Northgate"},
		{"Look.Footer", rp.Look.Footer, "Somewhere"},
		{"Look.Help", rp.Look.Help, "mailto:help@example.com"},
		{"Look.Light", rp.Look.Light, web.Colors{Accent: "#124"}},
		{"Idle", rp.IdleTimeout, time.Hour},
		{"Absolute", rp.Lifetime, 8 * time.Hour},
		{"Grace", rp.RefreshGrace, 5 * time.Minute},
		{"MaxStale, where 0 is no cache", rp.MaxStale < 0, true},
		{"Cached", rp.CacheSize, 7},
		{"SuccessStatus", rp.SuccessStatus, 204},
		{"FailureStatus", rp.FailureStatus, 400},
		{"TrustedProxies", len(rp.TrustedProxies), 2},
		{"TrustedProxies", rp.TrustedProxies[0].String(), "10.0.0.7/32"},
		{"Require", rp.Providers[0].Require, map[string][]any{"groups": {"staff", 7, true}, "email_verified": {true}}},
		{"Console", rp.Console, curfew.ConsoleAccess{Provider: "one",
			Require: map[string][]any{"groups": {"ops", 7}, "mfa": {true}}}},
		{"RequireVerifiedEmail", rp.Providers[0].RequireVerifiedEmail, true},
		{"Assertion", rp.Assertion, true},
		{"AssertionClaims", rp.AssertionClaims, []string{"email", "org.unit"}},
		{"Tabs", rp.Tabs, gateway.TabsOverlay},
		{"Tabs of a route", c.Routes[0].Tabs, gateway.TabsOff},
		{"NoStore", rp.NoStore, true},
		{"WebSocketOrigins", rp.WebSocketOrigins, []string{"https://other.example.com", "http://localhost:3000"}},
		{"App", rp.App, "wiki"},
		{"NoForwardAuth", rp.NoForwardAuth, true},
		{"Name", one.Name, "one"},
		{"Label", one.Label, "The One"},
		{"ClientSecret", one.ClientSecret, "geheim"},
		{"AuthMethod", one.AuthMethod, oidc.AuthPost},
		{"SigningAlg", one.SigningAlg, "ES256"},
		{"Scopes", one.Scopes, []string{"openid"}},
		{"UserinfoSigningAlg", one.UserinfoSigningAlg, "PS256"},
		{"AccessTokenLifetime", one.AccessTokenLifetime, 90 * time.Second},
		{"InternalURL", one.InternalURL, "http://10.1.2.3:8080/kc"},
		{"AllowHTTPToPrivate", one.AllowHTTPToPrivate, true},
		{"Proxy", one.Proxy.Redacted(), "http://u:xxxxx@proxy.example.com:3128"},
		{"AuthParams", one.AuthParams,
			map[string]string{"acr_values": "gold silver", "max_age": "600", "kc_idp_hint": "corp"}},
		{"LinkParams", one.LinkParams, []string{"kc_idp_hint", "ui_locales"}},
		{"Revalidate", one.Revalidate, time.Minute},
		{"RevalidateBy", one.RevalidateBy, []string{"userinfo", "refresh"}},
		{"RevalidateRate", one.RevalidateRate, 600},
		{"SkipUserinfo", one.SkipUserinfo, true},
		{"Bearer", one.Bearer, &oidc.Bearer{Issuer: "https://sts.example.com/", Form: "entra", Introspection: true,
			Audiences: []string{"https://api.example.com", "app"}, SigningAlgs: []string{"PS256"}}},
		{"BearerLifetime", rp.BearerLifetime, 20 * time.Minute},
		{"ClientCertificateHeader", rp.ClientCertificateHeader, "X-Cert"},
		{"Quirks", one.Quirks, oidc.Quirks{AllowMissingExp: true, PlainLogoutTokens: true, LogoutSigningAlg: "RS256",
			RequireTyp:  true,
			LogoutScope: "subject", SIDFromTokenResponse: true}},
		{"second provider", rp.Providers[1].Issuer, "https://other.example.com"},
		{"admin_listen", c.AdminListen, ""},
		{"upstream", c.Upstream.String(), "http://127.0.0.1:3000/app"},
		{"log_format", c.LogFormat, "json"},
		{"log_level", c.LogLevel.String(), "WARN"},
	} {
		if !reflect.DeepEqual(row.got, row.want) {
			t.Errorf("%s: got %#v, want %#v", row.what, row.got, row.want)
		}
	}
}

func TestTheDocsListEverySettingWithItsDefault(t *testing.T) {
	t.Parallel()
	docs, err := os.ReadFile("../../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range slices.Concat(new(Config).settings(), new(Provider).settings(), new(app).settings()) {
		// A quirk is shown as it is written to turn it on, and what belongs together on one line.
		listed := regexp.MustCompile("(?m)^\\| .*`(" + s.key + "|…" + s.key[strings.LastIndexByte(s.key,
			'_')+1:] + ")(`|: ).*$")
		line := listed.FindString(strings.ReplaceAll(string(docs), "…_", "…"))
		if line == "" {
			t.Errorf("docs/configuration.md does not list %s", s.key)
			continue
		}
		quirk := strings.Contains(line, "`"+s.key+": ")
		if s.def != "" && !quirk && !strings.Contains(strings.ReplaceAll(line, ", ", ","), "`"+s.def+"`") {
			t.Errorf("docs/configuration.md does not give %s its default %s: %s", s.key, s.def, line)
		}
	}
}

func TestFaultsThatTakeMoreThanOneSettingAreFound(t *testing.T) {
	t.Parallel()
	two := func(second string) string {
		return "url: https://app.example.com\nproviders:\n" +
			"  - {name: one, issuer: 'https://id.example.com', client_id: app}\n  - " + second + "\n"
	}
	for _, row := range []struct{ name, file, want string }{
		{"two providers of one name", two("{name: one, issuer: 'https://other.example.com', client_id: app}"),
			`:4: providers[1].name: "one" is the name of another provider`},
		{"one client of one issuer twice", two("{name: two, issuer: 'https://id.example.com', client_id: app}"),
			":4: providers[1].client_id: this client of this issuer is there already"},
		{"encryption of userinfo without a key", two("{name: two, issuer: 'https://other.example.com', " +
			"client_id: app, userinfo_encrypted_response_alg: RSA-OAEP}"),
			"need userinfo_encrypted_response_alg and decryption_key_file, both"},
		{"encryption of userinfo without an alg", two("{name: two, issuer: 'https://other.example.com', " +
			"client_id: app, userinfo_encrypted_response_enc: A128GCM}"),
			"need userinfo_encrypted_response_alg and decryption_key_file, both"},
		{"encryption without a key", two(
			"{name: two, issuer: 'https://other.example.com', client_id: app, id_token_encrypted_response_alg: " +
				"RSA-OAEP}"),
			"need id_token_encrypted_response_alg and decryption_key_file, both"},
		{"a key that is not there", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"private_key_file: none.pem}"), ":4: providers[1].private_key_file: open none.pem: no such file"},
		{"one of two keys that is not there", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"decryption_key_file: [/dev/null, none.pem]}"),
			":4: providers[1].decryption_key_file: /dev/null: it holds no private key"},
		{"a method without its key", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"token_endpoint_auth_method: private_key_jwt}"), "private_key_jwt needs a private key"},
		{"a client certificate without its key", two("{name: two, issuer: 'https://other.example.com', " +
			"client_id: app, client_certificate_file: x.pem}"), "a certificate needs its key, and a key its certificate"},
		{"a client certificate that is not there", two("{name: two, issuer: 'https://other.example.com', " +
			"client_id: app, client_certificate_file: x.pem, client_certificate_key_file: x.pem}"),
			"client_certificate_file x.pem with the key x.pem: open x.pem"},
		{"an unknown response mode", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"response_mode: fragment}"), `:4: providers[1].response_mode: "fragment": it is one of query, form_post`},
		{"encrypted answers without a key", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"response_mode: jwt, authorization_encrypted_response_alg: ECDH-ES}"),
			"encrypted authorization responses need authorization_encrypted_response_alg and decryption_key_file, both"},
		{"bound tokens for an app", two("{name: two, issuer: 'https://other.example.com', client_id: app, dpop: true}") +
			"upstream: http://127.0.0.1:1\npass_access_token: true\n",
			":6: pass_access_token: with dpop the app could not use the access token"},
		{"bound tokens for an app, in a header of its own", two("{name: two, issuer: 'https://other.example.com', "+
			"client_id: app, dpop: true}") + "upstream: http://127.0.0.1:1\nidentity_headers: {X-Token: access_token}\n",
			":6: identity_headers: with dpop the app could not use the access token (X-Token)"},
		{"an unknown prompt", two(
			"{name: two, issuer: 'https://other.example.com', client_id: app, prompt: create}"),
			`:4: providers[1].prompt: "create": it is none alone, or some of login, consent and select_account (Core §3.1.2.1)`},
		{"a prompt for nothing and something", two("{name: two, issuer: 'https://other.example.com', client_id: " +
			"app, prompt: none login}"), `providers[1].prompt: "none login": it is none alone`},
		{"an unknown way to ask", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"revalidate_by: [refresh, session]}"),
			`:4: providers[1].revalidate_by: "session": it is refresh, introspection or userinfo`},
		{"a parameter that is ours", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"authorization_params: {state: x, scope: admin}}"),
			`:4: providers[1].authorization_params: "scope" is set by Curfew itself: set scopes`},
		{"another that is ours", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"authorization_params: {State: x, scope: admin}}"), `"State" is set by Curfew itself`},
		{"an age that is none", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"authorization_params: {max_age: 5m}}"), `max_age: "5m" is not a number of seconds`},
		{"a parameter twice", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"authorization_params: {a: x, a: y}}"), "a"},
		{"parameters that are a list", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"authorization_params: [a]}"), "want parameters and their values, like {"},
		{"a parameter without a value", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"authorization_params: {a: ''}}"), "authorization_params: a: is empty"},
		{"a link that sets what is ours", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"link_params: [redirect_uri, return_to]}"), `"return_to" has a meaning of its own in a link`},
		{"a step-up that takes no time", "policy: [{path: /a, max_age: 10ms}]\n", ":1: policy: line 1: max_age: "},
		{"a step-up on a public path", "policy: [{path: /a, public: true, acr: [gold]}]\n",
			":1: policy: rule 1: is public, but has conditions"},
		{"http to a name", two("{name: two, issuer: 'http://keycloak:8080/realms/x', client_id: app}"),
			`:4: providers[1].issuer: "http://keycloak:8080/realms/x" is not https (http is taken on loopback ` +
				`alone); if it is reached over a private network alone, set allow_http_to_private_address: true`},
		{"http to a public address", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"internal_url: 'http://203.0.113.7', allow_http_to_private_address: true}"),
			`(http is taken on loopback alone), and this address is public`},
		{"an internal URL that is none", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"internal_url: 'keycloak:8080'}"), `internal_url: "keycloak:8080" is not`},
		{"a proxy that is none", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"proxy: 'ftp://u:geheim@x'}"), "proxy: it is http, https, socks5 or socks5h"},
		{"a CA of a provider that is none", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"ca_file: /dev/null}"), ":4: providers[1].ca_file: /dev/null holds no certificate"},
		{"a way to ask twice", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"revalidate_by: [refresh, refresh]}"), "revalidate_by: refresh is there twice"},
		{"a rate that cannot be spread", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"revalidate_rate: 5}"), "revalidate_rate: 5: it is at least 6 a minute, or 0 for no limit"},
		{"asking all the time", two("{name: two, issuer: 'https://other.example.com', client_id: app, " +
			"revalidate: 10ms}"), ":4: providers[1].revalidate: "},
		{"a prompt twice", two("{name: two, issuer: 'https://other.example.com', client_id: app, prompt: login login}"),
			`providers[1].prompt: "login login": it is`},
		{"idle for longer than it lives", "idle_timeout: 25h\n",
			":1: idle_timeout: 25h0m0s is longer than the session_lifetime of 24h0m0s"},
		{"both listeners at one address", "listen: 127.0.0.1:1\nadmin_listen: 127.0.0.1:1\n",
			":2: admin_listen: 127.0.0.1:1 is the public listener's"},
		{"in front of itself", "listen: 127.0.0.1:1\nupstream: http://127.0.0.1:1\n",
			":2: upstream: 127.0.0.1:1 is the public listener itself"},
		{"no list of providers", "providers: {issuer: x}\n", ":1: providers: want a list"},
		{"a route without an app", "routes: [{path: /api/*}]\n", ":1: routes: route 1: upstream is missing"},
		{"a route to something else", "routes:\n- {upstream: 'ftp://x', paht: /a}\n",
			`:1: routes: line 2: upstream: "ftp://x" is not the address of an app; write it like http://127.0.0.1:3000; ` +
				`line 2: there is no such setting: "paht"`},
		{"routes to nowhere", "routes: [{path: api, upstream: 'http://127.0.0.1:1'}, {host: " +
			"'https://app.example.com', upstream: 'http://127.0.0.1:1'}, {path: /a*b}]\n",
			`:1: routes: route 3: upstream is missing; ` +
				`route 1: "api" is not a path; write it like /a for one path, or /a/* for all below it; ` +
				`route 2: "https://app.example.com" is not a host; write it like app.example.com; route 3: "/a*b" is not a path`},
		{"a rule for no path", "policy: [{path: admin, groups: [a]}]\n", `:1: policy: rule 1: "admin" is not a path`},
		{"a rule that opens and asks", "policy: [{path: /a, public: true, groups: [a]}]\n",
			":1: policy: rule 1: is public, but has conditions"},
		{"a policy that is no list", "policy: {path: /a}\n", ":1: policy: want a list"},
		{"a header that means something else", "identity_headers: {Cookie: subject}\n",
			":1: identity_headers: Cookie already has another meaning"},
		{"an unknown value", "identity_headers: {X-A: password}\n", `there is no value called "password"`},
		{"no mode of open tabs", "tabs: popup\n", `:1: tabs: "popup" is unknown; want one of ["off"`},
		{"no mode of a route's tabs", "routes: [{upstream: http://127.0.0.1:3001, tabs: on}]\n",
			`tabs: "on" is unknown; want one of ["off"`},
		{"origins that are none", "websocket_origins: ['*', 'https://a.example/x']\n",
			`:1: websocket_origins: "*" is not an origin; write it like https://app.example.com, without a path; ` +
				`"https://a.example/x"`},
		{"a console for everybody", "console: true\n", ":1: console: want who may use the console, like {require: "},
		{"a console for nobody in particular", "console: {}\n", ":1: console: require is missing"},
		{"a console at a provider alone", "console: {provider: main}\n", ":1: console: require is missing"},
		{"a console without values", "console: {require: {groups: []}}\n",
			":1: console: line 1: require: groups: the list is empty, so nobody could use the console"},
		{"a console with a setting of a policy", "console: {groups: [ops], require: {groups: [ops]}}\n",
			`:1: console: line 1: there is no such setting: "groups"`},
		{"a console at a provider that is none", "console: {provider: other, require: {groups: [ops]}}\n",
			`:1: console: there is no provider "other"`},
		{"an assertion for nobody", "assertion: true\n", ":1: assertion: the app needs a name"},
		{"an assertion that nobody would get", "assertion: true\napp: wiki\n",
			":1: assertion: nobody would be given it: name the proxy"},
		{"an access token that nobody would get", "pass_access_token: true\n",
			":1: pass_access_token: nobody would be given it"},
		{"an assertion that says what every token says", "assertion_claims: [name, sub]\n",
			`:1: assertion_claims: "sub" cannot be chosen`},
		{"a route to an unknown app",
			"routes: [{app: mail, upstream: 'http://127.0.0.1:1'}]\napps: [{client_id: wiki, " +
				"backchannel_logout_uri: 'https://wiki/'}]\n",
			`:1: routes: there is no app "mail"`},
		{"a wildcard for everybody's hosts",
			"url: https://auth.example.com\nhosts: ['*.co.uk', Wiki.example.com, 'a.example.com.']\n",
			`:2: hosts: "*.co.uk" covers names of different owners: co.uk is a public suffix (https://publicsuffix.org); ` +
				`list the hosts one by one, or a wildcard for a domain of yours; "a.example.com." ends in a dot`},
		{"hosts on the web, and the url on loopback", "url: http://127.0.0.1:1\nhosts: [wiki.example.com]\n",
			`:2: hosts: "wiki.example.com" is not on loopback`},
		{"a rule for another host", "url: https://auth.example.com\nhosts: ['*.example.com']\n" +
			"policy: [{host: wiki.example.org, path: /*}]\n",
			`:3: policy: "wiki.example.org" is neither the host of url nor among hosts`},
		{"a rule for another host than the only one", "url: https://auth.example.com\n" +
			"policy: [{host: wiki.example.com, path: /*}]\n", `:2: policy: "wiki.example.com" is neither`},
		{"a route for another host", "url: https://auth.example.com\nhosts: [wiki.example.com]\n" +
			"routes: [{host: mail.example.com, upstream: 'http://127.0.0.1:1'}]\n",
			`:3: routes: "mail.example.com" is neither the host of url nor among hosts`},
		{"a cookie for another domain", "url: https://auth.example.com\ncookie_domain: example.org\n",
			":2: cookie_domain: auth.example.com is not below example.org"},
		{"a cookie for everybody", "url: https://auth.example.com\ncookie_domain: Com\n",
			`:2: cookie_domain: "com": browsers take no cookie for it`},
		{"too long to sign in", "attempt_lifetime: 16m\n", ":1: attempt_lifetime: 16m0s is too long; the most is 15m0s"},
		{"too short to sign in", "attempt_lifetime: 59s\n", ":1: attempt_lifetime: 59s is too short"},
		{"a certificate without its key", "tls_cert_file: x.pem\n", ":1: tls_cert_file: a certificate needs its key"},
		{"a CA that is none", "upstream_ca_file: /dev/null\n", ":1: upstream_ca_file: /dev/null holds no certificate"},
		{"an empty setting", "home:\n", ":1: home: is empty"},
		{"a list where a value goes", "home: [/]\n", ":1: home: want a single value"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(map[string]string{"config": writeFile(t, row.file)}, nil)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("want %q, got:\n%v", row.want, err)
			}
		})
	}
}

// FuzzConfigFile: whatever a file holds, it is a configuration that has all it needs, or a list of faults, each on a
// line of its own that says where it is.
func FuzzConfigFile(f *testing.F) {
	f.Add("url: https://app.example.com\nproviders:\n  - {issuer: 'https://id.example.com', client_id: app, " +
		"client_secret: geheim}\n")
	f.Add("providers: [&a {client_secret: [geheim]}, *a]\n")
	f.Add("a: {b: [c, !!binary d]}\n\"x\\ny\": &a [*a]\n---\n")
	f.Fuzz(func(t *testing.T, text string) {
		name := writeFile(t, text)
		c, err := Load(map[string]string{"config": name}, nil)
		if err == nil {
			if c.URL == nil || len(c.Providers) == 0 || c.Providers[0].Issuer == "" || c.Listen == "" {
				t.Fatalf("half a configuration of %q", text)
			}
			return
		}
		for _, line := range strings.Split(err.Error(), "\n") {
			if !strings.HasPrefix(line, name+":") && !strings.HasPrefix(line, "url: is missing") &&
				!strings.HasPrefix(line, "issuer: is missing") && !strings.HasPrefix(line, "client_id: is missing") {
				t.Fatalf("a fault without a place: %q", line)
			}
		}
	})
}
