package redis_test

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/servers"

	"github.com/redis/rueidis"
)

// forgetful has a server keep nothing, which is the quickest.
var forgetful = []string{"--appendonly", "no"}

// What many tests use, each under a prefix of its own.
var (
	single  = servers.SharedRedis(forgetful...)
	cluster = servers.SharedRedisCluster(append(forgetful[:2:2],
		"--cluster-node-timeout", "15000")...) // nobody kills its servers: none is replaced for being slow
)

// startServer starts a server for one test.
func startServer(t testing.TB, args ...string) *servers.Server {
	t.Helper()
	return servers.OwnRedis(t, append(forgetful[:2:2], args...)...)
}

// pauseFor is for those who watch another process, which tells nobody that it is ready.
func pauseFor(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

// admin talks to one server as one who runs it.
func admin(s *servers.Server) (rueidis.Client, error) {
	return rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true,
		DisableCache: true,
		DisableRetry: true, PipelineMultiplex: -1})
}

func do(t testing.TB, c rueidis.Client, words ...string) rueidis.RedisMessage {
	t.Helper()
	m, err := c.Do(t.Context(), c.B().Arbitrary(words...).Build()).ToMessage()
	if err != nil && !rueidis.IsRedisNil(err) {
		t.Fatalf("%s: %v", strings.Join(words, " "), err)
	}
	return m
}

// ask is do for an answer that is a text.
func ask(t testing.TB, c rueidis.Client, words ...string) (string, error) {
	t.Helper()
	m := do(t, c, words...)
	return m.ToString()
}

func adminOf(t testing.TB, s *servers.Server) rueidis.Client {
	t.Helper()
	c, err := admin(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func prefix() string { return "test:" + rand.Text() + ":" }
