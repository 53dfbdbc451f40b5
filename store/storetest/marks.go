package storetest

import (
	"fmt"
	"time"

	"example.com/curfew/store"
)

func markCases() []testCase {
	return []testCase{
		{"a login under way is barred by an ending that names it", marksBar},
		{"a mark bars nobody of another issuer or client", func(f *fixture) {
			f.end(store.Selector{Subject: "alice", SID: "s1"})
			f.end(store.Selector{Subject: "alice"})
			f.end(store.Selector{SID: "s1"})
			f.create(recordAt("https://other.example", client, "alice", "s1", f.now))
			f.create(recordAt(issuer, "app2", "alice", "s1", f.now))
		}},
		{"an ending by key leaves no mark", func(f *fixture) {
			r := f.signIn("alice", "s1")
			f.wantEnded(f.end(store.Selector{Key: r.Key}), r)
			again := f.signIn("alice", "s1")
			f.wantAlive(again)
			f.end(store.Selector{Key: again.Key})
			if n := f.pruneAll(f.now.Add(store.MarkLifetime)); n != 0 {
				f.Errorf("it left %d things to prune", n)
			}
		}},
		{"an ending of somebody unknown leaves a mark", func(f *fixture) {
			f.wantEnded(f.end(store.Selector{SID: "s1"}))
			f.wantBarred("alice", "s1", f.now)
		}},
		{"a replayed ending leaves no mark", func(f *fixture) {
			e := ending(store.Selector{Subject: "alice"})
			e.JTI, e.JTIExpires = "j1", f.now.Add(time.Hour)
			f.endWith(e)
			f.now = f.now.Add(time.Minute)
			_, err := f.store.End(f.ctx, e, f.now)
			f.wantError("End", err, store.ErrReplayed)
			f.wantWelcome("alice", "s1", f.now)
		}},
		{"a later mark replaces an earlier one", func(f *fixture) {
			start := f.now
			for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
				f.now = start
				f.end(who)
				f.now = f.now.Add(time.Minute)
				f.end(who)
				f.wantBarred("alice", "s1", f.now)
				f.wantWelcome("alice", "s1", f.now.Add(time.Microsecond))
				start = f.now.Add(time.Hour)
			}
		}},
		{"an earlier mark does not replace a later one", func(f *fixture) {
			late := f.now.Add(time.Minute)
			for i, who := range []store.Selector{{Subject: "a0"}, {SID: "s1"}, {Subject: "a2", SID: "s2"}} {
				for _, at := range []time.Time{late, f.now} {
					if _, err := f.store.End(f.ctx, ending(who), at); err != nil {
						f.Fatalf("End: %v", err)
					}
				}
				f.wantBarred(fmt.Sprint("a", i), fmt.Sprint("s", i), late)
			}
		}},
		{"who has no sid is barred by the latest of all marks of the subject", func(f *fixture) {
			late := f.now.Add(time.Minute)
			for sid, at := range map[string]time.Time{"s1": late, "s2": f.now, "s3": f.now.Add(time.Second)} {
				if _, err := f.store.End(f.ctx, ending(store.Selector{Subject: "alice", SID: sid}), at); err != nil {
					f.Fatalf("End: %v", err)
				}
			}
			f.wantBarred("alice", "", late)
			f.wantWelcome("alice", "", late.Add(time.Microsecond))
			f.wantBarred("alice", "s2", f.now)
			f.wantWelcome("alice", "s2", f.now.Add(time.Microsecond))
		}},
		{"marks of different names do not stand in for one another", func(f *fixture) {
			early := f.now
			f.end(store.Selector{Subject: "alice"})
			f.now = f.now.Add(time.Minute)
			f.end(store.Selector{Subject: "alice", SID: "s1"})
			between := early.Add(time.Second)
			f.wantBarred("alice", "s1", between)
			f.wantWelcome("alice", "s2", between)
			f.wantBarred("alice", "s2", early)
		}},
		{"a mark holds until no login that it bars can come", func(f *fixture) {
			ended := f.now
			f.end(store.Selector{Subject: "alice"})
			f.now = ended.Add(store.AttemptLifetime - time.Microsecond)
			f.pruneAll(f.now)
			f.wantBarred("alice", "s1", ended)
			f.wantWelcome("alice", "s1", ended.Add(time.Microsecond))
			// A replica that has read the clock may be suspended before it calls the store.
			f.pruneAll(ended.Add(store.MarkLifetime - time.Microsecond))
			f.wantBarred("alice", "s1", ended)
			f.now = ended.Add(store.MarkLifetime)
			if n := f.pruneAll(f.now); n == 0 {
				f.Error("Prune left a mark that has run out")
			}
			f.wantBarred("alice", "s1", ended) // because it began too long ago
			f.wantWelcome("alice", "s1", f.now.Add(time.Microsecond-store.AttemptLifetime))
		}},
	}
}

// marksBar tries each shape of ending on each shape of session, and expects what Selector.Names says.
func marksBar(f *fixture) {
	shapes := []store.Selector{
		{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}, {Subject: "bob"}, {SID: "s2"},
		{Subject: "bob", SID: "s1"}, {Subject: "ALICE"}, {SID: "%"}, {Subject: "*", SID: "*"},
	}
	logins := [][2]string{{"alice", "s1"}, {"alice", "s2"}, {"alice", ""}, {"bob", "s1"}, {"bob", ""}, {"s1", "alice"}}
	for _, who := range shapes {
		f.now = f.now.Add(time.Hour)
		e := ending(who)
		f.endWith(e)
		for _, login := range logins {
			r := f.record(login[0], login[1])
			f.Logf("ending %+v, login of %s", who, describe(r))
			if e.Selector.Names(&r) {
				f.wantBarred(r.Subject, r.SID, f.now)
				f.wantBarred(r.Subject, r.SID, f.now.Add(-time.Minute))
			} else {
				f.wantWelcome(r.Subject, r.SID, f.now)
			}
			f.wantWelcome(r.Subject, r.SID, f.now.Add(time.Microsecond))
		}
	}
}

// wantBarred fails unless a login that began at this time is refused.
func (f *fixture) wantBarred(subject, sid string, began time.Time) {
	f.Helper()
	r := f.record(subject, sid)
	f.wantError("Create "+describe(r), f.store.Create(f.ctx, r, began, later(began, f.now)), store.ErrEnded)
	f.wantGone(r)
}

// wantWelcome fails unless a login that began at this time succeeds.
func (f *fixture) wantWelcome(subject, sid string, began time.Time) {
	f.Helper()
	r := f.record(subject, sid)
	if err := f.store.Create(f.ctx, r, began, later(began, f.now)); err != nil {
		f.Errorf("Create %s: %v, want success", describe(r), err)
		return
	}
	f.wantAlive(r)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
