package config

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const (
	withURL      = "url: https://app.example.com\n"
	withProvider = "providers: [{issuer: https://id.example.com, client_id: app}]\n"
	complete     = withURL + withProvider
)

// faultsOf returns every fault of a file, without its folder.
func faultsOf(t *testing.T, text string) []string {
	t.Helper()
	file := writeFile(t, text)
	_, err := Load(map[string]string{"config": file}, nil)
	if err == nil {
		return nil
	}
	return strings.Split(strings.ReplaceAll(err.Error(), filepath.Dir(file)+"/", ""), "\n")
}

// All faults are told at once: none hides another, and what only follows from one is not told.
func TestNoFaultHidesAnother(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	provider := func(more string) string {
		return withURL + "providers:\n- {issuer: https://id.example.com, client_id: app, " + more + "}\n"
	}
	for _, row := range []struct {
		name, file string
		want       []string
	}{
		{"a provider with a word that is none", provider("dpop: ture, token_endpoint_auth_method: private_key_jwt, " +
			"id_token_encrypted_response_alg: ECDH-ES"), []string{
			`curfew.yaml:3: providers[0]: encrypted ID Tokens need id_token_encrypted_response_alg and ` +
				`decryption_key_file, both; provider "main": private_key_jwt needs a private key`,
			`curfew.yaml:3: providers[0].dpop: "ture" is neither true nor false`}},
		{"a provider without a certificate", provider("client_certificate_file: x.pem, token_endpoint_auth_method: " +
			"tls_client_auth, authorization_signed_response_alg: ES256"), []string{
			`curfew.yaml:3: providers[0]: a certificate needs its key, and a key its certificate: give ` +
				`client_certificate_file and client_certificate_key_file; provider "main": ` +
				`authorization_signed_response_alg and authorization_encrypted_response_alg need response_mode jwt, ` +
				`query.jwt or form_post.jwt; it is query`}},
		{"a provider whose keys cannot be read", provider("private_key_file: [none.pem, /dev/null], " +
			"token_endpoint_auth_method: private_key_jwt, decryption_key_file: none.pem, " +
			"id_token_encrypted_response_alg: ECDH-ES"), []string{
			"curfew.yaml:3: providers[0].private_key_file: open none.pem: no such file or directory; /dev/null: it " +
				"holds no private key, neither in PEM (-----BEGIN PRIVATE KEY-----) nor as a JWK",
			"curfew.yaml:3: providers[0].decryption_key_file: open none.pem: no such file or directory"}},
		{"a provider with a mode that is none", provider("response_mode: fragment, " +
			"authorization_signed_response_alg: ES256"), []string{
			`curfew.yaml:3: providers[0].response_mode: "fragment": it is one of query, form_post, jwt, query.jwt, ` +
				`form_post.jwt`}},
		{"a provider with nothing right", withURL + "providers:\n- {issuer: ftp://x, name: a b, scopes: ['a\"'], " +
			"revalidate: 1m, revalidate_by: [x], revalidate_rate: 5}\n", []string{
			"curfew.yaml:3: providers[0].name: letters, digits, \"-\" and \"_\" only, at most 64",
			`curfew.yaml:3: providers[0].issuer: "ftp://x" is not https (http is taken on loopback alone)`,
			`curfew.yaml:3: providers[0].scopes: scope "a\"": it is empty or holds a space or another character that a ` +
				`scope cannot have`,
			`curfew.yaml:3: providers[0].revalidate_by: "x": it is refresh, introspection or userinfo`,
			"curfew.yaml:3: providers[0].revalidate_rate: 5: it is at least 6 a minute, or 0 for no limit",
			"curfew.yaml:3: providers[0].client_id: is missing: give --client-id, CURFEW_CLIENT_ID, or client_id under " +
				"providers in the file"}},
		{"providers that are the same, one with a fault", withURL + "providers:\n" +
			"- {name: a, issuer: https://id.example.com, client_id: app}\n" +
			"- {name: a, issuer: https://id.example.com, client_id: app, dpop: ture}\n", []string{
			`curfew.yaml:4: providers[1].dpop: "ture" is neither true nor false`,
			`curfew.yaml:4: providers[1].name: "a" is the name of another provider (curfew.yaml:3)`,
			"curfew.yaml:4: providers[1].client_id: this client of this issuer is there already (curfew.yaml:3)"}},
		{"providers that are no list", withURL + "providers: {issuer: x}\nconsole: {provider: a, require: {g: [a]}}\n",
			[]string{"curfew.yaml:2: providers: want a list with one entry for each provider"}},
		{"maps of a provider", provider("authorization_params: {a: '', b: [], b: c, scope: x}, " +
			"require: {a: [], b: {c: d}, e: f, e: g}, bearer: {audience: [x], algorithms: [HS256], form: x}"), []string{
			"curfew.yaml:3: providers[0].authorization_params: a: is empty; remove it, or give a value; " +
				"b: want a single value here, not a list or a map; b is there twice; " +
				`authorization_params: "scope" is set by Curfew itself: set scopes`,
			"curfew.yaml:3: providers[0].require: a: the list is empty, so nobody could sign in; " +
				"b: want a text, a number, true or false, or a list of these; e is there twice",
			`curfew.yaml:3: providers[0].bearer: line 3: there is no such setting: "audience"; did you mean audiences?; ` +
				`line 3: form: "x" is not one of: rfc9068, keycloak, entra; bearer: algorithms: "HS256" needs a secret ` +
				`that both sides know, and is never taken here; register RS256, PS256, ES256 or EdDSA`}},
		{"apps", complete + "app: wiki\napps:\n- {client_id: wiki, backchannel_logout_uri: http://10.0.0.7, deadline: 1s}\n" +
			"- {client_id: wiki, backchannel_logout_uri: http://10.0.0.7, insecure: ture}\n", []string{
			"curfew.yaml:5: apps[0].deadline: 1s is too short; the least is 1m0s",
			`curfew.yaml:5: apps[0]: app "wiki": backchannel_logout_uri is http: use https, or set ` +
				"`insecure: true` if the network between is yours alone",
			`curfew.yaml:6: apps[1].insecure: "ture" is neither true nor false`,
			`curfew.yaml:6: apps[1].client_id: "wiki" is another app (curfew.yaml:5)`}},
		{"an app without a name", complete + "app: wiki\napps:\n- {backchannel_logout_uri: /x}\n", []string{
			"curfew.yaml:5: apps[0].client_id: is missing: every app needs it",
			`curfew.yaml:5: apps[0]: app "?": backchannel_logout_uri must be absolute: begin it with https://`}},
		{"apps that are no list", complete + "app: wiki\napps: wiki\n", []string{
			"curfew.yaml:4: apps: want a list with one entry for each app"}},
		{"hosts, without a good url", withProvider + "url: http://app.example.com\nhosts: ['a/b', c.example.com]\n" +
			"policy: [{host: d.example.com, path: /a}]\ncookie_domain: com\n", []string{
			`curfew.yaml:2: url: "http://app.example.com": http is for loopback (localhost, *.localhost, 127.0.0.0/8, ` +
				`[::1]) alone; use https`,
			`curfew.yaml:3: hosts: "a/b" is not a host: write only the name, like app.example.com`,
			`curfew.yaml:5: cookie_domain: "com": browsers take no cookie for it: it is a public suffix, or url is not ` +
				`https`}},
		{"hosts beside the cookie's domain, without a url", withProvider + "hosts: [a.example.org]\n" +
			"cookie_domain: example.com\n", []string{
			"curfew.yaml:3: cookie_domain: a.example.org is not below example.com, and would not get the cookie",
			"url: is missing: give --url, CURFEW_URL, or url in the file"}},
		{"rules", complete + "policy:\n- {path: /a, max_age: 0s}\n- {path: b}\n- {pth: /c}\n", []string{
			`curfew.yaml:3: policy: line 4: max_age: 0s is too short; the least is 1s; line 6: there is no such setting: ` +
				`"pth"; did you mean path?; rule 2: "b" is not a path; write it like /a for one path, or /a/* for all ` +
				`below it`}},
		{"the look", complete + "look:\n  logo_file: DIR/none.svg\n  messages_dir: DIR/none\n  help: http://x\n" +
			"  colors: {text: x}\n", []string{
			"curfew.yaml:3: look: line 4: logo_file: open none.svg: no such file or directory; line 5: messages_dir: " +
				`stat none: no such file or directory; help: must begin with https:// and a host, or be mailto: with an ` +
				`address; colors: text: "x" is not a colour: write it like #34478f or rgb(52, 71, 143)`}},
		{"addresses", complete + "trusted_proxies: [1, foo, unix]\nadmin_hosts: [a b, c/d, e]\n", []string{
			`curfew.yaml:3: trusted_proxies: "1" is neither an address nor a network; write it like 10.0.0.7 or ` +
				`10.0.0.0/8, or unix; "foo" is neither an address nor a network; write it like 10.0.0.7 or 10.0.0.0/8, or unix`,
			`curfew.yaml:4: admin_hosts: "a b" is not a host name; write it like curfew.internal, without a port; "c/d" is ` +
				`not a host name; write it like curfew.internal, without a port`}},
		{"entries of a list", complete + "hosts: ['', {a: b}, [c]]\n", []string{
			"curfew.yaml:3: hosts: entry 1: is empty; remove it, or give a value; entry 2: want a single value here, not a " +
				"list or a map; entry 3: want a single value here, not a list or a map"}},
		{"headers", complete + "identity_headers: {A: subject, A: name, B: [x]}\n", []string{
			"curfew.yaml:3: identity_headers: A is there twice; B: want a single value here, not a list or a map"}},
		{"what depends on an empty value", complete + "store: redis://127.0.0.1\nkey_file:\ntls_cert_file:\n" +
			"tls_key_file: x\napp:\nassertion: true\nupstream: http://127.0.0.1:1\n", []string{
			"curfew.yaml:4: key_file: is empty; remove it, or give a value",
			"curfew.yaml:5: tls_cert_file: is empty; remove it, or give a value",
			"curfew.yaml:7: app: is empty; remove it, or give a value"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got := faultsOf(t, strings.ReplaceAll(row.file, "DIR", dir))
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], dir+"/", "")
			}
			if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(row.want))) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(row.want, "\n"))
			}
		})
	}
}

// An empty list is a fault like an empty value, and opens nothing.
func TestAnEmptyListIsAFault(t *testing.T) {
	t.Parallel()
	const empty = "the list is empty; remove it, or give a value"
	provider := func(setting string) string {
		return withURL + "providers:\n- {issuer: https://id.example.com, client_id: app, " + setting + ": []}\n"
	}
	for file, want := range map[string]string{
		complete + "policy: [{path: /a, groups: []}]":               "3: policy: line 3: groups: " + empty,
		complete + "policy: [{path: /a, email_domains: []}]":        "3: policy: line 3: email_domains: " + empty,
		complete + "policy: [{path: /a, scopes: []}]":               "3: policy: line 3: scopes: " + empty,
		complete + "policy: [{path: /a, acr: []}]":                  "3: policy: line 3: acr: " + empty,
		complete + "policy: [{path: /a, amr: []}]":                  "3: policy: line 3: amr: " + empty,
		complete + "policy: [{path: /a, methods: [], groups: a}]":   "3: policy: line 3: methods: " + empty,
		complete + "policy: [{path: /a, claims: {department: []}}]": "3: policy: line 3: claims: department: " + empty,
		complete + "policy: [{path: /a, claims: {}}]": "3: policy: line 3: claims: want claims and their values, " +
			"like {department: [it, hr]}",
		complete + "hosts: []":             "3: hosts: " + empty,
		complete + "hosts: ','":            "3: hosts: " + empty,
		complete + "admin_hosts: []":       "3: admin_hosts: " + empty,
		complete + "trusted_proxies: []":   "3: trusted_proxies: " + empty,
		complete + "websocket_origins: []": "3: websocket_origins: " + empty,
		complete + "assertion_claims: []":  "3: assertion_claims: " + empty,
		complete + "identity_headers: {}": "3: identity_headers: want names of headers and their values, like " +
			"{X-Remote-User: subject}",
		provider("scopes"):              "3: providers[0].scopes: " + empty,
		provider("link_params"):         "3: providers[0].link_params: " + empty,
		provider("revalidate_by"):       "3: providers[0].revalidate_by: " + empty,
		provider("private_key_file"):    "3: providers[0].private_key_file: " + empty,
		provider("decryption_key_file"): "3: providers[0].decryption_key_file: " + empty,
		withURL + "providers:\n- {issuer: https://id.example.com, client_id: app, bearer: {audiences: []}}": "3: " +
			"providers[0].bearer: line 3: audiences: " + empty,
		withURL + "providers:\n- {issuer: https://id.example.com, client_id: app, bearer: {audiences: [a], " +
			"algorithms: []}}": "3: providers[0].bearer: line 3: algorithms: " + empty,
		complete + "hosts: {a: b}": "3: hosts: want a list or a single value here, not a map",
	} {
		if got := faultsOf(t, file+"\n"); !slices.Equal(got, []string{"curfew.yaml:" + want}) {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
}

// One text is a list of words where values are words. Where they may hold anything it is one value, and means the same
// wherever it is written.
func TestATextThatStandsForAListIsReadByWhatItsValuesAre(t *testing.T) {
	t.Parallel()
	c, err := Load(map[string]string{"config": writeFile(t, `
url: https://app.example.com
hosts: a.example.com, b.example.com c.example.com
console: {require: {team: Human Resources}}
policy:
- {path: /a, groups: Domain Admins, claims: {department: Human Resources}, methods: "GET, POST", acr: gold silver}
providers:
- issuer: https://id.example.com
  client_id: app
  scopes: openid, groups
  require: {department: Human Resources}
  bearer: {audiences: The API, algorithms: RS256 ES256}
`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rule := reflect.ValueOf(c.Policy).FieldByName("rules").Index(0).FieldByName("Rule")
	p := c.Providers[0]
	for _, row := range []struct {
		what      string
		got, want any
	}{
		{"hosts", c.Hosts, []string{"a.example.com", "b.example.com", "c.example.com"}},
		{"console.require", c.Console.Require, map[string][]any{"team": {"Human Resources"}}},
		{"groups", texted(rule.FieldByName("Groups")), "[Domain Admins] 1"},
		{"claims", texted(rule.FieldByName("Claims").MapIndex(reflect.ValueOf("department"))), "[Human Resources] 1"},
		{"methods", texted(rule.FieldByName("Methods")), "[GET POST] 2"},
		{"acr", texted(rule.FieldByName("ACR")), "[gold silver] 2"},
		{"scopes", p.Scopes, []string{"openid", "groups"}},
		{"require", p.Require, map[string][]any{"department": {"Human Resources"}}},
		{"audiences", p.Bearer.Audiences, []string{"The API"}},
		{"algorithms", p.Bearer.SigningAlgs, []string{"RS256", "ES256"}},
	} {
		if !reflect.DeepEqual(row.got, row.want) {
			t.Errorf("%s: got %#v, want %#v", row.what, row.got, row.want)
		}
	}
	const comma = `holds a comma: write a list, like [a, b], or ["a,b"] if it is one value`
	provider := func(more string) string {
		return withURL + "providers:\n- {issuer: https://id.example.com, client_id: app, " + more + "}"
	}
	for file, want := range map[string]string{
		complete + "policy: [{path: /a, groups: 'a,b'}]": "3: policy: line 3: groups: " + comma,
		complete + "policy: [{path: /a, claims: {c: 'a,b', d: 'e,'}}]": "3: policy: line 3: claims: c: " + comma +
			"; d: " + comma,
		complete + "console: {require: {c: 'a, b'}}": "3: console: line 3: require: c: " + comma,
		provider("require: {c: 'a, b'}"):             "3: providers[0].require: c: " + comma,
		provider("bearer: {audiences: 'a,b'}"):       "3: providers[0].bearer: line 3: audiences: " + comma,
		provider("private_key_file: 'a,b'"):          "3: providers[0].private_key_file: " + comma,
		provider("decryption_key_file: 'a,b'"):       "3: providers[0].decryption_key_file: " + comma,
		provider("private_key_file: 'a b'"): "3: providers[0].private_key_file: open a b: no such file or " +
			"directory",
		complete + "policy: [{path: /a, claims: {c: a, c: b}}]": "3: policy: line 3: claims: c is there twice",
	} {
		if got := faultsOf(t, file+"\n"); !slices.Equal(got, []string{"curfew.yaml:" + want}) {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
	for _, good := range []string{"policy: [{path: /a, groups: ['a,b'], claims: {c: ['d,e']}}]",
		"console: {require: {c: ['a,b']}}"} {
		if got := faultsOf(t, complete+good+"\n"); got != nil {
			t.Errorf("%s: %q", good, got)
		}
	}
}

// texted returns a list that cannot be read otherwise, and its length.
func texted(list reflect.Value) string { return fmt.Sprintf("%v %d", list, list.Len()) }

// A setting at a wrong place, or with a wrong name, is told where it belongs.
func TestAnUnknownSettingIsToldWhereItBelongs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		file string
		want []string
	}{
		{withURL + "issuer: https://id.example.com\nclient_id: app\n", []string{
			"curfew.yaml:2: issuer: there is no such setting; it belongs under providers, as in providers: [{issuer: …}]",
			"curfew.yaml:3: client_id: there is no such setting; it belongs under providers, as in providers: " +
				"[{client_id: …}]",
			"issuer: is missing: give --issuer, CURFEW_ISSUER, or issuer under providers in the file",
			"client_id: is missing: give --client-id, CURFEW_CLIENT_ID, or client_id under providers in the file"}},
		{complete + "deadline: 1h\n", []string{
			"curfew.yaml:3: deadline: there is no such setting; it belongs under apps, as in apps: [{deadline: …}]"}},
		{withURL + "providers:\n- {issuer: https://id.example.com, client_id: app, policy: x}\n", []string{
			"curfew.yaml:3: providers[0].policy: there is no such setting; it belongs at the top level of the file"}},
		{complete + "policy: [{path: /a, grops: [x]}]\n", []string{
			`curfew.yaml:3: policy: line 3: there is no such setting: "grops"; did you mean groups?`}},
		{complete + "look: {nme: x}\n", []string{
			`curfew.yaml:3: look: line 3: there is no such setting: "nme"; did you mean name?`}},
		{complete + "console: {requre: {g: [x]}}\n", []string{
			`curfew.yaml:3: console: line 3: there is no such setting: "requre"; did you mean require?`}},
	} {
		if got := faultsOf(t, row.file); !slices.Equal(got, row.want) {
			t.Errorf("%s: got %q, want %q", row.file, got, row.want)
		}
	}
	_, err := Load(needed(), []string{"CURFEW_ISUER=x", "CURFEW_Home=/", "CURFEW_NONSENSE=x"})
	const want = "CURFEW_Home: there is no such setting; did you mean CURFEW_HOME?\n" +
		"CURFEW_ISUER: there is no such setting; did you mean CURFEW_ISSUER?\n" +
		"CURFEW_NONSENSE: there is no such setting; docs/configuration.md lists them"
	if got := errorText(err); got != want {
		t.Errorf("got %s", got)
	}
}

func TestAFileThatIsTooLongIsNotCut(t *testing.T) {
	t.Parallel()
	text := complete + "policy_default: deny\npolicy: [{path: /a}]\n"
	comment := func(size int) string { return text + strings.Repeat("#", size-len(text)) }
	if got := faultsOf(t, comment(1<<20)); got != nil {
		t.Errorf("1 MiB: %q", got)
	}
	if got := faultsOf(t, comment(1<<20+1)); !slices.Equal(got, []string{"curfew.yaml: has more than 1 MiB"}) {
		t.Errorf("one byte more: %q", got)
	}
}

// What a file that cannot be read may set is not missing. What is given elsewhere is still looked at.
func TestOfAFileThatCannotBeReadNothingIsMissing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for file, want := range map[string]string{
		dir + "/none.yaml":       "--config: open " + dir + "/none.yaml: no such file or directory",
		dir:                      dir + ": is not a file",
		writeFile(t, "url: [\n"): "line 1: did not find expected node content",
	} {
		_, err := Load(map[string]string{"config": file, "assertion": "true", "idle-timeout": "900h"},
			[]string{"CURFEW_LISTEN=x", "CURFEW_DPOP=ture"})
		got, found := strings.Split(errorText(err), "\n"), 0
		for _, line := range []string{want, "CURFEW_LISTEN: ", "CURFEW_DPOP: "} {
			if slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, line) }) {
				found++
			}
		}
		if len(got) != 3 || found != 3 {
			t.Errorf("got\n%s\nwant three faults, and %s", errorText(err), want)
		}
	}
}

// What may be a password, in an address that is wrong, is in no message.
func TestNoMessageRepeatsAPassword(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ flag, value, want string }{
		{"url", "ftp://u:s3cr@app", `--url: "…@app": must begin with`},
		{"url", "ftp://app/?token=s3cr", `--url: "ftp://app/?…": must begin with`},
		{"issuer", "https://u:s3cr%zz@id", `--issuer: issuer: "…@id" is not an absolute URL`},
		{"issuer", "https://u:s3cr?x%zz@id", `--issuer: issuer: "…" is not an absolute URL`},
		{"issuer", "https://u:s3cr\"%zz@id", `--issuer: issuer: "…@id" is not an absolute URL`},
		{"issuer", "ftp://id/?token=s3cr" + strings.Repeat("x", 200), `--issuer: issuer: "ftp://id/?…" is not https`},
		{"upstream", "http:///x?token=s3cr", `--upstream: "http:///x?…" is not the address of an app`},
		{"upstream", "ftp://u:s3cr@x#a", `--upstream: "…@x#…" is not the address of an app`},
	} {
		_, err := Load(needed(row.flag, row.value), nil)
		if got := errorText(err); !strings.HasPrefix(got, row.want) || strings.Contains(got, "s3cr") {
			t.Errorf("%s: %s", row.value, got)
		}
	}
	for variable, want := range map[string]string{
		"CURFEW_INTERNAL_URL=http://u:s3cr%zz@id": `CURFEW_INTERNAL_URL: internal_url: "…@id" is not an absolute URL`,
		"CURFEW_WEBSOCKET_ORIGINS=https://u:s3cr@a,https://b/x": `CURFEW_WEBSOCKET_ORIGINS: "…@a" is not an origin; ` +
			`write it like https://app.example.com, without a path; "https://b/x" is not an origin`,
		"CURFEW_PROXY=http://u:s3cr%zz@x": "CURFEW_PROXY: is not a URL",
	} {
		_, err := Load(needed(), []string{variable})
		if got := errorText(err); !strings.HasPrefix(got, want) || strings.Contains(got, "s3cr") {
			t.Errorf("%s: %s", variable, got)
		}
	}
}
