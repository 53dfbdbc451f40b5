package memory_test

import (
	"testing"

	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/store/storetest"
)

func BenchmarkEnd(b *testing.B)         { storetest.BenchEnd(b, openBench) }
func BenchmarkEndParallel(b *testing.B) { storetest.BenchEndParallel(b, openBench) }
func BenchmarkFind(b *testing.B)        { storetest.BenchFind(b, openBench) }
func BenchmarkSearch(b *testing.B)      { storetest.BenchSearch(b, openBench, nil) }
func BenchmarkCrowd(b *testing.B)       { storetest.BenchCrowd(b, openBench) }

func openBench(*testing.B) store.Store { return memory.New() }
