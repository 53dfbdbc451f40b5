package redis

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// The journal is a stream in one bucket. The ID of an entry is its position and "-0". The positions are counted apart
// from the stream, so that one is not used again after its entry was forgotten.
const journalBucket bucket = 0

func (s *Store) journalKeys() []string {
	return []string{s.key(journalBucket, keyJournal), s.key(journalBucket, keyPosition)}
}

// Append implements [store.Journal]. It does not wait for replicas.
func (s *Store) Append(ctx context.Context, entries [][]byte, now time.Time) error {
	if err := store.CheckJournal(entries); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return err
	}
	defer leave()
	args := []string{decimal(now), strconv.Itoa(store.JournalSize)}
	for _, e := range entries {
		args = append(args, string(e))
	}
	_, err = s.run(ctx, call{s.scripts.append, s.journalKeys(), args})
	return err
}

// Entries implements [store.Journal].
func (s *Store) Entries(ctx context.Context, q store.JournalQuery) ([]store.JournalEntry, error) {
	limit, err := q.PageSize()
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	ctx, leave, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	key := s.key(journalBucket, keyJournal)
	var command rueidis.Completed
	switch {
	case q.After == math.MaxInt64 || q.Before == 1:
		return nil, nil
	case q.After > 0:
		command = s.client.B().Xrange().Key(key).Start(streamID(q.After + 1)).End("+").Count(int64(limit)).Build()
	case q.Before > 0:
		command = s.client.B().Xrevrange().Key(key).End(streamID(q.Before - 1)).Start("-").Count(int64(limit)).Build()
	default:
		command = s.client.B().Xrevrange().Key(key).End("+").Start("-").Count(int64(limit)).Build()
	}
	raw, err := s.client.Do(ctx, command).AsXRange()
	if err != nil {
		return nil, fmt.Errorf("redis: journal: %w", err)
	}
	found := make([]store.JournalEntry, len(raw))
	for i, e := range raw {
		added, err := strconv.ParseInt(e.FieldValues["t"], 10, 64)
		position, errPosition := positionOf(e.ID)
		if err != nil || errPosition != nil {
			return nil, errDamaged
		}
		found[i] = store.JournalEntry{Position: position, Added: store.FromMicros(added),
			Entry: []byte(e.FieldValues["e"])}
	}
	return found, nil
}

func streamID(position int64) string { return strconv.FormatInt(position, 10) + "-0" }

func positionOf(id string) (int64, error) {
	if len(id) < 3 {
		return 0, errDamaged
	}
	return strconv.ParseInt(id[:len(id)-2], 10, 64)
}

// forgetAtOnce is how many entries one call of the script forgets.
const forgetAtOnce = 500

// Forget implements [store.Journal].
func (s *Store) Forget(ctx context.Context, positions []int64, before time.Time) (int, error) {
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	removed := 0
	for {
		now := min(len(positions), forgetAtOnce)
		args := []string{decimal(before), strconv.Itoa(forgetAtOnce)}
		for _, p := range positions[:now] {
			args = append(args, streamID(max(p, 0)))
		}
		positions = positions[now:]
		answer, err := s.run(ctx, call{s.scripts.forget, s.journalKeys(), args})
		if err != nil {
			return removed, err
		}
		counts, err := answer.AsIntSlice() // how many were removed, and how many of them for their age
		if err != nil || len(counts) != 2 {
			return removed, errAnswer
		}
		removed += int(counts[0])
		if len(positions) == 0 && counts[1] < forgetAtOnce {
			return removed, nil
		}
	}
}
