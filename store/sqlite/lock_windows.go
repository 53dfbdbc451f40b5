package sqlite

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

var errLocked = errors.New("locked")

// lockFile locks f until it is closed, or answers errLocked at once.
func lockFile(f *os.File) error {
	const beyond = 1 << 30 // a byte that nobody reads: Windows locks bar reading, and the start names the holder
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{Offset: beyond})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errLocked
	}
	return err
}

// unlockFile gives the lock back and closes f.
func unlockFile(f *os.File) error { return f.Close() }

// syncFolder does nothing: Windows has no such call.
func syncFolder(string) error { return nil }
