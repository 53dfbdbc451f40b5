package store

import (
	"context"
	"errors"
	"slices"
	"time"
)

const (
	// EndBatch is how many sessions one step of an ending removes.
	EndBatch = 500
	// EndedMost is how many sessions [Sessions.End] returns of those that it removed.
	EndedMost = 10_000
)

// Selector is what a logout names, within one issuer and client: Key alone, or Subject, or SID, or Subject and SID.
type Selector struct {
	Issuer   string
	ClientID string
	Subject  string
	SID      string
	Key      Key
}

// Validate returns [ErrNobody] unless w names somebody: issuer and client, and a key, or a subject and/or a sid.
func (w Selector) Validate() error {
	byName := w.Subject != "" || w.SID != ""
	if w.Issuer == "" || w.ClientID == "" || byName == !w.Key.IsZero() {
		return ErrNobody
	}
	return nil
}

// Names reports whether an ending with this selector ends the session r, and whether a mark of it bars r:
//
//   - a key: the session with that key, if its issuer and client are the same;
//   - sid alone: every session that has that sid, or had it before;
//   - sub alone: every session of that subject;
//   - both: what the sid alone names, and the sessions of that subject that have no sid on record: they cannot be told
//     apart, so they end too. A session with that sid ends whatever its subject is. The sid is unique at the issuer
//     (Back-Channel Logout §2.1), while a provider may name one person by several subjects.
//
// Stores find the same sessions by index; this is what they must agree with.
func (w Selector) Names(r *Record) bool {
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
		return r.HasSID(w.SID) || w.Subject == r.Subject && r.SID == ""
	}
}

// Cause is why a session ended. It is a label of metrics and log lines.
type Cause string

const (
	CauseBackChannel     Cause = "backchannel"      // a logout token of the provider
	CauseFrontChannel    Cause = "frontchannel"     // the provider's page, in the person's browser
	CauseUser            Cause = "user"             // the person signed out here
	CauseAdmin           Cause = "admin"            // an operator ended it
	CauseReplaced        Cause = "replaced"         // the same browser signed in again
	CauseRefreshRejected Cause = "refresh_rejected" // the provider answered invalid_grant to a refresh
	CauseProviderEnded   Cause = "provider_ended"   // the provider said that it is over, when it was asked
	CauseRequire         Cause = "require"          // the claims of a refresh no longer let the person in
	CauseProviderSilent  Cause = "provider_silent"  // the provider was away for longer than the grace
	CauseCapped          Cause = "capped"           // the person has more sessions than one may have
	CauseTooManySIDs     Cause = "too_many_sids"    // refreshes brought more sids than are kept
	CauseExpired         Cause = "expired"          // its time was over; only notices have this cause
)

// Ending is a verified request to end sessions.
type Ending struct {
	Selector   Selector
	Cause      Cause
	JTI        string          // of the logout token; empty when there was none
	JTIExpires time.Time       // until when JTI is remembered
	Notices    []NoticeRequest // the notices to leave

	// Spare, if it is not 0, has an ending of a subject make room and no more: the Spare sessions of the subject that
	// were created last stay, and of the others one [EndBatch] at most is removed. It leaves no mark, since a new
	// sign-in is welcome. Such an ending has neither a SID, nor a Key, nor a JTI, and looks at Spare+EndBatch sessions
	// at most. A session that has run out and is not pruned counts as one.
	Spare int

	// Bar has an ending of a Key leave an end mark too, for that key, which [Sessions.Admit] obeys: an access token comes
	// with the same key again. Without it an ending of a key leaves none: no login under way has a key.
	Bar bool

	// MarkFor is how long the end mark is kept, if that is longer than [MarkLifetime]: as long as an access token can
	// live that was issued before the ending (see [Sessions.Admit]).
	MarkFor time.Duration

	// RevokeOffline: refresh tokens for offline use are to be revoked as well. It is for what plans the notices; stores
	// do not read it.
	RevokeOffline bool
	// KeepTokens: what the session held is not to be revoked now, since the session that takes its place answers for
	// it. It is for what plans the notices; stores do not read it.
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
	Refresh  Refresh // what it held, as far as [Sessions.End] returns it: a watcher may not be told
}

// NoticeRequest asks [Sessions.End] for notices.
//
//   - NoticeLogout leaves one notice for each session that ended. When the ending named a subject without a sid, and
//     neither PerSession nor Spare is set, it leaves a single one that has the subject and no key and no sid, even if
//     no session was here.
//   - NoticeRevoke leaves one notice, with the session's payload, for each session that ended and held a refresh token:
//     those with RefreshOnline always, those with RefreshOffline if Offline is set.
type NoticeRequest struct {
	Kind     NoticeKind
	Target   string // the app; for NoticeRevoke the provider's name
	Offline  bool
	Deadline time.Time // when to give up

	PerSession bool // for NoticeLogout: the app is to hear of each session, never of a whole subject
}

// MarkLife returns how long the end mark of the ending is kept. It is for stores.
func (e *Ending) MarkLife() time.Duration { return max(e.MarkFor, MarkLifetime) }

// Validate refuses an ending that names nobody, with [ErrNobody], one that spares sessions or bars a key where that
// means nothing, and an unknown kind of notice.
func (e *Ending) Validate() error {
	if err := e.Selector.Validate(); err != nil {
		return err
	}
	if e.Spare < 0 || e.Spare > 0 && (e.Selector.Subject == "" || e.Selector.SID != "" || e.JTI != "") {
		return errors.New("end: to spare sessions means something for an ending of a subject alone, without a jti")
	}
	if e.Bar && e.Selector.Key.IsZero() {
		return errors.New("end: to bar a key means something for an ending of a key")
	}
	for _, r := range e.Notices {
		if err := r.Kind.validate(); err != nil {
			return err
		}
	}
	return nil
}

// Ended returns what is reported of the sessions in gone, which the ending removed at now.
func (e *Ending) Ended(gone []Record, now time.Time) []Ended {
	if len(gone) == 0 {
		return nil
	}
	ended := make([]Ended, len(gone))
	for i := range gone {
		r := &gone[i]
		ended[i] = Ended{Key: r.Key, Issuer: r.Issuer, ClientID: r.ClientID, Subject: r.Subject, SID: r.SID,
			Cause: e.Cause, At: now, Refresh: r.Refresh}
	}
	return ended
}

// Leaves reports whether notices may wait after an ending that returned ended. If that is nothing, an earlier try may
// have left some.
func (e *Ending) Leaves(ended []Ended) bool {
	if len(ended) == 0 || len(ended) == EndedMost {
		return len(e.Notices) > 0
	}
	return slices.ContainsFunc(e.Notices, func(r NoticeRequest) bool { return r.Kind != NoticeRevoke }) ||
		slices.ContainsFunc(ended, func(one Ended) bool { return e.Revokes(one.Refresh) })
}

// NoticesFor returns the notices that the ending leaves for the sessions in gone, as [NoticeRequest] says, without
// their ID. more: gone is not the last batch.
func (e *Ending) NoticesFor(gone []Record, more bool, now time.Time) []Notice {
	var notices []Notice
	for _, request := range e.Notices {
		about := Notice{Kind: request.Kind, Target: request.Target,
			Issuer: e.Selector.Issuer, ClientID: e.Selector.ClientID, Cause: e.Cause,
			Created: now, Due: now, Deadline: Time(request.Deadline)}
		if e.WholeSubject(request) {
			if about.Subject = e.Selector.Subject; !more {
				notices = append(notices, about)
			}
			continue
		}
		for i := range gone {
			r := &gone[i]
			if request.Kind == NoticeRevoke && !request.revokes(r.Refresh) {
				continue
			}
			n := about
			n.Key, n.Subject, n.SID = r.Key, r.Subject, r.SID
			if request.Kind == NoticeRevoke {
				n.Payload = r.Payload
			}
			notices = append(notices, n)
		}
	}
	return notices
}

// WholeSubject reports whether a request of the ending is for one notice about the whole subject. It is left with the
// last batch.
func (e *Ending) WholeSubject(r NoticeRequest) bool {
	return r.Kind == NoticeLogout && e.Selector.Key.IsZero() && e.Selector.SID == "" && !r.PerSession && e.Spare == 0
}

// Revokes reports whether the ending leaves a notice with the payload of a session that holds such a refresh token.
func (e *Ending) Revokes(held Refresh) bool {
	return slices.ContainsFunc(e.Notices, func(r NoticeRequest) bool {
		return r.Kind == NoticeRevoke && r.revokes(held)
	})
}

func (r *NoticeRequest) revokes(held Refresh) bool {
	return held == RefreshOnline || held == RefreshOffline && r.Offline
}

// endFor is how long an ending goes on after its caller has gone.
const endFor = time.Minute

// EndInBatches carries out an ending batch by batch, until step reports that there is no more. It is for stores, which
// call it in [Sessions.End]. After the first batch it goes on when ctx is done: most providers ask only once.
func EndInBatches(
	ctx context.Context, step func(context.Context) (ended []Ended, more bool, err error),
) ([]Ended, error) {
	var all []Ended
	for first := true; ; first = false {
		ended, more, err := step(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, ended[:min(len(ended), EndedMost-len(all))]...)
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
