package servers

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const getRedis = "apt-get install redis-server redis-sentinel, or name a server in CURFEW_TEST_REDIS"

// Redis starts a Redis server that keeps its data on disk and evicts nothing, or uses a prefix on the server that
// CURFEW_TEST_REDIS names. Args are such as "--hz", "100"; a later one overrides an earlier one.
func Redis(t T, args ...string) *Server {
	t.Helper()
	if named := os.Getenv("CURFEW_TEST_REDIS"); named != "" {
		separator := "?"
		if strings.Contains(named, "?") {
			separator = "&"
		}
		return &Server{URL: named + separator + "prefix=test:" + rand.Text() + ":", t: t,
			notOwned: "the server that CURFEW_TEST_REDIS names must not be stopped"}
	}
	return OwnRedis(t, args...)
}

// OwnRedis is [Redis], but always starts a server. It has a file of its own for what is configured while it runs: with
// CONFIG REWRITE it keeps that when it is started again.
func OwnRedis(t T, args ...string) *Server {
	t.Helper()
	program := find(t, "redis-server", getRedis)
	s := newServer(t, "", "eady to accept connections", syscall.SIGTERM)
	s.launch(func(port int) []string {
		file := filepath.Join(s.dir, "redis.conf")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return append([]string{program, file, "--port", strconv.Itoa(port), "--bind", "127.0.0.1",
			"--dir", s.dir, "--daemonize", "no", "--save", "", "--appendonly", "yes",
			"--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0"}, args...)
	})
	s.URL = "redis://" + s.Addr()
	return s
}

// SharedRedis returns a Redis server for many tests, each of which uses its own prefix.
func SharedRedis(args ...string) *Shared {
	return &Shared{start: func(t T) *Group {
		if named := os.Getenv("CURFEW_TEST_REDIS"); named != "" {
			return &Group{URL: named}
		}
		return RedisReplicas(t, 0, args...)
	}}
}

// SharedRedisCluster returns a [RedisCluster] for many tests, each of which uses its own prefix.
func SharedRedisCluster(args ...string) *Shared {
	return &Shared{start: func(t T) *Group { return RedisCluster(t, args...) }}
}

// RedisReplicas starts a master, which is the first node, and its replicas.
func RedisReplicas(t T, replicas int, args ...string) *Group {
	t.Helper()
	master := OwnRedis(t, args...)
	g := &Group{URL: master.URL, Nodes: []*Server{master}}
	for range replicas {
		s := OwnRedis(t, args...)
		g.Nodes = append(g.Nodes, s)
		// It is no argument, which would hold again after the replica has been promoted, killed and started.
		s.await(fmt.Sprint("replicaof 127.0.0.1 ", master.Port), "OK")
		s.await("config rewrite", "OK")
		s.await("info replication", "master_link_status:up")
	}
	return g
}

// RedisSentinels starts a master and two replicas, which are the Nodes, and three sentinels that watch them as "main".
func RedisSentinels(t T, args ...string) *Group {
	t.Helper()
	program := find(t, "redis-sentinel", getRedis)
	g := RedisReplicas(t, 2, args...)
	var sentinels []*Server
	var addrs []string
	for range 3 {
		s := newServer(t, "", "Sentinel ID is", syscall.SIGTERM)
		file := filepath.Join(s.dir, "sentinel.conf") // which it writes to
		s.launch(func(port int) []string {
			config := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor main 127.0.0.1 %d 2\n"+
				"sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 6000\n"+
				"sentinel parallel-syncs main 2\n", port, s.dir, g.Nodes[0].Port)
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			return []string{program, file}
		})
		sentinels, addrs = append(sentinels, s), append(addrs, s.Addr())
	}
	for _, s := range sentinels { // before that they cannot elect a master
		s.await("info sentinel", "slaves=2,sentinels=3")
	}
	g.URL = "redis+sentinel://" + strings.Join(addrs, ",") + "/main"
	return g
}

// RedisCluster starts a Cluster of three masters with one replica each. The masters are the first of the Nodes.
func RedisCluster(t T, args ...string) *Group {
	t.Helper()
	return RedisClusterOf(t, 1, args...)
}

// RedisClusterOf is [RedisCluster] with another number of replicas of each master.
func RedisClusterOf(t T, replicas int, args ...string) *Group {
	t.Helper()
	const masters, timeout = 3, "--cluster-node-timeout"
	wanted := "2000"
	if i := slices.Index(args, timeout); i >= 0 {
		wanted = args[i+1]
	}
	g := new(Group)
	create := []string{"--cluster", "create"}
	for range masters * (1 + replicas) {
		// On a busy machine two nodes may take longer to greet each other than the timeout. Then one forgets the other, and
		// redis-cli waits for ever. So until they know each other it is long.
		s := OwnRedis(t, slices.Concat([]string{"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(Port(t))}, args,
			[]string{timeout, "120000"})...)
		g.Nodes, create = append(g.Nodes, s), append(create, s.Addr())
	}
	g.URL = "redis+cluster://" + strings.Join(create[2:2+masters], ",")
	create = append(create, "--cluster-replicas", strconv.Itoa(replicas), "--cluster-yes")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, find(t, "redis-cli", getRedis), create...).CombinedOutput(); err != nil {
		t.Fatal(fmt.Sprintf("redis-cli --cluster create: %v\n%s", err, out))
	}
	for _, s := range g.Nodes {
		s.await("cluster info", "cluster_state:ok")
		s.await("cluster info", fmt.Sprint("cluster_known_nodes:", len(g.Nodes)))
		s.awaitThat("cluster nodes", fmt.Sprint(masters*replicas, " times slave"), func(out string) bool {
			return strings.Count(out, "slave ") == masters*replicas
		})
		if replicas > 0 { // the first of a master, the second of a replica
			s.await("info replication", "state=online", "master_link_status:up")
		}
	}
	if replicas > 0 {
		for _, s := range g.Nodes[:masters] {
			s.awaitReplicas(replicas)
		}
	}
	for _, s := range g.Nodes {
		s.await("config set cluster-node-timeout "+wanted, "OK")
		s.command[len(s.command)-1] = wanted
	}
	return g
}

// awaitReplicas returns when this number of replicas have acknowledged a write of a master. A replica that is reported
// as online after its first synchronization may still be busy with its own files for a second.
func (s *Server) awaitReplicas(replicas int) {
	s.t.Helper()
	cmd := exec.Command(find(s.t, "redis-cli", getRedis), "-p", strconv.Itoa(s.Port))
	cmd.Stdin = strings.NewReader(fmt.Sprintf("FLUSHALL\nWAIT %d %d\n", replicas, patience.Milliseconds()))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != fmt.Sprintf("OK\n%d", replicas) {
		s.t.Fatal(fmt.Sprintf("replicas do not follow: %v\n%s", err, out))
	}
}

// await repeats a command until the answer of a Redis server contains one of these strings.
func (s *Server) await(question string, one ...string) {
	s.t.Helper()
	s.awaitThat(question, fmt.Sprintf("%q", one), func(out string) bool {
		return slices.ContainsFunc(one, func(wanted string) bool { return strings.Contains(out, wanted) })
	})
}

// awaitThat is await for any condition; wanted describes it.
func (s *Server) awaitThat(question, wanted string, holds func(out string) bool) {
	s.t.Helper()
	cli := find(s.t, "redis-cli", getRedis)
	for giveUp := time.After(patience); ; {
		out, _ := exec.Command(cli, append([]string{"-p", strconv.Itoa(s.Port)}, strings.Fields(question)...)...).
			CombinedOutput()
		if holds(string(out)) {
			return
		}
		select {
		case <-giveUp:
			s.t.Fatal(fmt.Sprintf("%s never says %s:\n%s", question, wanted, out))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
