package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// errClosed answers every method of a closed store.
var errClosed = errors.New("redis: the store is closed")

// Options say how to open a store. The zero value is good.
type Options struct {
	// Prefix begins every key and channel. Empty means "curfew:". It may not hold "{".
	Prefix string
	// Timeout bounds each method, however many steps it takes. 0 means 2 s.
	Timeout time.Duration
	// DialTimeout bounds how long connecting to one server takes. 0 means 1 s.
	DialTimeout time.Duration
	// TLS is used for rediss, rediss+cluster and rediss+sentinel addresses, before what the address says. Nil means the
	// certificates that this machine trusts.
	TLS *tls.Config
	// WaitReplicas is how many replicas must have acknowledged an ending before End answers nil: else a failover could
	// bring sessions back that ended just before it. 0 means one for each master, behind sentinels or of a Cluster,
	// that has a replica or is known to be meant to have one, also while that is away; and none for a single server.
	// Less than 0 means none.
	WaitReplicas int
	// Log is told when the server may lose what it is given, and when the replicas that are waited for change. Nil
	// tells nobody.
	Log *slog.Logger
}

var _ store.Store = (*Store)(nil)

// Store keeps sessions, notices and the shared values in Redis or Valkey.
type Store struct {
	client  rueidis.Client
	option  rueidis.ClientOption // for the connections of the feed and of the clock
	cluster bool
	timeout time.Duration
	round   time.Duration // of the steps of an ending, before others have their turn; see steps
	channel string        // of the feed, where all buckets share one
	tags    *[buckets]string
	scripts *scripts
	log     *slog.Logger

	replicas replicas
	suspect  chan struct{} // asks for a look at the replicas
	watching sync.WaitGroup
	unwatch  context.CancelFunc

	clock     clockLine
	hub       store.Hub
	listening sync.Mutex // held to start and to stop the listener
	listener  *listener

	gate   sync.RWMutex // held for reading while a method is under way, for writing to close
	closed bool
}

// Open connects to the server, or servers, that address names:
//
//	redis://[user:password@]host[:port][/db]          rediss://… with TLS
//	redis+cluster://[user:password@]host:port,…       rediss+cluster://…
//	redis+sentinel://[user:password@]host:port,…/master[/db]   rediss+sentinel://…
//
// With TLS, cacert=FILE, cert=FILE and key=FILE may follow a question mark; sentinel_user=… and sentinel_password=… for
// sentinels that want to know who asks; and prefix=… and wait_replicas=…, which go before the options. It fails when no
// server answers, when one is too old (before 6.2, or 7.0 in a Cluster) and when a Cluster is addressed as if it were
// none. No error repeats the address, which may hold a password.
func Open(ctx context.Context, address string, o Options) (_ *Store, err error) {
	a, err := parseAddress(address, o.TLS)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	o.Prefix = cmp.Or(a.prefix, o.Prefix, "curfew:")
	switch {
	case a.waitReplicas == 0:
		o.WaitReplicas = -1
	case a.waitReplicas > 0:
		o.WaitReplicas = a.waitReplicas
	}
	if strings.ContainsAny(o.Prefix, "{}") {
		return nil, errors.New("redis: a prefix with a brace would decide where keys lie")
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		cluster: a.kind == kindCluster,
		timeout: o.Timeout,
		round:   o.Timeout / 4,
		log:     o.Log,
		suspect: make(chan struct{}, 1),
		unwatch: func() {},
		replicas: replicas{auto: o.WaitReplicas == 0 && a.kind != kindSingle, fixed: max(0, o.WaitReplicas),
			need: make(map[string]bool), places: make(map[string]chan struct{}), away: make(map[string]bool)},
		// Channels are of all databases of a server; sessions are of one.
		channel: fmt.Sprintf("%s%d:ended", o.Prefix, a.option.SelectDB),
		tags:    hashTags(o.Prefix),
	}
	if s.scripts, err = loadScripts(); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	s.option = a.option
	s.option.Dialer = net.Dialer{Timeout: o.DialTimeout, KeepAlive: time.Second}
	s.option.Sentinel.Dialer = s.option.Dialer
	// A frozen server is found out about when this has passed, which must not be long after the ceiling of the cache.
	s.option.ConnWriteTimeout = time.Second
	s.option.ClusterOption = rueidis.ClusterOption{MaxMovedRedirections: 8}
	s.option.DisableCache = true // the manager has one, which knows what to trust
	s.option.ClientName = "curfew"
	s.option.BlockingPoolCleanup = waitIdle
	if s.client, err = dial(ctx, s.option); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, o.DialTimeout+o.Timeout)
	defer cancel()
	connected, err := s.inspect(ctx, o.Log)
	if err == nil {
		err = s.look(ctx)
	}
	if err != nil {
		s.client.Close()
		return nil, fmt.Errorf("redis: %w", err)
	}
	s.tellReplicas(ctx, connected)
	if s.replicas.auto {
		watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
		s.unwatch = cancel
		s.watching.Go(func() { s.watchReplicas(watching) })
	}
	return s, nil
}

// dial connects. What it is given up for when ctx is done goes on in the background and is closed when it is there.
func dial(ctx context.Context, option rueidis.ClientOption) (rueidis.Client, error) {
	type dialled struct {
		client rueidis.Client
		err    error
	}
	done := make(chan dialled, 1)
	go func() {
		client, err := rueidis.NewClient(option)
		done <- dialled{client, err}
	}()
	select {
	case d := <-done:
		if d.err != nil && d.client != nil {
			d.client.Close()
		}
		return d.client, d.err
	case <-ctx.Done():
		go func() {
			if d := <-done; d.client != nil {
				d.client.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// enter says that a method begins. Whoever got nil must leave.
func (s *Store) enter(ctx context.Context) error {
	s.gate.RLock()
	err := ctx.Err()
	if s.closed {
		err = errClosed
	}
	if err != nil {
		s.gate.RUnlock()
	}
	return err
}

// read begins a method that changes nothing.
func (s *Store) read(ctx context.Context) (context.Context, func(), error) {
	return s.begin(ctx, ctx)
}

// change begins a method that changes something. Once it has begun it does not end because its caller has gone: what
// was sent is done, and the caller is to hear what became of it. Only the timeout ends it.
func (s *Store) change(ctx context.Context) (context.Context, func(), error) {
	return s.begin(ctx, context.WithoutCancel(ctx))
}

func (s *Store) begin(callers, ours context.Context) (context.Context, func(), error) {
	if err := s.enter(callers); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ours, s.timeout)
	return ctx, func() { cancel(); s.gate.RUnlock() }, nil
}

// Close finishes what is under way and closes the connections.
func (s *Store) Close() error {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.hub.Close()
	s.unwatch()
	s.watching.Wait()
	s.stopListening()
	s.clock.close()
	s.client.Close()
	return nil
}
