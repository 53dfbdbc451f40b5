//go:build unix

package check

import "golang.org/x/sys/unix"

// mayWrite returns why this process may not write a file, or make files in a folder.
func mayWrite(name string, folder bool) error {
	mode := uint32(unix.W_OK)
	if folder {
		mode |= unix.X_OK
	}
	return unix.Faccessat(unix.AT_FDCWD, name, mode, unix.AT_EACCESS)
}
