package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"example.com/curfew/store"
)

const (
	listSQL = `SELECT ` + columns + ` FROM sessions WHERE key > ?1 AND expires > ?2 AND idle_expires > ?2
		AND (?4 = '' OR issuer = ?4) AND (?5 = '' OR client = ?5) ORDER BY key LIMIT ?3 + 0`
	listSubjectSQL = `SELECT ` + columns + ` FROM sessions INDEXED BY sessions_by_newest
		WHERE issuer = ?4 AND client = ?5 AND subject = ?6
		AND (?7 = '' OR sid = ?7
			OR id IN (SELECT session FROM former_sids WHERE issuer = ?4 AND client = ?5 AND sid = ?7))
		AND key > ?1 AND expires > ?2 AND idle_expires > ?2 ORDER BY key LIMIT ?3 + 0`
	listSIDSQL = `SELECT ` + columns + ` FROM sessions WHERE id IN (
			SELECT id FROM sessions INDEXED BY sessions_by_sid
				WHERE issuer = ?4 AND client = ?5 AND sid = ?6 AND sid <> ''
			UNION ALL SELECT session FROM former_sids WHERE issuer = ?4 AND client = ?5 AND sid = ?6)
		AND key > ?1 AND expires > ?2 AND idle_expires > ?2 ORDER BY key LIMIT ?3 + 0`
)

// reader is a connection that reads, with its statements.
type reader struct {
	find, list, listSubject, listSID, overdue, tooMany *sql.Stmt
	notices, stats, created, load, attempt             *sql.Stmt
	entriesAfter, entriesBefore                        *sql.Stmt
}

func (r *reader) statements() []statement {
	return []statement{
		{&r.find, findSQL},
		{&r.list, listSQL},
		{&r.listSubject, listSubjectSQL},
		{&r.listSID, listSIDSQL},
		{&r.notices, noticesSQL},
		{&r.stats, statsSQL},
		{&r.created, createdSQL},
		{&r.load, loadSQL},
		{&r.overdue, overdueSQL},
		{&r.tooMany, crowdedSQL},
		{&r.attempt, attemptSQL},
		{&r.entriesAfter, entriesAfterSQL},
		{&r.entriesBefore, entriesBeforeSQL},
	}
}

// read runs fn with a reader. The wait for a reader ends when ctx is done; a read is short and is not interrupted. what
// says in errors what failed.
func (s *Store) read(ctx context.Context, what string, fn func(*reader) error) error {
	if err := s.gate.Enter(ctx); err != nil {
		return err
	}
	defer s.gate.Leave()
	select {
	case r := <-s.readers:
		defer func() { s.readers <- r }()
		return failed(what, fn(r))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// collect reads all rows that a query has returned, and closes them.
func collect[T any](rows *sql.Rows, failed error, read func() (T, error)) (all []T, err error) {
	if failed != nil {
		return nil, failed
	}
	defer func() {
		if errClose := rows.Close(); err == nil {
			err = errClose
		}
	}()
	for rows.Next() {
		one, err := read()
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// readRecords is collect for the columns of the constant columns.
func readRecords(rows *sql.Rows, failed error) ([]store.Record, error) {
	return collect(rows, failed, func() (r store.Record, err error) {
		var key []byte
		var former string
		var created, lastSeen, idleExpires, expires int64
		err = rows.Scan(&key, &r.Issuer, &r.ClientID, &r.Subject, &r.SID, &former, &created, &lastSeen, &idleExpires,
			&expires, &r.Revision, &r.Refresh, &r.Payload)
		if err == nil && former != "" {
			if err = json.Unmarshal([]byte(former), &r.Former); err != nil {
				err = fmt.Errorf("read the former sids of a session: %w", err)
			}
		}
		r.Created, r.LastSeen = store.FromMicros(created), store.FromMicros(lastSeen)
		r.IdleExpires, r.Expires = store.FromMicros(idleExpires), store.FromMicros(expires)
		return r, cmp.Or(err, setKey(&r, key))
	})
}

func setKey(r *store.Record, key []byte) error {
	if copy(r.Key[:], key) != len(key) || len(key) != len(r.Key) {
		return fmt.Errorf("a key of %d bytes is stored, not of %d", len(key), len(r.Key))
	}
	return nil
}

// Find implements [store.Store].
func (s *Store) Find(ctx context.Context, key store.Key, now time.Time) (store.Record, error) {
	var found []store.Record
	err := s.read(ctx, "find", func(r *reader) error {
		rows, err := r.find.Query(key[:], store.Micros(now))
		found, err = readRecords(rows, err)
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

// List implements [store.Store].
func (s *Store) List(ctx context.Context, q store.Query, now time.Time) (store.Page, error) {
	limit, err := q.PageSize()
	if err != nil {
		return store.Page{}, fmt.Errorf("sqlite: %w", err)
	}
	var page store.Page
	err = s.read(ctx, "list", func(r *reader) error {
		st, args := r.list, []any{q.After[:], store.Micros(now), limit + 1, q.Issuer, q.ClientID}
		switch {
		case q.Subject != "":
			st, args = r.listSubject, append(args, q.Subject, q.SID)
		case q.SID != "":
			st, args = r.listSID, append(args, q.SID)
		}
		rows, err := st.Query(args...)
		page.Records, err = readRecords(rows, err)
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
