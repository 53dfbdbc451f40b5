package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"example.com/curfew/store"
)

// several is a number of sessions that takes more than two batches.
const several = 2*store.EndBatch + 1

func batchCases() []testCase {
	return []testCase{
		{"an ending of several batches ends all, and nobody else", func(f *fixture) {
			for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
				all := f.crowd(several)
				bystander := f.signIn("bob", "s2")
				heard := f.watch()
				e := ending(who)
				e.JTI, e.JTIExpires = fmt.Sprint(who), f.now.Add(time.Hour)
				e.Notices = []store.NoticeRequest{
					{Kind: store.NoticeLogout, Target: "whole", Deadline: f.now.Add(time.Hour)},
					{Kind: store.NoticeRevoke, Target: "main", Deadline: f.now.Add(time.Hour)},
				}
				f.wantEnded(f.endWith(e), all...)
				f.wantHeard(heard, all...)
				f.wantAlive(bystander)
				_, err := f.store.End(f.ctx, e, f.now)
				f.wantError("End again", err, store.ErrReplayed)
				told, revoked := 0, 0
				for notices := f.claim(); len(notices) > 0; notices = f.claim() {
					for _, n := range notices {
						switch {
						case n.Kind == store.NoticeLogout:
							told++
						case len(n.Payload) == 0:
							f.Errorf("a token is to be revoked and is not there")
						default:
							revoked++
						}
						if err := f.store.Complete(f.ctx, n, store.Outcome{Done: true}); err != nil {
							f.Fatal(err)
						}
					}
				}
				want := several
				if who == (store.Selector{Subject: "alice"}) {
					want = 1
				}
				if told != want || revoked != several/2 {
					f.Errorf("%+v: %d logout notices and %d to revoke, want %d and %d", who, told, revoked, want,
						several/2)
				}
				f.end(store.Selector{Subject: "bob"})
				f.now = f.now.Add(time.Second) // past the marks
			}
		}},
		{"a replay ends no batch", func(f *fixture) {
			e := ending(store.Selector{Subject: "alice"})
			e.JTI, e.JTIExpires = "j1", f.now.Add(time.Hour)
			f.endWith(e)
			f.now = f.now.Add(time.Second)
			all := f.crowd(several)
			_, err := f.store.End(f.ctx, e, f.now)
			f.wantError("End", err, store.ErrReplayed)
			f.wantAlive(all[0])
			f.wantAlive(all[several-1])
		}},
		{"an ending goes on when nobody waits for it, and others have their turn", func(f *fixture) {
			all := f.crowd(several)
			bob := f.signIn("bob", "s2")
			ctx, cancel := context.WithCancel(f.ctx)
			var first sync.Once
			var heard atomic.Int64
			var others sync.WaitGroup
			feed, err := f.store.Watch(f.ctx, func(e store.Ended) {
				heard.Add(1)
				first.Do(func() {
					cancel()
					others.Go(func() {
						if _, err := f.store.End(f.ctx, ending(store.Selector{Subject: "bob"}), f.now); err != nil {
							f.Errorf("another person's logout: %v", err)
						}
					})
				})
			})
			if err != nil {
				f.Fatal(err)
			}
			defer feed.Close()
			f.inSync(feed)
			if _, err := f.store.End(ctx, ending(store.Selector{Subject: "alice"}), f.now); err != nil &&
				!errors.Is(err, context.Canceled) {
				f.Errorf("End: %v", err)
			}
			f.inSync(feed)
			others.Wait()
			f.inSync(feed)
			f.wantGone(bob)
			f.wantGone(all[several-1])
			if n := heard.Load(); n != several+1 {
				f.Errorf("heard of %d, want %d", n, several+1)
			}
		}},
		{"room is made for the newest", func(f *fixture) {
			const keep = 3
			var all []store.Record
			for i := range 6 {
				r := f.record("alice", fmt.Sprint("s", i%2))
				r.Created = f.now.Add(time.Duration(i-6) * time.Minute)
				r.Refresh = store.RefreshOnline
				all = append(all, f.create(r))
			}
			bob := f.signIn("bob", "s1")
			heard := f.watch()
			e := ending(store.Selector{Subject: "alice"})
			e.Spare = keep
			e.Notices = []store.NoticeRequest{
				{Kind: store.NoticeLogout, Target: "wiki", Deadline: f.now.Add(time.Hour)},
				{Kind: store.NoticeRevoke, Target: "main", Deadline: f.now.Add(time.Hour)},
			}
			f.wantEnded(f.endWith(e), all[:3]...)
			f.wantHeard(heard, all[:3]...)
			for _, r := range append(all[3:], bob) {
				f.wantAlive(r)
			}
			if n := len(f.claim()); n != 6 {
				f.Errorf("%d notices, want one logout and one revocation for each of three", n)
			}
			f.wantEnded(f.endWith(e)) // there is room now
			if n := len(f.claim()); n != 0 {
				f.Errorf("%d notices though nobody ended", n)
			}
			late := f.record("alice", "s1")
			if err := f.store.Create(f.ctx, late, f.now.Add(-time.Minute), f.now); err != nil {
				f.Errorf("Create: %v: making room left a mark", err)
			}
		}},
		{"room is made for the newest, in whatever order they came", func(f *fixture) {
			var all []store.Record
			for i, created := range []time.Time{f.now, store.FromMicros(0), f.now.Add(-time.Minute),
				store.TokenCreated(f.now)} {
				r := f.record("alice", fmt.Sprint("s", i))
				r.Created = created
				all = append(all, f.create(r))
			}
			e := ending(store.Selector{Subject: "alice"})
			e.Spare = 2
			f.wantEnded(f.endWith(e), all[1], all[3])
			f.wantAlive(all[0])
			f.wantAlive(all[2])
		}},
		{"of many access tokens the one that came last stays", func(f *fixture) {
			var all []store.Record
			e := ending(store.Selector{Subject: "alice"})
			e.Spare = 5
			for i := range 30 {
				r := f.record("alice", []string{"", fmt.Sprint("s", i*7%30)}[i%2])
				r.Created = store.TokenCreated(f.now.Add(time.Duration(i) * time.Millisecond))
				f.wantAdmitted(r, f.now)
				if all = append(all, r); len(all) <= e.Spare {
					f.wantEnded(f.endWith(e))
					continue
				}
				f.wantEnded(f.endWith(e), all[0])
				all = all[1:]
			}
			for _, r := range all {
				f.wantAlive(r)
			}
		}},
		{"room is made a batch at a time", func(f *fixture) {
			f.crowd(several)
			e := ending(store.Selector{Subject: "alice"})
			e.Spare = 1
			for _, want := range []int{store.EndBatch, store.EndBatch, 0} {
				if ended := f.endWith(e); len(ended) != want {
					f.Errorf("%d ended, want %d", len(ended), want)
				}
			}
		}},
		{"room is made for a subject alone", func(f *fixture) {
			r := f.signIn("alice", "s1")
			for _, e := range []store.Ending{
				{Selector: store.Selector{SID: "s1"}, Spare: 1}, {Selector: store.Selector{Key: r.Key}, Spare: 1},
				{Selector: store.Selector{Subject: "alice", SID: "s1"}, Spare: 1},
				{Selector: store.Selector{Subject: "alice"}, Spare: -1},
				{Selector: store.Selector{Subject: "alice"}, Spare: 1, JTI: "j"},
			} {
				e.Selector.Issuer, e.Selector.ClientID = issuer, client
				_, err := f.store.End(f.ctx, e, f.now)
				f.wantFault(fmt.Sprintf("End %+v", e), err)
			}
			f.wantAlive(r)
		}},
	}
}

// crowd creates n sessions of alice with one sid, one after the other. Every second one holds a refresh token.
func (f *fixture) crowd(n int) []store.Record {
	f.Helper()
	all := make([]store.Record, n)
	for i := range all {
		all[i] = f.record("alice", "s1")
		all[i].Created = f.now.Add(time.Duration(i-n) * time.Millisecond)
		all[i].Refresh = store.Refresh(i % 2)
	}
	f.createAll(all)
	return all
}

func (f *fixture) inSync(feed store.Feed) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, 30*time.Second)
	defer cancel()
	if err := feed.Sync(ctx); err != nil {
		f.Errorf("Sync: %v", err)
	}
}
