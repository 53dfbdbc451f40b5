// Register at the provider what it prints.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.com/curfew"
	"example.com/curfew/oidc"
	"example.com/curfew/store/sqlite"
	"example.com/curfew/web"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	listen := flag.String("listen", "127.0.0.1:3000", "where to listen")
	issuer := flag.String("issuer", "", "the provider's issuer")
	clientID := flag.String("client-id", "app", "what the provider calls this app; the secret is in CLIENT_SECRET")
	flag.Parse()

	store, err := sqlite.Open(ctx, "app.db", sqlite.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	ring, err := curfew.KeyFile("app.key")
	if err != nil {
		return err
	}
	rp, err := curfew.New(ctx, curfew.Config{
		URL:       "http://" + *listen,
		Providers: []oidc.Config{{Issuer: *issuer, ClientID: *clientID, ClientSecret: os.Getenv("CLIENT_SECRET")}},
		Store:     store,
		Keyring:   ring,
		OnLogin:   admit,
	})
	if err != nil {
		return err
	}
	defer rp.Close()
	for _, r := range rp.Registrations() {
		fmt.Printf("Register at %s, for the client %s:\n  redirect URI              %s\n  back-channel logout URI   "+
			"%s\n  post-logout redirect URI  %s\n",
			r.Issuer, r.ClientID, r.RedirectURI, r.BackchannelURI, r.PostLogoutURI)
	}

	mux := http.NewServeMux()
	mux.Handle("/auth/", rp.Handler())                        // sign-in, sign-out, logout tokens
	mux.Handle("/", rp.Optional(http.HandlerFunc(welcome)))   // for everybody
	mux.Handle("/notes", rp.Require(http.HandlerFunc(notes))) // for signed-in users

	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		shut, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		server.Shutdown(shut)
	}()
	fmt.Println("Open http://" + *listen)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// admit is where an app that keeps users would look this one up. It may add claims, or refuse the sign-in with a
// reason.
func admit(_ context.Context, claims map[string]any) error {
	if verified, said := claims["email_verified"].(bool); said && !verified {
		return web.Fail(http.StatusForbidden, "Please confirm your e-mail address at your provider first.", nil)
	}
	claims["greeting"] = "Good to see you"
	return nil
}

var page = template.Must(template.New("").Parse(`<!doctype html>
<meta name="viewport" content="width=device-width"><title>Notes</title>
<body style="font: 1.1rem/1.6 system-ui; max-width: 34rem; margin: 15vh auto; padding: 0 1rem">
{{with .}}<p>{{.Claim "greeting"}}, {{.Claim "name"}}.</p>
<p id="note">Only you can read this.</p>
<form method="post" action="/auth/logout"><button>Sign out</button></form>
<script async src="/auth/tab.js" data-session="{{.Key.Handle}}"></script>
{{else}}<p>Nobody is signed in. <a href="/notes">Read my notes</a></p>{{end}}`))

func welcome(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	page.Execute(w, curfew.SessionFrom(r.Context()))
}

func notes(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // otherwise the browser could show it again after the logout
	page.Execute(w, curfew.SessionFrom(r.Context()))
}
