package redis_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/store"
)

// What an operator asks for costs as many commands as there are sessions on the page, and not more with more sessions.
func TestAListAsksForNoMoreThanItShows(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	backend := open(t, s.URL, patient())
	c := adminOf(t, s)
	now := store.Time(time.Now())
	sessions := 0
	var last store.Record
	grow := func(to int) {
		for ; sessions < to; sessions++ {
			last = recordOf(fmt.Sprint("user", sessions/2), fmt.Sprint("s", sessions), now)
			mustCreate(t, backend, last, now)
		}
	}
	type counts map[string]int
	ask := func(q store.Query) counts {
		t.Helper()
		do(t, c, "CONFIG", "RESETSTAT")
		page, err := backend.List(t.Context(), q, now)
		if err != nil || len(page.Records) == 0 || len(page.Records) > max(q.Limit, 2) {
			t.Fatalf("%+v: %d found, %v", q, len(page.Records), err)
		}
		m := do(t, c, "INFO", "commandstats")
		text, err := m.ToString()
		rig.Must(t, err)
		all := counts{}
		for _, line := range splitLines(text) {
			name, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
			number, _, _ := strings.Cut(rest, ",")
			if n, err := strconv.Atoi(number); err == nil && !strings.Contains(name, "|") && name != "ping" {
				all[name] = n
			}
		}
		return all
	}
	for _, size := range []int{500, 6000} {
		grow(size)
		middle := store.Query{}
		middle.After[0] = 100
		for name, c := range map[string]struct {
			query store.Query
			most  counts
		}{
			"of a subject": {store.Query{Issuer: rig.Issuer, ClientID: rig.ClientID, Subject: last.Subject},
				counts{"zrangebylex": 1, "get": 2}},
			"with a sid": {store.Query{Issuer: rig.Issuer, ClientID: rig.ClientID, SID: last.SID},
				counts{"smembers": 1, "zrangebylex": 2, "get": 1}},
			// Of each tag that was read one command asks for the keys, and of each key one for the session. What was read
			// and is not shown is of the last round of buckets.
			"a page of 25":  {store.Query{Limit: 25, After: middle.After}, counts{"zrangebylex": 60, "get": 52}},
			"a page of 100": {store.Query{Limit: 100, After: middle.After}, counts{"zrangebylex": 160, "get": 202}},
		} {
			got := ask(c.query)
			t.Logf("%s, of %d: %v", name, size, got)
			for command, n := range got {
				if n > c.most[command] {
					t.Errorf("%s, of %d: %d times %s, want at most %d", name, size, n, command, c.most[command])
				}
			}
		}
	}
}
