// Package redis keeps sessions in Redis or Valkey: one server, one behind sentinels, or a Cluster; for any number of
// replicas of Curfew.
//
// It owns the keys under one prefix, the scripts that change them (folder lua) and the feed. It does not own the
// server: how durable that is its operator decides (docs/stores-redis.md), and Open warns of what it sees. It keeps no
// copies of sessions: the cache is the manager's.
//
// # Where things are
//
// There are 256 buckets, and a session is in the one that the first byte of its key numbers. That byte is part of the
// tag, which follows from issuer, client and subject. So a person's sessions, their indexes, end marks and notices are
// in one bucket, a bucket is in one slot of a Cluster (its keys share a hash tag), and one script can do all that an
// ending asks for.
//
// Why 256: List, Tally and Prune walk the buckets, and every Sync of the feed reads one key of each, so fewer are
// better; a slot moves between machines as a whole, and while it moves its people cannot sign in or out, so more are
// better. With ten million sessions (14 GB) a bucket is 55 MB. The hash tags are chosen so that the buckets lie evenly
// over the slots: with any whole number of machines the fullest has one bucket more than the others.
//
// What others control (issuer, client, subject, sid, jti) is in names of keys as a part of its SHA-256, and in full in
// values. Where a hash leads to a session the names are compared in full.
//
// Redis's own expiry only cleans up: what has run out is judged by the caller's time, from the stored fields, and Redis
// keeps everything for an hour longer, and for a day what holds a refresh token (see Overdue). So the clock of a server
// may be wrong by most of an hour.
//
// # A sid alone
//
// A logout token may name a sid and no subject. The sid has a bucket of its own, and there a pointer: the set of the
// tags that have sessions with it. That makes two buckets, so two scripts, for Create and for End:
//
//	Create   C1, in the sid's bucket: refuse if a mark of the sid is at or after the login's beginning; add the tag to the
//	         pointer.
//	         C2, in the person's bucket: refuse if a mark there names the session; insert it.
//	End      E1, in the sid's bucket: leave the mark of the sid; read the pointer.
//	         E2, in the bucket of each tag in it: leave a copy of the mark; remove the sessions with the sid.
//
// A login that began at or before the mark is never alive after End has returned nil, and never found after Create has
// returned an error. Each script is atomic, so only their order counts:
//
//   - E1 before C1: C1 finds the mark and refuses.
//   - C1 before E1, C2 before E2: E1 reads the tag, E2 finds the session and removes it.
//   - C1 before E1, E2 before C2: E1 reads the tag, E2 leaves the copy of the mark where C2 looks, and C2 refuses.
//
// A login that began after the mark passes C1 and C2, and the pointer is there before the session is. A crash between
// C1 and C2 leaves a pointer to nothing, which is harmless. A pointer is never removed, since another login could be
// between C1 and C2; it runs out, later than any session that it leads to (see slack). An Update that lets a session
// live longer than that renews the pointer first. The orders are tested one by one.
//
// A session may have had other sids. Each has its pointer, and in the person's bucket an index of its own leads from
// former sids to sessions. Rename does C1 for all of them, and in place of C2 refuses, or replaces the session and its
// entries in both indexes. A logout of a sid that the session has before and after finds pointer and session in any
// order of the steps; for the new sid the orders are those above.
//
// The same reasoning holds for an ending with a subject: its marks and its sessions are in one bucket, so there E is
// one script and so is C2.
//
// # A jti
//
// On one server the record of a jti is written by the script of the step, wherever it is. On a Cluster the step reaches
// no further than its slot: the jti is recorded there, and a binding in the jti's own slot makes it count for all
// subjects (see bind). An ending of a sid alone has several steps, so its jti is claimed before them and recorded after
// them (see endInSteps). In each case a failure in the middle uses nothing up, and of several at once one succeeds.
//
// # While a slot moves
//
// A script that asks for a key which is not here gets an error instead of nothing, and the scripts read everything
// before they write anything; so an ending in a slot that is moving fails as a whole, and the provider sends it again.
//
// # Steps over several slots
//
// Each method says what its steps are, and each can die after any of them: what it has done by then is harmless, and
// doing it all again does the rest. Nothing is ever recorded as done before it is.
//
// The feed is described in feed.go, and how the notices for one app are found in wake-up.go.
package redis
