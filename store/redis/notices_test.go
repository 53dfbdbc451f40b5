package redis_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// noticeFor is a notice for an app about somebody, who decides the bucket.
func noticeFor(target, subject string, now time.Time) store.Notice {
	return store.Notice{Kind: store.NoticeLogout, Target: target, Issuer: rig.Issuer, ClientID: rig.ClientID,
		Subject: subject,
		Cause:   store.CauseUser, Created: now, Due: now, Deadline: now.Add(time.Hour)}
}

func TestANoticeIsToldOfOrClaimedInEveryOrderOfTheSteps(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		backend := fresh(t, on, patient())
		now := store.Time(time.Now())
		for _, order := range orders(2, 3) { // C is who leaves, E is who claims
			for _, rang := range []bool{true, false} { // for another notice in the same bucket, or in none
				target := fmt.Sprint(order, rang)
				want := 1
				if rang {
					want++
					if err := backend.Enqueue(t.Context(),
						[]store.Notice{noticeFor(target, "alice", now)}); err != nil {
						t.Fatal(err)
					}
				}
				leave, ring := backend.EnqueueSteps(t.Context(), noticeFor(target, "alice", now))
				hear, claim, reschedule, claimed := backend.ClaimSteps(t.Context(), store.NoticeLogout, target, now,
					time.Minute)
				leaves, claims := []func() error{leave, ring}, []func() error{hear, claim, reschedule}
				for _, step := range order {
					steps := &leaves
					if step == 'E' {
						steps = &claims
					}
					if err := (*steps)[0](); err != nil {
						t.Fatalf("%s: %v", order, err)
					}
					*steps = (*steps)[1:]
				}
				rest, err := backend.Claim(t.Context(), store.NoticeLogout, target, now, time.Minute, 10)
				if err != nil || len(*claimed)+len(rest) != want {
					t.Errorf("%s: %d claimed, then %d (error %v), want %d in all", target, len(*claimed), len(rest),
						err, want)
				}
				// And what is leased comes back when the lease is over.
				later := now.Add(time.Minute)
				if again, err := backend.Claim(t.Context(), store.NoticeLogout, target, later, time.Minute,
					10); err != nil || len(again) != want {
					t.Errorf("%s: %d claimed when the leases are over (error %v), want %d", target, len(again), err,
						want)
				}
			}
		}
	})
}

func TestPruneSetsAWakeUpThatWasLost(t *testing.T) {
	t.Parallel()
	backend := fresh(t, cluster, patient())
	now := store.Time(time.Now())
	claim := func(now time.Time) []store.Notice {
		t.Helper()
		n, err := backend.Claim(t.Context(), store.NoticeLogout, "app", now, time.Minute, 100)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	prune := func() {
		t.Helper()
		if n, err := backend.Prune(t.Context(), now.Add(-time.Hour)); err != nil || n != 0 {
			t.Fatalf("Prune: %d, %v", n, err)
		}
	}
	for i, subject := range []string{"alice", "bob"} { // a crash before the wake-up
		leave, _ := backend.EnqueueSteps(t.Context(), noticeFor("app", subject, now.Add(time.Duration(i)*time.Second)))
		if err := leave(); err != nil {
			t.Fatal(err)
		}
	}
	if n := claim(now); len(n) != 0 {
		t.Fatalf("%d claimed; is there a wakeup that this test does not know of?", len(n))
	}
	prune()
	if n := claim(now); len(n) != 1 {
		t.Errorf("%d claimed after the repair, want the one that is due", len(n))
	}
	// A failover that has lost the wake-up, while one is leased and one waits.
	c := clusterClient(t)
	do(t, c, "DEL", backend.WakeupOf(store.NoticeLogout, "app"))
	prune()
	if n := claim(now); len(n) != 0 {
		t.Errorf("%d claimed while one is leased and one is not due", len(n))
	}
	if n := claim(now.Add(time.Second)); len(n) != 1 {
		t.Errorf("%d claimed, want the one that is due now", len(n))
	}
	if n := claim(now.Add(2 * time.Minute)); len(n) != 2 {
		t.Errorf("%d claimed when the leases are over, want both", len(n))
	}
}

func clusterClient(t *testing.T) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: strings.Split(strings.TrimPrefix(cluster.Get(t).URL,
		"redis+cluster://"), ","),
		DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestAnIdleLookForNoticesAsksOneKeyWhateverWaitsForOthers(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	backend := open(t, s.URL, patient())
	c := adminOf(t, s)
	// later than the server's own time, which a mark may have too
	now := store.Time(time.Now().Add(store.AttemptLifetime))
	claim := func(target string, max, want int) (asked []string) {
		t.Helper()
		do(t, c, "CONFIG", "RESETSTAT")
		n, err := backend.Claim(t.Context(), store.NoticeLogout, target, now, time.Minute, max)
		if err != nil || len(n) != want {
			t.Fatalf("%d claimed for %s (error %v), want %d", len(n), target, err, want)
		}
		m := do(t, c, "INFO", "commandstats")
		text, _ := m.ToString()
		for _, line := range splitLines(text) {
			name, rest, _ := strings.Cut(line, ":calls=")
			calls, _, ok := strings.Cut(rest, ",")
			if ok && !strings.ContainsAny(name, "|") && name != "cmdstat_ping" {
				asked = append(asked, strings.TrimPrefix(name, "cmdstat_")+" "+calls)
			}
		}
		slices.Sort(asked)
		return asked
	}
	for i := range 500 {
		if err := backend.Enqueue(t.Context(), []store.Notice{noticeFor("busy", fmt.Sprint("user", i),
			now.Add(time.Duration(i)*time.Microsecond))}); err != nil {
			t.Fatal(err)
		}
	}
	one := noticeFor("later", "alice", now.Add(time.Hour))
	if err := backend.Enqueue(t.Context(), []store.Notice{one, noticeFor("held", "alice", now)}); err != nil {
		t.Fatal(err)
	}
	claim("held", 1, 1)
	for name, target := range map[string]string{"has nothing": "idle", "has something for later": "later",
		"has something that is leased": "held"} {
		if asked := claim(target, 10, 0); !slices.Equal(asked, []string{"hgetall 1"}) {
			t.Errorf("who %s asked %v, want one key", name, asked)
		}
	}
	now = now.Add(time.Second)
	few := claim("busy", 1, 1)
	for _, of := range few {
		if name, n, _ := strings.Cut(of, " "); len(n) > 2 {
			t.Errorf("one of 500 was claimed with %s %s times", n, name)
		}
	}
	// They lie in some 220 buckets, and are claimed in the order in which they are due all the same.
	for i := 1; i < 400; i += 40 {
		n, err := backend.Claim(t.Context(), store.NoticeLogout, "busy", now, time.Minute, 40)
		if err != nil {
			t.Fatal(err)
		}
		for j := range n {
			if want := fmt.Sprint("user", i+j); n[j].Subject != want {
				t.Fatalf("%s was claimed, want %s", n[j].Subject, want)
			}
		}
	}
}

func TestANoticeThatIsGivenBackIsClaimedAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		backend := fresh(t, on, patient())
		now := store.Time(time.Now())
		if err := backend.Enqueue(t.Context(), []store.Notice{noticeFor("app", "alice", now)}); err != nil {
			t.Fatal(err)
		}
		for attempt := 1; attempt < 4; attempt++ {
			n, err := backend.Claim(t.Context(), store.NoticeLogout, "app", now, time.Minute, 10)
			if err != nil || len(n) != 1 || n[0].Attempts != attempt {
				t.Fatalf("claimed %+v (error %v), want attempt %d", n, err, attempt)
			}
			if err := backend.Complete(t.Context(), n[0], store.Outcome{RetryAt: n[0].Due}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestRedisKeepsARefreshTokenADayLonger(t *testing.T) {
	t.Parallel()
	backend := fresh(t, single, patient())
	c := adminOf(t, single.Own(t).Nodes[0])
	now := store.Time(time.Now())
	left := func(r store.Record) time.Duration {
		m := do(t, c, "PTTL", backend.Start(r.Key)+"s"+string(r.Key[:]))
		ms, err := m.AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		return (time.Duration(ms) * time.Millisecond).Round(time.Hour)
	}
	r := recordOf("alice", "s1", now) // for an hour
	mustCreate(t, backend, r, now)
	if got := left(r); got != 2*time.Hour {
		t.Errorf("kept for %v, want 2 h", got)
	}
	r.Refresh = store.RefreshOnline
	if err := backend.Update(t.Context(), r, now); err != nil {
		t.Fatal(err)
	}
	if got := left(r); got != 25*time.Hour {
		t.Errorf("with a refresh token kept for %v, want 25 h", got)
	}
}
