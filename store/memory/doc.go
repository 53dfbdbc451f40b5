// Package memory keeps sessions in the memory of one process: for tests, for the demo, and for a single gateway whose
// users may sign in again after a restart.
//
// It owns the maps, their indexes and the order in which things run out. It keeps nothing over a restart and shares
// nothing between processes; package sqlite does the one, postgres and redis do both.
package memory
