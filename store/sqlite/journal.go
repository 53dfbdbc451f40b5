package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"

	"example.com/curfew/store"
)

const (
	appendSQL        = `INSERT INTO journal (added, entry) VALUES (?1, ?2)`
	trimSQL          = `DELETE FROM journal WHERE position <= (SELECT max(position) FROM journal) - ?1`
	forgetSQL        = `DELETE FROM journal WHERE position = ?1`
	forgetOldSQL     = `DELETE FROM journal WHERE added < ?1`
	entriesAfterSQL  = `SELECT position, added, entry FROM journal WHERE position > ?1 ORDER BY position LIMIT ?2 + 0`
	entriesBeforeSQL = `SELECT position, added, entry FROM journal WHERE position < ?1 ORDER BY position DESC LIMIT ?2 + 0`
)

// Append implements [store.Journal].
func (s *Store) Append(ctx context.Context, entries [][]byte, now time.Time) error {
	if err := store.CheckJournal(entries); err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	return s.write(ctx, "journal", func(w *writer) error {
		for _, e := range entries {
			if _, err := exec(w.appendEntry, store.Micros(now), e); err != nil {
				return err
			}
		}
		_, err := exec(w.trimJournal, store.JournalSize)
		return err
	})
}

// Entries implements [store.Journal].
func (s *Store) Entries(ctx context.Context, q store.JournalQuery) (found []store.JournalEntry, err error) {
	limit, err := q.PageSize()
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	err = s.read(ctx, "journal", func(r *reader) error {
		st, from := r.entriesBefore, q.Before
		switch {
		case q.After > 0:
			st, from = r.entriesAfter, q.After
		case from == 0:
			from = math.MaxInt64
		}
		rows, err := st.Query(from, limit)
		if err == nil {
			found, err = readEntries(rows)
		}
		return err
	})
	return found, err
}

// readEntries reads and closes rows.
func readEntries(rows *sql.Rows) (found []store.JournalEntry, err error) {
	defer func() {
		if errClose := rows.Close(); err == nil {
			err = errClose
		}
	}()
	for rows.Next() {
		var e store.JournalEntry
		var added int64
		if err := rows.Scan(&e.Position, &added, &e.Entry); err != nil {
			return nil, err
		}
		e.Added = store.FromMicros(added)
		found = append(found, e)
	}
	return found, rows.Err()
}

// Forget implements [store.Journal].
func (s *Store) Forget(ctx context.Context, positions []int64, before time.Time) (removed int, err error) {
	err = s.write(ctx, "journal", func(w *writer) error {
		removed = 0
		remove := func(st *sql.Stmt, arg int64) error {
			n, err := exec(st, arg)
			removed += int(n)
			return err
		}
		for _, p := range positions {
			if err := remove(w.forget, p); err != nil {
				return err
			}
		}
		return remove(w.forgetOld, store.Micros(before))
	})
	return removed, err
}
