package config

import (
	"errors"
	"math"
	"slices"
	"strings"

	"example.com/curfew/cmd/curfew/internal/terminal"
)

// Faults are all faults of a configuration.
type Faults []error

// Error returns a line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, err := range f {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

func (f *Faults) add(v value, err error) { *f = append(*f, fault{v, err}) }

// sort puts the faults of the file first, ordered by line.
func (f Faults) sort() {
	line := func(err error) int {
		if f, ok := errors.AsType[fault](err); ok && f.layer == layerFile {
			return f.line
		}
		return math.MaxInt
	}
	slices.SortStableFunc(f, func(a, b error) int { return line(a) - line(b) })
}

// fault is a fault of one value.
type fault struct {
	value
	err error
}

func (f fault) Unwrap() error { return f.err }

// Error names the place of the fault: file and line, variable or flag, and in a file also the setting.
func (f fault) Error() string {
	at := make([]string, 0, 3)
	for _, s := range []string{f.where, f.path} {
		if s != "" {
			at = append(at, s)
		}
	}
	key := f.path[strings.LastIndexByte(f.path, '.')+1:]
	text := strings.TrimPrefix(f.err.Error(), key+": ")
	return terminal.Printable(strings.Join(append(at, text), ": "))
}

// OneLine returns the errors joined in err as one error on one line.
func OneLine(err error) error {
	if _, joined := err.(interface{ Unwrap() []error }); joined {
		return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return err
}
