//go:build unix

package servers_test

import (
	"context"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"example.com/curfew/internal/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPostgresKeepsWhatItCommittedWhenItIsKilledAndStarted(t *testing.T) {
	t.Parallel()
	s := servers.Postgres(t)
	s.Own()
	ask := func(statement string) (n int) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if err := conn.QueryRow(t.Context(), statement).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	ask(`WITH made AS (SELECT 7 AS n) SELECT n FROM made`)
	conn, err := pgx.Connect(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `CREATE TABLE kept AS SELECT 7 AS n`); err != nil {
		t.Fatal(err)
	}
	conn.Close(context.Background())
	for _, end := range []func(){s.Kill, s.Stop} {
		pid := s.PID
		end()
		if c, err := net.DialTimeout("tcp", s.Addr(), time.Minute); err == nil {
			c.Close()
			t.Fatal("somebody listens after the server was stopped")
		}
		s.Start()
		if s.PID == pid || s.PID == 0 {
			t.Fatalf("process %d before, %d after", pid, s.PID)
		}
		if got := ask(`SELECT n FROM kept`); got != 7 {
			t.Fatalf("kept %d, want 7", got)
		}
	}
}

func TestRedisKeepsWhatItWasGivenWhenItIsKilledAndStarted(t *testing.T) {
	t.Parallel()
	s := servers.Redis(t)
	s.Own()
	cli := func(words ...string) string {
		out, _ := exec.Command("redis-cli", append([]string{"-p", strconv.Itoa(s.Port)}, words...)...).CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	cli("set", "kept", "7")
	s.Kill()
	if got := cli("get", "kept"); !strings.Contains(got, "Connection refused") {
		t.Fatalf("a server that was killed answers %q", got)
	}
	s.Start()
	if got := cli("get", "kept"); got != "7" {
		t.Fatalf("kept %q, want 7", got)
	}
	s.Stop()
	s.Start()
	if got := cli("get", "kept"); got != "7" {
		t.Fatalf("kept %q, want 7", got)
	}
}

// Sentinels write to the file of each server which of them is master. One that forgot it would follow who follows it,
// and then there would be no master for as long as sentinels wait.
func TestARedisThatWasPromotedIsMasterWhenItIsKilledAndStarted(t *testing.T) {
	t.Parallel()
	pair := servers.RedisReplicas(t, 1)
	cli := func(s *servers.Server, words ...string) string {
		out, _ := exec.Command("redis-cli", append([]string{"-p", strconv.Itoa(s.Port)}, words...)...).CombinedOutput()
		return string(out)
	}
	old, promoted := pair.Nodes[0], pair.Nodes[1]
	cli(promoted, "replicaof", "no", "one")
	cli(promoted, "config", "rewrite")
	cli(old, "replicaof", "127.0.0.1", strconv.Itoa(promoted.Port))
	cli(old, "config", "rewrite")
	for s, role := range map[*servers.Server]string{old: "slave", promoted: "master"} {
		s.Kill()
		s.Start()
		if got := cli(s, "role"); !strings.HasPrefix(got, role) {
			t.Errorf("got %q, want %s", got, role)
		}
	}
}

func TestRedisClusterComesTogether(t *testing.T) {
	t.Parallel()
	c := servers.RedisCluster(t)
	out, err := exec.Command("redis-cli", "-c", "-p", strconv.Itoa(c.Nodes[0].Port), "set", "anything", "1").
		CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != "OK" {
		t.Fatalf("%q, %v", got, err)
	}
}
