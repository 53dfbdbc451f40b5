package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/store"
	"example.com/curfew/store/sqlite"
	"example.com/curfew/store/storetest"
)

// childWork signs people in and out until it is killed. It says what it is about to end, and what has been
// acknowledged.
func childWork(path string) int {
	backend, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var say sync.Mutex
	line := func(verb, sid string, key store.Key) {
		say.Lock()
		defer say.Unlock()
		fmt.Printf("%s %s %s\n", verb, sid, key)
	}
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			for i := 0; ; i++ {
				now := time.Now()
				sid := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				r := rig.Record("alice", sid, now)
				if err := backend.Create(context.Background(), r, now, now); err != nil {
					panic(err)
				}
				line("created", sid, r.Key)
				if i%3 == 0 {
					continue
				}
				line("ending", sid, r.Key)
				if _, err := backend.End(context.Background(), rig.Ending(store.Selector{SID: sid}, "jti-"+sid, now),
					now); err != nil {
					panic(err)
				}
				line("ended", sid, r.Key)
			}
		})
	}
	workers.Wait()
	return 0
}

func TestWhatWasAcknowledgedSurvivesKill9(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "curfew.db")
	created, begun, ended := make(map[string]string), make(map[string]string), make(map[string]string)
	said := map[string]map[string]string{"created": created, "ending": begun, "ended": ended}
	for round := 1; round <= 2; round++ {
		p := start(t, "work", path)
		note := func() {
			verb, rest, _ := strings.Cut(p.out.Text(), " ")
			sid, key, _ := strings.Cut(rest, " ")
			said[verb][key] = sid
		}
		for len(ended) < 100*round {
			p.line(t)
			note()
		}
		p.cmd.Process.Kill()
		for p.out.Scan() { // what was said but not read counts too
			note()
		}
		p.kill()

		backend := open(t, path)
		now := time.Now()
		notices, err := storetest.ClaimAll(t.Context(), backend, now, time.Hour, 1_000_000)
		if err != nil {
			t.Fatal(err)
		}
		told := make(map[string]bool)
		for _, n := range notices {
			told[n.Key.String()] = true
			if err := backend.Complete(t.Context(), n, store.Outcome{RetryAt: n.Due}); err != nil {
				t.Fatal(err)
			}
		}
		for text, sid := range created {
			key, err := store.ParseKey(text)
			if err != nil {
				continue // the last line was cut short
			}
			_, err = backend.Find(t.Context(), key, now)
			_, wasEnded := ended[text]
			_, wasEnding := begun[text]
			switch {
			case wasEnded && !errors.Is(err, store.ErrNotFound):
				t.Errorf("a session whose End was acknowledged is back (error %v)", err)
			case !wasEnding && err != nil:
				t.Errorf("a session whose Create was acknowledged is lost: %v", err)
			case err != nil && !errors.Is(err, store.ErrNotFound):
				t.Errorf("Find: %v", err)
			}
			gone := err != nil
			if gone != told[text] {
				t.Errorf("a session is gone: %v, and its notice is there: %v; want both or neither", gone, told[text])
			}
			if wasEnded {
				_, err := backend.End(t.Context(), rig.Ending(store.Selector{SID: "nobody"}, "jti-"+sid, now), now)
				if !errors.Is(err, store.ErrReplayed) {
					t.Errorf("the jti of an acknowledged End is forgotten (error %v)", err)
				}
			}
		}
		if err := backend.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d creates and %d endings were acknowledged before a kill", len(created), len(ended))
}
