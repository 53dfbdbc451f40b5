package storetest

import (
	"time"

	"example.com/curfew/store"
)

// clockCases are for stores that several processes share, where the server's time counts. The servers of the tests run
// on this machine, or on one whose clock is right.
func clockCases() []testCase {
	return []testCase{
		{"the store's time is its server's", func(f *fixture) {
			c := f.clock()
			before := time.Now()
			at, err := c.Now(f.ctx)
			if err != nil {
				f.Fatalf("Clock: %v", err)
			}
			if at.Before(before.Add(-5*time.Second)) || at.After(time.Now().Add(5*time.Second)) {
				f.Errorf("it is %v there and %v here", at, before)
			}
		}},
		{"an ending is marked with the store's time if its caller's is behind", func(f *fixture) {
			c := f.clock()
			for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
				began, err := c.Now(f.ctx)
				if err != nil {
					f.Fatalf("Clock: %v", err)
				}
				f.now = store.Time(began).Add(-time.Minute)
				f.end(who)
				f.wantBarred("alice", "s1", store.Time(began))
				if after, err := c.Now(f.ctx); err != nil {
					f.Fatalf("Clock: %v", err)
				} else {
					f.wantWelcome("alice", "s1", store.Time(after).Add(time.Microsecond))
				}
			}
		}},
		{"an earlier mark is made later by the store's time too", func(f *fixture) {
			c := f.clock()
			f.now = store.Time(time.Now().Add(-time.Hour))
			f.end(store.Selector{Subject: "alice"})
			began, err := c.Now(f.ctx)
			if err != nil {
				f.Fatalf("Clock: %v", err)
			}
			f.end(store.Selector{Subject: "alice"})
			f.wantBarred("alice", "s1", store.Time(began))
		}},
	}
}

func (f *fixture) clock() store.Clock {
	c := f.store.Clock()
	if c.Now == nil {
		f.Skipf("%T has no server: it goes by the clock of its process", f.store)
	}
	return c
}
