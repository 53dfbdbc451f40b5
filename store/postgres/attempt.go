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
	// Of two claims at once one waits for the other at the key, and then finds a row that has not expired.
	claimAttemptSQL = `INSERT INTO curfew_attempts AS a (id, expires, value) VALUES ($1, $2, $3)
		ON CONFLICT (id) DO UPDATE SET expires = excluded.expires, value = excluded.value WHERE a.expires <= $4`
	completeAttemptSQL = `UPDATE curfew_attempts SET value = $2 WHERE id = $1 AND expires > $3`
	attemptSQL         = `SELECT value FROM curfew_attempts WHERE id = $1 AND expires > $2`
)

// ClaimAttempt implements [store.Attempts].
func (s *Store) ClaimAttempt(
	ctx context.Context, id store.AttemptID, value []byte, expires, now time.Time,
) (held []byte, err error) {
	if err := store.CheckAttempt(value); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	err = s.write(ctx, "attempt", func(ctx context.Context, conn *pgxpool.Conn) error {
		done, err := conn.Exec(ctx, claimAttemptSQL, id[:], store.Micros(expires), value, store.Micros(now))
		if err != nil || done.RowsAffected() == 1 {
			return err
		}
		// A separate statement sees the row that the first one waited for.
		return conn.QueryRow(ctx, attemptSQL, id[:], store.Micros(now)).Scan(&held)
	})
	if err != nil {
		return nil, err
	}
	return held, nil
}

// CompleteAttempt implements [store.Attempts].
func (s *Store) CompleteAttempt(ctx context.Context, id store.AttemptID, value []byte, now time.Time) error {
	if err := store.CheckAttempt(value); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return s.write(ctx, "attempt", func(ctx context.Context, conn *pgxpool.Conn) error {
		return oneRow(store.ErrNotFound)(conn.Exec(ctx, completeAttemptSQL, id[:], value, store.Micros(now)))
	})
}

// Attempt implements [store.Attempts].
func (s *Store) Attempt(ctx context.Context, id store.AttemptID, now time.Time) (value []byte, err error) {
	err = s.read(ctx, "attempt", func(ctx context.Context, conn *pgxpool.Conn) error {
		err := conn.QueryRow(ctx, attemptSQL, id[:], store.Micros(now)).Scan(&value)
		if errors.Is(err, pgx.ErrNoRows) {
			return store.ErrNotFound
		}
		return err
	})
	return value, err
}
