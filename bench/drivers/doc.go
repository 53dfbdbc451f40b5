// Package drivers compares drivers for SQLite with the statements of a logout. It is a module of its own, since Curfew
// needs only one of them.
//
//	go test -bench . -benchtime 2000x
package drivers
