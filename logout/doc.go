// Package logout ends a session: by a logout token of the provider (backchannel.go), by the person (initiated.go), and
// by the provider's page in the person's browser (frontchannel.go).
//
// It decides what each of them may end, and what each is answered. The back channel answers 2xx only when the sessions
// are dead. After any other answer the provider may send the same token again, since nothing of it was used up.
//
// It does not verify tokens: package oidc does. It does not remove sessions: the session manager and its store do, in
// one step with the record of the token's jti. It does not notify apps: package fanout does.
package logout
