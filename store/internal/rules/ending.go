package rules

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/curfew/session"
)

// CheckEnding refuses an ending that names nobody, with [session.ErrNobody], or asks for a kind of notice that there is not.
func CheckEnding(e session.Ending) error {
	if err := e.Who.Validate(); err != nil {
		return err
	}
	if e.Spare < 0 || e.Spare > 0 && (e.Who.Subject == "" || e.Who.SID != "" || e.JTI != "") {
		return errors.New("end: to spare sessions means something for an ending of a subject alone, without a jti")
	}
	for _, t := range e.Tell {
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
func Batches(ctx context.Context, step func(context.Context) (ended []session.Ended, more bool, err error)) ([]session.Ended, error) {
	var all []session.Ended
	for first := true; ; first = false {
		ended, more, err := step(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, ended[:min(len(ended), session.EndedMost-len(all))]...)
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
func WholeSubject(e session.Ending, t session.Telling) bool {
	return t.Kind == session.NoticeTell && e.Who.Key.IsZero() && e.Who.SID == "" && !t.PerSession && e.Spare == 0
}

// Revoked says whether e leaves a notice with the payload of a session that holds such a refresh token.
func Revoked(e session.Ending, held session.Refresh) bool {
	r := session.Record{Refresh: held}
	return slices.ContainsFunc(e.Tell, func(t session.Telling) bool { return t.Kind == session.NoticeRevoke && revokes(t, &r) })
}

func checkKind(k session.NoticeKind) error {
	if k != session.NoticeTell && k != session.NoticeRevoke {
		return fmt.Errorf("there is no notice of the kind %q", k)
	}
	return nil
}

// Ended reports the sessions in gone, which e removed at now.
func Ended(e session.Ending, gone []session.Record, now time.Time) []session.Ended {
	if len(gone) == 0 {
		return nil
	}
	ended := make([]session.Ended, len(gone))
	for i := range gone {
		r := &gone[i]
		ended[i] = session.Ended{Key: r.Key, Issuer: r.Issuer, ClientID: r.ClientID, Subject: r.Subject, SID: r.SID,
			Cause: e.Cause, At: now}
	}
	return ended
}

// Notices returns the notices that e leaves for the sessions in gone, as [session.Telling] has it, without their ID. Those in
// gone are not the last when there are more to come.
func Notices(e session.Ending, gone []session.Record, more bool, now time.Time) []session.Notice {
	var notices []session.Notice
	for _, t := range e.Tell {
		about := session.Notice{Kind: t.Kind, Target: t.Target, Issuer: e.Who.Issuer, ClientID: e.Who.ClientID,
			Cause: e.Cause, Created: now, Due: now, Deadline: session.Time(t.Deadline)}
		if WholeSubject(e, t) {
			if about.Subject = e.Who.Subject; !more {
				notices = append(notices, about)
			}
			continue
		}
		for i := range gone {
			r := &gone[i]
			if t.Kind == session.NoticeRevoke && !revokes(t, r) {
				continue
			}
			n := about
			n.Key, n.Subject, n.SID = r.Key, r.Subject, r.SID
			if t.Kind == session.NoticeRevoke {
				n.Payload = r.Payload
			}
			notices = append(notices, n)
		}
	}
	return notices
}

func revokes(t session.Telling, r *session.Record) bool {
	return r.Refresh == session.RefreshOnline || r.Refresh == session.RefreshOffline && t.Offline
}

// Left returns the notices as [session.Desk] leaves them, in the form in which they are kept, without their ID.
func Left(notices []session.Notice) ([]session.Notice, error) {
	left := make([]session.Notice, len(notices))
	for i, n := range notices {
		if err := checkKind(n.Kind); err != nil {
			return nil, err
		}
		n.ID, n.Attempts, n.Lease, n.Reason, n.GivenUp = "", 0, "", "", false
		n.Created, n.Due, n.Deadline = session.Time(n.Created), session.Time(n.Due), session.Time(n.Deadline)
		left[i] = n
	}
	return left, nil
}

// CheckOutcome refuses an outcome that is not exactly one of done, retry and give up.
func CheckOutcome(o session.Outcome) error {
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
