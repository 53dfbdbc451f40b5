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
	"example.com/curfew/store/internal/gate"
	"github.com/redis/rueidis"
)

// Options are the options of [Open]. The zero value is ready for use.
type Options struct {
	// Prefix begins every key and channel. Empty means "curfew:". It must not contain a brace.
	Prefix string
	// Timeout bounds each call of a method, however many steps it takes. 0 means 2 s.
	Timeout time.Duration
	// DialTimeout bounds how long connecting to one server takes. 0 means 1 s.
	DialTimeout time.Duration
	// TLS is used for rediss, rediss+cluster and rediss+sentinel addresses; what the address says takes precedence. Nil
	// means the certificates that this machine trusts.
	TLS *tls.Config
	// WaitReplicas is how many replicas must have acknowledged an ending before End returns nil. Without it a failover
	// could bring sessions back that ended just before it. 0 means: behind sentinels and on a Cluster all that are
	// connected, or were up within the last minute, and at least one for a master that has or had a replica; none for a
	// single server. Less than 0 means none.
	WaitReplicas int
	// Log reports when the server may lose what it is given, when the replicas that endings wait for change, and when
	// Open connects again because it took too long. Nil means no log.
	Log *slog.Logger
}

var _ store.Store = (*Store)(nil)

// connBuffer is the size in bytes of each of the two buffers of a connection. There are dozens of connections to a
// Cluster, and what is sent and read at once is a few KiB.
const connBuffer = 64 << 10

// openTimeout bounds what is asked when a store is opened. A machine on which much is being started is slow, and a
// process that gives up would only be started again.
const openTimeout = 10 * time.Second

// Store keeps sessions, notices and the shared values in Redis or Valkey.
type Store struct {
	client  rueidis.Client
	option  rueidis.ClientOption // for the connections of the feed and of the clock
	cluster bool
	timeout time.Duration
	round   time.Duration    // how long one batch of an ending may take; see endTags
	channel string           // of the feed, where all buckets share one
	prefix  string           // of every key
	tags    *[buckets]string // the prefix of the keys of each bucket
	scripts *scripts
	log     *slog.Logger

	replicas  replicas
	sentinels sentinels
	recheck   chan struct{} // commands for a look at the replicas
	watching  sync.WaitGroup
	unwatch   context.CancelFunc

	clock     clockClient
	hub       store.Hub
	listening sync.Mutex // held to start and to stop the listener
	listener  *listener

	gate gate.Gate
}

// Open connects to the server, or servers, that address names:
//
//	redis://[user:password@]host[:port][/db]
//	redis+cluster://[user:password@]host:port,…
//	redis+sentinel://[user:password@]host:port,…/master[/db]
//
// With rediss in place of redis the connections use TLS. After a question mark may follow: cacert=FILE, cert=FILE and
// key=FILE for TLS; sentinel_user=… and sentinel_password=… for sentinels that require them; and prefix=… and
// wait_replicas=…, which take precedence over the options. Open fails when no server answers, when one is too old
// (before 6.2, or 7.0 in a Cluster), and when a Cluster is addressed as a single server or the reverse. No error
// repeats the address, which may contain a password.
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
		return nil, errors.New("redis: a prefix must not contain a brace, which Redis Cluster takes for a hash tag")
	}
	o.Timeout = cmp.Or(o.Timeout, 2*time.Second)
	o.DialTimeout = cmp.Or(o.DialTimeout, time.Second)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	s := &Store{
		cluster: a.kind == kindCluster,
		timeout: o.Timeout,
		round:   o.Timeout / 4,
		log:     o.Log,
		recheck: make(chan struct{}, 1),
		unwatch: func() {},
		replicas: replicas{auto: o.WaitReplicas == 0 && a.kind != kindSingle, fixed: max(0, o.WaitReplicas),
			need: make(map[string]bool), up: make(map[string]seen), conns: make(map[string]chan struct{}),
			away: make(map[string]bool)},
		// All databases of a server share its channels, but sessions are in one database.
		channel: fmt.Sprintf("%s%d:ended", o.Prefix, a.option.SelectDB),
		prefix:  o.Prefix,
		tags:    hashTags(o.Prefix),
	}
	if s.scripts, err = loadScripts(); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	s.option = a.option
	s.option.Dialer = net.Dialer{Timeout: o.DialTimeout, KeepAlive: time.Second}
	s.option.Sentinel.Dialer = s.option.Dialer
	if a.kind == kindSentinel {
		s.option.DialCtxFn = s.dialMaster
	}
	// A server that hangs is noticed after this time. It must not be much longer than copies of sessions are used.
	s.option.ConnWriteTimeout = max(time.Second, o.Timeout/2)
	s.option.ClusterOption = rueidis.ClusterOption{MaxMovedRedirections: 8}
	s.option.DisableCache = true // the session manager has its own
	s.option.ClientName = "curfew"
	s.option.BlockingPoolCleanup = idleConnCleanup
	s.option.ReadBufferEachConn, s.option.WriteBufferEachConn = connBuffer, connBuffer
	patience := max(openTimeout, o.DialTimeout+o.Timeout)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if s.client, err = patiently(ctx, s.option, o.Log); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	connected, err := s.inspect(ctx, o.Log)
	if err == nil {
		err = s.checkTopology(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no complete answer within %v: %w", patience, err)
	}
	if err != nil {
		s.client.Close()
		return nil, fmt.Errorf("redis: %w", err)
	}
	s.warnAboutReplicas(ctx, connected)
	if s.replicas.auto {
		watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
		s.unwatch = cancel
		s.watching.Go(func() { s.watchReplicas(watching) })
	}
	return s, nil
}

// patiently connects to a server that may be slow: until ctx is done, a connection that took too long is tried again.
// Its error is that of the last try that took as long as it may.
func patiently(ctx context.Context, option rueidis.ClientOption, log *slog.Logger) (rueidis.Client, error) {
	var last error
	for {
		client, err := dial(ctx, option)
		if err == nil {
			return client, nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if slow, ok := errors.AsType[net.Error](err); !ok || !slow.Timeout() || ctx.Err() != nil {
			return nil, last
		}
		log.WarnContext(ctx, "connecting to Redis took too long, trying again", "error", err)
	}
}

// dial connects. If ctx is done first, it goes on in the background and closes the connection.
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

// dialOwn connects for one purpose alone, with one connection to each server, over which nothing is retried.
func (s *Store) dialOwn(ctx context.Context) (rueidis.Client, error) {
	option := s.option
	option.DisableRetry, option.PipelineMultiplex = true, -1
	return dial(ctx, option)
}

// read begins a method that changes nothing. The returned function ends it.
func (s *Store) read(ctx context.Context) (context.Context, func(), error) {
	return s.begin(ctx, ctx)
}

// change begins a method that changes something. The returned function ends it. Once begun, the method does not stop
// when the caller's context is done, but only after the timeout: a command that was sent is carried out, so the method
// waits for its result.
func (s *Store) change(ctx context.Context) (context.Context, func(), error) {
	return s.begin(ctx, context.WithoutCancel(ctx))
}

func (s *Store) begin(callers, ours context.Context) (context.Context, func(), error) {
	if err := s.gate.Enter(callers); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ours, s.timeout)
	return ctx, func() { cancel(); s.gate.Leave() }, nil
}

// Close waits for the methods that are running and closes the connections.
func (s *Store) Close() error {
	return s.gate.Close(func() error {
		s.hub.Close()
		s.unwatch()
		s.watching.Wait()
		s.stopListening()
		s.clock.close()
		s.client.Close()
		return nil
	})
}
