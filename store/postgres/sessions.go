package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store/internal/rules"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	columns = `key, issuer, client, subject, sid, created, last_seen, idle_expires, expires, revision, refresh, payload`

	createSQL = `SELECT curfew_create($1::bytea, $2::text, $3::text, $4::text, $5::text, $6::bigint, $7::bigint, $8::bigint,
		$9::bigint, $10::bigint, $11::bigint, $12::smallint, $13::bytea, $14::bigint)`

	findSQL = `SELECT ` + columns + ` FROM curfew_sessions WHERE key = $1 AND expires > $2 AND idle_expires > $2`

	updateSQL = `UPDATE curfew_sessions SET last_seen = $1, idle_expires = $2, expires = $3, refresh = $4, payload = $5,
		revision = revision + 1 WHERE key = $6 AND revision = $7 AND expires > $8 AND idle_expires > $8`
	renameSQL = `UPDATE curfew_sessions SET last_seen = $1, idle_expires = $2, expires = $3, refresh = $4, payload = $5,
		sid = $9, sid_hash = $10, revision = revision + 1 WHERE key = $6 AND revision = $7 AND expires > $8 AND idle_expires > $8`
	// The locks and the condition are those of curfew_create.
	lockSQL   = `SELECT pg_advisory_xact_lock_shared($1::bigint # 'curfew_sessions'::regclass::oid::bigint)`
	barredSQL = `SELECT EXISTS (SELECT FROM curfew_marks m WHERE m.issuer = $1 AND m.client = $2 AND m.subject = $3
			AND (m.sid = '' OR m.sid = $4::text OR $4::text = '') AND m.at >= $5)
		OR $4::text <> '' AND EXISTS (SELECT FROM curfew_marks m WHERE m.issuer = $1 AND m.client = $2
			AND m.subject = '' AND m.sid = $4::text AND m.at >= $5)`
	livesSQL = `SELECT EXISTS (SELECT FROM curfew_sessions WHERE key = $1 AND expires > $2 AND idle_expires > $2)`

	listSQL = `SELECT ` + columns + ` FROM curfew_sessions WHERE key > $1 AND expires > $2 AND idle_expires > $2
		AND ($4::text = '' OR issuer = $4) AND ($5::text = '' OR client = $5) ORDER BY key LIMIT $3`
	// Materialized, as the planner might think it quicker to walk through all keys until enough of the name were met.
	// Without their payloads, as there may be many.
	listNamedSQL = `WITH named AS MATERIALIZED (SELECT key FROM curfew_sessions
		WHERE %s AND issuer = $5 AND client = $6 AND ($7::text = '' OR subject = $7) AND ($8::text = '' OR sid = $8)
		AND key > $1 AND expires > $2 AND idle_expires > $2)
		SELECT ` + columns + ` FROM curfew_sessions
		WHERE key = ANY (ARRAY(SELECT key FROM named ORDER BY key LIMIT $3)) AND expires > $2 AND idle_expires > $2 ORDER BY key`
)

func listSubjectSQL() string { return fmt.Sprintf(listNamedSQL, `subject_hash = $4`) }
func listSIDSQL() string     { return fmt.Sprintf(listNamedSQL, `sid_hash = $4`) }

// Create implements [session.Store].
func (s *Store) Create(ctx context.Context, r session.Record, began, now time.Time) error {
	if session.Time(now).Sub(session.Time(began)) >= session.AttemptLifetime {
		return session.ErrEnded
	}
	if err := writable(r.Issuer, r.ClientID, r.Subject, r.SID); err != nil {
		return err
	}
	return s.write(ctx, "create", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, createSQL, createArgs(r, began)...)
		var verdict string
		if err := one(rows, err, &verdict); err != nil {
			return err
		}
		switch verdict {
		case "created":
			return nil
		case "ended":
			return session.ErrEnded
		}
		return errors.New("a session with this key exists already")
	})
}

func createArgs(r session.Record, began time.Time) []any {
	return []any{r.Key[:], r.Issuer, r.ClientID, r.Subject, r.SID,
		subjectHash(r.Issuer, r.ClientID, r.Subject), sidHash(r.Issuer, r.ClientID, r.SID), micros(r.Created),
		micros(r.LastSeen), micros(r.IdleExpires), micros(r.Expires), int16(r.Refresh), blob(r.Payload), micros(began)}
}

// Find implements [session.Store].
func (s *Store) Find(ctx context.Context, key session.Key, now time.Time) (session.Record, error) {
	var found []session.Record
	err := s.read(ctx, "find", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, findSQL, key[:], micros(now))
		found, err = collect(rows, err)
		return err
	})
	if err != nil {
		return session.Record{}, err
	}
	if len(found) == 0 {
		return session.Record{}, session.ErrNotFound
	}
	return found[0], nil
}

// Update implements [session.Store].
func (s *Store) Update(ctx context.Context, r session.Record, now time.Time) error {
	return s.write(ctx, "update", func(ctx context.Context, conn *pgxpool.Conn) error {
		done, err := conn.Exec(ctx, updateSQL, micros(r.LastSeen), micros(r.IdleExpires), micros(r.Expires), int16(r.Refresh),
			blob(r.Payload), r.Key[:], r.Revision, micros(now))
		if err != nil || done.RowsAffected() == 1 {
			return err
		}
		// Asked in a statement of its own: the first may have waited for an ending, and does not see what that left.
		var lives bool
		rows, err := conn.Query(ctx, livesSQL, r.Key[:], micros(now))
		if err := one(rows, err, &lives); err != nil {
			return err
		}
		if lives {
			return session.ErrConflict
		}
		return session.ErrNotFound
	})
}

// Rename implements [session.Store].
func (s *Store) Rename(ctx context.Context, r session.Record, began, now time.Time) error {
	if session.Time(now).Sub(session.Time(began)) >= session.AttemptLifetime {
		return session.ErrEnded
	}
	if err := writable(r.SID); err != nil {
		return err
	}
	sid := sidHash(r.Issuer, r.ClientID, r.SID)
	return s.write(ctx, "rename", func(ctx context.Context, conn *pgxpool.Conn) error {
		// What is read after a lock must be what is there then.
		return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, lockSQL, subjectHash(r.Issuer, r.ClientID, r.Subject)); err != nil {
				return err
			}
			if sid != nil {
				if _, err := tx.Exec(ctx, lockSQL, *sid); err != nil {
					return err
				}
			}
			var lives, barred bool
			rows, err := tx.Query(ctx, livesSQL, r.Key[:], micros(now))
			if err := one(rows, err, &lives); err != nil {
				return err
			}
			if !lives {
				return session.ErrNotFound
			}
			rows, err = tx.Query(ctx, barredSQL, r.Issuer, r.ClientID, r.Subject, r.SID, micros(began))
			if err := one(rows, err, &barred); err != nil {
				return err
			}
			if barred {
				return session.ErrEnded
			}
			done, err := tx.Exec(ctx, renameSQL, micros(r.LastSeen), micros(r.IdleExpires), micros(r.Expires), int16(r.Refresh),
				blob(r.Payload), r.Key[:], r.Revision, micros(now), r.SID, sid)
			if err == nil && done.RowsAffected() == 0 {
				// An ending of its key alone takes no lock, and may have come between; read again, the answer is certain.
				return session.ErrConflict
			}
			return err
		})
	})
}

// List implements [session.Store].
func (s *Store) List(ctx context.Context, q session.Query, now time.Time) (session.Page, error) {
	limit, err := rules.Limit(q)
	if err != nil {
		return session.Page{}, fmt.Errorf("postgres: %w", err)
	}
	if err := writable(q.Issuer, q.ClientID, q.Subject, q.SID); err != nil {
		return session.Page{}, err
	}
	statement, args := listSQL, []any{q.After[:], micros(now), limit + 1}
	switch {
	case q.Subject != "":
		statement = listSubjectSQL()
		args = append(args, subjectHash(q.Issuer, q.ClientID, q.Subject), q.Issuer, q.ClientID, q.Subject, q.SID)
	case q.SID != "":
		statement = listSIDSQL()
		args = append(args, *sidHash(q.Issuer, q.ClientID, q.SID), q.Issuer, q.ClientID, q.Subject, q.SID)
	default:
		args = append(args, q.Issuer, q.ClientID)
	}
	var page session.Page
	err = s.read(ctx, "list", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, statement, args...)
		page.Records, err = collect(rows, err)
		return err
	})
	if err != nil {
		return session.Page{}, err
	}
	if len(page.Records) > limit {
		page.Records = page.Records[:limit]
		page.Next = page.Records[limit-1].Key
	}
	return page, nil
}

// collect reads all of rows, whose columns are those of columns.
func collect(rows pgx.Rows, err error) ([]session.Record, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (session.Record, error) {
		var r session.Record
		var key []byte
		var created, lastSeen, idleExpires, expires int64
		var refresh int16
		err := row.Scan(&key, &r.Issuer, &r.ClientID, &r.Subject, &r.SID, &created, &lastSeen, &idleExpires, &expires,
			&r.Revision, &refresh, &r.Payload)
		if err == nil && len(key) != len(r.Key) {
			err = fmt.Errorf("a key of %d bytes is stored, not of %d", len(key), len(r.Key))
		}
		if err != nil {
			return session.Record{}, err
		}
		copy(r.Key[:], key)
		r.Created, r.LastSeen = instant(created), instant(lastSeen)
		r.IdleExpires, r.Expires = instant(idleExpires), instant(expires)
		r.Refresh = session.Refresh(refresh)
		return r, nil
	})
}
