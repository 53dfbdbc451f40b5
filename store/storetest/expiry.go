package storetest

import (
	"fmt"
	"time"

	"example.com/curfew/store"
)

func expiryCases() []testCase {
	// Each row lets a session expire in its own way.
	ways := map[string]func(r *store.Record) time.Time{
		"idle for too long": func(r *store.Record) time.Time { return r.IdleExpires },
		"too old": func(r *store.Record) time.Time {
			r.IdleExpires = r.Expires.Add(
				time.Hour)
			return r.Expires
		},
		"both at once": func(r *store.Record) time.Time { r.IdleExpires = r.Expires; return r.Expires },
	}
	var cases []testCase
	for name, runOut := range ways {
		cases = append(cases,
			testCase{"a session is there until it is " + name, func(f *fixture) {
				r := f.record("alice", "s1")
				at := runOut(&r)
				f.create(r)
				f.now = at.Add(-time.Microsecond)
				f.wantAlive(r)
				f.pruneAll(f.now)
				f.wantAlive(r)
				f.now = at
				f.wantGone(r)
				if n := f.pruneAll(f.now); n != 1 {
					f.Errorf("Prune removed %d, want 1", n)
				}
				f.wantGone(r)
				if n := f.pruneAll(f.now); n != 0 {
					f.Errorf("Prune removed %d more", n)
				}
			}},
			testCase{"ending one that is " + name + " reports nothing", func(f *fixture) {
				heard := f.watch()
				over, lives := f.record("alice", "s1"), f.record("alice", "s1")
				over.Refresh = store.RefreshOnline
				at := runOut(&over)
				lives.IdleExpires, lives.Expires = at.Add(time.Hour), at.Add(time.Hour)
				f.create(over)
				f.create(lives)
				f.now = at
				e := ending(store.Selector{SID: "s1"})
				e.Notices = []store.NoticeRequest{
					{Kind: store.NoticeLogout, Target: target, Deadline: at.Add(time.Hour)},
					{Kind: store.NoticeRevoke, Target: "main", Deadline: at.Add(time.Hour)},
				}
				f.wantEnded(f.endWith(e), lives)
				f.wantHeard(heard, lives)
				if n := f.claim(); len(n) != 1 || n[0].Key != lives.Key {
					f.Errorf("left %d notices, want one, of the session that lived", len(n))
				}
			}})
	}
	return append(cases,
		testCase{"pruning takes all that is over, in batches, and nothing that lives", func(f *fixture) {
			var over, live []store.Record
			for i := range 1500 {
				r := f.record(fmt.Sprint("user", i%40), fmt.Sprint("s", i%50))
				r.IdleExpires = f.now.Add(time.Duration(i%7) * time.Minute)
				if i%7 < 4 {
					over = append(over, r)
				} else {
					live = append(live, r)
				}
			}
			f.createAll(over)
			f.createAll(live)
			f.now = f.now.Add(4*time.Minute - time.Microsecond)
			first, err := f.store.Prune(f.ctx, f.now)
			if err != nil || first == 0 || first == len(over) {
				f.Errorf("the first batch removed %d of %d (error %v), want a part", first, len(over), err)
			}
			if n := first + f.pruneAll(f.now); n != len(over) {
				f.Errorf("Prune removed %d, want %d", n, len(over))
			}
			for _, r := range live {
				f.wantAlive(r)
			}
			for _, r := range over[:10] {
				f.wantGone(r)
			}
			f.wantEnded(f.end(store.Selector{Subject: "user1"}),
				pick(live, func(r store.Record) bool { return r.Subject == "user1" })...)
		}},
		testCase{"pruning an empty store removes nothing", func(f *fixture) {
			if n := f.pruneAll(f.now.Add(1000 * time.Hour)); n != 0 {
				f.Errorf("Prune removed %d", n)
			}
		}},
		testCase{"a notice outlives all pruning", func(f *fixture) {
			e := f.endingWith(store.Selector{Subject: "alice"}, store.NoticeRequest{Kind: store.NoticeLogout})
			f.endWith(e)
			f.now = f.now.Add(1000 * time.Hour)
			f.pruneAll(f.now)
			if n := len(f.claim()); n != 1 {
				f.Errorf("%d notices are left, want 1", n)
			}
		}})
}

func pick(all []store.Record, want func(store.Record) bool) []store.Record {
	var picked []store.Record
	for _, r := range all {
		if want(r) {
			picked = append(picked, r)
		}
	}
	return picked
}
