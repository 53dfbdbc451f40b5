// Package postgres keeps sessions in PostgreSQL, for any number of replicas.
//
// It owns its tables and functions (curfew_…, in the first schema of the search_path), a pool of connections, and one
// connection more, that follows what ends on any replica. Each change is one statement, and so one round trip and one
// transaction; the two that must wait for one another, Create and End, are functions in the database, since a statement
// that waits for a lock must look at the tables anew when it has it.
//
// It needs READ COMMITTED, a server that keeps what it has committed (fsync, synchronous_commit), and for the one
// connection a way to the server itself when a pooler such as PgBouncer stands before it. It says so in Open. How
// PostgreSQL is made to survive the loss of a machine is not its affair.
package postgres
