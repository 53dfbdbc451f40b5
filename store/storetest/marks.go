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

// admitCases are about sessions that stand for access tokens.
func admitCases() []testCase {
	return []testCase{
		{"an admitted session is one like any other", func(f *fixture) {
			r := f.record("alice", "s1")
			f.wantAdmitted(r, f.now.Add(-time.Hour))
			f.wantFault("Admit with a key that exists", f.store.Admit(f.ctx, r, f.now, f.now))
			f.wantEnded(f.end(store.Selector{SID: "s1"}), r)
		}},
		{"a token is barred by an ending of its subject that came after it was issued", func(f *fixture) {
			ended := f.now
			f.endWith(f.longEnding(store.Selector{Subject: "alice"}))
			f.now = ended.Add(time.Minute)
			for _, sid := range []string{"", "s1"} {
				f.wantNotAdmitted("alice", sid, ended)
				f.wantNotAdmitted("alice", sid, ended.Add(-time.Hour))
				f.wantAdmitted(f.record("alice", sid), ended.Add(time.Microsecond))
			}
			f.wantAdmitted(f.record("bob", "s1"), ended)
		}},
		{"a token is barred by any ending of its sid, also by one before it was issued", func(f *fixture) {
			for _, e := range []store.Selector{{SID: "s1"}, {Subject: "alice", SID: "s2"}, {Subject: "other", SID: "s3"}} {
				f.endWith(f.longEnding(e))
				f.wantNotAdmitted("alice", e.SID, f.now.Add(30*time.Second))
				f.wantNotAdmitted("alice", e.SID, f.now.Add(-time.Hour))
			}
			f.wantAdmitted(f.record("alice", "s4"), f.now)
			f.wantAdmitted(f.record("bob", ""), f.now)
		}},
		{"an ending of a sid and a subject bars tokens without a sid that were issued before", func(f *fixture) {
			f.endWith(f.longEnding(store.Selector{Subject: "alice", SID: "s1"}))
			f.wantNotAdmitted("alice", "", f.now)
			f.wantAdmitted(f.record("alice", ""), f.now.Add(time.Microsecond))
			f.wantAdmitted(f.record("alice", "s2"), f.now)
		}},
		{"an ending bars no token of another issuer or client", func(f *fixture) {
			f.end(store.Selector{Subject: "alice"})
			f.end(store.Selector{SID: "s1"})
			f.wantAdmitted(recordAt("https://other.example", client, "alice", "s1", f.now), f.now)
			f.wantAdmitted(recordAt(issuer, "app2", "alice", "s1", f.now), f.now)
		}},
		{"an ending of a key that bars it keeps out that key alone, whenever its token was issued", func(f *fixture) {
			for _, sid := range []string{"", "s1"} {
				ended, other := f.record("alice", sid), f.record("alice", sid)
				f.wantAdmitted(ended, f.now)
				e := f.longEnding(store.Selector{Key: ended.Key})
				e.Bar = true
				f.wantEnded(f.endWith(e), ended)
				for _, issued := range []time.Duration{-time.Hour, 0, time.Hour} {
					f.wantError("Admit of the key that was barred", f.store.Admit(f.ctx, ended, f.now.Add(issued), f.now),
						store.ErrEnded)
				}
				f.wantGone(ended)
				f.wantAdmitted(other, f.now)
				f.wantWelcome("alice", sid, f.now)
				early := f.record("alice", sid) // barred before it was ever here
				e.Selector.Key = early.Key
				f.wantEnded(f.endWith(e))
				f.wantError("Admit of a key barred before", f.store.Admit(f.ctx, early, f.now, f.now), store.ErrEnded)
				again := f.now
				f.now = again.Add(markFor - time.Second)
				f.pruneAll(f.now)
				ended.Expires, ended.IdleExpires = f.now.Add(time.Hour), f.now.Add(time.Hour)
				f.wantError("Admit just before the mark runs out", f.store.Admit(f.ctx, ended, again, f.now), store.ErrEnded)
				f.now = again.Add(markFor + time.Second)
				f.pruneAll(f.now)
				f.wantAdmitted(ended, again)
			}
		}},
		{"a token that an ending removed is barred, also if its clock is ahead", func(f *fixture) {
			token := func(sid string) store.Record {
				r := f.record("alice", sid)
				r.Created = store.FromMicros(0)
				return r
			}
			for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s2"}, {}} {
				r, browser := token(who.SID), f.record("alice", who.SID)
				f.wantAdmitted(r, f.now)
				f.create(browser)
				if who == (store.Selector{}) {
					who.Key = r.Key
				}
				f.endWith(f.longEnding(who))
				for _, ahead := range []time.Duration{time.Millisecond, time.Minute} {
					f.wantError("Admit of a token that was ended, from the future",
						f.store.Admit(f.ctx, r, f.now.Add(ahead), f.now), store.ErrEnded)
				}
				f.now = f.now.Add(time.Second)
				f.wantAdmitted(token("s3"), f.now) // another one
			}
			capped := token("s4")
			f.wantAdmitted(capped, f.now)
			e := ending(store.Selector{Subject: "alice"})
			e.Spare = 1
			for range 10 {
				f.create(f.record("alice", "s5"))
			}
			f.endWith(e)
			f.wantGone(capped)
			f.wantAdmitted(capped, f.now) // it made room, and may come again
		}},
		{"an ending of a key bars nothing unless it says so", func(f *fixture) {
			r := f.record("alice", "s1")
			f.wantAdmitted(r, f.now)
			f.wantEnded(f.end(store.Selector{Key: r.Key}), r)
			f.wantAdmitted(r, f.now)
			e := ending(store.Selector{Subject: "alice"})
			e.Bar = true
			if _, err := f.store.End(f.ctx, e, f.now); err == nil {
				f.Error("End barred a key, and named none")
			}
			f.wantAlive(r)
		}},
		{"a mark is kept for as long as its ending says", func(f *fixture) {
			ended := f.now
			for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "bob", SID: "s2"}} {
				f.endWith(f.longEnding(who))
			}
			f.now = ended.Add(markFor - time.Second)
			f.pruneAll(f.now)
			f.wantNotAdmitted("alice", "", ended)
			f.wantNotAdmitted("carol", "s1", f.now)
			f.wantNotAdmitted("bob", "", ended)
			f.now = ended.Add(markFor + time.Second)
			if n := f.pruneAll(f.now); n == 0 {
				f.Error("Prune left marks that have run out")
			}
			f.wantAdmitted(f.record("alice", "s1"), ended)
		}},
		{"an ending with a shorter memory does not shorten that of a mark", func(f *fixture) {
			ended := f.now
			for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}} {
				f.now = ended
				f.endWith(f.longEnding(who))
				f.now = ended.Add(time.Minute)
				f.end(who)
			}
			f.now = ended.Add(markFor - time.Second)
			f.pruneAll(f.now)
			f.wantNotAdmitted("alice", "", ended.Add(time.Minute))
			f.wantNotAdmitted("bob", "s1", f.now)
		}},
	}
}

const markFor = 3 * time.Hour

// longEnding is an ending where access tokens are taken.
func (f *fixture) longEnding(w store.Selector) store.Ending {
	e := ending(w)
	e.MarkFor = markFor
	return e
}

// wantAdmitted fails unless a token of r that was issued then is admitted.
func (f *fixture) wantAdmitted(r store.Record, issued time.Time) {
	f.Helper()
	if err := f.store.Admit(f.ctx, r, issued, f.now); err != nil {
		f.Errorf("Admit %s: %v, want success", describe(r), err)
		return
	}
	f.wantAlive(r)
}

// wantNotAdmitted fails unless a token that was issued then is refused.
func (f *fixture) wantNotAdmitted(subject, sid string, issued time.Time) {
	f.Helper()
	r := f.record(subject, sid)
	f.wantError("Admit "+describe(r), f.store.Admit(f.ctx, r, issued, f.now), store.ErrEnded)
	f.wantGone(r)
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
