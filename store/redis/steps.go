package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"time"

	"example.com/curfew/internal/wait"
	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// tagsAtOnce is how many tags of one ending are ended at a time. So an ending of a sid that very many subjects have
// does not fill the connection, and other requests are served in between.
const tagsAtOnce = 64

// pollInterval is how long to wait before checking again whether another ending with the same jti is done.
const pollInterval = 10 * time.Millisecond

var errBusy = errors.New("redis: end: another ending with the same jti is under way")

// lease returns how long a claim of a jti holds: longer than any method runs.
func (s *Store) lease() time.Duration { return 2 * s.timeout }

// endInSteps carries out an ending of a sid that one script cannot do (see endSID), or one that waits for replicas:
//
//  1. begin, in the bucket that records the jti: refuse a replay; claim the jti for a while; for a sid leave its mark
//     and read the tags that it points to.
//  2. end, in the bucket of each tag. That of the subject, if one is named, is one of them.
//  3. confirm, in the bucket of step 1: record the jti, if the claim still holds.
//
// A failure or a crash before 3 leaves the jti unused. The next try claims it (at once if the claim could be released,
// else when it has expired), does in 2 what is left to do, and confirms. Of two at once with the same jti the second
// waits at 1 for the first; then either it is a replay, or it claims the jti itself. If the first was delayed for so
// long that its claim expired and the second did everything, the first finds at 3 that it has lost the claim, and
// returns an error.
//
// When too few replicas acknowledge, the mark is left and all sessions are ended all the same: nobody stays signed in
// because a replica is missing. But the jti is not recorded, and the result is an error.
func (s *Store) endInSteps(
	ctx context.Context, e store.Ending, now time.Time, done map[string]bool,
) (ended []store.Ended, more bool, err error) {
	st := s.stepsOf(e, now)
	tags, err := st.begin(ctx)
	tooFew := errors.Is(err, errReplicas)
	if err != nil && !tooFew {
		return nil, false, err
	}
	defer func() {
		if err != nil || more {
			st.release(ctx)
		}
	}()
	if ended, more, err = s.endTags(ctx, tags, e, now, tooFew, done); err != nil || more {
		return ended, more, err
	}
	if err = st.confirm(ctx); err != nil {
		return nil, false, err
	}
	return ended, false, nil
}

// endTags ends the sessions of the tags that are not done yet, a few tags at a time. After the time of one round it
// stops, and more is true. It waits for replicas unless tooFew says that there are too few. When it finds that out
// itself, it does the rest without them, and the error is [errReplicas].
func (s *Store) endTags(
	ctx context.Context, tags []string, e store.Ending, now time.Time, tooFew bool, done map[string]bool,
) (all []store.Ended, more bool, err error) {
	round, cancel := context.WithTimeout(ctx, s.round)
	defer cancel()
	tags = slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return done[tag] })
	for first := true; len(tags) > 0; first = false { // at least one
		if !first && !tooFew && round.Err() != nil {
			return all, true, nil
		}
		n := min(tagsAtOnce, len(tags))
		if s.waits() && !tooFew {
			n = 1
		}
		some := make([]call, n)
		for i, tag := range tags[:n] {
			some[i] = s.endCall(e, []byte(tag), false, now)
		}
		var answers []rueidis.RedisMessage
		if s.waits() && !tooFew {
			answer, err := s.runReplicated(ctx, tags[0][0], some[0], s.timeout/2)
			if tooFew = errors.Is(err, errReplicas); !tooFew && err != nil {
				return nil, false, err
			}
			answers = append(answers, answer)
		} else if answers, err = s.runAll(ctx, some); err != nil {
			return nil, false, err
		}
		for i, answer := range answers {
			ended, left, err := s.finish(ctx, bucket(tags[i][0]), answer, e, now)
			if err != nil {
				return nil, false, err
			}
			all, more = append(all, ended...), more || left
			done[tags[i]] = !left
		}
		tags = tags[n:]
	}
	if tooFew {
		return all, false, errReplicas
	}
	return all, more, nil
}

// steps are the first and the last step of one ending: begin and confirm.
type steps struct {
	s      *Store
	e      store.Ending
	now    time.Time
	owner  string // of the claim; empty without a jti
	jti    name
	hasSID bool
	sid    name   // if hasSID
	bucket bucket // has the record of the jti and, if there is a sid, its mark and its pointer
}

func (s *Store) stepsOf(e store.Ending, now time.Time) *steps {
	w := e.Selector
	st := &steps{s: s, e: e, now: now, hasSID: w.SID != "", bucket: stepsBucket(w)}
	if st.hasSID {
		st.sid = sidName(w.Issuer, w.ClientID, w.SID)
	}
	if e.JTI != "" {
		st.owner, st.jti = rand.Text(), jtiName(w.Issuer, w.ClientID, e.JTI)
	}
	return st
}

// jtiKeys returns the keys of the expiry list, the record and the claim of the jti. See reach.
func (st *steps) jtiKeys() []string {
	at := st.s.reach(st.jti, st.bucket)
	return []string{st.s.key(at, keyExpiry), st.s.named(at, keyJTI, st.jti[:]), st.s.named(at, keyClaim, st.jti[:])}
}

// begin does the first step and returns the tags of the sessions to end, also with [errReplicas]. Only the mark of a
// sid needs replicas: a claim that is lost with its master does no harm.
func (st *steps) begin(ctx context.Context) ([]string, error) {
	if !st.hasSID && st.owner == "" {
		return []string{string(tagOf(st.e.Selector))}, nil
	}
	expiry := st.now.Add(st.e.MarkLife())
	mark := ""
	if st.hasSID {
		mark = string(st.sid[:])
	}
	jti := st.jtiKeys()
	if st.owner == "" { // no jti: any key of this bucket will do
		jti[1], jti[2] = st.s.named(st.bucket, keyJTI, nil), st.s.named(st.bucket, keyClaim, nil)
	}
	c := call{st.s.scripts.begin,
		[]string{st.s.key(st.bucket, keyExpiry), jti[1], jti[2], st.s.named(st.bucket, keyMark, st.sid[:]),
			st.s.named(st.bucket, keyPointer, st.sid[:])},
		[]string{decimal(st.now), st.owner, strconv.FormatInt(st.s.lease().Milliseconds(), 10), mark, decimal(expiry),
			until(expiry, margin), st.s.key(st.bucket, ""), st.s.traceLife()}}
	for {
		var answer rueidis.RedisMessage
		var err, tooFew error
		if st.hasSID {
			answer, err = st.s.runReplicated(ctx, st.bucket, c, st.s.timeout/4)
		} else {
			answer, err = st.s.run(ctx, c)
		}
		if errors.Is(err, errReplicas) {
			tooFew, err = err, nil
		}
		if err != nil {
			return nil, err
		}
		_, rest, err := list(answer)
		switch {
		case errors.Is(err, errBusy) && wait.Sleep(ctx, pollInterval):
			continue
		case err != nil:
			return nil, err
		case !st.hasSID:
			return []string{string(tagOf(st.e.Selector))}, nil
		case len(rest) != 1:
			return nil, errAnswer
		}
		numbers, err := rest[0].AsStrSlice()
		if err != nil {
			return nil, errAnswer
		}
		tags, err := tagsOf(numbers)
		if w := st.e.Selector; w.Subject != "" && !slices.Contains(tags, string(tagOf(w))) {
			tags = append(tags, string(tagOf(w))) // for the sessions without a sid
		}
		return tags, cmp.Or(err, tooFew)
	}
}

// confirm does the last step.
func (st *steps) confirm(ctx context.Context) error {
	if st.owner == "" {
		return nil
	}
	answer, err := st.s.run(ctx, call{st.s.scripts.confirm, st.jtiKeys(),
		[]string{decimal(st.now), st.owner, decimal(st.e.JTIExpires), until(st.e.JTIExpires, margin),
			string(st.jti[:])}})
	if err != nil {
		return err
	}
	_, err = verdict(answer)
	return err
}

// release gives up the claim of the jti, so that the next try need not wait. If it fails, that try waits until the
// claim has expired.
func (st *steps) release(ctx context.Context) {
	if st.owner == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), st.s.timeout/4)
	defer cancel()
	_, _ = st.s.run(ctx, call{st.s.scripts.release, st.jtiKeys()[2:], []string{st.owner}})
}

// bind is for a Cluster, where a jti is recorded in the slot of the sessions that the ending names. The same token
// always names the same sessions, so its script runs in the same slot, where it both checks for a replay and ends the
// sessions. But a second token with the same jti and another subject would be carried out in another slot, where the
// first is not recorded. So before that script, the jti's own slot records which ending the jti is bound to. A binding
// is no record: a crash after it uses nothing up, since the same token finds the jti bound to itself. Another ending
// with that jti checks the slot of the first:
//
//   - The jti is recorded there: this one is a replay.
//   - The record has expired: the binding is free.
//   - There is no record: the first is under way, or it failed. This one waits. When the binding is older than any
//     method runs, the first has failed, and the binding is free.
//
// The binding expires with the record, and an ending that finds the jti bound to itself leaves it unchanged. If that
// ending succeeds and its jti expires later (two tokens with the same jti and the same selector), End calls bind again
// with anew set. bind returns when the binding expires, in microseconds.
//
// One case remains: the first was suspended for all that time, and is carried out after the second. Then two genuine
// tokens are carried out, as both requested.
func (s *Store) bind(ctx context.Context, e store.Ending, now time.Time, anew bool) (till int64, err error) {
	jti := jtiName(e.Selector.Issuer, e.Selector.ClientID, e.JTI)
	mine := bindingID(e.Selector)
	b := bucket(jti[0])
	failed := ""
	if anew {
		failed = mine
	}
	for {
		answer, err := s.run(ctx, call{s.scripts.bind,
			[]string{s.named(b, keyBind, jti[:]), s.key(b, keyExpiry)},
			[]string{decimal(now), mine, decimal(e.JTIExpires), until(e.JTIExpires, margin), string(jti[:]), failed}})
		if err != nil {
			return 0, err
		}
		theirs, rest, err := list(answer)
		if err != nil || len(rest) != 2 {
			return 0, errors.Join(errAnswer, err)
		}
		if theirs == mine {
			return rest[1].AsInt64()
		}
		age, err := rest[0].AsInt64()
		if err != nil {
			return 0, errAnswer
		}
		recorded, err := s.recorded(ctx, theirs, jti)
		switch {
		case err != nil:
			return 0, err
		case recorded != nil && now.Before(*recorded):
			return 0, store.ErrReplayed
		case recorded != nil || time.Duration(age)*time.Millisecond > s.lease():
			failed = theirs
		case !wait.Sleep(ctx, pollInterval):
			return 0, errBusy
		}
	}
}

// recorded returns until when the jti is recorded in the slot of another ending, or nil if it is not.
func (s *Store) recorded(ctx context.Context, theirs string, jti name) (*time.Time, error) {
	if len(theirs) < 2 {
		return nil, errDamaged
	}
	at, err := hex.DecodeString(theirs[:2])
	if err != nil {
		return nil, errDamaged
	}
	till, err := s.client.Do(ctx, s.client.B().Get().Key(s.named(at[0], keyJTI, jti[:])).Build()).AsInt64()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	expires := store.FromMicros(till)
	return &expires, nil
}
