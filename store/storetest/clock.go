package storetest

import (
	"time"

	"example.com/curfew/session"
)

// clockCases are for stores that replicas share, whose server's time is the one that counts. The servers of the tests run
// on this machine, or on one whose clock is right.
func clockCases() []testCase {
	return []testCase{
		{"the store's time is its server's", func(f *fixture) {
			c, ok := f.store.(session.Clock)
			if !ok {
				f.Skipf("%T has no clock: it is of one process", f.store)
			}
			before := time.Now()
			at, err := c.Clock(f.ctx)
			if err != nil {
				f.Fatalf("Clock: %v", err)
			}
			if at.Before(before.Add(-5*time.Second)) || at.After(time.Now().Add(5*time.Second)) {
				f.Errorf("it is %v there and %v here", at, before)
			}
		}},
	}
}
