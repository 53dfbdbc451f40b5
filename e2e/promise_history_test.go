//go:build unix

package e2e_test

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// Each row is a history in milliseconds. What is promised passes, and what is not does not.
func TestAHistoryIsRightExactlyWhenItKeepsThePromises(t *testing.T) {
	t.Parallel()
	const ms = int64(time.Millisecond)
	const yes, no, in, out = http.StatusOK, http.StatusUnauthorized, http.StatusSeeOther, http.StatusConflict
	begin := func(s int, from, to int64) deed {
		return deed{action: begins, session: s, from: from * ms, to: to * ms, status: in}
	}
	back := func(s, status int, from, to int64) deed {
		return deed{action: returns, session: s, status: status, from: from * ms, to: to * ms}
	}
	check := func(s, replica, status int, from, to int64) deed {
		return deed{action: checks, session: s, replica: replica, status: status, from: from * ms, to: to * ms}
	}
	logout := func(sid string, replica int, from, to int64) deed {
		d := deed{action: ends, sid: sid, replica: replica, from: from * ms, to: never}
		if to > 0 {
			d.to, d.status = to*ms, yes
		}
		return d
	}
	only := func(d deed, session int) deed { d.only = session + 1; return d }
	// Two sessions are used all the time, at a replica that has copies, while the logout of one of them goes on.
	busy := func(last ...deed) []deed {
		all := []deed{begin(0, 0, 1), back(0, in, 2, 3), begin(1, 4, 5), back(1, in, 6, 7), logout("a", 0, 8, 5000)}
		for at := int64(1500); at < 4500; at += 30 {
			all = append(all, check(0, 1, yes, at, at+20), check(1, 1, yes, at+5, at+25))
		}
		return append(all, last...)
	}
	crash := func(from, to int64) deed { return deed{action: crashes, from: from * ms, to: to * ms} }
	for _, row := range []struct {
		name  string
		deeds []deed
		right bool
	}{
		{"signed in", []deed{begin(0, 0, 1), back(0, in, 2, 3), check(0, 0, yes, 4, 5)}, true},
		{"refused without a logout", []deed{begin(0, 0, 1), back(0, in, 2, 3), check(0, 0, no, 4, 5)}, false},
		{"dead at the replica that answered", []deed{begin(0, 0, 1), back(0, in, 2, 3), logout("a", 0, 4, 5),
			check(0, 0, no, 6, 7)}, true},
		{"served by the replica that answered", []deed{begin(0, 0, 1), back(0, in, 2, 3), logout("a", 0, 4, 5),
			check(0, 0, yes, 6, 7)}, false},
		{"served by another, within the ceiling", []deed{begin(0, 0, 1), back(0, in, 2, 3), logout("a", 0, 4, 5),
			check(0, 1, yes, 900, 901)}, true},
		{"served by another, later than that", []deed{begin(0, 0, 1), back(0, in, 2, 3), logout("a", 0, 4, 5),
			check(0, 1, yes, 1006, 1007)}, false},
		{"served by another, which has refused it before", []deed{begin(0, 0, 1), back(0, in, 2, 3),
			logout("a", 0, 4, 5), check(0, 1, no, 6, 7), check(0, 1, yes, 1008, 1009)}, false},
		{"served by another, which has answered a second logout", []deed{begin(0, 0, 1), back(0, in, 2, 3),
			logout("a", 0, 4, 5), logout("", 1, 6, 7), check(0, 1, yes, 8, 9)}, false},
		{"asked before the answer", []deed{begin(0, 0, 1), back(0, in, 2, 3), logout("a", 0, 4, 50),
			check(0, 0, yes, 10, 60)}, true},
		{"served from a copy while a logout is carried out", []deed{begin(0, 0, 1), back(0, in, 2, 3), begin(2, 0, 1),
			back(2, in, 2, 3), logout("a", 0, 4, 50), check(0, 0, no, 10, 11), check(2, 1, yes, 20, 21)}, true},
		{"a logout without success was carried out", []deed{begin(0, 0, 1), back(0, in, 2, 3), logout("a", 0, 4, 0),
			check(0, 0, no, 6, 7)}, true},
		{"a logout without success was not", []deed{begin(0, 0, 1), back(0, in, 2, 3), logout("a", 0, 4, 0),
			check(0, 0, yes, 6, 7)}, true},
		{"a logout without success was undone", []deed{begin(0, 0, 1), back(0, in, 2, 3), logout("a", 0, 4, 0),
			check(0, 0, no, 6, 7), check(0, 0, yes, 1008, 1009)}, false},
		{"a logout without success was half done", []deed{begin(0, 0, 1), back(0, in, 2, 3), begin(1, 0, 1),
			back(1, in, 2, 3), logout("", 0, 4, 0), check(0, 0, no, 6, 7), check(1, 0, yes, 1008, 1009)}, false},
		{"two of one sid", []deed{begin(0, 0, 1), back(0, in, 2, 3), begin(2, 0, 1), back(2, in, 2, 3),
			logout("a", 0, 4, 5), check(0, 0, no, 6, 7), check(2, 0, no, 6, 7)}, true},
		{"another sid dies too", []deed{begin(0, 0, 1), back(0, in, 2, 3), begin(1, 0, 1), back(1, in, 2, 3),
			logout("a", 0, 4, 5), check(1, 0, no, 6, 7)}, false},
		{"one of two of a sid ends", []deed{begin(0, 0, 1), back(0, in, 2, 3), begin(2, 0, 1), back(2, in, 2, 3),
			only(logout("", 0, 4, 5), 0), check(0, 0, no, 6, 7), check(2, 0, yes, 6, 7)}, true},
		{"a login under way is barred", []deed{begin(0, 0, 1), logout("a", 0, 4, 5), back(0, out, 6, 7)}, true},
		{"a login under way comes in", []deed{begin(0, 0, 1), logout("a", 0, 4, 5), back(0, in, 6, 7)}, false},
		{"a login overlaps a logout", []deed{begin(0, 0, 5), logout("a", 0, 4, 8), back(0, in, 9, 10)}, true},
		{"a login comes in and is ended", []deed{begin(0, 0, 1), logout("a", 0, 4, 9), back(0, in, 6, 7),
			check(0, 0, no, 10, 11)}, true},
		{"a login comes in while a logout runs, and stays", []deed{begin(0, 0, 1), logout("a", 0, 4, 9),
			back(0, in, 6, 7), check(0, 0, yes, 10, 11)}, false},
		{"refused just after a logout", []deed{logout("a", 0, 0, 1), begin(0, 2, 3), back(0, out, 4, 5)}, true},
		{"refused long after a logout", []deed{logout("a", 0, 0, 1), begin(0, 3000, 3001), back(0, out, 3002, 3003)},
			false},
		{"refused without any logout", []deed{begin(0, 2, 3), back(0, out, 4, 5)}, false},
		{"lost with the memory", []deed{begin(0, 0, 1), back(0, in, 2, 3), begin(1, 0, 1), crash(4, 5),
			check(0, 0, no, 6, 7), back(1, out, 6, 7)}, true},
		{"a sign-in is lost in a failover", []deed{begin(0, 5000, 5001), back(0, in, 5002, 5003),
			check(0, 0, no, 5004, 5005)}, true},
		{"a sign-in during a failover is kept", []deed{begin(0, 5000, 5001), back(0, in, 5002, 5003),
			check(0, 0, yes, 65000, 65001)}, true},
		{"a former master does not know who has signed in", []deed{begin(0, 5000, 5001), back(0, in, 5002, 5003),
			check(0, 0, no, 5004, 5005), check(0, 0, yes, 7000, 7001)}, true},
		{"a logout without success is undone by a failover", []deed{begin(0, 0, 1), back(0, in, 2, 3),
			logout("a", 0, 5000, 0), check(0, 0, no, 5001, 5002), check(0, 0, yes, 16000, 16001)}, true},
		{"a logout without success is undone long after a failover", []deed{begin(0, 0, 1), back(0, in, 2, 3),
			logout("a", 0, 5000, 0), check(0, 0, no, 16000, 16001), check(0, 0, yes, 18000, 18001)}, false},
		{"a sign-in is lost in a failover, and comes back", []deed{begin(0, 5000, 5001), back(0, in, 5002, 5003),
			check(0, 0, no, 15020, 15021), check(0, 0, yes, 17000, 17001)}, false},
		{"a sign-in from long before a failover is lost", []deed{begin(0, 0, 1), back(0, in, 2, 3),
			check(0, 0, no, 16000, 16001)}, false},
		{"a logout during a failover is undone", []deed{begin(0, 5000, 5001), back(0, in, 5002, 5003),
			logout("a", 0, 5004, 5005), check(0, 0, yes, 5006, 5007)}, false},
		{"sent thirty times without success", append(slices.Repeat([]deed{logout("a", 0, 4, 0)}, 30), begin(0, 0, 1),
			back(0, in, 2, 3), check(0, 0, no, 6, 7), begin(2, 8, 9), back(2, in, 10, 11), check(2, 0, yes, 12, 13),
			check(2, 0, no, 14, 15)), true},
		{"sent thirty times without success, and undone", append(slices.Repeat([]deed{logout("a", 0, 4, 0)}, 30),
			begin(0, 0, 1), back(0, in, 2, 3), check(0, 0, no, 6, 7), begin(2, 8, 9), back(2, in, 10, 11),
			check(2, 0, no, 12, 13), check(2, 0, yes, 1500, 1501)), false},
		{"used while a logout goes on", busy(check(0, 1, no, 6001, 6002), check(1, 1, yes, 6003, 6004)), true},
		{"used while a logout goes on, and after it", busy(check(0, 1, yes, 6001, 6002)), false},
		{"used while a logout goes on, and refused between", busy(check(0, 1, no, 3000, 3001)), false},
		{"used while a logout of another goes on, and refused", busy(check(1, 1, no, 3700, 3701)), false},
		{"back after the memory was lost", []deed{begin(0, 0, 1), back(0, in, 2, 3), crash(4, 5),
			check(0, 0, yes, 6, 7)}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := &history{subject: "alice", sids: []string{"a", "b", "a"}, deeds: row.deeds}
			h.allow(limits{ceiling: ceiling, slack: 2 * time.Second,
				failovers: []fault{{from: 5000 * ms, to: 5010 * ms}}})
			got := h.check(h.needed())
			if want := map[bool]porcupine.CheckResult{true: porcupine.Ok, false: porcupine.Illegal}[row.right]; got != want {
				t.Errorf("porcupine says %s, want %s:\n%s", got, want, h.tell(h.deeds, nil))
			}
			if !row.right {
				short := h.shortest(h.needed())
				if h.check(short) != porcupine.Illegal {
					t.Errorf("the shortest history is right:\n%s", h.tell(short, nil))
				}
			}
		})
	}
}

// What is left out of a history changes nothing about whether it is right.
func TestWhatIsNotNeededOfAHistoryChangesNothing(t *testing.T) {
	t.Parallel()
	found := map[porcupine.CheckResult]int{}
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		h := &history{subject: "alice", sids: []string{"a", "b"}}
		span := func(most int64) (from, to int64) {
			from = r.Int64N(most)
			return from, from + 1 + r.Int64N(30)
		}
		for s := range h.sids {
			from, to := span(20)
			h.deeds = append(h.deeds, deed{action: begins, session: s, from: from, to: to, status: http.StatusSeeOther},
				deed{action: returns, session: s, from: to + 1, to: to + 2 + r.Int64N(20), status: http.StatusSeeOther})
		}
		for range 2 + r.IntN(7) {
			d := deed{action: checks, session: r.IntN(2), status: http.StatusOK}
			d.from, d.to = span(100)
			if d.from > 70 {
				d.status = http.StatusUnauthorized
			}
			h.deeds = append(h.deeds, d)
		}
		for range r.IntN(3) {
			d := deed{action: ends, sid: []string{"", "a", "b"}[r.IntN(3)]}
			if d.from, d.to = span(100); r.IntN(3) == 0 {
				d.to = never
			}
			h.deeds = append(h.deeds, d)
		}
		want := h.check(h.deeds)
		found[want]++
		if got := h.check(h.needed()); got != want {
			t.Fatalf("seed %d: %s, and what is needed of it %s:\n%s", seed, want, got, h.tell(h.deeds, nil))
		}
	}
	if found[porcupine.Ok] < 100 || found[porcupine.Illegal] < 100 {
		t.Errorf("they are nearly all the same: %v", found)
	}
}

// A front that answers 200 to a logout, and does not pass it on, breaks promise 1 now and then. The run finds it, and
// shows a login, the logout and a check, and nothing else.
func TestALogoutThatIsAnsweredAndNotCarriedOutIsFound(t *testing.T) {
	t.Parallel()
	s := newSoak(t, "memory:", 1, 1000)
	behind, err := url.Parse("http://" + s.gs[0].listen)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(behind)
		r.Out.Host = r.In.Host
	}}
	var logouts atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/backchannel-logout") && logouts.Add(1)%5 == 0 {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	s.alone, s.quick = true, true
	s.run()
	s.gs[0].front = strings.TrimPrefix(front.URL, "http://")
	wait := s.crowd(4)
	eventually(t, "a history breaks a promise", func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return unless(len(s.bad) > 0, "none of %d does", s.counts.histories.Load())
	})
	s.stop.Store(true)
	wait()
	v := s.bad[0]
	t.Log("the shortest of the first history that is wrong:\n" + v.text)
	var got []action
	for _, d := range v.shortest {
		got = append(got, d.action)
	}
	// It is served after the logout, or was barred by none.
	served, let := []action{begins, returns, ends, checks}, []action{begins, ends, returns}
	same := func(want []action) bool { return strings.Join(texts(got), ", ") == strings.Join(texts(want), ", ") }
	if !same(served) && !same(let) {
		t.Errorf("the history has %q, want %q or %q", got, served, let)
	}
	for _, wrong := range s.wrong {
		t.Error(wrong)
	}
}

func texts(all []action) (texts []string) {
	for _, a := range all {
		texts = append(texts, string(a))
	}
	return texts
}
