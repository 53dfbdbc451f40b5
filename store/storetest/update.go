package storetest

import (
	"time"

	"example.com/curfew/session"
)

func updateCases() []testCase {
	return []testCase{
		{"an update replaces what may change and raises the revision", func(f *fixture) {
			r := f.signIn("alice", "s1")
			for range 3 {
				r.LastSeen = r.LastSeen.Add(time.Minute)
				r.IdleExpires = r.IdleExpires.Add(time.Minute)
				r.Expires = r.Expires.Add(-time.Minute)
				r.Refresh = session.RefreshOnline
				r.Payload = append([]byte{0, byte(r.Revision)}, r.Payload...)
				if err := f.store.Update(f.ctx, r, f.now); err != nil {
					f.Fatalf("Update: %v", err)
				}
				r.Revision++
				f.wantAlive(r)
			}
		}},
		{"a renamed session is named by its new sid, and not by the old", func(f *fixture) {
			for _, sids := range [][2]string{{"s1", "s2"}, {"", "s3"}, {"s4", ""}} {
				r := f.signIn("alice", sids[0])
				other := f.signIn("alice", "another")
				r.SID, r.LastSeen, r.Payload = sids[1], r.LastSeen.Add(time.Minute), append([]byte{1}, r.Payload...)
				r.IdleExpires = r.IdleExpires.Add(4 * time.Hour)
				if err := f.store.Rename(f.ctx, r, f.now, f.now); err != nil {
					f.Fatalf("Rename: %v", err)
				}
				r.Revision++
				f.wantAlive(r)
				if sids[0] != "" {
					f.wantEnded(f.end(session.Who{SID: sids[0]}))
				}
				f.now = f.now.Add(time.Minute)
				f.wantError("Rename of an old revision", f.store.Rename(f.ctx, atAnotherRevision(r), f.now, f.now), session.ErrConflict)
				if err := f.store.Update(f.ctx, r, f.now); err != nil {
					f.Fatalf("Update: %v", err)
				}
				who := session.Who{SID: sids[1]}
				if who.SID == "" {
					who = session.Who{Subject: "alice", SID: "whatever"}
				}
				f.wantEnded(f.end(who), r)
				f.wantGone(r)
				f.wantEnded(f.end(session.Who{Subject: "alice"}), other)
				f.now = f.now.Add(time.Second)
				f.wantError("Rename", f.store.Rename(f.ctx, r, f.now, f.now), session.ErrNotFound)
			}
		}},
		{"a logout by the new sid bars a rename that began before it", func(f *fixture) {
			for i, who := range []session.Who{{SID: "new"}, {Subject: "alice", SID: "new"}} {
				r := f.signIn("alice", "old")
				began := f.now
				f.now = f.now.Add(time.Second)
				f.wantEnded(f.end(who))
				renamed := r
				renamed.SID = "new"
				f.wantError("Rename", f.store.Rename(f.ctx, renamed, began, f.now), session.ErrEnded)
				f.wantError("Rename after the marks", f.store.Rename(f.ctx, renamed, f.now.Add(-session.AttemptLifetime), f.now), session.ErrEnded)
				f.wantAlive(r)
				f.now = f.now.Add(time.Second)
				if err := f.store.Rename(f.ctx, renamed, f.now, f.now); err != nil {
					f.Fatalf("Rename %d that began after the logout: %v", i, err)
				}
				renamed.Revision++
				f.wantEnded(f.end(who), renamed)
				f.now = f.now.Add(time.Second)
			}
		}},
		{"an update leaves alone who and when it was", func(f *fixture) {
			r := f.signIn("alice", "s1")
			u := r
			u.Issuer, u.ClientID, u.Subject, u.SID = "https://evil.example", "other", "mallory", "s2"
			u.Created = r.Created.Add(-time.Hour)
			if err := f.store.Update(f.ctx, u, f.now); err != nil {
				f.Fatalf("Update: %v", err)
			}
			r.Revision = 2
			f.wantAlive(r)
			f.wantEnded(f.end(session.Who{Subject: "mallory"}))
			f.wantEnded(f.end(session.Who{SID: "s2"}))
			f.wantEnded(f.end(session.Who{Subject: "alice", SID: "s1"}), r)
		}},
		{"an update of another revision is a conflict and changes nothing", func(f *fixture) {
			r := f.signIn("alice", "s1")
			for _, revision := range []int64{0, 2, -1, 1 << 40} {
				u := r
				u.Revision, u.Payload = revision, []byte("late")
				f.wantError("Update", f.store.Update(f.ctx, u, f.now), session.ErrConflict)
			}
			f.wantAlive(r)
		}},
		{"an update never creates", func(f *fixture) {
			r := f.record("alice", "s1")
			f.wantError("Update", f.store.Update(f.ctx, r, f.now), session.ErrNotFound)
			f.wantGone(r)
			f.wantEnded(f.end(session.Who{Subject: "alice"}))
		}},
		{"an update after the end brings nothing back", func(f *fixture) {
			for _, who := range []session.Who{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
				r := f.signIn("alice", "s1")
				f.wantEnded(f.end(who), r)
				f.wantError("Update", f.store.Update(f.ctx, r, f.now), session.ErrNotFound)
				f.wantGone(r)
				f.now = f.now.Add(time.Second)
			}
		}},
		{"an update after the time is over brings nothing back", func(f *fixture) {
			r := f.signIn("alice", "s1")
			f.now = r.IdleExpires
			u := r
			u.IdleExpires = f.now.Add(time.Hour)
			f.wantError("Update", f.store.Update(f.ctx, u, f.now), session.ErrNotFound)
			u.Revision = 7
			f.wantError("Update of a wrong revision", f.store.Update(f.ctx, u, f.now), session.ErrNotFound)
			f.wantGone(r)
			f.pruneAll(f.now)
			f.wantError("Update after Prune", f.store.Update(f.ctx, u, f.now), session.ErrNotFound)
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

// atAnotherRevision is r at a revision that is not its own.
func atAnotherRevision(r session.Record) session.Record {
	r.Revision += 7
	return r
}
