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
	"github.com/google/go-cmp/cmp"
)

// Store is what every store is.
type Store interface {
	session.Store
	session.Desk
	session.Vault
}

// Harness is an empty store and what a test can do to it.
type Harness struct {
	Store Store // closed by the suite

	// Reopen closes the store and opens what it kept. Nil: the store keeps nothing.
	Reopen func(t *testing.T) Store

	// FailEnd makes each End fail after some of its writes, until restore is called. The End that is made to fail names a
	// session and leaves a notice. Nil: an End that has begun to write cannot fail.
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
		{"Replay", replayCases()},
		{"Expiry", expiryCases()},
		{"List", listCases()},
		{"Watch", watchCases()},
		{"Outbox", outboxCases()},
		{"Notices", noticeCases()},
		{"Desk", deskCases()},
		{"Vault", vaultCases()},
		{"Attempts", attemptCases()},
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

const ahead = session.AttemptLifetime

type testCase struct {
	name string
	run  func(f *fixture)
}

const (
	issuer = "https://id.example"
	client = "app"
	target = "https://other.example/backchannel-logout"
)

// fixture is a store in a test, and the time there.
type fixture struct {
	*testing.T
	ctx   context.Context
	h     Harness
	store Store
	now   time.Time
}

func newFixture(t *testing.T, h Harness) *fixture {
	// The time is today's, so that a store may let the rest of what it keeps run out by a clock of its machine, and a little
	// ahead, so that a store that has a clock leaves its marks with the times that the cases give.
	f := &fixture{T: t, ctx: t.Context(), h: h, store: h.Store, now: session.Time(time.Now().Add(ahead))}
	t.Cleanup(func() {
		if err := f.store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return f
}

// record returns a session of subject that would live for an hour.
func (f *fixture) record(subject, sid string) session.Record {
	return recordAt(issuer, client, subject, sid, f.now)
}

func recordAt(issuer, client, subject, sid string, now time.Time) session.Record {
	bearer := session.NewBearer(issuer, client, subject)
	payload := make([]byte, 40)
	for i := range payload {
		payload[i] = byte(rand.Uint32())
	}
	return session.Record{
		Key: bearer.Key(), Issuer: issuer, ClientID: client, Subject: subject, SID: sid,
		Created: now, LastSeen: now, IdleExpires: now.Add(time.Hour), Expires: now.Add(24 * time.Hour),
		Revision: 1, Refresh: session.RefreshNone, Payload: payload,
	}
}

// create keeps r, whose login began just now.
func (f *fixture) create(r session.Record) session.Record {
	f.Helper()
	if err := f.store.Create(f.ctx, r, f.now, f.now); err != nil {
		f.Fatalf("Create: %v", err)
	}
	return r
}

// signIn keeps a new session of subject.
func (f *fixture) signIn(subject, sid string) session.Record {
	f.Helper()
	return f.create(f.record(subject, sid))
}

// end ends whom w names, within the usual issuer and client unless it says others.
func (f *fixture) end(w session.Who) []session.Ended {
	f.Helper()
	return f.endWith(ending(w))
}

func (f *fixture) endWith(e session.Ending) []session.Ended {
	f.Helper()
	ended, err := f.store.End(f.ctx, e, f.now)
	if err != nil {
		f.Fatalf("End: %v", err)
	}
	return ended
}

func ending(w session.Who) session.Ending {
	if w.Issuer == "" {
		w.Issuer, w.ClientID = issuer, client
	}
	return session.Ending{Who: w, Cause: session.CauseBackChannel}
}

// wantError fails unless err is want.
func (f *fixture) wantError(what string, err, want error) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

// wantFault fails unless err is an error, and none that has a meaning.
func (f *fixture) wantFault(what string, err error) {
	f.Helper()
	if err == nil {
		f.Errorf("%s: got no error", what)
	}
	for _, known := range []error{session.ErrNotFound, session.ErrEnded, session.ErrReplayed, session.ErrConflict,
		session.ErrNobody, session.ErrLeaseLost, session.ErrNoNotice} {
		if errors.Is(err, known) {
			f.Errorf("%s: got error %v, which says something about the session; want one that does not", what, err)
		}
	}
}

// wantAlive fails unless r is there just as it is given.
func (f *fixture) wantAlive(r session.Record) {
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

// wantGone fails unless r is not there.
func (f *fixture) wantGone(r session.Record) {
	f.Helper()
	if _, err := f.store.Find(f.ctx, r.Key, f.now); !errors.Is(err, session.ErrNotFound) {
		f.Errorf("Find %s: got error %v, want %v", describe(r), err, session.ErrNotFound)
	}
}

// wantEnded fails unless ended are the sessions in want, in any order.
func (f *fixture) wantEnded(ended []session.Ended, want ...session.Record) {
	f.Helper()
	got := make(map[session.Key]session.Ended)
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
		expect := session.Ended{Key: r.Key, Issuer: r.Issuer, ClientID: r.ClientID, Subject: r.Subject, SID: r.SID,
			Cause: session.CauseBackChannel, At: f.now}
		if diff := difference(expect, e); ok && diff != "" {
			f.Errorf("ended %s (-want +got):\n%s", describe(r), diff)
		}
	}
	for _, e := range got {
		f.Errorf("(subject %q, sid %q) of (%q, %q) ended, which nobody asked for", e.Subject, e.SID, e.Issuer, e.ClientID)
	}
}

// claim claims everything that is due.
func (f *fixture) claim() []session.Notice {
	f.Helper()
	notices, err := f.store.Claim(f.ctx, f.now, time.Minute, 1000)
	if err != nil {
		f.Fatalf("Claim: %v", err)
	}
	return notices
}

// pruneAll prunes until nothing is left to prune, and says how much it was.
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

// kept is r as a store gives it back.
func kept(r session.Record) session.Record {
	r.Created, r.LastSeen = session.Time(r.Created), session.Time(r.LastSeen)
	r.IdleExpires, r.Expires = session.Time(r.IdleExpires), session.Time(r.Expires)
	r.Payload = slices.Concat([]byte{}, r.Payload)
	r.Former = slices.Concat(nil, r.Former)
	return r
}

func describe(r session.Record) string { return fmt.Sprintf("(subject %q, sid %q)", r.Subject, r.SID) }

// difference says how got differs from want, if it does. Finding that it does not is the usual case, and made cheap.
func difference(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got)
}
