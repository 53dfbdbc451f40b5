//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/curfew/internal/servers"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// storeAddresses makes a new store of each kind, on a server of its own.
func storeAddresses() map[string]func(t testing.TB) string {
	return map[string]func(t testing.TB) string{
		"sqlite":   func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "curfew.db") },
		"postgres": func(t testing.TB) string { return servers.Postgres(t).URL },
		"redis":    func(t testing.TB) string { return servers.Redis(t).URL },
	}
}

// withStore opens a store for as long as do takes: SQLite lets nobody else in meanwhile.
func withStore(t testing.TB, address string, do func(store.Store)) {
	t.Helper()
	s, err := parseStore(address)
	if err != nil {
		t.Fatal(err)
	}
	backend, err := s.kind.open(context.Background(), s.rest, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	do(backend)
}

// person is a session of a person, signed in at a time. Every third has no sid, and every third had others before.
func person(n int, at time.Time) store.Record {
	const issuer, client = "https://id.example", "app"
	subject, sid := fmt.Sprintf("person %d", n/2), ""
	if n%3 > 0 {
		sid = fmt.Sprintf("sid %d", n)
	}
	var former []string
	if n%3 == 1 {
		former = []string{"sid of before", fmt.Sprintf("sid %d of before", n)}
	}
	b := session.NewBearer(issuer, client, subject)
	at = store.Time(at)
	return store.Record{
		Key: b.Key(), Issuer: issuer, ClientID: client, Subject: subject, SID: sid, Former: former, Created: at, LastSeen: at,
		IdleExpires: at.Add(2 * time.Hour), Expires: at.Add(24 * time.Hour), Refresh: store.Refresh(n % 3),
		Payload: bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 200),
	}
}

// many does something for each of n, many at once.
func many(t testing.TB, n int, do func(i int) error) {
	t.Helper()
	var all errgroup.Group
	all.SetLimit(64)
	for i := range n {
		all.Go(func() error { return do(i) })
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

func signIn(backend store.Store, r store.Record) error {
	return backend.Create(context.Background(), r, r.Created, r.Created)
}

func signOut(backend store.Store, r store.Record) error {
	who := store.Selector{Issuer: r.Issuer, ClientID: r.ClientID, Key: r.Key}
	_, err := backend.End(context.Background(), store.Ending{Selector: who, Cause: store.CauseUser}, time.Now())
	return err
}

// use is what a gateway does to a session that is used: it is seen, and its tokens may be others.
func use(backend store.Store, key store.Key, at time.Time) error {
	for {
		r, err := backend.Find(context.Background(), key, at)
		if err != nil {
			return err
		}
		r.LastSeen, r.IdleExpires = store.Time(at), store.Time(at.Add(2*time.Hour))
		r.Payload = append([]byte("used "), r.Payload...)
		if err = backend.Update(context.Background(), r, at); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// living are the sessions of a store, but for their revisions, which each store counts by itself.
func living(t testing.TB, backend store.Store) map[store.Key]store.Record {
	t.Helper()
	all := map[store.Key]store.Record{}
	for after := (store.Key{}); ; {
		page, err := backend.List(context.Background(), store.Query{After: after, Limit: 1000}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			r.Revision = 0
			all[r.Key] = r
		}
		if after = page.Next; after.IsZero() {
			return all
		}
	}
}

func livingAt(t testing.TB, address string) (all map[store.Key]store.Record) {
	t.Helper()
	withStore(t, address, func(s store.Store) { all = living(t, s) })
	return all
}

// wantSame fails unless exactly the same sessions live.
func wantSame(t testing.TB, got, want map[store.Key]store.Record) {
	t.Helper()
	for key, r := range want {
		other, ok := got[key]
		switch {
		case !ok:
			t.Errorf("session %s of %s was lost", key.Handle(), r.Subject)
		case !same(&r, &other) || r.Subject != other.Subject || r.SID != other.SID || !r.Created.Equal(other.Created):
			t.Errorf("session %s of %s is another at TO", key.Handle(), r.Subject)
		}
	}
	for key, r := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("session %s of %s lives at TO, and not at FROM", key.Handle(), r.Subject)
		}
	}
}

// copied runs the command, which must end with a status.
func copied(t testing.TB, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, status := command(append([]string{"store", "copy"}, args...)...)
	if status != want {
		t.Fatalf("store copy %s: exit status %d, want %d\n%s%s", args, status, want, stdout, stderr)
	}
	return stdout, stderr
}

func TestSessionsMoveBetweenAnyTwoStores(t *testing.T) {
	t.Parallel()
	address := storeAddresses()
	for _, row := range []struct{ from, to string }{{"sqlite", "sqlite"}, {"sqlite", "postgres"}, {"postgres", "redis"}, {"redis", "sqlite"}} {
		t.Run(row.from+" to "+row.to, func(t *testing.T) {
			t.Parallel()
			from, to := address[row.from](t), address[row.to](t)
			began := time.Now().Add(-time.Hour) // long before what end marks reach back to
			people := make([]store.Record, 1100)
			for i := range people {
				people[i] = person(i, began)
			}
			withStore(t, from, func(s store.Store) { many(t, len(people), func(i int) error { return signIn(s, people[i]) }) })

			out, _ := copied(t, 0, from, to)
			if !strings.Contains(out, " 1100  copied\n") || !strings.Contains(out, "as it was there just now: 1100.") {
				t.Errorf("the first copy says\n%s", out)
			}
			first := livingAt(t, from)
			if len(first) != len(people) {
				t.Fatalf("%d live at FROM after the copy, want %d", len(first), len(people))
			}
			wantSame(t, livingAt(t, to), first)

			// Life goes on at FROM.
			withStore(t, from, func(s store.Store) {
				many(t, 100, func(i int) error { return signIn(s, person(i, time.Now())) })
				many(t, 40, func(i int) error { return signOut(s, people[i]) })
				many(t, 60, func(i int) error {
					at := time.Now()
					if i%2 > 0 {
						at = began // as seen by a replica whose clock is behind: all that is new is what it holds
					}
					return use(s, people[100+i].Key, at)
				})
			})
			out, stderr := copied(t, 1, from, to)
			if !strings.Contains(stderr, "40 sessions at TO and not at FROM") || !strings.Contains(stderr, "--mirror") || strings.Count(out, "at TO alone") != copyShown {
				t.Errorf("a copy that would leave what ended says\n%s%s", out, stderr)
			}
			wantSame(t, livingAt(t, to), first)
			out, _ = copied(t, 0, "--mirror", from, to)
			for _, want := range []string{" 100  copied\n", " 60  brought up to date\n", " 1000  there already\n", " 40  ended at TO"} {
				if !strings.Contains(out, want) {
					t.Errorf("the second copy does not say %q:\n%s", want, out)
				}
			}
			wantSame(t, livingAt(t, to), livingAt(t, from))

			if out, _ = copied(t, 0, from, to); !strings.Contains(out, "       0  copied\n    1160  there already\n") {
				t.Errorf("a copy with nothing to do says\n%s", out)
			}
		})
	}
}

// While gateways use FROM sessions begin, are used, and end there; when they have stopped, one more copy leaves exactly what
// lives.
func TestACopyBesideRunningGatewaysLosesNothingAndBringsNothingBack(t *testing.T) {
	t.Parallel()
	from, to := servers.Redis(t).URL, servers.Postgres(t).URL
	withStore(t, from, func(s store.Store) {
		people := make([]store.Record, 300)
		for i := range people {
			people[i] = person(i, time.Now())
		}
		many(t, len(people), func(i int) error { return signIn(s, people[i]) })
		stop := make(chan struct{})
		var gateways sync.WaitGroup
		for g := range 3 {
			gateways.Go(func() {
				mine := people[100*g : 100*g+100]
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					r := &mine[i%len(mine)]
					if i%3 > 0 {
						if err := use(s, r.Key, time.Now()); err != nil {
							t.Error(err)
						}
						continue
					}
					next := person(i, time.Now())
					if err := errors.Join(signOut(s, *r), signIn(s, next)); err != nil {
						t.Error(err)
					}
					*r = next
				}
			})
		}
		for range 2 {
			if stdout, stderr, status := command("store", "copy", "--mirror", from, to); status != inService && status != 0 {
				t.Errorf("exit status %d\n%s%s", status, stdout, stderr)
			}
		}
		close(stop)
		gateways.Wait()
		copied(t, 0, "--mirror", from, to)
		want := living(t, s)
		if len(want) != 300 {
			t.Errorf("%d live at FROM, want 300", len(want))
		}
		wantSame(t, livingAt(t, to), want)
	})
}

// hooked is a store that does something right after it has listed a page.
type hooked struct {
	store.Store
	listed func()
}

func (h *hooked) List(ctx context.Context, q store.Query, now time.Time) (store.Page, error) {
	page, err := h.Store.List(ctx, q, now)
	if q.Limit > 1 {
		h.listed()
	}
	return page, err
}

func newMover(t *testing.T, from, to store.Store) *mover {
	t.Cleanup(func() { errors.Join(from.Close(), to.Close()) })
	return &mover{from: from, to: to, now: func() time.Time { return store.Time(time.Now()) }, moved: func(string, float64, int) {}}
}

func TestASessionThatEndsWhileItIsCopiedDoesNotLiveAtTO(t *testing.T) {
	t.Parallel()
	from := memory.New()
	var people []store.Record
	for i := range 2500 {
		people = append(people, person(i, time.Now()))
		if err := signIn(from, people[i]); err != nil {
			t.Fatal(err)
		}
	}
	left := people
	h := &hooked{Store: from, listed: func() { // on the page that is at hand, or on one to come, or on one that was written
		for range min(len(left), 300) {
			if err := signOut(from, left[0]); err != nil {
				t.Error(err)
			}
			left = left[1:]
		}
	}}
	m := newMover(t, h, memory.New())
	total, settled, err := m.run(t.Context())
	if err != nil || total.extras > 0 {
		t.Fatalf("%+v, %v", total, err)
	}
	if settled {
		t.Error("FROM went on changing, and the copy says that TO has everything")
	}
	wantSame(t, living(t, m.to), living(t, from))
}

// shaky fails now and then: at times before it has done what it was asked for, at times after.
type shaky struct {
	store.Store
	calls atomic.Int64
}

var errShaky = errors.New("the server is on its way to another machine")

func (s *shaky) Create(ctx context.Context, r store.Record, began, now time.Time) error {
	switch s.calls.Add(1) {
	case 10:
		return errShaky
	case 20:
		return errors.Join(s.Store.Create(ctx, r, began, now), errShaky)
	}
	return s.Store.Create(ctx, r, began, now)
}

func (s *shaky) Find(ctx context.Context, key store.Key, now time.Time) (store.Record, error) {
	if s.calls.Add(1) == 11 {
		return store.Record{}, errShaky
	}
	return s.Store.Find(ctx, key, now)
}

func TestACopyGoesOnAfterAServerThatWasAwayForAMoment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from, to := memory.New(), memory.New()
		for i := range 100 {
			if err := signIn(from, person(i, time.Now())); err != nil {
				t.Fatal(err)
			}
		}
		m := newMover(t, from, &shaky{Store: to})
		if total, settled, err := m.run(t.Context()); err != nil || !settled {
			t.Fatalf("%+v, settled %t, %v", total, settled, err)
		}
		wantSame(t, living(t, to), living(t, from))
	})
}

func TestSomebodyWhoSignsInAtTOMeanwhileIsNotTouched(t *testing.T) {
	t.Parallel()
	from, to := memory.New(), memory.New()
	if err := signIn(from, person(1, time.Now())); err != nil {
		t.Fatal(err)
	}
	stranger := person(2, time.Now())
	meanwhile := sync.OnceFunc(func() {
		if err := signIn(to, stranger); err != nil {
			t.Error(err)
		}
	})
	m := newMover(t, &hooked{Store: from, listed: meanwhile}, to)
	_, _, err := m.run(t.Context())
	if refused, ok := errors.AsType[*refusal](err); !ok || refused.extras != 1 {
		t.Fatalf("want the copy refused for a session at TO alone, got %v", err)
	}
	if _, err := to.Find(t.Context(), stranger.Key, time.Now()); err != nil {
		t.Errorf("the session of a stranger at TO: %v", err)
	}
}

// What began at FROM after its page was read is not at TO alone, though it may look so when another copy was faster.
func TestASessionThatAnotherCopyBroughtIsNotEnded(t *testing.T) {
	t.Parallel()
	from, to := memory.New(), memory.New()
	if err := signIn(from, person(1, time.Now())); err != nil {
		t.Fatal(err)
	}
	late := person(2, time.Now())
	meanwhile := sync.OnceFunc(func() {
		if err := errors.Join(signIn(from, late), signIn(to, late)); err != nil {
			t.Error(err)
		}
	})
	m := newMover(t, &hooked{Store: from, listed: meanwhile}, to)
	m.mirror = true
	if total, settled, err := m.run(t.Context()); err != nil || !settled || total.ended > 0 {
		t.Fatalf("%+v, settled %t, %v; want nobody ended", total, settled, err)
	}
	wantSame(t, living(t, to), living(t, from))
}

// A copy that nobody uses runs out at TO while the session goes on at FROM.
func TestACopyThatRanOutIsMadeAnew(t *testing.T) {
	t.Parallel()
	for name, address := range storeAddresses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			withStore(t, address(t), func(to store.Store) {
				now := store.Time(time.Now())
				r := person(1, now)
				from := memory.New()
				if err := signIn(from, r); err != nil {
					t.Fatal(err)
				}
				m := newMover(t, from, to)
				m.now = func() time.Time { return now }
				if _, _, err := m.run(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := use(from, r.Key, now.Add(110*time.Minute)); err != nil {
					t.Fatal(err)
				}
				now = now.Add(130 * time.Minute)
				if total, settled, err := m.run(t.Context()); err != nil || !settled || total.created != 1 {
					t.Fatalf("%+v, settled %t, %v", total, settled, err)
				}
				got, err := to.Find(t.Context(), r.Key, now)
				if want, _ := from.Find(t.Context(), r.Key, now); err != nil || !same(&got, &want) {
					t.Errorf("at TO: %+v, %v", got, err)
				}
			})
		})
	}
}

func TestALogoutAtTOBarsWhatItNamed(t *testing.T) {
	t.Parallel()
	now := store.Time(time.Now())
	for _, row := range []struct {
		name        string
		created     time.Time
		logout      time.Time
		barred      bool
		explanation string
	}{
		{"a minute before it", now.Add(-2 * time.Minute), now.Add(-time.Minute), true, "it signed in before the logout"},
		{"hours before it", now.Add(-5 * time.Hour), now.Add(-time.Minute), true, "it signed in before the logout"},
		{"hours before one that is as old as marks get", now.Add(-5 * time.Hour), now.Add(time.Microsecond - store.AttemptLifetime), true, "the mark is still there"},
		{"after it", now.Add(-time.Minute), now.Add(-2 * time.Minute), false, "the logout meant an earlier session"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := person(1, row.created)
			r.IdleExpires = now.Add(time.Hour)
			m := newMover(t, memory.New(), memory.New())
			m.now = func() time.Time { return now }
			if err := signIn(m.from, r); err != nil {
				t.Fatal(err)
			}
			who := store.Selector{Issuer: r.Issuer, ClientID: r.ClientID, Subject: r.Subject}
			if _, err := m.to.End(t.Context(), store.Ending{Selector: who, Cause: store.CauseBackChannel}, row.logout); err != nil {
				t.Fatal(err)
			}
			total, settled, err := m.run(t.Context())
			if _, found := m.to.Find(t.Context(), r.Key, now); err != nil || !settled || (found != nil) != row.barred || total.barred != len(living(t, m.from))-total.created {
				t.Errorf("%+v, settled %t, %v, found %v; want barred %t, since %s", total, settled, err, found, row.barred, row.explanation)
			}
		})
	}
}

func TestASessionThatGotAnotherSIDIsFoundByAllOfThemAtTO(t *testing.T) {
	t.Parallel()
	rename := func(backend store.Store, r *store.Record, sid string, now time.Time) {
		t.Helper()
		r.SID, r.Former, r.Payload, r.Revision = sid, append(r.Former, r.SID), append([]byte("renamed "), r.Payload...), r.Revision+1
		if err := backend.Rename(t.Context(), *r, now, now); err != nil {
			t.Fatal(err)
		}
	}
	for name, row := range map[string]struct {
		before, between []string // the sids that it gets before the first copy, and before the second
		barred          bool
	}{
		"before it was copied":                   {[]string{"b", "c"}, nil, false},
		"after it was copied":                    {nil, []string{"b", "c"}, false},
		"before and after":                       {[]string{"b"}, []string{"c"}, false},
		"after it was copied, and that is ended": {nil, []string{"barred"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, sid := range append([]string{"a"}, append(row.before, row.between...)...) {
				now := store.Time(time.Now())
				m := newMover(t, memory.New(), memory.New())
				m.now = func() time.Time { return now }
				r := person(1, now.Add(-time.Minute))
				r.SID = "a"
				if err := signIn(m.from, r); err != nil {
					t.Fatal(err)
				}
				copy := func() tally {
					t.Helper()
					total, settled, err := m.run(t.Context())
					if err != nil || !settled {
						t.Fatalf("settled %t, %v", settled, err)
					}
					return total
				}
				in := store.Selector{Issuer: r.Issuer, ClientID: r.ClientID}
				for _, to := range row.before {
					rename(m.from, &r, to, now)
				}
				copy()
				barred := in
				barred.SID = "barred"
				if _, err := m.to.End(t.Context(), store.Ending{Selector: barred, Cause: store.CauseBackChannel}, now); err != nil {
					t.Fatal(err)
				}
				for _, to := range row.between {
					rename(m.from, &r, to, now)
				}
				total := copy()
				got, err := m.to.Find(t.Context(), r.Key, now)
				if row.barred {
					if !errors.Is(err, store.ErrNotFound) || total.barred != 1 {
						t.Errorf("a logout at TO names it: found %v, %+v", err, total)
					}
					continue
				}
				if err != nil || !same(&r, &got) {
					t.Fatalf("at TO it is %+v, %v", got, err)
				}
				in.SID = sid
				ended, err := m.to.End(t.Context(), store.Ending{Selector: in, Cause: store.CauseBackChannel}, now)
				if err != nil || len(ended) != 1 {
					t.Errorf("by %q %d ended, %v", sid, len(ended), err)
				}
			}
		})
	}
}

func TestWhatWasUsedAtTOIsNotOverwritten(t *testing.T) {
	t.Parallel()
	m := newMover(t, memory.New(), memory.New())
	r := person(1, time.Now().Add(-time.Minute))
	if err := signIn(m.from, r); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := use(m.to, r.Key, time.Now()); err != nil {
		t.Fatal(err)
	}
	before := living(t, m.to)
	_, _, err := m.run(t.Context())
	if refused, ok := errors.AsType[*refusal](err); !ok || refused.newer != 1 {
		t.Errorf("want the copy refused for a session that was used at TO, got %v", err)
	}
	wantSame(t, living(t, m.to), before)
	m.mirror = true
	if _, _, err := m.run(t.Context()); err != nil {
		t.Error(err)
	}
	wantSame(t, living(t, m.to), living(t, m.from))
}

func TestAnInterruptedCopyIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	m := newMover(t, memory.New(), memory.New())
	for i := range 2500 {
		if err := signIn(m.from, person(i, time.Now())); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	m.moved = func(string, float64, int) { cancel() }
	if _, _, err := m.run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("want it interrupted, got %v", err)
	}
	if n := len(living(t, m.to)); n == 0 || n == 2500 {
		t.Fatalf("%d sessions were copied before it was interrupted; want some", n)
	}
	if total, settled, err := m.run(t.Context()); err != nil || !settled || total.same == 0 || total.created == 0 {
		t.Fatalf("%+v, settled %t, %v", total, settled, err)
	}
	wantSame(t, living(t, m.to), living(t, m.from))
}

// Sessions a second, first when all are new, then when all are there already.
func BenchmarkCopy(b *testing.B) {
	const n = 50_000
	from := "sqlite:" + filepath.Join(b.TempDir(), "curfew.db")
	withStore(b, from, func(s store.Store) {
		many(b, n, func(i int) error { return signIn(s, person(i, time.Now())) })
	})
	for name, address := range storeAddresses() {
		b.Run("sqlite to "+name, func(b *testing.B) {
			for b.Loop() {
				to := address(b)
				for _, what := range []string{"new", "there"} {
					began := time.Now()
					copied(b, 0, from, to)
					b.ReportMetric(n/time.Since(began).Seconds(), what+"/s")
				}
			}
		})
	}
}

func TestADatabaseThatNoCurfewUsesIsLeftAlone(t *testing.T) {
	t.Parallel()
	address := servers.Postgres(t).URL
	_, stderr := copied(t, 1, address, "sqlite:"+filepath.Join(t.TempDir(), "to.db"))
	if !strings.Contains(stderr, "no curfew of this release has been here") {
		t.Error(stderr)
	}
	s, err := parseStore(address)
	if err != nil {
		t.Fatal(err)
	}
	r := new(report)
	for range 2 {
		checkStore(t.Context(), r, &config{Store: s})
	}
	if len(r.all) != 2 || r.all[1].Status != "ok" || !strings.Contains(r.all[1].Detail, "serve brings it to the schema") {
		t.Errorf("check says %+v; want the database to have been left as it was", r.all)
	}
}
