package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
	"github.com/redis/rueidis"
)

// signInAll signs in as many people as [endAll] logs out.
func signInAll(t *testing.T, backend *redis.Store, n int, now time.Time) (all []store.Record) {
	t.Helper()
	for i := range n {
		all = append(all, recordOf(fmt.Sprint("user", i), fmt.Sprint("s", i), now))
		mustCreate(t, backend, all[i], now)
	}
	return all
}

// cutOff has a replica get nothing any more of what its master is told from now on: one that is only frozen reads later
// what was sent to it.
func cutOff(t *testing.T, master, replica *servers.Server) {
	t.Helper()
	replica.Freeze()
	do(t, adminOf(t, master), "CLIENT", "KILL", "TYPE", "REPLICA")
}

// isMaster asks a server. It may have lost the connection: sentinels have a new master drop all.
func isMaster(c rueidis.Client) bool {
	parts, err := c.Do(context.Background(), c.B().Arbitrary("ROLE").Build()).ToArray()
	if err != nil || len(parts) == 0 {
		return false
	}
	is, err := parts[0].ToString()
	return err == nil && is == "master"
}

// failedOver is the end of the history: the master is lost, whose replicas lack the logouts that were not answered with
// success. Nobody whose logout was is alive; and the others are dead as soon as theirs, sent again, is.
func failedOver(t *testing.T, backend *redis.Store, all []store.Record, failed []int, now time.Time) {
	t.Helper()
	again := make(map[int]bool)
	for _, i := range failed {
		again[i] = true
	}
	find := func(i int) error {
		return findSoon(t, backend, all[i], now)
	}
	alive := 0
	for i := range all {
		switch err := find(i); {
		case err == nil && again[i]:
			alive++
		case err == nil:
			t.Errorf("user %d is alive after a logout that was answered with success", i)
		case !errors.Is(err, store.ErrNotFound):
			t.Errorf("Find after the failover: %v", err)
		}
	}
	if alive == 0 {
		t.Error("the failover lost no logout: the test does not test that")
	}
	for _, i := range failed {
		rig.Poll(t, "the same token again succeeds", func() bool {
			_, err := backend.End(t.Context(), userToken(i, now), now)
			return err == nil || errors.Is(err, store.ErrReplayed)
		})
		if err := find(i); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("user %d after the logout was sent again: %v", i, err)
		}
	}
	t.Logf("%d of %d logouts were not answered with success, of which the failover lost %d", len(failed), len(all),
		alive)
}

func TestAClusterFailsOverAfterLogoutsThatAReplicaDidNotGet(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a Cluster of its own")
	}
	own := servers.RedisCluster(t, forgetful...)
	var masters [3]int // of the replicas, as the one that serves them says
	for i, replica := range own.Nodes[3:] {
		text, _ := ask(t, adminOf(t, replica), "INFO", "replication")
		for m, master := range own.Nodes[:3] {
			if strings.Contains(text, fmt.Sprintf("master_port:%d\r", master.Port)) {
				masters[i] = m
			}
		}
	}
	away, cut, lost := own.Nodes[3], own.Nodes[4], own.Nodes[masters[1]]
	away.Kill()
	backend := open(t, own.URL, redis.Options{Timeout: time.Second})
	away.Start()
	now := store.Time(time.Now())
	all := signInAll(t, open(t, own.URL, patient()), 60, now)
	replicated(t, own)
	cutOff(t, lost, cut)
	failed := endAll(t, backend, len(all), now)
	if len(failed) == 0 || len(failed) == len(all) {
		t.Errorf("%d of %d logouts failed while one of three masters has no replica", len(failed), len(all))
	}
	lost.Kill()
	cut.Thaw()
	heir := adminOf(t, cut)
	rig.Poll(t, "the replica takes over", func() bool { return isMaster(heir) })
	lost.Start() // as a replica of the new master, which waits for one as the old did
	failedOver(t, backend, all, failed, now)
}

func TestSentinelsFailOverAfterLogoutsThatNoReplicaGot(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes servers and sentinels of its own")
	}
	own := servers.RedisSentinels(t, forgetful...)
	lost, one, two := own.Nodes[0], own.Nodes[1], own.Nodes[2]
	one.Kill()
	two.Kill()
	master := adminOf(t, lost)
	rig.Poll(t, "the master has noticed", func() bool {
		text, _ := ask(t, master, "INFO", "replication")
		return strings.Contains(text, "connected_slaves:0")
	})
	backend := open(t, own.URL, redis.Options{Timeout: time.Second})
	one.Start()
	two.Start()
	rig.Poll(t, "both are back", func() bool {
		text, _ := ask(t, master, "INFO", "replication")
		return strings.Count(text, "state=online") == 2
	})
	now := store.Time(time.Now())
	all := signInAll(t, open(t, own.URL, patient()), 20, now)
	replicated(t, own)
	// The last ten go to one replica only, and then to none.
	for i := range 10 {
		if err := endSoon(t, backend, userToken(i, now), now); err != nil {
			t.Fatalf("End: %v", err)
		}
	}
	replicated(t, own)
	one.Freeze()
	two.Freeze()
	do(t, master, "CLIENT", "KILL", "TYPE", "REPLICA")
	var failed []int
	var mu sync.Mutex
	var ending sync.WaitGroup
	for i := 10; i < len(all); i++ {
		ending.Go(func() {
			if _, err := backend.End(context.Background(), userToken(i, now), now); err == nil {
				t.Errorf("the logout of user %d was answered with success, and no replica has it", i)
			}
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, i)
		})
	}
	ending.Wait()
	lost.Kill()
	one.Thaw()
	two.Thaw()
	heirs := []rueidis.Client{adminOf(t, one), adminOf(t, two)}
	rig.Poll(t, "a replica takes over", func() bool { return isMaster(heirs[0]) || isMaster(heirs[1]) })
	failedOver(t, backend, all, failed, now)
}

func TestLogoutsWaitOnMastersWithAReplicaAndOnNoOthers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a Cluster of its own")
	}
	own := servers.RedisCluster(t, forgetful...)
	// The last replica leaves, so that its master has none.
	single := own.Nodes[5]
	clients := make(map[*servers.Server]rueidis.Client)
	for _, s := range own.Nodes {
		clients[s] = adminOf(t, s)
	}
	of := func(s *servers.Server, words ...string) string {
		text, _ := ask(t, clients[s], words...)
		return text
	}
	info := of(single, "INFO", "replication")
	gone := of(single, "CLUSTER", "MYID")
	do(t, clients[single], "CLUSTER", "RESET", "HARD")
	for _, s := range own.Nodes[:5] {
		do(t, clients[s], "CLUSTER", "FORGET", gone)
	}
	var bare *servers.Server
	for _, s := range own.Nodes[:3] {
		if strings.Contains(info, fmt.Sprintf("master_port:%d\r", s.Port)) {
			bare = s
		}
	}
	rig.Poll(t, "it has left", func() bool {
		return strings.Contains(of(bare, "INFO", "replication"), "connected_slaves:0")
	})
	var log bytes.Buffer
	open(t, own.URL, redis.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}).Close()
	backend := open(t, own.URL, redis.Options{Timeout: 10 * time.Second})
	if !strings.Contains(log.String(), "event=redis_no_replica") {
		t.Errorf("nobody was told that a master has no replica: %s", log.String())
	}
	now := store.Time(time.Now())
	const people = 60
	if failed := endAll(t, backend, people, now); len(failed) != 0 {
		t.Errorf("%d logouts failed while every master has the replicas that it is known for", len(failed))
	}
	for _, s := range own.Nodes[3:5] {
		s.Freeze()
	}
	now = now.Add(2 * time.Hour) // the tokens of before are forgotten
	failed := len(endAll(t, backend, people, now))
	if failed == 0 || failed == people {
		t.Errorf("%d of %d logouts failed while two of three masters have lost their replicas", failed, people)
	}
	for _, s := range own.Nodes[3:5] {
		s.Thaw()
	}
	// A replica comes where there was none: from now on that master is waited for as well.
	_, bus, _ := strings.Cut(of(bare, "CLUSTER", "NODES"), fmt.Sprintf(":%d@", bare.Port))
	bus = bus[:strings.IndexFunc(bus, func(r rune) bool { return r < '0' || r > '9' })]
	do(t, clients[single], "CLUSTER", "MEET", "127.0.0.1", fmt.Sprint(bare.Port), bus)
	rig.Poll(t, "they have met", func() bool {
		return strings.Contains(of(single, "CLUSTER", "NODES"),
			of(bare, "CLUSTER", "MYID"))
	})
	do(t, clients[single], "CLUSTER", "REPLICATE", of(bare, "CLUSTER", "MYID"))
	rig.Poll(t, "it follows", func() bool { return strings.Contains(of(bare, "INFO", "replication"), "state=online") })
	now = now.Add(2 * time.Hour)
	rig.Poll(t, "all succeed again", func() bool {
		now = now.Add(2 * time.Hour)
		return len(endAll(t, backend, people,
			now)) == 0
	})
	cutOff(t, bare, single)
	now = now.Add(2 * time.Hour)
	if failed := len(endAll(t, backend, people, now)); failed == 0 || failed == people {
		t.Errorf("%d of %d logouts failed while a master has lost the replica that came later", failed, people)
	}
}

func TestSlotsMoveDuringLogouts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a Cluster of its own")
	}
	own := servers.RedisCluster(t, forgetful...)
	backend := open(t, own.URL, redis.Options{Timeout: time.Second})
	id := func(s *servers.Server) string { text, _ := ask(t, adminOf(t, s), "CLUSTER", "MYID"); return text }
	ended := logouts(t, backend, func() {
		out, err := exec.Command("redis-cli", "--cluster", "reshard", own.Nodes[0].Addr(), "--cluster-from",
			id(own.Nodes[0]),
			"--cluster-to", id(own.Nodes[1]), "--cluster-slots", "2000", "--cluster-yes").CombinedOutput()
		if err != nil {
			t.Errorf("redis-cli --cluster reshard: %v\n%.2000s", err, out)
		}
	})
	// The master of a slot that has moved is lost: its replica has what was answered.
	own.Nodes[1].Kill()
	now := store.Time(time.Now())
	for i, r := range ended {
		if err := findSoon(t, backend, r, now); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("user %d is alive after the failover: %v", i, err)
		}
	}
}

// The sentinels choose the replica with the lowest priority, however much it lacks, and even if it was cut off just
// now. So a logout is done when both replicas have it, and not before.
func TestSentinelsPreferAReplicaThatLacksLogouts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes servers and sentinels of its own")
	}
	own := servers.RedisSentinels(t, forgetful...)
	lost, preferred := own.Nodes[0], own.Nodes[2]
	heir := adminOf(t, preferred)
	do(t, heir, "CONFIG", "SET", "replica-priority", "1")
	backend := open(t, own.URL, redis.Options{Timeout: time.Second})
	now := store.Time(time.Now())
	all := signInAll(t, open(t, own.URL, patient()), 4, now)
	replicated(t, own)
	cutOff(t, lost, preferred)
	master := adminOf(t, lost)
	rig.Poll(t, "the other replica is back", func() bool {
		text, _ := ask(t, master, "INFO", "replication")
		return strings.Contains(text, "state=online")
	})
	failed := endAll(t, backend, len(all), now)
	if len(failed) != len(all) {
		t.Errorf("%d of %d logouts were answered with success, and the next master lacks them", len(all)-len(failed),
			len(all))
	}
	lost.Kill()
	preferred.Thaw()
	rig.Poll(t, "the preferred replica takes over", func() bool { return isMaster(heir) })
	failedOver(t, backend, all, failed, now)
}

// A master that comes back after a failover takes itself for the master, until the sentinels have told it.
func TestAMasterThatComesBackAfterAFailoverIsNotAsked(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes servers and sentinels of its own")
	}
	own := servers.RedisSentinels(t, "--appendfsync", "always")
	lost, replicas := own.Nodes[0], own.Nodes[1:]
	backend := open(t, own.URL, redis.Options{Timeout: time.Second, DialTimeout: 10 * time.Second})
	dial := func(s *servers.Server) error {
		c, err := backend.DialMaster(t.Context(), s.Addr())
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := dial(lost); err != nil {
		t.Errorf("the master: %v", err)
	}
	lost.Kill()
	heirs := []rueidis.Client{adminOf(t, replicas[0]), adminOf(t, replicas[1])}
	var heir *servers.Server
	rig.Poll(t, "a replica takes over", func() bool {
		for i, c := range heirs {
			if isMaster(c) {
				heir = replicas[i]
			}
		}
		return heir != nil
	})
	lost.Start()
	rig.Poll(t, "the sentinels say so, and the new master is asked", func() bool { return dial(heir) == nil })
	if err := dial(lost); err == nil || !strings.Contains(err.Error(), "not the master") {
		t.Errorf("a master that was replaced is asked again: %v", err)
	}
}
