package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/curfew/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// The inner select reads the due notices of one target, from the oldest, and skips those that are leased: no more
	// than the workers hold at present.
	//
	// The row comparisons and the full ORDER BY (whose first columns are the same in all rows) make the index by target
	// the only one that fits. With plain comparisons the plan might use another index and read the due notices of all
	// targets: a cached plan is made for no particular target, and one target may have most of the notices.
	//
	// FOR UPDATE checks rows that were changed meanwhile against the same conditions, and SKIP LOCKED skips those that
	// another claim holds. The returned rows stay locked until the commit, so they are unchanged in the update.
	claimSQL = `WITH due AS MATERIALIZED (SELECT id FROM curfew_notices
			WHERE (given_up, kind, target) >= (false, $5::text, $6::text)
				AND (given_up, kind, target, due) <= (false, $5::text, $6::text, $3) AND leased_till <= $3
			ORDER BY given_up, kind, target, due, id LIMIT $4 FOR UPDATE SKIP LOCKED)
		UPDATE curfew_notices n SET lease = $1, leased_till = $2, attempts = attempts + 1
		WHERE n.id = ANY (ARRAY(SELECT id FROM due)) RETURNING ` + noticeColumns + `, payload`

	noticeColumns = `id, attempts, reason, given_up,
		kind, target, issuer, client, subject, sid, key, cause, created, due, deadline`

	completeDoneSQL  = `DELETE FROM curfew_notices WHERE id = $1 AND lease = $2`
	completeRetrySQL = `UPDATE curfew_notices SET lease = '', leased_till = 0, due = $5, reason = $4,
		attempts = greatest(0, attempts - $3::boolean::integer) WHERE id = $1 AND lease = $2`
	completeGiveUpSQL = `UPDATE curfew_notices SET lease = '', leased_till = 0, given_up = true, reason = $4,
		attempts = greatest(0, attempts - $3::boolean::integer) WHERE id = $1 AND lease = $2`
)

// Claim implements [store.Outbox].
func (s *Store) Claim(
	ctx context.Context, kind store.NoticeKind, target string, now time.Time, lease time.Duration, limit int,
) ([]store.Notice, error) {
	if err := writable(string(kind), target); err != nil {
		return nil, err
	}
	if limit < 1 { // PostgreSQL refuses a negative LIMIT
		return nil, nil
	}
	token := rand.Text()
	var claimed []store.Notice
	err := s.write(ctx, "claim", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, claimSQL, token, store.Micros(now.Add(lease)), store.Micros(now), limit,
			string(kind), target)
		if err != nil {
			return err
		}
		claimed, err = pgx.CollectRows(rows, readNotice)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range claimed {
		claimed[i].Lease = token
	}
	// RETURNING promises no order.
	slices.SortStableFunc(claimed, func(a, b store.Notice) int { return a.Due.Compare(b.Due) })
	return claimed, nil
}

// readNotice reads noticeColumns and a payload.
func readNotice(row pgx.CollectableRow) (store.Notice, error) {
	var n store.Notice
	var id, created, due, deadline int64
	var key []byte
	var kind, cause string
	err := row.Scan(&id, &n.Attempts, &n.Reason, &n.GivenUp, &kind, &n.Target, &n.Issuer, &n.ClientID, &n.Subject,
		&n.SID, &key, &cause, &created, &due, &deadline, &n.Payload)
	if err != nil {
		return n, err
	}
	if len(key) != 0 && len(key) != len(n.Key) {
		return n, fmt.Errorf("a key of %d bytes is stored, not of %d", len(key), len(n.Key))
	}
	copy(n.Key[:], key)
	n.ID, n.Kind, n.Cause = strconv.FormatInt(id, 10), store.NoticeKind(kind), store.Cause(cause)
	n.Created, n.Due, n.Deadline = store.FromMicros(created), store.FromMicros(due), store.FromMicros(deadline)
	return n, nil
}

// Complete implements [store.Outbox].
func (s *Store) Complete(ctx context.Context, n store.Notice, o store.Outcome) error {
	if err := o.Validate(); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	id, err := strconv.ParseInt(n.ID, 10, 64)
	if err != nil || n.Lease == "" || writable(n.Lease) != nil {
		return store.ErrLeaseLost
	}
	// The reason may come from another server. PostgreSQL must not refuse it, or the notice would stay leased.
	o.Reason = strings.ReplaceAll(strings.ToValidUTF8(o.Reason, "\uFFFD"), "\x00", "\uFFFD")
	return s.write(ctx, "complete", func(ctx context.Context, conn *pgxpool.Conn) error {
		switch {
		case o.Done:
			return oneRow(store.ErrLeaseLost)(conn.Exec(ctx, completeDoneSQL, id, n.Lease))
		case o.GiveUp:
			return oneRow(store.ErrLeaseLost)(conn.Exec(ctx, completeGiveUpSQL, id, n.Lease, o.Untried, o.Reason))
		default:
			return oneRow(store.ErrLeaseLost)(conn.Exec(ctx, completeRetrySQL, id, n.Lease, o.Untried, o.Reason,
				store.Micros(o.RetryAt)))
		}
	})
}

// oneRow returns a function that checks the result of a statement which changes a row. It returns none when there was
// no such row.
func oneRow(none error) func(done pgconn.CommandTag, err error) error {
	return func(done pgconn.CommandTag, err error) error {
		if err == nil && done.RowsAffected() == 0 {
			return none
		}
		return err
	}
}
