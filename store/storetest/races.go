package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"example.com/curfew/store"
)

// together runs fn n times concurrently, and fails if one of them does.
func (f *fixture) together(n int, fn func(i int) error) {
	f.Helper()
	var all sync.WaitGroup
	errs := make([]error, n)
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		f.Fatal(err)
	}
}

// createAll creates all of rs, many concurrently, which is faster for some stores.
func (f *fixture) createAll(rs []store.Record) {
	f.Helper()
	const workers = 32
	f.together(workers, func(w int) error {
		for i := w; i < len(rs); i += workers {
			if err := f.store.Create(f.ctx, rs[i], f.now, f.now); err != nil {
				return fmt.Errorf("Create %s: %w", describe(rs[i]), err)
			}
		}
		return nil
	})
}

func raceCases() []testCase {
	return []testCase{
		{"nobody is signed in whose login began before a logout", racingLogins},
		{"one of many updates wins each revision", racingUpdates},
		{"one of many endings with the same jti succeeds", func(f *fixture) {
			r := f.signIn("alice", "s1")
			h := f.watch()
			var done, replayed, reported atomic.Int32
			f.together(16, func(int) error {
				e := f.endingWith(store.Selector{Subject: "alice"}, store.NoticeRequest{Kind: store.NoticeLogout})
				e.JTI, e.JTIExpires = "j1", f.now.Add(time.Hour)
				ended, err := f.store.End(f.ctx, e, f.now)
				reported.Add(int32(len(ended)))
				switch {
				case err == nil:
					done.Add(1)
				case errors.Is(err, store.ErrReplayed):
					replayed.Add(1)
				default:
					return err
				}
				return nil
			})
			if done.Load() != 1 || replayed.Load() != 15 || reported.Load() != 1 {
				f.Errorf("%d succeeded, %d were replays, %d sessions reported; want 1, 15, 1", done.Load(),
					replayed.Load(), reported.Load())
			}
			f.wantHeard(h, r)
			if n := len(f.claim()); n != 1 {
				f.Errorf("%d notices, want 1", n)
			}
		}},
		{"one of many endings of a session reports it", func(f *fixture) {
			r := f.signIn("alice", "s1")
			whos := []store.Selector{{Key: r.Key}, {Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}}
			var reported atomic.Int32
			f.together(16, func(i int) error {
				ended, err := f.store.End(f.ctx, ending(whos[i%len(whos)]), f.now)
				reported.Add(int32(len(ended)))
				return err
			})
			if reported.Load() != 1 {
				f.Errorf("the session was reported %d times, want once", reported.Load())
			}
			f.wantGone(r)
		}},
		{"no update survives an ending", func(f *fixture) {
			var all []store.Record
			for range 20 {
				all = append(all, f.signIn("alice", "s1"))
			}
			f.together(len(all)+1, func(i int) error {
				if i == len(all) {
					_, err := f.store.End(f.ctx, ending(store.Selector{Subject: "alice"}), f.now)
					return err
				}
				r := all[i]
				for range 10 {
					err := f.store.Update(f.ctx, r, f.now)
					if errors.Is(err, store.ErrNotFound) {
						return nil
					}
					if err != nil {
						return err
					}
					r.Revision++
				}
				return nil
			})
			for _, r := range all {
				f.wantGone(r)
			}
		}},
		{"an access token that is ended while it first comes lets nobody in afterwards", func(f *fixture) {
			for range 20 {
				r := f.record("alice", "s1")
				e := f.longEnding(store.Selector{Key: r.Key})
				e.Bar = true
				var admitted atomic.Int32
				f.together(8, func(i int) error {
					if i%4 == 0 {
						_, err := f.store.End(f.ctx, e, f.now)
						return err
					}
					if f.store.Admit(f.ctx, r, f.now, f.now) == nil { // otherwise it is barred, or there already
						admitted.Add(1)
					}
					return nil
				})
				if f.wantGone(r); admitted.Load() > 1 {
					f.Errorf("the token was admitted %d times, also after an ending", admitted.Load())
				}
				f.wantError("Admit afterwards", f.store.Admit(f.ctx, r, f.now, f.now), store.ErrEnded)
			}
		}},
		{"one of many creates of a key wins", func(f *fixture) {
			key := f.record("alice", "s1").Key // the key's tag is that of alice, so all its sessions are hers
			var won atomic.Int32
			var winner atomic.Value
			f.together(16, func(i int) error {
				r := f.record("alice", fmt.Sprint("s", i))
				r.Key = key
				if f.store.Create(f.ctx, r, f.now, f.now) == nil {
					won.Add(1)
					winner.Store(r)
				}
				return nil
			})
			if won.Load() != 1 {
				f.Fatalf("%d creates won, want 1", won.Load())
			}
			f.wantAlive(winner.Load().(store.Record))
		}},
	}
}

func racingLogins(f *fixture) {
	const logins, logouts = 100, 10
	var others []store.Record
	for i := range 100 {
		others = append(others, f.record(fmt.Sprint("user", i), fmt.Sprint("sid", i)))
	}
	f.createAll(others)

	// Logins and logouts begin at alternating times. The last login begins after all logouts.
	whos := []store.Selector{{Subject: "alice"}, {SID: "s1"}, {Subject: "alice", SID: "s1"}}
	moment := func(i int) time.Time { return f.now.Add(time.Duration(i) * time.Millisecond) }
	now := moment(logins * 2)
	type login struct {
		r     store.Record
		began time.Time
		in    bool
	}
	all := make([]login, logins)
	f.together(logins+logouts, func(i int) error {
		if i >= logins {
			at := (i - logins + 1) * logins / logouts
			_, err := f.store.End(f.ctx, ending(whos[i%len(whos)]), moment(at-1))
			return err
		}
		sid := "s1"
		if i%5 == 0 {
			sid = "" // named only by the endings with a subject
		}
		all[i] = login{r: f.record("alice", sid), began: moment(i)}
		err := f.store.Create(f.ctx, all[i].r, all[i].began, now)
		all[i].in = err == nil
		if errors.Is(err, store.ErrEnded) {
			return nil
		}
		return err
	})
	for _, l := range all {
		barred := false
		for j := range logouts {
			w := ending(whos[(j+logins)%len(whos)]).Selector
			at := moment((j+1)*logins/logouts - 1)
			barred = barred || w.Names(&l.r) && !at.Before(l.began)
		}
		_, err := f.store.Find(f.ctx, l.r.Key, f.now)
		if err == nil && barred {
			f.Errorf("somebody is signed in whose login began at %v, before a logout", l.began.Sub(f.now))
		}
		if err == nil && !l.in {
			f.Error("somebody is signed in who was refused")
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			f.Errorf("Find: %v", err)
		}
	}
	f.wantWelcome("alice", "s1", moment(logins))
	for _, r := range others {
		f.wantAlive(r)
	}
}

func racingUpdates(f *fixture) {
	const workers, revisions = 8, 10
	r := f.signIn("alice", "s1")
	for revision := range int64(revisions) {
		var won, conflicts atomic.Int32
		var winner atomic.Int32
		f.together(workers, func(i int) error {
			u := r
			u.Payload = []byte{byte(i)}
			err := f.store.Update(f.ctx, u, f.now)
			switch {
			case err == nil:
				won.Add(1)
				winner.Store(int32(i))
			case errors.Is(err, store.ErrConflict):
				conflicts.Add(1)
			default:
				return err
			}
			return nil
		})
		if won.Load() != 1 || conflicts.Load() != workers-1 {
			f.Fatalf("revision %d: %d won and %d had a conflict, want 1 and %d", revision, won.Load(), conflicts.Load(),
				workers-1)
		}
		r.Revision++
		r.Payload = []byte{byte(winner.Load())}
		f.wantAlive(r)
	}
}
