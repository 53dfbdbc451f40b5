// Package wait pauses loops until their next round or until they are stopped.
package wait

import (
	"context"
	"time"
)

// Sleep pauses for d and returns true, or false as soon as ctx is done.
func Sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
