package redis_test

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
	"example.com/curfew/store/storetest"
	"github.com/redis/rueidis"
)

func BenchmarkEnd(b *testing.B)         { storetest.BenchEnd(b, openBench) }
func BenchmarkEndParallel(b *testing.B) { storetest.BenchEndParallel(b, openBench) }
func BenchmarkFind(b *testing.B)        { storetest.BenchFind(b, openBench) }
func BenchmarkSearch(b *testing.B)      { storetest.BenchSearch(b, openBench, nil) }
func BenchmarkCrowd(b *testing.B)       { storetest.BenchCrowd(b, openBench) }
func BenchmarkClock(b *testing.B)       { storetest.BenchClock(b, openBench) }

// BenchmarkClockOfCluster is BenchmarkClock where all masters have to be asked.
func BenchmarkClockOfCluster(b *testing.B) {
	c := servers.RedisCluster(b)
	storetest.BenchClock(b, func(b *testing.B) store.Store {
		return open(b, c.URL, redis.Options{Timeout: time.Minute, Prefix: prefix()})
	})
}

// Each size has a server to itself.
func openBench(b *testing.B) store.Store {
	s := startServer(b)
	return open(b, s.URL, redis.Options{Timeout: time.Minute})
}

// BenchmarkPing is one bare round trip: what End is to be compared with.
func BenchmarkPing(b *testing.B) {
	s := startServer(b)
	c, err := admin(s)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for b.Loop() {
		if err := c.Do(b.Context(), c.B().Ping().Build()).Error(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory says how much memory Redis takes for a session with a payload of 600 bytes, two to a person, each
// with a sid: all indexes included.
func BenchmarkMemory(b *testing.B) {
	const sessions = 100_000
	s := startServer(b)
	backend := open(b, s.URL, redis.Options{Timeout: time.Minute})
	c := adminOf(b, s)
	used := func() int {
		info := do(b, c, "INFO", "memory")
		text, _ := info.ToString()
		for line := range strings.Lines(text) {
			if n, ok := strings.CutPrefix(line, "used_memory:"); ok {
				bytes, err := strconv.Atoi(strings.TrimSpace(n))
				if err != nil {
					b.Fatal(err)
				}
				return bytes
			}
		}
		b.Fatal("INFO does not say")
		return 0
	}
	// later than the server's own time, which a mark may have too
	now := store.Time(time.Now().Add(store.AttemptLifetime))
	for b.Loop() {
		do(b, c, "FLUSHALL", "SYNC")
		before := used()
		var all sync.WaitGroup
		for w := range 64 {
			all.Go(func() {
				for i := w; i < sessions; i += 64 {
					r := recordOf(fmt.Sprintf("248289761001-%d", i/2), rand.Text()[:16]+fmt.Sprint(i), now)
					r.Payload = make([]byte, 600)
					if err := backend.Create(b.Context(), r, now, now); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		b.ReportMetric(float64(used()-before)/sessions, "bytes/session")
	}
}

// BenchmarkHeard measures from before End on one store to the call of the watching function on another.
func BenchmarkHeard(b *testing.B) {
	s := startServer(b)
	here := open(b, s.URL, redis.Options{})
	there := open(b, s.URL, redis.Options{})
	heard := make(chan time.Time, 1)
	feed, err := there.Watch(b.Context(), func(store.Ended) { heard <- time.Now() })
	if err != nil {
		b.Fatal(err)
	}
	defer feed.Close()
	var took []time.Duration
	// later than the server's own time, which a mark may have too
	now := store.Time(time.Now().Add(store.AttemptLifetime))
	for b.Loop() {
		now = now.Add(time.Microsecond)
		r := recordOf("alice", "s1", now)
		if err := here.Create(b.Context(), r, now, now); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if _, err := here.End(b.Context(), endingOf(store.Selector{Subject: "alice"}), now); err != nil {
			b.Fatal(err)
		}
		select {
		case at := <-heard:
			took = append(took, at.Sub(began))
		case <-time.After(time.Minute):
			b.Fatal("no news of the ending")
		}
	}
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(took[len(took)*p/100].Nanoseconds())/1e6, fmt.Sprintf("p%d-ms", p))
	}
	b.ReportMetric(float64(took[len(took)-1].Nanoseconds())/1e6, "max-ms")
}

func recordOf(subject, sid string, now time.Time) store.Record {
	bearer := session.NewBearer(rig.Issuer, rig.ClientID, subject)
	return store.Record{Key: bearer.Key(), Issuer: rig.Issuer, ClientID: rig.ClientID, Subject: subject,
		SID: sid, Created: now, LastSeen: now, IdleExpires: now.Add(time.Hour), Expires: now.Add(24 * time.Hour),
		Revision: 1,
		Payload:  []byte("sealed")}
}

func endingOf(w store.Selector) store.Ending {
	w.Issuer, w.ClientID = rig.Issuer, rig.ClientID
	return store.Ending{Selector: w, Cause: store.CauseBackChannel}
}

// tokenOf is the ending of a logout token.
func tokenOf(w store.Selector, jti string, now time.Time) store.Ending {
	e := endingOf(w)
	e.JTI, e.JTIExpires = jti, now.Add(time.Hour)
	return e
}

// BenchmarkEndOnServer says how much time of its processor Redis spends on one End, whatever else this machine does.
func BenchmarkEndOnServer(b *testing.B) {
	for _, size := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("sessions=%d", size), func(b *testing.B) {
			s := startServer(b)
			backend := open(b, s.URL, redis.Options{Timeout: time.Minute})
			c := adminOf(b, s)
			now := store.Time(time.Now())
			all := make([]store.Record, size)
			fill := func(all []store.Record) {
				var workers sync.WaitGroup
				for w := range 64 {
					workers.Go(func() {
						for i := w; i < len(all); i += 64 {
							r := recordOf(fmt.Sprintf("248289761001-%s", rand.Text()[:10]), rand.Text()[:16], now)
							r.Payload = make([]byte, 600)
							if err := backend.Create(b.Context(), r, now, now); err != nil {
								b.Error(err)
								return
							}
							r.Payload = nil
							all[i] = r
						}
					})
				}
				workers.Wait()
			}
			fill(all)
			rest(b, c, backend.OrderedKeys()...)
			rounds(b, c, all, fill, func(r store.Record) {
				e := tokenOf(store.Selector{Subject: r.Subject, SID: r.SID}, r.SID, now)
				if ended, err := backend.End(b.Context(), e, now); err != nil || len(ended) != 1 {
					b.Fatal(len(ended), err)
				}
			})
		})
	}
}

// rounds ends 1,000 of all in each round, chosen at random, and then fills in as many new ones, which is not counted.
func rounds[T any](b *testing.B, c rueidis.Client, all []T, fill func([]T), end func(T)) {
	const round = 1000
	var spent float64
	ends := 0
	for b.Loop() {
		b.StopTimer()
		mathrand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		b.StartTimer()
		before := cpu(b, c)
		for _, one := range all[:round] {
			end(one)
		}
		spent += cpu(b, c) - before
		ends += round
		b.StopTimer()
		fill(all[:round])
		b.StartTimer()
	}
	b.ReportMetric(spent/float64(ends), "server-us/end")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(ends), "us/end")
}

// rest lets Redis finish making its hash tables larger, of which it does a step whenever it looks into one. A server
// whose sessions are as many as yesterday has none to make; one that was just filled may have them all.
func rest(b *testing.B, c rueidis.Client, keys ...string) {
	look := rueidis.NewLuaScript(`for i = 1, 10000 do redis.call('ZSCORE', KEYS[1], '') end return 1`)
	for _, key := range keys {
		if err := look.Exec(b.Context(), c, []string{key}, nil).Error(); err != nil {
			b.Fatal(err)
		}
	}
}

// cpu is the time that the main thread of a server has spent, in microseconds.
func cpu(b *testing.B, c rueidis.Client) (total float64) {
	info := do(b, c, "INFO", "cpu")
	text, _ := info.ToString()
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && strings.HasSuffix(name, "_main_thread") {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			total += 1e6 * seconds
		}
	}
	return total
}

// BenchmarkFloorOnServer is what BenchmarkEndOnServer is to be compared with, size by size: the least that ends a
// session in Redis, with nothing in order, nothing to be listed, and nobody named in two ways. One script finds the
// session by its subject, takes it away, and leaves a mark, a jti and a message.
func BenchmarkFloorOnServer(b *testing.B) {
	script := rueidis.NewLuaScript(`
		if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
		local session = redis.call('GET', KEYS[1])
		local v = redis.call('GET', session)
		redis.call('UNLINK', KEYS[1], session)
		redis.call('SET', KEYS[2], ARGV[1], 'PX', 900000)
		redis.call('SET', KEYS[3], ARGV[1], 'PX', 3600000)
		redis.call('PUBLISH', 'ended', session)
		return #v`)
	for _, size := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("sessions=%d", size), func(b *testing.B) {
			c := adminOf(b, startServer(b))
			payload := strings.Repeat("x", 700)
			all := make([]string, size)
			fill := func(all []string) {
				for i := range all {
					all[i] = rand.Text()[:16]
				}
				for part := range slices.Chunk(all, 1000) {
					var sets rueidis.Commands
					for _, name := range part {
						sets = append(sets, c.B().Set().Key("by:"+name).Value("session:"+name).
							PxMilliseconds(86_400_000).Build(),
							c.B().Set().Key("session:"+name).Value(payload).PxMilliseconds(86_400_000).Build())
					}
					for _, result := range c.DoMulti(b.Context(), sets...) {
						if err := result.Error(); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			fill(all)
			do(b, c, "ZADD", "any", "1", "x")
			for range 300 {
				rest(b, c, "any") // a look at the table of all keys
			}
			rounds(b, c, all, fill, func(name string) {
				keys := []string{"by:" + name, "mark:" + name, "jti:" + name}
				if n, err := script.Exec(b.Context(), c, keys, []string{"now"}).AsInt64(); err != nil ||
					n != int64(len(payload)) {
					b.Fatal(n, err)
				}
			})
		})
	}
}
