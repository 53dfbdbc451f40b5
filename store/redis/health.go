package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

var errSilent = errors.New("a server does not answer INFO")

// inspect refuses servers that lack what is needed, and warns of those that may lose what they are given. It returns
// the smallest number of replicas that a master has.
func (s *Store) inspect(ctx context.Context, log *slog.Logger) (replicas int, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if !s.cluster {
		return s.inspectServer(ctx, s.client, "the server", log)
	}
	nodes := s.client.Nodes()
	if len(nodes) == 0 {
		return 0, errors.New("the Cluster has no nodes")
	}
	fewest := math.MaxInt
	var silent []error
	for at, node := range nodes {
		asking, cancel := context.WithTimeout(ctx, s.timeout/2)
		n, err := s.inspectServer(asking, node, at, log)
		cancel()
		if errors.Is(err, errSilent) { // a Cluster works without some of its nodes
			silent = append(silent, err)
			continue
		}
		if err != nil {
			return 0, err
		}
		fewest = min(fewest, n)
	}
	if len(silent) == len(nodes) {
		return 0, silent[0]
	}
	return fewest, nil
}

// inspectServer inspects one server, and returns how many replicas it has. A replica itself needs none: its number is
// the largest.
func (s *Store) inspectServer(
	ctx context.Context, c rueidis.Client, at string, log *slog.Logger,
) (replicas int, err error) {
	info, err := readInfo(ctx, c)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errSilent, err)
	}
	least := "6.2"
	if s.cluster {
		least = "7.0" // sharded pub/sub
	}
	if !atLeast(info["redis_version"], least) {
		return 0, fmt.Errorf("%s is version %q; %s or later is needed", at, info["redis_version"], least)
	}
	if is := info["cluster_enabled"] == "1"; is != s.cluster {
		if is {
			return 0, errors.New("the server is a node of a Cluster: address it as redis+cluster://")
		}
		return 0, errors.New("the server is not a node of a Cluster: address it as redis://")
	}
	replicas = math.MaxInt
	if info["role"] == "master" {
		replicas, _ = strconv.Atoi(info["connected_slaves"])
	}
	warn(ctx, c, at, info, log)
	return replicas, nil
}

// warn logs what a server may lose.
func warn(ctx context.Context, c rueidis.Client, at string, info map[string]string, log *slog.Logger) {
	if policy := info["maxmemory_policy"]; policy != "" && policy != "noeviction" {
		log.WarnContext(ctx, "the server throws sessions, end marks and replay records away when its memory is "+
			"full: set maxmemory-policy noeviction",
			"event", "redis_can_evict", "server", at, "maxmemory_policy", policy)
	}
	if info["aof_enabled"] != "0" {
		return
	}
	saves, err := c.Do(ctx, c.B().ConfigGet().Parameter("save").Build()).AsStrMap()
	switch {
	case err != nil: // many hosted servers forbid CONFIG
		log.WarnContext(ctx, "the server keeps no log of what it is given, so a crash may lose it: set appendonly yes",
			"event", "redis_not_durable", "server", at)
	case saves["save"] == "":
		log.WarnContext(ctx, "the server keeps nothing on disk, so when it restarts everybody is signed out and "+
			"used logout tokens can be used again: set appendonly yes",
			"event", "redis_not_durable", "server", at)
	default:
		log.WarnContext(ctx, "the server keeps snapshots alone, so after a crash sessions that ended since the last "+
			"one are back: set appendonly yes",
			"event", "redis_not_durable", "server", at, "save", saves["save"])
	}
}

func readInfo(ctx context.Context, c rueidis.Client) (map[string]string, error) {
	text, err := c.Do(ctx, c.B().Info().Build()).ToString()
	if err != nil {
		return nil, err
	}
	info := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info, nil
}

// atLeast compares versions by their numbers.
func atLeast(version, least string) bool {
	return slices.Compare(numbers(version), numbers(least)) >= 0
}

func numbers(version string) (all []int) {
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			break
		}
		all = append(all, n)
	}
	return all
}
