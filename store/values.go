package store

import (
	"context"
	"fmt"
)

// SharedValues is the part of a [Store] that keeps a few small values, each under a name, for all replicas. Callers
// seal a value before they save it. A name has 1 to 256 bytes, a value at most 256 KiB.
type SharedValues interface {
	// Load returns a value and its revision. A name under which nothing was saved has no value and the revision 0; that
	// is no error.
	Load(ctx context.Context, name string) (value []byte, revision int64, err error)
	// Save replaces a value, if its revision is still the given one, and raises that by one. Revision 0 saves it for
	// the first time. [ErrConflict], and nothing is changed, when the revision is another.
	Save(ctx context.Context, name string, value []byte, revision int64) error
}

// CopiedValue is the name of the shared value that says when the store was last copied from another, as RFC 3339. It is
// not sealed. End marks are not copied.
const CopiedValue = "copied at"

// CheckSharedValue refuses a name or a value that is too large for [SharedValues]. It is for stores.
func CheckSharedValue(name string, value []byte) error {
	if name == "" || len(name) > 256 || len(value) > 256<<10 {
		return fmt.Errorf("a shared value has a name of 1 to 256 bytes and at most 256 KiB; these have %d and %d bytes",
			len(name), len(value))
	}
	return nil
}
