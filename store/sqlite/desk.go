package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"example.com/curfew/store"
	"example.com/curfew/store/internal/rules"
)

const (
	// As claimSQL, by the index of one target.
	claimForSQL = `UPDATE notices SET lease = ?1, leased_till = ?2, attempts = attempts + 1 WHERE id IN
		(SELECT id FROM notices INDEXED BY notices_by_target
		WHERE given_up = 0 AND kind = ?5 AND target = ?6 AND due <= ?3 AND leased_till <= ?3 ORDER BY due, id LIMIT ?4)
		RETURNING id, attempts, reason, given_up, ` + noticeColumns

	retrySQL = `UPDATE notices SET due = ?2, deadline = ?3, given_up = 0 WHERE id = ?1`
	dropSQL  = `DELETE FROM notices WHERE id = ?1`

	noticesSQL = `SELECT id, attempts, reason, given_up, ` + noticeColumns + ` FROM notices
		WHERE id > ?1 AND (?3 = '' OR kind = ?3) AND (?4 = '' OR target = ?4) AND (?5 < 0 OR given_up = ?5) ORDER BY id LIMIT ?2`
	noticeSQL = `SELECT id, attempts, reason, given_up, ` + noticeColumns + ` FROM notices WHERE id = ?1`
	// From the index alone. A notice that was left earlier has a lower id.
	tallySQL = `SELECT kind, target, count(*), min(id) FROM notices WHERE given_up = ?1 GROUP BY kind, target`
	// refresh = 0 is a session without a refresh token.
	overdueSQL = `SELECT ` + columns + ` FROM sessions INDEXED BY sessions_by_until
		WHERE until <= ?1 AND refresh <> 0 AND key > ?2 ORDER BY key LIMIT ?3`
	createdSQL = `SELECT created FROM notices WHERE id = ?1`
)

// ClaimFor implements [store.Outbox2].
func (s *Store) ClaimFor(ctx context.Context, kind store.NoticeKind, target string, now time.Time, lease time.Duration, max int) ([]store.Notice, error) {
	return s.claim(ctx, now, lease, max, func(w *writer) *sql.Stmt { return w.claimFor }, string(kind), target)
}

// Leave implements [store.Outbox2].
func (s *Store) Enqueue(ctx context.Context, notices []store.Notice) error {
	left, err := rules.Left(notices)
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	return s.write(ctx, func(w *writer) error {
		for _, n := range left {
			if err := w.leaveNotice(n); err != nil {
				return err
			}
		}
		return nil
	})
}

// Notices implements [store.Outbox2]. They are in the order in which they were left.
func (s *Store) Notices(ctx context.Context, q store.NoticeQuery) (store.NoticePage, error) {
	limit, err := rules.NoticeLimit(q)
	if err != nil {
		return store.NoticePage{}, fmt.Errorf("sqlite: %w", err)
	}
	after, _ := strconv.ParseInt(q.After, 10, 64)
	givenUp := map[store.NoticeState]int{"": -1, store.NoticePending: 0, store.NoticeDead: 1}[q.State]
	found, err := s.shownNotices(ctx, func(r *reader) *sql.Stmt { return r.notices }, after, limit+1, string(q.Kind), q.Target, givenUp)
	if err != nil {
		return store.NoticePage{}, err
	}
	page := store.NoticePage{Notices: found}
	if len(found) > limit {
		page.Notices = found[:limit]
		page.Next = found[limit-1].ID
	}
	return page, nil
}

// Notice implements [store.Outbox2].
func (s *Store) Notice(ctx context.Context, id string) (store.Notice, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return store.Notice{}, store.ErrNoNotice
	}
	found, err := s.shownNotices(ctx, func(r *reader) *sql.Stmt { return r.notice }, n)
	if err != nil {
		return store.Notice{}, err
	}
	if len(found) == 0 {
		return store.Notice{}, store.ErrNoNotice
	}
	return found[0], nil
}

func (s *Store) shownNotices(ctx context.Context, of func(*reader) *sql.Stmt, args ...any) (found []store.Notice, err error) {
	err = s.read(ctx, func(r *reader) error {
		rows, err := of(r).Query(args...)
		if err == nil {
			found, err = readNotices(rows, "")
		}
		if err != nil {
			return fmt.Errorf("sqlite: notices: %w", err)
		}
		return nil
	})
	for i := range found {
		found[i].Payload = nil
	}
	return found, err
}

// Retry implements [store.Outbox2].
func (s *Store) Retry(ctx context.Context, id string, due, deadline time.Time) error {
	return s.onNotice(ctx, id, func(w *writer) *sql.Stmt { return w.retry }, micros(due), micros(deadline))
}

// Drop implements [store.Outbox2].
func (s *Store) Drop(ctx context.Context, id string) error {
	return s.onNotice(ctx, id, func(w *writer) *sql.Stmt { return w.drop })
}

// onNotice runs a statement that changes one notice.
func (s *Store) onNotice(ctx context.Context, id string, of func(*writer) *sql.Stmt, args ...any) error {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return store.ErrNoNotice
	}
	return s.write(ctx, func(w *writer) error {
		return oneRow(store.ErrNoNotice, "notice", of(w), append([]any{n}, args...)...)
	})
}

// oneRow runs a statement that changes a row, and answers none when there is no such row.
func oneRow(none error, what string, st *sql.Stmt, args ...any) error {
	res, err := exec(st, args...)
	if err != nil {
		return fmt.Errorf("sqlite: %s: %w", what, err)
	}
	affected, err := res.RowsAffected()
	if err != nil {
		return fmt.Errorf("sqlite: %s: %w", what, err)
	}
	if affected == 0 {
		return none
	}
	return nil
}

// Tally implements [store.Outbox2].
func (s *Store) Stats(ctx context.Context) ([]store.NoticeStats, error) {
	type name struct {
		kind   store.NoticeKind
		target string
	}
	counts := make(map[name]*store.NoticeStats)
	err := s.read(ctx, func(r *reader) error {
		for givenUp := range 2 {
			rows, err := r.tally.Query(givenUp)
			if err != nil {
				return fmt.Errorf("sqlite: tally: %w", err)
			}
			oldest := make(map[name]int64)
			for rows.Next() {
				var of name
				var count int
				var first int64
				if err := rows.Scan(&of.kind, &of.target, &count, &first); err != nil {
					rows.Close()
					return fmt.Errorf("sqlite: tally: %w", err)
				}
				if counts[of] == nil {
					counts[of] = &store.NoticeStats{Kind: of.kind, Target: of.target}
				}
				if givenUp == 1 {
					counts[of].Dead = count
				} else {
					counts[of].Pending, oldest[of] = count, first
				}
			}
			if err := rows.Err(); err != nil {
				return fmt.Errorf("sqlite: tally: %w", err)
			}
			for of, id := range oldest {
				var created int64
				switch err := r.created.QueryRow(id).Scan(&created); {
				case err == sql.ErrNoRows: // done meanwhile
				case err != nil:
					return fmt.Errorf("sqlite: tally: %w", err)
				default:
					counts[of].Oldest = instant(created)
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

// Overdue implements [store.Outbox2].
func (s *Store) Overdue(ctx context.Context, after store.Key, limit int, now time.Time) (found []store.Record, err error) {
	err = s.read(ctx, func(r *reader) error {
		rows, err := r.overdue.Query(micros(now), after[:], max(0, limit))
		if err == nil {
			found, err = readRecords(rows)
		}
		if err != nil {
			return fmt.Errorf("sqlite: overdue: %w", err)
		}
		return nil
	})
	return found, err
}
