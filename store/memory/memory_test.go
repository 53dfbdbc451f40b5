package memory_test

import (
	"testing"

	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/store/storetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) storetest.Harness { return storetest.Harness{Store: memory.New()} })
}

func TestALoginFromBeforeALogoutIsRefused(t *testing.T) {
	t.Parallel()
	storetest.Order(t, func(*testing.T) store.Store { return memory.New() })
}
