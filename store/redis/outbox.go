package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// template is all of a notice but whom it is about: kind and target, which name its queue; issuer, client, cause; when
// it was created; and at the end its deadline.
func template(n store.Notice) string {
	var b []byte
	for _, s := range []string{string(n.Kind), n.Target, n.Issuer, n.ClientID, string(n.Cause)} {
		b = appendText(b, s)
	}
	b = appendMicros(b, n.Created)
	return string(appendMicros(b, n.Deadline))
}

// about is whom a notice is about, as a session's names are kept: with their length in front.
func about(issuer, clientID, subject, sid string) string {
	return string(appendText(nil, string(names(issuer, clientID, subject, sid))))
}

// tellings are the arguments of the script for the notices that e asks for: what is wanted, template, names, queue.
func noticeArgs(e store.Ending, now time.Time) (args []string) {
	for _, t := range e.Notices {
		wants, whom := "t", ""
		switch {
		case t.Kind == store.NoticeRevoke && t.Offline:
			wants = "o"
		case t.Kind == store.NoticeRevoke:
			wants = "r"
		case e.WholeSubject(t):
			wants, whom = "w", about(e.Selector.Issuer, e.Selector.ClientID, e.Selector.Subject, "")
		}
		queue := queueName(t.Kind, t.Target)
		args = append(args, wants, template(store.Notice{Kind: t.Kind, Target: t.Target, Issuer: e.Selector.Issuer,
			ClientID: e.Selector.ClientID, Cause: e.Cause, Created: now, Deadline: t.Deadline}), whom, string(queue[:]))
	}
	return args
}

// place is one queue in one bucket.
type place struct {
	bucket bucket
	queue  name
}

// candidate is a notice that is due.
type candidate struct {
	place
	id  string
	due float64
}

func (a candidate) compare(b candidate) int {
	return cmp.Or(cmp.Compare(a.due, b.due), strings.Compare(a.id, b.id))
}

// claimUntil claims until there are max, or none is due: others may have been quicker with some, so it looks again.
// What was claimed is handed out, also when a part of the buckets cannot be reached.
func claimUntil(max int, claim func(max int) (due []candidate, got []store.Notice, err error)) (all []store.Notice,
	err error) {
	for len(all) < max {
		due, got, err := claim(max - len(all))
		all = append(all, got...)
		if err != nil && len(all) == 0 {
			return nil, err
		}
		if err != nil || len(due) == 0 {
			break
		}
	}
	slices.SortStableFunc(all, func(a, b store.Notice) int { return a.Due.Compare(b.Due) })
	return all, nil
}

// oldest are those that have been due for longest, up to max.
func oldest(due []candidate, max int) []candidate {
	slices.SortFunc(due, candidate.compare)
	return due[:min(max, len(due))]
}

// peek looks what is due at some places, up to max at each, and when there is something to be done there next. The
// error is of those that could not be looked at.
func (s *Store) findDue(ctx context.Context, places []place, now time.Time, max int) (due []candidate,
	next map[place]string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout/2) // time is needed to claim what was found elsewhere
	defer cancel()
	calls := make([]call, len(places))
	for i, at := range places {
		calls[i] = call{s.scripts.due, s.queueKeys(at),
			[]string{decimal(now), strconv.Itoa(max), s.key(at.bucket, ""), string(at.queue[:])}}
	}
	answers, faults := s.runEach(ctx, calls)
	next = make(map[place]string)
	for i, at := range places {
		if faults[i] != nil {
			err = faults[i]
			continue
		}
		list, fault := answers[i].AsStrSlice()
		if fault != nil || len(list)%2 != 1 {
			return nil, nil, errAnswer
		}
		next[at] = list[0]
		for pair := range slices.Chunk(list[1:], 2) {
			score, fault := strconv.ParseFloat(pair[1], 64)
			if fault != nil {
				return nil, nil, errAnswer
			}
			due = append(due, candidate{at, pair[0], score})
		}
	}
	return due, next, err
}

func (s *Store) queueKeys(at place) []string {
	return []string{s.named(at.bucket, keyDue, at.queue[:]), s.named(at.bucket, keyLeased, at.queue[:])}
}

// claim leases what is due, and says when there is something to be done next at the places where it was.
func (s *Store) claim(ctx context.Context, due []candidate, now, until time.Time) (claimed []store.Notice,
	next map[place]string, err error) {
	lease := rand.Text()
	var places []place
	ids := make(map[place][]string)
	for _, d := range due {
		if ids[d.place] == nil {
			places = append(places, d.place)
		}
		ids[d.place] = append(ids[d.place], d.id)
	}
	calls := make([]call, len(places))
	for i, at := range places {
		calls[i] = call{s.scripts.claim, s.queueKeys(at),
			append([]string{decimal(now), decimal(until), lease, s.key(at.bucket, ""), string(at.queue[:])},
				ids[at]...)}
	}
	answers, faults := s.runEach(ctx, calls)
	next = make(map[place]string)
	for i, at := range places {
		if faults[i] != nil {
			err = faults[i]
			continue
		}
		upcoming, notices, fault := list(answers[i])
		if fault != nil {
			return claimed, next, fault
		}
		next[at] = upcoming
		for _, m := range notices {
			n, fault := readNotice(m)
			if fault != nil {
				return claimed, next, fault
			}
			n.Lease = lease
			claimed = append(claimed, n)
		}
	}
	return claimed, next, err
}

// readNotice reads a notice: id, template, key, names, payload, due, reason, attempts, and whether it is given up.
func readNotice(m rueidis.RedisMessage) (store.Notice, error) {
	parts, err := m.AsStrSlice()
	if err != nil || len(parts) != 9 {
		return store.Notice{}, errAnswer
	}
	return noticeOf(parts)
}

func noticeOf(parts []string) (store.Notice, error) {
	n := store.Notice{ID: parts[0], Reason: parts[6], GivenUp: parts[8] != ""}
	var err error
	if n.Attempts, err = strconv.Atoi(parts[7]); err != nil {
		return n, errDamaged
	}
	due, err := strconv.ParseInt(parts[5], 10, 64)
	if err != nil {
		return n, errDamaged
	}
	n.Due = store.FromMicros(due)
	d := decoder{rest: parts[1]}
	n.Kind, n.Target = store.NoticeKind(d.text()), d.text()
	n.Issuer, n.ClientID, n.Cause = d.text(), d.text(), store.Cause(d.text())
	n.Created, n.Deadline = store.FromMicros(d.int64()), store.FromMicros(d.int64())
	framed := decoder{rest: parts[3]}
	who := decoder{rest: framed.text()}
	who.text()
	who.text()
	n.Subject, n.SID = who.text(), who.text()
	if d.short || who.short || framed.short {
		return n, errDamaged
	}
	copy(n.Key[:], parts[2])
	if parts[4] != "" {
		n.Payload = []byte(parts[4])
	}
	return n, nil
}

// noticeIDs is the beginning of the ids of notices that are left at once. It tells the bucket.
func noticeIDs(b bucket) string { return hex.EncodeToString([]byte{b}) + rand.Text() }

// bucketOf is where the notice with this id is, if there is one.
func bucketOf(id string) (bucket, bool) {
	if len(id) < 2 || len(id) > 64 {
		return 0, false
	}
	b, err := hex.DecodeString(id[:2])
	return append(b, 0)[0], err == nil
}

// Complete implements [store.Outbox].
func (s *Store) Complete(ctx context.Context, n store.Notice, o store.Outcome) error {
	if err := o.Validate(); err != nil {
		return err
	}
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return err
	}
	defer leave()
	b, ok := bucketOf(n.ID)
	if !ok || n.Lease == "" {
		return store.ErrLeaseLost
	}
	outcome := "give up"
	switch {
	case o.Done:
		outcome = "done"
	case !o.GiveUp:
		outcome = "retry"
	}
	answer, err := s.run(ctx, call{s.scripts.complete, []string{s.named(b, keyNotice, []byte(n.ID))},
		[]string{n.Lease, outcome, n.ID, decimal(o.RetryAt), o.Reason, s.key(b, ""), s.wakeupPrefix()}})
	if err != nil {
		return err
	}
	word, err := text(answer)
	if err != nil {
		return err
	}
	if word == "lost" {
		return store.ErrLeaseLost
	}
	if outcome == "retry" {
		s.wake(ctx, place{b, queueName(n.Kind, n.Target)}, decimal(o.RetryAt))
	}
	return nil
}
