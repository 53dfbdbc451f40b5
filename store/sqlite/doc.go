// Package sqlite keeps sessions in one file: durable, with nothing to install, for one process at a time.
//
// It owns the file (its mode, its lock, its schema) and one goroutine that writes. Whoever wants to write hands that
// goroutine a change; all changes that are waiting go into one transaction, each in a savepoint of its own, and
// nobody is answered before the transaction is on the disk. That makes a durable logout (WAL, synchronous=FULL) cost a
// share of one flush instead of a whole one. Readers have connections of their own and wait for nobody.
//
// It shares nothing between processes: a second one is refused the file. Packages postgres and redis are for replicas.
package sqlite
