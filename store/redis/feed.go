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

// The feed. Each message carries a random token and the token of the one before it in its bucket, and the script that
// publishes it leaves its token in the bucket's last key, all in one step with the removal. So the messages of a bucket
// are a chain, and its end can be read.
//
// Sync reads the ends of all chains from the masters and succeeds when the messages with these tokens were handed over,
// with no link missing since the last Sync. That proves what it promises by itself, however messages travel: an ending
// that was complete before Sync is at or before the end that Sync reads, and everything up to there has been handed
// over. A message sent by us and received back would prove less: while a slot moves, endings are carried out and
// published where the slot goes to, and our own message would still come back from where it came from. Nor is there any
// need to know whether a connection is alive: if none ended meanwhile nothing was missed, and if some did, their tokens
// do not come.
//
// A subscription that breaks, or moves to another server, counts as a gap all the same, and begins a new chain: after a
// failover the new master may know less than the old one published.

// tokenSize is 128 bits: nobody guesses one, and none comes twice.
const tokenSize = 16

type token [tokenSize]byte

var (
	errGap       = errors.New("redis: the feed: something may have been missed")
	errNotHeard  = errors.New("redis: the feed: what ended was not heard of in time")
	errNotListen = errors.New("redis: the feed: not subscribed")
)

// line is one subscription: of all buckets on one server, of one bucket on a Cluster.
type line struct {
	channel string
	first   int // bucket
	count   int
}

// listener keeps the subscriptions of a store and follows the chains. It is started by the first Watch.
type listener struct {
	s      *Store
	client rueidis.Client // of its own: cutting the feed does not cut the store, nor the other way round
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, when up or gaps change
	up      int           // lines that are subscribed
	lines   []*subscribed
	gaps    int // how often something may have been missed
	last    [buckets]token
	known   [buckets]bool // whether last is the end of the chain as far as it was heard
	waiting map[*waiter]struct{}
}

type subscribed struct {
	line
	isUp   bool
	cancel context.CancelFunc // ends the subscription; it is made anew
}

// waiter is a Sync under way.
type waiter struct {
	began   [buckets]token          // the ends of the chains as far as they were heard when it began
	seen    map[heardToken]struct{} // heard since, until it knows what it waits for
	pending map[heardToken]struct{} // what it waits for
	done    chan struct{}
}

type heardToken struct {
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
	option := s.option
	option.DisableRetry = true    // which would subscribe again behind our back
	option.PipelineMultiplex = -1 // one connection to each server
	client, err := dial(ctx, option)
	if err != nil {
		return nil, fmt.Errorf("redis: watch: %w", err)
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &listener{s: s, client: client, cancel: cancel, changed: make(chan struct{}),
		waiting: make(map[*waiter]struct{})}
	if s.cluster {
		for b := range buckets {
			l.lines = append(l.lines, &subscribed{line: line{s.key(bucket(b), keyFeed), b, 1}})
		}
	} else {
		l.lines = []*subscribed{{line: line{s.channel, 0, buckets}}}
	}
	for _, sub := range l.lines {
		l.done.Go(func() { l.keep(life, sub) })
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

// keep subscribes, again and again.
func (l *listener) keep(life context.Context, sub *subscribed) {
	for life.Err() == nil {
		ctx, cancel := context.WithCancel(life)
		l.mu.Lock()
		sub.cancel = cancel
		l.mu.Unlock()
		hooked := rueidis.WithOnSubscriptionHook(ctx, func(e rueidis.PubSubSubscription) {
			if e.Kind == "subscribe" || e.Kind == "ssubscribe" {
				l.subscribed(sub)
			}
		})
		// Receive ends when the connection breaks, when the server says that the slot has moved, and on our wish. All
		// are the same here.
		_ = l.client.Receive(hooked, l.subscribe(sub.channel), l.hear)
		cancel()
		l.lost(sub)
		l.s.suspectTopology()
		wait.Sleep(life, 50*time.Millisecond)
	}
}

func (l *listener) subscribe(channel string) rueidis.Completed {
	if l.s.cluster {
		return l.client.B().Ssubscribe().Channel(channel).Build()
	}
	return l.client.B().Subscribe().Channel(channel).Build()
}

// subscribed begins the chains of a subscription: where they are is not known yet.
func (l *listener) subscribed(sub *subscribed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sub.isUp { // subscribed anew without a word
		l.gap()
	} else {
		sub.isUp = true
		l.up++
	}
	for b := sub.first; b < sub.first+sub.count; b++ {
		l.known[b] = false
	}
	l.tellAll()
}

func (l *listener) lost(sub *subscribed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sub.isUp {
		sub.isUp = false
		l.up--
		l.gap()
	}
}

// gap says that something may have been missed. l.mu is held.
func (l *listener) gap() {
	l.gaps++
	l.tellAll()
}

func (l *listener) tellAll() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// renew ends all subscriptions, to make them anew: messages did not come, though nobody said that a connection is
// broken.
func (l *listener) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap()
	for _, sub := range l.lines {
		sub.cancel()
	}
}

// hear takes a message: it hands over what ended, and only then counts it as heard.
func (l *listener) hear(m rueidis.PubSubMessage) {
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
		l.gap() // no message of ours, or of another release
		return
	}
	l.s.hub.Publish(ended)
	l.mu.Lock()
	defer l.mu.Unlock()
	// The message whose token was read already was on its way while Sync read it.
	if l.known[b] && before != l.last[b] && own != l.last[b] {
		l.gap()
	}
	first := !l.known[b]
	l.last[b], l.known[b] = own, true
	for w := range l.waiting {
		if first { // who reads the end from before it has read where this chain begins
			w.hear(heardToken{b, before})
		}
		w.hear(heardToken{b, own})
	}
}

func (w *waiter) hear(h heardToken) {
	if w.pending == nil {
		w.seen[h] = struct{}{}
		return
	}
	if _, waits := w.pending[h]; !waits {
		return
	}
	if delete(w.pending, h); len(w.pending) == 0 {
		close(w.done)
	}
}

// sync returns how many gaps there were, when everything that ended before has been heard of.
func (l *listener) sync(ctx context.Context) (gaps int, err error) {
	w := &waiter{seen: make(map[heardToken]struct{}), done: make(chan struct{})}
	l.mu.Lock()
	gaps = l.gaps
	if l.up < len(l.lines) {
		l.mu.Unlock()
		return gaps, errNotListen
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
			return gaps, errNotHeard
		}
	}
}

// await says whether all chains have been heard to their ends; what is missing, w waits for. A chain that nothing was
// heard of since it was subscribed to begins at its end.
func (l *listener) await(w *waiter, ends *[buckets]token) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.pending = make(map[heardToken]struct{})
	for b, end := range ends {
		h := heardToken{bucket(b), end}
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
	asks := make([]rueidis.Completed, buckets)
	for b := range asks {
		asks[b] = s.client.B().Get().Key(s.key(bucket(b), keyLast)).Build()
	}
	for b, result := range s.client.DoMulti(ctx, asks...) {
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
	gaps int // that it has told of
}

// Watch implements [store.Store]. It returns when the store is subscribed, and fails when that takes too long.
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

// ready waits until all lines are subscribed.
func (l *listener) ready(ctx context.Context) (gaps int, err error) {
	for {
		l.mu.Lock()
		up, changed, gaps := l.up, l.changed, l.gaps
		l.mu.Unlock()
		if up == len(l.lines) {
			return gaps, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, errors.Join(errNotListen, ctx.Err())
		}
	}
}

// Sync implements [store.Feed].
func (f *subscription) Sync(ctx context.Context) error {
	if err := f.Feed.Sync(ctx); err != nil { // over
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
