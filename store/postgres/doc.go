// Package postgres keeps sessions in PostgreSQL, for any number of replicas.
//
// The package owns its tables and functions (curfew_…, in the first schema of the search_path), a pool of
// connections, one connection that follows the endings of all replicas, and one that reads the server's clock. Each
// change is one statement, so one round trip and one transaction. Create, Rename and End wait for one another. They are
// functions in the database, because after a statement has waited for a lock, only a new statement sees what was
// committed meanwhile.
//
// The package needs READ COMMITTED, a server that keeps what it has committed (fsync, synchronous_commit), and, behind
// a pooler such as PgBouncer, an address of the server itself for the two other connections. Open checks this. How
// PostgreSQL survives the loss of a machine is up to its operator.
package postgres
