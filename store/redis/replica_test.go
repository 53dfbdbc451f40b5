package redis_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
	"github.com/redis/rueidis"
)

// replicate runs a replica for as long as the test runs.
func replicate(t *testing.T, url string, o redis.Options, cfg session.Config) *rig.Replica {
	t.Helper()
	backend := open(t, url, o)
	t.Cleanup(func() { backend.Close() })
	return rig.Replicate(t, backend, cfg)
}

func TestWhoIsEndedOnOneReplicaIsRefusedOnTheOther(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		url, o := on.Get(t).URL, redis.Options{Prefix: prefix(), Timeout: 30 * time.Second, DialTimeout: time.Minute}
		// Who hears nothing would serve a copy for an hour.
		deaf := session.Config{MaxStale: time.Hour}
		here, there := replicate(t, url, o, deaf), replicate(t, url, o, deaf)
		bystander := here.SignIn(t, "bob", "s9")
		there.Cache(t, bystander)
		// Each ending names another person: one who was named is not served from a copy until the feed is in sync again.
		for _, who := range []store.Selector{{Subject: "alice"}, {SID: "s2"}, {Subject: "carol", SID: "s3"}} {
			b := here.SignIn(t, cmp.Or(who.Subject, "dave"), cmp.Or(who.SID, "s1"))
			here.Cache(t, b)
			there.Cache(t, b)
			there.Hears(t, b, func() { here.EndAll(t, who) })
			here.WantRefused(t, b)
			there.WantRefused(t, b)
		}
		there.Cache(t, bystander)
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
			o := redis.Options{Timeout: 30 * time.Second, DialTimeout: time.Minute}
			here := replicate(t, s.URL, o, session.Config{})
			there := replicate(t, "redis://"+w.Addr().String(), o, session.Config{})
			ends, stays := here.SignIn(t, "alice", "s1"), here.SignIn(t, "bob", "s2")
			rig.Deaf(t, here, there, ends, stays, func() { fault.begin(t, w, c) }, func() { fault.end(w) })
		})
	}
}

func TestAServerFrozenForTenSecondsServesNobodyPastTheCeilingAndSignsNobodyOut(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	url, o := s.URL, redis.Options{}
	here, there := replicate(t, url, o, session.Config{}), replicate(t, url, o, session.Config{})
	ends, stays, wished := here.SignIn(t, "alice", "s1"), here.SignIn(t, "bob", "s2"), here.SignIn(t, "carol", "s3")
	rig.Frozen(t, s, here, there, ends, stays, wished)
}

func TestAReplicaWhoseClockIsWrongGoesByTheServers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		url, o := on.Get(t).URL, redis.Options{Prefix: prefix(), Timeout: 30 * time.Second, DialTimeout: time.Minute}
		rig.WrongClock(t, func(cfg session.Config) *rig.Replica { return replicate(t, url, o, cfg) })
	})
}

// The part of another process of this test binary is in the environment: where the store is.
const childURL, childPrefix = "CURFEW_REDIS_TEST_CHILD", "CURFEW_REDIS_TEST_PREFIX"

// childReplica is a replica in a process of its own. For each bearer that it reads it says whether its session is
// served, and whether that was from the cache.
func childReplica() error {
	backend, err := redis.Open(context.Background(), os.Getenv(childURL),
		redis.Options{Prefix: os.Getenv(childPrefix), Timeout: 30 * time.Second, DialTimeout: time.Minute})
	if err != nil {
		return err
	}
	defer backend.Close()
	r, err := rig.NewReplica(backend, session.Config{})
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
		before := r.Finds()
		_, err = r.Get(ctx, bearer)
		switch {
		case errors.Is(err, store.ErrNotFound):
			fmt.Println("refused")
		case err != nil:
			fmt.Println("unavailable")
		case r.Finds() == before:
			fmt.Println("cached")
		default:
			fmt.Println("read")
		}
	}
	return nil
}
