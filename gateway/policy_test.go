package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/web"
)

func mustPolicy(t testing.TB, rules ...Rule) Policy {
	t.Helper()
	p, err := NewPolicy(rules...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAPathThatServersReadDifferentlyIsRefused(t *testing.T) {
	t.Parallel()
	for raw, why := range map[string]string{
		"":                      "no path",
		"admin":                 "no slash at its start",
		"*":                     "no path",
		"//admin":               "an empty segment: some servers take it for a host",
		"/public//admin":        "an empty segment: some servers drop it",
		"/public/../admin":      "a dot segment: some servers resolve it",
		"/public/..":            "a dot segment at the end",
		"/public/.":             "a dot segment at the end",
		"/./admin":              "a dot segment",
		"/public/%2e%2e/admin":  "an encoded dot segment",
		"/public/.%2e/admin":    "a half encoded dot segment",
		"/a%2eb":                "an encoded dot",
		"/public%2fadmin":       "an encoded slash: one segment or two",
		"/public%2Fadmin":       "an encoded slash, upper case",
		"/public%5c..%5cadmin":  "an encoded backslash",
		`/public\..\admin`:      "a backslash: a slash to some",
		"/public;/../admin":     "a path parameter, which some servers cut out",
		"/admin;jsessionid=1":   "a path parameter",
		"/admin%3bx":            "an encoded path parameter",
		"/public#/admin":        "a fragment, which no client sends",
		"/public%23/admin":      "an encoded fragment",
		"/public%3f/admin":      "an encoded query",
		"/%2561dmin":            "encoded twice",
		"/a%":                   "broken encoding",
		"/a%zz":                 "broken encoding",
		"/a%u002fb":             "an encoding that only some servers know",
		"/admin%00.png":         "a NUL, at which some servers stop",
		"/a%0d%0ab":             "a line end",
		"/a\x7f":                "a control character",
		"/%c0%af":               "bytes that are no UTF-8: an overlong slash",
		"/%ff":                  "bytes that are no UTF-8",
		"/public/%2e%2e;/admin": "several at once",
	} {
		if path, ok := plainPath(raw); ok {
			t.Errorf("%q was read as %q: %s", raw, path, why)
		}
	}
	for raw, want := range map[string]string{
		"/": "/", "/a/b": "/a/b", "/a/": "/a/", "/a%20b": "/a b", "/%61dmin": "/admin", "/a?b=//../%2f;": "/a",
		"/caf%C3%A9": "/café", "/a..b/...": "/a..b/...", "/.well-known/x": "/.well-known/x", "/a:b@c,d+e": "/a:b@c,d+e",
	} {
		if path, ok := plainPath(raw); !ok || path != want {
			t.Errorf("%q: %q %v, want %q", raw, path, ok, want)
		}
	}
}

func TestTheFirstRuleThatCoversARequestDecides(t *testing.T) {
	t.Parallel()
	p := mustPolicy(t,
		Rule{Path: "/health", Public: true},
		Rule{Path: "/api/*", Methods: []string{"GET"}, Public: true},
		Rule{Path: "/api/*", Groups: []string{"writers"}},
		Rule{Path: "/admin", Groups: []string{"admins"}},
		Rule{Path: "/docs/*", Methods: []string{"DELETE"}, Groups: []string{"admins"}},
	)
	for _, row := range []struct {
		method, target string
		rule           int // 0: none
		why            string
	}{
		{"GET", "/health", 1, ""},
		{"GET", "/health/", 1, "most servers take it for the same"},
		{"GET", "/health?x=/admin", 1, "the query is no part of the path"},
		{"GET", "/healthy", 0, "a longer name is another path"},
		{"GET", "/health/x", 0, "without a star nothing below is meant"},
		{"GET", "/Health", 0, "what opens is taken by the letter"},
		{"GET", "/api", 2, "/api/* covers /api itself"},
		{"GET", "/api/x/y", 2, ""},
		{"HEAD", "/api/x", 2, "GET covers HEAD"},
		{"POST", "/api/x", 3, "the rule before is for GET"},
		{"get", "/api/x", 3, "what opens is taken by the letter"},
		{"GET", "/apis", 0, ""},
		{"GET", "/ADMIN", 4, "what demands is taken widely"},
		{"GET", "/%61dmin/", 4, "the decoded path counts"},
		{"delete", "/docs/x", 5, "what demands is taken widely"},
		{"POST", "/docs/x", 0, ""},
	} {
		rule, err := p.find(httptest.NewRequest("GET", "/", nil), "app.example.com", row.method, row.target)
		number := 0
		if rule != nil {
			number = rule.number
		}
		if err != nil || number != row.rule {
			t.Errorf("%s %s: rule %d %v, want %d: %s", row.method, row.target, number, err, row.rule, row.why)
		}
	}
}

func TestWhatARuleAsksForMustBeThere(t *testing.T) {
	t.Parallel()
	h := &Handler{Site: &web.Site{URL: &url.URL{Scheme: "http", Host: "localhost"}}}
	group := Rule{Path: "/*", Groups: []string{"admins", "ops"}}
	domain := Rule{Path: "/*", EmailDomains: []string{"corp.com"}}
	claims := Rule{Path: "/*", Claims: map[string][]string{"department": {"it", "hr"}, "realm_access.roles": {"boss"}}}
	address := Rule{Path: "/*", Claims: map[string][]string{"email": {"boss@corp.com"}}}
	inner := Rule{Path: "/*", Claims: map[string][]string{"user.email": {"boss@corp.com"}}}
	kelvin := Rule{Path: "/*", EmailDomains: []string{"korp.com"}}
	number := Rule{Path: "/*", Claims: map[string][]string{"employee": {"1234567", "12345678901234567891"}}}
	for _, row := range []struct {
		rule   Rule
		claims map[string]any
		lacks  string // what the person is told; "" when let in
		why    string
	}{
		{group, map[string]any{"groups": []any{"users", "ops"}}, "", "one of the groups is enough"},
		{group, map[string]any{"groups": "admins"}, "", "a single group may come as a text"},
		{group, map[string]any{"groups": []any{"Admins"}}, "membership of a group", "groups are taken by the letter"},
		{group, map[string]any{"groups": "admins,users"}, "membership of a group", "a text is one group"},
		{group, map[string]any{"groups": []any{[]any{"admins"}}}, "membership of a group",
			"a list in a list is none of ours"},
		{group, nil, "membership of a group", "no claim at all"},
		{domain, map[string]any{"email": "a@corp.com"}, "", ""},
		{domain, map[string]any{"email": "a@CORP.com", "email_verified": "true"}, "", "domains have no case"},
		{domain, map[string]any{"email": "a@evil@corp.com"}, "an e-mail address of a certain domain",
			"CVE-2026-40574: two @"},
		{domain, map[string]any{"email": `"a@evil"@corp.com`}, "an e-mail address of a certain domain",
			"two @, quoted"},
		{domain, map[string]any{"email": "a@corp.com, b@evil"}, "an e-mail address of a certain domain",
			"two addresses"},
		{domain, map[string]any{"email": "a@evilcorp.com"}, "an e-mail address of a certain domain",
			"the end of another domain"},
		{domain, map[string]any{"email": "a@sub.corp.com"}, "an e-mail address of a certain domain",
			"a sub-domain is another domain"},
		{domain, map[string]any{"email": "@corp.com"}, "an e-mail address of a certain domain", "nobody before the @"},
		{domain, map[string]any{"email": "a@corp.com\n"}, "an e-mail address of a certain domain", "a line end"},
		{domain, map[string]any{"email": "a@corp.com", "email_verified": false},
			"an e-mail address of a certain domain", "not verified"},
		{domain, map[string]any{"email": "a@corp.com", "email_verified": "false"},
			"an e-mail address of a certain domain", "CVE-2026-55076: not verified, said as a text"},
		{domain, map[string]any{"email": []any{"a@corp.com"}}, "an e-mail address of a certain domain", "no text"},
		{claims, map[string]any{"department": "it", "realm_access": map[string]any{"roles": []any{"boss"}}}, "", ""},
		{claims, map[string]any{"department": "it", "realm_access.roles": "boss"}, "",
			"a claim may have dots in its name"},
		{address, map[string]any{"email": "BOSS@Corp.com"}, "", "an address has no case"},
		{address, map[string]any{"email": "boss@corp.com", "email_verified": false}, "a permission", "not verified"},
		{address, map[string]any{"email": "boss@corp.com", "email_verified": json.Number("0")}, "a permission",
			"not true"},
		{address, map[string]any{"email": "boss@corp.com", "email_verified": nil}, "", "null is absent"},
		{address, map[string]any{"email": "bo\u017f\u017f@corp.com"}, "a permission", "a long s is no s"},
		{inner, map[string]any{"user": map[string]any{"email": "boss@corp.com", "email_verified": false}},
			"a permission", "not verified"},
		{kelvin, map[string]any{"email": "a@\u212aorp.com"}, "an e-mail address of a certain domain",
			"the Kelvin sign is no K"},
		{number, map[string]any{"employee": json.Number("1234567")}, "", ""},
		{number, map[string]any{"employee": json.Number("1.234567e+06")}, "", "numbers are equal by value"},
		{number, map[string]any{"employee": json.Number("1234567.5")}, "a permission", "another number"},
		{number, map[string]any{"employee": json.Number("12345678901234567890")}, "a permission", "another number"},
		{number, map[string]any{"employee": json.Number("12345678901234567891")}, "", "to the last digit"},
		{claims, map[string]any{"department": "it"}, "a permission", "all of the claims are asked for"},
		{claims, map[string]any{"department": "sales", "realm_access.roles": "boss"}, "a permission", "another value"},
	} {
		p := mustPolicy(t, row.rule)
		err := h.allowed(httptest.NewRequest("GET", "/", nil), &p.rules[0],
			&session.Session{Claims: row.claims}, "/secret?x=y")
		f, _ := errors.AsType[*web.Failure](err)
		switch {
		case row.lacks == "" && err != nil:
			t.Errorf("%v: refused: %s", row.claims, row.why)
		case row.lacks != "" && (f == nil || f.Status != http.StatusForbidden ||
			!strings.Contains(f.Message.Text, "lacks "+row.lacks+".")):
			t.Errorf("%v: %v, want a 403 for lack of %s: %s", row.claims, err, row.lacks, row.why)
		case f != nil && (strings.Contains(f.Message.Text, "admins") || strings.Contains(f.Message.Text, "corp.com") ||
			strings.Contains(f.Message.Text, "department")):
			t.Errorf("the page tells what would do: %q", f.Message.Text)
		}
	}
}

func TestAPolicyThatMeansNothingIsRefused(t *testing.T) {
	t.Parallel()
	_, err := NewPolicy(
		Rule{Path: "admin"}, Rule{Path: "/a/*/b"}, Rule{Path: "/a//b"}, Rule{Path: "/a%2fb"}, Rule{},
		Rule{Path: "/x", Public: true, Groups: []string{"g"}}, Rule{Path: "/x", EmailDomains: []string{"@corp.com"}},
		Rule{Path: "/x", Methods: []string{"get"}}, Rule{Path: "/x", Claims: map[string][]string{"c": nil}},
		Rule{Path: "/x", Public: true, MaxAge: time.Minute}, Rule{Path: "/x", ACR: []string{"a b"}},
		Rule{Path: "/x", AMR: []string{`a"b`}}, Rule{Path: "/x", ACR: []string{""}}, Rule{Path: "/x", MaxAge: -time.Second},
		Rule{Path: "/x", MaxAge: time.Millisecond}, Rule{Path: "/x", ACR: []string{strings.Repeat("x", 513)}},
		Rule{Path: "//*", Public: true}, Rule{Path: "/a//*"},
	)
	for _, want := range []string{
		`rule 1: "admin" is not a path`, `rule 2: "/a/*/b" is not a path`, `rule 3: "/a//b"`, `rule 4: "/a%2fb"`,
		`rule 5: "" is not a path`,
		"rule 6: is public, but has conditions", `rule 7: "@corp.com" is not a domain`, `rule 8: "get" is not a method`,
		`rule 9: claim "c" lists no values`, "rule 10: is public, but has conditions", `rule 11: "a b" is no value of acr`,
		`rule 12: "a\"b" is no value`, `rule 13: "" is no value`, "rule 14: max_age: -1s", "rule 15: max_age: 1ms",
		"rule 16: acr and amr may have 512 bytes", `rule 17: "//*" is not a path`, `rule 18: "/a//*" is not a path`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no fault %q in: %v", want, err)
		}
	}
}

// A list that is there and empty opens nothing: it is a fault, in whatever field.
func TestARuleWhoseListIsEmptyIsRefused(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		rule Rule
		want string
	}{
		{Rule{Methods: []string{}}, "methods is an empty list"},
		{Rule{Groups: []string{}}, "groups is an empty list"},
		{Rule{EmailDomains: []string{}}, "email_domains is an empty list"},
		{Rule{Scopes: []string{}}, "scopes is an empty list"},
		{Rule{ACR: []string{}}, "acr is an empty list"},
		{Rule{AMR: []string{}}, "amr is an empty list"},
		{Rule{Claims: map[string][]string{}}, "claims is empty"},
		{Rule{Claims: map[string][]string{"c": {}}}, `claim "c" lists no values`},
		{Rule{Groups: []string{"a", ""}}, "groups: a name is empty"},
		{Rule{Claims: map[string][]string{"c": {"a", ""}}}, `claim "c": a value is empty`},
		{Rule{Methods: []string{"FOO BAR"}}, `"FOO BAR" is not a method`},
		{Rule{Methods: []string{"GET,POST"}}, `"GET,POST" is not a method`},
		{Rule{Methods: []string{"M-SEARCH", "VERSION-CONTROL"}}, ""},
	} {
		row.rule.Path = "/x"
		_, err := NewPolicy(row.rule)
		if row.want == "" && err != nil || row.want != "" &&
			(err == nil || !strings.HasPrefix(err.Error(), "rule 1: "+row.want)) {
			t.Errorf("%+v: %v, want %q", row.rule, err, row.want)
		}
	}
}

// FuzzPolicyPath: what the policy matched is what the app receives, in every reading of a path that some server has.
func FuzzPolicyPath(f *testing.F) {
	for _, seed := range []string{
		"/admin", "/public/../admin", "/public/%2e%2e/admin", "/public%2fadmin", "/a;b/admin", "//admin",
		`/public\admin`, "/%2561dmin", "/caf%c3%a9/x",
		"/public#/admin", "/x?y=/../admin", "/a%20b/", "/a:b@c!$&'()*+,=~/\"<>^`{|}", "/%7e%22",
	} {
		f.Add(seed)
	}
	app := &url.URL{Scheme: "http", Host: "app.internal"}
	var received string
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(app) },
		Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
			received = r.URL.RequestURI()
			return &http.Response{StatusCode: 204, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
		}),
	}
	readings := map[string]func(string) string{
		"decoded":       func(raw string) string { return unescape(raw) },
		"decoded twice": func(raw string) string { return unescape(unescape(raw)) },
		"cleaned":       func(raw string) string { return slashed(path.Clean(unescape(raw)), raw) },
		"cleaned first": func(raw string) string { return unescape(slashed(path.Clean(raw), raw)) },
		"backslashes":   func(raw string) string { return strings.ReplaceAll(unescape(raw), `\`, "/") },
		"parameters cut": func(raw string) string {
			var kept []string
			for segment := range strings.SplitSeq(raw, "/") {
				segment, _, _ = strings.Cut(unescape(segment), ";")
				kept = append(kept, segment)
			}
			return strings.Join(kept, "/")
		},
		"cut at a mark": func(raw string) string {
			raw = unescape(raw)
			if i := strings.IndexAny(raw, "?#\x00"); i >= 0 {
				raw = raw[:i]
			}
			return raw
		},
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target) // as net/http's server does
		if err != nil || !strings.HasPrefix(target, "/") {
			return
		}
		matched, ok := plainPath(u.EscapedPath())
		if !ok {
			return
		}
		proxy.ServeHTTP(httptest.NewRecorder(), (&http.Request{Method: "GET", URL: u, Header: http.Header{},
			Body: http.NoBody}).WithContext(t.Context()))
		raw, _, _ := strings.Cut(received, "?")
		for name, read := range readings {
			if got := read(raw); got != matched {
				t.Errorf("%q was matched as %q; the app received %q and, %s, reads %q", target, matched, received, name,
					got)
			}
		}
	})
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func unescape(raw string) string {
	if decoded, err := url.PathUnescape(raw); err == nil {
		return decoded
	}
	return raw
}

// slashed gives a cleaned path back the slash at its end.
func slashed(clean, raw string) string {
	if strings.HasSuffix(raw, "/") && clean != "/" {
		return clean + "/"
	}
	return clean
}
