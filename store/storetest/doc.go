// Package storetest is the contract of package store made executable: one suite that every store passes.
//
// A store's own test calls [Run] with a function that opens a [Harness]. What a store cannot do (be opened again, fail
// in the middle) is left out of the harness, and its cases are skipped. The suite assumes nothing about how a store
// works: neither SQL, nor a single process, nor that watchers are called at once.
//
// The suite tests what all stores have in common. What one store does beyond that (files, scripts, query plans) is
// tested in that store's package.
package storetest
