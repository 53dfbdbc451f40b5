package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Outbox is the part of a [Store] that keeps the notices that [Sessions.End] left, each until it is done.
type Outbox interface {
	// Claim leases up to limit notices of one kind for one target that are due and not leased, those that have been due
	// for longest first, and counts an attempt for each. Until now+lease no other Claim returns them. A limit below 1
	// claims none. The work for one target never waits behind that for another: Claim costs a few index look-ups for
	// each notice that it returns or that another claim holds, however many notices wait for other targets.
	Claim(
		ctx context.Context, kind NoticeKind, target string, now time.Time, lease time.Duration, limit int,
	) ([]Notice, error)
	// Complete records what became of a claimed notice. The attempt that Claim counted stays counted, unless the outcome
	// is Untried: then Attempts is one less again, and never below 0. [ErrLeaseLost], and nothing is changed, when it
	// has been claimed anew or completed since. A lease that ran out can still be completed while no other claim holds
	// the notice.
	Complete(ctx context.Context, n Notice, o Outcome) error
	// Enqueue puts notices into the outbox as End does, all of them or none. It gives each its ID, and ignores that and
	// Attempts, Lease, Reason and GivenUp. An unknown kind is an error.
	Enqueue(ctx context.Context, notices []Notice) error
	// Notices returns notices, dead letters too, a page at a time, in an order of the store's that does not change.
	// Their Payload and Lease are left out. An invalid query is an error.
	Notices(ctx context.Context, q NoticeQuery) (NoticePage, error)
	// Retry makes a notice due at due, with a new deadline and no attempts, and a dead letter a notice again. One that is
	// leased stays so, and what its holder reports counts. [ErrNoNotice].
	Retry(ctx context.Context, id string, due, deadline time.Time) error
	// Drop forgets a notice, undone. Its holder gets [ErrLeaseLost] from Complete. [ErrNoNotice].
	Drop(ctx context.Context, id string) error
	// Stats counts the notices of each kind and target that has any, in no particular order. It may look at all of
	// them, but not at what they hold.
	Stats(ctx context.Context) ([]NoticeStats, error)
}

// NoticeKind is what is to be done about an ended session.
type NoticeKind string

const (
	NoticeLogout NoticeKind = "logout" // send an app a logout token
	NoticeRevoke NoticeKind = "revoke" // revoke the session's refresh token
)

func (k NoticeKind) validate() error {
	if k != NoticeLogout && k != NoticeRevoke {
		return fmt.Errorf("unknown kind of notice %q", k)
	}
	return nil
}

// Notice is work that an ending left. It is kept until it is done.
type Notice struct {
	ID       string
	Kind     NoticeKind
	Target   string
	Issuer   string
	ClientID string
	Subject  string
	SID      string
	Key      Key
	Cause    Cause
	Payload  []byte    // of the session, for NoticeRevoke
	Created  time.Time // when the session ended
	Due      time.Time // not to be tried before
	Deadline time.Time
	Attempts int    // how often it was claimed since it was left or retried, apart from claims that ended Untried
	Lease    string // which claim holds it
	Reason   string // what the last attempt reported
	GivenUp  bool   // it is a dead letter
}

// Outcome is what became of an attempt at a notice. Exactly one of Done, RetryAt and GiveUp is set, and Untried never
// with Done; anything else is refused and changes nothing.
type Outcome struct {
	Done    bool      // it is done: forget it
	RetryAt time.Time // try again then
	GiveUp  bool      // it stays, as a dead letter, and is never claimed again
	Untried bool      // for RetryAt and GiveUp: nothing was tried, so the attempt does not count
	Reason  string    // for RetryAt and GiveUp
}

// Validate refuses an outcome that is not exactly one of done, retry and give up, or is done and untried.
func (o *Outcome) Validate() error {
	set := 0
	for _, is := range []bool{o.Done, !o.RetryAt.IsZero(), o.GiveUp} {
		if is {
			set++
		}
	}
	if set != 1 {
		return errors.New("complete: an outcome is exactly one of done, retry and give up")
	}
	if o.Done && o.Untried {
		return errors.New("complete: what was not tried is not done")
	}
	return nil
}

// NoticeQuery asks for notices; an empty field does not restrict.
type NoticeQuery struct {
	ID     string // this one; a page without it when there is none
	Kind   NoticeKind
	Target string
	State  NoticeState
	After  string // the Next of the page before
	Limit  int    // 1 to 1,000; 0 means 100
}

// NoticeState restricts a [NoticeQuery].
type NoticeState string

const (
	NoticePending NoticeState = "pending" // to be tried, or being tried
	NoticeDead    NoticeState = "dead"    // given up
)

// NoticePage is a part of a list of notices.
type NoticePage struct {
	Notices []Notice
	Next    string // empty on the last page
}

// Matches reports whether q asks for n, apart from the page.
func (q *NoticeQuery) Matches(n *Notice) bool {
	return (q.ID == "" || q.ID == n.ID) && (q.Kind == "" || q.Kind == n.Kind) &&
		(q.Target == "" || q.Target == n.Target) &&
		(q.State == "" || n.GivenUp == (q.State == NoticeDead))
}

// PageSize returns how many notices a page of q has at most. The error says why the query is invalid.
func (q *NoticeQuery) PageSize() (int, error) {
	switch q.State {
	case "", NoticePending, NoticeDead:
		return pageSize(q.Limit)
	}
	return 0, fmt.Errorf("list: unknown state of a notice %q", q.State)
}

// NoticeStats is how many notices of one kind one target has.
type NoticeStats struct {
	Kind    NoticeKind
	Target  string
	Pending int
	Dead    int
	Oldest  time.Time // when the oldest pending one was created; zero without any
}

// NewNotices returns the notices as [Outbox.Enqueue] keeps them, without their ID. It is for stores.
func NewNotices(notices []Notice) ([]Notice, error) {
	kept := make([]Notice, len(notices))
	for i, n := range notices {
		if err := n.Kind.validate(); err != nil {
			return nil, err
		}
		n.ID, n.Attempts, n.Lease, n.Reason, n.GivenUp = "", 0, "", "", false
		n.Created, n.Due, n.Deadline = Time(n.Created), Time(n.Due), Time(n.Deadline)
		kept[i] = n
	}
	return kept, nil
}
