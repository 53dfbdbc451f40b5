// Curfew in an app that uses chi.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"os"

	"github.com/go-chi/chi/v5"

	"example.com/curfew"
	"example.com/curfew/oidc"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:3000", "where to listen")
	issuer := flag.String("issuer", "", "the provider's issuer")
	flag.Parse()
	rp, err := curfew.New(context.Background(), curfew.Config{URL: "http://" + *listen, Providers: []oidc.Config{{
		Issuer: *issuer, ClientID: "app", ClientSecret: os.Getenv("CLIENT_SECRET")}}})
	if err != nil {
		log.Fatal(err)
	}
	defer rp.Close()
	log.Fatal(http.ListenAndServe(*listen, newApp(rp)))
}

func newApp(rp *curfew.RP) http.Handler {
	r := chi.NewRouter()
	r.Handle("/auth/*", rp.Handler())
	r.Group(func(r chi.Router) {
		r.Use(rp.Require)
		r.Get("/", func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte(curfew.SessionFrom(r.Context()).Subject))
		})
	})
	return r
}
