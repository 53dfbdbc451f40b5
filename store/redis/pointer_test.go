package redis_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
)

// While a failover is under way, a client may be connected to one server and a moment later to another. If the pointer
// went to the first and the session to the second, a logout by the sid would miss the session.
func TestOnOneServerASessionIsWrittenTogetherWithItsPointers(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	backend := open(t, s.URL, patient())
	c := adminOf(t, s)
	now := store.Time(time.Now())
	r := recordOf("alice", "s1", now)
	next := r
	next.SID, next.Former = "s2", []string{"s1"}
	longer := next
	longer.Revision++
	longer.IdleExpires = now.Add(20 * time.Hour)
	for _, row := range []struct {
		name     string
		do       func() error
		pointers []string
		scripts  int
	}{
		{"Create", func() error { return backend.Create(t.Context(), r, now, now) }, []string{"s1"}, 1},
		{"Rename", func() error { return backend.Rename(t.Context(), next, now, now) }, []string{"s1", "s2"}, 1},
		// The first finds that the pointers are to be renewed.
		{"Update", func() error { return backend.Update(t.Context(), longer, now) }, []string{"s1", "s2"}, 2},
	} {
		for _, sid := range row.pointers {
			do(t, c, "DEL", backend.PointerOf(rig.Issuer, rig.ClientID, sid))
		}
		do(t, c, "SCRIPT", "FLUSH")
		do(t, c, "CONFIG", "RESETSTAT")
		if err := row.do(); err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		text, _ := ask(t, c, "INFO", "commandstats")
		for _, name := range []string{"eval", "evalsha"} { // each is tried by its digest, and by its text at first
			_, n, _ := strings.Cut(text, "cmdstat_"+name+":calls=")
			n, _, _ = strings.Cut(n, ",")
			if want := map[string]int{"eval": 1, "evalsha": row.scripts}[name]; n != fmt.Sprint(want) {
				t.Errorf("%s: %s calls of %s, want %d", row.name, n, name, want)
			}
		}
		for _, sid := range row.pointers {
			m := do(t, c, "EXISTS", backend.PointerOf(rig.Issuer, rig.ClientID, sid))
			if n, err := m.AsInt64(); n != 1 || err != nil {
				t.Errorf("%s: no pointer from %s", row.name, sid)
			}
		}
	}
}

// On a Cluster the pointer is on another machine than the session. Where no replica has it, a failover may lose it, and
// then a logout by the sid finds nobody and is answered with success.
func TestASessionWhosePointerAFailoverHasLostIsDeadAfterALogoutByItsSID(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a Cluster of its own")
	}
	own := servers.RedisCluster(t, forgetful...)
	backend, calm := open(t, own.URL, redis.Options{Timeout: 4 * time.Second}), open(t, own.URL, patient())
	all, err := rueidis.NewClient(rueidis.ClientOption{DisableCache: true,
		InitAddress: []string{own.Nodes[0].Addr(), own.Nodes[1].Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all.Close)
	now := store.Time(time.Now())
	sign := func(through *redis.Store, who string) store.Record {
		r := recordOf(who, "sid of "+who, now)
		mustCreate(t, through, r, now)
		return r
	}
	lose := func(r store.Record) {
		key := backend.PointerOf(rig.Issuer, rig.ClientID, r.SID)
		if n, err := all.Do(t.Context(), all.B().Del().Key(key).Build()).AsInt64(); n != 1 || err != nil {
			t.Fatalf("%s: %d pointers lost, %v", r.Subject, n, err)
		}
	}
	bySID := func(r store.Record, want int) {
		t.Helper()
		ended, err := calm.End(t.Context(), endingOf(store.Selector{SID: r.SID}), now.Add(time.Second))
		if err != nil || len(ended) != want {
			t.Errorf("%s: %d ended by the sid (error %v), want %d", r.Subject, len(ended), err, want)
		}
	}
	find := func(r store.Record, at time.Time) error {
		_, err := backend.Find(t.Context(), r.Key, at)
		return err
	}
	certain, renewed := sign(calm, "certain"), sign(calm, "renewed")
	for _, replica := range own.Nodes[3:] {
		replica.Freeze()
	}
	named, updated, renamed := sign(backend, "named"), sign(backend, "updated"), sign(backend, "renamed")
	idle, used := sign(backend, "idle"), sign(backend, "used")
	for _, r := range []store.Record{named, updated, renamed, used} {
		if err := find(r, now); err != nil {
			t.Errorf("%s was not signed out, and is not found: %v", r.Subject, err)
		}
		lose(r)
	}
	changed := sign(backend, "changed")
	former := changed
	changed.SID, changed.Former = "the new sid", []string{former.SID}
	if err := backend.Rename(t.Context(), changed, now, now); err != nil {
		t.Errorf("a Rename while no replica answers: %v", err)
	}
	lose(former)
	// Its pointer was acknowledged for two hours, and the one for longer is not.
	renewed.IdleExpires, renewed.Expires = now.Add(4*time.Hour), now.Add(4*time.Hour)
	if err := backend.Update(t.Context(), renewed, now); err != nil {
		t.Errorf("an Update for longer while no replica answers: %v", err)
	}
	// The next use writes it again.
	if err := backend.Update(t.Context(), used, now.Add(time.Second)); err != nil {
		t.Errorf("an Update while no replica answers: %v", err)
	}
	for _, replica := range own.Nodes[3:] {
		replica.Thaw()
	}
	replicated(t, own)
	bySID(used, 1)
	// Nobody has used these since.
	for _, r := range []store.Record{named, updated, renamed, former} {
		bySID(r, 0)
	}
	if err := find(changed, now.Add(2*time.Second)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Find after a logout by a sid that the session had before: %v", err)
	}
	if err := find(named, now.Add(2*time.Second)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Find after a logout by the sid: %v", err)
	}
	if err := backend.Update(t.Context(), updated, now.Add(2*time.Second)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Update after a logout by the sid: %v", err)
	}
	next := renamed
	next.SID, next.Former = "another", []string{renamed.SID}
	later := now.Add(2 * time.Second)
	if err := backend.Rename(t.Context(), next, later, later); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Rename after a logout by the sid: %v", err)
	}
	// The mark of a logout does not stay for ever.
	for _, row := range []struct {
		name  string
		r     store.Record
		after time.Duration
		want  error
	}{
		{"unused for a while", idle, store.AttemptLifetime - time.Microsecond, nil},
		{"unused for too long", idle, store.AttemptLifetime, store.ErrNotFound},
		{"unused, but its pointer was acknowledged", certain, store.AttemptLifetime, nil},
		{"a little later than its pointer was certain to exist", renewed, 2*time.Hour + time.Minute, nil},
		{"much later than that", renewed, 2*time.Hour + store.AttemptLifetime, store.ErrNotFound},
	} {
		if err := find(row.r, now.Add(row.after)); !errors.Is(err, row.want) {
			t.Errorf("%s: Find: %v, want %v", row.name, err, row.want)
		}
	}
	if err := backend.Update(t.Context(), idle, now.Add(store.AttemptLifetime)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unused for too long: Update: %v", err)
	}
	if err := calm.Update(t.Context(), idle, now.Add(time.Minute)); err != nil {
		t.Errorf("used in time: Update: %v", err)
	}
	idle.Revision++
	if err := find(idle, now.Add(store.AttemptLifetime)); err != nil {
		t.Errorf("its pointer has been acknowledged since: %v", err)
	}
}
