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
	store := open(t, own.url, redis.Options{WaitReplicas: 1, Timeout: time.Second})
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
	store := open(t, url, redis.Options{WaitReplicas: 1, Timeout: time.Second})
	defer store.Close()
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
