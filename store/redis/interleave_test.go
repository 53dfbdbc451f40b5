package redis_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
	"example.com/curfew/store/storetest"
)

// fresh opens a store under a prefix of its own, and closes it with the test.
func fresh(t testing.TB, on *servers.Shared, o redis.Options) *redis.Store {
	t.Helper()
	url := on.Get(t).URL
	o.Prefix = prefix()
	backend := open(t, url, o)
	t.Cleanup(func() { backend.Close() })
	return backend
}

// twins opens two stores on the same keys: one that is patient, and one whose time, and with that its claims, run out
// soon. The hasty one does not wait for replicas: these tests are about claims.
func twins(t testing.TB, on *servers.Shared, soon time.Duration) (patient, hasty *redis.Store) {
	t.Helper()
	url, o := on.Get(t).URL, redis.Options{Prefix: prefix(), DialTimeout: time.Minute}
	for _, backend := range []**redis.Store{&patient, &hasty} {
		o.Timeout = time.Minute
		if backend == &hasty {
			o.Timeout, o.WaitReplicas = soon, -1
		}
		*backend = open(t, url, o)
		t.Cleanup(func() { (*backend).Close() })
	}
	return patient, hasty
}

// onBoth runs a test on one server and on a Cluster.
func onBoth(t *testing.T, test func(t *testing.T, on *servers.Shared)) {
	for name, on := range map[string]*servers.Shared{"one server": single, "a Cluster": cluster} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, on) })
	}
}

// orders are all ways in which a steps of one and b of another can follow one another.
func orders(a, b int) (all []string) {
	if a == 0 && b == 0 {
		return []string{""}
	}
	if a > 0 {
		for _, rest := range orders(a-1, b) {
			all = append(all, "C"+rest)
		}
	}
	if b > 0 {
		for _, rest := range orders(a, b-1) {
			all = append(all, "E"+rest)
		}
	}
	return all
}

func TestALoginAndALogoutOfItsSidInEveryOrderOfTheirSteps(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		backend := fresh(t, on, patient())
		// later than Redis's own time, which a mark may have too
		now := store.Time(time.Now().Add(store.AttemptLifetime))
		all := orders(2, 3)
		if on == single { // a login is one step there, and so is a logout, unless the sid is that of several subjects
			all = append(orders(1, 3), orders(1, 1)...)
		}
		for i, order := range all {
			for _, began := range []time.Duration{-time.Minute, 0, time.Microsecond} {
				name := fmt.Sprintf("%s, login began %v after the logout", order, began)
				// Subjects are many, so that the sid's slot and the subject's are not always the same.
				subject, sid := fmt.Sprint("user", i, began), fmt.Sprint("sid", i, began)
				r := recordOf(subject, sid, now)
				e := tokenOf(store.Selector{SID: sid}, sid, now)
				creates := backend.CreateSteps(t.Context(), r, now.Add(began))
				begin, endTags, confirm := backend.EndSteps(t.Context(), e, now)
				var ended []store.Ended
				var created error
				ends := []func() error{begin, func() (err error) { ended, err = endTags(); return err }, confirm}
				if strings.Count(order, "E") == 1 {
					ends = []func() error{func() (err error) { ended, err = backend.End(t.Context(), e, now); return err }}
				}
				for _, step := range order {
					if step == 'E' {
						if err := ends[0](); err != nil {
							t.Fatalf("%s: a step of the logout: %v", name, err)
						}
						ends = ends[1:]
					} else if created == nil {
						created = creates[0]()
						creates = creates[1:]
					}
				}
				if created != nil && !errors.Is(created, store.ErrEnded) {
					t.Fatalf("%s: a step of the login: %v", name, created)
				}
				_, err := backend.Find(t.Context(), r.Key, now)
				alive := err == nil
				if err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Fatalf("%s: Find: %v", name, err)
				}
				switch {
				case began <= 0 && alive:
					t.Errorf("%s: the session lives", name)
				case began > 0 && created != nil:
					t.Errorf("%s: the login was refused: %v", name, created)
				case alive != (created == nil && len(ended) == 0):
					t.Errorf("%s: alive: %v, login: %v, %d ended", name, alive, created, len(ended))
				}
			}
		}
	})
}

// A session is renamed from a to b, there and back, or from c to b when it had a before, while a logout of a, or of b,
// comes.
func TestARenameAndALogoutOfAnyOfItsSidsInEveryOrderOfTheirSteps(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		backend := fresh(t, on, patient())
		// later than Redis's own time, which a mark may have too
		now := store.Time(time.Now().Add(store.AttemptLifetime))
		renaming := 2
		if on == single {
			renaming = 1
		}
		for i, order := range orders(renaming, 3) {
			for _, had := range []string{"a", "b a", "a c"} {
				for _, named := range []string{"a", "b"} {
					for _, began := range []time.Duration{0, time.Microsecond} {
						name := fmt.Sprintf("%s, %q becomes b, began %v after the logout of %s", order, had, began,
							named)
						sid := func(s string) string { return fmt.Sprint(i, had, named, began, " ", s) }
						r := recordOf(fmt.Sprint("user", i, had, named, began), "", now)
						sids := strings.Fields(had)
						r.SID = sid(sids[len(sids)-1])
						for _, s := range sids[:len(sids)-1] {
							r.Former = append(r.Former, sid(s))
						}
						mustCreate(t, backend, r, now.Add(-time.Minute))
						next := r
						next.SID, next.Former = sid("b"), nil
						for _, s := range sids {
							if s != "b" {
								next.Former = append(next.Former, sid(s))
							}
						}
						e := tokenOf(store.Selector{SID: sid(named)}, sid("jti"), now)
						renames := backend.RenameSteps(t.Context(), next, now.Add(began), now)
						begin, endTags, confirm := backend.EndSteps(t.Context(), e, now)
						var ended []store.Ended
						var renamed error
						ends := []func() error{begin, func() (err error) { ended, err = endTags(); return err },
							confirm}
						for _, step := range order {
							if step == 'E' {
								if err := ends[0](); err != nil {
									t.Fatalf("%s: a step of the logout: %v", name, err)
								}
								ends = ends[1:]
							} else if renamed == nil {
								renamed = renames[0]()
								renames = renames[1:]
							}
						}
						if renamed != nil && !errors.Is(renamed, store.ErrEnded) &&
							!errors.Is(renamed, store.ErrNotFound) {
							t.Fatalf("%s: a step of the rename: %v", name, renamed)
						}
						_, err := backend.Find(t.Context(), r.Key, now)
						alive := err == nil
						if err != nil && !errors.Is(err, store.ErrNotFound) {
							t.Fatalf("%s: Find: %v", name, err)
						}
						switch {
						case (r.HasSID(sid(named)) || began <= 0 && renamed == nil) && alive:
							t.Errorf("%s: the session lives", name)
						case alive != (len(ended) == 0):
							t.Errorf("%s: alive: %v, %d ended", name, alive, len(ended))
						case alive && renamed == nil && began <= 0:
							t.Errorf("%s: it has the new sid in spite of the logout", name)
						}
						if _, err := backend.End(t.Context(), endingOf(store.Selector{Subject: r.Subject}),
							now); err != nil {
							t.Fatal(err)
						}
						if left, err := backend.FormerSIDs(t.Context(), r.Key); err != nil || left != 0 {
							t.Errorf("%s: %d former sids are left in the index (error %v)", name, left, err)
						}
					}
				}
			}
		}
	})
}

func TestALogoutOfASidThatCrashedBetweenItsStepsCanBeSentAgain(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		for crash := range 3 {
			// The claim of the one that crashed runs out soon; the provider that tries again is patient.
			backend, crashes := twins(t, on, 500*time.Millisecond)
			now := store.Time(time.Now())
			r := recordOf("alice", "s1", now)
			mustCreate(t, backend, r, now)
			e := tokenOf(store.Selector{SID: "s1"}, "j1", now)
			e.Notices = []store.NoticeRequest{{Kind: store.NoticeLogout, Target: "app", Deadline: now.Add(time.Hour)}}
			begin, endTags, confirm := crashes.EndSteps(t.Context(), e, now)
			steps := []func() error{begin, func() error { _, err := endTags(); return err }, confirm}
			for _, step := range steps[:crash] {
				if err := step(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := backend.End(t.Context(), e, now); err != nil {
				t.Fatalf("after a crash after %d steps: %v", crash, err)
			}
			if _, err := backend.Find(t.Context(), r.Key, now); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("after a crash after %d steps and a retry: Find: %v", crash, err)
			}
			if _, err := backend.End(t.Context(), e, now); !errors.Is(err, store.ErrReplayed) {
				t.Errorf("the token sent again after success: %v, want a replay", err)
			}
			notices, err := storetest.ClaimAll(t.Context(), backend, now, time.Minute, 10)
			if err != nil || len(notices) != 1 {
				t.Errorf("%d notices (error %v), want 1: not lost, not twice", len(notices), err)
			}
			if crash > 0 {
				if err := confirm(); err == nil {
					t.Error("who lost the claim could confirm all the same")
				}
			}
		}
	})
}

func TestAnEndingWaitsForAnotherThatHasClaimedItsJTI(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		first, hasty := twins(t, on, 200*time.Millisecond)
		// later than Redis's own time, which a mark may have too
		now := store.Time(time.Now().Add(store.AttemptLifetime))
		for _, w := range []store.Selector{{SID: "s1"}, {Subject: "alice", SID: "s1"}} {
			r := recordOf("alice", "s1", now)
			rig.Must(t, first.Create(t.Context(), r, now, now))
			e := tokenOf(w, "j"+w.Subject, now)
			begin, endTags, confirm := first.EndSteps(t.Context(), e, now)
			rig.Must(t, begin())
			if _, err := hasty.End(t.Context(), e, now); err == nil || errors.Is(err, store.ErrReplayed) {
				t.Errorf("%+v: End while another has claimed the jti: %v, want that it is not done", w, err)
			}
			if _, err := first.Find(t.Context(), r.Key, now); err != nil {
				t.Errorf("%+v: Find before the first has ended it: %v", w, err)
			}
			if ended, err := endTags(); err != nil || len(ended) != 1 {
				t.Errorf("%+v: the first: %d ended, %v", w, len(ended), err)
			}
			rig.Must(t, confirm())
			now = now.Add(time.Second) // past the marks
		}
	})
}

func TestWhoLostTheClaimOfAJTIDoesNotAnswerDone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		backend, slow := twins(t, on, 500*time.Millisecond)
		now := store.Time(time.Now())
		e := tokenOf(store.Selector{SID: "s1"}, "j1", now)
		beginSlow, _, confirmSlow := slow.EndSteps(t.Context(), e, now)
		if err := beginSlow(); err != nil {
			t.Fatal(err)
		}
		begin, _, confirm := backend.EndSteps(t.Context(), e, now)
		if err := begin(); err != nil { // waits until the claim of the slow one has run out
			t.Fatal(err)
		}
		if err := confirmSlow(); err == nil || errors.Is(err, store.ErrReplayed) {
			t.Errorf("the slow one, while another is at it: %v", err)
		}
		if err := confirm(); err != nil {
			t.Errorf("the other: %v", err)
		}
		if err := confirmSlow(); !errors.Is(err, store.ErrReplayed) {
			t.Errorf("the slow one, after the other: %v", err)
		}
	})
}

func TestTwoPeopleWithOneTagAreTwoPeople(t *testing.T) {
	t.Parallel()
	one, two := oneTag()
	backend := fresh(t, single, patient())
	// later than the server's own time, which a mark may have too
	now := store.Time(time.Now().Add(store.AttemptLifetime))
	shapes := map[string]func(string) store.Selector{
		"a subject": func(s string) store.Selector { return store.Selector{Subject: s} },
		"both":      func(s string) store.Selector { return store.Selector{Subject: s, SID: "s2"} },
	}
	for name, who := range shapes {
		a, b := recordOf(one, "", now), recordOf(two, "s1", now)
		mustCreate(t, backend, a, now)
		mustCreate(t, backend, b, now)
		if ended, err := backend.End(t.Context(), endingOf(who(one)), now); err != nil || len(ended) != 1 ||
			ended[0].Key != a.Key {
			t.Errorf("%s: ended %v (error %v), want one", name, ended, err)
		}
		if _, err := backend.Find(t.Context(), b.Key, now); err != nil {
			t.Errorf("%s: the other: %v", name, err)
		}
		page, err := backend.List(t.Context(), store.Query{Issuer: rig.Issuer, ClientID: rig.ClientID,
			Subject: one}, now)
		if err != nil || len(page.Records) != 0 {
			t.Errorf("%s: %d listed (error %v), want none", name, len(page.Records), err)
		}
		if ended, err := backend.End(t.Context(), endingOf(store.Selector{SID: "s1"}), now); err != nil ||
			len(ended) != 1 {
			t.Errorf("%s: a sid ended %d (error %v), want the one that is left", name, len(ended), err)
		}
		now = now.Add(time.Second)
	}
}

// oneTag finds two subjects whose tags are the same.
func oneTag() (string, string) {
	seen := make(map[[4]byte]string)
	for i := 0; ; i++ {
		subject := fmt.Sprint("user", i)
		tag := store.Tag(rig.Issuer, rig.ClientID, subject)
		if other, ok := seen[tag]; ok {
			return other, subject
		}
		seen[tag] = subject
	}
}

func TestOfManyEndingsOfASidWithOneJTIOneSucceeds(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		backend := fresh(t, on, patient())
		now := store.Time(time.Now())
		for i := range 10 { // several people with one sid
			mustCreate(t, backend, recordOf(fmt.Sprint("user", i), "s1", now), now)
		}
		e := tokenOf(store.Selector{SID: "s1"}, "j1", now)
		done, replayed, ended := endTogether(t, backend, 16, func(int) store.Ending { return e }, now)
		if done != 1 || replayed != 15 || ended != 10 {
			t.Errorf("%d succeeded, %d were replays, %d sessions ended; want 1, 15, 10", done, replayed, ended)
		}
	})
}

func TestOfManyEndingsOfDifferentPeopleWithOneJTIOneSucceeds(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		backend := fresh(t, on, patient())
		now := store.Time(time.Now())
		for i := range 16 {
			mustCreate(t, backend, recordOf(fmt.Sprint("user", i), "s1", now), now)
		}
		done, replayed, ended := endTogether(t, backend, 16, func(i int) store.Ending {
			e := endingOf(store.Selector{Subject: fmt.Sprint("user", i)})
			if i%4 == 3 {
				e.Selector.Subject, e.Selector.SID = "", fmt.Sprint("another", i)
			}
			e.JTI, e.JTIExpires = "j1", now.Add(time.Hour)
			return e
		}, now)
		if done != 1 || replayed != 15 || ended > 1 {
			t.Errorf("%d succeeded, %d were replays, %d sessions ended; want 1, 15 and one at most", done, replayed,
				ended)
		}
	})
}

func TestAJTIWhoseEndingCrashedIsFreeForAnother(t *testing.T) {
	t.Parallel()
	backend, crashes := twins(t, cluster, 500*time.Millisecond)
	now := store.Time(time.Now())
	first, second := endingOf(store.Selector{Subject: "alice"}), endingOf(store.Selector{Subject: "bob"})
	first.JTI, first.JTIExpires = "j1", now.Add(time.Hour)
	second.JTI, second.JTIExpires = "j1", now.Add(time.Hour)
	if err := crashes.Bind(t.Context(), first, now); err != nil {
		t.Fatal(err)
	}
	bob := recordOf("bob", "", now)
	mustCreate(t, backend, bob, now)
	// A replay that follows a try which took too long says that the try was carried out after all.
	err := endSoon(t, crashes, second, now)
	if _, alive := backend.Find(t.Context(), bob.Key, now); err != nil && !errors.Is(alive, store.ErrNotFound) {
		t.Fatalf("an ending that was never carried out has used the jti up: %v, Find: %v", err, alive)
	}
	if _, err := backend.End(t.Context(), first, now); !errors.Is(err, store.ErrReplayed) {
		t.Errorf("the first after all: %v, want a replay", err)
	}
}

func TestASessionThatLivesLongerIsStillFoundByItsSid(t *testing.T) {
	t.Parallel()
	backend := fresh(t, single, patient())
	c := adminOf(t, single.Own(t).Nodes[0])
	now := store.Time(time.Now())
	r := recordOf("alice", "s0", now)
	mustCreate(t, backend, r, now)
	r.SID, r.Former = "s1", []string{"s0"}
	if err := backend.Rename(t.Context(), r, now, now); err != nil {
		t.Fatal(err)
	}
	r.Revision++
	left := func() time.Duration { // of the one that is kept for less
		var least int64
		for _, sid := range []string{"s0", "s1"} {
			m := do(t, c, "PTTL", backend.PointerOf(rig.Issuer, rig.ClientID, sid))
			ms, err := m.AsInt64()
			if err != nil {
				t.Fatal(err)
			}
			if least == 0 || ms < least {
				least = ms
			}
		}
		return time.Duration(least) * time.Millisecond
	}
	if d := left(); d < time.Hour+2*time.Hour {
		t.Errorf("the pointer is kept for %v, the session for an hour and a margin", d)
	}
	r.IdleExpires, r.Expires = now.Add(200*time.Hour), now.Add(100*time.Hour)
	if err := backend.Update(t.Context(), r, now); err != nil {
		t.Fatal(err)
	}
	if d := left(); d < 102*time.Hour {
		t.Errorf("the pointer is kept for %v, the session for 100 hours and a margin", d)
	}
	r.Revision++
	r.Expires = now.Add(100*time.Hour + time.Minute)
	before := left()
	if err := backend.Update(t.Context(), r, now); err != nil {
		t.Fatal(err)
	}
	if left() > before {
		t.Error("a minute more was not worth a second step")
	}
	ended, err := backend.End(t.Context(), endingOf(store.Selector{SID: "s0"}), now.Add(100*time.Hour))
	if err != nil || len(ended) != 1 {
		t.Errorf("%d ended (error %v), want 1", len(ended), err)
	}
}

func mustCreate(t testing.TB, backend *redis.Store, r store.Record, now time.Time) {
	t.Helper()
	if err := backend.Create(t.Context(), r, now, now); err != nil {
		t.Fatalf("Create: %v", err)
	}
}

// endTogether carries out n endings at once.
func endTogether(t *testing.T, backend *redis.Store, n int, of func(int) store.Ending, now time.Time) (done, replayed,
	ended int32) {
	t.Helper()
	var all sync.WaitGroup
	var d, r, s atomic.Int32
	for i := range n {
		all.Go(func() {
			gone, err := backend.End(t.Context(), of(i), now)
			s.Add(int32(len(gone)))
			switch {
			case err == nil:
				d.Add(1)
			case errors.Is(err, store.ErrReplayed):
				r.Add(1)
			default:
				t.Errorf("End: %v", err)
			}
		})
	}
	all.Wait()
	return d.Load(), r.Load(), s.Load()
}

func TestAJTIIsRememberedAsLongAsItWasRecordedWhateverIsTriedMeanwhile(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, on *servers.Shared) {
		backend := fresh(t, on, patient())
		start := store.Time(time.Now())
		end := func(subject, jti string, after, lives time.Duration, want error) {
			t.Helper()
			e := endingOf(store.Selector{Subject: subject})
			e.JTI, e.JTIExpires = jti, start.Add(after+lives)
			if _, err := backend.End(t.Context(), e, start.Add(after)); !errors.Is(err, want) {
				t.Errorf("%s, %s after %v: got error %v, want %v", subject, jti, after, err, want)
			}
		}
		prune := func(after time.Duration) {
			for {
				if n, err := backend.Prune(t.Context(), start.Add(after)); err != nil || n == 0 {
					break
				}
			}
		}
		const m = time.Minute
		// A replay that would run out sooner changes nothing.
		end("alice", "j1", 0, 10*m, nil)
		end("alice", "j1", m, 0, store.ErrReplayed)
		end("bob", "j1", 2*m, m, store.ErrReplayed)
		prune(11 * m)
		end("bob", "j1", 11*m, m, nil)
		// Nor does one that would run out later, also when the record is gone.
		end("alice", "j2", 0, m, nil)
		end("alice", "j2", 0, 100*m, store.ErrReplayed)
		prune(2 * m)
		end("bob", "j2", 2*m, 10*m, nil)
		end("alice", "j2", 3*m, m, store.ErrReplayed)
		// One that crashed before it was carried out would have run out sooner than the one that was.
		e := endingOf(store.Selector{Subject: "alice"})
		e.JTI, e.JTIExpires = "j3", start.Add(m)
		if err := backend.Bind(t.Context(), e, start); err != nil {
			t.Fatal(err)
		}
		end("alice", "j3", 0, 10*m, nil)
		end("bob", "j3", 5*m, m, store.ErrReplayed)
	})
}
