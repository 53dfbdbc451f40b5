package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/curfew/internal/wait"
	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// The feed uses Redis's publish/subscribe, which does not report lost messages. So each message carries a random token
// and the token of the previous message of its bucket. The script that ends sessions also publishes the message and
// writes its token under keyLast of the bucket, in one atomic step. So the messages of a bucket form a chain, and the
// end of the chain can be read.
//
// Sync reads the ends of all chains from the masters, and succeeds when the messages with these tokens have been handed
// to the watching functions, and no message of a chain is missing since the last Sync. That is what Sync promises,
// however messages travel: an ending that was complete before Sync is at or before the end that Sync reads, and every
// message up to there has been handed over. To publish a message and wait for it would prove less: while a slot moves,
// endings are published by the new master, while that message could still come from the old one. Sync also need not
// know whether a connection is alive: if no session ended meanwhile nothing was missed, and if some did, their tokens
// do not arrive.
//
// A chain begins with the first message that arrives, or at the end that the first Sync reads. The message of that end
// may still be on its way, or lost: see [store.Feed] about the first Sync.
//
// A subscription that breaks, or moves to another server, always counts as a gap and begins a new chain: after a
// failover the new master may know less than the old one has published.

// tokenSize makes tokens of 128 bits, which cannot be guessed and do not repeat.
const tokenSize = 16

type token [tokenSize]byte

var (
	errGap           = errors.New("redis: the feed: something may have been missed")
	errLate          = errors.New("redis: the feed: messages did not arrive in time")
	errNotSubscribed = errors.New("redis: the feed: not subscribed")
)

// listener keeps the subscriptions of a store and follows the chains. It is started by the first Watch.
type listener struct {
	s      *Store
	client rueidis.Client // of its own: the feed and the store lose their connections independently
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when up or gaps change
	up       int           // how many channels are subscribed to
	channels []*channel
	gaps     int // how often something may have been missed
	last     [buckets]token
	known    [buckets]bool // whether last is the token of the last message received
	waiting  map[*waiter]struct{}
}

// channel is one channel that the listener subscribes to: of all buckets on one server, of one bucket on a Cluster.
type channel struct {
	name   string
	first  int // the first bucket
	count  int // how many buckets
	isUp   bool
	cancel context.CancelFunc // ends the subscription, which is then renewed
}

// waiter is a Sync under way.
type waiter struct {
	began   [buckets]token        // the last tokens received when it began
	seen    map[received]struct{} // received since then, until it knows what it waits for
	pending map[received]struct{} // what it waits for
	done    chan struct{}
}

type received struct {
	bucket bucket
	token  token
}

// listen returns the listener, started if need be.
func (s *Store) listen(ctx context.Context) (*listener, error) {
	s.listening.Lock()
	defer s.listening.Unlock()
	if s.listener != nil {
		return s.listener, nil
	}
	client, err := s.dialOwn(ctx) // a retry would hide a broken subscription
	if err != nil {
		return nil, fmt.Errorf("redis: watch: %w", err)
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &listener{s: s, client: client, cancel: cancel, changed: make(chan struct{}),
		waiting: make(map[*waiter]struct{})}
	if s.cluster {
		for b := range buckets {
			l.channels = append(l.channels, &channel{name: s.key(bucket(b), keyFeed), first: b, count: 1})
		}
	} else {
		l.channels = []*channel{{name: s.channel, count: buckets}}
	}
	for _, c := range l.channels {
		l.done.Go(func() { l.keepSubscribed(life, c) })
	}
	s.listener = l
	return l, nil
}

func (s *Store) stopListening() {
	s.listening.Lock()
	defer s.listening.Unlock()
	if s.listener != nil {
		s.listener.cancel()
		s.listener.client.Close()
		s.listener.done.Wait()
	}
}

// keepSubscribed subscribes to a channel, again and again.
func (l *listener) keepSubscribed(life context.Context, c *channel) {
	for life.Err() == nil {
		ctx, cancel := context.WithCancel(life)
		l.mu.Lock()
		c.cancel = cancel
		l.mu.Unlock()
		hooked := rueidis.WithOnSubscriptionHook(ctx, func(e rueidis.PubSubSubscription) {
			if e.Kind == "subscribe" || e.Kind == "ssubscribe" {
				l.subscribed(c)
			}
		})
		// Receive returns when the connection breaks, when the slot moves, and when ctx is done. All have the same
		// effect here.
		_ = l.client.Receive(hooked, l.subscribe(c.name), l.receive)
		cancel()
		l.lost(c)
		l.s.recheckTopology()
		wait.Sleep(life, 50*time.Millisecond)
	}
}

func (l *listener) subscribe(channel string) rueidis.Completed {
	if l.s.cluster {
		return l.client.B().Ssubscribe().Channel(channel).Build()
	}
	return l.client.B().Subscribe().Channel(channel).Build()
}

// subscribed begins the chains of a channel. Their last tokens are not known yet.
func (l *listener) subscribed(c *channel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.isUp { // the client subscribed again without reporting a break
		l.gap()
	} else {
		c.isUp = true
		l.up++
	}
	for b := c.first; b < c.first+c.count; b++ {
		l.known[b] = false
	}
	l.signal()
}

func (l *listener) lost(c *channel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.isUp {
		c.isUp = false
		l.up--
		l.gap()
	}
}

// gap records that messages may have been missed. l.mu must be held.
func (l *listener) gap() {
	l.gaps++
	l.signal()
}

func (l *listener) signal() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// renew ends all subscriptions, so that they are made again: messages did not arrive, though no connection was reported
// broken.
func (l *listener) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap()
	for _, c := range l.channels {
		c.cancel()
	}
}

// receive handles a message: it hands over the ended sessions, and only then counts the message as received.
func (l *listener) receive(m rueidis.PubSubMessage) {
	var before, own token
	d := decoder{rest: m.Message}
	copy(before[:], d.take(tokenSize))
	copy(own[:], d.take(tokenSize))
	b := d.byte()
	cause := store.Cause(d.text())
	at := store.FromMicros(d.int64())
	var ended []store.Ended
	for d.rest != "" && !d.short {
		ended = append(ended, d.endedSession(cause, at))
	}
	if d.short {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.gap() // not a message of this package, or one of another release
		return
	}
	l.s.hub.Publish(ended)
	l.mu.Lock()
	defer l.mu.Unlock()
	// own equals last when Sync read the token from the server before the message arrived.
	if l.known[b] && before != l.last[b] && own != l.last[b] {
		l.gap()
	}
	first := !l.known[b]
	l.last[b], l.known[b] = own, true
	for w := range l.waiting {
		if first { // a Sync may have read the token before this one as the end of the chain
			w.receive(received{b, before})
		}
		w.receive(received{b, own})
	}
}

func (w *waiter) receive(h received) {
	if w.pending == nil {
		w.seen[h] = struct{}{}
		return
	}
	if _, ok := w.pending[h]; !ok {
		return
	}
	if delete(w.pending, h); len(w.pending) == 0 {
		close(w.done)
	}
}

// sync waits until all messages published before the call have been received. It returns how many gaps there were in
// all.
func (l *listener) sync(ctx context.Context) (gaps int, err error) {
	w := &waiter{seen: make(map[received]struct{}), done: make(chan struct{})}
	l.mu.Lock()
	gaps = l.gaps
	if l.up < len(l.channels) {
		l.mu.Unlock()
		return gaps, errNotSubscribed
	}
	l.waiting[w] = struct{}{}
	w.began = l.last
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiting, w)
		if gaps != l.gaps && err == nil {
			gaps, err = l.gaps, errGap
		}
	}()
	ends, err := l.s.ends(ctx)
	if err != nil {
		return gaps, err
	}
	if l.await(w, ends) {
		return gaps, nil
	}
	for {
		l.mu.Lock()
		changed, now := l.changed, l.gaps
		l.mu.Unlock()
		if now != gaps {
			return now, errGap
		}
		select {
		case <-w.done:
			return gaps, nil
		case <-changed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				l.renew()
			}
			return gaps, errLate
		}
	}
}

// await reports whether all chains have been received to their ends. If not, w waits for those that are missing. A
// chain without a message since it was subscribed to begins at its end.
func (l *listener) await(w *waiter, ends *[buckets]token) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.pending = make(map[received]struct{})
	for b, end := range ends {
		h := received{bucket(b), end}
		_, seen := w.seen[h]
		switch {
		case !l.known[b]:
			l.last[b], l.known[b] = end, true
		case w.began[b] != end && !seen:
			w.pending[h] = struct{}{}
		}
	}
	return len(w.pending) == 0
}

// ends reads the end of each chain.
func (s *Store) ends(ctx context.Context) (*[buckets]token, error) {
	var ends [buckets]token
	set := func(b int, raw string, err error) error {
		if err != nil && !rueidis.IsRedisNil(err) {
			return fmt.Errorf("redis: the feed: %w", err)
		}
		copy(ends[b][:], raw)
		return nil
	}
	if !s.cluster {
		keys := make([]string, buckets)
		for b := range keys {
			keys[b] = s.key(bucket(b), keyLast)
		}
		all, err := s.client.Do(ctx, s.client.B().Mget().Key(keys...).Build()).ToArray()
		if err != nil {
			return nil, fmt.Errorf("redis: the feed: %w", err)
		}
		if len(all) != buckets {
			return nil, errAnswer
		}
		for b := range all {
			raw, err := all[b].ToString()
			if err := set(b, raw, err); err != nil {
				return nil, err
			}
		}
		return &ends, nil
	}
	commands := make([]rueidis.Completed, buckets)
	for b := range commands {
		commands[b] = s.client.B().Get().Key(s.key(bucket(b), keyLast)).Build()
	}
	for b, result := range s.client.DoMulti(ctx, commands...) {
		raw, err := result.ToString()
		if err := set(b, raw, err); err != nil {
			return nil, err
		}
	}
	return &ends, nil
}

// subscription is what Watch returns.
type subscription struct {
	store.Feed // of this process
	s          *Store
	listener   *listener

	mu   sync.Mutex
	gaps int // that Sync has reported
}

// Watch implements [store.Store]. It returns when the store is subscribed, and fails when that takes longer than the
// timeout.
func (s *Store) Watch(ctx context.Context, fn func(store.Ended)) (store.Feed, error) {
	waiting, leave, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	l, err := s.listen(waiting)
	if err != nil {
		return nil, err
	}
	gaps, err := l.ready(waiting)
	if err != nil {
		return nil, err
	}
	local, err := s.hub.Watch(ctx, fn)
	if err != nil {
		return nil, err
	}
	return &subscription{Feed: local, s: s, listener: l, gaps: gaps}, nil
}

// ready waits until all channels are subscribed to.
func (l *listener) ready(ctx context.Context) (gaps int, err error) {
	for {
		l.mu.Lock()
		up, changed, gaps := l.up, l.changed, l.gaps
		l.mu.Unlock()
		if up == len(l.channels) {
			return gaps, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, errors.Join(errNotSubscribed, ctx.Err())
		}
	}
}

// Sync implements [store.Feed].
func (f *subscription) Sync(ctx context.Context) error {
	if err := f.Feed.Sync(ctx); err != nil { // the subscription is over
		return err
	}
	waiting, leave, err := f.s.read(ctx)
	if err != nil {
		return err
	}
	defer leave()
	gaps, err := f.listener.sync(waiting)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && gaps != f.gaps {
		err = errGap
	}
	f.gaps = gaps
	if err == nil {
		err = f.Feed.Sync(ctx) // it may have ended meanwhile
	}
	return err
}
