package web

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/html"
)

// Pages are the pages of a site, as its [Look] wants them. [NewPages] makes them.
type Pages struct {
	look       Look
	texts      *catalogue
	incomplete []string
	page       *template.Template
	light      string // colours as custom properties of CSS
	dark       string
	style      string
	styleHash  string
	submitHash string
	logo       *logo // nil: none
}

type logo struct {
	kind string
	body []byte
}

var ourPage = template.Must(template.New("page.html").Parse(pageHTML))

// ourPages are those of the zero Look.
var ourPages = sync.OnceValue(func() *Pages {
	p, err := NewPages(Look{})
	if err != nil {
		panic(err) // it has nothing to be wrong but what is embedded
	}
	return p
})

func (s *Site) pages() *Pages {
	if s.Pages != nil {
		return s.Pages
	}
	return ourPages()
}

// maxTemplate is how many bytes a file of templates may have.
const maxTemplate = 1 << 20

// NewPages checks a look and reads its files, once. The error lists every fault.
func NewPages(l Look) (*Pages, error) {
	p := &Pages{look: l, page: ourPage, submitHash: hash(submit)}
	faults := []error{l.check()}
	if kind, err := imageType(l.Logo); err == nil {
		p.logo = &logo{kind, l.Logo}
	}
	var err error
	p.light, err = l.Light.variables(false)
	faults = append(faults, prefixed("colors: ", err))
	if l.Dark.Accent == "" {
		l.Dark.Accent = l.Light.Accent
	}
	p.dark, err = l.Dark.variables(true)
	faults = append(faults, prefixed("colors_dark: ", err))
	if p.texts, p.incomplete, err = newCatalogue(l.Messages); err != nil {
		faults = append(faults, prefixed("messages: ", err))
	}
	css := baseCSS + pageCSS
	if l.Templates != nil {
		own, err := p.readTemplates(l.Templates)
		faults = append(faults, prefixed("templates: ", err))
		if own != "" {
			css = own
		}
	}
	p.style = p.colors(":root") + css
	p.styleHash = hash(p.style)
	if err := errors.Join(flat(errors.Join(faults...))...); err != nil {
		return nil, err
	}
	if p.page != ourPage {
		if err := p.try(); err != nil {
			return nil, prefixed("templates: page.html: ", err)
		}
	}
	return p, nil
}

// Style returns the style sheet with which all of ours begin: the colours, as custom properties of what a selector
// finds (":root", or an element in a shadow root), type, controls and focus.
func (p *Pages) Style(selector string) string {
	if p == nil {
		p = ourPages()
	}
	return p.colors(selector) + baseCSS
}

func (p *Pages) colors(selector string) string {
	return selector + "{" + p.light + "}\n@media (prefers-color-scheme:dark){" + selector + "{" + p.dark + "}}\n"
}

// flat returns the faults that an error joins, one by one.
func flat(err error) (all []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	for _, err := range joined.Unwrap() {
		all = append(all, flat(err)...)
	}
	return all
}

// prefixed puts a prefix before each fault.
func prefixed(prefix string, err error) error {
	if err == nil {
		return nil
	}
	all := flat(err)
	for i, err := range all {
		all[i] = fmt.Errorf("%s%w", prefix, err)
	}
	return errors.Join(all...)
}

// Incomplete says which languages lack texts, a line each. Those texts are shown in English.
func (p *Pages) Incomplete() []string { return p.incomplete }

// readTemplates reads the templates of an operator, and returns the style sheet if there is one.
func (p *Pages) readTemplates(folder fs.FS) (css string, err error) {
	entries, err := fs.ReadDir(folder, ".")
	if err != nil {
		return "", err
	}
	var faults []error
	found := false
	for _, e := range entries {
		name := e.Name()
		if name != "page.html" && name != "page.css" {
			if strings.HasSuffix(name, ".html") || strings.HasSuffix(name, ".css") {
				faults = append(faults, fmt.Errorf("%s: is not used; there are page.html and page.css", Clip(name)))
			}
			continue
		}
		found = true
		body, err := readBounded(folder, name, maxTemplate)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		case name == "page.css":
			css = string(body)
			if strings.Contains(strings.ToLower(css), "</") {
				faults = append(faults, errors.New(`page.css: has "</", which would end the style sheet in the page`))
			}
		default:
			if p.page, err = template.New(name).Parse(string(body)); err != nil {
				faults = append(faults, err) // it names the file and the line
			}
		}
	}
	if !found {
		faults = append(faults, errors.New("there is neither page.html nor page.css"))
	}
	return css, errors.Join(faults...)
}

// try executes the template of an operator with pages of each kind, and looks for what would not work for people.
func (p *Pages) try() error {
	site := &Site{URL: &url.URL{Scheme: "https", Host: "app.example.com"}, Pages: p}
	post := Action{Label: "Sign out", Href: "/auth/sample", Post: true, Form: map[string]string{"sample": "value"}}
	link := Action{Label: "Sign in", Href: "/auth/other-sample"}
	var faults []error
	for _, sample := range []struct {
		kind string
		m    Message
	}{
		{"a page with a link and a form", Message{Title: "Sample title", Text: "Sample text", Note: "Sample note",
			Actions: []Action{link, post}}},
		{"a page with choices", Message{Title: "Sample title", Text: "Sample text", Choice: true,
			Actions: []Action{link}}},
		{"a page that submits itself", Message{Title: "Sample title", Text: "Sample text", Submit: true,
			Actions: []Action{post}}},
		{"a page with a list", Message{Title: "Sample title", Text: "Sample text", Done: "Sample done",
			Items: []Item{{ID: "sample", Title: "Sample item", Facts: []Fact{{"Sample name", "Sample value", time.Time{}},
				{"Sample time", "", time.Unix(1e9, 0)}}, Actions: []Action{post}}}, Actions: []Action{link}}},
	} {
		data := p.data(site, site.Main(), p.texts.languages[0], &sample.m)
		var body bytes.Buffer
		if err := p.page.Execute(&body, data); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", sample.kind, err))
			continue
		}
		for _, fault := range p.inspect(body.String(), data, &sample.m) {
			faults = append(faults, fmt.Errorf("%s: %s", sample.kind, fault))
		}
	}
	return errors.Join(faults...)
}

// inspect returns what is wrong with a page: what it does not show, and what the Content-Security-Policy would stop.
func (p *Pages) inspect(page string, data *PageData, m *Message) (faults []string) {
	fault := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !slices.Contains(faults, text) {
			faults = append(faults, text)
		}
	}
	for _, part := range []struct{ name, text string }{
		{"{{.Head}}", string(data.Head)}, {"{{.Tail}}", string(data.Tail)}, {"the title", m.Title},
		{"the paragraphs", m.Text}, {"the note", m.Note}, {"what was done", m.Done},
	} {
		if !strings.Contains(page, part.text) {
			fault("it does not show %s", part.name)
		}
	}
	all := slices.Clone(m.Actions)
	for _, i := range m.Items {
		if all = append(all, i.Actions...); !strings.Contains(page, i.Title) {
			fault("it does not show the items")
		}
	}
	for _, a := range all {
		if !strings.Contains(page, `"`+a.Href+`"`) || a.Post && !strings.Contains(page, `name="sample"`) {
			fault("it does not show the action %q with its address and its hidden fields", a.Label)
		}
	}
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		fault("%v", err)
		return faults
	}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		inline := n.FirstChild != nil && (n.Data == "script" && n.FirstChild.Data != submit ||
			n.Data == "style" && n.FirstChild.Data != p.style)
		if inline {
			fault("browsers are told to ignore an inline <%s> that is not ours: use page.css", n.Data)
		}
		for _, a := range n.Attr {
			switch key := strings.ToLower(a.Key); {
			case key == "style" || strings.HasPrefix(key, "on"):
				fault("browsers are told to ignore the attribute %s of <%s>", key, n.Data)
			case key == "src" && a.Val != data.Logo && !strings.HasPrefix(a.Val, "data:image/") &&
				!strings.Contains(string(data.Head), a.Val),
				n.Data == "link" && key == "href" && !strings.Contains(string(data.Head), a.Val):
				fault("browsers are told not to load %q: only the logo, and images in data: URLs", Clip(a.Val))
			}
		}
	}
	return faults
}
