package storetest

import (
	"slices"
	"strings"
	"time"

	"example.com/curfew/session"
)

func noticeCases() []testCase {
	return []testCase{
		{"an app is told of each session that ended", func(f *fixture) {
			for _, who := range []session.Who{{SID: "s1"}, {Subject: "alice", SID: "s1"}} {
				a, b := f.signIn("alice", "s1"), f.signIn("alice", "s1")
				bystander := f.signIn("bob", "s2")
				f.endWith(f.telling(who, session.Telling{Kind: session.NoticeTell}))
				f.wantNotices(f.about(session.NoticeTell, a), f.about(session.NoticeTell, b))
				f.wantAlive(bystander)
				f.now = f.now.Add(time.Second)
			}
			r := f.signIn("alice", "")
			f.endWith(f.telling(session.Who{Key: r.Key}, session.Telling{Kind: session.NoticeTell}))
			f.wantNotices(f.about(session.NoticeTell, r))
		}},
		{"an app is told of a whole subject once", func(f *fixture) {
			want := f.about(session.NoticeTell, session.Record{Issuer: issuer, ClientID: client, Subject: "alice"})
			f.endWith(f.telling(session.Who{Subject: "alice"}, session.Telling{Kind: session.NoticeTell}))
			f.wantNotices(want) // nobody was here, and still: the app may know her
			f.now = f.now.Add(time.Second)
			f.signIn("alice", "s1")
			f.signIn("alice", "s2")
			f.endWith(f.telling(session.Who{Subject: "alice"}, session.Telling{Kind: session.NoticeTell}))
			want.Created, want.Due, want.Deadline = f.now, f.now, f.now.Add(time.Hour)
			f.wantNotices(want)
		}},
		{"an app that wants to hear of each session is never told of a whole subject", func(f *fixture) {
			each := session.Telling{Kind: session.NoticeTell, PerSession: true}
			f.endWith(f.telling(session.Who{Subject: "alice"}, each))
			f.wantNotices()
			f.now = f.now.Add(time.Second)
			a, b := f.signIn("alice", "s1"), f.signIn("alice", "")
			f.endWith(f.telling(session.Who{Subject: "alice"}, each))
			f.wantNotices(f.about(session.NoticeTell, a), f.about(session.NoticeTell, b))
			f.now = f.now.Add(time.Second)
			c := f.signIn("alice", "s1")
			f.endWith(f.telling(session.Who{SID: "s1"}, each))
			f.wantNotices(f.about(session.NoticeTell, c))
		}},
		{"nobody is told when nobody ended", func(f *fixture) {
			for _, who := range []session.Who{{SID: "s1"}, {Subject: "alice", SID: "s1"}, {Key: f.record("alice", "s1").Key}} {
				f.endWith(f.telling(who, session.Telling{Kind: session.NoticeTell}, session.Telling{Kind: session.NoticeRevoke, Offline: true}))
			}
			f.endWith(f.telling(session.Who{Subject: "alice"}, session.Telling{Kind: session.NoticeRevoke, Offline: true}))
			f.wantNotices()
		}},
		{"refresh tokens are revoked, those for offline use on demand", func(f *fixture) {
			for _, offline := range []bool{false, true} {
				for _, who := range []session.Who{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
					var want []session.Notice
					for _, refresh := range []session.Refresh{session.RefreshNone, session.RefreshOnline, session.RefreshOffline} {
						r := f.record("alice", "s1")
						r.Refresh = refresh
						f.create(r)
						if refresh == session.RefreshOnline || refresh == session.RefreshOffline && offline {
							want = append(want, f.about(session.NoticeRevoke, r))
						}
					}
					f.endWith(f.telling(who, session.Telling{Kind: session.NoticeRevoke, Offline: offline}))
					f.wantNotices(want...)
					f.now = f.now.Add(time.Second)
				}
			}
		}},
		{"what is revoked is what the session held last", func(f *fixture) {
			r := f.signIn("alice", "s1")
			r.Refresh, r.Payload = session.RefreshOnline, []byte{0, 0xff, '\'', 7}
			if err := f.store.Update(f.ctx, r, f.now); err != nil {
				f.Fatalf("Update: %v", err)
			}
			f.endWith(f.telling(session.Who{SID: "s1"}, session.Telling{Kind: session.NoticeRevoke}))
			f.wantNotices(f.about(session.NoticeRevoke, r))
		}},
		{"each target has its own notices", func(f *fixture) {
			r := f.record("alice", "s1")
			r.Refresh = session.RefreshOnline
			f.create(r)
			e := f.telling(session.Who{SID: "s1"}, session.Telling{Kind: session.NoticeTell, Target: "https://one.example/"},
				session.Telling{Kind: session.NoticeTell, Target: "https://two.example/?a='b'&c=%"}, session.Telling{Kind: session.NoticeRevoke, Target: "main"})
			f.endWith(e)
			var want []session.Notice
			for i, kind := range []session.NoticeKind{session.NoticeTell, session.NoticeTell, session.NoticeRevoke} {
				n := f.about(kind, r)
				n.Target = e.Tell[i].Target
				want = append(want, n)
			}
			f.wantNotices(want...)
		}},
		{"an ending that asks for none leaves none", func(f *fixture) {
			r := f.record("alice", "s1")
			r.Refresh = session.RefreshOnline
			f.create(r)
			f.end(session.Who{Subject: "alice"})
			f.wantNotices()
		}},
	}
}

// telling is an ending of who that leaves notices for an hour.
func (f *fixture) telling(who session.Who, tell ...session.Telling) session.Ending {
	e := ending(who)
	for _, t := range tell {
		if t.Target == "" {
			t.Target = target
		}
		t.Deadline = f.now.Add(time.Hour)
		e.Tell = append(e.Tell, t)
	}
	return e
}

// about is the notice that telling leaves about r.
func (f *fixture) about(kind session.NoticeKind, r session.Record) session.Notice {
	n := session.Notice{Kind: kind, Target: target, Issuer: r.Issuer, ClientID: r.ClientID, Subject: r.Subject, SID: r.SID,
		Key: r.Key, Cause: session.CauseBackChannel, Created: f.now, Due: f.now, Deadline: f.now.Add(time.Hour), Attempts: 1}
	if kind == session.NoticeRevoke {
		n.Payload = r.Payload
	}
	return n
}

// wantNotices claims all there are and fails unless they are want, in any order. It settles them.
func (f *fixture) wantNotices(want ...session.Notice) {
	f.Helper()
	got := f.claim()
	for i := range got {
		f.settle(got[i], session.Outcome{Done: true})
		got[i].ID, got[i].Lease = "", ""
	}
	inOrder := func(notices []session.Notice) []session.Notice {
		notices = slices.Concat([]session.Notice{}, notices)
		for i := range notices {
			notices[i].Payload = slices.Concat([]byte{}, notices[i].Payload)
		}
		slices.SortFunc(notices, func(a, b session.Notice) int {
			return strings.Compare(a.Target+string(a.Kind)+a.Key.String(), b.Target+string(b.Kind)+b.Key.String())
		})
		return notices
	}
	if diff := difference(inOrder(want), inOrder(got)); diff != "" {
		f.Errorf("notices (-want +got):\n%s", diff)
	}
}
