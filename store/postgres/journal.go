package postgres

import (
	"context"
	"fmt"
	"math"
	"time"

	"example.com/curfew/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// Appends exclude each other until their commit is visible: a reader that follows the journal would otherwise miss a
	// lower position that becomes visible after a higher one. The OID separates several installations in one database.
	lockJournalSQL = `SELECT pg_advisory_xact_lock('curfew_journal'::regclass::oid::bigint),
		set_config('synchronous_commit', 'off', true)`
	appendSQL = `INSERT INTO curfew_journal (added, entry)
		SELECT $1, e.entry FROM unnest($2::bytea[]) WITH ORDINALITY AS e (entry, number) ORDER BY e.number`
	trimSQL = `DELETE FROM curfew_journal
		WHERE position <= (SELECT position FROM curfew_journal ORDER BY position DESC LIMIT 1) - $1::bigint`
	forgetSQL       = `DELETE FROM curfew_journal WHERE position = ANY ($1::bigint[]) OR added < $2`
	entriesAfterSQL = `SELECT position, added, entry FROM curfew_journal WHERE position > $1
		ORDER BY position LIMIT $2`
	entriesBeforeSQL = `SELECT position, added, entry FROM curfew_journal WHERE position < $1
		ORDER BY position DESC LIMIT $2`
)

// Append implements [store.Journal]. It does not wait for the disk.
func (s *Store) Append(ctx context.Context, entries [][]byte, now time.Time) error {
	if err := store.CheckJournal(entries); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	if len(entries) == 0 {
		return nil
	}
	return s.write(ctx, "journal", func(ctx context.Context, conn *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, lockJournalSQL); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, appendSQL, store.Micros(now), entries); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, trimSQL, store.JournalSize)
			return err
		})
	})
}

// Entries implements [store.Journal].
func (s *Store) Entries(ctx context.Context, q store.JournalQuery) (found []store.JournalEntry, err error) {
	limit, err := q.PageSize()
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	statement, from := entriesBeforeSQL, q.Before
	switch {
	case q.After > 0:
		statement, from = entriesAfterSQL, q.After
	case from == 0:
		from = math.MaxInt64
	}
	err = s.read(ctx, "journal", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, statement, from, limit)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e store.JournalEntry, err error) {
			var added int64
			err = row.Scan(&e.Position, &added, &e.Entry)
			e.Added = store.FromMicros(added)
			return e, err
		})
		return err
	})
	return found, err
}

// Forget implements [store.Journal].
func (s *Store) Forget(ctx context.Context, positions []int64, before time.Time) (removed int, err error) {
	if positions == nil {
		positions = []int64{}
	}
	err = s.write(ctx, "journal", func(ctx context.Context, conn *pgxpool.Conn) error {
		done, err := conn.Exec(ctx, forgetSQL, positions, store.Micros(before))
		removed = int(done.RowsAffected())
		return err
	})
	return removed, err
}
