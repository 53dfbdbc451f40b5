package storetest

import (
	"strconv"
	"strings"
	"time"

	"example.com/curfew/store"
)

func replayCases() []testCase {
	withJTI := func(f *fixture, w store.Selector, jti string) store.Ending {
		e := ending(w)
		e.JTI, e.JTIExpires = jti, f.now.Add(time.Hour)
		return e
	}
	return []testCase{
		{"the same jti is carried out once", func(f *fixture) {
			e := withJTI(f, store.Selector{Subject: "alice"}, "j1")
			f.endWith(e)
			f.now = f.now.Add(time.Second)
			r := f.signIn("alice", "s1")
			heard := f.watch()
			e.Notices = []store.NoticeRequest{{Kind: store.NoticeLogout, Target: target, Deadline: f.now.Add(time.Hour)}}
			ended, err := f.store.End(f.ctx, e, f.now)
			f.wantError("End", err, store.ErrReplayed)
			f.wantEnded(ended)
			f.wantAlive(r)
			f.wantHeard(heard)
			if n := len(f.claim()); n != 0 {
				f.Errorf("a replay left %d notices", n)
			}
		}},
		{"a jti is remembered even if it named nobody here", func(f *fixture) {
			e := withJTI(f, store.Selector{SID: "s1"}, "j1")
			f.endWith(e)
			_, err := f.store.End(f.ctx, e, f.now)
			f.wantError("End", err, store.ErrReplayed)
		}},
		{"a jti counts whoever it names", func(f *fixture) {
			f.endWith(withJTI(f, store.Selector{Subject: "alice"}, "j1"))
			r := f.signIn("bob", "s1")
			_, err := f.store.End(f.ctx, withJTI(f, store.Selector{Subject: "bob"}, "j1"), f.now)
			f.wantError("End", err, store.ErrReplayed)
			f.wantAlive(r)
		}},
		{"a replay bars nobody who signs in after the first", func(f *fixture) {
			for i, w := range []store.Selector{{SID: "s1"}, {Subject: "alice", SID: "s1"}, {Subject: "alice"}} {
				e := withJTI(f, w, "bars"+strconv.Itoa(i))
				f.endWith(e)
				f.now = f.now.Add(time.Minute)
				began := f.now
				f.now = f.now.Add(time.Minute)
				_, err := f.store.End(f.ctx, e, f.now)
				f.wantError("End", err, store.ErrReplayed)
				r := f.record("alice", "s1")
				if err := f.store.Create(f.ctx, r, began, f.now); err != nil {
					f.Errorf("%+v: Create of a login that began between the two: %v", w, err)
				}
				f.endWith(ending(store.Selector{Subject: "alice"}))
				f.now = f.now.Add(time.Minute) // past the marks
			}
		}},
		{"a jti is of its issuer and client", func(f *fixture) {
			for _, scope := range [][2]string{
				{issuer, client}, {"https://other.example", client}, {issuer, "app2"}, {issuer + "|", client},
				{issuer, "|" + client},
			} {
				f.endWith(withJTI(f, store.Selector{Issuer: scope[0], ClientID: scope[1], Subject: "alice"}, "j1"))
			}
		}},
		{"jtis are told apart to the letter", func(f *fixture) {
			for _, jti := range append(oddTexts(), strings.Repeat("j", 8000), strings.Repeat("j", 8001)) {
				f.endWith(withJTI(f, store.Selector{Subject: "alice"}, jti))
				_, err := f.store.End(f.ctx, withJTI(f, store.Selector{Subject: "alice"}, jti), f.now)
				f.wantError("End", err, store.ErrReplayed)
			}
		}},
		{"no jti is no replay", func(f *fixture) {
			e := withJTI(f, store.Selector{Subject: "alice"}, "")
			f.endWith(e)
			f.endWith(e)
		}},
		{"a jti is remembered until it runs out", func(f *fixture) {
			e := withJTI(f, store.Selector{Subject: "alice"}, "j1")
			f.endWith(e)
			f.now = e.JTIExpires.Add(-time.Microsecond)
			f.pruneAll(f.now)
			_, err := f.store.End(f.ctx, e, f.now)
			f.wantError("End just before", err, store.ErrReplayed)
			f.now = e.JTIExpires
			e.JTIExpires = f.now.Add(time.Minute)
			f.endWith(e)
			_, err = f.store.End(f.ctx, e, f.now)
			f.wantError("End after it was used anew", err, store.ErrReplayed)
		}},
		{"a jti that has run out is pruned", func(f *fixture) {
			f.endWith(withJTI(f, store.Selector{Key: f.signIn("alice", "s1").Key}, "j1"))
			f.now = f.now.Add(time.Hour)
			if n := f.pruneAll(f.now); n == 0 {
				f.Error("Prune left a jti that has run out")
			}
			f.endWith(withJTI(f, store.Selector{Subject: "alice"}, "j1"))
		}},
		{"a refused ending burns no jti", func(f *fixture) {
			bad := withJTI(f, store.Selector{Subject: "alice"}, "j1")
			bad.Notices = []store.NoticeRequest{{Kind: "shout"}}
			_, err := f.store.End(f.ctx, bad, f.now)
			f.wantFault("End", err)
			f.endWith(withJTI(f, store.Selector{Subject: "alice"}, "j1"))
		}},
	}
}
