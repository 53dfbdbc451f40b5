// Package session is about sessions: what one is, and how it is kept, checked, refreshed and ended.
//
// A [Session] is one browser that is signed in. The browser has a random value in its cookie ([Bearer], [Cookie]); a
// store sees only the hash of it ([store.Key]). The [Manager] keeps sessions in any [store.Store], with their tokens
// and claims encrypted by a [keyring.Keyring]. It enforces lifetimes, refreshes access tokens that have expired, and
// has a bounded cache, which it uses only while it is certain to receive every logout.
//
// The package does not speak OpenID Connect: package oidc does. It does not decide who is signed in or out: packages
// login and logout do, and the manager carries it out.
package session
