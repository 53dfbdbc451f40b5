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

// lockDatabase locks the database file for this process and sets its mode. It returns the file's name with all symbolic
// links resolved, from which SQLite and this package derive the names of the other files. So the same file under two
// names has one lock.
//
// The lock is on a separate file, because SQLite locks parts of the database itself, and would lose those locks if this
// package closed the database file. The kernel releases the lock when the process ends, however it ends.
func lockDatabase(path string) (string, *os.File, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) { // perhaps a link to a file that is to be made
		var db *os.File
		if db, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
			return "", nil, err
		}
		if err = db.Close(); err == nil {
			resolved, err = filepath.EvalSymlinks(path)
		}
	}
	if err != nil {
		return "", nil, err
	}
	path = resolved
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

// holder describes the process whose number is in the lock file.
func holder(lock *os.File) string {
	b, err := io.ReadAll(io.LimitReader(lock, 20))
	pid, errNumber := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || errNumber != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

// prepare writes this process's number into the lock file, and creates the database file if there is none, so that it
// never has another mode than 0600. SQLite creates its other files with the mode of the database.
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
		if err := makePrivate(name); err != nil {
			return errors.Join(err, db.Close())
		}
	}
	return errors.Join(syncDir(filepath.Dir(path)), db.Close())
}

func makePrivate(name string) error {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Perm() != 0o600 {
		err = os.Chmod(name, 0o600)
	}
	return err
}
