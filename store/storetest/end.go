package storetest

import (
	"fmt"
	"time"

	"example.com/curfew/store"
)

func endCases() []testCase {
	cases := []testCase{
		{"whom an ending names", endNames},
		{"odd names end themselves and nobody else", endOddNames},
		{"names that would be the same when joined are not the same", endJoinedNames},
		{"a sid ends its sessions though the ending names another subject", endSIDOfAnotherSubject},
		{"an ending that names nobody is refused", func(f *fixture) {
			r := f.signIn("alice", "s1")
			for _, who := range []store.Selector{
				{},
				{Issuer: issuer, ClientID: client},
				{Issuer: issuer, Subject: "alice"},
				{ClientID: client, Subject: "alice"},
				{Subject: "alice"},
				{Key: r.Key},
				{Issuer: issuer, ClientID: client, Subject: "alice", Key: r.Key},
				{Issuer: issuer, ClientID: client, SID: "s1", Key: r.Key},
			} {
				e := store.Ending{Selector: who, JTI: "j1", JTIExpires: f.now.Add(time.Hour)}
				_, err := f.store.End(f.ctx, e, f.now)
				f.wantError(fmt.Sprintf("End %+v", who), err, store.ErrNobody)
			}
			f.wantAlive(r)
			e := ending(store.Selector{Subject: "alice"})
			e.JTI, e.JTIExpires = "j1", f.now.Add(time.Hour)
			f.wantEnded(f.endWith(e), r)
		}},
		{"an ending with an unknown kind of notice is refused", func(f *fixture) {
			r := f.signIn("alice", "s1")
			e := ending(store.Selector{Subject: "alice"})
			e.Notices = []store.NoticeRequest{{Kind: "shout"}}
			_, err := f.store.End(f.ctx, e, f.now)
			f.wantFault("End", err)
			f.wantAlive(r)
		}},
		{"ending again finds nobody and is a success", func(f *fixture) {
			r := f.signIn("alice", "s1")
			f.wantEnded(f.end(store.Selector{Subject: "alice"}), r)
			f.wantEnded(f.end(store.Selector{Subject: "alice"}))
			f.wantEnded(f.end(store.Selector{Key: r.Key}))
		}},
		{"every cause comes back", func(f *fixture) {
			for _, cause := range []store.Cause{store.CauseUser, store.CauseProviderSilent,
				"one that is not known yet"} {
				e := ending(store.Selector{Key: f.signIn("alice", "s1").Key})
				e.Cause = cause
				if ended := f.endWith(e); len(ended) != 1 || ended[0].Cause != cause {
					f.Errorf("ended %+v, want one with the cause %q", ended, cause)
				}
			}
		}},
		{"many sessions of one subject end at once", func(f *fixture) {
			var all []store.Record
			for i := range 300 {
				all = append(all, f.record("alice", fmt.Sprint("s", i)))
			}
			f.createAll(all)
			bystander := f.signIn("bob", "s1")
			f.wantEnded(f.end(store.Selector{Subject: "alice"}), all...)
			f.wantAlive(bystander)
		}},
		{"one thousand others are untouched", func(f *fixture) {
			var others []store.Record
			for i := range 1000 {
				others = append(others, f.record(fmt.Sprint("user", i), fmt.Sprint("sid", i)))
			}
			f.createAll(others)
			a, b := f.signIn("alice", "s1"), f.signIn("alice", "")
			f.wantEnded(f.end(store.Selector{Subject: "alice", SID: "s1"}), a, b)
			f.end(store.Selector{Subject: "user"})
			f.end(store.Selector{SID: "sid"})
			for _, r := range others {
				f.wantAlive(r)
			}
		}},
		{"a failure in the middle leaves nothing", endFails},
	}
	return cases
}

func endNames(f *fixture) {
	elsewhere := func(issuer, client, subject, sid string) store.Record {
		return f.create(recordAt(issuer, client, subject, sid, f.now))
	}
	who := []struct {
		name string
		who  func(a store.Record) store.Selector
		ends []string
	}{
		{"a key", func(a store.Record) store.Selector { return store.Selector{Key: a.Key} }, []string{"a1"}},
		{"a key of another issuer", func(a store.Record) store.Selector {
			return store.Selector{Issuer: "https://other.example", ClientID: client, Key: a.Key}
		}, nil},
		{"a key of another client", func(a store.Record) store.Selector {
			return store.Selector{Issuer: issuer, ClientID: "app2", Key: a.Key}
		}, nil},
		{"a sid", func(store.Record) store.Selector { return store.Selector{SID: "s1"} },
			[]string{"a1", "a1 again", "b1"}},
		{"a sid of another subject", func(store.Record) store.Selector {
			return store.Selector{Subject: "bob", SID: "s2"}
		}, []string{"a2", "b without"}},
		{"a subject", func(store.Record) store.Selector { return store.Selector{Subject: "alice"} },
			[]string{"a1", "a1 again", "a2", "a without"}},
		{"both", func(store.Record) store.Selector { return store.Selector{Subject: "alice", SID: "s1"} },
			[]string{"a1", "a1 again", "b1", "a without"}},
		{"both, of a sid that is not here", func(store.Record) store.Selector {
			return store.Selector{Subject: "alice", SID: "s3"}
		}, []string{"a without"}},
		{"both, of a subject that is not here", func(store.Record) store.Selector {
			return store.Selector{Subject: "carol", SID: "s1"}
		}, []string{"a1", "a1 again", "b1"}},
		{"an unknown sid", func(store.Record) store.Selector { return store.Selector{SID: "s3"} }, nil},
		{"an unknown subject", func(store.Record) store.Selector { return store.Selector{Subject: "carol"} }, nil},
		{"a subject that is a sid", func(store.Record) store.Selector { return store.Selector{Subject: "s1"} }, nil},
		{"a sid that is a subject", func(store.Record) store.Selector { return store.Selector{SID: "alice"} }, nil},
		{"a sid in another case", func(store.Record) store.Selector { return store.Selector{SID: "S1"} }, nil},
		{"a subject in another case", func(store.Record) store.Selector { return store.Selector{Subject: "Alice"} },
			nil},
		{"the start of a subject", func(store.Record) store.Selector { return store.Selector{Subject: "ali"} }, nil},
		{"a pattern for subjects", func(store.Record) store.Selector { return store.Selector{Subject: "%"} }, nil},
		{"a pattern for sids", func(store.Record) store.Selector { return store.Selector{SID: "*"} }, nil},
		{"another issuer", func(store.Record) store.Selector {
			return store.Selector{Issuer: "https://other.example", ClientID: client, Subject: "alice"}
		}, []string{"of another issuer"}},
		{"another client", func(store.Record) store.Selector {
			return store.Selector{Issuer: issuer, ClientID: "app2", SID: "s1"}
		}, []string{"of another client"}},
		{"an issuer with a slash more", func(store.Record) store.Selector {
			return store.Selector{Issuer: issuer + "/", ClientID: client, Subject: "alice"}
		}, nil},
	}
	for _, row := range who {
		all := map[string]store.Record{
			"a1": f.signIn("alice", "s1"), "a1 again": f.signIn("alice", "s1"), "a2": f.signIn("alice", "s2"),
			"a without": f.signIn("alice", ""), "b1": f.signIn("bob", "s1"), "b without": f.signIn("bob", ""),
			"of another issuer": elsewhere("https://other.example", client, "alice", "s1"),
			"of another client": elsewhere(issuer, "app2", "alice", "s1"),
		}
		e := ending(row.who(all["a1"]))
		var want []store.Record
		for _, name := range row.ends {
			want = append(want, all[name])
		}
		f.Log("ending", row.name)
		f.wantEnded(f.endWith(e), want...)
		ends := make(map[string]bool)
		for _, name := range row.ends {
			ends[name] = true
		}
		for name, r := range all {
			if e.Selector.Names(&r) != ends[name] {
				f.Errorf("the table and Selector.Names disagree about %s", name)
			}
			if ends[name] {
				f.wantGone(r)
			} else {
				f.wantAlive(r)
			}
			f.endWith(ending(store.Selector{Issuer: r.Issuer, ClientID: r.ClientID, Key: r.Key}))
		}
		f.now = f.now.Add(time.Second) // so that the marks do not bar the next sessions
	}
}

// endSIDOfAnotherSubject: a provider may name one person by another `sub` in its logout tokens than in its ID Tokens.
func endSIDOfAnotherSubject(f *fixture) {
	who := store.Selector{Subject: "id of alice", SID: "s1"}
	has, had := f.signIn("alice", "s1"), f.rename(f.signIn("alice", "s1"), "s3")
	bare := f.signIn("id of alice", "")
	stay := []store.Record{f.signIn("alice", "s2"), f.signIn("alice", ""), f.signIn("id of alice", "s2"),
		f.create(recordAt(issuer, "app2", "alice", "s1", f.now)),
		f.create(recordAt("https://other.example", client, "alice", "s1", f.now))}
	refreshed := f.signIn("alice", "s4")
	heard := f.watch()
	e := ending(who)
	e.JTI, e.JTIExpires = "j1", f.now.Add(time.Hour)
	e.Notices = []store.NoticeRequest{{Kind: store.NoticeLogout, Target: target, Deadline: f.now.Add(time.Hour)}}
	f.wantEnded(f.endWith(e), has, had, bare)
	f.wantHeard(heard, has, had, bare)
	if n := len(f.claim()); n != 3 {
		f.Errorf("%d notices, want one for each session", n)
	}
	for _, r := range stay {
		f.wantAlive(r)
	}
	// What was under way when the ending came: a login, and a refresh that brings the sid.
	f.wantBarred("alice", "s1", f.now)
	f.wantBarred("id of alice", "", f.now)
	f.wantWelcome("alice", "s2", f.now)
	f.wantWelcome("alice", "", f.now)
	f.wantError("Rename to the sid", f.store.Rename(f.ctx, renamed(refreshed, "s1"), f.now, f.now), store.ErrEnded)
	f.now = f.now.Add(time.Second)
	again := f.signIn("alice", "s1")
	_, err := f.store.End(f.ctx, e, f.now)
	f.wantError("End again", err, store.ErrReplayed)
	f.wantAlive(again)

	// More of them than one batch removes: the jti is recorded with the last.
	many := []store.Record{again}
	for i := range store.EndBatch {
		many = append(many, f.record(fmt.Sprint("user", i%3), "s1"))
	}
	f.createAll(many[1:])
	e.JTI = "j2"
	f.now = f.now.Add(time.Second)
	f.wantEnded(f.endWith(e), many...)
	_, err = f.store.End(f.ctx, e, f.now)
	f.wantError("End again", err, store.ErrReplayed)
}

func endOddNames(f *fixture) {
	texts := oddTexts()
	bySID, bySubject := make([]store.Record, len(texts)), make([]store.Record, len(texts))
	for i, text := range texts {
		bySID[i], bySubject[i] = f.record("somebody", text), f.record(text, "some sid")
	}
	f.createAll(bySID)
	f.createAll(bySubject)
	for i, text := range texts {
		f.wantEnded(f.end(store.Selector{SID: text}), bySID[i])
		f.wantEnded(f.end(store.Selector{Subject: text}), bySubject[i])
	}
}

func endJoinedNames(f *fixture) {
	var all []store.Record
	add := func(issuer, client, subject, sid string) {
		all = append(all, recordAt(issuer, client, subject, sid, f.now))
	}
	for _, d := range []string{":", "|", "/", "\x1f", "}"} {
		add("i"+d+"c", "s", "t", "u")
		add("i", "c"+d+"s", "t", "u")
		add("i", "c", "s"+d+"t", "u")
		add("i", "c", "s", "t"+d+"u")
		add("i", "c"+d, "s", "u")
		add("i"+d, "c", "s", "u")
		add("i", "c", d+"s", "u")
		add("i", "c", "s"+d, "u")
		add("i", "c", "s", d+"u")
		add("i", "c", "s", "u"+d)
		add("i", d+"c", "s", "u")
		add("i", "c", "x"+d, "")
	}
	f.createAll(all)
	for i := range all {
		r := &all[i]
		shapes := []store.Selector{{Subject: r.Subject}, {Subject: r.Subject, SID: r.SID}}
		if r.SID != "" {
			shapes = append(shapes, store.Selector{SID: r.SID})
		}
		for _, who := range shapes {
			who.Issuer, who.ClientID = r.Issuer, r.ClientID
			var want []store.Record
			for _, other := range all {
				if who.Names(&other) {
					want = append(want, other)
				}
			}
			f.wantEnded(f.endWith(ending(who)), want...)
			f.now = f.now.Add(time.Second)
			f.createAll(want)
		}
	}
}

func endFails(f *fixture) {
	if f.h.FailEnd == nil {
		f.Skip("an End of this store cannot fail in the middle")
	}
	r, without := f.signIn("alice", "s1"), f.signIn("alice", "")
	heard := f.watch()
	who := store.Selector{Subject: "alice"} // an ending of a sid may leave its mark
	e := f.endingWith(who, store.NoticeRequest{Kind: store.NoticeLogout, PerSession: true})
	e.JTI, e.JTIExpires = "j1", f.now.Add(time.Hour)

	restore := f.h.FailEnd(f.T)
	ended, err := f.store.End(f.ctx, e, f.now)
	f.wantFault("End", err)
	if len(ended) != 0 {
		f.Errorf("a failed End reports %d sessions", len(ended))
	}
	f.wantAlive(r)
	f.wantAlive(without)
	restore()

	if n := len(f.claim()); n != 0 {
		f.Errorf("a failed End left %d notices", n)
	}
	f.wantHeard(heard)
	late := f.record("alice", "s1")
	if err := f.store.Create(f.ctx, late, f.now.Add(-time.Minute), f.now); err != nil {
		f.Errorf("Create after a failed End: %v: it left a mark", err)
	}
	f.now = f.now.Add(time.Second)
	f.wantEnded(f.endWith(e), r, without, late) // the same jti: it was not used up
	f.wantHeard(heard, r, without, late)
	if n := len(f.claim()); n != 3 {
		f.Errorf("the End that followed left %d notices, want 3", n)
	}
}
