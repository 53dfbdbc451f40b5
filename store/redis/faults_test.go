package redis_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
	"example.com/curfew/store/storetest"
)

func splitLines(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == '\n' })
}

func TestAServerThatKeepsALogKeepsEverythingOverACrash(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--appendonly", "yes", "--appendfsync", "always")
	backend := open(t, s.URL, redis.Options{})
	now := store.Time(time.Now())
	l := watch(t, backend)
	stays, ends := recordOf("alice", "s1", now), recordOf("bob", "s2", now)
	mustCreate(t, backend, stays, now)
	mustCreate(t, backend, ends, now)
	e := tokenOf(store.Selector{SID: "s2"}, "j1", now)
	if _, err := backend.End(t.Context(), e, now); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if _, err := backend.Find(t.Context(), stays.Key, now); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("Find while the server is away: %v, want an error that says nothing about the session", err)
	}
	if _, err := backend.End(t.Context(), e, now); err == nil || errors.Is(err, store.ErrReplayed) {
		t.Errorf("End while the server is away: %v, want an error that says nothing about the token", err)
	}
	if err := l.Sync(t.Context()); err == nil {
		t.Error("Sync succeeded while the server is away")
	}
	s.Start()
	back := findSoon(t, backend, stays, now)
	if back != nil {
		t.Errorf("Find after the restart: %v", back)
	}
	if _, err := backend.Find(t.Context(), ends.Key, now); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("who had ended, after the restart: %v", err)
	}
	if _, err := backend.End(t.Context(), e, now); !errors.Is(err, store.ErrReplayed) {
		t.Errorf("the token of before, after the restart: %v, want a replay", err)
	}
	if err := backend.Create(t.Context(), recordOf("bob", "s2", now), now, now); !errors.Is(err, store.ErrEnded) {
		t.Errorf("a login from before the logout, after the restart: %v", err)
	}
	l.recovers(t)
	l.hears(t, backend, now)
}

// eventually repeats what fails for want of a server; the first answer about a session is the answer.
func eventually(t testing.TB, ask func() error) error {
	t.Helper()
	for {
		err := ask()
		if err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrReplayed) ||
			errors.Is(err, store.ErrEnded) {
			return err
		}
		if t.Context().Err() != nil {
			t.Fatalf("the store does not recover: %v", err)
		}
		pauseFor(20 * time.Millisecond)
	}
}

// findSoon looks for a session, and endSoon carries out an ending, as soon as the store answers.
func findSoon(t testing.TB, backend *redis.Store, r store.Record, now time.Time) error {
	t.Helper()
	return eventually(t, func() error { _, err := backend.Find(t.Context(), r.Key, now); return err })
}

func endSoon(t testing.TB, backend *redis.Store, e store.Ending, now time.Time) error {
	t.Helper()
	return eventually(t, func() error { _, err := backend.End(t.Context(), e, now); return err })
}

func TestAServerThatKeepsNothingSignsEverybodyOutWhenItRestarts(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	backend := open(t, s.URL, redis.Options{})
	now := store.Time(time.Now())
	r := recordOf("alice", "s1", now)
	mustCreate(t, backend, r, now)
	l := watch(t, backend)
	l.hears(t, backend, now) // else there would be nothing to be missed
	s.Kill()
	s.Start()
	if err := findSoon(t, backend, r, now); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Find after the restart: %v", err)
	}
	if err := l.Sync(t.Context()); err == nil {
		t.Error("the first Sync after the restart succeeded: copies of what is lost would be served")
	}
	l.recovers(t)
	l.hears(t, backend, now)
}

func TestAFrozenServerIsAnErrorAndThenWorksAgain(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	backend := open(t, s.URL, redis.Options{Timeout: 500 * time.Millisecond, DialTimeout: time.Minute})
	now := store.Time(time.Now())
	r := recordOf("alice", "s1", now)
	mustCreate(t, open(t, s.URL, patient()), r, now)
	l := watch(t, backend)
	e := tokenOf(store.Selector{Subject: "alice"}, "j1", now)

	s.Freeze()
	var all sync.WaitGroup
	for range 4 { // about 3 s
		for _, ask := range []func() error{
			func() error { return l.Sync(t.Context()) },
			func() error { _, err := backend.Find(t.Context(), r.Key, now); return err },
			func() error { _, err := backend.End(t.Context(), e, now); return err },
			func() error { _, err := backend.List(t.Context(), store.Query{}, now); return err },
			func() error { _, err := storetest.ClaimAll(t.Context(), backend, now, time.Minute, 1); return err },
			func() error { return backend.Create(t.Context(), recordOf("bob", "s2", now), now, now) },
		} {
			all.Go(func() {
				if err := ask(); err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrReplayed) {
					t.Errorf("a frozen server answered: %v", err)
				}
			})
		}
		all.Wait()
	}
	s.Thaw()

	// Endings that were sent to the frozen server may be carried out when it wakes; a replay says that one was.
	err := endSoon(t, backend, e, now)
	if err != nil && !errors.Is(err, store.ErrReplayed) {
		t.Errorf("End after it woke up: %v", err)
	}
	if err := findSoon(t, backend, r, now); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Find after the logout: %v", err)
	}
	l.recovers(t)
	l.hears(t, backend, now)
}

func TestAConnectionCutInTheMiddleOfALogoutNeverSaysDoneOfOneAlive(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	backend, setup := open(t, s.URL, redis.Options{Timeout: 300 * time.Millisecond}), open(t, s.URL, patient())
	c := adminOf(t, s)
	now := store.Time(time.Now())
	const people = 60
	var records [people]store.Record
	for i := range records {
		records[i] = recordOf(fmt.Sprint("user", i), fmt.Sprint("s", i), now)
		mustCreate(t, setup, records[i], now)
	}
	strike := make(chan struct{}, 1)
	var cutter, all sync.WaitGroup
	var failed atomic.Int32
	cutter.Go(func() {
		for range strike {
			do(t, c, "CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
		}
	})
	for w := range 8 {
		all.Go(func() {
			for i := w; i < people; i += 8 {
				e := endingOf(store.Selector{Subject: records[i].Subject})
				if i%2 == 0 {
					e.Selector.Subject, e.Selector.SID = "", records[i].SID
				}
				e.JTI, e.JTIExpires = fmt.Sprint("j", i), now.Add(time.Hour)
				select { // while the first try is under way
				case strike <- struct{}{}:
				default:
				}
				for {
					_, err := backend.End(t.Context(), e, now)
					if err == nil || errors.Is(err, store.ErrReplayed) {
						break
					}
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	close(strike)
	cutter.Wait()
	for _, r := range records {
		if err := findSoon(t, backend, r, now); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("after its logout was answered: Find: %v", err)
		}
	}
	t.Logf("%d Ends were cut", failed.Load())
}

func TestAFullServerRefusesLoginsObeysLogoutsAndDeliversNotices(t *testing.T) {
	t.Parallel()
	t.Run("one server", func(t *testing.T) {
		t.Parallel()
		s := startServer(t)
		full(t, s.URL, s)
	})
	t.Run("a Cluster", func(t *testing.T) {
		t.Parallel()
		if testing.Short() {
			t.Skip("takes a Cluster of its own")
		}
		own := servers.RedisClusterOf(t, 0)
		full(t, own.URL, own.Nodes...)
	})
}

func full(t *testing.T, url string, nodes ...*servers.Server) {
	backend := open(t, url, redis.Options{Timeout: 10 * time.Second})
	memory := func(most string) {
		for _, s := range nodes {
			do(t, adminOf(t, s), "CONFIG", "SET", "maxmemory", most)
		}
	}
	now := store.Time(time.Now())
	one, two, old, used := recordOf("alice", "s1", now), recordOf("bob", "s2", now), recordOf("carol", "s3", now),
		recordOf("dave", "s4", now)
	one.Refresh = store.RefreshOnline
	for _, r := range []*store.Record{&old, &used} {
		r.IdleExpires = now.Add(time.Minute)
	}
	for _, r := range []store.Record{one, two, old, used} {
		mustCreate(t, backend, r, now)
	}
	used.Revision, used.IdleExpires = 1, now.Add(time.Hour) // so Prune finds it at its old time
	if err := backend.Update(t.Context(), used, now); err != nil {
		t.Fatal(err)
	}
	memory("1mb")
	if err := backend.Create(t.Context(), recordOf("erin", "", now), now, now); err == nil ||
		errors.Is(err, store.ErrEnded) {
		t.Errorf("Create on a full server: %v", err)
	}
	e := tokenOf(store.Selector{Subject: "alice", SID: "s1"}, "j1", now)
	e.Notices = []store.NoticeRequest{{Kind: store.NoticeRevoke, Target: "main", Deadline: now.Add(time.Hour)}}
	if ended, err := backend.End(t.Context(), e, now); err != nil || len(ended) != 1 {
		t.Errorf("End on a full server: %d ended, %v", len(ended), err)
	}
	if _, err := backend.End(t.Context(), e, now); !errors.Is(err, store.ErrReplayed) {
		t.Errorf("End again: %v", err)
	}
	sid := tokenOf(store.Selector{SID: "s2"}, "j2", now)
	if ended, err := backend.End(t.Context(), sid, now); err != nil || len(ended) != 1 {
		t.Errorf("End of a sid alone on a full server: %d ended, %v", len(ended), err)
	}
	for i := range 4 { // a lease that runs out, two tries, and what is tried again after it was given up
		at := now.Add(time.Duration(i) * time.Minute)
		notices, err := backend.Claim(t.Context(), store.NoticeRevoke, "main", at, time.Minute, 10)
		if err != nil || len(notices) != 1 {
			t.Fatalf("on a full server, for the %d. time: %d notices, %v", i+1, len(notices), err)
		}
		switch n := notices[0]; i {
		case 1:
			err = backend.Complete(t.Context(), n, store.Outcome{RetryAt: at.Add(time.Minute), Reason: "away"})
		case 2:
			err = errors.Join(backend.Complete(t.Context(), n, store.Outcome{GiveUp: true, Reason: "away"}),
				backend.Retry(t.Context(), n.ID, at, at.Add(time.Hour)))
		case 3:
			err = backend.Complete(t.Context(), n, store.Outcome{Done: true})
		}
		if err != nil {
			t.Errorf("on a full server, for the %d. time: %v", i+1, err)
		}
	}
	if n, err := backend.Prune(t.Context(), now.Add(2*time.Minute)); err != nil || n == 0 {
		t.Errorf("Prune on a full server: %d removed, %v", n, err)
	}
	memory("0")
	if _, err := backend.Find(t.Context(), used.Key, now.Add(2*time.Minute)); err != nil {
		t.Errorf("who was there is gone: %v", err)
	}
}

func TestALogoutCostsTheSameHoweverManySessionsTheSubjectHas(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	backend := open(t, s.URL, redis.Options{Timeout: 10 * time.Second})
	c := adminOf(t, s)
	now := store.Time(time.Now().Add(store.AttemptLifetime)) // later than Redis's own time, which a mark may have too
	calls := func(size int, name string, who func(store.Record) store.Selector) string {
		subject := fmt.Sprint("robot", size)
		var r store.Record
		for i := range size {
			r = recordOf(subject, fmt.Sprint("s", size, "-", i, "-", name), now)
			mustCreate(t, backend, r, now)
		}
		e := tokenOf(who(r), fmt.Sprint("j", size, now), now)
		// Once for the script to be known.
		if _, err := backend.End(t.Context(), endingOf(store.Selector{Subject: "nobody", SID: "none"}),
			now); err != nil {
			t.Fatal(err)
		}
		do(t, c, "CONFIG", "RESETSTAT")
		if ended, err := backend.End(t.Context(), e, now); err != nil || len(ended) != 1 {
			t.Fatalf("%d ended, %v", len(ended), err)
		}
		m := do(t, c, "INFO", "commandstats")
		text, err := m.ToString()
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, line := range splitLines(text) {
			name, rest, _ := strings.Cut(line, ":calls=")
			n, _, ok := strings.Cut(rest, ",")
			if ok && !strings.ContainsAny(name, "|") && name != "cmdstat_eval" && name != "cmdstat_ping" {
				all = append(all, name+" "+n)
			}
		}
		return strings.Join(all, "\n")
	}
	for name, who := range map[string]func(store.Record) store.Selector{
		"a key": func(r store.Record) store.Selector { return store.Selector{Key: r.Key} },
		"both":  func(r store.Record) store.Selector { return store.Selector{Subject: r.Subject, SID: r.SID} },
		"a sid": func(r store.Record) store.Selector { return store.Selector{SID: r.SID} },
	} {
		few, many := sorted(calls(3, name, who)), sorted(calls(1000, name, who))
		if few != many {
			t.Errorf("%s: with 3 sessions Redis was asked\n%s\nwith 1,000\n%s", name, few, many)
		}
		total := 0
		for _, line := range splitLines(few) {
			_, n, _ := strings.Cut(line, " ")
			calls, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			total += calls
		}
		// A round trip with one script, and what that calls: each costs a microsecond or more of the one core of Redis.
		if most := map[string]int{"a key": 14, "both": 22, "a sid": 19}[name]; total > most {
			t.Errorf("%s: Redis carried out %d commands, want %d at most:\n%s", name, total, most, few)
		}
		if _, err := backend.End(t.Context(), endingOf(store.Selector{Subject: "robot1000"}), now); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
	}
}
