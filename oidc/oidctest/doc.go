// Package oidctest is a small OpenID Provider for tests and for the demo. It speaks the real protocol over HTTP:
// discovery, keys, the code flow with PKCE, refresh with rotation, userinfo, revocation, RP-initiated and back-channel
// logout. It keeps everything in memory.
//
// It can be made to misbehave: [Provider.Mangle] and [Provider.Override] change what it says,
// [Provider.SignLogoutToken] and [Provider.SignIDToken] sign whatever they are told to.
//
// It is for the tests of any relying party, not only of this module: see docs/own-sessions.md. It has no passwords and
// protects nobody: anybody who reaches it may sign in as any of its users, so it listens on loopback alone. In this
// module only tests and package demo import it.
package oidctest
