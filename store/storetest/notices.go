package storetest

import (
	"slices"
	"strings"
	"time"

	"example.com/curfew/store"
)

func noticeCases() []testCase {
	return []testCase{
		{"an app is told of each session that ended", func(f *fixture) {
			for _, who := range []store.Selector{{SID: "s1"}, {Subject: "alice", SID: "s1"}} {
				a, b := f.signIn("alice", "s1"), f.signIn("alice", "s1")
				bystander := f.signIn("bob", "s2")
				f.endWith(f.endingWith(who, store.NoticeRequest{Kind: store.NoticeLogout}))
				f.wantNotices(f.about(store.NoticeLogout, a), f.about(store.NoticeLogout, b))
				f.wantAlive(bystander)
				f.now = f.now.Add(time.Second)
			}
			r := f.signIn("alice", "")
			f.endWith(f.endingWith(store.Selector{Key: r.Key}, store.NoticeRequest{Kind: store.NoticeLogout}))
			f.wantNotices(f.about(store.NoticeLogout, r))
		}},
		{"an app is told of a whole subject once", func(f *fixture) {
			want := f.about(store.NoticeLogout, store.Record{Issuer: issuer, ClientID: client, Subject: "alice"})
			f.endWith(f.endingWith(store.Selector{Subject: "alice"}, store.NoticeRequest{Kind: store.NoticeLogout}))
			f.wantNotices(want) // without any session here: the app may know the subject
			f.now = f.now.Add(time.Second)
			f.signIn("alice", "s1")
			f.signIn("alice", "s2")
			f.endWith(f.endingWith(store.Selector{Subject: "alice"}, store.NoticeRequest{Kind: store.NoticeLogout}))
			want.Created, want.Due, want.Deadline = f.now, f.now, f.now.Add(time.Hour)
			f.wantNotices(want)
		}},
		{"an app that wants to hear of each session is never told of a whole subject", func(f *fixture) {
			each := store.NoticeRequest{Kind: store.NoticeLogout, PerSession: true}
			f.endWith(f.endingWith(store.Selector{Subject: "alice"}, each))
			f.wantNotices()
			f.now = f.now.Add(time.Second)
			a, b := f.signIn("alice", "s1"), f.signIn("alice", "")
			f.endWith(f.endingWith(store.Selector{Subject: "alice"}, each))
			f.wantNotices(f.about(store.NoticeLogout, a), f.about(store.NoticeLogout, b))
			f.now = f.now.Add(time.Second)
			c := f.signIn("alice", "s1")
			f.endWith(f.endingWith(store.Selector{SID: "s1"}, each))
			f.wantNotices(f.about(store.NoticeLogout, c))
		}},
		{"nobody is told when nobody ended", func(f *fixture) {
			for _, who := range []store.Selector{{SID: "s1"}, {Subject: "alice", SID: "s1"},
				{Key: f.record("alice", "s1").Key}} {
				f.endWith(f.endingWith(who, store.NoticeRequest{Kind: store.NoticeLogout},
					store.NoticeRequest{Kind: store.NoticeRevoke, Offline: true}))
			}
			f.endWith(f.endingWith(store.Selector{Subject: "alice"},
				store.NoticeRequest{Kind: store.NoticeRevoke, Offline: true}))
			f.wantNotices()
		}},
		{"refresh tokens are revoked, those for offline use on demand", func(f *fixture) {
			for _, offline := range []bool{false, true} {
				for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
					var want []store.Notice
					for _, refresh := range []store.Refresh{store.RefreshNone, store.RefreshOnline,
						store.RefreshOffline} {
						r := f.record("alice", "s1")
						r.Refresh = refresh
						f.create(r)
						if refresh == store.RefreshOnline || refresh == store.RefreshOffline && offline {
							want = append(want, f.about(store.NoticeRevoke, r))
						}
					}
					f.endWith(f.endingWith(who, store.NoticeRequest{Kind: store.NoticeRevoke, Offline: offline}))
					f.wantNotices(want...)
					f.now = f.now.Add(time.Second)
				}
			}
		}},
		{"what is revoked is what the session held last", func(f *fixture) {
			r := f.signIn("alice", "s1")
			r.Refresh, r.Payload = store.RefreshOnline, []byte{0, 0xff, '\'', 7}
			if err := f.store.Update(f.ctx, r, f.now); err != nil {
				f.Fatalf("Update: %v", err)
			}
			f.endWith(f.endingWith(store.Selector{SID: "s1"}, store.NoticeRequest{Kind: store.NoticeRevoke}))
			f.wantNotices(f.about(store.NoticeRevoke, r))
		}},
		{"each target has its own notices", func(f *fixture) {
			r := f.record("alice", "s1")
			r.Refresh = store.RefreshOnline
			f.create(r)
			e := f.endingWith(store.Selector{SID: "s1"}, store.NoticeRequest{Kind: store.NoticeLogout,
				Target: "https://one.example/"},
				store.NoticeRequest{Kind: store.NoticeLogout, Target: "https://two.example/?a='b'&c=%"},
				store.NoticeRequest{Kind: store.NoticeRevoke, Target: "main"})
			f.endWith(e)
			var want []store.Notice
			for i, kind := range []store.NoticeKind{store.NoticeLogout, store.NoticeLogout, store.NoticeRevoke} {
				n := f.about(kind, r)
				n.Target = e.Notices[i].Target
				want = append(want, n)
			}
			f.wantNotices(want...)
		}},
		{"an ending that asks for none leaves none", func(f *fixture) {
			r := f.record("alice", "s1")
			r.Refresh = store.RefreshOnline
			f.create(r)
			f.end(store.Selector{Subject: "alice"})
			f.wantNotices()
		}},
	}
}

// endingWith is an ending of who that leaves notices for an hour.
func (f *fixture) endingWith(who store.Selector, requests ...store.NoticeRequest) store.Ending {
	e := ending(who)
	for _, t := range requests {
		if t.Target == "" {
			t.Target = target
		}
		t.Deadline = f.now.Add(time.Hour)
		e.Notices = append(e.Notices, t)
	}
	return e
}

// about returns the notice that endingWith leaves about r.
func (f *fixture) about(kind store.NoticeKind, r store.Record) store.Notice {
	n := store.Notice{Kind: kind, Target: target, Issuer: r.Issuer, ClientID: r.ClientID, Subject: r.Subject,
		SID: r.SID,
		Key: r.Key, Cause: store.CauseBackChannel, Created: f.now, Due: f.now, Deadline: f.now.Add(time.Hour),
		Attempts: 1}
	if kind == store.NoticeRevoke {
		n.Payload = r.Payload
	}
	return n
}

// wantNotices claims all there are and fails unless they are want, in any order. It completes them.
func (f *fixture) wantNotices(want ...store.Notice) {
	f.Helper()
	got := f.claim()
	for i := range got {
		f.complete(got[i], store.Outcome{Done: true})
		got[i].ID, got[i].Lease = "", ""
	}
	inOrder := func(notices []store.Notice) []store.Notice {
		notices = slices.Concat([]store.Notice{}, notices)
		for i := range notices {
			notices[i].Payload = slices.Concat([]byte{}, notices[i].Payload)
		}
		slices.SortFunc(notices, func(a, b store.Notice) int {
			return strings.Compare(a.Target+string(a.Kind)+a.Key.String(), b.Target+string(b.Kind)+b.Key.String())
		})
		return notices
	}
	if diff := difference(inOrder(want), inOrder(got)); diff != "" {
		f.Errorf("notices (-want +got):\n%s", diff)
	}
}
