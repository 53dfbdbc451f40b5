// An app that keeps a cart with scs beside the sessions of Curfew. The cart is tied to the session: whoever signs in
// next in the same browser does not find it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync"

	"github.com/alexedwards/scs/v2"

	"example.com/curfew"
	"example.com/curfew/oidc"
	"example.com/curfew/store"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:3000", "where to listen")
	issuer := flag.String("issuer", "", "the provider's issuer")
	flag.Parse()
	h, stop, err := newApp(context.Background(), curfew.Config{URL: "http://" + *listen, Providers: []oidc.Config{{
		Issuer: *issuer, ClientID: "app", ClientSecret: os.Getenv("CLIENT_SECRET")}}})
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	log.Fatal(http.ListenAndServe(*listen, h))
}

// carts are the app's own sessions.
type carts struct {
	*scs.SessionManager
	tokens sync.Map // of scs, by the key of the session that each is tied to
}

func newApp(ctx context.Context, cfg curfew.Config) (h http.Handler, stop func() error, err error) {
	c := &carts{SessionManager: scs.New()}
	cfg.OnEnd = c.onEnd
	rp, err := curfew.New(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/auth/", rp.Handler())
	mux.Handle("/", rp.Require(c.LoadAndSave(c.tie(http.HandlerFunc(c.show)))))
	return mux, rp.Close, nil
}

// tie gives a request an empty cart unless its cart is of this very session. This is what keeps two people apart.
func (c *carts) tie(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, key := r.Context(), curfew.SessionFrom(r.Context()).Key.String()
		if c.GetString(ctx, "owner") != key {
			err := c.Clear(ctx)
			if err == nil {
				err = c.RenewToken(ctx)
			}
			if err != nil {
				http.Error(w, "please try again", http.StatusServiceUnavailable)
				return
			}
			c.Put(ctx, "owner", key)
			c.tokens.Store(key, c.Token(ctx))
		}
		next.ServeHTTP(w, r)
	})
}

// onEnd removes the cart of a session that has ended. It tidies up: nobody would be shown that cart anyway.
func (c *carts) onEnd(_ context.Context, ended store.Ended) {
	if token, ok := c.tokens.LoadAndDelete(ended.Key.String()); ok {
		if err := c.Store.Delete(token.(string)); err != nil {
			log.Print("a cart stays until it expires: ", err)
		}
	}
}

func (c *carts) show(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodPost {
		c.Put(r.Context(), "cart", c.GetString(r.Context(), "cart")+r.FormValue("add")+" ")
	}
	fmt.Fprintf(w, "%s: %s", curfew.SessionFrom(r.Context()).Subject, c.GetString(r.Context(), "cart"))
}
