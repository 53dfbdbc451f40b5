// Package console is the HTTP interface for operators. On a private listener ([Console.Handler]) it serves liveness,
// readiness, metrics, an interface for programs, and pages for people: to see and end sessions, to see what happened,
// and to see and change notices and signing keys. It shows neither session keys nor tokens.
//
// The private listener has no authentication: everybody who can connect to it may use it. So it answers only to the
// listener's own host names (hosts.go), and refuses changes requested by a page of another site.
//
// [Console.SignedIn] serves the pages alone, for people who are signed in; the caller judges who may.
package console
