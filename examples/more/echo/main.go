// Curfew in an app that uses echo.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"os"

	"github.com/labstack/echo/v4"

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
	e := echo.New()
	e.Any("/auth/*", echo.WrapHandler(rp.Handler()))
	private := e.Group("", echo.WrapMiddleware(rp.Require))
	private.GET("/", func(c echo.Context) error {
		return c.String(http.StatusOK, curfew.SessionFrom(c.Request().Context()).Subject)
	})
	return e
}
