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
		backend := open(t, address, patient())
		return storetest.Harness{
			Store: backend,
			Reopen: func(t *testing.T) store.Store {
				if err := backend.Close(); err != nil {
					t.Fatal(err)
				}
				return open(t, address, patient())
			},
			FailEnd: func(t *testing.T) func() {
				run(t, address, `CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'on purpose'; END $$`,
					`CREATE TRIGGER fails BEFORE INSERT ON curfew_notices EXECUTE FUNCTION fail()`)
				return func() { run(t, address, `DROP TRIGGER fails ON curfew_notices`) }
			},
		}
	})
}

func TestALoginFromBeforeALogoutAtAnotherReplicaIsRefused(t *testing.T) {
	t.Parallel()
	address := schema(t)
	storetest.Order(t, func(t *testing.T) store.Store { return open(t, address, patient()) })
}
