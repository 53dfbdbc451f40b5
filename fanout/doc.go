// Package fanout sends notices until each is done. A notice either sends an app behind this relying party a logout
// token that Curfew signs (Back-Channel Logout §2.4, §2.7), or has the provider revoke the tokens of a session (RFC
// 7009).
//
// The package decides which notices an ending leaves ([Sender.Plan]), when a notice is retried and when it is given up.
// It makes the logout tokens, and the keys that sign them ([Keys], [Publisher]). A notice is sent at least once, in no
// particular order. A repeat does no harm: the session has ended already.
//
// The package does not end sessions and does not keep notices. The store writes them in the same step as the ending,
// and keeps them until they are done. A [Sender] needs only that store, so an OpenID Provider written in Go can notify
// its own relying parties with it (see the example). Such a program also calls the Prune of its store each minute, as a
// session.Manager does: on a Redis Cluster this repairs what a crash may have left.
package fanout
