package redis

import (
	"context"
	"net"
	"time"

	"example.com/curfew/store"
)

// HashTagOf is the hash tag of a bucket.
func HashTagOf(b byte) string { return hashTags("")[b] }

// Start is the beginning of the keys of a session's bucket, and Keys some of them.
func (s *Store) Start(k store.Key) string { return s.tags[k[0]] }

// PointerOf is the key of the pointer from a sid.
func (s *Store) PointerOf(issuer, clientID, sid string) string {
	n := sidName(issuer, clientID, sid)
	return s.named(n[0], keyPointer, n[:])
}

// QueueKeys are the keys of the lists of queues of all buckets.
func (s *Store) QueueKeys() (keys []string) {
	for b := range buckets {
		keys = append(keys, s.key(bucket(b), keyQueues))
	}
	return keys
}

// LastKeys are the keys of the ends of all chains.
func (s *Store) LastKeys() (keys []string) {
	for b := range buckets {
		keys = append(keys, s.key(bucket(b), keyLast))
	}
	return keys
}

// OrderedKeys are the ordered lists that grow with the sessions, of all buckets.
func (s *Store) OrderedKeys() (keys []string) {
	for b := range buckets {
		keys = append(keys, s.key(bucket(b), keyExpiry), s.key(bucket(b), keyTags))
	}
	return keys
}

// Channel is where the feed of one server is.
func (s *Store) Channel() string { return s.channel }

// CreateSteps are the steps of Create, to be done one by one: two on a Cluster, one on one server.
func (s *Store) CreateSteps(ctx context.Context, r store.Record, began time.Time) []func() error {
	return s.writeSteps(ctx, r, s.scripts.create, 0, began, began)
}

// RenameSteps are the steps of Rename, to be done one by one.
func (s *Store) RenameSteps(ctx context.Context, r store.Record, began, now time.Time) []func() error {
	return s.writeSteps(ctx, r, s.scripts.rename, r.Revision, began, now)
}

func (s *Store) writeSteps(
	ctx context.Context, r store.Record, script *script, revision int64, began, now time.Time,
) (steps []func() error) {
	pointed := pointedUntil(&r)
	if s.cluster {
		steps = append(steps, func() (err error) {
			pointed, err = s.point(ctx, &r, decimal(began))
			return err
		})
	}
	return append(steps, func() error {
		return s.writeSession(ctx, &r, script, revision, pointed, began, began, now)
	})
}

// FormerSIDs is how many entries the index of former sids has in which a session is.
func (s *Store) FormerSIDs(ctx context.Context, k store.Key) (int64, error) {
	return s.client.Do(ctx, s.client.B().Zcard().Key(s.named(k[0], keyFormer, k[:4])).Build()).AsInt64()
}

// EndSteps are the steps of an ending of a sid alone, to be done one by one.
func (s *Store) EndSteps(ctx context.Context, e store.Ending, now time.Time) (begin func() error,
	endTags func() ([]store.Ended, error), confirm func() error) {
	now = store.Time(now)
	st := s.stepsOf(e, now)
	var tags []string
	return func() (err error) {
			tags, err = st.begin(ctx)
			return err
		}, func() ([]store.Ended, error) {
			ended, _, err := s.endTags(ctx, tags, e, now, false, map[string]bool{})
			return ended, err
		}, func() error { return st.confirm(ctx) }
}

// ShortRounds has each round of an ending do the least that it can.
func (s *Store) ShortRounds() { s.round = 1 }

// Bind is the step that a Cluster needs before an ending with a jti.
func (s *Store) Bind(ctx context.Context, e store.Ending, now time.Time) error {
	_, err := s.bind(ctx, e, store.Time(now), false)
	return err
}

// EnqueueSteps are the steps of Enqueue on a Cluster.
func (s *Store) EnqueueSteps(ctx context.Context, n store.Notice) (put, wake func() error) {
	var first map[place]string
	return func() (err error) {
		first, err = s.put(ctx, []store.Notice{n})
		return err
	}, func() error { s.wakeAll(ctx, first); return nil }
}

// ClaimSteps are the steps of Claim.
func (s *Store) ClaimSteps(ctx context.Context, kind store.NoticeKind, target string, now time.Time,
	lease time.Duration) (read, claim, reschedule func() error, claimed *[]store.Notice) {
	queue := queueName(kind, target)
	var wakeups []wakeup
	var next map[place]string
	claimed = new([]store.Notice)
	return func() (err error) {
			wakeups, err = s.wakeups(ctx, queue)
			return err
		}, func() (err error) {
			_, *claimed, next, err = s.claimDue(ctx, wakeups, now, lease, 100)
			return err
		}, func() error { s.reschedule(ctx, queue, wakeups, next); return nil }, claimed
}

// WakeupOf is the key of the wake-up of a queue.
func (s *Store) WakeupOf(kind store.NoticeKind, target string) string {
	return s.wakeupKey(queueName(kind, target))
}

// RoundTrip encodes and decodes a session.
func RoundTrip(r store.Record) (store.Record, error) {
	decoded, _, err := decode(r.Key, string(encode(&r, 0)))
	return decoded, err
}

// Decode decodes what may be anything.
func Decode(raw string) (store.Record, error) {
	r, _, err := decode(store.Key{}, raw)
	return r, err
}

// WaitFor is how many replicas are waited for by every master.
func (s *Store) WaitFor() int {
	if !s.replicas.auto {
		return s.replicas.fixed
	}
	if _, found := s.replicas.masterWithoutReplica(); found {
		return 0
	}
	return 1
}

// WaitConns is how many connections to one master wait at most.
const WaitConns = waitConns

// Look looks which masters have replicas.
func (s *Store) Look(ctx context.Context) error { return s.checkTopology(ctx) }

// DialMaster connects as the client does behind sentinels.
func (s *Store) DialMaster(ctx context.Context, at string) (net.Conn, error) {
	return s.dialMaster(ctx, at, &s.option.Dialer, nil)
}
