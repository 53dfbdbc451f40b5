package session_test

import (
	"sync"
	"testing"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
)

func TestTheOldestSessionsMakeRoomForANewOne(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var ended []store.Ended
	bubble(t, session.Config{MaxPerSubject: 3, OnEnded: func(e store.Ended) {
		mu.Lock()
		defer mu.Unlock()
		ended = append(ended, e)
	}}, func(b *bench) {
		other := b.replica(session.Config{})
		var all []session.Bearer
		for range 5 {
			bearer, _ := b.signIn(session.Tokens{})
			b.want(other, bearer, nil)
			all = append(all, bearer)
			time.Sleep(time.Second)
		}
		for i, bearer := range all {
			want := error(nil)
			if i < 2 {
				want = store.ErrNotFound
			}
			b.want(b.m, bearer, want)
			b.want(other, bearer, want)
		}
		if len(ended) != 2 || ended[0].Key != all[0].Key() || ended[1].Key != all[1].Key() ||
			ended[0].Cause != store.CauseCapped {
			t.Errorf("%+v ended, want the two oldest, for being too many", ended)
		}
	})
}

func TestSignInsAtOnceDoNotGetPastTheCap(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{MaxPerSubject: 3}, func(b *bench) {
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { b.signIn(session.Tokens{}) })
		}
		all.Wait()
		page, err := b.store.List(t.Context(), store.Query{}, b.m.Now())
		if err != nil || len(page.Records) != 3 {
			t.Errorf("%d sessions: %v, want 3", len(page.Records), err)
		}
	})
}

func TestWithoutACapThereIsRoomForAll(t *testing.T) {
	t.Parallel()
	if _, err := session.NewManager(session.Config{MaxPerSubject: 10_001}); err == nil {
		t.Error("a cap of 10,001 is accepted")
	}
	bubble(t, session.Config{MaxPerSubject: -1}, func(b *bench) {
		for range 1100 {
			b.signIn(session.Tokens{})
		}
		page, err := b.store.List(t.Context(), store.Query{Limit: 1000}, b.m.Now())
		if err != nil || page.Next.IsZero() {
			t.Errorf("%d sessions: %v, want 1,100", len(page.Records), err)
		}
	})
}
