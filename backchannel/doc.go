// Package backchannel is the endpoint of OpenID Connect Back-Channel Logout 1.0 for an app that keeps its own sessions,
// whatever it keeps them in, and signs people in by itself. It verifies a logout token, and calls the app once for it.
//
// An app that has no sessions yet is better off with package curfew, which keeps them too.
//
// # What the app does
//
//  1. It mounts the [Handler] that [New] makes, and registers the address at the provider, with "session required".
//  2. It keeps `iss`, `aud`'s client, `sub` and `sid` of the ID Token with each session of its own, so that it can find
//     the sessions that a logout token names.
//  3. In OnLogout it removes these sessions, and returns nil when they are gone for good.
//  4. When a sign-in begins, it calls [Handler.Begin], and keeps the result with the state of that sign-in.
//  5. When the sign-in ends, it first saves its session, and then asks [Handler.Ended]. If that is true, or an error,
//     it removes the session again, and the person is not signed in.
//
// # What that promises
//
// When the provider is answered 200, OnLogout has returned nil, and no sign-in that was under way can revive what was
// ended: whichever comes first, the logout finds the session, or the sign-in finds the mark of the logout. So the order
// in step 5 matters. Any other answer means that the provider may send the same token again. A token that was carried
// out is refused from then on (`already processed`).
//
// The marks, and the record of tokens that were carried out, are in a [store.Store]: as durable as that is, and shared
// by all replicas that share it. Give it a store of its own, not that of a Curfew with sessions. A refresh that gets
// new tokens is a sign-in in this sense too, if it makes a new session.
package backchannel
