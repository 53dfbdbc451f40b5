package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store/internal/rules"
	"github.com/redis/rueidis"
)

// template is what all notices of one telling have in common. The script adds whom each is about.
func template(e session.Ending, t session.Telling, now time.Time) string {
	var b []byte
	for _, s := range []string{string(t.Kind), t.Target, e.Who.Issuer, e.Who.ClientID, string(e.Cause)} {
		b = appendText(b, s)
	}
	b = appendMicros(b, now)
	return string(appendMicros(b, t.Deadline))
}

// tellings are the arguments of the script for the notices that e asks for: what is wanted, template, names.
func tellings(e session.Ending, now time.Time) (args []string) {
	for _, t := range e.Tell {
		wants, whom := "t", ""
		switch {
		case t.Kind == session.NoticeRevoke && t.Offline:
			wants = "o"
		case t.Kind == session.NoticeRevoke:
			wants = "r"
		case e.Who.Key.IsZero() && e.Who.SID == "":
			who := names(e.Who.Issuer, e.Who.ClientID, e.Who.Subject, "")
			wants, whom = "w", string(append(binary.BigEndian.AppendUint32(nil, uint32(len(who))), who...))
		}
		args = append(args, wants, template(e, t, now), whom)
	}
	return args
}

// candidate is a notice that is due.
type candidate struct {
	bucket bucket
	id     string
	due    float64
}

// Claim implements [session.Outbox]. It asks every bucket what is due, on one server in one step, and then claims the
// oldest where they lie.
func (s *Store) Claim(ctx context.Context, now time.Time, lease time.Duration, max int) ([]session.Notice, error) {
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	var claimed []session.Notice
	for len(claimed) < max {
		due, err := s.due(ctx, now, max-len(claimed))
		if err != nil {
			return claimed, err
		}
		if len(due) == 0 {
			break
		}
		// Others may have been quicker with some: look again then.
		got, err := s.claim(ctx, due, now, now.Add(lease))
		if err != nil {
			return nil, err
		}
		claimed = append(claimed, got...)
	}
	slices.SortStableFunc(claimed, func(a, b session.Notice) int { return a.Due.Compare(b.Due) })
	return claimed, nil
}

// due returns the notices that have been due for longest, up to max.
func (s *Store) due(ctx context.Context, now time.Time, max int) ([]candidate, error) {
	var calls []call
	args := []string{decimal(now), strconv.Itoa(max)}
	for b := range buckets {
		if s.cluster || b == 0 {
			calls = append(calls, call{script: s.scripts.due, args: args})
		}
		c := &calls[len(calls)-1]
		c.keys = append(c.keys, s.key(bucket(b), keyDue), s.key(bucket(b), keyLeased))
	}
	answers, err := s.runAll(ctx, calls)
	if err != nil {
		return nil, err
	}
	var due []candidate
	at := 0
	for _, answer := range answers {
		perBucket, err := answer.ToArray()
		if err != nil {
			return nil, errAnswer
		}
		for _, m := range perBucket {
			pairs, err := m.AsStrSlice()
			if err != nil {
				return nil, errAnswer
			}
			for i := 0; i+1 < len(pairs); i += 2 {
				score, err := strconv.ParseFloat(pairs[i+1], 64)
				if err != nil {
					return nil, errAnswer
				}
				due = append(due, candidate{bucket(at), pairs[i], score})
			}
			at++
		}
	}
	slices.SortFunc(due, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.due, b.due), strings.Compare(a.id, b.id)) })
	return due[:min(max, len(due))], nil
}

func (s *Store) claim(ctx context.Context, due []candidate, now, until time.Time) ([]session.Notice, error) {
	lease := rand.Text()
	slices.SortStableFunc(due, func(a, b candidate) int { return cmp.Compare(a.bucket, b.bucket) })
	var calls []call
	for i, d := range due {
		if i == 0 || due[i-1].bucket != d.bucket {
			calls = append(calls, call{s.scripts.claim, []string{s.key(d.bucket, keyDue), s.key(d.bucket, keyLeased)},
				[]string{decimal(now), decimal(until), lease}})
		}
		c := &calls[len(calls)-1]
		c.args = append(c.args, d.id)
	}
	answers, err := s.runAll(ctx, calls)
	if err != nil {
		return nil, err
	}
	var claimed []session.Notice
	for _, answer := range answers {
		notices, err := answer.ToArray()
		if err != nil {
			return nil, errAnswer
		}
		for _, m := range notices {
			n, err := readNotice(m)
			if err != nil {
				return nil, err
			}
			n.Lease = lease
			claimed = append(claimed, n)
		}
	}
	return claimed, nil
}

// readNotice reads a notice as the script claim answers it.
func readNotice(m rueidis.RedisMessage) (session.Notice, error) {
	var n session.Notice
	parts, err := m.ToArray()
	if err != nil || len(parts) != 8 {
		return n, errAnswer
	}
	var texts [7]string
	for i := range texts {
		if texts[i], err = text(parts[i]); err != nil {
			return n, err
		}
	}
	attempts, err := parts[7].AsInt64()
	if err != nil {
		return n, errAnswer
	}
	due, err := strconv.ParseInt(texts[5], 10, 64)
	if err != nil {
		return n, errDamaged
	}
	d := decoder{rest: texts[1]}
	n.Kind, n.Target = session.NoticeKind(d.text()), d.text()
	n.Issuer, n.ClientID, n.Cause = d.text(), d.text(), session.Cause(d.text())
	n.Created, n.Deadline = instant(d.int64()), instant(d.int64())
	framed := decoder{rest: texts[3]}
	who := decoder{rest: framed.text()}
	who.text()
	who.text()
	n.Subject, n.SID = who.text(), who.text()
	if d.short || who.short || framed.short {
		return n, errDamaged
	}
	copy(n.Key[:], texts[2])
	n.ID, n.Due, n.Reason, n.Attempts = texts[0], instant(due), texts[6], int(attempts)
	if texts[4] != "" {
		n.Payload = []byte(texts[4])
	}
	return n, nil
}

// noticeIDs is the beginning of the ids of an ending's notices. It tells the bucket, for Settle.
func noticeIDs(b bucket) string { return hex.EncodeToString([]byte{b}) + rand.Text() }

// Settle implements [session.Outbox].
func (s *Store) Settle(ctx context.Context, n session.Notice, o session.Outcome) error {
	if err := rules.CheckOutcome(o); err != nil {
		return err
	}
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if len(n.ID) < 2 || n.Lease == "" {
		return session.ErrLeaseLost
	}
	at, err := hex.DecodeString(n.ID[:2])
	if err != nil {
		return session.ErrLeaseLost
	}
	outcome := "give up"
	switch {
	case o.Done:
		outcome = "done"
	case !o.GiveUp:
		outcome = "retry"
	}
	b := at[0]
	answer, err := s.run(ctx, call{s.scripts.settle,
		[]string{s.named(b, keyNotice, []byte(n.ID)), s.key(b, keyDue), s.key(b, keyLeased), s.key(b, keyGivenUp)},
		[]string{n.Lease, outcome, n.ID, decimal(o.RetryAt), o.Reason}})
	if err != nil {
		return err
	}
	word, err := text(answer)
	if err == nil && word == "lost" {
		return session.ErrLeaseLost
	}
	return err
}
