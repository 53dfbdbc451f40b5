package redis

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// End implements [store.Store]. An ending of a key or a subject is one script in one bucket. So is one of a sid, with a
// subject or alone, on one server, unless the sid is that of several subjects. An ending that concerns more than one
// bucket of a Cluster (a sid; a jti), or that waits for replicas, needs further steps before and after that script: see
// steps.go.
//
// When it fails between the steps some of the sessions may have ended already. The jti is not used up, so the same
// token can be sent again, and the next try ends the rest.
func (s *Store) End(ctx context.Context, e store.Ending, now time.Time) ([]store.Ended, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	now = store.Time(now)
	done := map[string]bool{} // the tags whose sessions have ended, for a sid
	return store.EndInBatches(ctx, func(ctx context.Context) ([]store.Ended, bool, error) {
		return s.endBatch(ctx, e, now, done)
	})
}

// endBatch ends one batch. more reports whether there may be another.
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
		_, _ = s.bind(ctx, e, now, true) // the ending is done, even if this fails
	}
	return ended, more, err
}

func (s *Store) carryOut(
	ctx context.Context, e store.Ending, now time.Time, done map[string]bool,
) (ended []store.Ended, more bool, err error) {
	if e.Selector.SID != "" && !s.cluster && !s.waits() {
		if ended, more, err = s.endSID(ctx, e, now); !errors.Is(err, errSteps) {
			return ended, more, err
		}
	}
	if e.Selector.SID != "" || s.waits() {
		return s.endInSteps(ctx, e, now, done)
	}
	tag := tagOf(e.Selector)
	return s.endTag(ctx, bucket(tag[0]), s.endCall(e, tag, e.JTI != "", now), e, now)
}

// tagOf returns the tag of the sessions that w names by a key or a subject. A sid alone has none.
func tagOf(w store.Selector) []byte {
	if !w.Key.IsZero() {
		return w.Key[:4]
	}
	tag := store.Tag(w.Issuer, w.ClientID, w.Subject)
	return tag[:]
}

// endCall returns the call that ends the sessions of one tag that e names.
func (s *Store) endCall(e store.Ending, tag []byte, recordJTI bool, now time.Time) call {
	b := bucket(tag[0])
	w := e.Selector
	in := store.Record{Issuer: w.Issuer, ClientID: w.ClientID, Subject: w.Subject, SID: w.SID}
	var shape, rest string
	var hints, marks []byte
	mark := func(n name) { marks = append(marks, n[:]...) }
	// A copy of the sid's mark, for a login that has left its pointer in the sid's bucket and is not in this one yet.
	// On one server the login looks for the mark itself.
	markSID := func() {
		if s.cluster {
			mark(sidName(w.Issuer, w.ClientID, w.SID))
		}
	}
	switch {
	case !w.Key.IsZero(): // a key names a session that exists, so no login: no mark, unless it is an access token's
		shape, rest = "key", string(w.Key[4:])
		if e.Bar {
			mark(keyMarkOf(w.Key))
		}
	case w.SID != "" && (w.Subject == "" || !bytes.Equal(tag, tagOf(w))):
		shape, hints = "sid", hint(w.Issuer, w.ClientID, w.SID)
		markSID()
	case e.Spare > 0:
		shape = "subject"
	case w.SID == "":
		// Every session of the subject is barred by this mark: see marksFor.
		shape = "subject"
		mark(subjectMark(&in))
	default:
		shape, hints = "both", append(hint(w.Issuer, w.ClientID, w.SID), hint(w.Issuer, w.ClientID, "")...)
		markSID()
		mark(bareMark(&in))
	}
	keys := []string{s.key(b, keyExpiry), s.named(b, keyIndex, tag), s.key(b, keyTags), s.key(b, keyLast),
		s.key(b, keyQueues)}
	var jti, jtiRunsOut, jtiUntil string
	if recordJTI {
		n := jtiName(w.Issuer, w.ClientID, e.JTI)
		at := s.reach(n, b)
		keys = append(keys, s.named(at, keyJTI, n[:]), s.key(at, keyExpiry))
		jti, jtiRunsOut, jtiUntil = string(n[:]), decimal(e.JTIExpires), until(e.JTIExpires, margin)
	}
	publish, channel := "PUBLISH", s.channel
	if s.cluster {
		publish, channel = "SPUBLISH", s.key(b, keyFeed)
	}
	var scope []byte
	scope = appendText(appendText(scope, w.Issuer), w.ClientID)
	expiry := now.Add(e.MarkLife())
	args := []string{decimal(now), s.key(b, ""), string(tag), shape, string(scope), string(appendText(nil, w.Subject)),
		string(appendText(nil, w.SID)), rest, string(hints), string(marks), decimal(expiry), until(expiry, margin),
		jti, jtiRunsOut, jtiUntil, publish, channel, messageHead(b, e.Cause, now), noticeIDs(b), s.traceLife(),
		s.wakeupPrefix(), strconv.Itoa(store.EndBatch), strconv.Itoa(e.Spare)}
	return call{s.scripts.end, keys, append(args, noticeArgs(e, now)...)}
}

// reach returns the bucket in which a script finds the record of a jti, or the mark of a sid. On one server it is that
// of the name, so that a replay is found whatever sessions it names. On a Cluster it is that of the script, which
// reaches no other: there the record is, and a copy of the mark.
func (s *Store) reach(n name, script bucket) bucket {
	if s.cluster {
		return script
	}
	return n[0]
}

// messageHead returns the beginning of a message of the feed, which follows the token of the previous message: its own
// token, the bucket, the cause and the time.
func messageHead(b bucket, cause store.Cause, now time.Time) string {
	head := make([]byte, tokenSize, 64)
	rand.Read(head)
	head = append(head, b)
	head = appendText(head, string(cause))
	return string(appendMicros(head, now))
}

// endTag runs a call that ends the sessions of one tag, which is in bucket b.
func (s *Store) endTag(
	ctx context.Context, b bucket, c call, e store.Ending, now time.Time,
) (ended []store.Ended, more bool, err error) {
	answer, err := s.run(ctx, c)
	if err != nil {
		return nil, false, err
	}
	return s.finish(ctx, b, answer, e, now)
}

// errSteps means that one script cannot carry out the ending of a sid, and has changed nothing.
var errSteps = errors.New("redis: end: it takes several steps")

// endSID ends the sessions that a sid, or a sid and a subject, name, on one server by one script.
func (s *Store) endSID(ctx context.Context, e store.Ending, now time.Time) ([]store.Ended, bool, error) {
	st := s.stepsOf(e, now)
	tag, subject := make([]byte, 4), ""
	if e.Selector.Subject != "" {
		tag = tagOf(e.Selector)
		subject = string(tag)
	}
	end := s.endCall(e, tag, e.JTI != "", now)
	keys := []string{s.key(st.bucket, keyExpiry), s.named(st.bucket, keyMark, st.sid[:]),
		s.named(st.bucket, keyPointer, st.sid[:])}
	if e.JTI != "" {
		jti := st.jtiKeys()
		keys = append(keys, jti[1], jti[0], jti[2])
	}
	args := append([]string{s.prefix, string(st.sid[:]), subject}, end.args...)
	return s.endTag(ctx, st.bucket, call{s.scripts.sid, keys, args}, e, now)
}

// finish reads the answer of the script, and sets the wake-ups for the notices that it added.
func (s *Store) finish(
	ctx context.Context, b bucket, answer rueidis.RedisMessage, e store.Ending, now time.Time,
) (ended []store.Ended, more bool, err error) {
	word, rest, err := list(answer)
	if err != nil {
		return nil, false, err
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
	s.wakeAfter(ctx, b, texts[0], now)
	for _, raw := range texts[1:] {
		d := decoder{rest: raw}
		held := store.Refresh(d.byte())
		one := d.endedSession(e.Cause, now)
		one.Refresh = held
		ended = append(ended, one)
		if d.short {
			return nil, false, errDamaged
		}
	}
	return ended, word == "more", nil
}

// traceLife returns how long the trace of a script is kept, in milliseconds (see leave_trace in shared.lua). It is
// empty when replicas are not waited for.
func (s *Store) traceLife() string {
	if !s.waits() {
		return ""
	}
	return "60000"
}

// stepsBucket returns the bucket of the first and last step of an ending with this selector: that of the sid, if there
// is one, else that of the sessions.
func stepsBucket(w store.Selector) bucket {
	if w.SID != "" {
		return sidName(w.Issuer, w.ClientID, w.SID)[0]
	}
	return tagOf(w)[0]
}

// bindingID names an ending in the binding of a jti: the bucket that records the jti, and a hash of the selector, in
// hexadecimal.
func bindingID(w store.Selector) string {
	n := hash('w', w.Issuer, w.ClientID, w.Subject, w.SID, string(w.Key[:]))
	return fmt.Sprintf("%02x%x", stepsBucket(w), n[:])
}
