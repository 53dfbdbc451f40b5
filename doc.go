// Package curfew is an OpenID Connect relying party with sessions that really end. It gives a Go web app sign-in,
// server-side sessions and single logout. The command curfew puts the same in front of apps in other languages.
//
// When a person signs out at the provider, the provider POSTs a signed logout token (OpenID Connect Back-Channel Logout
// 1.0). Curfew ends exactly the sessions that the token names. A 2xx answer means that these sessions are gone from the
// store, and that no crash, login or refresh can bring them back. The replica that answered refuses them at once. The
// other replicas do so within milliseconds, and within [Config.MaxStale] (1 s) when the message does not reach them.
// Any other answer means that the provider should try again.
//
// # Embedding
//
// [New] makes a relying party from a [Config]. Mount [RP.Handler] under /auth, wrap the app in [RP.Require], and read
// the session of a request with [SessionFrom]. See the example of this package, and examples/ for whole apps.
//
// # Packages
//
// Package login opens a session, gateway checks it, logout ends it, fanout notifies apps, and a store keeps it.
//
//	oidc/      speaks OpenID Connect: provider metadata, keys, code flow, ID Tokens, logout tokens
//	keyring/   the keys that seal cookies and tokens
//	store/     the contract of the stores: sessions, notices, shared values
//	audit/     the record of what happened: sign-ins, logouts, endings, what operators did
//	session/   the session, its cookie and its manager
//	web/       turns errors into responses; safe redirects; pages
//	login/     opens a session
//	gateway/   checks a session: middleware, reverse proxy, forward-auth, events for open tabs
//	logout/    ends a session: by the person, by a logout token, by the front channel
//	fanout/    notifies apps that a session has ended, and revokes its tokens, with retries
//	console/   for operators: pages and a JSON interface for sessions, events and notices; readiness, metrics
//	backchannel/ the logout endpoint alone, for apps that keep their own sessions
//	store/…    memory, sqlite, postgres, redis; storetest, the suite that all of them pass; copy, from one to another
//	demo/      a development provider and two apps, to see it work with one command
//	cmd/curfew the command: serve, check, demo, session, why, events, notice, key, store copy, token explain
//
// Imports go one way. Apart from small internal helpers, packages store, keyring, oidc and web import no other package
// of this module, and session and audit import store and keyring. Packages login, gateway, logout, fanout and console
// import only those six. A store imports only package store. This package connects them all. layout_test.go checks
// this, and docs/walk.md follows one logout token through the files.
package curfew
