package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"example.com/curfew/store"
)

const (
	loadSQL      = `SELECT value, revision FROM shared_values WHERE name = ?1`
	saveFirstSQL = `INSERT INTO shared_values (name, value, revision) VALUES (?1, ?2, 1) ON CONFLICT DO NOTHING`
	saveSQL      = `UPDATE shared_values SET value = ?2, revision = revision + 1 WHERE name = ?1 AND revision = ?3`
)

// Load implements [store.SharedValues].
func (s *Store) Load(ctx context.Context, name string) (value []byte, revision int64, err error) {
	err = s.read(ctx, "shared value", func(r *reader) error {
		err := r.load.QueryRow(name).Scan(&value, &revision)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return value, revision, err
}

// Save implements [store.SharedValues].
func (s *Store) Save(ctx context.Context, name string, value []byte, revision int64) error {
	if err := store.CheckSharedValue(name, value); err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	return s.write(ctx, "shared value", func(w *writer) error {
		if revision == 0 {
			return oneRow(store.ErrConflict, w.saveFirst, name, blob(value))
		}
		return oneRow(store.ErrConflict, w.save, name, blob(value), revision)
	})
}
