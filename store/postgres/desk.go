package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"example.com/curfew/store"
	"example.com/curfew/store/internal/rules"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// As claimSQL, by the index of one target. Compared as a row, and put in the order of what is the same in all of them, they
	// can be found by that index alone. With plain comparisons a plan might go by another and walk through all that is due for
	// everybody: one that is kept is made for no target in particular, and the usual one may have all there are.
	claimForSQL = `WITH due AS MATERIALIZED (SELECT id FROM curfew_notices
			WHERE (given_up, kind, target) >= (false, $5::text, $6::text)
				AND (given_up, kind, target, due) <= (false, $5::text, $6::text, $3) AND leased_till <= $3
			ORDER BY given_up, kind, target, due, id LIMIT $4 FOR UPDATE SKIP LOCKED)
		` + leaseSQL

	// Their ids are in the order of the arrays.
	leaveSQL = `INSERT INTO curfew_notices (kind, target, issuer, client, subject, sid, key, cause, payload, created, due, deadline)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::text[],
			$9::bytea[], $10::bigint[], $11::bigint[], $12::bigint[])`

	noticesSQL = `SELECT ` + noticeColumns + `, NULL::bytea FROM curfew_notices
		WHERE id > $1 AND ($3::text = '' OR kind = $3) AND ($4::text = '' OR target = $4)
			AND ($5::boolean IS NULL OR given_up = $5) ORDER BY id LIMIT $2`
	noticeSQL = `SELECT ` + noticeColumns + `, NULL::bytea FROM curfew_notices WHERE id = $1`

	retrySQL = `UPDATE curfew_notices SET due = $2, deadline = $3, given_up = false WHERE id = $1`
	dropSQL  = `DELETE FROM curfew_notices WHERE id = $1`

	tallySQL = `SELECT kind, target, count(*) FILTER (WHERE NOT given_up), count(*) FILTER (WHERE given_up),
		min(created) FILTER (WHERE NOT given_up) FROM curfew_notices GROUP BY kind, target`

	// All that are old are read for each page: what comes after a key is not together in the index by slot. Only the keys
	// are carried so far.
	overdueSQL = `WITH over AS MATERIALIZED (SELECT key FROM curfew_sessions
			WHERE slot <= $1::bigint / 300000000 AND least(idle_expires, expires) <= $1 AND refresh <> 0)
		SELECT ` + columns + ` FROM curfew_sessions
		WHERE key = ANY (ARRAY(SELECT key FROM over WHERE key > $2 ORDER BY key LIMIT $3)) ORDER BY key`
)

// ClaimFor implements [store.Outbox2].
func (s *Store) ClaimFor(ctx context.Context, kind store.NoticeKind, target string, now time.Time, lease time.Duration, max int) ([]store.Notice, error) {
	if err := writable(string(kind), target); err != nil {
		return nil, err
	}
	return s.claim(ctx, claimForSQL, now, lease, max, string(kind), target)
}

// Leave implements [store.Outbox2].
func (s *Store) Enqueue(ctx context.Context, notices []store.Notice) error {
	left, err := rules.Left(notices)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	var kinds, targets, issuers, clients, subjects, sids, causes []string
	var keys, payloads [][]byte
	var created, due, deadlines []int64
	for _, n := range left {
		texts := []string{string(n.Kind), n.Target, n.Issuer, n.ClientID, n.Subject, n.SID, string(n.Cause)}
		if err := writable(texts...); err != nil {
			return err
		}
		for i, column := range []*[]string{&kinds, &targets, &issuers, &clients, &subjects, &sids, &causes} {
			*column = append(*column, texts[i])
		}
		key := []byte{}
		if !n.Key.IsZero() {
			key = n.Key[:]
		}
		keys, payloads = append(keys, key), append(payloads, blob(n.Payload))
		created, due, deadlines = append(created, micros(n.Created)), append(due, micros(n.Due)), append(deadlines, micros(n.Deadline))
	}
	return s.write(ctx, "leave", func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, leaveSQL, kinds, targets, issuers, clients, subjects, sids, keys, causes, payloads, created, due, deadlines)
		return err
	})
}

// Notices implements [store.Outbox2]. They are in the order in which they were left.
func (s *Store) Notices(ctx context.Context, q store.NoticeQuery) (store.NoticePage, error) {
	limit, err := rules.NoticeLimit(q)
	if err != nil {
		return store.NoticePage{}, fmt.Errorf("postgres: %w", err)
	}
	if err := writable(string(q.Kind), q.Target); err != nil {
		return store.NoticePage{}, err
	}
	after, _ := strconv.ParseInt(q.After, 10, 64)
	var dead *bool
	if q.State != "" {
		is := q.State == store.NoticeDead
		dead = &is
	}
	found, err := s.shownNotices(ctx, noticesSQL, after, limit+1, string(q.Kind), q.Target, dead)
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
	found, err := s.shownNotices(ctx, noticeSQL, n)
	if err != nil {
		return store.Notice{}, err
	}
	if len(found) == 0 {
		return store.Notice{}, store.ErrNoNotice
	}
	return found[0], nil
}

func (s *Store) shownNotices(ctx context.Context, statement string, args ...any) (found []store.Notice, err error) {
	err = s.read(ctx, "notices", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, statement, args...)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, readNotice)
		return err
	})
	return found, err
}

// Retry implements [store.Outbox2].
func (s *Store) Retry(ctx context.Context, id string, due, deadline time.Time) error {
	return s.onNotice(ctx, "retry", id, retrySQL, micros(due), micros(deadline))
}

// Drop implements [store.Outbox2].
func (s *Store) Drop(ctx context.Context, id string) error {
	return s.onNotice(ctx, "drop", id, dropSQL)
}

// onNotice runs a statement that changes one notice.
func (s *Store) onNotice(ctx context.Context, what, id, statement string, args ...any) error {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return store.ErrNoNotice
	}
	return s.write(ctx, what, func(ctx context.Context, conn *pgxpool.Conn) error {
		return oneRow(store.ErrNoNotice)(conn.Exec(ctx, statement, append([]any{n}, args...)...))
	})
}

// Tally implements [store.Outbox2].
func (s *Store) Stats(ctx context.Context) (all []store.NoticeStats, err error) {
	err = s.read(ctx, "tally", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, tallySQL)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (t store.NoticeStats, err error) {
			var kind string
			var oldest *int64
			err = row.Scan(&kind, &t.Target, &t.Pending, &t.Dead, &oldest)
			if t.Kind = store.NoticeKind(kind); oldest != nil {
				t.Oldest = instant(*oldest)
			}
			return t, err
		})
		return err
	})
	return all, err
}

// Overdue implements [store.Outbox2].
func (s *Store) Overdue(ctx context.Context, after store.Key, limit int, now time.Time) (found []store.Record, err error) {
	err = s.read(ctx, "overdue", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, overdueSQL, micros(now), after[:], max(0, limit))
		found, err = collect(rows, err)
		return err
	})
	return found, err
}
