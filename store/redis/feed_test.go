package redis_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
	"github.com/redis/rueidis"
)

// listening is a watching function and what it was told.
type listening struct {
	store.Feed
	mu    sync.Mutex
	heard map[store.Key]int
}

func watch(t testing.TB, backend *redis.Store) *listening {
	t.Helper()
	l := &listening{heard: make(map[store.Key]int)}
	feed, err := backend.Watch(t.Context(), func(e store.Ended) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.heard[e.Key]++
	})
	if err != nil {
		t.Fatalf("Watch: %v", err)
	}
	l.Feed = feed
	t.Cleanup(func() { feed.Close() })
	if err := feed.Sync(t.Context()); err != nil {
		t.Fatalf("the first Sync: %v", err)
	}
	return l
}

func (l *listening) times(k store.Key) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard[k]
}

// recovers fails unless Sync succeeds again without anybody's help.
func (l *listening) recovers(t testing.TB) {
	t.Helper()
	for l.Sync(t.Context()) != nil {
		if t.Context().Err() != nil {
			t.Fatal("the feed does not recover")
		}
		pauseFor(5 * time.Millisecond)
	}
}

// hears fails unless an ending on store is heard of when Sync returns. It waits for a store that is still recovering.
func (l *listening) hears(t testing.TB, backend *redis.Store, now time.Time) {
	t.Helper()
	var err error
	for range 100 {
		r := recordOf("bob", "s9", now)
		if err = backend.Create(t.Context(), r, now, now); err == nil {
			_, err = backend.End(t.Context(), endingOf(store.Selector{Key: r.Key}), now)
		}
		if err == nil {
			err = l.Sync(t.Context())
		}
		if err == nil {
			if n := l.times(r.Key); n != 1 {
				t.Errorf("Sync succeeded, and an ending was heard %d times", n)
			}
			return
		}
		pauseFor(50 * time.Millisecond)
	}
	t.Errorf("nothing is heard: %v", err)
}

func TestAFeedThatIsCutSaysSoAndRecovers(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	backend := open(t, s.URL, patient())
	elsewhere := open(t, s.URL, patient())
	c := adminOf(t, s)
	now := store.Time(time.Now())
	one, two := watch(t, backend), watch(t, backend)
	for range 5 {
		// Nobody hears of it: in one step the feed is cut and somebody signs out.
		r := recordOf("alice", "s1", now)
		mustCreate(t, elsewhere, r, now)
		for _, id := range killed(t, c) {
			do(t, c, "CLIENT", "KILL", "ID", id)
		}
		if _, err := elsewhere.End(t.Context(), endingOf(store.Selector{Key: r.Key}), now); err != nil {
			t.Fatal(err)
		}
		if _, err := backend.Find(t.Context(), r.Key, now); err != store.ErrNotFound {
			t.Errorf("Find while the feed is cut: %v; the store is not cut", err)
		}
		for _, l := range []*listening{one, two} { // each is told by its own Sync
			if err := l.Sync(t.Context()); err == nil && l.times(r.Key) == 0 {
				t.Error("Sync succeeded, and nobody had heard of an ending")
			} else if err == nil {
				t.Error("Sync succeeded after the feed was cut")
			}
			l.recovers(t)
			l.hears(t, elsewhere, now)
		}
	}
}

// killed lists the connections that are subscribed.
func killed(t testing.TB, c rueidis.Client) (ids []string) {
	t.Helper()
	m := do(t, c, "CLIENT", "LIST", "TYPE", "PUBSUB")
	text, err := m.ToString()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range splitLines(text) {
		_, id, _ := strings.Cut(line, "id=")
		id, _, _ = strings.Cut(id, " ")
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		t.Fatal("nobody is subscribed")
	}
	return ids
}

func TestAMessageThatDoesNotComeIsMissed(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	backend := open(t, s.URL, redis.Options{Timeout: time.Second, DialTimeout: time.Minute})
	c := adminOf(t, s)
	now := store.Time(time.Now())
	l := watch(t, backend)
	keys := backend.LastKeys()
	// Something was published, and this process is not told, though its connection is well.
	do(t, c, "SET", keys[7], "0123456789abcdef")
	if err := l.Sync(t.Context()); err == nil {
		t.Error("Sync succeeded though the end of a chain was not heard of")
	}
	l.recovers(t)
	l.hears(t, backend, now)
}

func TestALinkThatIsMissingIsAGap(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	backend := open(t, s.URL, patient())
	c := adminOf(t, s)
	now := store.Time(time.Now())
	for _, row := range []struct{ why, end, message string }{
		// The end of the chain is where the message says, so only what it follows is wrong.
		{"a message that follows one which was not heard", "fedcba9876543210",
			"0123456789abcdef" + "fedcba9876543210" + "\x07" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"a message that is none", "", "hello"},
	} {
		l := watch(t, backend)
		if row.end != "" {
			do(t, c, "SET", backend.LastKeys()[7], row.end)
		}
		do(t, c, "PUBLISH", backend.Channel(), row.message)
		l.hearsOrGaps(t, backend, now)
		l.recovers(t)
		l.hears(t, backend, now)
		if t.Failed() {
			t.Fatal(row.why)
		}
	}
}

// hearsOrGaps waits for an ending of bob to be heard, which comes after what was published before, and wants Sync to
// fail.
func (l *listening) hearsOrGaps(t testing.TB, backend *redis.Store, now time.Time) {
	t.Helper()
	r := recordOf("bob", "s9", now)
	mustCreate(t, backend, r, now)
	if _, err := backend.End(t.Context(), endingOf(store.Selector{Key: r.Key}), now); err != nil {
		t.Fatal(err)
	}
	if err := l.Sync(t.Context()); err == nil {
		t.Error("Sync succeeded over a gap")
	}
}

func TestAFeedHearsOfEverythingWhileManyEnd(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		url, o := on.Get(t).URL, patient()
		o.Prefix = prefix()
		here, there := open(t, url, o), open(t, url, o)
		l := watch(t, there)
		now := store.Time(time.Now())
		var all sync.WaitGroup
		for w := range 8 {
			all.Go(func() {
				for i := range 40 {
					r := recordOf(fmt.Sprint("user", w, i), "s1", now)
					if err := here.Create(t.Context(), r, now, now); err != nil {
						t.Errorf("Create: %v", err)
						return
					}
					if _, err := here.End(t.Context(), endingOf(store.Selector{Subject: r.Subject}), now); err != nil {
						t.Errorf("End: %v", err)
						return
					}
					// What was complete before Sync has been heard of when it returns nil; a Sync beside others'
					// endings too.
					if err := l.Sync(t.Context()); err != nil {
						t.Errorf("Sync: %v", err)
					} else if l.times(r.Key) != 1 {
						t.Errorf("Sync succeeded, and an ending was heard %d times", l.times(r.Key))
					}
				}
			})
		}
		all.Wait()
	})
}

// Whoever takes in what has ended may be slow, or stuck: the clock is read all the same. Else no login could begin.
func TestAFeedThatIsHeldUpDoesNotHoldUpTheClock(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func() string{
		"one server": func() string { return single.Get(t).URL },
		"a Cluster":  func() string { return cluster.Get(t).URL },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := prefix()
			o := patient()
			o.Prefix = p
			backend, other := open(t, url(), o), open(t, url(), o)
			stuck, free := make(chan struct{}, 1), make(chan struct{})
			feed, err := backend.Watch(t.Context(), func(store.Ended) {
				select {
				case stuck <- struct{}{}:
				default:
				}
				<-free
			})
			if err != nil {
				t.Fatal(err)
			}
			defer feed.Close()
			defer close(free)
			now := store.Time(time.Now())
			for range 50 { // more than the client keeps for whoever takes them in
				now = store.Time(now.Add(time.Hour))
				mustCreate(t, other, recordOf("alice", "s1", now), now)
				if _, err := other.End(t.Context(), endingOf(store.Selector{Subject: "alice"}), now); err != nil {
					t.Fatal(err)
				}
			}
			<-stuck
			if _, err := backend.Clock().Now(t.Context()); err != nil {
				t.Errorf("Clock: %v", err)
			}
		})
	}
}
