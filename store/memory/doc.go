// Package memory keeps sessions in the memory of one process: for tests, for the demo, and for a single gateway whose
// users can sign in again after a restart.
//
// It loses everything when the process ends, and shares nothing between processes. Package sqlite survives a restart;
// packages postgres and redis survive it and are shared.
package memory
