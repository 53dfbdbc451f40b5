package memory

import (
	"context"
	"math"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store/internal/rules"
)

// List implements [session.Store].
func (s *Store) List(ctx context.Context, q session.Query, now time.Time) (session.Page, error) {
	limit, err := rules.Limit(q)
	if err != nil {
		return session.Page{}, err
	}
	now = session.Time(now)
	var page session.Page
	err = s.do(ctx, func() error {
		take := func(entries []*entry) (full bool) {
			for _, e := range entries {
				if !e.rec.Lives(now) || !rules.Asks(q, &e.rec) {
					continue
				}
				if len(page.Records) == limit {
					page.Next = page.Records[limit-1].Key
					return true
				}
				page.Records = append(page.Records, e.rec)
			}
			return false
		}
		in := realmOf(q.Issuer, q.ClientID)
		switch {
		case q.SID != "":
			who := session.Who{Issuer: q.Issuer, ClientID: q.ClientID, SID: q.SID}
			take(inOrder(s.named(who, 0, math.MaxInt), q.After))
		case q.Subject != "":
			who := session.Who{Issuer: q.Issuer, ClientID: q.ClientID, Subject: q.Subject}
			take(inOrder(s.subjects.appendTo(nil, name{in, q.Subject, ""}, who, 0, math.MaxInt), q.After))
		default:
			for shelf := shelfOf(q.After); shelf < len(s.shelves); shelf++ {
				if take(s.shelves.after(shelf, q.After)) {
					break
				}
			}
		}
		return nil
	})
	for i := range page.Records {
		page.Records[i] = own(page.Records[i])
	}
	return page, err
}
