package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/curfew/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	columns = `key, issuer, client, subject, sid, former, created, last_seen, idle_expires, expires,
		revision, refresh, payload`

	createSQL = `SELECT curfew_create($1::bytea, $2::text, $3::text, $4::text, $5::text[], $6::bigint, $7::bigint[],
		$8::bigint, $9::bigint, $10::bigint, $11::bigint, $12::smallint, $13::bytea, $14::bigint)`

	// Any mark of a sid bars, of whatever time. curfew_barred finds none of the empty subject, so it asks about the sids
	// alone; for a session without one it would find those of the subject, which it is then asked about below.
	// $15 stands for the key, see curfew_end.
	admitSQL = `SELECT CASE WHEN curfew_barred($2::text, $3::text, '', $5::text[] || $15::text, $6::bigint,
			$7::bigint[] || $16::bigint, 0) THEN 'ended'
		ELSE curfew_create($1::bytea, $2::text, $3::text, $4::text, $5::text[], $6::bigint, $7::bigint[],
		$8::bigint, $9::bigint, $10::bigint, $11::bigint, $12::smallint, $13::bytea, $14::bigint) END`

	findSQL = `SELECT ` + columns + ` FROM curfew_sessions WHERE key = $1 AND expires > $2 AND idle_expires > $2`

	updateSQL = `UPDATE curfew_sessions SET last_seen = $1, idle_expires = $2, expires = $3, refresh = $4, payload = $5,
		revision = revision + 1 WHERE key = $6 AND revision = $7 AND expires > $8 AND idle_expires > $8`
	// It waits as an ending does: a logout may name the new sid at once, also after a standby was promoted.
	renameSQL = `SELECT curfew_rename(CASE WHEN w.level IS NOT NULL THEN $1::bytea END,
		$2::text, $3::text, $4::text, $5::text[], $6::bigint, $7::bigint[],
		$8::bigint, $9::bigint, $10::bigint, $11::smallint, $12::bytea, $13::bigint, $14::bigint, $15::bigint)
		FROM (SELECT ` + raisedLevel + ` AS level OFFSET 0) w`
	livesSQL = `SELECT EXISTS (SELECT FROM curfew_sessions WHERE key = $1 AND expires > $2 AND idle_expires > $2)`

	listSQL = `SELECT ` + columns + ` FROM curfew_sessions WHERE key > $1 AND expires > $2 AND idle_expires > $2
		AND ($4::text = '' OR issuer = $4) AND ($5::text = '' OR client = $5) ORDER BY key LIMIT $3`
	// MATERIALIZED, since the planner might otherwise read all keys in order until it has found enough of this name.
	// Only the keys, since there may be many payloads.
	listNamedSQL = `WITH named AS MATERIALIZED (%s)
		SELECT ` + columns + ` FROM curfew_sessions
		WHERE key = ANY (ARRAY(SELECT key FROM named WHERE key > $1 ORDER BY key LIMIT $3))
			AND expires > $2 AND idle_expires > $2
		ORDER BY key`
	// Without a condition on the key: the planner would rather read all keys than search two indexes, or a bitmap.
	namedKeysSQL = `SELECT key FROM curfew_sessions
		WHERE %s AND issuer = $5 AND client = $6 AND ($7::text = '' OR subject = $7)
		AND ($8::text = '' OR sid = $8 OR $8 = ANY (former)) AND expires > $2 AND idle_expires > $2`
)

func listSubjectSQL() string {
	return fmt.Sprintf(listNamedSQL, fmt.Sprintf(namedKeysSQL, `subject_hash = $4`))
}

func listSIDSQL() string {
	return fmt.Sprintf(listNamedSQL, fmt.Sprintf(namedKeysSQL, `sid_hash = $4`)+` UNION `+
		fmt.Sprintf(namedKeysSQL, `former_hash @> ARRAY[$4::bigint]`))
}

// Create implements [store.Store].
func (s *Store) Create(ctx context.Context, r store.Record, began, now time.Time) error {
	return s.verdict(ctx, "create", r, began, now, createSQL, createArgs(r, began))
}

// Admit implements [store.Store].
func (s *Store) Admit(ctx context.Context, r store.Record, issued, now time.Time) error {
	key := r.Key.MarkSID()
	return s.verdict(ctx, "admit", r, now, now, admitSQL,
		append(createArgs(r, issued), key, sidHash(r.Issuer, r.ClientID, key)))
}

func createArgs(r store.Record, began time.Time) []any {
	sids, hashes := allSIDs(&r)
	return []any{r.Key[:], r.Issuer, r.ClientID, r.Subject, sids, subjectHash(r.Issuer, r.ClientID, r.Subject), hashes,
		store.Micros(r.Created), store.Micros(r.LastSeen), store.Micros(r.IdleExpires), store.Micros(r.Expires),
		int16(r.Refresh), blob(r.Payload), store.Micros(began)}
}

// Find implements [store.Store].
func (s *Store) Find(ctx context.Context, key store.Key, now time.Time) (store.Record, error) {
	var found []store.Record
	err := s.read(ctx, "find", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, findSQL, key[:], store.Micros(now))
		found, err = collect(rows, err)
		return err
	})
	if err != nil {
		return store.Record{}, err
	}
	if len(found) == 0 {
		return store.Record{}, store.ErrNotFound
	}
	return found[0], nil
}

// Update implements [store.Store].
func (s *Store) Update(ctx context.Context, r store.Record, now time.Time) error {
	return s.write(ctx, "update", func(ctx context.Context, conn *pgxpool.Conn) error {
		done, err := conn.Exec(ctx, updateSQL, store.Micros(r.LastSeen), store.Micros(r.IdleExpires),
			store.Micros(r.Expires), int16(r.Refresh), blob(r.Payload), r.Key[:], r.Revision, store.Micros(now))
		if err != nil || done.RowsAffected() == 1 {
			return err
		}
		// A separate statement, since the first one may have waited for an ending, which it does not see.
		var lives bool
		rows, err := conn.Query(ctx, livesSQL, r.Key[:], store.Micros(now))
		if err := one(rows, err, &lives); err != nil {
			return err
		}
		if lives {
			return store.ErrConflict
		}
		return store.ErrNotFound
	})
}

// Rename implements [store.Store].
func (s *Store) Rename(ctx context.Context, r store.Record, began, now time.Time) error {
	return s.verdict(ctx, "rename", r, began, now, renameSQL, renameArgs(r, began, now))
}

func renameArgs(r store.Record, began, now time.Time) []any {
	sids, hashes := allSIDs(&r)
	return []any{r.Key[:], r.Issuer, r.ClientID, r.Subject, sids, subjectHash(r.Issuer, r.ClientID, r.Subject), hashes,
		store.Micros(r.LastSeen), store.Micros(r.IdleExpires), store.Micros(r.Expires), int16(r.Refresh),
		blob(r.Payload), store.Micros(began), r.Revision, store.Micros(now)}
}

// verdict calls curfew_create or curfew_rename, which store r unless a mark at or after began names it.
func (s *Store) verdict(
	ctx context.Context, what string, r store.Record, began, now time.Time, statement string, args []any,
) error {
	if store.Time(now).Sub(store.Time(began)) >= store.AttemptLifetime {
		return store.ErrEnded
	}
	if err := r.ValidateSIDs(); err != nil {
		return fmt.Errorf("postgres: %s: %w", what, err)
	}
	if err := writable(append([]string{r.Issuer, r.ClientID, r.Subject, r.SID}, r.Former...)...); err != nil {
		return err
	}
	return s.write(ctx, what, func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, statement, args...)
		var verdict string
		if err := one(rows, err, &verdict); err != nil {
			return err
		}
		switch verdict {
		case "created", "renamed":
			return nil
		case "ended":
			return store.ErrEnded
		case "not found":
			return store.ErrNotFound
		case "conflict":
			return store.ErrConflict
		}
		return errors.New("a session with this key exists already")
	})
}

// allSIDs returns the sid of r, if it has one, followed by the former ones, and their hashes.
func allSIDs(r *store.Record) (sids []string, hashes []int64) {
	sids, hashes = []string{}, []int64{}
	for _, sid := range append([]string{r.SID}, r.Former...) {
		if sid != "" {
			sids, hashes = append(sids, sid), append(hashes, *sidHash(r.Issuer, r.ClientID, sid))
		}
	}
	return sids, hashes
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, q store.Query, now time.Time) (store.Page, error) {
	limit, err := q.PageSize()
	if err != nil {
		return store.Page{}, fmt.Errorf("postgres: %w", err)
	}
	if err := writable(q.Issuer, q.ClientID, q.Subject, q.SID); err != nil {
		return store.Page{}, err
	}
	statement, args := listStatement(q, limit, now)
	var page store.Page
	err = s.read(ctx, "list", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, statement, args...)
		page.Records, err = collect(rows, err)
		return err
	})
	if err != nil {
		return store.Page{}, err
	}
	if len(page.Records) > limit {
		page.Records = page.Records[:limit]
		page.Next = page.Records[limit-1].Key
	}
	return page, nil
}

// listStatement asks for one record more than fits on a page.
func listStatement(q store.Query, limit int, now time.Time) (statement string, args []any) {
	args = []any{q.After[:], store.Micros(now), limit + 1}
	switch {
	case q.Subject != "":
		return listSubjectSQL(), append(args, subjectHash(q.Issuer, q.ClientID, q.Subject), q.Issuer, q.ClientID,
			q.Subject, q.SID)
	case q.SID != "":
		return listSIDSQL(), append(args, *sidHash(q.Issuer, q.ClientID, q.SID), q.Issuer, q.ClientID, q.Subject, q.SID)
	}
	return listSQL, append(args, q.Issuer, q.ClientID)
}

// collect reads rows, which have the columns of the constant columns.
func collect(rows pgx.Rows, err error) ([]store.Record, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (store.Record, error) {
		var r store.Record
		var key []byte
		var created, lastSeen, idleExpires, expires int64
		var refresh int16
		err := row.Scan(&key, &r.Issuer, &r.ClientID, &r.Subject, &r.SID, &r.Former, &created, &lastSeen, &idleExpires,
			&expires, &r.Revision, &refresh, &r.Payload)
		if err == nil && len(key) != len(r.Key) {
			err = fmt.Errorf("a key of %d bytes is stored, not of %d", len(key), len(r.Key))
		}
		if err != nil {
			return store.Record{}, err
		}
		if len(r.Former) == 0 {
			r.Former = nil
		}
		copy(r.Key[:], key)
		r.Created, r.LastSeen = store.FromMicros(created), store.FromMicros(lastSeen)
		r.IdleExpires, r.Expires = store.FromMicros(idleExpires), store.FromMicros(expires)
		r.Refresh = store.Refresh(refresh)
		return r, nil
	})
}
