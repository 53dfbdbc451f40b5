package storetest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/curfew/store"
)

// heard records the calls of a watching function.
type heard struct {
	feed store.Feed

	mu  sync.Mutex
	all []store.Ended
}

func (h *heard) hear(e store.Ended) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, e)
}

func (h *heard) has(r store.Record) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.all, func(e store.Ended) bool { return e.Key == r.Key })
}

func (h *heard) take() []store.Ended {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.all
	h.all = nil
	return all
}

// watch watches the store for as long as the test runs.
func (f *fixture) watch() *heard {
	f.Helper()
	return f.watchWith(f.ctx)
}

func (f *fixture) watchWith(ctx context.Context) *heard {
	f.Helper()
	h := new(heard)
	feed, err := f.store.Watch(ctx, h.hear)
	if err != nil {
		f.Fatalf("Watch: %v", err)
	}
	h.feed = feed
	f.Cleanup(func() { feed.Close() })
	f.sync(h)
	return h
}

func (f *fixture) sync(h *heard) {
	f.Helper()
	if err := h.feed.Sync(f.ctx); err != nil {
		f.Errorf("Sync: %v", err)
	}
}

// wantHeard fails unless h was called, since the last wantHeard, for these sessions, ended just now, and for no others.
func (f *fixture) wantHeard(h *heard, want ...store.Record) {
	f.Helper()
	f.sync(h)
	heard, want := h.take(), slices.Clone(want)
	for i := range heard {
		heard[i].Refresh = 0 // a watcher may be told of it or not
	}
	for i := range want {
		want[i].Refresh = 0
	}
	f.wantEnded(heard, want...)
}

func watchCases() []testCase {
	return []testCase{
		{"what an ending finds gone is heard of before a later Sync is done", func(f *fixture) {
			// Of several endings of one session one removes it. The callers of the others may say as well that nobody
			// serves the session: a Sync from then on proves that the news of it has come.
			h := f.watch()
			for i := range 60 {
				r := f.signIn("alice", fmt.Sprint("s", i))
				var all sync.WaitGroup
				start := make(chan struct{})
				for range 8 {
					all.Go(func() {
						<-start
						if _, err := f.store.End(f.ctx, ending(store.Selector{SID: r.SID}), f.now); err != nil {
							f.Errorf("End: %v", err)
						}
						f.sync(h)
						if !h.has(r) {
							f.Errorf("round %d: the session was gone, the feed in sync, and nothing was heard of it", i)
						}
					})
				}
				close(start)
				all.Wait()
			}
		}},
		{"everybody who watches hears of each session that ends", func(f *fixture) {
			f.signIn("alice", "s0")
			f.end(store.Selector{SID: "s0"}) // before Watch
			one, two := f.watch(), f.watch()
			a, b, c := f.signIn("alice", "s1"), f.signIn("alice", "s2"), f.signIn("bob", "s1")
			f.end(store.Selector{SID: "s1"})
			f.wantHeard(one, a, c)
			f.end(store.Selector{Key: b.Key})
			f.wantHeard(one, b)
			f.wantHeard(two, a, b, c)
		}},
		{"nothing is heard of what does not end a session", func(f *fixture) {
			h := f.watch()
			r := f.signIn("alice", "s1")
			if err := f.store.Update(f.ctx, r, f.now); err != nil {
				f.Fatalf("Update: %v", err)
			}
			f.end(store.Selector{Subject: "nobody"})
			f.now = r.Expires
			f.pruneAll(f.now)
			f.wantHeard(h)
		}},
		{"nothing is heard after Close", func(f *fixture) {
			closed, open := f.watch(), f.watch()
			if err := closed.feed.Close(); err != nil {
				f.Fatalf("Close: %v", err)
			}
			r := f.signIn("alice", "s1")
			f.end(store.Selector{Key: r.Key})
			f.wantHeard(open, r)
			f.wantEnded(closed.take())
			f.wantFault("Sync of a closed feed", closed.feed.Sync(f.ctx))
			if err := closed.feed.Close(); err != nil {
				f.Errorf("Close again: %v", err)
			}
		}},
		{"nothing is heard after the context is done", func(f *fixture) {
			ctx, cancel := context.WithCancel(f.ctx)
			over, open := f.watchWith(ctx), f.watch()
			cancel()
			r := f.signIn("alice", "s1")
			f.end(store.Selector{Key: r.Key})
			f.wantHeard(open, r)
			f.wantEnded(over.take())
			f.wantFault("Sync after the context is done", over.feed.Sync(f.ctx))
		}},
		{"nothing more is heard when the context ends in between", func(f *fixture) {
			ctx, cancel := context.WithCancel(f.ctx)
			var calls atomic.Int32
			feed, err := f.store.Watch(ctx, func(store.Ended) {
				calls.Add(1)
				cancel()
			})
			if err != nil {
				f.Fatalf("Watch: %v", err)
			}
			defer feed.Close()
			open := f.watch()
			a, b, c := f.signIn("alice", "s1"), f.signIn("alice", "s2"), f.signIn("alice", "s3")
			f.end(store.Selector{Subject: "alice"})
			f.wantHeard(open, a, b, c)
			<-ctx.Done()
			if n := calls.Load(); n != 1 {
				f.Errorf("heard of %d endings, want the first alone", n)
			}
		}},
		{"a Sync whose context is done is no Sync", func(f *fixture) {
			h := f.watch()
			ctx, cancel := context.WithCancel(f.ctx)
			cancel()
			f.wantFault("Sync", h.feed.Sync(ctx))
			f.sync(h)
		}},
		{"a feed of a closed store is not in sync", func(f *fixture) {
			h := f.watch()
			if err := f.store.Close(); err != nil {
				f.Fatalf("Close: %v", err)
			}
			f.wantFault("Sync", h.feed.Sync(f.ctx))
			if err := h.feed.Close(); err != nil {
				f.Errorf("Close: %v", err)
			}
		}},
		{"one call at a time, and after Sync all of them", func(f *fixture) {
			const writers, each = 8, 20
			var running, calls atomic.Int32
			feed, err := f.store.Watch(f.ctx, func(store.Ended) {
				if running.Add(1) != 1 {
					f.Error("called twice at once")
				}
				runtime.Gosched()
				calls.Add(1)
				running.Add(-1)
			})
			if err != nil {
				f.Fatalf("Watch: %v", err)
			}
			defer feed.Close()
			f.together(writers, func(w int) error {
				for i := range each {
					r := f.record(fmt.Sprint("user", w), fmt.Sprint("s", w*each+i))
					if err := f.store.Create(f.ctx, r, f.now, f.now); err != nil {
						return err
					}
					e := ending(store.Selector{Subject: r.Subject, SID: r.SID})
					if _, err := f.store.End(f.ctx, e, f.now); err != nil {
						return err
					}
				}
				return nil
			})
			if err := feed.Sync(f.ctx); err != nil {
				f.Errorf("Sync: %v", err)
			}
			if n := calls.Load(); n != writers*each {
				f.Errorf("heard of %d endings, want %d", n, writers*each)
			}
		}},
		{"watchers come and go while sessions end", func(f *fixture) {
			stays := f.watch()
			const n = 60
			f.together(4, func(w int) error {
				for i := range n {
					if w < 2 {
						r := f.record(fmt.Sprint("user", w), fmt.Sprint("s", i))
						if err := f.store.Create(f.ctx, r, f.now, f.now); err != nil {
							return err
						}
						if _, err := f.store.End(f.ctx, ending(store.Selector{Key: r.Key}), f.now); err != nil {
							return err
						}
						continue
					}
					var closed atomic.Bool
					feed, err := f.store.Watch(f.ctx, func(store.Ended) {
						if closed.Load() {
							f.Error("called after Close")
						}
					})
					if err != nil {
						return err
					}
					runtime.Gosched()
					if err := feed.Close(); err != nil {
						return err
					}
					closed.Store(true)
				}
				return nil
			})
			f.sync(stays)
			if got := len(stays.take()); got != 2*n {
				f.Errorf("heard of %d endings, want %d", got, 2*n)
			}
		}},
		{"who watches hears of it when the ending is told of", func(f *fixture) {
			// A cache relies on this order: after End and Sync, the result of an earlier Find is known to be out of
			// date.
			h := f.watch()
			for range 20 {
				r := f.signIn("alice", "s1")
				f.now = f.now.Add(time.Millisecond)
				f.end(store.Selector{SID: "s1"})
				f.wantHeard(h, r)
				f.wantGone(r)
				f.now = f.now.Add(time.Millisecond)
			}
		}},
	}
}
