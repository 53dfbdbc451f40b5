package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"example.com/curfew/store"
)

const (
	claimAttemptSQL = `INSERT INTO attempts (id, expires, value) VALUES (?1, ?2, ?3)
		ON CONFLICT (id) DO UPDATE SET expires = excluded.expires, value = excluded.value WHERE attempts.expires <= ?4`
	completeAttemptSQL = `UPDATE attempts SET value = ?2 WHERE id = ?1 AND expires > ?3`
	attemptSQL         = `SELECT value FROM attempts WHERE id = ?1 AND expires > ?2`
	pruneAttemptsSQL   = `DELETE FROM attempts WHERE id IN (SELECT id FROM attempts WHERE expires <= ? LIMIT 100)`
)

// ClaimAttempt implements [store.Attempts].
func (s *Store) ClaimAttempt(
	ctx context.Context, id store.AttemptID, value []byte, expires, now time.Time,
) (held []byte, err error) {
	if err := store.CheckAttempt(value); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	err = s.write(ctx, "attempt", func(w *writer) error {
		n, err := exec(w.claimAttempt, id[:], store.Micros(expires), value, store.Micros(now))
		if err != nil || n == 1 {
			return err
		}
		return w.attempt.QueryRow(id[:], store.Micros(now)).Scan(&held)
	})
	if err != nil {
		return nil, err
	}
	return held, nil
}

// CompleteAttempt implements [store.Attempts].
func (s *Store) CompleteAttempt(ctx context.Context, id store.AttemptID, value []byte, now time.Time) error {
	if err := store.CheckAttempt(value); err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	return s.write(ctx, "attempt", func(w *writer) error {
		return oneRow(store.ErrNotFound, w.completeAttempt, id[:], value, store.Micros(now))
	})
}

// Attempt implements [store.Attempts].
func (s *Store) Attempt(ctx context.Context, id store.AttemptID, now time.Time) (value []byte, err error) {
	err = s.read(ctx, "attempt", func(r *reader) error {
		err := r.attempt.QueryRow(id[:], store.Micros(now)).Scan(&value)
		if errors.Is(err, sql.ErrNoRows) {
			return store.ErrNotFound
		}
		return err
	})
	return value, err
}
