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

// Message is the content of a page. All of it is plain text, and is escaped.
type Message struct {
	Title   string // default: a title for the status
	Text    string // paragraphs, separated by an empty line
	Note    string // in small print below the actions
	Actions []Action
	Submit  bool // a script posts the form of the first action at once; its button is for browsers without scripts
	Choice  bool // the actions are equal choices; otherwise the first is the main one
}

// Action is something that the user can do next: a link or, with Post, a button.
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
	// The hashes allow only this style sheet and this script in the Content-Security-Policy.
	styleHash  = func() string { return hash(pageCSS) }()
	submitHash = func() string { return hash(submit) }()
)

const submit = "document.forms[0].submit()"

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// policy returns the Content-Security-Policy of the pages. It has no form-action: browsers apply it to the redirects
// after a form too, and signing out leads from a form to the provider.
func policy(ancestors string) string {
	return "default-src 'none'; style-src " + styleHash + "; base-uri 'none'; frame-ancestors " + ancestors
}

// submitPolicy returns the policy of a page that posts a form to an endpoint. Browsers apply form-action to the
// redirects after a form too: they lead back to this site, possibly through other identity providers, of which only
// https is known.
func submitPolicy(endpoint string) string {
	to := "'self' https:"
	if u, err := url.Parse(endpoint); err == nil && u.Scheme == "http" {
		to = "'self' https: http://" + u.Host
	}
	return policy("'none'") + "; script-src " + submitHash + "; form-action " + to
}

// AllowFraming lets pages of these origins show the response in a frame, as Front-Channel Logout §2 requires.
func (s *Site) AllowFraming(w http.ResponseWriter, origins ...string) {
	if len(origins) > 0 {
		w.Header().Set("Content-Security-Policy", policy(strings.Join(origins, " ")))
	}
}

// Render writes a page. Call it within [Site.Page], which sets the headers of all answers.
func (s *Site) Render(w http.ResponseWriter, r *http.Request, status int, m Message) {
	header := w.Header()
	if slices.ContainsFunc(m.Actions, func(a Action) bool { return a.Post }) {
		// Under no-referrer browsers post `Origin: null`, and those without Sec-Fetch-Site would look like other sites.
		header.Set("Referrer-Policy", "same-origin")
	}
	if m.Submit {
		// A provider that checks Origin must see this site's, and not null.
		header.Set("Referrer-Policy", "strict-origin")
		header.Set("Content-Security-Policy", submitPolicy(m.Actions[0].Href))
	}
	view := struct {
		Message
		Site, Reference string
		Paragraphs      []string
	}{Message: m, Site: s.nameAt(r), Paragraphs: strings.Split(m.Text, "\n\n")}
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

// nameAt returns the name of the site on a page.
func (s *Site) nameAt(r *http.Request) string {
	host, err := s.HostOf(r)
	if err != nil {
		host = s.Main()
	}
	return cmp.Or(s.Name, host.Name)
}

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
