package postgres_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"
	"example.com/curfew/store/storetest"
)

// A PgBouncer has to be told whom it may let in: each of our schemas has a role.
const maxRoles = 1000

var roles atomic.Int64

func role(n int) string { return fmt.Sprintf("curfew_test_role_%d_%d", os.Getpid(), n) }

// startPgBouncer puts a PgBouncer before the shared server, and returns its address.
func startPgBouncer(t *testing.T, settings ...string) string {
	t.Helper()
	var all []string
	for i := range maxRoles {
		all = append(all, role(i))
	}
	return servers.PgBouncer(t, mustHost(t, shared.Get(t).URL), all, settings...).Addr()
}

// bounced makes an empty schema on the shared server, and returns how to get there directly and through a PgBouncer. It
// hands on no search_path, so each schema has a role of its own that has one; and it may do nothing else.
func bounced(t *testing.T, bouncer string) (direct, through string) {
	t.Helper()
	server := shared.Get(t).URL
	name := role(int(roles.Add(1)) % maxRoles)
	run(t, server, `CREATE ROLE `+name+` LOGIN`, `CREATE SCHEMA `+name+` AUTHORIZATION `+name,
		`ALTER ROLE `+name+` SET search_path = `+name)
	t.Cleanup(func() { run(t, server, `DROP SCHEMA `+name+` CASCADE`, `DROP ROLE `+name) })
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(name)
	direct = u.String()
	u.Host = bouncer
	return direct, with(t, u.String(), "feed", mustHost(t, server))
}

func TestStoreKeepsTheContractBehindPgBouncer(t *testing.T) {
	t.Parallel()
	bouncer := startPgBouncer(t)
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		direct, through := bounced(t, bouncer)
		return harness(t, direct, through)
	})
}

func TestOpenSaysWhatAPoolerNeeds(t *testing.T) {
	t.Parallel()
	for _, ignored := range []string{"extra_float_digits",
		"extra_float_digits, enable_seqscan, enable_bitmapscan, jit, statement_timeout, lock_timeout, " +
			"idle_in_transaction_session_timeout, default_transaction_isolation"} {
		bouncer := startPgBouncer(t, "ignore_startup_parameters = "+ignored)
		_, through := bounced(t, bouncer)
		without, _, _ := strings.Cut(through, "?")
		for _, feed := range []string{"", "&feed=" + bouncer} {
			o := patient()
			o.ConnectTimeout, o.StatementTimeout = 5*time.Second, time.Second
			backend, err := postgres.Open(t.Context(), without+"?sslmode=disable"+feed, o)
			if err == nil {
				backend.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "feed=HOST:PORT") {
				t.Errorf("Open with %q, ignoring %s: got error %v, want one that names feed=HOST:PORT", feed, ignored,
					err)
			}
		}
	}
}

func TestReplicasBehindPgBouncerHearOneAnother(t *testing.T) {
	t.Parallel()
	_, through := bounced(t, startPgBouncer(t))
	here, there := open(t, through, patient()), open(t, through, patient())
	heard := listen(t, there)
	now := time.Now()
	r := signIn(t, here, "alice", "s1", now)
	if _, err := here.End(context.Background(), rig.Ending(store.Selector{SID: "s1"}, "j1", now), now); err != nil {
		t.Fatal(err)
	}
	heard.wantNotified(t, r)
}
