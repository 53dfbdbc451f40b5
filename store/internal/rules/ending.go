package rules

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/curfew/store"
)

// CheckEnding refuses an ending that names nobody, with [store.ErrNobody], or asks for a kind of notice that there is not.
func CheckEnding(e store.Ending) error {
	if err := e.Selector.Validate(); err != nil {
		return err
	}
	if e.Spare < 0 || e.Spare > 0 && (e.Selector.Subject == "" || e.Selector.SID != "" || e.JTI != "") {
		return errors.New("end: to spare sessions means something for an ending of a subject alone, without a jti")
	}
	for _, t := range e.Notices {
		if err := checkKind(t.Kind); err != nil {
			return err
		}
	}
	return nil
}

// endFor is for how long an ending goes on for which nobody waits any more.
const endFor = time.Minute

// Batches carries out an ending batch by batch, until step says that there is no more to be done. What has begun goes on
// when ctx is done: what asked for it may ask only once.
func Batches(ctx context.Context, step func(context.Context) (ended []store.Ended, more bool, err error)) ([]store.Ended, error) {
	var all []store.Ended
	for first := true; ; first = false {
		ended, more, err := step(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, ended[:min(len(ended), store.EndedMost-len(all))]...)
		if !more {
			return all, nil
		}
		if first {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), endFor)
			defer cancel()
		}
	}
}

// WholeSubject says whether a telling of e is one notice about the whole subject. It is left with the last batch.
func WholeSubject(e store.Ending, t store.NoticeRequest) bool {
	return t.Kind == store.NoticeTell && e.Selector.Key.IsZero() && e.Selector.SID == "" && !t.PerSession && e.Spare == 0
}

// Revoked says whether e leaves a notice with the payload of a session that holds such a refresh token.
func Revoked(e store.Ending, held store.Refresh) bool {
	r := store.Record{Refresh: held}
	return slices.ContainsFunc(e.Notices, func(t store.NoticeRequest) bool { return t.Kind == store.NoticeRevoke && revokes(t, &r) })
}

func checkKind(k store.NoticeKind) error {
	if k != store.NoticeTell && k != store.NoticeRevoke {
		return fmt.Errorf("there is no notice of the kind %q", k)
	}
	return nil
}

// Ended reports the sessions in gone, which e removed at now.
func Ended(e store.Ending, gone []store.Record, now time.Time) []store.Ended {
	if len(gone) == 0 {
		return nil
	}
	ended := make([]store.Ended, len(gone))
	for i := range gone {
		r := &gone[i]
		ended[i] = store.Ended{Key: r.Key, Issuer: r.Issuer, ClientID: r.ClientID, Subject: r.Subject, SID: r.SID,
			Cause: e.Cause, At: now}
	}
	return ended
}

// Notices returns the notices that e leaves for the sessions in gone, as [store.NoticeRequest] has it, without their ID. Those in
// gone are not the last when there are more to come.
func Notices(e store.Ending, gone []store.Record, more bool, now time.Time) []store.Notice {
	var notices []store.Notice
	for _, t := range e.Notices {
		about := store.Notice{Kind: t.Kind, Target: t.Target, Issuer: e.Selector.Issuer, ClientID: e.Selector.ClientID,
			Cause: e.Cause, Created: now, Due: now, Deadline: store.Time(t.Deadline)}
		if WholeSubject(e, t) {
			if about.Subject = e.Selector.Subject; !more {
				notices = append(notices, about)
			}
			continue
		}
		for i := range gone {
			r := &gone[i]
			if t.Kind == store.NoticeRevoke && !revokes(t, r) {
				continue
			}
			n := about
			n.Key, n.Subject, n.SID = r.Key, r.Subject, r.SID
			if t.Kind == store.NoticeRevoke {
				n.Payload = r.Payload
			}
			notices = append(notices, n)
		}
	}
	return notices
}

func revokes(t store.NoticeRequest, r *store.Record) bool {
	return r.Refresh == store.RefreshOnline || r.Refresh == store.RefreshOffline && t.Offline
}

// Left returns the notices as [store.Outbox2] leaves them, in the form in which they are kept, without their ID.
func Left(notices []store.Notice) ([]store.Notice, error) {
	left := make([]store.Notice, len(notices))
	for i, n := range notices {
		if err := checkKind(n.Kind); err != nil {
			return nil, err
		}
		n.ID, n.Attempts, n.Lease, n.Reason, n.GivenUp = "", 0, "", "", false
		n.Created, n.Due, n.Deadline = store.Time(n.Created), store.Time(n.Due), store.Time(n.Deadline)
		left[i] = n
	}
	return left, nil
}

// CheckOutcome refuses an outcome that is not exactly one of done, retry and give up.
func CheckOutcome(o store.Outcome) error {
	set := 0
	for _, is := range []bool{o.Done, !o.RetryAt.IsZero(), o.GiveUp} {
		if is {
			set++
		}
	}
	if set != 1 {
		return errors.New("settle: an outcome is exactly one of done, retry and give up")
	}
	return nil
}
