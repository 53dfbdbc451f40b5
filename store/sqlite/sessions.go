package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"example.com/curfew/store"
)

const (
	columns = `key, issuer, client, subject, sid, former, created, last_seen, idle_expires, expires,
		revision, refresh, payload`

	// A session without a sid may be any session of its subject, so a mark with subject and sid bars it whatever the
	// sid is. For former sids the statement is run again, with each of them as ?4. ?6 is ?5 for the marks of a sid.
	barredSQL = `SELECT
		EXISTS (SELECT 1 FROM marks
			WHERE issuer = ?1 AND client = ?2 AND subject = ?3 AND sid = '' AND at >= ?5)
		OR (?4 <> '' AND EXISTS (SELECT 1 FROM marks
			WHERE issuer = ?1 AND client = ?2 AND subject = '' AND sid = ?4 AND at >= ?6))
		OR (?4 = '' AND EXISTS (SELECT 1 FROM marks
			WHERE issuer = ?1 AND client = ?2 AND subject = ?3 AND at >= ?5))`

	insertSessionSQL = `INSERT INTO sessions (` + columns + `)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?) ON CONFLICT (key) DO NOTHING`

	findSQL = `SELECT ` + columns + ` FROM sessions WHERE key = ?1 AND expires > ?2 AND idle_expires > ?2`

	updateSessionSQL = `UPDATE sessions SET last_seen = ?1, idle_expires = ?2, expires = ?3, refresh = ?4, payload = ?5,
		revision = revision + 1 WHERE key = ?6 AND revision = ?7 AND expires > ?8 AND idle_expires > ?8`
	renameSessionSQL = `UPDATE sessions SET last_seen = ?1, idle_expires = ?2, expires = ?3, refresh = ?4, payload = ?5,
		sid = ?9, former = ?10, revision = revision + 1
		WHERE key = ?6 AND revision = ?7 AND expires > ?8 AND idle_expires > ?8`
	sessionLivesSQL = `SELECT EXISTS (SELECT 1 FROM sessions WHERE key = ?1 AND expires > ?2 AND idle_expires > ?2)`

	// Batches are small, since a logout may be waiting behind one of them.
	pruneSessionsSQL = `DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE until <= ? LIMIT 100)`
	pruneMarksSQL    = `DELETE FROM marks WHERE (issuer, client, subject, sid) IN
		(SELECT issuer, client, subject, sid FROM marks WHERE kept_until <= ? LIMIT 100)`
	pruneJTIsSQL = `DELETE FROM jtis WHERE (issuer, client, jti) IN
		(SELECT issuer, client, jti FROM jtis WHERE expires <= ? LIMIT 100)`
)

// blob returns b, or an empty blob in place of NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

var errExists = errors.New("a session with this key exists already")

// Create implements [store.Store].
func (s *Store) Create(ctx context.Context, r store.Record, began, now time.Time) error {
	former, err := checkNew(&r, began, now)
	if err != nil {
		return err
	}
	return s.insert(ctx, "create", &r, former, began, began, r.SID)
}

// Admit implements [store.Store].
func (s *Store) Admit(ctx context.Context, r store.Record, issued, now time.Time) error {
	former, err := checkNew(&r, now, now)
	if err != nil {
		return err
	}
	return s.insert(ctx, "admit", &r, former, issued, store.FromMicros(0), r.SID, r.Key.MarkSID())
}

func (s *Store) insert(ctx context.Context, what string, r *store.Record, former string, began, sidBegan time.Time,
	sids ...string) error {
	return s.write(ctx, what, func(w *writer) error {
		if err := w.checkMarks(r, began, sidBegan, sids...); err != nil {
			return err
		}
		return oneRow(errExists, w.insertSession, r.Key[:], r.Issuer, r.ClientID, r.Subject, r.SID, former,
			store.Micros(r.Created), store.Micros(r.LastSeen), store.Micros(r.IdleExpires), store.Micros(r.Expires),
			int64(r.Refresh), blob(r.Payload))
	})
}

// Update implements [store.Store].
func (s *Store) Update(ctx context.Context, r store.Record, now time.Time) error {
	return s.write(ctx, "update", func(w *writer) error { return w.replace(w.updateSession, r, now) })
}

// Rename implements [store.Store].
func (s *Store) Rename(ctx context.Context, r store.Record, began, now time.Time) error {
	former, err := checkNew(&r, began, now)
	if err != nil {
		return err
	}
	return s.write(ctx, "rename", func(w *writer) error {
		if err := w.lives(r, now); err != nil {
			return err
		}
		if err := w.checkMarks(&r, began, began, r.SID); err != nil {
			return err
		}
		return w.replace(w.renameSession, r, now, r.SID, former)
	})
}

// checkNew checks the arguments of Create and Rename, and returns r.Former as it is stored. It returns [store.ErrEnded]
// when began is too long ago.
func checkNew(r *store.Record, began, now time.Time) (former string, err error) {
	if store.Time(now).Sub(store.Time(began)) >= store.AttemptLifetime {
		return "", store.ErrEnded
	}
	if err := r.ValidateSIDs(); err != nil || len(r.Former) == 0 {
		return "", err
	}
	text, err := json.Marshal(r.Former)
	return string(text), err
}

// checkMarks returns [store.ErrEnded] if a mark names r: one of its subject at or after began, or one of sids or of its
// former sids at or after sidBegan.
func (w *writer) checkMarks(r *store.Record, began, sidBegan time.Time, sids ...string) error {
	for _, sid := range append(sids, r.Former...) {
		var barred bool
		err := w.barred.QueryRow(r.Issuer, r.ClientID, r.Subject, sid, store.Micros(began),
			store.Micros(sidBegan)).Scan(&barred)
		if err != nil {
			return fmt.Errorf("look for end marks: %w", err)
		}
		if barred {
			return store.ErrEnded
		}
	}
	return nil
}

// lives returns [store.ErrNotFound] unless the session lives.
func (w *writer) lives(r store.Record, now time.Time) error {
	var lives bool
	err := w.sessionLives.QueryRow(r.Key[:], store.Micros(now)).Scan(&lives)
	if err == nil && !lives {
		return store.ErrNotFound
	}
	return err
}

// replace carries out Update and Rename. more are the further parameters of st.
func (w *writer) replace(st *sql.Stmt, r store.Record, now time.Time, more ...any) error {
	args := []any{store.Micros(r.LastSeen), store.Micros(r.IdleExpires), store.Micros(r.Expires), int64(r.Refresh),
		blob(r.Payload), r.Key[:], r.Revision, store.Micros(now)}
	n, err := exec(st, append(args, more...)...)
	if err == nil && n == 0 {
		err = cmp.Or(w.lives(r, now), store.ErrConflict)
	}
	return err
}

// Prune implements [store.Store].
func (s *Store) Prune(ctx context.Context, now time.Time) (int, error) {
	total := 0
	err := s.write(ctx, "prune", func(w *writer) error {
		total = 0
		for _, batch := range []struct {
			statement *sql.Stmt
			until     time.Time
		}{
			{w.pruneSessions, now},
			{w.pruneMarks, now},
			{w.pruneJTIs, now},
			{w.pruneAttempts, now},
		} {
			n, err := exec(batch.statement, store.Micros(batch.until))
			if err != nil {
				return err
			}
			total += int(n)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return total, nil
}
