package rules

import (
	"errors"
	"slices"

	"example.com/curfew/session"
)

// CheckSIDs refuses former sids that are not as [session.Record] has them: an index would hold the session twice, or
// miss it.
func CheckSIDs(r *session.Record) error {
	for i, sid := range r.Former {
		if sid == "" || r.SID == "" || sid == r.SID || slices.Contains(r.Former[:i], sid) {
			return errors.New("former sids are each named once, without the one that the session has, and none is empty")
		}
	}
	return nil
}
