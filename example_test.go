package curfew_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"time"

	"example.com/curfew"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/store/sqlite"
)

// An app that keeps its sessions in a file: sign-in, sessions that survive a restart, and logouts that do too.
func Example() {
	ctx := context.Background()
	store, err := sqlite.Open(ctx, "app.db", sqlite.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	ring, err := curfew.KeyFile("app.key")
	if err != nil {
		log.Fatal(err)
	}
	rp, err := curfew.New(ctx, curfew.Config{
		URL: "http://127.0.0.1:3000",
		Providers: []oidc.Config{{Issuer: "https://id.example.com", ClientID: "app",
			ClientSecret: os.Getenv("CLIENT_SECRET")}},
		Store: store, Keyring: ring,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer rp.Close()

	http.Handle("/auth/", rp.Handler())
	http.Handle("/", rp.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello, %s\n", curfew.SessionFrom(r.Context()).Claim("name"))
	})))
	log.Fatal(http.ListenAndServe("127.0.0.1:3000", nil))
}

// What it is all about: somebody signs out at the provider, and the next request is refused.
func Example_logoutAtTheProvider() {
	ctx := context.Background()

	// The app, on a free port of this machine, with sessions in memory.
	mux := http.NewServeMux()
	app := httptest.NewServer(mux)
	defer app.Close()

	// A provider, where the app is registered.
	op := httptest.NewUnstartedServer(nil)
	defer op.Close()
	provider := oidctest.New(oidctest.Config{
		Issuer: "http://" + op.Listener.Addr().String(), AutoLogin: "alice",
		Clients: []oidctest.Client{{
			ID: "app", Secret: "secret",
			RedirectURIs:         []string{app.URL + "/auth/callback"},
			BackchannelLogoutURI: app.URL + "/auth/backchannel-logout",
		}},
	})
	op.Config.Handler = provider.Handler()
	op.Start()

	rp, err := curfew.New(ctx, curfew.Config{
		URL:       app.URL,
		Providers: []oidc.Config{{Issuer: provider.Issuer(), ClientID: "app", ClientSecret: "secret"}},
		Log:       slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer rp.Close()
	mux.Handle("/auth/", rp.Handler())
	mux.Handle("/", rp.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "Hello, ", curfew.SessionFrom(r.Context()).Claim("name"))
	})))

	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar, Timeout: time.Minute}
	defer browser.CloseIdleConnections()
	visit := func(accept string) {
		req, _ := http.NewRequest(http.MethodGet, app.URL+"/", nil)
		req.Header.Set("Accept", accept)
		resp, err := browser.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	visit("text/html")        // is sent to the provider, signed in, and comes back
	visit("application/json") // is signed in
	for _, d := range provider.Logout(ctx, "alice", "") {
		fmt.Println("the app answered the provider", d.Status)
	}
	visit("application/json")
	// Output:
	// 200 OK
	// 200 OK
	// the app answered the provider 200
	// 401 Unauthorized
}
