// Package logout ends a session: by a logout token of the provider (backchannel.go), by the person (initiated.go), and
// by the provider's page in the person's browser (frontchannel.go).
//
// It owns what each of them may end, and what each hears. The back channel hears 2xx only when the sessions are dead;
// for anything else it may send the same token again, since nothing of it was used up.
//
// It does not judge tokens (oidc does) nor remove sessions (the session manager and its store do, in one step with the
// record of the token's jti), tells no other app (fanout does), and opens nothing.
package logout
