package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"example.com/curfew/store/observed"
)

// source walks the Go files of a room, without its tests.
func source(t *testing.T, pattern string, visit func(ast.Node)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pattern)))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", pattern, files, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool { visit(n); return true })
	}
}

func literal(n ast.Expr) (string, bool) {
	l, ok := n.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}

// words is a set of what stands in the code.
type words map[string]bool

func (w words) add(n ast.Expr) {
	if s, ok := literal(n); ok {
		w[s] = true
	}
}

// called returns the last name of what is called, and the arguments.
func called(n ast.Node) (string, []ast.Expr) {
	c, ok := n.(*ast.CallExpr)
	if !ok {
		return "", nil
	}
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name, c.Args
	case *ast.SelectorExpr:
		return f.Sel.Name, c.Args
	}
	return "", nil
}

// member returns the value of a member of a composite literal, or of an assignment to it.
func member(n ast.Node, name string) []ast.Expr {
	switch n := n.(type) {
	case *ast.KeyValueExpr:
		if id, ok := n.Key.(*ast.Ident); ok && id.Name == name {
			return []ast.Expr{n.Value}
		}
	case *ast.AssignStmt:
		for i, l := range n.Lhs {
			if s, ok := l.(*ast.SelectorExpr); ok && s.Sel.Name == name && len(n.Rhs) == len(n.Lhs) {
				return []ast.Expr{n.Rhs[i]}
			}
		}
	}
	return nil
}

// Whoever adds a reason, a result or a cause adds it to the lists from which the metrics begin, or this fails.
func TestEveryLabelThatTheCodeCanSayIsThereFromTheStart(t *testing.T) {
	t.Parallel()
	causes := words{}
	source(t, "store/*.go", func(n ast.Node) {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if id, ok := v.Type.(*ast.Ident); ok && id.Name == "Cause" {
				causes.add(v.Values[0])
			}
		}
	})
	fetches := words{}
	source(t, "oidc/*.go", func(n ast.Node) {
		if f, args := called(n); f == "OnKeyFetch" {
			fetches.add(args[1])
		}
	})
	reasons := words{}
	source(t, "oidc/*.go", func(n ast.Node) {
		switch f, args := called(n); f {
		case "failed", "text", "time": // the last two give a claim's name to failed
			if len(args) > 0 {
				reasons.add(args[0])
			}
		}
	})
	signInChecks := maps.Clone(reasons)
	for _, other := range []string{"events", "jti", "revocation", "introspection", "revalidate"} {
		delete(signInChecks, other)
	}
	source(t, "login/*.go", func(n ast.Node) {
		for _, v := range member(n, "Check") {
			signInChecks.add(v)
		}
		f, args := called(n)
		if f == "String" && len(args) == 2 {
			if name, _ := literal(args[0]); name == "check" {
				signInChecks.add(args[1])
			}
		}
	})
	for _, other := range []string{"provider", "store", "internal", "handover"} { // of a failure, and of a later step
		delete(signInChecks, other)
	}
	// of other documents
	for _, other := range []string{"at_hash", "auth_time", "azp", "token_response", "userinfo", "revocation", "par",
		"request_uri", "response", "introspection", "revalidate", "session_expiry"} {
		delete(reasons, other)
	}
	channels := map[string]words{"backchannel": {}, "frontchannel": {}, "user": {}} // result, a space, reason
	source(t, "logout/*.go", func(n ast.Node) {
		for _, v := range member(n, "Check") {
			reasons.add(v)
		}
		at := func(args []ast.Expr, i int) string { s, _ := literal(args[i]); return s }
		switch f, args := called(n); f {
		case "result":
			if id, ok := args[0].(*ast.Ident); ok && channels[id.Name] != nil {
				if _, ok := literal(args[2]); ok && !strings.HasSuffix(at(args, 2), "refused") || id.Name == "user" {
					channels[id.Name][at(args, 2)+" "+at(args, 3)] = true
				}
			}
		case "framed":
			channels["frontchannel"][at(args, 3)+" "] = true
		case "unavailable":
			channels["backchannel"]["unavailable "+at(args, 1)] = true
		case "storeFailure":
			if id, ok := args[0].(*ast.Ident); ok && channels[id.Name] != nil {
				channels[id.Name]["unavailable store"] = true
			}
		}
	})
	delete(channels["backchannel"], "unavailable ") // the one line to which the others lead
	for reason := range reasons {
		channels["backchannel"]["refused "+reason] = true
	}
	logout, revoke := words{}, words{}
	for file, kinds := range map[string][]words{"post.go": {logout}, "revoke.go": {revoke}, "sender.go": {logout, revoke},
		"queue.go": {logout, revoke}} {
		source(t, "fanout/"+file, func(n ast.Node) {
			for _, v := range member(n, "name") {
				for _, w := range kinds {
					w.add(v)
				}
			}
		})
	}

	surfaces, decisions := words{}, words{}
	source(t, "gateway/*.go", func(n ast.Node) {
		if f, args := called(n); f == "checked" {
			surfaces.add(args[1])
		}
	})
	source(t, "gateway/observe.go", func(n ast.Node) {
		if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) == 2 {
			result, ok1 := literal(r.Results[0])
			reason, ok2 := literal(r.Results[1])
			if ok1 && ok2 && reason != "" {
				decisions[result+" "+reason] = true
			}
		}
	})
	renewals := words{}
	source(t, "session/refresh.go", func(n ast.Node) {
		if f, args := called(n); f == "renewed" {
			renewals.add(args[2])
		}
	})

	config := writeFile(t, "url: http://127.0.0.1:4180\nstore: 'sqlite:"+filepath.Join(t.TempDir(), "m.db")+"'\n"+
		"providers:\n  - {name: one, issuer: 'http://127.0.0.1:9', client_id: app}\n  - {name: two, issuer: "+
		"'http://127.0.0.1:9/two', client_id: app}\n"+
		"apps:\n  - {client_id: wiki, backchannel_logout_uri: 'http://127.0.0.1:9/wiki'}\n")
	g := startGateway(t, "--config", config)
	_, text := g.get(t, g.private+"/metrics")
	series := func(name string, labels ...string) words {
		found := words{}
		for line := range strings.Lines(text) {
			rest, ok := strings.CutPrefix(line, name+"{")
			if !ok {
				continue
			}
			if !strings.HasSuffix(line, "} 0\n") {
				t.Errorf("not at 0: %s", line)
			}
			values := make([]string, len(labels))
			for i, label := range labels {
				if m := regexp.MustCompile(`(?:^|,)` + label + `="([^"]*)"`).FindStringSubmatch(rest); m != nil {
					values[i] = m[1]
				}
			}
			found[strings.Join(values, " ")] = true
		}
		return found
	}
	same := func(what string, have, want words) {
		t.Helper()
		if len(want) == 0 || !maps.Equal(have, want) {
			t.Errorf("%s: /metrics begins with %q, and the code can say %q", what, slices.Sorted(maps.Keys(have)),
				slices.Sorted(maps.Keys(want)))
		}
	}
	each := func(prefixes []string, w words) words {
		all := words{}
		for _, p := range prefixes {
			for s := range w {
				all[p+" "+s] = true
			}
		}
		return all
	}
	same("causes", series("curfew_sessions_ended_total", "cause"), causes)
	same("sign-ins", series("curfew_sessions_created_total", "provider"), words{"one": true, "two": true})
	fetches["refused"] = true // by way of a function
	same("key fetches", series("curfew_key_fetches_total", "provider", "result"), each([]string{"one", "two"}, fetches))
	notices := each([]string{"revoke one", "revoke two"}, revoke)
	maps.Copy(notices, each([]string{"logout wiki"}, logout))
	same("notices", series("curfew_notice_attempts_total", "kind", "target", "result"), notices)
	same("surfaces", series("curfew_check_seconds_count", "surface"), surfaces)
	same("checks", series("curfew_checks_total", "surface", "result", "reason"),
		each(slices.Collect(maps.Keys(surfaces)), decisions))
	same("renewals", series("curfew_renewals_total", "kind", "provider", "result"),
		each([]string{"refresh one", "refresh two", "revalidation one", "revalidation two"}, renewals))
	refused := words{}
	for s := range series("curfew_sign_ins_total", "provider", "result", "reason") {
		if reason, ok := strings.CutPrefix(s, "two refused "); ok && reason != "" {
			refused[reason] = true
		}
	}
	same("sign-ins refused", refused, signInChecks)
	for _, one := range []string{"one ok ", "unknown begun ", "two unavailable store", "unknown failed internal"} {
		if !series("curfew_sign_ins_total", "provider", "result", "reason")[one] {
			t.Errorf("/metrics does not begin with the sign-ins %q", one)
		}
	}
	for _, operation := range observed.Operations() {
		for _, name := range []string{"curfew_store_seconds_count", "curfew_store_failures_total"} {
			if !strings.Contains(text, name+`{operation="`+operation+`"}`) {
				t.Errorf("/metrics does not begin with %s of %s", name, operation)
			}
		}
	}
	want := words{}
	for channel, w := range channels {
		maps.Copy(want, each([]string{channel}, w))
	}
	same("logouts", series("curfew_logout_requests_total", "channel", "result", "reason"), want)
	for _, one := range []string{"backchannel one ok ", "frontchannel two ok ", "user one ok ",
		"user two unavailable store", "user unknown nobody ",
		"backchannel unknown refused signature", "backchannel two replayed jti"} {
		if !series("curfew_logout_requests_total", "channel", "provider", "result", "reason")[one] {
			t.Errorf("/metrics does not begin with %q", one)
		}
	}
}
