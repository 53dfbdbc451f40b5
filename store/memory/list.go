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
			w := store.Selector{Issuer: q.Issuer, ClientID: q.ClientID, SID: q.SID}
			take(inOrder(s.named(w, 0, math.MaxInt), q.After))
		case q.Subject != "":
			w := store.Selector{Issuer: q.Issuer, ClientID: q.ClientID, Subject: q.Subject}
			take(inOrder(s.subjects.appendTo(nil, name{in, q.Subject, ""}, w, 0, math.MaxInt), q.After))
		default:
			for shard := shardOf(q.After); shard < len(s.byKey); shard++ {
				if take(s.byKey.after(shard, q.After)) {
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
