package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"time"

	"example.com/curfew/store"
)

const (
	noticeColumns = `kind, target, issuer, client, subject, sid, key, cause, payload, created, due, deadline`

	insertNoticeSQL = `INSERT INTO notices (` + noticeColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	// The inner select reads the due notices of one target, from the oldest, and skips those that are leased: no more
	// than the workers hold at present.
	claimSQL = `UPDATE notices SET lease = ?1, leased_till = ?2, attempts = attempts + 1 WHERE id IN
		(SELECT id FROM notices INDEXED BY notices_by_target
		WHERE given_up = 0 AND kind = ?5 AND target = ?6 AND due <= ?3 AND leased_till <= ?3 ORDER BY due, id LIMIT ?4 + 0)
		RETURNING id, attempts, reason, given_up, ` + noticeColumns

	completeDoneSQL  = `DELETE FROM notices WHERE id = ? AND lease = ?`
	completeRetrySQL = `UPDATE notices SET lease = '', leased_till = 0, due = ?5, reason = ?4,
		attempts = max(0, attempts - ?3) WHERE id = ?1 AND lease = ?2`
	completeGiveUpSQL = `UPDATE notices SET lease = '', leased_till = 0, given_up = 1, reason = ?4,
		attempts = max(0, attempts - ?3) WHERE id = ?1 AND lease = ?2`
)

func (w *writer) enqueue(n store.Notice) error {
	_, err := exec(w.insertNotice, string(n.Kind), n.Target, n.Issuer, n.ClientID, n.Subject, n.SID, n.Key[:],
		string(n.Cause), blob(n.Payload), store.Micros(n.Created), store.Micros(n.Due), store.Micros(n.Deadline))
	return err
}

// Claim implements [store.Outbox].
func (s *Store) Claim(
	ctx context.Context, kind store.NoticeKind, target string, now time.Time, lease time.Duration, limit int,
) ([]store.Notice, error) {
	if limit < 1 { // for SQLite a negative number is no limit
		return nil, nil
	}
	var claimed []store.Notice
	token := rand.Text()
	err := s.write(ctx, "claim", func(w *writer) error {
		rows, err := w.claim.Query(token, store.Micros(now.Add(lease)), store.Micros(now), limit, string(kind), target)
		claimed, err = readNotices(rows, err, token)
		return err
	})
	if err != nil {
		return nil, err
	}
	// RETURNING promises no order.
	slices.SortStableFunc(claimed, func(a, b store.Notice) int { return a.Due.Compare(b.Due) })
	return claimed, nil
}

// readNotices is collect for id, attempts, reason, given_up and noticeColumns.
func readNotices(rows *sql.Rows, failed error, lease string) ([]store.Notice, error) {
	return collect(rows, failed, func() (store.Notice, error) {
		n := store.Notice{Lease: lease}
		var id, created, due, deadline int64
		var key []byte
		err := rows.Scan(&id, &n.Attempts, &n.Reason, &n.GivenUp, &n.Kind, &n.Target, &n.Issuer, &n.ClientID,
			&n.Subject, &n.SID, &key, &n.Cause, &n.Payload, &created, &due, &deadline)
		copy(n.Key[:], key)
		n.ID = strconv.FormatInt(id, 10)
		n.Created, n.Due, n.Deadline = store.FromMicros(created), store.FromMicros(due), store.FromMicros(deadline)
		return n, err
	})
}

// Complete implements [store.Outbox].
func (s *Store) Complete(ctx context.Context, n store.Notice, o store.Outcome) error {
	if err := o.Validate(); err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	id, err := strconv.ParseInt(n.ID, 10, 64)
	if err != nil || n.Lease == "" {
		return store.ErrLeaseLost
	}
	return s.write(ctx, "complete", func(w *writer) error {
		switch {
		case o.Done:
			return oneRow(store.ErrLeaseLost, w.completeDone, id, n.Lease)
		case o.GiveUp:
			return oneRow(store.ErrLeaseLost, w.completeGiveUp, id, n.Lease, o.Untried, o.Reason)
		default:
			due := store.Micros(o.RetryAt)
			return oneRow(store.ErrLeaseLost, w.completeRetry, id, n.Lease, o.Untried, o.Reason, due)
		}
	})
}
