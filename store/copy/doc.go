// Package storecopy copies the living sessions of one store, and the keys that sign logout tokens, to another.
//
// It uses only the contract of stores, and may be run repeatedly: [Copy] writes only what has changed since. It does
// not open stores, and it does not copy notices: they are sent from the store that has them.
package storecopy
