package curfew_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// The rooms and the arrows between them. A room not named here may not exist; what is not allowed here is forbidden.
// "" is the root package. Tests may reach further, see testRooms.

const module = "example.com/curfew"

func rooms() map[string][]string {
	ground := []string{"audit", "keyring", "oidc", "session", "store", "web"}
	middle := []string{"login", "gateway", "logout", "fanout", "console"}
	stores := []string{"store/memory", "store/sqlite", "store/postgres", "store/redis"}
	return map[string][]string{
		// The ground imports none of ours, but for session, which is built on the contract of the stores.
		"keyring": nil, "oidc": {"internal/guard", "internal/span"}, "store": nil, "web": {"internal/span"},
		"session": {"internal/guard", "internal/span", "internal/wait", "keyring", "store"},
		"audit":   {"internal/wait", "keyring", "store"},
		// The middle imports only the ground, never a neighbour.
		"login":            append(slices.Clone(ground), "internal/guard", "internal/span", "internal/wait"),
		"gateway":          append(slices.Clone(ground), "internal/guard", "internal/span"),
		"gateway/extauthz": {"gateway", "internal/span"}, "logout": ground,
		"fanout":  append(slices.Clone(ground), "internal/guard", "internal/span", "internal/wait"),
		"console": append(slices.Clone(ground), "internal/wait"),
		// A store knows the contract, and nothing else.
		"store/memory": {"store"}, "store/sqlite": {"store", "store/internal/gate"},
		"store/postgres": {"store", "store/internal/gate"}, "store/redis": {"internal/wait", "store", "store/internal/gate"},
		"store/observed":  {"store"},
		"store/storetest": {"keyring", "session", "store"}, "store/copy": {"internal/wait", "store"},
		"oidc/oidctest": {"oidc"},
		// The root wires the rooms for an app that embeds them; a memory store is what it falls back to.
		"": slices.Concat(ground, middle, []string{"internal/guard", "internal/span", "internal/wait",
			"store/memory", "store/observed"}),
		// The endpoint alone, for an app that keeps its own sessions.
		"backchannel": slices.Concat(ground, []string{"logout", "store/memory"}),
		"demo":        slices.Concat([]string{"", "oidc/oidctest"}, ground, stores),
		// The command knows everything that is shipped, and only the folder of the stores knows which ones there are.
		"cmd/curfew": slices.Concat([]string{
			"", "demo", "gateway/extauthz", "internal/wait", "store/copy", "store/observed",
			"cmd/curfew/internal/config", "cmd/curfew/internal/stores", "cmd/curfew/internal/terminal",
			"cmd/curfew/internal/oauth2proxy", "cmd/curfew/internal/check",
		}, ground, middle),
		"cmd/curfew/internal/check": {
			"", "cmd/curfew/internal/config", "cmd/curfew/internal/stores", "gateway", "oidc", "store", "web",
		},
		"cmd/curfew/internal/oauth2proxy": {
			"cmd/curfew/internal/config", "cmd/curfew/internal/terminal", "gateway", "session", "web",
		},
		"cmd/curfew/internal/config": slices.Concat([]string{
			"", "gateway", "fanout", "cmd/curfew/internal/stores", "cmd/curfew/internal/terminal",
		}, ground),
		"cmd/curfew/internal/stores":   append([]string{"store"}, stores...),
		"cmd/curfew/internal/terminal": nil,
		// What shows or measures the house stands outside it.
		"bench":    slices.Concat([]string{""}, ground, middle, stores),
		"examples": slices.Concat([]string{"", "backchannel", "examples/more/signin"}, ground, stores),
		"release":  {}, // the tool that builds a release
		"e2e":      {},
		// What starts servers for the tests of several rooms knows none of them.
		"internal/servers": {}, "internal/chromium": {},
		// What the tests of several rooms would each have to write stands on the ground and a store.
		"internal/rig": append(slices.Clone(ground), "oidc/oidctest", "store/memory"),
		// What several rooms would each have to write.
		"internal/guard": {}, "internal/span": {}, "internal/wait": {}, "store/internal/gate": {},
	}
}

// file is one Go file of the tree.
type file struct {
	dir  string // slash-separated, "" for the root
	name string
	src  string
	test bool
	fset *token.FileSet
	ast  *ast.File
}

// room is the folder that the rules know: examples, bench and e2e may have folders of their own below.
func (f *file) room() string {
	for _, open := range []string{"examples", "bench", "e2e"} {
		if strings.HasPrefix(f.dir, open+"/") {
			return open
		}
	}
	return f.dir
}

func (f *file) fault(n ast.Node, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: ", path.Join(f.dir, f.name), f.fset.Position(n.Pos()).Line) +
		fmt.Sprintf(format, args...)
}

// rule looks at the files of one folder and says what is wrong.
type rule struct {
	name  string
	check func(files []*file) []string
}

func rules() []rule {
	return []rule{
		{"the arrows between the rooms", arrows},
		{"the test rooms are imported by tests alone", testRooms},
		{"every room has a doc.go that opens with what it is", roomDoc},
		{"only cmd reads flags and the environment, and exits", onlyCmd},
		{"no init", noInit},
		{"no mutable package variable", noMutable},
		{"a store has no clock", noClock},
		{"no HTTP status below the middle", noStatus},
		{"no SQL above the stores", noSQL},
		{"no value smuggled in a context", noSmuggling},
		{"no line over 120 columns", noLongLine},
		{"a panic in a flight ends no process", guardedFlights},
	}
}

func TestLayout(t *testing.T) {
	t.Parallel()
	tree := parseTree(t)
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			for _, files := range tree {
				for _, fault := range r.check(files) {
					t.Error(fault)
				}
			}
		})
	}
}

func arrows(files []*file) (faults []string) {
	all := rooms()
	for _, f := range files {
		if f.test {
			continue
		}
		allowed, known := all[f.room()]
		if !known {
			faults = append(faults, f.fault(f.ast, "the folder %q is no room of the design", f.dir))
		}
		for spec, to := range f.ours() {
			if to != f.room() && !slices.Contains(allowed, to) {
				faults = append(faults, f.fault(spec, "%q may not import %q", f.dir, to))
			}
		}
	}
	return faults
}

// testRooms looks at tests too: they may import what they like of ours, save the demo and another room's internals.
func testRooms(files []*file) (faults []string) {
	for _, f := range files {
		for spec, to := range f.ours() {
			switch {
			case to == "store/storetest" && (!f.test || !strings.HasPrefix(f.dir, "store/")):
				faults = append(faults, f.fault(spec, "only the tests of a store may import %q", to))
			case slices.Contains([]string{"internal/rig", "internal/servers", "internal/chromium"}, to) && !f.test:
				faults = append(faults, f.fault(spec, "only tests may import %q", to))
			case to == "oidc/oidctest" && !f.test && f.room() != "demo" && f.room() != "internal/rig":
				faults = append(faults, f.fault(spec, "only tests and demo may import %q", to))
			case to == "demo" && f.room() != "cmd/curfew" && f.room() != "demo":
				faults = append(faults, f.fault(spec, "only cmd may import %q", to))
			}
		}
	}
	return faults
}

func roomDoc(files []*file) []string {
	f := files[0]
	if f.room() == "examples" || !slices.ContainsFunc(files, func(f *file) bool { return !f.test }) {
		return nil // an example explains itself in its only file
	}
	i := slices.IndexFunc(files, func(f *file) bool {
		// What is internal to a room is none: its comment may stand where it likes.
		return f.name == "doc.go" || strings.Contains(f.dir, "internal/") && f.ast.Doc != nil
	})
	if i < 0 {
		return []string{fmt.Sprintf("%s: has no doc.go that says what it owns and what it does not",
			path.Join(f.dir, "."))}
	}
	want := "Package " + files[i].ast.Name.Name + " "
	if files[i].ast.Name.Name == "main" {
		want = "Curfew "
	}
	if !strings.HasPrefix(files[i].ast.Doc.Text(), want) {
		return []string{files[i].fault(files[i].ast, "the package comment does not begin with %q", want)}
	}
	return nil
}

func onlyCmd(files []*file) []string {
	return calls(files, func(f *file) bool {
		return f.test || slices.Contains([]string{"cmd/curfew", "examples", "internal/chromium", "internal/servers",
			"release"}, f.room())
	},
		"only cmd reads flags and the environment, and only main exits",
		"os.Args", "os.Exit", "os.Getenv", "os.LookupEnv", "os.Environ", "os.ExpandEnv", "flag.*", "log.Fatal",
		"log.Fatalf",
		"log.Fatalln", "runtime.Goexit", "slog.SetDefault", "signal.Notify", "signal.NotifyContext")
}

func noClock(files []*file) []string {
	// The suite is no store: it has to ask what time it is to measure one.
	return calls(files, func(f *file) bool {
		return f.test || !strings.HasPrefix(f.dir, "store/") || f.dir == "store/storetest"
	},
		"a store has no clock: time is an argument", "time.Now", "time.Since", "time.Until")
}

func noStatus(files []*file) []string {
	return calls(files, func(f *file) bool {
		// web turns errors into responses. oidc is a client: it reads the status that a provider answers. Its test
		// provider is a server.
		return f.test || !slices.Contains([]string{"session"}, f.dir) && !strings.HasPrefix(f.dir, "store/")
	}, "below the middle there are no HTTP status codes", "http.Status*", "http.Error")
}

func noLongLine(files []*file) (faults []string) {
	for _, f := range files {
		n := 0
		for line := range strings.Lines(f.src) {
			n++
			if columns := utf8.RuneCountInString(strings.TrimRight(line, "\r\n")); columns > 120 {
				faults = append(faults, fmt.Sprintf("%s:%d: %d columns", path.Join(f.dir, f.name), n, columns))
			}
		}
	}
	return faults
}

func guardedFlights(files []*file) (faults []string) {
	for _, f := range files {
		for _, spec := range f.ast.Imports {
			if p := unquote(spec); p == "golang.org/x/sync/singleflight" && f.dir != "internal/guard" {
				faults = append(faults, f.fault(spec, "it panics where nobody can recover: take guard.Group"))
			}
		}
	}
	return faults
}

func noSQL(files []*file) (faults []string) {
	for _, f := range files {
		if f.test || strings.HasPrefix(f.dir, "store/") || f.dir == "internal/servers" {
			continue
		}
		for _, spec := range f.ast.Imports {
			if p := unquote(spec); strings.HasPrefix(p, "database/sql") || strings.Contains(p, "/sqlite") &&
				!strings.HasPrefix(p, module) || strings.Contains(p, "/pgx") {
				faults = append(faults, f.fault(spec, "only the stores speak SQL: %s", p))
			}
		}
	}
	return faults
}

func noSmuggling(files []*file) []string {
	return calls(files, func(f *file) bool {
		// A request's own session and id travel with it; golang.org/x/oauth2 takes its HTTP client in no other way.
		return f.test || slices.Contains([]string{"", "gateway", "web", "oidc"}, f.dir)
	}, "no dependency travels in a context", "context.WithValue")
}

func noInit(files []*file) (faults []string) {
	for _, f := range files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				faults = append(faults, f.fault(fn, "func init: nothing happens because a package is imported"))
			}
		}
	}
	return faults
}

// noMutable allows a package variable whose value nobody changes: an error, a compiled pattern or template, embedded
// files, or a table that no statement of the package writes to.
func noMutable(files []*file) (faults []string) {
	constant := []string{
		"errors.New", "fmt.Errorf", "regexp.MustCompile", "template.Must", "strings.NewReplacer",
		"netip.MustParsePrefix",
		"sync.OnceValue", // a value that is made when it is first needed
		"netip.MustParseAddr", "string", "[]byte", "time.Date", "big.NewInt", "prometheus.NewDesc",
	}
	names := map[string]bool{}
	for _, f := range files {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.VAR {
				continue
			}
			embedded := strings.Contains(comments(decl.Doc), "//go:embed ")
			for _, s := range decl.Specs {
				spec := s.(*ast.ValueSpec)
				embedded := embedded || strings.Contains(comments(spec.Doc), "//go:embed ")
				for i, name := range spec.Names {
					switch {
					case name.Name == "_" || embedded:
						continue
					case i >= len(spec.Values):
						faults = append(faults, f.fault(name,
							"the package variable %s has no value, so somebody means to change it", name.Name))
						continue
					}
					names[name.Name] = true
					switch v := spec.Values[i].(type) {
					case *ast.CompositeLit, *ast.BasicLit, *ast.BinaryExpr, *ast.SelectorExpr:
					case *ast.CallExpr:
						if !slices.Contains(constant, text(v.Fun)) && !makesString(v.Fun) {
							faults = append(faults, f.fault(name,
								"the package variable %s holds what %s returns, which can change", name.Name,
								text(v.Fun)))
						}
					default:
						faults = append(faults, f.fault(name, "the package variable %s holds something that can change",
							name.Name))
					}
				}
			}
		}
	}
	for _, f := range files {
		if !f.test {
			faults = append(faults, f.writes(names)...)
		}
	}
	return faults
}

// makesString allows a text that is worked out where it stands: nobody can change a string.
func makesString(e ast.Expr) bool {
	fn, ok := e.(*ast.FuncLit)
	return ok && fn.Type.Results != nil && len(fn.Type.Results.List) == 1 &&
		text(fn.Type.Results.List[0].Type) == "string"
}

// writes finds statements that change one of the package variables.
func (f *file) writes(names map[string]bool) (faults []string) {
	written := func(at ast.Node, e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
				continue
			case *ast.SelectorExpr:
				e = x.X
				continue
			case *ast.ParenExpr:
				e = x.X
				continue
			case *ast.Ident:
				// A name that the parser found inside a function is not the package's.
				local := x.Obj != nil && !f.topLevel(x.Obj.Decl)
				if names[x.Name] && !local {
					faults = append(faults, f.fault(at, "the package variable %s is written to", x.Name))
				}
			}
			return
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, l := range n.Lhs {
				if n.Tok != token.DEFINE {
					written(n, l)
				}
			}
		case *ast.IncDecStmt:
			written(n, n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				written(n, n.X)
			}
		case *ast.CallExpr:
			if fn := text(n.Fun); (fn == "delete" || fn == "clear" || fn == "copy") && len(n.Args) > 0 {
				written(n, n.Args[0])
			}
		}
		return true
	})
	return faults
}

func (f *file) topLevel(declared any) bool {
	for _, d := range f.ast.Decls {
		if decl, ok := d.(*ast.GenDecl); ok && slices.ContainsFunc(decl.Specs,
			func(s ast.Spec) bool { return declared == s }) {
			return true
		}
	}
	return false
}

// calls finds selectors such as "os.Exit" or "flag.*", of imported packages alone.
func calls(files []*file, exempt func(*file) bool, why string, forbidden ...string) (faults []string) {
	for _, f := range files {
		if exempt(f) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok || pkg.Obj != nil {
				return true
			}
			name := pkg.Name + "." + sel.Sel.Name
			for _, no := range forbidden {
				if prefix, wild := strings.CutSuffix(no, "*"); name == no || wild && strings.HasPrefix(name, prefix) {
					faults = append(faults, f.fault(sel, "%s: %s", name, why))
				}
			}
			return true
		})
	}
	return faults
}

// ours yields the imports of this module, by room.
func (f *file) ours() map[*ast.ImportSpec]string {
	found := map[*ast.ImportSpec]string{}
	for _, spec := range f.ast.Imports {
		if p := unquote(spec); p == module {
			found[spec] = ""
		} else if rel, ok := strings.CutPrefix(p, module+"/"); ok {
			found[spec] = rel
		}
	}
	return found
}

func unquote(spec *ast.ImportSpec) string {
	p, _ := strconv.Unquote(spec.Path.Value)
	return p
}

func comments(g *ast.CommentGroup) string {
	var b strings.Builder
	if g != nil {
		for _, c := range g.List {
			b.WriteString(c.Text + "\n")
		}
	}
	return b.String()
}

// text is the source of a simple expression: a name, a selector, or a slice type.
func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return text(e.X) + "." + e.Sel.Name
	case *ast.ArrayType:
		return "[]" + text(e.Elt)
	}
	return "an expression"
}

// parseTree reads every Go file of the module, folder by folder.
func parseTree(t *testing.T) map[string][]*file {
	t.Helper()
	tree := map[string][]*file{}
	err := fs.WalkDir(os.DirFS("."), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			if name != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" ||
				name == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(p) == ".go" {
			src, err := os.ReadFile(filepath.FromSlash(p))
			if err != nil {
				return err
			}
			f, err := parseFile(p, string(src))
			if err != nil {
				return err
			}
			tree[f.dir] = append(tree[f.dir], f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func parseFile(p, src string) (*file, error) {
	dir, name := path.Split(p)
	f := &file{dir: strings.TrimSuffix(dir, "/"), name: name, src: src, test: strings.HasSuffix(name, "_test.go"),
		fset: token.NewFileSet()}
	var err error
	f.ast, err = parser.ParseFile(f.fset, p, src, parser.ParseComments)
	return f, err
}

// A rule that catches nothing guards nothing: each row breaks one of them.
func TestLayoutRulesCatchWhatTheyForbid(t *testing.T) {
	t.Parallel()
	const m = `import _ "` + module
	for _, row := range []struct{ name, path, src, want string }{
		{"ground imports ground", "session/x.go", "package session\n" + m + `/oidc"`,
			`"session" may not import "oidc"`},
		{"ground imports the root", "web/x.go", "package web\n" + m + `"`, `"web" may not import ""`},
		{"middle imports a neighbour", "login/x.go", "package login\n" + m + `/logout"`,
			`"login" may not import "logout"`},
		{"middle imports a store", "gateway/x.go", "package gateway\n" + m + `/store/memory"`,
			`"gateway" may not import "store/memory"`},
		{"store imports more than the contract", "store/sqlite/x.go", "package sqlite\n" + m + `/session"`,
			`"store/sqlite" may not import "session"`},
		{"the contract imports session", "store/x.go", "package store\n" + m + `/session"`,
			`"store" may not import "session"`},
		{"root imports the demo", "x.go", "package curfew\n" + m + `/demo"`, `"" may not import "demo"`},
		{"cmd imports a store", "cmd/curfew/x.go", "package main\n" + m + `/store/redis"`,
			`"cmd/curfew" may not import "store/redis"`},
		{"the configuration imports the command's listeners", "cmd/curfew/internal/config/x.go",
			"package config\n" + m + `/console"`, `"cmd/curfew/internal/config" may not import "console"`},
		{"the configuration reads the environment", "cmd/curfew/internal/config/x.go",
			"package config\nimport \"os\"\nvar s = os.Getenv(\"X\")", "os.Getenv: only cmd"},
		{"cmd imports the test provider", "cmd/curfew/x.go", "package main\n" + m + `/oidc/oidctest"`,
			`"cmd/curfew" may not import "oidc/oidctest"`},
		{"a new folder", "utils/x.go", "package utils", `"utils" is no room`},
		{"storetest in shipped code", "store/memory/x.go", "package memory\n" + m + `/store/storetest"`,
			`only the tests of a store`},
		{"storetest in the tests of another room", "logout/x_test.go", "package logout\n" + m + `/store/storetest"`,
			`only the tests of a store`},
		{"oidctest in shipped code", "login/x.go", "package login\n" + m + `/oidc/oidctest"`,
			`only tests and demo may import`},
		{"servers for tests in shipped code", "cmd/curfew/x.go", "package main\n" + m + `/internal/servers"`,
			`only tests may import`},
		{"the rig of tests in shipped code", "login/x.go", "package login\n" + m + `/internal/rig"`,
			`only tests may import "internal/rig"`},
		{"demo in a test elsewhere", "gateway/x_test.go", "package gateway\n" + m + `/demo"`,
			`only cmd may import "demo"`},
		{"no doc.go", "web/x.go", "// Package web is.\npackage web", "has no doc.go"},
		{"an empty doc.go", "web/doc.go", "package web", `does not begin with "Package web "`},
		{"os.Exit", "oidc/x.go", "package oidc\nimport \"os\"\nfunc f() { os.Exit(1) }", "os.Exit: only cmd"},
		{"os.Getenv", "x.go", "package curfew\nimport \"os\"\nvar s = os.Getenv(\"X\")", "os.Getenv: only cmd"},
		{"flag", "web/x.go", "package web\nimport \"flag\"\nfunc f() { flag.Parse() }", "flag.Parse: only cmd"},
		{"init", "web/x.go", "package web\nfunc init() {}", "func init"},
		{"variable without a value", "web/x.go", "package web\nvar n int", "n has no value"},
		{"variable that holds a map made", "web/x.go", "package web\nvar m = make(map[string]int)",
			"m holds what make returns"},
		{"variable that holds a function", "web/x.go", "package web\nvar now = func() {}",
			"now holds something that can change"},
		{"table that is written to", "web/x.go", "package web\nvar m = map[string]int{}\nfunc f() { m[\"a\"] = 1 }",
			"m is written to"},
		{"table that loses a row", "web/x.go", "package web\nvar m = map[string]int{}\nfunc f() { delete(m, \"a\") }",
			"m is written to"},
		{"number that is counted up", "web/x.go", "package web\nvar n = 0\nfunc f() { n++ }", "n is written to"},
		{"variable whose address is taken", "web/x.go", "package web\nvar n = 0\nfunc f() *int { return &n }",
			"n is written to"},
		{"clock in a store", "store/redis/x.go", "package redis\nimport \"time\"\nvar t = time.Now",
			"time.Now: a store has no clock"},
		{"status in a store", "store/redis/x.go", "package redis\nimport \"net/http\"\nconst n = http.StatusOK",
			"http.StatusOK: below the middle"},
		{"status in session", "session/x.go", "package session\nimport \"net/http\"\nconst n = http.StatusOK",
			"http.StatusOK: below the middle"},
		{"SQL in the middle", "logout/x.go", "package logout\nimport _ \"database/sql\"", "only the stores speak SQL"},
		{"a value in a context", "login/x.go", "package login\nimport \"context\"\nvar _ = context.WithValue",
			"no dependency travels"},
		{"a flight without a guard", "login/x.go", "package login\nimport _ \"golang.org/x/sync/singleflight\"",
			"take guard.Group"},
		{"a long line", "web/x.go", "package web\n// " + strings.Repeat("ü", 118), "web/x.go:2: 121 columns"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f, err := parseFile(row.path, row.src)
			if err != nil {
				t.Fatal(err)
			}
			var faults []string
			for _, r := range rules() {
				faults = append(faults, r.check([]*file{f})...)
			}
			if !slices.ContainsFunc(faults, func(s string) bool { return strings.Contains(s, row.want) }) {
				t.Errorf("want a fault with %q, got %q", row.want, faults)
			}
		})
	}
}

func TestLayoutRulesLetConstantsBe(t *testing.T) {
	t.Parallel()
	f, err := parseFile("web/x.go", `package web
import ("embed"; "errors"; "regexp")
//go:embed x.html
var files embed.FS
var ErrX = errors.New("x")
var (
	pattern = regexp.MustCompile("x")
	table   = map[string]int{"a": 1}
)
var _ error = ErrX
func f() { table := map[string]int{}; table["a"] = 2 }
`)
	if err != nil {
		t.Fatal(err)
	}
	if faults := noMutable([]*file{f}); len(faults) > 0 {
		t.Error(faults)
	}
}
