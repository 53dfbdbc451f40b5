package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// auditFile is the file of the audit record. It is opened anew when it was moved or removed, so that it can be rotated.
type auditFile struct {
	name string
	file *os.File
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

func (a *auditFile) open() (err error) {
	a.file, err = os.OpenFile(a.name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	return err
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
			a.file = old
			return 0, err
		}
		old.Close()
	}
	return a.file.Write(p)
}

// Close closes the file.
func (a *auditFile) Close() error { return a.file.Close() }
