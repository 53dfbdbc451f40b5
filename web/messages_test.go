package web_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"html"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"example.com/curfew/web"
)

// spoken collects the texts that a room puts on pages, from its source. They have to be constants: what varies is a
// placeholder. A name in place of a text stands for all texts that the same function gives to that name.
type spoken struct {
	t     *testing.T
	fset  *token.FileSet
	texts map[string]bool
}

// sayers are the functions that take a text for a page, and which of their arguments that is.
var sayers = map[string]int{"Fail": 1, "refuse": 1, "refuseCode": 0, "framed": 4}

// tellers are the functions that return a text for a page, as their first result.
var tellers = []string{"title", "tookTooLong"}

// worn are the fields of web.Message, web.Action, web.Item and web.Fact that hold a text.
var worn = []string{"Title", "Text", "Note", "Done", "Label", "Mark"}

func (s *spoken) read(file string) {
	f, err := parser.ParseFile(s.fset, file, nil, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Name.Name == "Fail" || fn.Name.Name == "refuse" || fn.Name.Name == "data" ||
			fn.Name.Name == "try" || fn.Name.Name == "ourColors" {
			continue // they pass on what they are given; and samples
		}
		given := map[string][]ast.Expr{}
		var said []ast.Expr
		returned := slices.Contains(tellers, fn.Name.Name)
		ast.Inspect(fn, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for i, to := range n.Lhs {
					if i >= len(n.Rhs) {
						break
					}
					switch to := to.(type) {
					case *ast.Ident:
						given[to.Name] = append(given[to.Name], n.Rhs[i])
					case *ast.SelectorExpr:
						if slices.Contains(worn, to.Sel.Name) {
							said = append(said, n.Rhs[i])
						}
					}
				}
			case *ast.CompositeLit:
				for _, e := range n.Elts {
					kv, ok := e.(*ast.KeyValueExpr)
					if !ok {
						continue
					}
					key, _ := kv.Key.(*ast.Ident)
					kind, _ := n.Type.(*ast.SelectorExpr)
					if key != nil && (slices.Contains(worn, key.Name) ||
						kind != nil && kind.Sel.Name == "Fact" && key.Name == "Name") {
						said = append(said, kv.Value)
					}
				}
			case *ast.CallExpr:
				name := ""
				switch fun := n.Fun.(type) {
				case *ast.Ident:
					name = fun.Name
				case *ast.SelectorExpr:
					name = fun.Sel.Name
				}
				if i, ok := sayers[name]; ok && i < len(n.Args) {
					said = append(said, n.Args[i])
				}
			case *ast.ReturnStmt:
				if returned && len(n.Results) > 0 {
					said = append(said, n.Results[0])
				}
			}
			return true
		})
		for _, e := range said {
			s.take(fn, given, e, 0)
		}
	}
}

// take takes the text that an expression stands for.
func (s *spoken) take(fn *ast.FuncDecl, given map[string][]ast.Expr, e ast.Expr, depth int) {
	if text, ok := constant(e); ok {
		if text != "" {
			s.texts[text] = true
		}
		return
	}
	switch e := e.(type) {
	case *ast.Ident:
		if e.Name == "true" || e.Name == "false" { // another field of that name
			return
		}
		for _, p := range fn.Type.Params.List { // the text is the caller's: see sayers
			for _, name := range p.Names {
				if _, ok := sayers[fn.Name.Name]; ok && name.Name == e.Name {
					return
				}
			}
		}
		if len(given[e.Name]) > 0 && depth < 3 {
			for _, g := range given[e.Name] {
				s.take(fn, given, g, depth+1)
			}
			return
		}
	case *ast.CallExpr:
		if sel, ok := e.Fun.(*ast.SelectorExpr); ok && (sel.Sel.Name == "Label" ||
			slices.Contains(tellers, sel.Sel.Name) || sel.Sel.Name == "StatusText") {
			return // the name of a provider, and texts that are taken where they are
		}
		if fun, ok := e.Fun.(*ast.Ident); ok && slices.Contains(tellers, fun.Name) {
			return
		}
		if sel, ok := e.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Or" { // cmp.Or
			for _, arg := range e.Args {
				if call, ok := arg.(*ast.CallExpr); ok {
					s.take(fn, given, call, depth)
				}
			}
			return
		}
	}
	s.t.Errorf("%s: a text of a page is not a constant: what varies has to be a {placeholder}",
		s.fset.Position(e.Pos()))
}

// constant returns the value of a text that is written out, in one piece or several.
func constant(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		return web.OurFault, e.Name == "OurFault"
	case *ast.SelectorExpr:
		return constant(e.Sel)
	case *ast.BinaryExpr:
		a, ok := constant(e.X)
		b, okToo := constant(e.Y)
		return a + b, ok && okToo && e.Op == token.ADD
	}
	return "", false
}

// texts returns all texts of our pages.
func texts(t *testing.T) map[string]bool {
	t.Helper()
	s := &spoken{t, token.NewFileSet(), map[string]bool{}}
	files := []string{"../cmd/curfew/serve.go"}
	for _, room := range []string{".", "../login", "../logout", "../gateway"} {
		found, err := filepath.Glob(room + "/*.go")
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: no files: %v", room, err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		// The back channel speaks to providers alone, and access tokens are of programs.
		if !strings.HasSuffix(file, "_test.go") && !strings.HasSuffix(file, "backchannel.go") &&
			!strings.HasSuffix(file, "bearer.go") {
			s.read(file)
		}
	}
	page, err := os.ReadFile("page.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\.T "([^"]+)"`).FindAllSubmatch(page, -1) {
		s.texts[string(m[1])] = true
	}
	return s.texts
}

func read(t *testing.T, language string) map[string]string {
	t.Helper()
	body, err := os.ReadFile("messages/" + language + ".json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	if err := json.Unmarshal(body, &all); err != nil {
		t.Fatalf("%s: %v", language, err)
	}
	return all
}

var named = regexp.MustCompile(`\{[a-z_]+\}`)

// Each text of our pages is in each language, with the same placeholders, and there are no others.
func TestEveryTextIsInEveryLanguage(t *testing.T) {
	t.Parallel()
	ours := texts(t)
	if len(ours) < 100 {
		t.Fatalf("only %d texts were found in the source", len(ours))
	}
	for _, language := range []string{"en", "fr"} {
		have := read(t, language)
		for _, text := range slices.Sorted(maps.Keys(ours)) {
			said, ok := have[text]
			want, got := named.FindAllString(text, -1), named.FindAllString(said, -1)
			slices.Sort(want)
			slices.Sort(got)
			switch {
			case !ok:
				t.Errorf("%s.json lacks %q", language, text)
			case !slices.Equal(want, got):
				t.Errorf("%s.json: %q has the placeholders %q, not %q", language, text, got, want)
			case language == "en" && said != text:
				t.Errorf("en.json: %q is %q: change the source", text, said)
			}
		}
		for text := range have {
			if !ours[text] {
				t.Errorf("%s.json has %q, which no page says", language, text)
			}
		}
	}
}

// The template has no words of its own: each is from the catalogue, or from the data.
func TestTheTemplateHasNoWordsOfItsOwn(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("page.html")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`\{\{[^}]*\}\}`).ReplaceAllString(string(page), "")
	attributes := regexp.MustCompile(`(?:aria-label|alt|title|placeholder|value)="([^"]*)"`)
	for _, m := range attributes.FindAllStringSubmatch(text, -1) {
		if m[1] != "" {
			t.Errorf("an attribute has the words %q", m[1])
		}
	}
	text = html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(text, ""))
	if words := regexp.MustCompile(`\p{L}+`).FindAllString(text, -1); len(words) > 0 {
		t.Errorf("the template has the words %q", words)
	}
}
