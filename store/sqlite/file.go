package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// takeFile locks the database file for this process and sees to its mode. It returns the file's true name, since SQLite
// names the files beside it by that, and so must we: two names of one file are one lock.
//
// The lock is on a file of its own (SQLite locks parts of the database itself, and would lose those locks when we close
// ours). The kernel lets go of it when the process dies, however it dies.
func takeFile(path string) (string, *os.File, error) {
	if true_, err := filepath.EvalSymlinks(path); err == nil {
		path = true_
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", nil, err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", nil, err
	}
	if err := lockFile(lock); err != nil {
		if errors.Is(err, errLocked) {
			err = fmt.Errorf("%w%s", ErrInUse, holder(lock))
		}
		return "", nil, errors.Join(err, lock.Close())
	}
	if err := prepare(path, lock); err != nil {
		return "", nil, errors.Join(err, lock.Close())
	}
	return path, lock, nil
}

// holder says which process wrote its number into the lock file.
func holder(lock *os.File) string {
	b, err := io.ReadAll(io.LimitReader(lock, 20))
	pid, errNumber := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || errNumber != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

// prepare names us in the lock file, and makes the database file if there is none, so that it never has another mode
// than 0600. The files that SQLite puts beside it have the mode of the database.
func prepare(path string, lock *os.File) error {
	if err := lock.Truncate(0); err != nil {
		return err
	}
	if _, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return err
	}
	db, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	for _, name := range []string{path, path + "-wal", path + "-shm", path + ".lock"} {
		if err := keepPrivate(name); err != nil {
			return errors.Join(err, db.Close())
		}
	}
	return errors.Join(syncFolder(filepath.Dir(path)), db.Close())
}

func keepPrivate(name string) error {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Perm() != 0o600 {
		err = os.Chmod(name, 0o600)
	}
	return err
}
