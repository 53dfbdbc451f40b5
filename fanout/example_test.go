package fanout_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"

	"example.com/curfew/fanout"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// An OpenID Provider tells its relying parties of a logout, and goes on trying until each has taken it. The store makes
// that durable: with store/sqlite in place of store/memory it survives a crash, and several replicas of the provider
// may share one.
func Example() {
	relyingParty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("a logout token came:", len(r.PostFormValue("logout_token")) > 100)
	}))
	defer relyingParty.Close()

	backend := memory.New()
	defer backend.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // the one that signs your ID Tokens
	if err != nil {
		panic(err)
	}
	signer, err := fanout.OneKey("key-2026", fanout.ES256, key)
	if err != nil {
		panic(err)
	}
	tried := make(chan string, 1)
	sender, err := fanout.New(fanout.Config{
		Outbox: backend, Issuer: "https://id.example.com", Signer: signer,
		Apps: []fanout.App{{ClientID: "wiki", URI: relyingParty.URL + "/backchannel-logout", SessionRequired: true}},
		// With PublicOnly: true an address that a stranger registered cannot lead into your network. This one is on
		// loopback.
		OnAttempt: func(_ store.NoticeKind, app, result string) { tried <- app + ": " + result },
	})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); sender.Run(ctx) }()

	// Where a session at the provider ends, for each relying party that it was used at:
	if err := sender.Notify(ctx, fanout.Logout{ClientID: "wiki", Subject: "alice", SID: "08a5019c"}); err != nil {
		panic(err)
	}
	fmt.Println(<-tried)
	stop()
	<-stopped
	// Output:
	// a logout token came: true
	// wiki: ok
}
