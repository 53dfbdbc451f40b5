package memory

import (
	"context"
	"math"
	"time"

	"example.com/curfew/store"
)

// List implements [store.Store].
func (s *Store) List(ctx context.Context, q store.Query, now time.Time) (store.Page, error) {
	limit, err := q.PageSize()
	if err != nil {
		return store.Page{}, err
	}
	now = store.Time(now)
	var page store.Page
	err = s.do(ctx, func() error {
		take := func(entries []*entry) (full bool) {
			for _, e := range entries {
				if !e.rec.Lives(now) || !q.Matches(&e.rec) {
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
		in := namespaceOf(q.Issuer, q.ClientID)
		switch {
		case q.SID != "":
			who := store.Selector{Issuer: q.Issuer, ClientID: q.ClientID, SID: q.SID}
			take(inOrder(s.named(who, 0, math.MaxInt), q.After))
		case q.Subject != "":
			who := store.Selector{Issuer: q.Issuer, ClientID: q.ClientID, Subject: q.Subject}
			take(inOrder(s.subjects.appendTo(nil, name{in, q.Subject, ""}, who, 0, math.MaxInt), q.After))
		default:
			for shelf := slotOf(q.After); shelf < len(s.shelves); shelf++ {
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
