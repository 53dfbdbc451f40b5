package web

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Message is the content of a page. All of it is text, and is escaped.
type Message struct {
	Title   string // default: what the status means, in plain words
	Text    string // paragraphs, with an empty line between them
	Note    string // in small print below the actions
	Actions []Action
	Submit  bool // a script posts the form of the first action at once; its button is for browsers without scripts
	Choice  bool // the actions are equals, and one is to be chosen; otherwise the first is the usual one
}

// Action is something that a person can do next: a link or, with Post, a button.
type Action struct {
	Label string
	Href  string
	Post  bool
	Form  map[string]string // hidden fields of a Post
}

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

var (
	page = template.Must(template.New("page").Parse(strings.NewReplacer("/*style*/", pageCSS, "/*submit*/", submit).
		Replace(pageHTML)))
	// The hashes let our one style sheet and our one script through the Content-Security-Policy, and nothing else.
	styleHash  = func() string { return hash(pageCSS) }()
	submitHash = func() string { return hash(submit) }()
)

const submit = "document.forms[0].submit()"

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// policy is the Content-Security-Policy of our pages. It has no form-action: browsers hold the redirects after a form
// to it as well, and signing out leads from a form to the provider.
func policy(ancestors string) string {
	return "default-src 'none'; style-src " + styleHash + "; base-uri 'none'; frame-ancestors " + ancestors
}

// submitPolicy is the policy of a page that posts a form to an endpoint. Browsers hold the redirects after a form to
// form-action too: they lead back here, and on the way through any provider behind the provider, which we do not know
// but by its https.
func submitPolicy(endpoint string) string {
	to := "'self' https:"
	if u, err := url.Parse(endpoint); err == nil && u.Scheme == "http" {
		to = "'self' https: http://" + u.Host
	}
	return policy("'none'") + "; script-src " + submitHash + "; form-action " + to
}

// AllowFraming lets pages of these origins show the answer in a frame, as Front-Channel Logout §2 needs.
func (s *Site) AllowFraming(w http.ResponseWriter, origins ...string) {
	if len(origins) > 0 {
		w.Header().Set("Content-Security-Policy", policy(strings.Join(origins, " ")))
	}
}

// Render answers with a page. It is called from within [Site.Page], which sets the headers that all answers have.
func (s *Site) Render(w http.ResponseWriter, r *http.Request, status int, m Message) {
	header := w.Header()
	if slices.ContainsFunc(m.Actions, func(a Action) bool { return a.Post }) {
		// Under no-referrer browsers post `Origin: null`, and those without Sec-Fetch-Site could not be told from
		// strangers.
		header.Set("Referrer-Policy", "same-origin")
	}
	if m.Submit {
		// A provider that looks at Origin is to see whose form it is, and not null.
		header.Set("Referrer-Policy", "strict-origin")
		header.Set("Content-Security-Policy", submitPolicy(m.Actions[0].Href))
	}
	view := struct {
		Message
		Site, Reference string
		Paragraphs      []string
	}{Message: m, Site: cmp.Or(s.Name, s.URL.Hostname()), Paragraphs: strings.Split(m.Text, "\n\n")}
	view.Title = cmp.Or(m.Title, title(status))
	if status >= 400 {
		view.Reference = RequestID(r.Context())
	}
	var body bytes.Buffer
	if err := page.Execute(&body, view); err != nil {
		panic(err)
	}
	header.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

func title(status int) string {
	switch status {
	case http.StatusForbidden:
		return "You cannot come in"
	case http.StatusNotFound:
		return "Nothing here"
	case http.StatusServiceUnavailable:
		return "Not just now"
	}
	if status >= 500 {
		return "Something went wrong"
	}
	if status >= 400 {
		return "That did not work"
	}
	return http.StatusText(status)
}
