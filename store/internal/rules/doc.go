// Package rules is the part of the contract in session/store.go that needs no store and so is the same in all of them:
// what is reported and noticed of an ending, what a query asks for, what an outcome may be. It keeps nothing.
package rules
