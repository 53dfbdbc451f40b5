package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/curfew/store"
)

// renamed returns r after a refresh whose ID Token has this sid: the previous sid of r is a former one.
func renamed(r store.Record, sid string) store.Record {
	if sid != r.SID {
		former := slices.DeleteFunc(slices.Clone(r.Former), func(f string) bool { return f == sid })
		if r.SID != "" {
			former = append(former, r.SID)
		}
		r.SID, r.Former = sid, former
	}
	r.LastSeen, r.Payload = r.LastSeen.Add(time.Minute), append([]byte{byte(r.Revision)}, r.Payload...)
	return r
}

// rename renames r, in a refresh that began just now, and returns the stored session.
func (f *fixture) rename(r store.Record, sids ...string) store.Record {
	f.Helper()
	for _, sid := range sids {
		r = renamed(r, sid)
		if err := f.store.Rename(f.ctx, r, f.now, f.now); err != nil {
			f.Fatalf("Rename %s: %v", describe(r), err)
		}
		r.Revision++
	}
	return r
}

func renameCases() []testCase {
	cases := []testCase{
		{"a rename replaces what an update does, and the sid", func(f *fixture) {
			for i, sids := range [][2]string{{"s1", "s2"}, {"", "s3"}} {
				r := f.signIn("alice", sids[0])
				r.IdleExpires, r.Refresh = r.IdleExpires.Add(4*time.Hour), store.RefreshOnline
				r = f.rename(r, sids[1])
				f.wantAlive(r)
				stale := r
				stale.Revision += 7
				f.wantError("Rename of another revision", f.store.Rename(f.ctx, renamed(stale, "s9"), f.now, f.now),
					store.ErrConflict)
				f.wantAlive(r)
				if err := f.store.Update(f.ctx, r, f.now); err != nil {
					f.Fatalf("Update: %v", err)
				}
				r.Revision++
				f.wantAlive(r)
				f.wantEnded(f.end(store.Selector{Subject: "alice"}), r)
				f.now = f.now.Add(time.Second)
				f.wantError(fmt.Sprint("Rename ", i, " of one who is gone"), f.store.Rename(f.ctx, r, f.now, f.now),
					store.ErrNotFound)
				f.wantGone(r)
			}
		}},
		{"a sid that is in neither place no longer names the session", func(f *fixture) {
			r := f.rename(f.signIn("alice", "s1"), "s2", "s3")
			r.SID, r.Former = "s4", []string{"s1"}
			if err := f.store.Rename(f.ctx, r, f.now, f.now); err != nil {
				f.Fatalf("Rename: %v", err)
			}
			r.Revision++
			f.wantAlive(r)
			for _, sid := range []string{"s2", "s3"} {
				f.wantEnded(f.end(store.Selector{SID: sid}))
				f.wantListed(store.Query{Issuer: issuer, ClientID: client, SID: sid}, nil)
			}
			f.wantEnded(f.end(store.Selector{SID: "s1"}), r)
		}},
		{"former sids that make no sense are refused", func(f *fixture) {
			r := f.signIn("alice", "s1")
			for sid, former := range map[string][]string{"s2": {"s1", "s2"}, "s3": {"s1", "s1"}, "s4": {""},
				"": {"s1"}} {
				bad := r
				bad.SID, bad.Former = sid, former
				f.wantFault("Rename", f.store.Rename(f.ctx, bad, f.now, f.now))
				f.wantAlive(r)
				bad.Key = f.record("alice", "").Key
				f.wantFault("Create", f.store.Create(f.ctx, bad, f.now, f.now))
				f.wantGone(bad)
			}
		}},
		{"a session that had other sids is on each list once", func(f *fixture) {
			once := f.rename(f.signIn("alice", "s1"), "s2")
			back := f.rename(f.signIn("alice", "s1"), "s2", "s3", "s1")
			plain := f.signIn("alice", "s1")
			bob := f.rename(f.signIn("bob", "s4"), "s1")
			all := []store.Record{once, back, plain, bob}
			for sid, want := range map[string][]store.Record{"s1": all, "s2": {once, back}, "s3": {back}, "s4": {bob},
				"s5": nil} {
				f.wantListed(store.Query{Issuer: issuer, ClientID: client, SID: sid, Limit: 1}, want)
				f.wantListed(store.Query{Issuer: issuer, ClientID: client, Subject: "bob", SID: sid},
					pick(want, func(r store.Record) bool { return r.Subject == "bob" }))
			}
			f.wantListed(store.Query{Issuer: issuer, ClientID: client, Subject: "alice", Limit: 1}, all[:3])
			f.wantListed(store.Query{Limit: 1}, all)
		}},
		{"a session that had other sids counts once for the cap", func(f *fixture) {
			var all []store.Record
			for i := range 3 {
				r := f.record("alice", fmt.Sprint("s", i))
				r.Created = f.now.Add(time.Duration(i) * time.Second)
				all = append(all, f.rename(f.create(r), "t1", fmt.Sprint("t2", i), fmt.Sprint("s", i)))
			}
			e := ending(store.Selector{Subject: "alice"})
			e.Spare = 3
			f.wantEnded(f.endWith(e))
			e.Spare = 2
			f.wantEnded(f.endWith(e), all[0])
			f.wantAlive(all[1])
			f.wantAlive(all[2])
		}},
		{"an ending by a former sid is heard, told and revoked once", func(f *fixture) {
			r := f.signIn("alice", "s1")
			r.Refresh = store.RefreshOnline
			r = f.rename(r, "s2", "s3", "s2")
			h := f.watch()
			f.endWith(f.endingWith(store.Selector{SID: "s1"}, store.NoticeRequest{Kind: store.NoticeLogout},
				store.NoticeRequest{Kind: store.NoticeRevoke}))
			f.wantHeard(h, r)
			revoke := f.about(store.NoticeRevoke, r)
			revoke.Payload = r.Payload
			f.wantNotices(f.about(store.NoticeLogout, r), revoke)
		}},
		{"a logout by the new sid bars a rename that began before it", func(f *fixture) {
			for _, who := range []store.Selector{{SID: "new"}, {Subject: "alice", SID: "new"}} {
				r := f.signIn("alice", "old")
				began := f.now
				f.now = f.now.Add(time.Second)
				f.wantEnded(f.end(who))
				f.wantError("Rename", f.store.Rename(f.ctx, renamed(r, "new"), began, f.now), store.ErrEnded)
				f.wantError("Rename after the marks", f.store.Rename(f.ctx, renamed(r, "new"),
					f.now.Add(-store.AttemptLifetime), f.now),
					store.ErrEnded)
				f.wantAlive(r)
				f.now = f.now.Add(time.Second)
				r = f.rename(r, "new")
				f.wantAlive(r)
				f.wantEnded(f.end(who), r)
				f.now = f.now.Add(time.Second)
			}
		}},
		{"a rename after a logout by the old sid brings nothing back", func(f *fixture) {
			for _, who := range []store.Selector{{SID: "old"}, {Subject: "alice", SID: "old"}} {
				r := f.signIn("alice", "old")
				began := f.now
				f.now = f.now.Add(time.Second)
				f.wantEnded(f.end(who), r)
				err := f.store.Rename(f.ctx, renamed(r, "new"), began, f.now)
				if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrEnded) {
					f.Errorf("Rename: got error %v, want one that says that it has ended", err)
				}
				f.wantGone(r)
				f.wantListed(store.Query{Issuer: issuer, ClientID: client, SID: "new"}, nil)
				f.now = f.now.Add(time.Second)
			}
		}},
		{"a session that is in use for long is found by its former sids", func(f *fixture) {
			r := f.rename(f.signIn("alice", "s1"), "s2")
			for range 10 {
				f.now = f.now.Add(50 * time.Minute)
				r.IdleExpires = f.now.Add(time.Hour)
				if err := f.store.Update(f.ctx, r, f.now); err != nil {
					f.Fatalf("Update: %v", err)
				}
				r.Revision++
				f.pruneAll(f.now)
			}
			f.wantAlive(r)
			f.wantEnded(f.end(store.Selector{SID: "s1"}), r)
		}},
		{"a session that ran out is pruned with its former sids", func(f *fixture) {
			r := f.rename(f.signIn("alice", "s1"), "s2", "s3", "s2")
			f.now = r.IdleExpires
			if n := f.pruneAll(f.now); n != 1 {
				f.Errorf("Prune removed %d, want 1", n)
			}
			f.wantGone(r)
			for _, sid := range []string{"s1", "s2", "s3"} {
				f.wantListed(store.Query{Issuer: issuer, ClientID: client, SID: sid}, nil)
				f.wantEnded(f.end(store.Selector{SID: sid}))
			}
		}},
		{"a session is created with its former sids, as a copy is", func(f *fixture) {
			for i, former := range []string{"s1", "s2", "s3"} {
				r := f.record("alice", fmt.Sprint("new", i))
				r.Former = []string{"s1", "s2", "s3"}
				f.create(r)
				f.wantAlive(r)
				f.wantEnded(f.end(store.Selector{SID: former}), r)
				barred := f.record("alice", "new")
				barred.Former = []string{"s7", former}
				f.wantError("Create of what a mark names", f.store.Create(f.ctx, barred, f.now, f.now), store.ErrEnded)
				f.now = f.now.Add(time.Second)
			}
		}},
		{"sids are compared to the last byte, also former ones", func(f *fixture) {
			texts := []string{"s", "S", "s ", " s", "s\x01", "sid", "si", "\u017f", "*", "%", "_", "[s]", `\s`, "'",
				`"`, "{s}", "{s,t}", ",",
				"NULL", strings.Repeat("s", 1024), strings.Repeat("s", 1023) + "t"}
			var all []store.Record
			for i, text := range texts {
				all = append(all, f.rename(f.signIn("alice", text), fmt.Sprint("new", i)))
			}
			for i, text := range texts {
				f.wantAlive(all[i])
				f.wantEnded(f.end(store.Selector{SID: text}), all[i])
			}
		}},
		{"all that had a sid end by it, however many", func(f *fixture) {
			var all []store.Record
			for i := range store.EndBatch*2 + 100 {
				r := f.record(fmt.Sprint("user", i%3), "s1")
				if i%2 == 0 {
					r.SID, r.Former = fmt.Sprint("new", i), []string{"s1"}
				}
				all = append(all, r)
			}
			f.createAll(all)
			other := f.signIn("user1", "s2")
			f.wantEnded(f.end(store.Selector{SID: "s1"}), all...)
			f.now = f.now.Add(time.Second)
			f.createAll(all)
			f.wantEnded(f.end(store.Selector{Subject: "user0", SID: "s1"}), all...)
			f.wantAlive(other)
		}},
		{"no logout misses a session that is being renamed", racingRenames},
	}
	for _, sids := range [][]string{{"s1", "s2"}, {"", "s2"}, {"s1", "s2", "s1"}, {"s1", "s2", "s3"},
		{"", "s1", "s2", "s1", "s3"}} {
		cases = append(cases, testCase{fmt.Sprintf("a session that had %q is named by each", sids),
			func(f *fixture) { namedByAll(f, sids) }})
	}
	return cases
}

// namedByAll ends a session that had all of sids, by each of them, in every way in which a logout may name it.
func namedByAll(f *fixture, sids []string) {
	others := []store.Record{f.signIn("alice", "another"), f.rename(f.signIn("bob", "t1"), "t2"),
		recordAt(issuer, "app2", "alice", "s1", f.now), recordAt("https://other.example", client, "alice", "s1", f.now)}
	others[2].SID, others[2].Former = "s9", []string{"s1", "s2", "s3"}
	f.create(others[2])
	f.create(others[3])
	for _, sid := range slices.Compact(slices.Sorted(slices.Values(sids))) {
		if sid == "" {
			continue
		}
		for _, who := range []store.Selector{{SID: sid}, {Subject: "alice", SID: sid}, {Subject: "carol", SID: sid}} {
			r := f.rename(f.signIn("alice", sids[0]), sids[1:]...)
			f.wantAlive(r)
			// These name other sessions, or none.
			f.wantEnded(f.end(store.Selector{Subject: "carol"}))
			f.wantEnded(f.end(store.Selector{Subject: "alice", SID: "never"}))
			f.wantEnded(f.end(store.Selector{SID: strings.ToUpper(sid)}))
			f.wantEnded(f.end(store.Selector{SID: strings.Join(sids, ",")}))
			f.wantAlive(r)
			f.wantEnded(f.end(who), r)
			f.wantGone(r)
			f.wantEnded(f.end(who))
			f.now = f.now.Add(time.Second)
		}
	}
	for _, r := range others {
		f.wantAlive(r)
	}
}

// racingRenames runs logouts while sessions are renamed there and back. A logout of a sid that a session has throughout
// ends it, in any order. A logout of the new sid ends it, or the session did not get that sid.
func racingRenames(f *fixture) {
	const sessions = 60
	all, got := make([]store.Record, sessions), make([]bool, sessions)
	for i := range all {
		all[i] = f.signIn(fmt.Sprint("user", i%7), fmt.Sprint("old", i))
	}
	over := func(err error) bool { return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrEnded) }
	f.together(2*sessions, func(n int) error {
		i := n / 2
		if n%2 == 1 {
			who := store.Selector{SID: fmt.Sprint("old", i)}
			if i%3 == 0 {
				who.SID = fmt.Sprint("new", i)
			}
			if i%2 == 0 {
				who.Subject = all[i-i%4].Subject // of every other one it is another
			}
			_, err := f.store.End(f.ctx, ending(who), f.now)
			return err
		}
		r := all[i]
		for round := range 4 {
			r = renamed(r, fmt.Sprint([]string{"new", "old"}[round%2], i))
			err := f.store.Rename(f.ctx, r, f.now, f.now)
			if over(err) {
				return nil
			}
			if err != nil {
				return err
			}
			got[i] = true
			r.Revision++
		}
		return nil
	})
	for i, r := range all {
		if i%3 == 0 && !got[i] {
			f.wantAlive(r) // the logout named a sid that it never had
			continue
		}
		f.wantGone(r)
	}
}
