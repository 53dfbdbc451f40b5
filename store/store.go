package store

import (
	"context"
	"errors"
	"time"
)

// The errors of a [Store]. Any other error means that the store could not do its work. The caller then knows nothing
// about the session: it lets nobody in and signs nobody out.
var (
	// ErrNotFound: there is no such session. It may be unknown, expired or ended; a store does not say which.
	ErrNotFound = errors.New("session not found")
	// ErrEnded: an ending named this session while its login was under way.
	ErrEnded = errors.New("the session was ended while its login was under way")
	// ErrReplayed: this logout token has been carried out already.
	ErrReplayed = errors.New("already processed")
	// ErrConflict: the value was changed since it was read. Read it again.
	ErrConflict = errors.New("the session was changed meanwhile")
	// ErrNobody: an ending names nobody, or names them in a way that has no meaning; see [Selector.Validate].
	ErrNobody = errors.New("the ending names no session")
	// ErrLeaseLost: the notice has been completed, or another claim holds it.
	ErrLeaseLost = errors.New("the notice is no longer leased to this claim")
	// ErrNoNotice: there is no such notice. It may be unknown, done or dropped; a store does not say which.
	ErrNoNotice = errors.New("there is no such notice")
)

// IsContractError reports whether err is one of these errors, and not a failure. It is for stores.
func IsContractError(err error) bool {
	for _, of := range []error{ErrNotFound, ErrEnded, ErrReplayed, ErrConflict, ErrNobody, ErrLeaseLost, ErrNoNotice} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

const (
	// AttemptLifetime is the longest time that a login may be under way.
	AttemptLifetime = 15 * time.Minute
	// MarkLifetime is how long an end mark is kept at least; see [Ending.MarkFor]. It outlives every login that it bars,
	// also one whose replica was suspended after it had read the clock, or whose clock is behind the one by which marks
	// are pruned.
	MarkLifetime = 2 * AttemptLifetime
)

// Store keeps sessions, the notices that their endings leave, a few values that all replicas share, and a journal.
//
// Every method is atomic and safe for concurrent use. The time is an argument: a store has no clock of its own, except
// as [Store.Clock] says. Times are kept to the microsecond (see [Time]). A method that returns an error has changed
// nothing, unless it says otherwise; that the context was done before the change was certain is such an error.
// Arguments and results, payloads too, belong to the caller: a store keeps copies.
//
// Each method, except List, Notices, Stats, Overdue, Prune and those of [Journal], costs a few index look-ups, however
// many sessions there are.
type Store interface {
	Sessions
	Outbox
	SharedValues
	Attempts
	Journal

	// Clock says which clock the store uses. It returns the same at each call.
	Clock() Clock
	// Close releases what the store holds, after the calls under way have returned. A closed store answers every method
	// with an error that is none of those above, and its feeds are no longer in sync. A second Close does nothing.
	Close() error
}

// Sessions is the part of a [Store] that keeps sessions and end marks.
type Sessions interface {
	// Create keeps a new session under r.Key, with revision 1.
	//
	// began is when its login began. Create returns [ErrEnded], and keeps nothing, when an end mark at or after began
	// names the session (see [Selector.Names]), or when the login began [AttemptLifetime] or more before now. A key
	// that exists already is an error, and none of those above: keys are 256 random bits, so this is a fault and never
	// an update.
	Create(ctx context.Context, r Record, began, now time.Time) error

	// Admit is Create for a session that stands for an access token, which was issued at the time issued by the clock of
	// its provider. It returns [ErrEnded], and keeps nothing, when an end mark at or after issued names the subject as it
	// names the session (see [Selector.Names]), or when there is an end mark for one of its sids or for its key, of
	// whatever time. How long ago the token was issued does not matter: the caller refuses tokens that may be older than
	// end marks.
	Admit(ctx context.Context, r Record, issued, now time.Time) error

	// Find returns the session with this key. [ErrNotFound] when it is unknown, ended or expired. A session lives while
	// now is before both its Expires and its IdleExpires.
	Find(ctx context.Context, key Key, now time.Time) (Record, error)

	// Update replaces LastSeen, IdleExpires, Expires, Refresh and Payload of the session with the key r.Key, and raises
	// its revision by one, if it still lives and its revision is still r.Revision. [ErrNotFound] when it does not live,
	// [ErrConflict] when its revision is another. Update never creates a session. Key, issuer, client, subject, the
	// sids and Created never change.
	Update(ctx context.Context, r Record, now time.Time) error

	// Rename is Update that replaces SID and Former as well, for a session whose refreshed ID Token has another `sid`.
	// The caller puts the sid that the session had into Former: a sid that is in neither no longer names the session.
	// At no moment does a sid that the session has before and after not name it.
	//
	// began is when the refresh began. Rename returns [ErrEnded], and changes nothing, when a login that began then
	// could not be created as r (see Create): a logout named the session by its new sid while the refresh was under
	// way.
	Rename(ctx context.Context, r Record, began, now time.Time) error

	// End carries out an ending, all of it or nothing:
	//
	//  1. [ErrReplayed] if e.JTI is not empty and was recorded for this issuer and client, and now is before the
	//     JTIExpires that it was recorded with.
	//  2. The jti is recorded until e.JTIExpires.
	//  3. Unless the ending names one key without Bar, an end mark with the time now is left for [Ending.MarkLife]. A
	//     later mark for the same names replaces an earlier one, never the reverse, and is kept no shorter. A store with a
	//     server's clock (see [Clock]) marks with the server's time instead if that is later, read after every wait for a
	//     lock.
	//  4. Every session that e.Selector names (see [Selector.Names]) is removed. Unless it made room (see [Ending.Spare]),
	//     an end mark is left for the key of one that stood for an access token (see [Record.IsToken]): the same token may
	//     come again, and be dated after the ending by a clock that is ahead.
	//  5. For each of e.Notices the notices are left that [NoticeRequest] describes.
	//  6. Every [Sessions.Watch] hears of each removed session.
	//
	// End returns the sessions that it removed, in no particular order. A session that no longer lived did not end just
	// now: it is not returned, leaves no notice, and no watcher hears of it. An ending that names no session here
	// succeeds: the jti is recorded and the mark is left. [ErrNobody] if e.Selector is not valid; see also
	// [Ending.Validate].
	//
	// An ending that names more than [EndBatch] sessions is carried out in batches of that size. Each is a step of its
	// own, so others wait for one batch at most, and memory is bounded. The first batch leaves the mark. The last
	// records the jti and leaves the notice about the whole subject. Other notices are left with the sessions that they
	// are about. When End fails in between, what has been removed stays removed, the jti is not used up, and the same
	// ending does the rest. Once the first batch is done End goes on when ctx is done, for up to a minute, since most
	// providers ask only once. Payloads are read only where a notice needs them.
	//
	// Of the sessions that it removed End returns [EndedMost] at most. Every watcher hears of all, or its feed has a
	// gap.
	//
	// An End of a sid that fails may leave its mark: a login that began before it is then refused.
	//
	// When End has returned nil, the ending survives a crash of the process and, in a durable store, of the machine.
	// After an error the ending may have been carried out all the same (a connection that was cut during commit); to
	// repeat it is harmless.
	End(ctx context.Context, e Ending, now time.Time) ([]Ended, error)

	// List returns living sessions in the order of their keys, a page at a time. A session that lives throughout is on
	// exactly one page, whatever is created and ended between the pages. An invalid query is an error.
	List(ctx context.Context, q Query, now time.Time) (Page, error)

	// Overdue returns sessions that no longer live, hold a refresh token and have not been pruned, in the order of
	// their keys after the given one, up to limit: for callers that revoke what sessions held that ran out. It may cost
	// as much as there are of them.
	Overdue(ctx context.Context, after Key, limit int, now time.Time) ([]Record, error)

	// Prune removes a batch of what is past its time (sessions, end marks, jtis, attempts; never notices) and returns
	// how many it removed. Call it again while that is not 0. No logout waits for it longer than for one small batch.
	//
	// Where notices and the entries by which they are found lie on different servers, a crash may separate them. The
	// call that finds nothing more to remove repairs such entries, so that every notice can be claimed.
	Prune(ctx context.Context, now time.Time) (int, error)

	// Watch calls fn for every session that ends from now on, on whatever replica, until the feed is closed or ctx is
	// done. fn is called by one goroutine at a time. It must not block and must not call the store. Once an ending has
	// returned, a Sync that begins then proves that fn has been called for all that the ending found gone, by whichever
	// ending.
	Watch(ctx context.Context, fn func(Ended)) (Feed, error)
}

// Feed is a subscription to the sessions that end.
type Feed interface {
	// Sync returns nil only when every ending that was complete before Sync was called has been handed to the watching
	// function, and none was missed since the last Sync (or since Watch). After any error endings may have been missed:
	// a caller with copies of sessions drops them all, and trusts no copy until Sync returns nil again. Once the
	// subscription is over (it or its store was closed, or its context is done) Sync always fails.
	//
	// The first Sync that succeeds, after Watch or after one that failed, proves less: an ending that was complete before
	// it may be handed over later, or never. What is read from the store once it has returned shows such an ending, so a
	// caller drops the copies that it read before, and asks the store about what it must hear of.
	Sync(ctx context.Context) error
	// Close ends the subscription. After it has returned the watching function is not called any more.
	Close() error
}

// Clock says which clock a store uses.
type Clock struct {
	// Now returns the time of the store's server, which is the one that all replicas see. It returns the time at some
	// moment of the call, neither an earlier nor a later one: it is neither remembered nor corrected. Of several
	// servers it is the time of the one that is furthest behind. It does not wait for what other methods wait for, such
	// as a connection of a pool, or a lock.
	//
	// It is nil where a store belongs to one process, whose own clock then counts.
	Now func(context.Context) (time.Time, error)

	// Incarnation is set by a store that forgets everything, its end marks too, when its process ends. It is another
	// text for each store that is made. A login that began in an earlier incarnation may have been named by a logout
	// that nobody remembers, so it is refused with [ErrEnded].
	Incarnation string
}

// Time returns t as a store keeps it: cut to microseconds, in UTC, without a monotonic reading.
func Time(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}

// Micros returns t as microseconds since 1970, which is how stores keep it.
func Micros(t time.Time) int64 { return Time(t).UnixMicro() }

// FromMicros is the inverse of [Micros].
func FromMicros(micros int64) time.Time { return Time(time.UnixMicro(micros)) }
