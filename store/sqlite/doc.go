// Package sqlite keeps sessions in one file: durable, with nothing to install, for one process at a time.
//
// The package owns the file: its mode, its lock and its schema. One goroutine writes. Methods that change something
// send their change to that goroutine. It puts all waiting changes into one transaction, each in a savepoint of its
// own, and answers them when the transaction is on the disk. So durable logouts (WAL, synchronous=FULL) share the cost
// of one flush. Reads use other connections and do not wait for writes.
//
// Nothing is shared between processes: a second process cannot open the file. For several replicas, use package
// postgres or redis.
package sqlite
