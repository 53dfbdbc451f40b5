// Package demo shows in one process what back-channel logout does: a development provider with three people, two small
// apps, a gateway before each, and one page on which all of them are seen side by side.
//
// It owns those pages, and the journal that says what happens as it happens. It owns nothing of the protocol: the
// provider is oidc/oidctest, and the gateways are package curfew as anybody would embed it.
//
// It is for one machine and one visit: it listens on 127.0.0.1 alone, asks nobody for a password, and keeps nothing.
package demo
