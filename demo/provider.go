package demo

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"example.com/curfew/oidc/oidctest"
)

// provider is the development provider with pages of its own.
type provider struct {
	url      string
	op       *oidctest.Provider
	overview *overview
	apps     []*app
	journal  *journal
}

func newProvider(o *overview, apps []*app, j *journal) *provider {
	p := &provider{url: o.provider, overview: o, apps: apps, journal: j}
	var clients []oidctest.Client
	for _, a := range apps {
		a.secret = rand.Text()
		clients = append(clients, oidctest.Client{
			ID: a.id, Secret: a.secret,
			RedirectURIs:           []string{a.url + "/auth/callback"},
			PostLogoutRedirectURIs: []string{a.url + "/auth/logout/callback"},
			BackchannelLogoutURI:   a.url + "/auth/backchannel-logout",
		})
	}
	p.op = oidctest.New(oidctest.Config{
		Issuer: o.provider, Clients: clients,
		LoginPage: p.loginPage,
		LoggedOutPage: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/", http.StatusSeeOther)
		},
		OnDelivery: p.delivered, OnChange: j.notify,
	})
	return p
}

func (p *provider) handler() http.Handler {
	op := p.op.Handler()
	mux := http.NewServeMux()
	mux.Handle("GET /assets/", static())
	mux.HandleFunc("GET /live", p.journal.stream(func() []byte { return []byte("change") }))
	mux.HandleFunc("GET /{$}", p.home)
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if r.Body = http.MaxBytesReader(w, r.Body, 64<<10); r.ParseForm() == nil {
			p.journal.begin("Sign-in", "provider", p.name(r.PostForm.Get("sub"))+" signs in")
		}
		op.ServeHTTP(w, r)
	})
	mux.HandleFunc("/end_session", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			p.journal.begin("Sign-out at the provider", "provider", p.whose(r)+" signs out, so the apps are told")
		} else {
			p.journal.add("Sign-out", step{Who: "provider",
				What: "The browser asks to sign out here too, so the apps are told"})
		}
		op.ServeHTTP(w, r)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		if r.Body = http.MaxBytesReader(w, r.Body, 64<<10); r.ParseForm() == nil &&
			r.PostForm.Get("grant_type") == "authorization_code" {
			// By now the browser has the cookie of a new session, so the provider's own page can be updated too.
			p.journal.add("Sign-in", step{Who: "provider", What: "Exchanges the code for an ID Token"})
		}
		op.ServeHTTP(w, r)
	})
	mux.Handle("/", op)
	return mux
}

// view is the data of the provider's own page.
type view struct {
	Overview string
	User     *oidctest.User
	Since    string
	Apps     []pane // those in the session
	Others   int    // sessions of other browsers
}

func (p *provider) home(w http.ResponseWriter, r *http.Request) {
	v := view{Overview: p.overview.url, Others: len(p.op.Sessions())}
	if s, ok := p.op.BrowserSession(r); ok {
		v.User = p.user(s.Subject)
		v.Since = s.AuthTime.Format("15:04:05")
		v.Others--
		for _, a := range p.apps {
			if slices.Contains(s.Clients, a.id) {
				v.Apps = append(v.Apps, pane{ID: a.id, Name: a.name})
			}
		}
	}
	render(w, "provider.html", p.overview.url, v)
}

func (p *provider) loginPage(w http.ResponseWriter, _ *http.Request, l oidctest.LoginPage) {
	render(w, "login.html", p.overview.url, struct {
		oidctest.LoginPage
		App, Overview string
	}{l, p.app(l.Client.ID).name, p.overview.url})
}

func (p *provider) delivered(d oidctest.Delivery) {
	s := step{Who: d.ClientID, What: fmt.Sprintf("Answers the provider: %d %s", d.Status, http.StatusText(d.Status)),
		Kind: "done"}
	if !d.OK() {
		s.Kind = "fault"
		if d.Err != nil {
			s.What = "Does not answer the provider"
		}
	}
	p.journal.delivered("Sign-out", s, d)
}

func (p *provider) user(subject string) *oidctest.User {
	users := p.op.Users()
	if i := slices.IndexFunc(users, func(u oidctest.User) bool { return u.Subject == subject }); i >= 0 {
		return &users[i]
	}
	return nil
}

func (p *provider) name(subject string) string {
	if u := p.user(subject); u != nil {
		return u.Name
	}
	return "Somebody"
}

func (p *provider) whose(r *http.Request) string {
	s, _ := p.op.BrowserSession(r)
	return p.name(s.Subject)
}

func (p *provider) app(id string) *app {
	i := slices.IndexFunc(p.apps, func(a *app) bool { return a.id == id })
	return p.apps[i]
}

// readable returns header and claims of a token as JSON, or null if they cannot be decoded. It verifies nothing and is
// only for display.
func readable(raw string) (header, claims json.RawMessage) {
	parts := append(strings.Split(raw, "."), "", "")
	read := func(part string) json.RawMessage {
		text, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || !json.Valid(text) {
			return json.RawMessage("null")
		}
		return text
	}
	return read(parts[0]), read(parts[1])
}
