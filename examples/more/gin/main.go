// Curfew in an app that uses gin.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"os"

	"github.com/gin-gonic/gin"

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
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.Any("/auth/*path", gin.WrapH(rp.Handler()))
	private := r.Group("/", require(rp))
	private.GET("/", func(c *gin.Context) {
		c.String(http.StatusOK, curfew.SessionFrom(c.Request.Context()).Subject)
	})
	return r
}

// require makes a middleware of gin of rp.Require.
func require(rp *curfew.RP) gin.HandlerFunc {
	return func(c *gin.Context) {
		passed := false
		rp.Require(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			passed = true
			c.Request = r
			c.Next()
		})).ServeHTTP(c.Writer, c.Request)
		if !passed {
			c.Abort() // it is answered
		}
	}
}
