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

// Create implements [store.Store]. On a Cluster a session with a sid takes two steps: the pointer from the sid, then
// the session. The package documentation says why no ending is lost between them. On one server they are one, so that
// a failover loses both or neither.
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
	if s.cluster { // a logout may have missed the session: Find sees to that
		if _, err := s.Find(ctx, r.Key, now); err != nil {
			return err
		}
	}
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
	pointed := pointedUntil(r)
	if s.cluster {
		if pointed, err = s.point(ctx, r, decimal(sidBegan)); err != nil {
			return err
		}
	}
	return s.writeSession(ctx, r, script, revision, pointed, began, sidBegan, now)
}

// writeSession does the second step: it writes r in its bucket; on one server it does the first too.
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
	marks := len(ofSubject) + len(ofSIDs)
	if !began.Equal(sidBegan) { // it stands for an access token, which may have been ended by its key
		m := keyMarkOf(r.Key)
		keys = append(keys, s.named(b, keyMark, m[:]))
		marks++
	}
	if !s.cluster {
		keys = append(keys, s.pointers(r)...)
	}
	next := *r
	next.Revision = revision + 1
	end := runsOut(r)
	write := call{script, keys, []string{
		decimal(now), string(binary.BigEndian.AppendUint64(nil, uint64(revision))), decimal(began),
		string(encode(&next, pointed)), decimal(end), string(tag), string(rest),
		until(end, marginFor(r)), until(end, margin+marginFor(r)), decimal(sidBegan), strconv.Itoa(len(ofSubject)),
		strconv.Itoa(marks), tagNumber(tag), keptUntil(r)}}
	_, err := s.writeOne(ctx, b, write, script == s.scripts.rename)
	return err
}

// sidNames returns the names of the sids that name r.
func sidNames(r *store.Record) (names []name) {
	if r.SID == "" {
		return nil
	}
	for _, sid := range append([]string{r.SID}, r.Former...) {
		names = append(names, sidName(r.Issuer, r.ClientID, sid))
	}
	return names
}

// pointers are the keys of the pointers from the sids of a session.
func (s *Store) pointers(r *store.Record) (keys []string) {
	for _, sid := range sidNames(r) {
		keys = append(keys, s.named(sid[0], keyPointer, sid[:]))
	}
	return keys
}

// pointedUntil returns until when, in microseconds, the pointers from r's sids are certain to exist, once written.
func pointedUntil(r *store.Record) int64 {
	if r.SID == "" {
		return math.MaxInt64
	}
	return store.Micros(runsOut(r).Add(slack))
}

// keptUntil returns until when Redis keeps the pointers from r's sids, in milliseconds. The margin is there twice: the
// session may be on another machine, whose clock may be behind.
func keptUntil(r *store.Record) string { return until(runsOut(r).Add(slack), 2*margin) }

// unpointed is in place of [pointedUntil] where too few replicas have acknowledged a pointer: a failover may lose it,
// and then a logout by the sid does not find the session. See missed.
const unpointed = 0

// point writes the pointers from r's sids to its tag on a Cluster, where they are in other slots than the session, and
// returns until when they are certain to exist. It refuses if there is a mark of one of the sids at or after began, in
// microseconds; began is empty for a session that no logout by its sid can have missed.
//
// It waits for replicas. But a missing replica keeps nobody from signing in: then point returns [unpointed], and each
// Update writes the pointers again.
func (s *Store) point(ctx context.Context, r *store.Record, began string) (int64, error) {
	pointed := pointedUntil(r)
	for _, sid := range sidNames(r) {
		b := bucket(sid[0])
		c := call{s.scripts.point, []string{s.named(b, keyMark, sid[:]), s.named(b, keyPointer, sid[:])},
			[]string{began, tagNumber(r.Key[:4]), keptUntil(r), s.key(b, ""), s.traceLife()}}
		tooFew, err := s.writeOne(ctx, b, c, pointed != unpointed)
		if err != nil {
			return 0, err
		}
		if tooFew {
			pointed = unpointed
		}
	}
	return pointed, nil
}

// missed reports whether a logout by a sid may have missed a session whose pointers were certain to exist until a time
// that is over. A logout leaves the mark of the sid whatever it finds.
func (s *Store) missed(ctx context.Context, r *store.Record, pointed int64, now time.Time) (bool, error) {
	if unseen(r, pointed, now) {
		return true, nil
	}
	var commands []rueidis.Completed
	for _, sid := range sidNames(r) {
		commands = append(commands, s.client.B().Get().Key(s.named(sid[0], keyMark, sid[:])).Build())
	}
	for _, result := range s.do(ctx, commands) {
		at, err := result.AsInt64()
		if rueidis.IsRedisNil(err) {
			continue
		}
		if err != nil || at >= store.Micros(r.Created) {
			return true, err
		}
	}
	return false, nil
}

// unseen reports whether a session has not been used for so long, while its pointers were not certain to exist, that
// the mark of a logout may have come and gone: each use looks at the marks, which are kept for longer than
// [store.AttemptLifetime].
func unseen(r *store.Record, pointed int64, now time.Time) bool {
	return store.Micros(now)-max(store.Micros(r.LastSeen), pointed) >= store.AttemptLifetime.Microseconds()
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
	return []name{subjectMark(r)}, sidNames(r)
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
	r, pointed, err := decode(key, raw)
	if err != nil {
		return store.Record{}, err
	}
	gone := !r.Lives(store.Time(now))
	if !gone && pointed <= store.Micros(now) {
		if gone, err = s.missed(ctx, &r, pointed, now); err != nil {
			return store.Record{}, fmt.Errorf("redis: find: %w", err)
		}
	}
	if gone {
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
	stored, was, err := s.replace(ctx, &r, now, nil, 0)
	if err != nil || stored == nil {
		return err
	}
	// The session is to live longer than the pointers from its sids. So the pointers are renewed, on a Cluster before.
	began := ""
	if was <= store.Micros(now) {
		if unseen(stored, was, now) {
			return store.ErrNotFound
		}
		began = decimal(stored.Created)
	}
	stored.IdleExpires, stored.Expires = r.IdleExpires, r.Expires
	pointed := pointedUntil(stored)
	if s.cluster {
		pointed, err = s.point(ctx, stored, began)
		if errors.Is(err, store.ErrEnded) {
			err = store.ErrNotFound
		}
		if err != nil {
			return err
		}
	}
	if stored, _, err = s.replace(ctx, &r, now, stored, max(was, pointed)); stored != nil {
		return errAnswer
	}
	return err
}

// replace does the update. If the pointers of the session have to be renewed, and renewed is nil, it changes nothing
// and returns what is stored, without the payload, and until when its pointers are certain to exist. With renewed,
// which has the sids, pointed is the new time of that kind; on one server the pointers are renewed here.
func (s *Store) replace(
	ctx context.Context, r *store.Record, now time.Time, renewed *store.Record, pointed int64,
) (stored *store.Record, storedPointed int64, err error) {
	b := bucket(r.Key[0])
	old := binary.BigEndian.AppendUint64(nil, uint64(r.Revision))
	next := *r
	next.Revision++
	end := runsOut(r)
	keys := []string{s.named(b, keySession, r.Key[:]), s.key(b, keyExpiry), s.named(b, keyIndex, r.Key[:4]),
		s.named(b, keyFormer, r.Key[:4])}
	till, kept := "", ""
	if renewed != nil {
		till, kept = strconv.FormatInt(pointed, 10), keptUntil(renewed)
		if !s.cluster {
			keys = append(keys, s.pointers(renewed)...)
		}
	}
	args := []string{decimal(now), string(old), string(head(&next, 0)), string(r.Payload), decimal(end), string(r.Key[:]),
		until(end, marginFor(r)), until(end, margin+marginFor(r)), till, tagNumber(r.Key[:4]), kept}
	answer, err := s.run(ctx, call{s.scripts.update, keys, args})
	if err != nil {
		return nil, 0, err
	}
	word, rest, err := list(answer)
	if err != nil || word != "point" {
		return nil, 0, err
	}
	if len(rest) != 1 {
		return nil, 0, errAnswer
	}
	raw, err := text(rest[0])
	if err != nil {
		return nil, 0, err
	}
	found, pointed, err := decode(r.Key, raw)
	if err != nil {
		return nil, 0, err
	}
	return &found, pointed, nil
}
