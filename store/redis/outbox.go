package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/curfew/store"
)

// template encodes all of a notice except which session or subject it is about: kind and target, which name its queue;
// issuer, client, cause; when it was created; and last its deadline.
func template(n store.Notice) string {
	var b []byte
	for _, s := range []string{string(n.Kind), n.Target, n.Issuer, n.ClientID, string(n.Cause)} {
		b = appendText(b, s)
	}
	b = appendMicros(b, n.Created)
	return string(appendMicros(b, n.Deadline))
}

// about encodes which session or subject a notice is about, like the names in a session: preceded by their length.
func about(issuer, clientID, subject, sid string) string {
	return string(appendText(nil, string(names(issuer, clientID, subject, sid))))
}

// noticeArgs returns the arguments of end.lua for the notices that e asks for: which sessions get one, template, names,
// queue.
func noticeArgs(e store.Ending, now time.Time) (args []string) {
	for _, t := range e.Notices {
		which, subject := "t", ""
		switch {
		case t.Kind == store.NoticeRevoke && t.Offline:
			which = "o"
		case t.Kind == store.NoticeRevoke:
			which = "r"
		case e.WholeSubject(t):
			which, subject = "w", about(e.Selector.Issuer, e.Selector.ClientID, e.Selector.Subject, "")
		}
		queue := queueName(t.Kind, t.Target)
		n := store.Notice{Kind: t.Kind, Target: t.Target, Issuer: e.Selector.Issuer, ClientID: e.Selector.ClientID,
			Cause: e.Cause, Created: now, Deadline: t.Deadline}
		args = append(args, which, template(n), subject, string(queue[:]))
	}
	return args
}

// place is the part of one queue that is in one bucket.
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

// claimUntil claims until there are max notices, or no more are due. It tries more than once, because others may have
// claimed some of those that were due. It returns what was claimed even when some buckets cannot be reached.
func claimUntil(
	max int, claim func(max int) (due []candidate, got []store.Notice, err error),
) (all []store.Notice, err error) {
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

// oldest returns up to max candidates, those that have been due for longest.
func oldest(due []candidate, max int) []candidate {
	slices.SortFunc(due, candidate.compare)
	return due[:min(max, len(due))]
}

// findDue returns what is due at some places, up to max at each, and when the next notice is due at each. The error is
// that of places that could not be read; the results hold those of the others.
func (s *Store) findDue(
	ctx context.Context, places []place, now time.Time, max int,
) (due []candidate, next map[place]string, err error) {
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

// claim leases what is due. next is when the next notice is due at each of the places.
func (s *Store) claim(
	ctx context.Context, due []candidate, now, until time.Time,
) (claimed []store.Notice, next map[place]string, err error) {
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
		args := []string{decimal(now), decimal(until), lease, s.key(at.bucket, ""), string(at.queue[:])}
		calls[i] = call{s.scripts.claim, s.queueKeys(at), append(args, ids[at]...)}
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
			parts, fault := m.AsStrSlice()
			if fault != nil || len(parts) != 9 {
				return claimed, next, errAnswer
			}
			n, fault := noticeOf(parts)
			if fault != nil {
				return claimed, next, fault
			}
			n.Lease = lease
			claimed = append(claimed, n)
		}
	}
	return claimed, next, err
}

// noticeOf decodes a notice: id, template, key, names, payload, due, reason, attempts, and whether it is a dead letter.
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

// noticeIDs returns a new prefix for the IDs of the notices that one script adds. It begins with their bucket.
func noticeIDs(b bucket) string { return bucketText(b) + rand.Text() }

// bucketOf returns the bucket of the notice with this ID. ok is false if this cannot be an ID.
func bucketOf(id string) (b bucket, ok bool) {
	if len(id) < 2 || len(id) > 64 {
		return 0, false
	}
	n, err := strconv.ParseUint(id[:2], 16, 8)
	return bucket(n), err == nil
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
	untried := "0"
	if o.Untried {
		untried = "1"
	}
	answer, err := s.run(ctx, call{s.scripts.complete, []string{s.named(b, keyNotice, []byte(n.ID))},
		[]string{n.Lease, outcome, n.ID, decimal(o.RetryAt), o.Reason, s.key(b, ""), s.wakeupPrefix(), untried}})
	if err != nil {
		return err
	}
	if _, err = verdict(answer); err == nil && outcome == "retry" {
		s.wake(ctx, place{b, queueName(n.Kind, n.Target)}, decimal(o.RetryAt))
	}
	return err
}
