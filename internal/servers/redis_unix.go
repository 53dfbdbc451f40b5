//go:build unix

package servers

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Redis starts a Redis server that keeps what it is given on disk and evicts nothing. Args are such as "--hz", "100".
func Redis(t testing.TB, args ...string) *Server {
	t.Helper()
	if named := os.Getenv("CURFEW_TEST_REDIS"); named != "" {
		separator := "?"
		if strings.Contains(named, "?") {
			separator = "&"
		}
		return &Server{URL: named + separator + "prefix=test:" + rand.Text() + ":", t: t, log: new(tail),
			lent: "the server that CURFEW_TEST_REDIS names is not ours to stop"}
	}
	return startRedis(t, false, args)
}

// Cluster is a Redis Cluster that runs for one test. The first half of its servers were made masters, the others replicas.
type Cluster struct {
	URL   string
	Nodes []*Server
}

// RedisCluster starts a Cluster of three masters with a replica each.
func RedisCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	const masters, all = 3, 6
	c := new(Cluster)
	var addrs []string
	for range all {
		s := startRedis(t, true, args)
		c.Nodes, addrs = append(c.Nodes, s), append(addrs, s.Addr())
	}
	cli, err := exec.LookPath("redis-cli")
	if err != nil {
		need(t, "there is no redis-cli: apt-get install redis-tools")
	}
	create := append(append([]string{"--cluster", "create"}, addrs...), "--cluster-replicas", "1", "--cluster-yes")
	if out, err := exec.Command(cli, create...).CombinedOutput(); err != nil {
		t.Fatalf("redis-cli --cluster create: %v\n%s", err, out)
	}
	c.URL = "redis+cluster://" + strings.Join(addrs[:masters], ",")
	// Nobody tells when all of them know one another and every replica follows its master: it has to be asked for.
	giveUp := time.After(2 * time.Minute)
	for _, s := range c.Nodes {
		for {
			out, _ := exec.Command(cli, "-p", strconv.Itoa(s.Port), "cluster", "info").CombinedOutput()
			role, _ := exec.Command(cli, "-p", strconv.Itoa(s.Port), "info", "replication").CombinedOutput()
			known := strings.Contains(string(out), "cluster_state:ok") && strings.Contains(string(out), "cluster_known_nodes:6")
			if follows := strings.Contains(string(role), "state=online") || strings.Contains(string(role), "master_link_status:up"); known && follows {
				break
			}
			select {
			case <-giveUp:
				t.Fatalf("the Cluster does not come together:\n%s%s", out, role)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return c
}

func startRedis(t testing.TB, cluster bool, args []string) *Server {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		need(t, "there is no redis-server: apt-get install redis-server, or name one in CURFEW_TEST_REDIS")
	}
	dir := t.TempDir()
	s := &Server{t: t, ready: "eady to accept connections", orderly: syscall.SIGTERM}
	bus := 0
	s.command = func() *exec.Cmd {
		cmd := exec.Command(program, "--port", strconv.Itoa(s.Port), "--bind", "127.0.0.1", "--dir", dir, "--daemonize", "no",
			"--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction")
		if cluster {
			cmd.Args = append(cmd.Args, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus), "--cluster-node-timeout", "2000",
				"--repl-diskless-sync-delay", "0")
		}
		cmd.Args = append(cmd.Args, args...)
		cmd.Dir = dir
		return cmd
	}
	s.begin(t, 2, func(ports []int) {
		s.Port, bus = ports[0], ports[1]
		s.URL = fmt.Sprintf("redis://%s", s.Addr())
	})
	return s
}
