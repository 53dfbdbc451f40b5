// Package session says what a session is, and keeps it.
//
// It owns the session itself ([Session]), the random value in the browser's cookie ([Bearer]) and the hash of it that a
// store sees ([store.Key]), the encryption of what is stored ([keyring.Keyring]), and the [Manager]: lifetimes, a
// bounded cache that is trusted only while it provably hears of every logout, and the refresh of expired access tokens.
//
// It asks for a [store.Store] and an [store.Outbox] (store.go: the one contract that everything leans on), and knows
// none of those that exist. It does not speak OpenID Connect (package oidc does), opens no session (login) and decides
// no logout (logout): it is handed an [store.Ending] and carries it out.
package session
