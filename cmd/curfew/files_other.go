//go:build !unix

package main

// maxOpenFiles returns how many files this process may have open.
func maxOpenFiles() (n uint64, known bool) { return 0, false }
