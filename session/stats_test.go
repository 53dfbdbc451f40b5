package session_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/session"
)

func TestTheManagerCountsWhereItsAnswersCameFrom(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{MaxStale: time.Second}, func(b *bench) {
		want := func(what string, want session.Stats) {
			t.Helper()
			if got := b.m.Stats(); got != want {
				t.Errorf("%s: %+v, want %+v", what, got, want)
			}
		}
		want("at the start", session.Stats{InSync: true})
		bearer, _ := b.signIn(session.Tokens{})
		b.want(b.m, bearer, nil)
		b.want(b.m, bearer, nil)
		want("cached", session.Stats{InSync: true, Misses: 1, Hits: 1, Cached: 1})

		frozen := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		b.store.sync.Store(&frozen)
		time.Sleep(1100 * time.Millisecond)
		for range 3 {
			b.want(b.m, bearer, nil)
		}
		got := b.m.Stats()
		if got.FeedAge <= time.Second || got.FeedAge > 2*time.Second {
			t.Errorf("the proof is %s old", got.FeedAge)
		}
		got.FeedAge = 0
		if want := (session.Stats{Misses: 1, Hits: 1, Bypassed: 3, Cached: 1, Ceiling: 1}); got != want {
			t.Errorf("past the ceiling: %+v, want %+v", got, want)
		}
	})
}

func TestALostFeedIsCounted(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		gap := func(context.Context) error { return errors.New("something may have been missed") }
		b.store.sync.Store(&gap)
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if s := b.m.Stats(); s.InSync || s.Broken != 1 || s.FeedAge != 0 || s.Ceiling != 0 {
			t.Errorf("%+v", s)
		}
		b.store.sync.Store(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := b.m.Stats(); !s.InSync || s.Broken != 1 {
			t.Errorf("whole again: %+v", s)
		}
	})
}

func TestWithoutACacheNoCeilingIsPassed(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{MaxStale: -1}, func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{})
		b.want(b.m, bearer, nil)
		time.Sleep(5 * time.Second)
		b.want(b.m, bearer, nil)
		if s := b.m.Stats(); s.Bypassed != 2 || s.Ceiling != 0 || s.Hits != 0 || s.Cached != 0 {
			t.Errorf("%+v", s)
		}
	})
}
