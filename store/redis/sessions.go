package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

const (
	// margin is how much longer Redis keeps a thing than the contract does. Its clock is not the caller's, and whether
	// something has run out is judged by the caller's; so Redis's only cleans up what Prune did not come to.
	margin = time.Hour
	// slack is how much longer than a session a pointer to it is kept, so that not each Update has to see to the
	// pointer.
	slack = time.Hour
	// afterwards is what is added for a session that holds a refresh token: for who wants to revoke it (see Overdue).
	afterwards = 23 * time.Hour
)

// keepFor is how much longer than a session lives Redis keeps it.
func keepFor(r *store.Record) time.Duration {
	if r.Refresh != store.RefreshNone {
		return margin + afterwards
	}
	return margin
}

var errExists = errors.New("redis: create: a session with this key exists already")

// errTag: a store that is spread over machines finds a subject's sessions by the tag.
var errTag = errors.New("redis: create: the tag of the key is not that of issuer, client and subject")

// until is a time in Redis's milliseconds, with extra time. Redis takes no time before 1970.
func until(t time.Time, extra time.Duration) string {
	return strconv.FormatInt(max(1, t.Add(extra).UnixMilli()), 10)
}

func decimal(t time.Time) string { return strconv.FormatInt(store.Micros(t), 10) }

func tagNumber(tag []byte) string {
	return strconv.FormatUint(uint64(binary.BigEndian.Uint32(tag)), 10)
}

// Create implements [store.Store]. It takes two steps when there is a sid: the pointer from the sid, then the session.
// Package documentation says why nothing can come between them.
func (s *Store) Create(ctx context.Context, r store.Record, began, now time.Time) error {
	return s.keep(ctx, &r, s.scripts.create, 0, began, now)
}

// Rename implements [store.Store]. As in Create the pointer comes first.
func (s *Store) Rename(ctx context.Context, r store.Record, began, now time.Time) error {
	return s.keep(ctx, &r, s.scripts.rename, r.Revision, began, now)
}

// keep carries out a Create or a Rename: it keeps r, at the revision after the given one, unless a mark bars it.
func (s *Store) keep(
	ctx context.Context, r *store.Record, script *script, revision int64, began, now time.Time,
) error {
	if store.Time(now).Sub(store.Time(began)) >= store.AttemptLifetime {
		return store.ErrEnded
	}
	if r.Key.Tag() != store.Tag(r.Issuer, r.ClientID, r.Subject) {
		return errTag
	}
	if err := r.ValidateSIDs(); err != nil {
		return fmt.Errorf("redis: %s: %w", script.name, err)
	}
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return err
	}
	defer leave()
	pointed, err := s.point(ctx, r, decimal(began))
	if err != nil {
		return err
	}
	return s.place(ctx, r, script, revision, pointed, began, now)
}

// place keeps r in its bucket.
func (s *Store) place(
	ctx context.Context, r *store.Record, script *script, revision, pointed int64, began, now time.Time,
) error {
	b, tag, rest := bucket(r.Key[0]), r.Key[:4], r.Key[4:]
	keys := []string{s.named(b, keySession, r.Key[:]), s.key(b, keyExpiry), s.named(b, keyIndex, tag),
		s.named(b, keyFormer, tag), s.key(b, keyTags)}
	for _, m := range marksFor(r) {
		keys = append(keys, s.named(b, keyMark, m[:]))
	}
	next := *r
	next.Revision = revision + 1
	end := runsOut(r)
	answer, err := s.run(ctx, call{script, keys, []string{
		decimal(now), string(binary.BigEndian.AppendUint64(nil, uint64(revision))), decimal(began),
		string(encode(&next, pointed)), decimal(end), string(tag), string(rest),
		until(end, keepFor(r)), until(end, margin+keepFor(r))}})
	if err != nil {
		return err
	}
	switch word, err := text(answer); {
	case err != nil:
		return err
	case word == "ended":
		return store.ErrEnded
	case word == "exists":
		return errExists
	case word == "not found":
		return store.ErrNotFound
	case word == "conflict":
		return store.ErrConflict
	}
	return nil
}

// sidsOf are the sids that name r.
func sidsOf(r *store.Record) []string {
	if r.SID == "" {
		return nil
	}
	return append([]string{r.SID}, r.Former...)
}

// point leaves the pointers from r's sids to its tag, and says until when, in microseconds, they will be there. began
// is empty for a session that is there already.
//
// Replicas are waited for, if they are at all: a pointer that a failover loses is a session that its sid does not find.
// Nobody is kept from signing in for want of a replica: then it is not sure how long the pointers will be there, which
// is said by 0, and each Update sees to them anew.
func (s *Store) point(ctx context.Context, r *store.Record, began string) (int64, error) {
	if r.SID == "" {
		return math.MaxInt64, nil
	}
	till := runsOut(r).Add(slack)
	pointed := store.Micros(till)
	for _, text := range sidsOf(r) {
		sid := sidName(r.Issuer, r.ClientID, text)
		b := bucket(sid[0])
		c := call{s.scripts.point,
			[]string{s.named(b, keyMark, sid[:]), s.named(b, keyPointer, sid[:])},
			// Twice the margin: the session may be on another machine, whose clock may be behind.
			[]string{began, tagNumber(r.Key[:4]), until(till, 2*margin), s.key(b, ""), s.traceLife()}}
		word, few, err := s.pointOne(ctx, b, c, pointed != 0)
		switch {
		case err != nil:
			return 0, err
		case word == "ended":
			return 0, store.ErrEnded
		case few:
			pointed = 0
		}
	}
	return pointed, nil
}

// pointOne leaves one pointer, and says whether there were too few replicas for it, which it does not wait for twice.
func (s *Store) pointOne(ctx context.Context, b bucket, c call, wait bool) (word string, few bool, err error) {
	var answer rueidis.RedisMessage
	if wait {
		answer, err = s.runReplicated(ctx, b, c, s.timeout/8)
		few = errors.Is(err, errReplicas)
	} else {
		answer, err = s.run(ctx, c)
	}
	if err != nil && !few {
		return "", false, err
	}
	word, err = text(answer)
	return word, few, err
}

// marksFor are the marks in its own bucket that bar r.
func marksFor(r *store.Record) []name {
	if r.SID == "" {
		return []name{subjectMark(r), bareMark(r)}
	}
	marks := []name{subjectMark(r)}
	for _, sid := range sidsOf(r) {
		in := *r
		in.SID = sid
		marks = append(marks, bothMark(&in), sidName(r.Issuer, r.ClientID, sid))
	}
	return marks
}

// Find implements [store.Store].
func (s *Store) Find(ctx context.Context, key store.Key, now time.Time) (store.Record, error) {
	ctx, leave, err := s.read(ctx)
	if err != nil {
		return store.Record{}, err
	}
	defer leave()
	raw, err := s.client.Do(ctx, s.client.B().Get().Key(s.named(key[0], keySession, key[:])).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return store.Record{}, store.ErrNotFound
	}
	if err != nil {
		return store.Record{}, fmt.Errorf("redis: find: %w", err)
	}
	r, err := decode(key, raw)
	if err != nil {
		return store.Record{}, err
	}
	if !r.Lives(store.Time(now)) {
		return store.Record{}, store.ErrNotFound
	}
	return r, nil
}

// Update implements [store.Store].
func (s *Store) Update(ctx context.Context, r store.Record, now time.Time) error {
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return err
	}
	defer leave()
	who, err := s.replace(ctx, &r, now, "")
	if err != nil || who == nil {
		return err
	}
	// It is to live longer than the pointers from its sids. They come first; then nobody sees the one without the
	// other.
	who.IdleExpires, who.Expires = r.IdleExpires, r.Expires
	till, err := s.point(ctx, who, "")
	if err != nil {
		return err
	}
	if who, err = s.replace(ctx, &r, now, strconv.FormatInt(till, 10)); who != nil {
		return errAnswer
	}
	return err
}

// replace does the update, or answers who it is whose pointer has to be seen to first.
func (s *Store) replace(ctx context.Context, r *store.Record, now time.Time, pointed string) (*store.Record, error) {
	b := bucket(r.Key[0])
	old := binary.BigEndian.AppendUint64(nil, uint64(r.Revision))
	next := *r
	next.Revision++
	end := runsOut(r)
	answer, err := s.run(ctx, call{s.scripts.update,
		[]string{s.named(b, keySession, r.Key[:]), s.key(b, keyExpiry), s.named(b, keyIndex, r.Key[:4]),
			s.named(b, keyFormer, r.Key[:4])},
		[]string{decimal(now), string(old), string(head(&next, 0)), string(r.Payload), decimal(end), string(r.Key[:]),
			until(end, keepFor(r)), until(end, margin+keepFor(r)), pointed}})
	if err != nil {
		return nil, err
	}
	word, rest, err := list(answer)
	if err != nil {
		return nil, err
	}
	switch word {
	case "not found":
		return nil, store.ErrNotFound
	case "conflict":
		return nil, store.ErrConflict
	case "point":
		if len(rest) != 2 {
			return nil, errAnswer
		}
		raw, err := text(rest[0])
		if err != nil {
			return nil, err
		}
		sids, err := text(rest[1])
		if err != nil {
			return nil, err
		}
		list := decoder{rest: sids}
		var former []string
		if sids != "" {
			former = list.former()
		}
		d := decoder{rest: string(r.Key[:]) + raw}
		e := d.endedSession("", time.Time{})
		if d.short || list.short {
			return nil, errDamaged
		}
		return &store.Record{
			Key: e.Key, Issuer: e.Issuer, ClientID: e.ClientID, Subject: e.Subject, SID: e.SID, Former: former,
		}, nil
	}
	return nil, nil
}
