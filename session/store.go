package session

import (
	"context"
	"errors"
	"slices"
	"time"
)

// The errors of a [Store]. Anything else means that the store could not do its work: the caller knows nothing about
// the session, lets nobody in and signs nobody out.
var (
	// ErrNotFound: there is no such session: unknown, expired or ended, all the same.
	ErrNotFound = errors.New("session not found")
	// ErrEnded: an ending named this session while its login was under way.
	ErrEnded = errors.New("the session was ended while its login was under way")
	// ErrReplayed: this logout token has been carried out already.
	ErrReplayed = errors.New("already processed")
	// ErrConflict: the session was changed since it was read; read it again.
	ErrConflict = errors.New("the session was changed meanwhile")
	// ErrNobody: an ending names nobody, or names them in a way that has no meaning; see [Who.Validate].
	ErrNobody = errors.New("the ending names no session")
	// ErrLeaseLost: the notice is settled or has been claimed by somebody else since.
	ErrLeaseLost = errors.New("the notice is no longer leased to this claim")
	// ErrNoNotice: there is no such notice: unknown, done or dropped, all the same.
	ErrNoNotice = errors.New("there is no such notice")
)

const (
	// AttemptLifetime bounds how long a login may be under way.
	AttemptLifetime = 15 * time.Minute
	// MarkLifetime is for how long an end mark is kept. It outlives every login that it bars, also one whose replica was
	// suspended after it had looked at the clock, or went by a clock that is behind the one that marks are pruned by.
	MarkLifetime = 2 * AttemptLifetime
)

// Store keeps sessions. Every method is atomic, safe for concurrent use, and takes the time from its caller: a store
// has no clock, except as [Clock] says. Times are kept to the microsecond (see [Time]). A method that returns an error has changed nothing,
// unless it says otherwise; a context that is done before the change is certain is such an error. What is handed in and
// given back, payloads too, is the caller's own: the store keeps copies.
//
// The cost of every method but List and Prune is a few index look-ups, however many sessions there are.
// The suite in store/storetest is this contract made executable.
type Store interface {
	Attempts

	// Create keeps a new session under r.Key, with revision 1.
	//
	// began is when its login began. Create answers [ErrEnded], and keeps nothing, when an end mark at or after
	// began names the session (see [Who.Names]), or when the login began [AttemptLifetime] or more before now.
	// A key that exists already is an error, and none of those above: keys are 256 random bits, so that is a fault,
	// never an update.
	Create(ctx context.Context, r Record, began, now time.Time) error

	// Find returns the session with this key. [ErrNotFound] when it is unknown, ended or expired: a session lives
	// while now is before both its Expires and its IdleExpires.
	Find(ctx context.Context, key Key, now time.Time) (Record, error)

	// Update replaces LastSeen, IdleExpires, Expires, Refresh and Payload of the session that has r.Key, and raises
	// its revision by one, only if it still lives and its revision is still r.Revision. [ErrNotFound] when it does
	// not live, [ErrConflict] when its revision is another. Update never creates. Key, issuer, client, subject, sid,
	// former sids and Created are never changed.
	Update(ctx context.Context, r Record, now time.Time) error

	// Rename is Update that replaces SID and Former as well, for a session whose refreshed ID Token has another sid.
	// The caller sees to it that the sid which it had is in Former: whatever is in neither no longer names the session.
	// There is no moment at which a sid that it has before and after does not name it.
	//
	// began is when the refresh began. [ErrEnded], and nothing has changed, when a login that began then could not be
	// created as r (see Create): a logout named the session by its new sid while the refresh was under way.
	Rename(ctx context.Context, r Record, began, now time.Time) error

	// End carries out an ending, all of it or nothing:
	//
	//  1. [ErrReplayed] if e.JTI is not empty and was recorded for this issuer and client, and now is before the
	//     JTIExpires that it was recorded with.
	//  2. The jti is recorded until e.JTIExpires.
	//  3. Unless the ending names one key, an end mark with the time now is left for [MarkLifetime]; a later mark for
	//     the same names replaces an earlier one, never the reverse. A store that is a [Clock] marks with the time of its
	//     own server instead if that is later, read after every wait for a lock.
	//  4. Every session that e.Who names (see [Who.Names]) is removed.
	//  5. For each of e.Tell the notices are written that [Telling] describes.
	//  6. Every [Watch] hears of each removed session.
	//
	// It returns the sessions it removed, in no particular order. One that no longer lived has not ended just now: it is
	// neither returned, nor noticed, nor heard of. Naming nobody that is here is a success: the jti is recorded and the
	// mark is left all the same. [ErrNobody] if e.Who is not valid; an unknown kind of [Telling] is an error too.
	//
	// An ending that names more than [EndBatch] sessions is carried out in batches of so many, each a step of its own, so that
	// it holds up no one else for longer than one batch, in as much memory. The first leaves the mark, the last records
	// the jti and leaves the notice about the whole subject; the others are left with the sessions that they are about. When
	// it fails in between, what has been removed stays so, the jti is not used up, and the same ending does the rest. Once
	// the first batch is done it goes on when ctx is done, for up to a minute: most providers ask only once. Payloads are
	// read only where a notice takes them.
	//
	// Of the sessions that it removed End returns [EndedMost] at most; every Watch hears of all, or of a gap.
	//
	// When End has returned nil the ending survives a crash of the process and, where the store is durable, of the
	// machine. An error after which the ending may have been carried out all the same (a connection cut during
	// commit) is possible; ending it again is harmless.
	End(ctx context.Context, e Ending, now time.Time) ([]Ended, error)

	// List returns living sessions in the order of their keys, a page at a time. A session that lives throughout is on
	// exactly one page, whatever is created and ended between the pages. A query that has no meaning is an error.
	List(ctx context.Context, q Query, now time.Time) (Page, error)

	// Prune removes a batch of what is past its time (sessions, end marks, jtis, attempts; never notices) and says how many
	// it removed. Call it again while that is not 0. It never holds up a logout for longer than one small batch.
	Prune(ctx context.Context, now time.Time) (int, error)

	// Watch calls fn for every session that ends from now on, on whatever replica, until the feed is closed or ctx
	// is done. fn is called from one goroutine at a time, must not block and must not call the store.
	Watch(ctx context.Context, fn func(Ended)) (Feed, error)

	// Close gives back what the store holds. Work under way is finished first. A closed store answers every method with
	// an error that is none of the above, and its feeds are no longer in sync. Closing again does nothing.
	Close() error
}

const (
	// EndBatch is how many sessions one step of an ending removes.
	EndBatch = 500
	// EndedMost is how many sessions [Store.End] returns of those that it removed.
	EndedMost = 10_000
)

// Feed is a subscription to what ends.
type Feed interface {
	// Sync returns nil only when every ending that was complete before Sync was called has been handed to the watching
	// function, and none was missed since the last Sync (or since Watch). Any error means that endings may have been
	// missed: who keeps copies of sessions drops them all, and trusts no copy until Sync returns nil again. Once the
	// subscription is over (closed, its context done, its store closed) Sync always fails.
	Sync(ctx context.Context) error
	// Close ends the subscription. After it has returned the watching function is not called any more.
	Close() error
}

// Clock is what a store has that processes share: its server's time is the one that all of them see. A store of a single
// process has none.
type Clock interface {
	// Clock returns the server's time at some moment of the call, and never an earlier or a later one: it is neither
	// remembered nor corrected. Of several servers it is that of the one that is furthest behind. It should not wait for what
	// other methods wait for, such as a connection of a pool or a lock.
	Clock(ctx context.Context) (time.Time, error)
}

// Volatile is what a store has that forgets everything, its end marks too, when its process ends. A login that began
// before that may have been named by a logout that nobody remembers, so it is refused with [ErrEnded].
type Volatile interface {
	// Incarnation returns a text of its own for each store that was made.
	Incarnation() string
}

// Record is a session as a store keeps it: columns to find it by, and a payload that is sealed and opaque.
type Record struct {
	Key      Key
	Issuer   string
	ClientID string
	Subject  string
	SID      string // the `sid` of the latest ID Token that had one; empty when none had
	// Former are the sids that it had before, without SID, each once, none of them empty. They name the session too: a
	// logout token may have been made before the provider changed the sid, or with what it was at sign-in.
	Former []string

	Created     time.Time
	LastSeen    time.Time
	IdleExpires time.Time // no later than this unless it is used
	Expires     time.Time // no later than this in any case
	Revision    int64     // 1 when created, one more at each Update

	Refresh Refresh // which kind of refresh token the payload holds
	Payload []byte
}

// Lives says whether a session is neither expired nor idle for too long.
func (r *Record) Lives(now time.Time) bool {
	return now.Before(r.Expires) && now.Before(r.IdleExpires)
}

// HasSID says whether the session has this sid, or had it before.
func (r *Record) HasSID(sid string) bool {
	return sid != "" && (sid == r.SID || slices.Contains(r.Former, sid))
}

// Refresh says which kind of refresh token a session holds; an ending may ask to have it revoked.
type Refresh uint8

const (
	RefreshNone    Refresh = iota // holds none
	RefreshOnline                 // to be revoked when the session ends (Back-Channel Logout §2.7)
	RefreshOffline                // granted with offline_access: normally kept (Back-Channel Logout §2.7)
)

// Who is what a logout names, within one issuer and client. Either Key alone is set, or Subject, or SID, or these two.
type Who struct {
	Issuer   string
	ClientID string
	Subject  string
	SID      string
	Key      Key
}

// Validate returns [ErrNobody] unless w names somebody: issuer and client, and a key, or a subject and/or a sid.
func (w Who) Validate() error {
	byName := w.Subject != "" || w.SID != ""
	if w.Issuer == "" || w.ClientID == "" || byName == !w.Key.IsZero() {
		return ErrNobody
	}
	return nil
}

// Names says whether an ending of w ends the session r, and whether a mark of w bars it:
//
//   - a key: the session with that key, if its issuer and client are the same;
//   - sid alone: every session that has that sid, or had it before;
//   - sub alone: every session of that subject;
//   - both: the sessions of that subject that have that sid, or had it before, and those of that subject that have no sid
//     on record: they cannot be told apart, so they end too.
//
// Stores find the same sessions by index; this is what they must agree with.
func (w Who) Names(r *Record) bool {
	switch {
	case w.Issuer != r.Issuer || w.ClientID != r.ClientID:
		return false
	case !w.Key.IsZero():
		return w.Key == r.Key
	case w.Subject == "":
		return r.HasSID(w.SID)
	case w.SID == "":
		return w.Subject == r.Subject
	default:
		return w.Subject == r.Subject && (r.HasSID(w.SID) || r.SID == "")
	}
}

// Cause says why a session ended. It is a label of metrics and log lines.
type Cause string

const (
	CauseBackChannel     Cause = "backchannel"      // a logout token of the provider
	CauseFrontChannel    Cause = "frontchannel"     // the provider's page, in the person's browser
	CauseUser            Cause = "user"             // the person signed out here
	CauseAdmin           Cause = "admin"            // somebody on duty ended it
	CauseReplaced        Cause = "replaced"         // the same browser signed in again
	CauseRefreshRejected Cause = "refresh_rejected" // the provider answered invalid_grant to a refresh
	CauseRequire         Cause = "require"          // what the claims said at a refresh no longer lets the person in
	CauseProviderSilent  Cause = "provider_silent"  // the provider was away for longer than the grace
	CauseCapped          Cause = "capped"           // its person signed in more often than one may; see [Config.PerSubject]
	CauseTooManySIDs     Cause = "too_many_sids"    // its refreshes brought more sids than are kept
	CauseExpired         Cause = "expired"          // its time was over; only notices have this cause
)

// Ending is a verified wish to end sessions.
type Ending struct {
	Who        Who
	Cause      Cause
	JTI        string    // of the logout token; empty when there was none
	JTIExpires time.Time // until when JTI is remembered
	Tell       []Telling // the notices to leave behind

	// Spare, if it is not 0, has an ending of a subject make room and no more: the Spare sessions of the subject that were
	// created last stay, and of the others one [EndBatch] at most is removed. It leaves no mark, since whoever signs in now is
	// welcome. It has neither a SID, nor a Key, nor a JTI, and looks at Spare+EndBatch sessions at most; one that has run
	// out and is not pruned counts as one.
	Spare int

	// RevokeOffline: whoever wished it wants refresh tokens for offline use revoked too. It is for who makes Tell (see
	// [Config.Tell]); stores do not read it.
	RevokeOffline bool
	// KeepTokens: what the session held is not to be revoked now, since the session that took its place answers for it
	// (see [Tokens.Inherit]). It is for who makes Tell; stores do not read it.
	KeepTokens bool
}

// Ended is one session that was ended.
type Ended struct {
	Key      Key
	Issuer   string
	ClientID string
	Subject  string
	SID      string
	Cause    Cause
	At       time.Time
}

// NoticeKind says what is to be done about an ended session.
type NoticeKind string

const (
	NoticeTell   NoticeKind = "tell"   // send an app a logout token
	NoticeRevoke NoticeKind = "revoke" // revoke the session's refresh token
)

// Telling asks [Store.End] for notices.
//
//   - NoticeTell leaves one notice for each session that ended; or, when the ending named a subject without a sid, and
//     neither PerSession nor Spare is set, a single one that carries the subject and no key and no sid, even if no
//     session was here.
//   - NoticeRevoke leaves one notice, with the session's payload, for each session that ended and held a refresh
//     token: those with RefreshOnline always, those with RefreshOffline if Offline is set.
type Telling struct {
	Kind     NoticeKind
	Target   string // the app; for NoticeRevoke the provider's name
	Offline  bool
	Deadline time.Time // when to give up

	PerSession bool // for NoticeTell: the app wants to hear of each session, never of a whole subject
}

// Notice is work that an ending left behind: it is kept until it is done.
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
	Attempts int    // how often it was claimed
	Lease    string // which claim holds it
	Reason   string // what the last attempt said
	GivenUp  bool   // it is a dead letter
}

// Outcome is what became of an attempt at a notice. Exactly one of Done, RetryAt and GiveUp is set; anything else is
// refused and changes nothing.
type Outcome struct {
	Done    bool      // it is done: forget it
	RetryAt time.Time // try again, then
	GiveUp  bool      // it stays, as a dead letter, and is never claimed again
	Reason  string    // for RetryAt and GiveUp
}

// Outbox holds the notices that [Store.End] left. Every store is one.
type Outbox interface {
	// Claim leases up to max notices that are due and not leased, those that have been due for longest first, and
	// counts an attempt for each. Until now+lease no other Claim returns them. A max below 1 claims none.
	Claim(ctx context.Context, now time.Time, lease time.Duration, max int) ([]Notice, error)
	// Settle says what became of a claimed notice. [ErrLeaseLost] when it has been claimed anew or settled since: nothing
	// is changed then. A lease that ran out but was not claimed by another can still be settled.
	Settle(ctx context.Context, n Notice, o Outcome) error
}

// Desk is an [Outbox] at which the work is done target by target, looked at, and steered. Every store is one.
type Desk interface {
	Outbox

	// ClaimFor is Claim of the notices of one kind for one target: the work for one app never waits behind that for
	// another. Like Claim it costs a few index look-ups for each notice that it returns or that is leased to somebody
	// else, however many notices wait for other targets.
	ClaimFor(ctx context.Context, kind NoticeKind, target string, now time.Time, lease time.Duration, max int) ([]Notice, error)
	// Leave puts notices into the outbox as End does, all of them or none. It gives each its ID, and reads neither that
	// nor Attempts, Lease, Reason and GivenUp. A kind that there is not is an error.
	Leave(ctx context.Context, notices []Notice) error
	// Notices returns notices, dead letters too, a page at a time, in an order of the store's that does not change.
	// Their Payload and Lease are left out. A query that has no meaning is an error.
	Notices(ctx context.Context, q NoticeQuery) (NoticePage, error)
	// Notice returns one notice, without Payload and Lease, or [ErrNoNotice].
	Notice(ctx context.Context, id string) (Notice, error)
	// Retry makes a notice due at due, with a new deadline, and a dead letter a notice again. One that is leased stays
	// so, and what its holder settles holds. [ErrNoNotice].
	Retry(ctx context.Context, id string, due, deadline time.Time) error
	// Drop forgets a notice, undone. Who holds it hears [ErrLeaseLost] when settling it. [ErrNoNotice].
	Drop(ctx context.Context, id string) error
	// Overdue returns sessions that no longer live, hold a refresh token and have not been pruned, in the order of
	// their keys after the given one, up to limit: for who wants to revoke what sessions held that nobody ended. It may
	// cost as much as there are of them.
	Overdue(ctx context.Context, after Key, limit int, now time.Time) ([]Record, error)
	// Tally counts the notices of each kind and target that has any, in no particular order. It may look at all of
	// them, but not at what they hold.
	Tally(ctx context.Context) ([]Tally, error)
}

// NoticeQuery asks for notices; what is empty does not restrict.
type NoticeQuery struct {
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

// Tally is how many notices of one kind one target has.
type Tally struct {
	Kind    NoticeKind
	Target  string
	Pending int
	Dead    int
	Oldest  time.Time // when the oldest pending one was created; zero without any
}

// Vault keeps a few small values, each under a name, that all replicas share: sealed by whoever puts them there (see
// [Ring]). Every store is one. Names and values have at most 256 bytes and 256 KiB.
type Vault interface {
	// Load returns a value and its revision; a name that nobody saved has no value, the revision 0, and is no error.
	Load(ctx context.Context, name string) (value []byte, revision int64, err error)
	// Save replaces a value, if its revision is still the given one, and raises that by one: revision 0 saves it for
	// the first time. [ErrConflict] when the revision is another: nothing has changed then.
	Save(ctx context.Context, name string, value []byte, revision int64) error
}

// Query asks for living sessions; what is empty does not restrict. Subject and SID need Issuer and ClientID. A SID
// finds what an ending of it would: also the sessions that had it before.
type Query struct {
	Issuer   string
	ClientID string
	Subject  string
	SID      string
	After    Key // the Next of the page before
	Limit    int // 1 to 1,000; 0 means 100
}

// Page is a part of a list.
type Page struct {
	Records []Record
	Next    Key // zero on the last page
}

// Time cuts t to what a store keeps: microseconds, UTC, no monotonic reading.
func Time(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}
