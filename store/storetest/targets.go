package storetest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"example.com/curfew/store"
)

// leaveFor adds n notices for one target, created one after the other.
func (f *fixture) leaveFor(target string, n int) {
	f.Helper()
	var all []store.Notice
	for i := range n {
		created := f.now.Add(time.Duration(i-n) * time.Second)
		all = append(all, store.Notice{Kind: store.NoticeLogout, Target: target, Issuer: issuer, ClientID: client,
			Subject: fmt.Sprint("user", i), Cause: store.CauseUser, Created: created, Due: created,
			Deadline: f.now.Add(time.Hour)})
	}
	if err := f.store.Enqueue(f.ctx, all); err != nil {
		f.Fatalf("Enqueue: %v", err)
	}
}

// claimFor claims what is due for one target.
func (f *fixture) claimFor(target string, max int) []store.Notice {
	f.Helper()
	n, err := f.store.Claim(f.ctx, store.NoticeLogout, target, f.now, time.Minute, max)
	if err != nil {
		f.Fatalf("Claim: %v", err)
	}
	return n
}

// look returns all notices that match q, in pages of two.
func (f *fixture) look(q store.NoticeQuery) (all []store.Notice) {
	f.Helper()
	q.Limit = 2
	for pages := 0; ; pages++ {
		page, err := f.store.Notices(f.ctx, q)
		if err != nil {
			f.Fatalf("Notices: %v", err)
		}
		if len(page.Notices) > 2 || pages > 100 {
			f.Fatalf("Notices: page %d has %d, want 2 and an end", pages, len(page.Notices))
		}
		all = append(all, page.Notices...)
		if q.After = page.Next; page.Next == "" {
			return all
		}
	}
}

func (f *fixture) wantStats(want ...store.NoticeStats) {
	f.Helper()
	got, err := f.store.Stats(f.ctx)
	if err != nil {
		f.Fatalf("Stats: %v", err)
	}
	order := func(a, b store.NoticeStats) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Kind, b.Kind))
	}
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if diff := gocmp.Diff(slices.Concat([]store.NoticeStats{}, want),
		slices.Concat([]store.NoticeStats{}, got)); diff != "" {
		f.Errorf("Stats (-want +got):\n%s", diff)
	}
}

func targetCases() []testCase {
	done := store.Outcome{Done: true}
	dead := store.Outcome{GiveUp: true, Reason: "410"}
	return []testCase{
		{"a claim for one target takes nothing of another", func(f *fixture) {
			f.leaveFor("a", 3)
			f.leaveFor("b", 2)
			if err := f.store.Enqueue(f.ctx, []store.Notice{{Kind: store.NoticeRevoke, Target: "a", Payload: []byte{1},
				Due: f.now}}); err != nil {
				f.Fatal(err)
			}
			f.leave(1) // by an ending, for another target
			got := f.claimFor("a", 10)
			for i, n := range got {
				if n.Target != "a" || n.Kind != store.NoticeLogout || n.Subject != fmt.Sprint("user", i) ||
					n.Attempts != 1 || n.Lease == "" {
					f.Errorf("claimed %+v, want the notice %d for a, as a first attempt", n, i)
				}
			}
			if len(got) != 3 || len(f.claimFor("b", 1)) != 1 || len(f.claimFor("nobody", 9)) != 0 ||
				len(f.claimFor("b", 0)) != 0 {
				f.Errorf("claimed %d for a, want 3; then one for b, none for nobody, and none of none", len(got))
			}
			if rest := f.claim(); len(rest) != 3 {
				f.Errorf("%d are left to claim, want one for b, one of the ending and the revocation", len(rest))
			}
		}},
		{"a claim for one target leases as any other does", func(f *fixture) {
			f.leaveFor("a", 2)
			first := f.claimFor("a", 1)
			f.complete(first[0], store.Outcome{RetryAt: f.now.Add(10 * time.Minute), Reason: "503"})
			second := f.claimFor("a", 9)
			if len(second) != 1 || second[0].ID == first[0].ID {
				f.Fatalf("claimed %v, want the second notice alone", second)
			}
			f.wantNone("while all are leased or not due")
			f.now = f.now.Add(time.Minute)
			again := f.claimFor("a", 9)
			if len(again) != 1 || again[0].ID != second[0].ID || again[0].Attempts != 2 {
				f.Fatalf("claimed %+v after the lease had run out, want the second notice again", again)
			}
			f.wantError("Complete after the lease was lost", f.store.Complete(f.ctx, second[0], done),
				store.ErrLeaseLost)
			f.complete(again[0], done)
			f.now = f.now.Add(time.Hour)
			if last := f.claimFor("a", 9); len(last) != 1 || last[0].ID != first[0].ID || last[0].Reason != "503" {
				f.Errorf("claimed %+v at last, want the first notice", last)
			}
		}},
		{"two workers for one target never hold the same notice", func(f *fixture) {
			f.leaveFor("a", 40)
			f.claimTogether("a", 4, 3, 40)
		}},
		{"what is left is kept as it was left", func(f *fixture) {
			r := f.record("alice", "s1")
			want := f.about(store.NoticeRevoke, r)
			left := want
			left.ID, left.Attempts, left.Lease, left.Reason, left.GivenUp = "7", 9, "x", "old", true
			if err := f.store.Enqueue(f.ctx, []store.Notice{left}); err != nil {
				f.Fatal(err)
			}
			f.wantNotices(want)
		}},
		{"notices are left all or none", func(f *fixture) {
			good := store.Notice{Kind: store.NoticeLogout, Target: "a", Due: f.now}
			f.wantFault("Enqueue of an unknown kind", f.store.Enqueue(f.ctx,
				[]store.Notice{good, {Kind: "shout", Target: "a"}}))
			if err := f.store.Enqueue(f.ctx, nil); err != nil {
				f.Errorf("Enqueue of none: %v", err)
			}
			f.wantNone("after an Enqueue that failed")
		}},
		{"notices are looked at without being touched", func(f *fixture) {
			f.leaveFor("a", 3)
			f.leaveFor("b", 2)
			f.complete(f.claimFor("a", 1)[0], dead)
			held := f.claimFor("b", 1)
			for _, c := range []struct {
				q    store.NoticeQuery
				want int
			}{
				{store.NoticeQuery{}, 5}, {store.NoticeQuery{Target: "a"}, 3}, {store.NoticeQuery{Target: "c"}, 0},
				{store.NoticeQuery{State: store.NoticeDead}, 1}, {store.NoticeQuery{State: store.NoticePending}, 4},
				{store.NoticeQuery{Target: "a", State: store.NoticePending}, 2},
				{store.NoticeQuery{Target: "b", State: store.NoticeDead}, 0},
				{store.NoticeQuery{Kind: store.NoticeRevoke}, 0}, {store.NoticeQuery{Kind: store.NoticeLogout}, 5},
			} {
				got := f.look(c.q)
				seen := make(map[string]bool)
				for _, n := range got {
					if seen[n.ID] || n.Lease != "" || n.Payload != nil {
						f.Errorf("%+v shows %+v; want each once, without its lease and payload", c.q, n)
					}
					seen[n.ID] = true
				}
				if len(got) != c.want {
					f.Errorf("%+v shows %d notices, want %d", c.q, len(got), c.want)
				}
			}
			letter := f.look(store.NoticeQuery{State: store.NoticeDead})[0]
			if !letter.GivenUp || letter.Reason != "410" || letter.Attempts != 1 || letter.Subject != "user0" {
				f.Errorf("the dead letter is %+v", letter)
			}
			one, err := f.store.Notices(f.ctx, store.NoticeQuery{ID: letter.ID})
			if diff := gocmp.Diff(store.NoticePage{Notices: []store.Notice{letter}}, one); err != nil || diff != "" {
				f.Errorf("Notices with an ID: error %v (-list +notice):\n%s", err, diff)
			}
			for _, q := range []store.NoticeQuery{{Target: "b"}, {Kind: store.NoticeRevoke},
				{State: store.NoticePending}} {
				if q.ID = letter.ID; len(f.look(q)) != 0 {
					f.Errorf("%+v shows a notice that it does not ask for", q)
				}
			}
			f.complete(held[0], done) // the lease still holds
			for _, id := range []string{held[0].ID, "no such", "-1", "0"} {
				if got := f.look(store.NoticeQuery{ID: id}); len(got) != 0 {
					f.Errorf("Notices with the ID %q: %+v, want none", id, got)
				}
			}
			for _, q := range []store.NoticeQuery{{Limit: -1}, {Limit: 1001}, {State: "lost"}} {
				_, err := f.store.Notices(f.ctx, q)
				f.wantFault(fmt.Sprintf("Notices %+v", q), err)
			}
		}},
		{"a dead letter that is retried is a notice again", func(f *fixture) {
			f.leaveFor("a", 1)
			n := f.claimFor("a", 1)[0]
			f.complete(n, dead)
			due, deadline := f.now.Add(time.Minute), f.now.Add(48*time.Hour)
			if err := f.store.Retry(f.ctx, n.ID, due, deadline); err != nil {
				f.Fatal(err)
			}
			f.wantNone("before it is due")
			f.now = due
			again := f.claimFor("a", 1)
			if len(again) != 1 || again[0].GivenUp || !again[0].Deadline.Equal(deadline) || again[0].Attempts != 1 ||
				again[0].Reason != "410" {
				f.Fatalf("claimed %+v, want it again, with the new deadline, as a first attempt", again)
			}
			f.wantError("Complete by the claim before", f.store.Complete(f.ctx, n, done), store.ErrLeaseLost)
			f.complete(again[0], done)
			f.wantError("Retry of what is done", f.store.Retry(f.ctx, n.ID, f.now, deadline), store.ErrNoNotice)
			f.wantError("Retry of nothing", f.store.Retry(f.ctx, "no such", f.now, deadline), store.ErrNoNotice)
		}},
		{"a retry is sooner, and waits for who holds it", func(f *fixture) {
			f.leaveFor("a", 1)
			n := f.claimFor("a", 1)[0]
			f.complete(n, store.Outcome{RetryAt: f.now.Add(time.Hour)})
			if err := f.store.Retry(f.ctx, n.ID, f.now, f.now.Add(time.Hour)); err != nil {
				f.Fatal(err)
			}
			held := f.claimFor("a", 1)
			if len(held) != 1 {
				f.Fatal("it is not due")
			}
			if err := f.store.Retry(f.ctx, n.ID, f.now, f.now.Add(2*time.Hour)); err != nil {
				f.Fatal(err)
			}
			f.wantNone("while it is held")
			f.complete(held[0], done)
			f.wantNone("after it was done")
		}},
		{"a retry starts the attempts anew, never below none", func(f *fixture) {
			f.leaveFor("a", 1)
			var n store.Notice
			for range 3 {
				n = f.claimFor("a", 1)[0]
				f.complete(n, store.Outcome{RetryAt: f.now})
			}
			wantAttempts := func(when string, want int) {
				f.Helper()
				if all := f.look(store.NoticeQuery{}); len(all) != 1 || all[0].Attempts != want {
					f.Errorf("%+v %s, want %d attempts", all, when, want)
				}
			}
			retry := func() {
				f.Helper()
				if err := f.store.Retry(f.ctx, n.ID, f.now, f.now.Add(time.Hour)); err != nil {
					f.Fatal(err)
				}
			}
			wantAttempts("after three attempts", 3)
			retry()
			wantAttempts("after a retry", 0)
			n = f.claimFor("a", 1)[0]
			if n.Attempts != 1 {
				f.Errorf("claimed %+v, want a first attempt", n)
			}
			retry()
			wantAttempts("after a retry of one that is held", 0)
			f.complete(n, store.Outcome{RetryAt: f.now, Untried: true})
			wantAttempts("after it was given back untried", 0)
		}},
		{"what is dropped is gone, whoever holds it", func(f *fixture) {
			f.leaveFor("a", 3)
			claimed := f.claimFor("a", 2)
			f.complete(claimed[0], dead)
			waits := f.look(store.NoticeQuery{})[2]
			for _, id := range []string{claimed[0].ID, claimed[1].ID, waits.ID} {
				if err := f.store.Drop(f.ctx, id); err != nil {
					f.Errorf("Drop: %v", err)
				}
				f.wantError("Drop again", f.store.Drop(f.ctx, id), store.ErrNoNotice)
			}
			f.wantError("Complete of what was dropped", f.store.Complete(f.ctx, claimed[1], done), store.ErrLeaseLost)
			f.now = f.now.Add(time.Hour)
			f.wantNone("after all were dropped")
			f.wantStats()
		}},
		{"the stats count what is pending and what is dead", func(f *fixture) {
			f.wantStats()
			f.leaveFor("a", 3)
			f.leaveFor("b", 1)
			stats := func(target string, pending, dead int, oldest time.Duration) store.NoticeStats {
				t := store.NoticeStats{Kind: store.NoticeLogout, Target: target, Pending: pending, Dead: dead}
				if pending > 0 {
					t.Oldest = f.now.Add(-oldest)
				}
				return t
			}
			f.wantStats(stats("a", 3, 0, 3*time.Second), stats("b", 1, 0, time.Second))
			a := f.claimFor("a", 2) // leased notices are pending
			f.wantStats(stats("a", 3, 0, 3*time.Second), stats("b", 1, 0, time.Second))
			f.complete(a[0], dead)
			f.complete(a[1], store.Outcome{RetryAt: f.now.Add(time.Hour)})
			f.complete(f.claimFor("b", 1)[0], dead)
			f.wantStats(stats("a", 2, 1, 2*time.Second), stats("b", 0, 1, 0))
			if err := f.store.Retry(f.ctx, a[0].ID, f.now, f.now.Add(time.Hour)); err != nil {
				f.Fatal(err)
			}
			f.wantStats(stats("a", 3, 0, 3*time.Second), stats("b", 0, 1, 0))
		}},
		{"what ran out with a refresh token is overdue until it is pruned", func(f *fixture) {
			want := make(map[store.Key]store.Record)
			for i, refresh := range []store.Refresh{store.RefreshOnline, store.RefreshOffline, store.RefreshOnline,
				store.RefreshNone} {
				r := f.record(fmt.Sprint("user", i), "")
				r.Refresh = refresh
				switch i {
				case 0:
					r.IdleExpires = f.now.Add(time.Minute)
				case 1, 3:
					r.Expires = f.now.Add(time.Minute)
				}
				f.create(r)
				if i < 2 {
					want[r.Key] = r
				}
			}
			ended := f.record("gone", "s9")
			ended.Refresh, ended.Expires = store.RefreshOnline, f.now.Add(time.Minute)
			f.create(ended)
			f.end(store.Selector{SID: "s9"})
			overdue := func(after store.Key, limit int) []store.Record {
				all, err := f.store.Overdue(f.ctx, after, limit, f.now)
				if err != nil {
					f.Fatalf("Overdue: %v", err)
				}
				return all
			}
			f.now = f.now.Add(time.Minute - time.Microsecond)
			if n := len(overdue(store.Key{}, 10)); n != 0 {
				f.Errorf("%d are overdue that still live", n)
			}
			f.now = f.now.Add(time.Microsecond)
			var last store.Key
			for range 2 {
				page := overdue(last, 1)
				if len(page) != 1 || bytes.Compare(page[0].Key[:], last[:]) <= 0 {
					f.Fatalf("a page holds %d, or is out of order", len(page))
				}
				last = page[0].Key
				if diff := gocmp.Diff(kept(want[last]), kept(page[0])); diff != "" {
					f.Errorf("overdue (-want +got):\n%s", diff)
				}
				delete(want, last)
			}
			if rest := overdue(last, 10); len(rest) != 0 || len(want) != 0 {
				f.Errorf("%d more are overdue, %d are missing", len(rest), len(want))
			}
			f.pruneAll(f.now)
			if n := len(overdue(store.Key{}, 10)); n != 0 {
				f.Errorf("%d are overdue after they were pruned", n)
			}
		}},
		{"the outbox is there after a restart", func(f *fixture) {
			if f.h.Reopen == nil {
				f.Skip("this store keeps nothing over a restart")
			}
			f.leaveFor("a", 3)
			claimed := f.claimFor("a", 2)
			f.complete(claimed[0], dead)
			before := f.look(store.NoticeQuery{})
			f.store = f.h.Reopen(f.T)
			if diff := gocmp.Diff(before, f.look(store.NoticeQuery{})); diff != "" {
				f.Errorf("notices (-before +after):\n%s", diff)
			}
			if n := f.claimFor("a", 9); len(n) != 1 {
				f.Errorf("claimed %d, want the one that is neither dead nor leased", len(n))
			}
			f.complete(claimed[1], done)
		}},
	}
}

func (f *fixture) wantValue(name string, value []byte, revision int64) {
	f.Helper()
	got, r, err := f.store.Load(f.ctx, name)
	if err != nil || r != revision || !bytes.Equal(got, value) {
		f.Errorf("Load %q: %q at revision %d (error %v), want %q at %d", name, got, r, err, value, revision)
	}
}

func (f *fixture) save(name string, value []byte, revision int64) {
	f.Helper()
	if err := f.store.Save(f.ctx, name, value, revision); err != nil {
		f.Errorf("Save %q: %v", name, err)
	}
}

func sharedValueCases() []testCase {
	return []testCase{
		{"a value is saved over the revision that it was loaded at", func(f *fixture) {
			f.wantValue("keys", nil, 0)
			f.save("keys", []byte{0, 1, '\'', 0xff}, 0)
			f.save("other", []byte("x"), 0)
			f.wantValue("keys", []byte{0, 1, '\'', 0xff}, 1)
			f.save("keys", []byte("two"), 1)
			f.wantValue("keys", []byte("two"), 2)
			for _, revision := range []int64{0, 1, 3, -1} {
				f.wantError(fmt.Sprint("Save at ", revision), f.store.Save(f.ctx, "keys", []byte("no"), revision),
					store.ErrConflict)
			}
			f.wantError("Save of what is not there at 1", f.store.Save(f.ctx, "new", []byte("no"), 1),
				store.ErrConflict)
			f.save("keys", nil, 2)
			f.wantValue("keys", nil, 3)
			f.wantValue("other", []byte("x"), 1)
			f.wantValue("new", nil, 0)
		}},
		{"one of many that save wins", func(f *fixture) {
			v := f.store
			var won atomic.Int32
			for revision := range int64(3) {
				f.together(6, func(i int) error {
					err := v.Save(f.ctx, "keys", []byte{byte(i)}, revision)
					if err == nil {
						won.Add(1)
					} else if !errors.Is(err, store.ErrConflict) {
						return err
					}
					return nil
				})
			}
			if won.Load() != 3 {
				f.Errorf("%d saved, want one of each revision", won.Load())
			}
		}},
		{"what is too large is refused", func(f *fixture) {
			large := make([]byte, 256<<10)
			name := string(bytes.Repeat([]byte("n"), 256))
			f.save(name, large, 0)
			f.wantValue(name, large, 1)
			f.wantFault("Save of a byte more", f.store.Save(f.ctx, "keys", append(large, 1), 0))
			f.wantFault("Save under a longer name", f.store.Save(f.ctx, name+"n", nil, 0))
			f.wantFault("Save under no name", f.store.Save(f.ctx, "", nil, 0))
		}},
		{"a shared value is there after a restart, and is not pruned", func(f *fixture) {
			if f.h.Reopen == nil {
				f.Skip("this store keeps nothing over a restart")
			}
			f.save("keys", []byte("kept"), 0)
			f.pruneAll(f.now.Add(1000 * time.Hour))
			f.store = f.h.Reopen(f.T)
			f.wantValue("keys", []byte("kept"), 1)
			f.save("keys", []byte("next"), 1)
		}},
		{"a value handed in or out is the caller's own", func(f *fixture) {
			value := []byte("kept")
			f.save("keys", value, 0)
			value[0] = 'X'
			got, _, _ := f.store.Load(f.ctx, "keys")
			got[1] = 'X'
			f.wantValue("keys", []byte("kept"), 1)
		}},
	}
}
