package oidctest

import (
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// grant is what a code, an access token or a refresh token stands for.
type grant struct {
	client    string
	subject   string
	sid       string
	nonce     string
	redirect  string
	challenge string
	scope     string
	authTime  time.Time
	expires   time.Time
	used      bool
	offline   bool // outlives the session
}

// LoginPage is what a page needs that asks who is there: a form that posts Fields, and `sub` for the user, to Action.
type LoginPage struct {
	Client    Client
	Users     []User
	LoginHint string
	Action    string
	Fields    url.Values
}

// serveAuthorize is the authorization endpoint (Core §3.1.2).
func (p *Provider) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return
	}
	q := r.Form
	c, ok := p.client(q.Get("client_id"))
	if !ok || !slices.Contains(c.RedirectURIs, q.Get("redirect_uri")) {
		// Never a redirect to where nobody registered.
		http.Error(w, "unknown client_id, or a redirect_uri that is not registered", http.StatusBadRequest)
		return
	}
	if code, why := checkAuthorize(q); code != "" {
		p.redirectError(w, r, q, code, why)
		return
	}
	if lie := p.mangled().Authorize; lie != nil {
		if code := lie(q); code != "" {
			p.redirectError(w, r, q, code, "as the test wants it")
			return
		}
	}
	prompt := q.Get("prompt")
	s, ok := p.browserSession(r)
	if ok && q.Get("max_age") != "" {
		n, err := strconv.Atoi(q.Get("max_age"))
		ok = err == nil && p.cfg.Now().Sub(s.AuthTime) <= time.Duration(n)*time.Second
	}
	switch {
	case ok && prompt != "login":
		p.redirectCode(w, r, q, s)
	case prompt == "none":
		p.redirectError(w, r, q, "login_required", "nobody is signed in")
	case p.cfg.AutoLogin != "":
		sub := p.cfg.AutoLogin
		if u, ok := p.hinted(q.Get("login_hint")); ok {
			sub = u.Subject
		}
		p.redirectCode(w, r, q, p.openSession(w, r, sub))
	default:
		p.cfg.LoginPage(w, r, LoginPage{
			Client: c, Users: p.Users(), LoginHint: q.Get("login_hint"), Action: p.URL(Login), Fields: q,
		})
	}
}

func checkAuthorize(q url.Values) (code, why string) {
	switch {
	case q.Get("response_type") != "code":
		return "unsupported_response_type", "response_type is code"
	case !slices.Contains(strings.Fields(q.Get("scope")), "openid"):
		return "invalid_scope", "scope holds openid"
	case q.Get("code_challenge") == "" || q.Get("code_challenge_method") != "S256":
		return "invalid_request", "PKCE with S256 is required"
	}
	return "", ""
}

// serveLogin takes the answer of the login page.
func (p *Provider) serveLogin(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.ParseForm() != nil {
		http.Error(w, "this takes the form of the login page", http.StatusMethodNotAllowed)
		return
	}
	q := r.PostForm
	sub := q.Get("sub")
	q.Del("sub")
	c, ok := p.client(q.Get("client_id"))
	if !ok || !slices.Contains(c.RedirectURIs, q.Get("redirect_uri")) {
		http.Error(w, "unknown client_id, or a redirect_uri that is not registered", http.StatusBadRequest)
		return
	}
	if code, why := checkAuthorize(q); code != "" {
		p.redirectError(w, r, q, code, why)
		return
	}
	if _, ok := p.user(sub); !ok {
		p.redirectError(w, r, q, "access_denied", "there is no such user")
		return
	}
	p.redirectCode(w, r, q, p.openSession(w, r, sub))
}

func (p *Provider) hinted(hint string) (User, bool) {
	i := slices.IndexFunc(p.cfg.Users, func(u User) bool {
		return hint != "" &&
			(u.Subject == hint || u.Email == hint)
	})
	if i < 0 {
		return User{}, false
	}
	return p.cfg.Users[i], true
}

func (p *Provider) redirectCode(w http.ResponseWriter, r *http.Request, q url.Values, s Session) {
	code := random()
	p.mu.Lock()
	if live := p.sessions[s.SID]; live != nil && !slices.Contains(live.Clients, q.Get("client_id")) {
		live.Clients = append(live.Clients, q.Get("client_id"))
	}
	p.codes[code] = &grant{
		client: q.Get("client_id"), subject: s.Subject, sid: s.SID, nonce: q.Get("nonce"),
		redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), scope: q.Get("scope"),
		authTime: s.AuthTime, expires: p.cfg.Now().Add(time.Minute),
		offline: slices.Contains(strings.Fields(q.Get("scope")), "offline_access"),
	}
	p.mu.Unlock()
	p.cfg.OnChange()
	p.redirect(w, r, q, url.Values{"code": {code}})
}

func (p *Provider) redirectError(w http.ResponseWriter, r *http.Request, q url.Values, code, why string) {
	p.redirect(w, r, q, url.Values{"error": {code}, "error_description": {why}})
}

func (p *Provider) redirect(w http.ResponseWriter, r *http.Request, q, answer url.Values) {
	u, err := url.Parse(q.Get("redirect_uri"))
	if err != nil {
		http.Error(w, "redirect_uri cannot be read", http.StatusBadRequest)
		return
	}
	if s := q.Get("state"); s != "" {
		answer.Set("state", s)
	}
	answer.Set("iss", p.cfg.Issuer) // RFC 9207
	all := u.Query()
	for name, v := range answer {
		all[name] = v
	}
	u.RawQuery = all.Encode()
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, u.String(), http.StatusSeeOther)
}

func plainLoginPage(w http.ResponseWriter, _ *http.Request, l LoginPage) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = loginPage().Execute(w, l)
}

func loginPage() *template.Template {
	return template.Must(template.New("login").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Sign in</title>
<h1>Sign in</h1>
<p>{{.Client.ID}} asks who you are.</p>
<form method="post" action="{{.Action}}">
{{range $name, $values := .Fields}}{{range $values}}<input type="hidden" name="{{$name}}" value="{{.}}">
{{end}}{{end}}{{$hint := .LoginHint -}}
{{range .Users}}<p><button name="sub" value="{{.Subject}}"
{{- if or (eq $hint .Subject) (eq $hint .Email)}} autofocus{{end}}>{{.Name}}</button></p>
{{end}}</form></html>
`))
}

func plainLoggedOutPage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte("<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Signed " +
		"out</title>\n<h1>You are signed out</h1></html>\n"))
}
