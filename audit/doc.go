// Package audit keeps a record of what happened: sign-ins, logout requests with the check that a refused one failed,
// endings of sessions with their causes, and what operators did.
//
// [Log.Record] never blocks and never fails, so that the record can neither delay nor prevent a logout. [Log.Run]
// writes what was recorded to a file, as one line of JSON for each event with the names of OCSF (ocsf.go), and the
// newest events to the journal of the store, sealed, where all replicas and the console read them ([Log.Events]).
//
// Package audit decides nothing. When it cannot keep up it drops events, and counts them.
package audit
