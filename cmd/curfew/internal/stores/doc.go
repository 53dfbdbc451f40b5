// Package stores opens the stores that the command can use, by an address such as sqlite:curfew.db.
//
// It parses and prints addresses. It does not know the configuration, nor what a store is opened for.
package stores
