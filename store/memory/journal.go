package memory

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"example.com/curfew/store"
)

// Append implements [store.Journal].
func (s *Store) Append(ctx context.Context, entries [][]byte, now time.Time) error {
	if err := store.CheckJournal(entries); err != nil {
		return err
	}
	return s.do(ctx, func() error {
		for _, e := range entries {
			s.position++
			s.journal = append(s.journal,
				store.JournalEntry{Position: s.position, Added: store.Time(now), Entry: bytes.Clone(e)})
		}
		// Cut rarely, since that moves all entries.
		if len(s.journal) > 2*store.JournalSize {
			s.journal = slices.Clone(s.journal[len(s.journal)-store.JournalSize:])
		}
		return nil
	})
}

// kept returns the entries that the contract allows to be seen.
func (s *Store) kept() []store.JournalEntry {
	return s.journal[max(0, len(s.journal)-store.JournalSize):]
}

// Entries implements [store.Journal].
func (s *Store) Entries(ctx context.Context, q store.JournalQuery) ([]store.JournalEntry, error) {
	limit, err := q.PageSize()
	if err != nil {
		return nil, err
	}
	var found []store.JournalEntry
	err = s.do(ctx, func() error {
		kept := s.kept()
		at := func(position int64) int {
			i, _ := slices.BinarySearchFunc(kept, position, func(e store.JournalEntry, p int64) int {
				return cmp.Compare(e.Position, p)
			})
			return i
		}
		if q.After > 0 {
			first := at(q.After + 1)
			found = slices.Clone(kept[first:min(len(kept), first+limit)])
			return nil
		}
		end := len(kept)
		if q.Before > 0 {
			end = at(q.Before)
		}
		found = slices.Clone(kept[max(0, end-limit):end])
		slices.Reverse(found)
		return nil
	})
	for i := range found {
		found[i].Entry = bytes.Clone(found[i].Entry)
	}
	return found, err
}

// Forget implements [store.Journal].
func (s *Store) Forget(ctx context.Context, positions []int64, before time.Time) (int, error) {
	gone := make(map[int64]bool, len(positions))
	for _, p := range positions {
		gone[p] = true
	}
	removed := 0
	before = store.Time(before)
	err := s.do(ctx, func() error {
		kept := s.kept()
		left := make([]store.JournalEntry, 0, len(kept))
		for _, e := range kept {
			if gone[e.Position] || e.Added.Before(before) {
				removed++
			} else {
				left = append(left, e)
			}
		}
		s.journal = left
		return nil
	})
	return removed, err
}
