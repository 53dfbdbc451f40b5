package redis

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"time"

	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// End implements [store.Store]. An ending of a key, a subject, or both sub and sid is one script in one bucket: the
// step. Where more than one bucket is concerned (a sid alone; a jti on a Cluster) or more than the step (replicas to be
// waited for), there are steps before and after it; steps.go has them.
//
// When it fails between the steps some of the sessions may have ended already. The jti is not used up, so the same
// token can be sent again and does the rest.
func (s *Store) End(ctx context.Context, e store.Ending, now time.Time) ([]store.Ended, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	now = store.Time(now)
	done := map[string]bool{} // tags of a sid whose sessions have ended
	return store.EndInBatches(ctx, func(ctx context.Context) ([]store.Ended, bool, error) {
		return s.endBatch(ctx, e, now, done)
	})
}

// endBatch is one step of End, which may be of several steps itself. It says whether there may be more to be ended.
func (s *Store) endBatch(
	ctx context.Context, e store.Ending, now time.Time, done map[string]bool,
) (ended []store.Ended, more bool, err error) {
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return nil, false, err
	}
	defer leave()
	if e.JTI == "" || !s.cluster {
		return s.carryOut(ctx, e, now, done)
	}
	till, err := s.bind(ctx, e, now, false)
	if err != nil {
		return nil, false, err
	}
	ended, more, err = s.carryOut(ctx, e, now, done)
	if err == nil && !more && till < store.Micros(e.JTIExpires) {
		_, _ = s.bind(ctx, e, now, true) // it is done, whatever comes of this
	}
	return ended, more, err
}

func (s *Store) carryOut(
	ctx context.Context, e store.Ending, now time.Time, done map[string]bool,
) (ended []store.Ended, more bool, err error) {
	if e.Selector.Key.IsZero() && e.Selector.Subject == "" || s.waits() {
		return s.endInSteps(ctx, e, now, done)
	}
	return s.endTag(ctx, s.endCall(e, tagOf(e.Selector), e.JTI != "", now), e, now)
}

// tagOf is the tag of those whom w names; a sid alone does not say.
func tagOf(w store.Selector) []byte {
	if !w.Key.IsZero() {
		return w.Key[:4]
	}
	tag := store.Tag(w.Issuer, w.ClientID, w.Subject)
	return tag[:]
}

// deedAt is the script that ends those of one tag whom e names.
func (s *Store) endCall(e store.Ending, tag []byte, recordJTI bool, now time.Time) call {
	b := bucket(tag[0])
	w := e.Selector
	in := store.Record{Issuer: w.Issuer, ClientID: w.ClientID, Subject: w.Subject, SID: w.SID}
	var shape, rest string
	var hints, marks []byte
	mark := func(n name) { marks = append(marks, n[:]...) }
	switch {
	case !w.Key.IsZero(): // a key names a session that exists, so no login: no mark
		shape, rest = "key", string(w.Key[4:])
	case w.Subject == "":
		shape, hints = "sid", hint(w.Issuer, w.ClientID, w.SID)
		// A copy of the sid's mark, for a login that has passed the sid's own bucket and is not in this one yet.
		mark(sidName(w.Issuer, w.ClientID, w.SID))
	case e.Spare > 0:
		shape = "subject"
	case w.SID == "":
		// A session without a sid looks for no other mark of its subject than these two.
		shape = "subject"
		mark(subjectMark(&in))
	default:
		shape, hints = "both", append(hint(w.Issuer, w.ClientID, w.SID), hint(w.Issuer, w.ClientID, "")...)
		mark(bothMark(&in))
		mark(bareMark(&in))
	}
	keys := []string{s.key(b, keyExpiry), s.named(b, keyIndex, tag), s.key(b, keyTags), s.key(b, keyLast),
		s.key(b, keyQueues)}
	var jti, jtiRunsOut, jtiUntil string
	if recordJTI {
		n := jtiName(w.Issuer, w.ClientID, e.JTI)
		home := s.jtiBucket(n, b)
		keys = append(keys, s.named(home, keyJTI, n[:]), s.key(home, keyExpiry))
		jti, jtiRunsOut, jtiUntil = string(n[:]), decimal(e.JTIExpires), until(e.JTIExpires, margin)
	}
	publish, channel := "PUBLISH", s.channel
	if s.cluster {
		publish, channel = "SPUBLISH", s.key(b, keyFeed)
	}
	var scope []byte
	scope = appendText(appendText(scope, w.Issuer), w.ClientID)
	over := now.Add(store.MarkLifetime)
	args := []string{decimal(now), s.key(b, ""), string(tag), shape, string(scope), string(appendText(nil, w.Subject)),
		string(appendText(nil, w.SID)), rest, string(hints), string(marks), decimal(over), until(over, margin),
		jti, jtiRunsOut, jtiUntil, publish, channel, messageHead(b, e.Cause, now), noticeIDs(b), s.traceLife(),
		s.wakeupPrefix(),
		strconv.Itoa(store.EndBatch), strconv.Itoa(e.Spare)}
	return call{s.scripts.end, keys, append(args, noticeArgs(e, now)...)}
}

// jtiHome is the bucket that records a jti: on one server its own, so that it counts whomever it names; on a Cluster
// that of the step, for a script reaches no further.
func (s *Store) jtiBucket(jti name, deed bucket) bucket {
	if s.cluster {
		return deed
	}
	return jti[0]
}

// messageHead is what a message of the feed begins with, after the token of the one before: its own token, the bucket,
// the cause and the time.
func messageHead(b bucket, cause store.Cause, now time.Time) string {
	head := make([]byte, tokenSize, 64)
	rand.Read(head)
	head = append(head, b)
	head = appendText(head, string(cause))
	return string(appendMicros(head, now))
}

// step carries out what deedAt made.
func (s *Store) endTag(ctx context.Context, c call, e store.Ending, now time.Time) (ended []store.Ended, more bool,
	err error) {
	answer, err := s.run(ctx, c)
	if err != nil {
		return nil, false, err
	}
	return s.finish(ctx, c, answer, e, now)
}

// finish reads what a step answered, and rings for the notices that it left.
func (s *Store) finish(ctx context.Context, c call, answer rueidis.RedisMessage, e store.Ending,
	now time.Time) (ended []store.Ended, more bool, err error) {
	word, rest, err := list(answer)
	if err != nil {
		return nil, false, err
	}
	if word == "replayed" {
		return nil, false, store.ErrReplayed
	}
	var texts []string
	for _, m := range rest {
		raw, err := text(m)
		if err != nil {
			return nil, false, err
		}
		texts = append(texts, raw)
	}
	if len(texts) == 0 {
		return nil, false, errAnswer
	}
	s.wakeAfter(ctx, bucket(c.args[2][0]), texts[0], now)
	for _, raw := range texts[1:] {
		d := decoder{rest: raw}
		ended = append(ended, d.endedSession(e.Cause, now))
		if d.short {
			return nil, false, errDamaged
		}
	}
	return ended, word == "more", nil
}

// trace is how long a script leaves a trace for replicas, if any are waited for.
func (s *Store) traceLife() string {
	if !s.waits() {
		return ""
	}
	return "60000"
}

// whose names an ending for a binding: the bucket that records its jti, and a hash of whom it names.
func whose(w store.Selector) (home bucket, text string) {
	if w.Key.IsZero() && w.Subject == "" {
		sid := sidName(w.Issuer, w.ClientID, w.SID)
		home = sid[0]
	} else {
		home = tagOf(w)[0]
	}
	n := hash('w', w.Issuer, w.ClientID, w.Subject, w.SID, string(w.Key[:]))
	return home, fmt.Sprintf("%02x%x", home, n[:])
}
