// Package console is the HTTP interface of operators, for a private listener: life, readiness, metrics, and the notices
// and signing keys that they can see and change.
//
// It asks nobody who they are: whoever reaches the listener may use it. So it answers only to the listener's own names
// (hosts.go), and it changes nothing for a page of another site. It shows neither session keys nor tokens.
package console
