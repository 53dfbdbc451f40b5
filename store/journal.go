package store

import (
	"context"
	"fmt"
	"time"
)

const (
	// JournalSize is how many entries a [Journal] keeps.
	JournalSize = 10_000
	// JournalBatch is how many entries one call of [Journal.Append] may add. A logout may be waiting behind it.
	JournalBatch = 100
	// MaxJournalEntry is how many bytes an entry may have.
	MaxJournalEntry = 16 << 10
)

// Journal keeps the newest [JournalSize] entries of a record of events that only grows, the same for all replicas. What
// an entry holds is the caller's, who seals it.
//
// It is for people who look into what happened. Unlike sessions and marks, entries may be lost in a crash or a failover
// of the store, and nothing else depends on them.
type Journal interface {
	// Append adds entries to the end, in their order, all of them or none. Each gets the next higher position; positions
	// are never used twice. The oldest entries beyond [JournalSize] are removed.
	Append(ctx context.Context, entries [][]byte, now time.Time) error
	// Entries returns a part of the journal, as q says. A reader that asks again and again with After set to the highest
	// position that it has seen gets every entry once.
	Entries(ctx context.Context, q JournalQuery) ([]JournalEntry, error)
	// Forget removes the entries at these positions, and all that were added before the given time. It returns how many
	// it removed. A position without an entry is no error.
	Forget(ctx context.Context, positions []int64, before time.Time) (int, error)
}

// JournalEntry is an entry of a [Journal].
type JournalEntry struct {
	Position int64     // 1 or more
	Added    time.Time // the now of its Append
	Entry    []byte
}

// JournalQuery asks for entries. With After they are those with a higher position, the lowest first; otherwise those
// with a lower position than Before, the highest first. Only one of the two can be set; with neither they are the
// newest entries.
type JournalQuery struct {
	After  int64
	Before int64
	Limit  int // 1 to 1,000; 0 means 100
}

// PageSize returns how many entries a page of q has at most. The error says why the query is invalid.
func (q *JournalQuery) PageSize() (int, error) {
	if q.After < 0 || q.Before < 0 || q.After > 0 && q.Before > 0 {
		return 0, fmt.Errorf("journal: a query is for entries after a position or before one, not %d and %d",
			q.After, q.Before)
	}
	return pageSize(q.Limit)
}

// CheckJournal refuses entries that [Journal.Append] does not keep. It is for stores.
func CheckJournal(entries [][]byte) error {
	if len(entries) > JournalBatch {
		return fmt.Errorf("journal: %d entries at once; %d at most", len(entries), JournalBatch)
	}
	for _, e := range entries {
		if n := len(e); n == 0 || n > MaxJournalEntry {
			return fmt.Errorf("journal: an entry has 1 to %d bytes, not %d", MaxJournalEntry, n)
		}
	}
	return nil
}
