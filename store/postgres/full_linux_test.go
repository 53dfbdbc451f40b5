package postgres_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
)

func TestAFullDiskIsTroubleAndLosesNothingThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	disk, err := os.MkdirTemp("", "curfew-disk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(disk) })
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=120m,mode=0777"); err != nil {
		t.Skipf("SKIPPED: needs to mount a small tmpfs, as root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := servers.OwnPostgres(t, disk, "max_wal_size=32MB", "min_wal_size=32MB", "autovacuum=off")
	backend := open(t, s.URL, patient())
	now := time.Now()
	var alive, dead []store.Record
	for i := range 50 {
		alive = append(alive, signIn(t, backend, "alice", fmt.Sprint("s", i), now))
	}
	e := func(i int) store.Ending {
		return rig.Ending(store.Selector{SID: fmt.Sprint("s", i)}, fmt.Sprint("j", i), now)
	}

	// The last megabyte is for the server.
	ballast := filepath.Join(disk, "ballast")
	var free syscall.Statfs_t
	if err := syscall.Statfs(disk, &free); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ballast, make([]byte, int(free.Bavail)*int(free.Bsize)-1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := 0; err == nil && i < 100_000; i++ {
		r := rig.Record(fmt.Sprint("user", i), "s", now)
		r.Payload = make([]byte, 100_000)
		if err = backend.Create(t.Context(), r, now, now); err == nil {
			alive = append(alive, r)
		}
	}
	wantTrouble(t, "Create", err)
	if !strings.Contains(err.Error(), "No space left") {
		t.Logf("Create: %v", err) // when it is the log that has no room, the server goes down
	}
	for i := range 50 {
		_, err := backend.End(t.Context(), e(i), now)
		if err == nil {
			dead, alive[i] = append(dead, alive[i]), store.Record{}
			continue
		}
		wantTrouble(t, "End", err)
		if i >= 10 {
			break
		}
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	s.Start()
	settled(t, backend, now)
	for _, r := range dead {
		wantGone(t, backend, r, now)
	}
	unknown := 0
	for i, r := range alive {
		if r.Key.IsZero() {
			continue
		}
		_, err := backend.Find(t.Context(), r.Key, now)
		if i >= 50 && err != nil {
			t.Errorf("a session whose Create was acknowledged is lost: %v", err)
		}
		if i < 50 {
			ended, again := backend.End(t.Context(), e(i), now)
			if again == nil && len(ended) != 1 || again != nil && !errors.Is(again, store.ErrReplayed) ||
				(again != nil) != (err != nil) {
				t.Errorf("End again: %d sessions, error %v, after Find: %v", len(ended), again, err)
			}
			if again != nil {
				unknown++
			}
		}
	}
	t.Logf("%d endings were acknowledged on the full disk, %d were carried out without", len(dead), unknown)
}
