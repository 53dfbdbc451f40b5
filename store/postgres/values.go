package postgres

import (
	"context"
	"errors"
	"fmt"

	"example.com/curfew/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	loadSQL = `SELECT value, revision FROM curfew_shared_values WHERE name = $1`

	// Of two calls with the same revision, one waits for the other at the row, or at the key to be inserted. Then it
	// finds another revision, or an existing row.
	saveFirstSQL = `INSERT INTO curfew_shared_values (name, value, revision) VALUES ($1, $2, 1)
		ON CONFLICT (name) DO NOTHING`
	saveSQL = `UPDATE curfew_shared_values SET value = $2, revision = revision + 1 WHERE name = $1 AND revision = $3`
)

// Load implements [store.SharedValues].
func (s *Store) Load(ctx context.Context, name string) (value []byte, revision int64, err error) {
	if err := writable(name); err != nil {
		return nil, 0, err
	}
	err = s.read(ctx, "load", func(ctx context.Context, conn *pgxpool.Conn) error {
		err := conn.QueryRow(ctx, loadSQL, name).Scan(&value, &revision)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	return value, revision, err
}

// Save implements [store.SharedValues].
func (s *Store) Save(ctx context.Context, name string, value []byte, revision int64) error {
	if err := store.CheckSharedValue(name, value); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	if err := writable(name); err != nil {
		return err
	}
	return s.write(ctx, "save", func(ctx context.Context, conn *pgxpool.Conn) error {
		if revision == 0 {
			return oneRow(store.ErrConflict)(conn.Exec(ctx, saveFirstSQL, name, blob(value)))
		}
		return oneRow(store.ErrConflict)(conn.Exec(ctx, saveSQL, name, blob(value), revision))
	})
}
