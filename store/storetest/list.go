package storetest

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"example.com/curfew/store"
)

func listCases() []testCase {
	return []testCase{
		{"an empty store has one empty page", func(f *fixture) {
			f.wantListed(store.Query{}, nil)
		}},
		{"a page is in the order of the keys, and the pages are all there is", func(f *fixture) {
			var all []store.Record
			for i := range 1234 {
				all = append(all, f.record(fmt.Sprint("user", i%30), fmt.Sprint("s", i%200)))
			}
			f.createAll(all)
			for _, limit := range []int{0, 617, 1000} {
				f.wantListed(store.Query{Limit: limit}, all)
			}
			f.wantListed(store.Query{Limit: 2}, all[:0:0], "nobody@nowhere")
		}},
		{"a page that holds the last is the last", func(f *fixture) {
			for range 4 {
				f.signIn("alice", "s1")
			}
			for limit, more := range map[int]bool{3: true, 4: false, 5: false} {
				page, err := f.store.List(f.ctx, store.Query{Limit: limit}, f.now)
				if err != nil || len(page.Records) != min(limit, 4) || page.Next.IsZero() == more {
					f.Errorf("a page of %d has %d and goes on: %v (error %v)", limit, len(page.Records),
						!page.Next.IsZero(), err)
				}
			}
		}},
		{"without a limit a page holds a hundred", func(f *fixture) {
			for range 101 {
				f.signIn("alice", "s1")
			}
			page, err := f.store.List(f.ctx, store.Query{}, f.now)
			if err != nil || len(page.Records) != 100 || page.Next.IsZero() {
				f.Errorf("a page has %d (error %v), want 100 and a next", len(page.Records), err)
			}
		}},
		{"a query names whom it wants, to the letter", func(f *fixture) {
			var all []store.Record
			for _, in := range [][2]string{{issuer, client}, {issuer, "app2"}, {"https://other.example", client}} {
				for _, subject := range []string{"alice", "Alice", "bob", "%"} {
					for _, sid := range []string{"s1", "S1", "", "*"} {
						all = append(all, recordAt(in[0], in[1], subject, sid, f.now))
					}
				}
			}
			f.createAll(all)
			for _, q := range []store.Query{
				{Issuer: issuer}, {ClientID: client}, {Issuer: issuer, ClientID: client}, {Issuer: "https://id"},
				{Issuer: issuer, ClientID: client, Subject: "alice"}, {Issuer: issuer, ClientID: client, SID: "s1"},
				{Issuer: issuer, ClientID: client, Subject: "alice", SID: "s1"},
				{Issuer: issuer, ClientID: client, Subject: "%"},
				{Issuer: issuer, ClientID: client, SID: "*"}, {Issuer: issuer, ClientID: client, Subject: "carol"},
			} {
				q.Limit = 3
				f.wantListed(q, pick(all, func(r store.Record) bool {
					return (q.Issuer == "" || q.Issuer == r.Issuer) && (q.ClientID == "" || q.ClientID == r.ClientID) &&
						(q.Subject == "" || q.Subject == r.Subject) && (q.SID == "" || q.SID == r.SID)
				}))
			}
		}},
		{"a query that has no meaning is refused", func(f *fixture) {
			for _, q := range []store.Query{
				{Subject: "alice"}, {SID: "s1"}, {Issuer: issuer, Subject: "alice"}, {ClientID: client, SID: "s1"},
				{Limit: -1}, {Limit: 1001},
			} {
				_, err := f.store.List(f.ctx, q, f.now)
				f.wantFault(fmt.Sprintf("List %+v", q), err)
			}
		}},
		{"who does not live is not listed", func(f *fixture) {
			idle, old, ended := f.record("alice", "s1"), f.record("alice", "s1"), f.signIn("alice", "s2")
			idle.IdleExpires, old.Expires = f.now.Add(time.Minute), f.now.Add(time.Minute)
			f.create(idle)
			f.create(old)
			lives := f.signIn("alice", "s1")
			f.end(store.Selector{Key: ended.Key})
			f.now = f.now.Add(time.Minute)
			for _, q := range []store.Query{{}, {Issuer: issuer, ClientID: client, Subject: "alice"},
				{Issuer: issuer, ClientID: client, SID: "s1"}} {
				f.wantListed(q, []store.Record{lives})
			}
		}},
		{"who lives throughout is on exactly one page, whatever comes and goes", func(f *fixture) {
			var stays, goes []store.Record
			for i := range 1000 {
				r := f.record(fmt.Sprint("stays", i%5), "s1")
				if i%3 == 0 {
					r = f.record("goes", fmt.Sprint("s", i))
					goes = append(goes, r)
				} else {
					stays = append(stays, r)
				}
			}
			f.createAll(stays)
			f.createAll(goes)
			seen := make(map[store.Key]int)
			q := store.Query{Limit: 90}
			for page := 0; ; page++ {
				p, err := f.store.List(f.ctx, q, f.now)
				if err != nil {
					f.Fatalf("List: %v", err)
				}
				for _, r := range p.Records {
					seen[r.Key]++
				}
				if p.Next.IsZero() {
					break
				}
				q.After = p.Next
				if page > 1000 {
					f.Fatal("the list has no end")
				}
				for range 20 {
					f.signIn("comes", "s1")
				}
				for range min(20, len(goes)) {
					f.end(store.Selector{SID: goes[0].SID})
					goes = goes[1:]
				}
				// The session after which the next page starts may end too.
				if last := p.Records[len(p.Records)-1]; last.Subject == "goes" {
					f.end(store.Selector{Key: last.Key})
				}
			}
			for _, r := range stays {
				if seen[r.Key] != 1 {
					f.Errorf("%s was on %d pages", describe(r), seen[r.Key])
				}
			}
			for key, n := range seen {
				if n != 1 {
					f.Errorf("session %s was on %d pages", key.Handle(), n)
				}
			}
		}},
	}
}

// wantListed fails unless all pages of q together are the sessions in want, in the order of their keys.
func (f *fixture) wantListed(q store.Query, want []store.Record, subject ...string) {
	f.Helper()
	if len(subject) != 0 {
		q.Issuer, q.ClientID, q.Subject = issuer, client, subject[0]
	}
	var got []store.Record
	for {
		page, err := f.store.List(f.ctx, q, f.now)
		if err != nil {
			f.Fatalf("List: %v", err)
		}
		limit := q.Limit
		if limit == 0 {
			limit = 100
		}
		if len(page.Records) > limit || !page.Next.IsZero() && len(page.Records) != limit {
			f.Errorf("a page has %d sessions, with a limit of %d", len(page.Records), limit)
		}
		for _, r := range page.Records {
			got = append(got, kept(r))
		}
		if page.Next.IsZero() {
			break
		}
		if bytes.Compare(page.Next[:], q.After[:]) <= 0 {
			f.Fatal("the list does not get on")
		}
		q.After = page.Next
	}
	sorted := make([]store.Record, 0, len(want))
	for _, r := range want {
		sorted = append(sorted, kept(r))
	}
	slices.SortFunc(sorted, func(a, b store.Record) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	if diff := difference(sorted, append(make([]store.Record, 0, len(got)), got...)); diff != "" {
		f.Errorf("List %+v (-want +got):\n%.2000s", q, diff)
	}
}
