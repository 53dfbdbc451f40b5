package store

import (
	"context"
	"fmt"
	"time"
)

// MaxAttemptValue is how many bytes a value of [Attempts] may have.
const MaxAttemptValue = 16 << 10

// AttemptID names a login under way in a store: a SHA-256 of something that only its browser and its provider know.
type AttemptID [32]byte

// Attempts keeps small sealed values for a short while: which logins have been carried out and what came of them, so
// that an authorization code is exchanged once (RFC 6749 §4.1.2), on whatever replica its callback arrives. A value
// has 1 to [MaxAttemptValue] bytes. It lives while now is before its expires.
//
// Unlike sessions and marks, a value may be lost in a crash or a failover of the store: at worst a code is then
// exchanged a second time, which the provider refuses.
type Attempts interface {
	// ClaimAttempt keeps value under id until expires, and returns nil. When a value lives under id already, it changes
	// nothing and returns that one. Of several claims at once one succeeds.
	ClaimAttempt(ctx context.Context, id AttemptID, value []byte, expires, now time.Time) (held []byte, err error)
	// CompleteAttempt replaces the value under id and leaves its expiry. [ErrNotFound] when no value lives there.
	CompleteAttempt(ctx context.Context, id AttemptID, value []byte, now time.Time) error
	// Attempt returns the value under id. [ErrNotFound] when no value lives there.
	Attempt(ctx context.Context, id AttemptID, now time.Time) ([]byte, error)
}

// CheckAttempt refuses a value that [Attempts] does not keep. It is for stores.
func CheckAttempt(value []byte) error {
	if n := len(value); n == 0 || n > MaxAttemptValue {
		return fmt.Errorf("attempt: a value has 1 to %d bytes, not %d", MaxAttemptValue, n)
	}
	return nil
}
