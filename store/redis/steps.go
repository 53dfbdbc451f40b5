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

// atOnce is how many steps of one ending are under way at a time: those of a sid that very many subjects have do not
// fill the connection, and others have their turn in between.
const atOnce = 64

// pause is how long to wait before looking again whether somebody else is done with a jti.
const pause = 10 * time.Millisecond

var errBusy = errors.New("redis: end: another ending with the same jti is under way")

// lease is how long a claim holds: longer than any method runs.
func (s *Store) lease() time.Duration { return 2 * s.timeout }

// endInSteps carries out an ending of a sid alone, or one that replicas are to have seen:
//
//  1. begin, where the jti is recorded: refuse a replay; claim the jti for a while; for a sid alone leave its mark and
//     read the tags that it points to.
//  2. the step, for each tag.
//  3. confirm, where the jti is recorded: record it, if the claim still holds.
//
// A failure or a crash before 3 leaves the jti unused: the next try claims it (at once if the claim could be given
// back, else when it has run out), finds in 2 what is left to do, and confirms. Of two at once with the same jti the
// second waits at 1 for the first; then it is a replay, or its turn. If the first was delayed for so long that its
// claim ran out and the second did it all, the first finds at 3 that it has lost the claim, and does not answer nil.
//
// Where replicas are too few, the mark is left and the steps are done all the same: nobody is kept signed in for want
// of a replica. But nothing is confirmed, and the answer is no success.
func (s *Store) endInSteps(
	ctx context.Context, e store.Ending, now time.Time, done map[string]bool,
) (ended []store.Ended, more bool, err error) {
	st := s.stepsOf(e, now)
	tags, err := st.begin(ctx)
	few := errors.Is(err, errReplicas)
	if err != nil && !few {
		return nil, false, err
	}
	defer func() {
		if err != nil || more {
			st.giveBack(ctx)
		}
	}()
	if ended, more, err = s.endTags(ctx, tags, e, now, few, done); err != nil || more {
		return ended, more, err
	}
	if err = st.confirm(ctx); err != nil {
		return nil, false, err
	}
	return ended, false, nil
}

// steps carries out the steps of the tags that are not done yet, a few at a time. When that has taken a round's time it
// says that there is more. Replicas are waited for unless it is known that they are too few; when they turn out to be,
// the rest is done without them, and the error is [errReplicas].
func (s *Store) endTags(
	ctx context.Context, tags []string, e store.Ending, now time.Time, few bool, done map[string]bool,
) (all []store.Ended, more bool, err error) {
	round, cancel := context.WithTimeout(ctx, s.round)
	defer cancel()
	tags = slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return done[tag] })
	for first := true; len(tags) > 0; first = false {
		if !first && !few && round.Err() != nil {
			return all, true, nil
		}
		n := min(atOnce, len(tags))
		if s.waits() && !few {
			n = 1
		}
		some := make([]call, n)
		for i, tag := range tags[:n] {
			some[i] = s.endCall(e, []byte(tag), false, now)
		}
		var answers []rueidis.RedisMessage
		if s.waits() && !few {
			answer, err := s.runReplicated(ctx, tags[0][0], some[0], s.timeout/2)
			if few = errors.Is(err, errReplicas); !few && err != nil {
				return nil, false, err
			}
			answers = append(answers, answer)
		} else if answers, err = s.runAll(ctx, some); err != nil {
			return nil, false, err
		}
		for i, answer := range answers {
			ended, left, err := s.finish(ctx, some[i], answer, e, now)
			if err != nil {
				return nil, false, err
			}
			all, more = append(all, ended...), more || left
			done[tags[i]] = !left
		}
		tags = tags[n:]
	}
	if few {
		return all, false, errReplicas
	}
	return all, more, nil
}

// steps are what comes before and after the steps of one ending.
type steps struct {
	s     *Store
	e     store.Ending
	now   time.Time
	owner string // of the claim; empty without a jti
	jti   name
	sid   name // for a sid alone
	alone bool
	home  bucket // where the jti is recorded and, for a sid alone, its mark and its pointer are
}

func (s *Store) stepsOf(e store.Ending, now time.Time) *steps {
	st := &steps{s: s, e: e, now: now, alone: e.Selector.Key.IsZero() && e.Selector.Subject == ""}
	w := e.Selector
	if st.alone {
		st.sid = sidName(w.Issuer, w.ClientID, w.SID)
		st.home = st.sid[0]
	} else {
		st.home = tagOf(w)[0]
	}
	if e.JTI != "" {
		st.owner, st.jti = rand.Text(), jtiName(w.Issuer, w.ClientID, e.JTI)
	}
	return st
}

// jtiKeys are the queue, the record and the claim of the jti. On one server they are in the jti's own bucket, see
// jtiHome.
func (st *steps) jtiKeys() []string {
	at := st.s.jtiBucket(st.jti, st.home)
	return []string{st.s.key(at, keyExpiry), st.s.named(at, keyJTI, st.jti[:]), st.s.named(at, keyClaim, st.jti[:])}
}

// begin does the first step and returns the tags of those who are named, also with [errReplicas]. Only the mark of a
// sid needs replicas: that a claim is lost with a master does no harm.
func (st *steps) begin(ctx context.Context) ([]string, error) {
	if !st.alone && st.owner == "" {
		return []string{string(tagOf(st.e.Selector))}, nil
	}
	over := st.now.Add(store.MarkLifetime)
	mark := ""
	if st.alone {
		mark = string(st.sid[:])
	}
	jti := st.jtiKeys()
	if st.owner == "" { // no jti: any key of this bucket will do
		jti[1], jti[2] = st.s.named(st.home, keyJTI, nil), st.s.named(st.home, keyClaim, nil)
	}
	c := call{st.s.scripts.begin,
		[]string{st.s.key(st.home, keyExpiry), jti[1], jti[2], st.s.named(st.home, keyMark, st.sid[:]),
			st.s.named(st.home, keyPointer, st.sid[:])},
		[]string{decimal(st.now), st.owner, strconv.FormatInt(st.s.lease().Milliseconds(), 10), mark, decimal(over),
			until(over, margin),
			st.s.key(st.home, ""), st.s.traceLife()}}
	for {
		var answer rueidis.RedisMessage
		var err, few error
		if st.alone {
			answer, err = st.s.runReplicated(ctx, st.home, c, st.s.timeout/4)
		} else {
			answer, err = st.s.run(ctx, c)
		}
		if errors.Is(err, errReplicas) {
			few, err = err, nil
		}
		if err != nil {
			return nil, err
		}
		word, rest, err := list(answer)
		switch {
		case err != nil:
			return nil, err
		case word == "replayed":
			return nil, store.ErrReplayed
		case word == "busy":
			if !wait.Sleep(ctx, pause) {
				return nil, errBusy
			}
			continue
		case !st.alone:
			return []string{string(tagOf(st.e.Selector))}, nil
		case len(rest) != 1:
			return nil, errAnswer
		}
		numbers, err := rest[0].AsStrSlice()
		if err != nil {
			return nil, errAnswer
		}
		tags, err := tagsOf(numbers)
		return tags, cmp.Or(err, few)
	}
}

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
	word, err := text(answer)
	switch {
	case err != nil:
		return err
	case word == "replayed":
		return store.ErrReplayed
	case word == "lost":
		return errBusy
	}
	return nil
}

// giveBack lets the next try begin at once. If it fails, that one waits until the claim has run out.
func (st *steps) giveBack(ctx context.Context) {
	if st.owner == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), st.s.timeout/4)
	defer cancel()
	_, _ = st.s.run(ctx, call{st.s.scripts.release, st.jtiKeys()[2:], []string{st.owner}})
}

// bind is for a Cluster, where the jti is recorded in the slot of the step. The same token always names the same
// sessions, so it comes to the same slot, and there the replay check and the step are one script. But a jti counts
// whomever it names: a second token with the same jti and another subject would come to another slot, whose script
// knows nothing. So the jti's own slot says which ending it belongs to, before the step. It is no record: a crash after
// it burns nothing, since the same token finds itself bound. Another ending with that jti looks where the first is
// recorded:
//
//   - recorded: a replay.
//   - its time is over: the binding is free.
//   - not recorded: the first is under way, or it failed. It waits; when the binding is older than any method runs, it
//     has failed, and the binding is free.
//
// The binding runs out with the record: who finds itself bound leaves it as it is, and when that was a success after
// all, with a later end (two tokens that share a jti and whom they name), End binds anew.
//
// What remains is a first that was frozen somewhere for all that time and is carried out after the second: two genuine
// tokens are obeyed then, which is what both asked for.
func (s *Store) bind(ctx context.Context, e store.Ending, now time.Time, anew bool) (till int64, err error) {
	jti := jtiName(e.Selector.Issuer, e.Selector.ClientID, e.JTI)
	_, mine := whose(e.Selector)
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
		case !wait.Sleep(ctx, pause):
			return 0, errBusy
		}
	}
}

// recorded is until when the jti is recorded in the slot of another ending, or nil.
func (s *Store) recorded(ctx context.Context, theirs string, jti name) (*time.Time, error) {
	if len(theirs) < 2 {
		return nil, errDamaged
	}
	home, err := hex.DecodeString(theirs[:2])
	if err != nil {
		return nil, errDamaged
	}
	till, err := s.client.Do(ctx, s.client.B().Get().Key(s.named(home[0], keyJTI, jti[:])).Build()).AsInt64()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	at := store.FromMicros(till)
	return &at, nil
}
