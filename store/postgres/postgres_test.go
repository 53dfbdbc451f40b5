package postgres_test

import (
	"testing"

	"example.com/curfew/store"
	"example.com/curfew/store/storetest"
)

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		address := schema(t)
		return harness(t, address, address)
	})
}

// harness is for an empty schema that the store reaches through an address, and tests reach directly.
func harness(t *testing.T, direct, through string) storetest.Harness {
	backend := open(t, through, patient())
	return storetest.Harness{
		Store: backend,
		Reopen: func(t *testing.T) store.Store {
			if err := backend.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, through, patient())
		},
		FailEnd: func(t *testing.T) func() {
			run(t, direct, `CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'on purpose'; END $$`,
				`CREATE TRIGGER fails BEFORE INSERT ON curfew_notices EXECUTE FUNCTION fail()`)
			return func() { run(t, direct, `DROP TRIGGER fails ON curfew_notices`) }
		},
	}
}

func TestALoginFromBeforeALogoutAtAnotherReplicaIsRefused(t *testing.T) {
	t.Parallel()
	address := schema(t)
	storetest.Order(t, func(t *testing.T) store.Store { return open(t, address, patient()) })
}
