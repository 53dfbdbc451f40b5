// Package drivers compares drivers for SQLite with the statements of a logout. It is a module of its own, since Curfew
// needs only one of them. It needs a C compiler for one of them, and another takes minutes to compile:
//
//	go test -bench . -benchtime 2000x
//	go test -bench . -benchtime 2000x -tags ncruces \
//		-ldflags '-X github.com/ncruces/go-sqlite3/driver.driverName=sqlite3_ncruces'
package drivers
