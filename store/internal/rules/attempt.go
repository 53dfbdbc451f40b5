package rules

import (
	"fmt"

	"example.com/curfew/store"
)

// CheckAttempt refuses a value that [store.Attempts] does not keep.
func CheckAttempt(value []byte) error {
	if n := len(value); n == 0 || n > store.MaxAttemptValue {
		return fmt.Errorf("attempt: a value has 1 to %d bytes, not %d", store.MaxAttemptValue, n)
	}
	return nil
}
