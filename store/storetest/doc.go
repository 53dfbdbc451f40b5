// Package storetest is the contract of session/store.go made executable: one suite that every store passes.
//
// A store's own test opens a [Harness] and calls [Run]; what the store cannot do (be opened again, fail in the middle)
// is left out of the harness and skipped aloud. The suite assumes nothing about how a store works: not SQL, not one
// process, not that what it does is heard of at once.
//
// It owns what all stores have in common. What one of them promises beyond that (files, scripts, query plans) is tested
// beside that store.
package storetest
