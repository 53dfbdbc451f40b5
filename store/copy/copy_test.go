//go:build unix

package storecopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"go.uber.org/goleak"

	"example.com/curfew/internal/servers"
	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/store/postgres"
	"example.com/curfew/store/redis"
	"example.com/curfew/store/sqlite"
)

// newStores makes a store of each kind, on a server of its own. It is closed when the test ends. None gives up because
// the machine is busy.
func newStores() map[string]func(t testing.TB) store.Store {
	open := func(t testing.TB, backend store.Store, err error) store.Store {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { backend.Close() })
		return backend
	}
	return map[string]func(t testing.TB) store.Store{
		"sqlite": func(t testing.TB) store.Store {
			s, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "curfew.db"), sqlite.Options{})
			return open(t, s, err)
		},
		"postgres": func(t testing.TB) store.Store {
			s, err := postgres.Open(context.Background(), servers.Postgres(t).URL, postgres.Options{
				ConnectTimeout: time.Minute, StatementTimeout: time.Minute, LockTimeout: time.Minute})
			return open(t, s, err)
		},
		"redis": func(t testing.TB) store.Store {
			s, err := redis.Open(context.Background(), servers.Redis(t).URL,
				redis.Options{Log: slog.New(slog.DiscardHandler), Timeout: time.Minute, DialTimeout: time.Minute})
			return open(t, s, err)
		},
	}
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
		Key: b.Key(), Issuer: issuer, ClientID: client, Subject: subject, SID: sid, Former: former, Created: at,
		LastSeen:    at,
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

// copied copies, as a process with the system's clock does. It fails the test unless nothing is left to do.
func copied(t testing.TB, from, to store.Store, mirror bool) Result {
	t.Helper()
	result, err := Copy(t.Context(), from, to, Options{Mirror: mirror, Now: time.Now})
	if err != nil || !result.Settled {
		t.Fatalf("%+v, %v", result, err)
	}
	return result
}

func TestSessionsMoveBetweenAnyTwoStores(t *testing.T) {
	t.Parallel()
	stores := newStores()
	for _, row := range []struct{ from, to string }{
		{"sqlite", "sqlite"}, {"sqlite", "postgres"}, {"postgres", "redis"}, {"redis", "sqlite"},
	} {
		t.Run(row.from+" to "+row.to, func(t *testing.T) {
			t.Parallel()
			from, to := stores[row.from](t), stores[row.to](t)
			began := time.Now().Add(-time.Hour) // long before what end marks reach back to
			people := make([]store.Record, 1100)
			for i := range people {
				people[i] = person(i, began)
			}
			many(t, len(people), func(i int) error { return signIn(from, people[i]) })

			if got := copied(t, from, to, false); got.Created != 1100 || got.Living != 1100 {
				t.Errorf("the first copy: %+v", got)
			}
			first := living(t, from)
			if len(first) != len(people) {
				t.Fatalf("%d live at FROM after the copy, want %d", len(first), len(people))
			}
			wantSame(t, living(t, to), first)

			// Life goes on at FROM.
			many(t, 100, func(i int) error { return signIn(from, person(i, time.Now())) })
			many(t, 40, func(i int) error { return signOut(from, people[i]) })
			many(t, 60, func(i int) error {
				at := time.Now()
				if i%2 > 0 {
					at = began // as seen by a replica whose clock is behind: all that is new is what it holds
				}
				return use(from, people[100+i].Key, at)
			})
			_, err := Copy(t.Context(), from, to, Options{Now: time.Now})
			refused, ok := errors.AsType[*RefusedError](err)
			if !ok || refused.Extras != 40 || len(refused.Extra) != shown || refused.Changed ||
				err.Error() != "40 sessions at TO and not at FROM" {
				t.Errorf("a copy that would leave what ended: %v", err)
			}
			wantSame(t, living(t, to), first)
			want := Result{Living: 1160, Same: 1000, Created: 100, Updated: 60, Ended: 40, Settled: true}
			if got := copied(t, from, to, true); got != want {
				t.Errorf("the second copy: %+v, want %+v", got, want)
			}
			wantSame(t, living(t, to), living(t, from))

			if got := copied(t, from, to, false); got != (Result{Living: 1160, Same: 1160, Settled: true}) {
				t.Errorf("a copy with nothing to do: %+v", got)
			}
		})
	}
}

// While gateways use FROM sessions begin, are used, and end there; when they have stopped, one more copy leaves exactly
// what lives.
func TestACopyBesideRunningGatewaysLosesNothingAndBringsNothingBack(t *testing.T) {
	t.Parallel()
	from, to := newStores()["redis"](t), newStores()["postgres"](t)
	people := make([]store.Record, 300)
	for i := range people {
		people[i] = person(i, time.Now())
	}
	many(t, len(people), func(i int) error { return signIn(from, people[i]) })
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
					if err := use(from, r.Key, time.Now()); err != nil {
						t.Error(err)
					}
					continue
				}
				next := person(i, time.Now())
				if err := errors.Join(signOut(from, *r), signIn(from, next)); err != nil {
					t.Error(err)
				}
				*r = next
			}
		})
	}
	for range 2 {
		if result, err := Copy(t.Context(), from, to, Options{Mirror: true, Now: time.Now}); err != nil {
			t.Errorf("%+v, %v", result, err)
		}
	}
	close(stop)
	gateways.Wait()
	copied(t, from, to, true)
	want := living(t, from)
	if len(want) != 300 {
		t.Errorf("%d live at FROM, want 300", len(want))
	}
	wantSame(t, living(t, to), want)
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

func newCopier(t *testing.T, from, to store.Store) *copier {
	t.Cleanup(func() { errors.Join(from.Close(), to.Close()) })
	return &copier{
		from: from, to: to,
		now:      func() time.Time { return store.Time(time.Now()) },
		progress: func(string, float64, int) {},
	}
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
	// on the page that is at hand, or on one to come, or on one that was written
	h := &hooked{Store: from, listed: func() {
		for range min(len(left), 300) {
			if err := signOut(from, left[0]); err != nil {
				t.Error(err)
			}
			left = left[1:]
		}
	}}
	c := newCopier(t, h, memory.New())
	total, err := c.run(t.Context())
	if err != nil {
		t.Fatalf("%+v, %v", total, err)
	}
	if total.Settled {
		t.Error("FROM went on changing, and the copy says that TO has everything")
	}
	wantSame(t, living(t, c.to), living(t, from))
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
		c := newCopier(t, from, &shaky{Store: to})
		if total, err := c.run(t.Context()); err != nil || !total.Settled {
			t.Fatalf("%+v, %v", total, err)
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
	c := newCopier(t, &hooked{Store: from, listed: meanwhile}, to)
	_, err := c.run(t.Context())
	if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Extras != 1 {
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
	c := newCopier(t, &hooked{Store: from, listed: meanwhile}, to)
	c.mirror = true
	if total, err := c.run(t.Context()); err != nil || !total.Settled || total.Ended > 0 {
		t.Fatalf("%+v, %v; want nobody ended", total, err)
	}
	wantSame(t, living(t, to), living(t, from))
}

// A copy that nobody uses runs out at TO while the session goes on at FROM.
func TestACopyThatRanOutIsMadeAnew(t *testing.T) {
	t.Parallel()
	for name, open := range newStores() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := open(t)
			now := store.Time(time.Now())
			r := person(1, now)
			from := memory.New()
			if err := signIn(from, r); err != nil {
				t.Fatal(err)
			}
			c := newCopier(t, from, to)
			c.now = func() time.Time { return now }
			if _, err := c.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := use(from, r.Key, now.Add(110*time.Minute)); err != nil {
				t.Fatal(err)
			}
			now = now.Add(130 * time.Minute)
			if total, err := c.run(t.Context()); err != nil || !total.Settled || total.Created != 1 {
				t.Fatalf("%+v, %v", total, err)
			}
			got, err := to.Find(t.Context(), r.Key, now)
			if want, _ := from.Find(t.Context(), r.Key, now); err != nil || !same(&got, &want) {
				t.Errorf("at TO: %+v, %v", got, err)
			}
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
		{"a minute before it", now.Add(-2 * time.Minute), now.Add(-time.Minute), true,
			"it signed in before the logout"},
		{"hours before it", now.Add(-5 * time.Hour), now.Add(-time.Minute), true, "it signed in before the logout"},
		{"hours before one that is as old as marks get", now.Add(-5 * time.Hour),
			now.Add(time.Microsecond - store.AttemptLifetime), true, "the mark is still there"},
		{"after it", now.Add(-time.Minute), now.Add(-2 * time.Minute), false, "the logout meant an earlier session"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := person(1, row.created)
			r.IdleExpires = now.Add(time.Hour)
			c := newCopier(t, memory.New(), memory.New())
			c.now = func() time.Time { return now }
			if err := signIn(c.from, r); err != nil {
				t.Fatal(err)
			}
			who := store.Selector{Issuer: r.Issuer, ClientID: r.ClientID, Subject: r.Subject}
			if _, err := c.to.End(t.Context(), store.Ending{Selector: who, Cause: store.CauseBackChannel},
				row.logout); err != nil {
				t.Fatal(err)
			}
			total, err := c.run(t.Context())
			if _, found := c.to.Find(t.Context(), r.Key, now); err != nil || !total.Settled ||
				(found != nil) != row.barred || total.Barred != len(living(t, c.from))-total.Created {
				t.Errorf("%+v, %v, found %v; want barred %t, since %s", total, err, found, row.barred, row.explanation)
			}
		})
	}
}

// End marks are not copied. So at TO an access token that is not a session there is taken only if it was issued later.
func TestAnAccessTokenThatEndedAtFROMIsNotAdmittedAtTO(t *testing.T) {
	t.Parallel()
	open := newStores()["sqlite"]
	ring, err := keyring.Parse(keyring.NewFile())
	if err != nil {
		t.Fatal(err)
	}
	manager := func(s store.Store) *session.Manager {
		m, err := session.NewManager(session.Config{Store: s, Keyring: ring, TokenLifetime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	from, to := open(t), open(t)
	now := time.Now()
	admit := func(m *session.Manager, name string, issued time.Time) error {
		_, err := m.Admit(t.Context(), session.TokenKey("https://op.example", "app", "alice", name), session.Token{
			Issuer: "https://op.example", ClientID: "app", Subject: "alice", SID: "sid of " + name, Issued: issued,
			Expires: now.Add(time.Hour)})
		return err
	}
	here := manager(from)
	for _, name := range []string{"kept", "ended", "ended with its sid"} {
		if err := admit(here, name, now.Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := here.Token(t.Context(), session.TokenKey("https://op.example", "app", "alice", "ended"))
	if err == nil {
		_, err = here.EndOne(t.Context(), s, store.CauseAdmin)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := here.End(t.Context(), store.Ending{Cause: store.CauseBackChannel, Selector: store.Selector{
		Issuer: "https://op.example", ClientID: "app", SID: "sid of ended with its sid"}}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it may be repeated
		if _, err := Copy(t.Context(), from, to, Options{Now: time.Now}); err != nil {
			t.Fatal(err)
		}
	}
	there := manager(to)
	for name, row := range map[string]struct {
		issued time.Duration
		want   error
	}{
		"ended": {-time.Minute, store.ErrEnded}, "ended with its sid": {-time.Minute, store.ErrEnded},
		"never seen before": {-time.Minute, store.ErrEnded}, "new": {time.Minute, nil},
	} {
		if err := admit(there, name, now.Add(row.issued)); !errors.Is(err, row.want) {
			t.Errorf("the token %q is answered %v at TO, want %v", name, err, row.want)
		}
	}
	if _, err := there.Token(t.Context(), session.TokenKey("https://op.example", "app", "alice", "kept")); err != nil {
		t.Errorf("a token that lives at FROM: %v", err)
	}
}

func TestASessionThatGotAnotherSIDIsFoundByAllOfThemAtTO(t *testing.T) {
	t.Parallel()
	rename := func(backend store.Store, r *store.Record, sid string, now time.Time) {
		t.Helper()
		r.SID, r.Former, r.Payload, r.Revision = sid, append(r.Former, r.SID), append([]byte("renamed "),
			r.Payload...), r.Revision+1
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
				c := newCopier(t, memory.New(), memory.New())
				c.now = func() time.Time { return now }
				r := person(1, now.Add(-time.Minute))
				r.SID = "a"
				if err := signIn(c.from, r); err != nil {
					t.Fatal(err)
				}
				copied := func() Result {
					t.Helper()
					total, err := c.run(t.Context())
					if err != nil || !total.Settled {
						t.Fatalf("%+v, %v", total, err)
					}
					return total
				}
				in := store.Selector{Issuer: r.Issuer, ClientID: r.ClientID}
				for _, to := range row.before {
					rename(c.from, &r, to, now)
				}
				copied()
				barred := in
				barred.SID = "barred"
				if _, err := c.to.End(t.Context(), store.Ending{Selector: barred, Cause: store.CauseBackChannel},
					now); err != nil {
					t.Fatal(err)
				}
				for _, to := range row.between {
					rename(c.from, &r, to, now)
				}
				total := copied()
				got, err := c.to.Find(t.Context(), r.Key, now)
				if row.barred {
					if !errors.Is(err, store.ErrNotFound) || total.Barred != 1 {
						t.Errorf("a logout at TO names it: found %v, %+v", err, total)
					}
					continue
				}
				if err != nil || !same(&r, &got) {
					t.Fatalf("at TO it is %+v, %v", got, err)
				}
				in.SID = sid
				ended, err := c.to.End(t.Context(), store.Ending{Selector: in, Cause: store.CauseBackChannel}, now)
				if err != nil || len(ended) != 1 {
					t.Errorf("by %q %d ended, %v", sid, len(ended), err)
				}
			}
		})
	}
}

func TestWhatWasUsedAtTOIsNotOverwritten(t *testing.T) {
	t.Parallel()
	c := newCopier(t, memory.New(), memory.New())
	r := person(1, time.Now().Add(-time.Minute))
	if err := signIn(c.from, r); err != nil {
		t.Fatal(err)
	}
	if _, err := c.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := use(c.to, r.Key, time.Now()); err != nil {
		t.Fatal(err)
	}
	before := living(t, c.to)
	_, err := c.run(t.Context())
	if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Newer != 1 {
		t.Errorf("want the copy refused for a session that was used at TO, got %v", err)
	}
	wantSame(t, living(t, c.to), before)
	c.mirror = true
	if _, err := c.run(t.Context()); err != nil {
		t.Error(err)
	}
	wantSame(t, living(t, c.to), living(t, c.from))
}

func TestAnInterruptedCopyIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	c := newCopier(t, memory.New(), memory.New())
	for i := range 2500 {
		if err := signIn(c.from, person(i, time.Now())); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.progress = func(string, float64, int) { cancel() }
	if _, err := c.run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("want it interrupted, got %v", err)
	}
	if n := len(living(t, c.to)); n == 0 || n == 2500 {
		t.Fatalf("%d sessions were copied before it was interrupted; want some", n)
	}
	if total, err := c.run(t.Context()); err != nil || !total.Settled || total.Same == 0 || total.Created == 0 {
		t.Fatalf("%+v, %v", total, err)
	}
	wantSame(t, living(t, c.to), living(t, c.from))
}

// Sessions a second, first when all are new, then when all are there already.
func BenchmarkCopy(b *testing.B) {
	const n = 50_000
	stores := newStores()
	from := stores["sqlite"](b)
	many(b, n, func(i int) error { return signIn(from, person(i, time.Now())) })
	for name, open := range stores {
		b.Run("sqlite to "+name, func(b *testing.B) {
			for b.Loop() {
				to := open(b)
				for _, what := range []string{"new", "there"} {
					began := time.Now()
					copied(b, from, to, false)
					b.ReportMetric(n/time.Since(began).Seconds(), what+"/s")
				}
			}
		})
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// firstSync is a store whose feeds say nothing before the first Sync, as [store.Feed] allows.
type firstSync struct {
	store.Store
	synced atomic.Bool
	listed func() // after the first page
}

type firstSyncFeed struct {
	store.Feed
	of *firstSync
}

func (f firstSyncFeed) Sync(ctx context.Context) error {
	f.of.synced.Store(true)
	return f.Feed.Sync(ctx)
}

func (s *firstSync) Watch(ctx context.Context, fn func(store.Ended)) (store.Feed, error) {
	feed, err := s.Store.Watch(ctx, func(e store.Ended) {
		if s.synced.Load() {
			fn(e)
		}
	})
	return firstSyncFeed{feed, s}, err
}

func (s *firstSync) List(ctx context.Context, q store.Query, now time.Time) (store.Page, error) {
	page, err := s.Store.List(ctx, q, now)
	if q.Limit > 1 && s.listed != nil {
		s.listed()
		s.listed = nil
	}
	return page, err
}

func TestWhatEndsAfterItsPageWasReadIsHeardOf(t *testing.T) {
	t.Parallel()
	from, to := &firstSync{Store: memory.New()}, memory.New()
	r := person(1, time.Now())
	if err := errors.Join(signIn(from, r), signIn(to, r)); err != nil {
		t.Fatal(err)
	}
	from.listed = func() {
		if err := signOut(from.Store, r); err != nil {
			t.Error(err)
		}
	}
	result, err := Copy(t.Context(), from, to, Options{Mirror: true, Now: time.Now})
	_, found := to.Find(t.Context(), r.Key, time.Now())
	if err != nil || result.Settled && !errors.Is(found, store.ErrNotFound) {
		t.Errorf("%+v, %v; at TO: %v", result, err, found)
	}
}
