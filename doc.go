// Package curfew is an OpenID Connect relying party whose sessions really end: sign-in, server-side sessions and single
// logout for a Go web app, and (as the command curfew) a gateway in front of any other.
//
// A provider that signs somebody out POSTs a signed logout token (OpenID Connect Back-Channel Logout 1.0). Curfew ends
// exactly the sessions that it names. A 2xx means dead: the sessions are gone from the store, and no crash, login or
// refresh brings them back. The replica that answered refuses them at once; every other one does within milliseconds,
// and when the news does not reach it, within [Config.MaxStale] (1 s). Anything else means try again: nothing was done.
//
// # Embedding
//
// [New] makes a relying party from a [Config]; mount [RP.Handler] under /auth, wrap the app in [RP.Require], and read
// [SessionFrom]. See the example of the package, and examples/ for a whole app.
//
// # Packages
//
// Login opens a session, gateway checks it, logout ends it, fanout tells others; stores keep it.
//
//	oidc/      speaks OpenID Connect: provider metadata, keys, code flow, ID Tokens, logout tokens
//	keyring/   the keys that seal cookies and tokens
//	store/     the contract of the stores: sessions, notices, shared values
//	session/   what a session is; its cookie; its manager
//	web/       an error becomes a response; safe redirects; pages
//	login/     opens a session
//	gateway/   checks a session: middleware, reverse proxy, forward-auth, events for open tabs
//	logout/    ends a session: by the person, by a logout token, by the front channel
//	fanout/    tells apps that a session has ended, and revokes what it held, until that is done
//	console/   shows operators what runs: readiness, metrics, notices, signing keys
//	store/…    memory, sqlite, postgres, redis; storetest, the one suite that they all pass; copy, from one to another
//	demo/      a development provider and two apps, to see it work in one command
//	cmd/curfew the command: serve, check, demo, notice, key, store copy, token explain
//
// Imports go one way: store, keyring, oidc and web import none of ours; session imports the first two; login, gateway,
// logout, fanout and console import only those; a store imports only the contract; this package wires them.
// layout_test.go holds them to it, and docs/walk.md follows one logout token through the files.
package curfew
