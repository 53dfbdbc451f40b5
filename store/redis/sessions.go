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
	// margin is how much longer Redis keeps an entry than the contract asks for. Whether an entry has expired depends
	// on the caller's clock, which may differ from Redis's. Redis's expiry only removes what Prune has not removed.
	margin = time.Hour
	// slack is how much longer a pointer to a session is kept than the session, so that not every Update has to renew
	// the pointer.
	slack = time.Hour
	// refreshMargin is added to margin for a session that holds a refresh token, so that the token can be revoked (see
	// Overdue).
	refreshMargin = 23 * time.Hour
)

// marginFor returns how much longer Redis keeps a session than it lives.
func marginFor(r *store.Record) time.Duration {
	if r.Refresh != store.RefreshNone {
		return margin + refreshMargin
	}
	return margin
}

var errExists = errors.New("redis: create: a session with this key exists already")

// errTag: a subject's sessions are found by the tag.
var errTag = errors.New("redis: create: the tag of the key is not that of issuer, client and subject")

// until returns t with extra time, in milliseconds since 1970 as Redis takes it. Redis takes no time before 1970.
func until(t time.Time, extra time.Duration) string {
	return strconv.FormatInt(max(1, t.Add(extra).UnixMilli()), 10)
}

// decimal returns t in microseconds since 1970.
func decimal(t time.Time) string { return strconv.FormatInt(store.Micros(t), 10) }

func tagNumber(tag []byte) string {
	return strconv.FormatUint(uint64(binary.BigEndian.Uint32(tag)), 10)
}

// Create implements [store.Store]. With a sid it takes two steps: the pointer from the sid, then the session. The
// package documentation says why no ending is lost between them.
func (s *Store) Create(ctx context.Context, r store.Record, began, now time.Time) error {
	return s.write(ctx, &r, s.scripts.create, 0, began, began, now)
}

// Admit implements [store.Store].
func (s *Store) Admit(ctx context.Context, r store.Record, issued, now time.Time) error {
	return s.write(ctx, &r, s.scripts.create, 0, issued, store.FromMicros(0), now)
}

// Rename implements [store.Store]. As in Create the pointer comes first. It waits for replicas, since a session whose
// new sid is lost in a failover lives on under its old one. But as with pointers, a missing replica keeps nobody out.
func (s *Store) Rename(ctx context.Context, r store.Record, began, now time.Time) error {
	return s.write(ctx, &r, s.scripts.rename, r.Revision, began, began, now)
}

// write carries out Create, Admit and Rename: it writes r with the revision after the given one, unless a mark bars it:
// one of its subject at or after began, or one of its sids at or after sidBegan. Both are the same but for Admit.
func (s *Store) write(
	ctx context.Context, r *store.Record, script *script, revision int64, began, sidBegan, now time.Time,
) error {
	if began.Equal(sidBegan) && store.Time(now).Sub(store.Time(began)) >= store.AttemptLifetime {
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
	pointed, err := s.point(ctx, r, decimal(sidBegan))
	if err != nil {
		return err
	}
	return s.writeSession(ctx, r, script, revision, pointed, began, sidBegan, now)
}

// writeSession does the second step: it writes r in its bucket.
func (s *Store) writeSession(
	ctx context.Context, r *store.Record, script *script, revision, pointed int64, began, sidBegan, now time.Time,
) error {
	b, tag, rest := bucket(r.Key[0]), r.Key[:4], r.Key[4:]
	keys := []string{s.named(b, keySession, r.Key[:]), s.key(b, keyExpiry), s.named(b, keyIndex, tag),
		s.named(b, keyFormer, tag), s.key(b, keyTags)}
	ofSubject, ofSIDs := marksFor(r)
	for _, m := range ofSubject {
		keys = append(keys, s.named(b, keyMark, m[:]))
	}
	for _, m := range ofSIDs {
		keys = append(keys, s.named(s.reach(m, b), keyMark, m[:]))
	}
	if !began.Equal(sidBegan) { // it stands for an access token, which may have been ended by its key
		m := keyMarkOf(r.Key)
		keys = append(keys, s.named(b, keyMark, m[:]))
	}
	next := *r
	next.Revision = revision + 1
	end := runsOut(r)
	write := call{script, keys, []string{
		decimal(now), string(binary.BigEndian.AppendUint64(nil, uint64(revision))), decimal(began),
		string(encode(&next, pointed)), decimal(end), string(tag), string(rest),
		until(end, marginFor(r)), until(end, margin+marginFor(r)), decimal(sidBegan), strconv.Itoa(len(ofSubject))}}
	_, err := s.writeOne(ctx, b, write, script == s.scripts.rename)
	return err
}

// sidsOf returns the sids that name r.
func sidsOf(r *store.Record) []string {
	if r.SID == "" {
		return nil
	}
	return append([]string{r.SID}, r.Former...)
}

// point writes the pointers from r's sids to its tag, and returns until when, in microseconds, they are certain to
// exist. began is empty for a session that exists already.
//
// It waits for replicas, since a session whose pointer is lost in a failover is not found by its sid. But a missing
// replica keeps nobody from signing in: then point returns 0, and each Update writes the pointers again.
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
		tooFew, err := s.writeOne(ctx, b, c, pointed != 0)
		if err != nil {
			return 0, err
		}
		if tooFew {
			pointed = 0
		}
	}
	return pointed, nil
}

// writeOne runs a script that writes in one bucket. With wait it waits for replicas, and tooFew reports whether there
// were too few.
func (s *Store) writeOne(ctx context.Context, b bucket, c call, wait bool) (tooFew bool, err error) {
	var answer rueidis.RedisMessage
	if wait {
		answer, err = s.runReplicated(ctx, b, c, s.timeout/8)
		tooFew = errors.Is(err, errReplicas)
	} else {
		answer, err = s.run(ctx, c)
	}
	if err != nil && !tooFew {
		return false, err
	}
	_, err = verdict(answer)
	return tooFew, err
}

// marksFor returns the marks that bar r: those of its subject, which are in its bucket, and those of its sids, for
// which see reach.
func marksFor(r *store.Record) (ofSubject, ofSIDs []name) {
	if r.SID == "" {
		return []name{subjectMark(r), bareMark(r)}, nil
	}
	for _, sid := range sidsOf(r) {
		ofSIDs = append(ofSIDs, sidName(r.Issuer, r.ClientID, sid))
	}
	return []name{subjectMark(r)}, ofSIDs
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
	stored, err := s.replace(ctx, &r, now, "")
	if err != nil || stored == nil {
		return err
	}
	// The session is to live longer than the pointers from its sids. So the pointers are renewed first.
	stored.IdleExpires, stored.Expires = r.IdleExpires, r.Expires
	till, err := s.point(ctx, stored, "")
	if err != nil {
		return err
	}
	if stored, err = s.replace(ctx, &r, now, strconv.FormatInt(till, 10)); stored != nil {
		return errAnswer
	}
	return err
}

// replace does the update, or returns the identity of the session if its pointers have to be renewed first. pointed is
// until when they are certain to exist, if they have just been renewed.
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
			until(end, marginFor(r)), until(end, margin+marginFor(r)), pointed}})
	if err != nil {
		return nil, err
	}
	word, rest, err := list(answer)
	if err != nil || word != "point" {
		return nil, err
	}
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
