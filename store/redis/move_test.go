package redis_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
	"github.com/redis/rueidis"
)

func TestASlotThatMovesLosesNobody(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a Cluster of its own")
	}
	own := servers.RedisClusterOf(t, 0, forgetful...)
	var log bytes.Buffer
	backend := open(t, own.URL, redis.Options{Timeout: 10 * time.Second, Log: slog.New(slog.NewTextHandler(&log, nil))})
	hasty := open(t, own.URL, redis.Options{Timeout: 300 * time.Millisecond})
	if n := backend.WaitFor(); n != 0 || !strings.Contains(log.String(), "event=redis_no_replica") {
		t.Errorf("%d replicas are waited for on a Cluster that has none; the log says %s", n, log.String())
	}
	l := watch(t, backend)
	// later than the server's own time, which a mark may have too
	now := store.Time(time.Now().Add(store.AttemptLifetime))
	one, two, three := recordOf("alice", "s1", now), recordOf("alice", "s2", now), recordOf("alice", "", now)
	for _, r := range []store.Record{one, two, three} {
		mustCreate(t, backend, r, now)
	}
	start := backend.Start(one.Key)
	_, tag, _ := strings.Cut(start, "{")
	tag, _, _ = strings.Cut(tag, "}")
	moving := fmt.Sprint(slot(tag))
	var nodes []rueidis.Client
	var ids []string
	from := -1
	for i, s := range own.Nodes {
		c := adminOf(t, s)
		m := do(t, c, "CLUSTER", "MYID")
		id, _ := m.ToString()
		nodes, ids = append(nodes, c), append(ids, id)
		if keys := keysOf(t, c, moving); len(keys) > 0 {
			from = i
		}
	}
	to := (from + 1) % 3
	do(t, nodes[to], "CLUSTER", "SETSLOT", moving, "IMPORTING", ids[from])
	do(t, nodes[from], "CLUSTER", "SETSLOT", moving, "MIGRATING", ids[to])

	// Some of her sessions are here, some there. An ending of them all is refused, and does nothing.
	e := tokenOf(store.Selector{Subject: "alice"}, "j1", now)
	moved := start + "s" + string(two.Key[:])
	do(t, nodes[from], "MIGRATE", "127.0.0.1", fmt.Sprint(own.Nodes[to].Port), moved, "0", "1000")
	if _, err := hasty.End(t.Context(), e, now); err == nil || errors.Is(err, store.ErrReplayed) {
		t.Errorf("End while her sessions are in two places: %v", err)
	}
	for _, r := range []store.Record{one, two, three} {
		if _, err := backend.Find(t.Context(), r.Key, now); err != nil {
			t.Errorf("Find while the slot moves: %v", err)
		}
	}
	for _, key := range keysOf(t, nodes[from], moving) {
		do(t, nodes[from], "MIGRATE", "127.0.0.1", fmt.Sprint(own.Nodes[to].Port), key, "0", "1000")
	}
	if _, err := hasty.End(t.Context(), e, now); err == nil || errors.Is(err, store.ErrReplayed) {
		t.Errorf("End before the slot is settled: %v", err)
	}
	// It is settled there, and the server here does not know yet: endings are carried out there, and we still listen
	// here.
	do(t, nodes[to], "CLUSTER", "SETSLOT", moving, "NODE", ids[to])
	if ended, err := backend.End(t.Context(), e, now); err != nil || len(ended) != 3 {
		t.Errorf("End where the slot has gone to: %d ended, %v", len(ended), err)
	}
	if err := l.Sync(t.Context()); err == nil && l.times(one.Key) == 0 {
		t.Error("Sync succeeded, and nobody had heard of an ending")
	}
	for _, i := range []int{from, 3 - to - from} {
		do(t, nodes[i], "CLUSTER", "SETSLOT", moving, "NODE", ids[to])
	}
	for _, r := range []store.Record{one, two, three} {
		if err := findSoon(t, backend, r, now); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Find after the logout, where the slot is now: %v", err)
		}
	}
	l.recovers(t)
	now = now.Add(time.Second)
	r := recordOf("alice", "s1", now)
	mustCreate(t, backend, r, now)
	if _, err := backend.End(t.Context(), endingOf(store.Selector{SID: "s1"}), now); err != nil {
		t.Fatal(err)
	}
	if err := l.Sync(t.Context()); err != nil || l.times(r.Key) != 1 {
		t.Errorf("Sync: %v, heard %d times, want once", err, l.times(r.Key))
	}
}

func keysOf(t testing.TB, c rueidis.Client, slot string) []string {
	m := do(t, c, "CLUSTER", "GETKEYSINSLOT", slot, "1000")
	keys, err := m.AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
