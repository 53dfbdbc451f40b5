package rules

import (
	"cmp"
	"errors"
	"fmt"

	"example.com/curfew/session"
)

const (
	usual = 100
	most  = 1000
)

// Limit returns how many sessions q wants at most, or why q cannot be answered.
func Limit(q session.Query) (int, error) {
	if (q.Subject != "" || q.SID != "") && (q.Issuer == "" || q.ClientID == "") {
		return 0, errors.New("list: a subject or sid means nothing without its issuer and client")
	}
	return pageSize(q.Limit)
}

// NoticeLimit is [Limit] for notices.
func NoticeLimit(q session.NoticeQuery) (int, error) {
	switch q.State {
	case "", session.NoticePending, session.NoticeDead:
		return pageSize(q.Limit)
	}
	return 0, fmt.Errorf("list: there is no notice in the state %q", q.State)
}

func pageSize(limit int) (int, error) {
	if limit < 0 || limit > most {
		return 0, fmt.Errorf("list: a page holds 1 to %d entries, not %d", most, limit)
	}
	return cmp.Or(limit, usual), nil
}

// AsksNotice says whether q asks for n, its page apart.
func AsksNotice(q session.NoticeQuery, n *session.Notice) bool {
	return (q.Kind == "" || q.Kind == n.Kind) && (q.Target == "" || q.Target == n.Target) &&
		(q.State == "" || n.GivenUp == (q.State == session.NoticeDead))
}

// CheckVault refuses what is too large for a vault.
func CheckVault(name string, value []byte) error {
	if name == "" || len(name) > 256 || len(value) > 256<<10 {
		return fmt.Errorf("vault: a name has 1 to 256 bytes and a value at most 256 KiB; these have %d and %d", len(name), len(value))
	}
	return nil
}

// Asks says whether q asks for r, its page apart.
func Asks(q session.Query, r *session.Record) bool {
	return (q.Issuer == "" || q.Issuer == r.Issuer) && (q.ClientID == "" || q.ClientID == r.ClientID) &&
		(q.Subject == "" || q.Subject == r.Subject) && (q.SID == "" || r.HasSID(q.SID))
}
