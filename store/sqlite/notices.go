package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"example.com/curfew/store"
)

const (
	retrySQL = `UPDATE notices SET due = ?2, deadline = ?3, given_up = 0, attempts = 0 WHERE id = ?1`
	dropSQL  = `DELETE FROM notices WHERE id = ?1`

	noticesSQL = `SELECT id, attempts, reason, given_up, ` + noticeColumns + ` FROM notices
		WHERE id > ?1 AND id <= ?6 AND (?3 = '' OR kind = ?3) AND (?4 = '' OR target = ?4)
			AND (?5 < 0 OR given_up = ?5) ORDER BY id LIMIT ?2 + 0`
	// Reads only the index. A notice that was added earlier has a lower id.
	statsSQL = `SELECT kind, target, count(*), min(id) FROM notices WHERE given_up = ?1 GROUP BY kind, target`
	// A session with refresh = 0 has no refresh token.
	overdueSQL = `SELECT ` + columns + ` FROM sessions INDEXED BY sessions_by_until
		WHERE until <= ?1 AND refresh <> 0 AND key > ?2 ORDER BY key LIMIT ?3 + 0`
	createdSQL = `SELECT created FROM notices WHERE id = ?1`
)

// Enqueue implements [store.Outbox].
func (s *Store) Enqueue(ctx context.Context, notices []store.Notice) error {
	added, err := store.NewNotices(notices)
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	return s.write(ctx, "enqueue", func(w *writer) error {
		for _, n := range added {
			if err := w.enqueue(n); err != nil {
				return err
			}
		}
		return nil
	})
}

// Notices implements [store.Outbox]. The order is that in which the notices were added.
func (s *Store) Notices(ctx context.Context, q store.NoticeQuery) (store.NoticePage, error) {
	limit, err := q.PageSize()
	if err != nil {
		return store.NoticePage{}, fmt.Errorf("sqlite: %w", err)
	}
	after, most := int64(0), int64(math.MaxInt64)
	if q.After != "" {
		after, _ = strconv.ParseInt(q.After, 10, 64)
	}
	if q.ID != "" {
		id, err := strconv.ParseInt(q.ID, 10, 64)
		if err != nil {
			return store.NoticePage{}, nil
		}
		after, most = max(after, id-1), id
	}
	givenUp := map[store.NoticeState]int{"": -1, store.NoticePending: 0, store.NoticeDead: 1}[q.State]
	var found []store.Notice
	err = s.read(ctx, "notices", func(r *reader) error {
		rows, err := r.notices.Query(after, limit+1, string(q.Kind), q.Target, givenUp, most)
		found, err = readNotices(rows, err, "")
		return err
	})
	if err != nil {
		return store.NoticePage{}, err
	}
	for i := range found {
		found[i].Payload = nil
	}
	page := store.NoticePage{Notices: found}
	if len(found) > limit {
		page.Notices = found[:limit]
		page.Next = found[limit-1].ID
	}
	return page, nil
}

// Retry implements [store.Outbox].
func (s *Store) Retry(ctx context.Context, id string, due, deadline time.Time) error {
	return s.onNotice(ctx, id, func(w *writer) *sql.Stmt { return w.retry }, store.Micros(due), store.Micros(deadline))
}

// Drop implements [store.Outbox].
func (s *Store) Drop(ctx context.Context, id string) error {
	return s.onNotice(ctx, id, func(w *writer) *sql.Stmt { return w.drop })
}

// onNotice runs a statement that changes one notice.
func (s *Store) onNotice(ctx context.Context, id string, of func(*writer) *sql.Stmt, args ...any) error {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return store.ErrNoNotice
	}
	return s.write(ctx, "notice", func(w *writer) error {
		return oneRow(store.ErrNoNotice, of(w), append([]any{n}, args...)...)
	})
}

// Stats implements [store.Outbox].
func (s *Store) Stats(ctx context.Context) ([]store.NoticeStats, error) {
	type name struct {
		kind   store.NoticeKind
		target string
	}
	type group struct {
		name
		count int
		first int64
	}
	counts := make(map[name]*store.NoticeStats)
	err := s.read(ctx, "stats", func(r *reader) error {
		for givenUp := range 2 {
			rows, err := r.stats.Query(givenUp)
			groups, err := collect(rows, err, func() (g group, err error) {
				err = rows.Scan(&g.kind, &g.target, &g.count, &g.first)
				return g, err
			})
			if err != nil {
				return err
			}
			for _, g := range groups {
				t := counts[g.name]
				if t == nil {
					t = &store.NoticeStats{Kind: g.kind, Target: g.target}
					counts[g.name] = t
				}
				if givenUp == 1 {
					t.Dead = g.count
					continue
				}
				t.Pending = g.count
				var created int64
				if err := r.created.QueryRow(g.first).Scan(&created); err == nil {
					t.Oldest = store.FromMicros(created)
				} else if !errors.Is(err, sql.ErrNoRows) { // it may be done meanwhile
					return err
				}
			}
		}
		return nil
	})
	all := make([]store.NoticeStats, 0, len(counts))
	for _, t := range counts {
		all = append(all, *t)
	}
	return all, err
}

// Overdue implements [store.Sessions].
func (s *Store) Overdue(
	ctx context.Context, after store.Key, limit int, now time.Time,
) (found []store.Record, err error) {
	err = s.read(ctx, "overdue", func(r *reader) error {
		rows, err := r.overdue.Query(store.Micros(now), after[:], max(0, limit))
		found, err = readRecords(rows, err)
		return err
	})
	return found, err
}
