package redis_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"testing"

	"example.com/curfew/store/redis"
	"example.com/curfew/store/storetest"
	"go.uber.org/goleak"
)

// TestMain stops the servers that tests shared, and then looks for goroutines that were left.
func TestMain(m *testing.M) {
	code := m.Run()
	single.stop()
	cluster.stop()
	// The client waits 5 s before it closes connections that the Cluster's map no longer names. It is not told to stop.
	late := goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2")
	if err := goleak.Find(late); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func TestStoreKeepsTheContractOnOneServer(t *testing.T) {
	t.Parallel()
	testContract(t, single)
}

func TestStoreKeepsTheContractOnACluster(t *testing.T) {
	t.Parallel()
	testContract(t, cluster)
}

func testContract(t *testing.T, on *shared) {
	url := on.get(t)
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		prefix := "test:" + rand.Text() + ":"
		store := open(t, url, redis.Options{Prefix: prefix})
		return storetest.Harness{
			Store: store,
			Reopen: func(t *testing.T) storetest.Store {
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
				return open(t, url, redis.Options{Prefix: prefix})
			},
		}
	})
}

// open opens a store, which whoever asks closes.
func open(t testing.TB, url string, o redis.Options) *redis.Store {
	t.Helper()
	store, err := redis.Open(t.Context(), url, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return store
}
