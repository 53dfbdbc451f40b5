package redis_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"example.com/curfew/store"
	"example.com/curfew/store/redis"
)

// A sid that very many subjects have is ended in rounds: none is left, none is told of twice, and the token counts
// once.
func TestASidOfVeryManySubjectsEndsInRounds(t *testing.T) {
	t.Parallel()
	for _, jti := range []string{"", "j1"} {
		backend := open(t, startServer(t).URL, redis.Options{Timeout: time.Minute})
		t.Cleanup(func() { backend.Close() })
		backend.ShortRounds()
		// later than the server's own time, which a mark may have too
		now := store.Time(time.Now().Add(store.AttemptLifetime))
		const subjects = 300
		alive := map[store.Key]bool{}
		for i := range subjects {
			r := recordOf(fmt.Sprint("subject", i), "shared", now)
			if err := backend.Create(t.Context(), r, now, now); err != nil {
				t.Fatal(err)
			}
			alive[r.Key] = true
		}
		stays := recordOf("subject0", "other", now)
		if err := backend.Create(t.Context(), stays, now, now); err != nil {
			t.Fatal(err)
		}
		e := endingOf(store.Selector{SID: "shared"})
		if jti != "" {
			e.JTI, e.JTIExpires = jti, now.Add(time.Hour)
		}
		ended, err := backend.End(t.Context(), e, now.Add(time.Second))
		if err != nil || len(ended) != subjects {
			t.Fatalf("%d ended, %v, want %d", len(ended), err, subjects)
		}
		for _, one := range ended {
			if !alive[one.Key] {
				t.Errorf("%v ended twice, or was not named", one.Key)
			}
			delete(alive, one.Key)
			if _, err := backend.Find(t.Context(), one.Key, now); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%v: found, or %v", one.Key, err)
			}
		}
		if _, err := backend.Find(t.Context(), stays.Key, now); err != nil {
			t.Errorf("a session with another sid: %v", err)
		}
		late := recordOf("subject299", "shared", now)
		if err := backend.Create(t.Context(), late, now, now); !errors.Is(err, store.ErrEnded) {
			t.Errorf("a login that was under way: %v, want ErrEnded", err)
		}
		if jti != "" {
			if _, err := backend.End(t.Context(), e, now.Add(time.Second)); !errors.Is(err, store.ErrReplayed) {
				t.Errorf("the token again: %v, want ErrReplayed", err)
			}
		}
	}
}
