package storetest

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.com/curfew/store"
)

func journalCases() []testCase {
	return []testCase{
		{"an empty journal has no entries", func(f *fixture) {
			for _, q := range []store.JournalQuery{{}, {After: 7}, {Before: 7}} {
				f.wantEntries(q)
			}
		}},
		{"entries are read from the newest back, and from a position on", func(f *fixture) {
			f.note("a", "b", "c")
			f.note("d")
			f.note()
			f.wantEntries(store.JournalQuery{}, "d", "c", "b", "a")
			newest := f.wantEntries(store.JournalQuery{Limit: 2}, "d", "c")
			f.wantEntries(store.JournalQuery{Before: newest[1].Position, Limit: 1}, "b")
			f.wantEntries(store.JournalQuery{Before: newest[1].Position}, "b", "a")
			first := f.wantEntries(store.JournalQuery{Before: newest[1].Position}, "b", "a")[1]
			f.wantEntries(store.JournalQuery{After: first.Position}, "b", "c", "d")
			f.wantEntries(store.JournalQuery{After: first.Position, Limit: 2}, "b", "c")
			f.wantEntries(store.JournalQuery{After: newest[0].Position})
			f.wantEntries(store.JournalQuery{After: newest[0].Position + 1000})
			f.wantEntries(store.JournalQuery{Before: first.Position})
			if !first.Added.Equal(f.now) || first.Position < 1 {
				f.Errorf("%+v, want it added at %v", first, f.now)
			}
		}},
		{"an entry is any bytes, and the caller's", func(f *fixture) {
			entry := bytes.Repeat([]byte{0, 0xff, '"', '\n'}, store.MaxJournalEntry/4)
			want := string(entry)
			if err := f.store.Append(f.ctx, [][]byte{entry}, f.now); err != nil {
				f.Fatal(err)
			}
			entry[0] = 'x'
			got := f.wantEntries(store.JournalQuery{}, want)
			got[0].Entry[0] = 'y'
			f.wantEntries(store.JournalQuery{}, want)
		}},
		{"what a journal does not keep is refused as a whole", func(f *fixture) {
			for name, entries := range map[string][][]byte{
				"an empty entry":      {[]byte("a"), nil},
				"an entry too large":  {[]byte("a"), make([]byte, store.MaxJournalEntry+1)},
				"too many at a time":  slices.Repeat([][]byte{[]byte("a")}, store.JournalBatch+1),
				"an empty one, first": {{}, []byte("a")},
			} {
				f.wantFault("Append "+name, f.store.Append(f.ctx, entries, f.now))
			}
			f.wantEntries(store.JournalQuery{})
			for _, q := range []store.JournalQuery{{After: -1}, {Before: -1}, {After: 1, Before: 2}, {Limit: -1},
				{Limit: 1001}} {
				_, err := f.store.Entries(f.ctx, q)
				f.wantFault(fmt.Sprintf("Entries %+v", q), err)
			}
		}},
		{"it keeps the newest ten thousand", func(f *fixture) {
			batch := make([]string, store.JournalBatch)
			const batches = store.JournalSize/store.JournalBatch + 7
			for i := range batches {
				for j := range batch {
					batch[j] = fmt.Sprint(i*store.JournalBatch + j)
				}
				f.note(batch...)
			}
			count, next := 0, int64(0)
			for want := batches * store.JournalBatch; ; {
				page, err := f.store.Entries(f.ctx, store.JournalQuery{Before: next, Limit: 1000})
				if err != nil {
					f.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				for _, e := range page {
					if want--; string(e.Entry) != fmt.Sprint(want) {
						f.Fatalf("entry %s, want %d", e.Entry, want)
					}
				}
				count, next = count+len(page), page[len(page)-1].Position
			}
			if count != store.JournalSize {
				f.Errorf("%d entries, want %d", count, store.JournalSize)
			}
		}},
		{"entries are forgotten by position, and by age", func(f *fixture) {
			f.note("a", "b", "c")
			old := f.now
			f.now = f.now.Add(time.Hour)
			f.note("d", "e")
			all := f.wantEntries(store.JournalQuery{}, "e", "d", "c", "b", "a")
			f.wantForgotten(0, nil, old)
			f.wantForgotten(0, []int64{all[0].Position + 1000}, time.Time{})
			f.wantForgotten(2, []int64{all[3].Position, all[0].Position}, time.Time{})
			f.wantEntries(store.JournalQuery{}, "d", "c", "a")
			f.wantForgotten(0, []int64{all[3].Position}, time.Time{})
			f.wantForgotten(2, nil, f.now)
			f.wantEntries(store.JournalQuery{}, "d")
			f.wantEntries(store.JournalQuery{After: all[4].Position}, "d")
			// A position is not used again, even that of the newest entry.
			f.wantForgotten(1, []int64{all[1].Position}, time.Time{})
			f.note("f")
			if got := f.wantEntries(store.JournalQuery{}, "f"); got[0].Position <= all[0].Position {
				f.Errorf("position %d after %d", got[0].Position, all[0].Position)
			}
		}},
		{"a reader that follows misses nothing that is added at the same time", func(f *fixture) {
			const writers, each = 8, 40
			f.note("first")
			first := f.wantEntries(store.JournalQuery{}, "first")[0]
			var writing sync.WaitGroup
			for w := range writers {
				writing.Go(func() {
					for i := range each {
						if err := f.store.Append(f.ctx, [][]byte{[]byte(fmt.Sprint(w, " ", i))}, f.now); err != nil {
							f.Error(err)
						}
					}
				})
			}
			done := make(chan struct{})
			go func() { writing.Wait(); close(done) }()
			seen, after := map[string]int{}, first.Position
			for last := false; ; {
				page, err := f.store.Entries(f.ctx, store.JournalQuery{After: after, Limit: 7})
				if err != nil {
					f.Fatal(err)
				}
				for _, e := range page {
					seen[string(e.Entry)]++
					after = e.Position
				}
				if len(page) == 0 && last {
					break
				}
				select {
				case <-done:
					last = true
				default:
				}
			}
			for w := range writers {
				for i := range each {
					if name := fmt.Sprint(w, " ", i); seen[name] != 1 {
						f.Errorf("entry %q was seen %d times", name, seen[name])
					}
				}
			}
		}},
		{"a durable store keeps the journal", func(f *fixture) {
			if f.h.Reopen == nil {
				return
			}
			f.note("a", "b")
			before := f.wantEntries(store.JournalQuery{}, "b", "a")
			f.store = f.h.Reopen(f.T)
			after := f.wantEntries(store.JournalQuery{}, "b", "a")
			if before[0].Position != after[0].Position {
				f.Errorf("position %d, before %d", after[0].Position, before[0].Position)
			}
		}},
	}
}

func (f *fixture) note(entries ...string) {
	f.Helper()
	raw := make([][]byte, len(entries))
	for i, e := range entries {
		raw[i] = []byte(e)
	}
	if err := f.store.Append(f.ctx, raw, f.now); err != nil {
		f.Fatalf("Append: %v", err)
	}
}

func (f *fixture) wantEntries(q store.JournalQuery, want ...string) []store.JournalEntry {
	f.Helper()
	all, err := f.store.Entries(f.ctx, q)
	if err != nil {
		f.Fatalf("Entries %+v: %v", q, err)
	}
	var got []string
	for _, e := range all {
		got = append(got, string(e.Entry))
	}
	if !slices.Equal(got, want) {
		f.Fatalf("Entries %+v: %.100q, want %.100q", q, got, want)
	}
	return all
}

func (f *fixture) wantForgotten(want int, positions []int64, before time.Time) {
	f.Helper()
	if n, err := f.store.Forget(f.ctx, positions, before); err != nil || n != want {
		f.Fatalf("Forget %v before %v: %d (error %v), want %d", positions, before, n, err, want)
	}
}
