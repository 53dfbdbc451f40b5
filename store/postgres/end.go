package postgres

import (
	"context"
	"fmt"
	"time"

	"example.com/curfew/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// raisedLevel raises synchronous_commit for the transaction, if it is set to a level that does not wait for the
// standby (for the role, the database or the server).
const raisedLevel = `CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
	THEN set_config('synchronous_commit', 'on', true) ELSE '' END`

// endSQL makes an ending wait for the synchronous standby, if there is one, even if it finds nothing to do: when an
// ending is repeated, the first try may have done everything without the standby having it yet. A transaction that
// writes nothing does not wait. So it writes a message to the write-ahead log, which nothing reads: the standby
// confirms that message and everything before it.
//
// The inner query has to be evaluated before what is around it.
const endSQL = `SELECT e.* FROM (
	SELECT pg_logical_emit_message(true, 'curfew', ''::text) AS written, ` + raisedLevel + ` AS level OFFSET 0) w,
	LATERAL curfew_end(CASE WHEN w.written IS NOT NULL AND w.level IS NOT NULL THEN $1::text END,
		$2::text, $3::text, $4::text, $5::bytea, $6::bigint, $7::bigint, $8::text, $9::bytea, $10::bigint, $11::bigint,
		$12::bigint, $13::text, $14::bigint, $15::text[], $16::text[], $17::bigint[], $18::boolean[], $19::integer[],
		$20::integer, $21::integer, $22::integer, $23::integer) e`

// End implements [store.Store].
func (s *Store) End(ctx context.Context, e store.Ending, now time.Time) ([]store.Ended, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	args, err := endArgs(e, now)
	if err != nil {
		return nil, err
	}
	return store.EndInBatches(ctx, func(ctx context.Context) ([]store.Ended, bool, error) {
		gone, more, err := s.endBatch(ctx, e, args)
		return e.Ended(gone, store.Time(now)), more, err
	})
}

// endBatch carries out one batch of End. It returns the sessions that lived. more reports whether there may be another.
func (s *Store) endBatch(ctx context.Context, e store.Ending, args []any) (gone []store.Record, more bool, err error) {
	err = s.write(ctx, "end", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, endSQL, args...)
		if err != nil {
			return err
		}
		gone, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (store.Record, error) {
			r := store.Record{Issuer: e.Selector.Issuer, ClientID: e.Selector.ClientID}
			var key []byte
			var subject, sid *string
			var refresh *store.Refresh
			if err := row.Scan(&key, &subject, &sid, &refresh); err != nil {
				return r, err
			}
			if key == nil {
				return r, store.ErrReplayed
			}
			if len(key) != len(r.Key) && len(key) != 0 {
				return r, fmt.Errorf("a key of %d bytes is stored, not of %d", len(key), len(r.Key))
			}
			copy(r.Key[:], key)
			r.Subject, r.SID, r.Refresh = *subject, *sid, *refresh
			return r, nil
		})
		return err
	})
	if err != nil {
		return nil, false, err
	}
	if last := len(gone) - 1; last >= 0 && gone[last].Key.IsZero() {
		gone, more = gone[:last], true
	}
	if len(gone) > 0 {
		s.feed.announce()
	}
	return gone, more, nil
}

// endArgs returns the arguments of endSQL.
func endArgs(e store.Ending, now time.Time) ([]any, error) {
	w := e.Selector
	names := []string{w.Issuer, w.ClientID, w.Subject, w.SID, string(e.Cause)}
	kinds, targets := make([]string, len(e.Notices)), make([]string, len(e.Notices))
	deadlines, whole, each := make([]int64, len(e.Notices)), make([]bool, len(e.Notices)), make([]int32, len(e.Notices))
	var about, revoked int32
	for i, t := range e.Notices {
		kinds[i], targets[i], deadlines[i] = string(t.Kind), t.Target, store.Micros(t.Deadline)
		whole[i], each[i] = noticesOf(e, t)
		if about |= each[i]; t.Kind == store.NoticeRevoke {
			revoked |= each[i]
		}
	}
	if err := writable(append(names, targets...)...); err != nil {
		return nil, err
	}
	var key, jti []byte
	var subject *int64
	if !w.Key.IsZero() {
		key = w.Key[:]
	}
	if w.Subject != "" {
		h := subjectHash(w.Issuer, w.ClientID, w.Subject)
		subject = &h
	}
	if e.JTI != "" {
		d := digest("jti", w.Issuer, w.ClientID, e.JTI)
		jti = d[:]
	}
	bar := ""
	if e.Bar {
		bar = w.Key.MarkSID()
	}
	return []any{w.Issuer, w.ClientID, w.Subject, w.SID, key, subject, sidHash(w.Issuer, w.ClientID, w.SID),
		string(e.Cause), jti, store.Micros(e.JTIExpires), store.Micros(now), e.MarkLife().Microseconds(),
		bar, sidHash(w.Issuer, w.ClientID, bar), kinds, targets, deadlines, whole, each, about, revoked,
		e.Spare, store.EndBatch}, nil
}

// noticesOf returns which notices t requests, in the form that curfew_end takes: one for the whole subject, or one for
// each session whose [store.Refresh] is a bit of each.
func noticesOf(e store.Ending, t store.NoticeRequest) (whole bool, each int32) {
	if e.WholeSubject(t) {
		return true, 0
	}
	e.Notices = []store.NoticeRequest{t}
	for _, refresh := range []store.Refresh{store.RefreshNone, store.RefreshOnline, store.RefreshOffline} {
		if len(e.NoticesFor([]store.Record{{Refresh: refresh}}, false, time.Time{})) > 0 {
			each |= 1 << refresh
		}
	}
	return false, each
}
