package storetest

import (
	"context"
	"fmt"
	"time"

	"example.com/curfew/store"
)

func restartCases() []testCase {
	return []testCase{
		{"what was kept is kept, and what ended stays ended", func(f *fixture) {
			if f.h.Reopen == nil {
				f.Skip("this store keeps nothing over a restart")
			}
			stays, ends := f.signIn("alice", "s1"), f.signIn("bob", "s2")
			stays.Payload, stays.Refresh = []byte{0, 1, 2, 0xff}, store.RefreshOffline
			if err := f.store.Update(f.ctx, stays, f.now); err != nil {
				f.Fatalf("Update: %v", err)
			}
			stays.Revision++
			e := f.endingWith(store.Selector{Subject: "bob"}, store.NoticeRequest{Kind: store.NoticeLogout})
			e.JTI, e.JTIExpires = "j1", f.now.Add(time.Hour)
			f.wantEnded(f.endWith(e), ends)
			f.endWith(f.endingWith(store.Selector{Subject: "carol"}, store.NoticeRequest{Kind: store.NoticeLogout}))
			f.endWith(f.endingWith(store.Selector{Subject: "dave"}, store.NoticeRequest{Kind: store.NoticeLogout}))
			claimed, err := f.store.Claim(f.ctx, store.NoticeLogout, target, f.now, time.Minute, 2)
			if err != nil || len(claimed) != 2 {
				f.Fatalf("claimed %d (error %v), want 2", len(claimed), err)
			}
			f.complete(claimed[0], store.Outcome{GiveUp: true, Reason: "410"})

			f.store = f.h.Reopen(f.T)

			f.wantAlive(stays)
			f.wantGone(ends)
			f.wantError("Update of what ended", f.store.Update(f.ctx, ends, f.now), store.ErrNotFound)
			_, err = f.store.End(f.ctx, e, f.now)
			f.wantError("End with the same jti", err, store.ErrReplayed)
			f.wantBarred("bob", "s2", f.now)
			if n := f.claim(); len(n) != 1 || n[0].Attempts != 1 {
				f.Errorf("claimed %d notices, want the one that nobody had claimed", len(n))
			}
			f.complete(claimed[1], store.Outcome{Done: true}) // the lease holds over the restart
			f.now = f.now.Add(time.Hour)
			if n := f.claim(); len(n) != 1 {
				f.Errorf("claimed %d notices after an hour, want the one that was not completed", len(n))
			}
			f.wantEnded(f.end(store.Selector{SID: "s1"}))
			f.now = f.now.Add(-time.Hour)
			fresh := f.signIn("erin", "s9")
			f.wantEnded(f.end(store.Selector{SID: "s9"}), fresh)
		}},
	}
}

func contextCases() []testCase {
	return []testCase{
		{"a context that is done changes nothing", func(f *fixture) {
			r := f.signIn("alice", "s1")
			heard := f.watch()
			f.leave(1)
			ctx, cancel := context.WithCancel(f.ctx)
			cancel()

			fresh := f.record("bob", "s2")
			f.wantFault("Create", f.store.Create(ctx, fresh, f.now, f.now))
			_, err := f.store.Find(ctx, r.Key, f.now)
			f.wantFault("Find", err)
			f.wantFault("Update", f.store.Update(ctx, r, f.now))
			e := f.endingWith(store.Selector{Subject: "alice"}, store.NoticeRequest{Kind: store.NoticeLogout})
			e.JTI, e.JTIExpires = "j1", f.now.Add(time.Hour)
			_, err = f.store.End(ctx, e, f.now)
			f.wantFault("End", err)
			_, err = f.store.List(ctx, store.Query{}, f.now)
			f.wantFault("List", err)
			_, err = f.store.Prune(ctx, f.now.Add(1000*time.Hour))
			f.wantFault("Prune", err)
			_, err = f.store.Claim(ctx, store.NoticeLogout, target, f.now, time.Minute, 10)
			f.wantFault("Claim", err)
			_, err = f.store.Watch(ctx, func(store.Ended) {})
			f.wantFault("Watch", err)
			_, err = f.store.ClaimAttempt(ctx, store.AttemptID{1}, []byte("a"), f.now.Add(time.Hour), f.now)
			f.wantFault("ClaimAttempt", err)
			f.wantFault("CompleteAttempt", f.store.CompleteAttempt(ctx, store.AttemptID{1}, []byte("a"), f.now))
			_, err = f.store.Attempt(ctx, store.AttemptID{1}, f.now)
			f.wantFault("Attempt", err)
			f.wantFault("Append", f.store.Append(ctx, [][]byte{[]byte("a")}, f.now))
			_, err = f.store.Entries(ctx, store.JournalQuery{})
			f.wantFault("Entries", err)
			_, err = f.store.Forget(ctx, nil, f.now)
			f.wantFault("Forget", err)

			_, err = f.store.Attempt(f.ctx, store.AttemptID{1}, f.now)
			f.wantError("Attempt after a cancelled claim", err, store.ErrNotFound)
			f.wantGone(fresh)
			f.wantAlive(r)
			f.wantHeard(heard)
			n := f.one()
			if n.Attempts != 1 {
				f.Errorf("a cancelled claim counted as an attempt: %d", n.Attempts)
			}
			f.wantFault("Complete", f.store.Complete(ctx, n, store.Outcome{Done: true}))
			f.complete(n, store.Outcome{Done: true})
			f.wantWelcome("alice", "s3", f.now) // no mark
			if _, err := f.store.End(f.ctx, e, f.now); err != nil {
				f.Errorf("End with the jti of a cancelled one: %v", err)
			}
		}},
		{"a context that is done somewhere in the middle is all or nothing", func(f *fixture) {
			heard := f.watch()
			for i := range 40 {
				r := f.signIn("alice", "s1")
				e := f.endingWith(store.Selector{SID: "s1"}, store.NoticeRequest{Kind: store.NoticeLogout})
				e.JTI, e.JTIExpires = fmt.Sprint("j", i), f.now.Add(time.Hour)
				ctx, cancel := context.WithCancel(f.ctx)
				f.together(2, func(which int) error {
					if which == 0 {
						cancel()
						return nil
					}
					_, err := f.store.End(ctx, e, f.now)
					if err == nil {
						f.wantGone(r)
						f.wantHeard(heard, r)
					} else {
						f.wantAlive(r)
						f.wantHeard(heard)
						f.wantEnded(f.endWith(e), r)
						f.wantHeard(heard, r)
					}
					return nil
				})
				f.wantNotices(f.about(store.NoticeLogout, r))
				f.now = f.now.Add(time.Second)
			}
		}},
	}
}
