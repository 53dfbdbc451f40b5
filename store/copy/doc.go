// Package storecopy copies the living sessions of one store, and the keys that sign logout tokens, to another.
//
// It knows stores by their contract alone, and may be run again and again: [Copy] writes only what has changed since.
// It does not open stores, and it does not copy notices: the store that they were left in delivers them.
package storecopy
