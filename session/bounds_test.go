package session

import (
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"pgregory.net/rapid"
)

// world is a machine and a server elsewhere, whose clocks do what clocks do.
type world struct {
	store time.Time // by the server
	here  instant
}

// pass lets d pass. Clocks are slewed by a tenth at most.
func (w *world) pass(t *rapid.T, d time.Duration) {
	slewed := func(what string) time.Duration {
		return d + d/1000*time.Duration(rapid.IntRange(-100, 100).Draw(t, what))
	}
	w.store = w.store.Add(slewed("the server's rate"))
	here := slewed("our rate")
	w.here.mono += here
	w.here.wall += here
}

func drawn(t *rapid.T, what string, most time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, what))
}

// read takes a reading: the answer is made somewhere in the middle of it.
func (w *world) read(t *rapid.T, b *bounds) {
	slowest := rapid.SampledFrom([]time.Duration{time.Millisecond, 10 * time.Second}).Draw(t, "slowest")
	before := w.here
	w.pass(t, drawn(t, "on the way there", slowest))
	at := w.store
	w.pass(t, drawn(t, "on the way back", slowest))
	b.observe(store.Time(at), before, w.here)
}

// TestTheStoresTimeIsWithinItsBounds, however slow the readings are, while machines are suspended and wall clocks are
// set.
func TestTheStoresTimeIsWithinItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := &world{store: time.Unix(1_800_000_000, 0)}
		b := &bounds{drift: 4}
		w.read(t, b)
		suspends := rapid.Bool().Draw(t, "it is suspended, and its wall clock is right")
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				w.read(t, b)
			case 1:
				w.pass(t, drawn(t, "passes", time.Minute))
			case 2:
				mono := w.here.mono
				if w.pass(t, drawn(t, "passes, perhaps suspended", time.Hour)); suspends {
					w.here.mono = mono
				}
			case 3:
				if !suspends {
					w.here.wall += time.Duration(rapid.Int64Range(-int64(time.Hour), int64(time.Hour)).
						Draw(t, "the wall clock is set by"))
				}
			}
			earliest, latest := b.at(w.here)
			if earliest.After(w.store) || latest.Before(store.Time(w.store)) {
				t.Fatalf("it is %v, and said to be between %v and %v", w.store, earliest, latest)
			}
			if b.back != 0 {
				t.Fatalf("it was not set back by %v", b.back)
			}
		}
	})
}

func TestASlowReadingNarrowsNothingAndHarmsNothing(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) instant { return instant{d, d} }
	start := time.Unix(1_800_000_000, 0)
	b := &bounds{drift: 4}
	b.observe(start, at(0), at(time.Millisecond))
	// 5 s, of which all but a millisecond were spent waiting for a connection: the middle would be 2.5 s ahead.
	b.observe(start.Add(5*time.Second), at(time.Second), at(6*time.Second))
	earliest, latest := b.at(at(6 * time.Second))
	if now := start.Add(6 * time.Second); earliest.After(now) || latest.Before(now) {
		t.Errorf("it is %v, and said to be between %v and %v", now, earliest, latest)
	}
	if width := latest.Sub(earliest); width > 3*time.Second {
		t.Errorf("the bounds are %v apart: the reading before has been forgotten", width)
	}
	b.observe(start.Add(6*time.Second), at(6*time.Second), at(6*time.Second+time.Millisecond))
	if earliest, latest := b.at(at(6*time.Second + time.Millisecond)); latest.Sub(earliest) > 2*time.Millisecond {
		t.Errorf("the bounds are %v apart after a quick reading", latest.Sub(earliest))
	}
}

// TestALoginFromBeforeALogoutHasTheLowerStamp on whatever replicas, while the server's clock is set as somebody
// pleases.
func TestALoginFromBeforeALogoutHasTheLowerStamp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := &world{store: time.Unix(1_800_000_000, 0)}
		replicas := []*bounds{{drift: 4}, {drift: 4}, {drift: 4}}
		for _, b := range replicas {
			w.read(t, b)
		}
		var logins []time.Time
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch b := rapid.SampledFrom(replicas).Draw(t, "replica"); rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				w.read(t, b)
			case 1:
				w.pass(t, drawn(t, "passes", 10*time.Second))
			case 2: // once it was read everywhere since it was set last; and it is, before it is set again
				for _, b := range replicas {
					w.read(t, b)
				}
				w.store = w.store.Add(drawn(t, "the server's clock is set forward", time.Hour))
				for _, b := range replicas {
					w.read(t, b)
				}
			case 3: // by more than a replica can be wrong about it
				w.store = w.store.Add(-time.Minute - drawn(t, "the server's clock is set back", 5*time.Minute))
			case 4:
				earliest, _ := b.at(w.here)
				logins = append(logins, store.Time(earliest))
			}
			logout := store.Time(w.store) // by the server
			creator := rapid.SampledFrom(replicas).Draw(t, "who creates")
			w.read(t, creator)
			for _, began := range logins {
				if stamp := store.Time(began.Add(-creator.setBack(w.here))); stamp.After(logout) {
					t.Fatalf("a login is stamped %v, and a logout after it %v", stamp, logout)
				}
			}
		}
	})
}

// TestTheOrderIsKeptWhenTheOnlyClockIsSet: one process, whose own wall clock is the one that counts.
func TestTheOrderIsKeptWhenTheOnlyClockIsSet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		start := time.Unix(1_800_000_000, 0)
		var here instant
		b := &bounds{own: true, drift: 100}
		observe := func() time.Time {
			b.observe(start.Add(here.wall), here, here)
			earliest, _ := b.at(here)
			if want := start.Add(here.wall); !earliest.Equal(want) {
				t.Fatalf("it is %v, and said to be %v", want, earliest)
			}
			return earliest
		}
		var logins []time.Time
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			d := drawn(t, "passes", time.Second)
			here.mono += d
			here.wall += d
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				logins = append(logins, observe())
			case 1:
				here.wall += drawn(t, "suspended, or set forward", time.Hour)
			case 2:
				here.wall -= 20*time.Millisecond + drawn(t, "set back", 5*time.Minute)
			case 3:
				observe()
			}
			logout := observe()
			for _, began := range logins {
				if stamp := began.Add(-b.setBack(here)); stamp.After(logout) {
					t.Fatalf("a login is stamped %v, and a logout after it %v", stamp, logout)
				}
			}
		}
	})
}

func TestThatAClockWasSetBackIsForgottenWhenNoLoginIsLeftFromBefore(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) instant { return instant{d, d} }
	start := time.Unix(1_800_000_000, 0)
	b := &bounds{drift: 4}
	b.observe(start, at(0), at(0))
	by := 10 * time.Second
	b.observe(start.Add(-by), at(0), at(0))
	by += time.Microsecond
	for after, want := range map[time.Duration]time.Duration{
		0: by, store.AttemptLifetime: by, store.AttemptLifetime + by - 1: by, store.AttemptLifetime + by: 0,
		24 * time.Hour: 0,
	} {
		if got := b.setBack(at(after)); got != want {
			t.Errorf("after %v it is %v behind, want %v", after, got, want)
		}
	}
}

// Logins and logouts read the clock of a process at the same time. One that is held up after it has looked must not be
// taken for a clock that was set back: for that long a person who signs out could not sign in again.
func TestReadingsOfOurOwnClockAreTakenInInTheirOrder(t *testing.T) {
	t.Parallel()
	var ticks atomic.Int64
	start := time.Now()
	c := NewClock(memory.New(), func() time.Time {
		now := start.Add(time.Duration(ticks.Add(1)) * time.Second)
		runtime.Gosched() // another goroutine overtakes
		return now
	}, slog.New(slog.DiscardHandler))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				_, _ = c.between()
			}
		})
	}
	all.Wait()
	if c.bounds.back != 0 {
		t.Errorf("the clock seems to have been set back by %v", c.bounds.back)
	}
}

// time.Now reads the wall clock and then the monotonic one, and on a machine that has too much to do a thread is held
// up between the two.
func TestAReadingOfOurOwnClockThatIsHeldUpIsNoClockThatWasSetBack(t *testing.T) {
	t.Parallel()
	now, calls := time.Now(), 0
	c := NewClock(memory.New(), func() time.Time {
		calls++
		now = now.Add(time.Microsecond)
		read := now
		if calls%5 == 0 {
			const held = 40 * time.Millisecond
			now = now.Add(held)
			// The second word of a time is the monotonic clock, in nanoseconds.
			*(*time.Duration)(unsafe.Add(unsafe.Pointer(&read), unsafe.Sizeof(uint64(0)))) += held
			if wall, mono := now.Round(0).Sub(read.Round(0)), now.Sub(read); wall != held || mono != 0 {
				t.Fatalf("the clocks differ by %v and %v", wall, mono)
			}
		}
		return read
	}, slog.New(slog.DiscardHandler))
	for range 100 {
		earliest, latest := c.between()
		if earliest.After(now) || latest.Before(now.Round(0)) {
			t.Fatalf("it is %v, and the bounds are %v and %v", now, earliest, latest)
		}
	}
	if c.bounds.back != 0 {
		t.Errorf("the clock seems to have been set back by %v", c.bounds.back)
	}
}
