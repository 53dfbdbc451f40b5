package web

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Message is the content of a page. All of it is plain text, and is escaped. Title, Text, Note, Mark and labels are
// shown in the language of the browser, if the catalogue of messages has them: write them in English, as constants, and
// what varies as a {name} from Args.
type Message struct {
	Title   string            // default: a title for the status
	Text    string            // paragraphs, separated by an empty line
	Note    string            // in small print below the actions
	Args    map[string]string // by the name of their placeholder; may be text of strangers
	Actions []Action
	Submit  bool   // a script posts the form of the first action at once; its button is for browsers without scripts
	Choice  bool   // the actions are equal choices; otherwise the first is the main one
	Items   []Item // a list above the actions
	Done    string // says what has just been done
}

// String returns the text in English, for programs and for the log.
func (m Message) String() string { return fill(m.Text, m.Args) }

// Action is something that the user can do next: a link or, with Post, a button.
type Action struct {
	Label string
	Href  string
	Post  bool
	Form  map[string]string // hidden fields of a Post
}

// Item is one of a list on a page.
type Item struct {
	ID      string // unique on the page, of letters, digits, "-", "_" and "."
	Title   string
	Args    map[string]string // for Title
	Mark    string            // set off beside the title
	Facts   []Fact
	Actions []Action
}

// Fact is a line of an [Item]: a name, and a value or a time. The value is shown as it is.
type Fact struct {
	Name, Value string
	Time        time.Time
}

// PageData is what the template page.html is executed with. Its texts are in the language of the browser.
type PageData struct {
	Lang, Dir  string        // the language (BCP 47) and its direction, for <html lang dir>
	Head       template.HTML // for the end of <head>: character set, viewport, icon, style sheet and script
	Tail       template.HTML // for the end of <body>: the script that submits the form, on pages that do
	Site       string        // the name of the site
	Logo       string        // the address of the logo; empty: none is configured
	Title      string
	Done       string // what has just been done; mostly empty
	Paragraphs []string
	Items      []Item
	Actions    []Action // links and forms; see [Action]
	Choice     bool     // the actions are equal choices; otherwise the first is the main one
	Note       string   // small print
	Reference  string   // names the request in the log; empty unless something failed
	Footer     string
	Help       string // the address of the help

	language *tongue
}

// T returns a text of the catalogue in the language of the page, for words of the template itself.
func (d *PageData) T(text string) string { return d.language.say(text, nil) }

// RFC3339 returns a time as <time datetime> needs it.
func (*PageData) RFC3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Clock returns a time for people, in UTC. The script of the page shows it in the time of the browser.
func (*PageData) Clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

//go:embed page.html
var pageHTML string

//go:embed base.css
var baseCSS string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageScript []byte

const submit = "document.forms[0].submit()"

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// noPage is the Content-Security-Policy of answers that are no pages.
const noPage = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// AllowFraming lets pages of these origins show the response in a frame, as Front-Channel Logout §2 requires.
func (s *Site) AllowFraming(w http.ResponseWriter, origins ...string) {
	if len(origins) > 0 {
		w.Header().Set("Content-Security-Policy", strings.Replace(noPage, "ancestors 'none'",
			"ancestors "+strings.Join(origins, " "), 1))
		w.Header().Del("X-Frame-Options")
	}
}

// policy returns the Content-Security-Policy of a page. Its style sheet and the script that submits a form are allowed
// by their hashes, and nothing else inline.
func (s *Site) policy(p *Pages, host Host, m *Message, ancestors string) string {
	var b strings.Builder
	b.WriteString("default-src 'none'; base-uri 'none'; style-src " + p.styleHash + "; img-src data:")
	if p.logo != nil {
		if s.SharedCookie && !host.Main {
			b.WriteString(" " + s.Origin())
		} else {
			b.WriteString(" 'self'")
		}
	}
	switch {
	case m.Submit:
		b.WriteString("; frame-ancestors " + ancestors + "; script-src " + p.submitHash + s.formAction(m))
		return b.String()
	case len(m.Items) > 0:
		b.WriteString("; script-src 'self'; connect-src 'self'")
	}
	return b.String() + s.formAction(m) + "; frame-ancestors " + ancestors
}

// formAction returns the directive that says where forms of a page may lead. Browsers apply it to the redirects after a
// form too. Those lead to the provider, from there possibly through other identity providers, of which only https is
// known, and back. So a page without a form allows none, and one with a form allows this site and https.
func (s *Site) formAction(m *Message) string {
	var forms []Action
	for _, i := range m.Items {
		forms = append(forms, i.Actions...)
	}
	forms = slices.DeleteFunc(append(forms, m.Actions...), func(a Action) bool { return !a.Post })
	if len(forms) == 0 {
		return "; form-action 'none'"
	}
	const least = "; form-action 'self' https:"
	to := least
	for _, a := range forms {
		if u, err := url.Parse(a.Href); err == nil && u.Scheme == "http" {
			to += " http://" + u.Host
		}
	}
	if to == least && (s.Insecure() || s.PlainProviders) { // http is for loopback alone
		to += " http:"
	}
	return to
}

// Mount registers the routes of what pages load: the logo, and the script of a page with a list.
func (s *Site) Mount(mux *http.ServeMux) {
	static := func(route, kind string, body []byte) {
		mux.Handle(s.Path(route), s.Page(func(w http.ResponseWriter, _ *http.Request) error {
			header := w.Header()
			header.Set("Cache-Control", "public, max-age=86400")
			header.Set("Content-Type", kind)
			// Opened by itself, an SVG is a document: it must run nothing and count as no part of this site.
			header.Set("Content-Security-Policy", noPage+"; sandbox")
			w.Write(body)
			return nil
		}, http.MethodGet))
	}
	p := s.pages()
	static("page.js", "text/javascript; charset=utf-8", pageScript)
	if p.logo != nil {
		static("logo", p.logo.kind, p.logo.body)
	}
}

// version names the content of something that browsers may keep.
func version(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:6])
}

const maxParagraph = 2000 // bytes of a text on a page

// Render writes a page, in the language that the browser asks for. Call it within [Site.Page], which sets the headers
// of all answers.
func (s *Site) Render(w http.ResponseWriter, r *http.Request, status int, m Message) {
	header := w.Header()
	host, err := s.HostOf(r)
	if err != nil {
		host = s.Main()
	}
	p := s.pages()
	language := p.texts.choose(r.Header.Get("Accept-Language"))
	_, ancestors, _ := strings.Cut(header.Get("Content-Security-Policy"), "frame-ancestors ") // the last of noPage
	header.Set("Content-Security-Policy", s.policy(p, host, &m, cmp.Or(ancestors, "'none'")))
	posts := func(a Action) bool { return a.Post }
	if slices.ContainsFunc(m.Actions, posts) ||
		slices.ContainsFunc(m.Items, func(i Item) bool { return slices.ContainsFunc(i.Actions, posts) }) {
		// Under no-referrer browsers post `Origin: null`, and those without Sec-Fetch-Site would look like other sites.
		header.Set("Referrer-Policy", "same-origin")
	}
	if m.Submit {
		// A provider that checks Origin must see this site's, and not null.
		header.Set("Referrer-Policy", "strict-origin")
	}
	m.Title = cmp.Or(m.Title, title(status))
	data := p.data(s, host, language, &m)
	if status >= 400 {
		data.Reference = RequestID(r.Context())
	}
	var body bytes.Buffer
	if err := p.page.Execute(&body, data); err != nil { // of a template of the operator's
		cmp.Or(s.Log, slog.Default()).Error("the template page.html failed; this page has our own look", "event",
			"template_failed", "error", err)
		body.Reset()
		if err := ourPage.Execute(&body, data); err != nil {
			panic(err)
		}
	}
	header.Add("Vary", "Accept-Language")
	header.Set("Content-Language", language.tag)
	header.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

// data returns what the template is executed with.
func (p *Pages) data(s *Site, host Host, in *tongue, m *Message) *PageData {
	say := func(text string, args map[string]string) string {
		return escapeHidden(clip(in.say(text, args), maxParagraph), harmless+firstStrong+popIsolate+"\n\t")
	}
	actions := func(all []Action) []Action {
		all = slices.Clone(all)
		for i := range all {
			all[i].Label = say(all[i].Label, m.Args)
		}
		return all
	}
	d := &PageData{Lang: in.tag, Dir: in.dir, language: in, Site: cmp.Or(p.look.Name, s.Name, host.Name),
		Title: say(m.Title, m.Args), Done: say(m.Done, m.Args), Note: say(m.Note, m.Args), Choice: m.Choice,
		Actions: actions(m.Actions), Footer: p.look.Footer, Help: p.look.Help}
	for paragraph := range strings.SplitSeq(in.say(m.Text, m.Args), "\n\n") {
		if paragraph != "" {
			d.Paragraphs = append(d.Paragraphs, say(paragraph, nil))
		}
	}
	for _, i := range m.Items {
		shown := Item{ID: i.ID, Title: say(i.Title, i.Args), Mark: say(i.Mark, nil), Actions: actions(i.Actions)}
		for _, f := range i.Facts {
			shown.Facts = append(shown.Facts, Fact{say(f.Name, nil), Printable(f.Value), f.Time})
		}
		d.Items = append(d.Items, shown)
	}
	head := headHTML + "<style>" + p.style + "</style>\n"
	icon := "data:,"
	if p.logo != nil {
		d.Logo = s.Link(host, "logo") + "?v=" + version(p.logo.body)
		icon = d.Logo
	}
	head += `<link rel="icon" href="` + template.HTMLEscapeString(icon) + `">` + "\n"
	if m.Submit {
		d.Tail = "<script>" + submit + "</script>\n"
	} else if len(m.Items) > 0 {
		head += `<script src="` + s.Path("page.js") + "?v=" + version(pageScript) + `" defer></script>` + "\n"
	}
	d.Head = template.HTML(head)
	return d
}

const headHTML = `<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="color-scheme" content="light dark">
`

func title(status int) string {
	switch status {
	case http.StatusForbidden:
		return "You do not have access"
	case http.StatusNotFound:
		return "Page not found"
	case http.StatusServiceUnavailable:
		return "Not available right now"
	}
	if status >= 500 {
		return "Something went wrong"
	}
	if status >= 400 {
		return "That did not work"
	}
	return http.StatusText(status)
}
