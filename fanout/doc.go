// Package fanout carries out notices until each is done: it tells the apps behind us that a session has ended, with a
// logout token of our own (Back-Channel Logout §2.4, §2.7), and has the provider revoke what the session held (RFC
// 7009).
//
// It owns what an ending leaves behind ([Sender.Plan]), when a notice is tried again and when it is given up, the
// tokens that Curfew signs, and the keys that sign them ([Keys], [Publisher]). A notice is carried out at least once:
// order does not matter, and a repeat does no harm, since a session that has ended has ended.
//
// It does not end sessions, and does not keep notices: the store writes them in the same step as the ending, and keeps
// them until they are settled. A [Sender] needs no more of this house than that store: an OpenID Provider written in Go
// can tell its own relying parties with it (see the example).
package fanout
