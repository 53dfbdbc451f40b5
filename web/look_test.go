package web_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"example.com/curfew/web"
)

const svg = `<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`

func files(all ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(all); i += 2 {
		m[all[i]] = &fstest.MapFile{Data: []byte(all[i+1])}
	}
	return m
}

// whole is the smallest template that shows all that people need.
const whole = `<!doctype html><html lang="{{.Lang}}" dir="{{.Dir}}"><head><title>{{.Title}}</title>{{.Head}}</head>
<body><main id="own"><h1>{{.Title}}</h1>{{.Done}}{{range .Paragraphs}}<p>{{.}}</p>{{end}}
{{define "action"}}{{if .Post}}<form method="post" action="{{.Href}}">{{range $n, $v := .Form}}
<input type="hidden" name="{{$n}}" value="{{$v}}">{{end}}<button>{{.Label}}</button></form>
{{else}}<a href="{{.Href}}">{{.Label}}</a>{{end}}{{end}}
{{range .Items}}<h2>{{.Title}}</h2>{{range .Actions}}{{template "action" .}}{{end}}{{end}}
{{range .Actions}}{{template "action" .}}{{end}}
{{.Note}} {{.T "Reference"}} {{.Reference}}</main>{{.Tail}}</body></html>`

// Every fault of a look is named, all at once.
func TestALookIsChecked(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		look web.Look
		want []string // none: it is fine
	}{
		{"nothing", web.Look{}, nil},
		{"all", web.Look{Name: "Société X", Footer: "Rue 1\u00a0: Paris", Help: "mailto:help@example.com",
			Logo: []byte(svg), Light: web.Colors{Accent: "#0B6E4F", Text: "rgb(10, 10,10)", Background: "#fff"},
			Dark: web.Colors{Accent: "rgb(200 250 220)"}}, nil},
		{"two lines", web.Look{Name: "a\nb", Footer: "a\u202eb"},
			[]string{"name: must be one line", "footer: must be one line"}},
		{"too long", web.Look{Name: strings.Repeat("n", 201)}, []string{"name: must have at most 200 characters"}},
		{"help by http", web.Look{Help: "http://help.example.com"}, []string{"help: must begin with https://"}},
		{"help that runs", web.Look{Help: "javascript:alert(1)"}, []string{"help: must begin with https://"}},
		{"help with a user", web.Look{Help: "https://u:p@example.com"}, []string{"help: must begin with https://"}},
		{"help without a host", web.Look{Help: "https:///x"}, []string{"help: must begin with https://"}},
		{"mail to nobody", web.Look{Help: "mailto:help"}, []string{"help: must begin with https://"}},
		{"logo that is a page", web.Look{Logo: []byte("<html><svg></svg></html>")}, []string{"logo: is not a PNG"}},
		{"logo of another vocabulary", web.Look{Logo: []byte("<svg/>")}, []string{"logo: is not a PNG"}},
		{"large logo", web.Look{Logo: make([]byte, 256<<10+1)}, []string{"logo: has 262145 bytes; the most is 262144"}},
		{"colours", web.Look{Light: web.Colors{Accent: "red;}body{display:none", Text: "#12345", Line: "rgb(1,2,300)"},
			Dark: web.Colors{Muted: "url(x)", Surface: "var(--x)"}},
			[]string{`colors: accent: "red;}body{display:none" is not a colour`, `colors: text: "#12345" is not a colour`,
				`colors: line: "rgb(1,2,300)" is not a colour: its numbers`, `colors_dark: muted: "url(x)" is not`,
				`colors_dark: surface: "var(--x)" is not a colour`}},
		{"illegible", web.Look{Light: web.Colors{Text: "#aaaaaa"}},
			[]string{"colors: text has a contrast of", "colors: text has a contrast of"}},
		{"illegible in the dark", web.Look{Dark: web.Colors{Background: "#fff"}},
			[]string{"colors_dark: text has a contrast of"}},
		{"no messages", web.Look{Messages: files("x.txt", "")}, []string{"messages: there is no file of messages"}},
		{"messages", web.Look{Messages: files("de.json", `{"Sign in": "Anmelden"}`, "words.json", "{}",
			"es.json", `["Sign in"]`, "it.json", `{"Continue to {host}.": "Continua.", "Sign in": " "}`)},
			[]string{"words.json: is not named after a language", "es.json: want an object of texts",
				`it.json: "Continue to {host}.": its placeholders are [], and not ["{host}"]`,
				`it.json: "Sign in": the text is empty`}},
		{"templates", web.Look{Templates: files("page.html", whole)}, nil},
		{"a style sheet alone", web.Look{Templates: files("page.css", "h1 { color: var(--accent) }")}, nil},
		{"empty templates", web.Look{Templates: files("README", "")}, []string{"neither page.html nor page.css"}},
		{"another template", web.Look{Templates: files("page.html", whole, "error.html", "")},
			[]string{"templates: error.html: is not used"}},
		{"broken template", web.Look{Templates: files("page.html", "{{.Title", "page.css", "</style><script>")},
			[]string{"templates: template: page.html:1:", `templates: page.css: has "</"`}},
		{"unknown data", web.Look{Templates: files("page.html", whole+"{{.Secret}}")},
			[]string{"a page with a link and a form: template: page.html", "a page with a list: template: page.html"}},
		{"what the policy stops", web.Look{Templates: files("page.html", strings.Replace(whole, "<main id=\"own\">",
			`<main style="color:red" onclick="x()"><img src="https://cdn.example/x.png"><script>x()</script>`+
				`<style>x{}</style><link rel="stylesheet" href="https://cdn.example/x.css">`, 1))},
			[]string{"ignore the attribute style of <main>", "ignore the attribute onclick of <main>",
				`not to load "https://cdn.example/x.png"`, "inline <script> that is not ours", "inline <style> that is not ours",
				`not to load "https://cdn.example/x.css"`}},
		{"too little", web.Look{Templates: files("page.html", `<html><body>{{.Site}}</body></html>`)},
			[]string{"does not show {{.Head}}", "does not show the title", "does not show the paragraphs",
				`does not show the action "Sign out"`, "does not show the items", "it does not show {{.Tail}}"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := web.NewPages(row.look)
			text := fmt.Sprint(err)
			for _, want := range row.want {
				if !strings.Contains(text, want) {
					t.Errorf("the error lacks %q:\n%s", want, text)
				}
			}
			if len(row.want) == 0 && err != nil {
				t.Error(err)
			}
		})
	}
}

func looking(t testing.TB, l web.Look) *web.Site {
	t.Helper()
	s, _ := logging(t)
	p, err := web.NewPages(l)
	if err != nil {
		t.Fatal(err)
	}
	s.Pages = p
	return s
}

// The languages are those of Accept-Language, and a hostile header costs nothing.
func TestTheLanguageIsThatOfTheBrowser(t *testing.T) {
	t.Parallel()
	s := looking(t, web.Look{Messages: files("de.json", `{"There is nothing at this address.": "Hier ist nichts."}`,
		"ar.json", `{"Page not found": "الصفحة غير موجودة"}`, "en.json", `{"Page not found": "No such page"}`)})
	for _, row := range []struct{ accept, lang, dir, want string }{
		{"", "en", "ltr", "No such page"},
		{"fr", "fr", "ltr", "Page introuvable"},
		{"fr-CA, en;q=0.8", "fr", "ltr", "Page introuvable"},
		{"en-GB,fr;q=0.9", "en", "ltr", "No such page"},
		{"fr;q=0, en", "en", "ltr", "No such page"},
		{"nl, fr;q=0.3", "fr", "ltr", "Page introuvable"},
		{"ja", "en", "ltr", "No such page"},
		{"de-AT", "de", "ltr", "Hier ist nichts."},
		{"de-AT", "de", "ltr", "Page not found"}, // what a file lacks is English
		{"ar-EG", "ar", "rtl", "الصفحة غير موجودة"},
		{"*", "en", "ltr", "No such page"},
		{"\"><script>", "en", "ltr", "No such page"},
		{strings.Repeat("-", 10_000), "en", "ltr", "No such page"},
		{"fr," + strings.Repeat("a-", 5_000), "fr", "ltr", "Page introuvable"},
		{strings.Repeat("x", 10_000) + ",fr", "en", "ltr", "No such page"},
	} {
		w := answer(s.NotFound(), "GET", "/auth/x", nil, "Accept-Language", row.accept)
		if body := w.Body.String(); !strings.Contains(body, row.want) ||
			!strings.Contains(body, fmt.Sprintf(`<html lang="%s" dir="%s">`, row.lang, row.dir)) ||
			w.Header().Get("Content-Language") != row.lang || w.Header().Get("Vary") != "Accept-Language" {
			t.Errorf("%.40q: %s\n%s", row.accept, w.Header(), body)
		}
	}
}

// Programs get English, and so does the log.
func TestProgramsGetEnglish(t *testing.T) {
	t.Parallel()
	s, log := logging(t)
	h := s.JSON(func(http.ResponseWriter, *http.Request) error {
		return &web.Failure{Status: 400, Message: web.Message{Text: "Continue to {host}.",
			Args: map[string]string{"host": "{host}\u202e.example"}}}
	})
	w := answer(h, "GET", "/", nil, "Accept-Language", "fr")
	if want := `Continue to {host}\\u202e.example.`; !strings.Contains(w.Body.String(), want) ||
		!strings.Contains(log.String(), "Continue to {host}") {
		t.Errorf("%s\n%s", w.Body, log)
	}
}

// A hostile header costs no more than the usual one, since only its beginning is read.
func BenchmarkTheLanguageOfAPage(b *testing.B) {
	s := looking(b, web.Look{})
	for name, accept := range map[string]string{"none": "", "usual": "fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5",
		"dashes": strings.Repeat("a-", 5000), "many": strings.Repeat("fr;q=0.1,", 1100),
		"extensions": strings.Repeat("x-x-x-x-x-x-x,", 700)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				answer(s.NotFound(), "GET", "/auth/x", nil, "Accept-Language", accept)
			}
		})
	}
}

// The logo is served as what it is, and can do nothing; the colours and the texts are on the page.
func TestALookIsShown(t *testing.T) {
	t.Parallel()
	s := looking(t, web.Look{Name: "Société X", Footer: "Rue 1", Help: "https://help.example.com/?a=1&b=2",
		Logo: []byte(svg), Light: web.Colors{Accent: "#0B6E4F"}})
	body := answer(s.NotFound(), "GET", "/auth/x", nil).Body.String()
	for _, want := range []string{"<title>Page not found · Société X</title>", `<img src="/auth/logo?v=`, "<p>Rue 1</p>",
		`<a href="https://help.example.com/?a=1&amp;b=2">Help</a>`, "--accent:#0b6e4f;--on:#ffffff"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s:\n%s", want, body)
		}
	}
	mux := http.NewServeMux()
	s.Mount(mux)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/auth/logo?v=1", nil))
	if policy := w.Header().Get("Content-Security-Policy"); w.Body.String() != svg ||
		w.Header().Get("Content-Type") != "image/svg+xml" || w.Header().Get("X-Content-Type-Options") != "nosniff" ||
		!strings.HasSuffix(policy, "; sandbox") || !strings.Contains(w.Header().Get("Cache-Control"), "public") {
		t.Errorf("the logo: %v", w.Header())
	}
	own := looking(t, web.Look{Templates: files("page.html", whole, "page.css", "h1{color:var(--accent)}")})
	body = answer(own.NotFound(), "GET", "/auth/x", nil, "Accept-Language", "fr").Body.String()
	for _, want := range []string{`<main id="own">`, "h1{color:var(--accent)}</style>", "Référence"} {
		if !strings.Contains(body, want) {
			t.Errorf("the own template lacks %s:\n%s", want, body)
		}
	}
}

// A template that fails for one page does not take the page from the person.
func TestATemplateThatFailsIsReplaced(t *testing.T) {
	t.Parallel()
	s := looking(t, web.Look{Templates: files("page.html",
		strings.Replace(whole, "</main>", `{{if eq .Title "Page not found"}}{{index .Items 7}}{{end}}</main>`, 1))})
	if w := answer(s.NotFound(), "GET", "/auth/x", nil); w.Code != 404 ||
		!strings.Contains(w.Body.String(), `<main id="main">`) || strings.Contains(w.Body.String(), `id="own"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Forms may lead only where they have to.
func TestFormsLeadNoFurtherThanNeeded(t *testing.T) {
	t.Parallel()
	post := web.Action{Label: "Sign out", Href: "/auth/logout", Post: true}
	for _, row := range []struct {
		name  string
		m     web.Message
		plain bool
		want  string
	}{
		{"no form", web.Message{Actions: []web.Action{{Label: "Sign in", Href: "/auth/login"}}}, false, "form-action 'none'"},
		{"a form", web.Message{Actions: []web.Action{post}}, false, "form-action 'self' https:;"},
		{"a form in a list", web.Message{Items: []web.Item{{Actions: []web.Action{post}}}}, false,
			"script-src 'self'; connect-src 'self'; form-action 'self' https:;"},
		{"a provider on loopback", web.Message{Actions: []web.Action{post}}, true, "form-action 'self' https: http:;"},
	} {
		s, _ := logging(t)
		s.PlainProviders = row.plain
		w := answer(s.Page(func(w http.ResponseWriter, r *http.Request) error {
			s.Render(w, r, 200, row.m)
			return nil
		}), "GET", "/", nil)
		if policy := w.Header().Get("Content-Security-Policy"); !strings.Contains(policy, row.want) ||
			strings.Contains(policy, "unsafe") {
			t.Errorf("%s: %s", row.name, policy)
		}
	}
}
