package rules

import (
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
	if q.Limit < 0 || q.Limit > most {
		return 0, fmt.Errorf("list: a page holds 1 to %d sessions, not %d", most, q.Limit)
	}
	if q.Limit == 0 {
		return usual, nil
	}
	return q.Limit, nil
}

// Asks says whether q asks for r, its page apart.
func Asks(q session.Query, r *session.Record) bool {
	return (q.Issuer == "" || q.Issuer == r.Issuer) && (q.ClientID == "" || q.ClientID == r.ClientID) &&
		(q.Subject == "" || q.Subject == r.Subject) && (q.SID == "" || q.SID == r.SID)
}
