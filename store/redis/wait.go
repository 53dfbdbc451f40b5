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
	// waitConns is how many connections to one master wait for its replicas at most. WAIT holds a connection of its
	// own.
	waitConns = 16
	// waitIdle is how often such connections that nobody uses are closed.
	waitIdle = 5 * time.Second
	// lookAgain is how often it is looked which masters have replicas, besides after a connection was lost.
	checkEvery = 10 * time.Second
)

// errReplicas: what was asked for is done, and may be undone by a failover.
var errReplicas = errors.New("redis: too few replicas have acknowledged")

// replicas knows how many replicas have to acknowledge an ending.
//
// Unless a number was given it is one where a master has a replica, or is known to be meant to have one: a replica that
// the sentinels or the Cluster know of counts while it is away too. On a Cluster that is said of each node by its id,
// of replicas as well, since each can become a master. It is never taken back while this process runs: a failover
// leaves a master without replicas, and that one needs them as much as the old one did.
type replicas struct {
	auto  bool
	fixed int // unless auto

	mu     sync.Mutex
	need   map[string]bool          // by the id of the node; "" behind sentinels
	known  map[string]bool          // nodes that the last look saw
	doubt  bool                     // a former master is away, and whose replica it will be is not known yet
	home   [buckets]string          // the master of each bucket as of the last look
	places map[string]chan struct{} // of connections that wait, by master
	away   map[string]bool          // masters whose replicas are known to be too few
}

// waits says whether replicas may have to be waited for.
func (s *Store) waits() bool { return s.replicas.auto || s.replicas.fixed > 0 }

// required is how many replicas the node with this id has to wait for, and whether that is known.
func (r *replicas) required(id string) (n int, known bool) {
	if !r.auto {
		return r.fixed, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.need[id] || r.doubt {
		return 1, true
	}
	return 0, r.known[id]
}

// fewest is the id of a master that waits for none, if there is one.
func (r *replicas) fewest() (id string, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.home {
		if !r.need[id] && !r.doubt {
			return id, true
		}
	}
	return "", false
}

// place takes one of the places of connections to the master of a bucket, or gives up after patience.
func (r *replicas) place(ctx context.Context, b bucket, patience time.Duration) (leave func(), ok bool) {
	r.mu.Lock()
	id := r.home[b]
	places := r.places[id]
	if places == nil {
		places = make(chan struct{}, waitConns)
		r.places[id] = places
	}
	r.mu.Unlock()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case places <- struct{}{}:
		return func() { <-places }, true
	case <-t.C:
	case <-ctx.Done():
	}
	return nil, false
}

// nowAway notes whether a master's replicas are too few, and says whether that is news.
func (r *replicas) nowAway(id string, away bool) (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news = r.away[id] != away
	r.away[id] = away
	return news
}

// watchReplicas looks again which masters have replicas: now and then, and when a connection was lost.
func (s *Store) watchReplicas(ctx context.Context) {
	t := time.NewTicker(checkEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-s.suspect:
		}
		looking, cancel := context.WithTimeout(ctx, s.timeout)
		_ = s.look(looking) // what is known stays as it is
		cancel()
		if !wait.Sleep(ctx, time.Second) {
			return
		}
	}
}

// suspectTopology has it looked again soon.
func (s *Store) suspectTopology() {
	select {
	case s.suspect <- struct{}{}:
	default:
	}
}

// look asks the Cluster, or the sentinels, which masters have replicas.
func (s *Store) look(ctx context.Context) error {
	if !s.replicas.auto {
		return nil
	}
	if !s.cluster {
		return s.lookAtSentinels(ctx)
	}
	shards, err := s.client.Do(ctx, s.client.B().ClusterShards().Build()).ToArray()
	if err != nil {
		return fmt.Errorf("redis: which masters have replicas: %w", err)
	}
	known, need := make(map[string]bool), make(map[string]bool)
	var home [buckets]string
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
			if role != "master" {
				continue
			}
			if len(slots) == 0 && strings.HasPrefix(health, "fail") {
				gone = append(gone, id)
			}
			for i := 0; i+1 < len(slots); i += 2 {
				for b := range home {
					if at := int64(b) * 64; slots[i] <= at && at <= slots[i+1] {
						home[b] = id
					}
				}
			}
		}
	}
	s.learn(ctx, known, need, home, gone)
	return nil
}

// lookAtSentinels asks each sentinel: one that was just started may not know of a replica that is away.
func (s *Store) lookAtSentinels(ctx context.Context) error {
	counts := make(chan int, len(s.option.InitAddress))
	for _, at := range s.option.InitAddress {
		go func() {
			n, err := s.askSentinel(ctx, at)
			if err != nil {
				n = -1
			}
			counts <- n
		}()
	}
	most := -1
	for range s.option.InitAddress {
		most = max(most, <-counts)
	}
	// Sentinels are there for masters with replicas; so when none of them says that there are none, there is one.
	s.learn(ctx, map[string]bool{"": true}, map[string]bool{"": most != 0}, [buckets]string{}, nil)
	return nil
}

// askSentinel asks a sentinel how many replicas the master has, those that are away included.
func (s *Store) askSentinel(ctx context.Context, at string) (int, error) {
	o, sentinel := s.option, s.option.Sentinel
	o.InitAddress, o.ForceSingleClient, o.SelectDB = []string{at}, true, 0
	o.Username, o.Password, o.ClientName = sentinel.Username, sentinel.Password, sentinel.ClientName
	o.Dialer, o.TLSConfig = sentinel.Dialer, sentinel.TLSConfig
	o.Sentinel, o.DisableRetry, o.PipelineMultiplex = rueidis.SentinelOption{}, true, -1
	c, err := dial(ctx, o)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	all, err := c.Do(ctx, c.B().Arbitrary("SENTINEL", "REPLICAS", sentinel.MasterSet).Build()).ToArray()
	return len(all), err
}

// learn adds what a look saw to what is known.
func (s *Store) learn(ctx context.Context, known, need map[string]bool, home [buckets]string, gone []string) {
	r := &s.replicas
	r.mu.Lock()
	first, raised := r.known == nil, false
	for id, needs := range need {
		if needs && !r.need[id] {
			r.need[id] = true
			raised = true
		}
	}
	r.known, r.home, r.doubt = known, home, false
	for _, id := range gone {
		r.doubt = r.doubt || !r.need[id]
	}
	r.mu.Unlock()
	if raised && !first {
		s.log.WarnContext(ctx, "a master has a replica that was not known before: logouts wait for it from now on",
			"event", "redis_replica_awaited")
	}
}

// runReplicated runs a script and waits until replicas have what it wrote, on one connection: WAIT asks for the last
// write of that connection. So a redirection is not followed here, as the client would do it on another. With
// [errReplicas] there is an answer all the same. That is so, too, when all connections that may wait are in use for as
// long as patience: then the script is run without waiting.
func (s *Store) runReplicated(ctx context.Context, b bucket, c call, patience time.Duration) (rueidis.RedisMessage,
	error) {
	if !s.waits() {
		return s.run(ctx, c)
	}
	patience /= 2 // for a place, and as long for the replicas
	leave, ok := s.replicas.place(ctx, b, patience)
	if !ok {
		answer, err := s.run(ctx, c)
		if err == nil {
			err = errReplicas
		}
		return answer, err
	}
	defer leave()
	for {
		answer, err := s.tryReplicated(ctx, c, patience)
		if err != nil {
			s.suspectTopology()
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

func (s *Store) tryReplicated(ctx context.Context, c call, patience time.Duration) (rueidis.RedisMessage, error) {
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
	got, err := client.Do(ctx, client.B().Wait().Numreplicas(int64(n)).Timeout(max(1, patience.Milliseconds())).
		Build()).AsInt64()
	if err != nil {
		return answer, err
	}
	few := got < int64(n)
	if s.replicas.nowAway(id, few) {
		if few {
			s.log.WarnContext(ctx, "too few replicas acknowledge logouts: they are carried out and answered 503 "+
				"until enough do",
				"event", "redis_replicas_away", "acknowledged", got, "wanted", n)
		} else {
			s.log.WarnContext(ctx, "enough replicas acknowledge logouts again", "event", "redis_replicas_back")
		}
	}
	if few {
		err = errReplicas
	}
	return answer, err
}

// requiredOn asks the node behind a connection who it is, and says how many of its replicas are to be waited for. A map
// of the slots would not do: it may be older than a failover or a move.
func (s *Store) requiredOn(ctx context.Context, client rueidis.DedicatedClient) (id string, n int, err error) {
	if s.cluster && s.replicas.auto {
		// Who may not ask is taken for one that has a replica.
		if id, err = client.Do(ctx, client.B().ClusterMyid().Build()).ToString(); err != nil {
			if _, refused := rueidis.IsRedisErr(err); refused {
				return "", 1, nil
			}
			return "", 0, err
		}
	}
	n, known := s.replicas.required(id)
	if n == 0 && !known {
		if err := s.look(ctx); err != nil {
			return id, 1, nil
		}
		if n, known = s.replicas.required(id); !known {
			n = 1
		}
	}
	if n > 0 {
		return id, n, nil
	}
	// One may have come since the last look.
	text, err := client.Do(ctx, client.B().Info().Section("replication").Build()).ToString()
	if err != nil {
		return id, 0, err
	}
	if !strings.Contains(text, "connected_slaves:0") {
		s.replicas.mu.Lock()
		s.replicas.need[id] = true
		s.replicas.mu.Unlock()
		s.log.WarnContext(ctx, "a master has a replica that was not known before: logouts wait for it from now on",
			"event", "redis_replica_awaited")
		n = 1
	}
	return id, n, nil
}

// tellReplicas warns, when a store is opened, of masters that have no replica, and of replicas that are away. Connected
// is how many the master has that has fewest.
func (s *Store) tellReplicas(ctx context.Context, connected int) {
	if s.replicas.auto {
		if at, found := s.replicas.fewest(); found {
			s.log.WarnContext(ctx, "a master has no replica, so its logouts wait for none until it has one: "+
				"give it one, or say wait_replicas=0", "event", "redis_no_replica", "node", at)
			return
		}
	}
	if want := max(1, s.replicas.fixed); s.waits() && connected < want {
		s.log.WarnContext(ctx, "too few replicas are connected, so logouts are carried out and answered 503 until "+
			"enough are: "+
			"start them, or say wait_replicas=0", "event", "redis_replicas_away", "acknowledged", connected, "wanted",
			want)
	}
}
