package redis_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
	"github.com/redis/rueidis"
)

// ceiling is the default of [session.Config].
const ceiling = time.Second

// replica is a process as [session.Manager] makes one of a store.
type replica struct {
	*session.Manager
	store *counted
}

// counted counts the questions that no cache answered.
type counted struct {
	*redis.Store
	finds atomic.Int64
}

func (c *counted) Find(ctx context.Context, key store.Key, now time.Time) (store.Record, error) {
	c.finds.Add(1)
	return c.Store.Find(ctx, key, now)
}

func newReplica(backend *redis.Store, cfg session.Config) (*replica, error) {
	ring, err := keyring.New(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	r := &replica{store: &counted{Store: backend}}
	cfg.Store, cfg.Keyring, cfg.Log = r.store, ring, slog.New(slog.DiscardHandler)
	r.Manager, err = session.NewManager(cfg)
	return r, err
}

// replicate runs a replica for as long as the test runs.
func replicate(t *testing.T, url string, o redis.Options, cfg session.Config) *replica {
	t.Helper()
	backend := open(t, url, o)
	r, err := newReplica(backend, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		backend.Close()
	})
	return r
}

// poll asks again and again, until it is answered true.
func poll(t *testing.T, what string, ask func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ask() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		pauseFor(5 * time.Millisecond)
	}
}

func (r *replica) signIn(t *testing.T, subject, sid string) (b session.Bearer) {
	t.Helper()
	poll(t, "somebody signs in", func() (ok bool) {
		var err error
		b, _, err = r.Create(t.Context(), session.SignIn{Issuer: issuer, ClientID: client, Subject: subject, SID: sid,
			Began: r.Now()})
		return err == nil
	})
	return b
}

// cache returns when the replica answers for b without asking the store. What is unavailable is asked for again.
func (r *replica) cache(t *testing.T, b session.Bearer) {
	t.Helper()
	poll(t, "it is answered from the cache", func() bool {
		before := r.store.finds.Load()
		_, err := r.Get(t.Context(), b)
		if err != nil && !errors.Is(err, session.ErrUnavailable) {
			t.Fatalf("Get: %v", err)
		}
		return err == nil && r.store.finds.Load() == before
	})
}

// end ends who, and returns when it is dead.
func (r *replica) end(t *testing.T, who store.Selector) (dead time.Time) {
	t.Helper()
	poll(t, "the ending is acknowledged", func() bool {
		_, err := r.End(t.Context(), endingOf(who))
		dead = time.Now()
		if err != nil && !errors.Is(err, session.ErrUnavailable) {
			t.Fatalf("End: %v", err)
		}
		return err == nil
	})
	return dead
}

// wantRefused fails unless the store says that b is nobody's. What is unavailable is asked for again.
func (r *replica) wantRefused(t *testing.T, b session.Bearer) {
	t.Helper()
	poll(t, "it is refused", func() bool {
		_, err := r.Get(t.Context(), b)
		if err == nil {
			t.Fatal("who ended is served")
		}
		return errors.Is(err, store.ErrNotFound)
	})
}

// hears fails unless the replica hears of an ending of b on another.
func (r *replica) hears(t *testing.T, b session.Bearer, end func()) {
	t.Helper()
	heard, stop := r.Watch(b.Key())
	defer stop()
	end()
	select {
	case <-heard:
	case <-time.After(2 * time.Minute):
		t.Fatal("the other replica does not hear of it")
	}
}

func TestWhoIsEndedOnOneReplicaIsRefusedOnTheOther(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		url, o := on.Get(t).URL, redis.Options{Prefix: prefix(), Timeout: 30 * time.Second}
		// Who hears nothing would serve a copy for an hour.
		deaf := session.Config{MaxStale: time.Hour}
		here, there := replicate(t, url, o, deaf), replicate(t, url, o, deaf)
		bystander := here.signIn(t, "bob", "s9")
		there.cache(t, bystander)
		for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}} {
			b := here.signIn(t, "alice", "s1")
			here.cache(t, b)
			there.cache(t, b)
			there.hears(t, b, func() { here.end(t, who) })
			here.wantRefused(t, b)
			there.wantRefused(t, b)
		}
		there.cache(t, bystander)
	})
}

// wire is a way to a server on which the feed can be held up, while all else goes on.
type wire struct {
	net.Listener
	held sync.RWMutex // what comes from the server on a connection that has subscribed waits while it is locked
	all  sync.WaitGroup
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l}
	ctx, cancel := context.WithCancel(context.Background())
	w.all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.DialTimeout("tcp", to, time.Minute)
			if err != nil {
				near.Close()
				continue
			}
			shut := func() { near.Close(); far.Close() }
			stop := context.AfterFunc(ctx, shut)
			var feed atomic.Bool
			w.all.Go(func() {
				defer shut()
				pass(far, near, func(b []byte) {
					if bytes.Contains(bytes.ToUpper(b), []byte("SUBSCRIBE")) {
						feed.Store(true)
					}
				})
			})
			w.all.Go(func() {
				defer stop()
				defer shut()
				pass(near, far, func([]byte) {
					if feed.Load() {
						w.held.RLock()
						defer w.held.RUnlock()
					}
				})
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); w.all.Wait() })
	return w
}

// pass copies, and shows each piece first.
func pass(to io.Writer, from io.Reader, show func([]byte)) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			show(b[:n])
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func TestAReplicaThatHearsNothingServesNobodyPastTheCeiling(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name  string
		begin func(t *testing.T, w *wire, c rueidis.Client)
		end   func(w *wire)
	}{
		{"its feed is held up", func(_ *testing.T, w *wire, _ rueidis.Client) { w.held.Lock() },
			func(w *wire) { w.held.Unlock() }},
		{"its feed is cut", func(t *testing.T, _ *wire, c rueidis.Client) {
			do(t, c, "CLIENT", "KILL", "TYPE", "PUBSUB")
		}, func(*wire) {}},
		{"its feed is cut and cannot be made anew", func(t *testing.T, w *wire, c rueidis.Client) {
			w.held.Lock()
			do(t, c, "CLIENT", "KILL", "TYPE", "PUBSUB")
		}, func(w *wire) { w.held.Unlock() }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			w := newWire(t, s.Addr())
			c := adminOf(t, s)
			o := redis.Options{Timeout: 30 * time.Second}
			here := replicate(t, s.URL, o, session.Config{})
			there := replicate(t, "redis://"+w.Addr().String(), o, session.Config{})
			ends, stays := here.signIn(t, "alice", "s1"), here.signIn(t, "bob", "s2")
			there.cache(t, ends)
			there.cache(t, stays)
			fault.begin(t, w, c)
			mend := sync.OnceFunc(func() { fault.end(w) })
			t.Cleanup(mend)

			dead := here.end(t, store.Selector{Subject: "alice"})
			poll(t, "twice the ceiling has passed", func() bool {
				began := time.Now()
				if _, err := there.Get(t.Context(), ends); err == nil && began.Sub(dead) > ceiling {
					t.Errorf("served %v after the end", began.Sub(dead))
				} else if err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Errorf("Get: got error %v, but the store can be asked", err)
				}
				if _, err := there.Get(t.Context(), stays); err != nil {
					t.Errorf("Get of who is alive: %v", err)
				}
				return began.Sub(dead) > 2*ceiling
			})
			there.wantRefused(t, ends)

			mend()
			there.cache(t, stays)
			there.hears(t, stays, func() { here.end(t, store.Selector{SID: "s2"}) })
			there.wantRefused(t, stays)
		})
	}
}

func TestAServerFrozenForTenSecondsServesNobodyPastTheCeilingAndSignsNobodyOut(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	url, o := s.URL, redis.Options{}
	here, there := replicate(t, url, o, session.Config{}), replicate(t, url, o, session.Config{})
	ends, stays, wished := here.signIn(t, "alice", "s1"), here.signIn(t, "bob", "s2"), here.signIn(t, "carol", "s3")
	for _, b := range []session.Bearer{ends, stays, wished} {
		there.cache(t, b)
	}
	dead := here.end(t, store.Selector{Subject: "alice"})
	s.Freeze()
	frozen := time.Now()
	wish := endingOf(store.Selector{Subject: "carol"})
	wish.JTI, wish.JTIExpires = "j1", frozen.Add(time.Hour)
	var asking sync.WaitGroup
	during := func(what string, ask func(began time.Time) error) {
		asking.Go(func() {
			refused := 0
			for time.Since(frozen) < 10*time.Second {
				if err := ask(time.Now()); err != nil {
					refused++
					if !errors.Is(err, session.ErrUnavailable) {
						t.Errorf("%s: got error %v, want %v", what, err, session.ErrUnavailable)
					}
				}
				pauseFor(5 * time.Millisecond)
			}
			if refused < 2 {
				t.Errorf("%s: it was refused %d times in ten seconds; one waits for our timeout and not for the server",
					what, refused)
			}
		})
	}
	during("Get of who ended", func(began time.Time) error {
		_, err := there.Get(t.Context(), ends)
		if err == nil && began.Sub(dead) > ceiling {
			t.Errorf("served %v after the end", began.Sub(dead))
		}
		if errors.Is(err, store.ErrNotFound) && began.Sub(dead) <= ceiling {
			return nil // heard of before the server froze
		}
		return err
	})
	during("Get of who is alive", func(began time.Time) error {
		_, err := there.Get(t.Context(), stays)
		if err == nil && began.Sub(frozen) > ceiling {
			t.Errorf("served %v after anything was heard of the server", began.Sub(frozen))
		}
		return err
	})
	during("End", func(time.Time) error {
		_, err := here.End(t.Context(), wish)
		if err == nil {
			t.Error("End: no error of a frozen server")
		}
		return err
	})
	asking.Wait()
	s.Thaw()

	there.cache(t, stays) // and was never signed out
	poll(t, "a logout that failed is carried out, or was", func() bool {
		_, err := here.End(t.Context(), wish)
		return err == nil || errors.Is(err, store.ErrReplayed)
	})
	there.wantRefused(t, ends)
	poll(t, "who was ended by it is refused", func() bool {
		_, err := there.Get(t.Context(), wished)
		return errors.Is(err, store.ErrNotFound)
	})
}

func TestAReplicaWhoseClockIsWrongGoesByTheServers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		url, o := on.Get(t).URL, redis.Options{Prefix: prefix(), Timeout: 30 * time.Second}
		right := replicate(t, url, o, session.Config{})
		for name, off := range map[string]time.Duration{"fast": 30 * time.Second, "slow": -30 * time.Second} {
			wrong := replicate(t, url, o, session.Config{Now: func() time.Time { return time.Now().Add(off) }})
			for _, r := range []*replica{right, wrong} {
				poll(t, "it has asked for the time", func() bool { return time.Until(r.Now()).Abs() < 2*time.Second })
			}
			// More than both can be off still.
			const margin = 5 * time.Second
			begun := func(who *replica, began time.Time) error {
				_, _, err := who.Create(t.Context(), session.SignIn{Issuer: issuer, ClientID: client, Subject: name,
					Began: began})
				return err
			}
			for _, ends := range []*replica{right, wrong} {
				before := wrong.Now().Add(-margin)
				ends.end(t, store.Selector{Subject: name})
				if err := begun(right, before); !errors.Is(err, store.ErrEnded) {
					t.Errorf("a login from before the logout, by a clock that is %s: got error %v, want %v", name, err,
						store.ErrEnded)
				}
				if err := begun(right, wrong.Now().Add(margin)); err != nil {
					t.Errorf("a login from after the logout, by a clock that is %s: %v", name, err)
				}
			}
		}
	})
}

// The part of another process of this test binary is in the environment: where the store is.
const childURL, childPrefix = "CURFEW_REDIS_TEST_CHILD", "CURFEW_REDIS_TEST_PREFIX"

// childReplica is a replica in a process of its own. For each bearer that it reads it says whether its session is
// served, and whether that was from the cache.
func childReplica() error {
	backend, err := redis.Open(context.Background(), os.Getenv(childURL),
		redis.Options{Prefix: os.Getenv(childPrefix), Timeout: 30 * time.Second})
	if err != nil {
		return err
	}
	defer backend.Close()
	r, err := newReplica(backend, session.Config{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	defer running.Wait()
	defer cancel()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		bearer, err := session.ParseBearer(lines.Text())
		if err != nil {
			return err
		}
		before := r.store.finds.Load()
		_, err = r.Get(ctx, bearer)
		switch {
		case errors.Is(err, store.ErrNotFound):
			fmt.Println("refused")
		case err != nil:
			fmt.Println("unavailable")
		case r.store.finds.Load() == before:
			fmt.Println("cached")
		default:
			fmt.Println("read")
		}
	}
	return nil
}
