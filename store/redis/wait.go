package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"example.com/curfew/internal/wait"
	"github.com/redis/rueidis"
)

const (
	// waitConns is how many connections to one master wait for its replicas at most. WAIT blocks its connection.
	waitConns = 16
	// idleConnCleanup is how often idle ones of these connections are closed.
	idleConnCleanup = 5 * time.Second
	// checkEvery is how often to check which masters have replicas, besides after a lost connection.
	checkEvery = 10 * time.Second
	// awayFor is after how many of these intervals a replica that is down is no longer waited for: a minute. Before, it
	// may come back and become the master without what it has missed: of several, neither sentinels nor a Cluster always
	// choose the most up-to-date.
	awayFor = 6
)

// errReplicas means that the work is done, but a failover may undo it.
var errReplicas = errors.New("redis: too few replicas have acknowledged")

// replicas holds how many replicas have to acknowledge an ending.
//
// Unless a number is configured, that is each that may be the next master: those that are connected, and those that the
// sentinels or the Cluster have called up within [awayFor]. A master that has or had a replica needs one at least, also
// while they are all down: after a failover the new master has no replica for a while, and needs one as much as the old
// one did. A master that never had one needs none. On a Cluster this is kept for each node by its ID, for replicas too,
// since each can become a master.
type replicas struct {
	auto  bool
	fixed int // unless auto

	mu      sync.Mutex
	need    map[string]bool          // whether a node has to wait, by its ID; "" behind sentinels
	up      map[string]seen          // the replicas of a node that were up, by its ID
	now     int                      // the current interval of checkEvery
	known   map[string]bool          // the nodes that the last check found
	doubt   bool                     // a former master is down, and it is not known yet which master it will follow
	masters [buckets]string          // the ID of each bucket's master as of the last check
	conns   map[string]chan struct{} // limits the connections that wait, by master
	away    map[string]bool          // the masters that have too few replicas at present
}

// seen is the interval in which each replica was last up, by its name or ID.
type seen map[string]int

// recent returns how many were up within [awayFor].
func (s seen) recent(interval int) (n int) {
	for _, at := range s {
		if interval-at <= awayFor {
			n++
		}
	}
	return n
}

// waits reports whether endings may have to wait for replicas.
func (s *Store) waits() bool { return s.replicas.auto || s.replicas.fixed > 0 }

// required returns how many replicas the node with this ID has to wait for, and whether that is known.
func (r *replicas) required(id string) (n int, known bool) {
	if !r.auto {
		return r.fixed, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.need[id] || r.doubt {
		return max(1, r.up[id].recent(r.now)), true
	}
	return 0, r.known[id]
}

// masterWithoutReplica returns the ID of a master that waits for no replica, if there is one.
func (r *replicas) masterWithoutReplica() (id string, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.masters {
		if !r.need[id] && !r.doubt {
			return id, true
		}
	}
	return "", false
}

// acquire gets the right to use a connection to the master of a bucket, or gives up after timeout.
func (r *replicas) acquire(ctx context.Context, b bucket, timeout time.Duration) (release func(), ok bool) {
	r.mu.Lock()
	id := r.masters[b]
	conns := r.conns[id]
	if conns == nil {
		conns = make(chan struct{}, waitConns)
		r.conns[id] = conns
	}
	r.mu.Unlock()
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case conns <- struct{}{}:
		return func() { <-conns }, true
	case <-t.C:
	case <-ctx.Done():
	}
	return nil, false
}

// setAway records whether a master has too few replicas, and reports whether that has changed.
func (r *replicas) setAway(id string, away bool) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed = r.away[id] != away
	r.away[id] = away
	return changed
}

// watchReplicas checks which masters have replicas, from time to time and after a lost connection.
func (s *Store) watchReplicas(ctx context.Context) {
	t := time.NewTicker(checkEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.replicas.mu.Lock()
			s.replicas.now++
			s.replicas.mu.Unlock()
		case <-s.recheck:
		}
		checking, cancel := context.WithTimeout(ctx, s.timeout)
		_ = s.checkTopology(checking) // on an error, what is known stays
		cancel()
		if !wait.Sleep(ctx, time.Second) {
			return
		}
	}
}

// recheckTopology asks for a check soon.
func (s *Store) recheckTopology() {
	select {
	case s.recheck <- struct{}{}:
	default:
	}
}

// checkTopology asks the Cluster, or the sentinels, which masters have replicas.
func (s *Store) checkTopology(ctx context.Context) error {
	if !s.replicas.auto {
		return nil
	}
	if !s.cluster {
		return s.checkSentinels(ctx)
	}
	shards, err := s.client.Do(ctx, s.client.B().ClusterShards().Build()).ToArray()
	for _, node := range s.client.Nodes() { // the client chose one, which may be down
		if err == nil || ctx.Err() != nil {
			break
		}
		shards, err = node.Do(ctx, node.B().ClusterShards().Build()).ToArray()
	}
	if err != nil {
		return fmt.Errorf("redis: which masters have replicas: %w", err)
	}
	known, need, replicas := make(map[string]bool), make(map[string]bool), make(map[string]map[string]bool)
	var masters [buckets]string
	var gone []string // masters that failed and have no slots: they were replaced
	for _, shard := range shards {
		parts, err := shard.AsMap()
		if err != nil {
			return errAnswer
		}
		slotMessage, nodeMessage := parts["slots"], parts["nodes"]
		slots, err := slotMessage.AsIntSlice()
		nodes, err2 := nodeMessage.ToArray()
		if err != nil || err2 != nil {
			return errAnswer
		}
		followers := make(map[string]bool)
		for _, n := range nodes {
			node, err := n.AsMap()
			if err != nil {
				return errAnswer
			}
			idMessage, roleMessage, healthMessage := node["id"], node["role"], node["health"]
			id, err := idMessage.ToString()
			if err != nil {
				return errAnswer
			}
			role, _ := roleMessage.ToString()
			health, _ := healthMessage.ToString()
			known[id] = true
			if len(nodes) > 1 {
				need[id] = true
			}
			replicas[id] = followers
			if role == "replica" {
				followers[id] = health == "online"
			}
			if role != "master" {
				continue
			}
			if len(slots) == 0 && strings.HasPrefix(health, "fail") {
				gone = append(gone, id)
			}
			for i := 0; i+1 < len(slots); i += 2 {
				for b := range masters {
					if at := int64(b) * 64; slots[i] <= at && at <= slots[i+1] {
						masters[b] = id
					}
				}
			}
		}
	}
	s.learn(ctx, known, need, replicas, masters, gone)
	return nil
}

// learn adds the results of a check to what is known. replicas are those of a node, and whether they are up.
func (s *Store) learn(
	ctx context.Context, known, need map[string]bool, replicas map[string]map[string]bool, masters [buckets]string,
	gone []string,
) {
	r := &s.replicas
	r.mu.Lock()
	first, found := r.known == nil, false
	for id, needs := range need {
		if needs && !r.need[id] {
			r.need[id] = true
			found = true
		}
	}
	for id, all := range replicas {
		last := r.up[id]
		r.up[id] = make(seen)
		for name, up := range all {
			if up {
				r.up[id][name] = r.now
			} else if at, ok := last[name]; ok {
				r.up[id][name] = at
			}
		}
	}
	r.known, r.masters, r.doubt = known, masters, false
	for _, id := range gone {
		r.doubt = r.doubt || !r.need[id]
	}
	r.mu.Unlock()
	if found && !first {
		s.log.WarnContext(ctx, "a master has a replica that was not known before: logouts wait for it from now on",
			"event", "redis_replica_awaited")
	}
}

// runReplicated runs a script and waits until replicas have what it wrote. Both use one connection, since WAIT waits
// for the last write of its own connection. The client would follow a redirection on another connection, so it is not
// followed: the call is tried again. With [errReplicas] there is an answer too. That error is also returned when all
// connections that may wait stay in use: then the script is run without waiting. timeout bounds both waits together.
func (s *Store) runReplicated(
	ctx context.Context, b bucket, c call, timeout time.Duration,
) (rueidis.RedisMessage, error) {
	if !s.waits() {
		return s.run(ctx, c)
	}
	timeout /= 2 // half for a connection, half for the replicas
	release, ok := s.replicas.acquire(ctx, b, timeout)
	if !ok {
		answer, err := s.run(ctx, c)
		if err == nil {
			err = errReplicas
		}
		return answer, err
	}
	defer release()
	for {
		answer, err := s.tryReplicated(ctx, c, timeout)
		if err != nil {
			s.recheckTopology()
		}
		refused, ok := rueidis.IsRedisErr(err)
		if !ok {
			return answer, err
		}
		if _, moved := refused.IsMoved(); !moved && !didNotRun(err) || !wait.Sleep(ctx, 20*time.Millisecond) {
			return answer, fmt.Errorf("redis: %s: %w", c.script.name, err)
		}
	}
}

func (s *Store) tryReplicated(ctx context.Context, c call, timeout time.Duration) (rueidis.RedisMessage, error) {
	client, release := s.client.Dedicate()
	defer release()
	answer, err := client.Do(ctx, c.byDigest(client.B())).ToMessage()
	if unknownScript(err) {
		answer, err = client.Do(ctx, c.byText(client.B())).ToMessage()
	}
	if err != nil {
		return answer, err
	}
	id, n, err := s.requiredOn(ctx, client)
	if err != nil || n == 0 {
		return answer, err
	}
	got, err := client.Do(ctx, client.B().Wait().Numreplicas(int64(n)).Timeout(max(1, timeout.Milliseconds())).
		Build()).AsInt64()
	if err != nil {
		return answer, err
	}
	tooFew := got < int64(n)
	if s.replicas.setAway(id, tooFew) {
		if tooFew {
			s.log.WarnContext(ctx,
				"too few replicas acknowledge logouts: they are carried out and answered 503 until enough do",
				"event", "redis_replicas_away", "acknowledged", got, "wanted", n)
		} else {
			s.log.WarnContext(ctx, "enough replicas acknowledge logouts again", "event", "redis_replicas_back")
		}
	}
	if tooFew {
		err = errReplicas
	}
	return answer, err
}

// requiredOn asks the node behind a connection for its ID, and returns how many of its replicas to wait for. A map of
// the slots is not enough: it may be older than a failover or a move.
func (s *Store) requiredOn(ctx context.Context, client rueidis.DedicatedClient) (id string, n int, err error) {
	if !s.replicas.auto {
		return "", s.replicas.fixed, nil
	}
	questions := rueidis.Commands{client.B().Info().Section("replication").Build()}
	if s.cluster {
		questions = append(questions, client.B().ClusterMyid().Build())
	}
	answers := client.DoMulti(ctx, questions...)
	text, unasked := answers[0].ToString()
	if s.cluster {
		// If this user may not ask, assume that the node has a replica.
		if id, err = answers[1].ToString(); err != nil {
			if _, refused := rueidis.IsRedisErr(err); refused {
				return "", max(1, connected(text)), nil
			}
			return "", 0, err
		}
	}
	n, known := s.replicas.required(id)
	if n == 0 && !known {
		if err := s.checkTopology(ctx); err != nil {
			return id, max(1, connected(text)), nil
		}
		if n, known = s.replicas.required(id); !known {
			n = 1
		}
	}
	if n > 0 {
		return id, max(n, connected(text)), nil
	}
	if unasked != nil {
		return id, 0, unasked
	}
	// A replica may have been added since the last check.
	if !strings.Contains(text, "connected_slaves:0") {
		s.replicas.mu.Lock()
		s.replicas.need[id] = true
		s.replicas.mu.Unlock()
		s.log.WarnContext(ctx, "a master has a replica that was not known before: logouts wait for it from now on",
			"event", "redis_replica_awaited")
		n = max(1, connected(text))
	}
	return id, n, nil
}

// connected returns how many replicas are connected to a master and follow it, by what it says of them.
func connected(info string) int { return strings.Count(info, "state=online") }

// warnAboutReplicas warns, when a store is opened, of masters that have no replica, and of replicas that are down.
// connected is the smallest number of replicas that are connected to a master.
func (s *Store) warnAboutReplicas(ctx context.Context, connected int) {
	if s.replicas.auto {
		if at, found := s.replicas.masterWithoutReplica(); found {
			s.log.WarnContext(ctx, "a master has no replica, so its logouts wait for none until it has one: "+
				"give it one, or set wait_replicas=0", "event", "redis_no_replica", "node", at)
			return
		}
	}
	if want := max(1, s.replicas.fixed); s.waits() && connected < want {
		s.log.WarnContext(ctx, "too few replicas are connected, so logouts are carried out and answered 503 until "+
			"enough are: start them, or set wait_replicas=0",
			"event", "redis_replicas_away", "acknowledged", connected, "wanted", want)
	}
}
