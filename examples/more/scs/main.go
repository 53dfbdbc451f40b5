// An app that keeps its sessions with scs and signs people in by itself. Package backchannel adds the logout.
package main

import (
	"context"
	"encoding/gob"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/alexedwards/scs/v2"

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
	flow     *signin.Flow
	logouts  *backchannel.Handler
	sessions *scs.SessionManager
	people   signin.Table
}

func newApp(ctx context.Context, cfg signin.Config) (h http.Handler, stop func() error, err error) {
	gob.Register(signin.Attempt{})
	a := &app{sessions: scs.New()}
	a.sessions.Cookie.SameSite = http.SameSiteLaxMode
	if a.flow, err = signin.New(ctx, cfg); err != nil {
		return nil, nil, err
	}
	a.logouts, err = backchannel.New(ctx, backchannel.Config{
		Providers: []oidc.Config{{Issuer: cfg.Issuer, ClientID: cfg.ClientID}},
		OnLogout:  a.onLogout,
	})
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", a.home)
	mux.HandleFunc("/login", a.login)
	mux.HandleFunc("/callback", a.callback)
	outer := http.NewServeMux()
	outer.Handle("/", a.sessions.LoadAndSave(mux))
	outer.Handle("/backchannel-logout", a.logouts) // no session: the provider calls it
	return outer, a.logouts.Close, nil
}

// onLogout ends the sessions that the token names. What scs keeps for them is removed too.
func (a *app) onLogout(ctx context.Context, t backchannel.LogoutToken) error {
	for _, id := range a.people.End(func(p signin.Person) bool { return t.Names(p.Subject, p.SID) }) {
		if err := a.sessions.Store.Delete(id); err != nil {
			return err // the provider sends the token again
		}
	}
	return nil
}

func (a *app) login(w http.ResponseWriter, r *http.Request) {
	began, err := a.logouts.Begin(r.Context())
	if err != nil {
		http.Error(w, "please try again", http.StatusServiceUnavailable)
		return
	}
	to, attempt := a.flow.Start(began)
	a.sessions.Put(r.Context(), "attempt", attempt)
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (a *app) callback(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	attempt, _ := a.sessions.Pop(ctx, "attempt").(signin.Attempt)
	p, err := a.flow.Finish(r, attempt)
	if err != nil {
		http.Error(w, "the sign-in failed", http.StatusForbidden)
		return
	}
	// Nothing of whoever used this browser before, and another cookie.
	err = a.sessions.Clear(ctx)
	if err == nil {
		err = a.sessions.RenewToken(ctx)
	}
	if err != nil {
		http.Error(w, "please try again", http.StatusServiceUnavailable)
		return
	}
	id := a.sessions.Token(ctx)
	a.people.Add(id, p) // first save, then ask
	ended, err := a.logouts.Ended(ctx, backchannel.SignIn{Issuer: p.Issuer, ClientID: p.ClientID, Subject: p.Subject,
		SID: p.SID, Began: attempt.Began})
	if ended || err != nil {
		a.people.Remove(id)
		http.Error(w, "you were signed out meanwhile", http.StatusForbidden)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *app) home(w http.ResponseWriter, r *http.Request) {
	p, ok := a.people.Get(a.sessions.Token(r.Context()))
	if !ok {
		http.Error(w, "nobody is signed in", http.StatusUnauthorized)
		return
	}
	visits := a.sessions.GetInt(r.Context(), "visits") + 1 // what scs is there for
	a.sessions.Put(r.Context(), "visits", visits)
	fmt.Fprintf(w, "%s, visit %d", p.Subject, visits)
}
