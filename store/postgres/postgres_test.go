package postgres_test

import (
	"testing"

	"example.com/curfew/session"
	"example.com/curfew/store/storetest"
)

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		address := schema(t)
		store := open(t, address, patient())
		return storetest.Harness{
			Store: store,
			Reopen: func(t *testing.T) storetest.Store {
				if err := store.Close(); err != nil {
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
	storetest.Order(t, func(t *testing.T) session.Store { return open(t, address, patient()) })
}
