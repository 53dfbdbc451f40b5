package redis_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
)

// logouts signs people in, logs them out one after another while fault happens, each as often as a provider would send
// it, and then wants nobody alive whose logout was answered with success. It returns all of them.
func logouts(t *testing.T, backend *redis.Store, fault func()) []store.Record {
	t.Helper()
	now := store.Time(time.Now())
	const people = 120
	var records [people]store.Record
	for i := range records {
		records[i] = recordOf(fmt.Sprint("user", i), fmt.Sprint("s", i), now)
		if err := eventually(t, func() error { return backend.Create(t.Context(), records[i], now, now) }); err != nil {
			t.Fatalf("Create: %v", err)
		}
	}
	half := make(chan struct{})
	var begun sync.WaitGroup
	begun.Add(people / 4)
	var all sync.WaitGroup
	for w := range 6 {
		all.Go(func() {
			for i := w; i < people; i += 6 {
				e := endingOf(store.Selector{Subject: records[i].Subject})
				switch i % 3 {
				case 1:
					e.Selector.SID = records[i].SID
				case 2:
					e.Selector.Subject, e.Selector.SID = "", records[i].SID
				}
				e.JTI, e.JTIExpires = fmt.Sprint("j", i), now.Add(time.Hour)
				err := endSoon(t, backend, e, now)
				if err != nil && !errors.Is(err, store.ErrReplayed) {
					t.Errorf("End: %v", err)
				}
				if i < people/4 {
					begun.Done()
				}
				if i > people/2 {
					<-half // so that some come after the fault for certain
				}
			}
		})
	}
	begun.Wait()
	fault()
	close(half)
	all.Wait()
	for i, r := range records {
		if err := findSoon(t, backend, r, now); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("user %d is alive after a logout that was answered with success: %v", i, err)
		}
	}
	return records[:]
}

func TestAMasterOfAClusterDiesDuringLogouts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a Cluster of its own")
	}
	// With everysec it could come back, as the master that it was, without what its replica had already acknowledged.
	own := servers.RedisCluster(t, "--appendfsync", "always")
	// A replica has to have it, since it is the replica that takes over; and time enough for the election.
	backend := open(t, own.URL, redis.Options{Timeout: time.Second})
	l := watch(t, backend)
	logouts(t, backend, func() {
		own.Nodes[0].Kill()
		// The replica that takes over has none of its own, so its endings fail, until the old master is back as one.
		own.Nodes[0].Start()
	})
	l.recovers(t)
	now := store.Time(time.Now())
	for endSoon(t, backend, endingOf(store.Selector{Subject: "bob"}), now) != nil {
	}
	l.recovers(t)
	l.hears(t, backend, now.Add(time.Second))
}

func TestAMasterOfAClusterThatStaysDead(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a Cluster of its own")
	}
	own := servers.RedisCluster(t, forgetful...)
	backend := open(t, own.URL, redis.Options{WaitReplicas: -1, Timeout: time.Second})
	setup := open(t, own.URL, patient())
	l := watch(t, backend)
	now := store.Time(time.Now())
	var records []store.Record
	for i := range 60 { // of which a third are on each master
		records = append(records, recordOf(fmt.Sprint("user", i), fmt.Sprint("s", i), now))
		mustCreate(t, setup, records[i], now)
	}
	replicated(t, own)
	own.Nodes[0].Kill()
	for i, r := range records {
		if err := findSoon(t, backend, r, now); err != nil {
			t.Errorf("a session that a replica had, after the failover: %v", err)
		}
		who := store.Selector{Subject: r.Subject}
		if i%2 == 0 {
			who = store.Selector{SID: r.SID}
		}
		if err := endSoon(t, backend, endingOf(who), now); err != nil {
			t.Errorf("End after the failover: %v", err)
		}
		if _, err := backend.Find(t.Context(), r.Key, now); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Find after End after the failover: %v", err)
		}
	}
	l.recovers(t)
	l.hears(t, backend, now)
}

// replicated waits until every replica has what its master has.
func replicated(t testing.TB, g *servers.Group) {
	t.Helper()
	for _, server := range g.Nodes {
		c := adminOf(t, server)
		for {
			m := do(t, c, "INFO", "replication")
			text, _ := m.ToString()
			if !strings.Contains(text, "role:master") || upToDate(text) {
				break
			}
			pauseFor(10 * time.Millisecond)
		}
	}
}

// upToDate reads INFO replication: whether all replicas have acknowledged all there is.
func upToDate(info string) bool {
	_, offset, _ := strings.Cut(info, "master_repl_offset:")
	offset, _, _ = strings.Cut(offset, "\r")
	want, err := strconv.Atoi(offset)
	if err != nil {
		return false
	}
	all := strings.Split(info, ",offset=")[1:]
	return len(all) > 0 && !slices.ContainsFunc(all, func(rest string) bool {
		n, _, _ := strings.Cut(rest, ",")
		got, err := strconv.Atoi(n)
		return err != nil || got < want-1000 // pings
	})
}

func TestALogoutIsNotDoneBeforeAReplicaHasIt(t *testing.T) {
	t.Parallel()
	pair := servers.RedisReplicas(t, 1, forgetful...)
	url, replica := pair.URL, pair.Nodes[1]
	backend := open(t, url, redis.Options{WaitReplicas: 1, Timeout: time.Minute})
	hasty := open(t, url, redis.Options{WaitReplicas: 1, Timeout: 300 * time.Millisecond})
	for i, who := range []store.Selector{{Subject: "alice"}, {SID: "s1"}, {SID: "nobody's"}} {
		create := func() error {
			now := store.Time(time.Now()) // after the mark of the logout before, which has the server's time
			return backend.Create(t.Context(), recordOf("alice", "s1", now), now, now)
		}
		if err := eventually(t, create); err != nil {
			t.Fatal(err)
		}
		now := store.Time(time.Now())
		e := tokenOf(who, fmt.Sprint("j", i), now)
		replica.Freeze()
		for range 3 { // the second finds nothing left to write
			if _, err := hasty.End(t.Context(), e, now); err == nil || errors.Is(err, store.ErrReplayed) {
				t.Errorf("End %+v without the replica: %v", who, err)
			}
		}
		replica.Thaw()
		if _, err := backend.End(t.Context(), e, now); err != nil {
			t.Errorf("End %+v with the replica: %v", who, err)
		}
		if _, err := backend.End(t.Context(), e, now); !errors.Is(err, store.ErrReplayed) {
			t.Errorf("End %+v again: %v", who, err)
		}
	}
}

// A session whose new sid is lost in a failover would live on under its old one, and a logout by the new one would not
// find it.
func TestARenameWaitsForReplicas(t *testing.T) {
	t.Parallel()
	pair := servers.RedisReplicas(t, 1, forgetful...)
	backend := open(t, pair.URL, redis.Options{WaitReplicas: 1, Timeout: time.Minute})
	master := adminOf(t, pair.Nodes[0])
	waits := func() int {
		m := do(t, master, "INFO", "commandstats")
		text, _ := m.ToString()
		_, text, _ = strings.Cut(text, "cmdstat_wait:calls=")
		text, _, _ = strings.Cut(text, ",")
		n, _ := strconv.Atoi(text)
		return n
	}
	now := store.Time(time.Now())
	r := recordOf("alice", "old", now)
	mustCreate(t, backend, r, now)
	next := r
	next.SID, next.Former = "new", []string{"old"}
	before := waits()
	if err := backend.Rename(t.Context(), next, now, now); err != nil {
		t.Fatal(err)
	}
	if n := waits() - before; n != 1 {
		t.Errorf("%d waits, want one", n)
	}
	// But nobody is kept out for want of a replica.
	cutOff(t, pair.Nodes[0], pair.Nodes[1])
	hasty := open(t, pair.URL, redis.Options{WaitReplicas: 1, Timeout: time.Second})
	next.Revision++
	next.SID, next.Former = "newer", []string{"old", "new"}
	if err := hasty.Rename(t.Context(), next, now, now); err != nil {
		t.Errorf("a Rename that no replica has: %v", err)
	}
}

func TestSentinelsChooseANewMasterDuringLogouts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes servers and sentinels of its own")
	}
	own := servers.RedisSentinels(t, forgetful...)
	backend := open(t, own.URL, redis.Options{Timeout: time.Second})
	if n := backend.WaitFor(); n != 1 {
		t.Errorf("%d replicas are waited for behind sentinels, want 1", n)
	}
	l := watch(t, backend)
	logouts(t, backend, func() { own.Nodes[0].Kill() })
	l.recovers(t)
	l.hears(t, backend, store.Time(time.Now()).Add(time.Second))
}

func TestForWantOfAReplicaNobodyStaysSignedInAndNobodyIsKeptOut(t *testing.T) {
	t.Parallel()
	pair := servers.RedisReplicas(t, 1, forgetful...)
	replica := pair.Nodes[1]
	replica.Freeze()
	backend := open(t, pair.URL, redis.Options{WaitReplicas: 1, Timeout: 2 * time.Second})
	now := store.Time(time.Now())
	var crowd []store.Record // several people with one sid
	for i := range 5 {
		crowd = append(crowd, recordOf(fmt.Sprint("user", i), "s1", now))
		mustCreate(t, backend, crowd[i], now)
	}
	crowd = append(crowd, recordOf("alice", "s2", now), recordOf("bob", "s3", now), recordOf("carol", "", now))
	for _, r := range crowd[5:] {
		mustCreate(t, backend, r, now)
	}
	for i, who := range []store.Selector{{SID: "s1"}, {Subject: "alice"}, {Subject: "bob", SID: "s3"},
		{Key: crowd[7].Key}} {
		e := tokenOf(who, fmt.Sprint("j", i), now)
		if _, err := backend.End(t.Context(), e, now); err == nil || errors.Is(err, store.ErrReplayed) {
			t.Errorf("End %+v while no replica has it: %v", who, err)
		}
	}
	for _, r := range crowd {
		if _, err := backend.Find(t.Context(), r.Key, now); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s lives after a logout that was carried out and not acknowledged: %v", r.Subject, err)
		}
	}
	// And where notices and the shared values are concerned, what was done is no error.
	if err := backend.Enqueue(t.Context(), []store.Notice{noticeFor("app", "alice", now)}); err != nil {
		t.Errorf("Leave: %v", err)
	}
	if err := backend.Save(t.Context(), "keys", []byte("new"), 0); err != nil {
		t.Errorf("Save: %v", err)
	}
}

func TestReplicasAreWaitedForWhereThereAreAny(t *testing.T) {
	t.Parallel()
	waits := func(url string, o redis.Options) int {
		t.Helper()
		backend := open(t, url, o)
		return backend.WaitFor()
	}
	// A server may have a replica for other reasons, so one alone waits for none until it is told.
	for _, row := range []struct {
		name string
		url  string
		o    redis.Options
		want int
	}{
		{"one server", single.Get(t).URL, redis.Options{}, 0},
		{"one server, as its address says", single.Get(t).URL + "?wait_replicas=2", redis.Options{}, 2},
		{"a Cluster with replicas", cluster.Get(t).URL, redis.Options{}, 1},
		{"a Cluster, not wanted by its address", cluster.Get(t).URL + "?wait_replicas=0",
			redis.Options{WaitReplicas: 1}, 0},
		{"a Cluster, not wanted", cluster.Get(t).URL, redis.Options{WaitReplicas: -1}, 0},
	} {
		if got := waits(row.url, row.o); got != row.want {
			t.Errorf("%s: %d replicas are waited for, want %d", row.name, got, row.want)
		}
	}
}
