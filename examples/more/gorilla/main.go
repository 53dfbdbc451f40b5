// An app that keeps its sessions with gorilla/sessions, in cookies, and signs people in by itself. A cookie alone
// cannot be ended: it holds an ID, and a table says who that is. Package backchannel adds the logout.
package main

import (
	"context"
	"crypto/rand"
	"encoding/gob"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/gorilla/sessions"

	"example.com/curfew/backchannel"
	"example.com/curfew/examples/more/signin"
	"example.com/curfew/oidc"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:3000", "where to listen")
	issuer := flag.String("issuer", "", "the provider's issuer")
	flag.Parse()
	h, stop, err := newApp(context.Background(), signin.Config{URL: "http://" + *listen, Issuer: *issuer,
		ClientID: "app", ClientSecret: os.Getenv("CLIENT_SECRET")})
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	fmt.Printf("Register http://%s/callback, and http://%[1]s/backchannel-logout for logouts\n", *listen)
	log.Fatal(http.ListenAndServe(*listen, h))
}

type app struct {
	flow    *signin.Flow
	logouts *backchannel.Handler
	cookies *sessions.CookieStore
	people  signin.Table
}

func newApp(ctx context.Context, cfg signin.Config) (h http.Handler, stop func() error, err error) {
	gob.Register(signin.Attempt{})
	keys := make([]byte, 64) // sessions end with the process, as the table does
	rand.Read(keys)
	a := &app{cookies: sessions.NewCookieStore(keys[:32], keys[32:])}
	a.cookies.Options = &sessions.Options{Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode} // and Secure: true
	if a.flow, err = signin.New(ctx, cfg); err != nil {
		return nil, nil, err
	}
	a.logouts, err = backchannel.New(ctx, backchannel.Config{
		Providers: []oidc.Config{{Issuer: cfg.Issuer, ClientID: cfg.ClientID}},
		OnLogout: func(_ context.Context, t backchannel.LogoutToken) error {
			a.people.End(func(p signin.Person) bool { return t.Names(p.Subject, p.SID) })
			return nil
		},
	})
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", a.home)
	mux.HandleFunc("/login", a.login)
	mux.HandleFunc("/callback", a.callback)
	mux.Handle("/backchannel-logout", a.logouts)
	return mux, a.logouts.Close, nil
}

func (a *app) login(w http.ResponseWriter, r *http.Request) {
	began, err := a.logouts.Begin(r.Context())
	if err != nil {
		http.Error(w, "please try again", http.StatusServiceUnavailable)
		return
	}
	to, attempt := a.flow.Start(began)
	s, _ := a.cookies.New(r, "attempt")
	s.Values["attempt"] = attempt
	s.Options.MaxAge = 900
	if err := s.Save(r, w); err != nil {
		http.Error(w, "please try again", http.StatusServiceUnavailable)
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (a *app) callback(w http.ResponseWriter, r *http.Request) {
	under, _ := a.cookies.Get(r, "attempt")
	attempt, _ := under.Values["attempt"].(signin.Attempt)
	p, err := a.flow.Finish(r, attempt)
	if err != nil {
		http.Error(w, "the sign-in failed", http.StatusForbidden)
		return
	}
	under.Options.MaxAge = -1
	under.Save(r, w)
	s := sessions.NewSession(a.cookies, "app") // nothing of whoever used this browser before
	options := *a.cookies.Options
	s.Options = &options
	id := rand.Text()
	s.Values["id"] = id
	a.people.Add(id, p) // first save, then ask
	ended, err := a.logouts.Ended(r.Context(), backchannel.SignIn{Issuer: p.Issuer, ClientID: p.ClientID,
		Subject: p.Subject, SID: p.SID, Began: attempt.Began})
	if ended || err != nil {
		a.people.Remove(id)
		http.Error(w, "you were signed out meanwhile", http.StatusForbidden)
		return
	}
	if err := s.Save(r, w); err != nil {
		http.Error(w, "please try again", http.StatusServiceUnavailable)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *app) home(w http.ResponseWriter, r *http.Request) {
	s, _ := a.cookies.Get(r, "app")
	id, _ := s.Values["id"].(string)
	p, ok := a.people.Get(id)
	if !ok {
		http.Error(w, "nobody is signed in", http.StatusUnauthorized)
		return
	}
	fmt.Fprint(w, p.Subject)
}
