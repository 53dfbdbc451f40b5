package gateway_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
)

func TestGapsAreThePathsBesideARuleForWhichLessIsAsked(t *testing.T) {
	t.Parallel()
	admins := []string{"admins"}
	all := gateway.Rule{Path: "/*", Groups: []string{"staff"}}
	for name, row := range map[string]struct {
		rules []gateway.Rule
		deny  bool
		want  string // the rule, the path and what covers it
	}{
		"no rule": {nil, false, ""},
		"all below": {[]gateway.Rule{{Path: "/admin/*", Groups: admins}}, false,
			"1 /admin.json 0, 1 /admin.html 0, 1 /admin. 0"},
		"one path": {[]gateway.Rule{{Path: "/admin", Groups: admins}}, false,
			"1 /admin/x 0, 1 /admin.json 0, 1 /admin.html 0, 1 /admin. 0"},
		"one path, by a claim": {[]gateway.Rule{{Path: "/a/b", Claims: map[string][]string{"x": {"y"}}}},
			false, "1 /a/b/x 0, 1 /a/b.json 0, 1 /a/b.html 0, 1 /a/b. 0"},
		"the rest is denied":                 {[]gateway.Rule{{Path: "/admin", Groups: admins}}, true, ""},
		"a sign-in is asked for in any case": {[]gateway.Rule{{Path: "/admin"}}, false, ""},
		"the rest is public": {[]gateway.Rule{{Path: "/admin/*"}, {Path: "/*", Public: true}}, false,
			"1 /admin.json 2, 1 /admin.html 2, 1 /admin. 2"},
		"the rest asks for less": {[]gateway.Rule{{Path: "/admin/*", Groups: admins}, all}, false,
			"1 /admin.json 2, 1 /admin.html 2, 1 /admin. 2"},
		"the rest asks for as much": {[]gateway.Rule{{Path: "/admin/*", Groups: []string{"staff", "admins"}},
			all}, false, ""},
		"the rest asks for something else": {[]gateway.Rule{{Path: "/admin/*", EmailDomains: []string{"example.com"}},
			all}, false,
			"1 /admin.json 2, 1 /admin.html 2, 1 /admin. 2"},
		"a step-up": {[]gateway.Rule{{Path: "/admin/*", ACR: []string{"gold"}}}, false,
			"1 /admin.json 0, 1 /admin.html 0, 1 /admin. 0"},
		"a newer sign-in, and the rest asks for an older one": {[]gateway.Rule{{Path: "/admin/*", MaxAge: time.Minute},
			{Path: "/*", MaxAge: time.Hour}}, false, "1 /admin.json 2, 1 /admin.html 2, 1 /admin. 2"},
		"a newer sign-in, and the rest asks for as new a one": {[]gateway.Rule{{Path: "/admin/*", MaxAge: time.Hour},
			{Path: "/*", MaxAge: time.Minute}}, false, ""},
		"a scope, and the rest asks for another way to sign in": {[]gateway.Rule{{Path: "/admin/*",
			Scopes: []string{"write"}}, {Path: "/*", AMR: []string{"otp"}}}, false,
			"1 /admin.json 2, 1 /admin.html 2, 1 /admin. 2"},
		"all are covered": {[]gateway.Rule{{Path: "/admin/*", Groups: admins}, {Path: "/admin.json", Groups: admins},
			{Path: "/admin.html", Groups: admins}, {Path: "/admin.", Groups: admins}}, false,
			"2 /admin.json/x 0, 3 /admin.html/x 0, 4 /admin./x 0"},
		"a public spelling before it": {[]gateway.Rule{{Path: "/Admin", Public: true},
			{Path: "/admin/*", Groups: admins}, all}, true,
			"2 /admin.json 3, 2 /admin.html 3, 2 /admin. 3, 2 /Admin 1"},
		"a method alone": {[]gateway.Rule{{Path: "/admin/*", Methods: []string{"DELETE"}, Groups: admins}},
			false, "1 /admin.json 0, 1 /admin.html 0, 1 /admin. 0"},
		"an earlier rule decides": {[]gateway.Rule{{Path: "/admin/*", Public: true},
			{Path: "/admin/*", Groups: admins}}, false, ""},
		"everything": {[]gateway.Rule{all}, false, ""},
	} {
		p, err := gateway.NewPolicy(row.rules...)
		rig.Must(t, err)
		if row.deny {
			p = p.DenyRest()
		}
		got := ""
		for i, g := range p.Gaps() {
			if i > 0 {
				got += ", "
			}
			got += fmt.Sprint(g.Rule, " ", g.Open, " ", g.By)
		}
		if got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, row.want)
		}
	}
}
