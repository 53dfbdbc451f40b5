package redis

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// queueID is what the name of a queue is the hash of.
type queueID struct {
	kind   store.NoticeKind
	target string
}

// allQueues returns the queues of each bucket that have notices.
func (s *Store) allQueues(ctx context.Context) (*[buckets]map[name]queueID, error) {
	commands := make([]rueidis.Completed, buckets)
	for b := range commands {
		commands[b] = s.client.B().Hgetall().Key(s.key(bucket(b), keyQueues)).Build()
	}
	var all [buckets]map[name]queueID
	for b, result := range s.do(ctx, commands) {
		found, err := result.AsStrMap()
		if err != nil {
			return nil, fmt.Errorf("redis: notices: %w", err)
		}
		for queue, raw := range found {
			if all[b] == nil {
				all[b] = make(map[name]queueID)
			}
			if len(queue) != nameSize {
				return nil, errDamaged
			}
			d := decoder{rest: raw}
			all[b][name([]byte(queue))] = queueID{store.NoticeKind(d.text()), d.text()}
		}
	}
	return &all, nil
}

// Enqueue implements [store.Outbox]. All notices of one call are put into one bucket, whatever their subjects, so that
// all or none are added. It waits for replicas, but succeeds without them: after an error the caller would add the
// notices again.
func (s *Store) Enqueue(ctx context.Context, notices []store.Notice) error {
	added, err := store.NewNotices(notices)
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	ctx, leave, err := s.change(ctx)
	if err != nil || len(added) == 0 {
		if err == nil {
			leave()
		}
		return err
	}
	defer leave()
	first, err := s.put(ctx, added)
	if err == nil {
		s.wakeAll(ctx, first)
	}
	return err
}

// put adds notices. first is when the first of them is due at each place, for the wake-ups.
func (s *Store) put(ctx context.Context, notices []store.Notice) (first map[place]string, err error) {
	tag := store.Tag(notices[0].Issuer, notices[0].ClientID, notices[0].Subject)
	b := bucket(tag[0])
	ids := noticeIDs(b)
	args := []string{s.key(b, ""), s.wakeupPrefix()}
	first = make(map[place]string)
	for i, n := range notices {
		queue := queueName(n.Kind, n.Target)
		key := ""
		if !n.Key.IsZero() {
			key = string(n.Key[:])
		}
		args = append(args, string(queue[:]), ids+"-"+strconv.Itoa(i+1), decimal(n.Due), template(n), key,
			about(n.Issuer, n.ClientID, n.Subject, n.SID), string(n.Payload))
		at := place{b, queue}
		if before, ok := first[at]; !ok || store.Micros(n.Due) < number(before) {
			first[at] = decimal(n.Due)
		}
	}
	_, err = s.runReplicated(ctx, b, call{s.scripts.enqueue, []string{s.key(b, keyQueues)}, args}, s.timeout/2)
	if errors.Is(err, errReplicas) {
		err = nil
	}
	return first, err
}

// number parses a number that a script or this package has written.
func number(decimal string) int64 {
	n, _ := strconv.ParseInt(decimal, 10, 64)
	return n
}

// Notices implements [store.Outbox]. The order is that of the IDs, so bucket by bucket.
func (s *Store) Notices(ctx context.Context, q store.NoticeQuery) (store.NoticePage, error) {
	limit, err := q.PageSize()
	if err != nil {
		return store.NoticePage{}, fmt.Errorf("redis: %w", err)
	}
	ctx, leave, err := s.read(ctx)
	if err != nil {
		return store.NoticePage{}, err
	}
	defer leave()
	if q.ID != "" {
		return s.oneNotice(ctx, q)
	}
	queues, err := s.allQueues(ctx)
	if err != nil {
		return store.NoticePage{}, err
	}
	from, _ := bucketOf(q.After)
	var calls []call
	for b := int(from); b < buckets; b++ {
		c := call{
			s.scripts.ids, []string{s.key(bucket(b), keyQueues)}, []string{s.key(bucket(b), ""), string(q.State)},
		}
		for queue, id := range queues[b] {
			if (q.Kind == "" || q.Kind == id.kind) && (q.Target == "" || q.Target == id.target) {
				c.args = append(c.args, string(queue[:]))
			}
		}
		if len(c.args) > 2 {
			calls = append(calls, c)
		}
	}
	var ids []string
	for chunk := range slices.Chunk(calls, bucketsAtOnce) {
		answers, err := s.runAll(ctx, chunk)
		if err != nil {
			return store.NoticePage{}, err
		}
		for _, answer := range answers {
			some, err := answer.AsStrSlice()
			if err != nil {
				return store.NoticePage{}, errAnswer
			}
			ids = append(ids, slices.DeleteFunc(some, func(id string) bool { return id <= q.After })...)
		}
		if len(ids) > limit {
			break
		}
	}
	slices.Sort(ids)
	var page store.NoticePage
	if len(ids) > limit {
		ids = ids[:limit]
		page.Next = ids[limit-1]
	}
	page.Notices, err = s.noticesByID(ctx, ids)
	page.Notices = slices.DeleteFunc(page.Notices, func(n store.Notice) bool { return !q.Matches(&n) })
	return page, err
}

// oneNotice returns a page with the notice whose ID is q.ID, if it matches q.
func (s *Store) oneNotice(ctx context.Context, q store.NoticeQuery) (page store.NoticePage, err error) {
	if _, ok := bucketOf(q.ID); !ok || q.ID <= q.After {
		return page, nil
	}
	page.Notices, err = s.noticesByID(ctx, []string{q.ID})
	page.Notices = slices.DeleteFunc(page.Notices, func(n store.Notice) bool { return !q.Matches(&n) })
	return page, err
}

// noticesByID reads notices, without their payloads and leases. It leaves out those that do not exist.
func (s *Store) noticesByID(ctx context.Context, ids []string) ([]store.Notice, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	commands := make([]rueidis.Completed, len(ids))
	for i, id := range ids {
		b, _ := bucketOf(id)
		commands[i] = s.client.B().Hmget().Key(s.named(b, keyNotice, []byte(id))).
			Field("t", "k", "s", "d", "r", "a", "g").Build()
	}
	var all []store.Notice
	for i, result := range s.do(ctx, commands) {
		f, err := result.AsStrSlice()
		if err != nil || len(f) != 7 {
			return nil, fmt.Errorf("redis: notices: %w", cmp.Or(err, errAnswer))
		}
		if f[0] == "" {
			continue
		}
		n, err := noticeOf([]string{ids[i], f[0], f[1], f[2], "", f[3], f[4], f[5], f[6]})
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// Retry implements [store.Outbox].
func (s *Store) Retry(ctx context.Context, id string, due, deadline time.Time) error {
	return s.onNotice(ctx, id, func(b bucket) call {
		return call{script: s.scripts.retry, args: []string{id, decimal(due), string(appendMicros(nil, deadline)),
			s.key(b, ""), s.wakeupPrefix()}}
	}, func(ctx context.Context, b bucket, queue string) {
		if len(queue) == nameSize {
			s.wake(ctx, place{b, name([]byte(queue))}, decimal(due))
		}
	})
}

// Drop implements [store.Outbox].
func (s *Store) Drop(ctx context.Context, id string) error {
	return s.onNotice(ctx, id, func(b bucket) call {
		return call{script: s.scripts.drop, args: []string{id, s.key(b, "")}}
	}, nil)
}

// onNotice runs a script on one notice. The word that it returns is passed to then, if that is not nil.
func (s *Store) onNotice(
	ctx context.Context, id string, of func(bucket) call, then func(context.Context, bucket, string),
) error {
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return err
	}
	defer leave()
	b, ok := bucketOf(id)
	if !ok {
		return store.ErrNoNotice
	}
	c := of(b)
	c.keys = []string{s.named(b, keyNotice, []byte(id))}
	answer, err := s.run(ctx, c)
	if err != nil {
		return err
	}
	word, err := verdict(answer)
	if err == nil && then != nil {
		then(ctx, b, word)
	}
	return err
}

// Stats implements [store.Outbox].
func (s *Store) Stats(ctx context.Context) ([]store.NoticeStats, error) {
	ctx, leave, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	counts, _, err := s.count(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]store.NoticeStats, 0, len(counts))
	for _, t := range counts {
		all = append(all, *t)
	}
	return all, nil
}

// count counts the notices of each queue. upcoming is when the next notice is due at each place.
func (s *Store) count(ctx context.Context) (counts map[name]*store.NoticeStats, upcoming map[place]string, err error) {
	calls := make([]call, buckets)
	for b := range calls {
		calls[b] = call{s.scripts.stats, []string{s.key(bucket(b), keyQueues)}, []string{s.key(bucket(b), "")}}
	}
	answers, err := s.runAll(ctx, calls)
	if err != nil {
		return nil, nil, err
	}
	counts = make(map[name]*store.NoticeStats)
	upcoming = make(map[place]string)
	for b, answer := range answers {
		queues, err := answer.ToArray()
		if err != nil {
			return nil, nil, errAnswer
		}
		for _, m := range queues {
			parts, err := m.AsStrSlice()
			if err != nil || len(parts) != 6 || len(parts[0]) != nameSize {
				return nil, nil, errAnswer
			}
			queue := name([]byte(parts[0]))
			t := counts[queue]
			if t == nil {
				d := decoder{rest: parts[1]}
				t = &store.NoticeStats{Kind: store.NoticeKind(d.text()), Target: d.text()}
				counts[queue] = t
			}
			t.Pending += int(number(parts[2]))
			t.Dead += int(number(parts[3]))
			if parts[4] != "" {
				if at := store.FromMicros(number(parts[4])); t.Oldest.IsZero() || at.Before(t.Oldest) {
					t.Oldest = at
				}
			}
			if parts[5] != "" {
				upcoming[place{bucket(b), queue}] = parts[5]
			}
		}
	}
	return counts, upcoming, nil
}

// repair sets the wake-ups that are missing on a Cluster: see wakeup.go.
func (s *Store) repair(ctx context.Context) error {
	if !s.cluster {
		return nil
	}
	counts, upcoming, err := s.count(ctx)
	for queue := range counts {
		err = cmp.Or(err, s.wakeMissing(ctx, queue, upcoming))
	}
	return err
}

// wakeMissing sets the wake-ups of a queue at those places of upcoming that have none, or a later one.
func (s *Store) wakeMissing(ctx context.Context, queue name, upcoming map[place]string) error {
	wakeups, err := s.wakeups(ctx, queue)
	if err != nil {
		return err
	}
	missing := make(map[place]string)
	for at, due := range upcoming {
		isSet := func(w wakeup) bool { return w.place == at && w.at <= float64(number(due)) }
		if at.queue == queue && !slices.ContainsFunc(wakeups, isSet) {
			missing[at] = due
		}
	}
	s.wakeAll(ctx, missing)
	return nil
}

// Overdue implements [store.Sessions]. Redis keeps a session with a refresh token for a day after it expired (see
// marginFor). A caller that does not look for longer than that misses it.
func (s *Store) Overdue(ctx context.Context, after store.Key, limit int, now time.Time) ([]store.Record, error) {
	ctx, leave, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	now = store.Time(now)
	var all []store.Record
	for b := int(after[0]); b < buckets && len(all) < limit; {
		var commands []rueidis.Completed
		for at := b; at < min(b+bucketsAtOnce, buckets); at++ {
			commands = append(commands, s.client.B().Zrangebyscore().Key(s.key(bucket(at), keyExpiry)).Min("-inf").
				Max(decimal(now)).Build())
		}
		b += len(commands)
		var keys []store.Key
		for _, result := range s.do(ctx, commands) {
			members, err := result.AsStrSlice()
			if err != nil {
				return nil, fmt.Errorf("redis: overdue: %w", err)
			}
			for _, m := range members {
				var k store.Key
				if len(m) == hintSize+len(k) { // every other kind of member is shorter
					copy(k[:], m[hintSize:])
					if bytes.Compare(k[:], after[:]) > 0 {
						keys = append(keys, k)
					}
				}
			}
		}
		slices.SortFunc(keys, func(a, b store.Key) int { return bytes.Compare(a[:], b[:]) })
		for chunk := range slices.Chunk(keys, tagPage) {
			found, err := s.records(ctx, chunk)
			if err != nil {
				return nil, err
			}
			for _, r := range found {
				if !r.Lives(now) && r.Refresh != store.RefreshNone && len(all) < limit {
					all = append(all, r)
				}
			}
			if len(all) >= limit {
				break
			}
		}
	}
	return all, nil
}
