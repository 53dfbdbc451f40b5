package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
	"github.com/google/go-cmp/cmp"
)

// Harness is an empty store, and what a test can do to it.
type Harness struct {
	Store store.Store // the suite closes it

	// Reopen closes the store and opens it again with what it kept. Nil means that the store keeps nothing.
	Reopen func(t *testing.T) store.Store

	// FailEnd makes each End fail after some of its writes, until restore is called. The End of the test names a
	// session and leaves a notice. Nil means that an End cannot fail once it has begun to write.
	FailEnd func(t *testing.T) (restore func())
}

// Run runs the suite, each case on a store of its own.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	groups := []struct {
		name  string
		cases []testCase
	}{
		{"Create", createCases()},
		{"Update", updateCases()},
		{"Rename", renameCases()},
		{"End", endCases()},
		{"Batches", batchCases()},
		{"Marks", markCases()},
		{"Admit", admitCases()},
		{"Replay", replayCases()},
		{"Expiry", expiryCases()},
		{"List", listCases()},
		{"Watch", watchCases()},
		{"Outbox", outboxCases()},
		{"Notices", noticeCases()},
		{"Targets", targetCases()},
		{"Values", sharedValueCases()},
		{"Attempts", attemptCases()},
		{"Journal", journalCases()},
		{"Races", raceCases()},
		{"Restart", restartCases()},
		{"Clock", clockCases()},
		{"Context", contextCases()},
		{"Model", modelCases()},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range g.cases {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					c.run(newFixture(t, open(t)))
				})
			}
		})
	}
}

const ahead = store.AttemptLifetime

type testCase struct {
	name string
	run  func(f *fixture)
}

const (
	issuer = "https://id.example"
	client = "app"
	target = "https://other.example/backchannel-logout"
)

// fixture is the store of a test, and the test's time.
type fixture struct {
	*testing.T
	ctx   context.Context
	h     Harness
	store store.Store
	now   time.Time
}

func newFixture(t *testing.T, h Harness) *fixture {
	// The time is the present, since a store may clean up by the clock of its machine, and a little ahead, so that a
	// store with a clock leaves its marks with the times of the cases.
	f := &fixture{T: t, ctx: t.Context(), h: h, store: h.Store, now: store.Time(time.Now().Add(ahead))}
	t.Cleanup(func() {
		if err := f.store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return f
}

// record returns a session of subject that lives for an hour.
func (f *fixture) record(subject, sid string) store.Record {
	return recordAt(issuer, client, subject, sid, f.now)
}

func recordAt(issuer, client, subject, sid string, now time.Time) store.Record {
	bearer := session.NewBearer(issuer, client, subject)
	payload := make([]byte, 40)
	for i := range payload {
		payload[i] = byte(rand.Uint32())
	}
	return store.Record{
		Key: bearer.Key(), Issuer: issuer, ClientID: client, Subject: subject, SID: sid,
		Created: now, LastSeen: now, IdleExpires: now.Add(time.Hour), Expires: now.Add(24 * time.Hour),
		Revision: 1, Refresh: store.RefreshNone, Payload: payload,
	}
}

// create creates r, whose login began just now.
func (f *fixture) create(r store.Record) store.Record {
	f.Helper()
	if err := f.store.Create(f.ctx, r, f.now, f.now); err != nil {
		f.Fatalf("Create: %v", err)
	}
	return r
}

// signIn creates a new session of subject.
func (f *fixture) signIn(subject, sid string) store.Record {
	f.Helper()
	return f.create(f.record(subject, sid))
}

// end ends the sessions that w names. An empty issuer and client mean the usual ones.
func (f *fixture) end(w store.Selector) []store.Ended {
	f.Helper()
	return f.endWith(ending(w))
}

func (f *fixture) endWith(e store.Ending) []store.Ended {
	f.Helper()
	ended, err := f.store.End(f.ctx, e, f.now)
	if err != nil {
		f.Fatalf("End: %v", err)
	}
	return ended
}

func ending(w store.Selector) store.Ending {
	if w.Issuer == "" {
		w.Issuer, w.ClientID = issuer, client
	}
	return store.Ending{Selector: w, Cause: store.CauseBackChannel}
}

// wantError fails unless err is want.
func (f *fixture) wantError(what string, err, want error) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

// wantFault fails unless err is an error, and none of the contract's.
func (f *fixture) wantFault(what string, err error) {
	f.Helper()
	if err == nil {
		f.Errorf("%s: got no error", what)
	}
	if store.IsContractError(err) {
		f.Errorf("%s: got error %v, which says something about the session; want one that does not", what, err)
	}
}

// wantAlive fails unless the stored session equals r.
func (f *fixture) wantAlive(r store.Record) {
	f.Helper()
	got, err := f.store.Find(f.ctx, r.Key, f.now)
	if err != nil {
		f.Errorf("Find %s: %v, want it alive", describe(r), err)
		return
	}
	if diff := difference(kept(r), kept(got)); diff != "" {
		f.Errorf("Find %s (-want +got):\n%s", describe(r), diff)
	}
}

// wantGone fails if r is found.
func (f *fixture) wantGone(r store.Record) {
	f.Helper()
	if _, err := f.store.Find(f.ctx, r.Key, f.now); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("Find %s: got error %v, want %v", describe(r), err, store.ErrNotFound)
	}
}

// wantEnded fails unless ended are the sessions in want, in any order.
func (f *fixture) wantEnded(ended []store.Ended, want ...store.Record) {
	f.Helper()
	got := make(map[store.Key]store.Ended)
	for _, e := range ended {
		if _, twice := got[e.Key]; twice {
			f.Errorf("session %s ended twice", e.Key.Handle())
		}
		got[e.Key] = e
	}
	for _, r := range want {
		e, ok := got[r.Key]
		if !ok {
			f.Errorf("%s was not reported as ended", describe(r))
		}
		delete(got, r.Key)
		expect := store.Ended{Key: r.Key, Issuer: r.Issuer, ClientID: r.ClientID, Subject: r.Subject, SID: r.SID,
			Cause: store.CauseBackChannel, At: f.now, Refresh: r.Refresh}
		if diff := difference(expect, e); ok && diff != "" {
			f.Errorf("ended %s (-want +got):\n%s", describe(r), diff)
		}
	}
	for _, e := range got {
		f.Errorf("(subject %q, sid %q) of (%q, %q) ended, which nobody asked for", e.Subject, e.SID, e.Issuer,
			e.ClientID)
	}
}

// claim claims everything that is due.
func (f *fixture) claim() []store.Notice {
	f.Helper()
	notices, err := ClaimAll(f.ctx, f.store, f.now, time.Minute, 1000)
	if err != nil {
		f.Fatalf("Claim: %v", err)
	}
	return notices
}

// ClaimAll claims up to limit notices of every kind and target, those that have been due for longest first.
func ClaimAll(ctx context.Context, from store.Outbox, now time.Time, lease time.Duration,
	limit int) (all []store.Notice, err error) {
	targets, err := from.Stats(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		some, err := from.Claim(ctx, t.Kind, t.Target, now, lease, limit-len(all))
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	slices.SortStableFunc(all, func(a, b store.Notice) int { return a.Due.Compare(b.Due) })
	return all, nil
}

// pruneAll prunes until nothing is left to prune, and returns how many entries were removed.
func (f *fixture) pruneAll(now time.Time) int {
	f.Helper()
	for total, calls := 0, 0; ; calls++ {
		n, err := f.store.Prune(f.ctx, now)
		if err != nil {
			f.Fatalf("Prune: %v", err)
		}
		if n == 0 {
			return total
		}
		if total += n; calls > 10_000 {
			f.Fatalf("Prune removed %d and finds no end", total)
		}
	}
}

// kept returns r as a store returns it.
func kept(r store.Record) store.Record {
	r.Created, r.LastSeen = store.Time(r.Created), store.Time(r.LastSeen)
	r.IdleExpires, r.Expires = store.Time(r.IdleExpires), store.Time(r.Expires)
	r.Payload = slices.Concat([]byte{}, r.Payload)
	r.Former = slices.Concat(nil, r.Former)
	return r
}

func describe(r store.Record) string { return fmt.Sprintf("(subject %q, sid %q)", r.Subject, r.SID) }

// difference describes how got differs from want, or returns an empty string, which is the usual and fast case.
func difference(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got)
}
