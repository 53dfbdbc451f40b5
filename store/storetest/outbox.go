package storetest

import (
	"fmt"
	"sync"
	"time"

	"example.com/curfew/store"
)

// leave adds n notices that are due now, each of another subject.
func (f *fixture) leave(n int) {
	f.Helper()
	for i := range n {
		e := f.endingWith(store.Selector{Subject: fmt.Sprint("user", i)}, store.NoticeRequest{Kind: store.NoticeLogout})
		f.endWith(e)
	}
}

// one claims a single notice, and fails if there is none.
func (f *fixture) one() store.Notice {
	f.Helper()
	n := f.claim()
	if len(n) != 1 {
		f.Fatalf("claimed %d notices, want 1", len(n))
	}
	return n[0]
}

func (f *fixture) wantNone(when string) {
	f.Helper()
	if n := f.claim(); len(n) != 0 {
		f.Errorf("claimed %d notices %s, want none", len(n), when)
	}
}

func (f *fixture) complete(n store.Notice, o store.Outcome) {
	f.Helper()
	if err := f.store.Complete(f.ctx, n, o); err != nil {
		f.Errorf("Complete: %v", err)
	}
}

// claimTogether has workers claim all notices for a target, some at a time, and fails unless each of the notices is
// claimed once.
func (f *fixture) claimTogether(target string, workers, some, notices int) {
	f.Helper()
	var mu sync.Mutex
	held := make(map[string]int)
	f.together(workers, func(int) error {
		for {
			n, err := f.store.Claim(f.ctx, store.NoticeLogout, target, f.now, time.Minute, some)
			if err != nil || len(n) == 0 {
				return err
			}
			mu.Lock()
			for _, n := range n {
				held[n.ID]++
			}
			mu.Unlock()
		}
	})
	if len(held) != notices {
		f.Errorf("%d notices were claimed, want %d", len(held), notices)
	}
	for id, n := range held {
		if n != 1 {
			f.Errorf("notice %s was claimed %d times", id, n)
		}
	}
}

func outboxCases() []testCase {
	done := store.Outcome{Done: true}
	return []testCase{
		{"an empty outbox has nothing to claim", func(f *fixture) {
			f.wantNone("from an empty outbox")
		}},
		{"a notice is leased until the lease runs out", func(f *fixture) {
			f.leave(1)
			first := f.one()
			if first.Attempts != 1 || first.Lease == "" || first.ID == "" {
				f.Errorf("claimed %+v, want the first attempt, with an ID and a lease", first)
			}
			f.now = f.now.Add(time.Minute - time.Microsecond)
			f.wantNone("while it is leased")
			f.now = f.now.Add(time.Microsecond)
			second := f.one()
			if second.ID != first.ID || second.Attempts != 2 || second.Lease == first.Lease {
				f.Errorf("claimed anew: %+v after %+v, want the same notice, a second attempt and another lease",
					second, first)
			}
		}},
		{"a claim takes no more than it may", func(f *fixture) {
			f.leave(5)
			seen := make(map[string]bool)
			for _, want := range []int{2, 2, 1, 0} {
				n := f.claimFor(target, 2)
				if len(n) != want {
					f.Errorf("claimed %d, want %d", len(n), want)
				}
				for _, n := range n {
					if seen[n.ID] {
						f.Error("claimed twice")
					}
					seen[n.ID] = true
				}
			}
		}},
		{"a claim of none takes none", func(f *fixture) {
			f.leave(2)
			for _, max := range []int{0, -1} {
				if n := f.claimFor(target, max); len(n) != 0 {
					f.Errorf("Claim of %d: %d notices", max, len(n))
				}
			}
			if n := f.claim(); len(n) != 2 || n[0].Attempts != 1 {
				f.Errorf("claimed %d notices, want 2 that nobody tried", len(n))
			}
		}},
		{"two workers never hold the same notice", func(f *fixture) {
			f.leave(60)
			f.claimTogether(target, 6, 7, 60)
		}},
		{"a notice is done once", func(f *fixture) {
			f.leave(1)
			n := f.one()
			f.complete(n, done)
			f.wantError("Complete again", f.store.Complete(f.ctx, n, done), store.ErrLeaseLost)
			f.now = f.now.Add(time.Hour)
			f.wantNone("after it was done")
		}},
		{"a notice is tried again when it is due again", func(f *fixture) {
			f.leave(1)
			n := f.one()
			due := f.now.Add(10 * time.Minute)
			f.complete(n, store.Outcome{RetryAt: due, Reason: "503 from the app's side: it's %s"})
			f.wantError("Complete again", f.store.Complete(f.ctx, n, done), store.ErrLeaseLost)
			f.now = due.Add(-time.Microsecond)
			f.wantNone("before it is due")
			f.now = due
			again := f.one()
			if again.ID != n.ID || again.Attempts != 2 || !again.Due.Equal(due) ||
				again.Reason != "503 from the app's side: it's %s" {
				f.Errorf("claimed %+v, want the second attempt, due at %v, with the reason", again, due)
			}
			if !again.Created.Equal(n.Created) || !again.Deadline.Equal(n.Deadline) {
				f.Errorf("created %v, deadline %v: they changed", again.Created, again.Deadline)
			}
		}},
		{"a retry may be before the lease would have run out", func(f *fixture) {
			f.leave(1)
			f.complete(f.one(), store.Outcome{RetryAt: f.now})
			f.one()
		}},
		{"what was not tried does not count as an attempt", func(f *fixture) {
			f.leave(1)
			for range 4 {
				n := f.one()
				if n.Attempts != 1 || n.Reason != "" {
					f.Errorf("claimed %+v, want a first attempt", n)
				}
				f.complete(n, store.Outcome{RetryAt: n.Due, Untried: true})
			}
			f.complete(f.one(), store.Outcome{RetryAt: f.now, Reason: "503"})
			n := f.one()
			if n.Attempts != 2 || n.Reason != "503" {
				f.Errorf("claimed %+v, want a second attempt after one that was made", n)
			}
			due := f.now.Add(time.Minute)
			f.complete(n, store.Outcome{RetryAt: due, Untried: true, Reason: "unknown here"})
			f.wantError("Complete again", f.store.Complete(f.ctx, n, store.Outcome{RetryAt: f.now, Untried: true}),
				store.ErrLeaseLost)
			f.wantNone("before it is due")
			f.now = due
			n = f.one()
			if n.Attempts != 2 || n.Reason != "unknown here" {
				f.Errorf("claimed %+v, want the second attempt still, with the reason", n)
			}
			f.complete(n, store.Outcome{GiveUp: true, Untried: true, Reason: "too late"})
			if dead := f.look(store.NoticeQuery{State: store.NoticeDead}); len(dead) != 1 || dead[0].Attempts != 1 ||
				dead[0].Reason != "too late" {
				f.Errorf("dead letters %+v, want one that was tried once", dead)
			}
		}},
		{"a lease that ran out counts as an attempt, and can be given back untried", func(f *fixture) {
			f.leave(1)
			f.one()
			f.now = f.now.Add(time.Minute)
			n := f.one()
			f.now = f.now.Add(time.Hour)
			f.complete(n, store.Outcome{RetryAt: f.now, Untried: true})
			if n := f.one(); n.Attempts != 2 {
				f.Errorf("claimed %+v, want the second attempt", n)
			}
		}},
		{"a notice that is given up is never claimed again", func(f *fixture) {
			f.leave(1)
			n := f.one()
			f.complete(n, store.Outcome{GiveUp: true, Reason: "410"})
			f.wantError("Complete again", f.store.Complete(f.ctx, n, store.Outcome{RetryAt: f.now}), store.ErrLeaseLost)
			f.now = f.now.Add(1000 * time.Hour)
			f.wantNone("after it was given up")
		}},
		{"a lease that ran out can still be completed", func(f *fixture) {
			f.leave(1)
			n := f.one()
			f.now = f.now.Add(time.Hour)
			f.complete(n, done)
			f.wantNone("after it was done")
		}},
		{"who lost the lease changes nothing", func(f *fixture) {
			f.leave(1)
			slow := f.one()
			f.now = f.now.Add(time.Minute)
			quick := f.one()
			for _, o := range []store.Outcome{done, {RetryAt: f.now}, {GiveUp: true}} {
				f.wantError(fmt.Sprintf("Complete %+v", o), f.store.Complete(f.ctx, slow, o), store.ErrLeaseLost)
			}
			f.wantNone("while the second holds it")
			f.complete(quick, done)
			f.now = f.now.Add(time.Hour)
			f.wantNone("after it was done")
		}},
		{"a notice that was never claimed cannot be completed", func(f *fixture) {
			f.leave(1)
			for _, n := range []store.Notice{{}, {ID: "1"}, {ID: "1", Lease: "x"}, {ID: "no such", Lease: "x"}} {
				f.wantError(fmt.Sprintf("Complete %+v", n), f.store.Complete(f.ctx, n, done), store.ErrLeaseLost)
			}
			n := f.one()
			n.Lease = ""
			f.wantError("Complete without the lease", f.store.Complete(f.ctx, n, done), store.ErrLeaseLost)
		}},
		{"an outcome that is not one is refused", func(f *fixture) {
			f.leave(1)
			n := f.one()
			for _, o := range []store.Outcome{
				{}, {Reason: "none"}, {Done: true, GiveUp: true}, {Done: true, RetryAt: f.now},
				{GiveUp: true, RetryAt: f.now}, {Untried: true}, {Done: true, Untried: true},
			} {
				f.wantFault(fmt.Sprintf("Complete %+v", o), f.store.Complete(f.ctx, n, o))
			}
			f.complete(n, done)
		}},
		{"those that have been due for longest come first", func(f *fixture) {
			f.leave(4)
			all := f.claim()
			for i, delay := range []time.Duration{40, 10, 30, 20} {
				f.complete(all[i], store.Outcome{RetryAt: f.now.Add(delay * time.Minute)})
			}
			f.now = f.now.Add(time.Hour)
			var got []string
			for _, max := range []int{1, 3} {
				for _, n := range f.claimFor(target, max) {
					got = append(got, n.ID)
				}
			}
			if want := fmt.Sprint([]string{all[1].ID, all[3].ID, all[2].ID, all[0].ID}); fmt.Sprint(got) != want {
				f.Errorf("claimed %v, want %v", got, want)
			}
		}},
		{"one that was claimed and forgotten keeps its place", func(f *fixture) {
			f.leave(1)
			old := f.one()
			f.now = f.now.Add(30 * time.Second)
			f.leave(1)
			f.now = f.now.Add(time.Hour)
			if n := f.claim(); len(n) != 2 || n[0].ID != old.ID {
				f.Errorf("claimed %d notices, want 2 with the older one first", len(n))
			}
		}},
	}
}
