// Package demo shows in one process what back-channel logout does: a development provider with three users, two small
// apps, each behind a gateway, and one page that shows all of them side by side.
//
// It holds those pages, and the journal that shows what happens as it happens. The provider is oidc/oidctest, and the
// gateways are package curfew, embedded as in any app.
//
// It is for one machine and one visit: it listens only on 127.0.0.1, asks for no password, and keeps nothing.
package demo
