// Package redis keeps sessions in Redis or Valkey: one server, one behind sentinels, or a Cluster; for any number of
// replicas of Curfew.
//
// The package owns the keys under one prefix, the Lua scripts that change them (directory lua) and the feed. How
// durable the server is depends on its configuration (docs/stores-redis.md); Open logs a warning if it may lose data.
// The package does not cache sessions: the session manager does.
//
// # Keys
//
// There are 256 buckets. The first byte of a session's key is the number of its bucket. That byte is part of the tag,
// which is computed from issuer, client and subject. So all sessions of a subject, their indexes, end marks and notices
// are in one bucket. All keys of a bucket share a hash tag, so a bucket is in one slot of a Cluster, and one script can
// do all that an ending asks for.
//
// The number is a compromise. List, Stats and Prune visit every bucket, and every Sync of the feed reads one key of
// each, so fewer would be better. A slot moves between machines as a whole, and while it moves the subjects in it
// cannot sign in or out, so more would be better. With ten million sessions (14 GB) a bucket has 55 MB. The hash tags
// are chosen so that the buckets are spread evenly over the slots: with any number of machines, no machine has more
// than one bucket more than another.
//
// Values that others control (issuer, client, subject, sid, jti) are part of a key only as a truncated SHA-256, and are
// stored in full in values. Where a session is found by a hash, the full values are compared.
//
// Redis's own expiry only cleans up. Whether an entry has expired depends on the caller's time and the stored fields.
// Redis keeps every entry for one hour longer, and a session that holds a refresh token for one day (see Overdue). So
// the clock of a server may be wrong by up to an hour.
//
// # A sid
//
// A logout token names a sid, with a subject or without (OpenID Connect Back-Channel Logout 1.0 §2.4), and ends the
// sessions with that sid whatever their subject. Each sid belongs to a bucket, by its hash, where a pointer is kept:
// the set of the tags that have sessions with that sid. So Create and End concern two buckets, and on a Cluster they
// take two scripts each:
//
//	Create   C1, in the sid's bucket: refuse if there is a mark of the sid at or after the beginning of the login;
//	         add the tag to the pointer.
//	         C2, in the subject's bucket: refuse if a mark there names the session; insert the session.
//	End      E1, in the sid's bucket: leave the mark of the sid; read the pointer.
//	         E2, in the bucket of each tag in it: leave a copy of the mark; remove the sessions with the sid.
//
// The session of a login that began at or before the mark never lives after End has returned nil, and is never found
// after Create has returned an error. Each script is atomic, so only their order matters:
//
//   - E1 before C1: C1 finds the mark and refuses.
//   - C1 before E1, C2 before E2: E1 reads the tag, E2 finds the session and removes it.
//   - C1 before E1, E2 before C2: E1 reads the tag, and C2 finds the copy of the mark that E2 has left, and refuses.
//
// A login that began after the mark passes C1 and C2, and its pointer exists before its session does. A crash between
// C1 and C2 leaves a pointer without a session, which is harmless. A pointer is never removed, since another login
// could be between C1 and C2. It expires, later than any session that it leads to (see slack). An Update that makes a
// session live longer than that renews the pointer first. Tests run each of these orders.
//
// On one server C1 and C2 are one script, and so are E1 and E2 unless the sid is that of several subjects; there is no
// copy of the mark. So a session and its pointer are lost together, if a failover loses them. On a Cluster they can be
// lost one by one: see missed for a session whose pointer no replica has acknowledged.
//
// A session may have had other sids before. Each of them has its pointer, and a second index in the subject's bucket
// finds the sessions by their former sids. Rename does C1 for all sids of the session; in place of C2 it refuses, or
// replaces the session and its entries in both indexes. A logout of a sid that the session has before and after the
// Rename finds pointer and session in any order of the steps. For the new sid the orders are those above.
//
// For an ending of a subject alone, the mark and the sessions are in one bucket, so it takes one script, and C2 alone
// decides. With both, the tag of the subject is one of those of E2, which there removes the sessions of the subject
// without a sid too, and leaves a mark for them.
//
// # A jti
//
// On one server, the script that ends the sessions also records the jti, in whatever bucket. On a Cluster a script
// reaches only its own slot: the jti is recorded there, and a binding in the jti's own slot finds a replay that names
// another subject (see bind). Where an ending of a sid takes several scripts, its jti is claimed before them and
// recorded after them (see endInSteps). In each case a failure in between does not use the jti up, and of several
// endings with the same jti at once one succeeds.
//
// # While a slot moves
//
// A script that reads a key which has moved gets an error. The scripts read everything before they write anything. So
// an ending in a slot that is moving fails as a whole, and the provider sends it again.
//
// # Steps in several slots
//
// The documentation of each method names its steps. The process may crash after each of them: what has been done by
// then is harmless, and doing it all again does the rest. Nothing is recorded as done before it is done.
//
// The feed is described in feed.go, and how Claim finds notices in wakeup.go.
package redis
