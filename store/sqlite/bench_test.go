package sqlite_test

import (
	"path/filepath"
	"testing"

	"example.com/curfew/store"
	"example.com/curfew/store/sqlite"
	"example.com/curfew/store/storetest"
)

func BenchmarkEnd(b *testing.B)         { storetest.BenchEnd(b, openBench) }
func BenchmarkEndParallel(b *testing.B) { storetest.BenchEndParallel(b, openBench) }
func BenchmarkFind(b *testing.B)        { storetest.BenchFind(b, openBench) }
func BenchmarkCrowd(b *testing.B)       { storetest.BenchCrowd(b, openBench) }
func BenchmarkClock(b *testing.B)       { storetest.BenchClock(b, openBench) }

func openBench(b *testing.B) store.Store {
	store, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "curfew.db"), sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return store
}

// BenchmarkSearch inserts its sessions many at a time: one by one a million would take five minutes.
func BenchmarkSearch(b *testing.B) {
	var opened *sqlite.Store
	storetest.BenchSearch(b, func(b *testing.B) store.Store {
		opened = openBench(b).(*sqlite.Store)
		return opened
	}, func(b *testing.B, size int, record func(int) store.Record) {
		if err := opened.Fill(b.Context(), size, record); err != nil {
			b.Fatal(err)
		}
	})
}
