package redis_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
	"example.com/curfew/store/storetest"
	"github.com/redis/rueidis"
	"go.uber.org/goleak"
)

// TestMain is another replica when a test wants one; else it stops the servers that tests shared, and then looks for
// goroutines that were left.
func TestMain(m *testing.M) {
	if os.Getenv(childURL) != "" {
		if err := childReplica(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	single.Close()
	cluster.Close()
	// The client waits some seconds before it closes connections that the Cluster's map no longer names, and before it
	// reads that map again. It is not told to stop.
	late := []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"),
	}
	if err := goleak.Find(late...); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func TestALoginFromBeforeALogoutAtAnotherReplicaIsRefused(t *testing.T) {
	t.Parallel()
	order := func(t *testing.T, url string) {
		o := patient()
		o.Prefix = prefix()
		storetest.Order(t, func(t *testing.T) store.Store {
			backend := open(t, url, o)
			t.Cleanup(func() { backend.Close() })
			return backend
		})
	}
	onBoth(t, func(t *testing.T, on *servers.Shared) { order(t, on.Get(t).URL) })
	t.Run("Sentinel", func(t *testing.T) {
		t.Parallel()
		order(t, servers.RedisSentinels(t).URL)
	})
}

func TestStoreKeepsTheContractOnOneServer(t *testing.T) {
	t.Parallel()
	testContract(t, single, 0)
}

func TestStoreKeepsTheContractOnACluster(t *testing.T) {
	t.Parallel()
	testContract(t, cluster, -1)
}

func TestStoreKeepsTheContractOnAClusterWhoseReplicasAreWaitedFor(t *testing.T) {
	t.Parallel()
	testContract(t, cluster, 0)
}

func testContract(t *testing.T, on *servers.Shared, waitReplicas int) {
	url := on.Get(t).URL
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		o := patient()
		o.Prefix, o.WaitReplicas = prefix(), waitReplicas
		backend := open(t, url, o)
		return storetest.Harness{
			Store: backend,
			Reopen: func(t *testing.T) store.Store {
				if err := backend.Close(); err != nil {
					t.Fatal(err)
				}
				return open(t, url, o)
			},
			FailEnd: func(t *testing.T) func() { return breakNotices(t, url, backend) },
		}
	})
}

// patient is for tests that time is not a part of: this machine may be slow.
func patient() redis.Options {
	return redis.Options{Timeout: time.Minute, DialTimeout: time.Minute}
}

// open opens a store, which whoever asks closes.
func open(t testing.TB, url string, o redis.Options) *redis.Store {
	t.Helper()
	backend, err := redis.Open(t.Context(), url, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { backend.Close() })
	return backend
}

// breakNotices puts something else in the place of the lists of queues, so that no notice can be left.
func breakNotices(t *testing.T, url string, backend *redis.Store) (restore func()) {
	option := rueidis.ClientOption{InitAddress: strings.Split(url[strings.Index(url, "://")+3:], ","),
		DisableCache: true}
	c, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	each := func(build func(key string) rueidis.Completed) {
		for _, key := range backend.QueueKeys() {
			if err := c.Do(t.Context(), build(key)).Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	each(func(key string) rueidis.Completed { return c.B().Set().Key(key).Value("broken").Build() })
	return func() {
		each(func(key string) rueidis.Completed { return c.B().Del().Key(key).Build() })
		c.Close()
	}
}
