package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// auditFile is the file of the audit record. It is opened anew when it was moved or removed, so that it can be rotated.
type auditFile struct {
	name string
	file *os.File
	torn bool // the file ends within a line
}

// openAudit returns where the audit record is written: nowhere for an empty name, to stdout for "stdout", or else at
// the end of a file.
func openAudit(name string, stdout io.Writer) (io.WriteCloser, error) {
	switch name {
	case "":
		return nil, nil
	case "stdout":
		return unclosed{stdout}, nil
	}
	a := &auditFile{name: name}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("--audit-file: %w", err)
	}
	return a, nil
}

// unclosed is a writer that somebody else closes.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

func (a *auditFile) open() error {
	file, err := os.OpenFile(a.name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	a.file, a.torn = file, endsTorn(a.name)
	return nil
}

// endsTorn reports whether a file ends within a line, as a full disk or a lost machine leaves it. A file that this user
// may only write does not say.
func endsTorn(name string) bool {
	if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false // and a pipe is not opened twice
	}
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	var last [1]byte
	if _, err := file.Seek(-1, io.SeekEnd); err != nil {
		return false
	}
	_, err = file.Read(last[:])
	return err == nil && last[0] != '\n'
}

// Write appends to the file.
func (a *auditFile) Write(p []byte) (int, error) {
	there, err := os.Stat(a.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	ours, errOurs := a.file.Stat()
	if err != nil || errOurs != nil || !os.SameFile(there, ours) {
		old := a.file
		if err := a.open(); err != nil {
			return 0, err
		}
		old.Close()
	}
	return a.writeLine(a.file, p)
}

// writeLine writes a line. What was written of the one before, if that was cut short, becomes a line of its own.
func (a *auditFile) writeLine(to io.Writer, p []byte) (int, error) {
	before := 0
	if a.torn {
		p, before = slices.Concat([]byte("\n"), p), 1
	}
	n, err := to.Write(p)
	if n > 0 {
		a.torn = p[n-1] != '\n'
	}
	return max(0, n-before), err
}

// Close closes the file.
func (a *auditFile) Close() error { return a.file.Close() }
