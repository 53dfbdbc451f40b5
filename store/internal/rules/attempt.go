package rules

import (
	"fmt"

	"example.com/curfew/session"
)

// CheckAttempt refuses a value that [session.Attempts] does not keep.
func CheckAttempt(value []byte) error {
	if n := len(value); n == 0 || n > session.MaxAttemptValue {
		return fmt.Errorf("attempt: a value has 1 to %d bytes, not %d", session.MaxAttemptValue, n)
	}
	return nil
}
