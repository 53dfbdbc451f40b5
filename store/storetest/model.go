package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/curfew/store"
	"pgregory.net/rapid"
)

// model is a store without indexes: slow, and simple enough to be right. It finds sessions by Selector.Names alone.
type model struct {
	sessions map[store.Key]store.Record
	marks    []mark
	jtis     map[string]time.Time
}

type mark struct {
	who store.Selector
	at  time.Time
}

func (m *model) create(r store.Record, began, now time.Time) error {
	if now.Sub(began) >= store.AttemptLifetime {
		return store.ErrEnded
	}
	for _, mark := range m.marks {
		if mark.who.Names(&r) && !mark.at.Before(began) {
			return store.ErrEnded
		}
	}
	r.Revision = 1
	m.sessions[r.Key] = r
	return nil
}

func (m *model) update(r store.Record, now time.Time) error {
	kept, ok := m.sessions[r.Key]
	switch {
	case !ok || !kept.Lives(now):
		return store.ErrNotFound
	case kept.Revision != r.Revision:
		return store.ErrConflict
	}
	r.Revision++
	m.sessions[r.Key] = r
	return nil
}

// rename returns all errors that Rename may return.
func (m *model) rename(r store.Record, began, now time.Time) (errs []error) {
	kept, ok := m.sessions[r.Key]
	switch {
	case !ok || !kept.Lives(now):
		errs = append(errs, store.ErrNotFound)
	case kept.Revision != r.Revision:
		errs = append(errs, store.ErrConflict)
	}
	late := now.Sub(began) >= store.AttemptLifetime
	for _, mark := range m.marks {
		late = late || mark.who.Names(&r) && !mark.at.Before(began)
	}
	if late {
		errs = append(errs, store.ErrEnded)
	}
	if len(errs) == 0 {
		r.Revision++
		m.sessions[r.Key] = r
	}
	return errs
}

func (m *model) end(e store.Ending, now time.Time) ([]store.Record, error) {
	scope := fmt.Sprintf("%q %q %q", e.Selector.Issuer, e.Selector.ClientID, e.JTI)
	if e.JTI != "" {
		if now.Before(m.jtis[scope]) {
			return nil, store.ErrReplayed
		}
		m.jtis[scope] = e.JTIExpires
	}
	if e.Selector.Key.IsZero() {
		m.marks = append(m.marks, mark{e.Selector, now})
	}
	var gone []store.Record
	for key, r := range m.sessions {
		if e.Selector.Names(&r) {
			delete(m.sessions, key)
			if r.Lives(now) {
				gone = append(gone, r)
			}
		}
	}
	return gone, nil
}

func modelCases() []testCase {
	return []testCase{{"a store does what a slow and simple one does", func(f *fixture) {
		const rounds = 50 // which found every fault that was tried, and take a durable store a second
		round := 0
		start := f.now
		rapid.Check(f.T, func(t *rapid.T) {
			// The rounds share a store; each has its own issuers.
			if round++; round > rounds {
				return
			}
			f.now = start
			checkAgainstModel(f, t, []string{fmt.Sprintf("https://%d.example", round),
				fmt.Sprintf("https://%d.example/x", round)})
		})
	}}}
}

func checkAgainstModel(f *fixture, t *rapid.T, issuers []string) {
	m := &model{sessions: make(map[store.Key]store.Record), jtis: make(map[string]time.Time)}
	var keys []store.Key // of all sessions ever created
	last := make(map[store.Key]store.Record)

	issuer := rapid.SampledFrom(issuers)
	client := rapid.SampledFrom([]string{"app", "app2"})
	subject := rapid.SampledFrom([]string{"alice", "bob", "s1"})
	sid := rapid.SampledFrom([]string{"", "s1", "s2", "alice"})
	span := rapid.SampledFrom([]time.Duration{0, time.Microsecond, time.Minute, 10 * time.Minute,
		store.AttemptLifetime})
	same := func(what string, got, want error) {
		if !errors.Is(got, want) || want == nil && got != nil {
			t.Fatalf("%s: got error %v, want %v", what, got, want)
		}
	}
	everybody := func(t *rapid.T) {
		for _, key := range keys {
			want, lives := m.sessions[key]
			lives = lives && want.Lives(f.now)
			got, err := f.store.Find(f.ctx, key, f.now)
			if lives != (err == nil) || err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Fatalf("Find %s: error %v, lives in the model: %v", describe(last[key]), err, lives)
			}
			if diff := difference(kept(want), kept(got)); lives && diff != "" {
				t.Fatalf("Find %s (-want +got):\n%s", describe(last[key]), diff)
			}
		}
		if f.Failed() {
			t.FailNow()
		}
	}
	steps := 0
	t.Repeat(map[string]func(*rapid.T){
		"time passes": func(t *rapid.T) { f.now = f.now.Add(span.Draw(t, "time")) },
		"create": func(t *rapid.T) {
			r := recordAt(issuer.Draw(t, "issuer"), client.Draw(t, "client"), subject.Draw(t, "subject"),
				sid.Draw(t, "sid"), f.now)
			r.IdleExpires = f.now.Add(span.Draw(t, "idle") + time.Minute)
			r.Refresh = store.Refresh(rapid.IntRange(0, 2).Draw(t, "refresh"))
			began := f.now.Add(-span.Draw(t, "took"))
			same("Create", f.store.Create(f.ctx, r, began, f.now), m.create(r, began, f.now))
			keys = append(keys, r.Key)
			last[r.Key] = r
		},
		"update": func(t *rapid.T) {
			if len(keys) == 0 {
				t.Skip("nobody yet")
			}
			r := last[rapid.SampledFrom(keys).Draw(t, "key")]
			if kept, ok := m.sessions[r.Key]; ok && rapid.Bool().Draw(t, "fresh") {
				r = kept
			}
			r.IdleExpires = f.now.Add(span.Draw(t, "idle") + time.Minute)
			r.Payload = []byte{byte(len(keys))}
			same("Update", f.store.Update(f.ctx, r, f.now), m.update(r, f.now))
		},
		"rename": func(t *rapid.T) {
			if len(keys) == 0 {
				t.Skip("nobody yet")
			}
			r := last[rapid.SampledFrom(keys).Draw(t, "key")]
			if kept, ok := m.sessions[r.Key]; ok && rapid.IntRange(0, 9).Draw(t, "fresh") > 0 {
				r = kept
			}
			to := sid.Draw(t, "sid")
			if to == "" {
				t.Skip("an ID Token without a sid changes nothing")
			}
			r = renamed(r, to)
			r.IdleExpires = f.now.Add(span.Draw(t, "idle") + time.Minute)
			began := f.now.Add(-span.Draw(t, "took"))
			err := f.store.Rename(f.ctx, r, began, f.now)
			want := m.rename(r, began, f.now)
			if (err == nil) != (len(want) == 0) || err != nil &&
				!slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) }) {
				t.Fatalf("Rename %s to %q: got error %v, want one of %v", describe(r), r.SID, err, want)
			}
		},
		"list": func(t *rapid.T) {
			q := store.Query{Issuer: issuer.Draw(t, "issuer"), ClientID: client.Draw(t, "client"),
				Subject: rapid.OneOf(rapid.Just(""), subject).Draw(t, "subject"), SID: sid.Draw(t, "sid"), Limit: 1000}
			page, err := f.store.List(f.ctx, q, f.now)
			if err != nil {
				t.Fatalf("List %+v: %v", q, err)
			}
			var want []store.Record
			for _, r := range m.sessions {
				asked := q.Issuer == r.Issuer && q.ClientID == r.ClientID && (q.Subject == "" || q.Subject == r.Subject)
				if asked && (q.SID == "" || r.HasSID(q.SID)) && r.Lives(f.now) {
					want = append(want, kept(r))
				}
			}
			slices.SortFunc(want, func(a, b store.Record) int { return bytes.Compare(a.Key[:], b.Key[:]) })
			var got []store.Record
			for _, r := range page.Records {
				got = append(got, kept(r))
			}
			if diff := difference(want, got); diff != "" {
				t.Fatalf("List %+v (-want +got):\n%s", q, diff)
			}
		},
		"end": func(t *rapid.T) {
			e := store.Ending{Cause: store.CauseBackChannel, JTIExpires: f.now.Add(span.Draw(t, "jti lives"))}
			e.Selector = store.Selector{Issuer: issuer.Draw(t, "issuer"), ClientID: client.Draw(t, "client"),
				Subject: rapid.OneOf(rapid.Just(""), subject).Draw(t, "subject"), SID: sid.Draw(t, "sid")}
			if e.Selector.Subject == "" && e.Selector.SID == "" {
				if len(keys) == 0 {
					t.Skip("nobody yet")
				}
				e.Selector.Key = rapid.SampledFrom(keys).Draw(t, "key")
			}
			e.JTI = rapid.SampledFrom([]string{"", "", "j1", "j2", "j3"}).Draw(t, "jti")
			ended, err := f.store.End(f.ctx, e, f.now)
			gone, want := m.end(e, f.now)
			same("End", err, want)
			f.wantEnded(ended, gone...)
		},
		"prune": func(t *rapid.T) {
			if _, err := f.store.Prune(f.ctx, f.now); err != nil {
				t.Fatalf("Prune: %v", err)
			}
		},
		"": func(t *rapid.T) {
			if steps++; steps%5 == 0 { // a fault stays, and comparing at each step would take most of the time
				everybody(t)
			}
		},
	})
	everybody(t)
}
