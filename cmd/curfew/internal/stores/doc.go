// Package stores names every store that the command can use, by an address such as sqlite:curfew.db, and opens it.
//
// It owns how addresses are written and shown. It does not know what is configured, nor what a store is opened for.
package stores
