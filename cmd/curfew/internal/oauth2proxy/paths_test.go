package oauth2proxy

import (
	"cmp"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"example.com/curfew/gateway"
	"example.com/curfew/web"
)

// routes is oauth2-proxy's own reading of skip_auth_routes (7.15).
type routes []struct {
	method string
	not    bool
	path   *regexp.Regexp
}

func parseRoutes(raw []string) (all routes, err error) {
	for _, text := range raw {
		parts := regexp.MustCompile("!?=").Split(text, 2)
		if len(parts) == 1 {
			parts = []string{"", text}
		}
		path, err := regexp.Compile(parts[1])
		if err != nil {
			return nil, err
		}
		all = append(all, routes{{strings.ToUpper(parts[0]), strings.Contains(text, "!="), path}}...)
	}
	return all, nil
}

func (all routes) open(method, path string) bool {
	for _, r := range all {
		if (r.method == "" || r.method == method) && r.path.MatchString(path) != r.not {
			return true
		}
	}
	return false
}

// openOrDocumented also allows what docs/migrate-from-oauth2-proxy.md says is wider: a path with and without a slash at
// its end is one, and GET covers HEAD.
func (all routes) openOrDocumented(method, path string) bool {
	other := path + "/"
	if strings.HasSuffix(path, "/") {
		other = cmp.Or(strings.TrimSuffix(path, "/"), path)
	}
	return all.open(method, path) || all.open(method, other) ||
		method == http.MethodHead && all.openOrDocumented(http.MethodGet, path)
}

// imported is a translation of exemptions, served.
type imported struct {
	rules   []gateway.Rule
	items   []Item
	gateway http.Handler
	passed  bool
}

func importRoutes(t *rapid.T, raw []string) *imported {
	option := byFlag()["skip-auth-route"]
	in := &input{settings: map[string]*setting{option.flag: {option, raw, "--" + option.flag}}}
	tr := &translator{input: in, top: newDocument(), people: newRule()}
	tr.policy()
	var made struct{ Policy []gateway.Rule }
	if err := tr.top.node.Decode(&made); err != nil {
		t.Fatal(err)
	}
	policy, err := gateway.NewPolicy(made.Policy...)
	if err != nil {
		t.Fatal(err)
	}
	i := &imported{rules: made.Policy, items: tr.items}
	h := &gateway.Handler{Policy: policy, Site: &web.Site{URL: &url.URL{Scheme: "https", Host: "app.example.com"},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	i.gateway = h.Require(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { i.passed = true }))
	return i
}

// open reports whether somebody without a session reaches the app.
func (i *imported) open(method, path string) bool {
	r := httptest.NewRequest(method, (&url.URL{Path: path}).EscapedPath(), nil)
	r.Host, i.passed = "app.example.com", false
	i.gateway.ServeHTTP(httptest.NewRecorder(), r)
	return i.passed
}

// drawExpression draws an expression. In most the beginning, or each alternative of it, is anchored, as people write
// them.
func drawExpression(t *rapid.T) string {
	pick := func(what string, from ...string) string { return rapid.SampledFrom(from).Draw(t, what) }
	part := func() string { return drawPart(t, 2) }
	e := ""
	switch kind := pick("kind", "one", "several", "several", "any"); kind {
	case "one":
		e = "^/" + part()
	case "several":
		e = pick("group", "(", "(?:", "(?P<n>") + "^/" + part() + pick("end", "", "", "$", "/", ".*") + "|^/" + part() +
			pick("end", "", "", "$", "/", ".*") + ")"
	default:
		e = part()
	}
	return pick("flags", "", "", "", "", "", "(?i)", "(?s)", "(?m)", "(?U)") + e +
		pick("end", "", "", "$", "$", "$", "/public$", `\.json$`, "/.*", ".*$", "(/.*)?$")
}

func drawPart(t *rapid.T, depth int) string {
	kind := rapid.IntRange(0, 13).Draw(t, "kind")
	if depth == 0 {
		kind %= 6
	}
	part := func() string { return drawPart(t, depth-1) }
	switch kind {
	case 0, 1, 2, 3, 4:
		return rapid.SampledFrom([]string{"a", "b", "/a", "/b", "a/", "v1", `\.`, "[ab]", "-"}).Draw(t, "plain")
	case 5:
		return rapid.SampledFrom([]string{"", "/", "//", ".", `/\*`, `\*`, "[*/a]", "[Aa]", "[^/]", "[^/]*", `\d`, ".*",
			".*?", ".+", "^", "$", `\A`, `\z`, `\b`, "^/a", "=", "!=", "é", `\x{D800}`, "%", ";"}).Draw(t, "odd")
	case 6, 7, 8:
		return part() + part()
	case 9:
		return "(" + part() + "|" + part() + ")"
	case 10:
		return "(?:" + part() + "|" + part() + ")"
	case 11:
		return part() + "|" + part()
	case 12:
		return rapid.SampledFrom([]string{"(", "(?:", "(?P<m>", "(?i:", "(?m:"}).Draw(t, "group") + part() + ")"
	}
	return "(" + part() + ")" + rapid.SampledFrom([]string{"?", "?", "?", "??", "*", "+", "{2}", "{0,1}"}).Draw(t, "times")
}

// drawMatch draws a text that a part of an expression accepts, as if its anchors were not there.
func drawMatch(t *rapid.T, re *syntax.Regexp) string {
	pick := func(n int) int { return rapid.IntRange(0, n).Draw(t, "way") }
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		if len(re.Rune) == 0 {
			return ""
		}
		return string(re.Rune[pick(len(re.Rune)-1)])
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return []string{".", "a", "/"}[pick(2)]
	case syntax.OpAlternate:
		return drawMatch(t, re.Sub[pick(len(re.Sub)-1)])
	case syntax.OpQuest, syntax.OpStar, syntax.OpPlus, syntax.OpRepeat:
		return strings.Repeat(drawMatch(t, re.Sub[0]), pick(2))
	}
	var all strings.Builder
	for _, sub := range re.Sub {
		all.WriteString(drawMatch(t, sub))
	}
	return all.String()
}

// drawPaths draws paths, most of them near to those that an expression or a rule is about.
func drawPaths(t *rapid.T, all routes, rules []gateway.Rule) (paths []string) {
	for _, r := range rules {
		paths = append(paths, strings.TrimSuffix(r.Path, "/*"))
	}
	for _, r := range all {
		re, _ := syntax.Parse(r.path.String(), syntax.Perl)
		paths = append(paths, drawMatch(t, re), drawMatch(t, re))
	}
	paths = append(paths, rapid.StringMatching(`(/[ab.]{0,2}){1,3}`).Draw(t, "path"))
	for _, p := range slices.Clone(paths) {
		cut := rapid.IntRange(0, len(p)).Draw(t, "cut")
		paths = append(paths, p+"/", p+"/x", p+"x", p+"/public", p+".json", "/"+p, "/x"+p, p+p, p[:cut], p[cut:],
			strings.ToUpper(p), p+rapid.StringMatching(`[ab/.*]{1,3}`).Draw(t, "more"))
	}
	return slices.DeleteFunc(paths, func(p string) bool { return !strings.HasPrefix(p, "/") })
}

// TestNoExemptionIsWiderThanOAuth2Proxys, whatever the expressions are; and those that are said to be carried over are
// no narrower.
func TestNoExemptionIsWiderThanOAuth2Proxys(t *testing.T) {
	t.Parallel()
	translated := 0
	rapid.Check(t, func(t *rapid.T) {
		var raw []string
		for range rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "routes") {
			raw = append(raw, rapid.SampledFrom([]string{"", "", "", "", "GET=", "post=", "!=", "GET!="}).Draw(t, "method")+
				drawExpression(t))
		}
		theirs, err := parseRoutes(raw)
		if err != nil {
			return
		}
		ours := importRoutes(t, raw)
		carried := !slices.ContainsFunc(ours.items, func(i Item) bool { return i.Outcome != Carried })
		if len(ours.rules) > 0 {
			translated++
		}
		for _, path := range drawPaths(t, theirs, ours.rules) {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
				open := ours.open(method, path)
				if open && !theirs.openOrDocumented(method, path) {
					t.Fatalf("%q: %s %s needs no sign-in, with %+v", raw, method, path, ours.rules)
				}
				if _, plain := gateway.NewPolicy(gateway.Rule{Path: path}); plain == nil && !strings.Contains(path, "*") &&
					carried && !open && theirs.open(method, path) {
					t.Fatalf("%q: %s %s needs a sign-in, with %+v; the report does not say so", raw, method, path, ours.rules)
				}
			}
		}
	})
	t.Logf("%d of the drawn exemptions have rules", translated)
}
