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
func BenchmarkSearch(b *testing.B)      { storetest.BenchSearch(b, openBench, nil) }
func BenchmarkCrowd(b *testing.B)       { storetest.BenchCrowd(b, openBench) }
func BenchmarkClock(b *testing.B)       { storetest.BenchClock(b, openBench) }

func openBench(b *testing.B) store.Store {
	store, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "curfew.db"), sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return store
}
