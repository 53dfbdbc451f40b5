package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"example.com/curfew/store"
)

const (
	loadSQL      = `SELECT value, revision FROM vault WHERE name = ?1`
	saveFirstSQL = `INSERT INTO vault (name, value, revision) VALUES (?1, ?2, 1) ON CONFLICT DO NOTHING`
	saveSQL      = `UPDATE vault SET value = ?2, revision = revision + 1 WHERE name = ?1 AND revision = ?3`
)

// Load implements [store.SharedValues].
func (s *Store) Load(ctx context.Context, name string) (value []byte, revision int64, err error) {
	err = s.read(ctx, func(r *reader) error {
		err := r.load.QueryRow(name).Scan(&value, &revision)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("sqlite: shared value: %w", err)
		}
		return nil
	})
	return value, revision, err
}

// Save implements [store.SharedValues].
func (s *Store) Save(ctx context.Context, name string, value []byte, revision int64) error {
	if err := store.CheckSharedValue(name, value); err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	return s.write(ctx, func(w *writer) error {
		if revision == 0 {
			return oneRow(store.ErrConflict, "shared value", w.saveFirst, name, blob(value))
		}
		return oneRow(store.ErrConflict, "shared value", w.save, name, blob(value), revision)
	})
}
