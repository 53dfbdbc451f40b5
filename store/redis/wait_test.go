package redis

import (
	"log/slog"
	"testing"
)

// Each step is a check that finds these replicas, up or down, so many intervals of ten seconds after the one before.
func TestAReplicaIsWaitedForUntilItHasBeenDownForAMinute(t *testing.T) {
	t.Parallel()
	s := &Store{log: slog.New(slog.DiscardHandler), replicas: replicas{auto: true, need: map[string]bool{},
		up: map[string]seen{}}}
	for _, step := range []struct {
		what     string
		after    int
		replicas map[string]bool
		want     int
	}{
		{"none yet", 0, map[string]bool{}, 0},
		{"one that was never up", 0, map[string]bool{"a": false}, 1},
		{"both up", 0, map[string]bool{"a": true, "b": true}, 2},
		{"one is down", 3, map[string]bool{"a": true, "b": false}, 2},
		{"and back", 3, map[string]bool{"a": true, "b": true}, 2},
		{"and down for a minute", 6, map[string]bool{"a": true, "b": false}, 2},
		{"for more than a minute", 1, map[string]bool{"a": true, "b": false}, 1},
		{"all down for more than a minute", 7, map[string]bool{"a": false, "b": false}, 1},
		{"both up again", 0, map[string]bool{"a": true, "b": true}, 2},
		{"one has become the master", 0, map[string]bool{"b": true, "old": false}, 1},
		{"none is known any more", 0, map[string]bool{}, 1},
	} {
		s.replicas.now += step.after
		s.learn(t.Context(), map[string]bool{"": true}, map[string]bool{"": len(step.replicas) > 0},
			map[string]map[string]bool{"": step.replicas}, [buckets]string{}, nil)
		if n, known := s.replicas.required(""); n != step.want || !known && n == 0 {
			t.Errorf("%s: %d replicas are waited for, want %d", step.what, n, step.want)
		}
	}
}
