package storetest

import (
	"time"

	"example.com/curfew/store"
)

func updateCases() []testCase {
	return []testCase{
		{"an update replaces what may change and raises the revision", func(f *fixture) {
			r := f.signIn("alice", "s1")
			for range 3 {
				r.LastSeen = r.LastSeen.Add(time.Minute)
				r.IdleExpires = r.IdleExpires.Add(time.Minute)
				r.Expires = r.Expires.Add(-time.Minute)
				r.Refresh = store.RefreshOnline
				r.Payload = append([]byte{0, byte(r.Revision)}, r.Payload...)
				if err := f.store.Update(f.ctx, r, f.now); err != nil {
					f.Fatalf("Update: %v", err)
				}
				r.Revision++
				f.wantAlive(r)
			}
		}},
		{"an update leaves alone who and when it was", func(f *fixture) {
			r := f.signIn("alice", "s1")
			u := r
			u.Issuer, u.ClientID, u.Subject, u.SID, u.Former = "https://evil.example", "other", "mallory", "s2",
				[]string{"s3"}
			u.Created = r.Created.Add(-time.Hour)
			if err := f.store.Update(f.ctx, u, f.now); err != nil {
				f.Fatalf("Update: %v", err)
			}
			r.Revision = 2
			f.wantAlive(r)
			f.wantEnded(f.end(store.Selector{Subject: "mallory"}))
			f.wantEnded(f.end(store.Selector{SID: "s2"}))
			f.wantEnded(f.end(store.Selector{SID: "s3"}))
			f.wantEnded(f.end(store.Selector{Subject: "alice", SID: "s1"}), r)
		}},
		{"an update of another revision is a conflict and changes nothing", func(f *fixture) {
			r := f.signIn("alice", "s1")
			for _, revision := range []int64{0, 2, -1, 1 << 40} {
				u := r
				u.Revision, u.Payload = revision, []byte("late")
				f.wantError("Update", f.store.Update(f.ctx, u, f.now), store.ErrConflict)
			}
			f.wantAlive(r)
		}},
		{"an update never creates", func(f *fixture) {
			r := f.record("alice", "s1")
			f.wantError("Update", f.store.Update(f.ctx, r, f.now), store.ErrNotFound)
			f.wantGone(r)
			f.wantEnded(f.end(store.Selector{Subject: "alice"}))
		}},
		{"an update after the end brings nothing back", func(f *fixture) {
			for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
				r := f.signIn("alice", "s1")
				f.wantEnded(f.end(who), r)
				f.wantError("Update", f.store.Update(f.ctx, r, f.now), store.ErrNotFound)
				f.wantGone(r)
				f.now = f.now.Add(time.Second)
			}
		}},
		{"an update after the time is over brings nothing back", func(f *fixture) {
			r := f.signIn("alice", "s1")
			f.now = r.IdleExpires
			u := r
			u.IdleExpires = f.now.Add(time.Hour)
			f.wantError("Update", f.store.Update(f.ctx, u, f.now), store.ErrNotFound)
			u.Revision = 7
			f.wantError("Update of a wrong revision", f.store.Update(f.ctx, u, f.now), store.ErrNotFound)
			f.wantGone(r)
			f.pruneAll(f.now)
			f.wantError("Update after Prune", f.store.Update(f.ctx, u, f.now), store.ErrNotFound)
			f.wantGone(r)
		}},
		{"an update does not touch the others", func(f *fixture) {
			r, same, other := f.signIn("alice", "s1"), f.signIn("alice", "s1"), f.signIn("bob", "s1")
			if err := f.store.Update(f.ctx, r, f.now); err != nil {
				f.Fatalf("Update: %v", err)
			}
			f.wantAlive(same)
			f.wantAlive(other)
		}},
		{"an update in use keeps a session from running out", func(f *fixture) {
			r := f.signIn("alice", "s1")
			f.now = r.IdleExpires.Add(-time.Microsecond)
			r.IdleExpires = f.now.Add(time.Hour)
			if err := f.store.Update(f.ctx, r, f.now); err != nil {
				f.Fatalf("Update: %v", err)
			}
			r.Revision++
			f.now = f.now.Add(30 * time.Minute)
			f.pruneAll(f.now)
			f.wantAlive(r)
		}},
		{"an update may cut a session short", func(f *fixture) {
			r := f.signIn("alice", "s1")
			r.Expires = f.now.Add(time.Minute)
			if err := f.store.Update(f.ctx, r, f.now); err != nil {
				f.Fatalf("Update: %v", err)
			}
			f.now = r.Expires
			f.wantGone(r)
			if n := f.pruneAll(f.now); n != 1 {
				f.Errorf("Prune removed %d, want 1", n)
			}
		}},
	}
}
