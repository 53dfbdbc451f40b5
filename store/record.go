package store

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Record is a session as a store keeps it: columns to find it by, and a sealed payload that a store cannot read.
type Record struct {
	Key      Key
	Issuer   string
	ClientID string
	Subject  string
	SID      string // the `sid` of the latest ID Token that had one; empty when none had
	// Former are the sids that the session had before, without SID, each once, none of them empty. They name the
	// session too: a logout token may have been made before the provider changed the sid, or with the one from the
	// sign-in.
	Former []string

	Created     time.Time
	LastSeen    time.Time
	IdleExpires time.Time // the session ends then, unless it is used
	Expires     time.Time // the session ends then in any case
	Revision    int64     // 1 when created, one more at each Update

	Refresh Refresh // which kind of refresh token the payload holds
	Payload []byte
}

// IsToken reports whether the session stands for an access token: then Created is in 1970 (see [TokenCreated]), so that
// it makes room for others first.
func (r *Record) IsToken() bool { return Micros(r.Created) < firstOfOthers }

const firstOfOthers = 365 * 24 * 3600 * 1_000_000 // the end of 1970

// TokenCreated returns [Record.Created] for an access token that is admitted at now: a time in 1970, later for a later
// one. So among the tokens of a subject the oldest make room.
func TokenCreated(now time.Time) time.Time { return FromMicros(now.UnixMilli()) }

// Lives reports whether the session is neither expired nor idle for too long.
func (r *Record) Lives(now time.Time) bool {
	return now.Before(r.Expires) && now.Before(r.IdleExpires)
}

// HasSID reports whether the session has this sid, or had it before.
func (r *Record) HasSID(sid string) bool {
	return sid != "" && (sid == r.SID || slices.Contains(r.Former, sid))
}

// ValidateSIDs refuses former sids that are not as [Record.Former] says: an index would hold the session twice, or miss
// it.
func (r *Record) ValidateSIDs() error {
	for i, sid := range r.Former {
		if sid == "" || r.SID == "" || sid == r.SID || slices.Contains(r.Former[:i], sid) {
			return errors.New(
				"former sids are each named once, without the one that the session has, and none is empty")
		}
	}
	return nil
}

// Refresh is the kind of refresh token that a session holds. An ending may ask to have it revoked.
type Refresh uint8

const (
	RefreshNone    Refresh = iota // holds none
	RefreshOnline                 // to be revoked when the session ends (Back-Channel Logout §2.7)
	RefreshOffline                // granted with offline_access: normally kept (Back-Channel Logout §2.7)
)

// Query asks for living sessions; an empty field does not restrict. Subject and SID need Issuer and ClientID. A SID
// finds what an ending of it would: also the sessions that had it before.
type Query struct {
	Issuer   string
	ClientID string
	Subject  string
	SID      string
	After    Key // the Next of the page before
	Limit    int // 1 to 1,000; 0 means 100
}

// Page is a part of a list of sessions.
type Page struct {
	Records []Record
	Next    Key // zero on the last page
}

// Matches reports whether q asks for r, apart from the page.
func (q *Query) Matches(r *Record) bool {
	return (q.Issuer == "" || q.Issuer == r.Issuer) && (q.ClientID == "" || q.ClientID == r.ClientID) &&
		(q.Subject == "" || q.Subject == r.Subject) && (q.SID == "" || r.HasSID(q.SID))
}

// PageSize returns how many sessions a page of q has at most. The error says why the query is invalid.
func (q *Query) PageSize() (int, error) {
	if (q.Subject != "" || q.SID != "") && (q.Issuer == "" || q.ClientID == "") {
		return 0, errors.New("list: a subject or sid means nothing without its issuer and client")
	}
	return pageSize(q.Limit)
}

const (
	defaultPage = 100
	largestPage = 1000
)

func pageSize(limit int) (int, error) {
	if limit < 0 || limit > largestPage {
		return 0, fmt.Errorf("list: a page holds 1 to %d entries, not %d", largestPage, limit)
	}
	return cmp.Or(limit, defaultPage), nil
}
