package storetest

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

// sizes are the numbers of sessions in the store. The cost of an ending must not depend on them.
func sizes() []int {
	if testing.Short() {
		return []int{1_000, 100_000}
	}
	return []int{1_000, 100_000, 1_000_000}
}

// population is a store with a number of sessions, which are ended and replaced during a benchmark.
type population struct {
	b     *testing.B
	store store.Store
	now   time.Time
	all   []store.Record
	next  int // the number of the next jti
}

func populate(b *testing.B, backend store.Store, size int) *population {
	b.Cleanup(func() {
		if err := backend.Close(); err != nil {
			b.Error(err)
		}
	})
	p := &population{b: b, store: backend, now: store.Time(time.Now()), all: make([]store.Record, size)}
	p.replace(0, size)
	return p
}

// replace creates new sessions at the indexes from to to, and prunes.
func (p *population) replace(from, to int) {
	p.now = p.now.Add(store.AttemptLifetime) // so that marks and jtis do not pile up
	for {
		n, err := p.store.Prune(p.b.Context(), p.now)
		if err != nil {
			p.b.Fatal(err)
		}
		if n == 0 {
			break
		}
	}
	const workers = 256
	p.together(workers, func(w int) error {
		payload := make([]byte, 600)
		for i := from + w; i < to; i += workers {
			r := p.record(i)
			r.Payload = payload
			if err := p.store.Create(p.b.Context(), r, p.now, p.now); err != nil {
				return err
			}
			r.Payload = nil
			p.all[i] = r
		}
		return nil
	})
}

// record returns the session at an index: there are two for each subject, each with a sid of its own.
func (p *population) record(i int) store.Record {
	r := recordAt(issuer, client, fmt.Sprintf("248289761001-%d", i/2), fmt.Sprintf("%016x-%d", rand.Uint64(), i), p.now)
	r.IdleExpires, r.Expires = p.now.Add(1000*time.Hour+time.Duration(i)*time.Second), p.now.Add(10_000*time.Hour)
	return r
}

// draw moves the sessions that are to end next, chosen at random, to the front, so that they are not the newest ones.
// Their names are copied, like those of a logout token that was just parsed.
func (p *population) draw() {
	for i := range p.batch() {
		j := i + rand.IntN(len(p.all)-i)
		p.all[i], p.all[j] = p.all[j], p.all[i]
		p.all[i].Subject, p.all[i].SID = strings.Clone(p.all[i].Subject), strings.Clone(p.all[i].SID)
	}
}

func (p *population) together(n int, fn func(i int) error) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := fn(i); err != nil {
				p.b.Error(err)
			}
		})
	}
	all.Wait()
	if p.b.Failed() {
		p.b.FailNow()
	}
}

// end carries out a logout token that names one session by sid and subject.
func (p *population) end(r *store.Record, jti int) error {
	e := ending(store.Selector{Subject: r.Subject, SID: r.SID})
	e.JTI, e.JTIExpires = fmt.Sprintf("4d3559ec-67504aaba65d-%d", jti), p.now.Add(2*time.Minute)
	ended, err := p.store.End(p.b.Context(), e, p.now)
	if err == nil && len(ended) != 1 {
		err = fmt.Errorf("%d sessions ended, want 1", len(ended))
	}
	return err
}

// batch is how many sessions end before they are replaced. The replacement is not measured.
func (p *population) batch() int { return min(500, len(p.all)) }

// BenchEnd measures [store.Sessions.End], one call after another, in a small, a large and a very large store.
func BenchEnd(b *testing.B, open func(b *testing.B) store.Store) {
	for _, size := range sizes() {
		b.Run(fmt.Sprintf("sessions=%d", size), func(b *testing.B) {
			p := populate(b, open(b), size)
			p.draw()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if i == p.batch() {
					b.StopTimer()
					p.replace(0, i)
					p.draw()
					i = 0
					b.StartTimer()
				}
				if err := p.end(&p.all[i], p.next); err != nil {
					b.Fatal(err)
				}
				i++
				p.next++
			}
		})
	}
}

// BenchEndParallel measures End with 16 callers at once.
func BenchEndParallel(b *testing.B, open func(b *testing.B) store.Store) {
	const callers = 16
	for _, size := range sizes() {
		b.Run(fmt.Sprintf("sessions=%d", size), func(b *testing.B) {
			p := populate(b, open(b), size)
			ends := 0
			var took time.Duration
			for b.Loop() {
				b.StopTimer()
				if ends > 0 {
					p.replace(0, p.batch())
				}
				p.draw()
				b.StartTimer()
				began := time.Now()
				p.together(callers, func(w int) error {
					for i := w; i < p.batch(); i += callers {
						if err := p.end(&p.all[i], p.next+i); err != nil {
							return err
						}
					}
					return nil
				})
				took += time.Since(began)
				ends += p.batch()
				p.next += p.batch()
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(ends), "ns/end")
			b.ReportMetric(float64(ends)/took.Seconds(), "ends/s")
		})
	}
}

// BenchFind measures [store.Sessions.Find] of sessions chosen at random.
func BenchFind(b *testing.B, open func(b *testing.B) store.Store) {
	for _, size := range sizes() {
		b.Run(fmt.Sprintf("sessions=%d", size), func(b *testing.B) {
			p := populate(b, open(b), size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.store.Find(b.Context(), p.all[rand.IntN(size)].Key, p.now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchCrowd measures how long others wait while 150,000 sessions of one subject end: the slowest logout of another
// subject, and the slowest check.
func BenchCrowd(b *testing.B, open func(b *testing.B) store.Store) {
	size := 150_000
	if testing.Short() {
		size = 15_000
	}
	backend := open(b)
	b.Cleanup(func() {
		if err := backend.Close(); err != nil {
			b.Error(err)
		}
	})
	now := store.Time(time.Now())
	p := &population{b: b, store: backend, now: now}
	var all, check, logout time.Duration
	for b.Loop() {
		b.StopTimer()
		now = now.Add(time.Second)
		create := func(subject, sid string) store.Record {
			r := recordAt(issuer, client, subject, sid, now)
			r.Expires, r.IdleExpires, r.Payload = now.Add(1000*time.Hour), now.Add(1000*time.Hour), make([]byte, 600)
			if err := backend.Create(b.Context(), r, now, now); err != nil {
				b.Error(err)
			}
			return r
		}
		const workers = 256
		p.together(workers, func(w int) error {
			for i := w; i < size; i += workers {
				create("crowd", fmt.Sprint("crowd", i))
			}
			return nil
		})
		stays := create("stays", "stays")
		b.StartTimer()
		done := make(chan struct{})
		go func() {
			defer close(done)
			began := time.Now()
			if _, err := backend.End(b.Context(), ending(store.Selector{Subject: "crowd"}), now); err != nil {
				b.Error(err)
			}
			all += time.Since(began)
		}()
		for over := false; !over; {
			select {
			case <-done:
				over = true
			default:
			}
			began := time.Now()
			if _, err := backend.Find(b.Context(), stays.Key, now); err != nil {
				b.Error(err)
			}
			check = max(check, time.Since(began))
			began = time.Now()
			if _, err := backend.End(b.Context(), ending(store.Selector{Subject: "nobody"}), now); err != nil {
				b.Error(err)
			}
			logout = max(logout, time.Since(began))
		}
	}
	b.ReportMetric(float64(all.Milliseconds())/float64(b.N), "ms/all")
	b.ReportMetric(float64(check.Microseconds())/1000, "ms/longest-check")
	b.ReportMetric(float64(logout.Microseconds())/1000, "ms/longest-logout")
}

// BenchClock measures how long a reading of the store's clock takes, and how much earlier than it began a single login
// is stamped: on an idle store, and beside callers that keep every connection of a pool busy.
func BenchClock(b *testing.B, open func(b *testing.B) store.Store) {
	for _, callers := range []int{0, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			backend := open(b)
			ring, err := keyring.New(make([]byte, 32))
			if err != nil {
				b.Fatal(err)
			}
			m, err := session.NewManager(session.Config{Store: backend, Keyring: ring,
				Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var all sync.WaitGroup
			b.Cleanup(func() {
				cancel()
				all.Wait()
				if err := backend.Close(); err != nil {
					b.Error(err)
				}
			})
			all.Go(func() { m.Run(ctx) })
			for i := range callers {
				all.Go(func() {
					for ctx.Err() == nil {
						_, _ = backend.Find(ctx, store.Key{byte(i)}, time.Now())
						_, _ = backend.End(ctx, ending(store.Selector{Subject: fmt.Sprint("nobody", i)}), time.Now())
					}
				})
			}
			var readings, early []time.Duration
			for b.Loop() {
				b.StopTimer()
				<-time.NewTimer(60 * time.Millisecond).C // so that each login reads the clock again
				b.StartTimer()
				began, _, err := m.Begin(ctx)
				if err != nil {
					b.Fatal(err)
				}
				early = append(early, time.Since(began))
				b.StopTimer()
				if clock := backend.Clock(); clock.Now != nil {
					asked := time.Now()
					if _, err := clock.Now(ctx); err != nil {
						b.Fatal(err)
					}
					readings = append(readings, time.Since(asked))
				}
				b.StartTimer()
			}
			b.ReportMetric(0, "ns/op")
			for what, all := range map[string][]time.Duration{"reading": readings, "early": early} {
				slices.Sort(all)
				for name, permille := range map[string]int{"p50": 500, "p99": 990} {
					if len(all) > 0 {
						b.ReportMetric(float64(all[len(all)*permille/1000].Nanoseconds())/1e6, "ms/"+what+"-"+name)
					}
				}
			}
		})
	}
}

// BenchSearch measures what the console and `curfew session list` ask for, with sealed sessions as sign-ins leave them,
// as a multiple of [store.Sessions.Find] in the same run, which it asks for in between. Each ratio is one of medians.
// The sessions of a subject and those with a sid are found by index, all of them are a page; an e-mail address, an
// address and an age are those of no session, so each answer compares as many as one may, and says where it goes on.
// The number after a name is the size of the page.
//
// load, if not nil, puts sessions into an empty store in a quicker way than one by one.
func BenchSearch(b *testing.B, open func(b *testing.B) store.Store,
	load func(b *testing.B, size int, record func(i int) store.Record)) {
	for _, size := range sizes() {
		b.Run(fmt.Sprintf("sessions=%d", size), func(b *testing.B) {
			p := &population{b: b, store: open(b)}
			b.Cleanup(func() {
				if err := p.store.Close(); err != nil {
					b.Error(err)
				}
			})
			ring, err := keyring.New(make([]byte, 32))
			if err != nil {
				b.Fatal(err)
			}
			cfg := session.Config{Store: p.store, Keyring: ring, IdleTimeout: 1000 * time.Hour,
				Lifetime: 10_000 * time.Hour, MaxPerSubject: -1, Log: slog.New(slog.DiscardHandler)}
			keys := make([]store.Key, size)
			record := sealer(b, cfg, keys)
			began := time.Now()
			if load == nil {
				const workers = 256
				p.together(workers, func(w int) error {
					for i := w; i < size; i += workers {
						r := record(i)
						if err := p.store.Create(b.Context(), r, r.Created, r.Created); err != nil {
							return err
						}
					}
					return nil
				})
			} else {
				load(b, size, record)
			}
			b.Logf("%d sessions were there after %v", size, time.Since(began).Round(time.Second))
			m, err := session.NewManager(cfg)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				p.search(m, keys)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func (p *population) search(m *session.Manager, keys []store.Key) {
	b := p.b
	now := m.Now()
	find := func() error {
		_, err := p.store.Find(b.Context(), keys[rand.IntN(len(keys))], now)
		return err
	}
	type kind struct {
		name  string
		times int
		found bool // it must find some
		ask   func(i int) session.Search
	}
	kinds := []kind{
		{"id", 200, true, nil},
		{"subject", 200, true, func(i int) session.Search {
			return session.Search{Issuer: issuer, ClientID: client, Subject: subjectOf(i)}
		}},
		{"sid", 200, true, func(i int) session.Search {
			return session.Search{Issuer: issuer, ClientID: client, SID: sidOf(i)}
		}},
		// From somewhere in the middle, but not so near to the end that the page is empty.
		{"all", 100, true, func(i int) session.Search {
			after := keys[i]
			after[0] &= 0x7f
			return session.Search{After: after}
		}},
		{"email", 100, false, func(int) session.Search { return session.Search{Email: "nobody@example.com"} }},
		{"address", 100, false, func(int) session.Search { return session.Search{Address: "192.0.2.1"} }},
		{"age", 100, false, func(int) session.Search { return session.Search{Since: now.Add(time.Hour)} }},
	}
	for _, k := range kinds {
		for _, limit := range []int{25, 100} {
			var searches, finds []time.Duration
			for range k.times {
				i := rand.IntN(len(keys))
				began := time.Now()
				if err := find(); err != nil {
					b.Fatal(err)
				}
				asked := time.Now()
				if k.ask == nil {
					if _, err := m.ByID(b.Context(), session.IDOf(keys[i])); err != nil {
						b.Fatal(err)
					}
				} else {
					q := k.ask(i)
					q.Limit = limit
					page, err := m.Search(b.Context(), q)
					if err != nil || k.found != (len(page.Sessions) > 0) {
						b.Fatalf("%s: %d sessions, %v", k.name, len(page.Sessions), err)
					}
				}
				finds, searches = append(finds, asked.Sub(began)), append(searches, time.Since(asked))
			}
			b.ReportMetric(float64(median(searches))/float64(median(finds)), fmt.Sprint(k.name, limit, "/find"))
			b.ReportMetric(float64(median(finds).Nanoseconds()), "ns/find")
		}
	}
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

func subjectOf(i int) string { return fmt.Sprint("248289761001-", i/2) }
func sidOf(i int) string     { return fmt.Sprintf("08a5019c-17e1-4977-8f42-%012d", i) }

// sealer returns a function that makes the record of the i-th sign-in, as [session.Manager.Create] stores it, and
// notes its key. Two follow one another at the same person.
func sealer(b *testing.B, cfg session.Config, keys []store.Key) func(i int) store.Record {
	made := new(sync.Map)
	cfg.Store = seals{cfg.Store, made}
	m, err := session.NewManager(cfg)
	if err != nil {
		b.Fatal(err)
	}
	return func(i int) (r store.Record) {
		name := fmt.Sprint("person", i/2)
		_, s, err := m.Create(b.Context(), session.SignIn{Provider: "main", Issuer: issuer, ClientID: client,
			Subject: subjectOf(i), SID: sidOf(i), Began: m.Now(),
			Claims: map[string]any{"sub": subjectOf(i), "sid": sidOf(i), "name": name, "email": name + "@example.com",
				"groups": []string{"staff", "readers"}},
			Address:   fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255),
			UserAgent: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
			Tokens:    session.Tokens{AccessToken: strings.Repeat("a", 40), RefreshToken: strings.Repeat("r", 40)}})
		if err != nil {
			b.Error(err)
			return r
		}
		keys[i] = s.Key
		sealed, _ := made.LoadAndDelete(s.Key)
		return sealed.(store.Record)
	}
}

// seals is a store that puts what is to be created into made, by its key, and keeps nothing.
type seals struct {
	store.Store
	made *sync.Map
}

func (seals) Clock() store.Clock { return store.Clock{} }

func (s seals) Create(_ context.Context, r store.Record, _, _ time.Time) error {
	s.made.Store(r.Key, r)
	return nil
}

func (seals) Load(context.Context, string) ([]byte, int64, error) { return nil, 0, nil }
