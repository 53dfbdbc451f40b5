package demo

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/url"

	"example.com/curfew"
	"example.com/curfew/oidc"
	"example.com/curfew/store"
)

// app is a small app and the gateway in front of it. The app itself knows nothing of OpenID Connect: it learns from
// headers who the user is.
type app struct {
	id, name string
	url      string // the URL of the gateway
	upstream string // the URL of the app behind it
	secret   string

	overview string
	journal  *journal
	rp       *curfew.RP
	client   *http.Transport
}

// start creates the gateway, like any program that embeds Curfew.
func (a *app) start(ctx context.Context, p *provider, j *journal, log *slog.Logger) (err error) {
	a.overview, a.journal = p.overview.url, j
	a.client = &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 4} // the provider is on this machine
	a.rp, err = curfew.New(ctx, curfew.Config{
		URL:         a.url,
		Providers:   []oidc.Config{{Label: "Northgate ID", Issuer: p.url, ClientID: a.id, ClientSecret: a.secret}},
		AfterLogout: "/?" + signedOut,
		HTTPClient:  &http.Client{Transport: a.client},
		Log:         log.With("app", a.id),
		Observe:     curfew.Observer{SessionCreated: a.created, SessionEnded: a.ended},
	})
	return err
}

func (a *app) close() error {
	if a.rp == nil {
		return nil
	}
	err := a.rp.Close()
	a.client.CloseIdleConnections()
	return err
}

func (a *app) created(string) {
	a.journal.session("Sign-in at "+a.name, step{Who: a.id, What: "ID Token verified, session opened", Kind: "open"})
}

func (a *app) ended(cause string) {
	s := step{Who: a.id, Kind: "end", What: "The session is over (" + cause + ")"}
	switch store.Cause(cause) {
	case store.CauseBackChannel:
		s.What = "Token verified, session ended"
	case store.CauseUser:
		s.What = "Session ended here first"
	case store.CauseReplaced:
		s.What, s.Kind = "The browser's session before is ended", ""
	}
	a.journal.add("Sign-out", s)
}

// gateway returns what the browser talks to: Curfew's own routes, and the app behind them. The front page needs no
// sign-in.
func (a *app) gateway() http.Handler {
	upstream, err := url.Parse(a.upstream)
	if err != nil {
		panic(err)
	}
	inside := a.rp.Proxy(upstream)
	mux := http.NewServeMux()
	mux.Handle("/auth/", a.record(a.rp.Handler()))
	mux.Handle("GET /assets/", static())
	mux.Handle("/", inside)
	mux.Handle("GET /{$}", a.rp.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if curfew.SessionFrom(r.Context()) != nil {
			inside.ServeHTTP(w, r)
			return
		}
		_, out := r.URL.Query()[signedOut]
		render(w, "landing.html", a.overview, visitor{App: a.id, Name: a.name, Overview: a.overview, SignedOut: out})
	})))
	return ownCookies(a.id, mux)
}

// signedOut is the query of the front page after a sign-out.
const signedOut = "signed-out"

// visitor is the data of a page of an app.
type visitor struct {
	SignedOut            bool
	App, Name, Overview  string
	Subject, User, Email string
}

// handler returns the app itself, behind the gateway.
func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		render(w, a.id+".html", a.overview, visitor{
			App: a.id, Name: a.name, Overview: a.overview,
			Subject: r.Header.Get("X-Auth-Subject"), User: r.Header.Get("X-Auth-Name"),
			Email: r.Header.Get("X-Auth-Email"),
		})
	})
	return mux
}

// record writes requests to Curfew's own routes into the journal.
func (a *app) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost && r.URL.Path == "/auth/logout":
			a.journal.begin("Sign-out at "+a.name, a.id, "Somebody clicks “Sign out”")
		case r.Method == http.MethodPost && r.URL.Path == "/auth/backchannel-logout":
			a.journal.add("Sign-out", step{Who: a.id, What: "A logout token arrives"})
		case r.URL.Path == "/auth/login" && r.URL.Query().Get("silent") == "true":
			a.journal.add("Sign-in at "+a.name, step{Who: a.id, What: "Asks the provider without a word (prompt=none)"})
		case r.URL.Path == "/auth/callback":
			s := step{Who: a.id, What: "The browser is back, with a code"}
			if !r.URL.Query().Has("code") {
				s.What = "The browser is back: nobody is signed in there"
			}
			a.journal.add("Sign-in at "+a.name, s)
		case r.URL.Path == "/auth/events":
			w = &tabWatcher{w, a}
		}
		next.ServeHTTP(w, r)
	})
}

// tabWatcher records when an open tab is notified that its session has ended.
type tabWatcher struct {
	http.ResponseWriter
	app *app
}

func (w *tabWatcher) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if bytes.HasPrefix(p, []byte("event: ended")) && err == nil {
		w.app.journal.add("Sign-out", step{Who: w.app.id, What: "The open tab is told", Kind: "told"})
	}
	return n, err
}

func (w *tabWatcher) Unwrap() http.ResponseWriter { return w.ResponseWriter }
