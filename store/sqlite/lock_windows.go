package sqlite

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

var errLocked = errors.New("locked")

// lockFile locks f until it is closed, or returns errLocked at once.
func lockFile(f *os.File) error {
	const beyond = 1 << 30 // a byte that is never read: a lock on Windows prevents reading, and holder reads the start
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{Offset: beyond})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errLocked
	}
	return err
}

// unlockFile gives the lock back and closes f.
func unlockFile(f *os.File) error { return f.Close() }

// syncDir does nothing: Windows has no such call.
func syncDir(string) error { return nil }
