package postgres

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"example.com/curfew/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// The ids are in the order of the arrays.
	enqueueSQL = `INSERT INTO curfew_notices
			(kind, target, issuer, client, subject, sid, key, cause, payload, created, due, deadline)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[],
			$8::text[], $9::bytea[], $10::bigint[], $11::bigint[], $12::bigint[])`

	noticesSQL = `SELECT ` + noticeColumns + `, NULL::bytea FROM curfew_notices
		WHERE id > $1 AND id <= $6 AND ($3::text = '' OR kind = $3) AND ($4::text = '' OR target = $4)
			AND ($5::boolean IS NULL OR given_up = $5) ORDER BY id LIMIT $2`
	retrySQL = `UPDATE curfew_notices SET due = $2, deadline = $3, given_up = false, attempts = 0 WHERE id = $1`
	dropSQL  = `DELETE FROM curfew_notices WHERE id = $1`

	statsSQL = `SELECT kind, target, count(*) FILTER (WHERE NOT given_up), count(*) FILTER (WHERE given_up),
		min(created) FILTER (WHERE NOT given_up) FROM curfew_notices GROUP BY kind, target`

	// Each page reads all expired sessions, since the index by slot is not in the order of the keys. But of those it
	// keeps only the keys until the page is selected.
	overdueSQL = `WITH over AS MATERIALIZED (SELECT key FROM curfew_sessions
			WHERE slot <= $1::bigint / 300000000 AND least(idle_expires, expires) <= $1 AND refresh <> 0)
		SELECT ` + columns + ` FROM curfew_sessions
		WHERE key = ANY (ARRAY(SELECT key FROM over WHERE key > $2 ORDER BY key LIMIT $3)) ORDER BY key`
)

// Enqueue implements [store.Outbox].
func (s *Store) Enqueue(ctx context.Context, notices []store.Notice) error {
	added, err := store.NewNotices(notices)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	var kinds, targets, issuers, clients, subjects, sids, causes []string
	var keys, payloads [][]byte
	var created, due, deadlines []int64
	for _, n := range added {
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
		created, due = append(created, store.Micros(n.Created)), append(due, store.Micros(n.Due))
		deadlines = append(deadlines, store.Micros(n.Deadline))
	}
	return s.write(ctx, "enqueue", func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, enqueueSQL, kinds, targets, issuers, clients, subjects, sids, keys, causes, payloads,
			created, due, deadlines)
		return err
	})
}

// Notices implements [store.Outbox]. The order is that in which the notices were added.
func (s *Store) Notices(ctx context.Context, q store.NoticeQuery) (store.NoticePage, error) {
	limit, err := q.PageSize()
	if err != nil {
		return store.NoticePage{}, fmt.Errorf("postgres: %w", err)
	}
	if err := writable(string(q.Kind), q.Target); err != nil {
		return store.NoticePage{}, err
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
	var dead *bool
	if q.State != "" {
		is := q.State == store.NoticeDead
		dead = &is
	}
	var found []store.Notice
	err = s.read(ctx, "notices", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, noticesSQL, after, limit+1, string(q.Kind), q.Target, dead, most)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, readNotice)
		return err
	})
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

// Retry implements [store.Outbox].
func (s *Store) Retry(ctx context.Context, id string, due, deadline time.Time) error {
	return s.onNotice(ctx, "retry", id, retrySQL, store.Micros(due), store.Micros(deadline))
}

// Drop implements [store.Outbox].
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

// Stats implements [store.Outbox].
func (s *Store) Stats(ctx context.Context) (all []store.NoticeStats, err error) {
	err = s.read(ctx, "stats", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, statsSQL)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (t store.NoticeStats, err error) {
			var kind string
			var oldest *int64
			err = row.Scan(&kind, &t.Target, &t.Pending, &t.Dead, &oldest)
			if t.Kind = store.NoticeKind(kind); oldest != nil {
				t.Oldest = store.FromMicros(*oldest)
			}
			return t, err
		})
		return err
	})
	return all, err
}

// Overdue implements [store.Sessions].
func (s *Store) Overdue(
	ctx context.Context, after store.Key, limit int, now time.Time,
) (found []store.Record, err error) {
	err = s.read(ctx, "overdue", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, overdueSQL, store.Micros(now), after[:], max(0, limit))
		found, err = collect(rows, err)
		return err
	})
	return found, err
}
