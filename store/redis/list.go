package redis

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"time"

	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

const (
	bucketsAtOnce = 16  // how many buckets are read at once, at most
	tagPage       = 100 // how many tags of a bucket are read at once, at most
)

// List implements [store.Store]. A key begins with its tag and a tag with its bucket, so the order of the keys is
// bucket by bucket, and in each bucket the order of its tags. So no more than a page is ever in memory.
func (s *Store) List(ctx context.Context, q store.Query, now time.Time) (store.Page, error) {
	limit, err := q.PageSize()
	if err != nil {
		return store.Page{}, err
	}
	ctx, leave, err := s.read(ctx)
	if err != nil {
		return store.Page{}, err
	}
	defer leave()
	l := &lister{s: s, ctx: ctx, q: q, now: store.Time(now), limit: limit}
	if q.SID != "" {
		l.hint = hint(q.Issuer, q.ClientID, q.SID)
	}
	switch {
	case q.Subject != "":
		tag := store.Tag(q.Issuer, q.ClientID, q.Subject)
		err = l.take([]string{string(tag[:])})
	case q.SID != "":
		err = l.pointed()
	default:
		err = l.all()
	}
	return l.page, err
}

type lister struct {
	s     *Store
	ctx   context.Context
	q     store.Query
	now   time.Time
	limit int
	hint  []byte // of the sid in the query
	page  store.Page
	full  bool
}

// pointed adds the sessions of the tags that the sid points to.
func (l *lister) pointed() error {
	sid := sidName(l.q.Issuer, l.q.ClientID, l.q.SID)
	key := l.s.named(bucket(sid[0]), keyPointer, sid[:])
	numbers, err := l.s.client.Do(l.ctx, l.s.client.B().Smembers().Key(key).Build()).AsStrSlice()
	if err != nil {
		return fmt.Errorf("redis: list: %w", err)
	}
	tags, err := tagsOf(numbers)
	if err != nil {
		return err
	}
	slices.Sort(tags)
	for chunk := range slices.Chunk(tags, tagPage) {
		if err := l.take(chunk); err != nil || l.full {
			return err
		}
	}
	return nil
}

// tagsOf turns the members of a pointer into tags.
func tagsOf(numbers []string) ([]string, error) {
	tags := make([]string, len(numbers))
	for i, text := range numbers {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, errDamaged
		}
		tags[i] = string(binary.BigEndian.AppendUint32(nil, uint32(n)))
	}
	return tags, nil
}

// all adds all sessions, starting at the tag where the previous page ended. It reads one bucket first, which is enough
// for a page where there are many sessions, and then more and more at once.
func (l *lister) all() error {
	from := string(l.q.After[:4])
	most := min(l.limit+1, tagPage)
	for b, atOnce := int(l.q.After[0]), 1; b < buckets && !l.full; atOnce = min(4*atOnce, bucketsAtOnce) {
		commands := make([]rueidis.Completed, 0, bucketsAtOnce)
		for at := b; at < min(b+atOnce, buckets); at++ {
			least := "-"
			if at == b && from != "" {
				least = "[" + from
			}
			commands = append(commands, l.s.client.B().Zrangebylex().Key(l.s.key(bucket(at), keyTags)).
				Min(least).Max("+").Limit(0, int64(most)).Build())
		}
		next := b + len(commands)
		from = ""
		for i, result := range l.s.do(l.ctx, commands) {
			tags, err := result.AsStrSlice()
			if err != nil {
				return fmt.Errorf("redis: list: %w", err)
			}
			if err := l.take(tags); err != nil || l.full {
				return err
			}
			if len(tags) == most { // there may be more in this bucket: they come first
				next, from = b+i, tags[len(tags)-1]+"\x00"
				break
			}
		}
		b = next
	}
	return nil
}

// take adds the sessions of some tags, which are in order, to the page.
func (l *lister) take(tags []string) error {
	if len(tags) == 0 {
		return nil
	}
	least, most, indexes := "-", "+", []string{keyIndex}
	if l.hint != nil {
		least, most = "["+string(l.hint), "("+string(l.hint)+string(bytes.Repeat([]byte{0xff}, 33))
		indexes = append(indexes, keyFormer) // in this order: see shared.lua
	}
	var commands []rueidis.Completed
	for _, tag := range tags {
		for _, index := range indexes {
			key := l.s.named(tag[0], index, []byte(tag))
			commands = append(commands, l.s.client.B().Zrangebylex().Key(key).Min(least).Max(most).Build())
		}
	}
	var keys []store.Key
	for i, result := range l.s.do(l.ctx, commands) {
		members, err := result.AsStrSlice()
		if err != nil {
			return fmt.Errorf("redis: list: %w", err)
		}
		for _, m := range members {
			var k store.Key
			tag := tags[i/len(indexes)]
			if len(m) != hintSize+len(k)-len(tag) {
				return errDamaged
			}
			copy(k[copy(k[:], tag):], m[hintSize:])
			if bytes.Compare(k[:], l.q.After[:]) > 0 {
				keys = append(keys, k)
			}
		}
	}
	slices.SortFunc(keys, func(a, b store.Key) int { return bytes.Compare(a[:], b[:]) })
	for chunk := range slices.Chunk(slices.Compact(keys), l.limit+1) {
		if err := l.fetch(chunk); err != nil || l.full {
			return err
		}
	}
	return nil
}

// fetch reads the sessions with these keys, and adds to the page those that live and match the query.
func (l *lister) fetch(keys []store.Key) error {
	found, err := l.s.records(l.ctx, keys)
	if err != nil {
		return err
	}
	for _, r := range found {
		if !r.Lives(l.now) || !l.q.Matches(&r) {
			continue
		}
		if len(l.page.Records) == l.limit {
			l.page.Next, l.full = l.page.Records[l.limit-1].Key, true
			return nil
		}
		l.page.Records = append(l.page.Records, r)
	}
	return nil
}

// records reads sessions. It leaves out those that do not exist.
func (s *Store) records(ctx context.Context, keys []store.Key) ([]store.Record, error) {
	commands := make([]rueidis.Completed, len(keys))
	for i, k := range keys {
		commands[i] = s.client.B().Get().Key(s.named(k[0], keySession, k[:])).Build()
	}
	var all []store.Record
	for i, result := range s.do(ctx, commands) {
		raw, err := result.ToString()
		if rueidis.IsRedisNil(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("redis: list: %w", err)
		}
		r, _, err := decode(keys[i], raw)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}
