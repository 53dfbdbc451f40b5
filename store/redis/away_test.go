package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
)

// userToken is a logout token's ending of one person.
func userToken(i int, now time.Time) store.Ending {
	return tokenOf(store.Selector{Subject: fmt.Sprint("user", i)}, fmt.Sprint("j", i), now)
}

// endAll sends all tokens at once and returns those that were not answered with success.
func endAll(t *testing.T, backend *redis.Store, n int, now time.Time) (failed []int) {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			_, err := backend.End(context.Background(), userToken(i, now), now)
			if errors.Is(err, store.ErrReplayed) {
				t.Errorf("End of user %d: %v, though it was not done", i, err)
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, i)
			}
		})
	}
	all.Wait()
	return failed
}

// again sends the token of a logout that was not answered with success until it is. The token must not be used up, but
// by a try that was carried out and whose answer came too late.
func again(t *testing.T, backend *redis.Store, i int, now time.Time) {
	t.Helper()
	late := false
	rig.Poll(t, "the same token again succeeds", func() bool {
		_, err := backend.End(t.Context(), userToken(i, now), now)
		if errors.Is(err, store.ErrReplayed) && !late {
			t.Fatalf("End of user %d again: %v", i, err)
		}
		late = late || errors.Is(err, context.DeadlineExceeded)
		return err == nil || errors.Is(err, store.ErrReplayed)
	})
}

func TestAReplicaOfAClusterThatIsAwayAtTheStartVoidsNoPromise(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a Cluster of its own")
	}
	own := servers.RedisCluster(t, forgetful...)
	away, other := own.Nodes[3], own.Nodes[4]
	away.Kill()
	backend := open(t, own.URL, redis.Options{Timeout: time.Second})
	if n := backend.WaitFor(); n != 1 {
		t.Errorf("%d replicas are waited for while one is away, want 1", n)
	}
	away.Start()
	now := store.Time(time.Now())
	const people = 30 // of which some are on each master
	other.Freeze()
	failed := endAll(t, backend, people, now)
	if len(failed) == 0 {
		t.Error("every logout was answered with success, those of the master whose replica is cut off too")
	}
	other.Thaw()
	for _, i := range failed {
		again(t, backend, i, now)
	}
}

func TestReplicasBehindSentinelsThatAreAwayAtTheStartVoidNoPromise(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes servers and sentinels of its own")
	}
	own := servers.RedisSentinels(t, forgetful...)
	own.Nodes[1].Kill()
	own.Nodes[2].Kill()
	master := adminOf(t, own.Nodes[0])
	rig.Poll(t, "the master has noticed", func() bool {
		text, _ := ask(t, master, "INFO", "replication")
		return strings.Contains(text, "connected_slaves:0")
	})
	backend := open(t, own.URL, redis.Options{Timeout: time.Second})
	now := store.Time(time.Now())
	if failed := endAll(t, backend, 3, now); len(failed) != 3 {
		t.Errorf("%d of 3 logouts failed while the replicas are away, want all", len(failed))
	}
	own.Nodes[1].Start()
	rig.Poll(t, "the same token again succeeds", func() bool { return len(endAll(t, backend, 1, now)) == 0 })
}

func TestLogoutsThatWaitShareFewConnectionsAndGiveThemBack(t *testing.T) {
	t.Parallel()
	two := servers.RedisReplicas(t, 1, forgetful...)
	backend := open(t, two.URL, redis.Options{WaitReplicas: 1, Timeout: 10 * time.Second})
	c := adminOf(t, two.Nodes[0])
	ours := func() int {
		text, _ := ask(t, c, "CLIENT", "LIST")
		return strings.Count(text, "name=curfew ")
	}
	now := store.Time(time.Now())
	two.Nodes[1].Freeze()
	done := make(chan []int, 1)
	go func() { done <- endAll(t, backend, 600, now) }()
	most := 0
	var failed []int
	for waiting := true; waiting; {
		select {
		case failed = <-done:
			waiting = false
		default:
			most = max(most, ours())
		}
	}
	two.Nodes[1].Thaw()
	// Besides those that wait there are the few that everything else shares.
	if limit := redis.WaitConns + 8; most > limit {
		t.Errorf("600 logouts at once took %d connections, want at most %d", most, limit)
	}
	if len(failed) != 600 {
		t.Errorf("%d of 600 logouts failed while the replica is away, want all", len(failed))
	}
	rig.Poll(t, "idle connections are closed", func() bool { return ours() <= 8 })
}
