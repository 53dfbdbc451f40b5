// Package console is the HTTP interface for operators, for a private listener. It serves liveness, readiness and
// metrics, and operators can see and change notices and signing keys.
//
// It has no authentication: everybody who can connect to the listener may use it. So it answers only to the listener's
// own host names (hosts.go), and refuses changes requested by a page of another site. It shows neither session keys nor
// tokens.
package console
