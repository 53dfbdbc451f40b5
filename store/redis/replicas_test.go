package redis_test

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store/redis"
	"github.com/redis/rueidis"
)

// logouts signs people in, logs them out one after another while fault happens, each as often as a provider would send it,
// and then wants nobody alive whose logout was answered with success.
func logouts(t *testing.T, store *redis.Store, fault func()) {
	t.Helper()
	now := session.Time(time.Now())
	const people = 120
	var records [people]session.Record
	for i := range records {
		records[i] = recordOf(fmt.Sprint("user", i), fmt.Sprint("s", i), now)
		if err := eventually(t, func() error { return store.Create(t.Context(), records[i], now, now) }); err != nil {
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
				e := endingOf(session.Who{Subject: records[i].Subject})
				switch i % 3 {
				case 1:
					e.Who.SID = records[i].SID
				case 2:
					e.Who.Subject, e.Who.SID = "", records[i].SID
				}
				e.JTI, e.JTIExpires = fmt.Sprint("j", i), now.Add(time.Hour)
				err := eventually(t, func() error { _, err := store.End(t.Context(), e, now); return err })
				if err != nil && !errors.Is(err, session.ErrReplayed) {
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
		if err := eventually(t, func() error { _, err := store.Find(t.Context(), r.Key, now); return err }); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("user %d is alive after a logout that was answered with success: %v", i, err)
		}
	}
}

func TestAMasterOfAClusterDiesDuringLogouts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a Cluster of its own")
	}
	needServer(t, "redis-server")
	own := &shared{dir: t.TempDir()}
	t.Cleanup(own.stop)
	// With everysec it could come back, as the master that it was, without what its replica had already acknowledged.
	if err := own.startCluster(3, 3, "--appendonly", "yes", "--appendfsync", "always"); err != nil {
		t.Fatal(err)
	}
	// A replica has to have it, since it is the replica that takes over; and time enough for the election.
	store := open(t, own.url, redis.Options{Timeout: time.Second})
	defer store.Close()
	l := watch(t, store)
	logouts(t, store, func() {
		own.all[0].kill()
		// The replica that takes over has none of its own, so its endings fail, until the old master is back as one.
		if err := own.all[0].start(); err != nil {
			t.Error(err)
		}
	})
	l.recovers(t)
	now := session.Time(time.Now())
	for eventually(t, func() error { _, err := store.End(t.Context(), endingOf(session.Who{Subject: "bob"}), now); return err }) != nil {
	}
	l.recovers(t)
	l.hears(t, store, now.Add(time.Second))
}

func TestAMasterOfAClusterThatStaysDead(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a Cluster of its own")
	}
	needServer(t, "redis-server")
	own := &shared{dir: t.TempDir()}
	t.Cleanup(own.stop)
	if err := own.startCluster(3, 3); err != nil {
		t.Fatal(err)
	}
	store := open(t, own.url, redis.Options{WaitReplicas: -1, Timeout: time.Second})
	defer store.Close()
	l := watch(t, store)
	now := session.Time(time.Now())
	var records []session.Record
	for i := range 60 { // of which a third are on each master
		records = append(records, recordOf(fmt.Sprint("user", i), fmt.Sprint("s", i), now))
		mustCreate(t, store, records[i], now)
	}
	own.replicated(t)
	own.all[0].kill()
	for i, r := range records {
		if err := eventually(t, func() error { _, err := store.Find(t.Context(), r.Key, now); return err }); err != nil {
			t.Errorf("a session that a replica had, after the failover: %v", err)
		}
		who := session.Who{Subject: r.Subject}
		if i%2 == 0 {
			who = session.Who{SID: r.SID}
		}
		if err := eventually(t, func() error { _, err := store.End(t.Context(), endingOf(who), now); return err }); err != nil {
			t.Errorf("End after the failover: %v", err)
		}
		if _, err := store.Find(t.Context(), r.Key, now); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("Find after End after the failover: %v", err)
		}
	}
	l.recovers(t)
	l.hears(t, store, now)
}

// replicated waits until every replica has what its master has.
func (s *shared) replicated(t testing.TB) {
	t.Helper()
	for _, server := range s.all {
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
	master := startServer(t)
	replica := startServer(t, "--replicaof", fmt.Sprintf("127.0.0.1 %d", master.port))
	c := adminOf(t, replica)
	for {
		m := do(t, c, "INFO", "replication")
		if text, _ := m.ToString(); strings.Contains(text, "master_link_status:up") {
			break
		}
		pauseFor(10 * time.Millisecond)
	}
	url := "redis://" + master.addr()
	store := open(t, url, redis.Options{WaitReplicas: 1, Timeout: time.Minute})
	defer store.Close()
	hasty := open(t, url, redis.Options{WaitReplicas: 1, Timeout: 300 * time.Millisecond})
	defer hasty.Close()
	now := session.Time(time.Now())
	for i, who := range []session.Who{{Subject: "alice"}, {SID: "s1"}, {SID: "nobody's"}} {
		if err := eventually(t, func() error { return store.Create(t.Context(), recordOf("alice", "s1", now), now, now) }); err != nil {
			t.Fatal(err)
		}
		e := endingOf(who)
		e.JTI, e.JTIExpires = fmt.Sprint("j", i), now.Add(time.Hour)
		replica.signal(syscall.SIGSTOP)
		for range 3 { // the second finds nothing left to write
			if _, err := hasty.End(t.Context(), e, now); err == nil || errors.Is(err, session.ErrReplayed) {
				t.Errorf("End %+v without the replica: %v", who, err)
			}
		}
		replica.signal(syscall.SIGCONT)
		if _, err := store.End(t.Context(), e, now); err != nil {
			t.Errorf("End %+v with the replica: %v", who, err)
		}
		if _, err := store.End(t.Context(), e, now); !errors.Is(err, session.ErrReplayed) {
			t.Errorf("End %+v again: %v", who, err)
		}
		now = now.Add(time.Second)
	}
}

func TestSentinelsChooseANewMasterDuringLogouts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes servers and sentinels of its own")
	}
	own, url := startSentinels(t)
	store := open(t, url, redis.Options{Timeout: time.Second})
	defer store.Close()
	if n := store.WaitFor(); n != 1 {
		t.Errorf("%d replicas are waited for behind sentinels, want 1", n)
	}
	l := watch(t, store)
	logouts(t, store, func() { own.all[0].kill() })
	l.recovers(t)
	l.hears(t, store, session.Time(time.Now()).Add(time.Second))
}

// startSentinels starts a master, two replicas and three sentinels that watch them.
func startSentinels(t *testing.T) (own *shared, url string) {
	t.Helper()
	needServer(t, "redis-server")
	sentinel, err := exec.LookPath("redis-sentinel")
	if err != nil {
		needServer(t, "redis-sentinel")
	}
	own = &shared{dir: t.TempDir()}
	t.Cleanup(own.stop)
	ports, err := freePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		args := []string{"--repl-diskless-sync-delay", "0"}
		if i > 0 {
			args = append(args, "--replicaof", fmt.Sprintf("127.0.0.1 %d", ports[0]))
		}
		if err := own.add(ports[i], args...); err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i < 3; i++ {
		c := adminOf(t, own.all[i])
		for {
			m := do(t, c, "INFO", "replication")
			if text, _ := m.ToString(); strings.Contains(text, "master_link_status:up") {
				break
			}
			pauseFor(10 * time.Millisecond)
		}
	}
	var addrs []string
	for _, port := range ports[3:] {
		s := newSentinel(t, sentinel, port, own.all[0].port)
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.kill)
		addrs = append(addrs, s.addr())
		own.sentinels = append(own.sentinels, s)
	}
	// Until they know of one another and of the replicas they would choose nobody.
	for _, s := range own.sentinels {
		c := adminOf(t, s)
		for {
			m := do(t, c, "INFO", "sentinel")
			if text, _ := m.ToString(); strings.Contains(text, "slaves=2,sentinels=3") {
				break
			}
			pauseFor(20 * time.Millisecond)
		}
	}
	return own, "redis+sentinel://" + strings.Join(addrs, ",") + "/main"
}

// frozenReplica starts a master and its replica, and stops the replica.
func frozenReplica(t *testing.T) (url string, master, replica *server) {
	t.Helper()
	master = startServer(t)
	replica = startServer(t, "--replicaof", fmt.Sprintf("127.0.0.1 %d", master.port))
	c := adminOf(t, replica)
	for {
		m := do(t, c, "INFO", "replication")
		if text, _ := m.ToString(); strings.Contains(text, "master_link_status:up") {
			break
		}
		pauseFor(10 * time.Millisecond)
	}
	replica.signal(syscall.SIGSTOP)
	return "redis://" + master.addr(), master, replica
}

func TestForWantOfAReplicaNobodyStaysSignedInAndNobodyIsKeptOut(t *testing.T) {
	t.Parallel()
	url, master, replica := frozenReplica(t)
	store := open(t, url, redis.Options{WaitReplicas: 1, Timeout: 2 * time.Second})
	defer store.Close()
	now := session.Time(time.Now())
	var crowd []session.Record // several people with one sid
	for i := range 5 {
		crowd = append(crowd, recordOf(fmt.Sprint("user", i), "s1", now))
		mustCreate(t, store, crowd[i], now)
	}
	crowd = append(crowd, recordOf("alice", "s2", now), recordOf("bob", "s3", now), recordOf("carol", "", now))
	for _, r := range crowd[5:] {
		mustCreate(t, store, r, now)
	}
	for i, who := range []session.Who{{SID: "s1"}, {Subject: "alice"}, {Subject: "bob", SID: "s3"}, {Key: crowd[7].Key}} {
		e := endingOf(who)
		e.JTI, e.JTIExpires = fmt.Sprint("j", i), now.Add(time.Hour)
		if _, err := store.End(t.Context(), e, now); err == nil || errors.Is(err, session.ErrReplayed) {
			t.Errorf("End %+v while no replica has it: %v", who, err)
		}
	}
	for _, r := range crowd {
		if _, err := store.Find(t.Context(), r.Key, now); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s lives after a logout that was carried out and not acknowledged: %v", r.Subject, err)
		}
	}
	// And where notices and the vault are concerned, what was done is no error.
	if err := store.Leave(t.Context(), []session.Notice{noticeFor("app", "alice", now)}); err != nil {
		t.Errorf("Leave: %v", err)
	}
	if err := store.Save(t.Context(), "keys", []byte("new"), 0); err != nil {
		t.Errorf("Save: %v", err)
	}

	// Who signed in meanwhile is still found by the sid when a failover has lost the way: the next use sees to it.
	late := recordOf("dave", "s4", now)
	mustCreate(t, store, late, now)
	c := adminOf(t, master)
	lose := func() { do(t, c, "DEL", store.PointerOf(issuer, client, "s4")) }
	lose()
	if err := store.Update(t.Context(), late, now); err != nil {
		t.Fatal(err)
	}
	late.Revision++
	if m := do(t, c, "EXISTS", store.PointerOf(issuer, client, "s4")); !isOne(m) {
		t.Error("the use of a session did not put the way to it again")
	}
	replica.signal(syscall.SIGCONT)
	if err := eventually(t, func() error {
		_, err := store.End(t.Context(), endingOf(session.Who{Subject: "nobody"}), now)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := store.Update(t.Context(), late, now); err != nil {
		t.Fatal(err)
	}
	if ended, err := store.End(t.Context(), endingOf(session.Who{SID: "s4"}), now.Add(time.Second)); err != nil || len(ended) != 1 {
		t.Errorf("%d ended by the sid (error %v), want 1", len(ended), err)
	}
}

func isOne(m rueidis.RedisMessage) bool {
	n, err := m.AsInt64()
	return err == nil && n == 1
}

func TestReplicasAreWaitedForWhereThereAreAny(t *testing.T) {
	t.Parallel()
	waits := func(url string, o redis.Options) int {
		t.Helper()
		store := open(t, url, o)
		defer store.Close()
		return store.WaitFor()
	}
	// A server may have a replica for other reasons, so one alone waits for none until it is told.
	for _, row := range []struct {
		name string
		url  string
		o    redis.Options
		want int
	}{
		{"one server", single.get(t), redis.Options{}, 0},
		{"one server, as its address says", single.get(t) + "?wait_replicas=2", redis.Options{}, 2},
		{"a Cluster with replicas", cluster.get(t), redis.Options{}, 1},
		{"a Cluster, not wanted by its address", cluster.get(t) + "?wait_replicas=0", redis.Options{WaitReplicas: 1}, 0},
		{"a Cluster, not wanted", cluster.get(t), redis.Options{WaitReplicas: -1}, 0},
	} {
		if got := waits(row.url, row.o); got != row.want {
			t.Errorf("%s: %d replicas are waited for, want %d", row.name, got, row.want)
		}
	}
}
