//go:build unix

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// report is what came of a run on one store.
type report struct {
	Store      string           `json:"store"`
	Replicas   int              `json:"replicas"`
	Seconds    float64          `json:"seconds"`
	Operations int64            `json:"operations"`
	Counts     map[string]int64 `json:"counts"`
	Faults     map[string]int   `json:"faults"`
	Violations int              `json:"violations"`
	Before     []vitals         `json:"before"`
	After      []vitals         `json:"after"`
}

func (s *soak) counted() map[string]int64 {
	c := &s.counts
	return map[string]int64{
		"sign_ins": c.signIns.Load(), "checks": c.checks.Load(), "refreshes": c.refreshes.Load(),
		"logouts": c.logouts.Load(), "logins_begun": c.others.Load(), "answered_503": c.busy.Load(),
		"not_answered": c.lost.Load(), "histories": c.histories.Load(), "checks_of_a_copy": c.stale.Load(),
		"logins_refused_early": c.early.Load(),
	}
}

// soakFor is how long a run on all stores takes: SOAK, or a few seconds on each.
func soakFor(t *testing.T) (long bool, each time.Duration) {
	text := os.Getenv("SOAK")
	if text == "" {
		return false, 4 * time.Second
	}
	all, err := time.ParseDuration(text)
	if err != nil || all <= 0 {
		t.Fatalf("SOAK: %q is not a duration", text)
	}
	return true, all / time.Duration(len(stages()))
}

// The three promises, while everything breaks: see history_test.go. SOAK=30m makes it long, see docs/soak.md.
func TestThePromisesHoldWhateverBreaks(t *testing.T) {
	t.Parallel()
	long, each := soakFor(t)
	program := ""
	if long {
		program = skewed(t)
	}
	reports := make([]*report, len(stages()))
	t.Run("stores", func(t *testing.T) {
		for i, st := range stages() {
			t.Run(st.name, func(t *testing.T) {
				if !long {
					t.Parallel()
				}
				reports[i] = soaked(t, st, each, program)
			})
		}
	})
	var total int64
	for _, r := range reports {
		if r != nil {
			total += r.Operations
		}
	}
	text, err := json.MarshalIndent(reports, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s\n%d operations in all", text, total)
}

// soaked runs one store: half of the time with all faults, and half without the death of a replica, so that what leaks
// in one of them is seen.
func soaked(t *testing.T, st stage, each time.Duration, program string) *report {
	url, nodes, more := st.start(t)
	for _, n := range nodes {
		n.Own()
	}
	s := newSoak(t, url, st.replicas, 20_000)
	s.lossy, s.alone, s.fails = st.lossy, st.replicas == 1, st.masters > 0
	atOnce := 8
	if program != "" {
		s.apart(program)
		s.rest, atOnce = 10*time.Second, 128
	}
	troubles := append(more(s), s.suspended())
	r := &report{Store: st.name, Replicas: st.replicas, Faults: s.happened}
	s.run()
	began := time.Now()
	s.began = began
	if st.masters > 0 {
		s.watchMasters(nodes, st.masters)
	}
	wait := s.crowd(atOnce)
	s.haunt(time.Now().Add(each/2), append(troubles[:len(troubles):len(troubles)], s.killed()))
	for _, g := range s.gs {
		v, err := s.vitals(g)
		if err != nil {
			t.Fatal(err)
		}
		r.Before = append(r.Before, v)
	}
	s.haunt(time.Now().Add(each/2), troubles)
	s.stop.Store(true)
	wait()
	s.close()
	r.Seconds, r.Operations, r.Counts = time.Since(began).Seconds(), s.counts.operations(), s.counted()
	r.Violations = len(s.bad)
	r.After = s.settled(r.Before)
	if n := s.counts.histories.Load(); n == 0 {
		t.Errorf("%d histories were checked: the test does not test that", n)
	}
	runtime.GC()
	return r
}

// settled waits until each replica uses no more than before, with what a busy moment then may have hidden.
func (s *soak) settled(before []vitals) (after []vitals) {
	s.t.Helper()
	after = make([]vitals, len(before))
	for i, g := range s.gs {
		eventually(s.t, fmt.Sprintf("replica %d uses what it did before", i), func() string {
			v, err := s.vitals(g)
			if err != nil {
				return err.Error()
			}
			after[i] = v
			b := before[i]
			return unless(v.Goroutines <= b.Goroutines+20 && v.Files <= b.Files+20 && v.RSSMiB <= 1.5*b.RSSMiB+48,
				"%+v, and before %+v", v, b)
		})
	}
	return after
}
